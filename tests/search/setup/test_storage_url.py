"""URLs of storages: what is kept and shown has no secret in it, and names the same file from every folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from features.runtime.errors import InputError
from search.setup.options import RunOptions
from search.setup.resolve import resolve
from search.setup.storage_url import (
    VARIABLE,
    absolute,
    bare,
    has_secrets,
    hidden,
    in_full,
    is_ambiguous,
    is_in_memory,
    located,
    openable,
    remember,
    scrubbed,
    sqlite_file,
)

SECRETS = [
    "postgresql://anna:hunter2@host/heads",
    "postgresql+psycopg2://anna:hunter2@host:5432/heads?sslmode=require",
    "postgresql://:hunter2@host/heads",
    "postgresql://host/heads?user=anna&password=hunter2",
    "postgresql://anna@host/heads?sslpassword=hunter2",
    "mysql+pymysql://anna:hunter2@host/heads?charset=utf8",
    "mysql://anna@host/heads?passwd=hunter2&ssl_key=/k",
    "mysql://anna@host/heads?auth_token=hunter2",
    "mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BUID%3Danna%3BPWD%3Dhunter2",
    "sqlite:///file:/x/x.db?mode=rwc&uri=true&password=hunter2",
    "postgresql://anna:hunter2%40x@host/heads",
    "postgresql://anna:hunter2/x@host:port/heads",  # not quoted: no URL, but it is somebody's password all the same
    "postgresql://host:port/heads?password=hunter2",
    "no scheme://anna:hunter2@host",
    "postgresql://anna:a@hunter2@host/heads",
    "postgresql://anna:a@b/hunter2?#x@host/heads",
]
PLAIN = [
    "sqlite:////x/heads.db",
    "postgresql://anna@host/heads?passfile=/home/anna/.pgpass",
    "nonsense",
    "mysql://host/h",
]


@pytest.mark.parametrize("url", SECRETS)
def test_no_secret_is_left(url):
    assert has_secrets(url)
    for text in (hidden(url), bare(url), scrubbed(f"cannot open {url}: no", url), hidden(hidden(url))):
        assert "hunter2" not in text
    assert "***" in hidden(url)
    assert "hunter2" not in repr(RunOptions(storage=url))


@pytest.mark.parametrize("url", PLAIN)
def test_what_has_no_secret_stays_as_it_is(url):
    assert not has_secrets(url)
    assert hidden(url) == bare(url) == absolute(url) == url


@pytest.mark.parametrize("url", SECRETS[-2:])
def test_an_at_sign_in_a_password_is_refused_and_nothing_of_it_shown(tmp_path, url):
    with pytest.raises(InputError, match=r"--storage: expected one @.*; in a password @ is written %40") as refused:
        resolve(RunOptions(storage=url, out=tmp_path / "study"))
    assert "heads" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://anna@server:hunter2@host/heads",
        "postgresql://anna:hunter2@host/heads?application_name=me@here&sslmode=require",
        "postgresql://anna@host/heads@home",
        "sqlite:////x@y/z:a@b.db",
    ],
)
def test_an_at_sign_elsewhere_is_none_of_the_password(url):
    assert not is_ambiguous(url)


def test_a_url_without_its_secret_has_it_from_the_environment(tmp_path, monkeypatch):
    whole = "postgresql://anna:hunter2@one.host/heads"
    monkeypatch.setenv(VARIABLE, whole)
    told = RunOptions(storage="postgresql://anna@one.host/heads", out=tmp_path / "study")
    assert resolve(told).options.storage == whole
    for other in ("postgresql://anna@other.host/heads", "postgresql://anna:mine@one.host/heads"):
        assert in_full(other) == other


def test_a_drivers_words_are_scrubbed_of_a_password_in_every_form():
    url = "postgresql://anna:p%40ss%20word@host/heads"
    assert scrubbed("p@ss word, p%40ss%20word, p%40ss+word", url) == "***, ***, ***"


@pytest.mark.parametrize(
    ("url", "file"),
    [
        ("sqlite:///heads.db", "heads.db"),
        ("sqlite:///./x/heads.db", "x/heads.db"),
        ("sqlite+pysqlite:///../heads.db", "../heads.db"),
        ("sqlite:///file:heads.db?uri=true", "heads.db"),
        ("sqlite:///two words.db", "two words.db"),
    ],
)
def test_a_relative_file_is_the_same_from_every_folder(tmp_path, monkeypatch, url, file):
    monkeypatch.chdir(tmp_path)
    told = absolute(url)
    monkeypatch.chdir("/")
    assert absolute(told) == told
    assert sqlite_file(told) == (tmp_path / file).resolve()
    assert absolute(url, tmp_path) == told


@pytest.mark.parametrize(
    "url",
    ["sqlite://", "sqlite:///:memory:", "sqlite:///file::memory:?uri=true", "sqlite:///file:x?mode=memory&uri=true"],
)
def test_a_database_in_memory_is_known(url):
    assert is_in_memory(url)
    assert sqlite_file(url) is None
    assert not is_in_memory("sqlite:///memory.db")


def test_an_old_records_file_is_looked_for_here_then_in_the_study(tmp_path, monkeypatch):
    here, study = tmp_path / "here", tmp_path / "study"
    here.mkdir()
    study.mkdir()
    monkeypatch.chdir(here)
    with pytest.raises(
        InputError, match=r"expected heads\.db in the working directory or in the study directory, found"
    ):
        located(study, "sqlite:///heads.db")
    (study / "heads.db").touch()
    assert sqlite_file(located(study, "sqlite:///heads.db")) == study / "heads.db"
    (here / "heads.db").touch()
    assert sqlite_file(located(study, "sqlite:///heads.db")) == here / "heads.db"
    assert located(study, "sqlite:////else/where.db") == "sqlite:////else/where.db"


def test_a_secret_comes_from_this_process_the_environment_or_the_driver(monkeypatch):
    url = "postgresql://anna:hunter2@only.here/heads"
    kept = hidden(url)
    monkeypatch.delenv(VARIABLE, raising=False)
    assert openable(Path(), kept) == "postgresql://anna@only.here/heads"
    monkeypatch.setenv(VARIABLE, url)
    assert openable(Path(), kept) == url
    monkeypatch.setenv(VARIABLE, "postgresql://anna:other@another.host/heads")
    assert openable(Path(), kept) == "postgresql://anna@only.here/heads"
    remember(url)
    assert openable(Path(), kept) == url
