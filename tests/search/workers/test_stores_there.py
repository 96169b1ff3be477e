"""A store at an address is fetched once, and is the driver's."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from conftest import build_store

from features.runtime.errors import BottleneckError, InputError
from features.store.reader import FeatureStore
from search.setup.stores import is_address
from search.workers import stores_there as module
from search.workers.stores_there import Sent, fetched, find_there
from search.workers.study_worker import StudyWorker

local = pytest.importorskip("fsspec.implementations.local", reason="fsspec is not installed")
LocalFileSystem = local.LocalFileSystem
register_implementation = pytest.importorskip("fsspec").register_implementation


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(module.VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def address(tmp_path) -> str:
    return build_store(tmp_path / "store.h5", rows=24).as_uri()


def sent(address: str, path, name: str = "") -> Sent:
    return Sent("features", name, address, FeatureStore(path).identity)


@pytest.fixture
def times(monkeypatch) -> list[object]:
    """The times that something was fetched."""
    real, made = module._fetch, []

    def fetch(*told):
        made.append(told)
        real(*told)

    monkeypatch.setattr(module, "_fetch", fetch)
    return made


def test_a_store_is_fetched_once_by_several_at_a_time(tmp_path, address, cache, times):
    found = []
    threads = [threading.Thread(target=lambda: found.append(fetched(address))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(times) == 1
    assert len(set(found)) == 1
    assert found[0].read_bytes() == (tmp_path / "store.h5").read_bytes()
    assert [path.suffix for path in cache.iterdir() if not path.name.startswith(".")] == [".h5"]


def test_another_version_is_fetched_anew(tmp_path, address):
    first = fetched(address)
    (tmp_path / "store.h5").unlink()
    build_store(tmp_path / "store.h5", rows=27)
    assert FeatureStore(fetched(address)).header.labels != FeatureStore(first).header.labels


@pytest.mark.parametrize("told", ["ETag", "Last-Modified", "CRC", "type"])
def test_another_version_is_fetched_anew_where_fsspec_tells_nothing_but_the_address(tmp_path, told, times):
    """As at ``http://``; of some servers nothing else is to be had."""
    address, info = "static:///store.h5", {"size": 5, "type": "file"}

    class Static(LocalFileSystem):
        def ukey(self, path):
            return path

        def info(self, *_, **__):
            return info

        def open(self, *_, **__):
            return (tmp_path / "store.h5").open("rb")

    register_implementation("static", Static, clobber=True)
    for number, rows in enumerate((24, 27)):
        (tmp_path / "store.h5").unlink(missing_ok=True)
        store = build_store(tmp_path / "store.h5", rows=rows)
        info[told] = f"{number}"
        assert len(FeatureStore(fetched(address))) == rows
        for _ in range(2):
            find_there(sent(address, store))
    # Where there is no telling, the driver fetches it each time, and a worker once.
    assert len(times) == (4 if told == "type" else 2)


def test_of_a_store_that_was_replaced_meanwhile_no_copy_is_kept_as_the_drivers(tmp_path, address, monkeypatch):
    monkeypatch.setattr(module, "_version", lambda *_: None)
    told, there = sent(address, tmp_path / "store.h5"), tmp_path / "store.h5"
    there.rename(tmp_path / "first.h5")
    build_store(there, rows=27)
    with pytest.raises(InputError, match="the driver was given"):
        find_there(told)
    (tmp_path / "first.h5").replace(there)
    find_there(told)


def test_what_a_worker_is_told_names_its_own_copy(tmp_path, address):
    there = find_there(sent(address, tmp_path / "store.h5", "small"))
    assert there == f"small={fetched(address)}"
    assert find_there(sent(str(tmp_path / "store.h5"), tmp_path / "store.h5")) == str(tmp_path / "store.h5")


def test_another_store_than_the_drivers_is_refused(tmp_path, address):
    told = sent(address, tmp_path / "store.h5")
    (tmp_path / "store.h5").unlink()
    build_store(tmp_path / "store.h5", rows=27)
    with pytest.raises(InputError, match="the driver was given"):
        find_there(told)


@pytest.mark.parametrize("place", ["file:///no/such/store.h5", "nosuch://bucket/store.h5"])
def test_an_address_of_nothing_is_said_in_one_line(place, cache):
    with pytest.raises(InputError, match=f"--features: expected a store at this address, found {place}") as refused:
        fetched(place)
    assert "\n" not in str(refused.value)
    assert not cache.exists()


def test_the_option_that_an_address_was_given_to_is_named(tmp_path):
    with pytest.raises(InputError, match="--test: expected a store at this address"):
        fetched((tmp_path / "nothing.h5").as_uri(), part="test")


def test_a_transfer_that_breaks_leaves_nothing(address, cache, monkeypatch):
    def read(_):
        raise OSError("the line is dead")

    monkeypatch.setattr(LocalFileSystem, "open", lambda *_: nullcontext(SimpleNamespace(read=read)))
    with pytest.raises(BottleneckError, match=r"store\.h5: cannot be fetched: the line is dead") as broken:
        fetched(address)
    assert broken.value.exit_status == 1
    assert not [path for path in cache.iterdir() if not path.name.startswith(".")]


@pytest.mark.parametrize("away", ["nothing there", "no answer"])
def test_a_worker_that_cannot_reach_an_address_has_not_refused_it(tmp_path, address, monkeypatch, away):
    told = sent(address, tmp_path / "store.h5")
    if away == "nothing there":
        (tmp_path / "store.h5").unlink()
    else:
        monkeypatch.setattr(LocalFileSystem, "ukey", lambda *_: (_ for _ in ()).throw(TimeoutError("no answer")))
    ended = StudyWorker().run([], [told], {})
    assert ended.status == 1, "it is started again, and the others go on"
    assert address in ended.said
    assert ended.said.count("\n") == 0


def test_paths_are_no_addresses():
    assert [is_address(place) for place in ("s3://b/x.h5", "/data/x.h5", "x.h5", "C:\\x.h5")] == [
        True,
        False,
        False,
        False,
    ]
