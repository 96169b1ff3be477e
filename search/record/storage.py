"""Where a study is kept: a journal file in its directory, or any Optuna storage URL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import optuna
import sqlalchemy
from optuna.storages import BaseStorage, JournalStorage
from sqlalchemy.exc import SQLAlchemyError

from features.runtime.errors import BottleneckError, InputError
from features.runtime.text import listed
from search.record.journal import BufferedJournal
from search.record.owner import Ownership
from search.setup.storage_url import VARIABLE, has_secrets, hidden, opened, scrubbed, sqlite_file

JOURNAL = "journal.log"
Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True)
class OpenedStudy:
    """A study and how its record is brought to disk.

    Attributes:
        study: The Optuna study.
        flush: Makes everything recorded so far durable; of a database, says whether it is still this process's.
        close: Flushes and lets go of the file.
        journal_bytes: Length of the journal on disk; None where the record is kept elsewhere.
    """

    study: optuna.Study
    flush: Callable[[], None]
    close: Callable[[], None]
    journal_bytes: Callable[[], int] | None = None


def open_record(
    folder: Path,
    name: str,
    url: str | None,
    *,
    direction: Direction,
    resume: bool,
    keep_bytes: int | None = None,
    inner: bool = False,
) -> OpenedStudy:
    """Makes a study, or opens the one to go on with.

    Args:
        folder: The study directory; holds the journal where no ``url`` is given.
        name: The study's name in the storage.
        url: An Optuna storage URL, e.g. ``sqlite:///heads.db`` or ``postgresql://...``.
        direction: ``maximize`` or ``minimize``.
        resume: Whether it is a study that is there: without it, it may be but must have no trials.
        keep_bytes: Cut the journal back to this length, that of the snapshot to go on from.
        inner: Whether it belongs to a study that is open already: it is made where it is not there.

    Raises:
        InputError: The storage cannot be opened; the study is not there and must be, has trials and must not, or has
            another direction.
        BottleneckError: Another process searches it.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    needed = resume and not inner
    if url:
        storage = _existing(url, name) if needed else _remote(url)
        with storage_errors(url):
            study = _create(storage, hidden(url), name, direction=direction, resume=resume)
            if inner:
                return OpenedStudy(study, lambda: None, lambda: None)
            owner = Ownership(url, storage.get_study_id_from_name(name), name)
        return OpenedStudy(study, owner.check, owner.close)
    if needed:
        _require_journal(folder / JOURNAL, name)
    journal = BufferedJournal(folder / JOURNAL, keep_bytes=keep_bytes)
    try:
        storage = JournalStorage(journal)
        if needed:
            _require(storage, f"{journal.path}", name)
        study = _create(storage, f"{journal.path}", name, direction=direction, resume=resume)
        if not resume:
            journal.flush()  # from now on there is a record, and who goes on needs one
    except BaseException:
        journal.close()
        raise
    return OpenedStudy(study, journal.flush, journal.close, journal.size)


def _create(storage: BaseStorage, where: str, name: str, *, direction: Direction, resume: bool) -> optuna.Study:
    existing = [summary for summary in optuna.get_all_study_summaries(storage) if summary.study_name == name]
    if existing and existing[0].n_trials and not resume:  # an empty one is what a run killed at its start leaves
        raise InputError(where, field="study", expected=f"no study {name!r} yet", found="one", hint="pass --resume")
    if existing:
        found = existing[0].direction.name.lower()
        if found != direction:
            raise InputError(where, field="direction", expected=direction, found=found)
    return optuna.create_study(storage=storage, study_name=name, direction=direction, load_if_exists=True)


def load_study(folder: Path, name: str, url: str | None) -> optuna.Study:
    """Opens a study for reading, while a search may be writing it.

    Raises:
        InputError: There is none.
    """
    storage = open_storage(folder, url, name)
    with storage_errors(url):
        return optuna.load_study(study_name=name, storage=storage)


def open_storage(folder: Path, url: str | None, name: str | None = None) -> BaseStorage:
    """Opens the storage of a study directory for reading; makes nothing where there is none.

    Args:
        folder: Holds the journal where no ``url`` is given.
        url: The storage's URL, as the study's record has it.
        name: The study's name in the storage; None for any.

    Raises:
        InputError: There is no journal or no database, the study is not in it, or it is damaged.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if url:
        return _existing(opened(folder, url), name)
    path = folder / JOURNAL
    _require_journal(path, name)
    try:
        storage = JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    except ValueError as error:
        raise InputError(path, expected="an Optuna journal", found=f"a damaged line ({error})") from error
    _require(storage, f"{path}", name)
    return storage


@contextmanager
def storage_errors(url: str | None) -> Iterator[None]:
    """Makes what a database raises the one line of an error, without the secrets of its URL.

    Raises:
        BottleneckError: The database cannot be reached, or refused something.
    """
    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        where = "the study's storage" if url is None else hidden(url)
        raise BottleneckError(f"{where}: {_reason(error.__cause__ or error, url or '')}") from None


def _require_journal(path: Path, name: str | None) -> None:
    """Refuses a journal that is not there or empty, which Optuna would make or begin."""
    if not path.is_file():
        raise _no_record(f"{path}", name, "no such file")
    if not path.stat().st_size:
        raise _no_record(f"{path}", name, "an empty file")


def _require(storage: BaseStorage, where: str, name: str | None) -> None:
    """Refuses a storage that does not hold a study."""
    there = [study.study_name for study in storage.get_all_studies()]
    if name not in there if name else not there:
        raise _no_record(where, name, f"only {listed(map(repr, there), 5)}" if there else "no study")


def _no_record(where: str, name: str | None, found: str) -> InputError:
    hint = "nothing was made in its place"
    expected = "a study's database" if "://" in where else "a study's journal"
    return InputError(where, field=name and f"study {name!r}", expected=expected, found=found, hint=hint)


def _existing(url: str, name: str | None) -> BaseStorage:
    """Opens a database that holds a study; makes neither the database nor a table."""
    where, file = hidden(url), sqlite_file(url)
    if file is not None and not file.is_file():
        raise _no_record(where, name, "no such file")
    with _opening(url):
        engine = sqlalchemy.create_engine(url)
        try:
            tables = sqlalchemy.inspect(engine).get_table_names()
        finally:
            engine.dispose()
        if "studies" not in tables:
            raise _no_record(where, name, "a database without studies" if tables else "an empty database")
        storage = optuna.storages.get_storage(optuna.storages.RDBStorage(url, skip_table_creation=True))
        _require(storage, where, name)
        return storage


def _remote(url: str) -> BaseStorage:
    with _opening(url):
        return optuna.storages.get_storage(url)


@contextmanager
def _opening(url: str) -> Iterator[None]:
    try:
        yield
    except BottleneckError:
        raise
    except ImportError as error:
        raise BottleneckError(f"--storage {hidden(url)}: its driver is not installed ({error})") from None
    except Exception as error:  # SQLAlchemy and the drivers raise errors of many kinds, some with the URL in them
        told = f"{hidden(url)} ({_reason(error, url)})"
        raise InputError("--storage", expected="an Optuna storage URL", found=told, hint=_hint(url)) from None


def _reason(error: BaseException, url: str) -> str:
    return scrubbed(str(error).strip().split("\n", maxsplit=1)[0], url)


def _hint(url: str) -> str | None:
    """What to do where a database was asked without a password: ``study.json`` keeps none."""
    if has_secrets(url) or sqlite_file(url) is not None or "://" not in url:
        return None
    return f"a study keeps no password: where it needs one, set {VARIABLE} to the whole URL, or resume with --storage"
