"""The variants of an image: their grammar, and what they do to pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from features.images.views import View, parse_views
from features.runtime.errors import InputError


def decimals(low: float, high: float) -> st.SearchStrategy[str]:
    return st.floats(low, high).map(lambda number: f"{number:.3f}")


STEPS = st.one_of(
    st.just("identity"),
    st.just("flip"),
    st.builds("shift:{}:{}".format, st.integers(-40, 40), st.integers(-40, 40)),
    st.builds("rotate:{}".format, decimals(-400, 400)),
    st.builds("zoom:{}".format, decimals(0.2, 5)),
    st.builds("contrast:{}".format, decimals(0, 4)),
)
NAMES = st.lists(STEPS, min_size=1, max_size=3).map("+".join)
PICTURES = st.integers(1, 12).flatmap(lambda side: hnp.arrays(np.uint8, (side, side, 3)))


def noise(size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)


@given(NAMES, PICTURES)
def test_a_view_keeps_shape_type_and_its_input_and_is_deterministic(name, picture):
    (view,) = parse_views(name)
    before = picture.copy()
    made = view.apply(picture)
    assert made.shape == picture.shape
    assert made.dtype == np.uint8
    assert np.array_equal(picture, before)
    made_again = view.apply(picture)
    assert np.array_equal(made, made_again)
    made[:] = 0  # a view never hands out the picture itself
    assert np.array_equal(picture, before)


@given(NAMES)
def test_the_canonical_name_is_a_fixed_point_and_does_the_same(name):
    (view,) = parse_views(name)
    assert parse_views(view.name) == (view,)
    assert np.array_equal(View(view.name).apply(noise(9)), View(name).apply(noise(9)))


@pytest.mark.parametrize(
    ("given_name", "canonical"),
    [
        (" flip ", "flip"),
        ("identity+flip", "flip"),
        ("identity+identity", "identity"),
        ("flip+identity+shift:01:-0", "flip+shift:1:0"),
        ("rotate:05.0", "rotate:5"),
        ("rotate:-0", "rotate:0"),
        ("rotate:.5", "rotate:0.5"),
        ("zoom:1.10+contrast:2.", "zoom:1.1+contrast:2"),
    ],
)
def test_names_have_one_spelling(given_name, canonical):
    assert parse_views(given_name) == (View(canonical),)


def test_a_list_keeps_its_order():
    assert [view.name for view in parse_views("shift:0:16,identity, flip")] == ["shift:0:16", "identity", "flip"]


@pytest.mark.parametrize(
    "names",
    [
        "",
        ",",
        "identity,",
        "mirror",
        "flip:1",
        "shift:1",
        "shift:1:2:3",
        "shift:1.5:0",
        "shift:+1:0",
        "shift:\u0661:0",
        "rotate:",
        "rotate:ten",
        "rotate:nan",
        "rotate:1e3",
        "zoom:0",
        "zoom:10.1",
        "zoom:-1",
        "contrast:-1",
        "contrast:11",
        "flip++flip",
        "flip+",
    ],
)
def test_what_is_no_view_is_refused_in_one_line(names):
    with pytest.raises(InputError, match="--views") as caught:
        parse_views(names)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("names", ["flip,flip", "rotate:5,rotate:5.0", "identity,identity+identity"])
def test_the_same_view_twice_is_refused(names):
    with pytest.raises(InputError, match="twice"):
        parse_views(names)


@given(PICTURES)
def test_identity_is_the_image(picture):
    for name in ("identity", "shift:0:0", "rotate:0", "zoom:1", "contrast:1", "rotate:360"):
        assert np.array_equal(View(name).apply(picture), picture), name


@given(PICTURES)
def test_flip_twice_is_the_image(picture):
    assert np.array_equal(View("flip").apply(picture), picture[:, ::-1])
    assert np.array_equal(View("flip+flip").apply(picture), picture)


@given(PICTURES, st.integers(-15, 15), st.integers(-15, 15))
def test_shift_moves_right_and_down_and_repeats_the_edge(picture, x, y):
    size = len(picture)
    made = View(f"shift:{x}:{y}").apply(picture)
    for row in range(size):
        for column in range(size):
            source = picture[min(max(row - y, 0), size - 1), min(max(column - x, 0), size - 1)]
            assert np.array_equal(made[row, column], source)


@given(PICTURES)
def test_quarter_turns_are_exact_and_counter_clockwise(picture):
    for quarters in range(1, 4):
        made = View(f"rotate:{90 * quarters}").apply(picture)
        assert np.array_equal(made, np.rot90(picture, quarters))


@pytest.mark.parametrize("degrees", [5, -17.5, 45, 120])
@pytest.mark.parametrize("size", [32, 33])
def test_a_rotation_is_pillows_on_the_widened_image(degrees, size):
    picture = noise(size)
    wide = Image.fromarray(np.pad(picture, ((size, size), (size, size), (0, 0)), mode="edge"))
    expected = np.asarray(wide.rotate(degrees, Image.Resampling.BILINEAR))[size : 2 * size, size : 2 * size]
    made = View(f"rotate:{degrees}").apply(picture)
    assert np.abs(made.astype(int) - expected).max() <= 1


def test_zoom_enlarges_about_the_centre():
    picture = np.zeros((40, 40, 3), np.uint8)
    picture[10:30, 10:30] = 255
    assert (View("zoom:2").apply(picture)[2:-2, 2:-2] == 255).all()
    reduced = View("zoom:0.5").apply(picture)
    assert (reduced[16:24, 16:24] == 255).all()
    assert (reduced[:14] == 0).all()


def test_zooming_out_repeats_the_edge_instead_of_black():
    assert (View("zoom:0.3").apply(np.full((20, 20, 3), 90, np.uint8)) == 90).all()
    assert (View("rotate:30").apply(np.full((20, 20, 3), 90, np.uint8)) == 90).all()


def test_contrast_stretches_about_the_mean():
    picture = np.full((4, 4, 3), 100, np.uint8)
    picture[:2], picture[2:] = 80, 120
    assert np.unique(View("contrast:1.5").apply(picture)).tolist() == [70, 130]
    assert np.unique(View("contrast:0").apply(picture)).tolist() == [100]
    assert np.unique(View("contrast:10").apply(picture)).tolist() == [0, 255]


def test_steps_apply_from_left_to_right():
    picture = noise(10)
    assert np.array_equal(View("flip+shift:3:0").apply(picture), View("shift:3:0").apply(picture[:, ::-1]))
    assert not np.array_equal(View("flip+shift:3:0").apply(picture), View("shift:3:0+flip").apply(picture))
