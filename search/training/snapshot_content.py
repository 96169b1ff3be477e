"""What the JSON part of a snapshot holds, as it is checked before anything of it is used."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, field_validator

from heads.bank.shape import BankShape


def _is_time(told: str) -> str:
    if datetime.fromisoformat(told).tzinfo is not None:
        raise ValueError(f"expected a time without a zone, found {told!r}")
    return told


class _Score(BaseModel):
    loss: float
    accuracy: float
    merit: float = math.nan


class _Best(BaseModel):
    model_config = ConfigDict(extra="forbid")

    epoch: PositiveInt
    train_loss: float
    validation: _Score
    learning_rate: float


class _Member(BaseModel):
    number: NonNegativeInt
    first_epoch: NonNegativeInt
    epochs: NonNegativeInt
    best: _Best | None
    rates: list[float]
    place: tuple[NonNegativeInt, list[NonNegativeInt]] | None


class Content(BaseModel):
    """What has to stand there."""

    schema_: Literal[1] = Field(alias="schema")
    journal_bytes: NonNegativeInt
    journal_sha256: str | None = None
    finished: NonNegativeInt | None = None
    epoch: NonNegativeInt
    shape: BankShape
    shapes: dict[str, BankShape] | None = None
    folds: PositiveInt
    waiting: list[NonNegativeInt]
    taken: Annotated[str, AfterValidator(_is_time)] | None = None
    meter: dict[str, float]
    members: list[_Member]

    @field_validator("shapes", mode="after")
    @classmethod
    def _at_least_one(cls, value: dict[str, BankShape]) -> dict[str, BankShape]:
        if not value:
            raise ValueError("expected the shape of a bank, found none")
        return value

    @field_validator("shape", mode="before")
    @classmethod
    def _from_before_tiles(cls, value: Any) -> Any:
        return {"tiles": 0, **value} if isinstance(value, dict) else value
