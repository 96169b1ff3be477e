"""The hash of a file is that of the bytes that are decoded, and a file of many pages is hashed once."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from features.images import content
from features.images.content import UNKNOWN, read_content
from features.images.reading import Page


def digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def test_a_file_is_read_for_its_bytes_and_a_large_one_is_left_on_the_disk(tmp_path, monkeypatch):
    path = tmp_path / "scan.tif"
    path.write_bytes(b"pixels")
    assert read_content(path) == content.Content(b"pixels", digest(b"pixels"))
    monkeypatch.setattr(content, "_IN_MEMORY", 3)
    assert read_content(path) == content.Content(path, digest(b"pixels"))


@pytest.mark.parametrize("source", [Path("none.tif"), Page(Path("none.tif"), 2)])
def test_what_cannot_be_read_has_no_hash(source):
    assert read_content(source) == content.Content(source, UNKNOWN)


def test_pages_have_the_hash_of_their_file_which_is_read_once_until_it_changes(tmp_path, monkeypatch):
    path = tmp_path / "volume.tif"
    path.write_bytes(b"many pages")
    read, real = [], content.digest_of

    def counting(path: Path) -> bytes:
        read.append(path)
        return real(path)

    monkeypatch.setattr(content, "digest_of", counting)
    assert {read_content(Page(path, number)).digest for number in range(1, 40)} == {digest(b"many pages")}
    assert len(read) == 1
    path.write_bytes(b"other pages")
    assert read_content(Page(path, 1)).digest == digest(b"other pages")
