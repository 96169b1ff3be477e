"""How many pages a study's bank gets.

Memory bounds it. Within that it follows from the study alone: chosen by a stopwatch, the same seed would not give the
same study twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import mean

import numpy as np

from features.runtime.errors import InputError
from features.runtime.memory import resident_budget
from heads.bank.backends import default_dtype
from heads.bank.shape import BankShape, pages_of
from heads.model.spec import PAGE, HeadSpec
from search.setup.config import StudyConfig
from search.setup.data import SearchData, plan_of
from search.setup.space import Space

COHORTS = 6
"""A bank that held the whole study at once would leave the sampler nothing to learn from: trials come in at least so
many cohorts, where that leaves enough of them at once."""


AT_ONCE = 8
"""Heads of middling width that there is room for, at least: fewer would not fill the gaps beside a wide one, and are
too few to judge each other."""


MOST = 256
"""Beyond this a step's fixed costs weigh little: more pages would only make cohorts larger."""


_COPIES = 8
"""Arrays of the activations' size that a step has in memory at once, at most."""


def bank_shape(
    specs: Sequence[HeadSpec],
    *,
    trials: int,
    pages: int | None,
    feature_shape: tuple[int, int, int],
    classes: int,
    batch: int,
    folds: int,
    dtype: str,
) -> BankShape:
    """Returns the bank for a study.

    Args:
        specs: Heads that span its space, see ``Space.extremes``.
        trials: Trials it is to run.
        pages: Pages of each fold's partition, None to choose.
        feature_shape: (height, width, channels) of one bottleneck.
        classes: Number of classes.
        batch: Rows in a batch.
        folds: Partitions.
        dtype: Of the products.

    Raises:
        InputError: The widest head does not fit.
    """
    widest = max(pages_of(spec) for spec in specs)
    if pages is not None and pages < widest:
        raise InputError("--pages", expected=f"at least {widest}, for the widest head of the space", found=pages)

    def shape(count: int) -> BankShape:
        return BankShape.covering(
            specs, pages=count, feature_shape=feature_shape, classes=classes, batch=batch, folds=folds
        )

    if pages is not None:
        return shape(pages)
    usual = mean((widest, min(pages_of(spec) for spec in specs)))
    affordable = max(widest, min(MOST, _affordable(shape(widest), dtype)))
    least = min(affordable, max(widest, int(min(AT_ONCE, trials) * usual)))
    return shape(max(least, min(affordable, int(trials * usual / COHORTS))))


def whole_bank(
    specs: Sequence[HeadSpec],
    *,
    feature_shape: tuple[int, int, int],
    classes: int,
    batch: int,
    folds: int,
    dtype: str,
) -> BankShape:
    """Returns a bank that holds these heads at once, or as many of them as memory allows, and no other kinds.

    Args:
        specs: The heads, each as often as it is to be held.
        feature_shape: (height, width, channels) of one bottleneck.
        classes: Number of classes.
        batch: Rows in a batch.
        folds: Partitions.
        dtype: Of the products.
    """
    widest = max(pages_of(spec) for spec in specs)

    def shape(pages: int) -> BankShape:
        return BankShape.covering(
            specs, pages=pages, feature_shape=feature_shape, classes=classes, batch=batch, folds=folds
        )

    return shape(max(widest, min(sum(map(pages_of, specs)), _affordable(shape(widest), dtype))))


def _affordable(shape: BankShape, dtype: str) -> int:
    """Pages for which a quarter of the available memory is enough."""
    values = sum(int(np.prod(size)) for size in shape.page_arrays.values())
    values += sum(int(np.prod(size)) for size in shape.slot_arrays.values())
    state = 4 * 4 * values * shape.folds  # weights, two moments and the best weights, float32
    item = 2 if dtype == "bfloat16" else 4
    activations = _COPIES * item * shape.batch * shape.positions * PAGE * max(1, shape.folds - 1)
    affordable = resident_budget() // 2 // (state + activations)
    return affordable // 16 * 16  # what other programs take up meanwhile should seldom make another study of it


def settle_bank(config: StudyConfig, space: Space, data: SearchData) -> tuple[StudyConfig, BankShape]:
    """Decides dtype and size of the bank, unless the study has decided before; returns them in the config too."""
    dtype = config.dtype or default_dtype()
    plan, _ = plan_of(data, config.batch_size, config.seed, 0)
    header = data.store.header
    shape = bank_shape(
        space.extremes(),
        trials=config.trials,
        pages=config.pages,
        feature_shape=header.feature_shape,
        classes=len(header.classes),
        batch=plan.rows.shape[1],
        folds=max(1, config.folds),
        dtype=dtype,
    )
    return replace(config, dtype=dtype, pages=shape.pages), shape
