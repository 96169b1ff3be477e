"""A study of Optuna's, made without a word."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import optuna

from features.runtime.unseen import Together


@contextmanager
def _without_words() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


creation_unseen = Together(_without_words)
"""Drops what Optuna says of a study that is made."""


def new_study(**options: Any) -> optuna.Study:
    """Returns what ``optuna.create_study`` does, which else says so.

    It is all that Optuna says of what is asked of it here; how much it says of a user's own studies is the user's.
    """
    with creation_unseen():
        return optuna.create_study(**options)
