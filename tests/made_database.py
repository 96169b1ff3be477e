"""Databases of the tests' own with Optuna's tables, which take seconds to make: a study each is enough of a new one."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from postgres import running_server

GRACE_S = 4
_numbers = count()


@contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    """Yields the URL of a database with tables; skips the test where there is no server of its kind.

    Args:
        kind: ``sqlite`` or ``postgresql``.
        folder: Where a file may be.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if kind == "sqlite":
        url = f"sqlite:///{folder}/made.db"
        RDBStorage(url).engine.dispose()
        yield url
        return
    with running_server() as server:
        url = server.new_database("made")
        RDBStorage(url).engine.dispose()
        yield url


def study_database(folder: Path) -> str:
    """Writes a SQLite database with a study ``s`` that maximizes; returns its URL."""
    path = folder / "heads.db"
    path.write_bytes(_study_database())
    return f"sqlite:///{path}"


@cache
def _study_database() -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "heads.db"
        optuna.create_study(storage=f"sqlite:///{path}", study_name="s", direction="maximize")
        return path.read_bytes()


def connected(url: str) -> RDBStorage:
    """Returns a storage of its own over a database that has its tables; ``GRACE_S`` is its grace."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = RDBStorage(url, skip_table_creation=True, heartbeat_interval=1, grace_period=GRACE_S)
    if storage.engine.name == "sqlite":  # nothing is to outlive the machine
        sqlalchemy.event.listen(storage.engine, "connect", lambda raw, _: raw.execute("PRAGMA synchronous = OFF"))
    return storage


def new_study(storage: RDBStorage) -> int:
    """Makes a study; returns its number in the storage."""
    return storage.create_new_study([StudyDirection.MAXIMIZE], f"study {next(_numbers)}")


def commits(storage: RDBStorage) -> list[int]:
    """Returns a list that grows with each transaction that a storage brings to its end."""
    seen: list[int] = []
    sqlalchemy.event.listen(storage.engine, "commit", lambda _: seen.append(1))
    return seen


def at_once(work: Callable[[int], Any], times: int) -> list[Any]:
    """Runs something in several threads that begin together; returns what each gave, or raises what one raised."""
    barrier, results, errors = threading.Barrier(times), [], []

    def run(number: int) -> None:
        barrier.wait()
        try:
            results.append(work(number))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results
