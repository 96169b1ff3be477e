"""The bank on disk, so that a killed search goes on in the middle of its trials.

A snapshot holds the state of every head in the bank, and length and hash of the journal at that moment. On a resume the
journal is cut back to that length: the study and the bank are then of the same moment, and what follows is what
followed before, bit for bit.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from features.runtime.errors import InputError
from features.runtime.files import being_written, replacing
from features.runtime.json_files import parse_json
from features.runtime.text import printable
from heads.bank.learning_rates import COSINE_FIELDS, FIELDS
from heads.bank.pages import Place
from heads.bank.shape import STATISTICS, BankShape
from heads.metrics.scoring import EpochRecord, Score
from search.record.journal import BufferedJournal
from search.setup.file_names import SNAPSHOT_FILE
from search.setup.stores import ALONE
from search.training.bank_shapes import BankShapes
from search.training.member import Member
from search.training.snapshot_content import Content
from search.training.throughput import Throughput
from search.trials.ask_tell import Asked

if TYPE_CHECKING:
    from heads.bank.engine import HeadState

SCHEMA = 1
BEGIN_AGAIN = "remove it to begin the running trials again"


@dataclass(frozen=True)
class Snapshot:
    """A pool at the end of an epoch.

    Attributes:
        epoch: Epochs that the bank has trained.
        banks: Shapes of the banks, by the store's name.
        members: The trials in it.
        waiting: Numbers of the trials that were asked for and have no place yet.
        throughput: Totals so far.
        places: For each member its slot and pages; None for any.
        states: For each member the state of each fold's head.
        finished: Trials of the study that had been told, interrupted ones too.
    """

    epoch: int
    banks: BankShapes
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
        arrays: The heads' arrays by name, or those of some of them: see ``read_snapshot``.
        path: The file, for messages.
    """

    content: dict[str, Any]
    arrays: dict[str, Any]
    path: Path = Path(SNAPSHOT_FILE)

    @property
    def journal_bytes(self) -> int:
        """Length of the journal when the snapshot was taken."""
        return int(self.content["journal_bytes"])

    @property
    def journal_sha256(self) -> str | None:
        """Hash of the journal then; None in a snapshot from before that was noted, and beside a database."""
        return self.content.get("journal_sha256")

    @property
    def going_on(self) -> list[int]:
        """Numbers of the trials that were running."""
        return [member["number"] for member in self.content["members"]] + list(self.content["waiting"])

    @property
    def pages(self) -> int:
        """Of the largest of its banks."""
        shapes = self.content.get("shapes") or {ALONE: self.content["shape"]}
        return int(max(shape["pages"] for shape in shapes.values()))

    @property
    def taken(self) -> datetime | None:
        """When it was taken, in local time without a zone; None in one from before that was noted."""
        told = self.content.get("taken")
        return None if told is None else datetime.fromisoformat(told)

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

    def has(self, number: int) -> bool:
        """Whether a trial was in the bank."""
        return any(one["number"] == number for one in self.content["members"])

    def member(self, number: int, asked: Asked) -> tuple[Member, tuple[HeadState, ...]] | None:
        """Returns a trial that was in the bank, and the state of each fold's head; None where it was not.

        Args:
            number: Of the trial at that time.
            asked: The trial that goes on with it.

        Raises:
            InputError: The snapshot is damaged, or of another head.
        """
        noted = next((one for one in self.content["members"] if one["number"] == number), None)
        if noted is None:
            return None
        try:
            member, states = self._member(self.content["members"].index(noted), asked)
            for state in states:
                _check_state(member, state)
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise self.damaged(error) from error
        return member, states

    def bring_back(self, back: Callable[[int], Asked], within: BankShapes) -> Snapshot:
        """Returns the snapshot, its trials looked up by number.

        Args:
            back: Looks up a trial.
            within: The banks that the study began with; those of the snapshot may be smaller.

        Raises:
            InputError: It is not of this study and its record.
        """
        try:
            snapshot = self._bring_back(back, within)
            for member, states in zip(snapshot.members, snapshot.states, strict=True):
                for state in states:
                    _check_state(member, state)
            return snapshot
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise self.damaged(error) from error

    def damaged(self, error: Exception) -> InputError:
        """Returns what to raise where the snapshot does not fit the study that it was found with."""
        return _damaged(self.path, error)

    def _bring_back(self, back: Callable[[int], Asked], within: BankShapes) -> Snapshot:
        members, states = [], []
        for place, noted in enumerate(self.content["members"]):
            member, state = self._member(place, back(noted["number"]))
            members.append(member)
            states.append(state)
        content = self.content
        noted_shapes = content.get("shapes", {ALONE: content["shape"]})
        shapes = {name: _shape(noted, within.shapes[name]) for name, noted in noted_shapes.items()}
        if lacking := {member.store for member in members} - shapes.keys():
            raise ValueError(f"a bank for the store {lacking.pop()!r}: expected one, found none")
        pages = min(within.pages, sum(shape.pages for shape in shapes.values()))
        places: list[Place | None] = [(noted["place"][0], tuple(noted["place"][1])) for noted in content["members"]]
        return Snapshot(
            content["epoch"], BankShapes(shapes, pages), members, content["waiting"], self.throughput, places, states
        )

    def _member(self, place: int, asked: Asked) -> tuple[Member, tuple[HeadState, ...]]:
        noted = self.content["members"][place]
        best = _record(noted["best"]) if noted["best"] else None
        member = Member(asked, -1, noted["first_epoch"], noted["epochs"], best, list(noted["rates"]))
        return member, tuple(self._state(f"{place}/{fold}/") for fold in range(self.content["folds"]))

    def _state(self, prefix: str) -> HeadState:
        return {name.removeprefix(prefix): array for name, array in self.arrays.items() if name.startswith(prefix)}


def _shape(noted: dict[str, Any], whole: BankShape) -> BankShape:
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in noted.items()}
    # Lanes are those of this machine: they change no bit of a head, and on a GPU there is one.
    shape = BankShape(**{"tiles": 0, **values, "lanes": whole.lanes})
    _check_within(shape, whole)
    return shape if "tiles" in noted else replace(shape, tiles=shape.most_tiles)  # from before there were any


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


def _check_state(member: Member, state: HeadState) -> None:
    """A head's state has all of its parts, of shapes that go together; the bank looks at the shapes themselves."""
    number = member.asked.number
    if parse_json(str(state["spec"])) != member.asked.spec.to_dict():
        raise ValueError(f"trial {number}: expected the head of the record, found another")
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, array in state.items():
        part, _, inner = name.partition("/")
        shapes.setdefault(part, {})[inner] = array.shape
    trained = {name: shape for name, shape in shapes["weights"].items() if name not in STATISTICS}
    whole = shapes["best"] == shapes["weights"] and shapes["first"] == shapes["second"] == trained
    single = {shape for name in ("seed", "steps") for shape in shapes[name].values()} | set(shapes["plateau"].values())
    of_rates = COSINE_FIELDS if member.asked.spec.follows_cosine else FIELDS
    if not whole or "kernel" not in trained or single != {()} or shapes["plateau"].keys() != set(of_rates):
        raise ValueError(f"trial {number}: expected the whole state of a head, found a part")


def _record(noted: dict[str, Any]) -> EpochRecord:
    told = noted["validation"]
    score = Score(told["loss"], told["accuracy"], told.get("merit", told["accuracy"]))
    return EpochRecord(**{**noted, "validation": score})


def _noted(record: EpochRecord) -> dict[str, Any]:
    """Undoes ``_record``; files know ``ranking_score`` as ``merit``, the first ones not at all."""
    score = record.validation
    told = {"loss": score.loss, "accuracy": score.accuracy, "merit": score.ranking_score}
    return {**asdict(record), "validation": told}


def _several(banks: BankShapes) -> dict[str, Any]:
    """What a snapshot says of a study of several stores beside the rest."""
    if banks.shapes.keys() == {ALONE}:
        return {}
    return {"shapes": {name: asdict(shape) for name, shape in banks.shapes.items()}}


class Snapshots:
    """Writes snapshots beside a study's record, one at a time, in a thread of its own.

    Attributes:
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
        content = {
            "schema": SCHEMA,
            "journal_bytes": self._journal.size() if self._journal else 0,
            "journal_sha256": self._journal.sha256() if self._journal else None,
            "finished": snapshot.finished,
            "taken": datetime.now().isoformat(),  # as Optuna notes the times of trials
            "epoch": snapshot.epoch,
            "shape": asdict(snapshot.banks.first),
            **_several(snapshot.banks),
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
            content = parse_json(str(file["content"]), finite=False)
            Content.model_validate(content)
            wanted = _names_of(content, of, set(file.files) - {"content"})
            arrays = {name: file[name] for name in wanted}
            if any(array.dtype.kind not in "biufU" for array in arrays.values()):
                raise ValueError("arrays of other things than numbers")
            saved = Saved(content, arrays, path)
        _ = saved.throughput  # which raises where it is something else
        return saved
    except FileNotFoundError:  # since it was looked for: its process is through
        return None
    except Exception as error:  # zipfile and NumPy raise whatever a damaged archive makes them stumble over
        raise _damaged(path, error) from error


def _names_of(content: dict[str, Any], of: Collection[int] | None, names: set[str]) -> set[str]:
    """Which of a snapshot's arrays are those of some trials."""
    if of is None:
        return names
    places = {f"{place}" for place, member in enumerate(content["members"]) if member["number"] in of}
    return {name for name in names if name.partition("/")[0] in places}


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
