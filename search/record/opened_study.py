"""A study that is open to be worked on, and how what is noted of it comes to where it is kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import optuna

from features.runtime.command import say
from features.runtime.errors import BottleneckError
from search.record.crew import Crew
from search.record.database import error_in_words, storage_errors
from search.record.journal import BufferedJournal
from search.record.mirror import Mirror
from search.record.outages import DATABASE_ERRORS
from search.record.owner import Ownership


class OpenedStudy(ABC):
    """A study that is open.

    Attributes:
        study: The Optuna study.
        crew: The processes that work on it together, this one among them; None where it is alone.
    """

    def __init__(self, study: optuna.Study, *, crew: Crew | None = None) -> None:
        """Prepares."""
        self.study = study
        self.crew = crew

    @property
    def journal(self) -> BufferedJournal | None:
        """The journal; None where the study is kept elsewhere."""
        return None

    @abstractmethod
    def flush(self) -> Collection[int]:
        """Makes everything recorded so far durable; returns what ``hand_over`` does.

        Raises:
            BottleneckError: The study is another process's by now, or it cannot be written.
        """

    @abstractmethod
    def hand_over(self) -> Collection[int]:
        """Brings what was recorded on its way, and waits only where it has to.

        Returns:
            Numbers of the trials that others have taken over meanwhile.

        Raises:
            BottleneckError: As ``flush``.
        """

    @abstractmethod
    def hurry(self, *, at_once: bool = False) -> None:
        """Waits a moment at most from now on for where it is kept, or not at all: somebody has asked to stop."""

    @abstractmethod
    def close(self) -> None:
        """Flushes and lets go of where it is kept."""


class JournalStudy(OpenedStudy):
    """A study in a journal, of which this process is the only writer."""

    def __init__(self, study: optuna.Study, journal: BufferedJournal) -> None:
        """Takes over the open journal of a study."""
        super().__init__(study)
        self._journal = journal

    @property
    def journal(self) -> BufferedJournal:
        """The journal."""
        return self._journal

    def flush(self) -> Collection[int]:
        """Brings everything recorded so far to the disk; nobody takes trials over."""
        self._journal.flush()
        return ()

    def hand_over(self) -> Collection[int]:
        """As ``flush``: the disk is near."""
        return self.flush()

    def hurry(self, *, at_once: bool = False) -> None:
        """Does nothing: no disk is waited for."""

    def close(self) -> None:
        """Flushes and closes the file."""
        self._journal.close()


class DatabaseStudy(OpenedStudy):
    """A study in a database, worked on by this process alone or with others, or looked at."""

    def __init__(
        self, study: optuna.Study, mirror: Mirror, *, owner: Ownership | None = None, crew: Crew | None = None
    ) -> None:
        """Takes over the open mirror of a study.

        Args:
            study: The study.
            mirror: Its mirror.
            owner: Says whether the study is this process's alone; None where nobody asks.
            crew: This process's place among those that work on it together.
        """
        super().__init__(study, crew=crew)
        self._mirror = mirror
        self._owner = owner

    def flush(self) -> Collection[int]:
        """Says whether the study is still this process's, writes everything recorded so far, and hears of others."""
        self._check()
        return self._mirror.flush()

    def hand_over(self) -> Collection[int]:
        """Says whether the study is still this process's, begins to write, and hears of others now and then."""
        self._check()
        return self._mirror.hand_over()

    def hurry(self, *, at_once: bool = False) -> None:
        """Waits no longer for a database that is away."""
        self._mirror.patience.hurry(at_once=at_once)

    def close(self) -> None:
        """Flushes, and leaves the study to others: also what this process still ran, where some work together."""
        try:
            if self.crew is not None:
                self.crew.close()
            else:
                self._mirror.close()
        finally:
            if self._owner is not None:
                self._owner.close(at_once=self._mirror.patience.lost is not None)

    def _check(self) -> None:
        if self._owner is not None:
            self._owner.check()


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
                    say(f"note: what was noted last is lost: {error_in_words(lost, url)}")
            raise
        opened.close()
