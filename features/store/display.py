"""A store as people look at it: a table of its images, a line, a few facts for a notebook, as a head's, too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from features.runtime.text import printable
from features.store.schema import RowState, StoreHeader

if TYPE_CHECKING:
    import pandas as pd

_NAMED = 8
"""Classes that a line names."""


def frame_of(header: StoreHeader, done: npt.NDArray[np.uint8]) -> pd.DataFrame:
    """Returns a table with one row per image: path, class, patient ('' where unknown) and state.

    Args:
        header: The store's header.
        done: (rows,) state of each row; ``done``, ``skipped`` or ``pending`` in the table.
    """
    import pandas as pd  # half a second that most who open a store need not spend

    states = {int(state): state.name.lower() for state in RowState}
    return pd.DataFrame(
        {
            "path": list(header.paths),
            "class": [header.classes[label] for label in header.labels],
            "patient": list(header.patients),
            "state": [states.get(state, f"unknown ({state})") for state in done.tolist()],
        }
    )


def facts_of(header: StoreHeader, done: npt.NDArray[np.uint8]) -> dict[str, str]:
    """Returns what is worth knowing of a store at a glance, by what each line is about."""
    states = Counter(done.tolist())
    rest = [f"{states[state]:,} {state.name.lower()}" for state in (RowState.SKIPPED, RowState.PENDING)]
    rest = [text for text in rest if not text.startswith("0 ")]
    counts = Counter(header.labels)
    shown = [f"{printable(name)} {counts[label]:,}" for label, name in enumerate(header.classes)]
    more = [f"{len(shown) - _NAMED} more"] if len(shown) > _NAMED else []
    return {
        "images": ", ".join([f"{len(header):,}", *rest]),
        "classes": ", ".join(shown[:_NAMED] + more),
        "patients": f"{len(set(header.patients) - {''}):,}",
        "views": ", ".join(header.views),
        **{name: printable(text) for name, text in header.texts().items()},
        "features": features_of(header),
    }


def features_of(header: StoreHeader) -> str:
    """Returns shape and dtype of a bottleneck, and of how many channels it was made, for people."""
    told = f"{' x '.join(map(str, header.feature_shape))} {header.dtype}"
    return told if header.projection is None else f"{told}, compressed to {header.projection}"


def line_of(name: str, path: Path, facts: dict[str, str]) -> str:
    """Returns what ``repr`` says of a store."""
    images, rest = facts["images"].partition(", ")[::2]
    told = f"{images} images{' (' + rest + ')' if rest else ''} of {facts['classes']}"
    return f"<{name} {printable(str(path))}: {told}; {facts['features']} of {facts['backbone']}>"


def table_of(path: Path, facts: Mapping[str, str]) -> str:
    """Returns the facts about a file as an HTML table."""
    rows = (f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in facts.items())
    return f"<table><caption>{escape(printable(str(path)))}</caption>{''.join(rows)}</table>"
