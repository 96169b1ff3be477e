"""Where a study is kept: a journal file in its directory, or any Optuna storage URL."""

from __future__ import annotations

import random
import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

import optuna
import sqlalchemy
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from features.runtime.command import say
from features.runtime.errors import BottleneckError, InputError
from features.runtime.text import listed
from search.record.crew import Crew, beat_every, noted_config, refuse_beside_crew
from search.record.damage import check_made_of, reading
from search.record.journal import BufferedJournal
from search.record.mirror import Mirror
from search.record.opened_study import DatabaseRecord, JournalRecord, OpenedStudy, SharedRecord
from search.record.outages import DATABASE_ERRORS, broke_off, keep_to, passes, patiently, set_up_sessions
from search.record.owner import Ownership
from search.setup.config import StudyConfig
from search.setup.new_study import new_study
from search.setup.storage_url import VARIABLE, has_secrets, hidden, opened, scrubbed, sqlite_file
from search.trials.checked import check_trials

JOURNAL = "journal.log"
Direction = Literal["maximize", "minimize"]
T = TypeVar("T")
_REACHED: set[str] = set()
"""URLs of the databases that this process has opened for a search, or that are known to be there."""


def open_record(
    folder: Path,
    name: str,
    url: str | None,
    *,
    direction: Direction,
    resume: bool,
    keep_bytes: int | None = None,
) -> OpenedStudy:
    """Makes a study, or opens the one to go on with, for this process alone.

    Args:
        folder: The study directory; holds the journal where no ``url`` is given.
        name: The study's name in the storage.
        url: An Optuna storage URL, e.g. ``sqlite:///heads.db`` or ``postgresql://...``.
        direction: ``maximize`` or ``minimize``.
        resume: Whether it is a study that is there: without it, it may be but must have no trials.
        keep_bytes: Cut the journal back to this length, that of the snapshot to go on from.

    Raises:
        InputError: The storage cannot be opened; the study is not there and must be, has trials and must not, or has
            another direction.
        BottleneckError: Another process searches it, or some do so together.
    """
    if not url:
        if resume:
            _require_journal(folder / JOURNAL, name)
        journal = BufferedJournal(folder / JOURNAL, keep_bytes=keep_bytes)
        return _in_journal(journal, name, direction=direction, made=not resume, there=resume)
    database = _existing(url, name) if resume else _remote(url, None)
    with storage_errors(url), ExitStack() as undone:
        mirror = undone.enter_context(closing(_mirror(database, url, name, direction=direction, made=not resume)))
        study = optuna.load_study(study_name=name, storage=mirror)
        owner = _alone(study, url, mirror.tables.study_id, name)
        undone.pop_all()
    return DatabaseRecord(study, mirror, owner=owner)


def open_inner_record(
    folder: Path, name: str, url: str | None, *, direction: Direction, keep_bytes: int | None = None
) -> OpenedStudy:
    """Opens a study that belongs to one that this process holds already; makes it where it is not there.

    See ``open_record`` for the arguments and what is raised.
    """
    if not url:
        journal = BufferedJournal(folder / JOURNAL, keep_bytes=keep_bytes)
        return _in_journal(journal, name, direction=direction)
    database = _remote(url, None)
    with storage_errors(url), ExitStack() as undone:
        mirror = undone.enter_context(closing(_mirror(database, url, name, direction=direction)))
        study = optuna.load_study(study_name=name, storage=mirror)
        undone.pop_all()
    return DatabaseRecord(study, mirror)


def join_record(url: str, name: str, *, direction: Direction, grace: float) -> SharedRecord:
    """Opens a study to work on together with other processes; whichever comes first makes it.

    Args:
        url: An Optuna storage URL.
        name: The study's name in the storage.
        direction: ``maximize`` or ``minimize``.
        grace: Seconds without a sign of life after which a process's trials are handed to others.

    Raises:
        InputError: The storage cannot be opened, or the study has another direction.
        BottleneckError: A process searches it alone.
    """
    database = _remote(url, grace)
    with storage_errors(url), ExitStack() as undone:
        mirror = undone.enter_context(closing(_mirror(database, url, name, direction=direction, shared=True)))
        study = optuna.load_study(study_name=name, storage=mirror)
        crew = Crew(url, mirror.tables.study_id, name, mirror, grace=grace)
        undone.pop_all()
    return SharedRecord(study, mirror, crew)


def watch_record(url: str, name: str) -> OpenedStudy | None:
    """Opens a study that other processes work on, to look at; ``hand_over`` brings what is new.

    Returns:
        None where there is no such study yet.

    Raises:
        InputError: The storage cannot be opened.
    """
    if config_in_storage(url, name) is None:
        return None
    database = _existing(url, name)
    with storage_errors(url):
        number = database.get_study_id_from_name(name)
        mirror = Mirror(database, number, f"{hidden(url)}: study {name!r}", shared=True)
        study = optuna.load_study(study_name=name, storage=mirror)
    return DatabaseRecord(study, mirror)


def _in_journal(
    journal: BufferedJournal, name: str, *, direction: Direction, made: bool = False, there: bool = False
) -> JournalRecord:
    """Opens the study of a journal: one to be ``made``, one that has to be ``there``, or whichever it is."""
    try:
        with reading(journal.path):
            storage = JournalStorage(journal)
            if there:
                _require(storage, f"{journal.path}", name)
            if made and not any(study.n_trials for study in optuna.get_all_study_summaries(storage)):
                journal.begin_anew()  # a run that was killed at its start has left it, and may have been told otherwise
                storage = JournalStorage(journal)
            study = _create(storage, f"{journal.path}", name, direction=direction, made=made)
        if made:
            journal.flush()  # from now on there is a record, and who goes on needs one
    except BaseException:
        journal.close()
        raise
    return JournalRecord(study, journal)


def _mirror(
    database: RDBStorage, url: str, name: str, *, direction: Direction, made: bool = False, shared: bool = False
) -> Mirror:
    """Opens the study of a database: one to be ``made``, or whichever it is."""

    def create() -> int:
        _create(database, hidden(url), name, direction=direction, made=made)
        return int(database.get_study_id_from_name(name))

    number = _once_reached(create, url)
    return Mirror(database, number, f"{hidden(url)}: study {name!r}", shared=shared)


def _alone(study: optuna.Study, url: str, number: int, name: str) -> Ownership:
    """Takes a study for this process alone: noted first and looked for others then, as those do who join."""
    owner = Ownership(url, number, name)
    try:
        refuse_beside_crew(study, f"{hidden(url)}: study {name!r}")
    except BaseException:
        owner.close()
        raise
    return owner


def _create(storage: BaseStorage, where: str, name: str, *, direction: Direction, made: bool) -> optuna.Study:
    """Makes a study, or opens it where it may be there: one that is to be ``made`` may, but without trials."""
    existing = [summary for summary in optuna.get_all_study_summaries(storage) if summary.study_name == name]
    if existing and existing[0].n_trials and made:  # an empty one is what a run killed at its start leaves
        hint = "go on with it by --resume and the --out that it was begun with, or give the study file another name"
        if "://" not in where:  # a journal without its study.json, which a resume needs
            hint = "pass --out for another directory"
        raise InputError(where, field="study", expected=f"no study {name!r} yet", found="one", hint=hint)
    if existing:
        found = existing[0].direction.name.lower()
        if found != direction:
            raise InputError(where, field="direction", expected=direction, found=found)
    return new_study(storage=storage, study_name=name, direction=direction, load_if_exists=True)


def load_study(folder: Path, name: str, url: str | None) -> optuna.Study:
    """Opens a study for reading, while a search may be writing it.

    Raises:
        InputError: There is none.
    """
    with storage_errors(url):
        return find_study(open_storage(folder, url, name), place_of(folder, url), name)


def place_of(folder: Path, url: str | None) -> Path | str:
    """Returns where a record is, for messages: the journal's path, or the URL without its secrets."""
    return hidden(url) if url else folder / JOURNAL


def config_in_storage(url: str, name: str) -> StudyConfig | None:
    """Returns the config that processes have noted of the study that they work on; None where there is no such study.

    Raises:
        InputError: The storage cannot be opened, or the config is damaged.
    """
    file = sqlite_file(url)
    if file is not None and not file.is_file():
        return None
    database = _remote(url, None)

    def read() -> StudyConfig | None:
        if name not in [study.study_name for study in database.get_all_studies()]:
            return None
        attributes = database.get_study_user_attrs(database.get_study_id_from_name(name))
        return noted_config(attributes, f"{hidden(url)}: study {name!r}")

    try:
        with storage_errors(url):
            return _once_reached(read, url)
    finally:
        database.engine.dispose()


def find_study(storage: BaseStorage, where: Path | str, name: str) -> optuna.Study:
    """Finds a study in an open storage.

    Args:
        storage: The storage.
        where: Its place, for messages.
        name: The study's name.

    Raises:
        InputError: There is none, or it is damaged.
    """
    with reading(where):
        try:
            study = optuna.load_study(study_name=name, storage=storage)
        except KeyError as error:
            raise InputError(where, expected=f"a study {name!r}", found="none") from error
    return study


def check_record(study: optuna.Study, where: Path | str, config: StudyConfig) -> None:
    """Makes sure that a record is a study's, and its trials say what ours do: nothing in it is believed before.

    Args:
        study: The study.
        where: The place of its record, for messages.
        config: What ``study.json`` says of the study.

    Raises:
        InputError: It is another study's, or a trial says something else; it is named.
    """
    with reading(where):
        check_made_of(study.user_attrs, config, where)
        check_trials(study)


def open_storage(folder: Path, url: str | None, name: str | None = None) -> BaseStorage:
    """Opens the storage of a study directory for reading; makes nothing where there is none.

    Args:
        folder: Holds the journal where no ``url`` is given.
        url: The storage's URL, as the study's record has it.
        name: The study's name in the storage; None for any.

    Raises:
        InputError: There is no journal or no database, the study is not in it, or it is damaged.
    """
    if url:
        return optuna.storages.get_storage(_existing(opened(folder, url), name, reading=True))
    path = folder / JOURNAL
    _require_journal(path, name)
    with reading(path):
        storage = JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
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
    except DATABASE_ERRORS as error:
        raise BottleneckError(_in_words(error, url)) from None


@contextmanager
def held(opened: OpenedStudy, url: str | None) -> Iterator[None]:
    """Closes a study where its context ends, and makes what a database raises the one line of an error.

    What fails in the context comes first; of a stop it is said what closing, which then has little patience, has lost.

    Raises:
        BottleneckError: The database cannot be reached, or refused something.
    """
    with storage_errors(url):
        try:
            yield
        except BaseException as error:
            opened.hurry()
            try:
                opened.close()
            except (BottleneckError, *DATABASE_ERRORS) as lost:
                if isinstance(error, KeyboardInterrupt):
                    say(f"note: what was noted last is lost: {_in_words(lost, url)}")
            raise
        opened.close()


def _in_words(error: Exception, url: str | None) -> str:
    if isinstance(error, BottleneckError):
        return str(error)
    where, file = "the study's storage" if url is None else hidden(url), sqlite_file(url) if url else None
    gone = file is not None and not file.is_file()
    return f"{where}: {'the file is not there any more' if gone else _reason(error.__cause__ or error, url or '')}"


def _require_journal(path: Path, name: str | None) -> None:
    """Refuses a journal that is not there or empty, which Optuna would make or begin."""
    if not path.is_file():
        raise _no_record(f"{path}", name, "a folder" if path.is_dir() else "no such file")
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


def _existing(url: str, name: str | None, grace: float | None = None, *, reading: bool = False) -> RDBStorage:
    """Opens a database that holds a study; makes neither the database nor a table."""
    where, file = hidden(url), sqlite_file(url)
    if file is not None and not file.is_file():
        raise _no_record(where, name, "no such file")

    def find() -> RDBStorage:
        engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)  # which holds on to no connection
        tables = sqlalchemy.inspect(engine).get_table_names()
        if "studies" not in tables:
            raise _no_record(where, name, "a database without studies" if tables else "an empty database")
        database = _database(url, grace, skip_table_creation=True, stays_open=not reading)
        _require(database, where, name)
        return database

    with _opening(url):
        return _once_reached(find, url)


def _remote(url: str, grace: float | None) -> RDBStorage:
    """Opens a database, and makes its tables where there are none; of several that do so at once one is faster."""

    def make() -> RDBStorage:
        for pause in (0.5, 1.0, 2.0):
            try:
                return _database(url, grace)
            except (IntegrityError, ProgrammingError, OperationalError) as error:
                if not isinstance(error, IntegrityError) and not re.search("exist|locked", f"{error}"):
                    raise
                time.sleep(pause * (0.5 + random.random()))
        return _database(url, grace)

    with _opening(url):
        database = _once_reached(make, url)
        note_reached(url)
        return database


def note_reached(url: str) -> None:
    """Notes of a database that it has answered somebody: one that is away is waited for then, also at first."""
    _REACHED.add(url)


def _once_reached(work: Callable[[], T], url: str) -> T:
    """Does something in a database; waits for one that was there and is not: one that never was may not exist."""
    return patiently(work, hidden(url), passing=passes if url in _REACHED else broke_off)


def _database(
    url: str, grace: float | None, *, skip_table_creation: bool = False, stays_open: bool = True
) -> RDBStorage:
    """Opens a database, with one connection that stays open, or none: many processes may share it."""
    pool: dict[str, Any] = {"pool_size": 1, "max_overflow": 4} if stays_open else {"poolclass": sqlalchemy.NullPool}
    beats: dict[str, Any] = {} if grace is None else {"heartbeat_interval": max(1, round(beat_every(grace)))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        database = RDBStorage(url, engine_kwargs=pool, skip_table_creation=skip_table_creation, **beats)
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
        told, hint = f"{hidden(url)} ({_reason(error, url)})", _hint(url)
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
