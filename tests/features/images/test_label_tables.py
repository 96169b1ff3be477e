"""Tables of labels: files, columns, labels, and which row means which image."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from features.images.columns import ColumnChoice, read_labels
from features.images.folder import ImageTable
from features.images.label_file import read_label_file
from features.images.pages import with_all_pages
from features.images.tabled import scan_table
from features.runtime.errors import InputError

SAVED = "save it as UTF-8; a spreadsheet does as 'CSV UTF-8'"


def images_in(folder: Path, *paths: str) -> Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((3, 3), np.uint8)).save(folder / path)
    return folder


def scanned(folder: Path, frame: pd.DataFrame, choice: ColumnChoice | None = None, **options) -> ImageTable:
    return scan_table(folder, read_labels(frame, "labels.csv", choice or ColumnChoice()), **options)


def rows_of(table: ImageTable) -> list[tuple[str, str, str]]:
    labels = (table.classes[label] for label in table.labels)
    return [*zip(table.paths, labels, table.patients, strict=True)]


def frame_of(*rows: tuple, columns: str = "path label") -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=columns.split())


@pytest.fixture
def folder(tmp_path) -> Path:
    return images_in(tmp_path / "images", "a.png", "b.png", "in/c.png", "in/d.JPG")


def test_rows_become_images_sorted_by_class_then_path(folder):
    frame = frame_of(("b.png", "x", "p1"), ("in/c.png", "y", ""), ("a.png", "x", "p1"), columns="FileName Class GROUP")
    table = scanned(folder, frame)
    assert rows_of(table) == [("a.png", "x", "p1"), ("b.png", "x", "p1"), ("in/c.png", "y", "")]
    assert table.sizes == tuple((folder / path).stat().st_size for path in table.paths)
    assert table.patient_source == "column GROUP of labels.csv, e.g. 'p1' of a.png"
    assert (table.left_out, table.parts) == ((("in/d.JPG", "no row of labels.csv"),), ())


@pytest.mark.parametrize(
    "written",
    [
        *("in/c.png", "./in/c.png", "in/c", "in\\c.png", "x/../in/c.png", "c.png", "c"),
        *("{folder}/in/c.png", "{folder}/in/c", "{link}/in/c.png"),
    ],
)
def test_a_path_may_be_written_in_many_ways(folder, tmp_path, written):
    (tmp_path / "link").symlink_to(folder)
    table = scanned(folder, frame_of((written.format(folder=folder, link=tmp_path / "link"), "x")))
    assert table.paths == ("in/c.png",)


def test_a_relative_folder_takes_absolute_paths(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert scanned(Path(folder.name), frame_of((f"{folder}/a.png", "x"))).paths == ("a.png",)


def test_composed_and_decomposed_spellings_are_one(tmp_path):
    folder = images_in(tmp_path, "e\u0301.png", "b.png")
    table = scanned(folder, frame_of(("\xe9.png", "\xe9"), ("b", "e\u0301")))
    assert (table.paths, table.classes) == (("b.png", "e\u0301.png"), ("\xe9",))


def test_what_has_no_counterpart_is_counted_listed_and_left_out(folder):
    frame = frame_of(("a", "x"), ("gone", "x"), ("in/c.png", "y"), ("a.png", "x"), ("lost.png", "y"))
    table = scanned(folder, frame)
    assert table.paths == ("a.png", "in/c.png")
    assert table.ignored == {
        "rows whose file is missing": 2,
        "rows that name a file again": 1,
        "images without a row": 2,
    }
    assert table.left_out == (
        ("gone", "row 2 of labels.csv: no such file"),
        ("a.png", "row 4 of labels.csv: again, after row 1"),
        ("lost.png", "row 5 of labels.csv: no such file"),
        ("b.png", "no row of labels.csv"),
        ("in/d.JPG", "no row of labels.csv"),
    )
    assert table.remarks[:3] == (
        "left out, 2 rows whose file is missing: gone, lost.png",
        "left out, 1 row that names a file again: a.png",
        "left out, 2 images without a row: b.png, in/d.JPG",
    )
    with pytest.raises(InputError, match=r"2 rows whose file is missing: gone, lost.png; 1 row that names"):
        scanned(folder, frame, strict=True)


def test_links_and_folders_of_patients_are_walked_once(folder):
    (folder / "again").symlink_to(folder)
    assert scanned(folder, frame_of(("a", "x"))).ignored["images without a row"] == 3


def test_pages_keep_what_their_row_says(tmp_path):
    first, second = (Image.fromarray(np.full((3, 3), value, np.uint8)) for value in (1, 2))
    first.save(tmp_path / "a.tif", save_all=True, append_images=[second])
    frame = frame_of(("a", "x", "p", "test"), ("no", "x", "", "train"), columns="path label patient split")
    table = with_all_pages(scanned(tmp_path, frame))
    assert (table.paths, table.patients, table.parts) == (("a.tif#1", "a.tif#2"), ("p", "p"), ("test", "test"))
    assert len(table.left_out) == 1


def test_a_limit_takes_evenly_from_the_classes(folder):
    frame = frame_of(("a", "x"), ("b", "x"), ("in/c", "y"), ("in/d", "y"))
    assert scanned(folder, frame, limit=2).paths == ("a.png", "in/c.png")


def test_patients_come_from_names_where_no_column_says_them(tmp_path):
    folder = images_in(tmp_path, "in/CNV-7-1.png", "in/CNV-8-1.png")
    frame = frame_of(("CNV-7-1", "CNV"), ("CNV-8-1", "CNV"))
    assert scanned(folder, frame).patients == ("7", "8")
    assert scanned(folder, frame).patient_source == "the file names, e.g. '7' of in/CNV-7-1.png"
    assert scanned(folder, frame, group_pattern=r"^(\w+)/").patients == ("in", "in")
    other = frame.assign(patient=["a", "b"])
    assert scanned(folder, other).patients == ("a", "b")
    assert scanned(folder, other, group_pattern=r"(\d)-1$").patients == ("7", "8")
    assert scanned(folder, other, ColumnChoice(patient="")).patients == ("7", "8")


def test_a_pattern_finds_no_patient_in_the_class_that_a_table_says(tmp_path):
    folder = images_in(tmp_path, "left/IMG_anna.png", "left/P7_x.png", "right/IMG_otto.png", "top.png")
    frame = frame_of(("left/IMG_anna.png", 0), ("left/P7_x.png", 0), ("right/IMG_otto.png", 3), ("top.png", 3))
    assert scanned(folder, frame, group_pattern=r"(\d+)").patients == ("", "7", "", "")
    folders = scanned(folder, frame, group_pattern=r"^(\w+/\w+)$")
    assert folders.patients == ("left/IMG_anna", "left/P7_x", "right/IMG_otto", "")
    assert scanned(folder, frame, group_pattern=r"^(IMG|top)").patients == ("IMG", "", "IMG", "top")


def test_labels_are_text_numbers_or_columns(folder):
    paths = ("a", "b", "in/c", "in/d")
    text = frame_of(*zip(paths, ("10", "9", "9", "10"), strict=True))
    assert scanned(folder, text).classes == ("9", "10")  # by value
    numbers = frame_of(*zip(paths, (1, 0, 0, 1), strict=True))
    assert scanned(folder, numbers, ColumnChoice(classes=("mild", "acute"))).classes == ("mild", "acute")
    assert dict(row[:2] for row in rows_of(scanned(folder, numbers, ColumnChoice(classes=("mild", "acute"))))) == {
        "a.png": "acute", "b.png": "mild", "in/c.png": "mild", "in/d.JPG": "acute"
    }  # fmt: skip
    named = frame_of(*zip(paths, ("mild", "acute", "acute", "mild"), strict=True))
    assert scanned(folder, named, ColumnChoice(classes=("mild", "acute"))).classes == ("mild", "acute")
    spare = scanned(folder, numbers, ColumnChoice(classes=("mild", "acute", "none")))
    assert spare.classes == ("mild", "acute")
    assert "left out, classes without an image: none" in spare.remarks
    hot = pd.DataFrame({"path": paths, "MEL": [0, 1, 0.0, 0], "NV": ["1", "0", "1.0", "true"]})
    assert dict(row[:2] for row in rows_of(scanned(folder, hot, ColumnChoice(one_hot=("nv", "MEL"))))) == {
        "a.png": "NV", "b.png": "MEL", "in/c.png": "NV", "in/d.JPG": "NV"
    }  # fmt: skip


def test_numbers_of_patients_and_missing_ones_are_read_as_people_mean_them(folder):
    frame = pd.DataFrame({"path": ["a", "b", "in/c"], "label": ["x", "x", "y"], "patient": [12, None, 7.0]})
    assert rows_of(scanned(folder, frame)) == [("a.png", "x", "12"), ("b.png", "x", ""), ("in/c.png", "y", "7")]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (["12.0", "7.0", "12.0"], ["12", "7", "12"]),
        (["12", "12.0", ""], ["12", "12", ""]),
        (["007.0", "A7", "12.00"], ["007", "A7", "12"]),
        (["1.0", "1.5", "2"], ["1.0", "1.5", "2"]),
    ],
)
def test_patients_of_a_column_with_a_gap_are_those_of_one_without(folder, written, read):
    frame = frame_of(*zip(("a", "b", "in/c"), "xyz", written, strict=True), columns="path label patient")
    assert [who for *_, who in sorted(rows_of(scanned(folder, frame)))] == read


def test_one_class_may_be_written_as_two_numbers(folder):
    frame = frame_of(("a", "0"), ("b", "1"), ("in/c", "1.0"), ("in/d", "0"))
    assert scanned(folder, frame).classes == ("0", "1")
    other = scanned(folder, frame_of(("a", "0.0"), ("b", "1.0")))
    assert other.classes == ("0.0", "1.0")
    padded = scanned(folder, frame_of(("a", "1"), ("b", "01")))
    assert padded.classes == ("01", "1")
    assert any("'01' and '1' are different classes" in remark for remark in padded.remarks)


@pytest.mark.parametrize(
    ("classes", "written", "read"),
    [
        ("1 2 3", "1.0 2.0 3", "1 2 3"),
        ("2 1 0", "0.0 1.0 2.0", "0 1 2"),
        ("1 1.0 2", "1.0 1 2.0", "1.0 1 2"),
        ("a b c", "0.0 1 2.0", "a b c"),
        ("a b c", "c a b", "c a b"),
    ],
)
def test_names_of_classes_that_are_numbers_are_names(folder, classes, written, read):
    frame = frame_of(*zip(("a.png", "b.png", "in/c.png"), written.split(), strict=True))
    table = scanned(folder, frame, ColumnChoice(classes=tuple(classes.split())))
    assert table.classes == tuple(classes.split())
    assert [name for _, name, _ in sorted(rows_of(table))] == read.split()


def test_a_word_that_is_the_patient_of_many_images_is_told(folder):
    rows = ("a", "x", "NA"), ("b", "y", "unknown"), ("in/c", "y", "NA"), ("in/d", "x", "p1")
    (remark,) = scanned(folder, frame_of(*rows, columns="path label patient")).remarks
    assert remark.startswith("2 rows are of one patient, 'NA', and stay together")


def test_parts_have_their_usual_names(folder):
    rows = ("a", "x", "TRAIN"), ("b", "x", "Val"), ("in/c", "y", "valid"), ("in/d", "y", " test ")
    frame = frame_of(*rows, columns="path label Split")
    assert scanned(folder, frame).parts == ("train", "validation", "validation", "test")
    without = scanned(folder, frame, ColumnChoice(part=""))
    assert without.parts == ()


def test_rows_that_contradict_each_other_are_refused(folder):
    columns = "path label patient split"
    for row, said in (
        (("a.png", "y", "p", "test"), "row 2: expected the label that row 1 says of 'a.png', 'x', found 'y'"),
        (("a.png", "x", "q", "test"), "row 2: expected the patient that row 1 says of 'a.png', 'p', found 'q'"),
        (("a.png", "x", "p", "val"), "row 2: expected the part that row 1 says of 'a.png', 'test', found 'validation'"),
    ):
        with pytest.raises(InputError) as refused:
            scanned(folder, frame_of(("a", "x", "p", "test"), row, columns=columns))
        assert str(refused.value) == f"labels.csv: {said}"


HOT = ColumnChoice(one_hot=("MEL", "NV"))
REFUSED = {
    "no row": (frame_of(), None, "expected a table with a row for each image, found none"),
    "no path": (
        frame_of(("a", "x"), columns="id label"),
        None,
        "expected a column path or filename or image, or another one with --path-column, found columns id, label",
    ),
    "no label": (frame_of(("a",), columns="path"), None, "expected a column label or class or target, or another one"),
    "no such column": (
        frame_of(("a", "x")),
        ColumnChoice(label="grade"),
        "expected a column 'grade', as --label-column says, found columns path, label",
    ),
    "two columns": (
        frame_of(("a", "x", "y"), columns="path Label target"),
        None,
        "expected one column with the label, found Label and target; say which with --label-column",
    ),
    "an empty path": (frame_of(("a", "x"), ("", "x")), None, "row 2: expected a path, found none"),
    "a zero byte in a path": (frame_of(("a", "x"), ("/b\0", "x")), None, "row 2: expected a path, found '/b\\x00'"),
    "a zero byte in a class": (
        frame_of(("a", "x"), ("b", "y\0z")),
        None,
        "row 2: expected a class that is text of at most 65,536 bytes, found a zero byte",
    ),
    "a patient too long": (
        frame_of(("a", "x", "p" * 70_000), columns="path label patient"),
        None,
        "row 1: expected a patient that is text of at most 65,536 bytes, found 70,000 bytes",
    ),
    "an empty label": (
        frame_of(("a", "x"), ("b", None)),
        None,
        "row 2: expected a class in column label, found none",
    ),
    "a number too large": (
        frame_of(("a", "0"), ("b", "2")),
        ColumnChoice(classes=("x", "y")),
        "row 2: expected a number from 0 to 1 for the 2 --classes, found '2'",
    ),
    "a strange class": (
        frame_of(("a", "x"), ("b", "z")),
        ColumnChoice(classes=("x", "y")),
        "row 2: expected one of x, y, as --classes says, found 'z'",
    ),
    "a number beside names that are numbers": (
        frame_of(("a", "1"), ("b", "0")),
        ColumnChoice(classes=("1", "2", "3")),
        "row 2: expected one of 1, 2, 3, as --classes says, found '0'",
    ),
    "several classes": (
        pd.DataFrame({"path": ["a", "b"], "MEL": [1, 1], "NV": [0, 1]}),
        HOT,
        "row 2: expected 1 in one of the label columns, found MEL and NV; images of several classes (multi-label)",
    ),
    "no class": (
        pd.DataFrame({"path": ["a", "b"], "MEL": [1, 0], "NV": [0, 0]}),
        HOT,
        "row 2: expected 1 in one of the label columns, found none of them",
    ),
    "a share": (
        pd.DataFrame({"path": ["a"], "MEL": [0.4], "NV": [0.6]}),
        HOT,
        "row 1: expected 0 or 1 in column MEL, found '0.4'",
    ),
    "a fold": (
        frame_of(("a", "x", "train"), ("b", "x", "3"), columns="path label fold"),
        None,
        "row 2: expected one of train, training, val, valid, validation, test, testing in column fold, found '3'",
    ),
    "no part": (
        frame_of(("a", "x", "train"), ("b", "x", ""), columns="path label split"),
        None,
        "row 2: expected one of train, training, val, valid, validation, test, testing in column split, found none",
    ),
    "outside": (frame_of(("a", "x"), ("../b.png", "x")), None, "row 2: expected a path within"),
    "elsewhere": (frame_of((f"{os.sep}elsewhere/a.png", "x")), None, "row 1: expected a path within"),
}


@pytest.mark.parametrize(("frame", "choice", "said"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_said_in_one_line(folder, frame, choice, said):
    with pytest.raises(InputError) as refused:
        scanned(folder, frame, choice)
    assert str(refused.value).startswith(f"labels.csv: {said}")


def test_a_name_that_may_be_two_files_is_refused(folder):
    images_in(folder, "b.bmp", "other/c.png")
    with pytest.raises(InputError, match=r"row 1: expected the path of one image, found 'b', which may be b.bmp or b"):
        scanned(folder, frame_of(("b", "x")))
    with pytest.raises(InputError, match=r"found 'c.png', which may be in/c.png or other/c.png"):
        scanned(folder, frame_of(("c.png", "x")))


def test_a_folder_without_any_of_the_files_is_refused_with_an_example_of_both(folder):
    with pytest.raises(InputError) as refused:
        scanned(folder, frame_of(("no.png", "x")))
    expected = f"{folder}: expected the images that labels.csv names, found none of 1 rows' files: no no.png, but a.png"
    assert str(refused.value) == f"{expected} and 3 more"
    with pytest.raises(InputError, match="expected an image folder, found no such folder"):
        scanned(folder / "absent", frame_of(("no.png", "x")))


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"classes": ("a", "a")}, "--classes: expected different names, in label order, found a, a"),
        ({"one_hot": ("a", "")}, "--label-columns: expected different names, in label order, found a,"),
        ({"one_hot": ("a",), "label": "x"}, "--label-column: expected none beside --label-columns, found x"),
        ({"one_hot": ("a",), "classes": ("x",)}, "--classes: expected none beside --label-columns, found x"),
    ],
)
def test_choices_that_do_not_go_together_are_refused(choice, said):
    with pytest.raises(InputError) as refused:
        ColumnChoice(**choice)
    assert str(refused.value) == said


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "path,label\n007,NA\n8,\u00e9\n"),
        ("a.csv", "\ufeffpath,label\r\n007,NA\r\n8,\u00e9\r\n"),
        ("semicolons.CSV", "path;label\n007;NA\n8;\u00e9\n"),
        ("a.tsv", "path\tlabel\n007\tNA\n8\t\u00e9\n"),
        ("emptied.csv", "path;label\r\n007;NA\r\n;\r\n\r\n8;\u00e9\r\n;\r\n;\r\n"),
    ],
)
def test_text_stays_text(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    frame = read_label_file(tmp_path / name)
    assert frame.to_dict("list") == {"path": ["007", "8"], "label": ["NA", "\xe9"]}


@pytest.mark.parametrize(
    ("header", "choice", "said"),
    [
        ("path,label,label", ColumnChoice(), "one column with the label, found label and label; call one of them"),
        ("path,patient,label,patient", ColumnChoice(), "one column with the patient, found patient and patient; call"),
        ("path,label, label", ColumnChoice(label="label"), "a column 'label', as --label-column says, found 2 of them"),
        ("path,A,B,A", ColumnChoice(one_hot=("A", "B")), "a column 'A', as --label-columns says, found 2 of them"),
    ],
)
def test_two_columns_of_one_name_stay_two(tmp_path, header, choice, said):
    (tmp_path / "t.csv").write_text(f"{header}\n{'a,1,0,0'[: 2 * header.count(',') + 1]}\n")
    with pytest.raises(InputError) as refused:
        read_labels(read_label_file(tmp_path / "t.csv"), "t.csv", choice)
    assert str(refused.value).startswith(f"t.csv: expected {said}")


def test_columns_that_say_nothing_may_have_one_name_or_none(folder, tmp_path):
    (tmp_path / "t.csv").write_text('\n,path,note,"label",note,\n7,a,,x,"two\nlines",\n')
    frame = read_label_file(tmp_path / "t.csv")
    assert [*frame.columns] == ["Unnamed: 0", "path", "note", "label", "note", "Unnamed: 5"]
    assert rows_of(scanned(folder, frame)) == [("a.png", "x", "")]


def test_parquet_is_read_or_its_extra_named(tmp_path, monkeypatch):
    file = tmp_path / "a.parquet"
    file.write_bytes(b"PAR1")

    def absent(path):
        raise ImportError("no engine")

    monkeypatch.setattr(pd, "read_parquet", absent)
    with pytest.raises(InputError) as refused:
        read_label_file(file)
    told = "expected pyarrow, which reads Parquet, found none installed; pip install 'bottleneck-search[parquet]'"
    assert str(refused.value) == f"{file}: {told}"
    monkeypatch.setattr(pd, "read_parquet", lambda path: frame_of(("a", "x")))
    assert read_label_file(file).equals(frame_of(("a", "x")))


def test_parquet_as_pyarrow_writes_it(tmp_path):
    pytest.importorskip("pyarrow")
    frame_of(("a", "x")).to_parquet(tmp_path / "a.parquet")
    assert read_label_file(tmp_path / "a.parquet").equals(frame_of(("a", "x")))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.xlsx", b"", "expected a table, one of .csv, .tsv, .parquet, found .xlsx"),
        ("labels", b"", "expected a table, one of .csv, .tsv, .parquet, found no ending"),
        ("a.csv", b"", "expected a table that can be read, found none (No columns to parse from file)"),
        ("a.csv", b"path;label\nt\xfcr.png;x\n", f"expected text in UTF-8, found other bytes in line 2; {SAVED}"),
        ("a.tsv", "path\tlabel\n1\tx\n".encode("utf-16"), "expected text in UTF-8, found UTF-16; save it as UTF-8; "),
        ("a.csv", b"path,label\na,b\nc,d,e\n", "expected a table that can be read, found none ("),
    ],
)
def test_files_that_are_no_tables_are_refused(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as refused:
        read_label_file(tmp_path / name)
    assert str(refused.value).startswith(f"{tmp_path / name}: {said}")
    assert "\n" not in str(refused.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    (tmp_path / "b.csv").mkdir()
    for name, found in (("a.csv", "no such file"), ("b.csv", "a folder")):
        with pytest.raises(InputError, match=f"expected a table of labels, found {found}"):
            read_label_file(tmp_path / name)


def test_missing_values_of_pandas_own_types_are_unknown(folder):
    frame = frame_of(("a.png", "x"), ("b.png", "y"))
    frame["patient"] = pd.array([7, None], dtype="Int64")
    assert scanned(folder, frame).patients == ("7", "")


@pytest.mark.parametrize("row", ["A/1.png,p1,x", "A/1.png,x,", '"A/1.png",a, comma'])
def test_a_first_row_with_more_values_than_columns_is_refused(tmp_path, row):
    (tmp_path / "t.csv").write_text(f"path,label\n{row}\nA/2.png,y\n")
    with pytest.raises(InputError, match=r"row 1: expected at most 2 values, as there are columns, found 3"):
        read_label_file(tmp_path / "t.csv")
