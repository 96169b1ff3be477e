"""A study as Python sees it: what it found, its figures and its heads, while its search runs or after it."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.runtime.arithmetic import with_default_errstate
from features.runtime.command import say
from features.runtime.errors import BottleneckError
from features.runtime.files import from_here
from features.runtime.keras_settings import python_random_restored
from features.runtime.options import checked, takes_options
from search.record.study_record import Progress, StudyRecord, read_record
from search.setup.config import REPORT_FILE, StudyConfig
from search.setup.export_options import ExportOptions
from search.trials.notes import TrialNotes

if TYPE_CHECKING:
    import keras
    import pandas as pd
    from plotly.graph_objects import Figure

    from search.record.summary import Summary


class Study:
    """A study directory, read anew at each look: it may be one that a search is writing.

    Attributes:
        folder: The study directory, as it was named.
    """

    def __init__(self, folder: str | Path) -> None:
        """Opens a study.

        Raises:
            InputError: The folder is no study directory, or its ``study.json`` is damaged.
        """
        self.folder = Path(folder)
        StudyConfig.read(self.folder)
        self._absolute = self.folder.absolute()

    @property
    def _place(self) -> Path:
        """The study directory from wherever the process works now: a notebook may go elsewhere."""
        return from_here(self.folder, self._absolute)

    @property
    def config(self) -> StudyConfig:
        """The study's options as they were resolved, its space, its stores and its split.

        Raises:
            InputError: ``study.json`` is missing or damaged.
        """
        return StudyConfig.read(self._place)

    @property
    def record(self) -> StudyRecord:
        """Everything that is on the disk, of one moment: for who wants several things that belong together.

        Raises:
            InputError: A file of the study is missing or damaged, or its record is another study's.
            BottleneckError: The database that has its record cannot be reached.
        """
        return read_record(self._place)

    @property
    def progress(self) -> Progress:
        """Whether the search runs, was stopped, or has finished.

        Raises:
            BottleneckError: As ``record``.
        """
        return self.record.progress

    @property
    def summary(self) -> Summary:
        """What was found, as ``summary.json`` has it; before the end of the search, as far as it has come.

        Raises:
            BottleneckError: As ``record``.
        """
        return self.record.summary

    @property
    def verdict(self) -> str | None:
        """What may be said of what is recommended, in a sentence; None before the end of the search.

        Raises:
            BottleneckError: As ``record``.
        """
        return self.summary.verdict

    @with_default_errstate
    def trials(self) -> pd.DataFrame:
        """Returns one row for each trial, results and parameters: see ``search.review.tables.trials_frame``.

        Raises:
            BottleneckError: As ``record``.
        """
        from search.review.tables import trials_frame

        return trials_frame(self.record)

    def figures(self) -> Mapping[str, Figure]:
        """Returns the report's figures by name, each drawn when it is asked for.

        Their names are those of ``search.FigureName``, such as ``history``, and ``parameter-NAME``, as far as the
        trials give enough for them.

        Raises:
            BottleneckError: As ``record``.
        """
        from search.review.gallery import Gallery

        return Gallery(self.record, template="plotly_white")

    @with_default_errstate
    def best_head(self) -> keras.Model:
        """Returns what is recommended: uncompiled, from bottlenecks to class probabilities.

        Where that is an average that no plain file can hold, it is the single winner, and that is said.

        Raises:
            InputError: No trial has completed, or no head of it is kept yet. Or it is a head of somebody's own with
                layers that are not plain, which only ``export`` to a ``.keras`` file writes.
            BottleneckError: The study ends again at this moment.
        """
        from search.finish.export import recommended_head

        with python_random_restored():
            return recommended_head(self._place).model

    @with_default_errstate
    def export(self, out: str | Path, **options: Any) -> Path:
        """Writes a head and tries what was written, see ``search.finish.export.export_head``.

        Args:
            out: The file, which ends in .hdf5, .h5, .keras, .onnx or .tflite; or a folder for a SavedModel, which has
                no ending, or a slash behind it.
            options: ``trial``, ``which``, ``with_backbone``, ``weights``, ``backbone``: those of the
                command ``search.export``.

        Returns:
            The path of the file or folder.

        Raises:
            InputError: The options do not fit the study or each other, ``out`` cannot be written, or a package is
                missing.
            BottleneckError: It cannot be written, what was written gave other probabilities, or the study ends again
                at this moment.
        """
        from search.finish.export import export_head

        chosen = checked(ExportOptions, options, of="an export")
        with python_random_restored():
            exported = export_head(self._place, out, chosen)
        if exported.remark:
            say(f"note: {exported.remark}")
        return exported.path

    @with_default_errstate
    def report(self) -> Path:
        """Writes the report into the study directory, one HTML file that needs no network; returns its path.

        Raises:
            BottleneckError: As ``record``; or the disk is full, or the folder cannot be written.
        """
        from search.review.report import write_report

        path = self._place / REPORT_FILE
        write_report(path, self.record)
        return path

    def __repr__(self) -> str:
        return "\n".join([f"Study({str(self.folder)!r})", *(f"  {name}: {said}" for name, said in self._facts())])

    def _repr_html_(self) -> str:
        """Shows the study in a notebook."""
        cell = "<tr><th style='text-align:left'>{}</th><td style='text-align:left'>{}</td></tr>"
        rows = (cell.format(escape(name), escape(said)) for name, said in self._facts())
        return f"<table>{''.join(rows)}</table>"

    def _facts(self) -> list[tuple[str, str]]:
        try:
            record = self.record
        except BottleneckError as error:  # to be shown is no time to fail: the directory may be gone by now
            return [("not readable", f"{error}")]
        finished = sum(trial.state.is_finished() for trial in record.trials)
        facts = [("study", f"{record.config.name}, {record.progress}")]
        facts.append(("trials", f"{finished} of {record.config.trials}"))
        if record.ranked:
            best = record.ranked[0]
            store = TrialNotes.of(best).store
            where = f"trial {best.number}{f' on {store}' if store else ''}"
            name, when = ("chosen by its repeats", " in the search") if record.is_chosen_by_repeats else ("best", "")
            facts.append((name, f"{where}, validation {record.config.objective} {best.value:.4f}{when}"))
        if record.article:
            facts.append(("article's head", f"{record.article.value:.4f}"))
        verdict = record.summary.verdict
        return [*facts, ("verdict", verdict)] if verdict else facts


takes_options(Study.export, ExportOptions)


def open_study(folder: str | Path) -> Study:
    """Opens what a search has left, or is still at.

    Raises:
        InputError: The folder is no study directory.
    """
    return Study(folder)
