"""Processes that work on a study together, in made banks that take their time.

Each is forked from one that has imported everything: to import it takes seconds, and tests need dozens.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import time
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest
from killed_study import made_searches
from optuna.trial import FrozenTrial, TrialState

from features.runtime.command import run_command
from features.runtime.errors import BottleneckError
from search import run_study
from search.finish import conclusion
from search.record.crew import Crew
from search.record.storage import load_study
from search.training.banks import Banks

HERE = Path(__file__).resolve().parent
FORKS = multiprocessing.get_context("forkserver")
STUDY = """
name = "crew"
[run]
batch_size = 24
pruner = "none"
sampler = "random"
[space]
conv_width = { low = 80, high = 160, step = 16 }
pooling = ["average", "max"]
learning_rate = { low = 1e-3, high = 1e-1, log = true }
"""


class Worker:
    """A process that works on a study."""

    def __init__(self, log: Path, *, pause: float = 0.02, limit: int = 0, crew: int = 1, **options: Any) -> None:
        """Starts it; what it says goes to a file.

        Args:
            log: The file.
            pause: Seconds that an epoch of the bank takes.
            limit: Bytes that a file may have: what a full disk looks like; 0 for any.
            crew: How many have to be there before any of them begins.
            **options: Of the search.
        """
        self.log = log
        log.touch()
        with pytest.MonkeyPatch.context() as patched:  # for the process that all are forked from: the first makes it
            patched.setenv("PYTHONPATH", f"{HERE.parent}:{HERE}")
            patched.setenv("KERAS_BACKEND", "jax")  # Keras starts faster with it; nothing is computed by either
            FORKS.set_forkserver_preload([__name__])
            forkserver.ensure_running()
        self._process = FORKS.Process(target=_work, args=(log, options, pause, limit, crew))
        self._process.start()

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._process.is_alive()

    def wait(self, timeout: float = 240) -> int:
        """Waits for its end; returns its exit status, the signal that ended it as a negative number."""
        self._process.join(timeout)
        status = self._process.exitcode
        assert status is not None, self.said
        return status

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        if self.runs:
            assert self._process.pid is not None
            os.kill(self._process.pid, number)

    def end(self) -> None:
        """Ends it, if it still runs."""
        self._process.kill()
        self._process.join()

    @property
    def said(self) -> str:
        """What it has said so far."""
        return self.log.read_text(encoding="utf-8")


def trials_of(url: str) -> list[FrozenTrial]:
    """Returns the trials of the study as the database has them; none where it is not there yet."""
    try:
        return load_study(Path(), "crew", url).trials
    except BottleneckError:  # no tables, no study, or no server yet
        return []


def wait_until(condition: Any, timeout: float = 120) -> None:
    """Waits until something is so."""
    ends = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < ends, "it has not come to it"
        time.sleep(0.1)


def assert_sound(url: str, trials: int) -> list[FrozenTrial]:
    """Every trial was told exactly once, no ordinal is another's too, and nothing runs; returns those that count."""
    found = trials_of(url)
    assert [trial.number for trial in found] == list(range(len(found)))
    assert {trial.state for trial in found} <= {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}
    counted = [trial for trial in found if trial.user_attrs.get("failure") != "interrupted"]
    assert sorted(trial.user_attrs["ordinal"] for trial in counted) == list(range(trials))
    for trial in counted:
        assert sorted(trial.intermediate_values) == list(range(1, trial.user_attrs["epochs"] + 1)), trial
    again = [trial.user_attrs["rerun_of"] for trial in found if "rerun_of" in trial.user_attrs]
    assert len(set(again)) == len(again), "a trial was run again twice"
    assert all(found[number].user_attrs["failure"] == "interrupted" for number in again)
    return sorted(counted, key=lambda trial: trial.user_attrs["ordinal"])


def _work(log: Path, options: dict[str, Any], pause: float, limit: int, crew: int) -> None:
    with log.open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    real = Banks.train

    def train(*arguments: Any) -> Any:
        time.sleep(pause)
        return real(*arguments)

    Banks.train = train  # type: ignore[method-assign]
    ordinals = Crew.ordinals

    def ordinals_of_all(self: Crew, *arguments: Any, **named: Any) -> Any:
        nonlocal crew
        self.gather(crew, 60)
        crew = 1  # at their repeats there may be fewer
        return ordinals(self, *arguments, **named)

    Crew.ordinals = ordinals_of_all  # type: ignore[method-assign]
    # Made heads have no speed, and JAX takes its time to find that.
    conclusion.cost_of_use = lambda *_: None  # type: ignore[assignment]
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def main() -> None:
        with made_searches():
            run_study(**options)

    sys.argv = sys.argv[:1]
    run_command(main, resume_hint="run it again")
