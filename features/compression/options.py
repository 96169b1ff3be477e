"""The options of ``features.compress`` and of its Python function, each said once."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

CHANNELS = 256


class CompressionOptions(BaseModel):
    """How far a store is compressed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels: int = Field(default=CHANNELS, ge=1, description="Channels to keep: the strongest directions of all.")
