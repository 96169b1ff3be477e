"""A database server that is stopped and started, that does not answer, or that has its limits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import optuna
import psycopg
import pytest
import sqlalchemy
from made_database import connected
from made_mirrors import Mirrors, claim, view
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from postgres import Server, running_server
from sqlalchemy.exc import OperationalError

from features.runtime.errors import BottleneckError
from search.record import outages
from search.record.opened_study import DatabaseStudy
from search.record.storage import join_record, load_study
from search.setup.optuna_internals import id_of_trial


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Server, str]]:
    with running_server() as server:
        url = server.new_database("made")
        RDBStorage(url).engine.dispose()
        yield server, url


def test_a_server_that_was_away_has_everything_when_it_is_back(server):
    server, url = server
    storage = connected(url)
    mirrors = Mirrors(storage, url)
    mirror = mirrors.join()
    number = claim(mirror)
    mirror.set_trial_intermediate_value(number, 1, 0.1)
    mirror.flush()
    storage.engine.dispose()
    server.stop()
    mirror.set_trial_intermediate_value(number, 2, 0.2)
    assert mirror.hand_over() == []
    mirror.set_trial_state_values(number, TrialState.COMPLETE, [0.5])
    mirror.hand_over()
    server.start()
    assert mirror.flush() == []
    assert mirrors.stored == view(mirror)
    assert mirrors.stored[0].intermediate_values == {1: 0.1, 2: 0.2}
    mirror.set_trial_user_attr(claim(mirror), "a", 1)
    storage.engine.dispose()
    server.stop()
    begun = time.monotonic()
    with pytest.raises((StorageInternalError, OperationalError)):
        mirror.close()
    assert time.monotonic() - begun < 5
    server.start()


@pytest.fixture
def guest(server, request) -> Iterator[str]:
    """The URL of a user without rights, of a database of their own; with a parameter, of whom more is said."""
    server, url = server
    own = server.new_database(f"guests{id(request)}", template="made")
    with sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, isolation_level="AUTOCOMMIT").connect() as made:
        made.execute(sqlalchemy.text(f"CREATE USER guest {getattr(request, 'param', '')}"))
        yield own.replace("tests@", "guest@")
        made.execute(sqlalchemy.text("DROP USER guest"))


def test_a_user_without_rights_is_told_what_is_denied(guest):
    with pytest.raises(
        BottleneckError, match=r"may not do what a search needs: .*permission denied for table"
    ) as caught:
        join_record(guest, "crew", direction="maximize", grace=60)
    assert "an Optuna storage URL" not in str(caught.value)
    assert "password" not in str(caught.value)


@pytest.mark.parametrize("guest", ["CONNECTION LIMIT 0"], indirect=True)
def test_of_too_few_connections_it_is_said_that_they_are_waited_for(guest, capsys):
    engine = sqlalchemy.create_engine(guest, poolclass=sqlalchemy.NullPool)
    patience = outages.Patience()
    patience.seconds = 2 * outages.SHORT_S
    with pytest.raises(OperationalError):
        outages.patiently(lambda: engine.connect().close(), "there", patience=patience)
    assert "there: has too many connections; it is tried again" in capsys.readouterr().err


def test_what_is_noted_of_many_trials_is_sent_in_no_pipeline(server, monkeypatch):
    server, _ = server
    url = server.new_database("many", template="made")
    piped: list[str] = []
    monkeypatch.setattr(psycopg.Cursor, "executemany", lambda _, query, *__, **___: piped.append(query))
    with closing(join_record(url, "crew", direction="maximize", grace=60)) as opened:
        mirror = opened.study._storage
        claimed = [id_of_trial(trial) for _ in range(2) for trial in mirror.claim(9, "somebody", 3)]
        trials = [optuna.Trial(opened.study, number) for number in claimed]
        for step in range(2):
            for trial in trials:
                trial.report(0.5, step)
                trial.set_user_attr("epochs", step)
            opened.flush()
        for trial in trials[:4]:
            opened.study.tell(trial, 0.5)
        opened.flush()
    assert not piped
    written = load_study(Path(), "crew", url).trials
    assert [trial.state.name for trial in written] == ["COMPLETE"] * 4 + ["FAIL"] * 2 + ["WAITING"] * 2
    assert all(trial.user_attrs["epochs"] == 1 for trial in written[:6])


# --- a database that does not answer ----------------------------------------------------------------------------------


@pytest.fixture
def hanging(server: tuple[Server, str]) -> Iterator[DatabaseStudy]:
    """A study in a database that stands still from now on, in the midst of what a process writes."""
    url = server[0].new_database(f"hanging{time.monotonic_ns()}", template="made")
    opened = join_record(url, "s", direction="maximize", grace=60)
    mirror = opened._mirror
    mirror.claim(9, opened.crew.name)
    mirror.set_trial_user_attr(mirror.running[0], "a", 1)

    def stand_still(_):
        with mirror.database.engine.connect() as connection:
            connection.execute(sqlalchemy.text("SELECT pg_sleep(60)"))

    mirror.tables.write = stand_still
    mirror.hand_over()
    yield opened
    with suppress(StorageInternalError, sqlalchemy.exc.SQLAlchemyError):
        opened.close()


@pytest.mark.parametrize("signals", [1, 2])
def test_who_asks_to_stop_while_the_database_stands_still_is_not_kept_waiting(hanging, monkeypatch, signals):
    monkeypatch.setattr(outages, "ANSWER_S", 0.3 if signals == 1 else 60)
    time.sleep(0.2)  # it is asked by now
    begun = time.monotonic()
    for again in range(signals):
        hanging.hurry(at_once=bool(again))
    with pytest.raises((StorageInternalError, sqlalchemy.exc.SQLAlchemyError)):
        hanging.flush()
    with pytest.raises((StorageInternalError, sqlalchemy.exc.SQLAlchemyError)):
        hanging.close()
    assert time.monotonic() - begun < 5
    assert not hanging._mirror.is_open


def test_connections_have_limits_unless_the_url_says_others(server):
    engine = sqlalchemy.create_engine(f"{server[1]}&connect_timeout=7")
    outages.set_up_sessions(engine)
    with engine.connect() as connection:
        told = connection.connection.dbapi_connection.info.get_parameters()
    engine.dispose()
    assert (told["connect_timeout"], told["tcp_user_timeout"], told["keepalives_idle"]) == ("7", "60000", "30")
