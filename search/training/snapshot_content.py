"""What the JSON part of a snapshot holds: made to be written, and checked before anything of it is used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)

from heads.bank.pages import Placement
from heads.bank.shape import BankShape
from heads.metrics.scoring import EpochRecord, Score
from search.setup.stores import ALONE
from search.training.banked_trial import BankedTrial
from search.training.throughput import Throughput
from search.trials.ask_tell import Asked


def _is_time(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is not None:
        raise ValueError(f"expected a time without a zone, found {text!r}")
    return text


def _of_any_version(value: Any, made: ValidatorFunctionWrapHandler) -> BankShape:
    if not isinstance(value, dict) or "tiles" in value:
        shape: BankShape = made(value)
        return shape
    shape = made({"tiles": 0, **value})  # from before there were any
    return replace(shape, tiles=shape.most_tiles)


_Shape = Annotated[BankShape, WrapValidator(_of_any_version)]
_Slot = tuple[NonNegativeInt, tuple[NonNegativeInt, ...]]


class _Score(BaseModel):
    loss: float
    accuracy: float
    merit: float  # the ranking score

    @model_validator(mode="before")
    @classmethod
    def _of_any_version(cls, value: Any) -> Any:
        """The first files ranked by accuracy alone, and do not say so."""
        has_accuracy = isinstance(value, dict) and "accuracy" in value
        return {"merit": value["accuracy"], **value} if has_accuracy else value


class _Best(BaseModel):
    model_config = ConfigDict(extra="forbid")

    epoch: PositiveInt
    train_loss: float
    validation: _Score
    learning_rate: float

    @classmethod
    def of(cls, record: EpochRecord) -> _Best:
        validation = record.validation
        score = _Score(loss=validation.loss, accuracy=validation.accuracy, merit=validation.ranking_score)
        return cls(
            epoch=record.epoch, train_loss=record.train_loss, validation=score, learning_rate=record.learning_rate
        )

    def record(self) -> EpochRecord:
        validation = self.validation
        score = Score(validation.loss, validation.accuracy, validation.merit)
        return EpochRecord(self.epoch, self.train_loss, score, self.learning_rate)


class TrialContent(BaseModel):
    """A trial in the bank.

    Attributes:
        number: Of the trial.
        first_epoch: As of ``BankedTrial``, with all that follows.
        epochs: How many it has trained.
        best: Its best epoch so far.
        rates: Its learning rates.
        place: Its slot and its pages.
    """

    number: NonNegativeInt
    first_epoch: NonNegativeInt
    epochs: NonNegativeInt
    best: _Best | None
    rates: list[float]
    place: _Slot

    @classmethod
    def of(cls, banked: BankedTrial, placement: Placement) -> TrialContent:
        """Returns what is noted of a trial and its placement."""
        return cls(
            number=banked.asked.number,
            first_epoch=banked.first_epoch,
            epochs=banked.epochs,
            best=_Best.of(banked.best) if banked.best else None,
            rates=banked.rates,
            place=placement,
        )

    def banked_trial(self, asked: Asked) -> BankedTrial:
        """Returns the trial as it goes on; it has no slot yet."""
        best = self.best.record() if self.best else None
        return BankedTrial(asked, -1, self.first_epoch, self.epochs, best, list(self.rates))


class Content(BaseModel):
    """All of it, in the order in which it is written.

    Attributes:
        schema_: Of the file.
        journal_bytes: Length of the journal when the snapshot was taken; 0 beside a database.
        journal_sha256: Hash of the journal then; None in a snapshot from before that was noted, and beside a database.
        finished: Trials that had been told; None in a snapshot from before they were counted, which goes with a
            journal.
        taken: When, in local time without a zone; None in one from before that was noted.
        epoch: Epochs that the bank has trained.
        shape: Of the first bank.
        shapes: Of all of them by the store's name; None in a study of one store.
        folds: Heads of each trial.
        waiting: Numbers of the trials that were asked for and had no place yet.
        meter: What had been measured.
        members: The trials in the banks.
    """

    schema_: Literal[1] = Field(alias="schema")
    journal_bytes: NonNegativeInt
    journal_sha256: str | None = None
    finished: NonNegativeInt | None = None
    taken: Annotated[str, AfterValidator(_is_time)] | None = None
    epoch: NonNegativeInt
    shape: _Shape
    shapes: dict[str, _Shape] | None = None
    folds: PositiveInt
    waiting: list[NonNegativeInt]
    meter: Throughput
    members: list[TrialContent]

    @field_validator("shapes", mode="after")
    @classmethod
    def _at_least_one(cls, value: dict[str, BankShape] | None) -> dict[str, BankShape] | None:
        if value is not None and not value:
            raise ValueError("expected the shape of a bank, found none")
        return value

    @property
    def by_store(self) -> Mapping[str, BankShape]:
        """The shape of each bank, by the store's name."""
        return {ALONE: self.shape} if self.shapes is None else self.shapes

    def to_json(self) -> str:
        """Returns the text that is written."""
        return json.dumps(self.model_dump(by_alias=True, exclude={"shapes"} if self.shapes is None else None))
