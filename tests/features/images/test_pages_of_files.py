"""Files with several pages, and large ones."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from made_images import encoded
from PIL import GifImagePlugin, Image, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from features.images.decode import UndecodableError, decode_image, original_image
from features.images.folder import scan_folder
from features.images.pages import file_of, has_pages, page_numbers, source_of, with_all_pages
from features.images.reading import Noticed, Page, Reading

FRAMES = [Image.new("L", (8, 8), level) for level in (10, 90, 170)]


def paged(kind: str, **options: object) -> bytes:
    colour = [frame if kind in ("TIFF", "MPO") else frame.convert("RGB") for frame in FRAMES]
    return encoded(colour[0], kind, save_all=True, append_images=colour[1:], **options)


KINDS = {"tif": paged("TIFF"), "gif": paged("GIF"), "png": paged("PNG"), "webp": paged("WEBP", lossless=True)}


def written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("ending", KINDS)
def test_each_page_can_be_had(ending, tmp_path):
    path = written(tmp_path / f"a.{ending}", KINDS[ending])
    assert page_numbers(path) == [1, 2, 3]
    shown = [int(decode_image(Page(path, number), 4)[0, 0, 0]) for number in (1, 2, 3)]
    assert np.abs(np.array(shown) - (10, 90, 170)).max() <= 1
    with pytest.raises(UndecodableError, match="no such page"):
        decode_image(Page(path, 4), 4)
    assert original_image(Page(path, 3)).getpixel((0, 0)) == original_image(Page(path, 3)).getpixel((7, 7))


def test_a_page_is_found_without_going_through_all_before_it(tmp_path, monkeypatch):
    def stack(levels: range) -> bytes:
        first, *others = (Image.new("L", (8, 8), level) for level in levels)
        return encoded(first, "TIFF", save_all=True, append_images=others)

    loaded, load = [], TiffImagePlugin.ImageFileDirectory_v2.load
    monkeypatch.setattr(TiffImagePlugin.ImageFileDirectory_v2, "load", lambda *told: loaded.append(1) or load(*told))
    path = written(tmp_path / "a.tif", stack(range(100)))
    assert [decode_image(Page(path, number), 4)[0, 0, 0] for number in range(1, 101)] == [*range(100)]
    assert len(loaded) < 100 * 10  # by itself Pillow loads the tags of 5,000
    for number in (101, 500):
        with pytest.raises(UndecodableError, match="no such page"):
            decode_image(Page(path, number), 4)
    written(path, stack(range(200, 100, -1)) + b" ")
    assert [decode_image(Page(path, number), 4)[0, 0, 0] for number in (100, 3, 64)] == [101, 198, 137]


COUNTED = {
    "gif": (GifImagePlugin.GifImageFile, "_seek"),
    "png": (PngImagePlugin.PngImageFile, "_seek"),
    "webp": (WebPImagePlugin.WebPImageFile, "_get_next"),
}


@pytest.mark.parametrize("ending", COUNTED)
def test_a_frame_that_is_made_of_those_before_it_goes_on_from_the_last_that_was_had(ending, tmp_path, monkeypatch):
    def film(colours: range) -> bytes:
        first, *others = (Image.new("RGB", (8, 8), (colour, 0, 255 - colour)) for colour in colours)
        options = {"lossless": True} if ending == "webp" else {}
        return encoded(first, ending.upper(), save_all=True, append_images=others, **options)

    kind, name = COUNTED[ending]
    gone, go = [], getattr(kind, name)
    monkeypatch.setattr(kind, name, lambda *told: gone.append(1) or go(*told))
    path = written(tmp_path / f"a.{ending}", film(range(0, 200, 2)))
    reds = [int(decode_image(Page(path, number), 4)[0, 0, 0]) for number in range(1, 101)]
    assert np.abs(np.array(reds) - range(0, 200, 2)).max() <= 2
    assert len(gone) < 100 * 5  # by itself Pillow goes through 5,000
    for number in (101, 100, 20, 20, 500, 21):
        if number > 100:
            with pytest.raises(UndecodableError, match="no such page"):
                decode_image(Page(path, number), 4)
        else:
            assert abs(int(decode_image(Page(path, number), 4)[0, 0, 0]) - 2 * (number - 1)) <= 2
    written(path, film(range(200, 0, -2)))
    assert abs(int(decode_image(Page(path, 50), 4)[0, 0, 0]) - 102) <= 2


def test_frames_laid_on_those_before_them_are_the_same_in_whatever_order_they_are_asked_for(tmp_path):
    generator = np.random.default_rng(0)
    frames = [Image.fromarray(generator.integers(0, 256, (6, 6, 4), np.uint8)) for _ in range(6)]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], disposal=[1, 2, 3, 1, 2, 3])
    path = written(tmp_path / "a.gif", content)
    backwards = {number: np.asarray(original_image(Page(path, number))) for number in range(6, 0, -1)}
    for number in range(1, 7):
        assert np.array_equal(np.asarray(original_image(Page(path, number))), backwards[number]), number


def test_the_first_frame_of_a_grey_gif_can_be_had(tmp_path):
    greys = np.arange(256, dtype=np.uint8).reshape(16, 16)  # fewer have a palette of their own
    frames = [Image.fromarray(np.roll(greys, number)) for number in range(3)]
    path = written(tmp_path / "a.gif", encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    reading = Reading()
    assert np.array_equal(decode_image(path, 16, reading)[..., 0], greys)
    assert reading.tally.counts == {Noticed.PAGES: 1}
    for number in (1, 2, 3):
        assert np.array_equal(decode_image(Page(path, number), 16)[..., 0], np.roll(greys, number - 1))


def test_files_whose_further_pages_were_not_used_are_counted(tmp_path):
    reading = Reading()
    for number, content in enumerate((*KINDS.values(), encoded(FRAMES[0], "TIFF"), paged("MPO"))):
        decode_image(written(tmp_path / f"{number}", content), 4, reading)
    assert reading.tally.counts == {Noticed.PAGES: len(KINDS)}
    (note,) = reading.tally.notes(reading.intensity, chosen=True)
    assert note == "4 files with several pages: the first of each was used; --pages all takes all"
    quiet = Reading()
    decode_image(Page(tmp_path / "0", 1), 4, quiet)
    assert not quiet.tally.counts


def test_previews_copies_and_what_is_damaged_are_no_pages(tmp_path):
    assert page_numbers(written(tmp_path / "a.jpg", paged("MPO"))) == [1]
    content = io.BytesIO()  # not a file, which would be closed before Pillow lets go of the writer
    with TiffImagePlugin.AppendingTiffWriter(content, new=True) as writer:
        for frame, tags in (
            (FRAMES[0], {}),
            (FRAMES[1].resize((4, 4)), {254: 1}),
            (FRAMES[2], {}),
            (FRAMES[1], {254: 4}),
        ):
            frame.save(writer, "TIFF", tiffinfo=tags)  # the second is a thumbnail, the last a mask
            writer.newFrame()
    path = written(tmp_path / "b.tif", content.getvalue())
    with Image.open(path) as image:
        assert image.n_frames == 4
    assert (page_numbers(path), has_pages(path)) == ([1, 3], True)
    assert decode_image(Page(path, 3), 4)[0, 0, 0] == 170
    cut = KINDS["tif"][:-30]
    assert page_numbers(written(tmp_path / "d.tif", cut))[0] == 1
    assert page_numbers(written(tmp_path / "e.tif", b"")) == [1]


def test_the_name_of_a_page_is_no_file_of_a_table():
    folder = Path("images")
    assert source_of(folder, "a/b.tif#2") == Page(folder / "a/b.tif", 2)
    for path in ("a/b.tif", "a/b#2.tif", "a#1/b.tif", "a/b.tif#0", "a/b.tif#two", "a/b.tif#2.png"):
        assert source_of(folder, path) == folder / path
        assert file_of(path) == path
    assert file_of("a/b.tif#12") == "a/b.tif"


def test_all_pages_are_rows_of_one_patient(tmp_path):
    written(tmp_path / "A" / "A-7-1.tif", KINDS["tif"])
    written(tmp_path / "A" / "A-8-1.tif", encoded(FRAMES[0], "TIFF"))
    written(tmp_path / "B" / "nameless.gif", KINDS["gif"])
    written(tmp_path / "B" / "nameless too.png", encoded(FRAMES[0], "PNG"))
    table = scan_folder(tmp_path)
    pages = with_all_pages(table)
    assert pages.paths == (
        *("A/A-7-1.tif#1", "A/A-7-1.tif#2", "A/A-7-1.tif#3", "A/A-8-1.tif", "B/nameless too.png"),
        *("B/nameless.gif#1", "B/nameless.gif#2", "B/nameless.gif#3"),
    )
    assert pages.labels == (0, 0, 0, 0, 1, 1, 1, 1)
    assert pages.patients == ("7", "7", "7", "8", "", *["B/nameless.gif"] * 3)
    assert [len(set(pages.sizes[:3])), pages.sizes[0]] == [1, len(KINDS["tif"])]
    assert pages.remarks[-2:] == (
        "2 files with several pages: 6 rows of them",
        "the patient of 1 file with several pages is unknown: each file counts as a patient",
    )
    assert with_all_pages(scan_folder(tmp_path, limit=2)).classes == table.classes


def test_more_pixels_are_allowed_where_they_are_asked_for(monkeypatch):
    content = encoded(Image.new("L", (300, 200), 77), "PNG")
    with pytest.raises(UndecodableError, match=r"^more than 59999 pixels .decompression bomb\?., see --max-pixels$"):
        decode_image(content, 8, Reading(max_pixels=59_999))
    assert decode_image(content, 8, Reading(max_pixels=60_000))[0, 0, 0] == 77
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20_000)  # Pillow raises from twice that on
    assert decode_image(content, 8, Reading(max_pixels=60_000))[0, 0, 0] == 77


def test_a_grey_picture_that_is_to_be_turned_is_the_same_from_its_file_and_from_memory(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8)
    Image.fromarray(grey).save(tmp_path / "turned.tif", tiffinfo={274: 6})
    from_file = np.asarray(original_image(tmp_path / "turned.tif").convert("L"))
    assert np.array_equal(from_file, np.asarray(original_image((tmp_path / "turned.tif").read_bytes()).convert("L")))
    assert np.array_equal(from_file, np.rot90(grey, -1))


def test_pages_of_unknown_patients_say_where_their_patients_are_from(tmp_path):
    (tmp_path / "A").mkdir()
    (tmp_path / "A" / "x.tif").write_bytes(paged("TIFF"))
    table = with_all_pages(scan_folder(tmp_path))
    assert set(table.patients) == {"A/x.tif"}
    assert table.patient_source == "the files of several pages whose patient is unknown"
