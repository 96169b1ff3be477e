"""A process that was forked from one in which the backend computes: its own first computation would never end.

A fork has none of the threads that TensorFlow and JAX wait for. That they have computed only they know, by names that
are private to them; ``tests/features/runtime/test_forks.py`` watches these.
"""

from __future__ import annotations

import os
import sys
import threading

from features.runtime.errors import BottleneckError

_started_in: set[int] = set()
"""The process that has started the backend, by its number; a process that was forked from it has another."""


def note_start() -> None:
    """Notes that the backend runs in this process."""
    _started_in.add(os.getpid())


def refuse_a_fork() -> None:
    """Lets nothing be computed that would never end.

    Raises:
        BottleneckError: The process was forked from one in which the backend runs.
    """
    forked = bool(_started_in) and os.getpid() not in _started_in
    if forked or (has_computed() and not _has_threads_beside_pythons()):  # who forked may not have had this module
        spawned = "begin it by spawn, with multiprocessing.get_context('spawn')"
        raise BottleneckError(f"this process was forked from one in which Keras runs, and would hang; {spawned}")


def has_computed() -> bool:
    """Whether TensorFlow or JAX has computed in this process, or had in the one that it was forked from."""
    context = getattr(sys.modules.get("tensorflow.python.eager.context"), "_context", None)
    backends = getattr(sys.modules.get("jax._src.xla_bridge"), "_backends", None)
    return bool(getattr(context, "_initialized", False) or backends)


def _has_threads_beside_pythons() -> bool:
    """Whether there are threads that Python knows nothing of; True where the system does not say."""
    pythons = {os.getpid(), *(thread.native_id for thread in threading.enumerate())}
    try:
        return bool({int(name) for name in os.listdir("/proc/self/task")} - pythons)  # noqa: PTH208
    except OSError:
        return True


def _note_fork() -> None:
    if has_computed():
        _started_in.add(os.getppid())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)
