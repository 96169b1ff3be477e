"""Trials of a database, read whole: what Optuna's storage reads, and faster.

Processes that work on a study together read each other's running trials again and again. Optuna makes an object of
every row, and parses every distribution anew; here rows are tuples, and what was parsed is kept.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import Any

import sqlalchemy
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy.orm import Session

from search.setup.optuna_internals import read_session, tables


def read_trials(storage: RDBStorage, study_id: int, *, among: Collection[int], beyond: int) -> list[FrozenTrial]:
    """Reads some trials of a study.

    Args:
        storage: The database.
        study_id: The study's number in it.
        among: Numbers of trials in the storage.
        beyond: All with a larger one, too.

    Returns:
        The trials, in the order of their numbers. One that has ended is as it ended; of one that runs what is noted
        meanwhile may be there or not.

    Raises:
        KeyError: There is no such study.
        StorageInternalError: The database cannot be reached.
    """
    trials = tables.TrialModel
    wanted = trials.trial_id > beyond
    if among:
        wanted |= trials.trial_id.in_(sorted(among))
    with read_session(storage) as session:
        # First, so that whatever has ended has all of its values when these are read.
        rows = session.scalars(
            sqlalchemy.select(trials).where(trials.study_id == study_id, wanted).order_by(trials.trial_id)
        ).all()
        if not rows:
            tables.StudyModel.find_or_raise_by_id(study_id, session)
            return []
        parts = _Parts(session, [row.trial_id for row in rows])
        return [_trial(row, parts) for row in rows]


class _Parts:
    """What there is of some trials in the other tables, by the trial's number in the storage."""

    def __init__(self, session: Session, numbers: Collection[Any]) -> None:
        self._session = session
        self._numbers = numbers
        self.params: dict[int, dict[str, Any]] = defaultdict(dict)
        self.distributions: dict[int, dict[str, BaseDistribution]] = defaultdict(dict)
        params = tables.TrialParamModel
        for number, name, value, text in self._select(
            params, params.param_name, params.param_value, params.distribution_json, order=params.param_id
        ):
            distribution = _distribution(text)
            self.params[number][name] = distribution.to_external_repr(value)
            self.distributions[number][name] = distribution
        self.user = self._attributes(tables.TrialUserAttributeModel)
        self.system = self._attributes(tables.TrialSystemAttributeModel)
        self.steps: dict[int, dict[int, float]] = defaultdict(dict)
        steps = tables.TrialIntermediateValueModel
        for number, step, value, kind in self._select(
            steps, steps.step, steps.intermediate_value, steps.intermediate_value_type, order=steps.step
        ):
            self.steps[number][step] = _number(value, kind)
        self.values: dict[int, list[float]] = defaultdict(list)
        values = tables.TrialValueModel
        for number, value, kind in self._select(values, values.value, values.value_type, order=values.objective):
            self.values[number].append(_number(value, kind))

    def _attributes(self, table: Any) -> dict[int, dict[str, Any]]:
        found: dict[int, dict[str, Any]] = defaultdict(dict)
        for number, key, text in self._select(table, table.key, table.value_json, order=table.trial_id):
            found[number][key] = json.loads(text)
        return found

    def _select(self, table: Any, *columns: Any, order: Any) -> Iterator[Any]:
        """Yields the trial's number in the storage, and some columns, of the trials' rows in a table."""
        chosen = sqlalchemy.select(table.trial_id, *columns).where(table.trial_id.in_(self._numbers))
        return iter(self._session.execute(chosen.order_by(order)))


def _trial(row: Any, parts: _Parts) -> FrozenTrial:
    number = row.trial_id
    return FrozenTrial(
        number=row.number,
        state=row.state,
        value=None,
        values=parts.values.get(number),
        datetime_start=row.datetime_start,
        datetime_complete=row.datetime_complete,
        params=parts.params.get(number, {}),
        distributions=parts.distributions.get(number, {}),
        user_attrs=parts.user.get(number, {}),
        system_attrs=parts.system.get(number, {}),
        intermediate_values=parts.steps.get(number, {}),
        trial_id=number,
    )


def _number(stored: float | None, kind: Any) -> float:
    """A value as Optuna stores it: what is no finite number is a kind of its own."""
    return stored if stored is not None else _KINDS[kind.name]


_KINDS = {"NAN": math.nan, "INF_POS": math.inf, "INF_NEG": -math.inf}


@lru_cache(maxsize=1024)
def _distribution(text: str) -> BaseDistribution:
    return json_to_distribution(text)
