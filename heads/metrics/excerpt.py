"""What of many classes is shown: the worst ones, and the pairs that were confused most often."""

from __future__ import annotations

from collections.abc import Sequence

from features.runtime.text import decimal, printable
from heads.metrics.classification import ClassMetrics, ConfusionPair

MOST_CLASSES = 60
"""Classes that are all listed, and whose confusion matrix is drawn; of more, the worst: a matrix cannot be read."""
WORST_CLASSES = 30
TOP_PAIRS = 20
"""Confused pairs that stand in for a matrix that is too large."""
CLASS_COLUMNS = ("rows", "sensitivity", "specificity", "precision", "AUC")
"""What a table says of a class."""


def worst_classes(per_class: Sequence[ClassMetrics]) -> tuple[Sequence[ClassMetrics], str]:
    """Returns the classes to list, and what to say of the others: '' where there are none.

    Args:
        per_class: In label order. Of more than ``MOST_CLASSES`` those with the least sensitivity are listed.
    """
    if len(per_class) <= MOST_CLASSES:
        return per_class, ""
    ranked = sorted(per_class, key=lambda one: 2.0 if one.sensitivity is None else one.sensitivity)
    told = f"the {WORST_CLASSES} classes with the least sensitivity of {len(per_class):,}"
    return ranked[:WORST_CLASSES], told


def class_rows(shown: Sequence[ClassMetrics]) -> list[tuple[str, ...]]:
    """Returns the rows of a table of classes: name, and what ``CLASS_COLUMNS`` say."""
    return [
        (
            printable(one.name),
            f"{one.rows}",
            *map(decimal, (one.sensitivity, one.specificity, one.precision, one.auc)),
        )
        for one in shown
    ]


def confused_lines(confused: Sequence[ConfusionPair], *, rows: int, right: int) -> list[tuple[str, str, str]]:
    """Returns true class, called class and rows of the pairs confused most often, and of all else: together all rows.

    Args:
        confused: Pairs of different classes, most rows first; perhaps only the first of them.
        rows: Of all classes.
        right: Rows that were classified correctly.
    """
    shown = confused[:TOP_PAIRS]
    told = [(pair.true, pair.called, f"{pair.rows}") for pair in shown]
    others = rows - right - sum(pair.rows for pair in shown)
    told += [("other pairs", "", f"{others}")] if others else []
    return [*told, ("correct", "", f"{right}")]
