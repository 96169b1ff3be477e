"""Which rows of a store a head is evaluated on: all, or a part of the split that its file tells of."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeGuard

from features.rows.split import split_rows
from features.runtime.errors import InputError
from features.runtime.text import composed, printable
from features.store.reader import FeatureStore
from features.store.schema import Rows
from heads.files.metadata import HeadMetadata


class Part(StrEnum):
    """Which rows of the store."""

    ALL = "all"
    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


def check_fits(head: Path, metadata: HeadMetadata, store: FeatureStore) -> None:
    """Refuses a store whose features or classes are others than a head was trained on.

    What either side does not know (a converted store, a foreign head) is not compared.

    Raises:
        InputError: Naming the first field that differs.
    """
    differences = list(metadata.differences(store.header, if_known=True))
    if tuple(map(composed, metadata.classes)) != tuple(map(composed, store.classes)):
        differences.append(("classes", metadata.classes, store.classes))
    for name, ours, theirs in sorted(differences, key=lambda one: one[0] not in ("feature_shape", "classes")):
        raise InputError(store.path, field=name, expected=f"{_shown(ours)} as {head}", found=_shown(theirs))


def _shown(value: Any) -> str:
    if isinstance(value, tuple) and value and isinstance(value[0], str):
        names = ", ".join(printable(name) for name in value[:8]) + (", ..." if len(value) > 8 else "")
        return f"{len(value)} ({names})"
    return value[:16] if isinstance(value, str) and len(value) == 64 else f"{value}"


def rows_of(part: Part, head: Path, metadata: HeadMetadata, store: FeatureStore) -> Rows:
    """Returns the usable rows of a part; train, validation and test as the head's study split the store.

    Raises:
        InputError: The head's file does not say how, the store is another one, or the split cannot be made again.
    """
    if part is Part.ALL:
        return store.usable
    if metadata.split is None:
        hint = "--part all scores all rows"
        raise InputError(head, field="split", expected="how the store was split, for --part", found="none", hint=hint)
    if metadata.store_fingerprint != store.fingerprint:
        expected = f"{metadata.store_fingerprint[:16]}, the store that was split, for --part {part}"
        raise InputError(store.path, field="fingerprint", expected=expected, found=store.fingerprint[:16])
    seed, *shares = (metadata.split.get(name) for name in ("seed", "validation", "test"))
    if type(seed) is not int or seed < 0 or not _are_shares(shares):
        expected = "seed, validation, test and identity"
        raise InputError(head, field="split", expected=expected, found=json.dumps(metadata.split)[:80])
    validation, test = shares
    split = split_rows(store.usable, store.labels, store.patients, validation=validation, test=test, seed=seed)
    if split.identity != metadata.split.get("identity"):
        hint = "other rows are usable now, or another version of scikit-learn splits them"
        expected = f"split {metadata.split.get('identity')} as {head}"
        raise InputError(store.path, field="split", expected=expected, found=split.identity, hint=hint)
    rows: Rows = getattr(split, part)
    if not len(rows):
        raise InputError(store.path, field="split", expected=f"rows in part {part}", found="none")
    return rows


def _are_shares(values: list[Any]) -> TypeGuard[list[float]]:
    return all(type(value) in (int, float) and value >= 0 for value in values) and sum(values) < 1
