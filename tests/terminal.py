"""Standard error as a program finds it that somebody calls in a terminal."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console


class Terminal(io.StringIO):
    """Keeps what is drawn."""

    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch, **options: Any) -> Console:
    """A console on one, with options of Rich's; the tests may themselves run below a notebook."""
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
    return Console(file=Terminal(), width=120, force_terminal=True, **options)
