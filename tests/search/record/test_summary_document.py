"""docs/summary.md is what the code says of ``summary.json``."""

from __future__ import annotations

import json
import re

from conftest import ROOT
from summary_document import document

TEXT = (ROOT / "docs" / "summary.md").read_text(encoding="utf-8")


def test_it_is_made_of_the_docstrings():
    assert document() == TEXT, "python tests/summary_document.py > docs/summary.md"


def test_the_keys_of_a_studys_summary_are_in_it():
    table = TEXT.partition("## Summary")[2].partition("\n## ")[0]
    told = re.findall(r"^\| `(\w+)`", table, re.MULTILINE)
    found = json.loads((ROOT / "tests" / "archives" / "finished" / "summary.json").read_text(encoding="utf-8"))
    assert [name for name in told if name in found] == list(found)
