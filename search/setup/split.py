"""What ``study.json`` and ``split.json`` say of how a study's rows are split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field, NonNegativeInt, SerializerFunctionWrapHandler, field_validator, model_serializer

from features.store.schema import Rows

PARTS = ("train", "validation", "test")


class StudySplit(BaseModel, frozen=True):
    """How a study's rows are split, but for the rows themselves. The fields are in the order of the files.

    What was not said stays so: a study in which something was not noted yet does not look as if it had been.

    Attributes:
        identity: Of the split (``features.rows.split.Split.identity``).
        counts: Rows of each part, by its name.
        class_counts: Likewise those of each class; empty in studies from before these were noted.
        patients: Known patients of each part, by its name.
        validation: Share of the rows that was split off to validate on; 0 with folds, or a store of its own.
        test: Likewise to test on.
        seed: Decides the split.
        folds: On which heads are judged; 0 for one validation part.
        parts: ``given`` where the parts that the store itself says are used, and only those that it lacks split off;
            None where all rows are split by patient.
        absent_classes: Names of the classes that a part has no image of, by the name of the part, or of the fold; empty
            in studies from before these were looked for.
    """

    identity: str
    counts: dict[str, NonNegativeInt]
    class_counts: dict[str, tuple[NonNegativeInt, ...]] = Field(default_factory=dict)
    patients: dict[str, NonNegativeInt]
    validation: float
    test: float
    seed: int
    folds: NonNegativeInt = 0
    parts: Literal["given"] | None = None
    absent_classes: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    @field_validator("counts", "patients")
    @classmethod
    def _of_each_part(cls, told: dict[str, int]) -> dict[str, int]:
        if told.keys() != set(PARTS):
            raise ValueError(f"expected numbers for {', '.join(PARTS)}")
        return told

    @model_serializer(mode="wrap")
    def _as_noted(self, dumped: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in dumped(self).items() if name in self.model_fields_set}

    def with_rows(self, rows: Mapping[str, Rows]) -> dict[str, Any]:
        """Returns what ``split.json`` holds: this, and the rows of each part, by its name."""
        noted = list(self.model_dump(mode="json").items())
        place = [name for name, _ in noted].index("validation")  # where they have always been
        return dict([*noted[:place], ("rows", {name: of.tolist() for name, of in rows.items()}), *noted[place:]])
