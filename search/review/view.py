"""What the dashboard shows of a study: notes, figures and artifacts on a copy that nobody can change."""

from __future__ import annotations

import json
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna.trial import FrozenTrial

from features.rows.feed import Feed
from features.runtime.backend import start_backend, use_backend
from features.runtime.command import say
from features.runtime.errors import BottleneckError, InputError
from features.runtime.extras import extra_hint
from features.store.reader import FeatureStore
from features.store.relabelled import with_classes
from heads.files.head_file import read_head, read_metadata
from heads.files.projected import for_features_of
from heads.html.document import TEMPLATE
from heads.metrics.classification import measure
from heads.metrics.excerpt import MOST_CLASSES
from heads.metrics.scoring import predict_probabilities
from search.record.head_files import OWN, kept_numbers, path_of, refit_path_of
from search.record.outages import DATABASE_ERRORS
from search.record.study_record import Progress, StudyRecord, curve, read_record, read_split
from search.review.gallery import FigureName, Gallery
from search.review.overlay import Overlay
from search.review.stores import store_cells, store_head
from search.review.svg import confusion_svg, curve_svg
from search.review.words import (
    END_TO_COME,
    cost_in_words,
    describe_head,
    mean_in_words,
    objective_in_words,
    validation_in_words,
)
from search.setup.config import SPLIT_FILE, StudyConfig
from search.trials.notes import TrialNotes

REFRESH_SECONDS = 20.0
MOST_UNFORESEEN = 3
"""Errors in a row that nobody foresaw, after which the dashboard stays as it is."""
CURVES = 40
"""Every figure is sent again at each poll of the browser: they are kept small."""
_OF_OUR_OWN = (
    FigureName.VALUE_AND_SIZE,
    FigureName.VALUE_AND_COST,
    FigureName.LEARNING_CURVES,
    FigureName.WHAT_ENDED_WHEN,
)
"""Figures that the dashboard has not itself."""
REFUSAL = "this dashboard only looks at the study: its search alone writes it"


class View:
    """A study as the dashboard shows it.

    Attributes:
        app: The WSGI application; whatever is not a look is refused.
        storage: What it shows.
    """

    def __init__(self, folder: Path, config: StudyConfig, artifacts: Path) -> None:
        """Opens the study and pins on it what there is.

        Args:
            folder: The study directory.
            config: Its study.json.
            artifacts: A folder of its own for copies of what is pinned on trials; made where there is none.

        Raises:
            InputError: There is no such study.
            BottleneckError: optuna-dashboard is not installed.
        """
        try:
            from optuna_dashboard import wsgi  # an extra
        except ImportError as error:
            raise BottleneckError(f"optuna-dashboard is not installed: {extra_hint('dashboard')}") from error
        artifacts.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.config = config
        self.storage = Overlay(folder, config.storage, config.name)
        self.app = read_only(wsgi(self.storage, artifact_store=FileSystemArtifactStore(str(artifacts))))
        self._store = FileSystemArtifactStore(str(artifacts))
        self._pinned: set[tuple[int, str]] = set()
        self._shown: object = None
        self._stopped = threading.Event()
        with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
            study = optuna.load_study(study_name=config.name, storage=self.storage)
            study.set_metric_names([f"validation {config.objective}"])
        self.refresh()

    def refresh(self) -> StudyRecord:
        """Pins the note, the figures and the artifacts of the best heads as they are now."""
        from optuna_dashboard import save_note, save_plotly_graph_object

        record = read_record(self.folder, self.storage.record)
        study = optuna.load_study(study_name=self.config.name, storage=self.storage)
        state = (record.progress, [(t.number, t.state) for t in record.trials])
        if state == self._shown:
            return record
        save_note(study, note_on(record))
        for name, figure in small_figures(record):
            title = {"text": name.replace("-", " "), "x": 0.03, "y": 0.96, "yanchor": "top"}
            # the dashboard's buttons lie over the top, and its frame is of Plotly's own height
            figure.update_layout(title=title, margin={"t": 96}, height=450)
            figure.layout.template = TEMPLATE  # Plotly's own is 7 kB in each figure, at each poll
            save_plotly_graph_object(study, figure, graph_object_id=name)
        for trial in kept_trials(record):
            drawn = curve_svg(curve(trial), f"trial {trial.number}, {validation_in_words(self.config.objective)}")
            self._pin(trial, "learning-curve.svg", drawn)
            for path in (path_of(self.folder, trial.number), refit_path_of(self.folder, trial.number)):
                self._pin_file(trial, path)
        if (test := record.summary.test) and 0 < len(test.confusion) <= MOST_CLASSES:
            names = [one.name for one in test.per_class]
            picture = confusion_svg(test.confusion, names, f"{test.rows} test rows")
            self._pin(record.ranked[0], "confusion-test.svg", picture)
        self._shown = state
        return record

    def keep_up(self) -> None:
        """Refreshes until stopped; once the search is over, also scores the kept heads on the validation rows.

        What fails for the world's sake is tried again for ever. Anything else is a mistake in here, or a record that
        was cut back in the midst of reading: that is said once, and ends it where it happens several times in a row.
        """
        scored: set[int] = set()
        unforeseen = 0
        while not self._stopped.is_set():
            try:
                record = self.refresh()
                kept = {trial.number for trial in kept_trials(record)}
                # Not beside a running search, which needs the processors; again where a later end kept others.
                if record.progress is not Progress.RUNNING and kept - scored:
                    scored |= kept
                    self.pin_confusions(record)
                unforeseen = 0
            except (BottleneckError, OSError, *DATABASE_ERRORS) as error:
                say(f"not brought up to date: {error}")
            except Exception as error:
                unforeseen += 1
                if unforeseen == 1:
                    say(f"not brought up to date: {type(error).__name__}: {error}")
                elif unforeseen == MOST_UNFORESEEN:
                    say(f"not brought up to date any more: {type(error).__name__} {unforeseen} times in a row")
                    return
            self._stopped.wait(REFRESH_SECONDS)

    def stop(self) -> None:
        """Ends ``keep_up`` at its next turn."""
        self._stopped.set()

    def pin_confusions(self, record: StudyRecord) -> None:
        """Scores the kept heads on the validation rows and pins their confusion matrices.

        Raises:
            InputError: The store has gone or is another one now.
        """
        for trial, counts, names in validation_confusions(record):
            if len(counts) > MOST_CLASSES:
                return
            rows = sum(map(sum, counts))
            self._pin(trial, "confusion-validation.svg", confusion_svg(counts, names, f"{rows} validation rows"))

    def _pin(self, trial: FrozenTrial, name: str, text: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_text(text, encoding="utf-8")
            self._pin_file(trial, path)

    def _pin_file(self, trial: FrozenTrial, path: Path) -> None:
        key = (trial.number, path.name)
        if key in self._pinned or not path.is_file():
            return
        trial_id = self.storage.get_trial_id_from_study_id_trial_number(self.study_id, trial.number)
        there = self.storage.get_trial(trial_id)
        upload_artifact(artifact_store=self._store, file_path=str(path), study_or_trial=there, storage=self.storage)
        self._pinned.add(key)

    @property
    def study_id(self) -> int:
        """The study's number in its storage."""
        return self.storage.get_study_id_from_name(self.config.name)


def read_only(app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """Returns a WSGI application that looks, and answers all else with 403 and the reason.

    What the dashboard would write could only be kept in memory, and be lost: better to say so than to seem to save it.
    """

    def looking(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ.get("REQUEST_METHOD", "GET") in ("GET", "HEAD"):
            return app(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "application/json")])
        return [json.dumps({"reason": REFUSAL}).encode()]

    return looking


def kept_trials(record: StudyRecord) -> list[FrozenTrial]:
    """Returns the trials of which a head is in the study directory, best first."""
    kept = set(kept_numbers(record.folder))
    return [trial for trial in record.ranked if trial.number in kept]


def small_figures(record: StudyRecord) -> Iterable[tuple[str, Any]]:
    """Returns the figures that the dashboard has not itself, and their names: few points, few digits."""
    gallery = Gallery(record, most_curves=CURVES)
    return ((name, gallery[name]) for name in gallery if name in _OF_OUR_OWN)


def note_on(record: StudyRecord) -> str:
    """Returns what the study found so far, as Markdown."""
    summary, config = record.summary, record.config
    searched = config.head or ", ".join(name for name, one in config.space.items() if isinstance(one, (list, dict)))
    state = f"{record.progress}; {END_TO_COME}" if record.lacks_its_end else record.progress
    lines = [f"{summary.trials} of {config.trials} trials, {state}.", ""]
    lines += [f"Searched: {searched}; by {validation_in_words(config.objective)}.", ""]
    if record.article is not None:
        lines += [f"The article's head: {record.article.value:.4f} (trial {record.article.number}).", ""]
    if summary.test and summary.verdict:
        lines += [summary.verdict, ""]
    if summary.best and summary.best.store:
        lines += [f"The best head takes the features of {_as_text(summary.best.store)}.", ""]
    if using := cost_in_words(summary, summary.best):
        lines += [f"An image with it: {using}.", ""]
    means = {one.trial: mean_in_words(config.objective, one) for one in record.finalists}
    beside = "".join(f" {name} |" for name in store_head(record))
    if record.ranked:
        lines += [
            f"| trial | {objective_in_words(config.objective)} | repeated | parameters |{beside} head |",
            f"| ---: | ---: | ---: | ---: |{' --- | ---: |' if beside else ''} --- |",
        ]
    for trial in record.ranked[:5]:
        notes, mean = TrialNotes.of(trial), means.get(trial.number, "-")
        size, head = f"{notes.parameters:,}", describe_head(notes.head)
        cells = "".join(f" {_as_text(cell)} |" for cell in store_cells(record, trial))
        lines.append(f"| {trial.number} | {trial.value:.4f} | {mean} | {size} |{cells} {head} |")
    return "\n".join([*lines, "", "Kept heads, curves and confusion matrices are artifacts of their trials."])


def _as_text(name: str) -> str:
    """A name in Markdown as it is, whatever is in it."""
    return escape(name).replace("|", "&#124;")


def validation_confusions(record: StudyRecord) -> Iterable[tuple[FrozenTrial, list[list[int]], list[str]]]:
    """Yields the (true, called) counts on the validation rows and the class names, for each trial's own head.

    Nothing with folds, where a trial has no head of its own.

    Raises:
        InputError: The store has gone or is another one now.
    """
    config = record.config
    kept = ((trial, path_of(record.folder, trial.number)) for trial in kept_trials(record))
    trials = [trial for trial, path in kept if path.is_file() and path.suffix != OWN]
    if config.folds or not trials:
        return
    use_backend(rather=config.backend)
    start_backend()
    classes = read_metadata(path_of(record.folder, trials[0].number)).classes
    rows = read_split(record.folder).get("validation", [])
    feeds: dict[str, Feed] = {}
    for trial in trials:
        name, path = TrialNotes.of(trial).store, path_of(record.folder, trial.number)
        if name not in feeds:
            feeds[name] = _validation(record, name, classes, rows)
        feed = feeds[name]
        model = for_features_of(path, read_head(path).model, feed.store.header)
        metrics = measure(predict_probabilities(model, feed), feed.labels, feed.store.classes)
        yield trial, [list(counts) for counts in metrics.confusion], list(feed.store.classes)


def _validation(record: StudyRecord, name: str, classes: Sequence[str], rows: Sequence[int]) -> Feed:
    """The validation rows in the store of a name."""
    stores = record.config.stores_by_name.get(name, record.config.stores)
    store = stores.validation or stores.features
    opened = FeatureStore(Path(store.path))
    opened.check_recorded(store.identity, "this study was made with")
    source = with_classes(opened, classes, known_to=str(record.folder))
    if any(row >= len(opened) for row in rows):
        raise InputError(record.folder / SPLIT_FILE, field="rows", expected=f"rows of {opened.path}", found="others")
    return Feed(source, np.asarray(rows, np.int64), memory_bytes=2**28)
