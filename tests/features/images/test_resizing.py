"""Images of any shape as squares, and where the two lie over each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_images import encoded
from PIL import Image, ImageOps

from features.images.decode import decode_image
from features.images.reading import Reading
from features.images.resizing import content_of, resized, square_of
from features.store.kind import RESIZES

SIDES = st.integers(1, 500)
WIDE = Image.fromarray(np.repeat(np.arange(0, 240, 2, dtype=np.uint8)[None], 40, axis=0))  # 120 x 40, left to right


def test_squash_is_what_it_always_was():
    assert resized(WIDE, 16).tobytes() == WIDE.resize((16, 16), Image.Resampling.BILINEAR).tobytes()
    content = encoded(WIDE, "PNG")
    assert decode_image(content, 16).tobytes() == decode_image(content, 16, Reading(resize="squash")).tobytes()


@pytest.mark.parametrize("size", [(120, 40), (40, 120), (33, 100), (64, 64)])
def test_pad_keeps_the_aspect_ratio_on_black(size):
    white = Image.new("RGB", size, "white")
    square = np.asarray(resized(white, 32, "pad"))
    rows, columns = (square.max(axis=(axis, 2)) == 255 for axis in (1, 0))
    assert abs(columns.sum() / rows.sum() - size[0] / size[1]) < 0.1
    assert max(rows.sum(), columns.sum()) == 32
    assert (square == (rows[:, None] & columns)[..., None] * 255).all(), "black around it"
    for shown in (rows, columns):
        before, after = shown.argmax(), shown[::-1].argmax()
        assert 0 <= after - before <= 1, "centred"
    filled = np.asarray(ImageOps.pad(white, (32, 32), Image.Resampling.BILINEAR))
    assert abs(int((filled > 0).sum()) - int((square > 0).sum())) <= 32 * 3 * 2


@pytest.mark.parametrize("turned", [False, True])
def test_crop_is_the_middle(turned):
    image = WIDE.transpose(Image.Transpose.ROTATE_90) if turned else WIDE
    square = np.asarray(resized(image, 40, "crop"))
    left, top, right, bottom = square_of(image.size, "crop")
    assert square.tobytes() == image.crop((left, top, right, bottom)).tobytes()
    assert (left, top) == ((0, 40) if turned else (40, 0))


@given(SIDES, SIDES, st.sampled_from(RESIZES), st.integers(1, 64))
def test_square_and_content_fit(width, height, resize, side):
    image = Image.new("L", (width, height), 9)
    left, top, right, bottom = square_of(image.size, resize)
    assert resize == "squash" or right - left == bottom - top
    assert abs((left + right) - width) <= 1 >= abs((top + bottom) - height), "about the middle"
    inner = content_of(image.size, side, resize)
    assert 0 <= inner[0] < inner[2] <= side >= inner[3] > inner[1] >= 0
    square = np.asarray(resized(image, side, resize))
    assert square.shape == (side, side)
    assert (square[inner[1] : inner[3], inner[0] : inner[2]] == 9).all()
    assert (square == 9).sum() == (inner[2] - inner[0]) * (inner[3] - inner[1])


def test_a_jpeg_that_is_decoded_at_a_reduced_scale_lies_in_the_same_place():
    image = Image.new("L", (1600, 600), 200)
    content = encoded(image, "JPEG")
    for resize in RESIZES:
        found, whole = decode_image(content, 50, Reading(resize=resize)), resized(image.convert("RGB"), 50, resize)
        assert np.abs(found.astype(int) - np.asarray(whole, int)).max() <= 2
