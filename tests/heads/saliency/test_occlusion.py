"""Occlusion maps on a backbone whose features are known, so that every fall can be foretold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_backbone import Places

from features.images.views import parse_views
from heads.files.head_file import Head
from heads.files.metadata import HeadMetadata
from heads.model.build import build_head
from heads.model.spec import HeadSpec
from heads.saliency.occlusion import Grid, covered_pixels, occlusion_map

SIDE = 32


def brightness(loud: float = 1.0) -> Places:
    """A backbone whose one feature says how bright the picture is in each of 4 x 4 places."""
    return Places(4, 4, size=SIDE, grey=True, factor=loud / 255)


def head_of(weights: np.ndarray, temperature: float | None = None) -> Head:
    """Class 1 is that the brightness of 4 x 4 places, weighted, is above 0."""
    model = build_head(HeadSpec(conv_width=16, batch_norm=False), (4, 4, 1), 2)
    kernel = np.zeros((4, 4, 16, 2), np.float32)
    kernel[..., 0, 1] = weights
    conv = np.zeros((1, 1, 1, 16), np.float32)
    conv[..., 0] = 1
    model.set_weights([conv, kernel.reshape(-1, 2), np.zeros(2, np.float32)])
    metadata = HeadMetadata(classes=("a", "b"), feature_shape=(4, 4, 1), temperature=temperature, versions={})
    return Head(model, metadata)


def corner_head(temperature: float | None = None) -> Head:
    """Class 1 is that the upper left place is brighter than the lower right one."""
    weights = np.zeros((4, 4))
    weights[0, 0], weights[3, 3] = 2, -2
    return head_of(weights, temperature)


def corner_picture() -> np.ndarray:
    picture = np.zeros((SIDE, SIDE, 3), np.uint8)
    picture[:8, :8] = 255
    return picture


class TestMap:
    def occlude(self, *, views: str = "identity", temperature: float | None = None, **rest: Any) -> np.ndarray:
        self.backbone, picture = brightness(), corner_picture()
        options: dict[str, Any] = {"aspect": 1.0, "batch_size": 7} | rest
        return occlusion_map(corner_head(temperature), self.backbone, parse_views(views), picture, 1, **options)

    def test_falls_where_the_evidence_is(self) -> None:
        falls = self.occlude(grid=Grid(8, 1.0))
        assert falls.dtype == np.float32
        evidence = np.zeros((8, 8), bool)
        evidence[:2, :2] = True
        assert falls[evidence].min() > 0.05
        assert falls[6:, 6:].min() > 0.001  # the grey patch is evidence against it there
        evidence[6:, 6:] = True
        np.testing.assert_allclose(falls[~evidence], 0, atol=1e-6)

    @pytest.mark.parametrize("quadrant", [(0, 0), (0, 1), (1, 0), (1, 1)])
    def test_lies_in_the_quadrant_of_the_evidence(self, quadrant: tuple[int, int]) -> None:
        """A bright square off the centre of one quadrant, which is all the head looks for."""
        row, column = (16 * side for side in quadrant)
        picture, weights = np.zeros((SIDE, SIDE, 3), np.uint8), np.zeros((4, 4))
        picture[row + 2 : row + 14, column + 2 : column + 14] = 255
        weights[row // 8 : row // 8 + 2, column // 8 : column // 8 + 2] = 1
        options = {"aspect": 1.0, "batch_size": 50}
        falls = occlusion_map(head_of(weights), brightness(), parse_views("identity"), picture, 1, **options)
        mass, half = np.clip(falls, 0, None), 6
        own = mass[row // 16 * half :, column // 16 * half :][:half, :half]
        assert own.sum() > 0.7 * mass.sum() > 0

    def test_by_how_much(self) -> None:
        """Covering all of it leaves the grey of the mean everywhere, which speaks for neither class."""
        (fall,) = self.occlude(grid=Grid(1, 1.0)).ravel()
        assert fall == pytest.approx(1 / (1 + np.exp(-2)) - 0.5, abs=2e-3)

    @pytest.mark.parametrize("temperature", [0.4, 3.0])
    @pytest.mark.parametrize("views", ["identity", "identity,flip"])
    def test_is_of_calibrated_probabilities(self, views: str, temperature: float) -> None:
        """With two classes, a temperature divides log(p / (1 - p)) of the average over the views."""
        before = np.mean([1 / (1 + np.exp(-2)), 0.5][: len(views.split(","))])  # mirrored, it speaks for neither class
        covered = before - self.occlude(views=views).astype(np.float64)

        def calibrated(p: Any) -> Any:
            return 1 / (1 + np.exp(-np.log(p / (1 - p)) / temperature))

        falls = self.occlude(views=views, temperature=temperature)
        np.testing.assert_allclose(falls, calibrated(before) - calibrated(covered), atol=1e-5)

    def test_below_0_where_the_class_gains(self) -> None:
        """Seen from the other class, covering its counter-evidence helps it by as much."""
        picture, views = corner_picture(), parse_views("identity")
        options = {"aspect": 1.0, "batch_size": 64, "grid": Grid(6)}
        one, other = (occlusion_map(corner_head(), brightness(), views, picture, c, **options) for c in (0, 1))
        np.testing.assert_allclose(one, -other, atol=1e-6)
        assert one.min() < -0.1

    def test_places_are_square_on_the_original(self) -> None:
        assert self.occlude(aspect=2.0, grid=Grid(4)).shape == (4, 8)
        assert self.occlude(aspect=0.5, grid=Grid(4)).shape == (8, 4)
        assert self.occlude(aspect=1000.0, grid=Grid(2)).shape == (2, 8)

    def test_batches_do_not_matter(self) -> None:
        expected = self.occlude(batch_size=1, grid=Grid(4))
        for batch_size, used in ((5, 5), (17, 17), (200, 17)):
            for aspect in (1.0, 2.0):  # one shape for images of any aspect: one program
                falls = self.occlude(batch_size=batch_size, grid=Grid(4), aspect=aspect)
                assert {shape[0] for shape in self.backbone.shapes} == {used}
                if aspect == 1:
                    np.testing.assert_allclose(falls, expected, atol=1e-6)

    def test_averages_over_the_views(self) -> None:
        one, both = self.occlude(), self.occlude(views="identity,flip")
        alone = self.occlude(views="flip")
        np.testing.assert_allclose(both, (one + alone) / 2, atol=1e-6)
        assert np.abs(one - alone).max() > 0.1

    def test_features_are_rounded_as_in_the_store(self) -> None:
        """Too large for half precision, they are cut to its range rather than infinite."""
        picture, head = corner_picture(), corner_head()
        falls = occlusion_map(head, brightness(1e6), parse_views("identity"), picture, 1, aspect=1.0, batch_size=64)
        assert head.metadata.dtype == "float16"
        assert np.isfinite(falls).all()

    def test_the_picture_is_left_as_it_is(self) -> None:
        picture = corner_picture()
        occlusion_map(corner_head(), brightness(), parse_views("flip"), picture, 1, aspect=1.0, batch_size=9)
        np.testing.assert_array_equal(picture, corner_picture())

    @settings(max_examples=15)
    @given(st.integers(0, 2**32 - 1), st.floats(0.3, 3), st.integers(1, 40), st.integers(1, 5), st.floats(1, 3))
    def test_mirrored_is_mirrored(self, seed: int, aspect: float, batch_size: int, places: int, cover: float) -> None:
        """For any picture and head: the map of the mirror image by a mirrored head is the mirrored map."""
        generator = np.random.default_rng(seed)
        picture = np.repeat(np.repeat(generator.integers(0, 256, (4, 4, 3), np.uint8), 8, axis=0), 8, axis=1)
        weights = generator.normal(0, 1, (4, 4))
        options: dict[str, Any] = {"aspect": aspect, "batch_size": batch_size, "grid": Grid(places, cover)}
        views = parse_views("identity")
        falls = occlusion_map(head_of(weights), brightness(), views, picture, 1, **options)
        mirrored = occlusion_map(head_of(weights[:, ::-1]), brightness(), views, picture[:, ::-1], 1, **options)
        assert min(falls.shape) == places
        assert np.abs(falls).max() <= 1
        np.testing.assert_allclose(mirrored[:, ::-1], falls, atol=1e-5)


class TestPatches:
    @given(st.integers(1, 60), st.floats(1, 4), st.integers(1, 400))
    def test_cover_every_pixel_within_the_picture(self, places: int, cover: float, size: int) -> None:
        covered = np.zeros(size, int)
        for index in range(places):
            patch = covered_pixels(index, places, cover, size)
            assert 0 <= patch.start < size
            assert patch.stop > patch.start
            covered[patch] += 1
        if places <= size:
            assert covered.min() >= 1

    def test_are_centred_on_their_places(self) -> None:
        patches = [covered_pixels(index, 4, 1.0, 40) for index in range(4)]
        assert [(patch.start, patch.stop) for patch in patches] == [(0, 10), (10, 20), (20, 30), (30, 40)]
        wide = covered_pixels(1, 4, 2.0, 40)
        assert (wide.start, wide.stop) == (5, 25)
