"""Every command: help without starting a backend, and wrong usage in one line with exit status 2."""

import ast
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import ROOT

COMMANDS = (
    "features.extract",
    "features.compress",
    "features.convert",
    "features.info",
    "heads.evaluate",
    "heads.predict",
    "search.run",
    "search.cluster",
    "search.export",
    "search.report",
    "search.dashboard",
)
WRONG = {
    "features.extract": ("no/such/folder", "out.h5"),
    "features.compress": ("no/such/file.h5", "out.h5"),
    "features.convert": ("no/such/file.h5", "out.h5"),
    "features.info": ("no/such/file.h5",),
    "heads.evaluate": ("no/such/head.hdf5", "no/such/store.h5"),
    "heads.predict": ("no/such/head.hdf5", "no/such/image.png"),
    "search.run": ("--features", "no/such/store.h5", "--out", "study"),
    "search.cluster": ("run", "--address", "local", "--features", "no/such/store.h5", "--out", "study"),
    "search.export": ("no/such/study", "out.hdf5"),
    "search.report": ("no/such/study",),
    "search.dashboard": ("no/such/study",),
}
"""Arguments that name what is not there."""

# Runs a command in the ways given as `python -m` does; says what each printed, and which backends are loaded after it.
RUN = """
import contextlib, io, json, runpy, sys
module, ways = sys.argv[1], json.loads(sys.argv[2])
for arguments in ways:
    sys.argv = [module, *arguments]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            status = end.code
    loaded = sorted({"keras", "tensorflow", "jax"} & sys.modules.keys())
    print(json.dumps([status, out.getvalue(), err.getvalue().splitlines(), loaded]))
"""


def found_commands() -> set[str]:
    """Modules of the three packages with a ``main`` that runs as a script."""
    found = set()
    for package in ("features", "heads", "search"):
        for path in (ROOT / package).glob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            if any(isinstance(node, ast.If) and "__main__" in ast.unparse(node.test) for node in tree.body):
                found.add(f"{package}.{path.stem}")
    return found


@dataclass(frozen=True)
class Run:
    """What a command did, given some arguments."""

    status: int
    output: str
    errors: list[str]
    loaded: list[str]
    """Backends that are loaded."""


@pytest.fixture(scope="module", params=sorted(found_commands() | set(COMMANDS)))
def runs(request, tmp_path_factory) -> tuple[str, dict[str, Run], Path]:
    """(the command's module, its runs by name, the folder that they ran in)."""
    module, folder = request.param, tmp_path_factory.mktemp("commands")
    ways = {"help": ("--help",), "unknown": ("--no-such-option",), "nothing": (), "wrong": WRONG.get(module, ())}
    if module == "search.run":  # which needs no arguments
        ways["nothing"] = ("--trials",)
    if module == "search.cluster":
        ways |= {f"help of {name}": (name, "--help") for name in ("run", "extract")}
    command = [sys.executable, "-c", RUN, module, json.dumps(list(ways.values()))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=True)
    said = [Run(*json.loads(line)) for line in done.stdout.splitlines()]
    return module, dict(zip(ways, said, strict=True)), folder


def test_every_documented_command_is_there():
    assert set(COMMANDS) <= found_commands()
    assert WRONG.keys() == set(COMMANDS)


def test_help_is_printed_without_starting_a_backend(runs):
    run = runs[1]["help"]
    assert (run.status, run.errors, run.loaded) == (0, [], [])
    assert "Usage:" in run.output
    assert "--help" in run.output
    strange = {sign for sign in run.output if not (sign.isascii() or "\u2500" <= sign <= "\u257f")}
    assert not strange  # Rich takes words between colons for emoji, and cuts off with an ellipsis


def test_help_is_filled_to_the_width_of_the_terminal(runs):
    for paragraph in re.split(r"\n\s*\n", runs[1]["help"].output.partition("╭")[0]):
        lines = [line.rstrip() for line in paragraph.splitlines() if line.strip()]
        assert all(len(line) + len(f" {after.split()[0]}") > 78 for line, after in pairwise(lines)), paragraph


@pytest.mark.parametrize("runs", ["search.cluster", "search.report"], indirect=True)
def test_defaults_that_follow_from_something_stand_in_help(runs):
    module, run, _ = runs
    told = run["help of run" if module == "search.cluster" else "help"]
    assert "[default: " in told.output  # Rich takes brackets for its own


def test_help_speaks_of_the_options_that_the_command_has_or_says_which_command_has_them(runs):
    for name, run in runs[1].items():
        if not name.startswith("help"):
            continue
        own = set(re.findall(r"^│ {1,4}(?:\* +)?(--[a-z-]+)", run.output, re.MULTILINE))
        told = re.findall(r"(\S+) \(?(--[a-z][a-z-]*[a-z])", " ".join(run.output.replace("│", " ").split()))
        others = {(before, option) for before, option in told if option not in own}
        assert {before for before, _ in others} <= set(COMMANDS), others


@pytest.mark.parametrize("runs", ["features.extract", "search.run", "search.cluster"], indirect=True)
def test_several_backbones_are_offered_where_they_are_taken(runs):
    module, ways, _ = runs
    for name, run in ways.items():
        offered = "joined by commas make a store each" in " ".join(run.output.replace("│", " ").split())
        assert offered == (module == "features.extract" and name == "help")


def test_an_unknown_option_is_one_line_and_exit_status_2(runs):
    run = runs[1]["unknown"]
    assert (run.status, run.output, run.loaded) == (2, "", [])
    (line,) = run.errors
    assert line.startswith("error: ")
    assert "--no-such-option" in line
    assert line.endswith("(see --help)")


def test_a_missing_argument_is_named(runs):
    run = runs[1]["nothing"]
    assert (run.status, run.output, run.loaded) == (2, "", [])
    (line,) = run.errors
    assert line.startswith(
        ("error: Missing argument '", "error: Missing command", "error: Option '--trials' requires an argument")
    )


def test_what_is_not_there_is_named_in_one_line_and_nothing_is_left_behind(runs):
    module, ways, folder = runs
    if module not in WRONG:
        pytest.fail(f"{module} has no line in WRONG")
    run = ways["wrong"]
    assert (run.status, run.output) == (2, "")
    (line,) = [line for line in run.errors if line.strip()]
    assert line.startswith("error: no/such/"), run.errors
    assert ": expected " in line
    assert ", found " in line
    assert not list(folder.iterdir())
