"""The trials of a study in a database, as several processes read and write them: each method is one transaction.

Optuna's own storage makes one transaction of every value that is noted, 3 to 10 ms each. Here what a process has noted
of all of its trials goes in at once, and what two processes must not both do (take an ordinal, take a trial over) is
decided under a lock on the study's row, as Optuna itself does it for the numbers of trials.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.orm import Session

from search.record.trial_rows import read_trials
from search.setup.optuna_internals import (
    fixed_parameters,
    id_of_trial,
    new_trial,
    read_session,
    tables,
    transaction,
    waiting_trial,
)
from search.trials.notes import TrialNotes
from search.trials.ranking import INTERRUPTED

GIVEN_OUT = "places"
"""The study's attribute that counts the ordinals that were given out."""


@dataclass
class Noted:
    """What was noted of a trial and is not in the database yet.

    Attributes:
        intermediate_values: Intermediate values, by step.
        params: Parameters as Optuna stores them, with their distributions.
        user_attrs: Attributes of ours.
        system_attrs: Attributes of Optuna's.
        state: What the trial has ended in; None while it runs.
        values: With it, the trial's values.
        ended: With it, when.
    """

    intermediate_values: dict[int, float] = field(default_factory=dict)
    params: dict[str, tuple[float, BaseDistribution]] = field(default_factory=dict)
    user_attrs: dict[str, Any] = field(default_factory=dict)
    system_attrs: dict[str, Any] = field(default_factory=dict)
    state: TrialState | None = None
    values: Sequence[float] | None = None
    ended: datetime | None = None

    def update(self, later: Noted) -> None:
        """Takes in what was noted after this."""
        self.intermediate_values |= later.intermediate_values
        self.params |= later.params
        self.user_attrs |= later.user_attrs
        self.system_attrs |= later.system_attrs
        if later.state is not None:
            self.state, self.values, self.ended = later.state, later.values, later.ended


class TrialTables:
    """The rows of one study's trials."""

    def __init__(self, storage: RDBStorage, study_id: int) -> None:
        """Prepares; ``storage`` has a heartbeat interval where trials are to give signs of life."""
        self.storage = storage
        self.study_id = study_id

    # --- ordinals -----------------------------------------------------------------------------------------------

    def begin(self, planned: Sequence[FrozenTrial]) -> None:
        """Enqueues the trials that are decided before the study, once, and counts the ordinals that are taken.

        Args:
            planned: The trials, waiting: the ordinal of each is its position.
        """
        with transaction(self.storage) as session:
            self._lock(session)
            noted = session.scalars(self._attributes(TrialNotes.ORDINAL)).all()
            taken = {int(json.loads(text)) for text in noted}
            for ordinal, template in enumerate(planned):
                if ordinal not in taken:
                    new_trial(self.storage, session, self.study_id, template)
            given = max([self._given_out(session), len(planned), *(1 + ordinal for ordinal in taken)])
            self._set_given_out(session, given)

    def claim(self, most: int, worker: str, count: int = 1) -> list[int]:
        """Gives a worker the next trials: those that wait, the first of them first, then new ones of the next ordinals.

        Args:
            most: Ordinals that the study has.
            worker: Who takes them; noted of each.
            count: Trials that it would like: several cost little more than one.

        Returns:
            Their numbers in the storage. They are running, their ordinals noted. Fewer, or none, where no more wait
            and no ordinal is left; or where a study that had given out more is gone on with fewer, and these are had.
        """
        with transaction(self.storage) as session:
            self._lock(session)
            given = before = self._given_out(session)
            if given > most:
                count = max(0, min(count, most - self._had(session)))
            rows = self._waiting(session, count)
            numbered = self._numbered(session, [row.trial_id for row in rows])
            rows += self._new(session, max(0, min(count - len(rows), most - given)))
            attributes = {row.trial_id: {TrialNotes.WORKER: worker} for row in rows}
            for number in sorted(attributes.keys() - numbered):  # new, or its first run was killed before it had one
                attributes[number] |= TrialNotes.as_attributes(ordinal=given)
                given += 1
            if given != before:
                self._set_given_out(session, given)
            _put_attributes(session, tables.TrialUserAttributeModel, attributes)
            now = datetime.now()
            for row in rows:
                row.state, row.datetime_start = TrialState.RUNNING, now
            session.add_all([tables.TrialHeartbeatModel(trial_id=number) for number in attributes])
        return sorted(attributes)

    def take_back(self, lost: Collection[int]) -> None:
        """Ends running trials whose worker is gone as interrupted, and enqueues each with the ordinal that it had.

        What had been drawn of a head stays; what a worker may find of it in a snapshot is looked for by the number of
        the trial that is run again. Trials that are not running any more are left alone: another process was faster.

        Args:
            lost: Numbers of trials in the storage.
        """
        trials = {id_of_trial(trial): trial for trial in self._read(lost)}
        with transaction(self.storage) as session:
            self._lock(session)
            rows = session.scalars(self._trials(trials).with_for_update()).all()
            for row in rows:
                if row.state != TrialState.RUNNING:
                    continue
                trial = trials[row.trial_id]
                again = waiting_trial(fixed_parameters(trial) | trial.params, TrialNotes.as_rerun_of(trial))
                new_trial(self.storage, session, self.study_id, again)
                _put_attributes(
                    session,
                    tables.TrialUserAttributeModel,
                    {row.trial_id: TrialNotes.as_attributes(failure=INTERRUPTED)},
                )
                row.state, row.datetime_complete = TrialState.FAIL, datetime.now()

    def beat(self, mine: Collection[int]) -> None:
        """Gives a sign of life for running trials, by the database's clock."""
        heartbeats = tables.TrialHeartbeatModel
        changed = sqlalchemy.update(heartbeats).where(heartbeats.trial_id.in_(mine))
        with transaction(self.storage) as session:
            session.execute(changed.values(heartbeat=sqlalchemy.func.now()))

    def silent_for(self) -> dict[int, float]:
        """Seconds since the last sign of life of each running trial that has given one, by the database's clock."""
        trials, heartbeats = tables.TrialModel, tables.TrialHeartbeatModel
        asked = (
            sqlalchemy.select(heartbeats.trial_id, heartbeats.heartbeat, sqlalchemy.func.now())
            .join(trials, trials.trial_id == heartbeats.trial_id)
            .where(trials.study_id == self.study_id, trials.state == TrialState.RUNNING)
        )
        with read_session(self.storage) as session:
            found = session.execute(asked).all()
        return {number: (now.replace(tzinfo=None) - beat).total_seconds() for number, beat, now in found}

    # --- what is noted ------------------------------------------------------------------------------------------

    def write(self, noted: Mapping[int, Noted]) -> set[int]:
        """Writes what a process has noted of its trials, all of it or nothing.

        Args:
            noted: By the trial's number in the storage.

        Returns:
            Those that have ended otherwise: nothing is written of them.
        """
        if not noted:
            return set()
        with transaction(self.storage) as session:
            if session.get_bind().dialect.name == "sqlite":
                self._lock(session)
            rows = {row.trial_id: row for row in session.scalars(self._trials(noted).with_for_update())}
            alive = {number for number, row in rows.items() if not row.state.is_finished()}
            # Written already where only the answer was lost.
            ends = {number: (one.state, one.ended) for number, one in noted.items()}
            written = {number for number, row in rows.items() if (row.state, row.datetime_complete) == ends[number]}
            to_write = {number: one for number, one in noted.items() if number in alive}
            _put_steps(session, to_write)
            _put_params(session, to_write)
            users = {number: one.user_attrs for number, one in to_write.items()}
            _put_attributes(session, tables.TrialUserAttributeModel, users)
            systems = {number: one.system_attrs for number, one in to_write.items()}
            _put_attributes(session, tables.TrialSystemAttributeModel, systems)
            for number, one in to_write.items():
                if one.state is not None:
                    _end(session, rows[number], one)
        return noted.keys() - alive - written

    def changed(self, known: Mapping[int, TrialState], among: Collection[int] = ()) -> list[FrozenTrial]:
        """Reads the trials that are new, or were not finished when they were read last.

        Args:
            known: State of the trials that were read before, by their numbers in the storage.
            among: Numbers of trials to read in any case.
        """
        anew = {number for number, state in known.items() if not state.is_finished()} | set(among)
        return read_trials(self.storage, self.study_id, among=anew, beyond=max(known, default=-1))

    # --- the parts of a transaction -----------------------------------------------------------------------------

    def _lock(self, session: Session) -> None:
        """Makes the transactions of a study's processes one after the other, from here to their ends.

        Raises:
            KeyError: The study is gone.
        """
        studies, on_sqlite = tables.StudyModel, session.get_bind().dialect.name == "sqlite"
        if on_sqlite:  # which knows no locks of rows: who writes first has the file
            same = sqlalchemy.update(studies).where(studies.study_id == self.study_id)
            session.execute(same.values(study_name=studies.study_name).execution_options(synchronize_session=False))
        studies.find_or_raise_by_id(self.study_id, session, for_update=not on_sqlite)

    def _trials(self, numbers: Iterable[int]) -> sqlalchemy.Select[Any]:
        trials = tables.TrialModel
        chosen = sqlalchemy.select(trials).where(trials.study_id == self.study_id, trials.trial_id.in_(list(numbers)))
        return chosen.order_by(trials.trial_id)  # all in one order, so that no two wait for each other

    def _waiting(self, session: Session, count: int) -> list[Any]:
        """The first trials that wait."""
        trials = tables.TrialModel
        waiting = sqlalchemy.select(trials).where(trials.study_id == self.study_id, trials.state == TrialState.WAITING)
        return list(session.scalars(waiting.order_by(trials.trial_id).limit(count).with_for_update()))

    def _had(self, session: Session) -> int:
        """How many trials run or have a result; those that were interrupted have none."""
        trials = tables.TrialModel
        begun = sqlalchemy.select(sqlalchemy.func.count()).where(
            trials.study_id == self.study_id, trials.state != TrialState.WAITING
        )
        failures = session.scalars(self._attributes(TrialNotes.FAILURE)).all()
        return session.scalars(begun).one() - failures.count(json.dumps(INTERRUPTED))

    def _new(self, session: Session, count: int) -> list[Any]:
        """Adds trials, of which nothing is known yet."""
        if not count:
            return []
        trials = tables.TrialModel
        there = sqlalchemy.select(sqlalchemy.func.count()).where(trials.study_id == self.study_id)
        first = session.scalars(there).one()
        numbers = range(first, first + count)
        rows = [trials(study_id=self.study_id, number=number, state=TrialState.RUNNING) for number in numbers]
        session.add_all(rows)
        session.flush()
        return rows

    def _numbered(self, session: Session, numbers: Collection[int]) -> set[int]:
        """Those of some trials that have an ordinal."""
        if not numbers:
            return set()
        attributes = tables.TrialUserAttributeModel
        chosen = sqlalchemy.select(attributes.trial_id).where(attributes.trial_id.in_(numbers))
        return set(session.scalars(chosen.where(attributes.key == TrialNotes.ORDINAL)))

    def _attributes(self, key: str) -> sqlalchemy.Select[Any]:
        """The values of an attribute of all trials."""
        attributes, trials = tables.TrialUserAttributeModel, tables.TrialModel
        found = sqlalchemy.select(attributes.value_json).join(trials, trials.trial_id == attributes.trial_id)
        return found.where(trials.study_id == self.study_id, attributes.key == key)

    def _read(self, numbers: Collection[int]) -> list[FrozenTrial]:
        """Reads some trials; those beyond the largest number that there may be are none."""
        return read_trials(self.storage, self.study_id, among=numbers, beyond=_LARGEST) if numbers else []

    def _given_out(self, session: Session) -> int:
        row = self._counter(session)
        return int(json.loads(row.value_json)) if row is not None else 0

    def _set_given_out(self, session: Session, given: int) -> None:
        row = self._counter(session)
        if row is None:
            session.add(
                tables.StudyUserAttributeModel(study_id=self.study_id, key=GIVEN_OUT, value_json=json.dumps(given))
            )
            session.flush()
        else:
            row.value_json = json.dumps(given)

    def _counter(self, session: Session) -> Any:
        attributes = tables.StudyUserAttributeModel
        chosen = sqlalchemy.select(attributes).where(attributes.study_id == self.study_id, attributes.key == GIVEN_OUT)
        return session.scalars(chosen).first()


_LARGEST = 2**31 - 1
"""Of PostgreSQL's integers."""


def _end(session: Session, row: Any, noted: Noted) -> None:
    """Ends the trial of a row."""
    table = tables.TrialValueModel
    for objective, value in enumerate(noted.values or ()):
        stored, kind = table.value_to_stored_repr(value)
        session.add(table(trial_id=row.trial_id, objective=objective, value=stored, value_type=kind))
    row.state, row.datetime_complete = noted.state, noted.ended


def _put_steps(session: Session, noted: Mapping[int, Noted]) -> None:
    table = tables.TrialIntermediateValueModel

    def row(number: int, step: Any, value: Any) -> dict[str, Any]:
        stored, kind = table.intermediate_value_to_stored_repr(value)
        return {"trial_id": number, "step": step, "intermediate_value": stored, "intermediate_value_type": kind}

    _put(session, table, table.step, {number: one.intermediate_values for number, one in noted.items()}, row)


def _put_params(session: Session, noted: Mapping[int, Noted]) -> None:
    table = tables.TrialParamModel

    def row(number: int, name: Any, value: Any) -> dict[str, Any]:
        stored, distribution = value
        text = distribution_to_json(distribution)
        return {"trial_id": number, "param_name": name, "param_value": stored, "distribution_json": text}

    _put(session, table, table.param_name, {number: one.params for number, one in noted.items()}, row)


def _put_attributes(session: Session, table: Any, noted: Mapping[int, Mapping[str, Any]]) -> None:
    def row(number: int, key: Any, value: Any) -> dict[str, Any]:
        return {"trial_id": number, "key": key, "value_json": json.dumps(value)}

    _put(session, table, table.key, noted, row)


def _put(
    session: Session,
    table: Any,
    key: Any,
    noted: Mapping[int, Mapping[Any, Any]],
    row: Callable[[int, Any, Any], dict[str, Any]],
) -> None:
    """Inserts rows, or updates those that are there: one statement to look, one to insert."""
    numbers = [number for number, values in noted.items() if values]
    if not numbers:
        return
    keys = {name for values in noted.values() for name in values}
    query = sqlalchemy.select(table).where(table.trial_id.in_(numbers), key.in_(keys))
    existing = {(one.trial_id, getattr(one, key.key)): one for one in session.scalars(query)}
    fresh = []
    for number in numbers:
        for name, value in noted[number].items():
            columns = row(number, name, value)
            old = existing.get((number, name))
            if old is None:
                fresh.append(columns)
                continue
            for column, content in columns.items():
                setattr(old, column, content)
    if fresh:
        statement = sqlalchemy.insert(table)
        if session.get_bind().dialect.insert_executemany_returning:  # by which they all go at once, and in no pipeline
            session.execute(statement.returning(table.trial_id), fresh)
        else:
            session.execute(statement, fresh)
