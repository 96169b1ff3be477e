"""Names of folders and files: spellings, patients, litter, dates, impossible times, and what there is but images."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_folder import fill

from features.images.entries import is_left_out, what_is_there
from features.images.folder import scan_folder
from features.runtime.errors import InputError
from heads.prediction.sources import find_sources

LETTERS = st.text(st.characters(whitelist_categories=("Lu", "Ll", "Lo", "Mn")), min_size=1, max_size=8)
LITTER = (
    *("._A-1-1.png", ".DS_Store", "Thumbs.db", "thumbs.db", "desktop.ini", "~$A-1-1.png", "SYNOPHOTO_THUMB_M.jpg"),
    *("@eaDir/A-1-1.png", "#recycle/A-1-1.png", "$RECYCLE.BIN/A-1-1.png", "__MACOSX/A-1-1.png", "lost+found/A-1-1.png"),
    *(".ipynb_checkpoints/A-1-1.png", "@Recycle/A-1-1.png", "System Volume Information/x.png", ".Trashes/x.png"),
)


@given(name=LETTERS.filter(lambda name: not is_left_out(name)), patient=LETTERS)  # as DICOMDIR is
def test_two_spellings_are_one_class_and_one_patient(tmp_path_factory, name, patient):
    folder = tmp_path_factory.mktemp("names")
    forms = [unicodedata.normalize(form, f"{name}/x-{patient}-") for form in ("NFC", "NFD")]
    paths = {f"{form}{number}.png" for number, form in enumerate(forms)}
    fill(folder, *sorted(paths), "another/y-1-1.png")
    table = scan_folder(folder)
    assert len(table.classes) == 2
    assert all(unicodedata.is_normalized("NFC", text) for text in (*table.classes, *table.patients))
    own = [row for row, path in enumerate(table.paths) if path in paths]
    assert len(own) == 2  # as they are on the disk, so that they are found
    assert len({(table.labels[row], table.patients[row]) for row in own}) == 1
    spellings = {form.split("/")[0] for form in forms}
    assert any("one class each" in remark for remark in table.remarks) == (len(spellings) > 1)


def test_classes_that_differ_in_case_or_spaces_stay_apart_with_a_word(tmp_path):
    fill(tmp_path, "CNV/CNV-1-1.png", "cnv /cnv-2-1.png", "DME/DME-1-1.png")
    (remark,) = scan_folder(tmp_path).remarks
    assert "'CNV' and 'cnv ' are different classes" in remark


@pytest.mark.parametrize("place", ["", "A/", "A/p1/"])
def test_what_systems_leave_behind_is_no_class_no_patient_and_no_image(tmp_path, place):
    flat = place != "A/p1/"
    names = ("A/A-1-1.png", "B/B-2-1.png") if flat else ("A/p1/1.png", "B/p2/1.png")
    fill(tmp_path, *names, *(f"{place}{name}" for name in LITTER))
    table = scan_folder(tmp_path)
    assert table.paths == names
    assert table.remarks == ()
    tops = {name.split("/")[0] for name in LITTER}
    assert sum(table.ignored.values()) == len(tops)
    sources = find_sources([str(tmp_path)], tmp_path)
    assert [str(source.path.relative_to(tmp_path)) for source in sources] == list(names)


def test_linked_folders_are_predicted_as_they_are_extracted(tmp_path):
    fill(tmp_path, "disk/A/A-1-1.png", "disk/p/A-2-1.png", "disk/p/A-2-2.png", "disk/none/1.nii", "scans/B/B-3-1.png")
    links = {"scans/A": "disk/A", "disk/A/p": "disk/p", "disk/p/up": "disk/A", "disk/p/same": "disk/p"}
    for link, to in (links | {"scans/B/B-4-1.png": "gone", "linked/C": "disk/none"}).items():
        (tmp_path / link).parent.mkdir(exist_ok=True)
        (tmp_path / link).symlink_to(tmp_path / to)
    scans = tmp_path / "scans"
    paths = ["A/A-1-1.png", "A/p/A-2-1.png", "A/p/A-2-2.png", "B/B-3-1.png", "B/B-4-1.png"]
    assert [*scan_folder(scans).paths] == paths
    assert [source.name for source in find_sources([str(scans)], tmp_path)] == [str(scans / path) for path in paths]
    (source,) = find_sources([str(tmp_path / "linked")], tmp_path)
    assert source.reason.startswith("a folder without images, but 1 .nii; ")


def test_names_that_only_resemble_litter_count(tmp_path):
    for name in ("thumbs", "recycle", "A@eaDir", "lost", "_A", "desktop", "icons"):
        assert not is_left_out(name)


def test_folders_within_a_class_are_its_patients(tmp_path):
    fill(tmp_path, "CNV/anna/left/1.png", "CNV/anna/2.PNG", "CNV/bert/1.png", "DME/anna/1.png", "DME/readme.txt")
    table = scan_folder(tmp_path)
    assert table.classes == ("CNV", "DME")
    assert dict(zip(table.paths, table.patients, strict=True)) == {
        "CNV/anna/2.PNG": "anna",
        "CNV/anna/left/1.png": "anna",
        "CNV/bert/1.png": "bert",
        "DME/anna/1.png": "anna",
    }
    assert table.patient_source == "the first folder below each class, e.g. 'anna' of CNV/anna/2.PNG"
    assert table.ignored == {"no images": 1}


@pytest.mark.parametrize(
    ("pattern", "patients"),
    [
        *((r"(patient\d+)", "patient07"), (r"(\d+)", "07"), (r"CNV/[^/]+/(eye\w)", "eyeL"), (r"^(scan)", "scan")),
        *((r"^(CNV/\w+)/eyeL/", "CNV/patient07"), (r"(CNV|DME)", ""), (r"(C\w+)/patient", "")),
    ],
)
def test_a_pattern_is_looked_for_in_the_path_where_images_lie_in_folders(tmp_path, pattern, patients):
    fill(tmp_path, "CNV/patient07/eyeL/scan3.png", "DME/x/patient07/1.png")
    assert scan_folder(tmp_path, group_pattern=pattern).patients[0] == patients


def test_names_that_tell_outweigh_folders_that_do_not(tmp_path):
    fill(tmp_path, "CNV/batch1/CNV-1021-1.png", "CNV/batch1/CNV-1022-1.png", "DME/batch1/DME-7-1.png")
    assert scan_folder(tmp_path).patients == ("1021", "1022", "7")


def test_a_flat_layout_is_not_changed_by_a_folder_in_it_and_a_stray_image_changes_no_layout_of_folders(tmp_path):
    flat = fill(tmp_path / "flat", "A/A-1-1.png", "A/A-2-1.png", "A/old/A-3-1.png", "B/B-4-1.png")
    table = scan_folder(flat)
    assert table.paths == ("A/A-1-1.png", "A/A-2-1.png", "B/B-4-1.png")
    assert table.ignored == {"no images": 1, "images beside those of a class": 1}
    deep = fill(tmp_path / "deep", "A/p1/1.png", "A/p1/2.png", "A/stray.png", "B/B-4-1.png")
    table = scan_folder(deep)
    assert table.paths == ("A/p1/1.png", "A/p1/2.png", "A/stray.png", "B/B-4-1.png")
    assert table.patients == ("p1", "p1", "", "4")
    assert "patient of 1 of 4 images is unknown" in table.remarks[-1]


def test_a_link_to_a_folder_above_ends(tmp_path):
    fill(tmp_path, "A/p1/1.png", "B/p2/1.png")
    (tmp_path / "A" / "p1" / "loop").symlink_to(tmp_path / "A")
    assert scan_folder(tmp_path).paths == ("A/p1/1.png", "B/p2/1.png")


@pytest.mark.parametrize(
    ("names", "proposed"),
    [
        (("train/CNV/1.png", "holdout/CNV/1.png"), ("holdout", "train")),
        (("OCT/Train/CNV/1.png", "OCT/dev/CNV/1.png"), ("OCT/Train", "OCT/dev")),
        (("data/CNV/1.png", "data/DME/1.png"), ("data",)),
    ],
)
def test_parts_and_folders_of_classes_are_refused_naming_the_image_folders(tmp_path, names, proposed):
    fill(tmp_path, *names)
    with pytest.raises(InputError) as caught:
        scan_folder(tmp_path)
    assert f"(is the image folder {' or '.join(str(tmp_path / name) for name in proposed)}?)" in str(caught.value)


def test_folders_of_parts_above_those_of_classes(tmp_path):
    names = ("train/CNV/CNV-1-1.png", "train/DME/DME-2-1.png", "Val/CNV/CNV-3-1.png", "test/DME/p4/1.png")
    fill(tmp_path, *names, "test/DME/p4/2.png", "train/notes.txt")
    table = scan_folder(tmp_path)
    assert table.classes == ("CNV", "DME")
    assert set(table.paths) == {*names, "test/DME/p4/2.png"}
    told = dict(zip(table.paths, zip(table.parts, table.patients, strict=True), strict=True))
    assert told[names[0]] == ("train", "1")
    assert told[names[2]] == ("validation", "3")
    assert told[names[3]] == ("test", "p4")
    assert any("train/notes.txt" in remark for remark in table.remarks)


@pytest.mark.parametrize("names", [("train/CNV/1.png", "training/CNV/2.png"), ("val/CNV/1.png", "test/CNV/2.png")])
def test_folders_of_one_part_or_none_to_train_on_are_refused(tmp_path, names):
    fill(tmp_path, *names)
    with pytest.raises(InputError, match="folders in folders"):
        scan_folder(tmp_path)


def test_classes_may_be_called_train_and_test(tmp_path):
    table = scan_folder(fill(tmp_path, "train/1.png", "test/2.png"))
    assert (table.classes, table.parts) == (("test", "train"), ())


def test_patients_are_never_proposed_as_classes(tmp_path):
    fill(tmp_path, "CNV/patient01/1.png", "CNV/patient02/1.png")
    assert scan_folder(tmp_path).classes == ("CNV",)


@pytest.mark.parametrize(
    "stem",
    ["scan-20240131-{}", "2024-01-{:02}", "31-01-2024_{}", "IMG-20240131-WA{:04}", "scan-2024-{}", "x{}_2024-01-31"],
)
def test_a_date_is_no_patient(tmp_path, stem):
    fill(tmp_path, *(f"{name}/{stem.format(number)}.png" for name in "AB" for number in range(10, 14)))
    table = scan_folder(tmp_path)
    assert set(table.patients) == {""}
    assert "the names of 8 images seem to hold a date, not a patient" in table.remarks[0]
    assert "patient of 8 of 8 images is unknown" in table.remarks[-1]


def test_a_class_in_the_patients_place_and_dated_folders_are_no_patients(tmp_path):
    named = fill(tmp_path / "named", "CNV/x-CNV-1.png", "CNV/x-CNV-2.png", "DME/x-DME-1.png")
    table = scan_folder(named)
    assert set(table.patients) == {""}
    assert "seem to hold the class, not a patient" in table.remarks[0]
    dated = fill(tmp_path / "dated", "A/2024-01-31/1.png", "A/2024-02-01/1.png", "B/20240203/1.png")
    assert set(scan_folder(dated).patients) == {""}


@pytest.mark.parametrize(
    ("stem", "what"),
    [("img-{}-00{}", "the class"), ("{}s-photo-{}", "a word that all have"), ("x-photo-{1}", "a word that all have")],
)
def test_one_word_in_all_names_of_a_class_is_no_patient(tmp_path, stem, what):
    fill(tmp_path, *(f"{name}s/{stem.format(name, number)}.png" for name in ("cat", "dog", "bird") for number in "123"))
    table = scan_folder(tmp_path)
    assert set(table.patients) == {""}
    assert f"the names of 9 images seem to hold {what}, not a patient" in table.remarks[0]


@pytest.mark.parametrize(
    "names",
    [
        ("A/A-Smith-1", "A/A-Smith-2", "B/B-Jones-1"),  # the form says that it is the patient
        ("A/x-p1-1", "A/x-p1-2", "B/x-p2-1"),
        ("A/x-Smith-1", "A/x-Brown-2", "B/x-Jones-1"),
        ("A/x-Smith-1", "A/x-Smith-2", "B/x-Smith-1", "C/x-Jones-1"),
        ("A/x-Smith-1", "B/x-Jones-1"),
        ("A/x-Smith-1", "A/x-Smith-2"),
    ],
)
def test_what_may_be_the_one_patient_of_a_class_is_taken(tmp_path, names):
    assert "" not in scan_folder(fill(tmp_path, *(f"{name}.png" for name in names))).patients


def test_nothing_for_a_pattern_takes_no_patient(tmp_path):
    table = scan_folder(fill(tmp_path, "A/A-1-1.png", "A/p2/A-2-2.png", "B/B-3-1.png"), group_pattern="")
    assert set(table.patients) == {""}


def test_numbers_that_look_like_dates_by_chance_are_patients(tmp_path):
    fill(
        tmp_path,
        *(f"A/A-{number}-1.png" for number in (1021, 2033, 20240131, 1987, 5)),
        "1/img-1-1.png",
        "2/img-1-1.png",
    )
    table = scan_folder(tmp_path)
    assert "" not in table.patients
    assert table.remarks == ()


def test_impossible_times_are_not_used(tmp_path):
    fill(tmp_path, *(f"A/A-{number}-1.png" for number in range(6)), "B/B-1-1.png")
    moments = (-2_208_988_800, -1, 0, 10**11, 253_402_300_800, 1_000_000_000)
    for number, moment in enumerate(moments):
        os.utime(tmp_path / f"A/A-{number}-1.png", (moment, moment))
    os.utime(tmp_path / "B/B-1-1.png", (1_100_000_000, 1_100_000_000))
    table = scan_folder(tmp_path)
    assert table.newest == "2004-11-09T11:33:20Z"
    assert table.modified == (0,) * 5 + (10**18, 11 * 10**17)
    assert "the times of 5 files are impossible" in table.remarks[0]
    for path in table.paths:
        os.utime(tmp_path / path, (0, 0))
    assert scan_folder(tmp_path).newest == ""


def test_found_none_says_what_there_is_and_what_to_do(tmp_path):
    fill(tmp_path, *(f"A/{number}.nii" for number in range(12)), *(f"B/{number}.SVS" for number in range(3)))
    fill(tmp_path, "B/IM001", "B/1.2.840.10008", "._x.png", "A/Thumbs.db")
    with pytest.raises(InputError) as caught:
        scan_folder(tmp_path)
    assert "found none, but 12 .nii, 3 .svs, 2 without an ending; " in str(caught.value)
    assert "SimpleITK" in str(caught.value)
    assert "OpenSlide" in str(caught.value)
    (source,) = find_sources([str(tmp_path)], tmp_path)
    assert source.reason.startswith("a folder without images, but 12 .nii, 3 .svs, 2 without an ending; ")


def test_a_file_in_the_place_of_a_folder_says_what_to_do(tmp_path):
    for name, hint in (
        ("a.ZIP", "; unpack the archives first"),
        ("a.h5", "; a store .* as --features"),
        ("a.png", "$"),
    ):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(InputError, match=f"expected an image folder, found a file{hint}"):
            scan_folder(tmp_path / name)


def test_files_without_an_ending_are_looked_into(tmp_path):
    (tmp_path / "A").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "A" / "one", "PNG")
    assert what_is_there(tmp_path) == (
        "none, but 1 without an ending",
        "those without an ending are images (PNG): give them their endings",
    )
    (tmp_path / "A" / "one").write_bytes(bytes(128) + b"DICM")
    assert "DICOM" in str(what_is_there(tmp_path)[1])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_named_pipe_where_images_belong_is_not_waited_on(tmp_path):
    (tmp_path / "A").mkdir()
    os.mkfifo(tmp_path / "A" / "pipe")
    with pytest.raises(InputError, match=r"with images in it, found none, but 1 without an ending$"):
        scan_folder(tmp_path)
    fill(tmp_path, "B/B-1-1.png")
    assert "class folders without an image: A (1 without an ending)" in " ".join(scan_folder(tmp_path).remarks)


def test_a_class_without_images_says_what_it_holds(tmp_path: Path):
    fill(tmp_path, "A/A-1-1.png", "B/B-1-1.png", "C/1.nii", "C/2.nii", "D/")
    assert "class folders without an image: C (2 .nii), D" in scan_folder(tmp_path).remarks[-1]


@pytest.mark.parametrize("name", [b"A/caf\xe9-%d.png", b"caf\xe9/%d.png", b"train/caf\xe9/%d.png"])
def test_images_whose_names_are_of_another_encoding_are_counted_and_said(tmp_path: Path, name: bytes):
    for number in range(3):
        path = tmp_path / os.fsdecode(name % number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    with pytest.raises(InputError, match=r"found none, but 3 \.png; 3 images whose names, .* not UTF-8: rename them"):
        scan_folder(tmp_path)
