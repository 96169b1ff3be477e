"""Who works on a study in a database: named in an attribute of it, with the time of its last sign of life.

A study directory's lock keeps a second search out of a directory. A database can be reached from other machines, and
from copies of the directory; a second search there would take the first one's trials for interrupted, and fail them. So
the owner stands in the study itself, as one attribute, and every change of it is a comparison and a change in one: of
two that start at the same moment one gets it. Signs of life come from a thread with a connection of its own, and cost
the training nothing. A journal has no owner beside the lock: a copied directory has a copy of the journal.

Processes that work on one study together each have an attribute of their own in the same way, and the one of them that
runs what comes after the search has another (``search.record.crew``).
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, Self

import psutil
import sqlalchemy
from pydantic import TypeAdapter, ValidationError
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from features.runtime.command import say
from features.runtime.errors import BottleneckError
from search.record.outages import ANSWER_S, DATABASE_ERRORS, SHORT_S, keep_to, patiently, set_up_sessions
from search.setup.optuna_internals import says_it_is_gone
from search.setup.storage_url import hidden, sqlite_file

ATTRIBUTE = "owner"
"""The study's attribute in Optuna's tables."""
_TABLE = "study_user_attributes"
BEAT_S = 10.0
"""Seconds between two signs of life."""
STALE_S = 60.0
"""Seconds without one, after which an owner on another host is taken for dead."""
WATCH_S = 1.5 * BEAT_S
"""Seconds for which such an owner is watched: its clock may be wrong, but then its sign changes."""


_SEEN: dict[str, tuple[float, float]] = {}
"""Of owners elsewhere, by their tokens: the last sign, and since when it is that by this process's own count."""


@dataclass(frozen=True)
class Owner:
    """A process that searches a study.

    Attributes:
        host: Its machine's name.
        machine: Of that the run since its last start, and the processes that are seen from one another there: two
            containers may have the same name.
        process: Its number.
        started: When it began, in seconds since the machine did, or since 1970 where no system tells that.
        token: Of this search: a process may search one study after another.
        beat: Its last sign of life, in seconds since 1970 by its own clock.
        grace: Seconds for which it may give none, by its own account; 0 where it has given no account.
        trials: Of the study as it works on it with others; 0 where it has not told.
    """

    host: str
    machine: str
    process: int
    started: float
    token: str
    beat: float
    grace: float = 0.0
    trials: int = 0

    @classmethod
    def of_this_process(cls, *, grace: float = 0.0) -> Self:
        """Returns this process as the owner of one more study."""
        process = os.getpid()
        token = os.urandom(8).hex()
        return cls(socket.gethostname(), _machine(), process, _started(process), token, time.time(), grace)

    @staticmethod
    def read(noted: Any) -> Owner | None:
        """Returns an owner as a study has it; None for none, or for something else."""
        try:
            return _adapter().validate_python(noted)
        except ValidationError:
            return None

    @property
    def is_here(self) -> bool:
        """Whether it is a process that this one can look for."""
        return (self.host, self.machine) == (socket.gethostname(), _machine())

    @property
    def is_alive(self) -> bool:
        """Whether the process runs, as far as can be told at once: by itself here, by its last sign from elsewhere.

        Its clock is believed where no other sign of it was seen: from then on it counts when its sign has changed.
        """
        if not self.is_here:
            return self._silence() < max(STALE_S, self.grace)
        try:
            return abs(_started(self.process) - self.started) < 2
        except (psutil.Error, ValueError):  # no such process, or a number that none has
            return False

    def _silence(self) -> float:
        """Seconds since its last sign, by its clock; or since that was first seen, by the count of this process."""
        now = time.monotonic()
        beat, since = _SEEN.get(self.token, (None, now))
        if beat != self.beat:
            since = now if beat is not None else now - max(0.0, time.time() - self.beat)
            _SEEN[self.token] = self.beat, since
        return now - since

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"


class Ownership:
    """The right to search a study in a database, held from when this is made until ``close``."""

    def __init__(
        self,
        url: str,
        study_id: int,
        name: str,
        *,
        attribute: str = ATTRIBUTE,
        every: float | None = None,
        grace: float = 0.0,
        also: Callable[[], None] = lambda: None,
    ) -> None:
        """Takes it, from an owner that has died too, and begins to give signs of life.

        Args:
            url: Of the database, which has Optuna's tables.
            study_id: The study's number there.
            name: Of the study, for messages.
            attribute: The study's attribute: what is owned.
            every: Seconds between two signs; None for ``BEAT_S``.
            grace: Noted of the owner, see ``Owner``.
            also: Done with each sign.

        Raises:
            BottleneckError: Another process has it; it is named.
            SQLAlchemyError: As ``patiently``.
        """
        self._where = f"{hidden(url)}: study {name!r}"
        self._engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)  # many processes, few connections
        set_up_sessions(self._engine)
        keep_to(self._engine, sqlite_file(url))
        self._key = {"study_id": study_id, "key": attribute}
        self._every = BEAT_S if every is None else every
        self._also = also
        self._ended = threading.Event()
        self._beating = threading.Lock()
        self._lost: Owner | None = None
        self._closed = False
        self._owner = Owner.of_this_process(grace=grace)
        try:
            self._table = patiently(self._described, self._where)
            self._noted = patiently(self._claim, self._where)
        except BaseException:
            self._engine.dispose()
            raise
        self._thread = threading.Thread(target=self._live, name="owner", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Says whether it is still this process's.

        Raises:
            BottleneckError: Another one has taken it, which only happens to who has given no sign for a minute.
        """
        if self._lost is not None:
            raise BottleneckError(f"{self._where}: taken over by {self._lost}, this process having been asleep")

    def tell(self, *, trials: int) -> None:
        """Notes, with a sign of life, with how many trials this process works on the study."""
        self._owner = replace(self._owner, trials=trials)
        patiently(self.beat, self._where)

    def put_first(self, key: str, value: Any) -> None:
        """Notes an attribute of the study, unless it has one of that name."""
        row = {**self._key, "key": key, "value_json": json.dumps(value)}

        def insert() -> None:
            with suppress(IntegrityError), self._engine.begin() as connection:
                connection.execute(sqlalchemy.insert(self._table).values(row))

        patiently(insert, self._where)

    def close(self, *, at_once: bool = False) -> None:
        """Lets go of it; may be called twice. A database that does not answer is not waited for long.

        Args:
            at_once: Whether for a moment only: it is known not to answer, or somebody wants to go.
        """
        if self._closed:
            return
        self._closed = True
        self._ended.set()
        leaving = threading.Thread(target=self._let_go, name="leaving", daemon=True)
        leaving.start()
        leaving.join(SHORT_S if at_once else ANSWER_S)

    def _let_go(self) -> None:
        self._thread.join()
        with suppress(SQLAlchemyError), self._engine.begin() as connection:  # an owner that has ended is none anyway
            connection.execute(sqlalchemy.delete(self._table).where(*self._is(self._noted)))
        self._engine.dispose()

    def _described(self) -> sqlalchemy.Table:
        return sqlalchemy.Table(_TABLE, sqlalchemy.MetaData(), autoload_with=self._engine)

    def _claim(self) -> str:
        text = _text(self._owner)
        there = self._read()
        if there == text:  # the connection ended before that was heard
            return text
        if there is None:
            values = self._key | {"value_json": text}
            with suppress(IntegrityError), self._engine.begin() as connection:
                connection.execute(sqlalchemy.insert(self._table).values(values))
                return text
            self._refuse(self._read())
        owner = _owner(there)
        if alive_among(self._owners, self._where):
            self._refuse(self._read())
        if not self._replace(there, text):
            self._refuse(self._read())
        if owner is not None:
            say(f"note: {self._where}: going on in the place of {owner}, which has ended")
        return text

    def _owners(self) -> list[Owner]:
        owner = _owner(self._read())
        return [] if owner is None else [owner]

    def _refuse(self, there: str | None) -> NoReturn:
        owner = _owner(there)
        if owner is None:
            raise BottleneckError(f"{self._where}: another process takes it at this moment; try again")
        told = f"{self._where}: {owner} searches it, and one study has one search at a time"
        if owner.is_here:
            raise BottleneckError(f"{told}; end that one first")
        age = max(0.0, time.time() - owner.beat)
        wait = f"its last sign of life is {age:.0f} s old, where it has died try again in {STALE_S:.0f} s"
        raise BottleneckError(f"{told}; {wait}")

    def _live(self) -> None:
        said = ""
        while not self._ended.wait(self._every):
            try:
                self.beat()
                self._also()
            except DATABASE_ERRORS:
                continue  # the next sign may get through
            except Exception as error:  # others must not take this process for dead
                told = f"{type(error).__name__}: {error}"
                if told == said or (isinstance(error, KeyError) and says_it_is_gone(error)):
                    continue  # of a study that is gone whoever works on it hears
                said = told
                say(f"note: {self._where}: {told}, in the midst of a sign of life; the next one tries again")

    def beat(self) -> None:
        """Gives a sign of life.

        Raises:
            SQLAlchemyError: The database cannot be reached.
        """
        with self._beating:
            text = _text(replace(self._owner, beat=time.time()))
            if not self._replace(self._noted, text):
                there = self._read()
                owner = _owner(there)
                if owner is not None and owner.token != self._owner.token:
                    self._lost = owner
                    self._ended.set()
                    return
                # Else an earlier sign got through, and the connection ended before that was heard.
                if there is None or not self._replace(there, text):
                    return
            self._noted = text

    def _read(self) -> str | None:
        with self._engine.connect() as connection:
            found = connection.execute(sqlalchemy.select(self._table.c.value_json).where(*self._is())).scalar()
        return None if found is None else str(found)

    def _replace(self, there: str, text: str) -> bool:
        with self._engine.begin() as connection:
            changed = sqlalchemy.update(self._table).where(*self._is(there)).values(value_json=text)
            return connection.execute(changed).rowcount == 1

    def _is(self, there: str | None = None) -> list[Any]:
        wanted = self._key | ({} if there is None else {"value_json": there})
        return [self._table.c[name] == value for name, value in wanted.items()]


def alive_among(read: Callable[[], Sequence[Owner]], where: str) -> list[Owner]:
    """Returns which owners are alive; where none seems to be, those on other hosts are watched.

    Their clocks may be wrong, but then their signs change.

    Args:
        read: Reads them.
        where: The database and the study, for messages.
    """
    there = read()
    alive = [owner for owner in there if owner.is_alive]
    silent = [owner for owner in there if not owner.is_here]
    if alive or not silent:
        return alive
    seconds = max(WATCH_S, *(owner.grace / 4 for owner in silent))  # as long as for one and a half of its signs
    say(f"note: {where}: looking for {seconds:.0f} s whether {silent[0]} is still at it")
    time.sleep(seconds)
    return [owner for owner in read() if owner.is_alive]


def _text(owner: Owner) -> str:
    return json.dumps(asdict(owner))


def _owner(text: str | None) -> Owner | None:
    try:
        return Owner.read(json.loads(text or "null"))
    except ValueError:
        return None


@cache
def _adapter() -> TypeAdapter[Owner]:
    """What reads owners: to make it takes longer than to read one, and there are many."""
    return TypeAdapter(Owner)


def _started(process: int) -> float:
    """When a process began: on Linux by the machine's own count, which no clock that is set right moves.

    Raises:
        psutil.Error: There is no such process, or it has ended and its parent has not asked how.
    """
    try:
        fields = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()  # the name may have spaces
        state, began = fields[0], int(fields[19]) / os.sysconf("SC_CLK_TCK")  # fields 3 and 22 of ``man proc_pid_stat``
    except (OSError, AttributeError):  # another system, or no such process
        there = psutil.Process(process)
        state, began = b"Z" if there.status() == psutil.STATUS_ZOMBIE else b"", there.create_time()
    if state in (b"Z", b"X"):
        raise psutil.NoSuchProcess(process)
    return began


@cache
def _machine() -> str:
    """Tells machines and containers apart: the machine's run since its start, and the space of process numbers."""
    identifiers = []
    with suppress(OSError):
        identifiers.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
    with suppress(OSError):
        identifiers.append(os.readlink("/proc/self/ns/pid"))  # noqa: PTH115  it names no path
    return " ".join(identifiers)
