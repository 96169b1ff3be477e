"""One study by workers that Ray places on machines and GPUs: each is ``search.run --join``, a bank of its own.

The driver starts workers, starts those again that die, shows how far the study is, and asks all to stop where somebody
stops it. The study itself is in the storage: it goes on without the driver, and without any one of the workers.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from features.runtime.command import say
from features.runtime.errors import BottleneckError, InputError
from features.runtime.options import option_name
from features.runtime.portable import cpu_count
from features.runtime.text import counted
from features.store.reader import FeatureStore
from search.record.database import storage_errors
from search.record.noted_config import CONFIG
from search.record.opened_study import OpenedStudy
from search.record.storage import config_in_storage, watch_record
from search.setup.config import StudyConfig
from search.setup.file_names import STUDY_FILE
from search.setup.options import STORE_OPTIONS, RunOptions
from search.setup.reproduce import option_words
from search.setup.resolve import storage_of
from search.setup.storage_url import VARIABLE, hidden, sqlite_file
from search.setup.stores import is_address, named_paths, part_paths, split_name
from search.training.display import Display
from search.training.shared_folder import WORKERS_FOLDER
from search.trials.notes import TrialNotes
from search.workers.ray_session import AUTO, GPUS_PER_WORKER, LOCAL, WORKERS, ray_session
from search.workers.stores_there import Sent, fetched
from search.workers.study_program import ANSWERED
from search.workers.study_worker import Ended, StudyWorker

DATABASE = "study.db"
"""SQLite's file in the study directory, where the workers are on this machine and no other storage is named."""
MOST_STARTS = 4
"""Times that a worker is started, at most: one that dies again and again has a reason."""
LOOK_S = 0.5
"""Seconds between two looks at workers and study."""
STOPPING_S = 120.0
"""Seconds that workers have for a snapshot and for giving their trials back, where somebody stops the driver."""
HEARD_S = 10.0
"""Seconds in which each says before that it has heard; one that was never placed, for want of room, cannot."""
_OF_A_GPU = 0.75
"""Share of a GPU's memory that JAX reserves for a process that has the GPU for itself (its default)."""


@dataclass(frozen=True)
class Placement:
    """Where workers run.

    Attributes:
        address: ``local``, ``auto`` or HOST:PORT, see ``search.workers.ray_session``.
        workers: How many.
        gpus: GPUs of each.
        cpus: CPUs of each; None: on this machine its share of them, elsewhere one of those that Ray counts, and as many
            threads as its machine has.
    """

    address: str = AUTO
    workers: int = WORKERS
    gpus: float = GPUS_PER_WORKER
    cpus: int | None = None

    def __post_init__(self) -> None:
        """Refuses numbers that no worker can have.

        Raises:
            InputError: One is named.
        """
        for option, number in (("--workers", self.workers), ("--cpus-per-worker", self.cpus)):
            if number is not None and number < 1:
                raise InputError(option, expected="1 or more", found=number)

    @property
    def counted_cpus(self) -> int:
        """CPUs that Ray counts for a worker."""
        return self.threads or 1

    @property
    def threads(self) -> int | None:
        """Threads of a worker; None for as many as its machine likes."""
        if self.cpus is None and self.address == LOCAL:
            return max(1, cpu_count() // self.workers)
        return self.cpus

    @property
    def environment(self) -> dict[str, str]:
        """What a worker's program is told of that. Ray itself would tell it to use one thread.

        Of a GPU that several share, each takes its part, or what it needs: JAX would reserve three quarters of all of
        its memory at once, and TensorFlow the whole.
        """
        number = str(self.threads or "")
        told = {"OMP_NUM_THREADS": number, "TF_NUM_INTRAOP_THREADS": number}
        if 0 < self.gpus < 1:
            part = {
                "XLA_PYTHON_CLIENT_MEM_FRACTION": f"{_OF_A_GPU * self.gpus:.3g}",
                "TF_FORCE_GPU_ALLOW_GROWTH": "true",
            }
            told |= {name: os.environ.get(name, value) for name, value in part.items()}
        return told


@dataclass(eq=False)
class _Placed:
    """A worker that was placed.

    Attributes:
        number: Its number among them.
        actor: Ray's handle.
        run: What it returns when its program ends.
        starts: How often it was started.
    """

    number: int
    actor: Any = None
    run: Any = None
    starts: int = 0


def search_on_ray(options: RunOptions, name: str, folder: Path, placement: Placement) -> None:
    """Runs a study to its end, or goes on with it.

    Args:
        options: Of the search; ``features`` are paths that every machine sees, or addresses for fsspec.
        name: The study's name.
        folder: The study directory; on this machine, and on others the same path, be it shared or each one's own.
        placement: Where workers run.

    Raises:
        InputError: Options do not fit.
        RefusedByWorkerError: A worker has refused its input.
        BottleneckError: Workers have died again and again, or Ray is not there.
        KeyboardInterrupt: After Ctrl-C or SIGTERM, once the workers have stopped.
    """
    url = storage_of(options.storage or f"sqlite:///{folder / DATABASE}")
    _check_storage(url, placement)
    stores = sent_stores(options)
    if not stores:
        raise InputError("--features", expected="a store, or its address", found="none")
    words = _words(options, folder)
    with ray_session(
        placement.address,
        workers=placement.workers,
        cpus_per_worker=placement.counted_cpus,
        gpus_per_worker=placement.gpus,
    ) as ray:
        folder.mkdir(parents=True, exist_ok=True)
        _Driver(ray, placement, words, stores, folder=folder, url=url).run(name)
    _note_here(folder, url, name)


def _note_here(folder: Path, url: str, name: str) -> None:
    """Writes ``study.json`` where no worker has: each may have a disk of its own."""
    config = config_in_storage(url, name)
    there = StudyConfig.read(folder) if (folder / STUDY_FILE).exists() else None
    if config is not None and (there is None or there.trials != config.trials):
        config.model_copy(update={"storage": url}).write(folder)


def _check_storage(url: str, placement: Placement) -> None:
    if sqlite_file(url) is not None and placement.address != LOCAL:
        hint = "SQLite is for the processes of one machine, with --address local"
        raise InputError(
            "--storage", expected="a database server that all machines reach", found=hidden(url), hint=hint
        )


def sent_stores(options: RunOptions) -> list[Sent]:
    """Returns the stores of a search, with what this machine knows of them.

    Raises:
        InputError: One is missing or no store, two have the same name, or a part has not one for each.
    """
    names = list(named_paths(options.features or ()))
    found = []
    for part in STORE_OPTIONS:
        given = getattr(options, part) or ()
        if part != "features":
            part_paths(names, given, option=option_name(part))  # which refuses what does not go with the names
        for index, told in enumerate(given):
            name, address = split_name(told)
            here = fetched(address, part=part) if is_address(address) else Path(address)
            where = address if is_address(address) else str(here.absolute())
            found.append(
                Sent(part, (name or names[index]) if len(names) > 1 else "", where, FeatureStore(here).identity)
            )
    return found


def _words(options: RunOptions, folder: Path) -> list[str]:
    """The command line of a worker, but for its stores, and for the storage: anybody can read a command line."""
    kept_back = (*STORE_OPTIONS, "storage")
    told = {name: getattr(options, name) for name in options.model_fields_set if name not in kept_back}
    told |= {"out": folder.absolute(), "join": True}
    if options.study is not None:
        told["study"] = Path(options.study).absolute() if Path(options.study).exists() else options.study
    return [word for words in option_words(told) for word in words]


class _Driver:
    """The workers of one study, from their start to their end."""

    def __init__(
        self,
        ray: Any,
        placement: Placement,
        words: Sequence[str],
        stores: Sequence[Sent],
        *,
        folder: Path,
        url: str,
    ) -> None:
        self._ray = ray
        self._placement = placement
        self._words, self._stores, self._folder, self._url = list(words), list(stores), folder, url
        self._remote = ray.remote(
            num_cpus=placement.counted_cpus,
            num_gpus=placement.gpus,
            max_restarts=0,
            max_concurrency=2,  # to be asked to stop while it runs
            scheduling_strategy="SPREAD",
        )(StudyWorker)
        self._answered = self._gone = False
        self._placed = [_Placed(number) for number in range(placement.workers)]

    def run(self, name: str) -> None:
        """Starts the workers and stays with them until all have ended."""
        try:
            for placed in self._placed:
                self._start(placed)
            say(f"{counted(len(self._placed), 'worker')} started; what each says is in {self._log(0).parent}")
            with _Watch(self._url, name) as watch:
                while self._at_work():
                    self._answered = watch.look()
                    self._look_after()
        except BaseException:
            self._stop()
            raise

    def _at_work(self) -> bool:
        return any(placed.run is not None for placed in self._placed)

    def _start(self, placed: _Placed) -> None:
        placed.starts += 1
        placed.actor = self._remote.remote()
        log = self._log(placed.number)
        environment = {**self._placement.environment, VARIABLE: self._url, ANSWERED: "1" if self._answered else ""}
        placed.run = placed.actor.run.remote(self._words, self._stores, environment, log)

    def _log(self, number: int) -> Path:
        return self._folder.absolute() / WORKERS_FOLDER / f"{number}.log"

    def _look_after(self) -> None:
        """Takes note of workers that have ended, and starts those again that have died."""
        runs = {placed.run: placed for placed in self._placed if placed.run is not None}
        done, _ = self._ray.wait(list(runs), num_returns=len(runs), timeout=LOOK_S)
        self._gone = not any(node["Alive"] for node in self._ray.nodes())
        if self._gone:  # what is started now would wait for a machine without end
            raise BottleneckError("Ray is gone, and the workers with it: the same command goes on")
        for run in done:
            placed = runs[run]
            ended = self._end_of(run)
            placed.run = None
            self._ray.kill(placed.actor)
            if ended is not None and ended.status == 0:
                continue
            self._again(placed, ended)

    def _end_of(self, run: Any) -> Ended | None:
        """What became of a worker's program; None where the worker is gone with it, and perhaps its machine."""
        errors = self._ray.exceptions
        try:
            found: Ended = self._ray.get(run)
        except errors.RayTaskError as error:
            return Ended(1, getattr(error, "ip", ""), f"error: {_last_line(error)}")
        except errors.RayError as error:
            never_made = getattr(error, "actor_init_failed", False)  # as on a machine without the project
            return Ended(1, "", f"error: {_last_line(error)}") if never_made else None
        return found

    def _again(self, placed: _Placed, ended: Ended | None) -> None:
        last = _last_error(ended)
        if ended is not None and ended.status == InputError.exit_status:
            raise RefusedByWorkerError(last)
        what = f"worker {placed.number}{f' on {ended.host}' if ended and ended.host else ''}"
        if placed.starts >= MOST_STARTS:
            say(f"note: {what} has ended {placed.starts} times and is given up ({last})")
            if not self._at_work():
                raise BottleneckError(f"no worker is left: {what} ended with: {last}")
            return
        say(f"note: {what} has ended ({last}); it is started again")
        self._start(placed)

    def _stop(self) -> None:
        """Asks all to stop, and waits until they have; who does not answer is not waited for."""
        running = [placed for placed in self._placed if placed.run is not None]
        if not running or self._gone:
            return
        say(f"{counted(len(running), 'worker')} asked to stop")
        asked = {}
        for placed in running:
            with suppress(self._ray.exceptions.RayError):
                asked[placed.actor.stop.remote()] = placed.actor
        if asked:
            _, unheard = self._ray.wait(list(asked), num_returns=len(asked), timeout=HEARD_S)
            for answer in unheard:  # a program that runs all the same stops as soon as its worker is gone
                self._ray.kill(asked[answer])
        self._ray.wait([placed.run for placed in running], num_returns=len(running), timeout=STOPPING_S)


class RefusedByWorkerError(BottleneckError):
    """Input that a worker has refused, in the one line that it had for it."""

    exit_status = InputError.exit_status


def _last_line(error: Exception) -> str:
    """What it was: Ray shows the traceback of a worker, which ends with that."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()


def _last_error(ended: Ended | None) -> str:
    if ended is None:
        return "killed, or its machine is gone"
    lines = [line for line in ended.said.splitlines() if line.strip()]
    told = next((line for line in reversed(lines) if line.startswith("error: ")), lines[-1] if lines else "")
    if ended.status < 0 and not told.startswith("error: "):
        return f"signal {-ended.status}"
    return told.removeprefix("error: ") or f"exit status {ended.status}"


class _Watch:
    """Shows how far a study is: a table in a terminal, else a line for each trial. Use as a context manager."""

    def __init__(self, url: str, name: str) -> None:
        self._url, self._name = url, name
        self._to_close = ExitStack()
        self._opened: OpenedStudy | None = None
        self._display: Display | None = None
        self._told: set[int] = set()
        self._epochs = 0

    def __enter__(self) -> _Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self._to_close.close()

    def look(self) -> bool:
        """Shows what is new; returns whether the study is there, and so its database."""
        with storage_errors(self._url):
            if self._opened is None:
                self._begin()
                return self._opened is not None
            self._opened.hand_over()
        assert self._display is not None
        trials = self._opened.study.get_trials(deepcopy=False)
        epochs = sum(len(trial.intermediate_values) for trial in trials)
        self._display.epoch(epochs - self._epochs)
        self._epochs = epochs
        ended = [one.number for one in trials if one.number not in self._told and one.state.is_finished()]
        self._told.update(ended)
        self._display.finished(*ended)
        return True

    def _begin(self) -> None:
        self._opened = watch_record(self._url, self._name)
        if self._opened is None:
            return
        self._to_close.callback(self._close, self._opened)
        config = StudyConfig.of(self._opened.study.user_attrs[CONFIG], hidden(self._url))
        display = Display(self._opened.study, config)
        display.detail = self._describe
        self._display = self._to_close.enter_context(display)
        self._told = {
            trial.number for trial in self._opened.study.get_trials(deepcopy=False) if trial.state.is_finished()
        }

    def _close(self, opened: OpenedStudy) -> None:
        with suppress(BottleneckError), storage_errors(self._url):  # nothing of ours is in there
            opened.hurry()
            opened.close()

    def _describe(self) -> str:
        assert self._opened is not None
        trials = self._opened.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        by = {TrialNotes.of(trial).worker for trial in trials} - {None}
        return f"{counted(len(trials), 'head')} at once, by {counted(len(by), 'worker')}"
