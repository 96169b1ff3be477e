"""What cached views are worth: the same heads on some of the views of a store, paired.

    python -m features.extract IMAGES STORE --views identity,flip,...
    python benchmarks/views.py STORE [--views identity identity,flip ...] [--seeds 3] [--folds 5] [--epochs 50]

The article's head and five others, all with cosine, are cross-validated by patient from several seeds each, in one bank
for each choice of views, on the same batches of rows: of each row one of the chosen views is drawn, and a row that is
tested is the mean over all of them. Printed are the accuracies over rows and seeds, and the differences from the first
choice, with the two intervals of ``compression.py``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from compression import HEADS, report, right

from features.rows.split import fold_rows
from features.runtime.allocator import keep_freed_memory
from features.runtime.backend import start_backend, use_backend
from features.store.reader import FeatureStore
from features.store.schema import Rows
from features.store.source import CHUNK_BYTES, DerivedSource, Features, FeatureSource


class SomeViews(DerivedSource):
    """Rows of a source, in some of its views."""

    def __init__(self, source: FeatureSource, views: Sequence[str]) -> None:
        super().__init__(source, replace(source.header, views=tuple(views)))
        self._views = np.array([source.header.views.index(view) for view in views])

    def _taken(self, rows: Rows, views: npt.NDArray[np.int64] | int | None) -> Features:
        """See ``FeatureSource``."""
        if views is None:
            return self.source.take(rows)[:, self._views]
        return self.source.take(rows, self._views[np.broadcast_to(views, len(rows))])

    def chunks(self, limit: int = CHUNK_BYTES) -> Iterator[tuple[int, Features]]:
        """Yields (first row, features with all views) of successive rows; see ``FeatureSource``."""
        for start, features in self.source.chunks(limit):
            yield start, features[:, self._views]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--views", nargs="+", help="choices of views with commas; identity, and all of the store, else")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=32)
    arguments = parser.parse_args()
    use_backend(None)
    keep_freed_memory()
    start_backend()
    store = FeatureStore(arguments.store)
    folds = fold_rows(store.usable, store.labels, store.patients, folds=arguments.folds, seed=0, classes=store.classes)
    rows = np.concatenate(folds)
    print(
        f"{len(HEADS)} heads x {arguments.seeds} seeds, {arguments.folds} folds by patient of {len(rows)} rows,"
        f" {arguments.epochs} epochs, {arguments.store}"
    )
    choices = arguments.views or ("identity", ",".join(store.header.views))
    first, *others = [SomeViews(store, choice.split(",")) for choice in choices]
    heads = {name: replace(spec, schedule="cosine") for name, spec in HEADS.items()}
    few = right(first, folds, heads, arguments)
    for source in others:
        many = right(source, folds, heads, arguments)
        print(f"\n{', '.join(source.header.views)}, instead of {', '.join(first.header.views)}")
        print(f"{'':30} {'before':>7} {'with':>7} {'difference':>11}   by patients         by pairs")
        for number, name in enumerate(heads):
            report(name, many[number], few[number], store.patients[rows])
        report("all heads", many, few, store.patients[rows])


if __name__ == "__main__":
    main()
