"""All that is private to Ray and known here; the tests of ``search.workers`` say where an upgrade broke it."""

from __future__ import annotations

from importlib import import_module


def keep_quiet() -> None:
    """Keeps Ray from writing to this process' standard output, which it does where a worker dies, asked or not."""
    module = import_module("ray._private.worker")
    if hasattr(module, "print_to_stdstream"):
        module.print_to_stdstream = _unseen  # type: ignore[attr-defined]


def _unseen(*told: object, **named: object) -> None:
    """Stands for what prints."""
