"""The networks of keras.applications, all that the installed Keras has: found in its source, without starting it.

Names, sizes and preprocessing are needed where Keras must not be imported yet: by ``--help``, and by whatever is
refused before seconds are spent. Its modules say them as constants; ``tests/features/extraction/test_applications.py``
holds what is read here against what Keras does.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_USUAL_SIZE = 224
"""Of ImageNet's networks; where a module computes it, that is what it computes."""
_SMALLEST = 32
_PREFIX = "keras.src.applications."


@dataclass(frozen=True)
class Architecture:
    """One network of keras.applications.

    Attributes:
        factory: Its function in ``keras.applications``.
        image_size: Side in pixels that its ImageNet weights were trained with.
        smallest: The least side that it accepts.
        mode: Its ``preprocess_input``: ``tf`` (-1 to 1), ``torch`` (0 to 1, then standardised), ``caffe`` (BGR, means
            subtracted) or ``none`` (the network does it itself).
        alphas: Width multipliers that have ImageNet weights; none where the network has no multiplier.
    """

    factory: str
    image_size: int
    smallest: int
    mode: str
    alphas: tuple[float, ...] = ()


class _Applications(Mapping[str, Architecture]):
    """Architectures by our names of them; the names are read at once, each architecture when it is asked for."""

    def __getitem__(self, name: str) -> Architecture:
        return _architecture(*self._factories[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._factories)

    def __len__(self) -> int:
        return len(self._factories)

    def with_alpha(self) -> list[str]:
        """Names of those that have a width multiplier."""
        return [name for name, architecture in self.items() if architecture.alphas]

    @cached_property
    def _factories(self) -> dict[str, tuple[str, str]]:
        """Module and factory by name: capitals of the public package are its networks."""
        found = [
            (node.module, alias.name)
            for node in _parsed(_keras() / "applications" / "__init__.py").body
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(_PREFIX)
            for alias in node.names
            if alias.name[0].isupper()
        ]
        return {_name_of(factory): (module, factory) for module, factory in found}


BACKBONES = _Applications()
"""The networks that ``--backbone`` knows by name."""


def _name_of(factory: str) -> str:
    """``EfficientNetV2B0`` is ``efficientnet_v2_b0``: words of a family together, then what tells its members apart."""
    joined = factory.replace("NeXt", "next").replace("Net", "net")
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", joined).lower()


def _keras() -> Path:
    spec = find_spec("keras")
    assert spec is not None, "Keras is not installed"
    assert spec.origin is not None, "Keras has no files"
    return Path(spec.origin).parent


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def _architecture(module: str, factory: str) -> Architecture:
    source = _parsed(_keras() / "src" / "applications" / f"{module.removeprefix(_PREFIX)}.py")
    functions = {node.name: node for node in source.body if isinstance(node, ast.FunctionDef)}
    own = functions[factory]
    scope = _Scope(source, functions, own)
    return Architecture(
        factory,
        scope.number("default_size", _USUAL_SIZE),
        scope.number("min_size", _SMALLEST),
        _mode(functions["preprocess_input"]),
        scope.alphas() if any(one.arg == "alpha" for one in own.args.args) else (),
    )


def _mode(preprocess_input: ast.FunctionDef) -> str:
    modes = (
        keyword.value.value
        for node in ast.walk(preprocess_input)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "mode" and isinstance(keyword.value, ast.Constant)
    )
    return str(next(modes, "none"))


class _Scope:
    """What a factory builds with: constants of its own, or those that it hands to the function that builds its family.

    Args:
        source: The module.
        functions: Its functions, by name.
        factory: One of them.
    """

    def __init__(self, source: ast.Module, functions: dict[str, ast.FunctionDef], factory: ast.FunctionDef) -> None:
        self._source = source
        calls = [call for call in _calls(factory) if isinstance(call.func, ast.Name) and call.func.id in functions]
        families = [call for call in calls if any(_is_input_shape(one) for one in _calls(functions[_id(call.func)]))]
        self._handed = _arguments(functions[_id(families[0].func)], families[0]) if families else {}
        self._builder = functions[_id(families[0].func)] if families else factory

    def number(self, name: str, usual: int) -> int:
        """The argument of ``obtain_input_shape``; what is usual where the module has no such constant."""
        for call in filter(_is_input_shape, _calls(self._builder)):
            for keyword in call.keywords:
                if keyword.arg == name and isinstance(value := self._constant(keyword.value), int):
                    return value
        return usual

    def alphas(self) -> tuple[float, ...]:
        """Multipliers of a check ``alpha not in [...]`` that the module makes for its ImageNet weights."""
        for node in ast.walk(self._source):
            if isinstance(node, ast.Compare) and _id(node.left) == "alpha" and isinstance(node.ops[0], ast.NotIn):
                return tuple(map(float, ast.literal_eval(node.comparators[0])))
        return (1.0,)

    def _constant(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Name) and node.id in self._handed:
            node = self._handed[node.id]
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            table = self._constant(node.value)
            return table.get(node.slice.value) if isinstance(table, dict) else None
        if isinstance(node, ast.Name):
            node = _assigned(self._source, node.id) or node
        try:
            return ast.literal_eval(node)
        except ValueError:
            return None


def _assigned(module: ast.Module, name: str) -> ast.expr | None:
    values = (one.value for one in module.body if isinstance(one, ast.Assign) and _id(one.targets[0]) == name)
    return next(values, None)


def _id(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _calls(function: ast.FunctionDef) -> list[ast.Call]:
    return [node for node in ast.walk(function) if isinstance(node, ast.Call)]


def _is_input_shape(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Attribute) and call.func.attr == "obtain_input_shape"


def _arguments(function: ast.FunctionDef, call: ast.Call) -> dict[str, ast.expr]:
    by_place = {one.arg: value for one, value in zip(function.args.args, call.args, strict=False)}
    return by_place | {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
