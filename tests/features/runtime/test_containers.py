"""Limits of control groups and of the shell bound what is planned; a machine without any is as large as it is."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from features.runtime import containers
from features.runtime.allocator import kept_memory
from features.runtime.containers import memory_left, processors_allowed
from features.runtime.memory import resident_budget
from features.runtime.portable import cpu_count

STAT = "anon 150\ninactive_file 500\nactive_file 250\ninactive_anon 7\ntotal_inactive_file 400\ntotal_active_file 100"
V1, V2 = "4:memory:/a/b\n1:cpu,cpuacct:/a/b\n0::/\n", "0::/a/b\n"
OF_V1 = {"memory.limit_in_bytes": "1000", "memory.usage_in_bytes": "900", "memory.stat": STAT}
HUGE = "9223372036854771712"


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Lays out control groups: the process's own list, and files by their place."""

    def lay(own: str, **files: str) -> None:
        for name, text in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
        (tmp_path / "self").write_text(own)

    monkeypatch.setattr(containers, "_ROOT", tmp_path / "cgroup")
    monkeypatch.setattr(containers, "_OWN", tmp_path / "self")
    monkeypatch.setattr(containers, "resource", None)
    return lay


@pytest.mark.parametrize(
    ("own", "files", "left"),
    [
        (V2, {"a/b/memory.max": "1000", "a/b/memory.current": "300"}, 700),
        (V2, {"memory.max": "1000", "memory.current": "300"}, 700),  # as seen from within a container
        (V2, {"a/memory.max": "900", "a/b/memory.max": "5000", "a/memory.current": "100"}, 800),  # the tightest
        (V2, {"a/b/memory.max": "max", "a/b/memory.high": "800"}, 800),
        (V2, {"a/b/memory.max": "1000", "a/b/memory.current": "900", "a/b/memory.stat": "inactive_file 500"}, 600),
        (V2, {"a/b/memory.max": "1000", "a/b/memory.current": "900", "a/b/memory.stat": STAT}, 850),  # read again, too
        (V2, {"a/b/memory.max": "1000", "a/b/memory.current": "700", "a/b/memory.stat": STAT}, 1000),
        (V2, {"a/b/memory.max": "1000", "a/b/memory.current": "1200"}, 0),
        (V2, {"a/b/memory.max": "max"}, None),
        (V2, {"a/b/memory.max": "rubbish"}, None),
        (V2, {}, None),
        ("", {"memory.max": "1000"}, None),
        ("0::/../other\n", {"memory.max": "1000"}, 1000),
        (V1, {"memory/a/b/memory.limit_in_bytes": "1000", "memory/a/b/memory.usage_in_bytes": "400"}, 600),
        (V1, {f"memory/{name}": text for name, text in OF_V1.items()}, 600),
        (V1, {"memory/memory.limit_in_bytes": "1000"}, 1000),
        (V1, {"memory/a/b/memory.limit_in_bytes": HUGE}, None),
        (V1, {"memory/memory.limit_in_bytes": HUGE, "unified/memory.max": "max"}, None),
    ],
)
def test_the_tightest_memory_limit_holds(groups, own, files, left):
    groups(own, **files)
    assert memory_left() == left
    free = psutil.virtual_memory().available // 2
    assert resident_budget() == (left // 2 if left is not None else pytest.approx(free, rel=0.5))


@pytest.mark.parametrize(
    ("own", "files", "allowed"),
    [
        (V2, {"a/b/cpu.max": "200000 100000"}, 2),
        (V2, {"cpu.max": "150000 100000"}, 2),
        (V2, {"a/cpu.max": "50000 100000", "a/b/cpu.max": "400000 100000"}, 1),
        (V2, {"a/b/cpu.max": "max 100000"}, None),
        (V2, {"a/b/cpu.max": ""}, None),
        (V1, {"cpu/a/b/cpu.cfs_quota_us": "300000", "cpu/a/b/cpu.cfs_period_us": "100000"}, 3),
        (V1, {"cpu,cpuacct/cpu.cfs_quota_us": "100000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 1),
        (V1, {"cpu/a/b/cpu.cfs_quota_us": "-1", "cpu/a/b/cpu.cfs_period_us": "100000"}, None),
        (V1, {"cpu/a/b/cpu.cfs_quota_us": "100000", "cpu/a/b/cpu.cfs_period_us": "0"}, None),
    ],
)
def test_a_quota_of_processor_time_is_that_many_processors(groups, monkeypatch, own, files, allowed):
    groups(own, **files)
    assert processors_allowed() == allowed
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    assert cpu_count() == (allowed or 8)


def test_limits_of_the_shell_count_what_the_process_has_already(groups, monkeypatch):
    groups("")
    limits = {"RLIMIT_AS": psutil.Process().memory_info().vms + 10**9, "RLIMIT_DATA": -1}
    fake = SimpleNamespace(
        RLIMIT_AS="RLIMIT_AS", RLIMIT_DATA="RLIMIT_DATA", RLIM_INFINITY=-1, getrlimit=lambda name: (limits[name], -1)
    )
    monkeypatch.setattr(containers, "resource", fake)
    assert memory_left() == pytest.approx(10**9 + kept_memory(), rel=0.1)  # what its heap has free is left, too
    limits["RLIMIT_AS"] = -1
    assert memory_left() is None


def test_a_machine_without_control_groups_has_no_limits(monkeypatch):
    monkeypatch.setattr(containers, "_ROOT", Path("nowhere"))
    monkeypatch.setattr(containers, "_OWN", Path("nowhere"))
    monkeypatch.setattr(containers, "resource", None)
    assert (memory_left(), processors_allowed()) == (None, None)
