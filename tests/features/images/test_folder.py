"""The image folder as a table: which files count, in which order, with which patients, and what is said of the rest."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.images.entries import IMAGE_SUFFIXES, every_file
from features.images.folder import scan_folder
from features.images.walk import Seen, files_below
from features.runtime.errors import InputError
from features.runtime.text import printable


def fill(folder: Path, *names: str, size: int = 3) -> Path:
    """Makes files of ``size`` bytes; a name that ends with / is a folder."""
    for name in names:
        path = folder / name
        if name.endswith("/"):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x" * size)
    return folder


def test_rows_are_sorted_by_class_then_name_with_label_size_and_patient(tmp_path):
    fill(tmp_path, "NORMAL/NORMAL-9-1.jpeg", "CNV/CNV-12-2.png", "CNV/CNV-12-10.png", "CNV/loose.tif", size=7)
    table = scan_folder(tmp_path)
    assert table.classes == ("CNV", "NORMAL")
    assert table.paths == ("CNV/CNV-12-10.png", "CNV/CNV-12-2.png", "CNV/loose.tif", "NORMAL/NORMAL-9-1.jpeg")
    assert table.labels == (0, 0, 0, 1)
    assert table.patients == ("12", "12", "", "9")
    assert table.sizes == (7, 7, 7, 7)
    assert [table.classes[label] for label in table.labels] == ["CNV"] * 3 + ["NORMAL"]
    assert len(table.remarks) == 1
    assert "patient of 1 of 4 images is unknown" in table.remarks[0]


def test_newest_is_the_time_of_the_newest_image_and_of_nothing_else(tmp_path):
    fill(tmp_path, "A/A-1-1.png", "A/A-1-2.png", "A/notes.txt")
    for name, moment in (("A/A-1-1.png", 1_000_000_000), ("A/A-1-2.png", 1_100_000_000.9), ("A/notes.txt", 2e9)):
        os.utime(tmp_path / name, (moment, moment))
    assert scan_folder(tmp_path).newest == datetime.fromtimestamp(1_100_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_stray_files_and_empty_classes_are_named_in_remarks(tmp_path):
    fill(
        tmp_path,
        "A/A-1-1.png",
        "README.md",
        "A/deeper/A-1-2.png",
        "A/thumbs.db",
        "EMPTY/",
        ".git/A-1-3.png",
        "A/.x.png",
    )
    table = scan_folder(tmp_path)
    assert table.paths == ("A/A-1-1.png",)
    ignored, deeper, empty, single = table.remarks
    assert "README.md, A/deeper" in ignored
    assert "1 image in folders beside the images of a class: A/deeper/A-1-2.png" in deeper
    assert "thumbs.db" not in ignored
    assert ".git" not in ignored
    assert "EMPTY" in empty
    assert "single class, A" in single


def test_many_stray_files_are_counted_not_listed(tmp_path):
    fill(tmp_path, "A/A-1-1.png", "B/B-2-1.png", *(f"A/{number}.txt" for number in range(10)))
    (remark,) = scan_folder(tmp_path).remarks
    assert remark.endswith("and 7 more")


def test_endings_count_in_any_case_and_data_formats_do_not(tmp_path):
    fill(tmp_path, "A/A-1-1.JPEG", "A/A-1-2.Png", "A/A-1-3.webp", "A/store.h5")
    assert len(scan_folder(tmp_path)) == 3
    assert {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".jp2"} <= IMAGE_SUFFIXES
    assert not {".h5", ".hdf5", ".txt", ".pdf", ".grib", ".mpg"} & IMAGE_SUFFIXES


def test_odd_names_are_kept_or_refused_with_one_line(tmp_path):
    fill(tmp_path, "new\nline/a\nb.png", "ünï/日本-7-1.png")
    (tmp_path / "ünï" / os.fsdecode(b"\xff-8-1.png")).write_bytes(b"x")
    table = scan_folder(tmp_path)
    assert table.classes == ("new\nline", "ünï")
    assert table.paths == ("new\nline/a\nb.png", "ünï/日本-7-1.png")
    assert table.patients == ("", "7")
    assert "1 whose names are not UTF-8 text" in table.remarks[0]
    assert all("\n" not in remark and remark.encode() for remark in table.remarks)


def test_links_are_followed_and_those_that_lead_nowhere_are_rows(tmp_path):
    fill(tmp_path, "elsewhere/x.png", "images/A/", size=11)
    images = tmp_path / "images"
    (images / "A" / "A-1-1.png").symlink_to(tmp_path / "elsewhere" / "x.png")
    (images / "A" / "A-1-2.png").symlink_to("nowhere.png")
    (images / "A" / "A-1-3.png").symlink_to("A-1-3.png")
    (images / "B").symlink_to(tmp_path / "elsewhere")
    (images / "LOOP").symlink_to("LOOP")
    table = scan_folder(images)
    assert table.paths == ("A/A-1-1.png", "A/A-1-2.png", "A/A-1-3.png", "B/x.png")
    assert table.sizes == (11, 0, 0, 11)
    assert "LOOP" in table.remarks[0]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ((), "none"),
        (("A/",), "none"),
        (("notes.txt", "A/b.txt"), "none"),
        (("a.png", "b.png"), "images without a class folder"),
        (("OCT2017/train/CNV/CNV-1-1.jpeg",), "folders in folders (is the image folder"),
    ],
)
def test_a_folder_without_images_in_classes_is_refused_saying_what_there_is(tmp_path, names, found):
    fill(tmp_path, *names)
    with pytest.raises(InputError, match="one sub-folder per class, with images in it") as caught:
        scan_folder(tmp_path)
    assert found in str(caught.value)


def test_no_folder_and_a_file_are_refused(tmp_path):
    with pytest.raises(InputError, match="found no such folder"):
        scan_folder(tmp_path / "absent")
    fill(tmp_path, "a.png")
    with pytest.raises(InputError, match="found a file"):
        scan_folder(tmp_path / "a.png")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_class_folder_that_cannot_be_read_is_refused(tmp_path):
    fill(tmp_path, "A/A-1-1.png")
    (tmp_path / "A").chmod(0)
    with pytest.raises(InputError, match="a folder that can be read"):
        scan_folder(tmp_path)


@pytest.mark.parametrize("pattern", ["(", r"\d+"])
def test_a_group_pattern_without_group_or_sense_is_refused(tmp_path, pattern):
    fill(tmp_path, "A/A-1-1.png")
    with pytest.raises(InputError, match="--group-pattern"):
        scan_folder(tmp_path, group_pattern=pattern)


def test_a_group_pattern_says_where_the_patient_is(tmp_path):
    fill(tmp_path, "A/p07_left_3.png", "A/p08_right_1.png")
    assert scan_folder(tmp_path, group_pattern=r"^(p\d+)_").patients == ("p07", "p08")


@given(counts=st.lists(st.integers(1, 9), min_size=1, max_size=4), limit=st.integers(1, 40))
def test_limit_takes_evenly_from_the_classes(tmp_path_factory, counts, limit):
    folder = tmp_path_factory.mktemp("images")
    names = [[f"C{label}/C{label}-{n}-1.png" for n in range(count)] for label, count in enumerate(counts)]
    fill(folder, *(name for group in names for name in group))
    if limit < len(counts):
        with pytest.raises(InputError, match="--limit"):
            scan_folder(folder, limit=limit)
        return
    table = scan_folder(folder, limit=limit)
    taken = [table.labels.count(label) for label in range(len(counts))]
    assert sum(taken) == len(table) == min(limit, sum(counts))
    assert len(set(table.paths)) == len(table)
    # nobody has two fewer than another, unless all of theirs are taken
    assert all(mine >= max(taken) - 1 or mine == count for mine, count in zip(taken, counts, strict=True))


def test_limit_spaces_its_images_over_the_class(tmp_path):
    fill(tmp_path, *(f"A/A-{number}-1.png" for number in range(100, 200)))
    assert scan_folder(tmp_path, limit=4).patients == ("100", "125", "150", "175")


@given(st.text())
def test_printable_is_one_line(text):
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1
    if text.isprintable():
        assert shown == text


def test_folders_deeper_than_anyone_makes_are_passed_over_or_refused_in_one_line(tmp_path):
    fill(tmp_path, "A/A-1-1.png", "B/B-2-1.png", f"A/{'d/' * 250}A-1-2.png")
    assert scan_folder(tmp_path).paths == ("A/A-1-1.png", "B/B-2-1.png")  # beside images no folder is needed
    told = r"expected an image folder, found more than 200 folders in one another: {}d/d/.*\.\.\.$"
    with pytest.raises(InputError, match=told.format("A/")):
        files_below(tmp_path, Seen())
    with pytest.raises(InputError, match=told.format("")):
        scan_folder(tmp_path / "A")
    problems: list[OSError] = []
    assert len([*every_file(tmp_path, on_problem=problems.append)]) == 2
    assert [error.strerror for error in problems] == ["more than 200 folders in one another"]
