"""What is in a file, told by a hash: of the very bytes that are decoded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from features.images.reading import Page, Source, open_file
from features.store.schema import DIGEST_BYTES

UNKNOWN = bytes(DIGEST_BYTES)
"""Stands for the digest of a file that cannot be read."""
_IN_MEMORY = 256 * 2**20
"""Bytes of a file that is read as a whole; a larger one is hashed piece by piece and then decoded from the disk."""


@dataclass(frozen=True)
class Content:
    """A source to decode, and the digest of its bytes.

    Attributes:
        source: The bytes; the file where it is too large to hold, or cannot be read, which the decoder then says.
        digest: BLAKE2b of 16 bytes; zeros where the file cannot be read.
    """

    source: Source
    digest: bytes


def read_content(source: Source) -> Content:
    """Reads a file, once, for its digest and to be decoded; a page has the digest of its file."""
    if isinstance(source, Page):
        return Content(source, _digest_of_pages(source.path))
    if isinstance(source, bytes):
        return Content(source, hashlib.blake2b(source, digest_size=DIGEST_BYTES).digest())
    try:
        if source.stat().st_size > _IN_MEMORY:
            return Content(source, digest_of(source))
        with open_file(source) as file:
            return read_content(file.read())
    except OSError:
        return Content(source, UNKNOWN)


def _digest_of_pages(path: Path) -> bytes:
    """``digest_of``, remembered: a file of many pages is asked for as often, and read once."""
    try:
        status = path.stat()
    except OSError:
        return UNKNOWN
    return _remembered(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _remembered(path: Path, size: int, modified: int) -> bytes:
    del size, modified  # of which another one makes it another file
    return digest_of(path)


def digest_of(path: Path) -> bytes:
    """Returns the digest of a file, in bounded memory; zeros where it cannot be read."""
    try:
        with open_file(path) as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=DIGEST_BYTES)).digest()
    except OSError:
        return UNKNOWN
