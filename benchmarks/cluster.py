"""What it costs that several processes work on one study: against ideal with sleeping banks, and with real ones.

    KERAS_BACKEND=jax python benchmarks/cluster.py      # sleeping banks, on a PostgreSQL of its own
    python benchmarks/cluster.py --store store.h5       # real banks, one process to a core

A sleeping bank takes as long for an epoch as a GPU would and computes nothing; everything around it is real: ordinals,
record, heartbeats, rungs, reports. Each worker is a process with a full bank; a study has so many trials that every
bank is filled ``--rounds`` times, and the ideal is that it takes no longer than the sleeping. All processes share this
machine's cores, which the workers of a cluster do not: how busy they were is printed, too.

With real banks two processes, each on a core of its own, work on one study together, and on two studies alone at the
same time, in turn: what the former take longer is what coordination costs. And one process does the same study with a
journal, and with ``--join`` on PostgreSQL.

Needs the ``test`` extra and PostgreSQL; times are by the clock, so the machine should have nothing else to do.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import sqlalchemy
from optuna.trial import FrozenTrial
from paths import ROOT, use_tests

from features.runtime.command import console
from heads.bank.head_state import HeadState
from heads.bank.pages import Placement
from heads.bank.shape import BankShape
from heads.metrics.scoring import Probabilities, Score, Scores
from heads.model.spec import HeadSpec
from heads.model.weights import Weights
from search.record.opened_study import OpenedStudy
from search.record.storage import join_record, load_study, open_record
from search.setup.config import StudyConfig
from search.setup.space import Space
from search.setup.stores import ALONE
from search.training.banked_trial import BankedTrial
from search.training.banks import Arrival, Trained
from search.training.display import Display
from search.training.inheritance import Inheritance
from search.training.pool import Pool
from search.training.shared_folder import worker_folder
from search.training.snapshot import Snapshots
from search.training.throughput import Throughput
from search.trials.ask_tell import Asked, Book

use_tests()
GRACE_S = 60.0
SPACE = """
name = "crew"
[space]
conv_width = [32]
learning_rate = { low = 1e-4, high = 1e-2, log = true }
"""
"""With real banks: heads that cost the same, so that any share of them is as much work as any other."""
CLASSES = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8, 16, 64])
    parser.add_argument("--epoch", type=float, nargs="+", default=[0.05, 0.5, 2.0], help="seconds that a bank sleeps")
    parser.add_argument("--heads", type=int, default=16, help="in a bank at once")
    parser.add_argument("--epochs", type=int, default=20, help="of a trial")
    parser.add_argument("--rounds", type=int, default=3, help="times that each bank is filled")
    parser.add_argument("--store", type=Path, help="measure real banks on this store instead")
    parser.add_argument("--trials", type=int, default=40, help="with --store: of the study")
    parser.add_argument("--repeat", type=int, default=3, help="with --store: times; the medians count")
    arguments = parser.parse_args()

    from postgres import programs

    if programs() is None:
        parser.error("PostgreSQL is not installed")
    if arguments.store:
        compare_real(arguments.store.resolve(), arguments.trials, arguments.epochs, arguments.repeat)
    else:
        scale(arguments)


# --- sleeping banks -------------------------------------------------------------------------------------------------


def scale(arguments: argparse.Namespace) -> None:
    from postgres import running_server

    rounds = f"{arguments.rounds} rounds of {arguments.epochs} epochs"
    print(f"{arguments.heads} heads at once, {rounds}; {os.cpu_count()} cores")
    head = f"{'epoch':>7s} {'workers':>8s} {'trial-epochs/s':>15s} {'of ideal':>9s} {'statements/s':>13s} "
    print(head + f"{'in transactions':>16s} {'longest':>8s} {'cores busy':>11s}")
    console.quiet = True
    with running_server() as server:
        for seconds in arguments.epoch:
            for storage in ("journal", "postgresql"):
                for workers in arguments.workers if storage == "postgresql" else [1]:
                    url = server.new_database(f"t{time.monotonic_ns()}") if storage == "postgresql" else None
                    with tempfile.TemporaryDirectory() as folder:
                        done = run_sleeping(Path(folder), url, workers, seconds, arguments)
                    print(describe(done, seconds, workers, arguments, alone=url is None), flush=True)


@dataclass
class Told:
    """What a process has measured.

    Attributes:
        seconds: From the common start to the end of its last trial.
        trial_epochs: That it trained.
        statements: Sent to the database.
        in_transactions: Seconds, in all threads.
        longest: Seconds of the longest transaction.
        cores: That it kept busy, on the mean, from the common start to when the study had ended.
    """

    seconds: float = 0.0
    trial_epochs: int = 0
    statements: int = 0
    in_transactions: float = 0.0
    longest: float = 0.0
    cores: float = 0.0
    _begun: dict[int, float] = field(default_factory=dict)

    def watch(self) -> None:
        """Counts what goes to databases from now on."""
        engine = sqlalchemy.engine.Engine
        sqlalchemy.event.listen(engine, "before_cursor_execute", self._count)
        sqlalchemy.event.listen(engine, "begin", lambda one: self._begun.update({id(one): time.perf_counter()}))
        for end in ("commit", "rollback"):
            sqlalchemy.event.listen(engine, end, self._end)

    def _count(self, *_: Any) -> None:
        self.statements += 1

    def _end(self, connection: Any) -> None:
        lasted = time.perf_counter() - self._begun.pop(id(connection), time.perf_counter())
        self.in_transactions += lasted
        self.longest = max(self.longest, lasted)


def describe(done: Sequence[Told], seconds: float, workers: int, arguments: argparse.Namespace, *, alone: bool) -> str:
    lasted = max(one.seconds for one in done)
    rate = sum(one.trial_epochs for one in done) / lasted
    ideal = workers * arguments.heads / seconds
    statements = sum(one.statements for one in done) / lasted
    inside = sum(one.in_transactions for one in done) / lasted / workers
    busy = sum(one.cores for one in done)
    name = "journal" if alone else f"{workers}"
    text = f"{seconds:6.2f}s {name:>8s} {rate:15,.0f} {rate / ideal:9.1%} {statements:13,.0f} {inside:16.1%}"
    return f"{text} {max(one.longest for one in done):7.2f}s {busy:11.2f}"


def run_sleeping(
    folder: Path, url: str | None, workers: int, seconds: float, arguments: argparse.Namespace
) -> list[Told]:
    """Runs a study by so many processes; returns what each has measured."""
    from made_study import make_config

    config = make_config(
        trials=workers * arguments.heads * arguments.rounds,
        epochs=arguments.epochs,
        storage=url,
        pruner="none",  # so that the ideal is known
    )
    forked = multiprocessing.get_context("fork")
    barrier, results = forked.Barrier(workers), forked.SimpleQueue()
    if url:  # its tables are no worker's work
        open_record(folder, "warm-up", url, direction="maximize", resume=False).close()
    processes = [
        forked.Process(target=_worker, args=(results, folder, config, seconds, arguments.heads, barrier))
        for _ in range(workers)
    ]
    for process in processes:
        process.start()
    told = [results.get() for _ in processes]
    for process in processes:
        process.join()
    if failed := [one for one in told if isinstance(one, str)]:
        raise SystemExit(failed[0])
    return told


def _worker(results: Any, *told: Any) -> None:
    try:
        results.put(_work(*told))
    except BaseException:
        told[-1].abort()
        results.put(traceback.format_exc())


def _work(folder: Path, config: Any, seconds: float, heads: int, barrier: Barrier) -> Told:
    told = Told()
    told.watch()
    opened: OpenedStudy
    if config.storage:
        opened = join_record(config.storage, config.name, direction=config.direction, grace=GRACE_S)
    else:
        opened = open_record(folder, config.name, None, direction=config.direction, resume=False)
    try:
        crew = opened.crew
        barrier.wait()
        if crew is not None:
            crew.gather(barrier.parties, 60)
        barrier.wait()
        told.statements, told.in_transactions, told.longest = 0, 0.0, 0.0
        begun, processor = time.perf_counter(), time.process_time()
        place = worker_folder(folder, crew.name) if crew is not None else folder
        ordinals = crew.ordinals(opened.study, config.trials, pages=8 * heads) if crew is not None else None
        book = Book(opened.study, config, Space.from_dict(config.space, "here"), ordinals=ordinals)
        banks = _SleepingBanks(heads, seconds)
        pool = Pool(
            book,
            banks,  # type: ignore[arg-type]
            _Nowhere(),
            Display(opened.study, config),
            opened=opened,
            snapshots=Snapshots(place, opened.journal, every=60.0),
            throughput=Throughput(),
            inheritance=Inheritance(place.parent, opened.study) if crew is not None else None,
        )
        pool.run()
        told.seconds, told.trial_epochs = banks.ended - begun, banks.trial_epochs
        told.cores = (time.process_time() - processor) / (time.perf_counter() - begun)
        barrier.wait()
    finally:
        opened.close()
    told._begun.clear()
    return told


class _SleepingBanks:
    """Stands for ``search.training.banks.Banks``: an epoch takes its time and computes nothing."""

    folds = 1
    traces = 0

    def __init__(self, heads: int, seconds: float) -> None:
        self.pages = heads
        shape: dict[str, Any] = {"feature_shape": (7, 7, 1280), "classes": CLASSES, "batch": 32}
        self.shapes = {ALONE: BankShape.covering([HeadSpec()], pages=heads, **shape)}
        self.trial_epochs = 0
        self.ended = 0.0
        self._seconds = seconds
        self._free = set(range(heads))

    @property
    def used(self) -> int:
        return self.pages - len(self._free)

    @property
    def room(self) -> _Room:
        return _Room(len(self._free))

    def insert(self, arriving: Sequence[Arrival]) -> list[int]:
        return [self._free.pop() for _ in arriving]

    def remove(self, trials: Iterable[BankedTrial]) -> None:
        self._free.update(banked.slot for banked in trials)

    def train(self, epoch: int, trials: Sequence[BankedTrial]) -> dict[str, Trained]:
        time.sleep(self._seconds)
        self.trial_epochs += len(trials)
        self.ended = time.perf_counter()
        accuracy = np.zeros((1, self.pages))
        for banked in trials:
            accuracy[0, banked.slot] = (1 - 0.5 ** (1 + banked.epochs)) * (0.5 + banked.asked.seed % 1000 / 2000)
        scores = Scores(loss=1 - accuracy, accuracy=accuracy, ranking_score=accuracy)
        return {ALONE: Trained(1 - accuracy, scores, np.full_like(accuracy, 1e-3), 0)}

    def keep(self, improved: Sequence[BankedTrial]) -> None:
        """There is nothing."""

    def take_out(self, banked: BankedTrial) -> list[Weights]:
        return [[np.zeros(1, np.float32)]]

    def predict_exactly(
        self, trials: Sequence[BankedTrial], weights: Sequence[Sequence[Weights]]
    ) -> list[list[tuple[Probabilities, Score]]]:
        return [[(np.full((1, CLASSES), 0.25, np.float32), Score(0.5, 0.5, 0.5))] for _ in trials]

    def placement_of(self, banked: BankedTrial) -> Placement:
        return (banked.slot, (banked.slot,))

    def save_state(self, banked: BankedTrial) -> tuple[HeadState, ...]:
        return ({"spec": np.array("{}")},)


class _Room:
    """Stands for ``search.training.banks.FreeRoom``: heads of one page."""

    def __init__(self, left: int) -> None:
        self._left = left

    @property
    def is_left(self) -> bool:
        return self._left > 0

    def fits(self, store: str, spec: HeadSpec) -> bool:
        return self.is_left

    def take(self, store: str, spec: HeadSpec) -> None:
        self._left -= 1


class _Nowhere:
    """Takes heads and keeps none."""

    def offer(self, asked: Asked, weights: Sequence[Any], score: Score, probabilities: Sequence[Any]) -> None:
        """There is none."""

    def write_held(self) -> None:
        """There is none."""

    def write_out(self) -> None:
        """There is none."""


# --- real banks -----------------------------------------------------------------------------------------------------


def compare_real(store: Path, trials: int, epochs: int, repeat: int) -> None:
    """Two processes together against two alone; and one on PostgreSQL against one with a journal."""
    from postgres import running_server

    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise SystemExit("two cores are needed")
    found: dict[str, list[float]] = {}
    with running_server() as server:
        for _ in range(repeat):
            halves = [_Search(store, trials // 2, epochs, seed, core=core) for seed, core in enumerate(cores)]
            found.setdefault("two alone, at the same time", []).append(seconds_of(halves))
            url = server.new_database(f"t{time.monotonic_ns()}")
            with tempfile.TemporaryDirectory() as out:
                both = [_Search(store, trials, epochs, 0, core=core, url=url, out=Path(out)) for core in cores]
                found.setdefault("two together", []).append(seconds_of(both))
            found.setdefault("one, journal", []).append(seconds_of([_Search(store, trials, epochs, 0)]))
            url = server.new_database(f"t{time.monotonic_ns()}")
            found.setdefault("one, PostgreSQL", []).append(seconds_of([_Search(store, trials, epochs, 0, url=url)]))
    print(f"{trials} trials of {epochs} epochs, no pruning; seconds from the first trial's start to the last one's end")
    for name, seconds in found.items():
        print(f"{name:30s} {median(seconds):7.1f}  ({', '.join(f'{one:.1f}' for one in seconds)})")
    for over, under in (("two together", "two alone, at the same time"), ("one, PostgreSQL", "one, journal")):
        ratios = [mine / theirs for mine, theirs in zip(found[over], found[under], strict=True)]
        print(f"{over} / {under}: {median(ratios):.3f} ({', '.join(f'{one:.3f}' for one in ratios)})")


class _Search:
    """``search.run`` as a program."""

    def __init__(
        self,
        store: Path,
        trials: int,
        epochs: int,
        seed: int,
        *,
        core: int | None = None,
        url: str | None = None,
        out: Path | None = None,
    ) -> None:
        self._own = tempfile.TemporaryDirectory()
        self.folder = out or Path(self._own.name) / "study"
        study = Path(self._own.name) / "heads.toml"
        study.write_text(SPACE)
        words = [sys.executable, "-m", "search.run", "--features", f"{store}", "--out", f"{self.folder}"]
        words += ["--study", f"{study}"]
        words += ["--trials", f"{trials}", "--epochs", f"{epochs}", "--seed", f"{seed}", "--folds", "0"]
        words += ["--pruner", "none", "--sampler", "random", "--finalists", "0"]
        words += ["--storage", url, "--join"] if url else []
        pinned = [] if core is None else ["taskset", "-c", f"{core}"]
        log = Path(tempfile.gettempdir()) / f"benchmark-cluster-{time.monotonic_ns()}.log"
        self.log = log
        with log.open("w") as file:
            self.process = subprocess.Popen([*pinned, *words], cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)

    def end(self) -> None:
        if self.process.wait():
            raise SystemExit(self.log.read_text())
        self.log.unlink()


def seconds_of(searches: Sequence[_Search]) -> float:
    """How long the searches took together: from the first trial's start to the last one's end."""
    for search in searches:
        search.end()
    trials = [trial for folder in {one.folder for one in searches} for trial in _trials(folder)]
    begun = min(trial.datetime_start for trial in trials if trial.datetime_start)
    return (max(trial.datetime_complete for trial in trials if trial.datetime_complete) - begun).total_seconds()


def _trials(folder: Path) -> list[FrozenTrial]:
    config = StudyConfig.read(folder)
    return load_study(folder, config.name, config.storage).get_trials()


if __name__ == "__main__":
    main()
