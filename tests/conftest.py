"""Fixtures that the tests share: small learnable stores, and the real data where it is there."""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from features.runtime.backend import use_backend
from features.store.schema import RowState, StoreHeader
from features.store.writer import StoreWriter

if TYPE_CHECKING:
    from commands import Said
    from made_crew import Crews, Process
    from made_mirrors import Mirrors
    from made_pictures import World
    from optuna.storages import RDBStorage

    from features.extraction.backbone_spec import BackboneSpec
    from features.extraction.backbones import Backbone

use_backend()  # before any test imports keras
settings.register_profile("project", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
settings.load_profile("project")

CLASSES = ("CNV", "DME", "DRUSEN", "NORMAL")
ROOT = Path(__file__).resolve().parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"


def build_header(
    *,
    rows: int = 48,
    views: Sequence[str] = ("identity",),
    shape: tuple[int, int, int] = (2, 2, 8),
    classes: Sequence[str] = CLASSES,
    dtype: str = "float16",
    batch_size: int = 16,
) -> StoreHeader:
    """Returns the header of ``build_store``: classes in turn, three rows a patient."""
    labels = tuple((row // 3) % len(classes) for row in range(rows))
    names = [(classes[label], str(1000 + row // 3), row % 3 + 1) for row, label in enumerate(labels)]
    return StoreHeader(
        classes=tuple(classes),
        paths=tuple(f"{name}/{name}-{patient}-{number}.png" for name, patient, number in names),
        sizes=tuple(500 + row for row in range(rows)),
        labels=labels,
        patients=tuple(patient for _, patient, _ in names),
        feature_shape=shape,
        views=tuple(views),
        backbone="mobilenet",
        alpha=0.25,
        weights="random:0",
        weights_sha256="ab" * 32,
        image_size=64,
        preprocessing="backbone",
        dtype=dtype,
        batch_size=batch_size,
        created="2026-01-01T00:00:00Z",
        versions={"keras": "0"},
    )


def build_features(header: StoreHeader, *, seed: int = 0) -> np.ndarray:
    """Returns (rows, views, h, w, c) features: noise, and a mean that depends on the class in half of the channels."""
    generator = np.random.default_rng(seed)
    channels = header.feature_shape[2]
    means = generator.normal(0, 1, (len(header.classes), channels)) * (np.arange(channels) % 2)
    noise = generator.normal(0, 0.7, header.shape)
    return np.maximum(noise + means[list(header.labels)][:, None, None, None], 0.01).astype(header.dtype)


def fill_store(
    path: Path, header: StoreHeader, features: np.ndarray, states: np.ndarray, *, batches: int | None = None
) -> None:
    """Writes all batches that the store lacks and finishes it, or writes ``batches`` of them where it lacks more."""
    with StoreWriter(path, header) as writer:
        for number, rows in enumerate(writer.pending()):
            if number == batches:
                return
            writer.write(rows, features[rows.start : rows.stop], states[rows.start : rows.stop])
        writer.finish()


def build_store(path: Path, *, seed: int = 0, skipped: Collection[int] = (), **header: Any) -> Path:
    """Writes a complete, learnable store through StoreWriter; ``header`` as ``build_header`` takes it.

    Rows come in threes of one patient and one class, named ``<CLASS>/<CLASS>-<patient>-<n>.png``; rows in
    ``skipped`` hold zeros, as those of files that could not be decoded.
    """
    made = build_header(**header)
    features = build_features(made, seed=seed)
    states = np.full(len(made), RowState.DONE, np.uint8)
    for row in skipped:
        features[row], states[row] = 0, RowState.SKIPPED
    fill_store(path, made, features, states)
    return path


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
