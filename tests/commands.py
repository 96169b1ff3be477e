"""Commands as tests run them: in this process, which saves the start of a backend, or in one of their own."""

from __future__ import annotations

import io
import runpy
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple
from unittest.mock import patch

from conftest import ROOT


class Said(NamedTuple):
    """What a command ended with, and what it wrote."""

    status: int
    out: str
    err: str


def invoke(module: str, *arguments: object) -> Said:
    """Runs a command in this process as ``python -m`` does: its module runs as ``__main__`` and is not imported.

    Args:
        module: Dotted name of the command.
        arguments: Its command line. ``--backend`` can only name the one that this process uses.
    """
    with (
        patch.object(sys, "argv", [module, *map(str, arguments)]),
        redirect_stdout(io.StringIO()) as out,
        redirect_stderr(io.StringIO()) as err,
    ):
        try:
            runpy.run_module(module, run_name="__main__")
        except SystemExit as end:
            assert isinstance(end.code, int)
            return Said(end.code, out.getvalue(), err.getvalue())
    raise AssertionError(f"{module} ended without an exit status")


def succeed(module: str, *arguments: object) -> Said:
    """``invoke``, for a command that must end well."""
    said = invoke(module, *arguments)
    assert said.status == 0, said.err[-3000:]
    return said


def command(module: str, *arguments: object) -> list[str]:
    """Returns the words that start a command in a process of its own."""
    return [sys.executable, "-m", module, *map(str, arguments)]


def words(options: Mapping[str, object]) -> list[str]:
    """Returns options of the Python API as a command line has them."""
    return [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def run(module: str, *arguments: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Runs a command in a process of its own, to its end."""
    done = subprocess.run(command(module, *arguments), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    return done
