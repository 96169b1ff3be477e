"""A store at an address is fetched once, and is the driver's."""

from __future__ import annotations

import threading

import pytest
from conftest import build_store

from features.runtime.errors import InputError
from features.store.reader import FeatureStore
from search.setup.stores import is_address
from search.workers import stores_there as module
from search.workers.stores_there import Sent, fetched, find_there

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(module.VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def address(tmp_path) -> str:
    return build_store(tmp_path / "store.h5", rows=24).as_uri()


def sent(address: str, path, name: str = "") -> Sent:
    return Sent("features", name, address, FeatureStore(path).identity)


def test_a_store_is_fetched_once_by_several_at_a_time(tmp_path, address, cache, monkeypatch):
    real, times = module._fetch, []

    def fetch(*told):
        times.append(told)
        real(*told)

    monkeypatch.setattr(module, "_fetch", fetch)
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


def test_a_transfer_that_breaks_leaves_nothing(address, cache, monkeypatch):
    def broken(*_):
        raise OSError("the line is dead")

    monkeypatch.setattr(module.shutil, "copyfileobj", broken)
    with pytest.raises(InputError, match=r"that can be fetched, found .*the line is dead"):
        fetched(address)
    assert not [path for path in cache.iterdir() if not path.name.startswith(".")]


def test_paths_are_no_addresses():
    assert [is_address(place) for place in ("s3://b/x.h5", "/data/x.h5", "x.h5", "C:\\x.h5")] == [
        True,
        False,
        False,
        False,
    ]
