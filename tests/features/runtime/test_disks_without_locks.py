"""A network disk may know no locks: then a marker stands for one, and whoever is in the way is named. Full disks."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from features.runtime.errors import BottleneckError, DiskFullError, InputError
from features.runtime.lock import WriterLock, is_locked

fcntl = pytest.importorskip("fcntl")
MARKER = ".s.h5.held"


@pytest.fixture
def without_locks(monkeypatch):
    def leave_out(number: int) -> None:
        def flock(descriptor, operation):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", flock)

    return leave_out


@pytest.mark.parametrize("name", ["ENOLCK", "EOPNOTSUPP", "EINVAL", "EPERM", "ENOSYS", "EIO"])
def test_a_marker_stands_for_a_lock_and_goes_with_it(tmp_path, without_locks, capsys, name):
    path = tmp_path / "s.h5"
    without_locks(getattr(errno, name))
    assert not is_locked(path)
    with WriterLock(path):
        assert is_locked(path)
        with pytest.raises(BottleneckError, match=rf"another process is writing it \(process {os.getpid()} on "):
            WriterLock(path)
        assert is_locked(path)
    assert not is_locked(path)
    assert list(tmp_path.iterdir()) == []
    assert f"no locks on this disk, {MARKER} stands for one" in capsys.readouterr().err


def test_a_marker_of_another_host_is_in_the_way_of_who_has_locks_too(tmp_path):
    path, marker = tmp_path / "s.h5", tmp_path / MARKER
    marker.write_text("17\nelsewhere\n1\n")
    assert is_locked(path)
    with pytest.raises(BottleneckError, match=rf"\(process 17 on elsewhere\); if that has ended, remove {marker}"):
        WriterLock(path)
    marker.unlink()
    with WriterLock(path):
        assert is_locked(path)
    assert list(tmp_path.iterdir()) == []


def test_who_holds_a_lock_is_named(tmp_path):
    path = tmp_path / "s.h5"
    said = rf"another process is writing it \(process {os.getpid()} on {socket.gethostname()}\)"
    with WriterLock(path), pytest.raises(BottleneckError, match=said):
        WriterLock(path)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_place_that_cannot_be_written_is_refused(tmp_path, monkeypatch, number):
    real = os.open

    def refuse(path, flags, *args, **options):
        if flags & os.O_CREAT and ".s.h5" in str(path):
            raise OSError(number, os.strerror(number))
        return real(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(InputError, match=f"expected a place to write to, found {os.strerror(number)}"):
        WriterLock(tmp_path / "s.h5")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_no_wrong_input_and_is_left_as_it_was(tmp_path, monkeypatch, number):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", refuse)  # an empty file needs no room: only its owner is not named
        with WriterLock(tmp_path / "s.h5"), pytest.raises(BottleneckError, match=r"another process is writing it$"):
            WriterLock(tmp_path / "s.h5")
    for lacking, where in (("open", tmp_path / "s.h5"), ("mkdir", tmp_path / "new" / "s.h5")):
        with monkeypatch.context() as patched:
            patched.setattr(os, lacking, refuse)
            with pytest.raises(DiskFullError, match=r"s\.h5: disk full: [\d,]+\.\d MB free; make room") as told:
                WriterLock(where)
        assert told.value.exit_status == 1
    assert list(tmp_path.iterdir()) == []
