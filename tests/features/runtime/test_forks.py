"""A process that was forked from one in which the backend computes is refused: it would hang."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import pytest

from features.runtime import forks
from features.runtime.backend import start_backend, use_backend
from features.runtime.errors import BottleneckError

SAID = r"forked from one in which Keras runs.*get_context\('spawn'\)"
FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system knows no forks")


def said_in_a_fork(call: Callable[[], object]) -> str:
    """Calls in a fork of this process; returns what it raises."""
    receiving, sending = os.pipe()
    if not (child := os.fork()):
        said = "nothing"
        try:
            call()
        except BottleneckError as error:
            said = str(error)
        finally:
            os.write(sending, said.encode())
            os._exit(0)
    os.close(sending)
    os.waitpid(child, 0)
    with os.fdopen(receiving) as pipe:
        return pipe.read()


@pytest.mark.parametrize("call", [use_backend, start_backend])
def test_a_fork_of_a_process_that_has_started_the_backend_is_refused(monkeypatch, call):
    start_backend()
    monkeypatch.setattr(forks, "_started_in", {os.getppid()})
    with pytest.raises(BottleneckError, match=SAID):
        call()


@FORKS
@pytest.mark.filterwarnings("ignore:.*fork:RuntimeWarning", "ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("seen_by", ["the fork", "its threads"])
def test_so_is_one_of_a_process_in_which_somebody_elses_keras_has_computed(monkeypatch, seen_by):
    keras.ops.convert_to_numpy(keras.ops.add(1.0, 1.0))
    monkeypatch.setattr(forks, "_started_in", set())
    forks.refuse_a_fork()

    def call() -> None:
        if seen_by == "its threads":
            forks._started_in.clear()  # as where this project is imported after the fork
        else:
            forks._has_threads_beside_pythons = lambda: True  # those of another library
        use_backend()

    if seen_by == "its threads" and not Path("/proc/self/task").is_dir():
        pytest.skip("this system does not say which threads there are")
    assert "forked from one in which Keras runs" in said_in_a_fork(call)


@FORKS
@pytest.mark.filterwarnings("ignore:.*fork:RuntimeWarning", "ignore:.*fork:DeprecationWarning")
def test_one_of_a_process_that_has_only_imported_it_is_none(monkeypatch):
    monkeypatch.setattr(forks, "_started_in", set())
    monkeypatch.setattr(forks, "has_computed", lambda: False)
    assert said_in_a_fork(use_backend) == "nothing"


def test_the_backend_says_that_it_has_computed(monkeypatch):
    """By names that are private to it."""
    keras.ops.convert_to_numpy(keras.ops.add(1.0, 1.0))
    assert forks.has_computed()
    for name in ("tensorflow.python.eager.context", "jax._src.xla_bridge"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert not forks.has_computed()
