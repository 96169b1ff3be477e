"""The article's layout to a store and back, in bounded memory; what does not fit is named and leaves nothing behind."""

import itertools
import os
import resource
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import numpy as np
import pytest
from commands import invoke, succeed
from conftest import CLASSES, build_store
from hypothesis import given, settings
from hypothesis import strategies as st

import features
from features.runtime.errors import BottleneckError, InputError
from features.runtime.lock import WriterLock
from features.store import article as layout
from features.store.article import article_to_store, is_article, pieces, store_to_article
from features.store.reader import FeatureStore
from features.store.writer import StoreWriter

NUMBERED = ("class-0", "class-1", "class-2", "class-3")


def write_article(path: Path, counts, *, shape=(2, 2, 8), classes=4, seed=0, values=None) -> Path:
    """Writes the article's layout as its own script does, from features that float16 can hold."""
    generator = np.random.default_rng(seed)
    with h5py.File(path, "w") as file:
        for number, rows in enumerate(counts):
            features = generator.normal(size=(rows, *shape)).astype(np.float16) if values is None else values
            labels = np.eye(classes, dtype=np.float32)[generator.integers(0, classes, rows)]
            file.create_dataset(f"features-{number}", data=features.astype(np.float32))
            file.create_dataset(f"labels-{number}", data=labels)
        file.create_dataset("batches", data=len(counts))
    return path


def read_article(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path, "r") as file:
        return {name: file[name][()] for name in file}


def assert_same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert np.array_equal(value, second[name]), name
        assert np.asarray(value).dtype == np.asarray(second[name]).dtype, name


@given(
    full=st.integers(0, 3),
    size=st.integers(1, 7),
    last=st.integers(1, 7),
    classes=st.integers(1, 5),
    piece=st.integers(1, 4),
    dtype=st.sampled_from(["float16", "float32"]),
)
@settings(max_examples=40)
def test_article_to_store_to_article_is_the_same(full, size, last, classes, piece, dtype):
    counts = [size] * full + [min(last, size)]
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "CHUNK_BYTES", piece * 2 * 2 * 8 * 4)
        article, store, back = (Path(folder, name) for name in ("article.h5", "store.h5", "back.h5"))
        write_article(article, counts, classes=classes)
        article_to_store(article, store, dtype=dtype)
        store_to_article(store, back)
        assert_same(read_article(article), read_article(back))
        assert FeatureStore(store).header.dtype == dtype
        assert len(list(Path(folder).iterdir())) == 3


def test_store_to_article_to_store_keeps_all_that_the_layout_has_a_place_for(tmp_path):
    first = build_store(tmp_path / "first.h5", rows=250, views=("identity", "flip"), skipped=[3, 200])
    store_to_article(first, tmp_path / "article.h5")
    article_to_store(tmp_path / "article.h5", tmp_path / "second.h5")
    one, two = FeatureStore(first), FeatureStore(tmp_path / "second.h5")
    assert len(two) == 248
    assert np.array_equal(one.features[one.usable, 0], two.features[:, 0])
    assert one.labels[one.usable].tolist() == two.labels.tolist()
    assert two.classes == NUMBERED
    assert two.header.batch_size == 100
    assert two.header.paths[100] == "batch-1/0"
    assert set(two.header.patients) == {""}
    with h5py.File(tmp_path / "article.h5") as file:
        assert [file[f"features-{number}"].shape[0] for number in range(3)] == [100, 100, 48]


def test_equal_articles_give_equal_bytes_whatever_the_pieces_and_the_interruptions(tmp_path, monkeypatch):
    article = write_article(tmp_path / "article.h5", [8, 8, 8, 3])
    article_to_store(article, tmp_path / "whole.h5")
    monkeypatch.setattr(layout, "CHUNK_BYTES", 5 * 2 * 2 * 8 * 4)
    stopped = tmp_path / "stopped.h5"
    for stop in (1, 3):
        reports = itertools.count(1)

        def interrupt(rows, total, reports=reports, stop=stop):
            if next(reports) == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            article_to_store(article, stopped, on_progress=interrupt)
        assert not FeatureStore(stopped).complete
    article_to_store(article, stopped)
    assert stopped.read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_an_unfinished_store_of_another_article_is_refused(tmp_path):
    article = write_article(tmp_path / "article.h5", [4, 4])
    # the same labels, so that the header alone cannot tell
    other = write_article(tmp_path / "other.h5", [4, 4])
    with h5py.File(other, "r+") as file:
        file["features-0"][2] += 1
    with StoreWriter(tmp_path / "store.h5", article_header_of(article)) as writer:
        rows = next(iter(writer.pending()))
        features = read_article(article)["features-0"].astype(np.float16)[:, None]
        writer.write(rows, features, np.ones(4, np.uint8))
    before = (tmp_path / "store.h5").read_bytes()
    with (
        pytest.raises(InputError, match=r"features: expected the features of .*other\.h5 in rows 0 to 3, found others"),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(layout, "CHUNK_BYTES", 4 * 2 * 2 * 8 * 4)
        article_to_store(other, tmp_path / "store.h5")
    assert (tmp_path / "store.h5").read_bytes() == before
    article_to_store(article, tmp_path / "store.h5")


def test_killed_behind_its_last_write_the_same_command_finds_it_done(tmp_path):
    article, store, back = (tmp_path / name for name in ("article.h5", "store.h5", "back.h5"))
    write_article(article, [4, 4, 3])
    for source, made in ((article, store), (store, back)):
        succeed("features.convert", source, made)
        content = made.read_bytes()
        (tmp_path / f".{made.name}.lock").touch()  # which a killed process leaves
        succeed("features.convert", source, made)
        assert made.read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["article.h5", "back.h5", "store.h5"]


@pytest.mark.parametrize("change", ["a value", "a label", "the batches"])
def test_a_finished_file_of_another_source_is_refused_and_stays_as_it_is(tmp_path, change):
    article, store, back = (tmp_path / name for name in ("article.h5", "store.h5", "back.h5"))
    write_article(article, [4, 4, 3])
    article_to_store(article, store)
    store_to_article(store, back)
    size = 5 if change == "the batches" else None
    for path in (article, back):
        modified = path.stat().st_mtime_ns
        with h5py.File(path, "r+") as file:
            if change == "a value":
                file["features-2"][1, 0, 0, 3] += 1
            elif change == "a label":
                file["labels-1"][2] = np.roll(file["labels-1"][2], 1)
        os.utime(path, ns=(modified, modified))
    contents = store.read_bytes(), back.read_bytes()
    said = {"a value": "features: expected the features of ", "a label": "labels: ", "the batches": "batch_size: "}
    with pytest.raises(InputError, match=said[change]):
        article_to_store(article, store, batch_size=size)
    with pytest.raises(InputError, match="expected no such file, found one"):
        store_to_article(store, back, batch_size=size)
    assert (store.read_bytes(), back.read_bytes()) == contents


def article_header_of(path: Path):
    with layout.ArticleFile(path) as article:
        return layout.article_header(article, classes=NUMBERED, dtype="float16", batch_size=4)


def test_memory_is_bounded_however_large_a_batch_is(tmp_path, monkeypatch):
    shape, rows = (4, 4, 64), 4000
    article = write_article(tmp_path / "article.h5", [rows], shape=shape)
    monkeypatch.setattr(layout, "CHUNK_BYTES", 2**18)
    tracemalloc.start()
    try:
        article_to_store(article, tmp_path / "store.h5")
        store_to_article(tmp_path / "store.h5", tmp_path / "back.h5")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (tmp_path / "back.h5").stat().st_size > 16e6
    assert peak < 5e6
    assert_same(read_article(article), read_article(tmp_path / "back.h5"))


def test_batches_share_the_numbers_of_their_rows(tmp_path, monkeypatch):
    """Memory would grow with the square of the rows otherwise: a copy of all numbers for each batch."""
    counted = []
    monkeypatch.setattr(FeatureStore, "usable", property(lambda store: counted.append(1) or np.arange(len(store))))
    store = build_store(tmp_path / "store.h5", rows=60, shape=(1, 1, 1))
    store_to_article(store, tmp_path / "few.h5", batch_size=20)
    few, counted[:] = len(counted), []
    store_to_article(store, tmp_path / "many.h5", batch_size=1)
    assert len(counted) == few


@given(rows=st.integers(0, 300), channels=st.integers(1, 9000))
def test_pieces_cover_all_rows_once_within_the_bound(rows, channels):
    cut = list(pieces(rows, (8, 8, channels)))
    assert [row for piece in cut for row in piece] == list(range(rows))
    assert all(len(piece) == 1 or len(piece) * 64 * channels * 4 <= layout.CHUNK_BYTES for piece in cut)


def rewrite(name, value):
    def change(file):
        if name in file:
            del file[name]
        if value is not None:
            file[name] = value

    return change


ONE_HOT = np.eye(4, dtype=np.float32)[[0, 1, 2, 3]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rewrite("batches", None), "batches: expected the number of batches, found none beside 2 batches of features"),
        (rewrite("batches", 0), "batches: expected one whole number of at least 1, found 0"),
        (rewrite("batches", [2]), r"batches: expected one whole number of at least 1, found shape \(1,\)"),
        (rewrite("batches", 1), "batches: expected features-0 to features-0, found features-1 too"),
        (rewrite("batches", 3), "features-2: expected a dataset of that name, found none"),
        (rewrite("labels-1", None), "labels-1: expected a dataset of that name, found none"),
        (rewrite("features-0", np.zeros((4, 2, 2, 8), np.int32)), "features-0: expected float32, found int32"),
        (
            rewrite("features-1", np.zeros((4, 2, 2, 9), np.float32)),
            r"features-1: .*\(rows, 2, 2, 8\) as in features-0",
        ),
        (rewrite("features-0", np.zeros((4, 8), np.float32)), "features-0: expected shape"),
        (rewrite("labels-1", ONE_HOT[:3]), r"labels-1: expected shape \(4, 4\), found \(3, 4\)"),
        (rewrite("labels-0", np.argmax(ONE_HOT, 1)), r"labels-0: expected shape \(4, classes\)"),
        (rewrite("labels-1", ONE_HOT * 0.5), r"labels-1: expected one-hot labels, found \[0.5, .*\] in row 0"),
        (rewrite("labels-1", ONE_HOT + ONE_HOT[::-1]), "labels-1: expected one-hot labels"),
        (rewrite("features-1", np.full((4, 2, 2, 8), np.nan, np.float32)), "features-1: expected finite values"),
        (
            rewrite("features-1", np.full((4, 2, 2, 8), 1e5, np.float32)),
            "features-1: expected values up to 65504, the largest float16, found 100000; keep them as float32: --dtype",
        ),
    ],
)
def test_a_malformed_article_is_refused_naming_the_dataset_and_leaves_nothing(tmp_path, change, message):
    article = write_article(tmp_path / "article.h5", [4, 4])
    with h5py.File(article, "r+") as file:
        change(file)
    with pytest.raises(InputError, match=message):
        article_to_store(article, tmp_path / "store.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["article.h5"]


def test_what_float16_cannot_hold_float32_can(tmp_path):
    values = np.full((3, 2, 2, 8), 1e5, np.float32)
    article = write_article(tmp_path / "article.h5", [3], values=values)
    article_to_store(article, tmp_path / "store.h5", dtype="float32")
    assert np.array_equal(FeatureStore(tmp_path / "store.h5").features[:, 0], values)


def test_class_names_are_those_given_the_articles_or_numbers(tmp_path):
    four, three = (write_article(tmp_path / f"{n}.h5", [2], classes=n) for n in (4, 3))
    articles = write_article(tmp_path / "articles.h5", [2], shape=(8, 8, 2048))
    for source, given_names, expected in (
        (articles, None, CLASSES),
        (four, None, NUMBERED),
        (three, None, ("class-0", "class-1", "class-2")),
        (three, "a, b,c", ("a", "b", "c")),
    ):
        path = tmp_path / "store.h5"
        article_to_store(source, path, classes=given_names)
        assert FeatureStore(path).classes == expected
        path.unlink()
    for wrong in ("a, b", "a, b, b", "a, , c", "a, \u00e9, e\u0301"):
        with pytest.raises(InputError, match="--classes: expected 3 different names, in label order, found a, "):
            article_to_store(three, tmp_path / "store.h5", classes=wrong)
    with pytest.raises(InputError, match="--classes: expected text in Unicode, found something else"):
        article_to_store(three, tmp_path / "store.h5", classes="a,b,\udcff")
    assert not (tmp_path / "store.h5").exists()


def test_python_gets_the_store_opened_and_of_a_store_the_path(tmp_path, capsys):
    article = write_article(tmp_path / "article.h5", [2, 2], classes=3)
    store = features.convert(article, f"{tmp_path / 'store.h5'}", classes=["a", "b", "c"], dtype="float32")
    assert isinstance(store, FeatureStore)
    assert (store.classes, store.header.dtype) == (("a", "b", "c"), "float32")
    said = capsys.readouterr().err
    assert f"{store.path}: the patients are unknown" in said
    assert "names no classes" not in said
    back = features.convert(store.path, tmp_path / "back.h5", progress=False)
    assert back == tmp_path / "back.h5"
    assert is_article(back)
    assert capsys.readouterr() == ("", "")
    with pytest.raises(InputError, match=r"clases: expected an option of a conversion, .*is classes or labels meant"):
        features.convert(article, tmp_path / "other.h5", clases="a,b,c")


def test_neither_layout_is_refused(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["weights"] = 1
    (tmp_path / "text").write_text("hello")
    for name, found in (
        ("other.h5", "found a file with weights"),
        ("text", "found a file that is no HDF5"),
        ("none.h5", "found no such file"),
        (".", "found a folder"),
    ):
        with pytest.raises(InputError, match=found):
            is_article(tmp_path / name)


def test_no_store_is_made_under_the_name_of_another_format(tmp_path):
    np.savez(tmp_path / "made.npz", X=np.ones((4, 8), np.float32), y=[0, 1, 0, 1])
    store = build_store(tmp_path / "store.h5")
    for command, source in (("features.convert", "made.npz"), ("features.compress", "store.h5")):
        channels = ("--channels", 2) if command == "features.compress" else ()
        refused = invoke(command, tmp_path / source, tmp_path / "out.keras", *channels)
        assert (refused.status, refused.out) == (2, "")
        assert "out.keras: expected a name that ends in .h5, as that is what is made, found out.keras" in refused.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made.npz", store.name]


def test_no_article_is_made_under_the_name_of_arrays(tmp_path):
    store = build_store(tmp_path / "store.h5")
    for name in ("out.npz", "out.NPY"):
        refused = invoke("features.convert", store, tmp_path / name)
        assert refused.status == 2
        assert f"{name}: expected a name that ends in .h5, as that is what is made, found {name}" in refused.err
        assert "a store becomes the article's layout" in refused.err
    assert [path.name for path in tmp_path.iterdir()] == ["store.h5"]


def test_an_existing_file_and_a_second_conversion_are_refused(tmp_path):
    store = build_store(tmp_path / "store.h5")
    (tmp_path / "mine.h5").write_text("precious")
    with pytest.raises(InputError, match=r"mine\.h5: expected no such file, found one"):
        store_to_article(store, tmp_path / "mine.h5")
    assert (tmp_path / "mine.h5").read_text() == "precious"
    with WriterLock(tmp_path / "busy.h5"), pytest.raises(BottleneckError, match="another process is writing it"):
        store_to_article(store, tmp_path / "busy.h5")
    with pytest.raises(InputError, match="expected a finished store"):
        store_to_article(unfinished(tmp_path / "unfinished.h5", store), tmp_path / "out.h5")
    assert not (tmp_path / "out.h5").exists()


def unfinished(path: Path, store: Path) -> Path:
    StoreWriter(path, FeatureStore(store).header).close()
    return path


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A limit on the size of files stands for a full disk: Python ignores the signal that comes with it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_the_command_converts_both_ways_and_says_what_is_left_out(tmp_path):
    store = build_store(tmp_path / "[bold].h5", rows=30, views=("identity", "flip"), skipped=[1])
    to_article = succeed("features.convert", store, tmp_path / "article.h5", "--batch-size", 12)
    assert "left out, as the layout has no place for them: 1 skipped rows and all views but identity" in to_article.err
    assert "and the names of its classes" in to_article.err
    to_store = succeed("features.convert", tmp_path / "article.h5", tmp_path / "[red].h5", "--dtype", "float32")
    called = "they are class-0, class-1, class-2, class-3, in label order; --classes names them"
    assert f"{tmp_path / '[red].h5'}: the layout names no classes: {called}" in to_store.err
    assert f"{tmp_path / '[red].h5'}: the patients are unknown" in to_store.err
    assert FeatureStore(tmp_path / "[red].h5").header.batch_size == 12
    assert to_article.out == to_store.out == ""


def test_the_command_refuses_what_has_no_effect_and_survives_a_full_disk(tmp_path):
    store = build_store(tmp_path / "store.h5", rows=64, shape=(4, 4, 64))
    for option, value in (("--classes", "a,b,c,d"), ("--dtype", "float32")):
        refused = invoke("features.convert", store, tmp_path / "article.h5", option, value)
        assert refused.status == 2
        assert f"error: {option}: expected a source of arrays or of the article's layout, found a store" in refused.err
    with files_of_at_most(100_000):
        full = invoke("features.convert", store, tmp_path / "article.h5")
    assert full.status == 1
    assert full.err.splitlines()[-1].startswith(f"error: {tmp_path / 'article.h5'}: larger than a file may be here")
    assert "Traceback" not in full.err
    assert [path.name for path in tmp_path.iterdir()] == ["store.h5"]
