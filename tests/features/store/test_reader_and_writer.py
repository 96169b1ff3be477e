"""The feature store: what is written is read, whatever kills the writer, and a header that does not fit is named."""

import os
import pickle
import random
import shutil
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from conftest import build_features, build_header, build_store, fill_store
from hypothesis import example, given, settings
from hypothesis import strategies as st

from features.runtime.errors import BottleneckError, InputError
from features.runtime.lock import WriterLock
from features.store import reader as reading
from features.store import writer as writing
from features.store.joined import JoinedStore
from features.store.kind import UNKNOWN
from features.store.projected import ProjectedStore
from features.store.projection import Projection
from features.store.reader import FeatureStore
from features.store.relabelled import RelabelledStore
from features.store.schema import ROW_FIELDS, RowState, StoreHeader
from features.store.writer import StoreWriter

names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)
sides = st.integers(1, 3)


@st.composite
def headers(draw) -> StoreHeader:
    rows = draw(st.integers(1, 12))
    classes = draw(st.lists(names, min_size=1, max_size=4, unique=True))

    def row_of(values):
        return tuple(draw(st.lists(values, min_size=rows, max_size=rows)))

    return StoreHeader(
        classes=tuple(classes),
        paths=row_of(names),
        sizes=row_of(st.integers(0, 2**40)),
        labels=row_of(st.integers(0, len(classes) - 1)),
        patients=row_of(st.one_of(st.just(""), names)),
        feature_shape=draw(st.tuples(sides, sides, sides)),
        views=tuple(draw(st.lists(names, min_size=1, max_size=3, unique=True))),
        backbone=draw(names),
        alpha=draw(st.one_of(st.none(), st.floats(0.1, 4))),
        weights=draw(names),
        weights_sha256=draw(st.text("0123456789abcdef", max_size=64)),
        image_size=draw(st.integers(0, 1000)),
        preprocessing=draw(st.sampled_from(["backbone", "unit", "unknown"])),
        intensity=draw(st.sampled_from(["unknown", "8 bits", "type", "0:4095", "whole=-1:1e+300,fractions=0:0.5"])),
        pages=draw(st.sampled_from(["first", "all"])),
        dtype=draw(st.sampled_from(["float16", "float32"])),
        batch_size=draw(st.integers(1, 8)),
        created=draw(st.sampled_from(["", "2026-01-01T00:00:00Z"])),
        versions=draw(st.dictionaries(names, names, max_size=3)),
    )


COMPOSED_OTHERWISE = replace(build_header(rows=4), classes=("\uf900", "B", "C", "D"), patients=("\uf900",) * 4)
"""Names that composition (NFC) makes others of."""


@given(header=headers(), seed=st.integers(0, 99), stop=st.integers(0, 12))
@example(header=COMPOSED_OTHERWISE, seed=0, stop=0)
@settings(max_examples=60)
def test_what_is_written_is_read_and_stopping_changes_no_byte(header, seed, stop):
    generator = np.random.default_rng(seed)
    states = generator.integers(RowState.DONE, RowState.SKIPPED + 1, len(header)).astype(np.uint8)
    features = generator.normal(size=header.shape).astype(header.dtype)
    features[states == RowState.SKIPPED] = 0
    with TemporaryDirectory() as folder:
        whole, stopped = Path(folder, "whole.h5"), Path(folder, "stopped.h5")
        fill_store(whole, header, features, states)
        fill_store(stopped, header, features, states, batches=stop)
        fill_store(stopped, header, features, states)
        assert whole.read_bytes() == stopped.read_bytes()
        store = FeatureStore(whole)
        read = header.spelled()
        assert store.header == read
        assert store.fingerprint == header.fingerprint  # of the file
        assert np.array_equal(store.features, features)
        assert store.features.dtype == header.dtype
        assert np.array_equal(store.done, states)
        assert store.usable.tolist() == np.flatnonzero(states == RowState.DONE).tolist()
        assert store.labels.tolist() == list(header.labels)
        assert store.patients.tolist() == list(read.patients)
        assert store.complete
        assert sorted(path.name for path in Path(folder).iterdir()) == ["stopped.h5", "whole.h5"]


def test_the_clock_changes_no_byte(tmp_path):
    build_store(tmp_path / "a.h5")
    time.sleep(1.1)  # HDF5's own time stamps, were there any, are in seconds
    build_store(tmp_path / "b.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_everything_a_reader_gives_is_read_only(tmp_path):
    store = FeatureStore(build_store(tmp_path / "a.h5"))
    for array in (store.features, store.labels, store.done, store.patients):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = array[0]


# What kills a writer. The script dies by SIGKILL just before, or in the midst of, its n-th call that reaches the disk.
KILLED = """
import os, pickle, signal, sys
from pathlib import Path
from features.store.writer import StoreWriter

header, features, states = pickle.loads(Path(sys.argv[1]).read_bytes())
path, last = Path(sys.argv[2]), int(sys.argv[3])
calls = 0

def deadly(real, torn=False):
    def call(*args, **options):
        global calls
        calls += 1
        if calls == last:
            if torn:
                real(args[0], args[1][: len(args[1]) // 2], *args[2:])
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **options)
    return call

for name in ("fsync", "fdatasync", "posix_fallocate", "replace"):
    setattr(os, name, deadly(getattr(os, name)))
os.pwrite = deadly(os.pwrite, torn=True)
with StoreWriter(path, header) as writer:
    for rows in writer.pending():
        writer.write(rows, features[rows.start : rows.stop], states[rows.start : rows.stop])
        print(rows.stop, flush=True)
    writer.finish()
"""


@pytest.fixture
def material(tmp_path):
    """A header, its features and states, and the same pickled for a subprocess."""
    header = build_header(rows=10, batch_size=4, views=("identity", "flip"))
    features, states = build_features(header), np.full(10, RowState.DONE, np.uint8)
    features[6], states[6] = 0, RowState.SKIPPED
    pickled = tmp_path / "material.pickle"
    pickled.write_bytes(pickle.dumps((header, features, states)))
    return header, features, states, pickled


def run_script(pickled: Path, path: Path, last: int = 0, **options) -> subprocess.Popen:
    command = [sys.executable, "-c", KILLED, str(pickled), str(path), str(last)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_killed_at_every_call_that_reaches_the_disk_it_resumes_to_the_same_bytes(tmp_path, material):
    header, features, states, pickled = material
    fill_store(tmp_path / "whole.h5", header, features, states)
    points = list(range(1, 21))
    runs = []
    for start in range(0, len(points), 4):  # a few at a time
        some = [run_script(pickled, tmp_path / str(point) / "a.h5", point) for point in points[start : start + 4]]
        runs += [(process.communicate()[1], process.returncode) for process in some]
    killed = [point for point, (_, code) in zip(points, runs, strict=True) if code == -9]
    assert killed == list(range(1, len(killed) + 1))
    assert len(killed) >= 3 + 4 * 3, runs  # creation, then four calls for each of the three batches
    assert {code for _, code in runs[len(killed) :]} == {0}, runs
    for point in points:
        path = tmp_path / str(point) / "a.h5"
        if path.exists():
            store = FeatureStore(path)
            settled = store.done != RowState.PENDING
            assert np.array_equal(store.features[settled], features[settled])
            assert store.complete <= bool(settled.all())
        fill_store(path, header, features, states)
        assert path.read_bytes() == (tmp_path / "whole.h5").read_bytes(), point
        assert [other.name for other in path.parent.iterdir()] == ["a.h5"]


def test_killed_from_outside_again_and_again_it_resumes_to_the_same_bytes(tmp_path):
    header = build_header(rows=600, batch_size=2, shape=(4, 4, 8))
    features, states = build_features(header), np.full(600, RowState.DONE, np.uint8)
    fill_store(tmp_path / "whole.h5", header, features, states)
    pickled, path = tmp_path / "material.pickle", tmp_path / "a.h5"
    pickled.write_bytes(pickle.dumps((header, features, states)))
    chance = random.Random(0)
    reached = 0
    for _ in range(3):
        with run_script(pickled, path) as process:
            for _ in range(chance.randrange(1, 60)):
                reached = int(process.stdout.readline())
            process.kill()
        done = np.count_nonzero(FeatureStore(path).done)
        assert done >= reached  # what it said was written is there
    fill_store(path, header, features, states)
    assert path.read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_features_are_flushed_before_their_rows_are_said_to_be_done_and_that_is_flushed(tmp_path, monkeypatch):
    """A kill leaves what was written, flushed or not: only a machine that goes down tells the order."""
    told, write, flush = [], writing.write_at, writing.sync_data
    monkeypatch.setattr(
        writing, "write_at", lambda file, array, at: told.append(array.dtype.name) or write(file, array, at)
    )
    monkeypatch.setattr(writing, "sync_data", lambda file: told.append("flushed") or flush(file))
    header = build_header(rows=16)
    fill_store(tmp_path / "s.h5", header)
    assert told == ["float16", "flushed", "uint8", "flushed"]


def test_a_store_whose_place_another_takes_while_it_is_opened_is_not_read(tmp_path, monkeypatch):
    path, other = (build_store(tmp_path / f"{seed}.h5", seed=seed) for seed in (0, 1))
    opened = reading.open_to_read
    monkeypatch.setattr(reading, "open_to_read", lambda path: other.replace(path) and opened(path))
    with pytest.raises(InputError, match="expected a store that stays, found another one in its place; run it again"):
        FeatureStore(path)


def test_a_reader_sees_only_what_is_settled_while_another_writes(tmp_path):
    header = build_header(rows=12, batch_size=4)
    features, states = build_features(header), np.full(12, RowState.DONE, np.uint8)
    path = tmp_path / "a.h5"
    with StoreWriter(path, header) as writer:
        first = next(iter(writer.pending()))
        writer.write(first, features[:4], states[:4])
        store = FeatureStore(path)
        assert store.done.tolist() == [1] * 4 + [0] * 8
        assert np.array_equal(store.features[:4], features[:4])
        with pytest.raises(InputError, match="complete: expected a finished store, found 4 of 12 rows; run the same"):
            store.require_complete()


@pytest.mark.parametrize(
    ("made_of", "command"),
    [
        ({}, "features.extract"),
        ({"backbone": UNKNOWN}, "features.convert"),
        ({"backbone": UNKNOWN, "arrays_sha256": "ab" * 32}, "features.convert"),
        ({"backbone": UNKNOWN, "arrays_sha256": "ab" * 32, "created": ""}, "FeatureStore.from_arrays"),
        ({"projection": Projection(np.eye(8, dtype=np.float32), "ab" * 32)}, "features.compress"),
        (
            {"backbone": UNKNOWN, "projection": Projection(np.eye(8, dtype=np.float32), "ab" * 32)},
            "features.compress",
        ),
    ],
)
def test_an_unfinished_store_says_what_finishes_it(tmp_path, made_of, command):
    header = replace(build_header(rows=12, batch_size=4), **made_of)
    fill_store(tmp_path / "a.h5", header, build_features(header), np.full(12, RowState.DONE, np.uint8), batches=1)
    with pytest.raises(InputError, match=f"found 4 of 12 rows; run the same {command} again to finish it$"):
        FeatureStore(tmp_path / "a.h5").require_complete()


def test_a_store_is_read_on_from_wherever_the_process_goes(tmp_path, monkeypatch):
    expected = np.array(FeatureStore(build_store(tmp_path / "a.h5", rows=6)).features)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    store = FeatureStore("a.h5")
    assert store.place == Path("a.h5")
    monkeypatch.chdir("elsewhere")
    build_store(tmp_path / "elsewhere" / "a.h5", rows=9)
    assert len(pickle.loads(pickle.dumps(store))) == 6
    assert store.place == tmp_path / "a.h5"
    (tmp_path / "a.h5").rename(tmp_path / "b.h5")
    assert np.array_equal(np.concatenate([chunk for _, chunk in store.chunks(1)]), expected)
    assert np.array_equal(store.take(np.array([4, 0, 5])), expected[[4, 0, 5]])


def test_a_store_without_a_usable_row_is_refused(tmp_path):
    path = build_store(tmp_path / "a.h5", rows=4, skipped=range(4))
    with pytest.raises(InputError, match="done: expected at least one usable row, found none"):
        FeatureStore(path).require_complete()


@pytest.mark.parametrize("path", [5, None, b"s.h5", "x" * 300, "a\0b"])
def test_what_is_no_path_of_a_store_is_refused(path):
    with pytest.raises(InputError, match=r"expected (the path of )?a feature store, found"):
        FeatureStore(path)


def test_a_second_writer_is_refused_and_nothing_is_left_of_the_lock(tmp_path):
    header, path = build_header(), tmp_path / "new" / "a.h5"
    with StoreWriter(path, header):
        for _ in range(2):  # the refused one must not free the first one's lock
            with pytest.raises(BottleneckError, match=r"a\.h5: another process is writing it"):
                StoreWriter(path, header)
    assert [file.name for file in path.parent.iterdir()] == ["a.h5"]
    StoreWriter(path, header).close()


@pytest.mark.parametrize("end", ["moved", "removed", "another in its place", "its folder removed"])
@pytest.mark.parametrize("step", ["write", "finish"])
def test_a_store_that_loses_its_name_while_it_is_written_says_so(tmp_path, end, step):
    header = build_header(rows=32)
    features, states = build_features(header), np.full(len(header), RowState.DONE, np.uint8)
    path = tmp_path / "stores" / "a.h5"

    def lose() -> None:
        if end == "moved":
            path.rename(tmp_path / "b.h5")
        elif end == "another in its place":
            build_store(tmp_path / "b.h5", rows=32).replace(path)
        else:
            path.unlink()
        if end == "its folder removed":
            shutil.rmtree(path.parent)

    with StoreWriter(path, header) as writer:
        first, second = [*writer.pending()]
        writer.write(first, features[:16], states[:16])
        if step == "write":
            lose()
        with pytest.raises(BottleneckError, match=r"a\.h5: moved or removed while it was written$"):
            writer.write(second, features[16:], states[16:])
            lose()
            writer.finish()


def test_the_lock_survives_that_its_file_was_removed_between_open_and_lock(tmp_path, monkeypatch):
    path = tmp_path / "a.h5"
    first = WriterLock(path)
    real, opened = os.open, []

    def open_then_lose_the_race(*args, **options):
        descriptor = real(*args, **options)
        if not opened:
            first.release()  # unlinks the very file that was just opened
        opened.append(descriptor)
        return descriptor

    monkeypatch.setattr(os, "open", open_then_lose_the_race)
    second = WriterLock(path)
    assert len(opened) >= 2  # the lost one is not it: the file was opened anew
    with pytest.raises(BottleneckError, match="another process"):
        WriterLock(path)
    second.release()


CHANGES = {
    "classes": ("CNV", "DME", "DRUSEN", "HEALTHY"),
    "paths": ("other.png",),
    "sizes": (1,),
    "labels": (3,),
    "patients": ("somebody",),
    "feature_shape": (2, 2, 9),
    "views": ("flip",),
    "backbone": "vgg16",
    "alpha": None,
    "weights": "imagenet",
    "weights_sha256": "cd" * 32,
    "image_size": 65,
    "preprocessing": "unit",
    "intensity": "0:4095",
    "resize": "pad",
    "pages": "all",
    "dtype": "float32",
    "batch_size": 8,
    "projection": Projection(np.eye(9, 8, dtype=np.float32), "ab" * 32),
    "arrays_sha256": "ef" * 32,
    "parts": ("train", "test", "validation") * 3,
    "layer": "conv_pw_1",
    "backbone_sha256": "12" * 32,
}
FREE = {"versions", "created", "modified"}


def test_every_field_of_a_header_is_compared_or_free():
    assert CHANGES.keys() | FREE == {field.name for field in fields(StoreHeader)}


@pytest.mark.parametrize("name", CHANGES)
def test_a_store_that_differs_is_refused_naming_the_field_and_kept(tmp_path, name):
    header = build_header(rows=9)
    value = CHANGES[name] if name not in ROW_FIELDS else CHANGES[name] + getattr(header, name)[1:]
    path = build_store(tmp_path / "a.h5", rows=9)
    before = path.read_bytes()
    with pytest.raises(InputError, match=f": {name}: expected .*, found ") as caught:
        StoreWriter(path, replace(header, **{name: value}))
    assert caught.value.field == name
    assert path.read_bytes() == before


def test_versions_and_time_may_differ_and_the_message_shows_only_the_first_other_row(tmp_path):
    header = build_header(rows=9)
    path = build_store(tmp_path / "a.h5", rows=9)
    StoreWriter(path, replace(header, versions={"keras": "9"}, created="2030-01-01T00:00:00Z")).close()
    sizes = (*header.sizes[:5], 1, *header.sizes[6:])
    with pytest.raises(InputError, match="sizes: expected 1 in row 5, found 505; choose another store"):
        StoreWriter(path, replace(header, sizes=sizes))


@pytest.mark.parametrize(
    "name", sorted(CHANGES.keys() - {"feature_shape", "weights", "patients", "parts", "pages", "batch_size"})
)
def test_the_fingerprint_depends_on_all_that_decides_the_features(name):
    header = build_header(rows=9)
    value = CHANGES[name] if name not in ROW_FIELDS else CHANGES[name] + getattr(header, name)[1:]
    assert replace(header, **{name: value}).fingerprint != header.fingerprint


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="expected a place to write to"):
        StoreWriter(tmp_path / "file" / "a.h5", build_header())


@pytest.mark.parametrize(
    "within",
    [
        lambda store: store,
        lambda store: JoinedStore(store, store),
        lambda store: RelabelledStore(store, [*store.classes, "OTHER"]),
        lambda store: ProjectedStore(store, Projection(np.eye(8, 4, dtype=np.float32), "ab" * 32)),
    ],
    ids=["alone", "joined", "relabelled", "projected"],
)
def test_what_is_written_into_a_store_that_is_read_is_noticed_and_one_that_takes_its_place_is_none(tmp_path, within):
    path, other = build_store(tmp_path / "a.h5"), build_store(tmp_path / "b.h5", seed=1)
    replaced = within(FeatureStore(path))
    before = replaced.take([0, 1])
    shutil.copyfile(other, tmp_path / "c.h5")
    (tmp_path / "c.h5").replace(path)  # as an update does
    replaced.require_unchanged()
    assert np.array_equal(replaced.take([0, 1]), before)
    written = within(FeatureStore(path))
    written.require_unchanged()
    shutil.copyfile(other, path)
    said = r"a\.h5: expected a store that stays, found one that was written to since it was opened; run it again"
    with pytest.raises(InputError, match=said):
        written.require_unchanged()
