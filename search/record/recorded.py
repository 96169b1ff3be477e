"""How a frozen value becomes the JSON of summary.json, and is made of it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, fields
from typing import Any, ClassVar, Self

from pydantic import TypeAdapter

from heads.metrics.classification import ClassMetrics, ConfusionPair

OMIT_DEFAULT = {"omit_default": True}
"""Metadata of a field whose key is left out where its value is the default; other keys are there, be it with null."""


class Recorded:
    """Base of the dataclasses that summary.json is made of."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]  # which each of them has

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON types, those with ``OMIT_DEFAULT`` only where they say something."""
        defaults = {one.name: one.default for one in fields(self) if one.metadata == OMIT_DEFAULT}
        told = ((name, value) for name, value in vars(self).items() if name not in defaults or value != defaults[name])
        return {name: _plain(value) for name, value in told}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuilds a value from ``to_dict``'s form, or from what an older version wrote.

        Raises:
            ValueError: A key that every version wrote is missing, or a value is of another type.
        """
        found: Self = _adapter(cls).validate_python(data)
        return found


def _plain(value: Any) -> Any:
    if isinstance(value, Recorded):
        return value.to_dict()
    if isinstance(value, (ClassMetrics, ConfusionPair)):
        return vars(value).copy()
    if isinstance(value, (tuple, list)):
        return [_plain(one) for one in value]
    return value


def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}
