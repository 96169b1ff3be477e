"""Processes that write the same file in the same moment, here threads that wait for one another."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest


def meet(monkeypatch: pytest.MonkeyPatch, times: int, write: Callable[[int], object]) -> list[BaseException]:
    """Lets several write, each of them done only when all are about to put their files in place; what they raised."""
    met, errors, real = threading.Barrier(times), [], os.fsync

    def wait(file: int) -> None:
        met.wait(20)
        real(file)

    def run(number: int) -> None:
        try:
            write(number)
        except BaseException as error:
            errors.append(error)

    monkeypatch.setattr("os.fsync", wait)
    threads = [threading.Thread(target=run, args=(number,)) for number in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors
