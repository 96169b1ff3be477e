"""The tests of the bank once more, on JAX: one process has one backend."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_bank_passes_its_tests_on_jax():
    pytest.importorskip("jax")
    here = Path(__file__)
    tests = [str(path) for path in sorted(here.parent.glob("test_*.py")) if path != here]
    assert str(here.with_name("test_bank.py")) in tests
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n0", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout
