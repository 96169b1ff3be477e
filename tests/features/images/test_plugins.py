"""Formats that others read through Pillow: used where they are installed, named where they are not."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from PIL import EpsImagePlugin, Image

from features.images import entries
from features.images.decode import UndecodableError, original_image
from features.images.entries import IMAGE_SUFFIXES, to_install, what_is_there
from features.images.folder import scan_folder
from features.images.plugins import AVIF, GIT_LFS, HEIF, JPEG_XL, POSTSCRIPT, remedies, remedy_for
from heads.prediction.sources import find_sources

FAKE = """
from PIL import Image, ImageFile

class Fake(ImageFile.ImageFile):
    format = "HEIF"
    def _open(self):
        self._size, self._mode = (3, 2), "L"
    def load(self):
        if self._im is None:
            self.im = Image.new("L", self._size, 77).im
        return Image.Image.load(self)

def register_heif_opener():
    Image.register_open("HEIF", Fake, lambda prefix: prefix[4:12] == b"ftypheic")
    Image.register_extensions("HEIF", [".heic", ".heif"])
"""
READ = """
import sys
from pathlib import Path
from features.images.decode import original_image
from features.images.entries import is_image
print(is_image("a.HEIC"), is_image("a.png"), original_image(Path(sys.argv[1])).getpixel((0, 0)))
"""
HEIC = b"\0\0\0\x18ftypheic" + bytes(60)


@pytest.fixture
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow as it is with no plugin, and without AVIF, whatever is installed here."""
    monkeypatch.setattr(Image, "registered_extensions", lambda: {".png": "PNG"})
    monkeypatch.setattr(entries, "IMAGE_SUFFIXES", frozenset((".png",)))


@pytest.mark.usefixtures("_alone")
@pytest.mark.parametrize(
    ("start", "remedy"),
    [
        (HEIC, HEIF),
        (b"\0\0\0\x18ftypmif1", HEIF),
        (b"\0\0\0\x20ftypavif", AVIF),
        (b"\0\0\0\x0cJXL \r\n", JPEG_XL),
        (b"\xff\x0a", JPEG_XL),
        (b"\0\0\0\x18ftypisom", None),
        (b"\xff\xd8", None),
        (b"", None),
    ],
)
def test_a_file_that_is_not_read_says_what_to_install(start: bytes, remedy: str | None) -> None:
    assert remedy_for(start) == remedy
    if remedy is not None:
        with pytest.raises(UndecodableError) as caught:
            original_image(b"\0\0\0\x0cJXL " if remedy is JPEG_XL else start[:8] + b"heic" + bytes(9))
        assert "pip install" in str(caught.value)


def test_what_git_lfs_left_in_an_images_place_is_named() -> None:
    with pytest.raises(UndecodableError, match=GIT_LFS):
        original_image(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")


@pytest.mark.usefixtures("_alone")
def test_files_that_are_passed_over_say_it_too(tmp_path: Path) -> None:
    for name in ("A/A-1-1.png", "B/B-1-1.png", "B/a.heic", "B/b.HEIC", "B/c.jxl", "B/d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4)).save(tmp_path / name, "PNG")
    assert {"2 files not read: " + HEIF, "1 file not read: " + JPEG_XL} <= set(scan_folder(tmp_path).remarks)
    assert to_install(["a.png", "b.txt"]) == []
    notes: list[str] = []
    assert len(find_sources([str(tmp_path)], tmp_path, notes=notes)) == 2
    assert notes == ["2 files not read: " + HEIF, "1 file not read: " + JPEG_XL]
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "x.heic").write_bytes(HEIC)
    assert what_is_there(tmp_path / "only") == ("none, but 1 .heic", HEIF)
    (source,) = find_sources([str(tmp_path / "only")], tmp_path, notes=notes)
    assert source.reason == f"a folder without images, but 1 .heic; {HEIF}"
    assert len(notes) == 2  # what a reason says is not said again


def test_nothing_is_to_be_installed_for_what_is_read() -> None:
    assert not remedies().keys() & IMAGE_SUFFIXES
    assert remedy_for(b"\0\0\0\x20ftypavif") is None or ".avif" not in Image.registered_extensions()


def test_postscript_is_not_run_under_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ghostscript, ran = tmp_path / "gs", tmp_path / "ran"
    ghostscript.write_text(f"#!/bin/sh\ntouch '{ran}'\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # as before the first one: it is looked for anew
    Image.new("RGB", (4, 4)).save(tmp_path / "a.eps")
    program = (tmp_path / "a.eps").read_bytes()
    with pytest.raises(UndecodableError, match="PostScript is a program"):
        original_image((tmp_path / "a.eps").rename(tmp_path / "a.png"))
    with pytest.raises(UndecodableError, match="not an image"):
        original_image(_in_iptc(program))
    assert not ran.exists()
    assert not IMAGE_SUFFIXES & {".eps", ".ps", ".iim"}
    assert to_install(["a.eps", "b.png"]) == [f"1 file not read: {POSTSCRIPT}"]


def _in_iptc(image: bytes) -> bytes:
    """A file of IPTC that says that it holds an image of 4 x 4 as JPEG, and holds another one."""
    fields = [((3, 20), 4), ((3, 30), 4), ((3, 60), 0x0100), ((3, 120), 5)]
    header = b"".join(struct.pack(">BBBHH", 0x1C, *place, 2, value) for place, value in fields)
    return header + struct.pack(">BBBH", 0x1C, 8, 10, len(image)) + image


@pytest.mark.parametrize(
    ("package", "expected"), [(FAKE, "True True (77, 77, 77)"), ("raise ImportError('for another Pillow')", "")]
)
def test_a_plugin_is_used_once_it_is_there(tmp_path: Path, package: str, expected: str) -> None:
    (tmp_path / "pillow_heif.py").write_text(package)
    (tmp_path / "x.heic").write_bytes(HEIC)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT)))}
    command = [sys.executable, "-c", READ, str(tmp_path / "x.heic")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == expected
    assert expected or "HEIF is read once pillow-heif is there" in done.stderr
