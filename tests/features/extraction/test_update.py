"""A store whose images have changed: noticed, said, and made anew from what is left of it."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import commands
import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_backbone import SMALL, MadeBackbone
from made_images import OLD as TIME
from made_images import put_image
from PIL import Image

from features import extract
from features.extraction import changes, extraction
from features.extraction.options import ExtractionOptions
from features.extraction.pipeline import EMPTY
from features.extraction.schedule import batches_in_place
from features.extraction.update import side_path
from features.images.content import digest_of
from features.runtime.backend import BACKENDS
from features.runtime.errors import BottleneckError, InputError
from features.store.check import find_problems
from features.store.reader import FeatureStore
from features.store.writer import StoreWriter

pytestmark = pytest.mark.usefixtures("drawn_once")

OPTIONS = SMALL | {"views": "identity"}
SIDE = 3


@pytest.fixture(autouse=True)
def places(monkeypatch):
    monkeypatch.setattr(extraction, "build_backbone", MadeBackbone)
    MadeBackbone.shown = 0


def put(folder: Path, path: str, value: int, time: int = TIME) -> None:
    """Makes an image of one grey value, always of the same size."""
    put_image(folder / path, np.full((SIDE, SIDE), value, np.uint8), time=time)


def run(images: Path, store: Path, **options):
    said: list[str] = []
    how = ExtractionOptions(**OPTIONS | {"dtype": "float32"} | options)
    return extraction.extract_store(images, store, how, say=said.append), said


@pytest.fixture
def images(tmp_path):
    for row in range(6):
        for name in "AB":
            put(tmp_path / "images", f"{name}/{name}-{row}-1.bmp", 10 * row + ord(name))
    return tmp_path / "images"


def same_bytes(images: Path, store: Path) -> bool:
    fresh = store.with_name("fresh.h5")
    fresh.unlink(missing_ok=True)
    run(images, fresh)
    return fresh.read_bytes() == store.read_bytes()


def test_rows_are_not_computed_on_another_backend_than_the_store_was_begun_with(images, tmp_path, monkeypatch):
    store = tmp_path / "s.h5"
    run(images, store)
    before, here = store.read_bytes(), extraction.versions_here()
    running = next(name for name in BACKENDS if name in here)
    other = next(name for name in BACKENDS if name != running)
    others = {other if name == running else name: version for name, version in here.items()}
    monkeypatch.setattr(extraction, "versions_here", lambda: others)
    run(images, store)  # nothing is computed
    run(images, store, update=True)
    put(images, "A/A-3-1.bmp", 7, TIME + 5)
    with pytest.raises(InputError, match=rf"--backend: expected {running}, on which .*s\.h5 was begun, found {other}"):
        run(images, store, update=True)
    assert store.read_bytes() == before


def test_a_file_replaced_by_one_of_the_same_size_is_noticed_and_alone_computed(images, tmp_path):
    store = tmp_path / "s.h5"
    run(images, store)
    first, before = FeatureStore(store), store.read_bytes()
    put(images, "A/A-3-1.bmp", 7, TIME + 5)
    with pytest.raises(
        InputError, match=r"found 1 image changed since \(A/A-3-1\.bmp\); --update .* 11 of 12"
    ) as caught:
        run(images, store)
    assert caught.value.field == "contents"
    assert store.read_bytes() == before
    MadeBackbone.shown = 0
    summary, said = run(images, store, update=True)
    assert MadeBackbone.shown == 1
    assert summary.update == {"changed": 1, "added": 0, "gone": 0, "kept": 11}
    assert summary.settled == 1
    assert any("MB of room are needed" in line for line in said)
    second = FeatureStore(store)
    assert second.fingerprint == first.fingerprint
    assert second.content != first.content
    assert same_bytes(images, store)
    assert run(images, store)[0].settled == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh.h5", "images", "s.h5"]


def test_another_time_alone_is_no_change(images, tmp_path):
    store = tmp_path / "s.h5"
    run(images, store)
    put(images, "A/A-3-1.bmp", 10 * 3 + ord("A"), TIME + 5)
    summary, said = run(images, store)
    assert summary.settled == 0
    assert any("1 image of another time than the store says hold the same" in line for line in said)
    summary, _ = run(images, store, update=True)  # to have the time right as well
    assert (summary.settled, summary.update["kept"]) == (0, 12)
    assert same_bytes(images, store)


def test_classes_and_patients_may_change_with_the_rows_kept(images, tmp_path):
    store = tmp_path / "s.h5"
    run(images, store)
    put(images, "0/0-1-1.bmp", 99)
    (images / "B" / "B-0-1.bmp").unlink()
    MadeBackbone.shown = 0
    summary, _ = run(images, store, update=True, group_pattern=r"-(\d)-")
    assert (MadeBackbone.shown, summary.update) == (1, {"changed": 0, "added": 1, "gone": 1, "kept": 11})
    opened = FeatureStore(store)
    assert opened.classes == ("0", "A", "B")
    assert len(opened) == 12
    assert not find_problems(opened)


def test_other_features_are_not_taken_over(images, tmp_path):
    store = tmp_path / "s.h5"
    run(images, store)
    put(images, "A/A-3-1.bmp", 7, TIME + 5)
    before = store.read_bytes()
    for options in ({"batch_size": 5}, {"views": "flip"}, {"image_size": 64}, {"dtype": "float16"}):
        with pytest.raises(InputError) as caught:
            run(images, store, update=True, **options)
        assert caught.value.field == next(iter(options))
    assert store.read_bytes() == before


def test_a_killed_update_leaves_the_old_store_and_goes_on(images, tmp_path, monkeypatch):
    """Ended before each of its writes in turn."""
    store, real = tmp_path / "s.h5", StoreWriter.write
    run(images, store)
    for row in range(6):
        put(images, f"A/A-{row}-1.bmp", 200 + row, TIME + 5)
    put(images, "C/C-1-1.bmp", 3)
    before, written = store.read_bytes(), []

    def once(self, *arguments):
        if written:
            raise KeyboardInterrupt
        written.append(arguments[0])
        real(self, *arguments)

    monkeypatch.setattr(StoreWriter, "write", once)
    for stops in range(10):
        written.clear()
        try:
            run(images, store, update=True)
        except KeyboardInterrupt:
            assert store.read_bytes() == before
            assert side_path(store).exists()
            if stops == 0:
                with pytest.raises(InputError, match="changed since"):  # without --update, it still says so
                    run(images, store)
        else:
            break
    assert stops >= 2
    monkeypatch.undo()
    monkeypatch.setattr(extraction, "build_backbone", MadeBackbone)
    assert not side_path(store).exists()
    fresh, opened = tmp_path / "fresh.h5", FeatureStore(store)
    run(images, fresh)
    assert opened.content == FeatureStore(fresh).content
    np.testing.assert_allclose(opened.features, FeatureStore(fresh).features, atol=4 / 1024)


def test_images_that_change_again_make_a_killed_update_start_anew(images, tmp_path, monkeypatch):
    store, real = tmp_path / "s.h5", StoreWriter.finish
    run(images, store)
    put(images, "A/A-1-1.bmp", 200, TIME + 5)

    def stop(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(StoreWriter, "finish", stop)
    with pytest.raises(KeyboardInterrupt):
        run(images, store, update=True)
    monkeypatch.setattr(StoreWriter, "finish", real)
    put(images, "A/A-1-1.bmp", 100, TIME + 9)
    run(images, store, update=True)
    assert same_bytes(images, store)


def test_a_full_disk_leaves_the_old_store(images, tmp_path, monkeypatch):
    store = tmp_path / "s.h5"
    run(images, store)
    before = store.read_bytes()
    put(images, "A/A-1-1.bmp", 200, TIME + 5)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 0))
        with pytest.raises(BottleneckError, match=r"disk full: .* MB free, .* MB needed"):
            run(images, store, update=True)
    assert store.read_bytes() == before
    assert not side_path(store).exists()


def test_a_mended_image_is_a_change_and_one_that_could_not_be_read_too(images, tmp_path):
    store = tmp_path / "s.h5"
    size = (images / "A" / "A-0-1.bmp").stat().st_size
    (images / "A" / "A-0-1.bmp").write_bytes(b"x" * size)
    (images / "A" / "A-1-1.bmp").unlink()
    (images / "A" / "A-1-1.bmp").symlink_to("nowhere.bmp")
    summary, _ = run(images, store)
    assert summary.reasons == {"not an image that Pillow reads": 1, "no such file": 1}
    put(images, "A/A-0-1.bmp", 5)
    (images / "A" / "A-1-1.bmp").unlink()
    put(images, "A/A-1-1.bmp", 6)
    summary, _ = run(images, store, update=True)
    assert (summary.update["changed"], summary.skipped) == (2, {})
    assert same_bytes(images, store)


def test_a_skipped_image_that_can_be_read_as_things_are_told_now_is_a_change(images, tmp_path):
    store = tmp_path / "s.h5"
    Image.fromarray(np.full((SIDE + 1, SIDE + 1), 9, np.uint8)).save(images / "A" / "A-0-1.bmp", "BMP")
    assert len(run(images, store, max_pixels=SIDE * SIDE)[0].skipped) == 1
    assert run(images, store, max_pixels=SIDE * SIDE, update=True)[0].update == {}
    summary, _ = run(images, store, update=True)
    assert (summary.update["changed"], summary.update["kept"], summary.skipped) == (1, 11, {})
    assert same_bytes(images, store)


def test_behind_a_link_a_store_is_updated_where_it_is(images, tmp_path):
    (tmp_path / "disk").mkdir()
    link = tmp_path / "link.h5"
    link.symlink_to(tmp_path / "disk" / "real.h5")
    run(images, link)
    put(images, "A/A-3-1.bmp", 7, TIME + 5)
    run(images, link, update=True)
    assert link.is_symlink()
    assert same_bytes(images, tmp_path / "disk" / "real.h5")


def test_who_reads_a_store_goes_on_reading_that_while_another_takes_its_place(images, tmp_path):
    store = tmp_path / "s.h5"
    run(images, store)
    reader = FeatureStore(store)
    before = [rows.copy() for _, rows in reader.chunks(1)]
    put(images, "A/A-0-0.bmp", 200)  # moves all other rows
    run(images, store, update=True)
    assert len(FeatureStore(store)) == len(reader) + 1
    for (start, rows), was in zip(reader.chunks(1), before, strict=True):
        assert np.array_equal(rows, was)
        assert np.array_equal(rows, reader.take(np.arange(start, start + len(rows))))


def test_pages_of_a_touched_file_are_hashed_once(images, tmp_path, monkeypatch):
    frames = [Image.new("L", (SIDE, SIDE), level) for level in range(5)]
    frames[0].save(images / "A" / "A-9-1.tif", save_all=True, append_images=frames[1:])
    store = tmp_path / "s.h5"
    run(images, store, pages="all")
    os.utime(images / "A" / "A-9-1.tif", (TIME + 5, TIME + 5))
    read: list[Path] = []
    monkeypatch.setattr(changes, "digest_of", lambda path: read.append(path) or digest_of(path))
    run(images, store, pages="all", update=True)
    assert read == [images / "A" / "A-9-1.tif"]


def old_store(images: Path, store: Path) -> None:
    """A store as an earlier version made it: without times and hashes."""
    with pytest.MonkeyPatch.context() as patched:
        header = extraction._Plan.header
        patched.setattr(extraction._Plan, "header", lambda *given: replace(header(*given), modified=()))
        run(images, store)
    with h5py.File(store) as file:
        assert not {"contents", "modified"} & set(file)


def test_a_store_without_hashes_is_gone_on_with_and_can_be_updated(images, tmp_path):
    store = tmp_path / "s.h5"
    old_store(images, store)
    assert FeatureStore(store).content == ""
    summary, said = run(images, store)
    assert (summary.settled, said) == (0, [])
    put(images, "A/A-1-1.bmp", 200, TIME + 5)
    _, said = run(images, store)
    assert any("1 image newer than the store" in line and "--update" in line for line in said)
    MadeBackbone.shown = 0
    run(images, store, update=True)
    assert MadeBackbone.shown == 1
    assert same_bytes(images, store)


def test_the_command_and_the_door_update(images, tmp_path, monkeypatch):
    store = tmp_path / "s.h5"
    told = {**OPTIONS, "progress": False}
    assert extract(images, store, **told).complete
    put(images, "A/A-1-1.bmp", 200, TIME + 5)
    with pytest.raises(InputError, match="changed since"):
        extract(images, store, **told)
    assert len(extract(images, store, update=True, **told)) == 12
    (images / "B" / "B-0-1.bmp").unlink()
    arguments = commands.words(OPTIONS)
    status, _, said = commands.invoke("features.extract", images, store, *arguments)
    assert (status, len(said.splitlines())) == (2, 1)
    assert "1 image gone (B/B-0-1.bmp)" in said
    status, _, said = commands.invoke("features.extract", images, store, *arguments, "--update")
    assert status == 0, said
    assert "updated: 0 changed, 0 added, 1 gone, 11 kept" in said
    assert "nothing to do" not in said


@given(rows=st.sets(st.integers(0, 60)), size=st.integers(1, 9))
def test_rows_are_computed_at_the_place_that_they_have_in_a_store_made_at_once(rows, size):
    batches = batches_in_place(sorted(rows), size)
    placed = [(row, place) for batch in batches for place, row in enumerate(batch) if row != EMPTY]
    assert sorted(row for row, _ in placed) == sorted(rows)
    assert all(row % size == place for row, place in placed)
    assert len(batches) == max((sum(row % size == place for row in rows) for place in range(size)), default=0)


CONTENTS = st.dictionaries(
    st.sampled_from([f"{name}/{name}-{row}-1.bmp" for name in ("A", "B", "Ä", "A\u0308") for row in range(3)]),
    st.tuples(st.integers(0, 255), st.integers(0, 2)),
    min_size=1,
)


@settings(max_examples=12)
@given(before=CONTENTS, after=CONTENTS)
def test_an_updated_store_is_the_fresh_one(tmp_path_factory, before, after):
    """Whatever the images were: byte for byte where no row moved within its batch, which batches of one image show."""
    folder = tmp_path_factory.mktemp("update")
    for path, (value, time) in before.items():
        put(folder / "images", path, value, TIME + time)
    run(folder / "images", folder / "s.h5", batch_size=1)
    shutil.rmtree(folder / "images")
    for path, (value, time) in after.items():
        # Another content within the same time and size is what nobody can see without reading every file.
        moved = path in before and before[path][0] != value
        put(folder / "images", path, value, TIME + time + 10 * moved)
    summary, _ = run(folder / "images", folder / "s.h5", batch_size=1, update=True)
    run(folder / "images", folder / "fresh.h5", batch_size=1)
    assert (folder / "s.h5").read_bytes() == (folder / "fresh.h5").read_bytes()
    new = sum(before.get(path, (None,))[0] != value for path, (value, _) in after.items())
    assert summary.settled == (new if summary.update else 0)
