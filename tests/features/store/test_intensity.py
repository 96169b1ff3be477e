"""One scale for a data set: the same number is the same grey, in order, and nothing is lost at the ends."""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
import pytest
from conftest import build_header, build_store
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from features.runtime.errors import InputError
from features.store.intensity import FRACTIONS, WHOLE, Intensity, Scale, parse_intensity, value_range
from features.store.kind import BY_TYPE, EIGHT_BITS, UNKNOWN, FeatureKind
from features.store.reader import FeatureStore

ends = st.floats(-1e30, 1e30).map(float)
scales = st.tuples(ends, ends).map(sorted).filter(lambda pair: pair[0] < pair[1]).map(lambda pair: Scale(*pair))
images = st.one_of(
    hnp.arrays(np.uint16, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6)),
    hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6)),
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6)),  # NaN and infinities among them
)


@given(images, scales)
@settings(max_examples=60)
def test_greys_keep_the_order_of_the_numbers_and_no_number_is_black(values, scale):
    greys = scale.greys(values)
    assert (greys.dtype, greys.shape) == (np.uint8, values.shape)
    flat, shown = values.reshape(-1).astype(np.float64), greys.reshape(-1)
    numbers = ~np.isnan(flat)
    order = np.argsort(flat[numbers], kind="stable")
    assert (np.diff(shown[numbers][order].astype(int)) >= 0).all()
    assert (shown[~numbers] == 0).all()
    assert (shown[numbers & (flat <= scale.low)] == 0).all()
    assert (shown[numbers & (flat >= scale.high)] == 255).all()


@given(images, scales)
@settings(max_examples=40)
def test_a_number_is_the_same_grey_in_every_image(values, scale):
    alone = [scale.greys(values.reshape(-1)[i : i + 1])[0] for i in range(values.size)]
    assert scale.greys(values).reshape(-1).tolist() == alone


@given(scales)
def test_both_ends_of_the_scale_are_used(scale):
    assert scale.greys(np.array([scale.low, scale.high])).tolist() == [0, 255]


@given(st.integers(0, 65535))
def test_sixteen_bits_are_divided_by_257(number):
    expected = round(number / 257)
    for dtype in (np.uint16, np.int32, np.float64):
        assert WHOLE.greys(np.array([number], dtype)).tolist() == [expected]


def test_large_images_are_scaled_piece_by_piece_alike():
    values = np.arange(3_000_000, dtype=np.int32).reshape(1000, 3000)
    assert np.array_equal(Scale(0, 3e6).greys(values)[777], Scale(0, 3e6).greys(values[777]))


@given(st.one_of(st.builds(Intensity, scales, scales), scales.map(lambda one: Intensity(one, one))))
def test_what_is_written_down_is_read_as_it_was(intensity):
    assert parse_intensity(str(intensity)) == intensity


def test_words_for_scales():
    assert parse_intensity(BY_TYPE) == parse_intensity(EIGHT_BITS) == Intensity(WHOLE, FRACTIONS)
    assert str(Intensity()) == BY_TYPE
    assert str(parse_intensity(UNKNOWN)) == UNKNOWN
    assert str(parse_intensity("0.0:4095")) == "0:4095"
    assert str(parse_intensity("-1000:1200")) == "-1000:1200"


@pytest.mark.parametrize("text", ["", "4095", "0:0", "5:1", "0:nan", "-inf:1", "a:b", "0:1:2", "0:1\0", "-1e308:1e308"])
def test_what_is_no_scale_is_refused_in_one_line(text):
    with pytest.raises(InputError, match=r"^--intensity: expected LOW:HIGH") as caught:
        parse_intensity(text)
    assert "\n" not in str(caught.value)


def test_the_range_of_numbers_passes_over_what_is_none():
    assert value_range(np.array([np.nan, -2, np.inf, 5])) == (-2, 5)
    assert value_range(np.array([np.nan])) == (np.inf, -np.inf)


def test_the_fingerprint_is_that_of_before_where_the_scale_is_that_of_a_type():
    header = build_header(rows=9)
    before = header.fingerprint
    for text in (UNKNOWN, EIGHT_BITS, BY_TYPE):
        assert replace(header, intensity=text).fingerprint == before
    assert replace(header, intensity="0:4095").fingerprint != before
    assert replace(header, pages="all").fingerprint == before  # its paths say so


def test_kinds_of_features_differ_by_their_scales_where_both_scaled_something():
    kind = FeatureKind(feature_shape=(1, 2, 3), intensity="0:4095")
    for text, differs in ((EIGHT_BITS, False), (UNKNOWN, False), ("0:4095", False), (BY_TYPE, True), ("0:1", True)):
        other = replace(kind, intensity=text)
        names = [name for name, *_ in kind.differences(other)]
        assert names == [name for name, *_ in other.differences(kind)] == ["intensity"] * differs
    assert FeatureKind(feature_shape=(1, 2, 3)).texts()["intensity"].startswith("unknown")


def test_a_store_with_another_text_there_is_refused(tmp_path):
    path = build_store(tmp_path / "s.h5", rows=9)
    with h5py.File(path, "r+") as file:
        file.attrs["intensity"] = "bright"
    with pytest.raises(InputError, match=r"s\.h5: intensity: expected LOW:HIGH.*found 'bright'"):
        FeatureStore(path)
