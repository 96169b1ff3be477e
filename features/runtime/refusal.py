"""What pydantic found wrong, as the one line that a user gets."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from features.runtime.errors import InputError


def one_line(where: str | Path, error: ValidationError, prefix: str = "") -> InputError:
    """Returns the refusal of the first value that is wrong.

    Args:
        where: The file that it stands in.
        error: What pydantic raised.
        prefix: Of the key, where what was validated is only a part of the file.
    """
    key = prefix + ".".join(str(part) for part in error.errors()[0]["loc"])
    return InputError(where, field=key.rstrip("."), **expectation(error))


def expectation(error: ValidationError) -> dict[str, str]:
    """Returns what was expected of the first value that is wrong, and mostly what was found: for an ``InputError``."""
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, expected ").removeprefix("Input should be ")
    message = message.partition(" or instance of ")[0]  # a class of ours says nothing to who wrote a file
    if first["type"] == "value_error":
        return {"expected": message}
    if first["type"] == "extra_forbidden":
        return {"expected": "no such key", "found": repr(first["input"])}
    if first["type"] == "missing":
        return {"expected": "a value", "found": "none"}
    return {"expected": message[0].lower() + message[1:], "found": repr(first["input"])}
