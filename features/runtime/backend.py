"""Which Keras backend a process uses: chosen once, before the first ``import keras``."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Literal, get_args

from features.runtime.allocator import keep_freed_memory
from features.runtime.collector import importing
from features.runtime.command import say
from features.runtime.errors import STOPS, InputError
from features.runtime.forks import note_start, refuse_a_fork
from features.runtime.jax_devices import require_jax_device
from features.runtime.keras_settings import numpy_random_restored, pin_settings, without_settings
from features.runtime.streams import fill_closed
from features.runtime.unseen import stderr_unseen

Backend = Literal["tensorflow", "jax"]
BACKENDS: tuple[str, ...] = get_args(Backend)
UNLESS_TOLD = "KERAS_BACKEND, else tensorflow, else jax"
"""What help says of the backend where none is given, see ``use_backend``."""
_starting = threading.Lock()


def use_backend(name: str | None = None, *, rather: str | None = None) -> str:
    """Sets the Keras backend of this process, quietens TensorFlow's start-up log, and keeps memory that is freed.

    A daemon's standard streams, which are closed, are opened to nothing: nothing else can be kept back from them.
    Commands call it before they start threads, which is when the memory can be seen to.

    Args:
        name: ``tensorflow``, ``jax``, or ``None`` for: the one that Keras runs on in this process, else the
            environment's ``KERAS_BACKEND``, else TensorFlow where it is installed, else JAX.
        rather: The one that comes before these two, where it is installed and nobody has chosen.

    Returns:
        The name of the backend in force.

    Raises:
        InputError: The backend is unknown, is not installed, or Keras was imported with another one.
        BottleneckError: The process was forked from one in which Keras runs.
    """
    refuse_a_fork()
    fill_closed()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    running = sys.modules["keras"].backend.backend() if "keras" in sys.modules else None
    given = name or running or os.environ.get("KERAS_BACKEND")
    chosen = given or next((b for b in (rather, *BACKENDS) if b and find_spec(b)), BACKENDS[0])
    where, known = "KERAS_BACKEND" if given and not name else "--backend", " or ".join(BACKENDS)
    if running and running not in BACKENDS:  # by keras.json, say; whatever is asked for, it is too late for another
        hint = f"in a new process, set KERAS_BACKEND={BACKENDS[0]} before keras is imported"
        raise InputError("keras", expected=known, found=f"{running}, already in use", hint=hint)
    if chosen not in BACKENDS:
        raise InputError(where, expected=known, found=chosen)
    if not find_spec(chosen):
        raise InputError(where, expected=f"{chosen} to be installed", found="no such package")
    if running not in (None, chosen):
        raise InputError("--backend", expected=f"{running}, already in use", found=chosen)
    os.environ["KERAS_BACKEND"] = chosen
    keep_freed_memory()
    return chosen


def start_backend() -> None:
    """Imports Keras and its backend, seconds of work; a command calls it once its input is known to be sound.

    TensorFlow's C++ side writes to standard error while it starts, whatever the log level, and before anything in
    Python can keep it from doing so; that much is dropped here. Python's own errors are raised as ever.
    Settings of Keras that would change numbers are those that this project knows (``features.runtime.keras_settings``).
    What TensorFlow warns of, that a function is traced again and again, is so here, since each bank and each head of a
    study has programs of its own: it is not shown.

    Raises:
        BottleneckError: The process was forked from one in which Keras runs.
        InputError: JAX can start none of the devices that it was told of, or that it has packages for.
        KeyboardInterrupt: Ctrl-C was pressed meanwhile, or SIGTERM came; while TensorFlow's C++ side is imported it
            would get lost.
    """
    refuse_a_fork()
    with _starting:  # one thread: what stands in another's environment meanwhile is not what it came with
        with _interrupts_held(), stderr_unseen(), without_settings(), numpy_random_restored(), importing():
            import keras  # noqa: F401
        logging.getLogger("tensorflow").addFilter(_of_retracing)  # which takes each filter once
        changed = pin_settings()
        if sys.modules["keras"].backend.backend() == "jax":  # TensorFlow has a CPU, whatever else
            require_jax_device()
        note_start()
    if changed:  # by who imported Keras, for other work: a command has imported it here
        say(f"note: Keras is set anew in this process, it had {', '.join(changed)}")


def _of_retracing(record: logging.LogRecord) -> bool:
    return "triggered tf.function retracing" not in str(record.msg)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Puts Ctrl-C and SIGTERM off to the end, where Python would heed them."""
    before = {number: signal.getsignal(number) for number in STOPS}
    before = {number: handler for number, handler in before.items() if callable(handler)}
    if threading.current_thread() is not threading.main_thread():
        before = {}
    held: list[int] = []
    for number in before:
        signal.signal(number, lambda number, frame: held.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if held:
        raise STOPS[held[0]]
