"""The start of the backend: silent, and Ctrl-C is not lost in it."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from features.runtime.backend import _interrupts_held, start_backend


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
