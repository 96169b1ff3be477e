"""docs/head-file.md says what a head's file is: its table against a file, its code run as it stands."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import h5py
import pytest
from conftest import CLASSES, ROOT, build_header
from edited_files import PLAIN, random_head

from features.runtime.errors import InputError
from heads.files.head_file import read_metadata, save_head
from heads.files.metadata import HeadMetadata
from heads.files.refitted import Refitted
from heads.files.split_recipe import SplitRecipe

TEXT = (ROOT / "docs" / "head-file.md").read_text(encoding="utf-8")
KERAS = {"backend", "keras_version", "model_config"}


def told() -> dict[str, list[str]]:
    """Type, whether it must be there, and meaning, by attribute."""
    lines = TEXT.split("| attribute |")[1].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return {name: row[1:] for row in rows for name in re.findall(r"`(\w+)`", row[0])}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    some = {"trial": 3, "trials": (3,), "value": 0.5, "temperature": 1.5, "projection": "ab" * 32, "study": "heads"}
    some |= {name: {"some": 1} for name in ("own", "versions")}
    some |= {"split": SplitRecipe(3, 0.1, 0.2, "0" * 16), "refit": Refitted(parts=("train",))}
    some |= {"spec": PLAIN, "layer": "conv1", "backbone_sha256": "ef" * 32}
    path = tmp_path_factory.mktemp("document") / "best.hdf5"
    save_head(path, random_head(PLAIN), HeadMetadata.of_store(build_header(), "cd" * 32, **some))
    return path


@pytest.fixture
def path(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(made, tmp_path))


def test_attributes_are_those_of_a_file(path: Path) -> None:
    with h5py.File(path) as file:
        assert file.attrs.keys() - KERAS == told().keys()
        for name, (kind, *_) in told().items():
            value = file.attrs[name]
            found = {"i": "int64", "f": "float64", "O": "UTF-8"}[getattr(value, "dtype", h5py.string_dtype()).kind]
            listed = " list" if getattr(value, "shape", ()) else ""
            assert kind.replace("JSON", "UTF-8").replace("3 int64", "int64 list") == found + listed, name


@pytest.mark.parametrize("name", [name for name in told() if name != "kind"])
def test_what_need_not_be_there_is_read_without(path: Path, name: str) -> None:
    with h5py.File(path, "r+") as file:
        del file.attrs[name]
    if told()[name][1].startswith("yes"):
        with pytest.raises(InputError, match=name):
            read_metadata(path)
        return
    found = getattr(read_metadata(path), name)
    default = re.search(r"\(`?(.+?)`?\)", told()[name][1])
    assert f"{found[0] if name == 'views' else found}" == default[1] if default else found in (None, "", ())


def test_a_file_of_keras_own_has_no_kind(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file.attrs["kind"]
    found = read_metadata(path)
    assert (found.classes[0], found.backbone) == ("class-0", "unknown")


def test_the_example_runs(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    monkeypatch.chdir(path.parent)
    exec(compile(example, "example", "exec"), {})
    assert capsys.readouterr().out == f"{list(CLASSES)} mobilenet 64\n"
