"""What a head's file says of its training after the search, on training and validation rows together."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from features.hdf5.values import is_text, shown


@dataclass(frozen=True, kw_only=True)
class Refitted:
    """How a head was trained again.

    Attributes:
        parts: On which parts.
        stores: Fingerprints of their stores, where these are two.
        rows: How many rows these were; None for an average of heads, as all that follows.
        epochs: How long.
        repeats: How many heads like it were trained and scored before; None where none was.
        mean: Of their values; None also where all of them diverged.
        sd: Standard deviation of these; None for fewer than two.
    """

    parts: tuple[str, ...]
    stores: tuple[str, ...] = ()
    rows: int | None = None
    epochs: int | None = None
    repeats: int | None = None
    mean: float | None = None
    sd: float | None = None

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> Refitted:
        """Checks what a file says; what it says beside that is left out.

        Raises:
            ValueError: A value is missing or of another kind.
        """
        made = cls(
            parts=_texts("parts", told.get("parts", [])),
            stores=_texts("stores", told.get("stores", [])),
            rows=_count("rows", told.get("rows")),
            epochs=_count("epochs", told.get("epochs")),
            repeats=_count("repeats", told.get("repeats")),
            mean=_number("mean", told.get("mean")),
            sd=_number("sd", told.get("sd")),
        )
        for name, other in (("rows", "epochs"), ("epochs", "rows"), ("mean", "repeats"), ("mean", "rows")):
            if getattr(made, name) is not None and getattr(made, other) is None:
                raise ValueError(f"{other}: expected a number, as there is one for {name}, found none")
        return made

    def to_dict(self) -> dict[str, Any]:
        """Returns what the file of a head says; of an average it says less."""
        told: dict[str, Any] = {"parts": list(self.parts)} if self.parts else {}
        if self.stores:
            told["stores"] = list(self.stores)
        if self.rows is None:
            return told
        return told | {name: getattr(self, name) for name in ("rows", "epochs", "repeats", "mean", "sd")}


def refit_of_any(refits: Iterable[Refitted | None]) -> Refitted | None:
    """Returns on what the members of an average were trained again, any of them; None where none was."""
    told = [refit for refit in refits if refit is not None]
    if not told:
        return None
    parts = dict.fromkeys(part for refit in told for part in refit.parts)
    stores = dict.fromkeys(store for refit in told for store in refit.stores)
    return Refitted(parts=tuple(parts), stores=tuple(stores))


def _texts(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) and is_text(one) for one in value):
        raise ValueError(f"{name}: expected texts, found {shown(value)}")
    return tuple(value)


def _count(name: str, value: Any) -> int | None:
    if value is None or (type(value) is int and value >= 0):
        return value
    raise ValueError(f"{name}: expected a whole number, found {shown(value)}")


def _number(name: str, value: Any) -> float | None:
    if value is None or (type(value) in (int, float) and math.isfinite(value)):
        return None if value is None else float(value)
    raise ValueError(f"{name}: expected a number, found {shown(value)}")
