"""How well near-identical images are told from others: copies of real images are planted, and looked for.

    python benchmarks/near_identical.py --images FOLDER [--backbone mobilenet_v2] [--weights random:0|FILE]
                                        [--image-size N] [--alpha A] [--views identity,flip]

First without copies: the threshold, the largest similarity of two images of different patients, and what is found among
them. Then for each kind of copy: every eighth image once more, under the name of another patient; how many of these
pairs are found, and how many others. ``--demonstration`` takes the built-in scans instead of a folder.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from features.images.folder import scan_folder
from features.leaks.duplicates import find_near_identical
from features.leaks.similarity import Images, Similarity
from features.rows.split import groups_of
from features.runtime.backend import start_backend, use_backend
from features.store.reader import FeatureStore

EVERY = 8
COPY = "copy"
"""What the patients of copies are called, before the number of their kind."""


def recompressed(image: Image.Image, quality: int = 60) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def moved(image: Image.Image, pixels: int) -> Image.Image:
    """To the right and down; what comes in is the nearest pixel of the edge."""
    padded = np.pad(np.asarray(image), ((pixels, 0), (pixels, 0)), mode="edge")
    return Image.fromarray(padded[: image.height, : image.width])


def brightened(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(factor)


def halved(image: Image.Image) -> Image.Image:
    small = image.resize((image.width // 2, image.height // 2), Image.Resampling.BILINEAR)
    return small.resize(image.size, Image.Resampling.BILINEAR)


def cropped(image: Image.Image) -> Image.Image:
    width, height = image.size
    return image.crop((width // 50, height // 50, width - width // 50, height - height // 50))


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "the same pixels": lambda image: image,
    "JPEG, quality 60": recompressed,
    "brightness +5%": lambda image: brightened(image, 1.05),
    "brightness -5%": lambda image: brightened(image, 0.95),
    "moved by 1 pixel": lambda image: moved(image, 1),
    "moved by 2 pixels": lambda image: moved(image, 2),
    "moved by 3 pixels": lambda image: moved(image, 3),
    "half the size and back": halved,
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "2% cut off each edge": cropped,
    "turned by 1 degree": lambda image: image.rotate(1, Image.Resampling.BILINEAR),
    "half, moved by 2, +5%, JPEG": lambda image: recompressed(brightened(moved(halved(image), 2), 1.05)),
}


def main() -> None:
    arguments = parse()
    use_backend("tensorflow")
    start_backend()
    with tempfile.TemporaryDirectory() as folder:
        images = arguments.images or demonstration(Path(folder) / "scans")
        plant(images, Path(folder) / "planted")
        measure(extracted(arguments, Path(folder)))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--images", type=Path, help="image folder, one sub-folder per class")
    source.add_argument("--demonstration", action="store_true", help="the built-in scans")
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--weights", default="random:0")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--alpha", type=float)
    parser.add_argument("--views", default="identity")
    return parser.parse_args()


def demonstration(folder: Path) -> Path:
    from features.extraction.demonstration import make_scans

    make_scans(folder, seed=0)
    return folder


def plant(images: Path, planted: Path) -> None:
    """Links all images into a new folder, and adds the copies, each of a patient of its own."""
    for number, path in enumerate(scan_folder(images).paths):
        target = planted / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to((images / path).resolve())
        if number % EVERY == 0:
            original = Image.open(images / path).convert("L")
            for kind, copy in enumerate(COPIES.values()):
                copy(original).save(target.parent / f"X-{COPY}{kind}x{number}-1@{target.stem}.png")


def extracted(arguments: argparse.Namespace, folder: Path) -> FeatureStore:
    from features.extraction.extraction import extract_store
    from features.extraction.options import ExtractionOptions

    options = ExtractionOptions(
        backbone=arguments.backbone,
        weights=arguments.weights,
        image_size=arguments.image_size,
        alpha=arguments.alpha,
        views=arguments.views,
        group_pattern="^[^-]+-([^-]+)-",
    )
    extract_store(folder / "planted", folder / "store.h5", options)
    return FeatureStore(folder / "store.h5")


def measure(store: FeatureStore) -> None:
    copied = np.array([patient.startswith(COPY) for patient in store.patients])
    originals = np.flatnonzero(~copied)
    images, groups = Images([(store, originals)]), groups_of(store.patients[originals])
    begun = time.perf_counter()
    found = find_near_identical(images, groups)
    print(f"{len(images)} images, {time.perf_counter() - begun:.2f} s, threshold {found.threshold:.3f}")
    print(
        f"of different patients: the largest similarity {largest(images, groups):.3f}, pairs found {len(found.pairs)}"
    )
    for pair in find_near_identical(images, np.arange(len(images))).pairs[:10]:
        print(f"  of one patient: {pair.similarity:.3f} {images.paths[pair.first]} {images.paths[pair.second]}")
    for kind, name in enumerate(COPIES):
        mine = np.flatnonzero([patient.startswith(f"{COPY}{kind}x") for patient in store.patients])
        rows = np.concatenate([originals, mine])
        images = Images([(store, rows)])
        found = find_near_identical(images, groups_of(store.patients[rows]))
        names = [{source_of(store, rows[pair.first]), source_of(store, rows[pair.second])} for pair in found.pairs]
        hits = sum(len(pair) == 1 for pair in names)
        print(f"{name:28s} {hits} of {len(mine)} found, {len(names) - hits} others, threshold {found.threshold:.3f}")


def source_of(store: FeatureStore, row: int) -> str:
    """Path of the image that a row is, or is a copy of, without its class."""
    name = Path(store.header.paths[row]).stem
    return name.split("@")[1] if "@" in name else name


def largest(images: Images, groups: np.ndarray) -> float:
    """The largest similarity of two images of different patients."""
    similarity = Similarity.fit(images, *images.sketch())
    remainders, mirrored = similarity.remainders(np.arange(len(images)))
    products = np.maximum(remainders @ remainders.T, remainders @ mirrored.T)
    return float(products[groups[:, None] != groups].max())


if __name__ == "__main__":
    main()
