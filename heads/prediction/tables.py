"""Predictions as a table for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from features.runtime.text import printable
from heads.prediction.prediction import Prediction

_FOR_NAMES = 28
"""Columns that the names of image and class have at least."""
_DIGITS, _RULE = len("0.1234"), len(" | ")
_RUNNERS_UP = 2
"""Classes that are shown beside the called one, where not all are."""


def prediction_table(predictions: Sequence[Prediction], classes: Sequence[str], width: int) -> Table:
    """Returns a column for each class; where they would not fit beside the images' names, the likeliest of each image.

    Args:
        predictions: Of each image.
        classes: In label order.
        width: Of the reader's screen or page, in columns.
    """
    shown = [printable(name) for name in classes]
    every = sum(max(len(name), _DIGITS) + _RULE for name in shown) <= width - _FOR_NAMES
    table = Table(caption=None if every else "the likeliest classes: --json has all", caption_justify="left")
    table.add_column("image", overflow="fold")
    table.add_column("class", overflow="fold")
    for name in shown if every else ("probability", "then"):
        table.add_column(name, justify="right" if name != "then" else "left", overflow="fold")
    reasons = any(prediction.reason for prediction in predictions)
    if reasons:
        table.add_column("why not", overflow="fold")
    for prediction in predictions:
        numbers = _every(prediction, classes) if every else _likeliest(prediction)
        cells = [printable(prediction.image), printable(prediction.label or "-"), *numbers]
        table.add_row(*cells, *([printable(prediction.reason)] if reasons else []))
    return table


def _every(prediction: Prediction, classes: Sequence[str]) -> list[str]:
    return [f"{share:.4f}" for share in (prediction.probabilities or {}).values()] or ["-"] * len(classes)


def _likeliest(prediction: Prediction) -> list[str]:
    """The probability of the called class, and the next classes with theirs."""
    if not prediction.probabilities:
        return ["-", "-"]
    ranked = sorted(prediction.probabilities.items(), key=lambda one: -one[1])  # stable: as argmax has it
    first, *others = ranked[: 1 + _RUNNERS_UP]
    return [f"{first[1]:.4f}", ", ".join(f"{printable(name)} {share:.4f}" for name, share in others)]
