"""Ensemble files of which weights or attributes do not fit, or would fit another member."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from conftest import CLASSES
from edited_files import MEMBERS, edit_file, linked, not_finite, saved_ensemble
from made_heads import SHAPE, predicted, random_head

from features.runtime.errors import InputError
from heads.files.ensemble import build_ensemble, members_of
from heads.files.head_file import read_head, save_head
from heads.files.metadata import HeadMetadata

saved, edited = saved_ensemble, edit_file
KERNEL = "model_weights/head_1_conv/head_1_conv/kernel"


def _exchanged(file: Any) -> None:
    weights = file["model_weights"]
    weights.move("head_0_conv", "aside")
    weights.move("head_1_conv", "head_0_conv")
    weights.move("aside", "head_1_conv")


OTHERWISE = {
    "NaN": (not_finite(KERNEL), f"{KERNEL}: expected finite weights, found NaN"),
    "an external link": (
        linked(KERNEL, h5py.ExternalLink("other.hdf5", "/x")),
        f"{KERNEL}: expected weights in the file its",
    ),
    "a soft link": (linked(KERNEL, h5py.SoftLink("/model_weights")), f"{KERNEL}: expected weights in the file itself"),
    "no weights": (lambda file: file["model_weights"].pop("head_1_conv"), "head_1_conv: expected weights in the file"),
    "another member's weights": (_exchanged, r"expected float32 \(1, 1, 8, 16\), found float32 \(1, 1, 8, 32\)"),
    "fewer trials": (
        lambda file: file.attrs.__setitem__("trials", [4, 2]),
        "trials: expected 3, one for each chain of la",
    ),
    "trials as texts": (lambda file: file.attrs.__setitem__("trials", ["a", "b"]), "trials: expected 2 whole numbers"),
    "trials in a square": (lambda file: file.attrs.__setitem__("trials", [[1, 2], [3, 4]]), "trials: expected 4 whole"),
}


@pytest.mark.parametrize(("change", "message"), OTHERWISE.values(), ids=OTHERWISE)
def test_weights_and_attributes_that_do_not_fit(edited: Callable[..., Path], change: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_head(edited(change))


@pytest.mark.parametrize("pair", [(0, 1), (1, 0), (2, 1)])
def test_no_two_members_are_exchanged(saved: Path, pair: tuple[int, int]) -> None:
    """Heads of one shape differ in weights alone, so names decide which belong together."""
    heads = [random_head(MEMBERS[2], seed=seed) for seed in range(3)]
    path = saved.with_name(f"{pair}.hdf5")
    metadata = HeadMetadata(classes=CLASSES, feature_shape=SHAPE, versions={})
    save_head(path, build_ensemble([heads[number] for number in pair]), metadata)
    for number, member in zip(pair, members_of(read_head(path).model), strict=True):
        np.testing.assert_array_equal(predicted(member), predicted(heads[number]))
