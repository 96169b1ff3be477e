"""The start of the backend: silent, and Ctrl-C is not lost in it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import SimpleNamespace
from unittest.mock import Mock

import keras
import pytest

from features.runtime import backend
from features.runtime.backend import _interrupts_held, start_backend, use_backend
from features.runtime.errors import InputError


def test_an_interrupt_is_put_off_not_lost():
    before = signal.getsignal(signal.SIGINT)
    reached = []
    with pytest.raises(KeyboardInterrupt), _interrupts_held():
        os.kill(os.getpid(), signal.SIGINT)
        reached.append("the end")
    assert reached == ["the end"]
    assert signal.getsignal(signal.SIGINT) is before


def test_ignored_interrupts_stay_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with _interrupts_held():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_may_start_it_too():
    failures = []

    def start():
        try:
            start_backend()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert not failures


def test_the_one_that_runs_is_taken_and_no_second_one(monkeypatch):
    start_backend()
    running = use_backend()
    monkeypatch.setenv("KERAS_BACKEND", "jax" if running == "tensorflow" else "tensorflow")
    assert use_backend() == running
    other = {"tensorflow": "jax", "jax": "tensorflow"}[running]
    with pytest.raises(InputError, match=f"--backend: expected {running}, already in use, found {other}"):
        use_backend(other)


@pytest.mark.parametrize("asked", [None, "jax", "tensorflow"])
def test_a_process_in_which_keras_runs_on_another_one_is_told_so_whatever_it_asks_for(monkeypatch, asked):
    """As a notebook in which Keras was imported with ``torch`` in its keras.json."""
    monkeypatch.setitem(sys.modules, "keras", SimpleNamespace(backend=SimpleNamespace(backend=lambda: "torch")))
    said = "^keras: expected tensorflow or jax, found torch, already in use; in a new process, set KERAS_BACKEND="
    with pytest.raises(InputError, match=said):
        use_backend(asked)


def test_one_that_is_not_installed_is_said_to_be_of_who_named_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)
    monkeypatch.delitem(sys.modules, "keras")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setattr(backend, "find_spec", lambda name: name == "tensorflow")
    with pytest.raises(InputError, match=r"^KERAS_BACKEND: expected jax to be installed, found no such package"):
        use_backend()
    with pytest.raises(InputError, match=r"^--backend: expected jax to be installed, found no such package"):
        use_backend("jax")


@pytest.mark.parametrize(
    ("chosen", "rather", "installed", "taken"),
    [
        (None, "jax", ("tensorflow", "jax"), "jax"),
        (None, "jax", ("tensorflow",), "tensorflow"),
        (None, "tensorflow", ("jax",), "jax"),
        ("tensorflow", "jax", ("tensorflow", "jax"), "tensorflow"),
    ],
)
def test_who_would_rather_have_a_backend_gets_it_where_nobody_chose_one(monkeypatch, chosen, rather, installed, taken):
    monkeypatch.setitem(sys.modules, "keras", None)
    monkeypatch.delitem(sys.modules, "keras")
    monkeypatch.setenv("KERAS_BACKEND", chosen or "")
    monkeypatch.setattr(backend, "find_spec", lambda name: name in installed)
    assert use_backend(rather=rather) == taken


@pytest.mark.parametrize(
    ("raised", "asked", "said"),
    [
        (AssertionError(), "cuda", "found cuda; there is none"),
        (RuntimeError("Unable to initialize backend 'tpu':\nno chip"), "", "found none given; Unable .*: no chip"),
    ],
)
def test_jax_without_a_device_is_said_in_one_line(monkeypatch, raised, asked, said):
    jax = SimpleNamespace(default_backend=Mock(side_effect=raised), config=SimpleNamespace(jax_platforms=asked))
    monkeypatch.setitem(sys.modules, "jax", jax)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(InputError, match=f"^JAX_PLATFORMS: expected devices that JAX can start here.*, {said}$"):
        start_backend()
