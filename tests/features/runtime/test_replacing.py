"""A file takes another's place whole, and several processes may put one there in the same moment."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from meeting import meet

from features.runtime.errors import BottleneckError, DiskFullError
from features.runtime.files import (
    disk_error,
    replacing,
    replacing_folder,
    temporary_folder,
    write_array,
    write_json,
    write_text,
)


def test_those_who_write_one_file_at_once_all_succeed_and_one_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    errors = meet(monkeypatch, 3, lambda number: write_json(path, [number] * 1000, shared=True))
    assert not errors
    assert json.loads(path.read_text()) in [[number] * 1000 for number in range(3)]
    assert [one.name for one in tmp_path.iterdir()] == ["a.json"]


def test_a_name_that_is_no_text_is_written_as_python_escapes_it(tmp_path):
    write_text(tmp_path / "a.txt", "caf\u00e9 \udcff.h5\n")
    assert (tmp_path / "a.txt").read_bytes() == b"caf\xc3\xa9 \\udcff.h5\n"


def test_what_could_not_be_written_leaves_nothing_and_no_other_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    for shared in (False, True):
        with pytest.raises(BottleneckError, match=r"a\.txt"), replacing(path, shared=shared) as temporary:
            temporary.write_text("half")
            raise OSError(5, "an error")
        with pytest.raises(KeyError), replacing(path, shared=shared) as temporary:
            temporary.write_text("half")
            raise KeyError
    assert path.read_text() == "before"
    assert [one.name for one in tmp_path.iterdir()] == ["a.txt"]


def test_what_is_written_goes_through_no_link_that_was_in_its_place(tmp_path):
    """As an archive of somebody else's study may hold one."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "theirs.txt").write_text("theirs")
    (tmp_path / ".a.new.txt").symlink_to("elsewhere/theirs.txt")
    (tmp_path / ".model.new").symlink_to("elsewhere")
    write_text(tmp_path / "a.txt", "mine")
    with replacing_folder(tmp_path / "model") as temporary:
        temporary.mkdir()
        (temporary / "mine.txt").write_text("mine")
    assert (tmp_path / "a.txt").read_text() == (tmp_path / "model" / "mine.txt").read_text() == "mine"
    assert [one.read_text() for one in (tmp_path / "elsewhere").iterdir()] == ["theirs"]
    assert not any(one.is_symlink() for one in tmp_path.iterdir())


def test_a_disk_that_may_not_be_written_is_one_line(tmp_path, monkeypatch):
    """It refuses the removal of a file that is not there, too."""

    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(BottleneckError, match=r"a\.txt: cannot be written: Read-only file system"):
        write_text(tmp_path / "a.txt", "")


def test_what_killed_processes_left_of_shared_files_goes_once_it_is_old(tmp_path):
    left = [".report.97c5d34b.new.html", ".a.b.0123abcd.new.npy", ".no ending.0123abcd.new"]
    others = [".report.new.html", ".report.97c5d34.new.html", "report.97c5d34b.new.html", ".report.97C5D34B.new.html"]
    young = ".report.00000000.new.html"
    for name in (*left, *others, young):
        (tmp_path / name).write_text("torn")
        if name != young:  # whoever writes it may be alive
            os.utime(tmp_path / name, (time.time() - 4000, time.time() - 4000))
    write_text(tmp_path / "a.txt", "alone")
    assert len(list(tmp_path.iterdir())) == len([*left, *others, young, "a.txt"])
    write_text(tmp_path / "b.txt", "one of several", shared=True)
    assert {path.name for path in tmp_path.iterdir()} == {*others, young, "a.txt", "b.txt"}


def test_an_array_that_is_larger_than_a_file_may_be_says_so_and_nothing_of_the_disk(tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "a.npy"
    write_array(path, np.arange(4))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    try:
        with pytest.raises(DiskFullError, match=r"a\.npy: larger than a file may be here") as told:
            write_array(path, np.arange(1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(told.value).endswith("(ulimit -f, or the file system); raise that limit and run the same command again")
    assert np.load(path).tolist() == [0, 1, 2, 3]
    assert [one.name for one in tmp_path.iterdir()] == ["a.npy"]


def test_a_folder_that_a_killed_process_has_moved_aside_is_taken_back_and_nothing_stays(tmp_path):
    (tmp_path / ".out.old").mkdir()
    (tmp_path / ".out.old" / "model").write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing_folder(tmp_path / "out"):
        raise KeyboardInterrupt
    assert (tmp_path / "out" / "model").read_text() == "old"
    (tmp_path / "out").rename(tmp_path / ".out.old")
    with replacing_folder(tmp_path / "out") as temporary:
        temporary.mkdir()
        (temporary / "model").write_text("new")
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["out", "out/model"]
    assert (tmp_path / "out" / "model").read_text() == "new"


def test_a_temporary_folder_that_lacks_room_or_a_place_is_what_is_blamed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(DiskFullError, match=re.escape(f"{tmp_path}: disk full: ")), temporary_folder("a-") as folder:
        (folder / "a").write_text("torn")
        raise OSError(errno.ENOSPC, "no room")
    with pytest.raises(FileNotFoundError), temporary_folder("a-") as folder:
        (folder / "b").read_text()
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(BottleneckError, match="gone: cannot be written"), temporary_folder("a-"):
        pass
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/nowhere"])
    with pytest.raises(BottleneckError, match="no folder for temporary files; set TMPDIR"), temporary_folder("a-"):
        pass


def test_what_is_free_is_that_of_the_folder_itself_where_it_is_a_folder(tmp_path, monkeypatch):
    asked = []
    usage = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda place: asked.append(place) or usage(place))
    for path in (tmp_path, tmp_path / "a", tmp_path / "a" / "b"):
        disk_error(path, OSError(errno.ENOSPC, "no room"))
    assert asked == [tmp_path] * 3
