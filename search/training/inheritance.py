"""What processes have left of the trials that they worked on: their snapshots, in a study directory that is shared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import optuna

from features.runtime.command import say
from features.runtime.errors import InputError
from heads.bank.head_state import HeadState
from search.setup.file_names import SNAPSHOT_FILE
from search.training.banked_trial import BankedTrial
from search.training.snapshot import Saved, read_snapshot
from search.trials.ask_tell import Asked
from search.trials.notes import TrialNotes


@dataclass(frozen=True)
class Inherited:
    """A trial that another process had begun.

    Attributes:
        trial: Its number there.
        banked: How far it had come; without a place in a bank.
        states: State of each fold's head.
        bank_epoch: Epochs that the other's bank had trained: which batches come next.
    """

    trial: int
    banked: BankedTrial
    states: tuple[HeadState, ...]
    bank_epoch: int


class Inheritance:
    """Looks through the snapshots of processes that are gone."""

    def __init__(self, folder: Path, study: optuna.Study) -> None:
        """Prepares.

        Args:
            folder: Holds a folder for each process.
            study: The study that they work on.
        """
        self._folder = folder
        self._study = study
        self._read: dict[Path, tuple[int, Saved | None]] = {}

    def of(self, asked: Asked) -> Inherited | None:
        """Returns what there is of the trial that ``asked`` runs again; None: it begins anew.

        A trial may have been run again before by a process that did not come as far as a snapshot: then that of its
        forerunner is looked for.
        """
        for number, notes in self._forerunners(asked):
            saved = self._of_worker(notes.worker) if notes.worker else None
            if saved is not None and saved.has(number) and (found := self._taken(saved, number, asked)):
                return found
        return None

    def first_epoch(self, asked: Asked) -> int | None:
        """Returns the epoch of the bank, from 0, in which the trial that ``asked`` runs again had begun.

        None where it is not known: it runs none again, or that was never in a bank.
        """
        return next((notes.first_epoch for _, notes in self._forerunners(asked) if notes.has_begun), None)

    def _forerunners(self, asked: Asked) -> Iterator[tuple[int, TrialNotes]]:
        """The trials that a trial runs again, by number with their notes, the latest first."""
        trials = self._study.get_trials(deepcopy=False)
        number = TrialNotes.of(trials[asked.number]).rerun_of
        while number is not None:
            notes = TrialNotes.of(trials[number])
            yield number, notes
            number = notes.rerun_of

    def _taken(self, saved: Saved, number: int, asked: Asked) -> Inherited | None:
        """Reads a trial's heads; its process, if it is alive, may have written another snapshot since."""
        try:
            whole = read_snapshot(saved.path.parent, of=(number,))
            found = whole.banked_trial(number, asked) if whole is not None else None
        except InputError as error:
            say(f"note: trial {asked.number} begins anew: {error}")
            return None
        if whole is None or found is None or not found[0].epochs:
            return None
        banked, states = found
        return Inherited(number, banked, states, whole.content.epoch)

    def _of_worker(self, name: str) -> Saved | None:
        """What the last snapshot of a process says, without the heads; it may be alive and write another."""
        if name == ".." or Path(name).name != name:  # it comes from a record: no path
            return None
        folder = self._folder / name
        try:
            written = (folder / SNAPSHOT_FILE).stat().st_mtime_ns
        except (OSError, ValueError):  # none, or no name of a folder
            return None
        if folder not in self._read or self._read[folder][0] != written:
            self._read[folder] = written, _snapshot(folder)
        return self._read[folder][1]


def _snapshot(folder: Path) -> Saved | None:
    try:
        return read_snapshot(folder, of=())
    except InputError as error:
        say(f"note: {error}")
        return None
