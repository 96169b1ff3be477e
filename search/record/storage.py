"""Where a study is kept: a journal file in its directory, or any Optuna storage URL."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage

from features.runtime.errors import InputError
from search.record.crew import Crew, refuse_beside_crew
from search.record.database import (
    database_for,
    existing_database,
    no_record,
    once_reached,
    require_study,
    storage_errors,
)
from search.record.journal import BufferedJournal
from search.record.mirror import Mirror
from search.record.noted_config import begun_config, noted_config
from search.record.opened_study import DatabaseStudy, JournalStudy, OpenedStudy
from search.record.owner import Ownership
from search.record.record_identity import check_made_of, record_errors
from search.setup.config import StudyConfig
from search.setup.new_study import new_study
from search.setup.storage_url import hidden, openable, sqlite_file
from search.trials.checked import check_trials

JOURNAL = "journal.log"
Direction = Literal["maximize", "minimize"]
_Wanted = Literal["new", "existing", "either"]
"""Which study is opened: a new one, for which one without trials serves, too; one that is there; whichever it is."""


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
    wanted: _Wanted = "existing" if resume else "new"
    if not url:
        if resume:
            _require_journal(folder / JOURNAL, name)
        journal = BufferedJournal(folder / JOURNAL, keep_bytes=keep_bytes)
        return _in_journal(journal, name, wanted=wanted, direction=direction)
    database = existing_database(url, name) if resume else database_for(url)
    with _mirrored(database, url, name, wanted=wanted, direction=direction) as (study, mirror):
        owner = _alone(study, url, mirror.tables.study_id, name)
    return DatabaseStudy(study, mirror, owner=owner)


def open_inner_record(
    folder: Path, name: str, url: str | None, *, direction: Direction, keep_bytes: int | None = None
) -> OpenedStudy:
    """Opens a study that belongs to one that this process holds already; makes it where it is not there.

    See ``open_record`` for the arguments and what is raised.
    """
    if not url:
        journal = BufferedJournal(folder / JOURNAL, keep_bytes=keep_bytes)
        return _in_journal(journal, name, wanted="either", direction=direction)
    with _mirrored(database_for(url), url, name, wanted="either", direction=direction) as (study, mirror):
        return DatabaseStudy(study, mirror)


def join_record(url: str, name: str, *, direction: Direction, grace: float) -> OpenedStudy:
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
    database = database_for(url, grace=grace)
    with _mirrored(database, url, name, wanted="either", direction=direction, shared=True) as (study, mirror):
        crew = Crew(url, mirror.tables.study_id, name, mirror, grace=grace)
    return DatabaseStudy(study, mirror, crew=crew)


def watch_record(url: str, name: str) -> OpenedStudy | None:
    """Opens a study that other processes work on, to look at; ``hand_over`` brings what is new.

    Returns:
        None where there is no such study yet, or nobody has joined it.

    Raises:
        InputError: The storage cannot be opened.
    """
    if _config_in(url, name, noted_config) is None:
        return None
    database = existing_database(url, name)
    with _mirrored(database, url, name, wanted="existing", direction=None, shared=True) as (study, mirror):
        return DatabaseStudy(study, mirror)


def _in_journal(journal: BufferedJournal, name: str, *, wanted: _Wanted, direction: Direction) -> JournalStudy:
    """Opens the study of a journal."""
    try:
        with record_errors(journal.path):
            storage = JournalStorage(journal)
            if wanted == "existing":
                require_study(storage, f"{journal.path}", name)
            if wanted == "new" and not any(study.n_trials for study in optuna.get_all_study_summaries(storage)):
                journal.begin_anew()  # a run that was killed at its start has left it, and may have been told otherwise
                storage = JournalStorage(journal)
            study = _create(storage, f"{journal.path}", name, wanted=wanted, direction=direction)
        if wanted == "new":
            journal.flush()  # from now on there is a record, and who goes on needs one
    except BaseException:
        journal.close()
        raise
    return JournalStudy(study, journal)


@contextmanager
def _mirrored(
    database: RDBStorage,
    url: str,
    name: str,
    *,
    wanted: _Wanted,
    direction: Direction | None,
    shared: bool = False,
) -> Iterator[tuple[optuna.Study, Mirror]]:
    """Opens the study of a database; what fails in the context lets go of it again.

    An existing one may be opened without a ``direction`` to compare its own with.
    """
    where = hidden(url)

    def find() -> int:
        if direction is not None:
            _create(database, where, name, wanted=wanted, direction=direction)
        return int(database.get_study_id_from_name(name))

    with storage_errors(url), ExitStack() as undone:
        number = once_reached(find, url)
        mirror = undone.enter_context(closing(Mirror(database, number, f"{where}: study {name!r}", shared=shared)))
        yield optuna.load_study(study_name=name, storage=mirror), mirror
        undone.pop_all()


def _alone(study: optuna.Study, url: str, number: int, name: str) -> Ownership:
    """Takes a study for this process alone: noted first and looked for others then, as those do who join."""
    owner = Ownership(url, number, name)
    try:
        refuse_beside_crew(study, f"{hidden(url)}: study {name!r}")
    except BaseException:
        owner.close()
        raise
    return owner


def _create(storage: BaseStorage, where: str, name: str, *, wanted: _Wanted, direction: Direction) -> optuna.Study:
    """Makes a study, or opens it where it is there."""
    existing = [summary for summary in optuna.get_all_study_summaries(storage) if summary.study_name == name]
    if existing and existing[0].n_trials and wanted == "new":  # an empty one is what a run killed at its start leaves
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
        return find_study(open_storage(folder, url, name), where_kept(folder, url), name)


def where_kept(folder: Path, url: str | None) -> Path | str:
    """Returns where a record is, for messages: the journal's path, or the URL without its secrets."""
    return hidden(url) if url else folder / JOURNAL


def config_in_storage(url: str, name: str) -> StudyConfig | None:
    """Returns the config that is noted in a study, by those who joined it or who began it; None where there is none.

    Raises:
        InputError: The storage cannot be opened, or the config is damaged.
    """
    return _config_in(url, name, begun_config)


def _config_in(
    url: str, name: str, read_config: Callable[[Mapping[str, Any], str], StudyConfig | None]
) -> StudyConfig | None:
    file = sqlite_file(url)
    if file is not None and not file.is_file():
        return None
    database = database_for(url)

    def read() -> StudyConfig | None:
        if name not in [study.study_name for study in database.get_all_studies()]:
            return None
        attributes = database.get_study_user_attrs(database.get_study_id_from_name(name))
        return read_config(attributes, f"{hidden(url)}: study {name!r}")

    try:
        with storage_errors(url):
            return once_reached(read, url)
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
    with record_errors(where):
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
    with record_errors(where):
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
        return optuna.storages.get_storage(existing_database(openable(folder, url), name, reading=True))
    path = folder / JOURNAL
    _require_journal(path, name)
    with record_errors(path):
        storage = JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
        require_study(storage, f"{path}", name)
        return storage


def _require_journal(path: Path, name: str | None) -> None:
    """Refuses a journal that is not there or empty, which Optuna would make or begin."""
    if not path.is_file():
        raise no_record(f"{path}", name, "a folder" if path.is_dir() else "no such file")
    if not path.stat().st_size:
        raise no_record(f"{path}", name, "an empty file")
