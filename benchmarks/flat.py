"""Whether a long search grows: memory, open files and threads over a thousand trials.

    python benchmarks/flat.py [--trials 1000] [--epochs 12] [--store STORE]

Runs ``search.run`` as a command on a small store (generated here: 240 rows of 2x2x64, four classes; the default space)
and looks at its process from outside whenever another tenth of the trials has ended. Compilation, the first banks and
Optuna's imports end within the first fifth, which counts for nothing. What grows after that is the record: Optuna keeps
every trial in memory. Fails where a trial costs more than ``--most-kb``, or where open files or threads grow at all.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import psutil
from paths import use_tests

use_tests()

ENDED = re.compile(r"^trial \d+: ")


class Seen(NamedTuple):
    """A process at one moment: resident memory in bytes, open files, threads."""

    trials: int
    seconds: float
    memory: int
    files: int
    threads: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--store", type=Path, help="else one that is generated")
    parser.add_argument("--storage", help="an Optuna storage URL, else a journal")
    parser.add_argument("--most-kb", type=float, default=100.0, help="that a trial may add to the memory, in kilobytes")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = arguments.store or make_store(Path(folder) / "store.h5")
        command = [sys.executable, "-m", "search.run", "--features", str(store), "--out", str(Path(folder) / "study")]
        command += ["--trials", str(arguments.trials), "--epochs", str(arguments.epochs), "--finalists", "0"]
        command += ["--folds", "0", "--batch-size", "100"]
        command += ["--storage", arguments.storage] if arguments.storage else []
        print(f"{'trials':>8} {'seconds':>8} {'MB':>8} {'files':>6} {'threads':>8}")
        seen = watch(command, arguments.trials)
    judge(seen, arguments.most_kb)


def make_store(path: Path) -> Path:
    from made_stores import build_store

    made: Path = build_store(path, rows=240, shape=(2, 2, 64))
    return made


def watch(command: list[str], trials: int) -> list[Seen]:
    """Runs a search; returns what was seen of it after each tenth of its trials."""
    begun, ended = time.perf_counter(), 0
    seen: list[Seen] = []
    step = max(1, trials // 10)
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as search:
        process = psutil.Process(search.pid)
        assert search.stderr is not None
        for line in search.stderr:
            if not ENDED.match(line):
                continue
            ended += 1
            if ended >= step * (len(seen) + 1):
                with process.oneshot():
                    memory, files, threads = process.memory_info().rss, process.num_fds(), process.num_threads()
                seen.append(Seen(ended, time.perf_counter() - begun, memory, files, threads))
                show(seen[-1])
    if search.returncode:
        raise SystemExit(f"search.run ended with {search.returncode}")
    return seen


def show(one: Seen) -> None:
    print(f"{one.trials:8} {one.seconds:8.0f} {one.memory / 1e6:8.1f} {one.files:6} {one.threads:8}", flush=True)


def judge(seen: list[Seen], most_kb: float) -> None:
    first, last = seen[1], seen[-1]
    grown = (last.memory - first.memory) / 1e3 / (last.trials - first.trials)
    print(f"from trial {first.trials} to {last.trials}: {grown:.1f} kB a trial")
    if grown > most_kb:
        raise SystemExit(f"a trial adds {grown:.1f} kB to the memory: more than {most_kb:g}")
    if last.files > first.files or last.threads > first.threads:
        raise SystemExit("open files or threads grow")


if __name__ == "__main__":
    main()
