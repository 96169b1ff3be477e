"""Optuna's names that it does not promise to keep: what is used of them, in one place.

``tests/search/setup/test_optuna_internals.py`` says which one an upgrade has changed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import optuna
import optuna.samplers._qmc as qmc
import sqlalchemy
from optuna.distributions import BaseDistribution
from optuna.pruners import HyperbandPruner
from optuna.samplers import BaseSampler
from optuna.storages import RDBStorage
from optuna.storages._rdb import models as tables
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial
from sqlalchemy.orm import Session

if TYPE_CHECKING:
    from optuna.artifacts import ArtifactMeta

__all__ = [
    "FrozenStudy",
    "PlacedHyperband",
    "PlacedSequence",
    "attribute_of_artifact",
    "claimed_trial",
    "fixed_parameters",
    "id_of_study",
    "id_of_trial",
    "new_trial",
    "note_beside",
    "notes_artifact",
    "read_session",
    "running_trial",
    "says_it_is_gone",
    "tables",
    "transaction",
    "waiting_trial",
    "warn_of_conditions",
]


_FIXED = "fixed_params"
"""The system attribute of an enqueued trial."""
_NO_BRACKET = -1
"""Brackets are counted from 0."""


def running_trial(study: optuna.Study, trial: FrozenTrial) -> Trial:
    """Returns a trial of the record as one that can be reported to and told: ``ask`` only gives out new ones."""
    return Trial(study, id_of_trial(trial))


def claimed_trial(study: optuna.Study, trial: FrozenTrial) -> Trial:
    """Returns a running trial of the record whose parameters are yet to be drawn, as ``ask`` gives out a new one.

    To samplers a study has the trials that it had when the thread that draws last asked or told. One that does neither
    itself would draw for ever by what had ended when it drew first.
    """
    study._thread_local.cached_all_trials = None
    return running_trial(study, trial)


def waiting_trial(parameters: Mapping[str, Any], notes: Mapping[str, Any]) -> FrozenTrial:
    """Returns a trial as ``enqueue_trial`` leaves it: it waits, and its ``parameters`` are not drawn.

    Args:
        parameters: Any of a trial's, by name.
        notes: Its user attributes.
    """
    return create_trial(state=TrialState.WAITING, user_attrs=dict(notes), system_attrs={_FIXED: dict(parameters)})


def fixed_parameters(trial: FrozenTrial) -> dict[str, Any]:
    """Returns the parameters that a trial was enqueued with; none where it was not."""
    return dict(trial.system_attrs.get(_FIXED, {}))


def id_of_trial(trial: FrozenTrial) -> int:
    """Returns a trial's number in its storage, which is not the one in its study."""
    return trial._trial_id


def note_beside(trial: Trial, key: str, value: Any) -> None:
    """Notes an attribute of a trial that the dashboard does not show."""
    trial.storage.set_trial_system_attr(trial._trial_id, key, value)


def attribute_of_artifact(artifact: ArtifactMeta) -> tuple[str, str]:
    """Returns the attribute by which a trial has an artifact, as Optuna's dashboard looks for it: key and value."""
    from optuna.artifacts._upload import ARTIFACTS_ATTR_PREFIX  # which also loads clients of the stores of clouds

    return f"{ARTIFACTS_ATTR_PREFIX}{artifact.artifact_id}", json.dumps(asdict(artifact))


def notes_artifact(key: str) -> bool:
    """Whether an attribute of a study or a trial notes an artifact; older dashboards put their own name before it."""
    from optuna.artifacts._upload import ARTIFACTS_ATTR_PREFIX  # as above

    return key.removeprefix("dashboard:").startswith(ARTIFACTS_ATTR_PREFIX)


def warn_of_conditions(wanted: bool) -> None:
    """Says whether Optuna may warn that a space has conditions, with which a quasi-random sequence does not go.

    It takes trials that are enqueued, and have drawn nothing yet, for such that have other parameters, so it warns of
    spaces without conditions, too.
    """
    qmc._logger.setLevel(logging.NOTSET if wanted else logging.ERROR)


class PlacedSequence(qmc.QMCSampler):
    """Optuna's scrambled Sobol sequence, of which a trial gets the point of its own ordinal.

    Optuna counts in the study how many points were given out, those of trials among them that were stopped while they
    were drawn: whoever drew them again would get others.
    """

    def __init__(self, ordinal: int, *, seed: int, beside: BaseSampler) -> None:
        """Prepares.

        Args:
            ordinal: Which point of the sequence (0-based).
            seed: Of the sequence.
            beside: Draws what the sequence has not.
        """
        super().__init__(scramble=True, seed=seed, independent_sampler=beside, warn_independent_sampling=False)
        self._ordinal = ordinal

    def _find_sample_id(self, study: optuna.Study, search_space: dict[str, BaseDistribution]) -> int:
        del study, search_space
        return self._ordinal


class PlacedHyperband(HyperbandPruner):
    """Optuna's Hyperband, in which a trial's bracket follows from another number than its own."""

    def __init__(
        self, ordinal_of: Callable[[FrozenTrial], int | None], *, least: int, most: int, reduction: int
    ) -> None:
        """Prepares.

        Args:
            ordinal_of: The number that decides a trial's bracket; None for a trial that is in none.
            least: Epochs before the first rung.
            most: Epochs of a trial that is not pruned.
            reduction: Of the trials at a rung, one in this many goes on.
        """
        super().__init__(min_resource=least, max_resource=most, reduction_factor=reduction)
        self._ordinal_of = ordinal_of

    def _get_bracket_id(self, study: optuna.Study, trial: FrozenTrial) -> int:
        ordinal = self._ordinal_of(trial)
        if ordinal is None:
            return _NO_BRACKET
        placed = copy(trial)
        placed.number = ordinal
        return super()._get_bracket_id(study, placed)


def id_of_study(study: FrozenStudy) -> int:
    """Returns a study's number in its storage."""
    return study._study_id


@contextmanager
def transaction(storage: RDBStorage) -> Iterator[Session]:
    """Yields a session of a database that commits where its context ends; not to be used within another.

    Raises:
        StorageInternalError: The database cannot be reached, or refused something; nothing was changed.
    """
    with _create_scoped_session(storage.scoped_session) as session:
        if storage.engine.name == "sqlite":  # has no locks on rows, and by itself begins where something is changed
            session.execute(sqlalchemy.text("BEGIN IMMEDIATE"))
        yield session


@contextmanager
def read_session(storage: RDBStorage) -> Iterator[Session]:
    """Yields a session of a database in which nothing is changed; not to be used within another.

    Raises:
        StorageInternalError: The database cannot be reached.
    """
    with _create_scoped_session(storage.scoped_session) as session:
        yield session


def says_it_is_gone(error: KeyError) -> bool:
    """Whether an error of a database says that it has no such study, or no such trial."""
    return error.args == (tables.NOT_FOUND_MSG,)


def new_trial(storage: RDBStorage, session: Session, study_id: int, template: FrozenTrial) -> Any:
    """Adds a trial within a transaction that holds the study's lock; returns its row, with its numbers."""
    return storage._get_prepared_new_trial(study_id, template, session)
