"""How many pages a study's bank gets.

Memory bounds it. Within that it follows from the study alone: chosen by a stopwatch, the same seed would not give the
same study twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import mean

import numpy as np

from features.rows.feed import Feed, plan_epoch
from features.runtime.errors import InputError
from heads.bank.backends import bank_budget, default_dtype, default_lanes, lacks_memory, skips_free_pages
from heads.bank.partitions import PARTITIONS_AT_ONCE
from heads.bank.shape import BankShape, pages_of
from heads.model.spec import PAGE, HeadSpec
from search.setup.config import StudyConfig
from search.setup.data import SearchData, plan_of
from search.setup.space import Space
from search.setup.stores import ALONE, StudyData
from search.training.bank_shapes import BankShapes

COHORTS = 6
"""A bank that held the whole study at once would leave the sampler nothing to learn from: trials come in at least so
many cohorts, where that leaves enough of them at once."""
AT_ONCE = 8
"""Heads of middling width that there is room for, at least: fewer would not fill the gaps beside a wide one, and are
too few to judge each other."""
MOST = 256
"""Beyond this a step's fixed costs weigh little: more pages would only make cohorts larger."""
SLOTS_AHEAD = 3
"""Heads that a bank has slots for, times those of mean width that its pages hold: samplers come to like narrow ones."""
TILES_AHEAD = 1.5
"""Tiles of a bank, times those that heads on its pages have in the mean."""
_COPIES = 8
"""Arrays of the activations' size that a step has in memory at once, at most."""

_SMALLER = "use --engine solo, or a study file with smaller heads: dense_layers = 0, pooling = average"


def dtype_of(config: StudyConfig) -> str:
    """Returns the dtype of the banks' products: the study's, or the default where it has decided none."""
    return config.dtype or default_dtype()


@dataclass(frozen=True, kw_only=True)
class BankRequest:
    """What a bank is to hold.

    Attributes:
        specs: The heads, or those that span a space (``Space.extremes``).
        typical: Heads as the space gives them; none where ``specs`` are the heads.
        feature_shape: (height, width, channels) of one bottleneck.
        classes: Number of classes.
        batch: Rows in a batch.
        folds: Partitions.
        dtype: Of the products.
        scored: Rows that heads are scored on at once: those of the largest fold.
    """

    specs: Sequence[HeadSpec]
    typical: Sequence[HeadSpec] = ()
    feature_shape: tuple[int, int, int]
    classes: int
    batch: int
    folds: int
    dtype: str
    scored: int = 0

    @classmethod
    def of_study(
        cls,
        specs: Sequence[HeadSpec],
        config: StudyConfig,
        data: SearchData,
        *,
        typical: Sequence[HeadSpec] = (),
    ) -> BankRequest:
        """What a study's rows and options ask for."""
        plan, _ = plan_of(data, config.batch_size, config.seed, 0)
        return cls(
            specs=specs,
            typical=typical,
            feature_shape=data.store.header.feature_shape,
            classes=len(data.store.classes),
            batch=plan.rows.shape[1],
            folds=max(1, config.folds),
            dtype=dtype_of(config),
            scored=_scored(data),
        )

    @classmethod
    def unscored(cls, specs: Sequence[HeadSpec], config: StudyConfig, feed: Feed) -> BankRequest:
        """What a training on some rows asks for that nothing is scored in."""
        plan = plan_epoch(feed.rows, batch_size=config.batch_size, views=feed.views, seed=0, epoch=0)
        return cls(
            specs=specs,
            feature_shape=feed.shape,
            classes=len(feed.store.classes),
            batch=plan.rows.shape[1],
            folds=1,
            dtype=dtype_of(config),
        )

    @property
    def widest(self) -> int:
        """Pages of the widest head."""
        return max(pages_of(spec) for spec in self.specs)

    def shape(self, pages: int) -> BankShape:
        """Returns a bank with so many pages in each fold's partition.

        It has slots and tiles for what is likely to be on them at once, not for the narrowest heads and the widest
        dense layers that there can be: what nobody uses is memory that every step walks over. A head that finds no
        room waits. The head that takes most finds room in an empty bank.
        """
        most = self._covering(pages)
        if not self.typical:
            return most
        share = pages / mean(map(pages_of, self.typical))
        needed = mean(map(most.tiles_of, self.typical)) * share
        largest = self.widest * most.tiles_in_page  # neither specs nor draws need hold the head that takes these
        slots = min(most.slots, max(1, math.ceil(SLOTS_AHEAD * share)))
        return self._covering(pages, slots=slots, tiles=max(largest, math.ceil(TILES_AHEAD * needed)))

    def exactly(self, pages: int) -> BankShape:
        """Returns a bank for just these heads, or for as many of them as there are pages for."""
        most = self._covering(pages)
        needed = most.needed_by(self.specs)
        return self._covering(pages, slots=min(most.slots, needed.slots), tiles=needed.tiles)

    def _covering(self, pages: int, *, slots: int | None = None, tiles: int | None = None) -> BankShape:
        return BankShape.covering(
            self.specs,
            pages=pages,
            feature_shape=self.feature_shape,
            classes=self.classes,
            batch=self.batch,
            folds=self.folds,
            slots=slots,
            tiles=tiles,
            lanes=default_lanes(self.dtype),
        )

    @property
    def page_bytes(self) -> int:
        """Bytes that a page takes, with its share of what the heads on it have."""
        shape = self.shape(self.widest)
        return _bank_bytes(shape, self.dtype, self.scored) // shape.pages


def bank_shapes(requests: Mapping[str, BankRequest], *, trials: int, pages: int | None) -> BankShapes:
    """Returns the banks for a study.

    Where free pages cost no time, each store's bank has as many pages as all may use together. Else they share them
    evenly, and none has more than its share.

    Args:
        requests: What each is to hold, by the store's name: heads that span the study's space.
        trials: Trials that the study is to run.
        pages: Pages of each fold's partition, None to choose.

    Raises:
        InputError: The widest head does not fit, into the pages or into memory.
    """
    widest = max(request.widest for request in requests.values())
    if pages is not None and pages < widest:
        raise InputError("--pages", expected=f"at least {widest}, for the widest head of the space", found=pages)
    settled = pages or _settled_pages(list(requests.values()), widest, trials)
    each = settled if len(requests) == 1 or skips_free_pages() else max(widest, settled // len(requests))
    return BankShapes({name: request.shape(each) for name, request in requests.items()}, settled)


def _settled_pages(requests: Sequence[BankRequest], widest: int, trials: int) -> int:
    needed, budget = widest * _page_bytes(requests), bank_budget()
    if needed > budget:
        raise InputError(
            "--engine",
            expected=f"{needed / 1e9:.1f} GB of memory for a bank of one head of {requests[0].classes:,} classes",
            found=f"{budget / 1e9:.1f} GB to plan with",
            hint=_SMALLER,
        )
    usual = mean((widest, min(pages_of(spec) for spec in requests[0].specs)))
    affordable = max(widest, min(MOST, _affordable(requests)))
    least = min(affordable, max(widest, int(min(AT_ONCE, trials) * usual)))
    settled = max(least, min(affordable, int(trials * usual / COHORTS)))
    lanes = default_lanes(requests[0].dtype)
    return max(widest, settled // lanes * lanes)  # of lanes that are equal none computes a page that is not its own


def _affordable(requests: Sequence[BankRequest]) -> int:
    """Pages for which a quarter of the available memory is enough, in each of some banks."""
    affordable = bank_budget() // 2 // _page_bytes(requests)
    return affordable // 16 * 16  # what other programs take up meanwhile should seldom make another study of it


def _page_bytes(requests: Sequence[BankRequest]) -> int:
    return sum(request.page_bytes for request in requests)


def whole_bank(request: BankRequest) -> BankShape:
    """Returns a bank that holds these heads at once, or as many of them as memory allows, and no other kinds.

    Args:
        request: What it is to hold: each head as often as it is to be held.
    """
    return whole_banks({ALONE: request}).first


def whole_banks(requests: Mapping[str, BankRequest], *, most: int | None = None) -> BankShapes:
    """Returns a bank for each store that holds its heads at once, or as many of them as memory allows.

    Args:
        requests: What each is to hold, by the store's name.
        most: What ``most_pages`` has said of them when they were begun; None to ask it.
    """
    most = most_pages(requests) if most is None else most
    shapes = {
        name: one.exactly(max(one.widest, min(sum(map(pages_of, one.specs)), most))) for name, one in requests.items()
    }
    return BankShapes(shapes, sum(shape.pages for shape in shapes.values()))


def most_pages(requests: Mapping[str, BankRequest]) -> int:
    """Returns how many pages each of some whole banks gets at most: what memory allows, or all that they ask for."""
    asked = max(sum(map(pages_of, one.specs)) for one in requests.values())
    return max(1, min(asked, _affordable(list(requests.values()))))


def features_budget(shapes: Mapping[str, BankShape], data: Mapping[str, SearchData], config: StudyConfig) -> int:
    """Bytes that the features of all stores together may take in memory, before their banks are made.

    It is ``bank_budget``, which is meant to leave a quarter of the memory to the banks. What they are planned to
    take beyond that, for a wide head or many ``--pages``, comes off it; so it may be negative.

    Args:
        shapes: The banks, by the store's name.
        data: The rows of each store.
        config: What was resolved.
    """
    budget, dtype = bank_budget(), dtype_of(config)
    banks = sum(_bank_bytes(shape, dtype, _scored(data[name])) for name, shape in shapes.items())
    return budget - max(0, banks - budget // 2)


def _scored(data: SearchData) -> int:
    """Rows that heads are scored on at once: those of the largest fold."""
    return max(len(rows) for _, rows in data.judging.values())


def _bank_bytes(shape: BankShape, dtype: str, scored: int) -> int:
    """What a bank takes: its state, the largest arrays of a step, and what is predicted."""
    return _state_bytes(shape) + _step_bytes(shape, dtype) + _prediction_bytes(shape, scored)


def _state_bytes(shape: BankShape) -> int:
    """Of the weights, their two moments and the best weights, float32."""
    values = sum(
        shape.places[sort] * int(np.prod(size)) for sort, arrays in shape.arrays.items() for size in arrays.values()
    )
    return 4 * 4 * values * shape.folds


def _step_bytes(shape: BankShape, dtype: str) -> int:
    """Of arrays of the activations' size, in the dtype of the products, in all partitions that train at once."""
    places = max(shape.pages, shape.tiles)
    at_once = min(PARTITIONS_AT_ONCE, shape.training_partitions)
    return at_once * _COPIES * _item_bytes(dtype) * shape.batch * shape.positions * PAGE * places


def _prediction_bytes(shape: BankShape, scored: int) -> int:
    """Of probabilities, float32: a fold's and whether each is NaN; or all folds', where all heads end at once."""
    of_fold = shape.slots * scored * shape.classes
    scored_in_epoch, ended_at_once = (4 + 1) * of_fold, 4 * shape.folds * of_fold
    return max(scored_in_epoch, ended_at_once)


def _item_bytes(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else 4


def bytes_of_features(feeds: Sequence[Feed], dtype: str | None) -> int:
    """Returns what the features of some rows take on the device as a whole, in a bank's dtype; None for the default."""
    values = sum(len(feed.rows) * feed.store.header.row_values for feed in feeds)
    return values * _item_bytes(dtype or default_dtype())


@contextmanager
def memory_for(pages: int) -> Iterator[None]:
    """Says in one line that memory did not suffice for banks that were planned with so many pages.

    Raises:
        InputError: An allocation failed: others have taken what there was, or a limit is in force that nobody saw.
    """
    try:
        yield
    except Exception as error:
        if not lacks_memory(error):
            raise
        raise InputError(
            "--engine",
            expected=f"memory for a bank of {pages} pages",
            found="less than that: an allocation failed",
            hint=f"make room and go on with --resume; or {_SMALLER}",
        ) from error


def settle_banks(config: StudyConfig, space: Space, data: StudyData) -> tuple[StudyConfig, BankShapes]:
    """Decides dtype and size of the banks, unless the study has decided before; returns them in the config too."""
    extremes, typical = space.extremes(), space.typical()
    requests = {name: BankRequest.of_study(extremes, config, one, typical=typical) for name, one in data.named.items()}
    shapes = bank_shapes(requests, trials=config.trials, pages=config.pages)
    dtype = next(iter(requests.values())).dtype
    return config.model_copy(update={"dtype": dtype, "pages": shapes.pages}), shapes
