"""What summary.json is made of: frozen values that people read by name, and that are the file's JSON and back.

Fields stand in the order of the file's keys. Keys that later versions added have a default, so that the summaries of
older studies are read too; keys that this version does not know are passed over.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Self

from heads.metrics.classification import ClassMetrics, ConfusionPair, Metrics, pairs_of
from heads.metrics.scoring import DIVERGED
from heads.model.spec import HeadSpec
from search.record.recorded import OMIT_DEFAULT, Recorded
from search.setup.audit import Audit
from search.setup.export_options import Kind

MOST_CONFUSED = 50
"""Pairs of classes that a summary has of each head, where the whole confusion matrix would be too large."""


@dataclass(frozen=True, kw_only=True)
class TrialResult(Recorded):
    """A completed trial.

    Attributes:
        number: Of the trial.
        value: The objective in its best epoch.
        validation_loss: In that epoch, in nats.
        validation_accuracy: Likewise, in [0, 1].
        best_epoch: 1-based.
        params: The head, as ``HeadSpec`` has it; of somebody's own function what it suggested.
        parameters: Numbers that the head is made of, moving statistics included.
        store: Name of the store that it was trained on; '' in a study of one.
    """

    number: int
    value: float
    validation_loss: float
    validation_accuracy: float
    best_epoch: int
    params: dict[str, Any]
    parameters: int
    store: str = field(default="", metadata=OMIT_DEFAULT)

    @property
    def spec(self) -> HeadSpec:
        """The head, where it is one of ours."""
        return HeadSpec.from_dict(self.params)


@dataclass(frozen=True, kw_only=True)
class FinalistRecord(Recorded):
    """What is told of a finalist: a head that was trained again from several seeds.

    Attributes:
        trial: Number of the trial that it comes from.
        is_article: Whether it is the article's head.
        mean: Mean value of the repeats that came through; None where none did.
        sd: Standard deviation over them; None for fewer than two.
        repeats: How many there were; with folds, each is of one fold.
        diverged: How many of them did not come through: they diverged, or failed by ``failures``.
        epochs: How long each of them trained, decided before: as long as the trial took to its best epoch. 0 in studies
            whose repeats each picked an epoch of their own.
        values: The objective of each repeat, None where it did not come through.
        losses: Likewise, in nats.
        failures: Why some did not come through, each reason once. None are kept in older studies.
    """

    trial: int
    is_article: bool
    mean: float | None
    sd: float | None
    repeats: int
    diverged: int = 0
    epochs: int = field(default=0, metadata=OMIT_DEFAULT)
    values: tuple[float | None, ...] = ()
    losses: tuple[float | None, ...] = ()
    failures: tuple[str, ...] = field(default=(), metadata=OMIT_DEFAULT)

    @property
    def through(self) -> int:
        """Repeats that came through."""
        return self.repeats - self.diverged

    @property
    def other_failures(self) -> list[str]:
        """Why some failed, diverging left out: an own head's function may have changed since."""
        return [reason for reason in self.failures if not reason.startswith(DIVERGED)]

    @property
    def how_lost(self) -> str:
        """What became of those that did not come through, in a word."""
        return "failed" if self.other_failures else DIVERGED


@dataclass(frozen=True, kw_only=True)
class FinalistCost(Recorded):
    """What the repeats took.

    Attributes:
        trial_epochs: Epochs of all repeats together.
        seconds: In which at least one of them trained.
        bank: How well their banks were used; ``pages`` are those of the first. None in studies from before that was
            kept.
        interrupted: Runs that a killed process left, and that were begun again: by themselves perhaps, where all
            others had ended.
    """

    trial_epochs: int
    seconds: float
    bank: BankFigures | None = field(default=None, metadata=OMIT_DEFAULT)
    interrupted: int = field(default=0, metadata=OMIT_DEFAULT)


@dataclass(frozen=True, kw_only=True)
class FinalistPlan(Recorded):
    """What the repeats were to be, decided after the last trial.

    Attributes:
        heads: Heads that are trained again, the article's among them.
        runs: Trainings of each; with folds a run is a head for each of them.
        epochs: Of a run, at most.
        trial_epochs: Of all runs together, if none diverges.
        search_trial_epochs: Those of the search.
        chosen: Whether numbers of heads or runs follow from the search; false where both were asked for. How long each
            trains always does.
        fits: Whether ``trial_epochs`` are within their share of the search's.
    """

    heads: int
    runs: int
    epochs: int
    trial_epochs: int
    search_trial_epochs: int
    chosen: bool
    fits: bool


@dataclass(frozen=True, kw_only=True)
class Finalists(Recorded):
    """The heads that were trained again after the search.

    Attributes:
        cost: What that took.
        heads: Best first.
        plan: What it was to take; None in studies from before that was kept.
    """

    cost: FinalistCost
    heads: tuple[FinalistRecord, ...]
    plan: FinalistPlan | None = field(default=None, metadata=OMIT_DEFAULT)


@dataclass(frozen=True, kw_only=True)
class Ensemble(Recorded):
    """The average of finalists that ``search.export --which ensemble`` writes.

    Attributes:
        trials: Whose heads it averages.
        temperature: What calibrates the average; None where there was nothing to fit it on.
    """

    trials: tuple[int, ...]
    temperature: float | None = None


@dataclass(frozen=True, kw_only=True)
class RefitRecord(Recorded):
    """How the winner was trained once more, on all rows but those of the test.

    Attributes:
        trial: Number of the trial that it comes from.
        rows: Rows that it trained on.
        epochs: How long.
        parts: Names of the parts that the rows are from.
    """

    trial: int
    rows: int
    epochs: int
    parts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Calibration(Recorded):
    """What dividing by a temperature made of probabilities.

    Attributes:
        temperature: None where none was fitted.
        ece_before: Expected calibration error of the head as it is, in [0, 1].
        ece_after: Likewise with the temperature.
    """

    temperature: float | None
    ece_before: float
    ece_after: float


@dataclass(frozen=True, kw_only=True)
class ScoresOnTest(Recorded):
    """What a head, or an average of heads, did on the test rows: see ``heads.metrics.classification.Metrics``.

    Attributes:
        rows: Number of test rows.
        patients: Number of their patients, a row whose patient is unknown counted as one; None in studies from before
            these were counted.
        patients_unknown: Rows whose patient is unknown.
        accuracy: Share of the rows that were classified correctly.
        accuracy_interval: 95% interval of it, patients as units.
        balanced_accuracy: Mean sensitivity of the classes.
        loss: In nats, of the calibrated probabilities.
        per_class: Each class against the others.
        confusion: (true class, called class) counts; empty for very many classes.
        confused: In its place the pairs of classes that were confused most often, ``MOST_CONFUSED`` at most.
        calibration: Of the probabilities on these rows.
    """

    rows: int
    patients: int | None = None
    patients_unknown: int = 0
    accuracy: float
    accuracy_interval: tuple[float, float]
    balanced_accuracy: float
    loss: float
    per_class: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]
    confused: tuple[ConfusionPair, ...] = field(default=(), metadata=OMIT_DEFAULT)
    calibration: Calibration | None = None

    @classmethod
    def of(cls, metrics: Metrics, calibration: Calibration, **who: Any) -> Self:
        """Takes over what was measured.

        Args:
            metrics: Of the calibrated probabilities of some rows, at least one.
            calibration: What calibration made of these.
            **who: The fields beside these: whose scores they are.
        """
        accuracy, interval = metrics.accuracy, metrics.accuracy_interval
        balanced, loss = metrics.balanced_accuracy, metrics.loss
        assert accuracy is not None and interval is not None and balanced is not None and loss is not None, metrics.rows
        return cls(
            rows=metrics.rows,
            patients=metrics.patients,
            patients_unknown=metrics.patients_unknown,
            accuracy=accuracy,
            accuracy_interval=interval,
            balanced_accuracy=balanced,
            loss=loss,
            per_class=metrics.per_class,
            confusion=metrics.confusion,
            confused=() if metrics.confusion else metrics.confused[:MOST_CONFUSED],
            calibration=calibration,
            **who,
        )

    @property
    def most_confused(self) -> tuple[ConfusionPair, ...]:
        """The pairs of classes that were confused most often: ``confused``, or what the confusion matrix says."""
        if not self.confusion:
            return self.confused
        pairs = pairs_of(self.confusion, [one.name for one in self.per_class])
        return tuple(pair for pair in pairs if pair.true != pair.called)[:MOST_CONFUSED]

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON types: first who was scored, then the scores."""
        told = super().to_dict()
        scores = {field.name for field in fields(ScoresOnTest)}
        first = [field.name for field in fields(self) if field.name not in scores and field.name not in _AFTERWARDS]
        return {name: told.pop(name) for name in first} | told


_AFTERWARDS = ("article", "difference", "ensemble", "recommended")


@dataclass(frozen=True, kw_only=True)
class HeadOnTest(ScoresOnTest):
    """A head on the test rows.

    Attributes:
        trial: Number of the trial that it comes from.
    """

    trial: int


@dataclass(frozen=True, kw_only=True)
class EnsembleOnTest(ScoresOnTest):
    """The average of several heads on the test rows.

    Attributes:
        trials: Numbers of the trials that they come from.
    """

    trials: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Difference(Recorded):
    """Accuracy on the test rows, of the winner or of what is recommended, less that of the article's head.

    Attributes:
        value: In [-1, 1].
        interval: 95% interval of it, patients as units.
        larger_than_chance: Whether the interval leaves 0 out.
    """

    value: float
    interval: tuple[float, float]
    larger_than_chance: bool


@dataclass(frozen=True, kw_only=True)
class RecommendedOnTest(EnsembleOnTest):
    """What is recommended, on the test rows, where that is not the single winner.

    Attributes:
        kind: See ``Contender``.
        difference: Between it and the article's head; None where that did not come through, or is recommended.
    """

    kind: Kind
    difference: Difference | None = None


@dataclass(frozen=True, kw_only=True)
class HeldOutTest(HeadOnTest):
    """What the test rows say: of the winner, and beside it of the article's head and of the ensemble.

    Attributes:
        is_article: Whether the winner is the article's head.
        uses: How often these rows have been used, 1 unless the study was gone on with and ended in other heads.
        heads: Stands for the weights of all heads that were scored.
        article: The article's head; None where it did not come through.
        difference: Between the winner and the article's head.
        ensemble: The average of the finalists; None where there are fewer than two.
        recommended: What is recommended, where that is not the single winner; None in older studies, too.
    """

    is_article: bool = False
    uses: int = 1
    heads: str = ""
    article: HeadOnTest | None = None
    difference: Difference | None = None
    ensemble: EnsembleOnTest | None = None
    recommended: RecommendedOnTest | None = field(default=None, metadata=OMIT_DEFAULT)

    @property
    def of_recommended(self) -> ScoresOnTest:
        """Of what is recommended: ``recommended``, or of the single winner where that is it, or nothing is."""
        return self.recommended or self

    @property
    def winner(self) -> str:
        """What the winner is called: the search found it, or nothing better than the article's."""
        return "the article's head" if self.is_article else "the found head"


@dataclass(frozen=True, kw_only=True)
class BankFigures(Recorded):
    """How well the bank was used.

    Attributes:
        pages: Pages of 16 channels that trained at once.
        dtype: Of its products.
        compilations: How often a program was compiled.
        heads_at_once: Heads that trained together, on the mean.
        page_occupancy: Share of the pages in use, on the mean.
        trial_epochs_per_second: Epochs of heads in a second.
        gflops: Rate of the matrix products, in 10^9 operations a second.
        peak_gflops: Rate of the bare products on this machine.
        fraction_of_peak: Of the two the ratio.
        training_seconds: In training and scoring.
        bookkeeping_seconds: In asking, judging, telling and storing while nothing trained.
        bookkeeping_share: Of all seconds.
    """

    pages: int
    dtype: str
    compilations: int
    heads_at_once: float
    page_occupancy: float
    trial_epochs_per_second: float | None
    gflops: float
    peak_gflops: float | None = None
    fraction_of_peak: float | None = None
    training_seconds: float
    bookkeeping_seconds: float
    bookkeeping_share: float | None


@dataclass(frozen=True, kw_only=True)
class OneAtATimeEstimate(Recorded):
    """What the study's trials would have taken one at a time.

    Attributes:
        seconds: For the whole study.
        seconds_per_trial: Of start-up.
        seconds_per_epoch: Of a trial-epoch.
        sampled: Numbers of the trials that it was reckoned from.
    """

    seconds: float
    seconds_per_trial: float
    seconds_per_epoch: float
    sampled: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class LeakCounts(Recorded):
    """What the study's parts share and should not.

    Attributes:
        patients_shared: Patients that have rows in two parts.
        near_identical: Pairs of nearly identical images in different parts; None where images have too few values to be
            compared.
    """

    patients_shared: int
    near_identical: int | None

    @classmethod
    def of(cls, audit: Audit) -> Self:
        """Takes over what was counted."""
        return cls(patients_shared=audit.patients_shared, near_identical=audit.near_identical)
