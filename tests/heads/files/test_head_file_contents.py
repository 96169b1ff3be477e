"""Head files of which a weight or an attribute does not fit: refused by its name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from edited_files import edit_file, linked, not_finite, saved_head

from features.runtime.errors import InputError
from heads.files.head_file import read_head

saved, edited = saved_head, edit_file
KERNEL = "model_weights/conv/conv/kernel"


def _replaced(**options: Any) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        del file[KERNEL]
        file.create_dataset(KERNEL, **options)

    return change


def _virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((1, 1, 8, 16), "f4")
    layout[:] = h5py.VirtualSource("other.hdf5", "secret", (1, 1, 8, 16))
    del file[KERNEL]
    file.create_virtual_dataset(KERNEL, layout)


WEIGHTS = {
    "another shape": (
        _replaced(data=np.zeros((1, 1, 8, 17), "f4")),
        r"float32 \(1, 1, 8, 16\), found float32",
    ),
    "another type": (_replaced(data=np.zeros((1, 1, 8, 16), "i4")), r"expected float32 \(1, 1, 8, 16\), found int32"),
    "a bomb": (_replaced(shape=(1 << 40,), dtype="f4", chunks=(1 << 20,)), "expected values within the file"),
    "other file's bytes": (
        _replaced(shape=(1, 1, 8, 16), dtype="f4", external=[("/etc/passwd", 0, 512)]),
        "weights in the file itself",
    ),
    "a virtual dataset": (_virtual, "weights in the file itself"),
    "an external link": (linked(KERNEL, h5py.ExternalLink("other.hdf5", "/x")), "weights in the file itself"),
    "a soft link": (linked(KERNEL, h5py.SoftLink("/model_weights")), "weights in the file itself"),
    "NaN": (not_finite(KERNEL), "finite weights"),
    "no weights": (lambda file: file.__delitem__("model_weights"), "model_weights/conv: expected weights"),
    "no names": (
        lambda file: file["model_weights/conv"].attrs.__delitem__("weight_names"),
        "layer 'conv': expected the weights kernel, found none",
    ),
    "other names": (
        lambda file: file["model_weights/conv"].attrs.__setitem__("weight_names", ["a/../b"]),
        "layer 'conv': expected the weights kernel, found b",
    ),
}


def _attribute(name: str, value: Any) -> Callable[[Any], None]:
    return lambda file: file.attrs.__setitem__(name, value)


def _split(**changes: Any) -> Callable[[Any], None]:
    told = {"seed": 5, "validation": 0.2, "test": 0.25, "identity": "0" * 16}
    return _attribute("split", json.dumps(told | changes))


METADATA = {
    "a newer schema": (_attribute("schema", 2), "schema: expected 1, found"),
    "few classes": (_attribute("classes", ["a", "b"]), "classes: expected 4 different names"),
    "one class twice": (_attribute("classes", ["a", "b", "b", "c"]), "classes: expected 4 different names"),
    "numbers as classes": (_attribute("classes", [1, 2, 3, 4]), "classes: expected texts"),
    "a feature shape": (_attribute("feature_shape", [2, 2, 9]), r"feature_shape: expected \(2, 2, 8\) as its input"),
    "no shape": (lambda file: file.attrs.__delitem__("feature_shape"), "feature_shape: expected an attribute"),
    "a spec": (_attribute("spec", '{"conv_width": 17}'), "spec: expected a JSON object that fits, found another .*17"),
    "a refit": (_attribute("refit", '{"parts": 5}'), "refit: expected a JSON object that fits, found another .*parts"),
    "a refit of no rows": (_attribute("refit", '{"epochs": 3}'), r"refit: .*\(rows: expected a number"),
    "rows as text": (_attribute("refit", '{"rows": "80", "epochs": 3}'), r"refit: .*\(rows: expected a whole"),
    "a mean of none": (_attribute("refit", '{"mean": 0.5}'), r"refit: .*\(repeats: expected a"),
    "no JSON": (_attribute("split", "{"), "split: expected a JSON object"),
    "a seed as text": (_split(seed="5"), "split: expected a JSON object that fits, found another .seed '5'"),
    "a seed below 0": (_split(seed=-1), "another .seed -1"),
    "a seed that is too large": (_split(seed=2**40), "another .seed 1099511627776"),
    "true as a seed": (_split(seed=True), "another .seed True"),
    "no share": (_split(test=None), "another .validation 0.2 and test None, which are no shares"),
    "all rows as shares": (_split(test=0.9), "another .validation 0.2 and test 0.9, which are no shares"),
    "a share below 0": (_split(validation=-0.1), "another .validation -0.1"),
    "no identity": (_split(identity=None), "another .identity None"),
    "unknown parts": (_split(parts="taken"), "another .parts 'taken', which are not given"),
    "a text as number": (_attribute("image_size", "big"), "image_size: expected a whole number"),
    "an infinite number": (_attribute("alpha", np.inf), "alpha: expected a number"),
    "a temperature of 0": (_attribute("temperature", 0.0), r"temperature: expected a number above 0, found 0\.0"),
    "a temperature below": (_attribute("temperature", -2.0), "temperature: expected a number above 0, found -2"),
    "a dtype": (_attribute("dtype", "int8"), "dtype: expected float16 or float32"),
    "no views": (_attribute("views", np.zeros(0, h5py.string_dtype())), "views: expected at least one"),
    "a number as text": (_attribute("backbone", 3), "backbone: expected a text"),
    "an image model": (_attribute("kind", "image_model"), "found a model from image to class; search.export without"),
    "another kind": (_attribute("kind", "tail"), "kind: expected head, found 'tail'"),
}


@pytest.mark.parametrize(("change", "message"), [*WEIGHTS.values(), *METADATA.values()], ids=[*WEIGHTS, *METADATA])
def test_contents_that_do_not_fit(edited: Callable[..., Path], change: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_head(edited(change))
