"""Several backbones and sizes in one extraction: each image decoded once, each store what it is by itself."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from commands import Said, invoke, succeed, words
from hypothesis import given
from hypothesis import strategies as st
from made_backbone import MadeBackbone
from made_images import OLD as TIME
from made_images import noise, put_image
from made_networks import nested, saved
from PIL import ImageFile

import features
from features import InputError
from features.extraction import extraction, pipeline
from features.extraction.backbone_spec import BackboneSpec
from features.extraction.backbones import build_backbone, list_layers
from features.extraction.options import ExtractionOptions
from features.extraction.pipeline import EMPTY
from features.extraction.schedule import Open, shared_batches
from features.runtime.errors import BottleneckError
from features.runtime.progress import unwatched
from features.store.reader import FeatureStore
from features.store.schema import RowState
from features.store.writer import StoreWriter

pytestmark = pytest.mark.usefixtures("drawn_once")

BATCH = 4


def put(folder: Path, path: str, value: int, *, size: tuple[int, int] = (40, 36), time: int = TIME) -> None:
    put_image(folder / path, noise(value, size[1], size[0], 3), time=time)


@pytest.fixture
def images(tmp_path) -> Path:
    """Ten images, of which one cannot be decoded, and one is a JPEG that two sizes decode at two scales."""
    folder = tmp_path / "images"
    for number in range(4):
        for name in "AB":
            put(folder, f"{name}/{name}-{number}-1.png", 10 * number + ord(name))
    put(folder, "B/B-8-1.jpg", 7, size=(400, 300))
    (folder / "A" / "A-9-1.png").write_bytes(b"nothing")
    os.utime(folder / "A" / "A-9-1.png", (TIME, TIME))
    return folder


@pytest.fixture
def loads(monkeypatch) -> Counter[str]:
    """Counts, by format, how often pixels are decoded; under ``files`` how often a file is read for that."""
    counts: Counter[str] = Counter()
    prepare, read = ImageFile.ImageFile.load_prepare, pipeline.read_content

    def counted(self):
        counts[self.format] += 1
        return prepare(self)

    def counted_reads(source):
        counts["files"] += 1
        return read(source)

    monkeypatch.setattr(ImageFile.ImageFile, "load_prepare", counted)
    monkeypatch.setattr(pipeline, "read_content", counted_reads)
    return counts


LEVELS = {"backbone": "mobilenet,mobilenet_v2", "weights": "random", "image_size": "32,64"}
NAMES = ["mobilenet-32", "mobilenet-64", "mobilenet_v2-32", "mobilenet_v2-64"]


@pytest.fixture
def levels(monkeypatch) -> None:
    monkeypatch.setattr(extraction, "build_backbone", MadeBackbone)


def run(images: Path, folder: Path, names: list[str] = NAMES, *, on_progress=unwatched, **options):
    """Extracts those of the stores that are named, in one go."""
    how = ExtractionOptions(**LEVELS | {"batch_size": BATCH, "dtype": "float32"} | options)
    stores = {folder / f"{name}.h5": how.specs[name] for name in names}
    return extraction.extract_stores(images, stores, how, on_progress=on_progress)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def command(*arguments: object) -> Said:
    said = invoke("features.extract", *arguments)
    assert said.out == ""
    return said


def test_every_store_is_what_it_is_by_itself_and_each_image_is_decoded_once(images, tmp_path, loads):
    first = nested()
    one = saved(tmp_path / "one.keras", first)
    first.set_weights([weights * 0.5 for weights in first.get_weights()])
    other = saved(tmp_path / "other, later.keras", first)  # a comma that is none between two backbones
    how = ["--views", "identity,flip", "--batch-size", BATCH, "--layer", "body,high"]
    out = tmp_path / "new" / "stores"
    said = command(images, out, *how, "--backbone", f"{one}, {other}", "--image-size", "32 ,48")
    assert said.status == 0, said.err
    assert loads == {"PNG": 8, "JPEG": 2, "files": 10}
    names = ["one-body-32", "one-body-48", "other, later-high-32", "other, later-high-48"]
    stores = [out / f"{name}.h5" for name in names]
    assert sorted(contents(out)) == sorted(f"{store.name}{end}" for store in stores for end in ("", ".skipped.csv"))
    lines = said.err.splitlines()
    for store in stores:
        assert f"{store}: 9 images, 1 skipped, {store.stat().st_size / 1e6:,.1f} MB" in lines
    assert sum("images/s" in line and line.startswith("10 images in") for line in lines) == 1
    assert sum(line.startswith("A: 4 images of") for line in lines) == 1
    assert lines[-2] == "skipped A/A-9-1.png: not an image that Pillow reads"
    told = [word for store in stores for word in ("--features", str(store))]
    assert shlex.split(lines[-1])[2:] == ["them:", "python", "-m", "search.run", *told]
    for store, backbone, layer, size in zip(stores, (one, one, other, other), "bbhh", (32, 48) * 2, strict=True):
        alone = tmp_path / "alone" / store.name
        told = {"views": "identity,flip", "batch_size": BATCH, "backbone": backbone, "image_size": size}
        features.extract(images, alone, layer={"b": "body", "h": "high"}[layer], progress=False, **told)
        assert alone.read_bytes() == store.read_bytes()
    assert {FeatureStore(store).fingerprint for store in stores} == {
        FeatureStore(tmp_path / "alone" / store.name).fingerprint for store in stores
    }
    before = contents(out)
    again = command(images, out, *how, "--backbone", f"{one},{other}", "--image-size", "32,48")
    assert again.status == 0
    assert sum(line.endswith("; complete already") for line in again.err.splitlines()) == 4
    assert "nothing to do: the stores were complete already" in again.err
    assert contents(out) == before


def test_one_backbone_at_one_size_is_a_store_and_no_folder(images, tmp_path, levels):
    told = ["--backbone", "mobilenet", "--weights", "random", "--image-size", 32]
    said = succeed("features.extract", images, tmp_path / "s.h5", *told)
    assert (tmp_path / "s.h5").is_file()
    assert f"{tmp_path / 's.h5'}: 9 images, 1 skipped" in said.err


def test_from_python_lists_and_texts_with_commas_are_the_same(images, tmp_path, levels):
    lists = {"backbone": ["mobilenet", "mobilenet_v2"], "image_size": [32, np.int64(64)], "weights": "random"}
    made = features.extract_several(images, tmp_path / "a", progress=False, **lists)
    assert list(made) == NAMES
    assert [store.header.image_size for store in made.values()] == [32, 64, 32, 64]
    assert all(store.complete for store in made.values())
    features.extract_several(str(images), str(tmp_path / "b"), progress=False, **LEVELS)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    one = features.extract_several(images, tmp_path / "c", backbone="mobilenet", weights="random", progress=False)
    assert list(one) == ["mobilenet-224"]
    with pytest.raises(InputError, match="folder: expected a file or a folder, found an empty name"):
        features.extract_several(images, "", progress=False, **LEVELS)


def test_stopped_at_any_write_it_goes_on_and_decodes_what_is_still_needed_once(images, tmp_path, levels, monkeypatch):
    run(images, tmp_path / "whole")
    real, written = StoreWriter.write, Counter()
    stop_at = 1

    def stopping(self, rows, *arguments):
        nonlocal stop_at
        stop_at -= 1
        if stop_at < 0:
            raise KeyboardInterrupt
        written[self.path.name, rows[0]] += 1
        real(self, rows, *arguments)

    monkeypatch.setattr(StoreWriter, "write", stopping)
    folder = tmp_path / "stopped"
    told = words(LEVELS)
    arguments = [images, folder, *told, "--batch-size", BATCH, "--dtype", "float32"]
    for stops in range(20):
        stop_at = 1 + stops % 2
        said = command(*arguments)
        if said.status == 0:
            break
        assert said.status == 130
        assert said.err.splitlines()[-1] == "interrupted; run the same command again to go on"
        assert not [path for path in folder.iterdir() if path.suffix != ".h5"]  # no locks, no lists
    assert stops == 7  # one and two batches in turn, the last two to the end
    assert (len(written), set(written.values())) == (12, {1})
    assert contents(folder) == contents(tmp_path / "whole")


def test_stores_that_got_to_different_places_share_what_they_still_need(images, tmp_path, levels, loads):
    def stop(settled, total):
        if settled == 2 * BATCH:
            raise KeyboardInterrupt

    folder = tmp_path / "stores"
    run(images, tmp_path / "whole")
    run(images, folder, NAMES[:1])
    with pytest.raises(KeyboardInterrupt):
        run(images, folder, NAMES[1:2], on_progress=stop)
    loads.clear()
    reports: list[tuple[int, int]] = []
    done, half, new = run(images, folder, NAMES[:3], on_progress=lambda *report: reports.append(report))
    assert loads["files"] == 10  # the third store needs all; the last two serve the second as well
    assert (done.settled, half.settled, new.settled) == (0, 2, 10)
    assert reports[0] == (0, 10)
    assert reports[-1] == (10, 10)
    assert reports == sorted(reports)
    loads.clear()
    run(images, folder, NAMES[:2])
    assert loads["files"] == 0
    assert contents(folder) == {
        name: content for name, content in contents(tmp_path / "whole").items() if not name.startswith(NAMES[3])
    }


def test_an_update_is_one_of_all_stores_whatever_each_has(images, tmp_path, levels, loads):
    folder = tmp_path / "stores"
    run(images, folder, NAMES[:2])
    put(images, "A/A-2-1.png", 200, time=TIME + 5)
    with pytest.raises(InputError, match=r"mobilenet-32\.h5: .*changed since"):
        run(images, folder)
    run(images, folder, NAMES[1:2], update=True)  # one of them was brought up to date before
    loads.clear()
    summaries = run(images, folder, NAMES[:2], update=True)
    assert loads["files"] == 1
    assert [bool(one.update) for one in summaries] == [True, False]
    put(images, "A/A-3-1.png", 201, time=TIME + 9)
    loads.clear()
    changed, same, new, _ = run(images, folder, update=True)  # beside two that are new and need every image
    assert loads["files"] == 10
    assert (changed.settled, same.settled, new.settled) == (1, 1, 10)
    assert changed.update == {"changed": 1, "added": 0, "gone": 0, "kept": 9}
    run(images, tmp_path / "fresh")
    assert contents(folder) == contents(tmp_path / "fresh")


def test_a_store_keeps_the_scale_that_it_was_begun_with_beside_one_that_has_another(tmp_path, levels, loads):
    folder, stores, alone = tmp_path / "images", tmp_path / "stores", tmp_path / "alone"
    for number in range(5):
        file = folder / "AB"[number % 2] / f"{number}.png"
        put_image(file, np.random.default_rng(number).integers(0, 4000, (40, 40), dtype=np.uint16))
    run(folder, alone, NAMES[:1], intensity="0:4095")
    run(folder, alone, NAMES[1:2])
    with pytest.raises(KeyboardInterrupt):
        run(folder, stores, NAMES[:1], intensity="0:4095", on_progress=stop_after_a_batch)
    loads.clear()
    begun, new = run(folder, stores, NAMES[:2])
    assert (begun.settled, new.settled) == (1, 5)
    assert loads["files"] == 5
    assert contents(stores) == contents(alone)
    kept, chosen = (FeatureStore(one.store).header.intensity for one in (begun, new))
    assert (kept, chosen != kept) == ("0:4095", True)
    assert any("shown on the scale 0:4095" in note for note in begun.notes)


def stop_after_a_batch(settled: int, total: int) -> None:
    if settled == BATCH:
        raise KeyboardInterrupt


def test_another_writer_of_one_store_is_named_and_nothing_is_written(images, tmp_path, levels):
    folder = tmp_path / "stores"
    (first,) = run(images, folder, NAMES[2:3])
    held = StoreWriter(first.store, FeatureStore(first.store).header)
    with held, pytest.raises(BottleneckError, match=r"mobilenet_v2-32\.h5: another process is writing it"):
        run(images, folder)
    assert not any(FeatureStore(folder / f"{name}.h5").done.any() for name in NAMES[:2])
    assert len(run(images, folder)) == 4


def test_features_that_do_not_fit_name_the_store(images, tmp_path, monkeypatch):
    class Large(MadeBackbone):
        def features(self, images):
            return super().features(images) * (1000 if self.image_size == 64 else 1)

    monkeypatch.setattr(extraction, "build_backbone", Large)
    with pytest.raises(BottleneckError, match=r"mobilenet-64\.h5: .*A-0-1\.png: .*does not fit float16"):
        run(images, tmp_path, dtype="float16")


def test_where_nothing_can_be_decoded_no_store_is_left(tmp_path, levels):
    for name in "AB":
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "1.png").write_bytes(b"nothing")
    with pytest.raises(BottleneckError, match="none of 2 images can be decoded"):
        run(tmp_path / "images", tmp_path / "stores")
    assert not [*(tmp_path / "stores").glob("*.h5")]


TWO = {"backbone": "mobilenet,mobilenet_v2", "weights": "random"}


@pytest.mark.parametrize(
    ("told", "line"),
    [
        ({"image_size": "32,32"}, "--image-size: expected every size once, found 32 twice"),
        ({"image_size": "32,big"}, "--image-size: expected a whole number of pixels, or several"),
        ({"image_size": "32,"}, "found ''"),
        ({"image_size": "32,31"}, "--image-size: expected 32 to 4096 pixels for mobilenet, found 31"),
        ({"image_size": 224.5}, "--image-size: expected a valid string, found 224.5"),
        ({"backbone": "mobilenet, mobilenet"}, "--backbone: expected every backbone once, found mobilenet twice"),
        ({"backbone": "mobilenet,,mobilenet_v2"}, "--backbone: expected names joined by commas"),
        ({"backbone": "mobilenet,resnet"}, "--backbone: expected one of convnext_base"),
        ({"weights": __file__}, "--weights: expected 2 joined by commas, one for each backbone, found 1"),
        ({"weights": "random,random,random"}, "--weights: expected 2 joined by commas, one for each backbone, found 3"),
        ({"layer": "conv1"}, "--layer: expected 2 joined by commas, one for each backbone, found 1: conv1"),
        ({"preprocessing": "tf,unit,tf"}, "--preprocessing: expected 2 joined by commas"),
        ({"backbone": "mobilenet,vgg16", "alpha": 0.5}, "--alpha: expected a backbone with a width multiplier"),
    ],
)
def test_what_means_nothing_is_refused_before_anything_is_made(images, tmp_path, told, line):
    with pytest.raises(InputError) as caught:
        features.extract_several(images, tmp_path / "out", progress=False, **TWO | told)
    assert line in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_files_of_one_name_and_files_as_folders_are_refused(images, tmp_path, levels):
    network = saved(tmp_path / "net.keras", nested())
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        (tmp_path / place / ("net.keras" if place == "a" else "NET.keras")).write_bytes(network.read_bytes())
    backbones = f"{tmp_path}/a/net.keras,{tmp_path}/b/NET.keras"
    status, _, said = command(images, tmp_path / "out", "--backbone", backbones, "--image-size", 32)
    assert (status, len(said.splitlines())) == (2, 1)
    assert said.startswith("error: --backbone: expected names that differ")
    sizes = ["--backbone", "mobilenet", "--weights", "random", "--image-size", "32,64"]
    for out, found in ((network, "found a file"), (tmp_path / "s.h5", "found the name of a file")):
        status, _, said = command(images, out, *sizes)
        assert (status, len(said.splitlines())) == (2, 1)
        assert f"{out}: expected a folder, for 2 stores, one for each backbone and size, {found}" in said
    status, _, said = invoke("features.extract", "--list-layers", *sizes)
    assert (status, said) == (2, "error: --image-size: expected one beside --list-layers, found 32, 64\n")
    with pytest.raises(InputError, match=r"--image-size: expected one, for one store, found 32, 64; .*extract_several"):
        features.extract(images, tmp_path / "s.h5", backbone="mobilenet", weights="random", image_size=[32, 64])
    status, _, said = invoke("search.run", "--images", images, "--out", tmp_path / "study", *sizes)
    assert status == 2
    assert "error: --image-size: expected one, for one store, found 32, 64" in said.splitlines()[-1]


def test_what_is_told_of_each_backbone_goes_to_it():
    own = {"weights": "random:1,random:2", "layer": ",block_1_expand", "preprocessing": "unit,"}
    specs = ExtractionOptions(backbone="mobilenet,mobilenet_v2", image_size=64, **own).specs
    assert [*specs] == ["mobilenet-64", "mobilenet_v2-block_1_expand-64"]
    told = [(spec.weights, spec.layer, spec.preprocessing) for spec in specs.values()]
    assert told == [("random:1", "", "unit"), ("random:2", "block_1_expand", "backbone")]
    cuts = ExtractionOptions(backbone="mobilenet,mobilenet", weights="random", layer="conv1,conv1_relu").specs
    assert [*cuts] == ["mobilenet-conv1-224", "mobilenet-conv1_relu-224"]


def test_a_second_network_of_a_kind_is_cut_where_the_first_was(monkeypatch):
    """Keras goes on counting layers that it names itself, from network to network."""
    monkeypatch.setattr("features.extraction.backbones.randomise", lambda *given: None)  # which takes its time
    spec = BackboneSpec(name="xception", layer="conv2d", weights="random", image_size=71)
    first, second = build_backbone(spec), build_backbone(spec)
    assert first.feature_shape == second.feature_shape
    assert {"conv2d", "conv2d_1"} <= {layer.name for layer in list_layers("xception", image_size=71)}


STATES = st.integers(1, 5).flatmap(
    lambda size: st.integers(1, 17).flatmap(
        lambda rows: st.tuples(
            st.just(size),
            st.lists(st.tuples(st.booleans(), st.lists(st.booleans(), min_size=rows, max_size=rows)), min_size=1),
        )
    )
)


@given(STATES)
def test_shared_batches_give_each_store_what_it_needs_at_its_place(given_states):
    size, states = given_states
    stores = []
    for updates, done in states:
        writer = SimpleNamespace(done=np.asarray(done, np.uint8), header=_Rows(len(done), size))
        writer.pending = lambda writer=writer: StoreWriter.pending(writer)
        stores.append(Open(writer, updates))
    batches = shared_batches(stores, size)
    for number, store in enumerate(stores):
        got = [(row, place) for batch in batches for place, row in enumerate(batch[number]) if row != EMPTY]
        assert all(row % size == place for row, place in got)
        whole = {row for rows in store.writer.pending() for row in rows}
        pending = set(np.flatnonzero(store.writer.done == RowState.PENDING).tolist())
        assert sorted(row for row, _ in got) == sorted(pending if store.updates else whole)
    everything = [{row for rows in batch for row in rows} - {EMPTY} for batch in batches]
    assert all(everything)
    assert sum(map(len, everything)) == len(set().union(*everything))  # each row in one batch: it is decoded once
    if len(stores) == 1 and not stores[0].updates:
        assert [rows for (rows,) in batches] == [*stores[0].writer.pending()]


class _Rows:
    """What of a header says how many rows there are, and how many a batch takes."""

    def __init__(self, count: int, batch_size: int) -> None:
        self.count, self.batch_size = count, batch_size

    def __len__(self) -> int:
        return self.count
