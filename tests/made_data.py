"""The rows of a made store, split as a search splits them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from search.setup.data import SearchData, load_data


def made_data(path: Path, *, share: float = 0.2, **changes: Any) -> SearchData:
    """Splits a store's rows; ``changes`` as ``load_data`` takes them.

    Args:
        path: The store.
        share: Of its rows, to validate on, and as many to test on.
        **changes: What is not to be as here.
    """
    told = {"validation": None, "test": None, "validation_share": share, "test_share": share, "seed": 0}
    return load_data(path, **(told | changes))
