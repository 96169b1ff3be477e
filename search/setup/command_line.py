"""The options of a search as the command line of a function that Typer runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from features.runtime.options import command_option
from search.setup.images import ImageOptions
from search.setup.options import RunOptions, help_of


def search_options(
    *, without: Collection[str] = (), help_overrides: Mapping[str, str] = MappingProxyType({}), with_images: bool = True
) -> list[inspect.Parameter]:
    """Returns the options of a search; what is not given on a command line is None.

    Args:
        without: Names of those to leave out.
        help_overrides: Help of those that do something else in this command, by name.
        with_images: Whether those of an extraction come, too.
    """
    fields = {name: field for name, field in RunOptions.model_fields.items() if name not in without}
    helps = {name: help_of(field, help_overrides.get(name)) for name, field in fields.items()}
    options = [command_option(name, field, unset=helps[name]) for name, field in fields.items()]
    if with_images:
        panel = "With --images, as for features.extract"
        options += [
            command_option(name, field, unset=field.description or "", panel=panel)
            for name, field in ImageOptions.model_fields.items()
        ]
    return options


def signature_of(main: Callable[..., Any], options: Sequence[inspect.Parameter]) -> None:
    """Makes options the command line of ``main``."""
    main.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    main.__annotations__ = {option.name: option.annotation for option in options}
