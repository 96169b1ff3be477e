"""``search.run`` as a worker starts it: it stops in good order where whoever started it is gone."""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time

from features.runtime.allocator import keep_freed_memory
from search.record.database import note_reached
from search.setup.storage_url import VARIABLE

ANSWERED = "BOTTLENECK_STORAGE_ANSWERED"
"""Variable of the environment that says that others work on the study: a database that is away is waited for."""
LOOK_S = 1.0
"""Seconds between two looks whether the parent is still there."""


def main() -> None:
    """Runs ``search.run`` with this process's arguments, and the storage that the environment names.

    The first argument is the parent's process number.
    """
    parent = int(sys.argv.pop(1))
    keep_freed_memory()  # the search's own call would come after this thread
    threading.Thread(target=_stop_without, args=(parent,), name="parent", daemon=True).start()
    url = os.environ[VARIABLE]
    if os.environ.get(ANSWERED):
        note_reached(url)
    sys.argv = ["search.run", *sys.argv[1:], "--storage", url]
    runpy.run_module("search.run", run_name="__main__", alter_sys=True)


def _stop_without(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
