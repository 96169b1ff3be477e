"""The function that ``--head MODULE:FUNCTION`` names: how it is found and imported, and what is recorded of it."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ConfigDict

from features.runtime.errors import InputError
from features.runtime.text import printable

Build = Callable[[Any, tuple[int, int, int], int], Any]
"""``build(trial, (height, width, channels), classes)``."""
_EXPECTED = "MODULE:FUNCTION or FILE.py:FUNCTION"


class OwnHeadRecord(BaseModel):
    """What ``study.json`` keeps of the function.

    Attributes:
        function: As it was named.
        file: Name of the file that it stands in; empty where there is none, as in a notebook.
        sha256: Of that file, or of the function's own text; empty where there is neither.
    """

    model_config = ConfigDict(frozen=True)

    function: str
    file: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class OwnFunction:
    """A function that was found.

    Attributes:
        call: The function.
        record: What is recorded of it.
    """

    call: Build
    record: OwnHeadRecord

    @property
    def where(self) -> str:
        """The file that it stands in, else its name, for messages."""
        return self.record.file or self.record.function


def find_function(named: str, given: Build | None = None) -> OwnFunction:
    """Returns the function that ``--head`` names, or the one given in Python.

    Args:
        named: ``MODULE:FUNCTION`` or ``FILE.py:FUNCTION``; of one that was given, its name.
        given: The function itself.

    Raises:
        InputError: There is no such module, file or function, or its import fails.
    """
    if given is None:
        module_name, _, name = named.rpartition(":")
        if not module_name or not name.isidentifier():
            raise InputError("--head", expected=_EXPECTED, found=named)
        module = _import(module_name)
        given = getattr(module, name, None)
        if not callable(given):
            there = [key for key, value in vars(module).items() if inspect.isfunction(value)]
            near = get_close_matches(name, there) or there[:5]
            found = "no such function" if given is None else type(given).__name__
            hint = f"there is {', '.join(near)}" if near else None
            raise InputError(module_name, field=name, expected="a function", found=found, hint=hint)
    file, text = _source(given)
    sha256 = hashlib.sha256(text).hexdigest() if text else ""
    return OwnFunction(given, OwnHeadRecord(function=named, file=file, sha256=sha256))


def name_of(function: Build) -> str:
    """Returns what a function that was given in Python is called: ``MODULE:FUNCTION``.

    With some arguments fixed it is ``MODULE:partial(FUNCTION)``, which no command can mean: these are in no record.
    """
    whole = _whole(function)
    kind = whole if hasattr(whole, "__qualname__") else type(whole)
    name = kind.__qualname__ if whole is function else f"partial({kind.__qualname__})"
    return f"{kind.__module__}:{name}"


def _whole(function: Build) -> Build:
    """A function without the arguments that ``functools.partial`` has fixed."""
    while isinstance(function, partial):
        function = function.func
    return function


def has_command(head: str) -> bool:
    """Whether a command line can name a function: one of a notebook or a script, or within another, only Python has."""
    module_name, _, name = head.rpartition(":")
    return module_name not in ("", "__main__") and name.isidentifier()


def _import(place: str) -> ModuleType:
    """Imports a module by its name, or from its file; beside it, and beside where we are, there may be others."""
    path = Path(place)
    is_file = path.suffix == ".py"
    if is_file and not path.is_file():
        raise InputError("--head", expected=_EXPECTED, found=f"no file {place}")
    with _looking_in(path.absolute().parent if is_file else Path.cwd()):
        try:
            return _from_file(path) if is_file else importlib.import_module(place)
        except ModuleNotFoundError as error:
            if not is_file and error.name and (place == error.name or place.startswith(f"{error.name}.")):
                hint = "modules are looked for in the current folder and among the installed packages"
                raise InputError("--head", expected=_EXPECTED, found=f"no module {place}", hint=hint) from error
            raise InputError(place, expected="a module that can be imported", found=raised(error, place)) from error
        except Exception as error:
            raise InputError(place, expected="a module that can be imported", found=raised(error, place)) from error


def _from_file(path: Path) -> ModuleType:
    name = path.stem
    there = sys.modules.get(name)
    if there is not None and Path(getattr(there, "__file__", None) or "").absolute() != path.absolute():
        name = f"own_head_{name}"  # another module has the name
    spec = importlib.util.spec_from_file_location(name, path.absolute())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # Keras looks there for the classes of its layers
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _looking_in(folder: Path) -> Iterator[None]:
    sys.path.insert(0, os.fspath(folder))
    try:
        yield
    finally:
        sys.path.remove(os.fspath(folder))


def _source(function: Build) -> tuple[str, bytes]:
    """The name of the file that a function stands in, and its text; of one without a file its own text."""
    whole = inspect.unwrap(_whole(function))
    try:
        file = Path(inspect.getfile(whole if inspect.isroutine(whole) else type(whole)))
        if file.is_file():
            return file.name, file.read_bytes()
        return "", inspect.getsource(whole).encode()
    except (OSError, TypeError):
        return "", b""


def raised(error: Exception, file: str) -> str:
    """Returns an exception in a line: its kind, the line of the file where it came from, and what it says."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame.lineno for frame in frames if Path(frame.filename).name == Path(file).name and file]
    at = f" in line {own[-1]}" if own else ""
    text = printable(" ".join(str(error).split()))[:200]
    return f"{type(error).__name__}{at}" + (f" ({text})" if text else "")
