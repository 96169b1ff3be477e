"""Standard output and error as a command finds them: of any encoding, closed, or with nobody at the other end.

What an encoding cannot hold is written in plain characters: a few signs by their look (``+-`` for a plus-minus sign),
all else, a class's name or a file's, as Python would escape it, so that different names stay different.
"""

from __future__ import annotations

import codecs
import os
import sys
from typing import NoReturn

PLAIN = {
    **{"\u00b1": "+-", "\u00d7": "x", "\u00b7": "*", "\u00b2": "^2", "\u00b5": "u", "\u00b0": " degrees"},
    **{"\u2013": "-", "\u2014": "-", "\u2212": "-", "\u2026": "...", "\u2192": "->", "\u2190": "<-", "\u2022": "*"},
    **{"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2264": "<=", "\u2265": ">=", "\u2248": "~"},
    **{"\u00a0": " ", "\u202f": " ", "\u2009": " ", "\u2588": "#", "\u2501": "-", "\u2500": "-", "\u2502": "|"},
}
"""Signs that an old terminal lacks, by what looks or reads like them."""
_HANDLER = "bottleneck.plain"


def plain(char: str) -> str:
    """Returns what stands for a character where it cannot be shown: see the module."""
    return PLAIN.get(char) or ascii(char)[1:-1]


def _plain(error: UnicodeError) -> tuple[str, int]:
    """An error handler of ``codecs``: see the module."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(plain, error.object[error.start : error.end])), error.end


codecs.register_error(_HANDLER, _plain)


def settle_streams() -> None:
    """Makes standard output and error take every text, and stand for what is closed: called once, before all else."""
    fill_closed()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115  as long as the process
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_HANDLER)


def fill_closed() -> None:
    """Opens nothing in the place of each standard descriptor that is closed, as in a daemon.

    Else the next file that is opened would have its number, and what C++ says would be written into that.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # which takes the lowest number that is free


def use_utf8() -> None:
    """Begins this process anew in Python's UTF-8 mode where names of files would be read as ASCII.

    So a ``C`` locale has it with ``PYTHONUTF8=0``: a folder's name is a class's name, which a store keeps as UTF-8.
    What is printed stays in the encoding that the terminal was said to have. Does not return where it begins anew.
    Where Python itself was called without that mode, as by ``-X utf8=0``, it goes on as it is.
    """
    if os.name != "posix" or sys.flags.utf8_mode or not _is_ascii(sys.getfilesystemencoding()):
        return
    if os.environ.get("PYTHONUTF8") == "1":  # and yet there is no such mode: nor would there be after the next time
        return
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    os.environ["PYTHONIOENCODING"] = os.environ.get("PYTHONIOENCODING") or encoding
    os.environ["PYTHONUTF8"] = "1"
    _again()


def _again() -> NoReturn:
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _is_ascii(encoding: str) -> bool:
    return codecs.lookup(encoding).name == "ascii"


def drop_output() -> None:
    """Lets what is still to be written to standard output go nowhere: nobody reads it any more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
