"""Ctrl-C under handlers of others: a notebook's kernel has its own, and runs cells in other threads too."""

from __future__ import annotations

import signal
import threading

import pytest

from features.runtime.errors import Terminated
from features.runtime.stopping import heeding_stops


@pytest.fixture
def kernels_handler():
    """A handler as a notebook's kernel sets one; what was before is set again."""
    before = signal.getsignal(signal.SIGINT)

    def handler(number, frame):
        raise AssertionError("the kernel's handler was called")

    signal.signal(signal.SIGINT, handler)
    yield handler
    signal.signal(signal.SIGINT, before)


def test_the_first_is_noted_the_second_takes_effect_and_the_kernels_handler_comes_back(kernels_handler):
    with heeding_stops() as stop:
        assert not stop.asked
        signal.raise_signal(signal.SIGINT)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is kernels_handler


def test_one_that_takes_effect_at_once_and_gets_lost_is_heard_of_later(kernels_handler):
    with heeding_stops(at_once=True) as stop:
        stop.take_effect()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            stop.take_effect()
        with pytest.raises(Terminated):
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGINT) is kernels_handler


def test_who_waits_hears_of_each_signal_and_stops_where_something_fails_then(kernels_handler):
    heard: list[bool] = []
    with pytest.raises(KeyboardInterrupt), heeding_stops(heard=heard.append) as stop, stop.instead_of(OSError):
        signal.raise_signal(signal.SIGINT)
        assert heard == [False]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert heard == [False, True]
        raise OSError
    with pytest.raises(OSError), heeding_stops() as stop, stop.instead_of(OSError):
        raise OSError


def test_in_another_thread_nobody_asks_and_no_handler_is_touched(kernels_handler):
    seen = []

    def work() -> None:
        with heeding_stops() as stop:
            seen.append((stop.asked, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, kernels_handler)]


def test_a_handler_that_is_not_pythons_does_not_keep_a_search_from_ending(kernels_handler, monkeypatch):
    real, given = signal.signal, []
    with monkeypatch.context() as patched:
        patched.setattr(
            signal, "signal", lambda number, handler: given.append(handler) or (real(number, handler) and None)
        )
        with heeding_stops():
            pass
    assert given[-1] is signal.SIG_DFL
