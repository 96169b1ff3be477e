"""Which rows of a source serve what: as its images were given, in parts, or split by patient.

``train``, ``validation`` and ``test`` may be given, by folders or by a table: then they are used as they are, but that
a patient stays in one of them only, and a part that is missing is split off the training rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from features.rows.shared_patients import describe_left_out, without_patients_of
from features.rows.split import SEED, TEST_FRACTION, VALIDATION_FRACTION, Split, split_rows
from features.runtime.errors import InputError
from features.store.source import FeatureSource

GIVEN: Final = "given"
"""What a head's file says of ``parts`` where the rows were split by these."""


@dataclass(frozen=True)
class Parted:
    """A source's rows in parts.

    Attributes:
        split: Those that are used.
        given: Names of the parts that were given; empty where all rows were split by patient.
        left_out: Rows of each part that are not used, since their patients are in another one.
    """

    split: Split
    given: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)

    def remarks(self, name: str) -> list[str]:
        """What the user should know about parts that were given, of a source of this name."""
        if not self.given:
            return []
        made = {"validation": self.split.validation, "test": self.split.test}
        split_off = [part for part, rows in made.items() if part not in self.given and len(rows)]
        told = f"{name}: {', '.join(self.given)} as given"
        told += f", {' and '.join(split_off)} split off the training rows" if split_off else ""
        lines = [f"{told}; --ignore-parts splits all rows anew"]
        return [*lines, *describe_left_out(name, self.left_out)]


def part_rows(
    source: FeatureSource,
    *,
    validation: float = VALIDATION_FRACTION,
    test: float = TEST_FRACTION,
    seed: int = SEED,
    ignore_parts: bool = False,
) -> Parted:
    """Puts the usable rows of a source into parts; by default those of a search with one validation part.

    Where parts are given, validation rows of patients that are in the test part are left out, then training rows of
    patients in either; a missing part is split off the training rows.

    Args:
        source: The rows.
        validation: Share of the rows for validation where none are given; 0 for no such part: what is given for it is
            trained on.
        test: Likewise for the test, but that a part that is given stays.
        seed: Decides what is split.
        ignore_parts: Whether to split all rows, whatever is given.

    Raises:
        InputError: There are too few patients, or images of a class, for the parts; or no rows to train on. Which
            source it is, the caller says.
    """
    rows, labels, patients, classes = source.usable, source.labels, source.patients, source.classes
    of_rows = np.asarray(source.header.parts)[rows] if source.header.parts else np.zeros(0, str)
    if ignore_parts or not np.isin(of_rows, ("validation", "test")).any():
        return Parted(split_rows(rows, labels, patients, validation=validation, test=test, seed=seed, classes=classes))
    tested, validated = rows[of_rows == "test"], rows[of_rows == "validation"]
    trained = rows[~np.isin(of_rows, ("validation", "test"))]
    if not validation:
        trained, validated = np.union1d(trained, validated), validated[:0]
    given = tuple(name for name, part in (("train", trained), ("validation", validated), ("test", tested)) if len(part))
    kept_validated = without_patients_of(source, validated, [(source, tested)])
    kept = without_patients_of(source, trained, [(source, tested), (source, kept_validated)])
    if not len(kept):
        hint = "--ignore-parts splits all rows anew"
        raise InputError("parts", expected="rows to train on", found="none left", hint=hint)
    shares = {"validation": 0.0 if len(validated) else validation, "test": 0.0 if len(tested) else test}
    made = split_rows(kept, labels, patients, **shares, seed=seed, classes=classes)
    split = Split(
        made.train, kept_validated if len(validated) else made.validation, tested if len(tested) else made.test
    )
    counts = {"validation": len(validated) - len(kept_validated), "training": len(trained) - len(kept)}
    return Parted(split, given, {name: count for name, count in counts.items() if count})
