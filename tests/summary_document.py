"""docs/summary.md, made of the docstrings of what ``summary.json`` is made of.

python tests/summary_document.py > docs/summary.md
"""

from __future__ import annotations

import re
import sys
from dataclasses import fields, is_dataclass
from inspect import cleandoc
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from search.record.results import OMIT_DEFAULT
from search.record.summary import Summary

BEGINNING = """\
# summary.json

`summary.json` in a study directory says what the study found, for programs; `report.html` says it for people. It is
written at the end of a search, and anew whenever the search goes on and ends again. In Python,
`open_study("studies/scans").summary` is the same as an object (`search.Summary`), and has the keys as attributes.

What is not known is null. Keys that are marked with * are left out if they would be null, empty, false or 0; in studies
of earlier versions others may be missing, too. Later versions may add keys. Where the article's head has not run to its
end, `article` is `{"number": null, "value": null}`.

This page is made from the docstrings of the code (`python tests/summary_document.py > docs/summary.md`).
"""
NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false"}


def document() -> str:
    """The whole page: a table for each kind of object, in the order in which they are met."""
    found: list[type] = [Summary]
    tables = [table(kind, found) for kind in found]  # which grows as they are met
    return "\n".join([BEGINNING, *tables])


def table(kind: type, found: list[type]) -> str:
    """What an object is, and its keys: type and meaning."""
    summary, told = described(kind)
    base = next((one for one in kind.__mro__[1:] if is_dataclass(one)), None)
    taken = {one.name for one in fields(base)} if base else set()
    hints = get_type_hints(kind)
    rows = []
    for one in fields(kind):
        if one.name not in taken:
            mark = " *" if one.metadata == OMIT_DEFAULT else ""
            rows.append(f"| `{one.name}`{mark} | {in_words(hints[one.name], found)} | {told[one.name]} |")
    if base and base not in found:
        found.append(base)
    more = f"\nAnd the keys of [{base.__name__}](#{base.__name__.lower()}).\n" if base else ""
    lines = [f"## {kind.__name__}", "", summary, "", "| key | type | meaning |", "|---|---|---|", *rows]
    return "\n".join(lines) + "\n" + more


def described(kind: type) -> tuple[str, dict[str, str]]:
    """What the docstring says of the object, and of each of its fields."""
    text, _, rest = cleandoc(kind.__doc__ or "").replace("``", "`").partition("\n\nAttributes:\n")
    parts = re.split(r"^ {4}(\w+): ", rest, flags=re.MULTILINE)[1:]
    meanings = (re.sub(r"\bNone\b", "null", " ".join(part.split())) for part in parts[1::2])
    return " ".join(text.split()), dict(zip(parts[::2], meanings, strict=True))


def in_words(hint: Any, found: list[type]) -> str:
    """A type as JSON has it; kinds of objects that are met are added to those that are ``found``."""
    of = get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(in_words(one, found) for one in of if one is not NoneType) + ", or null" * (NoneType in of)
    if get_origin(hint) is Literal:
        return " or ".join(f"`{one}`" for one in of)
    if get_origin(hint) is tuple:
        return f"list of {several(in_words(of[0], found))}"
    if get_origin(hint) is dict:
        return "object" if of[1] is Any else f"object of {several(in_words(of[1], found))}"
    if is_dataclass(hint):
        if hint not in found:
            found.append(hint)
        return f"[{hint.__name__}](#{hint.__name__.lower()})"
    return NAMES[hint]


def several(words: str) -> str:
    """Those of a type: ``numbers or null``."""
    one, _, null = words.partition(", ")
    return one + "s" * (one in NAMES.values()) + f" {null}" * bool(null)


if __name__ == "__main__":
    sys.stdout.write(document())
