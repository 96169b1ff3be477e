"""The notebook of the documents, executed as it stands."""

from __future__ import annotations

import ast
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

NOTEBOOK = ROOT / "docs" / "tour.ipynb"


def cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def written() -> nbformat.NotebookNode:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    return notebook


def test_it_goes_through_the_door_only(written):
    tree = ast.parse("\n".join(cell.source for cell in cells(written)))
    ours = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)} - {"pathlib", "PIL"}
    assert ours == {"features", "heads", "search"}


def test_its_outputs_are_there_and_name_no_machine(written):
    assert all(cell.outputs for cell in cells(written))
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert "Traceback" not in text
    assert "UserWarning" not in text
    assert str(ROOT) not in text


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_it_runs_as_it_stands(written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.from_dict(written)
    resources = {"metadata": {"path": str(tmp_path)}}
    ended = NotebookClient(notebook, timeout=900, kernel_name="python3", resources=resources).execute()
    verdict, later = (_text(ended, source) for source in ("study.verdict", 'open_study("tour/study").verdict'))
    assert verdict == later
    assert "test images" in verdict
    assert (tmp_path / "tour" / "best.hdf5").is_file()
    kinds = {kind for cell in cells(ended) for output in cell.outputs for kind in output.get("data", {})}
    assert {"application/vnd.plotly.v1+json", "image/png", "text/html"} <= kinds


def _text(notebook: nbformat.NotebookNode, source: str) -> str:
    cell = next(cell for cell in cells(notebook) if cell.source.strip().endswith(source))
    return str(cell.outputs[-1]["data"]["text/plain"])
