"""A study in a database as one process sees it: read from memory, written in the background.

Optuna asks its storage at every step of a trial, and a database answers in 3 to 10 ms. Here what a process notes of its
own trials is seen by itself at once, and goes to the database as one transaction in a thread, at the latest where
somebody waits for it (``flush``). What other processes have noted comes in with it, never more often than a twentieth
of the time allows. Who may work on which trial is decided in the database alone: what this process notes of a trial
that another has taken over meanwhile is refused there, and the trial becomes what the database says.

What is noted of a trial (``set_trial_...``) is in one of these states::

    noted ──_submit──▶ under way ──_bring──▶ written: the database has it
      ▲                 │      └───_bring──▶ lost: the trial is another process's, and is read anew
      └───_put_back─────┘ the database cannot be reached

Noted is what is in ``_pending``, under way what is in ``_under_way``. A trial that was lost stays in ``_gone``, so that
nothing more is noted of it, and its number is in ``_lost`` until that has been told.

Three threads take part. *Main* is the one that works on trials and closes: the pool's, or its asking thread, which take
turns. *Record* (``_writer``) does nothing but ``_bring``: main begins it, one at a time, and takes in what it has come
to (``_settle``). *Owner* gives this process's signs of life (``crew.py``), for which it asks what trials there are, and
which of them this process runs.
"""

from __future__ import annotations

import copy
import json
import threading
import time
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from features.runtime.errors import BottleneckError
from search.record.outages import Patience, patiently
from search.record.trial_tables import Noted, TrialTables
from search.setup.optuna_internals import FrozenStudy, id_of_trial, says_it_is_gone
from search.trials.notes import TrialNotes

PULLING_SHARE = 0.05
"""Share of the time, at most, in which the trials of others are read."""
T = TypeVar("T")


@dataclass
class _Brought:
    """What an exchange with the database has come to.

    Attributes:
        lost: Numbers in the storage of trials that are this process's no longer.
        changed: Trials as the database has them.
        seconds: That reading them took; 0 where none were read.
    """

    lost: set[int] = field(default_factory=set)
    changed: list[FrozenTrial] = field(default_factory=list)
    seconds: float = 0.0


class StudyGoneError(BottleneckError):
    """A study that is worked on was deleted."""


class Mirror(BaseStorage):
    """The storage of one study, for Optuna."""

    def __init__(self, database: RDBStorage, study_id: int, where: str, *, shared: bool = False) -> None:
        """Reads the study.

        Args:
            database: Where it is.
            study_id: Its number there.
            where: The database and the study, for messages.
            shared: Whether other processes change trials, too, and are to be heard.
        """
        self.tables = TrialTables(database, study_id)
        self.database = database
        self._where = where
        self._shared = shared
        self._lock = threading.RLock()  # for what more than one thread touches
        self._trials: dict[int, FrozenTrial] = {}  # main thread; read by record and owner thread
        self._mine: set[int] = set()  # main thread; read by record and owner thread
        self._lost: list[int] = []  # main thread
        self._gone: set[int] = set()  # main thread
        self._pending: dict[int, Noted] = {}  # main thread
        self._under_way: dict[int, Noted] = {}  # main thread; read by record thread, and left alone meanwhile
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="record")
        self._exchange: Future[_Brought] | None = None  # main thread
        self._pull_at = 0.0  # main thread
        self.patience = Patience()  # of all threads; the main thread's, or a signal's handler in it, takes it away
        self._closed = False  # main thread
        self._take_in(_Brought(changed=self.retried(lambda: self.tables.changed({}))))

    # --- to and from the database -------------------------------------------------------------------------------

    def hand_over(self) -> list[int]:
        """Begins to write what was noted, unless that is under way, and takes in what has come; never waits.

        Returns:
            Numbers of this process's trials that were taken over by others since it was called last.

        Raises:
            SQLAlchemyError: As ``retried``.
        """
        if self._exchange is not None and self._exchange.done():
            self._settle()
        if self._exchange is None:
            self._submit(pull=self._shared and time.monotonic() >= self._pull_at)
        return self._told_lost()

    def flush(self) -> list[int]:
        """Returns once everything noted so far is in the database, and others' trials are here as they are now.

        Returns:
            As ``hand_over``.

        Raises:
            SQLAlchemyError: As ``retried``.
        """
        self._settle()
        self._submit(pull=self._shared)
        self._settle()
        return self._told_lost()

    def close(self) -> None:
        """Writes what was noted and lets go of the database; may be called twice.

        Raises:
            SQLAlchemyError: The database cannot be reached now, or refused something.
        """
        if self._closed:
            return
        self._closed = True
        self.patience.end()
        try:
            self._settle()
            self._submit(pull=False)
            self._settle()
        finally:
            self._writer.shutdown(wait=self.patience.lost is None)
            self.database.engine.dispose()

    def claim(self, most: int, worker: str, count: int = 1) -> list[FrozenTrial]:
        """Gives this process the next trials, see ``TrialTables.claim``."""
        numbers = self.retried(lambda: self.tables.claim(most, worker, count))
        if not numbers:
            return []
        # Without gaps: who looks a trial up does so by its number in the study.
        self._read_others(numbers)
        trials = [self._trials[number] for number in numbers]
        if any(TrialNotes.of(trial).rerun_of is not None for trial in trials):
            # All that the forerunner has reported: whoever goes on with that says it again.
            with self._lock:
                running = [number for number, trial in self._trials.items() if not trial.state.is_finished()]
            self._read_others(running)
        with self._lock:
            self._mine.update(numbers)
        return trials

    def give_back(self) -> None:
        """Ends this process's running trials as interrupted, each to be run again by whoever comes next."""
        lost = self.flush()
        if mine := self.running:
            self.retried(lambda: self.tables.take_back(mine))
            with self._lock:
                self._gone.update(mine)
                self._mine.difference_update(mine)
            lost += self.flush()
        self._lost += lost  # for whoever asks next

    def retried(self, work: Callable[[], T]) -> T:
        """Returns what ``work`` does in the database, tried again for a while where that cannot be reached.

        Raises:
            SQLAlchemyError: It could not be reached for ten minutes, or refused something; or what Optuna makes of it.
            StudyGoneError: The study is not in it any more.
        """
        try:
            return patiently(work, self._where, patience=self.patience)
        except KeyError as error:
            if says_it_is_gone(error):
                raise StudyGoneError(f"{self._where}: not in the database any more") from None
            raise

    @property
    def is_open(self) -> bool:
        """Whether ``close`` is still to come."""
        return not self._closed

    @property
    def running(self) -> list[int]:
        """Numbers in the storage of the trials that this process runs."""
        with self._lock:
            return [number for number in self._mine if self._trials[number].state == TrialState.RUNNING]

    def _submit(self, *, pull: bool) -> None:
        with self._lock:
            self._under_way, self._pending = self._pending, {}
        if self._under_way or pull:
            self._exchange = self._writer.submit(self._bring, self._under_way, pull)

    def _bring(self, pending: Mapping[int, Noted], pull: bool) -> _Brought:
        lost = self.retried(lambda: self.tables.write(pending))
        if not pull and not lost:
            return _Brought()
        begun = time.monotonic()
        changed = self.retried(lambda: self.tables.changed(self._read_before(lost)))
        return _Brought(lost, changed, time.monotonic() - begun)

    def _read_before(self, lost: Collection[int]) -> dict[int, TrialState]:
        """States of the trials that are known here. Nobody else knows more of this process's own."""
        with self._lock:
            states = {number: trial.state for number, trial in self._trials.items()}
            mine = dict.fromkeys(self._mine, TrialState.COMPLETE)
        return states | mine | dict.fromkeys(lost, TrialState.RUNNING)

    def _settle(self) -> None:
        if self._exchange is None:
            return
        self.patience.await_answer(self._exchange)  # whoever is interrupted here finds it again
        exchange, self._exchange = self._exchange, None
        if exchange.exception() is not None:
            self._put_back()
        brought = exchange.result()
        if brought.seconds:
            self._pull_at = time.monotonic() + brought.seconds / PULLING_SHARE
        self._take_in(brought)

    def _put_back(self) -> None:
        """Nothing was written: what has been noted since is not to be written without it."""
        with self._lock:
            for number, later in self._pending.items():
                self._under_way.setdefault(number, Noted()).update(later)
            self._pending = self._under_way

    def _take_in(self, brought: _Brought) -> None:
        with self._lock:
            for number in brought.lost - self._gone:
                self._lost.append(self._trials[number].number)
            self._gone |= brought.lost
            self._mine -= brought.lost
            for number in brought.lost:
                self._pending.pop(number, None)
                del self._trials[number]  # whatever it had come to here: it is read anew
            self._put(brought.changed)

    def _told_lost(self) -> list[int]:
        with self._lock:
            lost, self._lost = self._lost, []
        return lost

    # --- what is noted of a trial -------------------------------------------------------------------------------

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Adds a trial, in the database at once: its numbers come from there."""
        number: int = self.retried(lambda: self.database.create_new_trial(study_id, template_trial))
        self._adopt(number)
        return number

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Ends a trial; or begins one that waits, in the database at once: another process may be faster."""
        if state == TrialState.RUNNING:
            self.check_trial_is_updatable(trial_id, self.get_trial(trial_id).state)
            if trial_id in self._pending:
                self._lost += self.flush()
            taken = self.retried(lambda: self.database.set_trial_state_values(trial_id, state, values))
            if taken:
                self._adopt(trial_id)
            return bool(taken)
        with self._lock:
            if trial_id in self._gone:
                return False
            self._writable(trial_id)
            told = None if values is None else [float(value) for value in values]
            ended = datetime.now()
            self._edit(trial_id, state=state, values=told, datetime_complete=ended)
            noted = self._note(trial_id)
            noted.state, noted.values, noted.ended = state, told, ended
        return True

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """Notes a parameter."""
        with self._lock:
            if trial_id in self._gone:
                return
            trial = self._writable(trial_id)
            of_others = (one.distributions for one in self._trials.values())
            if (known := next((one[param_name] for one in of_others if param_name in one), None)) is not None:
                check_distribution_compatibility(known, distribution)
            value = distribution.to_external_repr(float(param_value_internal))  # as who reads it will see it
            self._edit(
                trial_id,
                params={**trial.params, param_name: value},
                distributions={**trial.distributions, param_name: distribution},
            )
            self._note(trial_id).params[param_name] = (param_value_internal, distribution)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """Notes an intermediate value."""
        self._add(trial_id, "intermediate_values", step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Notes an attribute of ours."""
        self._add(trial_id, "user_attrs", key, json.loads(json.dumps(value)))  # as who reads it will see it

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Notes an attribute of Optuna's."""
        self._add(trial_id, "system_attrs", key, json.loads(json.dumps(value)))

    def _add(self, trial_id: int, field: str, key: str | int, value: Any) -> None:
        """Adds to one of a trial's mappings, which ``FrozenTrial`` and ``Noted`` call alike."""
        with self._lock:
            if trial_id in self._gone:
                return
            trial = self._writable(trial_id)
            self._edit(trial_id, **{field: {**getattr(trial, field), key: value}})
            getattr(self._note(trial_id), field)[key] = value

    def _read_others(self, among: Collection[int] = ()) -> None:
        """Reads the trials that others have made since; and some others."""
        with self._lock:
            known = dict.fromkeys(self._trials, TrialState.COMPLETE)
        trials = self.retried(lambda: self.tables.changed(known, among))
        with self._lock:
            self._put(trials)

    def _put(self, trials: Iterable[FrozenTrial]) -> None:
        """Takes in trials as they were read, unless more is known: of this process's own, and of those that ended."""
        for trial in trials:
            known = self._trials.get(id_of_trial(trial))
            if id_of_trial(trial) not in self._mine and not (known is not None and known.state.is_finished()):
                self._trials[id_of_trial(trial)] = trial

    def _adopt(self, number: int) -> None:
        trial = self.retried(lambda: self.database.get_trial(number))
        with self._lock:
            has_gap = trial.number > len(self._trials)  # one was made, and the connection ended before that was heard
        if self._shared or has_gap:
            self._read_others()
        with self._lock:
            if trial.state == TrialState.RUNNING:
                self._mine.add(number)
            self._trials[number] = trial

    def _writable(self, number: int) -> FrozenTrial:
        trial = self.get_trial(number)
        self.check_trial_is_updatable(number, trial.state)
        self._mine.add(number)
        return trial

    def _edit(self, number: int, **changes: Any) -> None:
        """Changes a trial by a copy: who holds it sees it as it was."""
        trial = copy.copy(self._trials[number])
        for name, value in changes.items():
            setattr(trial, name, value)
        self._trials[number] = trial

    def _note(self, number: int) -> Noted:
        return self._pending.setdefault(number, Noted())

    # --- what is read -------------------------------------------------------------------------------------------

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Returns a trial as it was when it was read or noted last."""
        with self._lock:
            if trial_id not in self._trials:
                raise KeyError(f"no trial with the number {trial_id} in the storage")
            return self._trials[trial_id]

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Returns the trials in the order of their numbers."""
        with self._lock:
            trials = sorted(self._trials.values(), key=lambda trial: trial.number)
        chosen = [trial for trial in trials if states is None or trial.state in states]
        return copy.deepcopy(chosen) if deepcopy else chosen

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        """Returns a trial's number in the storage."""
        with self._lock:
            for number, trial in self._trials.items():
                if trial.number == trial_number:
                    return number
        raise KeyError(f"no trial {trial_number}")

    # --- the study itself, in the database at once --------------------------------------------------------------

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """Makes a study in the same database."""
        return int(self.database.create_new_study(directions, study_name))

    def delete_study(self, study_id: int) -> None:
        """Deletes a study."""
        self.database.delete_study(study_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Notes an attribute of a study."""
        self.retried(lambda: self.database.set_study_user_attr(study_id, key, value))

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Notes an attribute of Optuna's of a study."""
        self.retried(lambda: self.database.set_study_system_attr(study_id, key, value))

    def get_study_id_from_name(self, study_name: str) -> int:
        """Returns a study's number."""
        return int(self.retried(lambda: self.database.get_study_id_from_name(study_name)))

    def get_study_name_from_id(self, study_id: int) -> str:
        """Returns a study's name."""
        return str(self.retried(lambda: self.database.get_study_name_from_id(study_id)))

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """Returns which way values are better."""
        return self.retried(lambda: self.database.get_study_directions(study_id))

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """Returns a study's attributes."""
        return self.retried(lambda: self.database.get_study_user_attrs(study_id))

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Returns Optuna's attributes of a study."""
        return self.retried(lambda: self.database.get_study_system_attrs(study_id))

    def get_all_studies(self) -> list[FrozenStudy]:
        """Returns the studies of the database."""
        return self.database.get_all_studies()

    def remove_session(self) -> None:
        """Lets go of this thread's connection."""
        self.database.remove_session()
