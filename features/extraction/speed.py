"""What a backbone costs to use: how long its forward pass takes for one image, on this machine."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from features.extraction.applications import BACKBONES
from features.extraction.backbone_spec import IMAGENET, OWN, BackboneSpec, recorded_options
from features.extraction.backbones import Backbone, build_untrained
from features.extraction.network_file import read_network
from features.runtime.errors import BottleneckError, InputError
from features.store.kind import FeatureKind

MOST_IMAGES = 16
MOST_PIXELS = 2**19
"""Of the images that go through at once: about 1 GB of activations."""
RUNS = 5
SECONDS = 3.0
"""In which the runs that are timed end, but for the first of them."""


def spec_of(kind: FeatureKind, *, beside: Path) -> BackboneSpec | None:
    """Returns which backbone makes such features, its weights left open; None where that is not known here.

    Args:
        kind: What is recorded of the features.
        beside: A file, as a rule the store: a backbone that is in a file of its own is looked for at the path that is
            recorded of it and beside this one.
    """
    told = recorded_options(kind)
    if told["name"] is None or told["image_size"] is None:
        return None
    told |= {"layer": told["layer"] or "", "preprocessing": told["preprocessing"] or OWN, "weights": "random"}
    try:
        if kind.backbone_sha256:
            told |= {"name": _place_of(kind, beside), "weights": IMAGENET}  # a file has its own
        elif kind.backbone not in BACKBONES:
            return None
        return BackboneSpec(**told) if told["name"] else None
    except InputError:  # the installed Keras takes it otherwise, or a file is damaged
        return None


def _place_of(kind: FeatureKind, beside: Path) -> str | None:
    """The file that a backbone is in; None where there is none, or another one."""
    places = (Path(kind.backbone), beside.parent / kind.backbone)
    found = (place for place in places if place.is_file())
    return next((str(place) for place in found if read_network(place).sha256 == kind.backbone_sha256), None)


def milliseconds_per_image(spec: BackboneSpec) -> float | None:
    """Builds a backbone and measures how long it takes for one image, in one view.

    A batch of made images goes through the compiled program, once to compile and a few times to be timed.

    Args:
        spec: Which backbone; its weights do not matter and are not asked for.

    Returns:
        Milliseconds, by the shortest of the runs, as whatever else the machine does makes them longer; None where it
        cannot be built or run here.
    """
    try:
        return _timed(build_untrained(spec))
    except BottleneckError:
        return None


def _timed(backbone: Backbone) -> float:
    side = backbone.image_size
    count = int(np.clip(MOST_PIXELS // side**2, 1, MOST_IMAGES))
    images = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
    backbone.features(images)
    seconds: list[float] = []
    while not seconds or (len(seconds) < RUNS and sum(seconds) < SECONDS):
        begun = time.perf_counter()
        backbone.features(images)
        seconds.append(time.perf_counter() - begun)
    return 1e3 * min(seconds) / count
