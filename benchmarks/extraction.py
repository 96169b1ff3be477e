"""What extraction costs beyond the forward pass: reading, decoding, resizing, checking and writing to disk.

    python benchmarks/extraction.py --images FOLDER [--backbone inception_v3|mobilenet_v2] [--weights random|FILE]

Image files through ``extract`` into a fresh store, against the same backbone, compiled, on the same number of images
that are in memory already; in turn, ``--repetitions`` times. Both are timed from the end of their first batch, which
compiles the program; what precedes it is reported apart. Then the peak memory of the command on N and on 4 N images.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from features.extraction.options import ExtractionOptions
from features.images.decode import decode_image
from features.images.folder import scan_folder
from features.images.views import parse_views
from features.runtime.backend import start_backend, use_backend


def main() -> None:
    arguments = parse()
    use_backend(arguments.backend)
    start_backend()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        ratios = [speed(arguments, Path(folder)) for _ in range(arguments.repetitions)]
        print(f"ratio, median of {len(ratios)}: {statistics.median(ratios):.3f}")
        if arguments.memory:
            memory(arguments, Path(folder))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="image folder, one sub-folder per class")
    parser.add_argument("--backbone", default="inception_v3")
    parser.add_argument("--weights", default="random", help="random (speed does not depend on them) or a file")
    parser.add_argument("--views", default="identity")
    parser.add_argument("--limit", type=int, help="images; all where not given")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--backend", choices=("tensorflow", "jax"))
    parser.add_argument("--scratch", type=Path, help="where stores are written, e.g. the disk that counts")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="measure no memory")
    return parser.parse_args()


def speed(arguments: argparse.Namespace, folder: Path) -> float:
    """Times one pair of runs; returns the rate of extraction over that of the bare backbone."""
    images, bare = forward(arguments)
    start_up, extracted = extraction(arguments, folder / "features.h5")
    ratio = extracted.rate / bare.rate
    print(f"{arguments.backbone}, {images} images: bare {bare}, extraction {extracted}, ratio {ratio:.3f}")
    print(f"  {start_up:.1f} s until the first batch was on the disk", flush=True)
    return ratio


@dataclass(frozen=True)
class Pace:
    """How fast images went by: in a second, and the processor's share of it, in milliseconds for an image."""

    rate: float
    processor_ms: float

    def __str__(self) -> str:
        return f"{self.rate:.1f} images/s ({self.processor_ms:.1f} ms of processor time each)"


@dataclass(frozen=True)
class Moment:
    """When how many images were done."""

    images: int
    wall: float
    processor: float

    @classmethod
    def now(cls, images: int) -> Moment:
        """The present one."""
        return cls(images, time.perf_counter(), time.process_time())

    def pace_since(self, start: Moment) -> Pace:
        """How fast it went since an earlier moment."""
        images = self.images - start.images
        return Pace(images / (self.wall - start.wall), 1e3 * (self.processor - start.processor) / images)


def extraction(arguments: argparse.Namespace, store: Path) -> tuple[float, Pace]:
    """Extracts into a fresh store; returns the seconds up to the first batch, and the pace from then on."""
    from features.extraction.extraction import extract_store

    moments = [Moment.now(0)]
    extract_store(
        arguments.images,
        store,
        options_of(arguments),
        on_progress=lambda settled, total: moments.append(Moment.now(settled)),
    )
    store.unlink()
    begun, first = moments[0], moments[2]  # the second is the report that precedes all work
    return first.wall - begun.wall, moments[-1].pace_since(first)


def forward(arguments: argparse.Namespace) -> tuple[int, Pace]:
    """Runs the backbone on images in memory; returns their number and the pace without the first batch."""
    from features.extraction.backbones import build_backbone

    table = scan_folder(arguments.images, limit=arguments.limit)
    views = parse_views(arguments.views)
    backbone = build_backbone(options_of(arguments).spec)
    size = arguments.batch_size
    decoded = [decode_image(table.folder / path, backbone.image_size) for path in table.paths[:size]]
    decoded = (decoded * size)[:size]
    batches = [np.stack([view.apply(image) for image in decoded]) for view in views]
    backbone.features(batches[0])
    rounds = -(-len(table) // size) - 1
    begun = Moment.now(0)
    for _ in range(rounds):
        for batch in batches:
            backbone.features(batch)
    return len(table), Moment.now(rounds * size).pace_since(begun)


def options_of(arguments: argparse.Namespace) -> ExtractionOptions:
    names = ("backbone", "weights", "views", "batch_size", "limit")
    return ExtractionOptions(**{name: getattr(arguments, name) for name in names})


def memory(arguments: argparse.Namespace, folder: Path) -> None:
    """Prints the peak resident memory of the command on the images, and on four times as many."""
    table = scan_folder(arguments.images, limit=arguments.limit)
    for times in (1, 4):
        images = folder / f"images-{times}"
        for path in table.paths:
            for number in range(times):
                link = images / Path(path).parent / f"{number}-{Path(path).name}"
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to((table.folder / path).resolve())
        peak = peak_memory(arguments, images, folder / f"features-{times}.h5")
        print(f"peak memory on {times * len(table)} images: {peak / 1e6:,.0f} MB", flush=True)


def peak_memory(arguments: argparse.Namespace, images: Path, store: Path) -> int:
    """Runs the command in a process of its own; returns its peak resident memory in bytes."""
    options = ("backbone", "weights", "views", "batch_size", "backend")
    given = [(f"--{name.replace('_', '-')}", getattr(arguments, name)) for name in options]
    flat = [str(word) for pair in given if pair[1] is not None for word in pair]
    process = subprocess.Popen(
        [sys.executable, "-m", "features.extract", str(images), str(store), *flat], stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    store.unlink(missing_ok=True)
    if process.returncode:
        sys.exit(said.decode(errors="replace"))
    return usage.ru_maxrss * 1024


if __name__ == "__main__":
    main()
