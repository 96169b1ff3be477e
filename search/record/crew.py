"""The processes that work on one study together, on one machine or on many.

Each stands in the study's attributes with its last sign of life, and gives another for every trial that it runs
(Optuna's heartbeats, by the database's clock). Who gives none for the grace period has its trials taken over. None of
them is needed: they come and go, and one, elected when every ordinal has its result, runs what comes after the search.

Signs of life, and what is looked after with each, are given by a thread of their own (the *owner* thread of
``owner.py``); all else is done by the one that works on the trials (*main*, see ``mirror.py``).
"""

from __future__ import annotations

import math
import os
import re
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, Trial, TrialState

from features.runtime.command import say
from features.runtime.errors import BottleneckError, InputError
from features.runtime.text import printable
from search.record.connectivity import Connectivity
from search.record.mirror import PULLING_SHARE, Mirror
from search.record.noted_config import CONFIG, begun_config, ending_like, like, noted_config
from search.record.owner import ATTRIBUTE, Owner, Ownership, alive_among
from search.record.summary import SUMMARY_FILE
from search.setup.config import StudyConfig
from search.setup.optuna_internals import claimed_trial, id_of_trial, waiting_trial
from search.setup.storage_url import hidden
from search.trials.notes import TrialNotes
from search.trials.ranking import is_counted

WORKER_KEY = "worker:"
"""How the attribute of each process begins; its name follows."""
FINISHER = "finisher"
"""The attribute of the process that runs what comes after the search."""
ENDED = "ended"
"""The attribute that says for how many trials that has been done."""
ENDED_IN = "ended_in"
"""The attribute that says where what was found is then: in which folder of which machine."""
WAIT_S = 0.5
"""Seconds between two looks whether somebody has left a trial, at least."""
LONGEST_WAIT_S = 5.0
"""And at most: nobody who asks it to stop waits for longer."""
REPEATS = "repeats"
"""The attribute that names the study of the repeats that are run, or were."""
CLAIMED_AT_ONCE = 8
"""Trials that a process takes in one transaction, at most: that takes little longer than the one of a single trial."""
PAGES_FOR_EACH = 8
"""A process takes as many at once as it has so many pages: a head of the default space has six."""
_GATHERING_S = 0.1
_LOOK_S = 2.0
"""Seconds for which it is believed who else is there."""


def beat_every(grace: float) -> float:
    """Seconds between two signs of life: several get lost before anybody is taken for dead."""
    return max(0.2, grace / 6)


class Crew:
    """A process among those that work on one study.

    Attributes:
        name: Its name, which no other process has: that of its folder, and noted of its trials.
        grace: Seconds without a sign of life after which a process's trials are handed to others.
    """

    def __init__(self, url: str, number: int, study: str, mirror: Mirror, *, grace: float) -> None:
        """Joins.

        Args:
            url: Of the database.
            number: The study's number in it.
            study: The study's name.
            mirror: The study as this process sees it.
            grace: Seconds without a sign of life after which a process's trials are handed to others.

        Raises:
            BottleneckError: A process searches the study alone.
        """
        host = re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname())
        self.name = f"{host}-{os.getpid()}-{os.urandom(2).hex()}"
        self._url, self._number, self._study = url, number, study
        self._where = f"{hidden(url)}: study {study!r}"
        self._mirror = mirror
        self.grace = grace
        # owner thread; main as the ordinals begin
        self._connectivity = Connectivity(grace, beat_every(grace), self._where, now=time.monotonic())
        self._looked: tuple[float, int] | None = None  # main thread
        self._finishing: Ownership | None = None  # main thread
        self._signs = Ownership(
            url,
            number,
            study,
            attribute=WORKER_KEY + self.name,
            every=beat_every(grace),
            grace=grace,
            also=self._look_after_trials,
        )
        try:
            self._refuse_beside_one()
        except BaseException:
            self._signs.close()
            raise

    def ordinals(self, study: optuna.Study, most: int, *, pages: int) -> SharedOrdinals:
        """Returns what gives out the study's ordinals to this process.

        Args:
            study: Optuna's study.
            most: Ordinals that it has.
            pages: Of this process's banks, at least 1: who trains few heads at once is not to hold many that wait.
        """
        at_once = max(1, min(pages // PAGES_FOR_EACH, CLAIMED_AT_ONCE))
        return SharedOrdinals(study, self._mirror, self, most, at_once=at_once)

    def living(self, *, anew: bool = False) -> int:
        """How many processes are at work, this one among them; asked ``anew``, or as it was a moment ago."""
        now = time.monotonic()
        if anew or self._looked is None or now - self._looked[0] > _LOOK_S:
            self._looked = (now, len(self.others()) + 1)
        return self._looked[1]

    def others(self) -> list[str]:
        """Names of the other processes that are at work."""
        return list(self._others())

    def _others(self) -> dict[str, Owner]:
        there = workers_of(self._attributes())
        return {name: owner for name, owner in there.items() if owner.is_alive and name != self.name}

    def take_over(self) -> None:
        """Enqueues the trials of processes that are gone, for whoever asks next.

        Raises:
            StorageInternalError: The database cannot be reached.
        """
        # In this order: who has begun a trial had joined before.
        trials = self._mirror.get_all_trials(self._number, deepcopy=False, states=(TrialState.RUNNING,))
        there = workers_of(self._mirror.database.get_study_user_attrs(self._number))
        lost = set(_of_the_departed(trials, there))
        if self._connectivity.is_steady(time.monotonic()):
            lost |= set(self._of_the_silent(trials, there))
        if lost := lost - set(self._mirror.running):
            self._mirror.tables.take_back(lost)
        self._connectivity.answered(time.monotonic())

    def agree_on(self, config: StudyConfig, *, is_recorded: bool = False) -> StudyConfig:
        """Returns the config that this study is worked on with: the one of who came first, alone or to work together.

        What the database is called is each process's own affair: they have found each other there.
        Where nobody works on it with another number of trials, it may go on with one, and who is alone with other
        options of what comes after them.

        Args:
            config: What this process was told.
            is_recorded: Whether that was compared with a ``study.json``, which a study from before its config was noted
                has nowhere else.

        Raises:
            InputError: It is another study; the difference is named. Or the number of trials is not that of others, or
                less than have been run.
        """
        begun = begun_config(self._attributes(), self._where)
        if begun is not None:
            like(begun, config, self._where)
        elif self._mirror.get_all_trials(self._number, deepcopy=False) and not is_recorded:
            hint = "join it with the --out that it was begun with"
            raise InputError(self._where, expected="a study with its options noted", found="none", hint=hint)
        self._agree_on_trials(config.trials)
        self._signs.put_first(CONFIG, (begun or config).to_dict())
        noted = noted_config(self._attributes(), self._where)
        assert noted is not None
        agreed = like(noted, config, self._where)
        if self.has_ended(config.trials) and agreed != (as_it_ended := ending_like(noted, agreed)):
            hint = "--resume without --join runs its end again with other options"
            say(f"note: {self._where}: has ended with {noted.repeats_in_words}; {hint}")
            agreed = as_it_ended
        if noted.trials != config.trials or self.living(anew=True) == 1:
            self._mirror.set_study_user_attr(self._number, CONFIG, agreed.to_dict())
        return agreed

    def as_noted(self, config: StudyConfig) -> StudyConfig:
        """Returns the config as others find it: what this process was told of the end holds only where it runs that."""
        noted = noted_config(self._attributes(), self._where)
        return config if noted is None else ending_like(noted, config)

    def runs_the_end(self, config: StudyConfig) -> None:
        """Notes with which options this process, which was elected, runs what comes after the search."""
        self._mirror.set_study_user_attr(self._number, CONFIG, config.to_dict())

    def _agree_on_trials(self, trials: int) -> None:
        """Tells the number first and looks at those of others then: of two that differ at least one is refused.

        Who has joined and not told one yet is in nobody's way: those who begin together mean the same.
        """
        done = sum(map(is_counted, self._mirror.get_all_trials(self._number, deepcopy=False)))
        if trials < done:
            hint = "so many have been run; without --trials the study keeps its number"
            raise InputError(self._where, field="trials", expected=f"at least {done}", found=trials, hint=hint)
        self._signs.tell(trials=trials)
        theirs = {owner.trials for owner in self._others().values()} - {0, trials}
        if theirs:
            hint = "while others work on it; whoever is alone may go on with more"
            raise InputError(self._where, field="trials", expected=f"{min(theirs)}", found=trials, hint=hint)

    def elect(self) -> bool:
        """Whether this process is to run what comes after the search: one is, until it has ended or died."""
        if self._finishing is not None:
            return True
        with suppress(BottleneckError):
            self._finishing = Ownership(self._url, self._number, self._study, attribute=FINISHER)
        return self._finishing is not None

    def check(self) -> None:
        """Says whether what comes after the search is still this process's to run.

        Raises:
            BottleneckError: Another one has taken it over, which only happens to who has given no sign for a minute.
        """
        if self._finishing is not None:
            self._finishing.check()

    def announce(self, repeats: str) -> None:
        """Notes that repeats are run, in a study of that name: the others may take their shares."""
        self._mirror.set_study_user_attr(self._number, REPEATS, repeats)

    def announced(self) -> str | None:
        """The name of the study of the repeats; None where none are run yet."""
        found = self._attributes().get(REPEATS)
        return found if isinstance(found, str) else None

    def gather(self, number: int, patience: float) -> None:
        """Waits until so many processes are at work, this one among them, for some seconds at most."""
        ends = time.monotonic() + patience
        while self.living(anew=True) < number and time.monotonic() < ends:
            time.sleep(_GATHERING_S)

    def has_ended(self, trials: int) -> bool:
        """Whether what comes after the search has been run for a study of so many trials."""
        return ended_for(self._attributes(), trials) is not None

    def end(self, trials: int, folder: Path) -> None:
        """Notes that what comes after the search has been run, and the study directory that it was written into."""
        self._mirror.set_study_user_attr(self._number, ENDED_IN, _described(folder))
        self._mirror.set_study_user_attr(self._number, ENDED, trials)

    def forget_lost_end(self, folder: Path) -> None:
        """Has what comes after the search run again where it had been written into a study directory that was removed.

        To be called before the trials are worked on: while others work, who has ended it may not see the same disk.
        """
        attributes = self._attributes()
        lost = attributes.get(ENDED_IN) == _described(folder) and not (folder / SUMMARY_FILE).is_file()
        if lost and attributes.get(ENDED) is not None:
            say(f"note: {self._where}: had ended in {folder}, which was removed since; what comes last is done again")
            self._mirror.set_study_user_attr(self._number, ENDED, None)

    def close(self) -> None:
        """Leaves; what it still ran goes to others. May be called twice."""
        try:
            if self._mirror.is_open:
                self._mirror.give_back()
        finally:
            self._leave()

    def _leave(self) -> None:
        try:
            lost = self._mirror.patience.lost is not None
            self._signs.close(at_once=lost)  # first: with each sign the mirror's database is asked
        finally:
            try:
                self._mirror.close()
            finally:
                if self._finishing is not None:
                    self._finishing.close(at_once=self._mirror.patience.lost is not None)

    def _refuse_beside_one(self) -> None:
        def read() -> list[Owner]:
            alone = Owner.read(self._attributes().get(ATTRIBUTE))
            return [] if alone is None else [alone]

        for alone in alive_among(read, self._where):
            hint = "start that one with --join, too, or wait for its end"
            raise BottleneckError(f"study {self._study!r}: {alone} searches it alone; {hint}")

    def _attributes(self) -> Mapping[str, Any]:
        return self._mirror.get_study_user_attrs(self._number)

    def _look_after_trials(self) -> None:
        """Signs of life for this process's trials, and a look after those of others: with each of its own signs.

        Raises:
            StorageInternalError: The database cannot be reached.
        """
        self._connectivity.begin_round(time.monotonic())
        self._mirror.tables.beat(self._mirror.running)
        self._connectivity.answered(time.monotonic())
        self.take_over()

    def _of_the_silent(self, trials: Sequence[FrozenTrial], there: Mapping[str, Owner]) -> Iterator[int]:
        """Numbers of running trials without a sign of life for this process's grace, and for that of their own."""
        silent_for = self._mirror.tables.silent_for()
        for trial in trials:
            owner, number = there.get(TrialNotes.of(trial).worker or ""), id_of_trial(trial)
            if silent_for.get(number, 0.0) > max(self.grace, owner.grace if owner else 0.0):
                yield number


class SharedOrdinals:
    """The ordinals of a study that several processes work on: a counter in the storage, see ``TrialTables.claim``.

    A process takes its share at most of what is left to do, so that those who begin together end together.
    """

    def __init__(self, study: optuna.Study, mirror: Mirror, crew: Crew, most: int, *, at_once: int) -> None:
        """Prepares; the study has ``most`` ordinals, ``at_once`` of which are claimed in one transaction."""
        self._study = study
        self._mirror = mirror
        self._crew = crew
        self._most = most
        self._at_once = at_once
        self._given_out = False
        self._claimed: deque[FrozenTrial] = deque()
        self._claim_at = 0.0

    def begin(self, planned: Sequence[Mapping[str, Any]]) -> None:
        """Enqueues what is planned, whichever process comes first; and what those have left that are gone."""
        templates = [
            waiting_trial(parameters, TrialNotes.as_attributes(ordinal=ordinal))
            for ordinal, parameters in enumerate(planned)
        ]
        self._mirror.retried(lambda: self._mirror.tables.begin(templates))
        self._mirror.retried(self._crew.take_over)
        self._mirror.flush()

    @property
    def is_left(self) -> bool:
        """Whether an ordinal may be left, or a trial waits that is wanted: a study may be gone on with fewer trials."""
        if self._claimed:
            return True
        if not self._given_out:
            return not self.is_over
        trials = self._trials()
        if not any(trial.state == TrialState.WAITING for trial in trials):
            return False
        return sum(trial.state == TrialState.RUNNING or is_counted(trial) for trial in trials) < self._most

    @property
    def is_over(self) -> bool:
        """Whether every ordinal has its result."""
        return sum(map(is_counted, self._trials())) >= self._most

    def next(self, sampler_of: Callable[[int], BaseSampler]) -> tuple[Trial, int] | None:
        """Returns the next trial and its ordinal; None where none is left, or this process has its share."""
        if not self._claimed and self.is_left and time.monotonic() >= self._claim_at:
            self._claim()
        if not self._claimed:
            return None
        trial = self._claimed.popleft()
        ordinal = TrialNotes.of(trial).ordinal
        self._study.sampler = sampler_of(ordinal)
        return claimed_trial(self._study, trial), ordinal

    def _claim(self) -> None:
        """Claims a few trials, within this process's share."""
        left = self._most - sum(map(is_counted, self._trials()))
        share = max(1, math.ceil(left / self._crew.living())) - len(self._mirror.running)
        if (count := min(share, self._at_once)) > 0:
            self._claimed.extend(self._mirror.claim(self._most, self._crew.name, count))
            self._given_out = len(self._claimed) < count
            if not self._claimed:  # whoever was faster is heard of later
                self._claim_at = time.monotonic() + WAIT_S

    def wait(self) -> bool:
        """Waits a moment for trials that others may leave; False where every ordinal has its result."""
        begun = time.monotonic()
        self._mirror.flush()
        lasted = time.monotonic() - begun
        self._claim_at = 0.0  # what waits now was not there then
        if self.is_over:
            return False
        if not self.is_left:  # those who still work are not to be kept from it by all who wait
            time.sleep(min(max(WAIT_S, lasted / PULLING_SHARE), LONGEST_WAIT_S))
        return True

    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)


def _of_the_departed(trials: Sequence[FrozenTrial], there: Mapping[str, Owner]) -> Iterator[int]:
    """Numbers of running trials of processes of this machine that have died, or that have left."""
    working = {name for name, owner in there.items() if owner.is_alive or not owner.is_here}
    yield from (id_of_trial(trial) for trial in trials if TrialNotes.of(trial).worker not in working)


def _described(folder: Path) -> str:
    return f"{folder.absolute()} on {socket.gethostname()}"


def ended_for(attributes: Mapping[str, Any], trials: int) -> str | None:
    """Returns where what comes after the search was written for so many trials; None where that has not been run."""
    if attributes.get(ENDED) != trials:
        return None
    return printable(str(attributes.get(ENDED_IN, "its study directory")))


def workers_of(attributes: Mapping[str, Any]) -> dict[str, Owner]:
    """Returns the processes that have joined a study and have not left it, by name, from its attributes."""
    found = {
        key.removeprefix(WORKER_KEY): Owner.read(told) for key, told in attributes.items() if key.startswith(WORKER_KEY)
    }
    return {name: owner for name, owner in found.items() if owner is not None}


def refuse_beside_crew(study: optuna.Study, where: str) -> None:
    """Refuses to search a study alone that others work on.

    Raises:
        BottleneckError: One of them is named.
    """
    if alive := alive_among(lambda: list(workers_of(study.user_attrs).values()), where):
        raise BottleneckError(f"{where}: {alive[0]} works on it, one of {len(alive)}; join them with --join")
    if workers_of(study.user_attrs):
        say(f"note: {where}: it was worked on with --join; going on alone")
