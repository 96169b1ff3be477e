"""The one place for numbers and lists as people read them, and for text from elsewhere made fit to print."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable
from datetime import UTC, datetime

_BREAKS = re.compile(r"\s*[\r\n]\s*")
_UTC = "%Y-%m-%dT%H:%M:%SZ"


def printable(text: str) -> str:
    """Returns ``text`` on one line: a newline or another control character in a file name is shown escaped."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def one_line(text: str) -> str:
    """Returns a message on one line: a line break with the white space around it is a space, all else as ``printable``.

    Other white space stays as it is: it may be a file's name.
    """
    return printable(_BREAKS.sub(" ", text.strip()))


def shortened(text: str, most: int) -> str:
    """Returns the first ``most`` characters of a text, and ``...`` where there are more."""
    return text if len(text) <= most else text[:most] + "..."


def capitalized(text: str) -> str:
    """Returns a text with a capital first letter, as a sentence begins; the others stay as they are."""
    return text[:1].upper() + text[1:]


def abridged(text: str, most: int) -> str:
    """Returns a text, of a longer one its two ends with ``...`` between: where its end says what is wrong."""
    return text if len(text) <= most else f"{text[: most // 2]}...{text[-(most // 2) :]}"


def told_apart(names: Collection[str], taken: Collection[str], form: str) -> dict[str, str]:
    """Returns what a table calls the columns of some names, any of which may be that of another column.

    Args:
        names: From elsewhere.
        taken: What the other columns are called.
        form: What becomes of a name that is taken: ``p({})``; once more where that is one of the names, too.
    """
    columns = {}
    for name in names:
        column = name
        while column in taken or (column != name and column in names):
            column = form.format(column)
        columns[name] = column
    return columns


def composed(text: str) -> str:
    """Returns a name in the one spelling (NFC) in which names are compared: an accent may be written in two ways."""
    return unicodedata.normalize("NFC", text)


def percent(share: float | None, decimals: int = 2) -> str:
    """Returns a share (0 to 1) such as ``86.25%``; ``-`` for None."""
    return "-" if share is None else f"{100 * share:.{decimals}f}%"


def decimal(value: float | None) -> str:
    """Returns a score or a loss with four places; ``-`` for None."""
    return "-" if value is None else f"{value:.4f}"


def duration(seconds: float) -> str:
    """Returns seconds in the two units that tell most: ``0.25 s``, ``90 s``, ``5 min 21 s``, ``2 h 5 min``."""
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def utc_text(seconds: float) -> str:
    """Returns a time, in seconds since 1970, as ``2024-02-29T23:59:59Z``: ISO 8601, in UTC, to the second."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime(_UTC)


def utc_seconds(text: str) -> int | None:
    """Returns the seconds since 1970 that ``utc_text`` was given; None where it is another text."""
    try:
        return int(datetime.strptime(text, _UTC).replace(tzinfo=UTC).timestamp())
    except ValueError:
        return None


def three_digits(value: float) -> str:
    """Returns a measured number in three significant digits, never with an exponent: ``9.37``, ``1,234``."""
    return f"{value:,.0f}" if value >= 999.5 else f"{value:.3g}"


def milliseconds(value: float | None) -> str:
    """Returns a time as ``0.312 ms``, ``37.2 ms`` or ``1,204 ms``; ``-`` for None."""
    return "-" if value is None else f"{three_digits(value)} ms"


def counted(number: int, what: str) -> str:
    """Returns ``1 patient``, ``1,234 patients``: for a word whose plural takes an s."""
    return f"{number:,} {numbered(number, what)}"


def numbered(number: int, what: str) -> str:
    """Returns ``patient``, or ``patients`` where there are several: the word of ``counted`` without the number."""
    return what if number == 1 else f"{what}s"


def listed(items: Iterable[object], most: int) -> str:
    """Returns the first ``most`` items with commas between them, and how many more there are."""
    texts = [*map(str, items)]
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")
