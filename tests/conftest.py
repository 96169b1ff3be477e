"""Fixtures that the tests share; and what they make stores with (``made_stores``), under the name most know it by."""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from made_stores import CLASSES, build_features, build_header, build_store, fill_store

from features.runtime.backend import use_backend

if TYPE_CHECKING:
    from commands import Said
    from made_crew import Crews, Process
    from made_mirrors import Mirrors
    from made_pictures import World
    from optuna.storages import RDBStorage

    from features.extraction.backbone_spec import BackboneSpec
    from features.extraction.backbones import Backbone

__all__ = ["CLASSES", "ROOT", "build_features", "build_header", "build_store", "fill_store"]

use_backend()  # before any test imports keras
settings.register_profile("project", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
settings.load_profile("project")

ROOT = Path(__file__).resolve().parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Nothing looks through the imports for cycles of references, nor later through what they have made.

    See ``features.runtime.collector``: it took about a minute of each process that runs tests.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture
def make_store() -> Callable[..., Path]:
    """``build_store``, for tests that would rather not import it."""
    return build_store


@pytest.fixture(scope="session")
def invoke() -> Callable[..., Said]:
    """``commands.invoke``: runs a command, by its module's name, in this process; (exit status, output, errors)."""
    import commands

    return commands.invoke


@pytest.fixture(scope="session")
def made_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Made images, their store and a head; not to be changed."""
    from made_pictures import make_world

    return make_world(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def drawn_once() -> Iterator[None]:
    """A backbone with drawn weights is built once for a module, whose tests are of what is done with it.

    To build one and to trace it takes seconds, and it keeps nothing of the images that it was shown.
    """
    from features.extraction.backbones import build_backbone

    once = lru_cache(build_backbone)

    def build(spec: BackboneSpec) -> Backbone:
        return once(spec) if spec.seed is not None and spec.file is None else build_backbone(spec)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("features.extraction.extraction.build_backbone", build)
        patched.setattr("heads.files.backbone.build_backbone", build)
        yield


@pytest.fixture
def nothing_to_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer whose first weights Keras draws fails: JAX would compile a program for each of their shapes."""

    def drawn(*told: object, **more: object) -> None:
        raise AssertionError("first weights are drawn")

    for name in ("normal", "truncated_normal", "uniform"):
        monkeypatch.setattr(f"keras.src.initializers.random_initializers.random.{name}", drawn)


@pytest.fixture(scope="session")
def oct_folder() -> Path:
    """652 real OCT scans in four class folders."""
    return _shared("oct")


@pytest.fixture(scope="session")
def weights_folder() -> Path:
    """Weight files of small backbones."""
    return _shared("weights")


@pytest.fixture(scope="session")
def article_file() -> Path:
    """The article's own trained head: Keras 2.1.5, 8x8x2048 to four classes."""
    return _shared("article") / "model.24-0.99.hdf5"


def _shared(name: str) -> Path:
    folder = SHARED_DATA / name
    if not folder.is_dir():
        pytest.skip(f"no ../shared/data/{name} beside the project")
    return folder


# --- studies in databases: their tests alone import what these do -----------------------------------------------------


@pytest.fixture(scope="module")
def url(request, tmp_path_factory) -> Iterator[str]:
    """A database of a module's tests: SQLite, or what an indirect parameter names."""
    from made_database import database

    with database(getattr(request, "param", "sqlite"), tmp_path_factory.mktemp("database")) as url:
        yield url


@pytest.fixture(scope="module")
def storage(url) -> Iterator[RDBStorage]:
    from made_database import connected

    storage = connected(url)
    yield storage
    storage.engine.dispose()


@pytest.fixture
def mirrors(storage, url) -> Iterator[Mirrors]:
    from made_mirrors import Mirrors

    made = Mirrors(storage, url)
    yield made
    made.close()


@pytest.fixture
def crews(storage, url) -> Iterator[Crews]:
    from made_crew import Crews

    made = Crews(storage, url)
    yield made
    made.close()


@pytest.fixture
def join(crews) -> Callable[..., Process]:
    """Lets a process join those that work on a study together."""
    return crews.process


@pytest.fixture
def patience(monkeypatch) -> None:
    """Who else is there is looked for each time, and nobody is waited for."""
    from search.record import crew, owner

    monkeypatch.setattr(owner, "WATCH_S", 0.05)
    monkeypatch.setattr(crew, "_LOOK_S", -1)
    monkeypatch.setattr(crew, "WAIT_S", 0)
