"""Arrays from elsewhere to a store: what comes out is what went in, in bounded memory, however it came."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from commands import succeed
from hypothesis import given, settings
from hypothesis import strategies as st

import features
from features.runtime.errors import InputError
from features.store import arrays as module
from features.store.arrays import ArrayFiles, Arrays, arrays_to_store
from features.store.check import describe, find_problems
from features.store.given import HeldArray
from features.store.reader import FeatureStore

LABELS = np.array([0, 1, 2] * 4)
NAMES = np.array(["cat", "dog", "émeu"])


def vectors(rows: int = 12, channels: int = 5, *, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, channels)).astype(dtype)


def held(x: Any, y: Any, **known: Any) -> Arrays:
    return Arrays.of(HeldArray("X", x), HeldArray("y", y), {name: HeldArray(name, one) for name, one in known.items()})


@given(
    rows=st.integers(1, 9),
    place=st.one_of(
        st.tuples(st.integers(1, 6)),
        st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4)).filter(lambda a: not a[0] != a[1] == a[2]),
    ),
    dtype=st.sampled_from(["<f2", "<f4", "<f8", ">f4"]),
    names=st.one_of(
        st.none(), st.lists(st.text(st.characters(categories=["L", "N"]), min_size=1), min_size=1, unique=True)
    ),
    way=st.sampled_from(["memory", "npz", "compressed", "npy", "h5py", "columns"]),
    piece=st.integers(1, 200),
    seed=st.integers(0, 99),
)
@settings(max_examples=60)
def test_what_comes_out_is_what_went_in(rows, place, dtype, names, way, piece, seed):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(rows, *place)).astype(dtype)
    kinds = min(rows, len(names) if names else 3)
    indices = generator.permutation(np.arange(rows) % kinds)
    y = np.array(names[:kinds])[indices] if names else indices
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK_BYTES", piece)
        path, source = Path(folder, "store.h5"), Path(folder, "a.npz")
        if way == "memory":
            arrays = held(x, y)
        elif way == "h5py":
            with h5py.File(Path(folder, "made.h5"), "w") as file:
                file["X"] = x
                arrays_to_store(held(file["X"], list(y)), path)
            arrays = held(x, y)  # the finished store is theirs, too
        elif way in ("npz", "compressed"):
            (np.savez if way == "npz" else np.savez_compressed)(source, X=x, y=y)
            arrays = ArrayFiles(source).read()
        else:
            np.save(source.with_suffix(".npy"), np.asfortranarray(x) if way == "columns" else x)
            np.save(Path(folder, "y.npy"), y)
            arrays = ArrayFiles(source.with_suffix(".npy"), Path(folder, "y.npy")).read()
        arrays_to_store(arrays, path)
        store = FeatureStore(path)
        kept = np.dtype("float16" if dtype == "<f2" else "float32")
        assert store.features.dtype == kept
        assert np.array_equal(store.features[:, 0], x.reshape(rows, *((1, 1, *place)[-3:])).astype(kept))
        called = [store.classes[label] for label in store.labels]
        if names:
            import unicodedata

            assert called == [unicodedata.normalize("NFC", str(name)) for name in y]
        else:
            assert store.labels.tolist() == y.tolist()
        assert find_problems(store) == []


def test_patients_that_were_floats_for_a_while_are_who_they_were(tmp_path):
    names = np.array(["12.0", "7.0", "", "12"] * 3)
    store = FeatureStore.from_arrays(tmp_path / "s.h5", vectors(), LABELS, patients=names)
    assert store.patients[:4].tolist() == ["12", "7", "", "12"]


def test_a_word_that_is_the_patient_of_many_rows_is_told(tmp_path):
    np.savez(tmp_path / "e.npz", X=vectors(), y=LABELS, patients=np.array(["p", "q", "r", "NA"] * 3))
    said = succeed("features.convert", tmp_path / "e.npz", tmp_path / "s.h5").err
    assert "3 rows are of one patient, 'NA', and stay together: where that means unknown, leave it empty" in said
    assert "'p'" not in said


def test_the_command_and_python_make_the_same_of_the_same(tmp_path, capsys):
    known = {"paths": np.array([f"a/{row}.png" for row in range(12)]), "patients": np.arange(12) // 2}
    np.savez(tmp_path / "e.npz", X=vectors(), y=NAMES[LABELS], meta=np.array([{}], object), **known)
    said = succeed("features.convert", tmp_path / "e.npz", tmp_path / "one.h5")
    assert said.err.endswith("left out, as a store has no place for them: meta\n")
    capsys.readouterr()
    three = features.convert(f"{tmp_path / 'e.npz'}", tmp_path / "three.h5")
    assert capsys.readouterr().err.endswith("three.h5: left out, as a store has no place for them: meta\n")
    assert three.path.read_bytes() == (tmp_path / "one.h5").read_bytes()
    assert features.convert(tmp_path / "e.npz", tmp_path / "three.h5", progress=False).fingerprint == three.fingerprint
    assert capsys.readouterr() == ("", "")
    table = pd.DataFrame({"label": NAMES[LABELS], "path": known["paths"], "patient": known["patients"]})
    two = FeatureStore.from_arrays(
        tmp_path / "two.h5", vectors(), table["label"], paths=table["path"], patients=table["patient"]
    )
    one = FeatureStore(tmp_path / "one.h5")
    assert one.header.created
    assert replace(one.header, created="") == two.header
    assert one.fingerprint == two.fingerprint
    assert np.array_equal(one.features, two.features)
    assert two.classes == ("cat", "dog", "émeu")
    assert two.header.patients[:4] == ("0", "0", "1", "1")
    assert two.header.feature_shape == (1, 1, 5)
    assert (two.header.backbone, two.header.preprocessing, two.header.weights_sha256) == ("unknown", "unknown", "")
    assert describe(two)["arrays_sha256"] == two.header.arrays_sha256


def test_how_a_script_has_numpy_treat_underflow_decides_nothing_and_stays(tmp_path):
    features = vectors().astype(np.float32)
    features[0, 0] = 1e-9
    with np.errstate(all="raise"):
        store = FeatureStore.from_arrays(tmp_path / "s.h5", features, LABELS, dtype="float16")
        assert set(np.geterr().values()) == {"raise"}
    assert store.features[0].flat[0] == 0


@pytest.mark.parametrize("given", ["float16", np.float16, np.dtype("float16"), np.dtype(">f2")], ids=repr)
def test_a_dtype_may_be_that_of_another_array(tmp_path, given):
    assert FeatureStore.from_arrays(tmp_path / "s.h5", vectors(), LABELS, dtype=given).header.dtype == "float16"


@pytest.mark.parametrize("given", ["half", "", int, np.dtype("float64"), 3, ["float16"]], ids=repr)
def test_another_dtype_is_refused(tmp_path, given):
    with pytest.raises(InputError, match="dtype: expected float16 or float32, found"):
        FeatureStore.from_arrays(tmp_path / "s.h5", vectors(), LABELS, dtype=given)


def test_npy_files_beside_each_other(tmp_path):
    for name, values in {
        "X": vectors(),
        "y": LABELS,
        "p": np.array(["a", ""] * 6),
        "n": np.arange(12).astype(str),
    }.items():
        np.save(tmp_path / f"{name}.npy", values)
    beside = [
        option
        for name, file in {"labels": "y", "patients": "p", "paths": "n"}.items()
        for option in (f"--{name}", tmp_path / f"{file}.npy")
    ]
    said = succeed(
        "features.convert", tmp_path / "X.npy", tmp_path / "s.h5", *beside, "--classes", "a,b, c", "--dtype", "float16"
    )
    assert "the patient of 6 rows is unknown" in said.err
    store = FeatureStore(tmp_path / "s.h5")
    assert (store.classes, store.header.dtype, store.header.paths[11]) == (("a", "b", "c"), "float16", "11")
    assert (
        "the patients are unknown"
        in succeed("features.convert", tmp_path / "X.npy", tmp_path / "t.h5", *beside[:2]).err
    )
    assert FeatureStore(tmp_path / "t.h5").header.paths[11] == "row-11"


def test_a_conversion_that_was_stopped_goes_on_and_ends_in_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_BYTES", 60)  # three rows
    arrays_to_store(held(vectors(), LABELS), tmp_path / "whole.h5")
    written = []

    def interrupt(done: int, total: int) -> None:
        written.append(done)
        if done == total * 3 // 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        arrays_to_store(held(vectors(), LABELS), tmp_path / "s.h5", on_progress=interrupt)
    assert written == sorted(written)
    assert FeatureStore(tmp_path / "s.h5").done.tolist() == [1] * 6 + [0] * 6
    with pytest.raises(InputError, match=r"s\.h5: arrays_sha256: expected '.*', found '.*'; choose another store"):
        arrays_to_store(held(vectors(seed=1), LABELS), tmp_path / "s.h5")
    arrays_to_store(held(vectors(), LABELS), tmp_path / "s.h5")
    assert (tmp_path / "s.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    arrays_to_store(held(vectors(), LABELS), tmp_path / "s.h5", on_progress=lambda *told: written.append(told))
    assert written[-1] == (12, 12)  # what is there already is done
    with pytest.raises(InputError, match="labels: expected"):
        FeatureStore.from_arrays(tmp_path / "s.h5", vectors(), LABELS[::-1])


def test_other_vectors_of_the_same_images_are_another_store(tmp_path):
    one, two = (FeatureStore.from_arrays(tmp_path / f"{n}.h5", vectors(seed=n), LABELS) for n in (1, 2))
    assert one.fingerprint != two.fingerprint
    with h5py.File(one.path, "r+") as file:
        file["features"][3, 0, 0, 0, 0] += 1
    (problem,) = find_problems(FeatureStore(one.path))
    assert problem.startswith("arrays_sha256: expected ")


def test_memory_is_bounded_and_arrays_that_change_meanwhile_leave_nothing(tmp_path, monkeypatch):
    x, labels = vectors(20_000, 256), np.arange(20_000) % 2
    np.savez_compressed(tmp_path / "e.npz", X=np.zeros((20_000, 256), "f4") + x[:1], y=labels)
    np.save(tmp_path / "X.npy", x)
    monkeypatch.setattr(module, "CHUNK_BYTES", 2**18)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    for arrays in (ArrayFiles(tmp_path / "e.npz").read(), held(mapped, labels)):
        tracemalloc.start()
        arrays_to_store(arrays, tmp_path / "store.h5")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (tmp_path / "store.h5").stat().st_size > 20e6
        assert peak < 12e6
        (tmp_path / "store.h5").unlink()

    def change(done: int, total: int) -> None:
        if done == total // 2:
            x[7] += 1

    with pytest.raises(InputError, match="X: expected the values that were checked, found others"):
        arrays_to_store(held(x, labels), tmp_path / "store.h5", on_progress=change)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["X.npy", "e.npz"]
