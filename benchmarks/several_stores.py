"""What it costs to have several stores in one study, against a study for each of them.

    python benchmarks/several_stores.py STORE STORE ... [--trials 60] [--epochs 10] [--option NAME=VALUE ...]

One study over all stores, drawn at random and without pruning; then for each store a study of as many trials as it had
there, in turn: the same trial-epochs on the same stores, one bank at a time. Seconds are of the searches from their
first trial to their last, compilation included, without finalists. ``--option`` is any option of ``search.run``.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from search.running import run_study
from search.setup.stores import named_paths
from search.study import Study
from search.trials.notes import TrialNotes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stores", nargs="+", metavar="STORE", help="PATH or NAME=PATH, of the same images")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="of search.run")
    arguments = parser.parse_args()
    options: dict[str, Any] = dict(option.split("=", 1) for option in arguments.option)
    options |= {"epochs": arguments.epochs, "sampler": "random", "pruner": "none", "finalists": 0}
    stores = named_paths(arguments.stores)
    with tempfile.TemporaryDirectory() as place:
        together = run_study(arguments.stores, out=Path(place) / "together", trials=arguments.trials, **options)
        counts = Counter(TrialNotes.of(trial).store for trial in together.record.trials)
        studies = {
            name: run_study(path, out=Path(place) / name, trials=counts[name], **options)
            for name, path in stores.items()
        }
        alone = [measured(study) for study in studies.values()]
        found = measured(together)
    print(f"{arguments.trials} trials, {arguments.epochs} epochs, {', '.join(f'{n} {counts[n]}' for n in stores)}")
    print(f"  one study of {len(stores)} stores  {found[0]:7.1f} s for {found[1]} trial-epochs")
    for name, (seconds, epochs) in zip(stores, alone, strict=True):
        print(f"  {name:<20}  {seconds:7.1f} s for {epochs} trial-epochs")
    ratio = (found[0] / found[1]) / (sum(one[0] for one in alone) / sum(one[1] for one in alone))
    print(f"  together: {ratio:.2f} times the seconds of a study for each")


def measured(study: Study) -> tuple[float, int]:
    """Seconds of a search, and its trial-epochs."""
    summary = study.summary
    return summary.search_seconds, summary.trial_epochs


if __name__ == "__main__":
    main()
