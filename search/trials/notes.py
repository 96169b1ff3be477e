"""What is noted of a trial in its user attributes: their names, and their values with types, are known here alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Self, TypedDict, Unpack

from optuna.trial import FrozenTrial, Trial

from heads.model.own import OwnSpec
from heads.model.spec import HeadSpec


class Notes(TypedDict, total=False):
    """What can be noted; see the properties of ``TrialNotes``."""

    ordinal: int
    rerun_of: int
    worker: str
    spec: HeadSpec
    own: OwnSpec
    store: str
    first_epoch: int
    learning_rates: Sequence[float]
    epochs: int
    best_epoch: int
    validation_loss: float
    validation_accuracy: float
    parameters: int
    failure: str
    pauses: Sequence[Sequence[str]]


@dataclass(frozen=True)
class TrialNotes:
    """What was noted of a trial. It is read where it is asked for: a study looks at its trials often.

    What every trial has that came so far is of a plain type, and KeyError where a trial did not.

    Attributes:
        attributes: The user attributes, of JSON types.
    """

    ORDINAL: ClassVar = "ordinal"
    WORKER: ClassVar = "worker"
    attributes: Mapping[str, Any]

    @classmethod
    def of(cls, trial: FrozenTrial | Trial) -> Self:
        """Returns the notes of a trial, which may be running."""
        return cls(trial.user_attrs)

    @staticmethod
    def as_attributes(**notes: Unpack[Notes]) -> dict[str, Any]:
        """Returns notes as user attributes, in the order given."""
        return {name: _stored(value) for name, value in notes.items()}

    @classmethod
    def write(cls, trial: Trial, **notes: Unpack[Notes]) -> None:
        """Notes something of a running trial, in the order given."""
        for name, value in cls.as_attributes(**notes).items():
            trial.set_user_attr(name, value)

    @property
    def ordinal(self) -> int:
        """Its place in the study, in which interrupted trials that were run again do not count; once it was asked."""
        return int(self.attributes["ordinal"])

    @property
    def has_ordinal(self) -> bool:
        """Whether it has its place: one whose run was killed in the very moment of asking has not."""
        return "ordinal" in self.attributes

    @property
    def rerun_of(self) -> int | None:
        """Number of the interrupted trial that it runs again."""
        return self.attributes.get("rerun_of")

    @property
    def worker(self) -> str | None:
        """Name of the process that took it, of those that work on one study; None in a study of one process."""
        return self.attributes.get("worker")

    @property
    def spec(self) -> HeadSpec:
        """The head, of those that a bank trains; once it was asked."""
        return HeadSpec.from_dict(self.attributes["spec"])

    @property
    def head(self) -> HeadSpec | OwnSpec:
        """The head, ours or one of somebody's own function; once it was asked."""
        return OwnSpec.from_dict(self.attributes["own"]) if "own" in self.attributes else self.spec

    @property
    def has_spec(self) -> bool:
        """Whether its head had been drawn, and is one that a bank trains."""
        return "spec" in self.attributes

    @property
    def has_head(self) -> bool:
        """Whether its head had been drawn."""
        return "spec" in self.attributes or "own" in self.attributes

    @property
    def store(self) -> str:
        """Name of the store that it trains on; '' in a study of one store. Once it was asked."""
        return str(self.attributes.get("store", ""))

    @property
    def first_epoch(self) -> int:
        """Epoch of the bank, from 0, that was its first; once it was in the bank."""
        return int(self.attributes["first_epoch"])

    @property
    def has_begun(self) -> bool:
        """Whether it was in a bank."""
        return "first_epoch" in self.attributes

    @property
    def learning_rates(self) -> list[float]:
        """The rate of each epoch up to its best one; of a completed trial."""
        return list(self.attributes["learning_rates"])

    @property
    def epochs(self) -> int:
        """Epochs that it trained; 0 where it has not finished."""
        return int(self.attributes.get("epochs", 0))

    @property
    def best_epoch(self) -> int:
        """The epoch (1-based) whose score counts; of a completed trial."""
        return int(self.attributes["best_epoch"])

    @property
    def validation_loss(self) -> float:
        """In its best epoch, in nats; of a completed trial."""
        return float(self.attributes["validation_loss"])

    @property
    def validation_accuracy(self) -> float:
        """In its best epoch, in [0, 1]; of a completed trial."""
        return float(self.attributes["validation_accuracy"])

    @property
    def parameters(self) -> int:
        """Numbers that the head is made of, moving statistics included; of a completed trial."""
        return int(self.attributes["parameters"])

    @property
    def pauses(self) -> list[tuple[datetime, datetime]]:
        """From when to when nothing ran, each time that it was gone on with from a snapshot; they may overlap."""
        told = self.attributes.get("pauses", [])
        return [(datetime.fromisoformat(since), datetime.fromisoformat(until)) for since, until in told]

    @property
    def failure(self) -> str | None:
        """Why it could not go on; None where it could."""
        return self.attributes.get("failure")


def _stored(value: Any) -> Any:
    return value.to_dict() if isinstance(value, HeadSpec | OwnSpec) else value
