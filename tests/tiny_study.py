"""A small study: its file, and its table of trials."""

from __future__ import annotations

from pathlib import Path

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
ONE_KIND = STUDY.replace('["flatten", "average", "max"]', '["flatten"]').replace("dense_layers = [0, 1]\n", "")
"""Of which a bank is compiled sooner."""


def table(folder: Path, name: str = "tiny") -> list[tuple]:
    trials = [t for t in load_study(folder, name, None).get_trials() if is_counted(t)]
    trials.sort(key=lambda t: t.user_attrs["ordinal"])
    return [(t.user_attrs["ordinal"], t.state, t.value, t.params, t.intermediate_values) for t in trials]
