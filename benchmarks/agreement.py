"""Whether heads trained in the bank end where heads trained alone end: many heads, several seeds, dropout and all.

    python benchmarks/agreement.py STORE [--heads 40] [--seeds 3] [--epochs 12]

Heads are drawn from studies/heads.toml. Each trains in the bank (in its usual dtype) and alone, by Keras ``fit``, from
the same first weights on the same batches; their dropout masks differ. Reported is the mean of the differences of the
best validation accuracies, and its standard error over heads and seeds.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import optuna
from measured_bank import exact_scores

from features.runtime.backend import start_backend, use_backend

if TYPE_CHECKING:
    from features.rows.feed import EpochPlan
    from heads.model.spec import HeadSpec
    from search.setup.data import SearchData


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--heads", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--backend", choices=("tensorflow", "jax"))
    arguments = parser.parse_args()
    use_backend(arguments.backend)
    start_backend()
    from search.setup.data import load_data

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    data = load_data(
        arguments.store, validation=None, test=None, validation_share=0.25, test_share=0.0, seed=0, resident=True
    )
    specs = draw(arguments.heads)
    pairs = np.array(
        [
            (alone, fused)
            for seed in range(arguments.seeds)
            for alone, fused in zip(
                one_at_a_time(specs, data, arguments, seed), in_the_bank(specs, data, arguments, seed), strict=True
            )
        ]
    )
    difference = pairs[:, 1] - pairs[:, 0]
    error = difference.std(ddof=1) / len(difference) ** 0.5
    print(f"{len(specs)} heads x {arguments.seeds} seeds, {arguments.epochs} epochs, {arguments.store}")
    print(f"  alone        mean best validation accuracy {pairs[:, 0].mean():.4f}")
    print(f"  in the bank  mean best validation accuracy {pairs[:, 1].mean():.4f}")
    print(
        f"  difference   {difference.mean():+.4f}, standard error {error:.4f} ({difference.mean() / error:+.2f} of it)"
    )


def draw(count: int) -> list[HeadSpec]:
    """Heads at random from the full space."""
    from search.setup.resolve import find_study_file
    from search.setup.space import read_study_file

    space = read_study_file(find_study_file(Path("studies/heads.toml"))).space
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=7))
    return [space.suggest(study.ask()) for _ in range(count)]


def one_at_a_time(specs: list[HeadSpec], data: SearchData, arguments: argparse.Namespace, seed: int) -> list[float]:
    """Best validation accuracy of each head trained alone."""
    from heads.model.fit import Schedule, train_solo

    return [
        train_solo(
            spec,
            data.train,
            data.validation,
            Schedule(epochs=arguments.epochs, batch_size=arguments.batch_size, plan_seed=seed),
            seed=1000 * seed + number,
        ).best.validation.accuracy
        for number, spec in enumerate(specs)
    ]


def in_the_bank(specs: list[HeadSpec], data: SearchData, arguments: argparse.Namespace, seed: int) -> list[float]:
    """The same of heads that train together."""
    from features.rows.feed import plan_epoch
    from heads.bank.backends import default_dtype, default_lanes
    from heads.bank.engine import Engine, Newcomer
    from heads.bank.exact import Finished
    from heads.bank.shape import BankShape, pages_of
    from heads.metrics.scoring import BestEpochs

    def plan(epoch: int) -> EpochPlan:
        rows, views = data.train.rows, data.train.views
        return plan_epoch(rows, batch_size=arguments.batch_size, views=views, seed=seed, epoch=epoch)

    shape = BankShape.covering(
        specs,
        pages=sum(pages_of(spec) for spec in specs),
        feature_shape=data.store.header.feature_shape,
        classes=len(data.store.classes),
        batch=plan(0).rows.shape[1],
        lanes=default_lanes(default_dtype()),
    )
    engine = Engine(shape, train=data.train, validation=data.validation)
    seeds = [1000 * seed + number for number in range(len(specs))]
    newcomers = zip(specs, seeds, strict=True)
    slots = engine.insert([Newcomer(spec=spec, seeds=(one,), epochs=arguments.epochs) for spec, one in newcomers])
    best = BestEpochs(engine.last_counts)
    for epoch in range(arguments.epochs):
        engine.train_epoch(plan(epoch))
        scores = engine.validate()
        engine.update_learning_rates(scores.loss)
        engine.keep(best.update(scores, engine.occupied))
    heads = [Finished(spec=spec, weights=engine.take_out(slot)) for spec, slot in zip(specs, slots, strict=True)]
    return [score.accuracy for score in exact_scores(engine, heads)]


if __name__ == "__main__":
    main()
