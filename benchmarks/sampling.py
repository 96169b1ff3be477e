"""What a sampler finds, in many searches that are played over a model of real heads.

    python -m search.run --features a=A.h5 --features b=B.h5 ... --folds 0 --validation-fraction 0.45
        --test-fraction 0.05 --trials 420 --epochs 84 --patience 0 --pruner none --sampler qmc --finalists 0
        --out studies/table
    python benchmarks/sampling.py studies/table

A random forest learns the study's curves from its heads' parameters. Then whole searches run over it, as a pool runs
them: so many heads at once, the article's first and never pruned, the others judged at the rungs, their places given to
the next. A head's curve is what the forest says plus a share of what it got wrong of some real head, which stands for
luck; its *worth* is what the forest says of its last epoch. Printed are means over searches, with standard errors: the
worth of the head with the best value, that of the five best, and the trial-epochs.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState
from sklearn.ensemble import RandomForestRegressor

from search.record.storage import load_study
from search.setup.config import StudyConfig
from search.trials.notes import TrialNotes
from search.trials.pruning import make_pruner
from search.trials.samplers import make_sampler

LUCK = 0.35
"""Share of the forest's mistakes that is taken for luck: about one point of accuracy."""
Curve = npt.NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="study directory of a search with --pruner none --patience 0")
    parser.add_argument("--seeds", type=int, default=60, help="searches with each sampler")
    parser.add_argument("--trials", type=int, default=100, help="of a search")
    parser.add_argument("--at-once", type=int, default=16, help="heads in the bank")
    arguments = parser.parse_args()
    config = StudyConfig.read(arguments.study)
    trials = load_study(arguments.study, config.name, config.storage).get_trials()
    heads = Heads([trial for trial in trials if trial.state == TrialState.COMPLETE], config.epochs)
    print(f"{len(heads.trials)} real heads; {arguments.seeds} searches of {arguments.trials} trials\n")
    print(f"{'sampler':16s} {'best value':>16s} {'five best':>16s} {'trial-epochs':>13s}")
    for name, make in samplers(config.epochs).items():
        found = [play(heads, make, seed, arguments.trials, arguments.at_once) for seed in range(arguments.seeds)]
        columns = [_told([one.best for one in found]), _told([one.five for one in found])]
        print(f"{name:16s} {columns[0]:>16s} {columns[1]:>16s} {mean(one.trained for one in found):13.0f}", flush=True)


def samplers(epochs: int) -> dict[str, Callable[[int, int], BaseSampler]]:
    """By name, what makes a sampler of a search's seed and a trial's ordinal."""

    def maker(name: str) -> Callable[[int, int], BaseSampler]:
        return lambda seed, ordinal: make_sampler(name, seed=seed, ordinal=ordinal, epochs=epochs)

    return {name: maker(name) for name in ("tpe", "bohb", "random")}


class Heads:
    """Real heads, and a model of others.

    Attributes:
        trials: The real ones.
        planned: Parameters of the article's head, on each store.
        distributions: Of the parameters.
    """

    def __init__(self, trials: list[FrozenTrial], epochs: int) -> None:
        self.trials = trials
        stores = {TrialNotes.of(trial).store for trial in trials}
        self.planned = [trial.params for trial in trials if TrialNotes.of(trial).ordinal < len(stores)]
        self.distributions: dict[str, BaseDistribution] = trials[-1].distributions
        curves = np.array([[trial.intermediate_values[epoch] for epoch in range(1, epochs + 1)] for trial in trials])
        rows = np.array([self._numbers(trial.params) for trial in trials])
        self._forest = RandomForestRegressor(120, min_samples_leaf=2, max_features=0.5, oob_score=True, random_state=0)
        self._forest.fit(rows, curves)
        usual = curves[:, -1] > np.median(curves[:, -1]) - 0.1  # those that learned nothing are mistaken by far more
        self._mistakes = (curves - self._forest.oob_prediction_)[usual]

    def curves(self, parameters: dict[str, Any], generator: np.random.Generator) -> tuple[Curve, float]:
        """Returns a head's curve, and its worth."""
        expected = self._forest.predict([self._numbers(parameters)])[0]
        return expected + LUCK * self._mistakes[generator.integers(len(self._mistakes))], float(expected[-1])

    def _numbers(self, parameters: dict[str, Any]) -> list[float]:
        numbers: list[float] = []
        for name, distribution in self.distributions.items():
            value = parameters[name]
            if isinstance(distribution, CategoricalDistribution):
                numbers += [float(value == choice) for choice in distribution.choices]
            else:
                numbers.append(math.log(value) if getattr(distribution, "log", False) else float(value))
        return numbers


class Found(NamedTuple):
    """What a search found: the worth of its best head and of its best five, and the epochs that it trained."""

    best: float
    five: float
    trained: int


@dataclass
class Running:
    """A head in the bank, and the epochs that it has trained."""

    trial: optuna.Trial
    curve: Curve
    worth: float
    epoch: int = 0


def play(heads: Heads, make: Callable[[int, int], BaseSampler], seed: int, count: int, at_once: int) -> Found:
    """Plays a search."""
    generator = np.random.default_rng(seed)
    epochs = max(heads.trials[0].intermediate_values)
    study = optuna.create_study(direction="maximize", pruner=make_pruner("halving", epochs=epochs))
    running: list[Running] = []
    ended: list[Running] = []
    asked = trained = 0
    while asked < count or running:
        while asked < count and len(running) < at_once:
            study.sampler = make(seed, asked)
            if asked < len(heads.planned):
                study.enqueue_trial(heads.planned[asked])
            trial = study.ask(heads.distributions)
            running.append(Running(trial, *heads.curves(trial.params, generator)))
            asked += 1
        trained += len(running)
        for one in running:
            one.epoch += 1
            one.trial.report(one.curve[one.epoch - 1], one.epoch)
        ended += [one for one in running if one.epoch == epochs]
        judged = [(one, one.epoch < epochs and is_pruned(heads, one)) for one in running]
        for one, out in judged:
            if out:
                study.tell(one.trial, state=TrialState.PRUNED)
            elif one.epoch == epochs:
                study.tell(one.trial, max(one.curve))
        running = [one for one, out in judged if not out and one.epoch < epochs]
    best = [one.worth for one in sorted(ended, key=lambda one: -max(one.curve))[:5]]
    return Found(best[0], mean(best), trained)


def is_pruned(heads: Heads, one: Running) -> bool:
    """Whether a head's place is given to the next."""
    return one.trial.number >= len(heads.planned) and one.trial.should_prune()


def _told(values: list[float]) -> str:
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{100 * mean(values):.2f} ± {100 * error:.2f}"


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    main()
