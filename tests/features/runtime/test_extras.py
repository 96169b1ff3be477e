"""What is said of extras is so: the name that installs one, and one way to say it."""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from itertools import chain

from conftest import ROOT

from features.runtime.extras import extra_hint

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CODE = [path for package in ("features", "heads", "search") for path in sorted((ROOT / package).rglob("*.py"))]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OF_A_CHECKOUT = "pip install -q -e '.[test]'"
"""The one command that installs the project and an extra at once."""


def test_the_hint_names_this_project():
    assert extra_hint("heic") == f"pip install '{PROJECT['name']}[heic]'"


def test_messages_name_extras_that_there_are():
    named = {name for path in CODE for name in re.findall(r"""extra_hint\(["'](\S+?)["']\)""", path.read_text())}
    assert named == {"cluster", "dashboard", "dicom", "heic", "parquet"}
    assert named <= PROJECT["optional-dependencies"].keys()


def test_an_extra_is_installed_by_one_command_wherever_it_is_said():
    for path in (*CODE, *DOCUMENTS):
        text = path.read_text().replace(OF_A_CHECKOUT, "")
        assert "'.[" not in text, path
        if path.suffix == ".md":
            named = {name for names in re.findall(r"'[\w-]+\[([\w,-]+)\]'", text) for name in names.split(",")}
            assert named <= PROJECT["optional-dependencies"].keys(), path
        elif path.name != "extras.py":
            assert f"'{PROJECT['name']}[" not in text, path


def test_a_package_has_one_lower_bound_wherever_it_is_named():
    bounds = defaultdict(set)
    for line in chain(PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()):
        name, bound = re.fullmatch(r"([\w-]+)(?:\[[\w,-]+\])?>=([\d.]+)", line).groups()
        bounds[name].add(bound)
    assert {name: told for name, told in bounds.items() if len(told) > 1} == {}


def test_the_pythons_that_it_is_for_are_said_to_be_so():
    said = (re.fullmatch(r"Programming Language :: Python :: 3\.(\d+)", line) for line in PROJECT["classifiers"])
    minors = [int(match[1]) for match in said if match]
    assert PROJECT["requires-python"] == f">=3.{minors[0]},<3.{minors[-1] + 1}"
    *others, last = (f"3.{minor}" for minor in minors)
    assert f"You need Python {', '.join(others)} or {last} " in (ROOT / "README.md").read_text()
