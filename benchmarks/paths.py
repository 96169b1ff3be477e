"""Where the project is, for benchmarks, and what its tests make stores and studies with."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def use_tests() -> None:
    """Lets benchmarks import ``tests/made_*.py`` and the like, from within functions."""
    if (tests := str(ROOT / "tests")) not in sys.path:
        sys.path.insert(0, tests)
