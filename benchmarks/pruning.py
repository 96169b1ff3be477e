"""What each pruner would have saved and lost, on full curves of real heads.

    python -m search.run --features STORE --trials 112 --epochs 40 --pruner none --sampler random --folds 0
        --batch-size 100 --out studies/curves
    python benchmarks/pruning.py studies/curves

The study's heads were trained to the end. Their curves are played back to each pruner, in many random orders and as
cohorts of the size of a bank, refilled as trials are pruned: *saved* is the share of all epochs that were not trained,
*lost* the accuracy by which the best head that was left falls short of the best of all, *kept best* how often the best
head itself survived.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from statistics import mean

import optuna
from optuna.trial import TrialState

from search.record.storage import load_study
from search.setup.config import StudyConfig
from search.trials.pruning import RungPruner, is_last_survivor, make_pruner, rungs

Curve = list[float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="study directory of a search with --pruner none")
    parser.add_argument("--at-once", type=int, default=12, help="heads in the bank")
    parser.add_argument("--orders", type=int, default=20, help="random orders in which the trials come")
    arguments = parser.parse_args()
    config = StudyConfig.read(arguments.study)
    trials = load_study(arguments.study, config.name, config.storage).get_trials()
    curves = [list(t.intermediate_values.values()) for t in trials if t.state == TrialState.COMPLETE]
    epochs = config.epochs
    assert all(len(curve) == epochs for curve in curves), "the study was pruned: run it with --pruner none"
    values = sorted(max(curve) for curve in curves)
    print(f"{len(curves)} curves of {epochs} epochs; best values {', '.join(f'{v:.4f}' for v in values[-3:][::-1])}")
    print(f"median {values[len(values) // 2]:.4f}, worst {values[0]:.4f}; {arguments.at_once} heads at once,")
    print(f"{arguments.orders} orders; means over them\n")
    print(f"{'pruner':34s} {'saved':>7s} {'lost':>8s} {'most':>8s} {'kept best':>10s}")
    for name, pruner in pruners(epochs).items():
        runs = [play(curves, pruner, arguments.at_once, seed) for seed in range(arguments.orders)]
        saved = 1 - mean(trained for trained, _ in runs) / (len(curves) * epochs)
        losses = [values[-1] - best for _, best in runs]
        kept = mean(loss <= 1e-12 for loss in losses)
        print(f"{name:34s} {saved:7.1%} {mean(losses):8.4f} {max(losses):8.4f} {kept:10.0%}")


def pruners(epochs: int) -> dict[str, optuna.pruners.BasePruner]:
    """The pruners of search.run, and neighbours of the default."""
    quarter = tuple(sorted({max(1, epochs // 4), max(1, epochs // 2)}))
    return {
        **{name: make_pruner(name, epochs=epochs) for name in ("none", "median", "hyperband", "halving")},
        "halving from a quarter": RungPruner(quarter),
        "halving at half only": RungPruner((max(1, epochs // 2),)),
        "halving, a third goes on": RungPruner(rungs(epochs), reduction=3),
        "halving from the first epoch": RungPruner((1, *rungs(epochs))),
        "Optuna's successive halving": optuna.pruners.SuccessiveHalvingPruner(
            min_resource=max(1, epochs // 8), reduction_factor=2
        ),
    }


def play(curves: list[Curve], pruner: optuna.pruners.BasePruner, at_once: int, seed: int) -> tuple[int, float]:
    """Plays the curves back; returns the epochs that were trained, and the best value of the trials that ended."""
    order = curves.copy()
    random.Random(seed).shuffle(order)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    running: list[tuple[optuna.Trial, Curve, int]] = []
    trained, best = 0, 0.0
    while order or running:
        while order and len(running) < at_once:
            running.append((study.ask(), order.pop(), 0))
        running = [(trial, curve, epoch + 1) for trial, curve, epoch in running]
        trained += len(running)
        for trial, curve, epoch in running:
            trial.report(curve[epoch - 1], epoch)
        going_on = []
        for trial, curve, epoch in running:
            if epoch == len(curve):
                study.tell(trial, max(curve))
                best = max(best, *curve)
            elif trial.should_prune() and not is_last_survivor(study, trial.number):
                study.tell(trial, state=TrialState.PRUNED)
            else:
                going_on.append((trial, curve, epoch))
        running = going_on
    return trained, best


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    main()
