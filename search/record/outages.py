"""Which errors of a database will pass: whoever waits and tries again then loses nothing."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
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
T = TypeVar("T")

_PASSING = ("08", "40", "57")
"""Classes of SQLSTATE: of the connection, of transactions in each other's way, of a server that ends or starts."""
_TOO_MANY_CONNECTIONS, _WAS_IDLE = "53300", "25P03"


def passes(error: Exception) -> bool:
    """Whether what a database, or Optuna for it, raised will pass: it cannot be reached, or others are in the way."""
    cause = error if isinstance(error, DBAPIError) else error.__cause__
    if not isinstance(cause, OperationalError | InterfaceError):
        return isinstance(cause, DBAPIError) and cause.connection_invalidated
    state = getattr(cause.orig, "sqlstate", None) or getattr(cause.orig, "pgcode", None)
    if state:
        return str(state)[:2] in _PASSING or str(state) in (_TOO_MANY_CONNECTIONS, _WAS_IDLE)
    return "sqlite" not in type(cause.orig).__module__ or "locked" in str(cause.orig)


def broke_off(error: Exception) -> bool:
    """Whether a database had answered and then ended the connection: who never had one may have the wrong address."""
    cause = error if isinstance(error, DBAPIError) else error.__cause__
    return isinstance(cause, DBAPIError) and cause.connection_invalidated


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


def set_up_sessions(engine: sqlalchemy.Engine) -> None:
    """Has PostgreSQL tell times in UTC, and end connections that are idle within a transaction.

    Signs of life have no zone in Optuna's tables: they would be in that of whoever gave them, which may be another
    for each process, change in the midst of a study, or be one that Python does not know.

    A process that is stopped within a transaction, or whose machine is suspended, would keep its locks, and all others
    waiting for them, until somebody ends it. When it goes on, it finds its connection gone, and begins anew as after
    any outage.
    """
    if engine.dialect.name != "postgresql":
        return

    def set_up(connection: Any, _: Any) -> None:
        with closing(connection.cursor()) as cursor:  # not every driver's is a context itself
            cursor.execute("SET TIME ZONE 'UTC'")
            cursor.execute(f"SET idle_in_transaction_session_timeout = {round(1000 * IDLE_S)}")
        connection.commit()

    sqlalchemy.event.listen(engine, "connect", set_up)
    engine.dispose()  # what was connected before


class Patience:
    """How long one process waits for a database that is away.

    Attributes:
        seconds: So long, at most. Somebody may have less at any moment: whoever waits looks at it in steps, since a
            signal's handler must not set an event, whose lock the thread that it came to may hold.
    """

    def __init__(self) -> None:
        """Begins with ten minutes."""
        self.seconds = PATIENCE_S

    def hurry(self, *, at_once: bool = False) -> None:
        """Waits a moment at most from now on, or not at all."""
        self.seconds = 0.0 if at_once else min(self.seconds, SHORT_S)

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
        try:
            return work()
        except DATABASE_ERRORS as error:
            lasting = time.monotonic() - begun
            if not passing(error) or lasting > patience.seconds or patience.wait(pause):
                raise
            if lasting > SHORT_S and not said:
                said = True
                say(f"note: {where}: cannot be reached; it is tried again for {PATIENCE_S / 60:.0f} minutes")
            pause = min(2 * pause, _LONGEST_PAUSE_S)
            passing = passes  # from now on: whoever was waited for is there, and may take a while to begin anew
