"""What a search does once its data are there and its record is open: trials, and all that comes after them.

The last stage of ``search.running``, which imports this once the backend is chosen and has started.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from features.runtime.command import say
from features.runtime.files import write_json
from features.runtime.lock import WriterLock
from features.runtime.text import counted
from search.finish.checkpoints import TopCheckpoints
from search.finish.conclusion import finish_study
from search.finish.repeats import help_with_repeats
from search.finish.searched import Searched
from search.record.crew import Crew
from search.record.noted_config import note_alone
from search.record.opened_study import OpenedStudy
from search.setup.config import SPLIT_FILE, StudyConfig
from search.setup.own_head import OwnHead
from search.setup.resolve import Resolved
from search.setup.storage_url import hidden
from search.setup.stores import StudyData
from search.training.bank_figures import figures_of
from search.training.bank_shapes import BankShapes
from search.training.display import Display
from search.training.runner import Recording, run_pool
from search.training.shared_folder import await_end, clear_away, together, worker_folder
from search.training.sizing import settle_banks
from search.training.snapshot import Saved
from search.training.solo import OneAtATime
from search.training.stages import OnStage, Stage
from search.training.throughput import Throughput
from search.trials.ask_tell import Book


@dataclass(kw_only=True)
class Search:
    """A search that is about to ask for its first trial, or for the next one.

    Attributes:
        resolved: What was asked for.
        config: What ``study.json`` keeps of it; with other processes what they agree on.
        data: The rows.
        opened: The record.
        own: Somebody's own function; None for the heads of a space.
        saved: The bank of a killed search that this one goes on with.
        noted: What was said at the start.
        lock: Of the study directory; None where several share it.
        on_stage: Told of each stage as it begins.
    """

    resolved: Resolved
    config: StudyConfig
    data: StudyData
    opened: OpenedStudy
    own: OwnHead | None
    saved: Saved | None
    noted: Sequence[str]
    lock: WriterLock | None
    on_stage: OnStage

    def run(self) -> bool:
        """Runs the trials that are left, scores the winner and writes the summary.

        Returns:
            Whether it was this process that did the latter.
        """
        shapes = self._settle_banks()
        self._note_begun()
        self.on_stage(Stage.SEARCH)
        space = self.own or self.resolved.space
        book = self._book(shapes)
        searched = Searched(self.resolved.folder, self.opened.study, self.config, space, self.data)
        checkpoints = TopCheckpoints(searched, alone=self.opened.crew is None, lock=self.lock)
        throughput = self._run_trials(book, checkpoints, shapes)
        crew = self.opened.crew
        if crew is not None and not self._comes_to_the_end(crew, searched):
            return False
        self._finish(checkpoints, shapes, throughput)
        return True

    def _settle_banks(self) -> BankShapes | None:
        """Decides the sizes of the banks, none with the solo engine; with others everything that is common to all."""
        shapes = None
        if self.config.engine == "fused":
            shapes = self._sized()
        if self.opened.crew is not None:
            self.config = _agreed(self.opened.crew, self.config, self.resolved)
            if shapes is not None and self.config.pages != shapes.pages:
                shapes = self._sized()
        return shapes

    def _sized(self) -> BankShapes:
        space = self.resolved.space
        self.config, shapes = settle_banks(self.config, space, self.data.only(space.stores))
        return shapes

    def _note_begun(self) -> None:
        """Writes what the study is: from here on it can be resumed."""
        folder, config, crew = self.resolved.folder, self.config, self.opened.crew
        first = self.data.first
        write_json(folder / SPLIT_FILE, first.split.with_rows(first.rows), shared=True)
        if crew is None and config.storage:
            note_alone(self.opened.study, config)
        (config if crew is None else crew.as_noted(config)).write(folder)

    def _book(self, shapes: BankShapes | None) -> Book:
        """Asks for trials and is told of them, in turn with the other processes."""
        study, config, crew = self.opened.study, self.config, self.opened.crew
        pages = shapes.pages if shapes else 1
        return Book(
            study,
            config,
            self.own or self.resolved.space,
            resumed=self.saved.trial_numbers if self.saved else (),
            ordinals=crew.ordinals(study, config.trials, pages=pages) if crew is not None else None,
        )

    def _run_trials(self, book: Book, checkpoints: TopCheckpoints, shapes: BankShapes | None) -> Throughput | None:
        """Runs what trials are left; returns what was measured of the banks."""
        folder, crew = self.resolved.folder, self.opened.crew
        with Display(self.opened.study, self.config) as display:
            if shapes is None:
                OneAtATime(book, self.data, checkpoints, display, flush=self.opened.flush).run()
                return None
            own = folder if crew is None else worker_folder(folder, crew.name)
            recording = Recording(own, self.opened, self.saved, self.resolved.options.snapshot_every)
            return run_pool(recording, shapes=shapes, data=self.data, book=book, sink=checkpoints, display=display)

    def _comes_to_the_end(self, crew: Crew, searched: Searched) -> bool:
        """Waits until the others are through, and helps them; returns whether the end is this process's."""
        every = self.resolved.options.snapshot_every
        helping = partial(help_with_repeats, searched, snapshot_every=every, crew=crew)
        if not await_end(crew, self.opened, self.config.trials, helping):
            return False
        crew.runs_the_end(self.config)
        self.config.write(self.resolved.folder)  # where another one's was that was told otherwise
        return True

    def _finish(self, checkpoints: TopCheckpoints, shapes: BankShapes | None, throughput: Throughput | None) -> None:
        folder, crew = self.resolved.folder, self.opened.crew
        bank = None
        if shapes and throughput:
            total = partial(together, folder) if crew is not None else partial(replace, throughput)
            bank = figures_of(shapes, str(self.config.dtype), total)
        summary = finish_study(
            checkpoints,
            bank=bank,
            remarks=self.noted,
            snapshot_every=self.resolved.options.snapshot_every,
            crew=crew,
            on_stage=self.on_stage,
        )
        if crew is not None:
            crew.end(self.config.trials, folder)
            clear_away(folder, crew.others())
        for note in summary.notes[len(self.noted) :]:  # the others were said at the start
            say(f"note: {note}")


def _agreed(crew: Crew, config: StudyConfig, resolved: Resolved) -> StudyConfig:
    """The config that the study is worked on with, together with others."""
    crew.forget_lost_end(resolved.folder)  # first: where it is lost, the end is run as this process is told
    config = crew.agree_on(config, is_recorded=resolved.recorded is not None)
    say(f"{hidden(config.storage or '')}: joined as {crew.name}; at work: {counted(crew.living(), 'worker')}")
    return config
