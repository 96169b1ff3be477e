"""Whether a record is the study's: what it was made of, noted in it; and what is damaged in it, said in one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna

from features.runtime.errors import BottleneckError, InputError
from features.runtime.text import printable
from search.record.outages import DATABASE_ERRORS
from search.setup.config import StudyConfig

MADE_OF = "made_of"
"""The attribute of a study that says what it was made of; none in a record from before that was noted."""


@contextmanager
def record_errors(where: Path | str) -> Iterator[None]:
    """Says in one line what Optuna, or the check of the trials, stumbles over in a record."""
    try:
        yield
    except (BottleneckError, *DATABASE_ERRORS):  # for ``storage_errors``
        raise
    except Exception as error:  # Optuna replays what it finds, and raises whatever comes of it
        reason = printable(str(error) or type(error).__name__)
        raise InputError(where, expected="the record of a study", found=f"a damaged one ({reason[:160]})") from error


def note_made_of(study: optuna.Study, config: StudyConfig) -> None:
    """Notes in the record what a study is made of, before its first trial: names are often the same."""
    if not study.get_trials(deepcopy=False) and study.user_attrs.get(MADE_OF) != config.made_of:
        study.set_user_attr(MADE_OF, config.made_of)


def check_made_of(attributes: Mapping[str, Any], config: StudyConfig, where: Path | str) -> None:
    """Makes sure that a record, with these attributes of its study, goes with a ``study.json``.

    Raises:
        InputError: It is another study's.
    """
    noted = attributes.get(MADE_OF, config.made_of)
    if not isinstance(noted, dict):
        raise InputError(where, field=MADE_OF, expected="what the study was made of", found=type(noted).__name__)
    for name, value in config.made_of.items():
        if noted.get(name) != value:
            found = f"{noted.get(name, 'none')}"[:80]
            raise InputError(where, field=name, expected=value, found=found, hint="it is the record of another study")
