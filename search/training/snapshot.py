"""The bank on disk, so that a killed search goes on in the middle of its trials.

A snapshot holds the state of every head in the bank, and length and hash of the journal at that moment. On a resume the
journal is cut back to that length: the study and the bank are then of the same moment, and what follows is what
followed before, bit for bit.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import numpy as np

from features.runtime.errors import InputError
from features.runtime.files import being_written, replacing
from features.runtime.json_files import parse_json
from features.runtime.text import printable
from heads.bank.head_state import HeadState, check_state
from heads.bank.packing import HeadArrays
from heads.bank.pages import Placement
from heads.bank.shape import BankShape
from search.record.journal import BufferedJournal
from search.setup.file_names import SNAPSHOT_FILE
from search.setup.stores import ALONE
from search.training.bank_shapes import BankShapes
from search.training.banked_trial import BankedTrial
from search.training.snapshot_content import Content, TrialContent
from search.training.throughput import Throughput
from search.trials.ask_tell import Asked

BEGIN_AGAIN = "remove it to begin the running trials again"


@dataclass(frozen=True)
class Snapshot:
    """A pool at the end of an epoch.

    Attributes:
        epoch: Epochs that the bank has trained.
        shapes: Of the banks.
        trials: The trials in it.
        waiting: Numbers of the trials that were asked for and have no place yet.
        throughput: Totals so far.
        placements: For each trial its slot and pages; empty where each takes any.
        states: For each trial the state of each fold's head.
        finished: Trials of the study that had been told, interrupted ones too.
    """

    epoch: int
    shapes: BankShapes
    trials: list[BankedTrial]
    waiting: list[int]
    throughput: Throughput
    placements: list[Placement]
    states: list[tuple[HeadState, ...]]
    finished: int = 0


@dataclass(frozen=True)
class Saved:
    """A snapshot as read from its file, before the study is opened.

    Attributes:
        content: The JSON part.
        arrays: The heads' arrays by name, or those of some of them: see ``read_snapshot``.
        path: The file, for messages.
    """

    content: Content
    arrays: HeadArrays
    path: Path = Path(SNAPSHOT_FILE)

    @property
    def journal_bytes(self) -> int:
        """Length of the journal when the snapshot was taken."""
        return self.content.journal_bytes

    @property
    def trial_numbers(self) -> list[int]:
        """Numbers of the trials that were running."""
        return [noted.number for noted in self.content.members] + self.content.waiting

    @property
    def taken(self) -> datetime | None:
        """When it was taken, in local time without a zone; None in one from before that was noted."""
        noted = self.content.taken
        return None if noted is None else datetime.fromisoformat(noted)

    @property
    def throughput(self) -> Throughput:
        """What had been measured when the snapshot was taken."""
        return replace(self.content.meter)  # who goes on counts on

    def has(self, number: int) -> bool:
        """Whether a trial was in the bank."""
        return any(one.number == number for one in self.content.members)

    def banked_trial(self, number: int, asked: Asked) -> tuple[BankedTrial, tuple[HeadState, ...]] | None:
        """Returns a trial that was in the bank, and the state of each fold's head; None where it was not.

        Args:
            number: Of the trial at that time.
            asked: The trial that goes on with it.

        Raises:
            InputError: The snapshot is damaged, or of another head.
        """
        index = next((index for index, one in enumerate(self.content.members) if one.number == number), None)
        if index is None:
            return None
        try:
            return self._banked_trial(index, asked)
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise self.damaged(error) from error

    def to_snapshot(self, resumed_trial: Callable[[int], Asked], within: BankShapes) -> Snapshot:
        """Returns the snapshot, its trials looked up by number.

        Args:
            resumed_trial: Looks up a trial.
            within: The banks that the study began with; those of the snapshot may be smaller.

        Raises:
            InputError: It is not of this study and its record.
        """
        try:
            return self._to_snapshot(resumed_trial, within)
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise self.damaged(error) from error

    def damaged(self, error: Exception) -> InputError:
        """Returns what to raise where the snapshot does not fit the study that it was found with."""
        return _damaged(self.path, error)

    def _to_snapshot(self, resumed_trial: Callable[[int], Asked], within: BankShapes) -> Snapshot:
        content = self.content
        found = [self._banked_trial(index, resumed_trial(noted.number)) for index, noted in enumerate(content.members)]
        trials = [banked for banked, _ in found]
        shapes = {name: _within(shape, within.by_store[name]) for name, shape in content.by_store.items()}
        if lacking := {banked.store for banked in trials} - shapes.keys():
            raise ValueError(f"a bank for the store {lacking.pop()!r}: expected one, found none")
        return Snapshot(
            epoch=content.epoch,
            shapes=BankShapes(shapes, min(within.pages, sum(shape.pages for shape in shapes.values()))),
            trials=trials,
            waiting=list(content.waiting),
            throughput=self.throughput,
            placements=[noted.place for noted in content.members],
            states=[states for _, states in found],
        )

    def _banked_trial(self, index: int, asked: Asked) -> tuple[BankedTrial, tuple[HeadState, ...]]:
        states = tuple(self._state(f"{index}/{fold}/") for fold in range(self.content.folds))
        try:
            for state in states:
                check_state(asked.spec, state)
        except ValueError as error:
            raise ValueError(f"trial {asked.number}: {error}") from error
        return self.content.members[index].banked_trial(asked), states

    def _state(self, prefix: str) -> HeadState:
        return {name.removeprefix(prefix): array for name, array in self.arrays.items() if name.startswith(prefix)}


def _within(noted: BankShape, whole: BankShape) -> BankShape:
    # Lanes are those of this machine: they change no bit of a head, and on a GPU there is one.
    shape = replace(noted, lanes=whole.lanes)
    _check_within(shape, whole)
    return shape


def _check_within(shape: BankShape, whole: BankShape) -> None:
    for name in ("feature_shape", "classes", "batch", "folds"):
        if getattr(shape, name) != getattr(whole, name):
            raise ValueError(f"{name}: expected {getattr(whole, name)}, found {getattr(shape, name)}")
    for name in ("pages", "units", "dense_layers"):
        if not 0 <= getattr(shape, name) <= getattr(whole, name):
            raise ValueError(f"{name}: expected at most {getattr(whole, name)}, found {getattr(shape, name)}")
    for name, most in (("slots", shape.pages), ("tiles", shape.most_tiles)):
        if not 0 <= getattr(shape, name) <= most:
            raise ValueError(f"{name}: expected at most {most}, found {getattr(shape, name)}")


class Snapshots:
    """Writes snapshots beside a study's record, one at a time, in a thread of its own.

    Attributes:
        path: The file.
        every: Seconds between two snapshots.
        beside_journal: Whether the record is a journal: durable once it was flushed, and cut back on a resume. Else it
            is durable at once, and a snapshot holds for as long as the record has gone no further.
    """

    def __init__(self, folder: Path, journal: BufferedJournal | None, *, every: float) -> None:
        """Prepares to write.

        Args:
            folder: The study directory.
            journal: That of the study; None where there is none.
            every: Seconds between two snapshots; what came after the last one is lost to SIGKILL.
        """
        self.path = folder / SNAPSHOT_FILE
        self.every = every
        self.beside_journal = journal is not None
        self._journal = journal
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="snapshot")
        self._writing: Future[None] | None = None

    def save(self, snapshot: Snapshot) -> None:
        """Begins to write a snapshot; the record has just been flushed. Waits for the one before.

        Raises:
            BottleneckError: The one before could not be written.
        """
        self.wait()
        shapes = snapshot.shapes
        content = Content(
            schema=1,
            journal_bytes=self._journal.size() if self._journal else 0,
            journal_sha256=self._journal.sha256() if self._journal else None,
            finished=snapshot.finished,
            taken=datetime.now().isoformat(),  # as Optuna notes the times of trials
            epoch=snapshot.epoch,
            shape=shapes.first,
            shapes=None if shapes.by_store.keys() == {ALONE} else dict(shapes.by_store),
            folds=len(snapshot.states[0]) if snapshot.states else 1,
            waiting=snapshot.waiting,
            meter=snapshot.throughput,
            members=[TrialContent.of(*one) for one in zip(snapshot.trials, snapshot.placements, strict=True)],
        )
        arrays = {
            f"{index}/{fold}/{name}": array
            for index, folds in enumerate(snapshot.states)
            for fold, state in enumerate(folds)
            for name, array in state.items()
        }
        self._writing = self._writer.submit(self._write, content, arrays)

    def _write(self, content: Content, arrays: dict[str, Any]) -> None:  # Any: ``savez`` has a flag among its keywords
        with replacing(self.path) as temporary, temporary.open("wb") as file:
            np.savez(file, content=np.array(content.to_json()), **arrays)

    def wait(self) -> None:
        """Returns once the snapshot that is being written is on the disk.

        Raises:
            BottleneckError: It could not be written.
        """
        if self._writing is not None:
            self._writing.result()
            self._writing = None

    def clear(self) -> None:
        """Removes the snapshot: the search has ended."""
        self.wait()
        remove_snapshot(self.path.parent)

    def close(self) -> None:
        """Waits for what is being written."""
        self._writer.shutdown()


def remove_snapshot(folder: Path) -> None:
    """Removes the snapshot of a study directory, and what a process that was killed has left of a next one."""
    path = folder / SNAPSHOT_FILE
    being_written(path).unlink(missing_ok=True)  # first: where there is no snapshot, nobody may come here again
    path.unlink(missing_ok=True)


def read_snapshot(folder: Path, *, of: Collection[int] | None = None) -> Saved | None:
    """Reads the snapshot of a study directory, if there is one.

    Args:
        folder: The study directory.
        of: Numbers of the trials whose arrays are read, which are nearly all of the file; None for all trials.

    Raises:
        InputError: It is damaged.
    """
    path = folder / SNAPSHOT_FILE
    if not path.is_file():
        return None
    try:
        _check_archive(path)
        with np.load(path) as file:
            content = Content.model_validate(parse_json(str(file["content"]), finite=False))
            wanted = _names_of(content, of, set(file.files) - {"content"})
            arrays = {name: file[name] for name in wanted}
            if any(array.dtype.kind not in "biufU" for array in arrays.values()):
                raise ValueError("arrays of other things than numbers")
            return Saved(content, arrays, path)
    except FileNotFoundError:  # since it was looked for: its process is through
        return None
    except Exception as error:  # zipfile and NumPy raise whatever a damaged archive makes them stumble over
        raise _damaged(path, error) from error


def _names_of(content: Content, of: Collection[int] | None, names: set[str]) -> set[str]:
    """Which of a snapshot's arrays are those of some trials."""
    if of is None:
        return names
    indices = {f"{index}" for index, noted in enumerate(content.members) if noted.number in of}
    return {name for name in names if name.partition("/")[0] in indices}


def _damaged(path: Path, error: Exception) -> InputError:
    reason = printable(str(error).split("\n")[0] or type(error).__name__)[:160]
    return InputError(path, expected="a snapshot", found=f"a damaged file ({reason})", hint=BEGIN_AGAIN)


def _check_archive(path: Path) -> None:
    """What is written is not compressed: no part is larger than the file."""
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        whole = sum(part.file_size for part in parts) <= path.stat().st_size
        if not whole or any(part.compress_type != zipfile.ZIP_STORED for part in parts):
            raise ValueError("parts that are larger than the file")
        for part in parts:
            with archive.open(part) as file:
                _check_size(part.filename, file, part.file_size)


def _check_size(name: str, file: IO[bytes], size: int) -> None:
    """An array's size is believed by NumPy, which makes room for it before it reads."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"{name} that is larger than its part")
