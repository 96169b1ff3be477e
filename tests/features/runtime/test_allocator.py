"""Memory that is freed and allocated again comes without page faults."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
from conftest import ROOT

SCRIPT = """
import resource, sys, threading
import numpy as np
from features.runtime.allocator import keep_freed_memory
from features.runtime.backend import use_backend

if sys.argv[1] == "kept":
    assert keep_freed_memory()
elif sys.argv[1] == "kept by a command":
    use_backend()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(2**24, np.float32)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def run():
    faults()
    found.append(faults())

found = []
run()
thread = threading.Thread(target=run)
thread.start()
thread.join()
print(*found)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_arrays_of_tens_of_megabytes_are_not_fetched_anew() -> None:
    def faults(how: str) -> list[int]:
        command = [sys.executable, "-c", SCRIPT, how]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        return [int(number) for number in done.stdout.split()]

    assert min(faults("given back")) >= 30  # 16,000 pages of 4 kB, or 32 of 2 MB
    assert max(faults("kept")) < 30
    assert max(faults("kept by a command")) < 30


def test_another_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from features.runtime import allocator

    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("musl", "1.2"))
    assert not allocator.keep_freed_memory()
    allocator.give_back_freed_memory()
    assert allocator.kept_memory() == 0


PLANNED = """
import resource, sys
import numpy as np, psutil
from features.runtime.allocator import keep_freed_memory
from features.runtime.memory import resident_budget

assert keep_freed_memory()
if sys.argv[1] == "limited":
    limit = psutil.Process().memory_info().vms + 2**30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

def state():
    return resident_budget(), psutil.Process().memory_info().rss

before = state()
arrays = [np.ones(2**20) for _ in range(64)]
full = state()
del arrays[::2]  # holes in the heap
half = state()
del arrays
for budget, resident in (before, full, half, state()):
    print(budget, resident)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
@pytest.mark.parametrize("limited", ["limited", "free"])
def test_what_was_freed_is_there_to_plan_with(limited: str) -> None:
    command = [sys.executable, "-c", PLANNED, limited]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    before, full, half, empty = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    size, small = 2**29, 2**26
    assert full[1] - before[1] > size - small
    assert half[1] - before[1] < size // 2 + small
    assert empty[1] - before[1] < small
    if limited == "limited":  # the machine's own figures others move, too
        assert abs(before[0] - full[0] - size // 2) < small
        assert abs(before[0] - half[0] - size // 4) < small
        assert abs(before[0] - empty[0]) < small
