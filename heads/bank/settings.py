"""The settings of a bank, as its program takes them: who owns which page, and what the heads in it are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from heads.bank.pages import PageTable
from heads.bank.shape import BankShape
from heads.model.spec import HeadSpec

HostSettings = dict[str, npt.NDArray[Any]]
"""``heads.bank.state.Settings`` on the host."""


def bank_settings(
    shape: BankShape,
    table: PageTable,
    specs: Sequence[HeadSpec | None],
    *,
    rates: npt.NDArray[Any],
    seeds: npt.NDArray[Any],
    class_weights: npt.NDArray[Any],
) -> HostSettings:
    """Returns the settings of a bank, or of one partition, as the program takes them (``heads.bank.state.Settings``).

    Args:
        shape: The bank's.
        table: Who owns which page.
        specs: The head of each slot, or None.
        rates: Learning rates, float32.
        seeds: Of the dropout masks, int32.
        class_weights: What a row of each class counts in the training loss, float32.
    """
    of_heads = {"learning_rate": rates, "seed": seeds, "class_weight": class_weights}
    return {**table.layout(), **hyperparameters(shape, specs), **of_heads}


def hyperparameters(shape: BankShape, specs: Sequence[HeadSpec | None]) -> dict[str, npt.NDArray[Any]]:
    """Returns the numbers of each slot's head that the program needs, each (slots,); of a free slot, harmless ones.

    int32: ``activation`` and ``pooling`` (places in the shape's tuples), ``dense_layers``; bool: ``batch_norm``,
    ``taken``, ``sgd``; float32: ``dropout``, ``dense_dropout``, ``label_smoothing``, ``weight_decay``, ``momentum``.
    """
    blank = HeadSpec(dropout=0)
    rows = [blank if spec is None else spec for spec in specs]
    codes = {
        "activation": [shape.activations.index(s.activation) if s.activation in shape.activations else 0 for s in rows],
        "pooling": [shape.poolings.index(s.pooling) if s.pooling in shape.poolings else 0 for s in rows],
        "dense_layers": [s.dense_layers for s in rows],
    }
    numbers = ("dropout", "dense_dropout", "label_smoothing", "weight_decay", "momentum")
    return {
        **{name: np.array(values, np.int32) for name, values in codes.items()},
        **{name: np.array([getattr(s, name) for s in rows], np.float32) for name in numbers},
        "batch_norm": np.array([s.batch_norm for s in rows], bool),
        "sgd": np.array([s.is_sgd for s in rows], bool),
        "taken": np.array([spec is not None for spec in specs], bool),
    }
