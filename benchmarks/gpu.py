"""A bank on a GPU, on features of OCT2017's size: what a trial-epoch takes, and a search of 200 trials.

    python benchmarks/gpu.py [--rows 83484] [--pages 64,256,1024] [--trials 200] [--epochs 50]
    python benchmarks/gpu.py --quick

Runs on JAX. The features, 8x8x2048 in bfloat16 (21.9 GB), are made on the device in pieces and stay there: the host
holds labels only. Printed are the device's rate of bare bfloat16 products, milliseconds per trial-epoch of heads of
width 64 that fill banks of so many pages, with the share of that rate that their first layers come to, and how long a
search takes whose heads are drawn from ``studies/heads.toml``, pruned at rungs and replaced, as a study's are; its
record, and what a study does after its last trial, are not part of it.

``--quick`` is a matter of seconds on a CPU and says only that it runs. The full sizes have not been run on a GPU yet.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
from measured_bank import exact_scores
from paths import ROOT

from features.runtime.backend import use_backend

CLASSES, BATCH, DTYPE = 4, 100, "bfloat16"
PIECE = 256
"""Rows made at once."""


def main() -> None:
    arguments = parse()
    use_backend("jax")
    import jax

    if jax.default_backend() != "gpu" and not arguments.quick:
        raise SystemExit("JAX sees no GPU here (.[jax-gpu] installs its CUDA packages): only --quick runs")
    shape = (2, 2, 32) if arguments.quick else (8, 8, 2048)
    rows, held_out = (300, 100) if arguments.quick else (arguments.rows, 1000)
    pages = [4, 8] if arguments.quick else [int(count) for count in arguments.pages.split(",")]
    trials, epochs = (12, 8) if arguments.quick else (arguments.trials, arguments.epochs)
    begun = time.perf_counter()
    feed = DeviceFeed(rows + held_out, shape)
    feed.features.block_until_ready()
    print(
        f"{jax.devices()[0].device_kind}: {rows:,} + {held_out:,} rows of {'x'.join(map(str, shape))} {DTYPE},"
        f" {feed.features.nbytes / 1e9:.1f} GB, made in {time.perf_counter() - begun:.1f} s",
        flush=True,
    )
    peak = square_rate(256 if arguments.quick else 8192)
    print(f"bare products: {peak / 1e12:.2f} TFLOP/s", flush=True)
    for count in pages:
        trial_epochs(feed, rows, count, peak)
    search(feed, rows, trials=trials, epochs=epochs, pages=16 if arguments.quick else arguments.search_pages)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=83484, help="to train on; 1,000 more to validate on")
    parser.add_argument("--pages", default="64,256,1024", help="of the banks that are measured")
    parser.add_argument("--trials", type=int, default=200, help="of the search")
    parser.add_argument("--epochs", type=int, default=50, help="of a trial of the search that is not pruned")
    parser.add_argument("--search-pages", type=int, default=512, help="of the search's bank")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, on a CPU too: does it run at all")
    return parser.parse_args()


class DeviceFeed:
    """Stands for ``features.rows.feed.Feed``: its features are on the device and nowhere else.

    Attributes:
        features: (rows, positions · channels) in the products' dtype, on the device; classes a little apart.
        rows: What a bank is told to copy to the device; see ``engine_on``.
    """

    views, resident = 1, True

    def __init__(self, rows: int, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self.store = SimpleNamespace(labels=np.random.default_rng(0).integers(0, CLASSES, rows).astype(np.int32))
        self.rows = np.arange(rows)
        self.features = made_features(self.store.labels, shape)

    def take(self, rows: Any, views: Any) -> Any:
        """Returns the features of some rows, copied to the host: for exact scores, which take float32 features."""
        return np.asarray(self.features[np.asarray(rows)], np.float32).reshape(len(rows), *self.shape)


def made_features(labels: Any, shape: tuple[int, int, int]) -> Any:
    """Makes the features piece by piece in one array, which each piece is written into in place."""
    import jax
    import jax.numpy as jnp

    height, width, channels = shape
    generator = np.random.default_rng(1)
    apart = generator.normal(0, 0.15, (CLASSES, channels)) * (generator.random(channels) < 0.1)
    offsets = jnp.tile(jnp.asarray(apart, DTYPE), (1, height * width))

    def put(held: Any, key: Any, inside: Any, start: Any) -> Any:
        noise = jax.random.normal(key, (len(inside), held.shape[1]), DTYPE)
        return jax.lax.dynamic_update_slice(held, jax.nn.relu(noise + offsets[inside]), (start, 0))

    write = jax.jit(put, donate_argnums=0)
    held = jnp.zeros((len(labels), height * width * channels), DTYPE)
    key = jax.random.key(0)
    for start in range(0, len(labels), PIECE):
        start = min(start, max(0, len(labels) - PIECE))  # noqa: PLW2901  the last piece is whole, too: one program
        held = write(held, jax.random.fold_in(key, start), labels[start : start + PIECE], start)
    return held


@contextmanager
def holding(features: Any) -> Iterator[None]:
    """Lets banks that are made meanwhile hold what is on the device, whatever they would copy to it."""
    from heads.bank import engine as module

    engine: Any = module
    real = engine.make_program

    def made(*arguments: Any) -> Any:
        program = real(*arguments)
        program.hold = lambda _: features
        return program

    engine.make_program = made
    try:
        yield
    finally:
        engine.make_program = real


def engine_on(feed: Any, shape: Any, rows: int) -> Any:
    """Makes a bank over the features on the device; the rows behind the first ``rows`` validate."""
    from heads.bank.engine import Engine

    every, feed.rows = feed.rows, feed.rows[:1]  # all that it copies, and that is not used
    with holding(feed.features):
        engine = Engine(shape, train=feed, validation_rows=[every[rows:]], dtype=DTYPE, resident=True)
    feed.rows = every
    return engine


def square_rate(side: int) -> float:
    """Measures the products of large square matrices: the peak that can be had."""
    from heads.bank.matmul_rate import matmul_rate

    return matmul_rate(rows=side, channels=side, outputs=side, dtype=DTYPE, repetitions=20)


def trial_epochs(feed: DeviceFeed, rows: int, pages: int, peak: float) -> None:
    """Prints what an epoch of heads of width 64 takes that fill so many pages."""
    from features.rows.feed import plan_epoch
    from heads.bank.engine import Newcomer
    from heads.bank.shape import BankShape, pages_of
    from heads.model.spec import HeadSpec

    spec = HeadSpec(conv_width=64)
    plan = plan_epoch(np.arange(rows), batch_size=BATCH, views=1, seed=0, epoch=0)
    shape = BankShape.covering([spec], pages=pages, feature_shape=feed.shape, classes=CLASSES, batch=plan.rows.shape[1])
    engine, heads = engine_on(feed, shape, rows), pages // pages_of(spec)
    engine.insert([Newcomer(spec=spec, seeds=(seed,)) for seed in range(heads)])
    engine.train_epoch(plan), engine.validate()  # compiles
    begun = time.perf_counter()
    engine.train_epoch(plan)
    trained = time.perf_counter()
    engine.validate()
    scored = time.perf_counter()
    operations = 4 * plan.rows.size * math.prod(feed.shape) * heads * spec.conv_width
    rate = operations / (trained - begun)
    print(
        f"{pages:5} pages, {heads:4} heads: {1e3 * (trained - begun) / heads:8.2f} ms per trial-epoch,"
        f" {1e3 * (scored - trained) / heads:.2f} ms more to validate it; first layers {rate / 1e12:.2f} TFLOP/s,"
        f" {rate / peak:.0%} of the bare products",
        flush=True,
    )


def search(feed: DeviceFeed, rows: int, *, trials: int, epochs: int, pages: int) -> None:
    """Runs a search: heads are drawn, pruned at rungs and replaced until all have been tried; prints what it took."""
    import optuna

    from heads.bank.shape import BankShape
    from search.setup.space import read_study_file

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = read_study_file(ROOT / "studies" / "heads.toml").space
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    waiting = [space.suggest(study.ask()) for _ in range(trials)]
    batch = -(-rows // -(-rows // BATCH))
    shape = BankShape.covering(space.extremes(), pages=pages, feature_shape=feed.shape, classes=CLASSES, batch=batch)
    begun = time.perf_counter()
    running = Search(engine_on(feed, shape, rows), rows, waiting, epochs=epochs)
    while running.waiting or running.members:
        running.epoch()
    seconds = time.perf_counter() - begun
    best = max((score.accuracy for score in running.scores), default=math.nan)
    print(
        f"search of {trials} trials of up to {epochs} epochs on {pages} pages: {seconds:.1f} s with its compilation,"
        f" {running.trial_epochs:,} trial-epochs, {1e3 * seconds / running.trial_epochs:.2f} ms each,"
        f" {len(running.scores)} through, best accuracy {best:.3f}"
    )


class Search:
    """The loop of a study without its record: fill the bank, train, score, let the weak go.

    Attributes:
        waiting: Heads that have not been tried.
        members: Epochs that each slot's head has had.
        scores: Exact ones of the heads that came through.
        trial_epochs: Epochs of all heads so far.
        bank_epochs: Epochs of the bank.
        begun: Heads that have moved in.
    """

    def __init__(self, engine: Any, rows: int, waiting: Sequence[Any], *, epochs: int) -> None:
        from search.trials.pruning import rungs

        self.engine, self.rows, self.epochs = engine, rows, epochs
        self.waiting, self.members = list(waiting), dict[int, int]()
        self.best = np.full((1, engine.shape.slots), -1.0)
        self.at_rung: dict[int, list[float]] = {rung: [] for rung in rungs(epochs)}
        self.scores: list[Any] = []
        self.trial_epochs = self.bank_epochs = self.begun = 0

    def epoch(self) -> None:
        """Trains everybody for an epoch, and parts with those that are through or behind."""
        from features.rows.feed import plan_epoch

        self._fill()
        plan = plan_epoch(
            np.arange(self.rows), batch_size=self.engine.shape.batch, views=1, seed=0, epoch=self.bank_epochs
        )
        self.engine.train_epoch(plan)
        losses, accuracies, _ = self.engine.validate()
        self.engine.update_learning_rates(losses)
        improved = np.nan_to_num(accuracies, nan=-1.0) > self.best
        self.best[improved] = accuracies[improved]
        self.engine.keep(improved)
        self.bank_epochs += 1
        self.trial_epochs += len(self.members)
        self.members = {slot: trained + 1 for slot, trained in self.members.items()}
        self._part(accuracies[0])

    def _fill(self) -> None:
        from heads.bank.engine import Newcomer
        from heads.bank.shape import pages_of

        free, room = self.engine.table.free, self.engine.specs.count(None)
        chosen: list[Any] = []
        for spec in list(self.waiting):
            if len(chosen) < room and pages_of(spec) <= free:
                chosen.append(spec)
                free -= pages_of(spec)
                self.waiting.remove(spec)
        newcomers = [
            Newcomer(spec=spec, seeds=(self.begun + index,), epochs=self.epochs) for index, spec in enumerate(chosen)
        ]
        self.begun += len(chosen)
        slots = self.engine.insert(newcomers)
        self.best[:, slots] = -1
        self.members |= dict.fromkeys(slots, 0)

    def _part(self, accuracies: Any) -> None:
        from heads.bank.exact import Finished
        from search.trials.pruning import MINIMUM_PEERS, REDUCTION

        through = [slot for slot, trained in self.members.items() if trained == self.epochs]
        judged = {slot: trained for slot, trained in self.members.items() if trained in self.at_rung}
        for slot, trained in judged.items():
            self.at_rung[trained].append(float(np.nan_to_num(accuracies[slot], nan=-1.0)))
        behind = []
        for slot, trained in judged.items():
            peers = sorted(self.at_rung[trained], reverse=True)
            last_in = peers[math.ceil(len(peers) / REDUCTION) - 1]
            if len(peers) >= MINIMUM_PEERS and np.nan_to_num(accuracies[slot], nan=-1.0) < last_in:
                behind.append(slot)
        if through:
            finished = [Finished(spec=self.engine.specs[one], weights=self.engine.take_out(one)) for one in through]
            self.scores += exact_scores(self.engine, finished)
        if gone := [*through, *behind]:
            self.engine.remove(gone)
        self.members = {slot: trained for slot, trained in self.members.items() if slot not in gone}


if __name__ == "__main__":
    main()
