"""One model for the options of a command and the keyword arguments of the function that it calls.

A field is an option: its name, type, default, bounds and description are said there and nowhere else. Types are what a
command line can hold; what Python may pass beside that is made so by a validator of the field.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, TypeVar, get_args

import annotated_types
import numpy as np
import typer
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from rich.markup import escape
from typer.models import ArgumentInfo, OptionInfo

from features.runtime.errors import InputError
from features.runtime.refusal import expectation

Model = TypeVar("Model", bound=BaseModel)
Function = TypeVar("Function", bound=Callable[..., Any])
A_PATH, NO_PATH = "a file or a folder", "an empty name"
"""What is said of an empty text, as of a shell's variable that is not set: to Python it is the current folder."""


@dataclass(frozen=True)
class AsText:
    """Marks a field that a command takes as text, since a word stands for one of its values; the field checks it."""


@dataclass(frozen=True)
class ShownAs:
    """What help says for a field's default: one without spaces is cut off there where it is long."""

    text: str


def option_name(field: str) -> str:
    """Returns the option that stands for a field: ``--image-size`` for ``image_size``."""
    return f"--{field.replace('_', '-')}"


def with_options(
    main: Function, model: type[BaseModel], *, before: str | None = None, more: Mapping[str, str] = MappingProxyType({})
) -> Function:
    """Gives a command that takes ``**options`` the signature that Typer reads: an option for each field.

    Args:
        main: The command; its own parameters are keyword-only where options stand before one of them.
        model: The options.
        before: The parameter that they stand before; by default they come last.
        more: What this command's help says of a field behind its description.
    """
    added = [command_option(name, field, more=more.get(name, "")) for name, field in model.model_fields.items()]
    return _put(main, added, before=before, eval_str=True)


def takes_options(function: Function, model: type[BaseModel], *, but: Collection[str] = ()) -> Function:
    """Shows the fields in the signature of a function that takes ``**options``, for help and notebooks.

    Args:
        function: The function.
        model: The options.
        but: Names of those that it does not take.
    """
    fields = ((name, field) for name, field in model.model_fields.items() if name not in but)
    added = [keyword(name, field.annotation, field.default) for name, field in fields]
    return _put(function, added, before=None, eval_str=False)


def _put(function: Function, added: list[inspect.Parameter], *, before: str | None, eval_str: bool) -> Function:
    signature = inspect.signature(function, eval_str=eval_str)
    own = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
    added = [new for new in added if new.name not in {one.name for one in own}]
    place = len(own) if before is None else [one.name for one in own].index(before)
    parameters = [*own[:place], *added, *own[place:]]
    function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    function.__annotations__ |= {one.name: one.annotation for one in added}
    return function


def command_option(
    name: str, field: FieldInfo, *, unset: str | None = None, panel: str | None = None, more: str = ""
) -> inspect.Parameter:
    """Returns a field as a parameter that Typer makes an option of.

    Args:
        name: The field's name.
        field: The field; its description is the option's help.
        unset: The help of an option that is None where it is not given, since the command looks elsewhere before the
            field's default holds.
        panel: Heading that the option stands under in help; None for the usual one.
        more: What help says behind the description.
    """
    names = (option_name(name),) if field.annotation is bool else ()  # one that is given or not, with no --no-...
    as_text = any(isinstance(part, AsText) for part in field.metadata)
    kind: Any = str | None if as_text else field.annotation
    bounds = {} if as_text else _bounds(field)
    if unset is None:
        words = next((part.text for part in field.metadata if isinstance(part, ShownAs)), None)
        shown = words or field.default is not None
        option = typer.Option(*names, help=f"{field.description or ''} {more}".strip(), show_default=shown, **bounds)
        return keyword(name, Annotated[kind, option], field.default)
    option = typer.Option(*names, help=escape(unset), show_default=False, rich_help_panel=panel, **bounds)
    return keyword(name, Annotated[kind if kind is bool else kind | None, option], None)


def keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    """Returns a parameter that is given by its name."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _bounds(field: FieldInfo) -> dict[str, Any]:
    bounds: dict[str, Any] = {}
    for rule in field.metadata:
        if isinstance(rule, annotated_types.Ge):
            bounds["min"] = rule.ge
        elif isinstance(rule, annotated_types.Le):
            bounds["max"] = rule.le
    return bounds


def with_named_paths(command: Function) -> Function:
    """Has a command refuse an empty text for a path.

    Args:
        command: Its signature is what Typer reads.
    """
    signature = inspect.signature(command, eval_str=True)
    for one in signature.parameters.values():
        if _takes_path(one.annotation):
            for said in get_args(one.annotation)[1:]:
                if isinstance(said, OptionInfo | ArgumentInfo):
                    said.parser = _named_path
    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = {name: one.annotation for name, one in signature.parameters.items()}
    return command


def _named_path(given: Any) -> Path:
    if given == "":
        raise ValueError(f"expected {A_PATH}, found {NO_PATH}")
    return Path(given)


def checked(model: type[Model], given: Mapping[str, Any], *, of: str) -> Model:
    """Returns the model of some options.

    Args:
        model: The options.
        given: Those that were given, by name.
        of: Whose they are, for the message: ``a search``.

    Raises:
        InputError: There is no such option, or a value is none that it takes; the option is named.
    """
    for name in given.keys() - model.model_fields.keys():
        near = " or ".join(get_close_matches(name, model.model_fields))
        hint = f"is {near} meant?" if near else f"there are {', '.join(model.model_fields)}"
        raise InputError(name, expected=f"an option of {of}", found="none of that name", hint=hint)
    for name, value in given.items():
        if isinstance(value, bool | np.bool_) and takes_numbers(model.model_fields[name].annotation):
            raise InputError(option_name(name), expected="a number", found=value)
        if isinstance(value, str) and not value and _takes_path(model.model_fields[name].annotation):
            raise InputError(option_name(name), expected=A_PATH, found=NO_PATH)
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        raise InputError(option_name(name), **expectation(error)) from error


def takes_numbers(annotation: Any) -> bool:
    """Whether a field is of numbers, and not of true and false, which pydantic takes for 1 and 0."""
    kinds = {*_kinds(annotation)}
    return bool(kinds & {int, float}) and bool not in kinds


def _takes_path(annotation: Any) -> bool:
    return Path in _kinds(annotation)


def _kinds(annotation: Any) -> Iterator[Any]:
    """Yields the types of which a value may be."""
    yield annotation
    for part in get_args(annotation):
        yield from _kinds(part)


def text_of(given: Any) -> Any:
    """Makes a path what the command line has of it: a validator of a field."""
    return os.fspath(given) if isinstance(given, os.PathLike) else given


def joined(given: Any) -> Any:
    """Makes a list of names what the command line has of it: a validator of a field."""
    return given if isinstance(given, str) or not isinstance(given, Iterable) else ",".join(map(str, given))


def described(model: type[BaseModel], *, but: Collection[str] = ()) -> str:
    """Returns the fields, but for some, with their descriptions, as lines of a Google docstring's section."""
    fields = ((name, field) for name, field in model.model_fields.items() if name not in but)
    return "\n".join(f"    {name}: {field.description}" for name, field in fields)


def tell_options(function: Callable[..., Any], model: type[BaseModel], *, but: Collection[str] = ()) -> None:
    """Puts the fields, but for some, in the place of ``{options}`` in a function's docstring.

    That loses the indentation of the code that it stands in, which it has up to Python 3.12 and not from 3.13 on.
    """
    if function.__doc__:
        function.__doc__ = inspect.cleandoc(function.__doc__).replace("{options}", described(model, but=but))
