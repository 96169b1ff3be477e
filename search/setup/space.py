"""A study file (studies/*.toml): what a trial may suggest, checked key by key."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from features.runtime.errors import InputError
from features.runtime.files import read_text, require_file
from features.runtime.options import option_name
from features.runtime.refusal import one_line
from heads.model.spec import HeadSpec, without_added_defaults
from search.setup.options import RunOptions, RunSection

ARTICLE = HeadSpec()
"""The article's head: trial 0 of every study."""
POOLING = "pooling"
"""The field that changes next to nothing where a map has one place."""
ALIKE = ("flatten", "average", "max")
"""Poolings that leave a map of one place as it is; ``gem`` takes what is negative away, ``concat`` says it twice."""
FEATURES = "features"
"""The parameter that says which of several stores a trial trains on."""
LARGEST = 2**31 - 1
"""A whole number, or a number of steps, beyond which nothing of a head can be."""
Scalar = bool | int | float | str
"""A value of a field of ``HeadSpec``."""
_ON_GRID = 1e-8
"""Of a step: what Optuna forgives."""
_TYPICAL = 200
"""Heads that stand for what a study draws."""


class Suggesting(Protocol):
    """What a space asks a trial for: as ``optuna.Trial`` has it."""

    def suggest_categorical(self, name: str, choices: Sequence[Scalar]) -> Any:
        """One of the choices."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """A whole number of the range."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number of the range."""


class _Dice:
    """A trial of no study, which draws evenly."""

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator

    def suggest_categorical(self, name: str, choices: Sequence[Scalar]) -> Any:
        del name
        return choices[int(self._generator.integers(len(choices)))]

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        del name
        if log:
            return round(float(np.exp(self._generator.uniform(np.log(low), np.log(high)))))
        return low + step * int(self._generator.integers((high - low) // step + 1))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        del name
        if log:
            return min(max(float(np.exp(self._generator.uniform(np.log(low), np.log(high)))), low), high)
        if step:
            return low + step * int(self._generator.integers(round((high - low) / step) + 1))
        return float(self._generator.uniform(low, high))


class Range(BaseModel):
    """A range of numbers: ``{ low = 16, high = 256, step = 16 }`` or ``{ low = 1e-4, high = 1e-2, log = true }``.

    ``or_zero`` adds the value 0 as a choice of its own, drawn as often as a number of the range: the way to search
    over "none, or something on a logarithmic scale".
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    low: float
    high: float
    step: float | None = Field(default=None, gt=0)
    log: bool = False
    or_zero: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Range:
        if self.low > self.high:
            raise ValueError(f"expected low <= high, found low = {self.low:g} and high = {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"expected low > 0 on a logarithmic scale, found {self.low:g}")
        if self.log and self.step is not None:
            raise ValueError("expected log or step, found both")
        if self.step is not None and (self.high - self.low) / self.step > LARGEST:
            raise ValueError(f"expected at most {LARGEST:,} steps, found step = {self.step:g}")
        return self

    def nearest(self, value: float) -> float:
        """The number of the range, on its grid where it has one, that is nearest to a value."""
        inside = min(max(value, self.low), self.high)
        if self.step is None:
            return inside
        steps = (inside - self.low) / self.step
        on_grid = abs(steps - round(steps)) < _ON_GRID
        return inside if on_grid else min(self.low + round(steps) * self.step, self.high)


def _folder_name(name: str) -> str:
    if not re.fullmatch(r"[\w.-]*[\w-][\w.-]*", name):  # no dots alone: it is a folder's name
        raise ValueError(f"expected letters, digits, ., - and _, which name a folder, found {name!r}")
    return name


class _StudyFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, AfterValidator(_folder_name)]
    description: str = ""
    run: RunSection = RunSection()
    space: dict[str, Any] = {}


@dataclass(frozen=True)
class Space:
    """What a trial suggests: each field of ``HeadSpec`` fixed, chosen from a list, or drawn from a range.

    Every parameter is suggested in every trial, whatever the topology uses: multivariate TPE draws jointly only those
    that all trials have.

    Attributes:
        parameters: Domains of the fields that are searched over.
        fixed: Values of the others.
        stores: Names of the stores that a trial chooses between; none where the study has one, or a study file has not
            said which.
    """

    parameters: Mapping[str, Range | tuple[Scalar, ...]]
    fixed: Mapping[str, Scalar]
    stores: tuple[str, ...] = ()

    def suggest(self, trial: Suggesting) -> HeadSpec:
        """Draws one head."""
        values: dict[str, Any] = dict(self.fixed)
        for name, domain in self.parameters.items():
            values[name] = _suggest(trial, name, domain)
        return HeadSpec(**values)

    def suggest_store(self, trial: Suggesting) -> str:
        """Draws the store of a trial; '' where there is nothing to choose."""
        return str(trial.suggest_categorical(FEATURES, self.stores)) if self.stores else ""

    def parameters_of(self, spec: HeadSpec, store: str = "") -> dict[str, Scalar]:
        """The parameters to enqueue for a head on a store.

        Those that this space cannot express have the nearest value that it can: a trial without one would leave the
        sampler no parameter that all trials have, and one that was drawn would tell it of a head that never was. The
        value of what is switched off is left out: it means nothing, and is drawn as in other trials.
        """
        values: dict[str, Scalar] = {FEATURES: store} if store in self.stores else {}
        for name, domain in self.parameters.items():
            value = getattr(spec, name)
            zero = isinstance(domain, Range) and domain.or_zero and value == 0
            if isinstance(domain, Range) and domain.or_zero:
                values[_switch(name)] = not zero
            if not zero:
                values[name] = _nearest(domain, value)
        return values

    def beside(self, spec: HeadSpec) -> tuple[str, ...]:
        """The parameters of a head that this space cannot express."""
        told = self.parameters_of(spec)
        return tuple(name for name in self.parameters if name in told and told[name] != getattr(spec, name))

    def extremes(self) -> list[HeadSpec]:
        """Heads that between them take every choice, both ends of every range, and the article's head."""
        ends = {name: _ends(name, domain) for name, domain in self.parameters.items()}
        most = {**self.fixed, **{name: max(values) for name, values in ends.items()}}
        variants = [{**most, name: value} for name, values in ends.items() for value in values]
        return [ARTICLE, *(HeadSpec(**values) for values in (most, *variants))]

    @property
    def idle(self) -> list[str]:
        """The parameters that have no effect on any head of the space, whatever they are."""
        of_the_space = self.extremes()[1:]
        return [name for name in self.parameters if all(name in spec.idle for spec in of_the_space)]

    def typical(self) -> list[HeadSpec]:
        """Heads drawn evenly from the space, the same ones each time: what a bank may be planned with."""
        dice = _Dice(np.random.default_rng(0))
        return [self.suggest(dice) for _ in range(_TYPICAL)]

    @property
    def for_one_place(self) -> Space:
        """The space for maps of one place: of the poolings in ``ALIKE`` it has one, the article's if it may.

        A single pooling is none of the parameters.
        """
        domain = self.parameters.get(POOLING)
        if not isinstance(domain, tuple):
            return self
        kept = ARTICLE.pooling if ARTICLE.pooling in domain else next((one for one in domain if one in ALIKE), None)
        choices = tuple(one for one in domain if one == kept or one not in ALIKE)
        if len(choices) > 1:
            return replace(self, parameters={**self.parameters, POOLING: choices})
        parameters = {name: one for name, one in self.parameters.items() if name != POOLING}
        return replace(self, parameters=parameters, fixed={**self.fixed, POOLING: choices[0]})

    def to_dict(self) -> dict[str, Any]:
        """The form of the study file's ``[space]``: all fields but those that ``without_added_defaults`` leaves out."""
        data = without_added_defaults(self.fixed) | ({FEATURES: list(self.stores)} if self.stores else {})
        for name, domain in self.parameters.items():
            data[name] = list(domain) if isinstance(domain, tuple) else domain.model_dump(exclude_defaults=True)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str) -> Space:
        """Reads ``[space]``; fields left out stay at the article's value.

        Raises:
            InputError: Naming the key at fault.
        """
        known = {field.name: field.type for field in fields(HeadSpec)}
        parameters: dict[str, Range | tuple[Scalar, ...]] = {}
        fixed: dict[str, Scalar] = {name: getattr(ARTICLE, name) for name in known if name not in data}
        stores = _read_stores(where, data[FEATURES]) if FEATURES in data else ()
        for name, raw in data.items():
            if name == FEATURES:
                continue
            if name not in known:
                raise InputError(where, field=f"space.{name}", expected=f"one of {', '.join(known)}", found="unknown")
            if isinstance(raw, dict):
                parameters[name] = _read_range(where, name, str(known[name]), raw)
            elif isinstance(raw, list):
                parameters[name] = _read_choices(where, name, raw)
            else:
                fixed[name] = _checked(where, f"space.{name}", name, raw)
        return cls(parameters, fixed, stores)


@dataclass(frozen=True)
class StudyFile:
    """A study file that has been read and checked; ``run`` holds the options that it sets."""

    path: Path
    name: str
    description: str
    run: dict[str, Any]
    space: Space


def read_study_file(path: Path) -> StudyFile:
    """Reads and checks a study file.

    Raises:
        InputError: The file is missing, is not TOML, or a key of it is wrong; the key is named.
    """
    require_file(path, "a study file (TOML)")
    try:
        data = tomllib.loads(read_text(path))
        parsed = _StudyFile.model_validate(data)
    except OSError as error:
        raise InputError(path, expected="a study file (TOML)", found=error.strerror) from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(path, expected="TOML", found=str(error)) from error
    except ValidationError as error:
        raise _of_run(path, error) or one_line(path, error) from error
    space = Space.from_dict(parsed.space, str(path))
    if not space.parameters:
        raise InputError(path, field="space", expected="at least one list or range to search over", found="none")
    return StudyFile(path, parsed.name, parsed.description, parsed.run.model_dump(exclude_none=True), space)


def _of_run(path: Path, error: ValidationError) -> InputError | None:
    """Returns the refusal of a key of ``[run]`` that may not stand there, with those that may; otherwise None."""
    first = error.errors()[0]
    if first["type"] != "extra_forbidden" or first["loc"][:-1] != ("run",):
        return None
    name = str(first["loc"][-1])
    hint = f"{option_name(name)} is for the command line" if name in RunOptions.model_fields else None
    expected = f"one of {', '.join(RunSection.model_fields)}"
    return InputError(path, field=f"run.{name}", expected=expected, found="unknown", hint=hint)


def _suggest(trial: Suggesting, name: str, domain: Range | tuple[Scalar, ...]) -> Scalar:
    if isinstance(domain, tuple):
        chosen: Scalar = trial.suggest_categorical(name, domain)
        return chosen
    whole = isinstance(getattr(ARTICLE, name), int)
    used = trial.suggest_categorical(_switch(name), (True, False)) if domain.or_zero else True
    value: Scalar
    if whole:
        step = int(domain.step or 1)
        value = trial.suggest_int(name, int(domain.low), int(domain.high), step=step, log=domain.log)
    else:
        value = trial.suggest_float(name, domain.low, domain.high, step=domain.step, log=domain.log)
    return value if used else 0


def _nearest(domain: Range | tuple[Scalar, ...], value: Any) -> Scalar:
    """The value of a domain that is nearest; of words, and of true and false, none is nearer than the first."""
    if isinstance(domain, Range):
        found = domain.nearest(value)
        return int(found) if isinstance(value, int) else found
    if value in domain:
        return next(one for one in domain if one == value)
    if isinstance(value, str | bool):
        return domain[0]
    return min(domain, key=lambda one: abs(float(one) - value))


def _ends(name: str, domain: Range | tuple[Scalar, ...]) -> tuple[Any, ...]:
    if isinstance(domain, tuple):
        return domain
    kind = type(getattr(ARTICLE, name))
    return tuple(kind(value) for value in ((0,) if domain.or_zero else ()) + (domain.low, domain.high))


def _switch(name: str) -> str:
    return f"use_{name}"


def _read_range(where: str, name: str, kind: str, raw: dict[str, Any]) -> Range:
    if kind not in ("int", "float"):
        raise InputError(where, field=f"space.{name}", expected="a list of choices", found="a range")
    try:
        domain = Range.model_validate(raw)
    except ValidationError as error:
        raise one_line(where, error, f"space.{name}.") from error
    for key in ("low", "high", "step"):
        value = getattr(domain, key)
        if kind == "int" and value is not None and (value != int(value) or abs(value) > LARGEST):
            expected = "a whole number" if value != int(value) else f"a whole number of at most {LARGEST:,}"
            raise InputError(where, field=f"space.{name}.{key}", expected=expected, found=value)
    edges = {"low": domain.low, "high": domain.high}
    if domain.step is not None:
        edges["step"] = min(domain.low + domain.step, domain.high)  # the first value above low
        last = domain.low + round((domain.high - domain.low) / domain.step, 9) // 1 * domain.step
        if abs(last - domain.high) > 1e-9:
            found = f"low = {domain.low:g}, step = {domain.step:g}, high = {domain.high:g}"
            raise InputError(where, field=f"space.{name}.high", expected="low plus a multiple of step", found=found)
    elif name == "conv_width":
        raise InputError(where, field="space.conv_width.step", expected="a multiple of 16", found="none")
    for key, value in edges.items():
        file_value = domain.step if key == "step" else None
        _checked(where, f"space.{name}.{key}", name, int(value) if kind == "int" else value, file_value=file_value)
    if domain.or_zero:
        _checked(where, f"space.{name}.or_zero", name, 0)
    return domain


def _read_stores(where: str, raw: Any) -> tuple[str, ...]:
    names = [raw] if isinstance(raw, str) else raw
    whole = isinstance(names, list) and names and all(isinstance(name, str) and name for name in names)
    if not whole or len(set(names)) != len(names):
        raise InputError(where, field=f"space.{FEATURES}", expected="a store's name, or a list of some", found=raw)
    return tuple(names)


def _read_choices(where: str, name: str, raw: list[Any]) -> tuple[Scalar, ...]:
    choices = tuple(_checked(where, f"space.{name}", name, value) for value in raw)
    if not choices or len(set(choices)) != len(choices):
        raise InputError(where, field=f"space.{name}", expected="a list of different values", found=raw)
    return choices


def _checked(where: str, key: str, name: str, value: Any, *, file_value: float | None = None) -> Scalar:
    """Returns the value as the spec would hold it; the spec's own check decides.

    Args:
        where: The file.
        key: In it.
        name: The field of the spec.
        value: Its value.
        file_value: The number that the file has at the key, where the value follows from it.

    Raises:
        InputError: The spec does not take the value.
    """
    if isinstance(value, int) and abs(value) > LARGEST:
        raise InputError(where, field=key, expected=f"a number of at most {LARGEST:,}", found=f"{value}"[:40])
    try:
        checked: Scalar = getattr(HeadSpec(**{name: value}), name)
    except ValueError as error:
        expected, _, found = str(error).partition(": expected ")[2].rpartition(", found ")
        shown = found if file_value is None else f"{file_value:g}"
        raise InputError(where, field=key, expected=expected, found=shown) from error
    return checked
