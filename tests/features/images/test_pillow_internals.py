"""Pillow's ways that are used without a promise: an upgrade that changes one fails here first."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from made_images import encoded, png16, tiff
from PIL import Image, PngImagePlugin

from features.images.pillow_internals import (
    give_lower_bytes,
    give_places,
    has_deep_colours,
    has_lower_bytes,
    places_of_pages,
    raise_pixel_limit,
    read_planes,
)

RGB = np.random.default_rng(0).integers(0, 65536, (5, 6, 3)).astype(np.uint16)
DEEP = {
    "PNG": (png16(RGB), RGB),
    "PNG with alpha": (png16(np.concatenate([RGB, RGB[..., :1]], -1)), RGB),
    "PNG, grey with alpha": (png16(RGB[..., :2]), RGB[..., :1].repeat(3, -1)),
    "TIFF, little endian": (tiff(RGB, 2), RGB),
    "TIFF, big endian": (tiff(RGB, 2, order=">"), RGB),
}


@pytest.mark.parametrize("name", DEEP)
def test_both_bytes_of_a_channel_can_be_had(name):
    content, expected = DEEP[name]
    with Image.open(io.BytesIO(content)) as image:
        assert has_deep_colours(image)
        assert has_lower_bytes(image)
        upper = np.asarray(image)[..., :3].astype(np.uint16)
    with Image.open(io.BytesIO(content)) as image:
        colours = give_lower_bytes(image)
        lower = np.asarray(image)[..., colours]
    assert np.array_equal(upper << 8 | lower, expected)


def test_planes_of_sixteen_bits_are_no_planes_of_eight():
    content = tiff(RGB, 2, planes=True)
    with Image.open(io.BytesIO(content)) as image:
        assert has_deep_colours(image)
        assert not has_lower_bytes(image)
        read_planes(image)
        assert np.array_equal(np.asarray(image), RGB >> 8)


def test_a_tiff_that_is_told_where_its_pages_are_goes_there_at_once(monkeypatch):
    first, *others = (Image.new("L", (4, 4), level) for level in range(9))
    content = encoded(first, "TIFF", save_all=True, append_images=others)
    with Image.open(io.BytesIO(content)) as image:
        image.seek(7)
        places = places_of_pages(image)
    assert {len(values) for values in places.values()} == {8}
    with Image.open(io.BytesIO(content)) as image:
        load = image.tag_v2.load
        loaded = []
        monkeypatch.setattr(image.tag_v2, "load", lambda file: loaded.append(1) or load(file))
        give_places(image, places, 8)
        image.seek(7)
        assert (image.getpixel((0, 0)), image.tell(), len(loaded)) == (7, 7, 1)
    with Image.open(io.BytesIO(content)) as image:
        give_places(image, places, 9)
        image.seek(8)
        assert image.getpixel((0, 0)) == 8
    assert places_of_pages(Image.new("L", (4, 4))) == {}


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "I;16", "F"])
def test_other_images_have_no_deep_colours(mode):
    with Image.open(io.BytesIO(encoded(Image.new(mode, (4, 4)), "TIFF"))) as image:
        assert not has_deep_colours(image)
    assert not has_deep_colours(Image.new(mode, (4, 4)))


def test_the_limit_of_pixels_only_rises(monkeypatch):
    for limit, wanted, after in ((100, 50, 100), (100, 500, 500), (None, 5, None)):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        raise_pixel_limit(wanted)
        assert after == Image.MAX_IMAGE_PIXELS


def test_pillow_still_bounds_what_it_unpacks_of_texts():
    bomb = PngImagePlugin.PngInfo()
    bomb.add_itxt("a", "x" * 30_000_000, zip=True)
    content = encoded(Image.new("L", (4, 4)), "PNG", pnginfo=bomb)
    assert len(content) < 100_000
    with pytest.raises(ValueError, match="too large"), Image.open(io.BytesIO(content)) as image:
        image.load()
    assert struct.calcsize(">I4s") == 8
