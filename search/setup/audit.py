"""What the parts of a study share and should not, counted before its first trial: ``audit.json``.

Patients are never shared, and that is counted here once more, in the rows that the search uses. Near-identical images
of different patients are reported and stay where they are (docs/architecture.md says why).
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, NonNegativeInt, ValidationError, model_validator

from features.leaks.leaks import TOO_FEW, Leaks, ListedPair, Part, find_leaks, parts_in_words
from features.runtime.errors import InputError
from features.runtime.files import replacing, write_json
from features.runtime.json_files import read_json
from features.runtime.progress import OnProgress, unwatched
from features.runtime.text import counted
from features.store.projected import ProjectedStore
from search.setup.data import SearchData

AUDIT_FILE = "audit.json"
PAIRS_FILE = "near_identical.csv"
METHOD = 3
"""To be raised when other pairs would be found: a study that is resumed is then audited anew."""
LISTED = 10
"""Pairs that audit.json has; near_identical.csv has them all."""
SHOWN = 5
"""Pairs that a search prints."""
_COLUMNS = [field.name for field in fields(ListedPair)]


def _known_keys(pair: Any) -> Any:
    if isinstance(pair, dict) and pair.keys() != {*_COLUMNS}:
        raise ValueError("expected a pair of images")
    return pair


class Audit(BaseModel):
    """What audit.json says of what a study's parts share and should not.

    Attributes:
        identity: Stands for the parts.
        rows: Of each part.
        patients: Of each part.
        patients_shared: Patients that have rows in two parts.
        near_identical: Pairs across parts; None where images have too few values to be compared.
        truncated: Whether there may be more pairs.
        pairs: The first ``LISTED``.
    """

    identity: str
    rows: dict[str, NonNegativeInt]
    patients: dict[str, NonNegativeInt]
    patients_shared: NonNegativeInt
    near_identical: NonNegativeInt | None
    truncated: bool
    pairs: list[Annotated[ListedPair, BeforeValidator(_known_keys)]]

    @model_validator(mode="after")
    def _of_the_same_parts(self) -> Audit:
        if self.rows.keys() != self.patients.keys():
            raise ValueError("expected rows and patients of the same parts")
        return self


def parts_of(data: SearchData) -> list[Part]:
    """Returns the parts of a study, with all channels that their files have; with folds, each fold is one."""
    train, validation, test = data.train, data.validation, data.test
    parts = [Part(f"fold {number}", data.store, rows) for number, rows in enumerate(data.folds, start=1)]
    parts = parts or [Part("train", data.store, train.rows), Part("validation", validation.store, validation.rows)]
    parts += [Part("test", test.store, test.rows)] if test else []
    stores = [part.store for part in parts]
    wholes = [store.source for store in stores if isinstance(store, ProjectedStore)]
    if len(wholes) < len(parts):
        return parts
    return [replace(part, store=whole) for part, whole in zip(parts, wholes, strict=True)]


def audit_study(folder: Path, data: SearchData, *, on_progress: OnProgress = unwatched) -> Audit:
    """Audits a study's parts and writes what was found; an audit of the same parts that is there already is returned.

    Args:
        folder: The study directory.
        data: Its rows.
        on_progress: Told how many of how many images are compared.

    Returns:
        The content of audit.json.

    Raises:
        BottleneckError: The files cannot be written.
    """
    parts = parts_of(data)
    identity = _identity(parts)
    found = read_audit(folder)
    if found and found.identity == identity and _holds(folder / PAIRS_FILE, found.near_identical or 0):
        return found
    audited = find_leaks(parts, on_progress=on_progress)
    _write_pairs(folder / PAIRS_FILE, audited.pairs or ())
    record = {"identity": identity, **_record(audited)}
    write_json(folder / AUDIT_FILE, record, shared=True)  # last: where it is, the pairs are too
    return Audit.model_validate(record)


def read_audit(folder: Path) -> Audit | None:
    """Returns the content of a study's audit.json; None where there is none, or one that is damaged."""
    try:
        return Audit.model_validate(read_json(folder / AUDIT_FILE, "an audit"))
    except (InputError, ValidationError):
        return None


def describe(found: Audit) -> Iterator[str]:
    """Yields what a search says of its audit, a line each."""
    yield parts_in_words(found.rows, found.patients, found.patients_shared)
    number = found.near_identical
    if not number:
        yield f"near-identical images across parts: {TOO_FEW if number is None else 'none'}"
        return
    yield f"warning: near-identical images across parts: {pairs_in_words(found)}, listed in {PAIRS_FILE}"
    for pair in found.pairs[:SHOWN]:
        yield f"  {pair}"
    if number > SHOWN:
        yield f"  and {number - SHOWN:,} more"
    yield "  copies make scores too good: remove one of each, or name one patient in both, and extract again"


def pairs_in_words(found: Audit) -> str:
    """Returns ``12 pairs``, or with more than were looked at ``10,000 pairs or more``."""
    return f"{counted(found.near_identical or 0, 'pair')}{' or more' if found.truncated else ''}"


def _record(audited: Leaks) -> dict[str, Any]:
    record = audited.to_dict(listed=LISTED)
    del record["near_identical_across_parts"]  # all of them are
    return record


def _identity(parts: Sequence[Part]) -> str:
    """16 hexadecimal digits that stand for the method, and for which row of which store is in which part."""
    digest = hashlib.sha256(f"{METHOD}".encode())
    for part in parts:
        store = "\0".join(part.store.identity.values())
        digest.update(f"\0{part.name}\0{store}\0{len(part.rows)}\0".encode())
        digest.update(part.rows.astype("<i8").tobytes())
    return digest.hexdigest()[:16]


def _holds(path: Path, pairs: int) -> bool:
    """Whether a table of pairs is whole: anything else is written anew."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
    except (OSError, ValueError, csv.Error):  # not there, empty, or no text
        return False
    return header == _COLUMNS and len(rows) == pairs and all(len(row) == len(_COLUMNS) for row in rows)


def _write_pairs(path: Path, pairs: Sequence[ListedPair]) -> None:
    with replacing(path, shared=True) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(asdict(pair) for pair in pairs)
