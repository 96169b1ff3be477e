"""A small study: its file, its store, what it has written and its table of trials."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from conftest import build_store

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


def tiny_store(folder: Path) -> Path:
    """Its store: 240 rows in two views."""
    return build_store(folder / "store.h5", rows=240, views=("identity", "flip"), shape=(3, 3, 8))


def read(folder: Path, name: str = "summary") -> dict[str, Any]:
    """What a study directory has as JSON under a name."""
    told: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return told


def table(folder: Path, name: str = "tiny") -> list[tuple]:
    trials = [t for t in load_study(folder, name, None).get_trials() if is_counted(t)]
    trials.sort(key=lambda t: t.user_attrs["ordinal"])
    return [(t.user_attrs["ordinal"], t.state, t.value, t.params, t.intermediate_values) for t in trials]
