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
