"""Which errors of a database will pass: whoever waits and tries again then loses nothing."""

from __future__ import annotations

import os
import re
import socket
import sqlite3
import time
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError

from features.runtime.command import say

PATIENCE_S = 600.0
"""Seconds for which a database that cannot be reached is tried again: training goes on, and nothing is lost."""
SHORT_S = 1.0
"""Seconds of it once somebody has asked to stop; and after which it is said that something is waited for."""
_LONGEST_PAUSE_S, _STEP_S = 5.0, 0.1
DATABASE_ERRORS = (StorageInternalError, SQLAlchemyError)
"""What a database raises, or Optuna for it."""
IDLE_S = 30.0
"""Seconds that a process may do nothing in the midst of a transaction, which takes milliseconds, before PostgreSQL ends
its connection."""
ANSWER_S = 10.0
"""Seconds for which an answer is waited for once somebody has asked to stop: a database may stand still."""
_LIMITS = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""Of PostgreSQL's connections: of a machine that is gone without a word one hears within a minute."""
T = TypeVar("T")

_OPEN: dict[int, weakref.ref[Any]] = {}
"""The connections to PostgreSQL of this process's studies."""
_PASSING = ("08", "40", "57")
"""Classes of SQLSTATE: of the connection, of transactions in each other's way, of a server that ends or starts."""
_TOO_MANY_CONNECTIONS, _WAS_IDLE, _FORBIDDEN = "53300", "25P03", "42501"
_IS_FULL = re.compile("too many (clients|connections)|connection slots")
"""In what PostgreSQL says to who has no connection yet, of which drivers tell no SQLSTATE."""


def passes(error: Exception) -> bool:
    """Whether what a database, or Optuna for it, raised will pass: it cannot be reached, or others are in the way."""
    cause = _cause(error)
    if not isinstance(cause, OperationalError | InterfaceError):
        return isinstance(cause, DBAPIError) and cause.connection_invalidated
    if state := _state(cause):
        return state[:2] in _PASSING or state in (_TOO_MANY_CONNECTIONS, _WAS_IDLE)
    return "sqlite" not in type(cause.orig).__module__ or "locked" in str(cause.orig)


def broke_off(error: Exception) -> bool:
    """Whether a database had answered and then ended the connection: who never had one may have the wrong address."""
    cause = _cause(error)
    return isinstance(cause, DBAPIError) and cause.connection_invalidated


def forbids(error: Exception) -> bool:
    """Whether a database was reached and its user lacks a right in it."""
    return isinstance(cause := _cause(error), DBAPIError) and _state(cause) == _FORBIDDEN


def keep_to(engine: sqlalchemy.Engine, file: Path | None) -> None:
    """Has SQLite connect to its file only while that is there: it would make another one, and an empty one at that.

    Args:
        engine: Of a database that is there.
        file: Its file; None for a database that is none.
    """
    if file is None:
        return

    def look(*_: object) -> None:
        if not file.is_file():
            raise sqlite3.OperationalError(f"{file} is not there any more")

    sqlalchemy.event.listen(engine, "do_connect", look)


def _cause(error: Exception) -> BaseException | None:
    return error if isinstance(error, DBAPIError) else error.__cause__


def _state(cause: DBAPIError) -> str:
    """The SQLSTATE that a driver tells; '' for none."""
    return str(getattr(cause.orig, "sqlstate", None) or getattr(cause.orig, "pgcode", None) or "")


def set_up_sessions(engine: sqlalchemy.Engine) -> None:
    """Has PostgreSQL tell times in UTC, and end connections that are idle within a transaction; limits what may hang.

    Signs of life have no zone in Optuna's tables: they would be in that of whoever gave them, which may be another
    for each process, change in the midst of a study, or be one that Python does not know.

    A process that is stopped within a transaction, or whose machine is suspended, would keep its locks, and all others
    waiting for them, until somebody ends it. When it goes on, it finds its connection gone, and begins anew as after
    any outage. In the midst of a pipeline, as which psycopg sends one statement with many rows, PostgreSQL takes nobody
    for idle, and before its version 17 has no other limit that would hold: no pipelines are used.
    """
    if engine.dialect.name != "postgresql":
        return

    def limit(_: Any, __: Any, ___: Any, told: dict[str, Any]) -> None:
        for name, value in _LIMITS.items():
            told.setdefault(name, value)  # the URL may have others

    def set_up(connection: Any, _: Any) -> None:
        key = id(connection)
        with suppress(TypeError):  # a driver's that cannot be referred to
            _OPEN[key] = weakref.ref(connection, lambda _: _OPEN.pop(key, None))
        with closing(connection.cursor()) as cursor:  # not every driver's is a context itself
            cursor.execute("SET TIME ZONE 'UTC'")
            cursor.execute(f"SET idle_in_transaction_session_timeout = {round(1000 * IDLE_S)}")
        connection.commit()

    def one_by_one(cursor: Any, statement: str, rows: Iterable[Any], _: Any) -> bool:
        for row in rows:
            cursor.execute(statement, row)
        return True

    if engine.dialect.driver in ("psycopg", "psycopg2"):  # which are of the same library
        sqlalchemy.event.listen(engine, "do_connect", limit)
    sqlalchemy.event.listen(engine, "do_executemany", one_by_one)
    engine.dialect.supports_sane_multi_rowcount = False  # a cursor counts those of its last statement
    sqlalchemy.event.listen(engine, "connect", set_up)
    engine.dispose()  # what was connected before


def break_off() -> None:
    """Breaks off what this process waits for in PostgreSQL, in whatever thread: there it fails as of a lost connection.

    A signal's handler may call it: it takes no locks.
    """
    for known in list(_OPEN.values()):
        with suppress(Exception):  # it is closed just now, or its driver tells no socket
            connection = known()
            if connection is not None and not connection.closed:
                with socket.socket(fileno=os.dup(connection.fileno())) as end:
                    end.shutdown(socket.SHUT_RDWR)


class Patience:
    """How long one process waits for a database that is away.

    Attributes:
        seconds: So long, at most. Somebody may have less at any moment: whoever waits looks at it in steps, since a
            signal's handler must not set an event, whose lock the thread that it came to may hold.
        lost: What had failed when there was none left: nothing is tried any more.
    """

    def __init__(self) -> None:
        """Begins with ten minutes."""
        self.seconds = PATIENCE_S
        self.lost: Exception | None = None
        self._asked = False

    def hurry(self, *, at_once: bool = False) -> None:
        """Somebody asks to stop: waits a moment at most from now on; or not at all, breaking off what is under way."""
        self._asked = True
        self.seconds = 0.0 if at_once else min(self.seconds, SHORT_S)
        if at_once:
            break_off()

    def end(self) -> None:
        """From now on nothing is tried twice; what is under way may take its time."""
        self.seconds = 0.0

    def await_answer(self, under_way: Future[Any]) -> None:
        """Waits for what is done in another thread; not for long once somebody has asked to stop."""
        begun = time.monotonic()
        while not wait([under_way], _STEP_S).done:
            if self._asked and time.monotonic() - begun > ANSWER_S:
                self.hurry(at_once=True)

    def wait(self, pause: float) -> bool:
        """Waits for a pause, or until there is less patience; says whether there is none."""
        before, ends = self.seconds, time.monotonic() + pause
        while self.seconds == before > 0 and (left := ends - time.monotonic()) > 0:
            time.sleep(min(left, _STEP_S))
        return self.seconds <= 0


def patiently(
    work: Callable[[], T],
    where: str,
    *,
    passing: Callable[[Exception], bool] = passes,
    patience: Patience | None = None,
) -> T:
    """Returns what ``work`` does in a database, tried again for a while where that cannot be reached.

    Args:
        work: May be begun again after any error in its midst.
        where: The database, for messages.
        passing: Which errors are waited for.
        patience: How long that is; ten minutes where nobody can hurry it.

    Raises:
        SQLAlchemyError: It could not be reached for ten minutes, or refused something; or what Optuna makes of it.
    """
    patience = patience or Patience()
    begun, pause, said = time.monotonic(), 0.1, False
    while True:
        if patience.lost is not None:
            raise patience.lost
        try:
            return work()
        except DATABASE_ERRORS as error:
            lasting = time.monotonic() - begun
            if not passing(error) or lasting > patience.seconds or patience.wait(pause):
                if passing(error) and patience.seconds <= 0:
                    patience.lost = error
                raise
            if lasting > SHORT_S and not said:
                said = True
                why = (
                    "has too many connections"
                    if _IS_FULL.search(str(error.__cause__ or error))
                    else "cannot be reached"
                )
                say(f"note: {where}: {why}; it is tried again for {PATIENCE_S / 60:.0f} minutes")
            pause = min(2 * pause, _LONGEST_PAUSE_S)
            passing = passes  # from now on: whoever was waited for is there, and may take a while to begin anew
