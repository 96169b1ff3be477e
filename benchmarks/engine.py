"""What the fused bank buys: the same trials one at a time, as a user would write it, and all at once.

    python benchmarks/engine.py [--quick] [--width 16] [--pages 144] [--dtype bfloat16] [--rounds 3]
    python benchmarks/engine.py --study studies/heads.toml [--store STORE] [--folds 5] [--quick]

(a) One at a time: Optuna draws a trial, a Keras model is built, compiled and fitted on arrays in memory, with
    ReduceLROnPlateau and validation. Of the 32 trials each round runs ``--sample``, which are as wide as all of them.
(b) Fused: all 32 in one bank, epochs, scores, best weights, exact scores of all at the end. Compiled before.

Both sides take turns within one run, so that a machine shared with others is unfair to neither. Trials draw their width
from 16 to 128 and have no hidden layer or one of 16 to 128 units; ``--width 16`` makes all of them that narrow and
without hidden layers, the most that fusing can gain. Features are generated: 1,200 + 300 rows of 8x8x2048 float16,
classes a little apart. Beside the fused rate stands that of the bare products (forward and weight gradient) of the
bank's first layers, measured in turn with its epochs.

``--study`` measures a study's own space instead (``default_space.py``): the bank that a study of ``--trials`` would
make, full of heads drawn from the space, against the same heads one at a time and by KerasTuner's loop (where it is
installed; each of both a sample of them in each round), on a store's rows split as a search splits them, or on
generated features. Beside the bare products stand the operations of the first layers in use and of all products in the
heads' own sizes: padding and free pages count for nothing.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from default_space import balanced, compare
from measured_bank import MeasuredBank, made_store

from features.runtime.backend import use_backend

SHAPE, CLASSES, BATCH = (8, 8, 2048), 4, 100
DRAWN = ("conv_width", "dropout", "dense_layers", "learning_rate")
"""What ``suggest`` asks for."""


def main() -> None:
    arguments = parse()
    use_backend(arguments.backend)
    if arguments.study:
        compare(arguments)
        return
    from features.rows.feed import Feed
    from heads.bank.backends import default_dtype

    dtype = arguments.dtype or default_dtype()
    train_rows, validation_rows, epochs = (300, 100, 2) if arguments.quick else (1200, 300, 6)
    with tempfile.TemporaryDirectory() as folder:
        every = train_rows + validation_rows
        store = made_store(Path(folder) / "store.h5", every, shape=SHAPE, classes=CLASSES, batch=BATCH)
        rows = np.arange(train_rows + validation_rows)
        feeds = [Feed(store, part, memory_bytes=2**33) for part in (rows[:train_rows], rows[train_rows:])]
        alone = OneAtATime(feeds, epochs=epochs, width=arguments.width)
        fused = Fused(feeds, epochs=epochs, width=arguments.width, pages=arguments.pages, dtype=dtype)
        alone.run(fused.specs[:1])  # what is slow only once in a process counts for neither
        fused.run()
        for round_ in range(arguments.rounds):
            single = alone.run(balanced(fused.specs, arguments.sample, round_))
            together = fused.run()
            print(
                f"round {round_ + 1}: one at a time {single:6.2f} trial-epochs/s, fused {together:6.2f},"
                f" {together / single:5.1f} times",
                flush=True,
            )
    report(alone, fused, arguments, dtype)


def report(alone: OneAtATime, fused: Fused, arguments: argparse.Namespace, dtype: str) -> None:
    bank = fused.bank
    single, together = statistics.median(alone.rates[1:]), bank.rate
    best = [score.accuracy for score in bank.scores]
    print(
        f"{len(fused.specs)} trials on {fused.shape.pages} pages ({fused.used} used), {dtype}, batches of {BATCH} of "
        f"{'x'.join(map(str, SHAPE))}, medians of {arguments.rounds} rounds"
    )
    print(f"  one at a time        {single:8.2f} trial-epochs/s")
    print(f"  fused                {together:8.2f} trial-epochs/s")
    print(f"  ratio                {together / single:8.1f}   (target {8 if arguments.width == 16 else 4})")
    worth = bank.compilation * together
    print(f"  compilation, once    {bank.compilation:8.1f} s, the time of {worth:.0f} trial-epochs")
    print(f"  fused training       {statistics.median(fused.flops) / 1e9:8.0f} GFLOP/s in matrix products")
    print(f"  bare products        {statistics.median(bank.bare_rates) / 1e9:8.0f} GFLOP/s")
    shares = [rate / bare for rate, bare in zip(fused.flops, bank.bare_rates, strict=True)]
    print(f"  share of the peak    {statistics.median(shares):8.0%}   (target 75%)")
    print(f"  traced programs      {fused.engine.traces:8d}   best accuracies {min(best):.2f} to {max(best):.2f}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, help="all heads of this width, without hidden layers")
    parser.add_argument("--pages", type=int, help="pages of the bank; default: what the 32 trials need")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--sample",
        type=int,
        default=4,
        help="trials of a round one at a time, of 32; a bank of --study has about ten",
    )
    parser.add_argument("--quick", action="store_true", help="300 + 100 rows, 2 epochs: does it run at all")
    parser.add_argument("--backend", choices=("tensorflow", "jax"))
    space = parser.add_argument_group("a study's own space")
    space.add_argument("--study", type=Path, help="study file: measure its space, as a study would run it")
    space.add_argument("--store", type=Path, help="features to train on; else generated ones")
    space.add_argument("--shape", default="8,8,2048", help="height,width,channels of generated features")
    space.add_argument("--rows", type=int, help="of generated features; default 1500")
    space.add_argument("--folds", type=int, default=0)
    space.add_argument("--trials", type=int, default=60, help="of the study whose bank is made")
    space.add_argument("--epochs", type=int, help="of every head; default 6")
    space.add_argument("--batch-size", type=int, default=100)
    return parser.parse_args()


def suggest(trial: Any, width: int | None) -> dict[str, Any]:
    """The search space of both sides."""
    layers = 0 if width else trial.suggest_int("dense_layers", 0, 1)
    return {
        "conv_width": width or trial.suggest_int("conv_width", 16, 128, step=16),
        "dropout": trial.suggest_float("dropout", 0.0, 0.8),
        "dense_layers": layers,
        "dense_units": 64,
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
    }


class OneAtATime:
    """Optuna and Keras ``fit``, one model after the other: plain calls, nothing of ours."""

    def __init__(self, feeds: list[Any], *, epochs: int, width: int | None) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.epochs, self.width = epochs, width
        self.data = [(feed.take(feed.rows, 0).astype(np.float32), feed.labels) for feed in feeds]
        self.study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
        self.rates: list[float] = []

    def objective(self, trial: Any) -> float:
        """Builds, trains and scores one model."""
        import keras
        from keras import layers

        keras.backend.clear_session()
        chosen = suggest(trial, self.width)
        model = keras.Sequential([keras.Input(SHAPE), layers.Conv2D(chosen["conv_width"], 1, use_bias=False)])
        model.add(layers.BatchNormalization(scale=False))
        model.add(layers.Activation("relu"))
        model.add(layers.Dropout(chosen["dropout"]))
        model.add(layers.Flatten())
        if chosen["dense_layers"]:
            model.add(layers.Dense(chosen["dense_units"], activation="relu"))
        model.add(layers.Dense(CLASSES, activation="softmax"))
        model.compile(
            keras.optimizers.Adam(chosen["learning_rate"]), "sparse_categorical_crossentropy", metrics=["accuracy"]
        )
        plateau = keras.callbacks.ReduceLROnPlateau(factor=0.5, patience=5, min_lr=5e-5)
        history = model.fit(
            *self.data[0],
            batch_size=BATCH,
            epochs=self.epochs,
            validation_data=self.data[1],
            callbacks=[plateau],
            verbose=0,
        )
        return float(max(history.history["val_accuracy"]))

    def run(self, specs: Sequence[Any]) -> float:
        """Runs trials of these heads; returns trial-epochs per second."""
        for spec in specs:
            self.study.enqueue_trial({name: getattr(spec, name) for name in DRAWN})
        begun = time.perf_counter()
        self.study.optimize(self.objective, n_trials=len(specs))
        self.rates.append(len(specs) * self.epochs / (time.perf_counter() - begun))
        return self.rates[-1]


class Fused:
    """All trials in one bank."""

    def __init__(self, feeds: list[Any], *, epochs: int, width: int | None, pages: int | None, dtype: str) -> None:
        import optuna

        from features.rows.feed import plan_epoch
        from heads.bank.backends import default_lanes
        from heads.bank.engine import Engine
        from heads.bank.shape import BankShape, pages_of
        from heads.model.spec import HeadSpec

        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        specs = [HeadSpec(**suggest(study.ask(), width)) for _ in range(32)]
        needed = sum(pages_of(spec) for spec in specs)
        while pages is not None and needed > pages:
            needed -= pages_of(specs.pop())
        self.specs, self.used = specs, needed
        wanted: dict[str, Any] = {"pages": pages or needed, "feature_shape": SHAPE, "classes": CLASSES, "batch": BATCH}
        tiles = BankShape.covering(specs, **wanted).needed_by(specs).tiles
        self.shape = BankShape.covering(specs, **wanted, slots=len(specs), tiles=tiles, lanes=default_lanes(dtype))
        self.engine = Engine(self.shape, train=feeds[0], validation=feeds[1], dtype=dtype)
        plan = partial(plan_epoch, feeds[0].rows, batch_size=BATCH, views=1, seed=0)
        self.bank = MeasuredBank(self.engine, specs, lambda epoch: (plan(epoch=epoch), None), epochs=epochs)

    def run(self) -> float:
        """Trains all trials from their first weights to their exact scores; returns trial-epochs per second."""
        return self.bank.run()

    @property
    def flops(self) -> list[float]:
        """Operations per second in the matrix products of each measured epoch."""
        operations = self.bank.steps * self.shape.step_flops(self.specs)
        return [operations / seconds for seconds in self.bank.training]


if __name__ == "__main__":
    main()
