"""How images become squares is recorded, kept by predictions, and followed by the maps that are drawn over them."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from commands import invoke
from made_backbone import lay_mosaics
from made_pictures import train_head
from PIL import Image

from features.extraction.extraction import extract_store
from features.extraction.options import ExtractionOptions
from features.rows.feed import Feed
from features.runtime.errors import InputError
from features.store.reader import FeatureStore
from features.store.schema import StoreHeader
from heads.evaluation.mistakes import Mistake, sights
from heads.files.head_file import read_head, read_metadata, save_head
from heads.loaded import load_head
from heads.metrics.scoring import predict_probabilities
from heads.model.spec import HeadSpec
from heads.saliency.pictures import draw_heatmap

pytestmark = pytest.mark.usefixtures("drawn_once")

HOW = {"backbone": "mobilenet", "weights": "random:3", "image_size": 32, "alpha": 0.25, "preprocessing": "unit"}
SIZE = (96, 32)


def picture(name: str, number: int) -> Image.Image:
    """A wide picture with one bright bar: in the left quarter, or in the middle."""
    values = np.full(SIZE[::-1], 20 + number, np.uint8)
    start = 4 if name == "left" else 40
    values[:, start : start + 16] = 220
    return Image.fromarray(values)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("resize")
    for name in ("left", "middle"):
        (folder / "images" / name).mkdir(parents=True)
        for number in range(4):
            picture(name, number).save(folder / "images" / name / f"{name}-{number}-1.png")
    spec = HeadSpec(conv_width=16, batch_norm=False, learning_rate=0.02)
    with pytest.MonkeyPatch.context() as patch:
        lay_mosaics(patch)
        for resize in ("squash", "pad", "crop"):
            path = folder / f"{resize}.h5"
            extract_store(folder / "images", path, ExtractionOptions(**HOW, resize=resize, batch_size=8))
            store = FeatureStore(path)
            train_head(folder / f"{resize}.hdf5", store, store.usable, spec, epochs=4, batch_size=8)
        yield folder


def header_of(world: Path, resize: str) -> StoreHeader:
    return FeatureStore(world / f"{resize}.h5").header


def test_the_store_says_it_and_squash_has_the_fingerprint_that_it_had(world: Path) -> None:
    headers = {resize: header_of(world, resize) for resize in ("squash", "pad", "crop")}
    assert {name: header.resize for name, header in headers.items()} == {name: name for name in headers}
    assert len({header.fingerprint for header in headers.values()}) == 3
    assert replace(headers["pad"], resize="squash").fingerprint == headers["squash"].fingerprint
    status, out, _ = invoke("features.info", world / "pad.h5", "--json", "--quick")
    assert (status, json.loads(out)["resize"]) == (0, "pad")
    assert "pad: the aspect ratio kept, black around it" in invoke("features.info", world / "pad.h5", "--quick").out


def test_a_store_is_not_gone_on_with_in_another_way(world: Path) -> None:
    for update in (False, True):
        with pytest.raises(InputError, match=r"pad\.h5: resize: expected 'squash', found 'pad'"):
            extract_store(world / "images", world / "pad.h5", ExtractionOptions(**HOW, batch_size=8, update=update))
    status, _, err = invoke("features.extract", world / "images", world / "x.h5", "--resize", "stretch")
    assert (status, "--resize" in err) == (2, True)


@pytest.mark.parametrize("resize", ["squash", "pad", "crop"])
def test_images_are_predicted_as_their_head_was_trained(world: Path, resize: str) -> None:
    head, store = world / f"{resize}.hdf5", FeatureStore(world / f"{resize}.h5")
    assert read_metadata(head).resize == resize
    expected = predict_probabilities(read_head(head).model, Feed(store, store.usable, memory_bytes=10**9))
    status, out, _ = invoke("heads.predict", head, world / "images", "--json")
    found = [list(row["probabilities"].values()) for row in json.loads(out)]
    assert status == 0
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_another_way_is_refused_where_the_head_says_one(world: Path) -> None:
    status, _, err = invoke("heads.predict", world / "pad.hdf5", world / "images", "--resize", "crop")
    assert (status, err) == (2, f"error: --resize: expected pad, as {world / 'pad.hdf5'} says, found crop\n")
    status, _, err = invoke("heads.evaluate", world / "pad.hdf5", world / "squash.h5")
    assert (status, err) == (
        2,
        f"error: {world / 'squash.h5'}: resize: expected pad as {world / 'pad.hdf5'}, found squash\n",
    )


def test_where_the_head_says_nothing_it_can_be_named(world: Path) -> None:
    head = read_head(world / "pad.hdf5")
    save_head(world / "silent.hdf5", head.model, replace(head.metadata, image_size=0, resize="squash"))
    silent, told = load_head(world / "silent.hdf5"), load_head(world / "pad.hdf5")
    image = world / "images" / "left" / "left-0-1.png"
    named = silent.predict(image, progress=False, image_size=32, resize="pad").iloc[0]
    assert named["left"] == pytest.approx(told.predict(image, progress=False).iloc[0]["left"], abs=1e-6)
    plain = silent.predict(image, progress=False, image_size=32).iloc[0]
    assert abs(plain["left"] - named["left"]) > 1e-4
    status, out, _ = invoke("heads.evaluate", world / "silent.hdf5", world / "crop.h5")
    assert (status, out != "") == (0, True), "what a head does not say is not compared"


def test_a_way_that_there_is_not_is_no_head(world: Path) -> None:
    head = read_head(world / "pad.hdf5")
    save_head(world / "odd.hdf5", head.model, replace(head.metadata, resize="stretch"))
    with pytest.raises(InputError, match=r"odd\.hdf5: resize: expected one of squash, pad, crop, found 'stretch'"):
        load_head(world / "odd.hdf5")


def drawn_alone(heat: np.ndarray, resize: str) -> np.ndarray:
    """How opaque the map is, (height, width), over a black image of ``SIZE``."""
    drawn = draw_heatmap(Image.new("RGB", SIZE), heat, resize=resize, alpha=1.0)
    return np.asarray(drawn.convert("L"), int)


def test_a_map_is_cut_back_to_the_image() -> None:
    """Rows of a map of what was padded: only the middle third of it is the image, which is three times as wide."""
    heat = np.zeros((6, 6), np.float32)
    heat[:2] = heat[4:] = 1
    assert drawn_alone(heat, "pad")[8:-8].max() <= 40, "what speaks in the padding is beyond the image"
    heat = np.zeros((6, 6), np.float32)
    heat[2:4, :2] = 1
    found = drawn_alone(heat, "pad")
    assert found[12:20, :16].min() > 100 and found[:, 48:].max() == 0
    squashed = drawn_alone(heat, "squash")
    assert squashed[12:20, :16].min() > 100 and squashed[:3].max() <= 40


def test_a_map_of_what_was_cropped_lies_over_that_alone() -> None:
    found = drawn_alone(np.ones((4, 4), np.float32), "crop")
    assert found[:, 32:64].min() > 200 and found[:, :32].max() == found[:, 64:].max() == 0
    left = drawn_alone(np.eye(2, dtype=np.float32)[:1].repeat(2, 0), "crop")
    assert left[:, 33:38].min() > 200 and left[:, 60:].max() <= 40


@pytest.mark.parametrize("resize", ["squash", "pad", "crop"])
def test_maps_are_drawn_as_their_images_were_resized(world: Path, resize: str) -> None:
    image, head = world / "images" / "middle" / "middle-0-1.png", load_head(world / f"{resize}.hdf5")
    heat, falls = head.heatmap(image, "middle"), head.occlusion(image, "middle")
    shown = np.clip(falls, 0, None) / max(falls.max(), 0.02)
    with Image.open(image) as plain:
        original = plain.convert("RGB")
    over = {"heatmap": (heat, resize), "occlusion": (shown, "crop" if resize == "crop" else "squash")}
    for kind, (levels, how) in over.items():
        drawn = getattr(head, f"draw_{kind}")(image, "middle").crop((0, 0, *SIZE))
        assert drawn.tobytes() == draw_heatmap(original, levels, resize=how).tobytes(), kind


def test_occlusion_covers_all_of_a_padded_image_and_nothing_else(world: Path) -> None:
    image = world / "images" / "left" / "left-0-1.png"
    shapes = {name: load_head(world / f"{name}.hdf5").occlusion(image).shape for name in ("squash", "pad", "crop")}
    assert shapes == {"squash": (12, 36), "pad": (12, 36), "crop": (12, 12)}


def test_pictures_of_mistakes_follow(world: Path) -> None:
    store = FeatureStore(world / "crop.h5")
    row = store.header.paths.index("middle/middle-0-1.png")
    one = Mistake(row, store.header.paths[row], true=1, called=0, probabilities=np.array([0.6, 0.4], np.float32))
    (sight,) = sights(read_head(world / "crop.hdf5").model, store, [one], world / "images")
    shown, plain = (
        np.asarray(Image.open(BytesIO(b64decode(str(address).partition(",")[2]))), int)
        for address in (sight.for_true or sight.for_called, sight.image)
    )
    coloured = np.abs(shown - plain).max(axis=(0, 2))
    assert coloured[34:62].max() > 12 > coloured[:28].max()
    assert coloured[68:].max() < 12
