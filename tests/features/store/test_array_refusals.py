"""Arrays that are none of features: one line that names file, array and remedy, exit status 2, and nothing is left."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from commands import invoke
from scipy import sparse

from features.runtime.errors import InputError
from features.store import array_files
from features.store.arrays import ArrayFiles, Arrays, arrays_to_store
from features.store.reader import FeatureStore

X = np.random.default_rng(0).normal(size=(6, 5)).astype("float32")
Y = np.array([0, 1, 2, 0, 1, 2])


def changed(row: int, value: float, dtype: str = "float32") -> np.ndarray:
    values = X.astype(dtype)
    values[row] = value
    return values


ARRAYS: dict[str, tuple[dict[str, Any], str]] = {
    "no labels": ({"X": X}, "y: expected an array of that name, found X"),
    "no names": ({"arr_0": X, "arr_1": Y}, "X: expected an array of that name, found arr_0, arr_1; np.savez(FILE, X="),
    "nothing": ({}, "X: expected an array of that name, found none; np.savez("),
    "NaN": ({"X": changed(3, np.nan)}, "X: expected finite values, found NaN or infinity in row 3"),
    "infinity": ({"X": changed(5, -np.inf)}, "X: expected finite values, found NaN or infinity in row 5"),
    "zeros": ({"X": changed(2, 0)}, "X: expected features in every row, as float32, found zeros only in row 2; leave"),
    "too large": ({"X": changed(1, 1e300, "float64")}, "X: expected values up to 3.40282e+38, the largest float32, f"),
    "whole numbers": ({"X": X.astype(int)}, "X: expected float16, float32 or float64, found int64; X.astype("),
    "objects": ({"X": X.astype(object)}, "X: expected plain numbers or text, found Python objects, which are not re"),
    "one axis": ({"X": X[:, 0]}, "X: expected shape (rows, channels) or (rows, height, width, channels), found (6,)"),
    "tokens": ({"X": X[:, None]}, "X: expected shape (rows, channels) or (rows, height, width, channels), found (6, 1"),
    "no rows": ({"X": X[:0], "y": Y[:0]}, "X: expected at least one row, place and channel, found shape (0, 5)"),
    "no channels": ({"X": X[:, :0]}, "X: expected at least one row, place and channel, found shape (6, 0)"),
    "more classes than a store names": (
        {"X": np.ones((4001, 2), "f4"), "y": np.arange(4001)},
        "y: expected 0 to 3999, an index into the classes, found 4000 in row 4000",
    ),
    "few labels": ({"y": Y[:4]}, "y: expected shape (6,), as X has 6 rows, found (4,)"),
    "one label": ({"y": np.array(3)}, "y: expected shape (6,), as X has 6 rows, found ()"),
    "one-hot": ({"y": np.eye(3)[Y]}, "y: expected shape (6,), found (6, 3); y.argmax(axis=1) makes it"),
    "a column": ({"y": Y[:, None]}, "y: expected shape (6,), found (6, 1); y.ravel() makes it so"),
    "channels first": (
        {"X": np.ones((6, 512, 7, 7), "f2")},
        "X: expected channels on the last axis, found shape (6, 512, 7, 7), which looks like (rows, channels, height, w"
        "idth); where 512 is the channels, X.transpose(0, 2, 3, 1) puts them there; where these are maps of 512 x 7",
    ),
    "patients with a gap": (
        {"patients": np.array([1, 2, np.nan] * 2)},
        "patients: expected whole numbers or text, found float64; make them text, with '' where the patient is unknown",
    ),
    "below 0": ({"y": Y - 1}, "y: expected 0 and above, an index into the classes, found -1 in row 0"),
    "a gap": (
        {"y": Y * 2},
        "y: expected rows of each of the 5 classes, found none of class-1, class-3; to train on these rows, number the"
        " classes without a gap; to test a head or a search of more classes on them, give y as class names, such as"
        " class-4",
    ),
    "large": ({"y": Y + 2**62}, "y: expected 0 to 3999, an index into the classes, found 4611686018427387906 in row 2"),
    "fractions": ({"y": Y * 1.0}, "y: expected whole numbers or text, found float64"),
    "truth": ({"y": Y > 0}, "y: expected class indices or names, found truth values; y.astype(int) makes them 0 and 1"),
    "object labels": ({"y": Y.astype(object)}, "y: expected plain numbers or text, found Python objects, which are no"),
    "a table": ({"y": np.zeros(6, [("a", "i4")])}, "y: expected whole numbers or text, found [('a', '<i4')]"),
    "no name": ({"y": np.array(["a", "b", ""] * 2)}, "y: expected a class name in every row, found none in row 2"),
    "no text": ({"y": np.full(6, 0x110000, "<u4").view("<U1")}, "y: expected text in Unicode, found other bytes"),
    "no UTF-8": ({"y": np.array([b"\xff"] * 6)}, "y: expected text in Unicode, found other bytes"),
    "few classes": (
        {"classes": np.array(["a", "b"])},
        "y: expected 0 to 1, an index into the classes, found 2 in row 2",
    ),
    "many classes": (
        {"classes": np.array(list("abcd"))},
        "y: expected rows of each of the 4 classes, found none of d; leave their names out of classes, and give y as na"
        "mes: the numbers of the others would change",
    ),
    "many named classes": (
        {"y": np.array(list("abcabc")), "classes": np.array(list("abcd"))},
        "y: expected rows of each of the 4 classes, found none of d; leave their names out of classes",
    ),
    "equal classes": ({"classes": np.array(list("aab"))}, "classes: expected different names, in label order, found a"),
    "numbered classes": ({"classes": np.arange(3)}, "classes: expected text, found int64"),
    "another class": (
        {"y": np.array(list("abcabc")), "classes": np.array(list("abd"))},
        "y: expected one of a, b, d, found c in row 2",
    ),
    "a path twice": (
        {"paths": np.array(list("abcdea"))},
        "paths: expected a different name for every row, found a in r",
    ),
    "no path": ({"paths": np.array(["a", "", *"bcde"])}, "paths: expected a name for every row, found none in row 1"),
    "numbered paths": ({"paths": Y}, "paths: expected text, found int64"),
    "few paths": ({"paths": np.array(["a"])}, "paths: expected shape (6,), as X has 6 rows, found (1,)"),
    "a long path": ({"paths": np.array(["a" * 70_000, *"bcdef"])}, "paths: expected text of at most 65,536 bytes, fou"),
    "half patients": ({"patients": Y * 0.5}, "patients: expected whole numbers or text, found float64"),
}


def refused(folder: Path, *arguments: object) -> str:
    said = invoke("features.convert", arguments[0], folder / "out.h5", *arguments[1:])
    assert (said.status, said.out) == (2, "")
    assert "Traceback" not in said.err
    assert [path.name for path in folder.iterdir() if "out" in path.name] == []
    return said.err.splitlines()[-1].removeprefix("error: ")


@pytest.mark.parametrize(("given", "message"), ARRAYS.values(), ids=ARRAYS.keys())
def test_an_archive_that_does_not_fit(tmp_path, given, message):
    own = {} if message.startswith(("y: expected an array", "X: expected an array")) else {"X": X, "y": Y}
    np.savez(tmp_path / "e.npz", **{**own, **given})
    assert refused(tmp_path, tmp_path / "e.npz").startswith(f"{tmp_path / 'e.npz'}: {message}")


def test_objects_that_would_run_code_are_not_read(tmp_path):
    class Bomb:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    np.savez(tmp_path / "e.npz", X=X, y=np.array([Bomb()] * 6, object))
    assert "y: expected plain numbers or text, found Python objects" in refused(tmp_path, tmp_path / "e.npz")
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "y.npy", Y)
    np.savez(tmp_path / "e.npz", X=X, y=Y)
    np.savez(tmp_path / "named.npz", X=X, y=Y, classes=np.array(list("abc")))
    plain, archive = (tmp_path / "X.npy").read_bytes(), bytearray((tmp_path / "e.npz").read_bytes())
    (tmp_path / "short.npy").write_bytes(plain[:-8])
    (tmp_path / "head.npy").write_bytes(plain[:60])
    (tmp_path / "wide.npy").write_bytes(plain.replace(b"(6, 5)", b"(6,99999999)", 1))
    (tmp_path / "below.npy").write_bytes(plain.replace(b"(6, 5)", b"(-6,5)", 1))
    (tmp_path / "bare.npy").write_bytes(plain.replace(b"<f4", b"<U0", 1))
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "short.npz").write_bytes(archive[:300])
    archive[archive.find(X.tobytes()) + 5] ^= 1
    (tmp_path / "flipped.npz").write_bytes(archive)
    return tmp_path


FILES: dict[str, tuple[str, str]] = {
    "no labels": ("X.npy", "--labels: expected the labels of {X.npy}, as .npy, found none"),
    "labels twice": ("e.npz --labels {y.npy}", "--labels: expected none beside {e.npz}, which has its own, found "),
    "an archive of labels": ("X.npy --labels {e.npz}", "{e.npz}: expected an .npy, one array, found an .npz"),
    "labels that are gone": (
        "X.npy --labels {gone.npy}",
        "{gone.npy}: expected arrays of NumPy (.npz or .npy), found no",
    ),
    "classes twice": ("named.npz --classes a,b,c", "--classes: expected none beside those in {named.npz}, found a,b,c"),
    "few names": ("e.npz --classes a,b", "{e.npz}: y: expected 0 to 1, an index into the classes, found 2 in row 2"),
    "equal names": ("e.npz --classes a,b,a", "--classes: expected different names, in label order, found a, b, a"),
    "a dtype": ("e.npz --dtype int8", "Invalid value for '--dtype': 'int8' is not one of 'float16', 'float32'"),
    "cut short": ("short.npy --labels {y.npy}", "{short.npy}: expected 120 bytes for shape (6, 5), found 112"),
    "cut shorter": (
        "head.npy --labels {y.npy}",
        "{head.npy}: expected arrays of NumPy (.npz or .npy), found a damaged",
    ),
    "too wide": ("wide.npy --labels {y.npy}", "{wide.npy}: expected 2,399,999,976 bytes for shape (6, 99999999), foun"),
    "less than none": ("below.npy --labels {y.npy}", "{below.npy}: expected a shape, found (-6, 5)"),
    "no bytes": ("bare.npy --labels {y.npy}", "{bare.npy}: expected plain numbers or text, found values of no bytes"),
    "empty": ("empty.npy", "{empty.npy}: expected arrays of NumPy (.npz or .npy), found an empty file"),
    "text": ("text.npz", "{text.npz}: expected arrays of NumPy (.npz or .npy), found something else"),
    "half an archive": ("short.npz", "{short.npz}: expected arrays of NumPy (.npz or .npy), found a damaged file ("),
    "a flipped bit": (
        "flipped.npz",
        "{flipped.npz}: expected arrays of NumPy (.npz or .npy), found a damaged file (Ba",
    ),
    "gone": ("gone.npz", "{gone.npz}: expected arrays of NumPy (.npz or .npy), found no such file"),
}


@pytest.mark.parametrize(("line", "message"), FILES.values(), ids=FILES.keys())
def test_files_that_do_not_fit(files, line, message):
    source, *options = (word if word.startswith("--") else word.strip("{}") for word in line.split())
    options = [str(files / word) if word.endswith((".npy", ".npz")) else word for word in options]
    expected = message
    for name in ("X.npy", "y.npy", *(path.name for path in files.iterdir()), "gone.npy", "gone.npz"):
        expected = expected.replace(f"{{{name}}}", str(files / name))
    assert refused(files, files / source, *options).startswith(expected)


def test_an_archive_by_columns_that_memory_does_not_hold_names_the_remedy(tmp_path, monkeypatch):
    np.savez(tmp_path / "e.npz", X=np.asfortranarray(X), y=Y)
    monkeypatch.setattr(array_files, "resident_budget", lambda: 100)
    arrays = ArrayFiles(tmp_path / "e.npz").read()
    with pytest.raises(InputError, match=r"e\.npz: X: expected rows one behind the other, .*ascontiguousarray"):
        list(arrays.pieces("float32"))


def test_an_archive_that_promises_more_than_its_bytes_can_hold_is_not_believed(tmp_path):
    np.save(tmp_path / "X.npy", X)
    content = (tmp_path / "X.npy").read_bytes().replace(b"(6, 5)", b"(6,99999999)", 1)
    with zipfile.ZipFile(tmp_path / "e.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("X.npy", content)
    packed = bytearray((tmp_path / "e.npz").read_bytes())
    size = packed.rfind(b"PK\x01\x02") + 24  # of what is unpacked, as the directory has it
    packed[size : size + 4] = (2**32 - 2).to_bytes(4, "little")
    (tmp_path / "e.npz").write_bytes(packed)
    with pytest.raises(InputError, match=r"e\.npz: X: expected 2,399,999,976 bytes for shape \(6, 99999999\), found "):
        array_files.array_in(tmp_path / "e.npz", "X")


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({"X": object()}, "X: expected float16, float32 or float64, found Python objects"),
        ({"y": [0, 1, None, 0, 1, 2]}, "y: expected whole numbers or text, found NoneType among them"),
        ({"y": [2**70] * 6}, "y: expected whole numbers of 64 bits, found larger ones"),
        ({"patients": pd.array([1, None, 3] * 2, dtype="Int64")}, "patients: expected whole numbers or text, found "),
        ({"dtype": "int8"}, "dtype: expected float16 or float32, found int8"),
        ({"X": X * 1e6, "dtype": "float16"}, "X: expected values up to 65504, the largest float16, found larger ones"),
        ({"X": X * 1e-9, "dtype": "float16"}, "X: expected features in every row, as float16, found zeros only in ro"),
        ({"X": sparse.csr_array(X)}, "X: expected a dense array, found a sparse csr_array; X.toarray() makes it one"),
        ({"X": sparse.coo_matrix(X)}, "X: expected a dense array, found a sparse coo_matrix; X.toarray() makes it one"),
        (
            {"y": sparse.csr_matrix(np.eye(3)[Y])},
            "y: expected a dense array, found a sparse csr_matrix; y.toarray() ma",
        ),
        ({"X": np.ma.masked_less(X, 0.1)}, "X: expected values everywhere, found "),
        ({"y": np.ma.masked_equal(Y, 2)}, "y: expected values everywhere, found 2 masked ones; leave out its rows"),
        ({"y": ["a", "b\0b", "c"] * 2}, "y: expected text of at most 65,536 bytes, found a zero byte in row 1"),
        ({"y": ["a", "b", "\udcff"] * 2}, "y: expected text in Unicode, found something else in row 2"),
        ({"y": ["a" * 70_000, "b", "c"] * 2}, "y: expected text of at most 65,536 bytes, found 70,000 bytes in row 0"),
        ({"X": [[1.0], [1.0, 2.0]]}, "X: expected an array, or what NumPy makes one of, found setting an array"),
    ],
)
def test_python_names_the_argument(tmp_path, known, message):
    path = tmp_path / "s.h5"
    given = {"X": X, "y": Y, **known}
    with pytest.raises(InputError) as refusal:
        FeatureStore.from_arrays(path, **given)
    assert str(refusal.value).startswith(message)
    assert not path.exists()


@pytest.mark.parametrize("given", ["100000000000000000000", "2147483648", "0", "-1"])
def test_a_batch_of_no_size_is_refused(tmp_path, given):
    np.savez(tmp_path / "e.npz", X=X, y=Y)
    said = invoke("features.convert", tmp_path / "e.npz", tmp_path / "s.h5", "--batch-size", given)
    assert said.status == 2
    assert "--batch-size" in said.err
    assert len(said.err.splitlines()) == 1
    arrays = ArrayFiles(tmp_path / "e.npz").read()
    with pytest.raises(InputError, match=f"batch_size: expected 1 to 2,147,483,647, found {given}"):
        arrays_to_store(arrays, tmp_path / "s.h5", batch_size=int(given))
    assert not (tmp_path / "s.h5").exists()


def test_a_place_that_cannot_be_written_is_said_before_the_features_are_read(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(Arrays, "pieces", None)
    with pytest.raises(InputError, match=r"s\.h5: expected a place to write to, found "):
        FeatureStore.from_arrays(tmp_path / "file" / "s.h5", X, Y)
    monkeypatch.undo()
    FeatureStore.from_arrays(tmp_path / "s.h5", X, Y)


def test_the_longest_name_of_a_class_is_kept(tmp_path):
    names = ("a" * 2**16, "b", "c")
    assert FeatureStore.from_arrays(tmp_path / "s.h5", X, [names[label] for label in Y]).classes == names
