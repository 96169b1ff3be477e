"""README and docs: links lead somewhere, and what they name of the project is there."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest
from conftest import ROOT

DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def anchors(text: str) -> set[str]:
    """Names of headings, as GitHub makes them."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        found = path.parent / name if name else path
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(found.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_programs_that_are_named_are_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for program in re.findall(r"\bbenchmarks/\w+\.py", text):
        assert (ROOT / program).is_file(), program
    for module in re.findall(r"python -m ((?:features|heads|search)\.\w+)", text):
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), module


def test_what_stands_beside_a_command_is_exported() -> None:
    table = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split("| command | Python |")[1]
    rows = [line.split("|")[2] for line in table.split("\n\n")[0].splitlines()[2:]]
    names = [name for row in rows for name in re.findall(r"`(\w+\.\w+)", row)]
    assert len(names) > len(rows) > 3
    for package, name in (name.split(".") for name in names):
        assert name in import_module(package).__all__, name


def test_figures_of_the_readme_are_those_that_were_measured() -> None:
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## What comes out")[2].partition("\n## ")[0]
    measured = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    told = re.findall(r"[+-]?\d+\.\d+|\d+ min \d+ s|python (?:benchmarks/|-m )[^`]+", section)
    assert len(told) > 15
    for figure in told:
        assert figure in measured, figure
