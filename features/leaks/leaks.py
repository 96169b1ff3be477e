"""What the parts of a data set share and should not: patients, and near-identical images."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from features.leaks.duplicates import Pair, find_near_identical
from features.leaks.similarity import Images
from features.rows.given_parts import part_rows
from features.rows.split import groups_of
from features.runtime.progress import OnProgress, unwatched
from features.runtime.text import counted
from features.store.schema import Rows
from features.store.source import FeatureSource

FEWEST = 8
"""Values of a bottleneck from which images are compared: the cosine of two numbers alone is always 1 or -1."""
TOO_FEW = f"not looked for: fewer than {FEWEST} values an image tell no copies"


@dataclass(frozen=True)
class Part:
    """Rows that serve one purpose.

    Attributes:
        name: ``train``, ``validation``, ``test``, or that of a fold.
        store: The store.
        rows: Those of its rows that are used.
    """

    name: str
    store: FeatureSource
    rows: Rows

    @property
    def patients(self) -> set[str]:
        """The patients that are known."""
        return set(self.store.patients[self.rows].tolist()) - {""}


@dataclass(frozen=True)
class ListedPair:
    """A near-identical pair as it is listed: where it is found, and what the two images are said to be.

    Attributes:
        similarity: At most 1.
        mirrored: Whether they are alike once one of them is mirrored.
        first_part: Part of one image; '' where there are no parts.
        first_path: Its file, relative to the image folder.
        first_patient: Its patient, '' where unknown.
        first_class: Its class.
        second_part: The same of the other image.
        second_path: Likewise.
        second_patient: Likewise.
        second_class: Likewise.
    """

    similarity: float
    mirrored: bool
    first_part: str
    first_path: str
    first_patient: str
    first_class: str
    second_part: str
    second_path: str
    second_patient: str
    second_class: str

    @property
    def across(self) -> bool:
        """Whether the two are in different parts."""
        return self.first_part != self.second_part

    def __str__(self) -> str:
        sides = f"{self.first_part} {self.first_path} = {self.second_part} {self.second_path}".replace("=  ", "= ")
        return f"{self.similarity:.4f} {sides.strip()}" + (" (mirrored)" if self.mirrored else "")


@dataclass(frozen=True)
class Leaks:
    """What parts of a data set have and share.

    Attributes:
        rows: Rows of each part.
        patients: Known patients of each part.
        patients_shared: Known patients that have rows in more than one part.
        pairs: The near-identical pairs, the most alike first; None where images were not compared.
        threshold: The similarity from which a pair counts; None likewise.
        truncated: Whether there were too many pairs to look at all of them.
    """

    rows: dict[str, int]
    patients: dict[str, int]
    patients_shared: int
    pairs: tuple[ListedPair, ...] | None
    threshold: float | None
    truncated: bool

    @property
    def in_words(self) -> str:
        """What each part has, and what they share."""
        return parts_in_words(self.rows, self.patients, self.patients_shared)

    def to_dict(self, *, listed: int | None = None) -> dict[str, Any]:
        """Returns it as JSON types; of the pairs, the first ``listed`` or all of them."""
        pairs = self.pairs or ()
        return {
            "rows": self.rows,
            "patients": self.patients,
            "patients_shared": self.patients_shared,
            "near_identical": None if self.pairs is None else len(pairs),
            "near_identical_across_parts": None if self.pairs is None else sum(pair.across for pair in pairs),
            "threshold": self.threshold,
            "truncated": self.truncated,
            "pairs": [asdict(pair) for pair in pairs[:listed]],
        }


def parts_in_words(rows: Mapping[str, int], patients: Mapping[str, int], shared: int) -> str:
    """Returns ``train 466 rows of 302 patients, ...; patients in two parts: 0``: see ``Leaks`` for what these are."""
    if not any(patients.values()):
        told = (f"{name} {counted(count, 'row')}" for name, count in rows.items())
        return f"{', '.join(told)}; no patient is known"
    parts = (f"{name} {counted(count, 'row')} of {counted(patients[name], 'patient')}" for name, count in rows.items())
    return f"{', '.join(parts)}; patients in two parts: {shared:,}"


def count_patients(parts: Sequence[Part]) -> Leaks:
    """Counts rows and patients, and looks at no image."""
    holders = Counter(patient for part in parts for patient in part.patients)
    return Leaks(
        rows={part.name: len(part.rows) for part in parts},
        patients={part.name: len(part.patients) for part in parts},
        patients_shared=sum(times > 1 for times in holders.values()),
        pairs=None,
        threshold=None,
        truncated=False,
    )


def find_leaks(parts: Sequence[Part], *, within_parts: bool = False, on_progress: OnProgress = unwatched) -> Leaks:
    """Counts patients, and finds near-identical images, where features have values enough to tell them by.

    Args:
        parts: The parts; their stores hold the same kind of features.
        within_parts: Whether to look for pairs between different patients, and between classes, in the same part too.
        on_progress: Told how many of how many images are compared.
    """
    if too_few_values(parts[0].store):
        return count_patients(parts)
    images = Images([(part.store, part.rows) for part in parts])
    found = find_near_identical(images, _owners(parts) if within_parts else _places(parts), on_progress=on_progress)
    shown = [(part, int(row)) for part in parts for row in part.rows]
    pairs = tuple(_listed(pair, shown) for pair in found.pairs)
    return replace(count_patients(parts), pairs=pairs, threshold=found.threshold, truncated=found.truncated)


def too_few_values(store: FeatureSource) -> bool:
    """Whether a store's features have too few values for images to be compared by."""
    return math.prod(store.header.feature_shape) < FEWEST


def default_parts(store: FeatureSource) -> list[Part]:
    """Returns the parts of a search on the store that has one validation part, and is told nothing else.

    Raises:
        InputError: There are too few patients for them.
    """
    split = part_rows(store).split
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    return [Part(name, store, rows) for name, rows in parts.items()]


def _places(parts: Sequence[Part]) -> Rows:
    return np.repeat(np.arange(len(parts)), [len(part.rows) for part in parts])


def _owners(parts: Sequence[Part]) -> Rows:
    """A number for each patient and class."""
    names = [
        patient and f"{label} {patient}"
        for part in parts
        for patient, label in zip(part.store.patients[part.rows], part.store.labels[part.rows], strict=True)
    ]
    return groups_of(np.asarray(names))


def _listed(pair: Pair, shown: Sequence[tuple[Part, int]]) -> ListedPair:
    def told(image: int) -> tuple[str, str, str, str]:
        part, row = shown[image]
        header = part.store.header
        return part.name, header.paths[row], header.patients[row], header.classes[header.labels[row]]

    return ListedPair(pair.similarity, pair.mirrored, *told(pair.first), *told(pair.second))
