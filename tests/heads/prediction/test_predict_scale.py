"""A head sees images on the scale that it was trained on, page by page where that is asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import invoke
from made_backbone import lay_mosaics
from made_images import encoded, grey
from made_pictures import train_head
from PIL import Image

from features.extraction.extraction import extract_store
from features.extraction.options import ExtractionOptions
from features.images.reading import Page
from features.rows.feed import Feed
from features.runtime.errors import InputError
from features.store.reader import FeatureStore
from heads.files.head_file import read_head, read_metadata, save_head
from heads.loaded import load_head
from heads.metrics.scoring import predict_probabilities
from heads.model.spec import HeadSpec
from heads.prediction.sources import NamedImage, find_sources

pytestmark = pytest.mark.usefixtures("drawn_once")


def picture(kind: int, number: int) -> np.ndarray:
    y, x = np.mgrid[:48, :48]
    wave = (x // 8 + kind * (y // 8)) % 2
    return (1000 + 1500 * wave + 20 * number).astype(np.uint16)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("scale")
    for kind, name in enumerate(("checks", "stripes")):
        (folder / "images" / name).mkdir(parents=True)
        for number in range(4):
            path = folder / "images" / name / f"{name}-{number}-1.png"
            path.write_bytes(grey(picture(1 - kind, number), "PNG"))
    how = {"backbone": "mobilenet", "weights": "random:3", "image_size": 32, "alpha": 0.25, "preprocessing": "unit"}
    with pytest.MonkeyPatch.context() as patch:
        lay_mosaics(patch)
        extract_store(folder / "images", folder / "s.h5", ExtractionOptions(**how, intensity="0:4095", batch_size=8))
        store = FeatureStore(folder / "s.h5")
        spec = HeadSpec(conv_width=16, batch_norm=False, learning_rate=0.01)
        train_head(folder / "head.hdf5", store, store.usable, spec, epochs=3, batch_size=8)
        model, metadata = read_head(folder / "head.hdf5").model, read_metadata(folder / "head.hdf5")
        for text in ("unknown", "8 bits"):
            save_head(folder / f"{text}.hdf5", model, replace(metadata, intensity=text))
        yield folder


def predicted(head: Path, *arguments: object) -> tuple[np.ndarray, str]:
    status, out, err = invoke("heads.predict", head, *arguments, "--json")
    assert status == 0, err
    return np.array([list(row["probabilities"].values()) for row in json.loads(out)]), err


def test_the_head_keeps_the_scale_and_predicts_as_from_the_store(world: Path) -> None:
    assert read_metadata(world / "head.hdf5").intensity == "0:4095"
    store = FeatureStore(world / "s.h5")
    expected = predict_probabilities(
        read_head(world / "head.hdf5").model, Feed(store, store.usable, memory_bytes=10**9)
    )
    found, err = predicted(world / "head.hdf5", world / "images")
    np.testing.assert_allclose(found, expected, atol=2e-3)
    assert "note" not in err


def test_another_scale_is_told_or_said(world: Path) -> None:
    told, err = predicted(world / "head.hdf5", world / "images", "--intensity", "0:65535")
    assert "note: 8 images of more than 8 bits: shown on the scale 0:65535, black to white" in err
    untold, err = predicted(world / "8 bits.hdf5", world / "images")
    np.testing.assert_array_equal(told, untold)
    assert "contrast is nearly lost" in err
    alone, err = predicted(world / "unknown.hdf5", world / "images")
    np.testing.assert_array_equal(alone, untold)  # whole numbers were always taken as 16 bits
    assert "note: 8 images of more than 8 bits, each scaled by its own range" in err
    as_trained, err = predicted(world / "8 bits.hdf5", world / "images", "--intensity", "0:4095")
    np.testing.assert_array_equal(as_trained, predicted(world / "head.hdf5", world / "images")[0])


def test_what_is_outside_of_the_scale_is_clipped_and_said_once(world: Path, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(grey(picture(0, number) * np.uint16(3), "PNG"))
    _, err = predicted(world / "head.hdf5", tmp_path)
    (line,) = [line for line in err.splitlines() if line.startswith("note")]
    assert line.startswith("note: 3 images with values outside of the range 0:4095, clipped")
    predictions = load_head(world / "head.hdf5").predict_each(
        tmp_path, load_head(world / "head.hdf5")._options({}), progress=False
    )
    assert predictions.notes == (line.removeprefix("note: "),)


def test_maps_are_of_what_was_predicted(world: Path) -> None:
    image = world / "images" / "checks" / "checks-0-1.png"
    shown = {
        head: np.asarray(load_head(world / f"{head}.hdf5").draw_heatmap(image).convert("L"))[:48]
        for head in ("head", "8 bits")
    }
    assert shown["head"].std() > 5 + shown["8 bits"].std()


def test_each_page_is_predicted_where_that_is_asked_for(world: Path, tmp_path: Path) -> None:
    frames = [Image.fromarray(picture(kind, 0)) for kind in (0, 1, 0)]
    path = tmp_path / "scan.tif"
    path.write_bytes(encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:]))
    first, err = predicted(world / "head.hdf5", path)
    assert len(first) == 1
    assert "note: 1 file with several pages: the first of each was used; --pages all takes all" in err
    every, err = predicted(world / "head.hdf5", tmp_path, "--pages", "all")
    assert "pages" not in err
    np.testing.assert_allclose(every[[0, 2]], first.repeat(2, 0), atol=2e-3)
    assert np.abs(every[1] - first[0]).max() > 1e-3
    second, _ = predicted(world / "head.hdf5", f"{path}#2")
    np.testing.assert_allclose(second[0], every[1], atol=2e-3)
    sources = find_sources([str(path)], tmp_path, pages="all")
    assert sources == [NamedImage(f"{path}#{number}", Page(path, number)) for number in (1, 2, 3)]
    named = tmp_path / "odd.tif#2"
    named.write_bytes(path.read_bytes())
    assert find_sources([str(named)], tmp_path) == [NamedImage(str(named), named)]


def test_what_is_no_scale_is_refused_before_anything_is_built(world: Path) -> None:
    status, _, err = invoke("heads.predict", world / "head.hdf5", world / "images", "--intensity", "9:1")
    assert (status, err) == (
        2,
        "error: --intensity: expected LOW:HIGH, two numbers, the black one below the white one, found 9:1\n",
    )
    head = load_head(world / "head.hdf5")
    with pytest.raises(InputError, match="intensity"):
        head.predict(world / "images", intensity="x")
    status, _, err = invoke("heads.predict", world / "head.hdf5", world / "images", "--max-pixels", "100")
    assert status == 1
