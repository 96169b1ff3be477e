"""What can go wrong in a way that the user can mend, and how it is said.

BottleneckError          exit status 1: the work could not be finished
├── DiskFullError        there is no room for a file
└── InputError           exit status 2: what was given does not fit
"""

from __future__ import annotations

import errno
import signal
from copy import copy
from os import PathLike
from typing import Any

from features.runtime.text import one_line

_NOTHING = object()


class BottleneckError(Exception):
    """An expected failure: printed as one line, without a traceback."""

    exit_status = 1

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles by the finished message: exceptions are otherwise made anew from their arguments alone."""
        return _again, (type(self), str(self), dict(vars(self)))


class DiskFullError(BottleneckError):
    """There is no room for a file.

    Args:
        where: The file.
        why: What there is no room in, and how to make some.
        then: What to do once there is room.

    Attributes:
        where: As given.
        why: As given.
    """

    def __init__(self, where: str | PathLike[str], why: str, *, then: str = "run the same command again") -> None:
        super().__init__(f"{where}: {why} and {then}")
        self.where, self.why = where, why

    @classmethod
    def of(cls, number: int | None, where: str | PathLike[str], room: str) -> DiskFullError:
        """Returns the error of a file that the system has no room for.

        Args:
            number: Of the system's own error: that a single file may not be as large says nothing of the disk.
            where: The file.
            room: What there is on the disk, and what the file would need.
        """
        if number == errno.EFBIG:
            return cls(where, "larger than a file may be here (ulimit -f, or the file system); raise that limit")
        return cls(where, f"disk full: {room}; make room")


class Terminated(KeyboardInterrupt):
    """SIGTERM, where it is heeded: cleaned up after like Ctrl-C, which whoever knows no better may take it for."""

    exit_status = 143  # 128 + SIGTERM, as shells have it


STOPS: dict[int, type[KeyboardInterrupt]] = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}
"""The signals that ask a process to stop, and what each of them raises."""


class InputError(BottleneckError):
    """Input that does not fit: which file, which field, what was expected, what was found.

    Args:
        where: The file, folder or option at fault.
        field: The field in it, if one can be named.
        expected: The rule, in words.
        found: What was there instead; shown as it is.
        hint: What to do about it, if there is something to do.

    Attributes:
        where: As given, as text.
        field: As given.
    """

    exit_status = 2

    def __init__(
        self,
        where: str | PathLike[str],
        *,
        field: str | None = None,
        expected: str,
        found: object = _NOTHING,
        hint: str | None = None,
    ) -> None:
        place = f"{where}: {field}" if field else f"{where}"
        tail = "" if found is _NOTHING else f", found {found}"
        super().__init__(f"{place}: expected {expected}{tail}" + (f"; {hint}" if hint else ""))
        self.where, self.field = str(where), field

    def within(self, where: str | PathLike[str]) -> InputError:
        """Returns the same refusal with the file that it is about in front."""
        outer = copy(self)
        BottleneckError.__init__(outer, f"{where}: {self}")  # which makes it one line again
        return outer

    def advising(self, hint: str) -> InputError:
        """Returns the same refusal with what to do about it behind."""
        more = copy(self)
        BottleneckError.__init__(more, f"{self}; {hint}")
        return more


def _again(kind: type[BottleneckError], message: str, attributes: dict[str, Any]) -> BottleneckError:
    error = kind.__new__(kind)
    BottleneckError.__init__(error, message)
    vars(error).update(attributes)
    return error
