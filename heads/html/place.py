"""Where a document may be written: in the place of another one of ours, and of nothing else."""

from __future__ import annotations

from pathlib import Path

from features.runtime.errors import InputError

_BEGINS = b"<!DOCTYPE html>"
_MARK = b"default-src 'none'; script-src 'unsafe-inline'"
"""Of the policy that every document of ours begins with."""
_HEAD = 2000


def check_document(option: str, path: Path) -> None:
    """Refuses a place where another file than a document of ours would be lost.

    Args:
        option: That named it.
        path: The file to write.

    Raises:
        InputError: Naming both; nothing was written.
    """
    if path.exists() and not _is_document(path):
        found = "a folder" if path.is_dir() else f"another file, {path}"
        raise InputError(option, expected="a new file, or a report to replace", found=found, hint="it stays as it is")


def _is_document(path: Path) -> bool:
    """Whether a file is a document of ours, or is empty."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    return not head or (head.startswith(_BEGINS) and _MARK in head)
