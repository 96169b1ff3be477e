"""What surrounds the pixels in a file does not decide whether they can be had."""

from __future__ import annotations

import os
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from made_images import chunk, encoded, grey, png16, segment, tiff
from PIL import Image, PngImagePlugin

from features.images.decode import UndecodableError, decode_image, original_image
from features.images.metadata import png_significant_bits, without_metadata

NOISE = np.random.default_rng(3).integers(0, 256, (24, 32, 3), dtype=np.uint8)
PICTURE = Image.fromarray(NOISE)
PNG, JPEG = encoded(PICTURE, "PNG"), encoded(PICTURE, "JPEG", quality=90)
LEVELS = np.arange(16, dtype=np.uint8).reshape(4, 4)


def text(key: str, length: int) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_itxt(key, "x" * length, zip=True)
    return info


def before_pixels(png: bytes, *chunks: bytes) -> bytes:
    return png[:33] + b"".join(chunks) + png[33:]


def before_end(png: bytes, *chunks: bytes) -> bytes:
    return png[:-12] + b"".join(chunks) + png[-12:]


def spoilt(part: bytes) -> bytes:
    return part[:-4] + b"\0\0\0\0"


SOUND = {
    "PNG with a large colour profile": encoded(PICTURE, "PNG", icc_profile=os.urandom(1_200_000)),
    "PNG with a large text": encoded(PICTURE, "PNG", pnginfo=text("workflow", 1_200_000)),
    "PNG with a text bomb": encoded(PICTURE, "PNG", pnginfo=text("bomb", 100_000_000)),
    "PNG with a bomb as its XMP": encoded(PICTURE, "PNG", pnginfo=text("XML:com.adobe.xmp", 30_000_000)),
    "PNG with a hundred texts": before_pixels(PNG, *[chunk(b"tEXt", b"a\0" + b"x" * 900_000)] * 80),
    "PNG with a large text after its pixels": before_end(PNG, chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 2**21))),
    "PNG with a text of another compression": before_pixels(PNG, chunk(b"zTXt", b"a\0\x07abc")),
    "PNG with a profile of another compression": before_pixels(PNG, chunk(b"iCCP", b"a\0\x07abc")),
    "PNG with a text whose checksum is wrong": before_pixels(PNG, spoilt(chunk(b"tEXt", b"a\0b"))),
    "PNG with a profile that is none": before_pixels(PNG, chunk(b"iCCP", b"")),
    "PNG with short gamma": before_pixels(PNG, chunk(b"gAMA", b"")),
    "PNG with short chromaticities": before_pixels(PNG, chunk(b"cHRM", b"ab")),
    "PNG with a short resolution": before_pixels(PNG, chunk(b"pHYs", b"ab")),
    "PNG with a short intent": before_pixels(PNG, chunk(b"sRGB", b"")),
    "PNG with broken EXIF": before_pixels(PNG, chunk(b"eXIf", b"II*\0\xff\xff\xff\xffjunk")),
    "PNG with a short animation": before_pixels(PNG, chunk(b"acTL", b"ab")),
    "PNG with an animation out of order": before_pixels(
        PNG, chunk(b"acTL", struct.pack(">II", 2, 0)), chunk(b"fcTL", struct.pack(">I", 7) + bytes(22))
    ),
    "JPEG with a short JFIF": JPEG[:2] + segment(0xE0, b"JFIF") + JPEG[2:],
    "JPEG with a short profile": JPEG[:2] + segment(0xE2, b"ICC_PROFILE\0") + JPEG[2:],
    "JPEG with a short Adobe segment": JPEG[:2] + segment(0xEE, b"Adobe") + JPEG[2:],
    "JPEG with EXIF that is none": JPEG[:2] + segment(0xE1, b"Exif\0\0junk") + JPEG[2:],
    "JPEG with broken previews": JPEG[:2] + segment(0xE2, b"MPF\0II*\0\xff\xff\xff\xff") + JPEG[2:],
    "JPEG with broken Photoshop data": JPEG[:2] + segment(0xED, b"Photoshop 3.0\x008BIM\4\4\5abc") + JPEG[2:],
}


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", SOUND)
def test_a_sound_picture_is_decoded_whatever_surrounds_it(name):
    plain = original_image(PNG if name.startswith("PNG") else JPEG)
    assert np.array_equal(np.asarray(original_image(SOUND[name])), np.asarray(plain))


ODD_TAGS = {
    "resolution of nothing": {282: (5, 1, b"\x08\0\0\0"), 283: (5, 1, b"\xff\xff\xff\x7f")},
    "resolution as a text": {282: (2, 1, b"a\0\0\0"), 296: (2, 1, b"z\0\0\0")},
    "profile that is none": {34675: (7, 4, b"abcd")},
    "profile beyond the file": {34675: (7, 4_000_000, b"\xff\xff\xff\x7f")},
    "XMP as a number": {700: (3, 1, b"\5\0\0\0")},
    "EXIF beyond the file": {34665: (4, 1, b"\xff\xff\xff\x7f")},
    "a type that is none": {60000: (99, 1, b"\5\0\0\0")},
    "a count of four thousand millions": {60000: (7, 2**32 - 1, b"\x08\0\0\0")},
    "description beyond the file": {270: (2, 4000, b"\xff\xff\xff\x7f")},
}


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", ODD_TAGS)
def test_odd_tags_of_a_tiff_do_not_cost_it(name):
    assert np.asarray(original_image(tiff(LEVELS, 1, more=ODD_TAGS[name])))[..., 0].tolist() == LEVELS.tolist()


def test_the_orientation_is_kept_where_other_metadata_go():
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = original_image(encoded(PICTURE, "PNG", exif=exif))
    assert plain.size == (24, 32)
    large = encoded(PICTURE, "PNG", exif=exif, icc_profile=os.urandom(1_200_000))
    assert np.array_equal(np.asarray(original_image(large)), np.asarray(plain))
    turned = encoded(PICTURE, "JPEG", exif=exif)
    short = turned[:2] + segment(0xE2, b"ICC_PROFILE\0") + turned[2:]
    assert np.array_equal(np.asarray(original_image(short)), np.asarray(original_image(turned)))


def test_a_bomb_is_not_unpacked():
    content = SOUND["PNG with a text bomb"]
    assert len(content) < 200_000
    tracemalloc.start()
    decode_image(content, 8)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


def test_damage_to_the_pixels_is_still_damage(tmp_path):
    for name, content in (
        ("a.png", PNG[:1000]),
        ("b.png", SOUND["PNG with a large text"][:1500]),
        ("c.jpg", JPEG[:300]),
    ):
        (tmp_path / name).write_bytes(content)
        reasons = set()
        for source in (content, tmp_path / name):
            with pytest.raises(UndecodableError) as caught:
                decode_image(source, 8)
            reasons.add(str(caught.value))
        assert len(reasons) == 1


@pytest.mark.parametrize(
    "content", [b"", b"GIF89a", b"\xff\xd8", b"\xff\xd8\xff\xe0\0\x09", b"II*\0\xff\xff\xff\xff", PNG[:40]]
)
def test_what_is_cut_short_is_left_alone(content, tmp_path):
    path = tmp_path / "image"
    path.write_bytes(content)
    with path.open("rb") as file:
        assert all(isinstance(rest, bytes) for rest in without_metadata(file))


def test_significant_bits_of_a_png(tmp_path):
    values = np.zeros((2, 2, 1), np.uint16)
    for content, bits in (
        (png16(values, chunk(b"sBIT", b"\x0c")), 12),
        (png16(values.repeat(3, -1), chunk(b"tEXt", b"a\0b"), chunk(b"sBIT", b"\x0a\x0c\x0b")), 12),
        (png16(values), None),
        (grey(np.zeros((2, 2), np.uint16), "PNG")[:40], None),
    ):
        (tmp_path / "a.png").write_bytes(content)
        with (tmp_path / "a.png").open("rb") as file:
            assert png_significant_bits(file) == bits
