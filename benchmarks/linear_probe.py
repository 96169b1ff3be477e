"""What people do without a search: logistic regression on maps averaged over their positions (a *linear probe*).

    python benchmarks/linear_probe.py STORE ... [--folds 5]

Each row is tested once, in outer folds by patient, those of ``choosing.py``, which has it beside whole searches. Its
store and the strength of its penalty are chosen by patient-grouped folds of the rows that it may see, so it is a small
search, too, by scikit-learn, of heads that are convex.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from features.rows.split import fold_rows, groups_of
from features.store.reader import FeatureStore
from features.store.schema import Rows
from heads.metrics.intervals import accuracy_interval
from search.setup.stores import named_paths

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
FOLDS = 5
ITERATIONS = 200
Pooled = npt.NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stores", nargs="+", metavar="STORE", help="PATH or NAME=PATH; several of the same images")
    parser.add_argument("--folds", type=int, default=5, help="outer folds")
    parser.add_argument("--seed", type=int, default=0, help="decides the outer folds")
    arguments = parser.parse_args()
    stores = {name: FeatureStore(path) for name, path in named_paths(arguments.stores).items()}
    first = next(iter(stores.values()))
    every = first.labels, first.patients
    folds = fold_rows(first.usable, *every, folds=arguments.folds, seed=arguments.seed, classes=first.classes)
    right = []
    for tested in folds:
        called, chosen = linear_probe(stores, np.setdiff1d(first.usable, tested), tested, seed=0)
        right.append(called == first.labels[tested])
        print(f"  {len(tested)} rows left out: {right[-1].mean():.4f} ({chosen})", flush=True)
    calls = np.concatenate(right)
    low, high = accuracy_interval(calls, groups_of(first.patients[np.concatenate(folds)]))
    print(f"{len(calls)} rows: {100 * calls.mean():.1f}%  ({100 * low:.1f} to {100 * high:.1f})")


def linear_probe(
    stores: Mapping[str, FeatureStore], trained: Rows, tested: Rows, *, seed: int
) -> tuple[npt.NDArray[np.int64], str]:
    """Trains on some rows and predicts others.

    Args:
        stores: Of the same images, by name.
        trained: Rows to choose and to train on.
        tested: Rows to predict.
        seed: Decides the folds that choose.

    Returns:
        (tested,) the classes called, views averaged; and what was chosen, in words.
    """
    first = next(iter(stores.values()))
    folds = fold_rows(trained, first.labels, first.patients, folds=FOLDS, seed=seed, classes=first.classes)
    pooled = {name: _pooled(store) for name, store in stores.items()}

    def right(name: str, strength: float) -> int:
        count = 0
        for fold in folds:
            model = _trained(pooled[name], first.labels, np.setdiff1d(trained, fold), strength)
            count += int((_called(model, pooled[name], fold) == first.labels[fold]).sum())
        return count

    best = max(((name, strength) for name in stores for strength in STRENGTHS), key=lambda one: right(*one))
    called = _called(_trained(pooled[best[0]], first.labels, trained, best[1]), pooled[best[0]], tested)
    return called, f"{best[0]}, C {best[1]:g}"


def _pooled(store: FeatureStore) -> Pooled:
    """Every row's maps in every view, averaged over the positions: (rows, views, channels)."""
    pooled = np.zeros((len(store), len(store.header.views), store.header.feature_shape[-1]), np.float32)
    for view in range(pooled.shape[1]):
        for row in store.usable:
            pooled[row, view] = store.take(np.array([row]), view)[0].astype(np.float32).mean(axis=(0, 1))
    return pooled


def _trained(pooled: Pooled, labels: npt.NDArray[np.int32], rows: Rows, strength: float) -> Pipeline:
    views = pooled.shape[1]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=ITERATIONS))
    with warnings.catch_warnings():
        # The weakest penalties separate the rows and have no end; where they stand then is a model like another.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(pooled[rows].reshape(len(rows) * views, -1), np.repeat(labels[rows], views))


def _called(model: Pipeline, pooled: Pooled, rows: Rows) -> npt.NDArray[np.int64]:
    views = pooled.shape[1]
    probabilities = model.predict_proba(pooled[rows].reshape(len(rows) * views, -1))
    called: npt.NDArray[np.int64] = model.classes_[probabilities.reshape(len(rows), views, -1).mean(axis=1).argmax(1)]
    return called


if __name__ == "__main__":
    main()
