"""Where a training step of a bank goes: each pass by itself, beside what its operations and its bytes would allow.

    python benchmarks/passes.py [--shape 7,7,1280] [--batch 93] [--trials 60] [--heads 4] [--narrow] [--dtype float32]

The bank is the one that a study of ``--trials`` in the default space would make, full of heads drawn at random, or
with ``--heads`` of them, as at a study's end. ``--narrow`` takes heads of 16 to 128 channels that flatten, with no
hidden layer or one of 64 units. Limits: products by a rate (``--rate``, of the first layers' bare products), passes by
the bytes that they have to read and write, at the rate at which this machine copies. The whole step runs all passes in
one program, with the features gathered.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from features.runtime.allocator import keep_freed_memory
from features.runtime.backend import use_backend

CLASSES, REPETITIONS, STEPS = 4, 7, 5


def main() -> None:
    arguments = parse()
    use_backend("tensorflow")
    keep_freed_memory()  # as a search does
    shape, table, specs = bank_of(arguments)
    copied = copy_rate()
    for name, seconds, operations, moved in passes(shape, table, specs, arguments.dtype):
        limit = max(operations / arguments.rate if arguments.rate else 0.0, moved / copied)
        print(
            f"{name:24s} {operations / 1e9:8.2f} G {moved / 1e6:8.1f} MB {seconds * 1e3:8.1f} ms"
            f"   bytes alone {moved / copied * 1e3:6.1f} ms"
            + (f"   limit {limit * 1e3:6.1f} ms" if arguments.rate else "")
        )
    heads = [spec for spec in specs if spec is not None]
    values = sum(shape.places[sort] * int(np.prod(s)) for sort, a in shape.arrays.items() for s in a.values())
    print(
        f"{len(heads)} heads on {shape.pages - table.free} of {shape.pages} pages, {shape.tiles - table.free_tiles} of"
        f" {shape.tiles} tiles; copies {copied / 1e9:.1f} GB/s; the heads' work {shape.step_flops(heads) / 1e9:.1f} G;"
        f" state {values * 16 / 1e6:.0f} MB"
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, default=Path("studies/heads.toml"))
    parser.add_argument("--shape", default="7,7,1280", help="of a bottleneck")
    parser.add_argument("--batch", type=int, default=93)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--narrow", action="store_true")
    parser.add_argument("--heads", type=int, default=10**9, help="at most, as at the end of a study")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="float32")
    parser.add_argument("--rate", type=float, default=0.0, help="operations per second to compare products with")
    return parser.parse_args()


def bank_of(arguments: argparse.Namespace) -> tuple[Any, Any, list[Any]]:
    """Makes the bank's shape and fills its table: (shape, table, head of each slot or None)."""
    from heads.bank.pages import PageTable
    from heads.model.spec import HeadSpec
    from search.setup.space import read_study_file
    from search.setup.stores import ALONE
    from search.training.sizing import BankRequest, bank_shapes

    generator = np.random.default_rng(3)
    specs: list[Any]
    height, width, channels = map(int, arguments.shape.split(","))
    if arguments.narrow:
        heads = [
            HeadSpec(conv_width=int(width), dense_layers=int(depth), dense_units=64)
            for width, depth in zip(generator.integers(1, 9, 40) * 16, generator.integers(0, 2, 40), strict=True)
        ]
        extremes, typical = heads, heads
    else:
        space = read_study_file(arguments.study).space
        extremes, typical = space.extremes(), space.typical()
        heads = [typical[int(place)] for place in generator.permutation(len(typical))]
    request = BankRequest(
        specs=extremes,
        typical=typical,
        feature_shape=(height, width, channels),
        classes=CLASSES,
        batch=arguments.batch,
        folds=1,
        dtype=arguments.dtype,
    )
    shape = bank_shapes({ALONE: request}, trials=arguments.trials, pages=85 if arguments.narrow else None).first
    table, specs = PageTable(shape), [None] * shape.slots
    for spec in heads:
        if table.has_room(spec) and shape.slots - specs.count(None) < arguments.heads:
            specs[table.place(spec)] = spec
    return shape, table, specs


def prepared(shape: Any, table: Any, specs: list[Any], dtype: str) -> tuple[Any, dict[str, Any]]:
    """Makes the bank's program, weights drawn, and the settings of an epoch."""
    import keras

    from heads.bank.backends import make_program
    from heads.bank.settings import bank_settings

    program: Any = make_program(shape, dtype, shape.batch)
    generator = np.random.default_rng(0)
    for name, variable in program._state[0]["weights"].items():
        drawn = np.float32(0.02) * generator.standard_normal(variable.shape, np.float32)
        variable.assign(np.ones_like(drawn) if name == "variance" else drawn)
    settings = bank_settings(
        shape,
        table,
        specs,
        rates=np.full((1, shape.slots), 1e-3, np.float32),
        seeds=np.arange(shape.slots, dtype=np.int32)[None],
        class_weights=np.ones(CLASSES, np.float32),
    )
    return program, {name: keras.ops.convert_to_tensor(values) for name, values in settings.items()}


def passes(shape: Any, table: Any, specs: list[Any], dtype: str) -> Any:
    """Yields (name, seconds, operations of products, bytes that have to move) of each pass."""
    import keras

    from heads.bank.partitions import partition_slice
    from heads.bank.state import Batch
    from heads.model.spec import PAGE

    program, settings = prepared(shape, table, specs, dtype)
    bank, generator, tensor = program._bank, np.random.default_rng(0), keras.ops.convert_to_tensor
    rows, channels = shape.batch * shape.positions, shape.feature_shape[2]
    drawn = np.maximum(generator.standard_normal((shape.batch, shape.positions * channels), np.float32), 0)
    held, every = keras.ops.cast(tensor(drawn), dtype), tensor(np.arange(shape.batch, dtype=np.int32))
    features = program._rows_of(held, every)
    batch = Batch(features, tensor(generator.integers(0, CLASSES, shape.batch).astype(np.int32)))
    item, count = 2 if dtype == "bfloat16" else 4, shape.pages * PAGE
    used = (shape.pages - table.free) * PAGE * rows * item
    tiles = shape.tiles * PAGE * shape.positions
    first, dense = 2 * count * rows * channels, 2 * tiles * shape.batch * shape.tile_units
    first_bytes = (count * (channels + rows) + rows * channels) * item
    dense_bytes = tiles * (shape.batch + shape.tile_units) * item
    state = sum(shape.places[sort] * int(np.prod(s)) for sort, a in shape.arrays.items() for s in a.values())

    steps, partition = tensor(np.zeros(shape.slots, np.int32)), tensor(np.int32(0))
    weights = {name: tensor(variable) for name, variable in program._state[0]["weights"].items()}
    own_settings = partition_slice(settings, partition)
    lined_up, _ = timed(bank._partition_settings, own_settings, steps)
    hidden, seconds = timed(bank._first_layers, weights["kernel"], features, lined_up)
    yield "first layers, forward", seconds, first, first_bytes
    (active, norms), seconds = timed(bank._activations, hidden, weights, lined_up)
    yield "activate", seconds, 0, used + (shape.tiles - table.free_tiles) * PAGE * rows * item
    kernels, pooled = bank._dense_kernels(weights), bank._pooled(active)
    sums, seconds = timed(bank._sums, active, pooled, kernels, lined_up)
    yield "dense, forward", seconds, dense, dense_bytes
    of_slots = {name: weights[name] for name in shape.slot_arrays}
    (_, errors, _), seconds = timed(bank._dense_loss_and_gradients, *sums, of_slots, batch.labels, lined_up)
    yield "classify", seconds, 0, shape.tiles * shape.batch * shape.tile_units * 2 * item
    (_, back), seconds = timed(bank._dense_gradients, active, pooled, kernels, errors, lined_up)
    yield "dense, both ways back", seconds, 2 * dense, 2 * dense_bytes
    (errors_of_lanes, _), seconds = timed(bank._errors, hidden, active, back, norms, lined_up)
    yield "deactivate", seconds, 0, 2 * used + (shape.tiles - table.free_tiles) * PAGE * rows * item
    _, seconds = timed(bank._first_gradients, errors_of_lanes, features, lined_up)
    yield "first layers, gradient", seconds, first, first_bytes
    gradients = bank.gradients(weights, steps, own_settings, batch)
    losses = tensor(np.zeros(shape.slots, np.float32))
    _, seconds = timed(lambda *given: program._update(*given, program._state[0]), gradients, own_settings, losses)
    yield "update", seconds, 0, state * 4 * 7
    yield "whole step", whole_step(program, settings, shape, held), 0, 0


def whole_step(program: Any, settings: Any, shape: Any, held: Any) -> float:
    """Seconds of a step as a study runs it: all passes in one program, the features gathered."""
    from heads.bank.program import TrainingPlan

    generator, size = np.random.default_rng(1), (STEPS, shape.batch)
    places, labels = (generator.integers(0, most, size).astype(np.int32) for most in (shape.batch, CLASSES))
    plan = TrainingPlan(places, labels, np.zeros(STEPS, np.int32))
    return measured(partial(program.train_epoch, settings, held, plan))[1] / STEPS


def timed(function: Callable[..., Any], *arrays: Any) -> tuple[Any, float]:
    """Runs a pass in a graph, as within a step: what it returned, and the median of its seconds."""
    import tensorflow as tf

    return measured(partial(tf.function(function, autograph=False), *arrays))


def measured(function: Callable[[], Any]) -> tuple[Any, float]:
    """Runs a function until it is compiled, then for its time: what it returned, median seconds."""
    import keras

    seconds = []
    for _ in range(REPETITIONS + 1):
        begun = time.perf_counter()
        result = function()
        for array in keras.tree.flatten(result)[:1]:
            np.asarray(array)  # waits for it
        seconds.append(time.perf_counter() - begun)
    return result, median(seconds[1:])


def copy_rate() -> float:
    """Bytes per second, read and written, at which this machine copies what no cache holds."""
    source = np.ones(2**27, np.uint8)
    target = np.empty_like(source)
    seconds = []
    for _ in range(REPETITIONS):
        begun = time.perf_counter()
        np.copyto(target, source)
        seconds.append(time.perf_counter() - begun)
    return 2 * len(source) / median(seconds)


if __name__ == "__main__":
    main()
