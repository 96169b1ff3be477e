"""Where maps of real scans lie, and whether they tell what covering a place does: Grad-CAM in several ways, occlusion.

    python benchmarks/sight.py --images oct --store store.h5 --weights FILE [--scans 40] [--epochs 12] [--head FILE...]

Heads of every pooling and activation are trained on the training patients of the store, or read from files. On scans of
other patients, each place of each scan is covered once, for all heads. Reported for each kind of map: its rank
correlation with the fall of the class's log-odds, place by place; the share of its mass within the retina's third of
the scan; the share in the outer tenth on each side, which is 34% of the scan. Means over heads, and the worst head.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from features.runtime.backend import use_backend

TOPOLOGIES = (("relu", 0, True), ("silu", 0, True), ("gelu", 1, True), ("relu", 1, False), ("silu", 2, True))
"""Activation, hidden layers, batch norm; each with every pooling."""
SIDE = 96
"""Maps and scans are compared on so many pixels a side."""
BORDER = SIDE // 10


def main() -> None:
    arguments = parse()
    use_backend()
    from features.extraction.backbones import build_backbone
    from features.extraction.speed import spec_of
    from features.rows.feed import Feed
    from features.rows.split import split_rows
    from features.store.reader import FeatureStore

    store = FeatureStore(arguments.store)
    split = split_rows(store.usable, store.labels, store.patients, validation=0.15, test=0.15, seed=0)
    others = np.sort(np.concatenate([split.validation, split.test]))
    rows = others[np.linspace(0, len(others) - 1, arguments.scans).astype(int)]
    paths = [arguments.images / store.header.paths[row] for row in rows]
    spec = spec_of(store.header, beside=store.path)
    if spec is None or store.header.projection or store.header.resize != "squash":
        sys.exit(f"{store.path}: expected all channels of a backbone that is known here, of images that were squashed")
    if spec.file is None:
        spec = replace(spec, weights=arguments.weights)
    begun = time.perf_counter()
    features = covered_features(build_backbone(spec), paths)
    print(f"{len(rows)} scans of other patients, covered: {time.perf_counter() - begun:.0f} s")
    bands = np.stack([retina_band(path) for path in paths])
    found: dict[str, list[tuple[float, ...]]] = {}
    train, validation = (Feed(store, part, memory_bytes=2**34) for part in (split.train, split.validation))
    for model in read_heads(arguments.head) if arguments.head else trained_heads(train, validation, arguments.epochs):
        for name, numbers in compared(model, features, bands).items():
            found.setdefault(name, []).append(numbers)
    print(f"{'map':42}{'rank correlation':>20}{'in the retina':>20}{'in the border':>20}")
    for name, every in found.items():
        correlation, retina, border = np.array(every).T
        columns = ((correlation, correlation.min()), (retina, retina.min()), (border, border.max()))
        print(f"{name:42}" + "".join(f"{f'{values.mean():.2f} ({worst:.2f})':>20}" for values, worst in columns))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="image folder, one sub-folder per class")
    parser.add_argument("--store", type=Path, required=True, help="its store, of any views and image size")
    parser.add_argument("--weights", default="imagenet", help="the backbone's weights, where its file has none")
    parser.add_argument("--scans", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--head", type=Path, action="append", help="a head's file, instead of heads trained here")
    return parser.parse_args()


def read_heads(paths: list[Path]) -> list[Any]:
    from heads.files.head_file import read_head

    return [read_head(path).model for path in paths]


def trained_heads(train: Any, validation: Any, epochs: int) -> Any:
    from heads.model.build import build_head
    from heads.model.fit import Schedule, train_solo
    from heads.model.spec import POOLINGS, HeadSpec

    for pooling, (activation, dense, norm) in product(POOLINGS, TOPOLOGIES):
        spec = HeadSpec(pooling=pooling, activation=activation, dense_layers=dense, dense_units=32, batch_norm=norm)
        trained = train_solo(spec, train, validation, Schedule(epochs=epochs, batch_size=100, plan_seed=1), seed=1)
        print(f"{pooling} {activation} {dense} hidden: validation {trained.best.validation.accuracy:.3f}", flush=True)
        model = build_head(spec, train.shape, len(train.store.classes))
        model.set_weights(trained.weights)
        yield model


def covered_features(backbone: Any, paths: list[Path]) -> np.ndarray:
    """Features, (scans, 1 + places, ...), of each scan as it is and with each of its places covered."""
    from features.images.decode import decode_image
    from heads.saliency.occlusion import PATCHES, covered_pixels

    found = []
    for path in paths:
        picture = decode_image(path, backbone.image_size)
        places = PATCHES.places
        stretches = [covered_pixels(index, places, PATCHES.cover, len(picture)) for index in range(places)]
        pictures = np.repeat(picture[None], 1 + places**2, axis=0)
        grey = np.rint(picture.mean(axis=(0, 1))).astype(np.uint8)
        for covered, patch in zip(pictures[1:], product(stretches, stretches), strict=True):
            covered[patch] = grey
        found.append(backbone.features(pictures).astype(np.float16))
    return np.stack(found)


def retina_band(path: Path) -> np.ndarray:
    """The brightest third of each column of a scan, (SIDE, SIDE): the retina, smoothed over a tenth of the width.

    What the device filled in white, above and below a scan that it turned, is none of it.
    """
    from features.images.decode import original_image

    scan = np.array(original_image(path).convert("L"), np.float32)
    white = scan >= 250
    scan[np.cumprod(white, axis=0).astype(bool) | np.cumprod(white[::-1], axis=0)[::-1].astype(bool)] = 0
    small = np.asarray(Image.fromarray(scan).resize((SIDE, SIDE), Image.Resampling.BOX), np.float64)
    third, reach = SIDE // 3, BORDER // 2
    sums = np.cumsum(np.vstack([np.zeros(SIDE), small]), axis=0)
    windows = np.pad(sums[third:] - sums[:-third], ((0, 0), (reach, reach)), mode="edge")
    smooth = np.lib.stride_tricks.sliding_window_view(windows, 2 * reach + 1, axis=1).mean(axis=2)
    first = smooth.argmax(axis=0)
    depths = np.arange(SIDE)[:, None]
    band: np.ndarray = (depths >= first) & (depths < first + third)
    return band


def mass(maps: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Share of each map's mass, below 0 not counted, in its mask; maps are enlarged as they are drawn."""
    large = np.stack([enlarged(np.maximum(one, 0), SIDE) for one in maps])
    inside = (large * where).sum(axis=(1, 2))
    shares: np.ndarray = inside / np.maximum(large.sum(axis=(1, 2)), np.finfo(np.float32).tiny)
    return shares


def border() -> np.ndarray:
    inside = np.ones((SIDE, SIDE), bool)
    inside[BORDER:-BORDER, BORDER:-BORDER] = False
    return inside


def enlarged(heat: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(np.asarray(heat, np.float32)).resize((side, side), Image.Resampling.BILINEAR))


def compared(model: Any, features: np.ndarray, bands: np.ndarray) -> dict[str, tuple[float, ...]]:
    """Of each kind of map: rank correlation, share in the retina, share in the border."""
    from scipy.stats import spearmanr

    from heads.metrics.scoring import PROBABILITY_FLOOR, predict_batch
    from heads.saliency.gradcam import score_gradient

    probabilities = np.stack([predict_batch(model, scan, len(scan)) for scan in features])
    called, count = probabilities[:, 0].argmax(axis=1), probabilities.shape[2]
    own = np.take_along_axis(probabilities, called[:, None, None], axis=2)[..., 0].astype(np.float64)
    odds = np.log(np.maximum(own, PROBABILITY_FLOOR)) - np.log(np.maximum(1 - own, PROBABILITY_FLOOR))
    side = round((features.shape[1] - 1) ** 0.5)
    falls, odds_falls = ((one[:, :1] - one[:, 1:]).reshape(-1, side, side) for one in (own, odds))
    maps = {"occlusion": falls}
    chosen = np.eye(count)[called]
    others = probabilities[:, 0] * (1 - chosen)
    scores = {
        "its score": chosen,
        "less the mean": chosen - 1 / count,
        "less the nearest rival's": chosen - np.eye(count)[others.argmax(axis=1)],
        "less the others' by probability": chosen - others / others.sum(axis=1, keepdims=True),
    }
    for score, shares in scores.items():
        activation, gradient = score_gradient(model, features[:, 0], shares.astype(np.float32))
        weights = gradient.mean(axis=(1, 2), keepdims=True)
        maps[f"Grad-CAM, {score}"] = (activation * weights).sum(axis=3)
        if score in ("its score", "less the mean"):
            maps[f"HiResCAM, {score}"] = (activation * gradient).sum(axis=3)
    found: dict[str, tuple[float, ...]] = {}
    for name, heat in maps.items():
        pairs = zip(heat, odds_falls, strict=True)
        correlation = [spearmanr(enlarged(one, side).ravel(), fall.ravel())[0] for one, fall in pairs]
        found[name] = (float(np.nanmean(correlation)), mass(heat, bands).mean(), mass(heat, border()).mean())
    return found


if __name__ == "__main__":
    main()
