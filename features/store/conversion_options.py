"""The options of ``features.convert`` and of its Python function, each said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from features.runtime.options import joined
from features.store.limits import MOST_IN_BATCH


class ConversionOptions(BaseModel):
    """What is known of the rows beside what the source says, and how the result is kept.

    In Python ``classes`` may be a list.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    labels: Path | None = Field(default=None, description="Beside X.npy: class indices or names, as .npy.")
    paths: Path | None = Field(default=None, description="Beside X.npy: a name of each row, as .npy.")
    patients: Path | None = Field(default=None, description="Beside X.npy: the patient of each row, as .npy.")
    parts: Path | None = Field(
        default=None, description="Beside X.npy: train, validation or test for each row, as .npy."
    )
    classes: Annotated[str | None, BeforeValidator(joined)] = Field(
        default=None,
        description="Class names in label order, joined by commas; else those in the labels, or class-0, class-1, ... "
        "(of the article's layout with four and its 8 x 8 x 2048, the article's).",
    )
    dtype: Literal["float16", "float32"] | None = Field(
        default=None,
        description="Of the store that is made; else that of the arrays, or float16.",
    )
    batch_size: int | None = Field(
        default=None,
        ge=1,
        le=MOST_IN_BATCH,
        description="Rows in a batch; else the article's own where that is known, else 100.",
    )

    @property
    def beside(self) -> dict[str, Path]:
        """The files that belong to X as ``.npy``, by option."""
        told = {"labels": self.labels, "paths": self.paths, "patients": self.patients, "parts": self.parts}
        return {name: path for name, path in told.items() if path is not None}
