"""DICOM files become images: as the standard says, from the files that come with pydicom and from made ones."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from made_dicom import IDENTITY, NAME, dicom, own, sequence
from PIL import Image
from pydicom import config, valuerep
from pydicom.uid import MPEG2MPML, DeflatedExplicitVRLittleEndian, JPEGLSLossless

from features.images.decode import UndecodableError, decode_image, deep_values, original_image
from features.images.dicom import DicomImage
from features.images.pages import page_numbers
from features.images.reading import Noticed, Page, Reading
from features.images.survey import choose_intensity, survey_images
from features.store.intensity import parse_intensity

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom.*")
WIDE = np.arange(-500, 1548, 2, dtype=np.int16).reshape(16, 64)


def greys(content: bytes | Path, **reading: object) -> np.ndarray:
    return np.asarray(original_image(content, Reading(**reading)).convert("L"), int)


def colours(content: bytes | Path) -> np.ndarray:
    return np.asarray(original_image(content), int)


class TestOfPydicom:
    @pytest.mark.parametrize("name", ["RLE", "bigendian", "expb", "implicit", "jp2klossless", "padded"])
    def test_the_same_scan_kept_in_other_ways(self, name: str) -> None:
        expected = greys(own("MR_small"))
        assert expected.std() > 20
        assert np.array_equal(greys(own(f"MR_small_{name}")), expected)

    @pytest.mark.parametrize(
        "name",
        [
            *("rgb_dcmtk_+eb+cr", "rgb_dcmtk_+eb+cy+np", "rgb_dcmtk_+eb+cy+s4", "rgb_gdcm_KY", "rgb_jpeg_dcmtk"),
            *("rgb_rle_16bit", "rgb_rle_32bit", "rgb_rle_2frame", "rgb_jpeg_lossy_gdcm", "ybr_full_422_uncompressed"),
        ],
    )
    def test_the_same_colours_kept_in_other_ways(self, name: str) -> None:
        """Bands of red, green, blue and greys: planes, YBR, sub-sampling, JPEG, RLE, 16 and 32 bits."""
        found, expected = colours(own(f"SC_{name}")), colours(own("SC_rgb_rle"))
        assert np.ptp(expected, axis=(0, 1)).tolist() == [255] * 3
        assert np.median(np.abs(found - expected)) <= 2

    def test_a_palette_is_colours_and_a_deflated_file_is_read(self) -> None:
        picture = colours(own("examples_palette"))
        assert np.ptp(picture, axis=2).max() > 100
        assert np.ptp(greys(own("image_dfl"))) == 255

    @pytest.mark.parametrize("name", ["rtplan", "test-SR", "waveform_ecg"])
    def test_what_holds_no_image_is_named(self, name: str) -> None:
        with pytest.raises(UndecodableError, match=r"^a DICOM file without an image$"):
            original_image(own(name))

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("MR_truncated", r"^damaged: its pixels are cut short"),
            ("badVR", r"^a damaged DICOM file$"),
            (
                "MR_small_jpeg_ls_lossless",
                r"^its pixels are compressed \(JPEG-LS Lossless .*\): pip install python-gdcm$",
            ),
            ("SC_rgb_jpeg_gdcm", r"^its pixels are compressed \(JPEG Lossless.*\): pip install python-gdcm$"),
            (
                "JPEG-lossy",
                r"^damaged, or compressed \(JPEG Extended .*\) .*: pip install pylibjpeg pylibjpeg-libjpeg$",
            ),
        ],
    )
    def test_what_cannot_be_decoded_has_its_reason(self, name: str, reason: str) -> None:
        with pytest.raises(UndecodableError, match=reason):
            original_image(own(name))


class TestGreys:
    def test_a_window_of_rescaled_numbers(self) -> None:
        """PS3.3 C.11.2.1.2.1: c - 0.5 is mid grey, and a width of w has w - 1 steps."""
        content = dicom(WIDE, RescaleSlope=2, RescaleIntercept=-24, WindowCenter=40, WindowWidth=400)
        numbers = 2.0 * WIDE - 24
        expected = np.clip(((numbers - 39.5) / 399 + 0.5) * 255, 0, 255)
        assert np.abs(greys(content) - expected).max() <= 0.5
        assert deep_values(content, 10**6) is None

    def test_exact_and_sigmoid_windows(self) -> None:
        window = {"WindowCenter": 100, "WindowWidth": 300}
        exact = np.clip(((WIDE - 100.0) / 300 + 0.5) * 255, 0, 255)
        assert np.abs(greys(dicom(WIDE, VOILUTFunction="LINEAR_EXACT", **window)) - exact).max() <= 0.5
        curve = 255 / (1 + np.exp(-4 * (WIDE - 100.0) / 300))
        assert np.abs(greys(dicom(WIDE, VOILUTFunction="SIGMOID", **window)) - curve).max() <= 0.5

    def test_the_first_of_several_windows_and_a_table_before_them(self) -> None:
        several = dicom(WIDE, WindowCenter=[100, 5], WindowWidth=[300, 9])
        assert np.array_equal(greys(several), greys(dicom(WIDE, WindowCenter=100, WindowWidth=300)))
        values = np.arange(32, dtype=np.uint16).reshape(4, 8)
        table = sequence(LUTDescriptor=[32, 0, 10], LUTData=[1023 - 33 * step for step in range(32)])
        for item in table:
            item["LUTDescriptor"].VR = item["LUTData"].VR = "US"
        shown = greys(dicom(values, VOILUTSequence=table, WindowCenter=1, WindowWidth=2))
        assert np.abs(shown - (1023 - 33 * values.astype(int)) * 255 / 1023).max() <= 0.5

    @pytest.mark.parametrize("width", [0, -5, 0.5])
    def test_a_width_that_is_none_is_no_window(self, width: float) -> None:
        content = dicom(WIDE, WindowCenter=40, WindowWidth=width)
        assert np.array_equal(deep_values(content, 10**6), WIDE)

    def test_without_a_window_the_scale_of_the_data_set_holds(self) -> None:
        content = dicom(WIDE, RescaleSlope=1, RescaleIntercept=-1024)
        assert np.array_equal(deep_values(content, 10**6), WIDE.astype(int) - 1024)
        found = greys(content, intensity=parse_intensity("-1524:524"))
        assert np.abs(found - (WIDE.astype(float) + 500) * 255 / 2048).max() <= 0.5
        halves = dicom(WIDE, RescaleSlope=0.5, RescaleIntercept=0)
        values = deep_values(halves, 10**6)
        assert values is not None and values.dtype.kind == "f" and np.array_equal(values, WIDE / 2)

    def test_the_survey_takes_the_bits_that_are_stored(self) -> None:
        twelve = dicom(np.arange(0, 4096, 8, dtype=np.uint16).reshape(16, 32), BitsStored=12, HighBit=11)
        windowed = dicom(WIDE, WindowCenter=40, WindowWidth=400)
        survey = survey_images([twelve, windowed], 10**6)
        assert (survey.deep, survey.windowed) == (1, 1)
        assert choose_intensity(survey, None).intensity == "whole=0:4095,fractions=0:1"
        told = choose_intensity(survey_images([windowed], 10**6), parse_intensity("0:99"))
        assert told.notes == (
            "no image has more than 8 bits, but for DICOM with a window of its own: --intensity changes nothing",
        )

    @pytest.mark.parametrize(
        ("pixels", "elements"),
        [
            (WIDE, {"WindowCenter": 100, "WindowWidth": 300}),
            (np.arange(64, dtype=np.uint8).reshape(8, 8), {}),
            (np.arange(0, 65536, 1024, dtype=np.uint16).reshape(8, 8), {}),
        ],
    )
    @pytest.mark.parametrize("intensity", ["type", "unknown"])
    def test_monochrome1_is_the_other_way_round(self, pixels: np.ndarray, elements: dict, intensity: str) -> None:
        reading = {"intensity": parse_intensity(intensity)}
        usual, inverted = (
            greys(dicom(pixels, PhotometricInterpretation=f"MONOCHROME{kind}", **elements), **reading)
            for kind in (2, 1)
        )
        assert np.ptp(usual) > 60 and np.array_equal(usual, 255 - inverted)

    def test_few_bits_use_the_whole_range(self) -> None:
        pixels = np.array([[0, 7, 15]], np.uint8)
        assert greys(dicom(pixels, BitsStored=4, HighBit=3)).tolist() == [[0, 119, 255]]

    @pytest.mark.parametrize("setting", ["decimals", "arrays", "strict"])
    def test_what_a_notebook_makes_of_values_changes_nothing(self, setting: str) -> None:
        width = "300.000000000000"
        content = dicom(WIDE, RescaleSlope="1.5", RescaleIntercept=-24, WindowCenter=[100, 5], WindowWidth=width)
        longer = content.replace(f"DS\x10\0{width}".encode(), f"DS\x14\0{width}0000".encode())  # than DICOM allows
        expected, bare = greys(longer), dicom(WIDE, RescaleSlope=1, RescaleIntercept=0)
        deep = deep_values(bare, 10**6)
        assert longer != content
        try:
            if setting == "strict":
                config.settings.reading_validation_mode = config.RAISE
            else:
                (config.DS_decimal if setting == "decimals" else config.DS_numpy)(True)
            assert np.array_equal(greys(longer), expected)
            assert np.array_equal(deep_values(bare, 10**6), deep)
            assert (config.use_DS_decimal, config.use_DS_numpy) == (setting == "decimals", setting == "arrays")
            assert (valuerep.DSclass is valuerep.DSdecimal) == (setting == "decimals")
            assert (config.settings.reading_validation_mode == config.RAISE) == (setting == "strict")
        finally:
            config.DS_numpy(False)
            config.DS_decimal(False)
            config.settings.reading_validation_mode = config.WARN

    def test_that_a_window_was_used_is_counted_and_said(self) -> None:
        reading = Reading()
        decode_image(dicom(WIDE, WindowCenter=40, WindowWidth=400), 8, reading)
        assert reading.tally.counts == {Noticed.WINDOW: 1}
        assert [*reading.tally.notes(reading.intensity, chosen=True)] == [
            "1 image (DICOM) shown through the window that its file names"
        ]


class TestFrames:
    def test_each_frame_is_a_page_with_its_own_window(self, tmp_path: Path) -> None:
        """An enhanced multi-frame file, as scanners of eyes write them."""
        shared = sequence(
            PixelValueTransformationSequence=sequence(RescaleSlope=2, RescaleIntercept=0, RescaleType="US")
        )
        windows = [(100, 200), (50, 100), (25, 50)]
        each = [
            sequence(FrameVOILUTSequence=sequence(WindowCenter=centre, WindowWidth=width))[0]
            for centre, width in windows
        ]
        path = tmp_path / "volume.dcm"
        groups = {"SharedFunctionalGroupsSequence": shared, "PerFrameFunctionalGroupsSequence": each}
        path.write_bytes(dicom(np.full((3, 4, 4), 20, np.uint16), **groups))
        assert page_numbers(path) == [1, 2, 3]
        shown = [int(greys(Page(path, number))[0, 0]) for number in (1, 2, 3)]
        expected = [((40 - (centre - 0.5)) / (width - 1) + 0.5) * 255 for centre, width in windows]
        assert np.abs(np.array(shown) - expected).max() <= 0.5
        with pytest.raises(UndecodableError, match="no such page"):
            original_image(Page(path, 4))

    def test_frames_of_a_compressed_film(self) -> None:
        assert page_numbers(own("SC_rgb_rle_2frame")) == [1, 2]
        one, other = (colours(Page(own("SC_rgb_rle_2frame"), number)) for number in (1, 2))
        assert np.array_equal(one, 255 - other)

    def test_a_file_has_no_more_frames_than_room_for_them(self, tmp_path: Path) -> None:
        path = tmp_path / "many.dcm"
        path.write_bytes(dicom(np.zeros((4, 4), np.uint16), NumberOfFrames=2**31 - 1))
        assert len(page_numbers(path)) < 50

    def test_other_pages_are_said_to_be_there(self) -> None:
        reading = Reading()
        decode_image(own("examples_ybr_color"), 8, reading)
        assert reading.tally.counts[Noticed.PAGES] == 1


class TestRefusals:
    def test_too_many_pixels_are_refused_before_they_are_decoded(self) -> None:
        content = dicom(np.zeros((4, 4), np.uint8), Rows=60_000, Columns=60_000)
        with pytest.raises(UndecodableError, match=r"more than 1000 pixels"):
            original_image(content, Reading(max_pixels=1000))

    @pytest.mark.parametrize(
        "elements",
        [
            {"Rows": 400},
            {"PhotometricInterpretation": NAME},
            {"BitsAllocated": 12},
            {"SamplesPerPixel": 2},
            {"BitsStored": None},
            {"syntax": JPEGLSLossless},
            {"syntax": MPEG2MPML},
            {"RescaleSlope": 1e38, "RescaleIntercept": -1e38},
        ],
    )
    def test_nothing_of_a_file_is_quoted(self, elements: dict) -> None:
        """Neither a patient's name nor anything else: whatever is wrong is said in words of our own."""
        pixels = np.arange(16, dtype=np.uint16).reshape(4, 4)
        if "syntax" in elements:
            elements = elements | {"pixel_data": struct.pack("<HHLHHL", 0xFFFE, 0xE000, 0, 0xFFFE, 0xE0DD, 0)}
        try:
            original_image(dicom(pixels, **elements))
        except UndecodableError as error:
            assert not {*NAME.split("^"), IDENTITY, "1.2.826"} & set(str(error).split())
            assert NAME not in str(error)
        else:
            assert "RescaleSlope" in elements

    def test_a_bomb_is_refused_before_it_is_unpacked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        content = dicom(np.zeros((2000, 2000), np.uint16), syntax=DeflatedExplicitVRLittleEndian)
        assert len(content) < 20_000
        assert greys(content).max() == 0
        monkeypatch.setattr("features.images.dicom_pixels._INFLATED", 2**20)
        with pytest.raises(UndecodableError, match="decompression bomb"):
            original_image(content)

    @settings(max_examples=60)
    @given(st.integers(0, 1500), st.binary(min_size=1, max_size=6), st.integers(0, 4000) | st.none())
    @example(300, b"\xff" * 6, None)
    def test_damage_ends_in_a_reason(self, at: int, what: bytes, length: int | None) -> None:
        content = bytearray(own("MR_small_RLE").read_bytes())
        content[at : at + len(what)] = what
        try:
            original_image(bytes(content[:length]), Reading(max_pixels=10**6))
        except UndecodableError as error:
            assert "4MR1" not in str(error)

    def test_a_file_without_a_preamble_is_read_and_garbage_is_not(self, tmp_path: Path) -> None:
        content = dicom(np.arange(64, dtype=np.uint8).reshape(8, 8))
        bare = content[132:]
        assert np.array_equal(greys(bare), greys(content))
        with pytest.raises(UndecodableError, match="not an image"):
            original_image(b"\x08\0" + b"\xff" * 300)
        with pytest.raises(UndecodableError, match="without an image"):
            original_image(b"\x08\0" + bytes(300))
        other = content.replace(b"1.2.840.10008.1.2.1\0", b"9.9.999.99999.9.9.9\0")
        with pytest.raises(UndecodableError, match=r"compressed in a way that is not read$"):
            original_image(other)
        with DicomImage(io.BytesIO(content)) as image:
            assert (image.mode, image.size, image.tell(), image.format) == ("L", (8, 8), 0, "DICOM")

    def test_an_image_of_another_kind_is_left_to_pillow(self, tmp_path: Path) -> None:
        image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
        file = io.BytesIO()
        image.save(file, "TGA")
        assert np.array_equal(greys(file.getvalue()), np.asarray(image))
