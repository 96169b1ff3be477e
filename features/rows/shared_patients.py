"""Rows whose patients are in another part as well: they are left out, and it is said how many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from features.runtime.text import counted
from features.store.schema import Rows
from features.store.source import FeatureSource


def without_patients_of(source: FeatureSource, rows: Rows, others: Sequence[tuple[FeatureSource, Rows]]) -> Rows:
    """Returns the rows whose patient has none among other rows, in their order; unknown patients are never the same.

    Args:
        source: Of the rows.
        rows: Row indices.
        others: Sources and rows of other parts.
    """
    theirs = {str(patient) for other, taken in others for patient in other.patients[taken]} - {""}
    return rows[~np.isin(source.patients[rows], sorted(theirs))]


def describe_left_out(name: str, left_out: Mapping[str, int]) -> list[str]:
    """Returns a line for each part of a source of which rows were left out.

    Args:
        name: Of the source.
        left_out: How many rows, by the name of the part.
    """
    return [
        f"{name}: {counted(count, f'{part} row')} left out: their patients are in another part"
        for part, count in left_out.items()
        if count
    ]
