"""Files of every kind, damaged at seeded places: read, or refused in one line; never a traceback, a crash or a hang."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import ROOT

TIME_LIMIT_S = 240
"""Of a process that reads hundreds of variants; on two idle cores each takes some seconds."""
GROUPS = {
    "stores": ("store:bytes:0:120", "store:parts:0:100", "article:bytes:0:60", "article:parts:0:50"),
    "heads": ("head:bytes:0:120", "head:parts:0:100", "ensemble:bytes:0:60", "ensemble:parts:0:40"),
    "a search that goes on": ("snapshot:bytes:0:80", "journal:bytes:0:60", "study:bytes:0:60", "study:parts:0:80"),
    "a study that is looked at": (
        *("journal-looked-at:bytes:0:60", "study-looked-at:parts:0:60", "study-looked-at:bytes:0:40"),
        *("summary:parts:0:120", "summary:bytes:0:60", "split:parts:0:40", "split:bytes:0:40"),
        *("audit:parts:0:40", "audit:bytes:0:40"),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_damaged_files_are_read_or_refused_in_one_line(group: str, tmp_path: Path) -> None:
    environment = {
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests"))),
        "KERAS_BACKEND": "jax" if find_spec("jax") else "tensorflow",  # which starts faster
    }
    command = [sys.executable, str(ROOT / "tests" / "fuzz.py"), str(tmp_path), *GROUPS[group]]
    at = tmp_path / "at"
    try:
        done = subprocess.run(
            command, env=os.environ | environment, capture_output=True, text=True, timeout=TIME_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.fail(f"it hung over: {at.read_text()}")
    trace = (tmp_path / "trace").read_text()
    assert done.returncode == 0, f"over: {at.read_text() if at.exists() else 'nothing'}\n{trace}\n{done.stderr[-3000:]}"
    told = json.loads(done.stdout.splitlines()[-1])
    assert set(told) == set(GROUPS[group])
    for job, counts in told.items():
        assert not counts["wrong"], f"{job}: {counts['wrong'][0]}"
        assert counts["refused"] or job.startswith("audit"), job  # a damaged audit is made anew
