"""A study's own space: its heads one at a time, by KerasTuner's loop, and in the bank that a study would make.

What ``python benchmarks/engine.py --study studies/heads.toml`` runs, see there.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from measured_bank import MeasuredBank, made_store

from heads.metrics.scoring import EPOCH_VIEW

CLASSES = 4
SKIPPED = 6
"""Heads that may be too wide for the pages that are left before a bank counts as full."""


@dataclass(frozen=True)
class Arrays:
    """Rows of one fold as a user has them in memory: features float32, labels one-hot.

    Each is there in one view: an epoch trains on one of them and scores the first.
    """

    train: tuple[Any, Any]
    validation: tuple[Any, Any]


def compare(arguments: argparse.Namespace) -> None:
    """Measures all sides in turn and prints what they came to."""
    from heads.bank.backends import default_dtype

    dtype = arguments.dtype or default_dtype()
    epochs = arguments.epochs or (2 if arguments.quick else 6)
    with tempfile.TemporaryDirectory() as folder:
        data = load(arguments, Path(folder))
        bank = fill_bank(arguments, data, epochs, dtype)
        arrays = [arrays_of(data, fold) for fold in range(max(1, arguments.folds))]
        alone = OneAtATime(arrays, epochs=epochs, batch=bank.engine.shape.batch)
        sides: dict[str, Any] = {"one at a time": alone}
        missing = [name for name in ("keras_tuner", "tensorboard") if not find_spec(name)]
        if missing:
            print(f"KerasTuner's loop is skipped: {' and '.join(missing)} not installed (keras-tuner, tensorboard)")
        else:
            sides["KerasTuner's loop"] = KerasTuner(alone, Path(folder) / "tuner")
        for side in sides.values():
            side.run(bank.specs[:1])  # what is slow only once in a process counts for nobody
            side.rates.clear()
        bank.run()
        for round_ in range(arguments.rounds):
            sample = balanced(bank.specs, arguments.sample, round_)
            found = {name: side.run(sample) for name, side in sides.items()} | {"fused": bank.run()}
            told = ", ".join(f"{name} {rate:.2f}" for name, rate in found.items())
            widths = ", ".join(f"{spec.conv_width}" for spec in sample)
            print(f"round {round_ + 1}, trial-epochs/s: {told} (sampled heads of widths {widths})", flush=True)
    report(arguments, data, bank, sides)


def load(arguments: argparse.Namespace, folder: Path) -> Any:
    """Opens the store, or makes one; all rows are split by patients, as a search does, none kept for a test."""
    from features.rows.split import VALIDATION_FRACTION
    from search.setup.data import load_data

    path = arguments.store
    if path is None:
        height, width, channels = map(int, arguments.shape.split(","))
        shape = height, width, channels
        rows = arguments.rows or (200 if arguments.quick else 1500)
        path = made_store(folder / "store.h5", rows, shape=shape, classes=CLASSES, batch=arguments.batch_size).path
    return load_data(
        path,
        validation=None,
        test=None,
        validation_share=VALIDATION_FRACTION,
        test_share=0.0,
        folds=arguments.folds,
        seed=0,
        resident=False,
    )


def fill_bank(arguments: argparse.Namespace, data: Any, epochs: int, dtype: str) -> MeasuredBank:
    """Makes the bank that a study of so many trials gets, and draws heads at random until it is full."""
    import optuna

    from heads.bank.engine import Engine
    from heads.bank.pages import PageTable
    from search.setup.data import plan_of
    from search.setup.space import read_study_file
    from search.setup.stores import ALONE
    from search.training.sizing import BankRequest, bank_shapes

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = read_study_file(arguments.study).space
    request = BankRequest(
        specs=space.extremes(),
        typical=space.typical(),
        feature_shape=data.store.header.feature_shape,
        classes=len(data.store.classes),
        batch=plan_of(data, arguments.batch_size, 0, 0)[0].rows.shape[1],
        folds=max(1, arguments.folds),
        dtype=dtype,
    )
    shape = bank_shapes({ALONE: request}, trials=arguments.trials, pages=arguments.pages).first
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    specs: list[Any] = []
    table, skipped = PageTable(shape), 0
    while table.free and skipped < SKIPPED and table.free_slots:
        spec = space.suggest(study.ask())
        if table.has_room(spec):
            specs.append(spec)
            table.place(spec)
        else:
            skipped += 1
    engine = Engine(
        shape,
        train=data.train,
        validation=data.validation,
        validation_rows=data.folds or None,
        dtype=dtype,
        resident=True,
    )
    return MeasuredBank(engine, specs, partial(plan_of, data, arguments.batch_size, 0), epochs=epochs)


def arrays_of(data: Any, fold: int) -> Arrays:
    """Reads a fold's rows, or the two parts, into memory."""
    train, validation = data.train.rows, data.validation.rows
    if data.folds:
        validation = data.folds[fold]
        train = np.setdiff1d(train, validation)
    classes = np.eye(len(data.store.classes), dtype=np.float32)
    parts = [
        (feed.take(rows, EPOCH_VIEW).astype(np.float32), classes[feed.store.labels[rows]])
        for feed, rows in ((data.train, train), (data.validation, validation))
    ]
    return Arrays(*parts)


def balanced(specs: Sequence[Any], count: int, round_: int) -> list[Any]:
    """Returns a round's sample of heads: spread over their widths, and about as wide on the mean as all of them.

    Narrow heads are quick, so a sample of them would say that one at a time is.
    """
    by_width = sorted(specs, key=lambda spec: spec.conv_width)
    widths = [spec.conv_width for spec in by_width]
    if count >= len(widths):
        return by_width
    stretch = len(widths) / count
    samples = {tuple(int((place + offset) * stretch) for place in range(count)) for offset in np.arange(0, 1, 1 / 32)}
    off = {sample: abs(np.mean([widths[place] for place in sample]) - np.mean(widths)) for sample in samples}
    ranked = sorted(samples, key=lambda sample: (off[sample], sample))
    return [by_width[place] for place in ranked[round_ % len(ranked)]]


def build(spec: Any, feature_shape: tuple[int, ...], classes: int) -> Any:
    """Builds and compiles a head as somebody would who has Keras and nothing else."""
    import keras
    from keras import layers

    model = keras.Sequential([keras.Input(feature_shape), layers.Conv2D(spec.conv_width, 1, use_bias=False)])
    if spec.batch_norm:
        model.add(layers.BatchNormalization(scale=False))
    model.add(layers.Activation(spec.activation))
    model.add(layers.Dropout(spec.dropout))
    pooling = {"average": layers.GlobalAveragePooling2D, "max": layers.GlobalMaxPooling2D}
    model.add(pooling.get(spec.pooling, layers.Flatten)())
    for _ in range(spec.dense_layers):
        model.add(layers.Dense(spec.dense_units, activation=spec.activation))
        model.add(layers.Dropout(spec.dense_dropout))
    model.add(layers.Dense(classes, activation="softmax"))
    optimizer = keras.optimizers.Adam(spec.learning_rate, weight_decay=spec.weight_decay or None)
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=spec.label_smoothing)
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model


def rates(spec: Any, epochs: int) -> Any:
    """Returns the schedule of a head's learning rate."""
    import keras

    if spec.follows_cosine:
        decay = keras.optimizers.schedules.CosineDecay(spec.learning_rate, decay_steps=epochs)
        return keras.callbacks.LearningRateScheduler(lambda epoch: float(keras.ops.convert_to_numpy(decay(epoch))))
    return keras.callbacks.ReduceLROnPlateau(factor=spec.plateau_factor, patience=spec.plateau_patience, min_lr=5e-5)


class OneAtATime:
    """Keras ``fit`` on arrays in memory, one model after the other; with folds a model for each."""

    def __init__(self, arrays: Sequence[Arrays], *, epochs: int, batch: int) -> None:
        self.arrays, self.epochs, self.batch = arrays, epochs, batch
        self.rates: list[float] = []

    @property
    def sizes(self) -> tuple[tuple[int, ...], int]:
        """Shape of a bottleneck, and number of classes."""
        features, labels = self.arrays[0].train
        return features.shape[1:], labels.shape[1]

    def run(self, specs: Sequence[Any]) -> float:
        """Trains some heads; returns trial-epochs per second."""
        import keras

        begun = time.perf_counter()
        for spec in specs:
            for arrays in self.arrays:
                keras.backend.clear_session()
                build(spec, *self.sizes).fit(
                    *arrays.train,
                    batch_size=self.batch,
                    epochs=self.epochs,
                    validation_data=arrays.validation,
                    callbacks=[rates(spec, self.epochs)],
                    verbose=0,
                )
        self.rates.append(len(specs) * self.epochs / (time.perf_counter() - begun))
        return self.rates[-1]


class KerasTuner:
    """The loop of KerasTuner over the same heads, which it takes from a list, with what it keeps of each trial."""

    def __init__(self, alone: OneAtATime, folder: Path) -> None:
        self.alone, self.folder, self.searches = alone, folder, 0
        self.rates: list[float] = []

    def run(self, specs: Sequence[Any]) -> float:
        """Lets it try some heads; returns trial-epochs per second."""
        import keras_tuner

        class Hypermodel(keras_tuner.HyperModel):  # type: ignore[misc]
            def build(self, hp: Any) -> Any:
                return build(specs[hp.Choice("head", list(range(len(specs))))], *sizes)

            def fit(self, hp: Any, model: Any, *args: Any, callbacks: Any = (), **kwargs: Any) -> Any:
                return model.fit(*args, callbacks=[*callbacks, rates(specs[hp.get("head")], epochs)], **kwargs)

        sizes, epochs, begun = self.alone.sizes, self.alone.epochs, time.perf_counter()
        for arrays in self.alone.arrays:
            self.searches += 1
            tuner = keras_tuner.GridSearch(
                Hypermodel(), objective="val_accuracy", directory=self.folder, project_name=f"{self.searches}"
            )
            tuner.search(
                *arrays.train,
                batch_size=self.alone.batch,
                epochs=self.alone.epochs,
                validation_data=arrays.validation,
                verbose=0,
            )
            states = [trial.status for trial in tuner.oracle.trials.values()]
            if states != ["COMPLETED"] * len(specs):  # it says why a trial failed, and goes on
                raise SystemExit(f"KerasTuner was to train {len(specs)} heads, and they are {states}")
        self.rates.append(len(specs) * self.alone.epochs / (time.perf_counter() - begun))
        return self.rates[-1]


def first_layer(spec: Any, shape: Any) -> int:
    """Operations of a step in a head's first layer: forward, and its weights' gradient (features have none)."""
    rows = shape.batch * shape.positions
    return int(4 * rows * shape.feature_shape[2] * spec.conv_width)


def all_products(spec: Any, shape: Any) -> int:
    """Operations of a step in all products of a head in its own sizes: dense layers forward and both gradients."""
    inputs = spec.conv_width * (shape.positions if spec.pooling == "flatten" else 1)
    units = [inputs, *[spec.dense_units] * spec.dense_layers, shape.classes]
    return first_layer(spec, shape) + int(sum(6 * shape.batch * a * b for a, b in pairwise(units)))


def report(arguments: argparse.Namespace, data: Any, bank: MeasuredBank, sides: dict[str, Any]) -> None:
    """Prints rates, ratios and shares of the bare products."""
    from heads.bank.matmul_rate import bank_rate

    shape = bank.engine.shape
    used = sum(spec.conv_width for spec in bank.specs) // 16
    what = f"{len(data.train.rows)} rows to train on" + (f", {arguments.folds} folds" if arguments.folds else "")
    print(
        f"{arguments.study}: {len(bank.specs)} heads on {used} of {shape.pages} pages, {bank.engine.dtype}, {what},"
        f" batches of {shape.batch} of {'x'.join(map(str, shape.feature_shape))}, {data.train.views} view(s),"
        f" {bank.epochs} epochs, medians of {arguments.rounds} rounds of {arguments.sample}"
    )
    for name, side in sides.items():
        rate = statistics.median(side.rates)
        print(f"  {name:28} {rate:8.2f} trial-epochs/s, fused {bank.rate / rate:.1f} times as many")
    print(f"  {'fused':28} {bank.rate:8.2f} trial-epochs/s")
    trained = shape.training_partitions  # of a trial's heads one sits a batch out
    bare = statistics.median(bank.bare_rates or [bank_rate(shape, bank.engine.dtype, repetitions=2)])
    print(f"  {'bare products':28} {bare / 1e9:8.0f} GFLOP/s, those of the first layers of all pages")
    epoch = sum(bank.parts.values()) / max(1, len(bank.training))
    for name, count in (("first layers in use", first_layer), ("all products, unpadded", all_products)):
        operations = bank.steps * trained * sum(count(spec, shape) for spec in bank.specs)
        training = statistics.median(operations / seconds for seconds in bank.training)
        print(
            f"  {name:28} {training / 1e9:8.0f} GFLOP/s in training, {training / bare:.0%} of the bare products;"
            f" {operations / epoch / bare:.0%} of them, everything included"
        )
    total = sum(bank.parts.values())
    slowest_first = sorted(bank.parts.items(), key=lambda part: part[1], reverse=True)
    parts = ", ".join(f"{name} {seconds / total:.0%}" for name, seconds in slowest_first)
    print(f"  {'where the time goes':28} {parts}")
    print(f"  {'compilation, once':28} {bank.compilation:8.1f} s; traced programs: {bank.engine.traces}")
