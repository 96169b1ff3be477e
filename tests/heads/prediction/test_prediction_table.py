"""The table of predictions: one column per class where these fit, else the likeliest classes of each image."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import tracemalloc
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table

from heads.prediction.prediction import Prediction, Predictions, Shares, json_lines
from heads.prediction.tables import PredictionTable


def printed(predictions: list[Prediction], classes: list[str], width: int) -> str:
    console = Console(file=io.StringIO(), width=1000, highlight=False, markup=False)
    console.print(PredictionTable(predictions, classes, width))
    return console.file.getvalue()


def predicted(classes: list[str]) -> Prediction:
    """The first class is the likeliest, then comes the last but one, then the last."""
    rest = [0.3, *[0.0] * (len(classes) - 3)] if len(classes) > 2 else []
    shares = [0.5, *reversed([0.2, *rest] if len(classes) > 2 else [0.5])]
    return Prediction("in/a.png", classes[0], Shares(tuple(classes), np.array(shares, np.float32)))


@pytest.mark.parametrize(("count", "width", "every"), [(2, 80, True), (4, 80, True), (4, 60, False), (30, 100, False)])
def test_classes_have_columns_where_they_fit(count, width, every):
    classes = [f"kind{number:02}" for number in range(count)]
    text = printed([predicted(classes)], classes, width)
    assert all((f" {name} ┃" in text) == every for name in classes)
    assert ("the likeliest classes: --json has all" in text) != every
    line = next(line for line in text.splitlines() if "in/a.png" in line)
    assert len(re.findall(r"0\.\d{4}", line)) == (count if every else 3)


@given(
    st.lists(st.tuples(st.text(max_size=20), st.sampled_from(["", "gone"])), max_size=5),
    st.integers(2, 6),
    st.sampled_from([40, 90, 1000]),
    st.sampled_from(["utf-8", "ascii"]),
    st.booleans(),
)
@settings(max_examples=40)
def test_however_it_is_drawn_the_table_is_richs(images, count, width, encoding, in_colour):
    classes = [f"kind{number:02}" for number in range(count)]
    called = predicted(classes)
    rows = [replace(called, image=name) if not why else Prediction(name, reason=why) for name, why in images]
    table = PredictionTable(rows, classes, 80)
    richs = table._empty()
    for cells in table._rows():
        richs.add_row(*cells)
    drawn = []
    for one in (table, richs):
        file = io.TextIOWrapper(io.BytesIO(), encoding, errors="backslashreplace", newline="")
        Console(file=file, width=width, force_terminal=in_colour, highlight=False, markup=False, emoji=False).print(one)
        file.flush()
        drawn.append(file.buffer.getvalue().decode(encoding))
    assert drawn[0] == drawn[1]


def test_rich_is_asked_for_one_row_where_none_has_to_be_folded(monkeypatch):
    """Half a millisecond and 40 KB a row, it took minutes and gigabytes for a store of 100,000 rows."""
    added, add = [], Table.add_row
    monkeypatch.setattr(Table, "add_row", lambda table, *cells: added.append(cells) or add(table, *cells))
    assert printed([predicted(["A", "B"])] * 50, ["A", "B"], 80).count("in/a.png") == 50
    assert len(added) == 1


def test_classes_that_are_called_as_a_column_have_another():
    classes = ["path", "p(path)", "b"]
    frame = Predictions(tuple(classes), (predicted(classes),)).to_frame()
    assert list(frame.columns) == ["path", "class", "p(p(path))", "p(path)", "b", "error"]
    assert list(frame.loc[0, ["p(p(path))", "p(path)", "b"]]) == pytest.approx([0.5, 0.3, 0.2])


def test_the_name_of_a_file_may_be_no_text():
    name = os.fsdecode(b"caf\xe9.png")
    rows = (predicted(["A", "B"]), replace(predicted(["A", "B"]), image=name), Prediction("c", reason=f"{name}: gone"))
    frame = Predictions(("A", "B"), rows).to_frame()
    assert frame["path"].tolist() == ["in/a.png", name, "c"]
    assert frame["error"].tolist() == ["", "", f"{name}: gone"]
    assert Predictions(("A", "B"), rows[:1]).to_frame()["path"].dtype == pd.Series(["a"]).dtype


def test_the_next_classes_are_named_with_their_probabilities():
    classes = [f"species number {number}" for number in range(30)]
    text = printed([predicted(classes), Prediction("b.png", reason="no such file")], classes, 80)
    line = next(line for line in text.splitlines() if "in/a.png" in line)
    cells = [cell.strip() for cell in line.strip("│").split("│")]
    assert cells[:3] == ["in/a.png", "species number 0", "0.5000"]
    assert sorted(cells[3].split(", ")) == ["species number 28 0.3000", "species number 29 0.2000"]
    assert cells[3].startswith("species number 28")
    line = next(line for line in text.splitlines() if "b.png" in line)
    assert [cell.strip() for cell in line.strip("│").split("│")] == ["b.png", "-", "-", "-", "no such file"]


def test_probabilities_are_a_dict_however_they_are_kept():
    made = Prediction("a.png", "A", Shares(("A", "B"), np.array([0.75, 0.25], np.float32)))
    assert made.to_dict() == pickle.loads(pickle.dumps(made)).to_dict()
    assert made.to_dict()["probabilities"] == {"A": 0.75, "B": 0.25}
    assert replace(made, maps={"heatmap": "a.npy"}).probabilities == {"A": 0.75, "B": 0.25}
    assert Prediction("b.png").probabilities is None


@pytest.mark.parametrize("count", [0, 1, 3])
def test_json_is_one_list_line_by_line(count):
    rows = [Prediction(f"{number}\n.png", "A", Shares(("A",), np.ones(1, np.float32))) for number in range(count)]
    assert "\n".join(json_lines(rows)) == json.dumps([row.to_dict() for row in rows], indent=2)


def test_a_row_of_many_classes_takes_little_more_than_its_numbers():
    classes = tuple(f"class-{number}" for number in range(500))
    shares = np.random.default_rng(0).random((200, 500), np.float32)
    tracemalloc.start()
    rows = tuple(Prediction(f"{index}", classes[0], Shares(classes, row)) for index, row in enumerate(shares))
    for _ in json_lines(rows):
        pass
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 200 * 2000
    frame = Predictions(classes, (*rows, Prediction("x", reason="gone"))).to_frame()
    np.testing.assert_array_equal(frame[list(classes)].to_numpy()[:-1], shares)
    assert frame[list(classes)].iloc[-1].isna().all()
    assert list(frame.columns) == ["path", "class", *classes, "error"]
