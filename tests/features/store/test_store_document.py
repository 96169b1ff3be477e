"""docs/store.md says what the store is: its tables against a store, its code run as it stands."""

import re
import runpy
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import ROOT, build_header, build_store, fill_store

from features.store import schema
from features.store.projection import Projection
from features.store.reader import FeatureStore
from features.store.schema import REQUIRED, RowState

TEXT = (ROOT / "docs" / "store.md").read_text(encoding="utf-8")


def first_cells(heading: str) -> list[list[str]]:
    """Cells of the table whose first heading is ``heading``, without back quotes."""
    lines = TEXT.split(f"| {heading} |")[1].splitlines()[2:]
    table = lines[: next((i for i, line in enumerate(lines) if not line.startswith("|")), len(lines))]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in table]


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("document") / "store.h5"
    projection = Projection(np.eye(9, 8, dtype=np.float32), "ab" * 32)
    more = {"arrays_sha256": "cd" * 32, "layer": "conv1", "backbone_sha256": "ef" * 32, "parts": ("train",) * 8}
    header = replace(build_header(rows=8), modified=(1,) * 8, projection=projection, **more)
    return fill_store(path, header)


def test_datasets_and_attributes_are_those_of_a_store(path):
    with h5py.File(path) as file:
        assert {row[0] for row in first_cells("dataset")} == {f"/{name}" for name in file}
        told = {row[0]: row[2] for row in first_cells("attribute")}
        assert told.keys() == file.attrs.keys()
    assert {name for name, must in told.items() if must.startswith("yes")} == {"schema", *REQUIRED}


def test_the_fingerprint_is_of_the_keys_that_are_named_in_their_order(path, monkeypatch):
    header, hashed = FeatureStore(path).header, []
    monkeypatch.setattr(schema.json, "dumps", lambda content, **_: hashed.append(content) or "")
    assert replace(header, resize="crop", intensity="0:4095").fingerprint
    told = TEXT.partition("It has these keys, in this order:")[2].partition("Two stores")[0]
    places = [told.index(f"`{key}`") for key in hashed[0]]
    assert places == sorted(places)


def test_states_are_those_of_the_code():
    assert {row[0].upper(): int(row[1]) for row in first_cells("state")} == {state.name: state for state in RowState}


def test_what_need_not_be_there_is_read_without(tmp_path):
    path = build_store(tmp_path / "store.h5", rows=8)
    with h5py.File(path, "r+") as file:
        for name, *_, must, _ in first_cells("attribute"):
            if must.startswith("no"):
                del file.attrs[name]
        del file["sizes"]
    header = FeatureStore(path).header
    assert (header.alpha, header.weights_sha256, header.batch_size) == (None, "", 32)
    assert (header.created, header.versions, header.sizes) == ("", {}, (0,) * 8)


def test_the_example_runs(tmp_path, monkeypatch, capsys):
    build_store(tmp_path / "store.h5", rows=8, skipped=[0])
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len([line for line in example.splitlines() if line]) == 5  # as the document says
    (tmp_path / "example.py").write_text(example)
    monkeypatch.chdir(tmp_path)
    runpy.run_path("example.py")
    assert capsys.readouterr().out == "(7, 2, 2, 8) CNV CNV/CNV-1000-2.png\n"
