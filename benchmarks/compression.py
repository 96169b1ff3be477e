"""What it costs a head to be trained in a few directions of the channels: full against compressed, paired.

    python benchmarks/compression.py STORE [--channels 256 ...] [--seeds 5] [--folds 5] [--epochs 30] [--quick]

The article's head and five others are cross-validated by patient from several seeds each: all of them in one bank for
each number of channels, on the same batches. As in ``features.compress``, the directions are those of the rows that a
default search trains on; rows that had no say in them are reported beside all rows.

Printed are, for each head and for all, the accuracy with all channels and with few (over rows and seeds) and their
difference, with two 95% intervals: one with patients as units (``heads.metrics.intervals``); one by Student's t over
the pairs (a head and a seed each), which says what another seed would change.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from features.compression.directions import default_training_rows, principal_directions
from features.rows.split import fold_rows, groups_of
from features.runtime.backend import start_backend, use_backend
from features.store.projected import ProjectedStore
from features.store.reader import FeatureStore
from features.store.schema import Rows
from features.store.source import FeatureSource
from heads.metrics.intervals import mean_interval
from heads.model.spec import HeadSpec

HEADS = {
    "the article's head": HeadSpec(),
    "16, no batch norm, smoothed": HeadSpec(conv_width=16, batch_norm=False, label_smoothing=0.1, dropout=0.2),
    "32, average pooling": HeadSpec(conv_width=32, pooling="average", dropout=0.0, learning_rate=3e-3),
    "64, GELU, hidden layer": HeadSpec(activation="gelu", dropout=0.3, dense_layers=1, dense_dropout=0.2),
    "96, two hidden layers, decay": HeadSpec(
        conv_width=96, pooling="average", dense_layers=2, dense_units=32, weight_decay=1e-2
    ),
    "128, SiLU, max pooling": HeadSpec(conv_width=128, activation="silu", pooling="max"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--channels", type=int, nargs="+", default=[256])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--backend", choices=("tensorflow", "jax"))
    parser.add_argument(
        "--quick", action="store_true", help="two heads, two seeds, two folds, two epochs: does it run?"
    )
    arguments = parser.parse_args()
    use_backend(arguments.backend)
    start_backend()
    heads = HEADS
    if arguments.quick:
        arguments.seeds = arguments.folds = arguments.epochs = 2
        heads = dict(list(HEADS.items())[:2])
    store = FeatureStore(arguments.store)
    decided = default_training_rows(store)
    assert decided is not None, "too few patients to split"
    folds = fold_rows(store.usable, store.labels, store.patients, folds=arguments.folds, seed=0)
    rows = np.concatenate(folds)
    directions = principal_directions(store, decided)
    print(
        f"{len(heads)} heads x {arguments.seeds} seeds, {arguments.folds} folds by patient of {len(rows)} rows,"
        f" {arguments.epochs} epochs, {arguments.store}"
    )
    full = right(store, folds, heads, arguments)
    for channels in arguments.channels:
        few = right(ProjectedStore(store, directions.first(channels)), folds, heads, arguments)
        share = directions.shares[channels - 1]
        print(f"\n{channels} of {store.header.feature_shape[2]} channels, {share:.2%} of the squares")
        print(f"{'':30} {'all':>7} {'few':>7} {'difference':>11}   by patients         by pairs")
        unseen = ~np.isin(rows, decided)
        parts: dict[str, tuple[Any, Any]] = {name: (number, slice(None)) for number, name in enumerate(heads)}
        parts |= {"all heads": (slice(None), slice(None)), "rows without a say": (slice(None), unseen)}
        for name, (head, chosen) in parts.items():
            mine, theirs = few[head][..., chosen], full[head][..., chosen]
            report(name, mine, theirs, store.patients[rows[chosen]])


def right(
    source: FeatureSource, folds: list[Rows], heads: dict[str, HeadSpec], arguments: argparse.Namespace
) -> npt.NDArray[np.float64]:
    """(heads, seeds, rows) whether a row is classified correctly, by a head that has not seen it."""
    from search.setup.cross_validation import cross_validate  # after the choice of the backend

    start = time.perf_counter()
    runs = [(spec, seed) for spec in heads.values() for seed in range(arguments.seeds)]
    found = cross_validate(
        source, folds, runs, epochs=arguments.epochs, batch_size=arguments.batch_size, seed=arguments.folds
    )
    labels = source.labels[np.concatenate(folds)]
    called = np.array([probabilities.argmax(axis=1) == labels for probabilities in found], float)
    shown = f"{source.header.feature_shape[2]} channels, {len(source.header.views)} view(s)"
    print(f"  {shown}: {time.perf_counter() - start:.0f} s", flush=True)
    return called.reshape(len(heads), arguments.seeds, -1)


def report(
    name: str, mine: npt.NDArray[np.float64], theirs: npt.NDArray[np.float64], patients: npt.NDArray[np.str_]
) -> None:
    """Prints a line for (..., seeds, rows)."""
    from scipy.stats import t

    differences = mine - theirs
    pairs = differences.mean(axis=-1).ravel()
    half = t.ppf(0.975, len(pairs) - 1) * pairs.std(ddof=1) / len(pairs) ** 0.5
    of_rows = differences.reshape(-1, differences.shape[-1]).mean(axis=0)
    low, high = mean_interval(of_rows, groups_of(patients))
    mean = pairs.mean()
    by_pairs = f"{mean - half:+.4f} to {mean + half:+.4f}"
    print(f"{name:30} {theirs.mean():7.4f} {mine.mean():7.4f} {mean:+11.4f}   {low:+.4f} to {high:+.4f}   {by_pairs}")


if __name__ == "__main__":
    main()
