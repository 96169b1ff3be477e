"""JSON from files, which is not believed before it is checked: read at one place, and made into a model."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import TypeAdapter, ValidationError

from features.runtime.errors import InputError
from features.runtime.refusal import one_line
from features.runtime.text import shortened

Model = TypeVar("Model")
MOST_BYTES = 2**30
"""Of a file; the rows of the largest studies take some megabytes."""


def parse_json(text: str | bytes, *, finite: bool = True) -> Any:
    """Returns what JSON text says.

    Args:
        text: UTF-8, or decoded.
        finite: Whether NaN, Infinity and numbers beyond the largest float are refused: strictly they are no JSON.

    Raises:
        ValueError: It is no JSON, is nested too deeply, or has a key twice; also where it is no UTF-8.
    """
    options: dict[str, Any] = {"parse_constant": _refuse_constant, "parse_float": _finite} if finite else {}
    try:
        return json.loads(text, object_pairs_hook=_once_each, **options)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_json(path: Path, expected: str) -> Any:
    """Reads a JSON file.

    Args:
        path: The file.
        expected: What it has to be, for the message.

    Raises:
        InputError: It cannot be read, or is no JSON.
    """
    try:
        if path.is_file() and path.stat().st_size > MOST_BYTES:
            raise ValueError(f"{path.stat().st_size} bytes")
        return parse_json(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise InputError(path, expected=expected, found="no such file") from error
    except (OSError, ValueError, MemoryError) as error:
        raise InputError(path, expected=expected, found=f"something else ({error})") from error


def read_model(path: Path, kind: type[Model], expected: str) -> Model:
    """Reads a JSON file as a pydantic model, a dataclass or a typed dictionary.

    Raises:
        InputError: It cannot be read, is no JSON, or a value does not fit; its key is named.
    """
    data = read_json(path, expected)
    try:
        return TypeAdapter(kind).validate_python(data)
    except ValidationError as error:
        raise one_line(path, error) from error


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        (name, times), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the key {shortened(name, 60)!r} {times} times")
    return made


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text}, which is too large")
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name}, which is no JSON")
