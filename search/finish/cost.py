"""What it costs to use a study's heads: measured once, at the end of a search."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from optuna.trial import FrozenTrial

from features.extraction.backbone_spec import BackboneSpec
from features.extraction.speed import milliseconds_per_image, spec_of
from features.store.source import FeatureSource
from heads.model.build import build_head
from heads.model.own import OwnSpec
from heads.model.spec import HeadSpec
from heads.prediction.speed import Pace, milliseconds_per_row, multiply_adds
from search.finish.searched import Searched
from search.record.costs import CostOfUse, StoreCost
from search.setup.own_head import BuildError
from search.trials.notes import TrialNotes
from search.trials.ranking import ranking

SAMPLES = 4
"""Heads of a store that are measured, spread over their sizes; the others are reckoned from them."""
OWN_SECONDS = 2.0
"""In which heads of somebody's own function are measured, best first: their sizes say nothing."""
_DIGITS = 4


def cost_of_use(searched: Searched, earlier: CostOfUse | None = None) -> CostOfUse:
    """Measures what an image costs in each store of a study, and through each completed trial's head.

    A backbone whose weights were drawn is of use to nobody and is not measured, and one that is not known cannot be.

    Args:
        searched: The study.
        earlier: What was measured at an earlier end of the search; of the same stores and trials it stays.
    """
    stores = {name: data.store for name, data in searched.data.named.items()}
    trials = ranking(searched.study)
    if earlier and earlier.holds_of(
        {name: store.fingerprint for name, store in stores.items()}, [trial.number for trial in trials]
    ):
        return earlier
    return CostOfUse(stores=tuple(_stores(stores, earlier)), heads=_heads(searched, trials))


def _stores(stores: Mapping[str, FeatureSource], earlier: CostOfUse | None) -> Iterator[StoreCost]:
    """Measures the backbones: each once, however many stores it made, and none that was measured before."""
    measured: dict[BackboneSpec, float | None] = {}
    for name, store in stores.items():
        header, known = store.header.of_backbone, earlier.of_store(name) if earlier else None
        found = None
        if known is not None and known.fingerprint == store.fingerprint:
            found = known.milliseconds
        elif not header.drawn and (spec := spec_of(header, beside=store.path)):
            if spec not in measured:
                measured[spec] = milliseconds_per_image(spec)
            one = measured[spec]
            found = None if one is None else _short(one * len(header.views))
        yield StoreCost(
            name=name,
            fingerprint=store.fingerprint,
            backbone=header.texts()["backbone"],
            image_size=header.image_size,
            feature_shape=header.feature_shape,
            views=len(header.views),
            milliseconds=found,
        )


def _heads(searched: Searched, trials: Sequence[FrozenTrial]) -> dict[str, float | None]:
    of_stores: dict[str, list[FrozenTrial]] = {}
    for trial in trials:
        of_stores.setdefault(TrialNotes.of(trial).store, []).append(trial)
    found: dict[str, float | None] = {}
    for name, members in of_stores.items():
        store = searched.data.of(name).store
        made = _own(searched, members, store) if searched.own else _ours(members, store)
        views = len(store.header.views)
        found |= {f"{number}": None if one is None else _short(one * views) for number, one in made.items()}
    return dict(sorted(found.items(), key=lambda item: int(item[0])))


def _ours(trials: Sequence[FrozenTrial], store: FeatureSource) -> dict[int, float | None]:
    """Milliseconds of a row through the heads of a store, by a few of them."""
    shape, classes = store.header.of_backbone.feature_shape, len(store.classes)
    specs = {trial.number: TrialNotes.of(trial).spec for trial in trials}
    sizes = {number: multiply_adds(spec, shape, classes) for number, spec in specs.items()}
    by_size = {sizes[number]: spec for number, spec in specs.items()}
    ordered = sorted(by_size)
    last = len(ordered) - 1
    sampled = {ordered[index * last // (SAMPLES - 1)] for index in range(SAMPLES)}
    measured = {size: milliseconds_per_row(build_head(by_size[size], shape, classes), shape) for size in sampled}
    pace = Pace.through(measured)
    return {number: pace.of(size) for number, size in sizes.items()}


def _own(searched: Searched, trials: Sequence[FrozenTrial], store: FeatureSource) -> dict[int, float | None]:
    """Milliseconds of a row through the heads of somebody's own function: of as many as there is time for."""
    found: dict[int, float | None] = {}
    shape, begun = store.header.feature_shape, time.perf_counter()
    for trial in trials:
        head = TrialNotes.of(trial).head
        found[trial.number] = None
        if time.perf_counter() - begun >= OWN_SECONDS:
            continue
        with suppress(BuildError):  # a function that has changed since need not make it again
            found[trial.number] = milliseconds_per_row(_model(searched, trial.number, head, store), shape)
    return found


def _model(searched: Searched, number: int, head: HeadSpec | OwnSpec, store: FeatureSource) -> Any:
    """A trial's model in a study of own heads, in which the article's is the only other one."""
    if isinstance(head, OwnSpec):
        assert searched.own is not None
        return searched.own.rebuild(head, seed=0, number=number)
    return build_head(head, store.header.feature_shape, len(store.classes))


def _short(value: float) -> float:
    """A time in as many digits as it was measured to."""
    return round(value, _DIGITS - 1 - math.floor(math.log10(value))) if value > 0 else 0.0
