"""The options of an export, each said once: of the command ``search.export`` and of ``Study.export``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from features.runtime.options import text_of

Kind = Literal["winner", "repeats", "ensemble", "article"]
"""What a study may recommend, see ``search.record.recommended``."""
Which = Literal["recommended", Kind]


class ExportOptions(BaseModel):
    """Which head leaves a study, and with what."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    trial: int | None = Field(
        default=None,
        ge=0,
        description="The head of this trial, if it was kept: as it was scored, with folds as it was trained again.",
    )
    which: Which | None = Field(
        default=None,
        description="What leaves: recommended by the study's rule (the default), winner (the single best head), "
        "repeats (the average of its copies from several seeds), ensemble (of the finalists) or article (its head).",
    )
    with_backbone: bool = Field(default=False, description="One model from image to class, preprocessing included.")
    weights: Annotated[str | None, BeforeValidator(text_of)] = Field(
        default=None,
        description="Where the backbone's weights are, if they came from a file; of several backbones FILE,FILE.",
    )
    backbone: Annotated[str | None, BeforeValidator(text_of)] = Field(
        default=None, description="Where the backbone is, if it is in a file of its own."
    )
