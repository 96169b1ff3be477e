"""What it would change if the repeats of a head drew an order of rows of their own.

    python benchmarks/orders.py STORE [--heads 6] [--repeats 4] [--epochs 50]

Everything in one bank sees the same batches, so repeats differ in first weights and dropout only. Here the same heads,
the article's and some of the default space, all with cosine, are trained by patient folds from the same seeds: all
repeats in one bank, and each repeat in a bank of its own batches. Were the common order to make repeats alike, their
values would spread less, two of them would agree on more rows, and their average would gain less.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import optuna

from features.rows.split import fold_rows
from features.runtime.allocator import keep_freed_memory
from features.runtime.backend import start_backend, use_backend
from features.store.reader import FeatureStore
from heads.metrics.scoring import Probabilities
from heads.model.spec import HeadSpec
from search.setup.space import ARTICLE, read_study_file

SPACE = Path(__file__).parents[1] / "studies" / "heads.toml"
BATCH_SIZE = 32
FOLDS = 5
SEED = 5
"""Of the order that all repeats share."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--heads", type=int, default=6, help="the article's among them")
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=50)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    use_backend(None)
    keep_freed_memory()
    start_backend()
    from search.setup.cross_validation import cross_validate  # after the choice of the backend

    store = FeatureStore(arguments.store)
    folds = fold_rows(store.usable, store.labels, store.patients, folds=FOLDS, seed=0, classes=store.classes)
    specs = heads_of(arguments.heads)

    def repeats_of(numbers: Sequence[int], seed: int) -> list[Probabilities]:
        heads = [(spec, 100 * number + index) for number in numbers for index, spec in enumerate(specs)]
        return cross_validate(store, folds, heads, epochs=arguments.epochs, batch_size=BATCH_SIZE, seed=seed)

    labels, numbers = store.labels[np.concatenate(folds)], range(arguments.repeats)
    print(
        f"{len(labels)} rows, {FOLDS} folds, {len(specs)} heads, {arguments.repeats} repeats, {arguments.epochs} epochs"
    )
    begun = time.perf_counter()
    common = repeats_of(numbers, SEED)
    seconds = time.perf_counter() - begun
    print(describe("one order for all", common, len(specs), labels, seconds), flush=True)
    begun = time.perf_counter()
    own = [one for number in numbers for one in repeats_of([number], 10 * SEED + number)]
    print(describe("an order for each", own, len(specs), labels, time.perf_counter() - begun))


def heads_of(count: int) -> list[HeadSpec]:
    """The article's head, and some that were drawn from the default space."""
    space = read_study_file(SPACE).space
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3))
    drawn = [space.suggest(study.ask()) for _ in range(count - 1)]
    return [replace(spec, schedule="cosine") for spec in (ARTICLE, *drawn)]


def describe(
    what: str, repeats: Sequence[Probabilities], heads: int, labels: npt.NDArray[np.int32], seconds: float
) -> str:
    """Says how the repeats of heads differ: those of the first repeat first."""
    made = np.stack(repeats).reshape(-1, heads, *repeats[0].shape)
    called = made.argmax(axis=-1)
    values = (called == labels).mean(axis=-1)
    average = (made.mean(axis=0).argmax(axis=-1) == labels).mean()
    unlike = np.mean([(called[one] != called[other]).mean() for one, other in combinations(range(len(called)), 2)])
    spread = np.median(values.std(axis=0, ddof=1))
    return (
        f"  {what}: {100 * values.mean():.1f}% right, sd of a head's repeats {100 * spread:.2f} (the median head),"
        f" two of them differ on {100 * unlike:.1f}% of the rows, their average {100 * average:.1f}%; {seconds:.0f} s"
    )


if __name__ == "__main__":
    main()
