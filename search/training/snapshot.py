"""The bank on disk, so that a killed search goes on in the middle of its trials.

A snapshot holds the state of every head in the bank and the length of the journal at that moment. On a resume the
journal is cut back to that length: the study and the bank are then of the same moment, and what follows is what
followed before, bit for bit.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from features.runtime.errors import InputError
from features.runtime.files import replacing
from heads.bank.pages import Place
from heads.bank.shape import BankShape
from heads.metrics.scoring import EpochRecord, Score
from search.training.member import Member
from search.training.throughput import Throughput
from search.trials.ask_tell import Asked

if TYPE_CHECKING:
    from heads.bank.engine import HeadState

FILE = "snapshot.npz"
SCHEMA = 1


@dataclass(frozen=True)
class Snapshot:
    """A pool at the end of an epoch.

    Attributes:
        epoch: Epochs that the bank has trained.
        shape: Of the bank.
        members: The trials in it.
        waiting: Numbers of the trials that were asked for and have no place yet.
        throughput: Totals so far.
        places: For each member its slot and pages; None for any.
        states: For each member the state of each fold's head.
        finished: Trials of the study that had been told, interrupted ones too.
    """

    epoch: int
    shape: BankShape
    members: list[Member]
    waiting: list[int]
    throughput: Throughput
    places: list[Place | None]
    states: list[tuple[HeadState, ...]]
    finished: int = 0


@dataclass(frozen=True)
class Saved:
    """A snapshot as read from its file, before the study is opened.

    Attributes:
        content: The JSON part.
        arrays: The heads' arrays by name.
    """

    content: dict[str, Any]
    arrays: dict[str, Any]

    @property
    def journal_bytes(self) -> int:
        """Length of the journal when the snapshot was taken."""
        return int(self.content["journal_bytes"])

    @property
    def going_on(self) -> list[int]:
        """Numbers of the trials that were running."""
        return [member["number"] for member in self.content["members"]] + list(self.content["waiting"])

    @property
    def finished(self) -> int | None:
        """Trials that had been told; None in a snapshot from before they were counted, which goes with a journal."""
        return self.content.get("finished")

    @property
    def throughput(self) -> Throughput:
        """What had been measured when the snapshot was taken.

        Raises:
            ValueError: It is damaged.
        """
        return Throughput.of(self.content["meter"])

    def bring_back(self, back: Callable[[int], Asked]) -> Snapshot:
        """Returns the snapshot, its trials looked up by number."""
        members, states = [], []
        for place, noted in enumerate(self.content["members"]):
            best = _record(noted["best"]) if noted["best"] else None
            asked, rates = back(noted["number"]), list(noted["rates"])
            members.append(Member(asked, -1, noted["first_epoch"], noted["epochs"], best, rates))
            states.append(tuple(self._state(f"{place}/{fold}/") for fold in range(self.content["folds"])))
        content = self.content
        places: list[Place | None] = [(noted["place"][0], tuple(noted["place"][1])) for noted in content["members"]]
        return Snapshot(
            content["epoch"], _shape(content["shape"]), members, content["waiting"], self.throughput, places, states
        )

    def _state(self, prefix: str) -> HeadState:
        return {name.removeprefix(prefix): array for name, array in self.arrays.items() if name.startswith(prefix)}


def _shape(noted: dict[str, Any]) -> BankShape:
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in noted.items()}
    return BankShape(**values)


def _record(noted: dict[str, Any]) -> EpochRecord:
    told = noted["validation"]
    return EpochRecord(**{**noted, "validation": Score(told["loss"], told["accuracy"], told.get("merit", np.nan))})


def _noted(record: EpochRecord) -> dict[str, Any]:
    """Undoes ``_record``; files know ``ranking_score`` as ``merit``, the first ones not at all."""
    score = record.validation
    told = {"loss": score.loss, "accuracy": score.accuracy, "merit": score.ranking_score}
    return {**asdict(record), "validation": told}


class Snapshots:
    """Writes snapshots beside a study's record, one at a time, in a thread of its own.

    Attributes:
        beside_journal: Whether the record is a journal: durable once it was flushed, and cut back on a resume. Else it
            is durable at once, and a snapshot holds for as long as the record has gone no further.
    """

    def __init__(self, folder: Path, journal_bytes: Callable[[], int] | None, *, every: float) -> None:
        """Prepares to write.

        Args:
            folder: The study directory.
            journal_bytes: Tells the length of the journal on disk; None where there is none.
            every: Seconds between two snapshots; what came after the last one is lost to SIGKILL.
        """
        self.path = folder / FILE
        self.every = every
        self.beside_journal = journal_bytes is not None
        self._journal_bytes = journal_bytes or (lambda: 0)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="snapshot")
        self._writing: Future[None] | None = None

    def save(self, snapshot: Snapshot) -> None:
        """Begins to write a snapshot; the record has just been flushed. Waits for the one before.

        Raises:
            BottleneckError: The one before could not be written.
        """
        self.wait()
        content = {
            "schema": SCHEMA,
            "journal_bytes": self._journal_bytes(),
            "finished": snapshot.finished,
            "epoch": snapshot.epoch,
            "shape": asdict(snapshot.shape),
            "folds": len(snapshot.states[0]) if snapshot.states else 1,
            "waiting": snapshot.waiting,
            "meter": snapshot.throughput.to_dict(),
            "members": [
                {
                    "number": member.asked.number,
                    "first_epoch": member.first_epoch,
                    "epochs": member.epochs,
                    "best": _noted(member.best) if member.best else None,
                    "rates": member.rates,
                    "place": place,
                }
                for member, place in zip(snapshot.members, snapshot.places, strict=True)
            ],
        }
        arrays = {
            f"{place}/{fold}/{name}": array
            for place, folds in enumerate(snapshot.states)
            for fold, state in enumerate(folds)
            for name, array in state.items()
        }
        self._writing = self._writer.submit(self._write, content, arrays)

    def _write(self, content: dict[str, Any], arrays: dict[str, Any]) -> None:
        with replacing(self.path) as temporary, temporary.open("wb") as file:
            np.savez(file, content=np.array(json.dumps(content)), **arrays)

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
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Waits for what is being written."""
        self._writer.shutdown()


def read_snapshot(folder: Path) -> Saved | None:
    """Reads the snapshot of a study directory, if there is one.

    Raises:
        InputError: It is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        with np.load(path) as file:
            content = json.loads(str(file["content"]))
            saved = Saved(content, {name: file[name] for name in file.files if name != "content"})
        _ = saved.throughput  # which raises where it is something else
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        hint = "remove it to begin the running trials again"
        raise InputError(path, expected="a snapshot", found=f"a damaged file ({error})", hint=hint) from error
    return saved
