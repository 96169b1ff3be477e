"""The sizes of a study's banks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from heads.bank.shape import BankShape


@dataclass(frozen=True)
class BankShapes:
    """The shapes of a study's banks, one for each store.

    Attributes:
        by_store: By the store's name.
        pages: That may be in use at once, in all of them together: each bank may have so many by itself, and where the
            sampler goes, pages follow.
    """

    by_store: Mapping[str, BankShape]
    pages: int

    @property
    def first(self) -> BankShape:
        """That of the first store."""
        return next(iter(self.by_store.values()))
