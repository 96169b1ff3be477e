"""The rows that are misclassified, and their pictures: the right ones, in order, from that folder only."""

from __future__ import annotations

import io
import os
import shutil
import sys
from base64 import b64decode
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import build_store
from hypothesis import given
from hypothesis import strategies as st
from made_pictures import MISLABELLED, SIZE, World, draw, make_world
from PIL import Image

from features.runtime.errors import InputError
from features.store.reader import FeatureStore
from features.store.relabelled import with_classes
from heads.evaluation import mistakes as module
from heads.evaluation.mistakes import Mistake, Sight, check_images, mistakes, sights
from heads.files.head_file import read_head
from heads.saliency.gradcam import class_activation_map
from heads.saliency.pictures import draw_heatmap

pytestmark = pytest.mark.usefixtures("drawn_once")


def picture(address: str | None) -> Image.Image:
    assert address is not None
    kind, _, content = address.partition(",")
    assert kind == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(b64decode(content)))


def store_of(labels: np.ndarray) -> Any:
    """What ``mistakes`` asks of a store."""
    return SimpleNamespace(labels=labels, header=SimpleNamespace(paths=[f"{row}.png" for row in range(len(labels))]))


class TestMistakes:
    def test_those_called_wrongly_the_surest_first(self) -> None:
        probabilities = np.array([[0.4, 0.6], [0.9, 0.1], [0.3, 0.7], [0.2, 0.8], [0.6, 0.4]], np.float32)
        found = mistakes(probabilities, store_of(np.array([9, 0, 9, 0, 9, 0, 9, 1, 9, 1])), np.array([1, 3, 5, 7, 9]))
        assert [(one.row, one.path, one.true, one.called) for one in found] == [
            (5, "5.png", 0, 1),
            (1, "1.png", 0, 1),
            (9, "9.png", 1, 0),
        ]
        np.testing.assert_array_equal(found[1].probabilities, probabilities[0])

    @given(st.integers(0, 40), st.integers(0, 2**32 - 1))
    def test_each_once_and_in_order(self, rows: int, seed: int) -> None:
        generator = np.random.default_rng(seed)
        probabilities = generator.integers(1, 5, (rows, 3)).astype(np.float32)  # with ties
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        labels, places = generator.integers(0, 3, rows), np.arange(rows)
        found = mistakes(probabilities, store_of(labels), places)
        assert {one.row for one in found} == set(np.flatnonzero(probabilities.argmax(axis=1) != labels))
        order = [(-one.probabilities[one.called], one.row) for one in found]
        assert order == sorted(order)
        assert all(one.true == labels[one.row] != one.called for one in found)


class TestFolder:
    def test_one_image_of_the_store_is_enough(self, made_world: World, tmp_path: Path) -> None:
        store = FeatureStore(made_world.store)
        check_images(made_world.images, store)
        (tmp_path / "dark").mkdir()
        shutil.copy(made_world.images / "dark" / "dark-0-0.png", tmp_path / "dark")
        check_images(tmp_path, store)

    def test_without_any(self, made_world: World, tmp_path: Path) -> None:
        store = FeatureStore(made_world.store)
        (tmp_path / "file").touch()
        for name, found in (("", "none of them"), ("gone", "no such folder"), ("file", "no such folder")):
            with pytest.raises(InputError) as caught:
                check_images(tmp_path / name, store)
            expected = f"the folder with {made_world.store}'s images, such as bright/bright-0-0.png"
            assert str(caught.value) == f"{tmp_path / name}: expected {expected}, found {found}"

    def test_names_that_no_disk_can_hold(self, tmp_path: Path) -> None:
        """A store is not to be trusted: its paths may be too long, lead elsewhere, or hold control characters."""
        store = FeatureStore(build_store(tmp_path / "store.h5", rows=12))
        paths = ("x" * 300 + ".png", "/etc/passwd", "../../../../etc/passwd", "a\x1b[31m\nb.png", "", ".", "x/" * 3000)
        store.header = replace(store.header, paths=paths + store.header.paths[len(paths) :])
        with pytest.raises(InputError, match="found none of them"):
            check_images(tmp_path, store)
        store.header = replace(store.header, paths=tuple(reversed(paths)) + store.header.paths[len(paths) :])
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc" / "passwd").write_text("in the folder")
        check_images(tmp_path, store)


def a_mistake(store: FeatureStore, row: int) -> Mistake:
    true = int(store.labels[row])
    return Mistake(row, store.header.paths[row], true, (true + 1) % 3, np.full(3, 1 / 3, np.float32))


class TestSights:
    def of(self, world: World, images: Path, found: list[Mistake]) -> list[Sight]:
        return list(sights(read_head(world.head).model, FeatureStore(world.store), found, images))

    def test_the_image_and_what_speaks_for_both_classes(self, made_world: World) -> None:
        """The maps are those of the features in the store, drawn as ``heads.predict`` draws them."""
        store = FeatureStore(made_world.store)
        found = [a_mistake(store, row) for row in (0, 12, 25, *range(27))] * 3  # more than a batch
        seen = self.of(made_world, made_world.images, found)
        assert len(seen) == len(found) > 64
        model, shown = read_head(made_world.head).model, 0
        for one, sight in zip(found, seen, strict=True):
            assert sight.reason == ""
            with Image.open(made_world.images / one.path) as image:
                plain = image.convert("RGB")
            assert_alike(picture(sight.image), plain)
            for address, index in ((sight.for_called, one.called), (sight.for_true, one.true)):
                heat = class_activation_map(model, store.features[one.row, 0], index)
                assert (address != "") == bool(heat.any())
                if address:
                    shown += 1
                    assert_alike(picture(address), draw_heatmap(plain, heat))
        assert shown > len(found)

    def test_a_large_one_is_reduced_an_odd_one_turned_and_made_8_bits(self, made_world: World, tmp_path: Path) -> None:
        store, wide = FeatureStore(made_world.store), draw("dark", np.random.default_rng(0), (1000, 500))
        (tmp_path / "bright").mkdir()
        exif = Image.Exif()
        exif[0x0112] = 6
        deep = Image.fromarray(np.asarray(wide).astype(np.uint16) * 257)
        deep.transpose(Image.Transpose.ROTATE_90).save(tmp_path / store.header.paths[0], exif=exif)
        size = os.path.getsize(tmp_path / store.header.paths[0])  # noqa: PTH202
        store.header = replace(store.header, sizes=(size, *store.header.sizes[1:]))
        store.contents = None
        (sight,) = sights(read_head(made_world.head).model, store, [a_mistake(store, 0)], tmp_path)
        assert picture(sight.image).size == (320, 160)
        assert_alike(picture(sight.image), wide.convert("RGB").resize((320, 160), Image.Resampling.BOX), 12)

    def test_one_of_any_size_is_shown_as_the_store_was_made_of_it(self, made_world: World, monkeypatch: Any) -> None:
        limits = []
        monkeypatch.setattr(module, "original_image", lambda source, reading: limits.append(reading.max_pixels) or tiny)
        tiny = Image.new("RGB", (4, 4))
        (sight,) = self.of(made_world, made_world.images, [a_mistake(FeatureStore(made_world.store), 0)])
        assert (sight.reason, limits) == ("", [sys.maxsize])

    def test_what_cannot_be_had_has_its_reason(self, made_world: World, tmp_path: Path) -> None:
        store = FeatureStore(made_world.store)
        images = tmp_path / "images"
        shutil.copytree(made_world.images, images)
        gone, other, changed, fine = (a_mistake(store, row) for row in (0, 1, 2, 3))
        (images / gone.path).unlink()
        (images / other.path).write_bytes(b"short")
        (images / changed.path).write_bytes(bytes(store.header.sizes[changed.row]))
        long = replace(fine, path="x" * 300)
        seen = self.of(made_world, images, [gone, other, changed, long, fine])
        size = store.header.sizes[other.row]
        assert [sight.reason for sight in seen] == [
            "no such file",
            f"another file: 5 bytes, where the store was made of one of {size}",
            "another file: its content is not that of the one that the store was made of",
            "damaged: File name too long",
            "",
        ]
        assert [bool(sight.image) for sight in seen] == [False] * 4 + [True]
        assert all(sight.for_called is sight.for_true is None for sight in seen[:4])
        store.contents = None
        (sight,) = sights(read_head(made_world.head).model, store, [changed], images)
        assert sight.reason == "not an image that Pillow reads"

    def test_an_image_of_the_same_size_with_other_pixels_is_not_shown(self, made_world: World, tmp_path: Path) -> None:
        store = FeatureStore(made_world.store)
        images = tmp_path / "images"
        shutil.copytree(made_world.images, images)
        one = a_mistake(store, 0)
        (images / one.path).write_bytes((images / store.header.paths[1]).read_bytes())
        size = (images / one.path).stat().st_size
        store.header = replace(store.header, sizes=(size, *store.header.sizes[1:]))
        for source in (store, with_classes(store, ("more", *store.classes), known_to="a head")):
            (sight,) = sights(read_head(made_world.head).model, source, [one], images)
            assert sight == Sight(reason="another file: its content is not that of the one that the store was made of")

    def test_without_a_plain_view_there_are_no_maps(self, tmp_path: Path) -> None:
        """What the store holds of a shifted picture would lie beside what it explains."""
        world = make_world(tmp_path, views="shift:8:0,flip")
        store = FeatureStore(world.store)
        (sight,) = self.of(world, world.images, [a_mistake(store, store.header.paths.index(MISLABELLED))])
        assert picture(sight.image).size == SIZE
        assert sight.for_called is sight.for_true is None


def assert_alike(found: Image.Image, expected: Image.Image, tolerance: float = 8) -> None:
    """Of one size, and as near as JPEG leaves it."""
    assert found.size == expected.size
    difference = np.abs(np.asarray(found, np.float32) - np.asarray(expected, np.float32))
    assert difference.mean() < tolerance
