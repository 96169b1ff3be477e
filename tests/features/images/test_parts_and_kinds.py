"""Folders of parts, of kinds of images and of masks: what is no class, no patient and no image, and is told as that."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from features.images.columns import ColumnChoice, read_labels
from features.images.folder import scan_folder
from features.images.tabled import scan_table
from features.images.walk import MASKS
from features.runtime.errors import InputError


def fill(folder: Path, *names: str) -> Path:
    """Makes files that count as images by their names; a name that ends with / is a folder."""
    for name in names:
        path = folder / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_bytes(b"x")
    return folder


PARTED = ("train/A/A-1-1.png", "train/B/B-2-1.png", "test/A/A-3-1.png", "test/B/B-4-1.png")


def test_parts_of_plain_names_need_no_remark(tmp_path):
    table = scan_folder(fill(tmp_path, *PARTED))
    assert (table.classes, table.parts) == (("A", "B"), ("test", "train", "test", "train"))
    assert table.remarks == ()


def test_folders_without_images_are_no_parts_and_no_classes(tmp_path):
    table = scan_folder(fill(tmp_path, *PARTED, "docs/notes.txt", "val/A/", "val/B/"))
    assert (table.classes, table.parts) == (("A", "B"), ("test", "train", "test", "train"))
    assert any("ignored, not images in a class folder: docs, val" in remark for remark in table.remarks)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["val/1.png", "val/2.png"], "images without a class folder in val"),
        (["again/train/A/A-1-1.png"], "again beside test, train"),
        (["C/C-1-1.png"], "C beside test, train"),
    ],
)
def test_parts_beside_what_is_none_are_refused(tmp_path, more, said):
    with pytest.raises(InputError, match=said):
        scan_folder(fill(tmp_path, *PARTED, *more))


@pytest.mark.parametrize(
    ("train", "test"),
    [("training_set", "test_set"), ("01_train", "02_test"), ("TrainImages", "TESTImages"), ("trainset", "test 2017")],
)
def test_parts_may_be_a_word_of_their_folders_names_where_all_hold_the_same_classes(tmp_path, train, test):
    fill(tmp_path, *(f"{part}/{name}/{n}.png" for part in (train, test) for name in ("cats", "dogs") for n in "12"))
    table = scan_folder(tmp_path)
    in_order = ("test", "test", "train", "train") if test < train else ("train", "train", "test", "test")
    assert (table.classes, table.parts) == (("cats", "dogs"), in_order * 2)
    assert table.remarks[0].startswith("taken for parts, as they hold the same folders, which are the classes: ")
    assert f"{test} for test" in table.remarks[0]


@pytest.mark.parametrize(
    "names",
    [
        ("training_set/cats/1.png", "training_set/dogs/1.png", "test_set/cats/1.png"),
        ("training_set/cats/1.png", "training_set/dogs/1.png", "test_set/1.png"),
        *[[f"{part}/{name}/1.png" for part in ("train_a", "train_b", "test_a") for name in ("x", "y")]],
    ],
)
def test_folders_called_like_parts_are_no_classes(tmp_path, names):
    with pytest.raises(InputError, match="folders in folders"):
        scan_folder(fill(tmp_path, *names))


def files_of(**folders: str) -> list[str]:
    """The names of two files in each folder of a tree: ``a="b c"`` stands for a/b/1.png, a/b/2.png and a/c/1.png, ...

    A file lies in the folder itself for ``.``.
    """
    return [f"{top}/{own}/{n}.png" for top, owns in folders.items() for own in owns.split() for n in "12"]


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        ({"train": "train/a train/b", "test": "test/a test/b"}, "test/test alone in test, train/train alone in train"),
        ({"train": "train/a", "validation": "val/a", "test": "a b"}, "train/train alone in train"),
        ({"train": "a b", "test": "test/a test/b"}, "test/test alone in test"),
        ({"train": "train", "test": "test"}, "test/test alone in test, train/train alone in train"),
        ({"training_set": "training_set", "test_set": "test_set"}, "training_set/training_set alone in training_set"),
        (
            {"seg_train": "seg_train/a seg_train/b", "seg_test": "seg_test/a seg_test/b", "seg_pred": "seg_pred"},
            "seg_test/seg_test alone in seg_test, seg_train/seg_train alone in seg_train",
        ),
    ],
)
def test_parts_that_hold_themselves_again_are_refused(tmp_path, folders, said):
    with pytest.raises(InputError) as caught:
        scan_folder(fill(tmp_path, *files_of(**folders)))
    assert said in str(caught.value)
    assert "; move what is in " in str(caught.value)


@pytest.mark.parametrize(
    ("folders", "classes"),
    [
        ({"train": ".", "plane": ".", "boat": "."}, "boat plane train"),
        ({"train": ".", "plane": ".", "test": "."}, "plane test train"),
        ({"train": "Smith Jones", "plane": "Brown", "boat": "Jones"}, "boat plane train"),
        ({"train": "train", "plane": "plane", "boat": "boat"}, "boat plane train"),  # each class an archive of its own
        ({"training": "Smith Jones", "stress_test": "Smith", "rest": "Brown"}, "rest stress_test training"),
        ({"training_shoes": "red blue", "test_tubes": "glass", "mugs": "blue"}, "mugs test_tubes training_shoes"),
        ({"train_front": "train_front", "test_bench": "wood", "mug": "blue"}, "mug test_bench train_front"),
        ({"train": "train plane boat", "test": "train plane boat"}, "boat plane train"),
        ({"train": "train plane", "test": "train"}, "plane train"),
        ({"train": "train plane", "test": "plane"}, "plane train"),
        ({"train": "train", "test": "train plane"}, "plane train"),
        ({"train": "train/p1 train/p2 boat/p3", "val": "train/p4 boat/p5"}, "boat train"),
    ],
)
def test_classes_that_are_called_as_parts_are_stay_classes(tmp_path, folders, classes):
    fill(tmp_path, *files_of(**folders))
    assert scan_folder(tmp_path).classes == tuple(classes.split())


def test_classes_with_a_word_of_a_part_and_folders_of_patients_stay_classes(tmp_path):
    table = scan_folder(fill(tmp_path, "test_positive/Smith/1.png", "test_negative/Jones/1.png"))
    assert (table.classes, table.parts) == (("test_negative", "test_positive"), ())
    numbered = scan_folder(fill(tmp_path / "more", "training/p1/1.png", "stress_test/p2/1.png"))
    assert (numbered.patients, numbered.parts) == (("p2", "p1"), ())


def test_folders_that_may_be_the_classes_are_told(tmp_path):
    table = scan_folder(fill(tmp_path, *(f"fold{n}/{name}/1.png" for n in "01" for name in ("cats", "dogs"))))
    assert table.classes == ("fold0", "fold1")
    assert "should these be the classes, put them into the image folder itself" in table.remarks[0]


def test_a_folder_of_parts_within_is_named_whole(tmp_path):
    with pytest.raises(InputError) as caught:
        scan_folder(fill(tmp_path, *(f"OCT2017/{name}" for name in PARTED)))
    assert f"(is the image folder {tmp_path / 'OCT2017'}?); its parts are kept" in str(caught.value)


def test_parts_without_classes_in_what_is_to_be_tested_are_refused(tmp_path):
    with pytest.raises(InputError, match="images without a class folder in test"):
        scan_folder(fill(tmp_path, "train/A/A-1-1.png", "train/B/B-2-1.png", "test/1.png"))


def test_classes_may_be_called_as_parts_are(tmp_path):
    table = scan_folder(fill(tmp_path, "car/car-1-1.png", "train/train-2-1.png", "test/test-2-1.png"))
    assert table.classes == ("car", "test", "train")


def test_a_class_may_be_called_as_an_old_windows_called_its_waste(tmp_path):
    table = scan_folder(fill(tmp_path, "glass/glass-1-1.png", "Recycled/Recycled-2-1.png"))
    assert table.classes == ("Recycled", "glass")


def test_masks_beside_images_are_none_and_neither_are_patients(tmp_path):
    names = (f"{name}/{kind}/{name}-{number}.png" for name in "AB" for kind in ("images", "masks") for number in "12")
    table = scan_folder(fill(tmp_path, *names))
    assert table.paths == ("A/images/A-1.png", "A/images/A-2.png", "B/images/B-1.png", "B/images/B-2.png")
    assert table.ignored == {MASKS: 4}
    assert set(table.patients) == {""}
    assert any("images of all patients, not a patient" in remark for remark in table.remarks)


def test_folders_that_all_classes_have_are_no_patients_unless_they_are_numbered(tmp_path):
    eyes = fill(
        tmp_path / "eyes", *(f"{name}/{eye}/x{n}.png" for name in "AB" for eye in ("left", "right") for n in "12")
    )
    assert set(scan_folder(eyes).patients) == {""}
    numbered = fill(tmp_path / "numbered", *(f"{name}/p{n}/x.png" for name in "AB" for n in "12"))
    assert scan_folder(numbered).patients == ("p1", "p2", "p1", "p2")
    others = fill(tmp_path / "others", "A/Smith/1.png", "A/Jones/1.png", "B/Jones/1.png", "B/Brown/1.png")
    assert scan_folder(others).patients == ("Jones", "Smith", "Brown", "Jones")


@pytest.mark.parametrize("lacking", [None, "B/val"])
def test_parts_below_the_classes_are_told_and_are_no_patients(tmp_path, lacking):
    names = [f"{name}/{part}" for name in "AB" for part in ("train", "val", "Test")]
    table = scan_folder(fill(tmp_path, *(f"{name}/{n}.png" for name in names if name != lacking for n in "12")))
    assert (table.classes, table.parts, set(table.patients)) == (("A", "B"), (), {""})
    assert "seem to hold the part of the data set, not a patient" in table.remarks[0]
    assert "put their folders above those of the classes, or give a --table with a column split" in table.remarks[0]


def test_patients_may_be_called_as_parts_are(tmp_path):
    some = scan_folder(fill(tmp_path / "some", "A/Val/1.png", "A/Train/1.png", "B/Smith/1.png"))
    assert some.patients == ("Train", "Val", "Smith")
    others = scan_folder(fill(tmp_path / "others", "A/Val/1.png", "A/Test/1.png", "B/Val/1.png"))
    assert others.patients == ("Test", "Val", "Val")


def test_a_table_may_name_what_lies_in_a_folder_of_masks(tmp_path):
    fill(tmp_path, "scans/images/1.png", "scans/masks/1.png")
    labels = pd.DataFrame({"path": ["scans/images/1.png", "scans/masks/1.png"], "label": ["x", "y"]})
    table = scan_table(tmp_path, read_labels(labels, "labels.csv", ColumnChoice()))
    assert table.paths == ("scans/images/1.png", "scans/masks/1.png")
