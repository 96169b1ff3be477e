"""One file to one RGB array: every mode that Pillow knows, every orientation, every way a file can be bad."""

from __future__ import annotations

import io
import os
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from made_images import chunk, encoded
from PIL import Image, ImageFile, ImageOps

from features.images.content import UNKNOWN, read_content
from features.images.decode import UndecodableError, decode_image, decode_sizes, original_image
from features.images.pages import page_numbers
from features.images.reading import Page, Reading
from features.store.intensity import parse_intensity

SIZE = 8


def plain(mode: str, colour: object) -> Image.Image:
    return Image.new(mode, (SIZE, SIZE), colour)


def palette(index: int, **info: object) -> bytes:
    image = plain("P", index)
    image.putpalette([0, 0, 0, 200, 100, 50, 7, 8, 9])
    return encoded(image, "PNG", **info)


def numbers(value: float, dtype: str, kind: str = "TIFF", **info: object) -> bytes:
    return encoded(Image.fromarray(np.full((SIZE, SIZE), value, dtype)), kind, **info)


UNIFORM = {
    "bilevel": (encoded(plain("1", 1), "PNG"), (255, 255, 255)),
    "grey": (encoded(plain("L", 77), "PNG"), (77, 77, 77)),
    "grey with transparency": (encoded(plain("LA", (200, 0)), "PNG"), (0, 0, 0)),
    "grey half transparent": (encoded(plain("LA", (200, 128)), "PNG"), (100, 100, 100)),
    "grey with a transparent value": (encoded(plain("L", 77), "PNG", transparency=77), (0, 0, 0)),
    "RGB": (encoded(plain("RGB", (1, 2, 3)), "PNG"), (1, 2, 3)),
    "RGB with a transparent colour": (encoded(plain("RGB", (9, 9, 9)), "PNG", transparency=(9, 9, 9)), (0, 0, 0)),
    "RGBA opaque": (encoded(plain("RGBA", (10, 20, 30, 255)), "PNG"), (10, 20, 30)),
    "RGBA transparent": (encoded(plain("RGBA", (10, 20, 30, 0)), "PNG"), (0, 0, 0)),
    "RGBA half": (encoded(plain("RGBA", (100, 200, 50, 128)), "PNG"), (50, 100, 25)),
    "palette": (palette(1), (200, 100, 50)),
    "palette with a transparent entry": (palette(1, transparency=1), (0, 0, 0)),
    "palette with another entry transparent": (palette(2, transparency=1), (7, 8, 9)),
    "GIF": (encoded(plain("L", 60), "GIF"), (60, 60, 60)),
    "WebP lossless": (encoded(plain("RGB", (11, 22, 33)), "WEBP", lossless=True), (11, 22, 33)),
    "BMP": (encoded(plain("RGB", (11, 22, 33)), "BMP"), (11, 22, 33)),
    "CMYK TIFF": (encoded(plain("CMYK", (0, 0, 0, 0)), "TIFF"), (255, 255, 255)),
    "CMYK TIFF, cyan": (encoded(plain("CMYK", (255, 0, 0, 0)), "TIFF"), (0, 255, 255)),
    "LAB TIFF, grey": (encoded(plain("LAB", (128, 128, 128)), "TIFF"), (119, 119, 119)),
    "16 bits, white": (numbers(65535, "uint16", "PNG"), (255, 255, 255)),
    "16 bits, middle": (numbers(32768, "uint16", "PNG"), (128, 128, 128)),
    "16 bits, an 8-bit value times 257": (numbers(77 * 257, "uint16", "PNG"), (77, 77, 77)),
    "16 bits, TIFF": (numbers(25700, "uint16"), (100, 100, 100)),
    "16 bits with a transparent value": (numbers(900, "uint16", "PNG", transparency=900), (0, 0, 0)),
    "32 bits within 16": (numbers(25700, "int32"), (100, 100, 100)),
    "fractions": (numbers(0.5, "float32"), (128, 128, 128)),
    "fractions above 1 are white": (numbers(100.0, "float32"), (255, 255, 255)),
    "whole numbers below 0 are black": (numbers(-5, "int32"), (0, 0, 0)),
    "nothing but NaN": (numbers(np.nan, "float32"), (0, 0, 0)),
}
"""Images of one colour, and that colour as RGB."""


@pytest.mark.parametrize("name", UNIFORM)
def test_every_mode_becomes_the_expected_rgb(name):
    content, colour = UNIFORM[name]
    picture = decode_image(content, 5)
    assert picture.shape == (5, 5, 3)
    assert picture.dtype == np.uint8
    assert np.abs(picture.astype(int) - colour).max() <= 1, picture[0, 0]
    upright = original_image(content)
    assert (upright.mode, upright.size) == ("RGB", (SIZE, SIZE))


def test_cmyk_jpeg_is_not_inverted():
    colour = (200, 60, 30)
    content = encoded(plain("RGB", colour).convert("CMYK"), "JPEG", quality=100)
    assert np.abs(decode_image(content, 4).astype(int) - colour).max() <= 3


@given(hnp.arrays(np.uint16, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6)))
def test_sixteen_bits_keep_their_order_and_their_ends(values):
    # at the image's own size nothing is resampled
    grey = np.asarray(original_image(encoded(Image.fromarray(values), "PNG")))
    assert np.array_equal(grey[..., 0], np.rint(values / 257).astype(np.uint8))
    assert (grey == grey[..., :1]).all()


def test_infinities_are_white_and_black_and_do_not_flatten_the_rest():
    values = np.array([[np.inf, 0.5], [-np.inf, 1.0]], np.float32)
    grey = np.asarray(original_image(encoded(Image.fromarray(values), "TIFF")))[..., 0]
    assert grey.tolist() == [[255, 128], [0, 255]]


AS_ONCE = {
    "negative numbers": (np.array([[-1000, 0], [500, 1000]], np.int32), [[0, 128], [191, 255]]),
    "infinities": (np.array([[np.inf, 0.5], [-np.inf, 1.0]], np.float32), [[0, 128], [0, 255]]),
    "fractions up to 255": (np.array([[0, 100.0], [200, 254.0]], np.float32), [[0, 100], [200, 254]]),
    "fractions up to 65535": (np.array([[0, 25700.0], [257, 65535]], np.float32), [[0, 100], [1, 255]]),
    "whole numbers": (np.array([[0, 25700], [257, 65535]], np.uint16), [[0, 100], [1, 255]]),
}


@pytest.mark.parametrize("name", AS_ONCE)
def test_heads_and_stores_that_name_no_scale_have_each_image_on_its_own(name):
    values, expected = AS_ONCE[name]
    reading = Reading(parse_intensity("unknown"))
    assert np.asarray(original_image(encoded(Image.fromarray(values), "TIFF"), reading))[..., 0].tolist() == expected


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("WEBP", "RGB"), *((kind, mode) for kind in ("PNG", "TIFF") for mode in ("RGB", "L", "RGBA", "P", "I;16"))],
)
@pytest.mark.parametrize("orientation", range(10))  # 0 and 9 are no orientations
def test_orientation_is_undone_as_pillow_does_it(orientation, mode, kind):
    values = np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000
    image = (
        Image.fromarray(values) if mode == "I;16" else Image.fromarray((values // 257).astype(np.uint8)).convert(mode)
    )
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(image, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    tagged = image.copy()
    tagged.info["exif"] = exif.tobytes()
    expected = ImageOps.exif_transpose(tagged)
    expected_grey = np.asarray(expected) // (257 if mode == "I;16" else 1)
    expected_grey = expected_grey if mode in ("L", "I;16") else np.asarray(expected.convert("L"))
    upright = np.asarray(original_image(content).convert("L")).astype(int)
    assert upright.shape == expected_grey.shape
    assert np.abs(upright - expected_grey).max() <= 1


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # as the module has it, where pytest has no filter of its own
def test_damaged_exif_does_not_cost_the_image():
    content = encoded(plain("L", 50), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    assert abs(int(decode_image(content, 4)[0, 0, 0]) - 50) <= 1


def test_resizing_is_pillows_antialiased_bilinear():
    values = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    expected = Image.fromarray(values).resize((16, 16), Image.Resampling.BILINEAR)
    assert np.array_equal(decode_image(encoded(Image.fromarray(values), "PNG"), 16), np.asarray(expected))


def test_a_large_jpeg_is_decoded_at_reduced_scale_without_visible_difference():
    smooth = np.add.outer(np.arange(1600), np.arange(1200)) / 2800 * 255
    content = encoded(Image.fromarray(smooth.astype(np.uint8)), "JPEG", quality=95)
    full = original_image(content).resize((64, 64), Image.Resampling.BILINEAR)
    assert original_image(content).size == (1200, 1600)
    assert np.abs(decode_image(content, 64).astype(int) - np.asarray(full)).max() <= 3


def test_a_small_jpeg_is_decoded_in_full():
    values = np.random.default_rng(1).integers(0, 256, (60, 60), dtype=np.uint8)
    content = encoded(Image.fromarray(values), "JPEG")
    assert np.array_equal(decode_image(content, 32), np.asarray(original_image(content).resize((32, 32), 2)))


def test_the_first_frame_counts():
    content = encoded(plain("L", 10), "GIF", save_all=True, append_images=[plain("L", 200)])
    assert (decode_image(content, 4) == 10).all()


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header promises pixels that it does not have."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


NOISE = Image.fromarray(np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8))
BAD = {
    "empty": (b"", "an empty file"),
    "text": (b"not an image at all", "not an image that Pillow reads"),
    "truncated JPEG": (encoded(NOISE, "JPEG")[:1500], "damaged: image file is truncated"),
    "truncated PNG": (encoded(NOISE, "PNG")[:3000], "damaged: "),
    "truncated TIFF": (encoded(NOISE, "TIFF")[:3000], "damaged: "),
    "header only": (encoded(NOISE, "JPEG")[:20], "not an image that Pillow reads"),
    "bomb, where Pillow warns": (png_of(10_000, 10_000), "decompression bomb"),
    "bomb, where Pillow raises": (png_of(60_000, 60_000), "decompression bomb"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_decoded_has_a_reason_that_never_changes(name, tmp_path):
    content, reason = BAD[name]
    path = tmp_path / "image.png"
    path.write_bytes(content)
    said = set()
    for source in (content, path, path):
        with pytest.raises(UndecodableError) as caught:
            decode_image(source, SIZE)
        said.add(str(caught.value))
    assert len(said) == 1
    (text,) = said
    assert reason in text
    assert str(tmp_path) not in text
    assert "0x" not in text


def test_a_missing_file_a_folder_and_a_loop_have_their_reasons(tmp_path):
    (tmp_path / "loop.png").symlink_to("loop.png")
    for path, reason in (("absent.png", "no such file"), ("", "a folder"), ("loop.png", "damaged: Too many levels")):
        with pytest.raises(UndecodableError, match=reason):
            decode_image(tmp_path / path, SIZE)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_named_pipe_is_not_waited_on(tmp_path):
    path = tmp_path / "image.png"
    os.mkfifo(path)
    for source in (path, Page(path, 2)):
        with pytest.raises(UndecodableError, match=r"^damaged: no regular file$"):
            decode_image(source, SIZE)
        assert read_content(source).digest == UNKNOWN
    assert page_numbers(path) == [1]


def test_what_a_notebook_told_pillow_of_cut_images_decides_nothing_and_stays(monkeypatch, tmp_path):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for kind in ("JPEG", "PNG", "TIFF"):
        cut = encoded(NOISE, kind)[:3000]
        Image.open(io.BytesIO(cut)).load()
        for read in (lambda source: decode_image(source, SIZE), original_image):
            with pytest.raises(UndecodableError, match=r"^damaged: "):
                read(cut)
            assert ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_says_so(tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(UNIFORM["grey"][0])
    path.chmod(0)
    with pytest.raises(UndecodableError, match="no permission"):
        decode_image(path, SIZE)


@given(st.binary(max_size=200), st.sampled_from(["JPEG", "PNG", "TIFF", "GIF", "BMP", "WEBP"]), st.data())
def test_any_bytes_are_an_image_or_a_reason(garbage, kind, data):
    content = bytearray(encoded(NOISE, kind))
    at = data.draw(st.integers(0, len(content)))
    content[at : at + len(garbage)] = garbage
    for source in (garbage, bytes(content)):
        try:
            picture = decode_image(source, SIZE)
        except UndecodableError as error:
            assert str(error)
        else:
            assert picture.shape == (SIZE, SIZE, 3)


def test_real_scans_decode_alike_from_file_and_memory(oct_folder: Path):
    path = next(oct_folder.glob("*/*.jpeg"))
    picture = decode_image(path, 96)
    assert np.array_equal(picture, decode_image(path.read_bytes(), 96))
    assert (picture == picture[..., :1]).all()
    assert picture.std() > 10


PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8))
DEEP = np.random.default_rng(1).integers(0, 65536, (20, 30), dtype=np.uint16)
CUT = encoded(PICTURE, "JPEG")[:5000]
TURNED = Image.Exif()
TURNED[0x0112] = 6
SEVERAL = {
    "PNG": (encoded(PICTURE, "PNG"), 1),
    "JPEG, at as many scales as are asked for": (encoded(PICTURE, "JPEG"), 3),
    "JPEG, turned": (encoded(PICTURE, "JPEG", exif=TURNED), 3),
    "small JPEG": (encoded(PICTURE.resize((60, 50)), "JPEG"), 1),
    "GIF": (encoded(PICTURE, "GIF"), 1),
    "16 bits": (encoded(Image.fromarray(DEEP), "TIFF"), 1),
    "cut off": (CUT, 0),
    "no image": (b"nothing", 0),
}
"""Contents, and how often they are decoded for the sizes 32, 33, 70, 200 and 300."""


@pytest.mark.parametrize("name", SEVERAL)
@pytest.mark.parametrize("resize", ["squash", "pad", "crop"])
def test_squares_of_several_sizes_are_those_of_each_size_and_decoded_once(name, resize, monkeypatch):
    content, times = SEVERAL[name]
    sizes, loads = (32, 33, 70, 200, 300), []
    expected = {}
    for size in sizes:
        try:
            expected[size] = decode_image(content, size, Reading(resize=resize))
        except UndecodableError as error:
            expected[size] = error
    prepare = ImageFile.ImageFile.load_prepare
    monkeypatch.setattr(ImageFile.ImageFile, "load_prepare", lambda self: (loads.append(1), prepare(self)))
    together = Reading(resize=resize)
    found = decode_sizes(content, sizes, together)
    assert list(found) == list(sizes)
    for size in sizes:
        if times:
            assert np.array_equal(found[size], expected[size])
        else:
            assert (type(found[size]), str(found[size])) == (UndecodableError, str(expected[size]))
    if times:
        assert len(loads) == times
    alone = Reading(resize=resize)
    if times:
        decode_image(content, 32, alone)
    assert together.tally.counts == alone.tally.counts  # what is noticed counts once


def recipe(resize: str = "squash") -> Callable[..., Image.Image]:
    """What docs/images.md has users without this package do."""
    text = (ROOT / "docs" / "images.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (padded,) = re.findall(r"\n`(return ImageOps\.pad.*?)`", text)
    last = {"squash": r"\g<0>", "pad": padded, "crop": padded.replace("ImageOps.pad", "ImageOps.fit")}[resize]
    names: dict[str, Any] = {}
    exec(re.sub(r"return .*", last, code), names)
    return names["square"]


def smooth(mode: str) -> Image.Image:
    noise = np.random.default_rng(1).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((320, 240), Image.Resampling.BICUBIC).convert(mode)


@pytest.mark.parametrize("resize", ["squash", "pad", "crop"])
@pytest.mark.parametrize("kind", ["plain", "turned", "transparent", "palette", "16 bits", "fractions"])
def test_the_recipe_of_the_document_makes_the_same_squares(kind, resize, tmp_path):
    path, image, scale = tmp_path / "image.png", smooth("RGB"), {}
    if kind == "turned":
        path = tmp_path / "image.jpg"
        exif = Image.Exif()
        exif[0x0112] = 6
        image.resize((1280, 960)).save(path, exif=exif, quality=95)
    elif kind == "transparent":
        image.putalpha(smooth("L").rotate(180))
        image.save(path)
    elif kind == "palette":
        image.quantize(16).save(path, transparency=3)
    elif kind == "16 bits":
        Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 16).save(path)
        scale = {"black": 0, "white": 4095}
    elif kind == "fractions":
        path = tmp_path / "image.tif"
        Image.fromarray(np.asarray(image.convert("L")).astype(np.float32) / 200).save(path)
        scale = {"black": 0, "white": 1}
    else:
        image.save(path)
    intensity = parse_intensity("{black}:{white}".format(**scale) if scale else "type")
    ours = decode_image(path, 96, Reading(intensity, resize=resize)).astype(int)
    assert np.abs(ours - np.asarray(recipe(resize)(path, 96, **scale))).max() <= 2
