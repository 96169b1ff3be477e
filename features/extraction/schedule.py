"""Which rows are computed together: of one store, or of several that have got to different places."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from features.extraction.pipeline import EMPTY
from features.store.schema import RowState
from features.store.writer import StoreWriter


@dataclass(frozen=True)
class Open:
    """A store that is being written.

    Attributes:
        writer: Its writer.
        updates: Whether it takes rows over from an older store, so that any of its rows may be pending.
    """

    writer: StoreWriter
    updates: bool


def shared_batches(stores: Sequence[Open], batch_size: int) -> list[tuple[Sequence[int], ...]]:
    """Returns for each batch the rows that each of the stores needs of it: no row is in two batches.

    A store that was begun and not finished gets whole batches, as it had them before; of one that is updated the rows
    that are pending and no others, in few batches, each at the place that it has when all rows are computed in turn.
    Where another store gets the whole batch, they go along with that.

    Args:
        stores: Of the same images, in the same batches.
        batch_size: Images in a forward pass.

    Returns:
        Rows by place, ``EMPTY`` where a store needs none; nothing for a store that needs nothing of a batch.
    """
    needs = [_Need.of(store) for store in stores]
    starts = set[int]().union(*(need.starts for need in needs))
    alone = {row for need in needs for row in need.rows if row - row % batch_size not in starts}
    end = len(stores[0].writer.header)
    whole = [range(start, min(start + batch_size, end)) for start in sorted(starts)]
    batches: list[Sequence[int]] = [*whole, *batches_in_place(sorted(alone), batch_size)]
    return [tuple(need.of_batch(rows) for need in needs) for rows in batches]


def batches_in_place(rows: list[int], batch_size: int) -> list[list[int]]:
    """Puts rows into few batches, each at the place that it has when all rows are computed in turn.

    The last bits of a feature may depend on that place, and on nothing else of the batch.
    """
    met: Counter[int] = Counter()
    batches: list[list[int]] = []
    for row in rows:
        place = row % batch_size
        if met[place] == len(batches):
            batches.append([EMPTY] * batch_size)
        batches[met[place]][place] = row
        met[place] += 1
    return batches


@dataclass(frozen=True)
class _Need:
    """What a store needs: whole batches, by their first rows, or single rows."""

    starts: frozenset[int] = frozenset()
    rows: frozenset[int] = frozenset()

    @classmethod
    def of(cls, store: Open) -> _Need:
        if not store.updates:
            return cls(starts=frozenset(rows.start for rows in store.writer.pending()))
        return cls(rows=frozenset(np.flatnonzero(store.writer.done == RowState.PENDING).tolist()))

    def of_batch(self, rows: Sequence[int]) -> Sequence[int]:
        if isinstance(rows, range) and rows.start in self.starts:
            return rows
        found = [row if row in self.rows else EMPTY for row in rows]
        return found if any(row != EMPTY for row in found) else ()
