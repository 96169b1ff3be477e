"""The config that a study in a database has in itself: what ``study.json`` does, for who joins from another machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna

from search.setup.config import StudyConfig
from search.setup.options import study_options

CONFIG = "config"
"""The attribute that holds what processes have agreed on that work on the study together."""
CONFIG_ALONE = "config_alone"
"""Likewise what a search alone has begun the study with: by the other it is told whether processes have joined."""


def noted_config(attributes: Mapping[str, Any], where: str) -> StudyConfig | None:
    """Returns the config that processes work on a study with, from its attributes; None where none has joined.

    Raises:
        InputError: It is damaged.
    """
    return StudyConfig.of(attributes[CONFIG], where) if CONFIG in attributes else None


def begun_config(attributes: Mapping[str, Any], where: str) -> StudyConfig | None:
    """As ``noted_config``; where none has joined, the config of the search alone that has begun it."""
    alone = attributes.get(CONFIG_ALONE)
    return noted_config(attributes, where) or (None if alone is None else StudyConfig.of(alone, where))


def note_alone(study: optuna.Study, config: StudyConfig) -> None:
    """Notes the config of a search alone; where processes have joined before, in the place of theirs."""
    key = CONFIG if CONFIG in study.user_attrs else CONFIG_ALONE
    if study.user_attrs.get(key) != (told := config.to_dict()):
        study.set_user_attr(key, told)


def like(noted: StudyConfig, config: StudyConfig, where: str) -> StudyConfig:
    """Returns a config with what the machine of who came first has decided.

    Raises:
        InputError: It is of another study; the difference is named.
    """
    same = {name: getattr(noted, name) for name in ("pages", "dtype")}
    noted.check_resumable(where, config.model_copy(update=same | {"storage": noted.storage}))
    return config.model_copy(update=same)


def ending_like(noted: StudyConfig, config: StudyConfig) -> StudyConfig:
    """Returns a config with another one's options of what comes after the search."""
    names = (name for name, option in study_options() if option.may_change and name != "trials")
    return config.model_copy(update={name: getattr(noted, name) for name in names})
