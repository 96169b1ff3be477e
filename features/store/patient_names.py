"""Patients as a column or an array calls them: numbers that were floats for a while, and words that name nobody."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from features.runtime.text import printable

_WHOLE_FLOAT = re.compile(r"-?[0-9]+\.0+")
_FRACTION = re.compile(r"-?[0-9]*\.[0-9]*[1-9][0-9]*")
_NOBODY = frozenset(
    (
        *("na", "n/a", "n.a.", "#n/a", "<na>", "nan", "nat", "none", "null", "nil", "unknown", "unk", "missing"),
        *("not available", "undefined", "anonymous", "anonymized", "anonymised", "?", "-", "--", "."),
    )
)
_FEWEST = 2
"""Rows from which a word is told: one is a patient of its own in any case."""


def without_point(text: str) -> str:
    """Returns ``12`` for ``12.0``, as a column with a gap makes of whole numbers; other text as it is."""
    return text.partition(".")[0] if _WHOLE_FLOAT.fullmatch(text) else text


def as_one_spelling(patients: Sequence[str]) -> list[str]:
    """Returns the patients with ``12.0`` as ``12``, the same in every table; as they are where one has a fraction."""
    if any(map(_FRACTION.fullmatch, patients)):
        return [*patients]
    return [*map(without_point, patients)]


def remarks_on_words(patients: Sequence[str]) -> Iterator[str]:
    """Yields a line for each word such as ``NA`` that is the patient of several rows, and so keeps them together."""
    for name, rows in Counter(patients).items():
        if rows >= _FEWEST and name.casefold() in _NOBODY:
            yield (
                f"{rows:,} rows are of one patient, {printable(repr(name))}, and stay together: where that means"
                " unknown, leave it empty"
            )
