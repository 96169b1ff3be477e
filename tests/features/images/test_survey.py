"""The one scale that follows from a folder's images, and what is said about it."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from made_images import chunk, encoded, grey, png16, tiff
from PIL import Image

from features.images import survey
from features.images.decode import decode_image, original_image
from features.images.reading import MAX_PIXELS, Noticed, Reading, Tally
from features.images.survey import choose_intensity, survey_images
from features.store.intensity import Intensity, parse_intensity

EIGHT = encoded(Image.new("RGB", (4, 4), (1, 2, 3)), "PNG")


def spread(low: float, high: float, dtype: str = "float32") -> np.ndarray:
    return np.linspace(low, high, 64).reshape(8, 8).astype(dtype)


def chosen(*contents: bytes, told: Intensity | None = None) -> tuple[str, str]:
    """The scale of some files, and what is said, as one text."""
    choice = choose_intensity(survey_images(contents, MAX_PIXELS), told)
    return choice.intensity, "\n".join(choice.notes)


def twelve(high: int) -> bytes:
    return png16(spread(0, high, "uint16")[..., None], chunk(b"sBIT", b"\x0c"))


def largest(tag: int, high: int) -> bytes:
    return grey(spread(0, high, "uint16"), tiffinfo={281: tag})


EXPECTED = {
    "8 bits": ([EIGHT, EIGHT], "8 bits", ""),
    "16 bits": ([grey(spread(0, 65535, "uint16"))], "type", ""),
    "fractions": ([grey(spread(0, 1))], "type", ""),
    "fractions a little above 1": ([grey(spread(0, 1.0005)), grey(spread(0, 0.5))], "type", ""),
    "fractions a little below 0": ([grey(spread(-0.001, 1))], "type", "--intensity LOW:HIGH takes another"),
    "12 bits in 16": ([grey(spread(0, 4000, "uint16"))], "type", "0 to 4000.*nearly lost.*--intensity 0:4095?"),
    "14 bits in 16": ([grey(spread(0, 16000, "uint16"))], "type", "0 to 16000.*lost.*--intensity 0:16383?"),
    "a narrow range": ([grey(spread(1940, 2063, "uint16"))], "type", "0.2% of that range.*0:4095"),
    "sBIT": ([twelve(4000), twelve(300)], "whole=0:4095,fractions=0:1", "4095 white"),
    "sBIT of numbers that were shifted": ([twelve(60000)], "type", ""),
    "a transparent value beyond them": (
        [
            png16(
                spread(4000, 65535, "uint16")[..., None].clip(0, 4096),
                chunk(b"sBIT", b"\x0c"),
                chunk(b"tRNS", b"\x10\0"),
            )
        ],
        "whole=0:4095,fractions=0:1",
        "4095 white",
    ),
    "MaxSampleValue": ([largest(4000, 4000), largest(3000, 3000)], "whole=0:4095,fractions=0:1", "4095 white"),
    "bits that not all files declare": ([twelve(4000), grey(spread(0, 4000, "uint16"))], "type", "nearly lost"),
    "signed": (
        [grey(spread(-1000, 0, "int32")), grey(spread(0, 1200, "int32"))],
        "whole=-1000:1200,fractions=0:1",
        "-1000",
    ),
    "more than 16 bits": ([grey(spread(0, 10**6, "int32"))], "whole=0:1000000,fractions=0:1", "other sets.* 0:1000000"),
    "fractions to 255": ([grey(spread(0, 1)), grey(spread(0, 250))], "whole=0:65535,fractions=0:255", "255 white"),
    "fractions on both sides of 0": ([grey(spread(-1, 1))], "whole=0:65535,fractions=-1:1", "other sets.* -1:1"),
    "tiny fractions": ([grey(spread(0, 0.001))], "type", "nearly lost"),
    "flat": ([grey(spread(7, 7, "uint16"))], "type", "no contrast"),
    "nothing but NaN": ([grey(np.full((4, 4), np.nan, np.float32))], "type", ""),
    "8 and 16 bits": (
        [EIGHT, grey(spread(0, 65535, "uint16"))],
        "type",
        "1 image of more than 8 bits beside 1 image of 8",
    ),
    "numbers of two types": ([grey(spread(0, 65535, "uint16")), grey(spread(0, 1))], "type", "others fractions (float"),
    "16-bit colours": ([png16(spread(0, 4000, "uint16")[..., None].repeat(3, -1))], "type", "nearly lost"),
    "damage among them": ([grey(spread(0, 65535, "uint16")), b"", b"II*\0junk", EIGHT[:40]], "type", ""),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_one_scale_follows_from_the_files_in_any_order(name):
    contents, intensity, said = EXPECTED[name]
    for order in (contents, contents[::-1]):
        found, notes = chosen(*order)
        assert found == intensity
        if name == "damage among them":
            continue  # what is no image counts as one of 8 bits, until it is named where it is skipped
        if said:
            first, *rest = said.split(".*")
            assert first in notes
            assert all(part in notes for part in rest)
        else:
            assert notes == ""


def test_what_is_told_is_taken():
    told = parse_intensity("0:4095")
    assert chosen(grey(spread(0, 4000, "uint16")), told=told) == ("0:4095", "")
    assert chosen(EIGHT, told=told) == ("0:4095", "no image has more than 8 bits: --intensity changes nothing")
    assert "nearly lost" in chosen(grey(spread(0, 4000, "uint16")), told=parse_intensity("0:65535"))[1]


def test_a_sample_of_many_images_decides(monkeypatch):
    monkeypatch.setattr(survey, "DECODED", 3)
    found = survey_images([grey(spread(0, number, "uint16")) for number in range(1, 10)], MAX_PIXELS)
    assert (found.deep, found.whole.high) == (9, 7)


def test_contrast_is_kept_where_the_scale_is_told():
    stripes = grey((1940 + 120 * (np.mgrid[:16, :16][1] // 4 % 2)).astype(np.uint16), "PNG")
    assert len(np.unique(decode_image(stripes, 16))) == 1
    assert np.ptp(decode_image(stripes, 16, Reading(parse_intensity("1940:2060")))) == 255


@pytest.mark.parametrize("kind", ["png", "png with alpha", "tiff", "tiff in planes", "tiff, big endian"])
def test_colours_of_sixteen_bits_are_within_one_grey_level_of_any_scale(kind):
    values = np.random.default_rng(1).integers(0, 65536, (9, 7, 3)).astype(np.uint16)
    opaque = np.concatenate([values, np.full((9, 7, 1), 65535, np.uint16)], -1)
    content = {
        "png": lambda: png16(values),
        "png with alpha": lambda: png16(opaque),
        "tiff": lambda: tiff(values, 2),
        "tiff in planes": lambda: tiff(values, 2, planes=True),
        "tiff, big endian": lambda: tiff(values, 2, order=">"),
    }[kind]()
    for text, low, high in (("type", 0, 65535), ("0:65535", 0, 65535), ("10000:50000", 10000, 50000)):
        shown = np.asarray(original_image(content, Reading(parse_intensity(text)))).astype(float)
        wanted = np.clip((values - float(low)) / (high - low), 0, 1) * 255
        assert np.abs(shown - wanted).max() <= (2.01 if kind == "tiff in planes" and low else 1.01)


def test_zero_is_white_where_a_tiff_says_so():
    values = spread(0, 65535, "uint16")
    shown = {photometric: np.asarray(original_image(tiff(values, photometric)))[..., 0] for photometric in (0, 1)}
    assert np.array_equal(shown[0], 255 - shown[1])
    bilevel = Image.fromarray(spread(0, 1) > 0.5)
    assert decode_image(encoded(bilevel, "TIFF", tiffinfo={262: 0}), 8).max() == 255


def test_a_tally_says_each_thing_once_and_counts_what_was_decoded_only():
    reading = Reading()
    odd = spread(-1, 3)
    odd[0, 0] = np.nan
    for content in (grey(odd), grey(spread(0, 2)), grey(spread(0, 1)), EIGHT):
        decode_image(content, 8, reading)
    assert reading.tally.counts == {Noticed.DEEP: 3, Noticed.CLIPPED: 2, Noticed.NO_NUMBERS: 1}
    clipped, nan = reading.tally.notes(reading.intensity, chosen=True)
    assert clipped.startswith("2 images with values outside of the range 0:1, clipped")
    assert "-0.93" in clipped or "-1" in clipped
    assert nan == "1 image with pixels that are no numbers (NaN), shown black"


def test_a_tally_says_what_scale_it_was_where_that_was_not_chosen_for_these_images():
    for text, said in (
        ("8 bits", "2 images of more than 8 bits: shown on the scale 0:65535, black to white"),
        ("unknown", "2 images of more than 8 bits, each scaled by its own range"),
        ("0:4095", "2 images of more than 8 bits: shown on the scale 0:4095, black to white"),
    ):
        reading = Reading(parse_intensity(text))
        for _ in range(2):
            decode_image(grey(spread(0, 4000, "uint16")), 8, reading)
        notes = list(reading.tally.notes(reading.intensity, chosen=False))
        assert notes[0].startswith(said)
        assert (len(notes) == 2) == (text == "8 bits")
        assert all("contrast is nearly lost" in note for note in notes[1:])
    assert list(Tally().notes(Intensity(), chosen=False)) == []


def test_a_tally_travels_and_what_is_taken_in_turns_is_in_the_end_what_was_counted():
    whole, parts, merged = Reading(), Reading(), Tally()
    for number in range(4):
        image = grey(spread(0, 1000 * (number + 1), "uint16"))
        for reading in (whole, parts):
            decode_image(image, 8, reading)
        merged.merge(pickle.loads(pickle.dumps(parts)).tally if number == 0 else parts.tally.take())
        if number == 0:
            parts.tally.take()
    assert merged.counts == whole.tally.counts == {Noticed.DEEP: 4}
    assert (merged.low, merged.high, merged.scales) == (whole.tally.low, whole.tally.high, whole.tally.scales)
    assert not parts.tally.take().counts
