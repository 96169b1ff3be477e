"""A study directory of which several processes have a part: ``workers/NAME`` is each one's own."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from search.record.crew import Crew
from search.record.opened_study import OpenedStudy
from search.training.snapshot import read_snapshot, remove_snapshot
from search.training.throughput import Throughput

WORKERS_FOLDER = "workers"
LOOK_S = 1.0
"""Seconds between two looks at whoever runs what comes after the search."""


def worker_folder(folder: Path, name: str) -> Path:
    """Returns the folder of a process, made where there is none."""
    own = folder / WORKERS_FOLDER / name
    own.mkdir(parents=True, exist_ok=True)
    return own


def together(folder: Path) -> Throughput:
    """Returns where the time of all processes went that had this study directory.

    Of one that ended in the midst of its trials it is what its last snapshot says.

    Raises:
        InputError: A file of theirs is damaged.
    """
    total = Throughput()
    for own in _worker_folders(folder):
        saved = read_snapshot(own, of=())
        total += saved.throughput if saved is not None else Throughput.read(own)
    return total


def clear_away(folder: Path, at_work: Collection[str]) -> None:
    """Removes snapshots that nobody needs any more, and keeps what they say of the time.

    Args:
        folder: The study directory.
        at_work: Names of the other processes that are at work: each clears its own folder, and may be at it just now.
    """
    for own in _worker_folders(folder):
        saved = read_snapshot(own, of=()) if own.name not in at_work else None
        if saved is not None:
            saved.throughput.write(own)
            remove_snapshot(own)


def await_end(crew: Crew, opened: OpenedStudy, trials: int, meanwhile: Callable[[], bool]) -> bool:
    """Waits until what comes after the search has been run, or is this process's to run; says which: True, the latter.

    Args:
        crew: The processes; this one has found every ordinal with its result.
        opened: The study.
        trials: How many it has.
        meanwhile: Does this process's share of that, if there is one, and says whether there was.
    """
    opened.flush()
    idle = True
    while not crew.has_ended(trials):
        if crew.elect():
            opened.flush()
            if not crew.has_ended(trials):
                return True
        elif idle and meanwhile():
            idle = False
        time.sleep(LOOK_S)
    return False


def _worker_folders(folder: Path) -> Iterator[Path]:
    return (own for own in sorted((folder / WORKERS_FOLDER).glob("*")) if own.is_dir())
