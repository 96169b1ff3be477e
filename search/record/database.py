"""How the database of a study is opened, and what it raises."""

from __future__ import annotations

import random
import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import optuna
import sqlalchemy
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from features.runtime.errors import BottleneckError, InputError
from features.runtime.text import listed
from search.record.crew import beat_every
from search.record.outages import DATABASE_ERRORS, broke_off, forbids, keep_to, passes, patiently, set_up_sessions
from search.setup.storage_url import VARIABLE, has_secrets, hidden, scrubbed, sqlite_file

T = TypeVar("T")
_REACHED: set[str] = set()
"""URLs of the databases that this process has opened for a search, or that are known to be there."""


def existing_database(url: str, name: str | None, *, reading: bool = False) -> RDBStorage:
    """Opens a database that holds a study; makes neither the database nor a table.

    Args:
        url: Its whole URL.
        name: The study's name; None for any.
        reading: Whether no connection stays open between two questions.

    Raises:
        InputError: There is none, or the study is not in it.
        BottleneckError: It cannot be reached.
    """
    where, file = hidden(url), sqlite_file(url)
    if file is not None and not file.is_file():
        raise no_record(where, name, "no such file")

    def find() -> RDBStorage:
        engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)  # which holds on to no connection
        tables = sqlalchemy.inspect(engine).get_table_names()
        if "studies" not in tables:
            raise no_record(where, name, "a database without studies" if tables else "an empty database")
        database = _database(url, skip_table_creation=True, stays_open=not reading)
        try:
            require_study(database, where, name)
        except BaseException:
            database.engine.dispose()
            raise
        return database

    with _opening(url):
        return once_reached(find, url)


def database_for(url: str, *, grace: float | None = None) -> RDBStorage:
    """Opens a database, and makes its tables where there are none; of several that do so at once one is faster.

    Args:
        url: Its whole URL.
        grace: Seconds without a sign of life after which Optuna takes a trial for lost; None for never.

    Raises:
        InputError: The URL is none of Optuna's.
        BottleneckError: It cannot be reached.
    """

    def make() -> RDBStorage:
        for pause in (0.5, 1.0, 2.0):
            try:
                return _database(url, grace=grace)
            except (IntegrityError, ProgrammingError, OperationalError) as error:
                if not isinstance(error, IntegrityError) and not re.search("exist|locked", f"{error}"):
                    raise
                time.sleep(pause * (0.5 + random.random()))
        return _database(url, grace=grace)

    with _opening(url):
        database = once_reached(make, url)
        note_reached(url)
        return database


def note_reached(url: str) -> None:
    """Notes of a database that it has answered somebody: one that is away is waited for then, also at first."""
    _REACHED.add(url)


def once_reached(work: Callable[[], T], url: str) -> T:
    """Does something in a database; waits for one that was there and is not: one that never was may not exist."""
    return patiently(work, hidden(url), passing=passes if url in _REACHED else broke_off)


@contextmanager
def storage_errors(url: str | None) -> Iterator[None]:
    """Makes what a database raises the one line of an error, without the secrets of its URL.

    Raises:
        BottleneckError: The database cannot be reached, or refused something.
    """
    try:
        yield
    except DATABASE_ERRORS as error:
        raise BottleneckError(error_in_words(error, url)) from None


def error_in_words(error: Exception, url: str | None) -> str:
    """What a database, or our own error, says, in one line without the secrets of the database's URL."""
    if isinstance(error, BottleneckError):
        return str(error)
    where, file = "the study's storage" if url is None else hidden(url), sqlite_file(url) if url else None
    gone = file is not None and not file.is_file()
    return f"{where}: {'the file is not there any more' if gone else _reason(error.__cause__ or error, url or '')}"


def require_study(storage: BaseStorage, where: str, name: str | None) -> None:
    """Refuses a storage that does not hold a study."""
    there = [study.study_name for study in storage.get_all_studies()]
    if name not in there if name else not there:
        raise no_record(where, name, f"only {listed(map(repr, there), 5)}" if there else "no study")


def no_record(where: str, name: str | None, found: str) -> InputError:
    """The refusal of a place that holds no study, or not the one that is looked for."""
    hint = "nothing was made in its place"
    expected = "a study's database" if "://" in where else "a study's journal"
    return InputError(where, field=name and f"study {name!r}", expected=expected, found=found, hint=hint)


class _Database(RDBStorage):
    """Optuna's storage, which lets go of its connections where it cannot be opened."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        try:
            super().__init__(*arguments, **options)
        except BaseException:
            if hasattr(self, "engine"):
                self.engine.dispose()
            raise


def _database(
    url: str, *, grace: float | None = None, skip_table_creation: bool = False, stays_open: bool = True
) -> RDBStorage:
    """Opens a database, with one connection that stays open, or none: many processes may share it."""
    pool: dict[str, Any] = {"pool_size": 1, "max_overflow": 4} if stays_open else {"poolclass": sqlalchemy.NullPool}
    beats: dict[str, Any] = {} if grace is None else {"heartbeat_interval": max(1, round(beat_every(grace)))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        database = _Database(url, engine_kwargs=pool, skip_table_creation=skip_table_creation, **beats)
    set_up_sessions(database.engine)
    keep_to(database.engine, sqlite_file(url))
    return database


@contextmanager
def _opening(url: str) -> Iterator[None]:
    try:
        yield
    except BottleneckError:
        raise
    except ImportError as error:
        raise BottleneckError(f"--storage {hidden(url)}: its driver is not installed ({error})") from None
    except Exception as error:  # SQLAlchemy and the drivers raise errors of many kinds, some with the URL in them
        told, hint = f"{hidden(url)} ({_reason(error.__cause__ or error, url)})", _hint(url)
        if forbids(error):
            raise BottleneckError(f"--storage: its user may not do what a search needs: {told}") from None
        if passes(error):
            raise BottleneckError(f"--storage: cannot be reached: {told}{f'; {hint}' if hint else ''}") from None
        raise InputError("--storage", expected="an Optuna storage URL", found=told, hint=hint) from None


def _reason(error: BaseException, url: str) -> str:
    return scrubbed(str(error).strip().split("\n", maxsplit=1)[0], url)


def _hint(url: str) -> str | None:
    """What to do where a database was asked without a password: ``study.json`` keeps none."""
    if has_secrets(url) or sqlite_file(url) is not None or "://" not in url:
        return None
    return f"a study keeps no password: where it needs one, set {VARIABLE} to the whole URL, or resume with --storage"
