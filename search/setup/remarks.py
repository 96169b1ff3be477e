"""What a search decides without being asked, in a line each: said once at its start, and kept in ``summary.json``."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from features.compression.directions import default_training_rows
from features.runtime.text import counted, listed, printable
from features.store.source import FeatureSource
from search.setup.config import StudyConfig
from search.setup.data import SearchData
from search.setup.space import ALIKE, ARTICLE, POOLING, Space
from search.setup.stores import StudyData

UNEVEN = 5.0
"""A class with so many times the rows of another decides what the accuracy says."""

_NEEDED = {
    "dense_layers above 0": ("dense_units", "dense_dropout"),
    "schedule plateau": ("plateau_factor", "plateau_patience"),
    "optimizer sgd": ("optimizer", "momentum"),
}
"""What ``HeadSpec.idle`` tells the effect of parameters by."""


def remarks(config: StudyConfig, space: Space, study: StudyData) -> Iterator[str]:
    """Yields what the user should know about rows, classes and space before the first trial.

    Args:
        config: What was resolved.
        space: What trials draw from.
        study: The rows of the study.
    """
    data = study.first
    yield from _skipped(study)
    yield from data.remarks
    yield from config.decided
    for one in study.named.values():
        yield from _directions(config, one)
        yield from _left_out_of_the_last_training(one)
    yield from _uneven(config, data)
    if config.head is None:
        yield from _beside_the_space(space)
        yield from _idle(space)
        yield from _one_place(space, study)
    if data.test is None:
        yield "no rows are kept for the test: nothing will be said of new patients"


def _skipped(study: StudyData) -> Iterator[str]:
    stores: dict[int, FeatureSource] = {id(feed.store): feed.store for feed in study.feeds()}
    for store in stores.values():
        skipped = len(store) - len(store.usable)
        if skipped:
            yield f"{store.path.name}: {skipped:,} of {len(store):,} images could not be decoded and are left out"


def _directions(config: StudyConfig, data: SearchData) -> Iterator[str]:
    if config.projection is not None:
        yield from config.projection.remarks()
    elif (projection := data.store.header.projection) is not None:
        yield f"{data.store.path.name}: {projection}; heads leave the study on all channels"
        yield from _seen_by_directions(data)


def _seen_by_directions(data: SearchData) -> Iterator[str]:
    """Test rows that the directions of a compressed store were made of, as those of another split are."""
    if data.test is None or data.test.store is not data.store:
        return
    made_of = default_training_rows(data.store)
    rows = len(data.test.rows)
    seen = rows if made_of is None else int(np.isin(data.test.rows, made_of).sum())
    if seen:
        yield (
            f"{data.store.path.name}: {seen:,} of {counted(rows, 'test row')} are among those that its directions were"
            " made of, without their labels; with the seed and the shares of the default none is, and --channels makes"
            " them of this study's own training rows"
        )


def _left_out_of_the_last_training(data: SearchData) -> Iterator[str]:
    if not data.folds and "validation" not in data.parts_but_test:
        views = ", ".join(data.validation.store.header.views)
        yield (
            f"{data.validation.store.path.name}: its views ({views}) are not those of training, so the head that"
            " leaves is trained without the validation rows; with the same --views in both it would have them, too"
        )


def _uneven(config: StudyConfig, data: SearchData) -> Iterator[str]:
    if config.objective != "accuracy" or config.class_weights != "none":
        return
    counts = np.bincount(data.train.labels, minlength=len(data.store.classes))
    most, fewest = int(counts.argmax()), int(counts.argmin())
    if counts[most] >= UNEVEN * counts[fewest]:
        names = [printable(data.store.classes[label]) for label in (most, fewest)]
        yield (
            f"{counts[most]:,} training rows of {names[0]}, {counts[fewest]:,} of {names[1]}: accuracy hardly sees the"
            " latter; there are --class-weights balanced and --objective balanced_accuracy or auc"
        )


def _beside_the_space(space: Space) -> Iterator[str]:
    """The article's head is trained whatever the space is; the sampler cannot learn from what it cannot draw."""
    drawn = space.beside(ARTICLE)
    beside = [*drawn, *(name for name, value in space.fixed.items() if value != getattr(ARTICLE, name))]
    if beside:
        recorded = "; the record has the nearest values of the space for it" if drawn else ""
        yield (
            f"the article's head lies outside of the space ({counted(len(beside), 'parameter')}: {listed(beside, 4)});"
            f" it is trained all the same, as trial 0{recorded}"
        )


def _idle(space: Space) -> Iterator[str]:
    for needed, names in _NEEDED.items():
        if idle := [name for name in names if name in space.idle]:
            have = "has" if len(idle) == 1 else "have"
            yield f"{listed(idle, 4)} {have} no effect on any head of the space: that takes {needed}"


def _one_place(space: Space, study: StudyData) -> Iterator[str]:
    places = [one.store.header.feature_shape[:2] for one in study.named.values()]
    if any(place != (1, 1) for place in places):
        return
    domain = space.parameters.get(POOLING)
    tried = [one for one in ALIKE if isinstance(domain, tuple) and one in domain]
    if domain is None or len(tried) == 1:
        left = f"of these {tried[0]} is tried" if tried else f"{POOLING} is not searched over"
        yield f"{study.first.store.path.name}: maps of 1 x 1, which {listed(ALIKE, 3)} leave as they are: {left}"
