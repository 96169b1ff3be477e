"""Which rows of a store a head is evaluated on: all, or a part of the split that its file tells of."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from features.rows.given_parts import part_rows
from features.runtime.errors import InputError
from features.store.class_names import numbered_classes
from features.store.reader import FeatureStore
from features.store.relabelled import with_classes
from features.store.schema import Rows
from features.store.source import FeatureSource
from heads.files.metadata import HeadMetadata


class Part(StrEnum):
    """Which rows of the store."""

    ALL = "all"
    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


def fitted(head: Path, metadata: HeadMetadata, store: FeatureStore) -> FeatureSource:
    """Returns a store with the labels that a head's outputs have; refuses other features and classes.

    The store may lack classes of the head, or have them in another order; a compressed one is taken for what it was
    compressed from, see ``heads.files.projected.for_features_of``. What either side does not know (a converted
    store, a foreign head) is not compared.

    Raises:
        InputError: Naming the first field that differs, or the classes that the head does not know.
    """
    if metadata.feature_shape != store.header.of_backbone.feature_shape:
        require_same_kind(head, metadata, store)
    unnamed = metadata.classes == numbered_classes(len(metadata.classes))
    hint = "--classes names the head's outputs, where its file does not" if unnamed else None
    relabelled = with_classes(store, metadata.classes, known_to=str(head), hint=hint)
    require_same_kind(head, metadata, store)
    return relabelled


def require_same_kind(head: Path, metadata: HeadMetadata, store: FeatureStore) -> None:
    """Refuses a store of other features than a head takes, whatever its classes are.

    Raises:
        InputError: Naming the first field that differs, the shape before all others.
    """
    differences = metadata.differences(store.header.of_backbone, if_known=True)
    for name, ours, theirs in sorted(differences, key=lambda one: one[0] != "feature_shape"):
        raise InputError(store.path, field=name, expected=f"{_shown(ours)} as {head}", found=_shown(theirs))


def is_trained_on(metadata: HeadMetadata, store: FeatureSource) -> bool:
    """Whether this is the store that a head was trained on, or was compressed from that."""
    return is_one_of((metadata.store_fingerprint,), store)


def is_one_of(fingerprints: Collection[str | None], store: FeatureSource) -> bool:
    """Whether a store, or the one that it was compressed from, is among those of these fingerprints."""
    projection = store.header.projection
    return store.fingerprint in fingerprints or (projection is not None and projection.compressed_from in fingerprints)


def _shown(value: Any) -> str:
    return value[:16] if isinstance(value, str) and len(value) == 64 else f"{value}"


def rows_of(part: Part, head: Path, metadata: HeadMetadata, store: FeatureSource) -> Rows:
    """Returns the usable rows of a part; train, validation and test as the head's study split the store.

    In a store that the head was not trained on they are what the store itself says. In its own that counts for nothing:
    its study may have ignored these parts, or a table have told them afterwards.

    Raises:
        InputError: The head's file does not say how, the store is another one, the split cannot be made again, or the
            part has no rows.
    """
    if part is Part.ALL:
        return store.usable
    own = is_trained_on(metadata, store)
    if not own and part in store.header.parts:
        of_part: Rows = store.usable[np.asarray(store.header.parts)[store.usable] == part.value]
        return _some(of_part, part, store)
    hint = "--part all scores all rows"
    if metadata.split is None:
        raise InputError(head, field="split", expected="how the store was split, for --part", found="none", hint=hint)
    if not own:
        expected = f"{metadata.store_fingerprint[:16]}, the store that was split, for --part {part}"
        raise InputError(store.path, field="fingerprint", expected=expected, found=store.fingerprint[:16], hint=hint)
    told = metadata.split
    shares = {"validation": told.validation, "test": told.test}
    try:
        split = part_rows(store, **shares, seed=told.seed, ignore_parts=told.ignores_parts).split
    except InputError as error:
        raise error.within(store.path) from error
    if split.identity != told.identity:
        hint = "other rows are usable now, or another version of scikit-learn splits them"
        expected = f"split {told.identity} as {head}"
        raise InputError(store.path, field="split", expected=expected, found=split.identity, hint=hint)
    elsewhere = "the head's study has none, or a store of its own for them"
    return _some(getattr(split, part), part, store, hint=elsewhere)


def _some(rows: Rows, part: Part, store: FeatureSource, hint: str | None = None) -> Rows:
    if not len(rows):
        raise InputError(store.path, field="split", expected=f"rows in part {part}", found="none", hint=hint)
    return rows
