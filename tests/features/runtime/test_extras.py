"""What is said of extras is so: the name that installs one, and one way to say it."""

from __future__ import annotations

import re
import tomllib

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
