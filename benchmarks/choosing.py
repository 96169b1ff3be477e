"""How good the choosing is: whole searches within outer folds by patient, each tested on patients that it never saw.

    python benchmarks/choosing.py STORE ... [--folds 5] [--option trials=60 --option epochs=30 ...] [--keep FOLDER]

The rows of one store, or of several of the same images, are dealt into outer folds by patient. For each of them a
search runs on all other rows, with its own split, repeats and refit; then what it recommends, its single winner, the
ensemble of its finalists and the article's head (trained on the same rows as the winner) predict the rows left out.
So every row is tested once, by a search that had no part in it.

Beside these stand the trial of the best single value, as the winner is the one whose repeats are best: what the
repeats are worth; and what people do without a search, a linear probe (``linear_probe.py``). Printed are the accuracies
over all rows with 95% intervals over patients, and the paired differences from the article's head. ``--option
NAME=VALUE`` is any option of ``search.run``; run it again with others to see what they are worth. With ``--keep`` a run
goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from linear_probe import linear_probe
from paths import use_tests
from views import SomeViews

from features.rows.split import fold_rows, groups_of
from features.runtime.errors import InputError
from features.store.reader import FeatureStore
from features.store.schema import ROW_FIELDS
from heads.metrics.intervals import accuracy_interval, difference_interval
from search.finish.export_choice import what_leaves
from search.record.head_files import find_head
from search.running import run_study
from search.setup.export_options import ExportOptions
from search.setup.stores import named_paths
from search.study import open_study
from search.trials.notes import TrialNotes
from search.trials.ranking import ranking

use_tests()
ARTICLE, WINNER, RECOMMENDED = "the article's head", "single winner", "recommended"
ASKED = {
    ARTICLE: "article",
    WINNER: "winner",
    "average of its repeats": "repeats",
    "ensemble of the finalists": "ensemble",
    RECOMMENDED: "recommended",
}
BEST_VALUE, PROBE = "trial of the best single value", "linear probe"
AS_IT_IS = "recommended, image as it is"
"""Tested in one view, as a model from image to class sees it, where the stores have several."""
PLAIN = "identity"
Right = dict[str, npt.NDArray[np.bool_]]
"""By who called them, whether each row of an outer fold was classified correctly."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stores", nargs="+", metavar="STORE", help="PATH or NAME=PATH; several of the same images")
    parser.add_argument("--folds", type=int, default=5, help="outer folds")
    parser.add_argument("--seed", type=int, default=0, help="decides the outer folds")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="of search.run")
    parser.add_argument("--keep", type=Path, help="folder for stores and studies; else they are removed")
    arguments = parser.parse_args()
    options = dict(option.split("=", 1) for option in arguments.option)
    with tempfile.TemporaryDirectory() as temporary:
        place = arguments.keep or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        stores = {name: FeatureStore(path) for name, path in named_paths(arguments.stores).items()}
        store = next(iter(stores.values()))
        folds = fold_rows(
            store.usable,
            store.labels,
            store.patients,
            folds=arguments.folds,
            seed=arguments.seed,
            classes=store.classes,
        )
        found = [outer_fold(stores, rows, place / f"{number}", options) for number, rows in enumerate(folds)]
    told = " ".join(arguments.option) or "all options at their defaults"
    print(f"{len(store.usable)} rows, {arguments.folds} outer folds by patient, {', '.join(stores)}; {told}")
    report(found, store.patients[np.concatenate(folds)])


def outer_fold(
    stores: Mapping[str, FeatureStore], tested: npt.NDArray[np.int64], place: Path, options: dict[str, Any]
) -> Right:
    """Runs a search without some rows, and lets what it found predict these."""
    place.mkdir(parents=True, exist_ok=True)
    store = next(iter(stores.values()))
    others = np.setdiff1d(store.usable, tested)
    inner = {name: write_rows(one, others, place / f"{name}-train.h5") for name, one in stores.items()}
    outer = {name: write_rows(one, tested, place / f"{name}-test.h5") for name, one in stores.items()}
    folder = place / "study"
    if not (folder / "summary.json").exists():
        run_study(inner, test=outer, out=folder, resume=(folder / "study.json").exists(), **options)
    record = open_study(folder).record
    calls = {}
    for who, which in ASKED.items():
        try:
            leaving = what_leaves(record, ExportOptions.model_validate({"which": which, "with_backbone": True}))
        except InputError:
            continue  # there is none in this study
        calls[who] = _calls(record.study, leaving.paths, outer)
        if who == RECOMMENDED and all({PLAIN} < set(one.header.views) for one in stores.values()):
            calls[AS_IT_IS] = _calls(record.study, leaving.paths, outer, views=[PLAIN])
    best = find_head(folder, ranking(record.study)[0].number, refitted=True)
    calls[BEST_VALUE] = _calls(record.study, [best], outer)
    calls[PROBE], chosen = linear_probe(stores, others, tested, seed=0)
    right = {who: called == store.labels[tested] for who, called in calls.items()}
    told = ", ".join(f"{who} {found.mean():.4f}" for who, found in right.items())
    print(f"  {len(tested)} rows left out: {told} ({chosen})", flush=True)
    return right


def write_rows(store: FeatureStore, rows: npt.NDArray[np.int64], path: Path) -> Path:
    """Writes a store of some rows, unless it is there."""
    from made_stores import fill_store

    if path.exists():
        return path
    header = store.header
    names = [*ROW_FIELDS, *(["modified"] if header.modified else [])]
    chosen: dict[str, Any] = {name: tuple(getattr(header, name)[row] for row in rows) for name in names}
    header = replace(header, **chosen, parts=())  # the outer folds are the parts here
    contents = None if store.contents is None else store.contents[rows]

    def taken(batch: range) -> npt.NDArray[Any]:
        return np.stack([store.take(rows[list(batch)], view) for view in range(len(header.views))], axis=1)

    written: Path = fill_store(path, header, taken, contents=contents)
    return written


def _calls(
    study: Any, paths: Sequence[Path], outer: Mapping[str, Path], *, views: Sequence[str] | None = None
) -> npt.NDArray[np.int64]:
    """Classes that the mean of some heads calls, all views averaged, or some."""
    from features.rows.feed import Feed
    from heads.files.head_file import read_head
    from heads.files.projected import for_features_of
    from heads.metrics.scoring import average_views, predict_probabilities

    store_of = {trial.number: TrialNotes.of(trial).store for trial in study.get_trials(deepcopy=False)}
    probabilities = []
    for path in paths:
        head = read_head(path)
        name = store_of[head.metadata.trial]
        store = FeatureStore(outer[name] if name else next(iter(outer.values())))
        source = store if views is None else SomeViews(store, views)
        feed = Feed(source, store.usable, memory_bytes=2**30)
        model = for_features_of(path, head.model, store.header)
        probabilities.append(predict_probabilities(model, feed))
    called: npt.NDArray[np.int64] = average_views(probabilities).argmax(axis=1)
    return called


def report(found: Sequence[Right], patients: npt.NDArray[Any]) -> None:
    """Prints what all rows together say; who is not there in some fold is the single winner there."""
    groups = groups_of(patients)
    everybody = [who for who in (*ASKED, AS_IT_IS, BEST_VALUE, PROBE) if any(who in right for right in found)]
    right = {who: np.concatenate([one.get(who, one[WINNER]) for one in found]) for who in everybody}
    for who, calls in right.items():
        low, high = accuracy_interval(calls, groups)
        line = f"  {who:<32}{100 * calls.mean():6.1f}%  ({100 * low:.1f} to {100 * high:.1f})"
        if who != ARTICLE and ARTICLE in right:
            low, high = difference_interval(calls, right[ARTICLE], groups)
            value = 100 * (calls.mean() - right[ARTICLE].mean())
            line += f"   {value:+.1f} points  ({100 * low:+.1f} to {100 * high:+.1f})"
        print(line)


if __name__ == "__main__":
    main()
