"""A study as Optuna's dashboard shows it, kept up to date while its search runs."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna

from features.runtime.command import say
from features.runtime.errors import BottleneckError
from features.runtime.extras import extra_hint
from features.runtime.files import identity
from heads.html.document import TEMPLATE
from heads.metrics.excerpt import MOST_CLASSES
from search.record.database import storage_errors
from search.record.head_files import head_files, path_of, refit_path_of
from search.record.outages import DATABASE_ERRORS
from search.record.storage import find_study, where_kept
from search.record.study_record import Progress, StudyRecord, curve, read_record
from search.review.confusions import kept_heads, kept_trials, validation_confusions
from search.review.gallery import FigureName, Gallery
from search.review.note import note_on
from search.review.overlay import Overlay
from search.review.pins import ArtifactKey, Pins
from search.review.read_only import read_only
from search.review.svg import confusion_svg, curve_svg
from search.review.words import validation_in_words
from search.setup.config import StudyConfig

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


class BegunAnewError(BottleneckError):
    """The study that a dashboard was started on is not the one that is there: little of what it shows is true of it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"{folder}: another study is in its place, or it was begun anew; start the dashboard again")


class DashboardStudy:
    """A study as Optuna's dashboard shows it: notes, figures and artifacts on a copy that nobody can change.

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
        self._pins = Pins(self.storage, artifacts)
        self.app = read_only(wsgi(self.storage, artifact_store=self._pins.store), self.why_not)
        self._confusions: dict[int, tuple[object, str]] = {}
        self._begun: datetime | None = None
        self._shown: object = None
        self._stopped = threading.Event()
        with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
            study = optuna.load_study(study_name=config.name, storage=self.storage)
            study.set_metric_names([f"validation {config.objective}"])
        self.refresh()

    def refresh(self) -> StudyRecord:
        """Pins the note, the figures and the artifacts of the best heads as they are now.

        Raises:
            BegunAnewError: Another study is there by now.
            BottleneckError: It cannot be read just now, or there is no room for copies of what is pinned.
        """
        from optuna_dashboard import save_note, save_plotly_graph_object

        record = read_record(self.folder, self.storage.record)
        self._require_same(record)
        study = optuna.load_study(study_name=self.config.name, storage=self.storage)
        files = {path: identity(path) for path in head_files(self.folder)}
        state = (record.progress, record.concluded, files, [(t.number, t.state) for t in record.trials])
        if state == self._shown:
            return record
        save_note(study, note_on(record))
        for name, figure in small_figures(record):
            title = {"text": name.replace("-", " "), "x": 0.03, "y": 0.96, "yanchor": "top"}
            # the dashboard's buttons lie over the top, and its frame is of Plotly's own height
            figure.update_layout(title=title, margin={"t": 96}, height=450)
            figure.layout.template = TEMPLATE  # Plotly's own is 7 kB in each figure, at each poll
            save_plotly_graph_object(study, figure, graph_object_id=name)
        self._pins.sync(self.study_id, self._artifacts(record))
        self._shown = state
        return record

    def _require_same(self, record: StudyRecord) -> None:
        """Numbers of trials are those of a study that was removed, too, and Optuna's dashboard holds on to them."""
        trials = record.study.get_trials(deepcopy=False)
        begun = trials[0].datetime_start if trials else None  # None also where it waits to be run
        same = (record.config.name, record.config.made_of) == (self.config.name, self.config.made_of)
        if not same or self._begun not in (None, begun):
            raise BegunAnewError(self.folder)
        self._begun = begun

    def _artifacts(self, record: StudyRecord) -> dict[ArtifactKey, Path | str]:
        """What belongs on which trial: files, and the texts of pictures."""
        wanted: dict[ArtifactKey, Path | str] = {}
        for trial in kept_trials(record):
            number, head = trial.number, path_of(self.folder, trial.number)
            drawn = curve_svg(curve(trial), f"trial {number}, {validation_in_words(record.config.objective)}")
            wanted[number, "learning-curve.svg"] = drawn
            for path in (head, refit_path_of(self.folder, number)):
                wanted[number, path.name] = path
            scored, picture = self._confusions.get(number, (None, ""))
            if scored is not None and scored == identity(head):
                wanted[number, "confusion-validation.svg"] = picture
        if (test := record.summary.test) and 0 < len(test.confusion) <= MOST_CLASSES:
            names = [one.name for one in test.per_class]
            wanted[test.trial, "confusion-test.svg"] = confusion_svg(test.confusion, names, f"{test.rows} test rows")
        return wanted

    def keep_up(self) -> None:
        """Refreshes until stopped; once the search is over, also scores the kept heads on the validation rows.

        What fails for the world's sake is tried again for ever, and said once while it stays the same. Anything else is
        a mistake in here, or a record that was cut back in the midst of reading: that is said once, and ends it where
        it happens several times in a row.

        Raises:
            BegunAnewError: Another study is there by now.
        """
        scored: dict[int, object] = {}
        unforeseen, said = 0, ""
        while not self._stopped.is_set():
            try:
                record = self.refresh()
                heads = kept_heads(record)
                # Not beside a running search, which needs the processors; again where a later end kept others.
                if record.progress is not Progress.RUNNING and heads.items() - scored.items():
                    self.pin_confusions(record)
                    scored = heads
                unforeseen, said = 0, ""
            except BegunAnewError:
                raise
            except (BottleneckError, OSError, *DATABASE_ERRORS) as error:
                if said != (said := f"not brought up to date: {error}"):
                    say(said)
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
        heads = kept_heads(record)
        for trial, counts, names in validation_confusions(record):
            if len(counts) > MOST_CLASSES:
                return
            picture = confusion_svg(counts, names, f"{sum(map(sum, counts))} validation rows")
            self._confusions[trial.number] = heads.get(trial.number), picture
            self._pins.sync(self.study_id, self._artifacts(record))

    def why_not(self) -> str:
        """Returns why there is nothing to look at just now, in a line; '' where there is."""
        try:
            with storage_errors(self.config.storage):
                find_study(self.storage, where_kept(self.folder, self.config.storage), self.config.name)
        except (BottleneckError, OSError) as error:
            return f"{error}"
        return ""

    @property
    def study_id(self) -> int:
        """The study's number in its storage."""
        return self.storage.get_study_id_from_name(self.config.name)


def small_figures(record: StudyRecord) -> Iterable[tuple[str, Any]]:
    """Returns the figures that the dashboard has not itself, and their names: few points, few digits."""
    gallery = Gallery(record, most_curves=CURVES)
    return ((name, gallery[name]) for name in gallery if name in _OF_OUR_OWN)
