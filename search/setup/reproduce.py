"""A resolved study as what it was started with: the study file of its space, and the command line."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from features.runtime.options import option_name
from search.setup.config import StudyConfig
from search.setup.options import study_options
from search.setup.own_function import has_command
from search.setup.stores import with_name


def to_toml(config: StudyConfig) -> str:
    """Returns a study file of the resolved space; ``search.setup.space.read_study_file`` reads it back."""
    lines = [f"name = {_value(config.name)}", "", "[space]"]
    lines += [f"{name} = {_value(domain)}" for name, domain in config.space.items()]
    return "\n".join(lines) + "\n"


def command_line(config: StudyConfig) -> str:
    """Returns the command that runs this study anew, with its study file in the current folder."""
    return " \\\n    ".join(["python -m search.run", *map(shlex.join, option_words(_options(config)))])


def python_call(config: StudyConfig) -> str:
    """Returns the call that runs a study of heads anew whose function no command line can name."""
    given = {name: value for name, value in _options(config).items() if value is not None and value is not False}
    given = {name: one[0] if isinstance(one, list) and len(one) == 1 else one for name, one in given.items()}
    told = [f"{name}={_function(config) if name == 'head' else repr(value)}" for name, value in given.items()]
    return f"run_study({', '.join(told)})"


def resume_command(config: StudyConfig, folder: Path, option: str) -> str:
    """Returns the command with which a study goes on; the call where no command line can name its heads' function.

    Args:
        config: The study's.
        folder: The study directory.
        option: ``--resume`` or ``--join``.
    """
    if config.head and not has_command(config.head):
        return f"run_study(out={str(folder)!r}, {option.removeprefix('--')}=True, head={_function(config)})"
    again = f" --head {shlex.quote(config.head)}" if config.head else ""
    return f"python -m search.run --out {shlex.quote(str(folder))} {option}{again}"


def _function(config: StudyConfig) -> str:
    """What its heads' function is called where it stands."""
    name = (config.head or "").rpartition(":")[2].rpartition(".")[2]
    return name if name.isidentifier() else "build"


def _options(config: StudyConfig) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, stores in config.stores_by_name.items():
        for part, store in stores.given.items():
            options.setdefault(part, []).append(with_name(name, store.path))
    options |= {} if config.head else {"study": f"{config.name}.toml"}
    options |= {"out": f"{config.name}-again"}
    options |= {name: getattr(config, name) for name, option in study_options() if option.printed}
    for part in ("validation", "test"):
        if part not in config.stores.given and not (part == "validation" and config.folds):
            options[f"{part}_fraction"] = getattr(config.split, part)
    return options


def option_words(options: Mapping[str, Any]) -> Iterator[list[str]]:
    """Yields the words of each option of a command line: what is None or False is none, of a list each one is."""
    for name, value in options.items():
        for one in value if isinstance(value, list | tuple) else [value]:
            if one is True:
                yield [option_name(name)]
            elif one is not None and one is not False:
                yield [option_name(name), str(one)]


def _value(value: Any) -> str:
    """A value in TOML, of the kinds that a study file has: JSON's numbers, lists and most strings are TOML's too."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_value(one)}" for name, one in value.items()) + " }"
    # TOML knows no surrogate pairs, which JSON's ASCII is full of; and it takes no delete character as it is.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
