"""Text that people edit: a mark at its start and Windows' ends of lines are no error, other encodings are named."""

from __future__ import annotations

import ast
import codecs
from pathlib import Path

import pytest
from conftest import ROOT

from features.runtime.errors import InputError
from features.runtime.files import read_text, why_no_file
from search.setup.space import read_study_file

STUDY = 'name = "q"\ndescription = "Dr\u00fcsen"\n[space]\ndropout = { low = 0.0, high = 0.6 }\n'


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_study_file_of_any_editor_is_read(tmp_path, mark, end):
    path = tmp_path / "q.toml"
    path.write_bytes(mark + STUDY.replace("\n", end).encode())
    assert read_study_file(path).name == "q"
    assert read_text(path) == STUDY


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (STUDY.encode("utf-16"), "expected text in UTF-8, found UTF-16; save it as UTF-8"),
        (codecs.BOM_UTF16_BE + STUDY.encode("utf-16-be"), "expected text in UTF-8, found UTF-16"),
        (STUDY.encode("latin-1"), "expected text in UTF-8, found other bytes in line 2; save it as UTF-8"),
    ],
)
def test_another_encoding_is_named(tmp_path, content, said):
    path = tmp_path / "q.toml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_study_file(path)


def test_why_there_is_no_file_is_said_of_whatever_a_path_may_be(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    for name, why in {
        "file": "",
        ".": "a folder",
        "none": "no such file",
        "file/none": "no such file",
        "a\0b": "no such file",
        "loop": "Too many levels of symbolic links",
        "x" * 300: "File name too long",
        "/dev/null": "no regular file",
    }.items():
        assert why_no_file(tmp_path / name) == why

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    assert why_no_file(tmp_path / "file") == "no permission to read it"


BINARY_OPENS = ("h5py.h5a.open", "archive.open", "os.open", "Image.open", "_opener().open", "_open", "self._open")
"""HDF5, parts of archives, descriptors, pictures, addresses."""


def test_no_file_of_text_is_opened_in_the_encoding_of_the_surroundings():
    """Every call of ``open``, ``read_text`` and ``write_text`` in the product names its encoding, or is of bytes."""
    found = []
    for path in (path for package in ("features", "heads", "search") for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or any(keyword.arg == "encoding" for keyword in node.keywords):
                continue
            called = ast.unparse(node.func)
            modes = [str(word.value) for word in node.args if isinstance(word, ast.Constant)]
            opens = called not in BINARY_OPENS and called.split(".")[-1] == "open" and not any("b" in m for m in modes)
            if opens or called.endswith((".read_text", ".write_text")):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}")
    assert not found
