"""Head files whose model is anything but plain layers: refused, and nothing of theirs is run."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import pytest
from edited_files import edit_config, edit_file, layer, leaves_a_witness, places, put, saved_head
from made_heads import SHAPE

from features.runtime.errors import InputError
from heads.files.head_file import read_head
from heads.files.layer_config import MAX_PARAMETERS
from heads.files.plain_layers import parse_model

saved, edited, with_config = saved_head, edit_file, edit_config


def _set(name: str, key: str, value: Any) -> Callable[[Any], None]:
    return lambda config: layer(config, name)["config"].__setitem__(key, value)


def _entry(name: str, key: str, value: Any) -> Callable[[Any], None]:
    return lambda config: layer(config, name).__setitem__(key, value)


def _two_inputs(config: Any) -> None:
    extra = copy.deepcopy(layer(config, "features"))
    extra["name"] = extra["config"]["name"] = "more"
    config["config"]["layers"].append(extra)


def _shared(config: Any) -> None:
    layer(config, "activation")["inbound_nodes"] *= 2


def _skip(config: Any) -> None:
    layer(config, "probabilities")["inbound_nodes"] = copy.deepcopy(layer(config, "pooling")["inbound_nodes"])


CUSTOM = {"class_name": "Zeros", "config": {}, "module": "evil", "registered_name": "evil>Zeros"}
REFUSED = {
    "a custom class": (_entry("pooling", "class_name", "Evil"), r"layer 'pooling': expected one of .*, found Evil"),
    "another module": (_entry("conv", "module", "os"), "Conv2D of Keras' own, found one of module os"),
    "a registered name": (_entry("conv", "registered_name", "evil>Conv2D"), "found one registered as evil>Conv2D"),
    "an activation": (_set("conv", "activation", "evil"), r"layer 'conv': activation: expected .*, found evil"),
    "an activation object": (_set("activation", "activation", {"class_name": "f", "config": "g"}), "activation: expec"),
    "an initialiser": (_set("conv", "kernel_initializer", CUSTOM), r"'conv': kernel_initializer: .* module evil"),
    "an unknown initialiser": (_set("conv", "kernel_initializer", "evil"), "kernel_initializer: expected an initia"),
    "a regulariser": (_set("conv", "kernel_regularizer", {"class_name": "L2"}), "kernel_regularizer: expected class_n"),
    "a regulariser's module": (_set("conv", "bias_regularizer", CUSTOM), r"bias_regularizer: .* module evil"),
    "an unknown regulariser": (_set("probabilities", "kernel_regularizer", "evil"), "expected a regulariser of Keras'"),
    "an activity": (_set("pooling", "activity_regularizer", CUSTOM), r"'pooling': activity_reg.* module evil"),
    "a constraint": (_set("batch_norm", "beta_constraint", CUSTOM), r"beta_constraint: .* module evil"),
    "an unknown constraint": (_set("conv", "kernel_constraint", "evil"), "kernel_constraint: expected a constraint of"),
    "a dtype policy": (_set("conv", "dtype", {"class_name": "Evil", "config": {}}), "dtype: expected float32, found E"),
    "half precision": (_set("conv", "dtype", "mixed_float16"), "dtype: expected float32, found mixed_float16"),
    "an unknown key": (_set("dropout", "surprise", 1), "'surprise': expected no such key, found 1"),
    "many filters": (_set("conv", "filters", 10**12), r"filters: expected a whole number from 1 to \d+, found 1000"),
    "many parameters": (_set("conv", "filters", MAX_PARAMETERS), "an output of 1 to"),
    "a true filter": (_set("conv", "filters", True), "filters: expected a whole number"),
    "no units": (_set("probabilities", "units", 0), "units: expected a whole number from 1"),
    "a long stride": (_set("conv", "strides", [0, 1]), "strides: expected two whole numbers"),
    "a wide kernel": (_set("conv", "kernel_size", [3, 3]), "kernel_size: expected at most 2"),
    "groups": (_set("conv", "groups", 2), "groups: expected 1, found 2"),
    "channels first": (_set("conv", "data_format", "channels_first"), 'data_format: expected "channels_last"'),
    "another axis": (_set("batch_norm", "axis", 1), "axis: expected -1, found 1"),
    "a negative epsilon": (_set("batch_norm", "epsilon", -1), "epsilon: expected a number in"),
    "dropping all": (_set("dropout", "rate", 1), "rate: expected a number in"),
    "no softmax": (_set("probabilities", "activation", "linear"), "a head that ends in softmax"),
    "a softmax, then none": (_entry("probabilities", "class_name", "Activation"), "'units'"),
    "an open input": (_set("features", "batch_shape", [None, None, 2, 8]), "batch_shape: expected features of"),
    "a huge input": (_set("features", "batch_shape", [None, 2**20, 2**20, 8]), "batch_shape: expected features of"),
    "a name with a slash": (_set("conv", "name", "../conv"), "name: expected letters"),
    "no name": (_set("conv", "name", None), "name: expected letters"),
    "one name twice": (_set("conv", "name", "dropout"), "different names, found dropout twice"),
    "two inputs": (_two_inputs, "one chain of layers from one input"),
    "a shared layer": (_shared, "layer 'activation': expected one call with one input"),
    "a branch": (_skip, "one chain of layers"),
    "a call argument": (
        lambda config: layer(config, "conv")["inbound_nodes"][0]["kwargs"].update(training="evil"),
        "a call without further arguments",
    ),
    "a nested model": (
        _entry("pooling", "class_name", "Functional"),
        r"model_config: expected 1 to 256 layers, found none",
    ),
    "another kind of model": (
        lambda config: config.update(class_name="Evil"),
        "or Sequential model, found Evil",
    ),
    "no layers": (lambda config: config["config"].update(layers=[]), "1 to 256 layers"),
    "a line break": (_entry("pooling", "class_name", "Evil\nline"), r"found Evil\\nline"),
}


class TestRefused:
    @pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
    def test_anything_but_plain_layers(self, with_config: Callable[..., Path], change: Any, message: str) -> None:
        path = with_config(change)
        with pytest.raises(InputError, match=message) as caught:
            read_head(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert len(str(caught.value)) < 400

    def test_a_lambda_is_not_run(self, tmp_path: Path) -> None:
        witness = tmp_path / "witness"
        inputs = keras.Input(SHAPE)
        outputs = keras.layers.Flatten()(inputs)
        outputs = keras.layers.Lambda(leaves_a_witness(str(witness)), output_shape=(32,))(outputs)
        path = tmp_path / "evil.hdf5"
        keras.Model(inputs, outputs).save(path)
        witness.unlink(missing_ok=True)
        with pytest.raises(InputError, match=r"layer 'lambda\w*': expected one of InputLayer.*, found Lambda"):
            read_head(path)
        assert not witness.exists()

    def test_every_odd_value_is_refused_or_harmless(self, saved: Path) -> None:
        """Whatever stands in any place of the configuration: one line, or a model of sane size."""
        with h5py.File(saved) as file:
            text = file.attrs["model_config"]
        odd = (None, True, -1, 0, 2**31, 1e308, float("nan"), "", "\ud800", "x" * 9999, [], [[]], [0, 0], {}, {"a": 1})
        refused = 0
        for place in places(json.loads(text)):
            for value in odd:
                config = json.loads(text)
                put(config, place, value)
                try:
                    plain = parse_model(saved, json.dumps(config))
                except InputError as error:
                    refused += 1
                    assert len(str(error)) < 500
                    assert str(error).isprintable()
                else:
                    assert plain.classes <= 2**20
        assert refused > 1000

    def test_a_key_that_is_there_twice_is_refused(self, edited: Callable[..., Path]) -> None:
        def twice(file: h5py.File) -> None:
            file.attrs["model_config"] = '{"class_name": "Lambda", ' + file.attrs["model_config"][1:]

        with pytest.raises(InputError, match=r"model_config: expected JSON, .*the key 'class_name' 2 times"):
            read_head(edited(twice))

    @pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "9" * 10_000, "null", "[1]", '{"class_name": "Model"}'])
    def test_no_json_of_a_model(self, edited: Callable[..., Path], text: str) -> None:
        path = edited(lambda file: file.attrs.__setitem__("model_config", text))
        with pytest.raises(InputError, match=r"edited\.hdf5: model"):
            read_head(path)
