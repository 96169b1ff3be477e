"""What is noted of a trial in its user attributes: their names, and their values with types, are known here alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, ClassVar, Self, TypedDict, TypeVar, Unpack, get_type_hints

from optuna.trial import FrozenTrial, Trial, TrialState
from pydantic import AfterValidator, BaseModel, ConfigDict, NonNegativeInt, PlainValidator, PositiveInt, create_model

from heads.model.own import OwnSpec
from heads.model.spec import HeadSpec

T = TypeVar("T")


def _read_by(from_dict: Callable[[dict[str, Any]], T]) -> PlainValidator:
    """Makes of JSON what ``from_dict`` does."""

    def read(data: object) -> T:
        if not isinstance(data, dict):
            raise ValueError(f"expected an object, found {type(data).__name__}")
        return from_dict(data)

    return PlainValidator(read)


def _are_pauses(told: list[list[str]]) -> list[list[str]]:
    for since, until in told:
        times = datetime.fromisoformat(since), datetime.fromisoformat(until)
        if times[0].tzinfo is not None or times[1].tzinfo is not None or times[0] > times[1]:
            raise ValueError(f"expected an earlier and a later time without a zone, found {since!r} and {until!r}")
    return told


class Notes(TypedDict, total=False):
    """What can be noted, and what is checked of it in a record from elsewhere; see the properties of ``TrialNotes``."""

    ordinal: NonNegativeInt
    rerun_of: NonNegativeInt
    worker: str
    spec: Annotated[HeadSpec, _read_by(HeadSpec.from_dict)]
    own: Annotated[OwnSpec, _read_by(OwnSpec.from_dict)]
    store: str
    first_epoch: NonNegativeInt
    learning_rates: list[float]
    epochs: NonNegativeInt
    best_epoch: PositiveInt
    validation_loss: float
    validation_accuracy: float
    parameters: NonNegativeInt
    failure: str
    pauses: Annotated[list[list[str]], AfterValidator(_are_pauses)]


_PRUNED = ("ordinal", "spec", "epochs")
_NEEDED: Mapping[TrialState, tuple[str, ...]] = {
    TrialState.FAIL: ("ordinal",),
    TrialState.PRUNED: _PRUNED,
    TrialState.COMPLETE: (*_PRUNED, "best_epoch", "validation_loss", "validation_accuracy", "parameters"),
}
"""What a trial has, once it has ended so; one that was interrupted may have nothing."""


@dataclass(frozen=True)
class TrialNotes:
    """What was noted of a trial. It is read where it is asked for: a study looks at its trials often.

    What every trial has that came so far is of a plain type, and KeyError where a trial did not.

    Attributes:
        attributes: The user attributes, of JSON types.
    """

    ORDINAL: ClassVar = "ordinal"
    WORKER: ClassVar = "worker"
    FAILURE: ClassVar = "failure"
    attributes: Mapping[str, Any]

    @classmethod
    def of(cls, trial: FrozenTrial | Trial) -> Self:
        """Returns the notes of a trial, which may be running."""
        return cls(trial.user_attrs)

    @classmethod
    def as_rerun_of(cls, trial: FrozenTrial) -> dict[str, Any]:
        """Returns, as user attributes, the notes of a trial that is to run another again: it takes its ordinal."""
        notes = cls.of(trial)
        own = cls.as_attributes(ordinal=notes.ordinal) if notes.has_ordinal else {}
        return own | cls.as_attributes(rerun_of=trial.number)

    @staticmethod
    def as_attributes(**notes: Unpack[Notes]) -> dict[str, Any]:
        """Returns notes as user attributes, in the order given."""
        return {name: _stored(value) for name, value in notes.items()}

    @classmethod
    def write(cls, trial: Trial, **notes: Unpack[Notes]) -> None:
        """Notes something of a running trial, in the order given."""
        for name, value in cls.as_attributes(**notes).items():
            trial.set_user_attr(name, value)

    def check(self) -> None:
        """Makes sure that what is there is what can be noted.

        Raises:
            ValueError: Something is not; of pydantic's kind where that is known by its name. Or TypeError.
        """
        _CHECKED.model_validate(dict(self.attributes))

    def lacks(self, state: TrialState) -> str | None:
        """What is not there and that every trial in ``state`` has that was not interrupted; None where all is there."""
        there = {name for name, value in self.attributes.items() if value is not None}
        there |= {"spec"} if "own" in there else set()
        return next((name for name in _NEEDED.get(state, ()) if name not in there), None)

    @property
    def ordinal(self) -> int:
        """Its number in the study, in which interrupted trials that were run again do not count; once it was asked."""
        return int(self.attributes["ordinal"])

    @property
    def has_ordinal(self) -> bool:
        """Whether it has its ordinal: one whose run was killed in the very moment of asking has not."""
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
        noted = self.attributes.get("pauses", [])
        return [(datetime.fromisoformat(since), datetime.fromisoformat(until)) for since, until in noted]

    @property
    def failure(self) -> str | None:
        """Why it could not go on; None where it could."""
        return self.attributes.get("failure")


def _stored(value: Any) -> Any:
    return value.to_dict() if isinstance(value, HeadSpec | OwnSpec) else value


def _model_of(notes: Iterable[tuple[str, Any]]) -> type[BaseModel]:
    """Each may be missing."""
    fields: dict[str, Any] = {name: (kind | None, None) for name, kind in notes}
    return create_model("Notes", __config__=ConfigDict(strict=True), **fields)


_CHECKED = _model_of(get_type_hints(Notes, include_extras=True).items())
