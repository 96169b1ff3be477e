"""A pooling that is a model within the head: written by Keras, read as data, and nothing else goes in by that door."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CLASSES, build_header
from edited_files import edit_config, edit_file
from made_heads import predicted, random_head

from features.runtime.errors import InputError
from heads.files.ensemble import build_ensemble
from heads.files.head_file import read_head, save_head
from heads.files.metadata import HeadMetadata
from heads.model.spec import HeadSpec

edited, with_config = edit_file, edit_config
BLOCKS = tuple(HeadSpec(conv_width=16, pooling=name, dropout=0.0) for name in ("concat", "gem"))


@pytest.fixture(scope="module", params=BLOCKS, ids=lambda spec: spec.pooling)
def spec(request: pytest.FixtureRequest) -> HeadSpec:
    return request.param


@pytest.fixture(scope="module")
def saved(spec: HeadSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "head.hdf5"
    save_head(path, random_head(spec), HeadMetadata.of_store(build_header(), "f" * 64, versions={}))
    return path


def block(config: Any) -> Any:
    """Configuration of the pooling within a head's."""
    return next(layer for layer in config["config"]["layers"] if layer["class_name"] == "Functional")["config"]


def _another_layer(config: Any) -> None:
    block(config)["layers"][1]["class_name"] = "Lambda"


def _another_name(config: Any) -> None:
    block(config)["layers"][1]["name"] = block(config)["layers"][1]["config"]["name"] = "other"


def _one_less(config: Any) -> None:
    del block(config)["layers"][-2]


def _another_number(config: Any) -> None:
    last = block(config)["layers"][-1]["config"]
    last.update({key: value + 1 for key, value in last.items() if key in ("axis", "scale")})


def _another_shape(config: Any) -> None:
    block(config)["layers"][0]["config"]["batch_shape"] = [None, 4, 4, 16]


def _another_end(config: Any) -> None:
    block(config)["output_layers"] = [block(config)["layers"][1]["config"]["name"], 0, 0]


def _nothing(config: Any) -> None:
    block(config).clear()
    block(config)["name"] = "pooling"


CHANGES = {
    _another_layer: "layer 'pooling'|expected one of",
    _another_name: "layers of one of the poolings concat, gem",
    _one_less: "layers of one of the poolings concat, gem",
    _another_number: "expected (-1|2.0), found",
    _another_shape: r"batch_shape: expected \[null, 2, 2, 16\]",
    _another_end: "layers of one of the poolings concat, gem",
    _nothing: "layers",
}


def test_it_is_read_as_it_was_written(saved: Path, spec: HeadSpec) -> None:
    np.testing.assert_array_equal(predicted(read_head(saved).model), predicted(random_head(spec)))


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_anything_else_is_refused(with_config: Callable[[Any], Path], change: Callable[[Any], None]) -> None:
    path = with_config(change)
    with pytest.raises(InputError, match=CHANGES[change]):
        read_head(path)


def test_an_ensemble_of_them(tmp_path: Path) -> None:
    heads = [random_head(spec, seed=seed) for seed, spec in enumerate(BLOCKS)]
    path = tmp_path / "ensemble.hdf5"
    save_head(path, build_ensemble(heads), HeadMetadata(classes=CLASSES, feature_shape=(2, 2, 8), versions={}))
    mean = np.mean([predicted(head) for head in heads], axis=0)
    np.testing.assert_allclose(predicted(read_head(path).model), mean, atol=1e-6)
