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
    place = folder / WORKERS_FOLDER / name
    place.mkdir(parents=True, exist_ok=True)
    return place


def together(folder: Path) -> Throughput:
    """Returns where the time of all processes went that had this study directory.

    Of one that ended in the midst of its trials it is what its last snapshot says.

    Raises:
        InputError: A file of theirs is damaged.
    """
    total = Throughput()
    for place in _places(folder):
        saved = read_snapshot(place, of=())
        total += saved.throughput if saved is not None else Throughput.read(place)
    return total


def clear_away(folder: Path, at_work: Collection[str]) -> None:
    """Removes snapshots that nobody needs any more, and keeps what they say of the time.

    Args:
        folder: The study directory.
        at_work: Names of the other processes that are at work: each clears its own place, and may be at it just now.
    """
    for place in _places(folder):
        saved = read_snapshot(place, of=()) if place.name not in at_work else None
        if saved is not None:
            saved.throughput.write(place)
            remove_snapshot(place)


def await_end(crew: Crew, opened: OpenedStudy, trials: int, meanwhile: Callable[[], bool]) -> bool:
    """Waits until what comes after the search has been run, or is this process's to run; says which: True, the latter.

    Args:
        crew: The processes; this one has found every place with its result.
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


def _places(folder: Path) -> Iterator[Path]:
    return (place for place in sorted((folder / WORKERS_FOLDER).glob("*")) if place.is_dir())
