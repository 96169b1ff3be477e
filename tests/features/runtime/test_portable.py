"""Where POSIX calls are missing, the fallbacks do the same work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import words
from conftest import ROOT
from made_backbone import SMALL
from made_images import noise, put_image

from features.runtime.errors import BottleneckError
from features.runtime.lock import WriterLock, is_locked

MISSING = """
import os, sys
for name in ("sched_getaffinity", "posix_fallocate", "fdatasync", "pwrite", "preadv"):
    delattr(os, name)
sys.modules["fcntl"] = None  # importing it raises ImportError
"""


def without_posix(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs Python without these calls."""
    (folder / "sitecustomize.py").write_text(MISSING)
    paths = os.pathsep.join([str(folder), str(ROOT)])
    command = [sys.executable, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": paths}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)


@pytest.mark.slow
def test_an_extraction_without_posix_calls_leaves_the_same_bytes(tmp_path):
    for row in range(6):
        put_image(tmp_path / "images" / "AB"[row % 2] / f"x-{row}-1.png", noise(row, 40, 40))
    options = words(SMALL)
    command = ["-m", "features.extract", tmp_path / "images"]
    (tmp_path / "site").mkdir()
    (tmp_path / "out").mkdir()
    fallen = without_posix(tmp_path / "site", *command, tmp_path / "out" / "a.h5", *options)
    assert fallen.returncode == 0, fallen.stderr
    whole = [sys.executable, *map(str, [*command, tmp_path / "out" / "b.h5", *options])]
    ordinary = subprocess.run(whole, capture_output=True, text=True, cwd=ROOT, check=False)
    assert ordinary.returncode == 0, ordinary.stderr
    stores = [tmp_path / "out" / name for name in ("a.h5", "b.h5")]
    assert stores[0].read_bytes() == stores[1].read_bytes()
    assert stores[0].stat().st_blocks * 512 >= stores[0].stat().st_size  # all of its blocks are its own
    assert sorted((tmp_path / "out").iterdir()) == stores  # no lock is left


LOCKS = """
import sys
from pathlib import Path
from features.runtime.errors import BottleneckError
from features.runtime.lock import WriterLock, is_locked
assert "fcntl" in sys.modules and sys.modules["fcntl"] is None
path = Path(sys.argv[1])
assert not is_locked(path)
with WriterLock(path):
    assert is_locked(path)
    try:
        WriterLock(path)
    except BottleneckError as error:
        print(error)
assert not is_locked(path)
"""


def test_a_lock_without_flock_keeps_a_second_writer_out(tmp_path):
    (tmp_path / "site").mkdir()
    done = without_posix(tmp_path / "site", "-c", LOCKS, tmp_path / "s.h5")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{tmp_path / 's.h5'}: another process is writing it (process ")
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_asking_for_a_lock_neither_takes_nor_leaves_anything(tmp_path):
    path = tmp_path / "s.h5"
    assert not is_locked(path)
    lock = WriterLock(path)
    assert is_locked(path)
    lock.release()
    lock.release()
    assert not is_locked(path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".s.h5.lock").touch()  # left behind by a process that was killed
    assert not is_locked(path)
    with WriterLock(path):
        assert is_locked(path)


def test_a_writer_waits_out_who_only_asks(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    path, lock = tmp_path / "s.h5", tmp_path / ".s.h5.lock"
    lock.touch()
    with lock.open() as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        with pytest.raises(BottleneckError, match="another process is writing it"):
            WriterLock(path)  # a question takes no fifth of a second
    from threading import Timer

    asking = lock.open()
    fcntl.flock(asking, fcntl.LOCK_SH)
    Timer(0.02, asking.close).start()
    with WriterLock(path):
        assert is_locked(path)


def test_a_lock_whose_file_is_another_ones_by_now_says_so_and_leaves_that_alone(tmp_path):
    path = tmp_path / "study" / "s.h5"
    first = WriterLock(path)
    first.check()
    for file in path.parent.iterdir():  # with the whole folder
        file.unlink()
    path.parent.rmdir()
    said = r"s\.h5: removed, or another process's, since this one began"
    with pytest.raises(BottleneckError, match=said):
        first.check()
    with WriterLock(path) as second:
        with pytest.raises(BottleneckError, match=said):
            first.check()
        first.release()
        second.check()
        with pytest.raises(BottleneckError, match="another process is writing it"):
            WriterLock(path)
    assert list(path.parent.iterdir()) == []
