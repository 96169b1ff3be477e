"""A small study by its commands, each in a process of its own, and its table of trials."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from conftest import ROOT

from search.record.storage import load_study
from search.trials.ranking import is_counted

STUDY = """
name = "tiny"
[run]
trials = 8
epochs = 6
batch_size = 16
[space]
conv_width = { low = 16, high = 48, step = 16 }
dropout = { low = 0.0, high = 0.5 }
pooling = ["flatten", "average", "max"]
dense_layers = [0, 1]
learning_rate = { low = 1e-4, high = 1e-1, log = true }
"""


def command(module: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", module, *map(str, arguments)]


def run(module: str, *arguments: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command(module, *arguments), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    return done


def table(folder: Path) -> list[tuple]:
    trials = [t for t in load_study(folder, "tiny", None).get_trials() if is_counted(t)]
    trials.sort(key=lambda t: t.user_attrs["ordinal"])
    return [(t.user_attrs["ordinal"], t.state, t.value, t.params, t.intermediate_values) for t in trials]
