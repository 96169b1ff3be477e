"""How a store's rows were split, as a head's file says it: what it takes to find the rows of the parts again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from features.hdf5.values import shown
from features.rows.given_parts import GIVEN

_LARGEST_SEED = 2**31 - 1
"""Of those that a search takes."""


@dataclass(frozen=True)
class SplitRecipe:
    """How the rows of the store that is trained on were split.

    With folds there is no validation part: all that is not for the test is training rows. Where another part has a
    store of its own, rows of its patients are not used; here they count with the part that they were left out of.

    Attributes:
        seed: Decides the split.
        validation: Share of the rows to validate on, 0 for none and for a store of its own.
        test: Likewise to test on.
        identity: Of the split that was made of these (``features.rows.split.Split.identity``).
        parts: ``given`` where the parts that the store itself says were used, and only those that it lacks split off;
            '' where all rows were split by patient.
    """

    seed: int
    validation: float
    test: float
    identity: str
    parts: str = ""

    @property
    def ignores_parts(self) -> bool:
        """Whether all rows were split, whatever the store says of their parts."""
        return self.parts != GIVEN

    def to_dict(self) -> dict[str, Any]:
        """Returns what a head's file holds; ``parts`` only where it says something."""
        return {name: value for name, value in vars(self).items() if name != "parts" or value}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SplitRecipe:
        """Returns what ``to_dict`` gave.

        Raises:
            ValueError: A value is missing, or is none of its kind.
        """
        told: dict[str, Any] = {**dict.fromkeys(("seed", "identity", "validation", "test")), "parts": "", **data}
        seed, identity, parts = told["seed"], told["identity"], told["parts"]
        shares = validation, test = told["validation"], told["test"]
        if type(seed) is not int or not 0 <= seed <= _LARGEST_SEED:
            raise ValueError(f"seed {shown(seed)}, which is none")
        if not all(type(share) in (int, float) and share >= 0 for share in shares) or not sum(shares) < 1:
            raise ValueError(f"validation {shown(validation)} and test {shown(test)}, which are no shares of the rows")
        if not isinstance(identity, str):
            raise ValueError(f"identity {shown(identity)}, which is none")
        if parts not in ("", GIVEN):
            raise ValueError(f"parts {shown(parts)}, which are not {GIVEN}")
        return cls(seed, validation, test, identity, parts)
