"""Optuna's own suite for storages, over a journal that is buffered as a search's is."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.testing.pytest_storages import StorageTestCase

from search.record.journal import BufferedJournal


class TestBufferedJournal(StorageTestCase):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Iterator[JournalStorage]:
        """A storage; what it wrote is read once more by Optuna's own backend in the end."""
        journal = BufferedJournal(tmp_path / "journal.log")
        storage = JournalStorage(journal)
        yield storage
        journal.close()
        reread = JournalStorage(JournalFileBackend(str(journal.path)))
        assert [study.study_name for study in reread.get_all_studies()] == [
            study.study_name for study in storage.get_all_studies()
        ]

    def test_pickle_storage(self, storage: JournalStorage) -> None:
        """Refused, unlike in Optuna's storages: a copy would write to the same file."""
        with pytest.raises(TypeError, match=r"journal\.log: a journal has one writer, so it is not pickled"):
            pickle.dumps(storage)
