"""Which views an extraction takes where it is not told: said, and never others than those of what is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_backbone import MadeBackbone, mean_colours
from made_images import noise, put_image
from PIL import Image

from features.extraction import extraction
from features.extraction.options import ExtractionOptions
from features.extraction.views_by_images import VIEWS, views_by_images
from features.runtime.errors import InputError
from features.store.reader import FeatureStore
from search.setup.images import ImageOptions

NAMES = tuple(view.name for view in VIEWS)


class Edges(MadeBackbone):
    """Stands for a backbone: tells any two views of a picture apart."""

    feature_shape = (2, 2, 3)

    def features(self, images):
        return mean_colours(images, 2, 2)


@pytest.fixture(autouse=True)
def edges(monkeypatch) -> None:
    monkeypatch.setattr(extraction, "build_backbone", Edges)


@pytest.fixture
def images(tmp_path) -> Path:
    for number in range(8):
        put_image(tmp_path / "images" / "AB"[number % 2] / f"x-{number}-1.png", noise(number, 32, 32, 3))
    return tmp_path / "images"


def run(images: Path, *stores: Path, **options: object) -> list[str]:
    """Extracts into one store or several; returns what was said."""
    how = ExtractionOptions(**{"weights": "random", "image_size": 32, "backbone": "mobilenet"} | options)
    said: list[str] = []
    extraction.extract_stores(images, dict.fromkeys(stores, how.spec), how, say=said.append)
    return said


def test_few_images_are_taken_in_several_views_and_that_is_said(images, tmp_path):
    (line,) = [line for line in run(images, tmp_path / "auto.h5") if "views" in line]
    assert line.startswith("note: 8 images, so each in 6 views (identity, rotate:5, zoom:1.1, rotate:-5, shift:0:16, ")
    store = FeatureStore(tmp_path / "auto.h5")
    assert store.header.views == NAMES
    assert run(images, tmp_path / "told.h5", views=",".join(NAMES)) == []
    assert (tmp_path / "auto.h5").read_bytes() == (tmp_path / "told.h5").read_bytes()
    run(images, tmp_path / "one.h5", views="identity")
    rows = np.arange(8)
    np.testing.assert_array_equal(store.take(rows, 0), FeatureStore(tmp_path / "one.h5").take(rows, 0))
    assert not np.array_equal(store.take(rows, 0), store.take(rows, 1))


@pytest.mark.parametrize(
    ("images", "views"), [(1, 6), (2_499, 6), (2_500, 3), (4_999, 3), (5_000, 1), (15_000, 1), (83_484, 1)]
)
def test_the_more_images_the_fewer_views(images, views):
    assert views_by_images(images, []) == VIEWS[:views]
    assert VIEWS[0].name == "identity"


def test_a_store_that_is_there_keeps_its_views(images, tmp_path):
    class StopHereError(Exception):
        pass

    def stop(settled: int, total: int) -> None:
        if settled:
            raise StopHereError

    told = ExtractionOptions(weights="random", image_size=32, backbone="mobilenet", views="flip", batch_size=3)
    with pytest.raises(StopHereError):
        extraction.extract_store(images, tmp_path / "s.h5", told, on_progress=stop)
    assert run(images, tmp_path / "s.h5", batch_size=3) == []
    store = FeatureStore(tmp_path / "s.h5")
    assert store.complete
    assert store.header.views == ("flip",)
    assert run(images, tmp_path / "s.h5", batch_size=3) == []  # nor is one that is whole another
    Image.new("RGB", (32, 32)).save(images / "A" / "x-9-1.png")
    run(images, tmp_path / "s.h5", batch_size=3, update=True)
    assert (len(FeatureStore(tmp_path / "s.h5")), FeatureStore(tmp_path / "s.h5").header.views) == (9, ("flip",))


def test_one_of_several_stores_decides_for_the_new_ones(images, tmp_path):
    run(images, tmp_path / "a.h5", views="identity,flip")
    assert run(images, tmp_path / "a.h5", tmp_path / "b.h5") == []
    assert FeatureStore(tmp_path / "b.h5").header.views == ("identity", "flip")
    run(images, tmp_path / "c.h5", views="flip")
    with pytest.raises(InputError, match=r"c\.h5.*views"):
        run(images, tmp_path / "a.h5", tmp_path / "c.h5")


def test_views_that_no_extraction_makes_decide_nothing():
    assert views_by_images(8, [("sharpened",)]) == VIEWS
    assert [view.name for view in views_by_images(8, [("sharpened",), ("flip", "identity")])] == ["flip", "identity"]


def test_a_search_over_images_leaves_the_views_to_them_as_well():
    assert ImageOptions().views == ExtractionOptions().views == "auto"
    with pytest.raises(InputError, match="--views"):
        run(Path("nowhere"), Path("s.h5"), views="auto,flip")
