"""Images that are decoded at the same time fit the memory together."""

from __future__ import annotations

import io
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
import pytest
from PIL import Image

from features.images.decode import decode_image, deep_values
from features.images.reading import MAX_PIXELS
from features.images.room import BYTES_PER_PIXEL, BYTES_PER_PIXEL_LEFT_OUT, Room


@pytest.mark.parametrize(("pixels", "together"), [(25, 4), (40, 2), (51, 1), (1000, 1)])
def test_what_is_decoded_at_once_is_within_the_budget_and_one_beyond_it_is_alone(pixels, together):
    room, inside, most = Room(lambda: 100 * BYTES_PER_PIXEL), [], []

    def decode(number: int) -> None:
        with room.holding(pixels, of=pixels):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.005)
            inside.remove(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decode, range(24)))
    assert max(most) <= together


def test_an_image_that_fails_gives_its_room_back():
    room = Room(lambda: 0)
    with pytest.raises(ValueError, match="damaged"), room.holding(10, of=10):
        raise ValueError("damaged")
    with room.holding(10, of=10):
        pass


def test_of_an_image_at_a_reduced_scale_the_whole_counts_less():
    room, side = Room(lambda: 8 * BYTES_PER_PIXEL_LEFT_OUT), 2
    with room.holding(1, of=side * side), room.holding(1, of=side * side):
        assert room._taken == 2 * side * side * BYTES_PER_PIXEL_LEFT_OUT


def _encoded(image: Image.Image, kind: str) -> bytes:
    content = io.BytesIO()
    image.save(content, kind)
    return content.getvalue()


def test_decoding_and_looking_for_a_scale_ask_for_room_for_all_pixels(monkeypatch):
    asked = []

    class Noted:
        def holding(self, pixels, *, of):
            asked.append((pixels, of))
            return nullcontext()

    monkeypatch.setattr("features.images.decode._room", Noted())
    colours = Image.new("RGB", (400, 200))
    deep = _encoded(Image.fromarray(np.zeros((30, 20), np.uint16)), "PNG")
    decode_image(_encoded(colours, "JPEG2000"), 8)
    decode_image(_encoded(colours, "JPEG"), 8)
    decode_image(deep, 8)
    assert deep_values(deep, MAX_PIXELS) is not None
    assert deep_values(_encoded(colours, "PNG"), MAX_PIXELS) is None  # which decodes nothing
    assert asked == [(80_000, 80_000), (50 * 25, 80_000), (600, 600), (600, 600)]
