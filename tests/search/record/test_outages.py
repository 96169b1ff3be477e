"""A database that breaks off while a process joins: waited for, at whatever moment, where it had answered before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from made_database import study_database
from made_mirrors import Clock, away
from sqlalchemy.exc import OperationalError

from features.runtime.errors import BottleneckError
from search.record import outages
from search.record.crew import workers_of
from search.record.database import note_reached
from search.record.opened_study import DatabaseStudy
from search.record.storage import config_in_storage, join_record, open_record


class Breaking:
    """Lets a database break off at its next statements, from one of them on."""

    def __init__(self) -> None:
        self.left: int | None = None
        self.times = 0
        self.error = away()

    def __call__(self, *_: Any) -> None:
        if self.left is None:
            return
        self.left -= 1
        if self.left < 0 and self.times > 0:
            self.times -= 1
            raise self.error

    def at(self, statement: int, times: int = 1) -> None:
        self.left, self.times = statement, times


@pytest.fixture
def breaking() -> Iterator[Breaking]:
    listener = Breaking()
    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", listener)
    yield listener
    sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", listener)


@pytest.fixture(autouse=True)
def clock(monkeypatch) -> Clock:
    monkeypatch.setattr(outages, "time", clock := Clock())
    return clock


@pytest.fixture
def url(tmp_path) -> str:
    return study_database(tmp_path)


def join(url: str) -> DatabaseStudy:
    return join_record(url, "s", direction="maximize", grace=60)


def test_at_every_statement_of_joining(breaking, url):
    assert config_in_storage(url, "s") is None
    statement, broke = 0, True
    while broke:
        breaking.at(statement)
        opened = join(url)
        try:
            broke = breaking.times == 0
            assert list(workers_of(opened.study.user_attrs)) == [opened.crew.name], statement
        finally:
            breaking.left = None
            opened.close()
        statement += 1
    assert statement > 5


def test_it_is_waited_for_as_long_as_in_training(breaking, url, clock, capsys):
    config_in_storage(url, "s")
    breaking.at(0, times=60)
    join(url).close()
    assert breaking.times == 0
    assert clock.now > 1200
    assert "cannot be reached; it is tried again for 10 minutes" in capsys.readouterr().err


def test_one_that_never_answered_is_not_waited_for(breaking, url, clock):
    breaking.at(0)
    with pytest.raises(BottleneckError, match=r"--storage: cannot be reached: .*gone") as refused:
        config_in_storage(url, "s")
    assert refused.value.exit_status == 1  # it may pass: whoever started this starts it again
    assert clock.now == 1000


def test_one_that_has_answered_others_is_waited_for_at_first(breaking, url, clock):
    note_reached(url)
    breaking.at(0, times=9)
    assert config_in_storage(url, "s") is None
    breaking.at(0, times=9)
    open_record(Path(), "s", url, direction="maximize", resume=True).close()
    assert clock.now > 1030


def test_one_that_broke_off_had_answered(breaking, url, clock):
    breaking.error = OperationalError("SELECT", {}, Exception("gone"), connection_invalidated=True)
    breaking.at(0)
    assert config_in_storage(url, "s") is None
    assert clock.now == 1000.1
