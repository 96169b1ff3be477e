"""What others write and nobody needs to see, kept back: also where several threads ask for it at the same time.

Standard error and Python's filters of warnings are a process' own. Were each thread to put back what it found, the last
one might put back what the first had put there, for good.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Lock


class Together:
    """A context of the whole process: the first thread that comes enters it, the last one that goes leaves it."""

    def __init__(self, make: Callable[[], AbstractContextManager[object]]) -> None:
        self._make = make
        self._lock = Lock()
        self._within = 0
        self._entered: AbstractContextManager[object] | None = None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Is within it."""
        with self._lock:
            if self._entered is None:
                entered = self._make()
                entered.__enter__()
                self._entered = entered
            self._within += 1
        try:
            yield
        finally:
            with self._lock:
                self._within -= 1
                if not self._within and self._entered is not None:
                    entered, self._entered = self._entered, None
                    entered.__exit__(None, None, None)


@contextmanager
def _without_stderr() -> Iterator[None]:
    if sys.stderr is not None:
        sys.stderr.flush()
    unseen, stderr = os.open(os.devnull, os.O_WRONLY), os.dup(2)
    os.dup2(unseen, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(unseen)


@contextmanager
def _without_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _nothing(record: logging.LogRecord) -> bool:
    return False


@contextmanager
def _without_logs() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("tensorflow", "absl")]
    for logger in loggers:
        logger.addFilter(_nothing)  # TensorFlow sets the level itself, in a notebook to one that shows remarks
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(_nothing)


stderr_unseen = Together(_without_stderr)
"""Drops what is written to standard error by whatever way: also by C++ that heeds no log level."""
warnings_unseen = Together(_without_warnings)
"""Drops what Python warns of."""
logs_unseen = Together(_without_logs)
"""Drops what TensorFlow logs: a notebook shows it without standard error."""


@contextmanager
def keras_unseen() -> Iterator[None]:
    """Drops what Keras prints in this thread on standard output, such as how far a download is."""
    import keras

    shown = keras.config.is_interactive_logging_enabled()
    keras.config.disable_interactive_logging()
    try:
        yield
    finally:
        if shown:
            keras.config.enable_interactive_logging()
