"""Saved heads and ensembles, and copies of them that somebody has changed.

A test module names the fixtures that it needs: ``saved, edited, with_config = saved_head, edit_file, edit_config``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from conftest import CLASSES, build_header
from made_heads import PLAIN, SHAPE, random_head

from heads.files.ensemble import build_ensemble
from heads.files.head_file import save_head
from heads.files.metadata import HeadMetadata
from heads.model.spec import HeadSpec

MEMBERS = (
    HeadSpec(conv_width=16, batch_norm=False),
    HeadSpec(conv_width=32, pooling="average", dropout=0.0, dense_layers=1, dense_units=16),
    HeadSpec(conv_width=16, pooling="max", dropout=0.0),
)
"""Of the saved ensemble."""


@pytest.fixture(scope="module")
def saved_head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "head.hdf5"
    save_head(path, random_head(PLAIN), HeadMetadata.of_store(build_header(), "f" * 64, versions={"keras": "3"}))
    return path


@pytest.fixture(scope="module")
def saved_ensemble(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "ensemble.hdf5"
    ensemble = build_ensemble([random_head(spec, seed) for seed, spec in enumerate(MEMBERS)])
    metadata = HeadMetadata(classes=CLASSES, feature_shape=SHAPE, trials=(4, 2, 9), versions={"keras": "3"})
    save_head(path, ensemble, metadata)
    return path


@pytest.fixture
def edit_file(saved: Path, tmp_path: Path) -> Callable[[Callable[[Any], object]], Path]:
    """Copies the module's ``saved`` file and applies a function to the open copy."""

    def edit(change: Callable[[Any], object]) -> Path:
        path = tmp_path / "edited.hdf5"
        shutil.copy(saved, path)
        with h5py.File(path, "r+") as file:
            change(file)
        return path

    return edit


@pytest.fixture
def edit_config(edited: Callable[..., Path]) -> Callable[[Callable[[Any], object]], Path]:
    """Copies the module's ``saved`` file and applies a function to its model's configuration, decoded."""

    def edit(change: Callable[[Any], object]) -> Path:
        def rewrite(file: Any) -> None:
            config = json.loads(file.attrs["model_config"])
            change(config)
            file.attrs["model_config"] = json.dumps(config)

        return edited(rewrite)

    return edit


def layer(config: Any, name: str) -> Any:
    return next(entry for entry in config["config"]["layers"] if entry["config"]["name"] == name)


def places(config: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yields the keys that lead to each value in a configuration, after those of ``at``; not the empty ones."""
    if at:
        yield at
    items = config.items() if isinstance(config, dict) else enumerate(config) if isinstance(config, list) else ()
    for key, value in items:
        yield from places(value, (*at, key))


def put(config: Any, place: tuple[Any, ...], value: Any) -> None:
    for key in place[:-1]:
        config = config[key]
    config[place[-1]] = value


def linked(name: str, link: Any) -> Callable[[Any], None]:
    """Returns what puts a link in the place of a dataset."""

    def change(file: Any) -> None:
        del file[name]
        file[name] = link

    return change


def not_finite(name: str) -> Callable[[Any], None]:
    """Returns what puts a NaN into a kernel."""

    def change(file: Any) -> None:
        file[name][0, 0, 0, 0] = np.nan

    return change


def leaves_a_witness(path: str) -> Callable[[Any], Any]:
    """Returns a function of a tensor, for a Lambda layer, that leaves a file where it is run."""

    def run(tensor: Any, witness: str = path) -> Any:
        import pathlib

        pathlib.Path(witness).touch()
        return tensor

    return run
