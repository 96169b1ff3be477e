"""An image folder into a store: killed, resumed, refused, and what is said about it."""

from __future__ import annotations

import csv
import errno
import os
import resource
import signal
import subprocess
import time
from pathlib import Path

import commands
import numpy as np
import pytest
from made_backbone import SMALL
from made_images import OLD, blurred_noise, put_image

from features.extraction.backbone_spec import BackboneSpec
from features.extraction.backbones import build_backbone
from features.extraction.extraction import extract_store
from features.extraction.options import ExtractionOptions
from features.images.decode import decode_image
from features.images.views import parse_views
from features.runtime.errors import BottleneckError, InputError
from features.runtime.progress import unwatched
from features.store.reader import FeatureStore
from features.store.schema import RowState
from features.store.writer import StoreWriter

pytestmark = pytest.mark.usefixtures("drawn_once")

CHOSEN = {name: value for name, value in SMALL.items() if name != "batch_size"}
SIZE = SMALL["image_size"]
SPEC = ExtractionOptions(**CHOSEN).spec
OPTIONS = commands.words(CHOSEN)
VIEWS = parse_views("identity,flip")
BAD = {"A/A-3-1.png": b"", "B/B-5-2.png": b"no image", "B/B-9-1.jpg": b"\xff\xd8\xff\xe0 cut"}
REASONS = {
    "A/A-3-1.png": "an empty file",
    "B/B-5-2.png": "not an image that Pillow reads",
    "B/B-9-1.jpg": "damaged: Truncated File Read",
}


def make_images(folder: Path, *, per_class: int = 10, bad: bool = False) -> Path:
    """Two classes of images, two of each patient; with ``bad``, some that cannot be decoded. All are as old."""
    for label, name in enumerate("AB"):
        for number in range(per_class):
            path = folder / name / f"{name}-{number // 2}-{number % 2 + 1}.png"
            put_image(path, blurred_noise(1000 * label + number))
    for path, content in (BAD if bad else {}).items():
        (folder / path).write_bytes(content)
    for path in folder.rglob("*.*"):
        os.utime(path, (OLD, OLD))
    return folder


def run(images: Path, store: Path, *, say=lambda line: None, on_progress=unwatched, **options):
    how = ExtractionOptions(**{**CHOSEN, "views": "identity,flip", "batch_size": 4} | options)
    return extract_store(images, store, how, say=say, on_progress=on_progress)


@pytest.fixture
def images(tmp_path):
    return make_images(tmp_path / "images")


@pytest.fixture
def spoilt(tmp_path):
    """Images, among them three that cannot be decoded."""
    return make_images(tmp_path / "spoilt", bad=True)


def command(*arguments: object) -> tuple[int, str]:
    """Runs the command in this process; returns its exit status and what it wrote to standard error."""
    status, out, err = commands.invoke("features.extract", *arguments)
    assert out == ""
    return status, err


class StopHereError(Exception):
    """Stands for whatever ends a run."""


def stop_after(batches: int):
    reports = []

    def report(settled: int, total: int) -> None:
        reports.append(settled)
        if len(reports) > batches:  # the first report precedes all work
            raise StopHereError

    return report


def test_a_store_holds_what_the_backbone_makes_of_each_view_of_each_image(images, tmp_path):
    summary = run(images, tmp_path / "s.h5", dtype="float32")
    store = FeatureStore(tmp_path / "s.h5")
    assert store.complete
    assert store.header.classes == ("A", "B")
    assert store.header.views == ("identity", "flip")
    assert (store.header.backbone, store.header.alpha, store.header.weights) == ("mobilenet", 0.25, "random:7")
    assert store.header.created == "2017-07-14T02:40:00Z"
    backbone = build_backbone(SPEC)
    assert store.header.weights_sha256 == backbone.weights_sha256
    for row in (0, 7, 19):
        image = decode_image(images / store.header.paths[row], SIZE)
        for view, name in enumerate(VIEWS):
            alone = backbone.features(np.stack([name.apply(image)] * 4))[0]
            np.testing.assert_allclose(store.features[row, view], alone, rtol=1e-4, atol=1e-5)
    assert summary.counts == {"A": 10, "B": 10}
    assert summary.patients == {"A": 5, "B": 5}
    assert (summary.images, summary.settled, summary.skipped, summary.unknown) == (20, 20, {}, 0)
    assert summary.bytes == (tmp_path / "s.h5").stat().st_size
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "s.h5"]  # no lock, no list of skipped images


@pytest.mark.parametrize("batch_size", [3, 20, 64])
def test_features_do_not_depend_on_how_the_work_is_cut_up(images, tmp_path, batch_size):
    run(images, tmp_path / "a.h5")
    run(images, tmp_path / "b.h5", batch_size=batch_size)
    ours, theirs = FeatureStore(tmp_path / "a.h5").features, FeatureStore(tmp_path / "b.h5").features
    np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-3)


def test_an_interrupted_run_resumes_to_the_same_bytes_and_computes_nothing_twice(spoilt, tmp_path, monkeypatch):
    """Stopped after each batch in turn; rows that an earlier run skipped keep their reasons."""
    run(spoilt, tmp_path / "whole.h5")
    calls = count_passes(monkeypatch)
    store = tmp_path / "resumed.h5"
    for _ in range(6):
        with pytest.raises(StopHereError):
            run(spoilt, store, on_progress=stop_after(1))
        assert not FeatureStore(store).complete
        assert not (tmp_path / "resumed.h5.skipped.csv").exists()
    summary = run(spoilt, store)
    assert store.read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert summary.skipped == REASONS
    assert listed(store) == listed(tmp_path / "whole.h5") == [["path", "reason"], *map(list, REASONS.items())]
    # 22 rows in 6 batches of 4; a stop comes when the next batch has been handed to the disk already
    assert summary.settled < 22
    assert calls["written"] == sorted(set(calls["written"]))
    assert len(calls["written"]) == 6


def count_passes(monkeypatch) -> dict[str, list[int]]:
    """Keeps the first row of every batch that is written."""
    calls: dict[str, list[int]] = {"written": []}
    write = StoreWriter.write

    def counted(self, rows, features, states, contents):
        calls["written"].append(rows[0])
        write(self, rows, features, states, contents)

    monkeypatch.setattr(StoreWriter, "write", counted)
    return calls


def listed(store: Path) -> list[list[str]]:
    with store.with_name(f"{store.name}.skipped.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_bad_images_are_rows_that_are_never_used(spoilt, tmp_path):
    status, said = command(spoilt, tmp_path / "s.h5", *OPTIONS)
    store = FeatureStore(tmp_path / "s.h5")
    store.require_complete()
    skipped = [row for row, state in enumerate(store.done) if state == RowState.SKIPPED]
    assert [store.header.paths[row] for row in skipped] == list(REASONS)
    assert not store.features[skipped].any()
    assert store.features[store.usable].reshape(19, -1).any(axis=1).all()
    assert status == 0
    assert "A: 9 images of" in said
    assert "19 images, 3 skipped" in said
    assert "skipped A/A-3-1.png: an empty file" in said


def test_the_list_of_skipped_images_is_bounded_in_the_summary_and_whole_beside_the_store(images, tmp_path):
    names = [f"A/bad\nname,{number}.png" for number in range(12)]
    for name in names:
        (images / name).touch()
    lines = command(images, tmp_path / "s.h5", *OPTIONS)[1].splitlines()
    assert sum("an empty file" in line for line in lines) == 5
    assert lines[-2] == f"skipped 7 more: {tmp_path / 's.h5.skipped.csv'}"
    assert [row[0] for row in listed(tmp_path / "s.h5")[1:]] == sorted(names)


def test_a_stale_list_of_skipped_images_goes(images, tmp_path):
    (tmp_path / "s.h5.skipped.csv").write_text("of another store")
    run(images, tmp_path / "s.h5")
    assert not (tmp_path / "s.h5.skipped.csv").exists()


def test_strict_stops_at_the_first_bad_image_and_another_run_may_skip_it(spoilt, tmp_path):
    store = tmp_path / "s.h5"
    arguments = (spoilt, store, *OPTIONS, "--batch-size", 4)
    line = f"error: {spoilt}/A/A-3-1.png: an empty file; without --strict it is skipped"
    status, said = command(*arguments, "--strict")
    assert status == 1
    assert said.strip().splitlines()[-1] == line
    assert not (FeatureStore(store).done == RowState.SKIPPED).any()
    assert command(*arguments)[0] == 0
    status, said = command(*arguments, "--strict")  # and no run is strict about a store with holes in it
    assert (status, said.strip().splitlines()[-1]) == (1, line)


def test_nothing_but_bad_images_is_an_error_that_names_one(tmp_path):
    for name in ("A/1.png", "A/2.png", "B/1.png"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_bytes(b"nothing")
    with pytest.raises(BottleneckError, match=r"none of 3 images can be decoded; A/1\.png: not an image") as caught:
        run(tmp_path / "images", tmp_path / "s.h5")
    assert caught.value.exit_status == 1
    assert not (tmp_path / "s.h5").exists()
    assert len(listed(tmp_path / "s.h5")) == 4


def test_a_complete_store_is_left_alone_and_its_list_is_put_back(spoilt, tmp_path, monkeypatch):
    arguments = (spoilt, tmp_path / "s.h5", *OPTIONS, "--views", "identity,flip")
    assert command(*arguments)[0] == 0
    before = (tmp_path / "s.h5").stat(), (tmp_path / "s.h5").read_bytes(), listed(tmp_path / "s.h5")
    (tmp_path / "s.h5.skipped.csv").unlink()
    monkeypatch.setattr("features.extraction.backbones.Backbone.features", None)  # it would fail if it were called
    status, said = command(*arguments)
    assert status == 0
    assert "nothing to do: the store was complete already" in said
    assert "images/s" not in said
    after = (tmp_path / "s.h5").stat(), (tmp_path / "s.h5").read_bytes(), listed(tmp_path / "s.h5")
    assert before[0].st_mtime_ns == after[0].st_mtime_ns
    assert before[1:] == after[1:]
    written = (tmp_path / "s.h5.skipped.csv").stat()
    assert command(*arguments)[0] == 0
    assert os.path.samestat((tmp_path / "s.h5.skipped.csv").stat(), written)  # nothing may be writable there


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"backbone": "mobilenet_v2", "alpha": None}, "backbone"),
        ({"alpha": 0.5}, "alpha"),
        ({"weights": "random:8"}, "weights"),
        ({"image_size": 64}, "image_size"),
        ({"views": "identity"}, "views"),
        ({"dtype": "float32"}, "dtype"),
        ({"batch_size": 5}, "batch_size"),
        ({"limit": 4}, "paths"),
        ({"group_pattern": r"^(.)"}, "patients"),
    ],
)
def test_another_store_is_refused_naming_the_field_before_the_backbone_is_built(
    images, tmp_path, options, field, monkeypatch
):
    store = tmp_path / "s.h5"
    with pytest.raises(StopHereError):
        run(images, store, on_progress=stop_after(1))
    before = store.read_bytes()
    monkeypatch.setattr("features.extraction.extraction.build_backbone", None)
    with pytest.raises(InputError) as caught:
        run(images, store, **options)
    assert caught.value.field == field
    assert store.read_bytes() == before


def test_images_and_weights_that_changed_are_refused_naming_the_field(images, tmp_path, monkeypatch):
    store = tmp_path / "s.h5"
    with pytest.raises(StopHereError):
        run(images, store, on_progress=stop_after(1))
    other = build_backbone(BackboneSpec(name="mobilenet", alpha=0.25, weights="random:1", image_size=SIZE))
    with monkeypatch.context() as patched, pytest.raises(InputError) as caught:
        # a file with other content, say
        patched.setattr("features.extraction.extraction.build_backbone", lambda spec: other)
        run(images, store)
    assert caught.value.field == "weights_sha256"
    assert "one seed draws other weights on another backend; choose another store" in str(caught.value)
    blurred_noise(5).resize((400, 400)).save(images / "B" / "B-1-1.png")
    with pytest.raises(InputError) as caught:
        run(images, store)
    assert caught.value.field == "sizes"
    (images / "B" / "B-1-1.png").unlink()
    with pytest.raises(InputError) as caught:
        run(images, store)
    assert caught.value.field == "paths"


def test_what_is_no_store_is_refused_and_not_touched(images, tmp_path):
    other = tmp_path / "notes.txt"
    other.write_text("mine")
    for path in (other, images):
        with pytest.raises(InputError, match="a feature store"):
            run(images, path)
    assert other.read_text() == "mine"


def test_a_second_writer_is_refused(images, tmp_path):
    store = tmp_path / "s.h5"
    with pytest.raises(StopHereError):
        run(images, store, on_progress=stop_after(1))
    header = FeatureStore(store).header
    with StoreWriter(store, header), pytest.raises(BottleneckError, match="another process is writing it"):
        run(images, store)
    assert run(images, store).settled < 20


def test_a_write_that_fails_surfaces_and_leaves_a_store_that_can_be_finished(images, tmp_path, monkeypatch):
    run(images, tmp_path / "whole.h5")
    store, writes = tmp_path / "s.h5", []
    pwrite = os.pwrite

    def full(*arguments):
        writes.append(arguments)
        if len(writes) == 7:  # the features of the third batch
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(BottleneckError, match=r"s\.h5: disk full: .* run the same command again"):
            run(images, store)
    assert np.count_nonzero(FeatureStore(store).done) == 8
    assert run(images, store).settled == 12
    assert store.read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_a_disk_too_small_is_said_at_once_and_nothing_is_left(images, tmp_path):
    """A limit on the size of files stands for the disk: Python ignores the signal that comes with it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, hard))
    try:
        with pytest.raises(BottleneckError, match="larger than a file may be here"):
            run(images, tmp_path / "s.h5")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["images"]
    assert run(images, tmp_path / "s.h5").settled == 20


def test_remarks_come_once_before_the_work_and_warnings_after_it(tmp_path):
    images = make_images(tmp_path / "images")
    (images / "A" / "unknown.png").write_bytes((images / "A" / "A-0-1.png").read_bytes())
    (images / "notes.txt").touch()
    (images / "EMPTY").mkdir()
    said: list[str] = []
    summary = run(images, tmp_path / "s.h5", say=said.append, on_progress=lambda *_: said.append("work"))
    remarks = said[: said.index("work")]
    assert len(remarks) == 3
    assert set(said[len(remarks) :]) == {"work"}
    assert summary.unknown == 1


def test_a_class_whose_images_are_all_bad_is_warned_of(images, tmp_path):
    (images / "C").mkdir()
    (images / "C" / "C-1-1.png").touch()
    _, said = command(images, tmp_path / "s.h5", *OPTIONS)
    assert "warning: no image left of C" in said.splitlines()


def test_wrong_input_is_one_line_and_makes_nothing(images, tmp_path):
    store = tmp_path / "s.h5"
    (tmp_path / "empty").mkdir()
    (tmp_path / "flat").mkdir()
    blurred_noise(1).save(tmp_path / "flat" / "x.png")
    (tmp_path / "text.h5").write_text("no weights")
    for arguments, words in (
        ((tmp_path / "absent", store), "expected an image folder, found no such folder"),
        ((tmp_path / "empty", store), "expected one sub-folder per class, with images in it, found none"),
        ((tmp_path / "flat", store), "found images without a class folder"),
        ((images, images, *OPTIONS), "found a folder"),
        ((images, tmp_path / "new.keras", *OPTIONS), "expected a name that ends in .h5"),
        ((images, store, "--backbone", "resnet"), "--backbone: expected one of convnext_base"),
        ((images, store, "--weights", "absent.h5"), "no such file"),
        ((images, store, "--backbone", "mobilenet", "--weights", tmp_path / "text.h5"), "a file that is no HDF5"),
        ((images, store, *OPTIONS, "--views", "identity,mirror"), "--views: 'mirror'"),
        ((images, store, *OPTIONS, "--preprocessing", "x"), "--preprocessing: expected one of backbone, unit, tf"),
        ((images, store, *OPTIONS, "--image-size", 8), "--image-size: expected 32 to"),
        ((images, store, *OPTIONS, "--group-pattern", "("), "--group-pattern: expected a regular expression"),
        ((images, store, *OPTIONS, "--limit", 1), "--limit: expected at least 2"),
        ((images, store, *OPTIONS, "--dtype", "int8"), "'int8' is not one of 'float16', 'float32'"),
        ((images, store, *OPTIONS, "--batch-size", 0), "--batch-size"),
        ((images,), "Missing argument 'store'"),
    ):
        status, said = command(*arguments)
        assert status == 2, said
        assert len(said.splitlines()) == 1, said
        assert words in said
        assert not store.exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # as the command has it
def test_killed_at_any_moment_and_run_again_the_command_leaves_the_same_bytes(tmp_path):
    """The real command: Ctrl-C, then SIGKILL, then to its end, against one run in this process."""
    images = make_images(tmp_path / "images", per_class=150, bad=True)
    # Pillow warns of this one's EXIF block, and nothing may be seen of it
    blurred_noise(0).save(images / "A" / "A-99-1.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    store = tmp_path / "killed" / "s.h5"  # the folder is made
    arguments = commands.command("features.extract", images, store, *OPTIONS, "--batch-size", 2)
    status, said = stopped(arguments, store, signal.SIGINT, rows=10)
    assert status == 130
    assert said.strip().splitlines()[-1] == "interrupted; run the same command again to go on"
    assert "Traceback" not in said
    settled = settled_rows(store)
    assert settled >= 10
    status, said = stopped(arguments, store, signal.SIGKILL, rows=settled + 10)
    assert status == -signal.SIGKILL
    ended = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == ""
    extract_store(images, tmp_path / "whole.h5", ExtractionOptions(**CHOSEN, batch_size=2))
    assert store.read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert listed(store) == listed(tmp_path / "whole.h5")
    assert sorted(path.name for path in store.parent.iterdir()) == ["s.h5", "s.h5.skipped.csv"]
    lines = ended.stderr.strip().splitlines()
    assert lines[0].startswith("extracting")  # progress is all that precedes the summary: nothing of TensorFlow's
    assert lines[1] == f"{store}: 299 images, 3 skipped, {store.stat().st_size / 1e6:,.1f} MB"
    assert "were there already" in lines[2]
    assert [line for line in lines if line.startswith("skipped")] == [f"skipped {p}: {r}" for p, r in REASONS.items()]


def stopped(arguments: list[str], store: Path, how: signal.Signals, *, rows: int) -> tuple[int, str]:
    """Starts the command and stops it once so many rows are settled; returns its exit status and what it said."""
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and settled_rows(store) < rows:
        time.sleep(0.002)
    process.send_signal(how)
    said = process.communicate()[1]
    return process.returncode, said


def settled_rows(store: Path) -> int:
    return int(np.count_nonzero(FeatureStore(store).done)) if store.exists() else 0


@pytest.mark.slow
def test_jax_makes_the_same_features(tmp_path, weights_folder):
    images = make_images(tmp_path / "images", per_class=3)
    weights = weights_folder / "mobilenet_0.25_224_notop.h5"
    extract_store(images, tmp_path / "t.h5", ExtractionOptions(**CHOSEN | {"weights": weights}, dtype="float32"))
    options = ["--backbone", "mobilenet", "--alpha", "0.25", "--weights", str(weights), "--image-size", str(SIZE)]
    options += ["--dtype", "float32", "--backend", "jax"]
    commands.run("features.extract", images, tmp_path / "j.h5", *options)
    ours, theirs = FeatureStore(tmp_path / "t.h5"), FeatureStore(tmp_path / "j.h5")
    assert ours.fingerprint == theirs.fingerprint
    assert set(theirs.header.versions) >= {"jax", "keras", "pillow"}
    np.testing.assert_allclose(ours.features, theirs.features, rtol=1e-3, atol=1e-3)
