"""Ctrl-C before a command has begun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

INTERRUPT = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nfor _ in range(10**8): pass\n"
TELL = "import signal\nprint(signal.getsignal(signal.SIGINT) is signal.default_int_handler)\n"


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    return subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True, check=False)


@pytest.fixture(autouse=True)
def _heeded():
    """A test run that was itself started with the signal ignored hands that on."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("command", ["features.info", "heads.predict", "search.run"])
def test_while_a_command_imports_it_ends_with_a_word(command, tmp_path):
    (tmp_path / "typer.py").write_text(INTERRUPT)
    ended = run(tmp_path, "-m", command, "--help")
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "interrupted\n")


@pytest.mark.parametrize("program", [("-c", f"import features, heads, search\n{TELL}"), ("-m", "theirs.program")])
def test_a_program_that_imports_the_packages_keeps_its_own_way(program, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "__init__.py").write_text("import features, heads, search\n")
    (theirs / "program.py").write_text(TELL)
    assert run(tmp_path, *program).stdout == "True\n"
