"""A table of labels into a store: by the command and from a DataFrame, gone on with, updated, refused."""

from __future__ import annotations

import csv
from pathlib import Path

import commands
import numpy as np
import pandas as pd
import pytest
from made_backbone import SMALL, MadeBackbone
from made_images import put_image

from features import extract
from features.extraction import extraction
from features.runtime.errors import BottleneckError, InputError
from features.store.reader import FeatureStore

OPTIONS = SMALL | {"views": "identity"}
WORDS = commands.words(OPTIONS)


class Grey(MadeBackbone):
    """Stands for a backbone that stops after so many images."""

    by_place = 0
    stop_after = 10**9

    def features(self, images):
        if Grey.shown >= Grey.stop_after:
            raise BottleneckError("stopped")
        return super().features(images)


@pytest.fixture(autouse=True)
def grey(monkeypatch):
    monkeypatch.setattr(extraction, "build_backbone", lambda spec: Grey())
    Grey.shown, Grey.stop_after = 0, 10**9


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / "images"
    for number in range(12):
        put_image(folder / f"in{number % 2}" / f"{number:02}.png", np.full((3, 3), 10 * number + 10, np.uint8))
    return folder


def frame_of(last: str = "b") -> pd.DataFrame:
    rows = [(f"{number:02}", "ab"[number // 6], f"p{number // 2}") for number in range(12)]
    rows[-1] = (rows[-1][0], last, rows[-1][2])
    return pd.DataFrame(rows, columns=["image", "class", "patient_id"])


def rows_of(store: FeatureStore) -> list[tuple[str, str, str]]:
    return [*store.to_frame()[["path", "class", "patient"]].itertuples(index=False, name=None)]


def test_file_and_frame_make_the_same_store(images, tmp_path):
    frame = frame_of()
    frame.to_csv(tmp_path / "labels.csv", index=False)
    said = commands.succeed("features.extract", images, tmp_path / "a.h5", "--table", tmp_path / "labels.csv", *WORDS)
    assert "6 patients in all, taken from column patient_id of" in said.err + said.out
    store = extract(images, tmp_path / "b.h5", table=frame, progress=False, **OPTIONS)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert rows_of(store)[:2] == [("in0/00.png", "a", "p0"), ("in0/02.png", "a", "p1")]
    assert store.features[0, 0, 0, 0].tolist() == [11] * 3
    extract(images, tmp_path / "c.h5", table=tmp_path / "labels.csv", progress=False, **OPTIONS)
    assert (tmp_path / "c.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_a_class_that_is_not_in_the_training_part_is_told(images, tmp_path):
    told = "warning: train has no image of b"
    for number, parts in enumerate((["train"] * 6 + ["test"] * 6, ["train", "test"] * 6)):
        frame_of().assign(split=parts).to_csv(tmp_path / f"{number}.csv", index=False)
        words = (images, tmp_path / f"{number}.h5", "--table", tmp_path / f"{number}.csv", *WORDS)
        assert (told in commands.succeed("features.extract", *words).err) == (number == 0)


def test_a_stopped_extraction_goes_on(images, tmp_path):
    store, whole = tmp_path / "s.h5", tmp_path / "whole.h5"
    extract(images, whole, table=frame_of(), progress=False, **OPTIONS)
    Grey.shown, Grey.stop_after = 0, 8
    with pytest.raises(BottleneckError, match="stopped"):
        extract(images, store, table=frame_of(), progress=False, **OPTIONS)
    Grey.shown, Grey.stop_after = 0, 10**9
    assert not FeatureStore(store).complete
    extract(images, store, table=frame_of(), progress=False, **OPTIONS)
    assert Grey.shown in (4, 8)  # the batch that was still written when it was stopped, or not
    assert store.read_bytes() == whole.read_bytes()


def test_a_corrected_table_is_refused_and_updated_without_computing(images, tmp_path):
    store = extract(images, tmp_path / "s.h5", table=frame_of(), progress=False, **OPTIONS)
    Grey.shown = 0
    with pytest.raises(InputError) as refused:
        extract(images, store.path, table=frame_of("c"), progress=False, **OPTIONS)
    assert str(refused.value) == (
        f"{store.path}: classes: expected ('a', 'b', 'c'), found ('a', 'b'); --update makes the store that of the"
        " images and the table as they are, and keeps its features"
    )
    updated = extract(images, store.path, table=frame_of("c"), update=True, progress=False, **OPTIONS)
    assert (rows_of(updated)[-1], updated.classes) == (("in1/11.png", "c", "p5"), ("a", "b", "c"))
    assert np.array_equal(updated.features[:, 0, 0, 0, 0], store.features[:, 0, 0, 0, 0])
    assert Grey.shown == 0


def test_new_rows_are_computed_by_an_update_and_others_leave(images, tmp_path):
    store = extract(images, tmp_path / "s.h5", table=frame_of()[:8], progress=False, **OPTIONS)
    assert len(store) == 8
    Grey.shown = 0
    with pytest.raises(InputError, match=r"4 images added .* 1 image gone .* --update makes the store"):
        extract(images, store.path, table=frame_of()[1:], progress=False, **OPTIONS)
    updated = extract(images, store.path, table=frame_of()[1:], update=True, progress=False, **OPTIONS)
    assert (len(updated), Grey.shown) == (11, 4)


def test_a_folder_cannot_go_on_with_the_store_of_a_table(images, tmp_path):
    store = extract(images, tmp_path / "s.h5", table=frame_of(), progress=False, **OPTIONS)
    with pytest.raises(InputError, match="classes"):
        extract(images, store.path, progress=False, **OPTIONS)


def test_all_that_is_left_out_is_listed_beside_the_store(images, tmp_path):
    (images / "in0" / "00.png").write_bytes(b"no image")
    (images / "in0" / "more.png").write_bytes(b"no row")
    frame = pd.concat([frame_of(), frame_of()[:1], pd.DataFrame({"image": ["gone"], "class": ["a"]})])
    frame.to_csv(tmp_path / "labels.csv", index=False)
    words = ("features.extract", images, tmp_path / "s.h5", "--table", tmp_path / "labels.csv", *WORDS)
    said = commands.invoke(*words, "--strict")
    assert said.status == 2
    assert said.err.count("\n") == 1
    assert (
        "1 row whose file is missing: gone; 1 row that names a file again: 00; 1 image without a row: in0/more.png"
        in (said.err)
    )
    said = commands.succeed(*words)
    assert "note: left out, 1 row whose file is missing: gone" in said.err + said.out
    with (tmp_path / "s.h5.skipped.csv").open(newline="") as file:
        table = tmp_path / "labels.csv"
        assert [*csv.reader(file)][2:] == [
            ["00", f"row 13 of {table}: again, after row 1"],
            ["gone", f"row 14 of {table}: no such file"],
            ["in0/more.png", f"no row of {table}"],
        ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--path-column", "x"], "--path-column: expected --table beside it, found x"),
        (["--patient-column", ""], "--patient-column: expected --table beside it, found none"),
        (["--label-columns", "MEL,NV"], "--label-columns: expected --table beside it, found MEL,NV"),
        (["--classes", "a,b"], "--classes: expected --table beside it, found a,b"),
        (["--table", "{absent}"], "{absent}: expected a table of labels, found no such file"),
        (
            ["--table", "{table}", "--label-column", "grade"],
            "{table}: expected a column 'grade', as --label-column says",
        ),
        (["--table", "{table}", "--classes", "x,x"], "--classes: expected different names"),
        (
            ["--table", "{table}", "--patient-column", "patient_id", "--group-pattern", "(.)"],
            "--group-pattern: expected none beside --patient-column, found (.)",
        ),
    ],
)
def test_the_command_refuses_in_one_line(images, tmp_path, words, said):
    frame_of().to_csv(tmp_path / "labels.csv", index=False)
    places = {"table": tmp_path / "labels.csv", "absent": tmp_path / "absent.csv"}
    words = [word.format(**places) for word in words]
    done = commands.invoke("features.extract", images, tmp_path / "s.h5", *words, *WORDS)
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert done.err.startswith(f"error: {said.format(**places)}")
    assert not (tmp_path / "s.h5").exists()


def test_python_takes_lists_of_names_and_refuses_what_is_no_table(images, tmp_path):
    frame = frame_of().assign(a=[1] * 6 + [0] * 6, b=[0] * 6 + [1] * 6).drop(columns="class")
    store = extract(images, tmp_path / "s.h5", table=frame, label_columns=["b", "a"], progress=False, **OPTIONS)
    assert (store.classes, np.bincount(store.labels).tolist()) == (("b", "a"), [6, 6])
    with pytest.raises(InputError, match="table: expected a path or a pandas DataFrame, found list"):
        extract(images, tmp_path / "t.h5", table=[1], progress=False, **OPTIONS)
    with pytest.raises(InputError, match="DataFrame: row 2: expected 1 in one of the label columns, found none"):
        frame.loc[1, "a"] = 0
        extract(images, tmp_path / "t.h5", table=frame, label_columns=["b", "a"], progress=False, **OPTIONS)
