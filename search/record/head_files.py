"""Where a study directory keeps the heads of its trials."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from features.runtime.errors import InputError
from search.setup.file_names import STUDY_FILE

HEADS_FOLDER = "heads"
FINALISTS = "finalists"
"""Where it keeps the repeats, a study of their own."""

PLAIN = ".hdf5"
"""Ending of the file of a head."""
OWN = ".keras"
"""Ending of the file of a head that has layers which are not read without running code: one of somebody's own."""
_ENDS = f"(?:{re.escape(PLAIN)}|{re.escape(OWN)})"
_HEAD = re.compile(rf"(?P<kind>trial|refit|copy)-(?P<number>\d+)(?:-\d+)?{_ENDS}")
_UNFINISHED = re.compile(rf"\.(?:trial|refit|copy)-.*\.new{_ENDS}")
"""What ``features.runtime.files.replacing`` calls a head while it is written."""


def path_of(folder: Path, number: int) -> Path:
    """Where a study directory keeps the head of a trial: ``.hdf5``, or ``.keras`` where such a file is there."""
    return _kept(folder / HEADS_FOLDER / f"trial-{number}{PLAIN}")


def refit_path_of(folder: Path, number: int) -> Path:
    """Where a study directory keeps a trial's head that was trained again on all rows but those of the test."""
    return _kept(folder / HEADS_FOLDER / f"refit-{number}{PLAIN}")


def copy_path_of(folder: Path, number: int, copy: int) -> Path:
    """Where a study directory keeps such a head from another seed; ``copy`` 0 is ``refit_path_of``."""
    return folder / HEADS_FOLDER / f"copy-{number}-{copy}{PLAIN}" if copy else refit_path_of(folder, number)


def head_files(folder: Path, *kinds: str) -> list[Path]:
    """Returns the files of heads that a study directory keeps: of ``trial``, ``refit`` or ``copy``; of all for none.

    One that is being written is none yet, and other files are none of the study's.
    """
    return [path for path, found in _heads(folder) if not kinds or found["kind"] in kinds]


def trial_heads(folder: Path) -> dict[Path, int]:
    """Returns the files of trials' own heads that a study directory keeps, each with its trial's number."""
    return {path: int(found["number"]) for path, found in _heads(folder) if found["kind"] == "trial"}


def _heads(folder: Path) -> Iterator[tuple[Path, re.Match[str]]]:
    """The files of heads, with what their names say."""
    for path in (folder / HEADS_FOLDER).glob("*"):
        if (found := _HEAD.fullmatch(path.name)) and path.is_file():
            yield path, found


def unfinished_files(folder: Path) -> list[Path]:
    """Returns what a process that writes heads has not finished, or never will, where it was killed."""
    return [path for path in (folder / HEADS_FOLDER).glob(".*") if _UNFINISHED.fullmatch(path.name)]


def _kept(path: Path) -> Path:
    own = path.with_suffix(OWN)
    return own if own.is_file() else path


def find_head(folder: Path, number: int, *, refitted: bool = False) -> Path:
    """Returns the file of a trial's head: its own, as its value was scored, or the one trained again on all rows.

    Args:
        folder: The study directory.
        number: Of the trial.
        refitted: Which one is preferred. With folds a trial has no head of its own; before a search has ended none was
            trained again.

    Raises:
        InputError: It was not kept; those that were are named.
    """
    wanted = [path_of(folder, number), refit_path_of(folder, number)]
    path = next((path for path in (reversed(wanted) if refitted else wanted) if path.is_file()), None)
    if path is None:
        names = ", ".join(map(str, kept_numbers(folder))) or "none yet"
        raise InputError("--trial", expected=f"one of those kept, {names}", found=number)
    return path


def kept_numbers(folder: Path) -> list[int]:
    """Returns the trials of which a head is kept."""
    return sorted({int(found["number"]) for _, found in _heads(folder)})


def require_outside(out: Path) -> None:
    """Refuses a place among what a study keeps for itself, whichever study that is.

    Args:
        out: Where somebody wants to write.

    Raises:
        InputError: It is in such a folder; the study is named.
    """
    resolved = out.absolute().parent.resolve() / out.name
    for folder in (resolved, *resolved.parents):
        if folder.name in (HEADS_FOLDER, FINALISTS) and (folder.parent / STUDY_FILE).is_file():
            hint = "the study goes on with what is there"
            raise InputError(out, expected="a place of your own", found=f"one in {folder}", hint=hint)
