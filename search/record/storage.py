"""Where a study is kept: a journal file in its directory, or any Optuna storage URL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import optuna
from optuna.storages import BaseStorage, JournalStorage

from features.runtime.errors import BottleneckError, InputError
from features.runtime.text import printable
from search.record.journal import BufferedJournal
from search.trials.checked import check_trials

JOURNAL = "journal.log"
Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True)
class OpenedStudy:
    """A study and how its record is brought to disk.

    Attributes:
        study: The Optuna study.
        flush: Makes everything recorded so far durable.
        close: Flushes and lets go of the file.
        journal_bytes: Length of the journal on disk; None where the record is kept elsewhere.
    """

    study: optuna.Study
    flush: Callable[[], None]
    close: Callable[[], None]
    journal_bytes: Callable[[], int] | None = None


def open_record(
    folder: Path, name: str, url: str | None, *, direction: Direction, resume: bool, keep_bytes: int | None = None
) -> OpenedStudy:
    """Makes a study, or opens the one to go on with.

    Args:
        folder: The study directory; holds the journal where no ``url`` is given.
        name: The study's name in the storage.
        url: An Optuna storage URL, e.g. ``sqlite:///heads.db`` or ``postgresql://...``.
        direction: ``maximize`` or ``minimize``.
        resume: Whether the study may have trials already.
        keep_bytes: Cut the journal back to this length, that of the snapshot to go on from.

    Raises:
        InputError: The storage cannot be opened; the study has trials and must not; its direction differs.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if url:
        study = _create(_remote(url), url, name, direction=direction, resume=resume)
        return OpenedStudy(study, lambda: None, lambda: None)
    journal = BufferedJournal(folder / JOURNAL, keep_bytes=keep_bytes)
    try:
        with _reading(journal.path):
            study = _create(JournalStorage(journal), str(journal.path), name, direction=direction, resume=resume)
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
    return find_study(open_storage(folder, url), url or folder / JOURNAL, name)


def find_study(storage: BaseStorage, where: Path | str, name: str) -> optuna.Study:
    """Finds a study in an open storage.

    Args:
        storage: The storage.
        where: Its place, for messages.
        name: The study's name.

    Raises:
        InputError: There is none, or it is damaged.
    """
    with _reading(where):
        try:
            study = optuna.load_study(study_name=name, storage=storage)
        except KeyError as error:
            raise InputError(where, expected=f"a study {name!r}", found="none") from error
    return study


def check_record(study: optuna.Study, where: Path | str) -> None:
    """Makes sure that the trials of a study say what ours do: nothing in a record is believed before.

    Args:
        study: The study.
        where: The place of its record, for messages.

    Raises:
        InputError: A trial says something else; it is named.
    """
    with _reading(where):
        check_trials(study)


@contextmanager
def _reading(where: Path | str) -> Iterator[None]:
    """Says in one line what Optuna, or the check of the trials, stumbles over in a record."""
    try:
        yield
    except BottleneckError:
        raise
    except Exception as error:  # Optuna replays what it finds, and raises whatever comes of it
        reason = printable(str(error) or type(error).__name__)
        raise InputError(where, expected="the record of a study", found=f"a damaged one ({reason[:160]})") from error


def open_storage(folder: Path, url: str | None) -> BaseStorage:
    """Opens the storage of a study directory for reading.

    Raises:
        InputError: There is no journal, or it is damaged; the URL cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if url:
        return _remote(url)
    path = folder / JOURNAL
    if not path.is_file():  # which Optuna would make
        raise InputError(path, expected="a study's journal", found="no such file")
    with _reading(path):
        return JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))


def _remote(url: str) -> BaseStorage:
    try:
        return optuna.storages.get_storage(url)
    except ImportError as error:
        raise BottleneckError(f"--storage {url}: its driver is not installed ({error})") from error
    except Exception as error:  # SQLAlchemy and the drivers raise errors of many kinds
        reason = str(error).strip().split("\n", maxsplit=1)[0]
        raise InputError("--storage", expected="an Optuna storage URL", found=f"{url} ({reason})") from error
