"""A network disk may know no locks: then a marker stands for one, and whoever is in the way is named.

Disks that are full, that cannot sync a folder, and places that may only be read.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from conftest import build_header, fill_store

from features.runtime.errors import BottleneckError, DiskFullError, InputError
from features.runtime.files import replacing_folder, write_text
from features.runtime.lock import WriterLock, is_locked
from features.store.reader import FeatureStore
from features.store.writer import StoreWriter

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


@pytest.fixture
def only_to_read(monkeypatch):
    def make(number: int) -> None:
        real = os.open

        def refuse(path, flags, *args, **options):
            if flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR) and "s.h5" in str(path):
                raise OSError(number, os.strerror(number))
            return real(path, flags, *args, **options)

        monkeypatch.setattr(os, "open", refuse)

    return make


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_place_that_cannot_be_written_is_refused(tmp_path, only_to_read, number):
    only_to_read(number)
    with pytest.raises(InputError, match=f"expected a place to write to, found {os.strerror(number)}"):
        WriterLock(tmp_path / "s.h5")


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_finished_store_is_opened_where_nothing_may_be_written(tmp_path, only_to_read, number):
    header, path, arrays = build_header(), tmp_path / "s.h5", (np.ones((4, 8), "f4"), [0, 1, 0, 1])
    fill_store(path, header)
    FeatureStore.from_arrays(tmp_path / "arrays.h5", *arrays).path.rename(tmp_path / "arrays.s.h5")
    only_to_read(number)
    with StoreWriter(path, header) as writer:
        assert writer.complete
        writer.finish()
    assert len(FeatureStore.from_arrays(tmp_path / "arrays.s.h5", *arrays)) == 4


def test_an_unfinished_store_that_may_not_be_written_says_so_in_one_line(tmp_path, monkeypatch):
    header, path = build_header(), tmp_path / "s.h5"
    StoreWriter(path, header).close()

    def refuse(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("features.store.writer.open_to_write", refuse)
    with pytest.raises(BottleneckError, match=r"s\.h5: cannot be written: Permission denied"):
        StoreWriter(path, header)
    assert [file.name for file in tmp_path.iterdir()] == ["s.h5"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EIO])
def test_a_disk_that_cannot_sync_a_folder_is_written_to_and_one_that_fails_is_told_of(tmp_path, monkeypatch, number):
    real = os.fsync

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    told = pytest.raises(BottleneckError, match="cannot be written") if number == errno.EIO else nullcontext()
    with told:
        write_text(tmp_path / "a.txt", "new")
    with told, replacing_folder(tmp_path / "model") as folder:
        folder.mkdir()
    assert (tmp_path / "a.txt").read_text() == "new"
    assert (tmp_path / "model").is_dir()


def test_a_folder_that_may_be_written_to_and_not_listed_is(tmp_path, monkeypatch):
    real = os.open

    def refuse(path, *args, **options):
        if path == tmp_path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", refuse)
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"


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
