"""The commands that write the heads of a study, as far as there are heads, and what of them is known."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from features.runtime.errors import InputError
from features.runtime.text import counted
from heads.files.head_file import read_metadata
from heads.files.own_file import read_own_metadata
from search.finish.export_choice import Leaving, what_leaves
from search.record.head_files import OWN, PLAIN, head_files
from search.record.study_record import StudyRecord
from search.setup.export_options import ExportOptions, Which


@dataclass(frozen=True)
class Export:
    """A command, and what it writes.

    Attributes:
        command: As it is typed.
        leaving: The heads.
    """

    command: str
    leaving: Leaving


def export_of_recommended(record: StudyRecord) -> Export | None:
    """Returns how what the study recommends leaves it; None where no trial has completed, or its head is not there."""
    return _export(record, "best") if record.summary.best else None


def export_of_ensemble(record: StudyRecord) -> Export | None:
    """Returns how the average of the finalists leaves the study; None where there is none, or no file can hold it."""
    return _export(record, "ensemble", which="ensemble") if record.summary.ensemble else None


def export_of_trial(record: StudyRecord) -> str | None:
    """Returns the command that writes a trial's own head; None where none is kept."""
    kept = {path.suffix for path in head_files(record.folder)}
    return f"{_begin(record)} trial{OWN if OWN in kept else PLAIN} --trial NUMBER" if kept else None


def trained_in_words(leaving: Leaving) -> str | None:
    """Returns how what leaves was trained; None of a trial's own head, which is as the trial left it.

    Raises:
        InputError: A head's file is damaged.
    """
    heads = [read_own_metadata(path) if path.suffix == OWN else read_metadata(path) for path in leaving.paths]
    refits = [head.refit for head in heads if head.refit]
    rows = {refit.rows for refit in refits if refit.rows is not None}
    epochs = {refit.epochs for refit in refits if refit.epochs is not None}
    if not rows or not epochs:
        return None
    few, most = min(epochs), max(epochs)
    long = counted(most, "epoch") if few == most else f"{few} to {counted(most, 'epoch')}"
    average = f"the average of {counted(len(heads), 'head')}, " if len(heads) > 1 else ""
    return f"{average}trained on {max(rows):,} rows for {long}"


def _export(record: StudyRecord, stem: str, which: Which | None = None) -> Export | None:
    """The command without the backbone; with it, where only that lets out what is asked for."""
    ways = [(leaving, more) for more in (False, True) if (leaving := _leaving(record, which, more)) is not None]
    if not ways:
        return None
    leaving, with_backbone = min(ways, key=lambda way: bool(way[0].remark))
    keras = with_backbone or leaving.paths[0].suffix == OWN
    more = " --with-backbone" if with_backbone else ""
    asked = f" --which {which}" if which else ""
    return Export(f"{_begin(record)} {stem}{OWN if keras else PLAIN}{asked}{more}", leaving)


def _leaving(record: StudyRecord, which: Which | None, with_backbone: bool) -> Leaving | None:
    try:
        return what_leaves(record, ExportOptions(which=which, with_backbone=with_backbone))
    except InputError:
        return None


def _begin(record: StudyRecord) -> str:
    return f"python -m search.export {shlex.quote(str(record.folder))}"
