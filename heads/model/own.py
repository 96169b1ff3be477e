"""A head that somebody's own function makes: what it is called and what it suggested, without its code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from features.runtime.text import shortened
from heads.model.spec import identity_of

Suggested = bool | int | float | str | None
"""What a trial can suggest."""


@dataclass(frozen=True)
class OwnSpec:
    """A head of a function ``build(trial, feature_shape, classes)``: with the same parameters it makes the same.

    Attributes:
        function: ``MODULE:FUNCTION`` or ``FILE.py:FUNCTION``, as it was named.
        params: What it suggested, by name.
    """

    function: str
    params: Mapping[str, Suggested]

    @property
    def last_counts(self) -> bool:
        """As of a ``HeadSpec``: whatever moves the rate of such a head, its best epoch is picked."""
        return False

    @property
    def in_effect(self) -> OwnSpec:
        """As of a ``HeadSpec``: what a function makes of its parameters only it knows."""
        return self

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields, JSON types only."""
        return {"function": self.function, "params": dict(self.params)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> OwnSpec:
        """Rebuilds a spec from ``to_dict``'s form.

        Raises:
            ValueError: It is something else.
        """
        function, params = data.get("function"), data.get("params")
        if not isinstance(function, str) or not isinstance(params, dict) or data.keys() != {"function", "params"}:
            raise ValueError(f"own: expected a function and its parameters, found {shortened(str(data), 80)}")
        wrong = next((name for name, value in params.items() if not isinstance(value, Suggested)), None)
        if wrong is not None:
            found = shortened(repr(params[wrong]), 60)
            raise ValueError(f"own.{wrong}: expected a number, a text, true, false or null, found {found}")
        return cls(function, params)

    @property
    def identity(self) -> str:
        """See ``identity_of``."""
        return identity_of(self.to_dict())
