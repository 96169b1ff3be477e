"""One model for the options of a command and the keyword arguments of the function that it calls.

A field is an option: its name, type, default, bounds and description are said there and nowhere else. Types are what a
command line can hold; what Python may pass beside that is made so by a validator of the field.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, TypeVar

import annotated_types
import typer
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from features.runtime.errors import InputError

Model = TypeVar("Model", bound=BaseModel)


def option_name(field: str) -> str:
    """Returns the option that stands for a field: ``--image-size`` for ``image_size``."""
    return f"--{field.replace('_', '-')}"


def with_options(main: Callable[..., Any], model: type[BaseModel]) -> None:
    """Gives a command that takes ``**options`` the signature that Typer reads: an option for each field."""
    own = list(inspect.signature(main, eval_str=True).parameters.values())[:-1]
    main.__signature__ = inspect.Signature([*own, *_command_options(model)])  # type: ignore[attr-defined]


def _command_options(model: type[BaseModel]) -> Iterator[inspect.Parameter]:
    for name, field in model.model_fields.items():
        names = (option_name(name),) if field.annotation is bool else ()  # one that is given or not, with no --no-...
        option = typer.Option(*names, help=field.description, show_default=field.default is not None, **_bounds(field))
        yield _parameter(name, field, Annotated[field.annotation, option])


def keywords(model: type[BaseModel]) -> Iterator[inspect.Parameter]:
    """Yields a keyword-only parameter for each field, for a function's signature."""
    for name, field in model.model_fields.items():
        yield _parameter(name, field, field.annotation)


def _parameter(name: str, field: FieldInfo, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=annotation)


def _bounds(field: FieldInfo) -> dict[str, Any]:
    bounds: dict[str, Any] = {}
    for rule in field.metadata:
        if isinstance(rule, annotated_types.Ge):
            bounds["min"] = rule.ge
        elif isinstance(rule, annotated_types.Le):
            bounds["max"] = rule.le
    return bounds


def checked(model: type[Model], given: Mapping[str, Any]) -> Model:
    """Returns the model of some options.

    Raises:
        InputError: A value is none that the option takes; the option is named.
        TypeError: There is no such option.
    """
    for name in given:
        if name not in model.model_fields:
            raise TypeError(f"unexpected keyword argument {name!r}; the options are {', '.join(model.model_fields)}")
    try:
        return model(**given)
    except ValidationError as error:
        first = error.errors()[0]
        expected = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
        raise InputError(option_name(str(first["loc"][0])), expected=expected, found=repr(first["input"])) from error


def described(model: type[BaseModel]) -> str:
    """Returns the fields with their descriptions, as lines of a Google docstring's section."""
    return "\n".join(f"        {name}: {field.description}" for name, field in model.model_fields.items())
