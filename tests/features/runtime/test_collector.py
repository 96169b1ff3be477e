"""The collector of cycles: at rest while Keras is imported, and in a command's process until its end."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest
from conftest import ROOT

from features.runtime.collector import importing

SCRIPT = """
import gc, os, sys, weakref
from features.runtime.backend import start_backend, use_backend
from features.runtime.command import run_command

class Cycle:
    def __init__(self):
        self.itself = self
    def __del__(self):
        os.write(1, b"looked through")

def main():
    use_backend("jax")
    start_backend()
    print(gc.isenabled(), gc.get_freeze_count() > 100_000, flush=True)
    passing = Cycle()
    passing.__class__ = type("Passing", (), {})
    told = weakref.ref(passing)
    del passing
    gc.collect()
    print(told() is None, flush=True)
    globals()["kept"] = Cycle()
    start_backend()

run_command(main) if sys.argv.pop() == "command" else main()
"""


@pytest.mark.parametrize(
    ("how", "frozen", "at_the_end"), [("command", "True", ""), ("by itself", "False", "looked through")]
)
def test_a_command_looks_through_what_it_makes_and_through_nothing_at_its_end(how, frozen, at_the_end):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=True, cwd=ROOT, timeout=120
    )
    assert done.stdout == f"True {frozen}\nTrue\n{at_the_end}"


@pytest.mark.parametrize("running", [True, False])
def test_it_is_left_as_it_was(running):
    before = gc.isenabled()
    (gc.enable if running else gc.disable)()
    try:
        with pytest.raises(ImportError), importing():
            assert not gc.isenabled()
            raise ImportError
        assert gc.isenabled() is running
    finally:
        (gc.enable if before else gc.disable)()
