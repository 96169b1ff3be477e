"""Files that are no stores, or no longer: refused in words that name what is wrong."""

import errno
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import ROOT, build_store
from hypothesis import given
from hypothesis import strategies as st

from features.hdf5.door import opened, reading
from features.runtime.errors import BottleneckError, InputError
from features.store import reader
from features.store.reader import FeatureStore
from features.store.schema import REQUIRED

ARCHIVES = ROOT / "tests" / "archives"


@pytest.fixture(scope="module")
def small_store(tmp_path_factory):
    return build_store(tmp_path_factory.mktemp("small") / "a.h5", rows=6)


@given(share=st.floats(0, 1, exclude_max=True))
def test_a_copy_that_was_cut_short_is_refused(small_store, share):
    content = small_store.read_bytes()
    cut = small_store.with_name("cut.h5")
    cut.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=r"cut\.h5: "):
        FeatureStore(cut)


def test_a_cut_copy_is_called_so(small_store):
    cut = small_store.with_name("cut.h5")
    cut.write_bytes(small_store.read_bytes()[:-1000])
    with pytest.raises(InputError, match="found a file cut short"):
        FeatureStore(cut)


@pytest.mark.parametrize("how", [{}, {"mode": "r+"}, {"locking": True}, {"locking": False}], ids=str)
def test_a_sound_store_that_a_notebook_has_open_is_read(small_store, how):
    with h5py.File(small_store, **how):
        assert len(FeatureStore(small_store)) == 6
    assert len(FeatureStore(small_store)) == 6


def test_one_that_is_open_in_a_way_of_its_own_is_not_called_damaged(small_store):
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    access.set_file_locking(False, True)  # which h5py.File itself does not offer
    held = h5py.File(h5py.h5f.open(bytes(small_store), h5py.h5f.ACC_RDONLY, access))
    with held, pytest.raises(InputError, match=r"found one that this process has opened by h5py in another way; close"):
        FeatureStore(small_store)
    assert len(FeatureStore(small_store)) == 6


def test_one_that_a_killed_program_left_as_being_written_is_not_said_to_be_open_here(tmp_path):
    left = 'import h5py, os; f = h5py.File("s.h5", "w", libver="latest"); f["x"] = [1]; f.flush(); os._exit(0)'
    subprocess.run([sys.executable, "-c", left], cwd=tmp_path, check=True)
    with pytest.raises(InputError, match=r"found a damaged file \(.*already open for write"):
        FeatureStore(tmp_path / "s.h5")


@pytest.fixture
def of_another_layout(tmp_path):
    """A sound file that a process of its own reads first."""
    path = tmp_path / "sound.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs["kind"] = "sound"
    return path


def _python(folder, *options):
    """A Python that finds its packages otherwise."""
    script = folder / "python"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {" ".join(options)} "$@"\n')
    script.chmod(0o755)
    return str(script)


def test_a_file_is_tried_with_the_packages_that_only_this_process_knows_of(of_another_layout, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", _python(tmp_path, "-S"))
    with opened(of_another_layout, "a file") as file:
        assert file.attrs["kind"] == "sound"


def test_a_file_that_cannot_be_tried_is_not_called_damaged(of_another_layout, tmp_path, monkeypatch):
    for python, said in ((_python(tmp_path, "-I", "-S"), "h5py is not found"), (None, "Python is not found")):
        monkeypatch.setattr(sys, "executable", python)
        with pytest.raises(BottleneckError, match=f"cannot be tried, as {said}"), opened(of_another_layout, "a file"):
            pass


@pytest.mark.parametrize("late", [False, True])
def test_a_sound_store_is_not_called_damaged_where_too_many_files_are_open(small_store, monkeypatch, late):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    real = reader.opened

    def then_short(*told):
        if late:
            monkeypatch.setattr(reader, "open_to_read", lambda path: short() or os.open(path, os.O_RDONLY))
        else:
            short()
        return real(*told)

    def short():
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))

    monkeypatch.setattr(reader, "opened", then_short)
    try:
        with pytest.raises(BottleneckError, match=r"a\.h5: cannot be opened: Too many open files"):
            FeatureStore(small_store)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_sound_file_is_not_called_damaged_where_a_disk_is_full(small_store):
    said = r"a\.h5: cannot be opened: No space left"
    with pytest.raises(BottleneckError, match=said) as told, opened(small_store, ""):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert told.value.exit_status == 1


def test_files_that_are_no_stores_are_refused_in_words(tmp_path):
    text = tmp_path / "a.txt"
    text.write_text("hello")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["weights"] = np.zeros(3)
    with h5py.File(tmp_path / "article.h5", "w") as file:
        file["batches"] = 1
    with h5py.File(tmp_path / "model.h5", "w") as file:
        file.attrs["model_config"] = "{}"
    cases = {
        ARCHIVES / "head.hdf5": "expected a feature store, found a head$",
        tmp_path / "model.h5": "expected a feature store, found a Keras model$",
        tmp_path / "nothing.h5": "expected a feature store, found no such file",
        text / "below.h5": "found no such file",
        tmp_path: "found a folder",
        text: "found a file that is no HDF5",
        tmp_path / "other.h5": r"schema: expected 1 \(a feature store\), found no such attribute$",
        tmp_path / "article.h5": "no such attribute; features.convert reads the article's layout",
    }
    for path, message in cases.items():
        with pytest.raises(InputError, match=message) as caught:
            FeatureStore(path)
        assert str(caught.value).startswith(str(path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_store_without_permission_is_refused(tmp_path):
    path = build_store(tmp_path / "a.h5")
    path.chmod(0)
    with pytest.raises(InputError, match="no permission to read"):
        FeatureStore(path)


def drop(kind):
    def change(file, name):
        del (file if kind == "dataset" else file.attrs)[name]

    return change


def put(value):
    def change(file, name):
        if name in file:
            del file[name]
            file[name] = value
        else:
            file.attrs[name] = value

    return change


def put_chunked(file, name):
    features = file[name][:]
    del file[name]
    file.create_dataset(name, data=features, chunks=features.shape)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        *[
            (name, drop("dataset"), "expected a dataset")
            for name in ("features", "labels", "done", "paths", "patients")
        ],
        *[(name, drop("attribute"), "expected an attribute of that name, found none") for name in REQUIRED],
        ("schema", put(2), "expected 1"),
        ("features", put_chunked, "expected a contiguous dataset"),
        ("features", put(np.zeros((6, 2, 2), np.float16)), "expected 5 axes"),
        ("features", put(np.zeros((6, 1, 2, 2, 8), np.int16)), "expected float16 or float32, found int16"),
        ("done", put(np.zeros(5, np.uint8)), r"expected shape \(6,\), found \(5,\)"),
        ("labels", put(np.full(6, 4, np.int32)), "expected 0 to 3"),
        ("views", put(np.array(["identity", "flip"], h5py.string_dtype())), "expected 1 names, found 2"),
        ("versions", put("{"), "expected a JSON object that fits"),
        ("paths", put(np.zeros(6)), "expected UTF-8 of one width"),
    ],
)
def test_a_damaged_store_is_refused_naming_what_is_wrong(small_store, tmp_path, name, change, message):
    path = Path(shutil.copy(small_store, tmp_path))
    with h5py.File(path, "r+") as file:
        change(file, name)
    with pytest.raises(InputError, match=message) as caught:
        FeatureStore(path)
    assert caught.value.field in (name, None)


def test_what_says_nothing_of_the_file_is_no_damage(tmp_path):
    with pytest.raises(BottleneckError, match="not enough memory to read it") as caught, reading(tmp_path, "a store"):
        raise MemoryError("Unable to allocate 3.00 GiB")
    assert not isinstance(caught.value, InputError)
    with pytest.raises(AssertionError), reading(tmp_path, "a store"):
        raise AssertionError


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyError("no such object"), r"\(no such object\)"),
        (TypeError("'NoneType' object is not iterable"), r"\('NoneType' object is not iterable\)"),
        (ValueError(), r"\(ValueError\)"),
    ],
)
def test_damage_is_said_in_the_words_of_the_library(tmp_path, error, said):
    with pytest.raises(InputError, match=said), reading(tmp_path, "a store"):
        raise error
