"""What is kept back is kept back while somebody wants it so, and no longer: whoever else is at it."""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager

import keras
import pytest

from features.runtime.unseen import keras_unseen, logs_unseen, stderr_unseen, warnings_unseen


def overlapping(context: Callable[[], AbstractContextManager[None]], seen: Callable[[], object]) -> list[object]:
    """What is seen while two threads are within, while the second one alone is, and when both have left.

    The one that came first leaves first, so that the second would put back what the first one had put there.
    """
    both, first_is_out, told = threading.Barrier(2), threading.Event(), []

    def first() -> None:
        with context():
            both.wait(10)
        first_is_out.set()

    def second() -> None:
        with context():
            both.wait(10)
            told.append(seen())
            first_is_out.wait(10)
            told.append(seen())

    enter_first = threading.Thread(target=first)
    enter_first.start()
    while not both.n_waiting:
        pass
    enter_second = threading.Thread(target=second)
    enter_second.start()
    for thread in (enter_first, enter_second):
        thread.join(20)
        assert not thread.is_alive()
    return [*told, seen()]


def _of_stderr() -> tuple[int, int]:
    status = os.fstat(2)
    return status.st_dev, status.st_ino


def test_standard_error_is_back_when_the_last_thread_has_left() -> None:
    before, nothing = _of_stderr(), os.stat(os.devnull)  # noqa: PTH116
    assert before != (nothing.st_dev, nothing.st_ino)
    unseen = (nothing.st_dev, nothing.st_ino)
    assert overlapping(stderr_unseen, _of_stderr) == [unseen, unseen, before]


def test_what_tensorflow_logs_is_back_when_the_last_thread_has_left() -> None:
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]

    def seen() -> list[str]:
        said.clear()
        for logger in loggers:
            logger.critical("%s", logger.name)
        return [*said]

    loggers = [logging.getLogger(name) for name in ("tensorflow", "absl", "ours")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        assert overlapping(logs_unseen, seen) == [["ours"], ["ours"], ["tensorflow", "absl", "ours"]]
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


def test_warnings_are_back_when_the_last_thread_has_left() -> None:
    def seen() -> int:
        with warnings.catch_warnings(record=True) as caught:
            warnings.warn("look", UserWarning, stacklevel=1)
        return len(caught)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert overlapping(warnings_unseen, seen) == [0, 0, 1]


def test_an_error_leaves_it_too() -> None:
    before = _of_stderr()
    with pytest.raises(ValueError, match="no"), stderr_unseen():
        raise ValueError("no")
    assert _of_stderr() == before


def test_what_keras_prints_is_unseen_in_this_thread_alone(capsys: pytest.CaptureFixture[str]) -> None:
    stream = sys.stdout
    with keras_unseen():
        keras.utils.Progbar(2).update(2)
        assert sys.stdout is stream
        print("of somebody else")  # noqa: T201
        other = threading.Thread(target=lambda: keras.utils.Progbar(1).update(1))
        other.start()
        other.join()
    assert keras.config.is_interactive_logging_enabled()
    out = capsys.readouterr().out
    assert "of somebody else\n" in out
    assert "2/2" not in out
    assert "1/1" in out
