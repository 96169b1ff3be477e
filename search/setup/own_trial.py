"""What somebody's own function has of a trial: it suggests and notes, and keeps nothing that a record cannot hold."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

from features.runtime.text import printable
from heads.model.own import Suggested

PREFIX = "own."
"""Before the names of attributes that the function sets: what a study notes of its trials has names of its own."""
_FORWARDED = ("number", "params", "distributions", "datetime_start", "relative_params", "constraints", "set_constraint")


class OwnTrial:
    """A trial of Optuna's as a function ``build(trial, feature_shape, classes)`` has it.

    It suggests as Optuna's does. It has nothing to report: scoring and pruning are the search's.
    """

    def __init__(self, trial: Any, refusal: Callable[[str, str], Exception]) -> None:
        """Wraps.

        Args:
            trial: A trial of a study, or one with fixed parameters.
            refusal: Makes an error of what was expected of the function, and what was found.
        """
        self._trial = trial
        self._refusal = refusal

    def suggest_categorical(self, name: str, choices: Sequence[Suggested]) -> Any:
        """One of the choices.

        Raises:
            Exception: The refusal: a choice is of no type that comes back from a record as it went in.
        """
        wrong = [choice for choice in choices if not _is_plain(choice)]
        if wrong:
            expected = f"choices of {printable(repr(name))} that are finite numbers, texts, True, False or None"
            raise self._refusal(expected, printable(repr(wrong[0]))[:80])
        return self._trial.suggest_categorical(name, choices)

    def set_user_attr(self, key: str, value: Any) -> None:
        """Notes something of the trial, under ``own.KEY``.

        Raises:
            Exception: The refusal: it is no JSON.
        """
        try:
            json.dumps(value)
        except (TypeError, ValueError) as error:
            expected = f"an attribute {printable(repr(key))} that JSON can hold"
            raise self._refusal(expected, printable(repr(value))[:80]) from error
        self._trial.set_user_attr(f"{PREFIX}{key}", value)

    @property
    def user_attrs(self) -> dict[str, Any]:
        """What the function has noted."""
        noted = self._trial.user_attrs.items()
        return {key.removeprefix(PREFIX): value for key, value in noted if key.startswith(PREFIX)}

    def __getattr__(self, name: str) -> Any:
        """What else a trial has for a function."""
        if not name.startswith("suggest_") and name not in _FORWARDED:
            raise AttributeError(f"a trial has no {name} here, but suggestions, params, number and user attributes")
        return getattr(self._trial, name)


def _is_plain(choice: object) -> bool:
    return isinstance(choice, Suggested) and not (isinstance(choice, float) and not math.isfinite(choice))
