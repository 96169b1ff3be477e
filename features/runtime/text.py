"""Text that came from elsewhere, made fit to print."""

from __future__ import annotations


def printable(text: str) -> str:
    """Returns ``text`` on one line: a newline or another control character in a file name is shown escaped."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
