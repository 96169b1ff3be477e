"""A worker of a study where Ray has placed it: ``search.run --join`` as a program of its own.

Nothing of Ray is in the way of the training, and the program is the one that runs without it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TextIO

from features.runtime.errors import BottleneckError, InputError
from features.runtime.files import ROOT
from search.workers.stores_there import Sent, find_there

_LAST_LINES = 15


@dataclass(frozen=True)
class Ended:
    """What became of a worker's program.

    Attributes:
        status: Its exit status: 0 done, 1 failed, 2 wrong input, 130 or 143 stopped, negative for a signal.
        host: The machine that it ran on; '' where nobody knows.
        said: Its last lines.
    """

    status: int
    host: str
    said: str


class StudyWorker:
    """Runs the program on the machine where it is made."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._stopped = threading.Event()

    def run(
        self, words: Sequence[str], stores: Sequence[Sent], environment: Mapping[str, str], log: Path | None = None
    ) -> Ended:
        """Runs the search until it ends.

        Args:
            words: Its command line, but for the stores.
            stores: Looked for on this machine first.
            environment: Added to that of this process; what is empty is taken away.
            log: File to write what it says to, beside the end of it that is returned; None for none.
        """
        try:
            found = [word for sent in stores for word in (f"--{sent.option}", find_there(sent))]
        except (InputError, BottleneckError) as error:
            return Ended(error.exit_status, socket.gethostname(), f"error: {error}")
        command = [sys.executable, "-m", "search.workers.study_program", str(os.getpid()), *words, *found]
        there = {name: value for name, value in {**os.environ, **environment}.items() if value}
        there["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [there.get("PYTHONPATH")])])
        if self._stopped.is_set():
            return Ended(-signal.SIGTERM, socket.gethostname(), "")
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=there,
            start_new_session=True,  # Ctrl-C is the driver's, which asks each worker to stop
        )
        said = self._listen(log)
        return Ended(self._process.wait(), socket.gethostname(), "\n".join(said))

    def stop(self) -> None:
        """Asks the program to stop in good order: it leaves a snapshot, and its trials to others."""
        self._stopped.set()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def process(self) -> int | None:
        """Returns the program's process number; None before its start."""
        return None if self._process is None else self._process.pid

    def _listen(self, log: Path | None) -> Sequence[str]:
        assert self._process is not None and self._process.stderr is not None
        last: deque[str] = deque(maxlen=_LAST_LINES)
        with _Log(log) if log is not None else nullcontext() as file:
            for line in self._process.stderr:
                last.append(line.rstrip("\n"))
                if file is not None:
                    file.write(line)
        return last


class _Log:
    """A file that lines are added to; where it cannot be written, the worker goes on without it."""

    def __init__(self, path: Path) -> None:
        self._file: TextIO | None = None
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_symlink():  # in a folder from elsewhere it may lead to any file
                path.unlink()
            self._file = path.open("a", encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            with suppress(OSError):  # what a full disk has not taken
                self._file.close()

    def write(self, line: str) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.write(line)
                self._file.flush()
