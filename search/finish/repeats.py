"""The finalists: the best trials, and the article's head, trained again from several seeds, all at once.

The best value of many noisy ones is too high, and too high for the lucky more than for the good. So the best few are
trained again, and the choice between them is made on means of all seeds. That takes away the luck of seeds; not that of
the rows, on which the finalists were picked. How long a head trains is decided before: as long as its trial took to its
best epoch, and what the last one of these makes of it is what counts, so that no repeat picks the luckiest of its
epochs, and what is judged is trained as what leaves.

The repeats are a small study of their own, in ``STUDY_DIR/finalists``: asked, told, snapshotted and resumed as every
other.
"""

from __future__ import annotations

import gc
import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from features.runtime.errors import InputError
from heads.metrics.scoring import Probabilities
from heads.model.own import OwnSpec
from heads.model.spec import HeadSpec
from search.finish.repeat_plan import RepeatPlan, plan_repeats
from search.finish.repeat_predictions import PREDICTIONS, Predictions, unchecked
from search.finish.searched import Searched
from search.record.crew import Crew
from search.record.head_files import FINALISTS
from search.record.opened_study import OpenedStudy, held
from search.record.record_identity import note_made_of
from search.record.results import BankFigures, FinalistCost, FinalistRecord
from search.record.storage import check_record, join_record, open_inner_record, where_kept
from search.setup.config import StudyConfig
from search.setup.file_names import STUDY_FILE
from search.setup.seeds import derive_seed
from search.setup.stores import StudyData
from search.training.bank_figures import describe_bank
from search.training.display import Display
from search.training.resume import resumable
from search.training.runner import Recording, run_pool
from search.training.shared_folder import clear_away, together, worker_folder
from search.training.sizing import BankRequest, dtype_of, most_pages, whole_banks
from search.training.snapshot import Saved, read_snapshot
from search.training.solo import OneAtATime
from search.training.stages import OnStage, untold
from search.trials.ask_tell import Book, Planned
from search.trials.notes import TrialNotes
from search.trials.ranking import is_article, is_counted, is_interrupted, ranking_score_of
from search.trials.times import search_seconds

GATHER_S = 5.0
"""Seconds for which the repeats' first process waits for the others, so that each gets its share."""


@dataclass(frozen=True)
class Finalist:
    """A head that was trained again.

    Attributes:
        trial: Number of the trial that it comes from.
        ordinal: Of that trial, see ``search.trials.ask_tell.Asked``.
        head: The head.
        is_article: Whether it is the article's.
        values: The objective of each repeat, in the order of the seeds; None where one did not come through. With folds
            each is of one fold.
        losses: Likewise.
        epochs: How long it trains, also where nothing is left to validate on.
        rates: Learning rate of each of these epochs, a mean over the runs.
        probabilities: On the validation rows, of every run that came through: (rows, classes) each.
        store: Name of the store that it trains on; '' in a study of one.
        failures: Why others did not come through, each reason once.
    """

    trial: int
    ordinal: int
    head: HeadSpec | OwnSpec
    is_article: bool
    values: tuple[float | None, ...]
    losses: tuple[float | None, ...]
    epochs: int
    rates: Sequence[float]
    probabilities: tuple[Probabilities, ...]
    store: str = ""
    failures: tuple[str, ...] = ()

    @property
    def sound(self) -> list[float]:
        """The values of the repeats that came through."""
        return [value for value in self.values if value is not None]

    @property
    def mean(self) -> float:
        """Mean value of the repeats that came through; NaN where none did."""
        return mean(self.sound) if self.sound else math.nan

    @property
    def sd(self) -> float | None:
        """Standard deviation over the repeats; None for fewer than two."""
        return stdev(self.sound) if len(self.sound) > 1 else None

    @property
    def record(self) -> FinalistRecord:
        """What summary.json says of it."""
        return FinalistRecord(
            trial=self.trial,
            is_article=self.is_article,
            mean=None if math.isnan(self.mean) else self.mean,
            sd=self.sd,
            repeats=len(self.values),
            diverged=self.values.count(None),
            epochs=self.epochs,
            values=self.values,
            losses=self.losses,
            failures=self.failures,
        )


def run_repeats(
    searched: Searched,
    *,
    plan: RepeatPlan,
    snapshot_every: float,
    crew: Crew | None = None,
    check: Callable[[], object] = unchecked,
    on_stage: OnStage = untold,
) -> tuple[list[Finalist], FinalistCost]:
    """Trains the finalists again, or goes on where a killed run stopped.

    Repeats that are in the bank at once see the same batches; first weights and dropout differ. Where memory does not
    hold all of them, the others come in as some leave, and begin with the batches of that epoch. With folds a run is a
    head for each of them, each from a seed of its own: so many repeats, which between them judge every row once.

    Args:
        searched: The study; at least one trial has completed.
        plan: Which heads, how often, how long.
        snapshot_every: Seconds between two snapshots of the bank.
        crew: The processes that worked on the study, which take their shares of the runs; None where there was one.
        check: Makes sure that the study directory is still this study's.
        on_stage: Told of each smaller bank.

    Returns:
        The finalists, best first: fewest diverged, then mean value, then mean loss; and what it took.
    """
    repeats = _Repeats(searched, plan)
    gc.collect()  # the search's bank, before the next one is made
    check()
    with repeats.advising():
        repeats.settle(alone=crew is None)
    saved = read_snapshot(repeats.folder) if repeats.config.engine == "fused" and crew is None else None
    opened = repeats.record(keep_bytes=saved.journal_bytes if saved else None, crew=crew)
    with held(opened, repeats.config.storage):
        repeats.check(opened)
        saved = resumable(repeats.folder, saved, opened)
        if opened.crew is not None and crew is not None:
            crew.announce(repeats.config.name)
            opened.crew.gather(crew.living(anew=True), GATHER_S)
        sink = repeats.predictions(opened, check)
        bank = repeats.run(opened, saved, sink, snapshot_every=snapshot_every, on_stage=on_stage)
        with repeats.advising():
            finalists = _read(opened.study, plan, sink)
        if opened.crew is not None:
            clear_away(repeats.folder, opened.crew.others())
    return finalists, _cost(opened.study.get_trials(deepcopy=False), bank)


def help_with_repeats(
    searched: Searched,
    *,
    snapshot_every: float,
    crew: Crew,
) -> bool:
    """Takes this process's share of the repeats that another runs, if it runs some; returns when they are through.

    See ``run_repeats`` for the arguments.

    Returns:
        Whether there were any.
    """
    announced = crew.announced()
    if announced is None:
        return False
    repeats = _Repeats(searched, plan_repeats(searched.study, searched.config))
    if repeats.config.name != announced:  # other options here of what comes after the search
        return False
    gc.collect()
    with repeats.advising():
        repeats.settle(alone=False)
    opened = repeats.record(crew=crew)
    with held(opened, repeats.config.storage):
        repeats.check(opened)
        repeats.run(opened, None, repeats.predictions(opened), snapshot_every=snapshot_every)
    return True


class _Repeats:
    """The repeats of a study: a study of their own.

    Attributes:
        folder: Their folder.
        config: Their study's.
    """

    def __init__(self, searched: Searched, plan: RepeatPlan) -> None:
        notes = map(TrialNotes.of, plan.trials)
        heads = [Planned(of.head, of.store, epochs) for of, epochs in zip(notes, plan.epochs, strict=True)]
        self._planned = [head for head in heads for _ in range(plan.runs)]
        self.folder = searched.folder / FINALISTS
        self.config = _config_of(searched.config, plan, self._planned)
        self._space = searched.space
        self._data = searched.data
        self._plan = plan
        self._requests = _requests(self._planned, self.config, self._data) if self.config.engine == "fused" else {}

    @contextmanager
    def advising(self) -> Iterator[None]:
        """Says of a file of theirs that is damaged what to do: all that is in their folder can be made again."""
        try:
            yield
        except InputError as error:
            raise error.advising(f"remove {self.folder} to train the finalists again") from error

    def settle(self, *, alone: bool) -> None:
        """Makes their folder; what is there of other finalists is removed.

        First of all it loses its name: of a removal that is stopped halfway nothing is taken for these repeats'.

        Args:
            alone: Whether no other process takes part. What memory allowed is decided once then, as with a search's
                bank: repeats that go on get the bank that they had. Of several each has a bank of its own.
        """
        aside = self.folder.with_name(f".{self.folder.name}.old")
        shutil.rmtree(aside, ignore_errors=True)  # of a process that was killed
        begun = StudyConfig.read(self.folder) if (self.folder / STUDY_FILE).is_file() else None
        if begun is not None and begun.name != self.config.name:
            self.folder.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)
            begun = None
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._requests:
            pages = begun.pages if begun is not None and alone else None
            self.config = self.config.model_copy(update={"pages": pages or most_pages(self._requests)})
        self.config.write(self.folder)

    def record(self, *, keep_bytes: int | None = None, crew: Crew | None) -> OpenedStudy:
        """Opens their record, for those of the crew that take part or for this process alone."""
        name, url, direction = self.config.name, self.config.storage, self.config.direction
        if crew is not None:
            assert url is not None
            return join_record(url, name, direction=direction, grace=crew.grace)
        with self._advising_on_record():
            return open_inner_record(self.folder, name, url, direction=direction, keep_bytes=keep_bytes)

    def check(self, opened: OpenedStudy) -> None:
        """Makes sure that their record is theirs, and notes so at the beginning."""
        with self._advising_on_record():
            check_record(opened.study, where_kept(self.folder, self.config.storage), self.config)
        if opened.crew is None:
            note_made_of(opened.study, self.config)

    def _advising_on_record(self) -> AbstractContextManager[None]:
        """As ``advising``, where their record is in their folder, too."""
        return nullcontext() if self.config.storage else self.advising()

    def predictions(self, opened: OpenedStudy, check: Callable[[], object] = unchecked) -> Predictions:
        """Returns what keeps what the runs make of the validation rows."""
        sink, objective, in_record = self.folder / PREDICTIONS, self.config.objective, opened.journal is None
        return Predictions(sink, self._data.first, objective, in_record=in_record, check=check)

    def run(
        self,
        opened: OpenedStudy,
        saved: Saved | None,
        sink: Predictions,
        *,
        snapshot_every: float,
        on_stage: OnStage = untold,
    ) -> BankFigures | None:
        """Trains those that are left, with whoever takes part; returns how well the banks were used."""
        config, study, crew = self.config, opened.study, opened.crew
        shapes = whole_banks(self._requests, most=config.pages) if self._requests else None
        ordinals = crew.ordinals(study, config.trials, pages=shapes.pages if shapes else 1) if crew else None
        book = Book(
            study,
            config,
            self._space,
            planned=self._planned,
            resumed=saved.trial_numbers if saved else (),
            ordinals=ordinals,
        )
        left = None if crew else self._epochs_left(study, saved)
        with Display(study, config, what="repeat", with_article=False, epochs_left=left) as display:
            if shapes is None:
                OneAtATime(book, self._data, sink, display, flush=opened.flush).run()
                return None
            own = worker_folder(self.folder, crew.name) if crew else self.folder
            throughput = run_pool(
                Recording(own, opened, saved, snapshot_every),
                shapes=shapes,
                data=self._data,
                book=book,
                sink=sink,
                display=display,
                shrinks=crew is None,  # whoever may take over any run has room for it
                on_stage=on_stage,
            )
        total = together(self.folder) if crew else throughput
        return describe_bank(shapes.pages, str(config.dtype), total, bare=None)

    def _epochs_left(self, study: optuna.Study, saved: Saved | None) -> int:
        """What the runs that have not been told are still to train."""
        done = {TrialNotes.of(run).ordinal for run in study.get_trials(deepcopy=False) if is_counted(run)}
        planned = sum(one.epochs or 0 for ordinal, one in enumerate(self._planned) if ordinal not in done)
        return planned - sum(banked.epochs for banked in (saved.content.members if saved else ()))


def _requests(planned: Sequence[Planned], config: StudyConfig, data: StudyData) -> dict[str, BankRequest]:
    """What the banks of each store are to hold."""
    requests = {}
    for name, rows in data.named.items():
        specs = [one.head for one in planned if one.store == name and isinstance(one.head, HeadSpec)]
        if specs:
            requests[name] = BankRequest.of_study(specs, config, rows)
    return requests


def _config_of(config: StudyConfig, plan: RepeatPlan, planned: Sequence[Planned]) -> StudyConfig:
    """Returns the config of the repeats' study. Its name tells them from any other repeats of the study.

    Its epochs stay the study's, whatever each finalist trains: they are how long a cosine is, and a head that follows
    one had all of them as a trial.
    """
    identity: list[Any] = [plan.repeats, [[one.head.identity, one.epochs] for one in planned]]
    identity += [[one.store for one in planned]] if any(one.store for one in planned) else []
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:8]
    return config.model_copy(
        update={
            "name": f"{config.name}-{FINALISTS}-{digest}",
            "seed": derive_seed(config.seed, FINALISTS),
            "trials": len(planned),
            "pruner": "none",
            "sampler": "random",
            "engine": "solo" if config.head else "fused",
            "dtype": None if config.head else dtype_of(config),
            "finalists": 0,
            "repeats": plan.repeats,
        }
    )


def _cost(runs: Sequence[FrozenTrial], bank: BankFigures | None) -> FinalistCost:
    done = [run for run in runs if is_counted(run)]
    return FinalistCost(
        trial_epochs=sum(TrialNotes.of(run).epochs for run in done),
        seconds=round(search_seconds(done), 3),
        bank=bank,
        interrupted=sum(map(is_interrupted, runs)),
    )


def _read(study: optuna.Study, plan: RepeatPlan, sink: Predictions) -> list[Finalist]:
    """Gathers the runs of each finalist."""
    by_ordinal = {TrialNotes.of(t).ordinal: t for t in study.get_trials(deepcopy=False) if is_counted(t)}
    finalists = [
        _finalist(study, trial, [by_ordinal[index * plan.runs + run] for run in range(plan.runs)], sink)
        for index, trial in enumerate(plan.trials)
    ]
    return sorted(finalists, key=lambda finalist: _rank(study, finalist))


def _finalist(study: optuna.Study, trial: FrozenTrial, runs: Sequence[FrozenTrial], sink: Predictions) -> Finalist:
    values: list[float | None] = []
    losses: list[float | None] = []
    probabilities = []
    for run in runs:
        if run.state == TrialState.FAIL:
            values += [None] * sink.folds
            losses += [None] * sink.folds
            continue
        probabilities.append(sink.read(run))
        scores = sink.scores(probabilities[-1])
        values += [ranking_score_of(study, one.ranking_score) for one in scores]
        losses += [one.loss for one in scores]
    as_trial = TrialNotes.of(trial)
    through = [TrialNotes.of(run) for run in runs if run.state == TrialState.COMPLETE]
    failures = [TrialNotes.of(run).failure for run in runs if run.state == TrialState.FAIL]
    return Finalist(
        trial=trial.number,
        ordinal=as_trial.ordinal,
        head=as_trial.head,
        store=as_trial.store,
        is_article=is_article(trial),
        values=tuple(values),
        losses=tuple(losses),
        epochs=as_trial.best_epoch,
        rates=tuple(map(mean, zip(*(run.learning_rates for run in through), strict=False))),
        probabilities=tuple(probabilities),
        failures=tuple(dict.fromkeys(filter(None, failures))),
    )


def _rank(study: optuna.Study, finalist: Finalist) -> tuple[float, ...]:
    if not finalist.sound:
        return (len(finalist.values), math.inf, math.inf, finalist.trial)
    losses = [loss for loss in finalist.losses if loss is not None]
    return (
        finalist.values.count(None),
        -ranking_score_of(study, finalist.mean),
        mean(losses),
        finalist.trial,
    )
