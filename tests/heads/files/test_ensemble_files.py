"""Ensemble files as others may write them: read in either dialect of Keras, or refused before anything is built."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from edited_files import MEMBERS, edit_config, edit_file, layer, leaves_a_witness, places, put, saved_ensemble
from made_heads import SHAPE, predicted, random_head

from features.runtime.errors import InputError
from heads.files.ensemble import members_of
from heads.files.graph import MAX_LAYERS
from heads.files.head_file import read_head, read_metadata
from heads.files.layer_config import MAX_PARAMETERS
from heads.files.plain_layers import MAX_ELEMENTS, parse_model

saved, edited, with_config = saved_ensemble, edit_file, edit_config


def inputs_of(config: Any, name: str) -> Any:
    """The list of tensors that the average takes, or the list of the one tensor that another layer takes."""
    arguments = layer(config, name)["inbound_nodes"][0]["args"]
    return arguments[0] if isinstance(arguments[0], list) else arguments


def follow(tensor: Any, source: str) -> Any:
    tensor["config"]["keras_history"][0] = source
    return tensor


def add_after(config: Any, source: str, name: str, **entry: Any) -> Any:
    """Adds a copy of an activation that takes the output of a layer."""
    added = copy.deepcopy(layer(config, "head_0_activation")) | entry
    added["name"] = added["config"]["name"] = name
    follow(added["inbound_nodes"][0]["args"][0], source)
    config["config"]["layers"].append(added)
    return added


class TestRead:
    def test_metadata_and_members(self, saved: Path) -> None:
        head = read_head(saved)
        assert head.metadata == read_metadata(saved)
        assert head.metadata.trials == (4, 2, 9)
        for seed, (member, spec) in enumerate(zip(members_of(head.model), MEMBERS, strict=True)):
            np.testing.assert_array_equal(predicted(member), predicted(random_head(spec, seed=seed)))
        names = [one.name for one in members_of(head.model)[1].layers]
        assert names[:3] == ["features", "head_1_conv", "head_1_batch_norm"]

    def test_in_whatever_order_the_file_lists_its_layers(self, with_config: Callable[..., Path], saved: Path) -> None:
        path = with_config(lambda config: config["config"]["layers"].reverse())
        np.testing.assert_array_equal(predicted(read_head(path).model), predicted(read_head(saved).model))

    def test_members_in_the_order_of_the_average(self, with_config: Callable[..., Path]) -> None:
        path = with_config(lambda config: inputs_of(config, "average").reverse())
        names = [member.layers[-1].name for member in members_of(read_head(path).model)]
        assert names == ["head_2_probabilities", "head_1_probabilities", "head_0_probabilities"]

    def test_the_dialect_of_keras_2(self, edited: Callable[..., Path], saved: Path) -> None:
        def rewrite(file: Any) -> None:
            config = json.loads(file.attrs["model_config"])
            file.attrs["model_config"] = json.dumps(as_keras_2(config)).encode()
            file.attrs["keras_version"] = "2.1.5"

        path = edited(rewrite)
        with h5py.File(path) as file:
            assert "keras_history" not in file.attrs["model_config"]
        np.testing.assert_array_equal(predicted(read_head(path).model), predicted(read_head(saved).model))

    def test_an_average_of_any_name_and_without_our_attributes(self, edited: Callable[..., Path], saved: Path) -> None:
        def change(file: Any) -> None:
            config = json.loads(file.attrs["model_config"])
            entry = layer(config, "average")
            entry["name"] = entry["config"]["name"] = config["config"]["output_layers"][0] = "mean.of-3"
            file.attrs["model_config"] = json.dumps(config)
            for name in ("kind", "schema", "classes", "trials"):
                del file.attrs[name]

        head = read_head(edited(change))
        assert (len(members_of(head.model)), head.metadata.trials, len(head.metadata.classes)) == (3, (), 4)
        np.testing.assert_array_equal(predicted(head.model), predicted(read_head(saved).model))


def as_keras_2(config: Any) -> Any:
    """As Keras 2 writes a model: bare class names, calls as lists."""
    layers = []
    for entry in config["config"]["layers"]:
        values = {key: value for key, value in entry["config"].items() if key not in ("optional", "ragged")}
        values["dtype"] = "float32"
        if "batch_shape" in values:
            values["batch_input_shape"] = values.pop("batch_shape")
        for key in values:
            if key.endswith("_initializer"):
                values[key] = {"class_name": values[key]["class_name"], "config": {}}
        calls = entry["inbound_nodes"] and [
            [one["config"]["keras_history"] + [{}] for one in inputs_of(config, values["name"])]
        ]
        kind, name = entry["class_name"], values["name"]
        layers.append({"class_name": kind, "config": values, "name": name, "inbound_nodes": calls})
    rest = {"name": "model_1", "layers": layers}
    rest |= {end: [config["config"][end]] for end in ("input_layers", "output_layers")}
    return {"class_name": "Model", "config": rest}


def _kind(name: str, kind: str) -> Callable[[Any], None]:
    return lambda config: layer(config, name).__setitem__("class_name", kind)


def _fewer_classes(config: Any) -> None:
    layer(config, "head_1_probabilities")["config"]["units"] = 3


def _rename(old: str, new: str) -> Callable[[Any], None]:
    def change(config: Any) -> None:
        entry = layer(config, old)
        entry["name"] = entry["config"]["name"] = new

    return change


def _nested(config: Any) -> None:
    """A branch that is a model in the model, of layers that are allowed."""
    inner = copy.deepcopy(config)
    add_after(config, "features", "head_3").update(inner)
    inputs_of(config, "average").append(follow(copy.deepcopy(inputs_of(config, "average")[0]), "head_3"))


def _output_elsewhere(config: Any) -> None:
    config["config"]["output_layers"][0] = "head_0_probabilities"


def _two_outputs(config: Any) -> None:
    config["config"]["output_layers"] = [["average", 0, 0], ["head_0_probabilities", 0, 0]]


def _two_inputs(config: Any) -> None:
    extra = copy.deepcopy(layer(config, "features"))
    extra["name"] = extra["config"]["name"] = "more"
    config["config"]["layers"].append(extra)
    follow(inputs_of(config, "head_1_conv")[0], "more")


def _no_end(config: Any) -> None:
    """A branch that reaches the output past the average."""
    del inputs_of(config, "average")[1]


def _one_branch(config: Any) -> None:
    kept = ("features", "average")
    config["config"]["layers"] = [
        entry
        for entry in config["config"]["layers"]
        if entry["config"]["name"] in kept or entry["config"]["name"].startswith("head_0")
    ]
    del inputs_of(config, "average")[1:]


def _input_alone(config: Any) -> None:
    config["config"].update(layers=[layer(config, "features")], output_layers=["features", 0, 0])


def _twice(config: Any) -> None:
    inputs_of(config, "average").append(copy.deepcopy(inputs_of(config, "average")[0]))


def _average_of_averages(config: Any) -> None:
    second = copy.deepcopy(layer(config, "average"))
    second["name"] = second["config"]["name"] = "again"
    second["inbound_nodes"][0]["args"][0] = [
        follow(copy.deepcopy(inputs_of(config, "average")[0]), name) for name in ("average", "head_0_probabilities")
    ]
    config["config"]["layers"].append(second)
    config["config"]["output_layers"][0] = "again"


def _unused_average(config: Any) -> None:
    _average_of_averages(config)
    config["config"]["output_layers"][0] = "average"


def _no_input(config: Any) -> None:
    del config["config"]["layers"][0]
    assert not any(entry["class_name"] == "InputLayer" for entry in config["config"]["layers"])


def _cycle(config: Any) -> None:
    follow(inputs_of(config, "head_1_conv")[0], "head_1_pooling")


def _called_twice(config: Any) -> None:
    layer(config, "average")["inbound_nodes"] *= 2


def _many_branches(config: Any) -> None:
    layers = config["config"]["layers"]
    for number in range(MAX_LAYERS):
        add_after(config, "features", f"extra_{number}")
    assert len(layers) > MAX_LAYERS


def _wide(branches: int, **changes: int) -> Callable[[Any], None]:
    """Branches that are each within the limits, and together beyond them."""

    def change(config: Any) -> None:
        for number in range(branches):
            conv = layer(config, f"head_{number}_conv")["config"]
            conv.update(changes)

    return change


ONE_WAY = "expected one chain of layers from one input to one output, or several that one Average joins there, found an"
REFUSED = {
    "a Lambda in a branch": (_kind("head_1_pooling", "Lambda"), r"'head_1_pooling': expected one of .*, found Lambda"),
    "a nested model": (_nested, r"expected one chain of layers from one input to one output.*, found another graph"),
    "Add": (_kind("average", "Add"), r"layer 'average': expected one of .*, found Add"),
    "Multiply": (_kind("average", "Multiply"), r"layer 'average': expected one of .*, found Multiply"),
    "Concatenate": (_kind("average", "Concatenate"), r"layer 'average': expected one of .*, found Concatenate"),
    "Maximum": (_kind("average", "Maximum"), r"layer 'average': expected one of .*, found Maximum"),
    "another Average": (
        lambda config: layer(config, "average").update(module="evil.layers"),
        "a Average of Keras' own, found one of module evil.layers",
    ),
    "a registered Average": (
        lambda config: layer(config, "average").update(registered_name="evil>Average"),
        "found one registered as evil>Average",
    ),
    "an Average with an option": (
        lambda config: layer(config, "average")["config"].update(weights=[1, 2, 3]),
        "layer 'average': 'weights': expected no such key",
    ),
    "an Average of half precision": (
        lambda config: layer(config, "average")["config"].update(dtype="mixed_float16"),
        "layer 'average': dtype: expected float32",
    ),
    "an Average within a chain": (_kind("head_0_dropout", "Average"), "'head_0_dropout': expected one call with sev"),
    "an average of one": (_one_branch, "layer 'average': expected one call with several inputs"),
    "an average of none": (
        lambda config: inputs_of(config, "average").clear(),
        "'average': expected one call with sev",
    ),
    "an average called twice": (_called_twice, "layer 'average': expected one call with several inputs"),
    "a branch that counts twice": (_twice, ONE_WAY),
    "a branch that is not averaged": (_no_end, ONE_WAY),
    "an average that feeds elsewhere": (lambda config: add_after(config, "average", "more"), ONE_WAY),
    "a branch that feeds elsewhere": (lambda config: add_after(config, "head_1_pooling", "more"), ONE_WAY),
    "an average of averages": (_average_of_averages, ONE_WAY),
    "an average that nothing takes": (_unused_average, ONE_WAY),
    "no input": (_no_input, ONE_WAY),
    "a shared trunk": (lambda config: follow(inputs_of(config, "head_1_conv")[0], "head_0_conv"), ONE_WAY),
    "the features averaged, too": (lambda config: follow(inputs_of(config, "average")[0], "features"), ONE_WAY),
    "a cycle": (_cycle, ONE_WAY),
    "an input alone": (_input_alone, ONE_WAY),
    "an output before the average": (_output_elsewhere, ONE_WAY),
    "two outputs": (_two_outputs, ONE_WAY),
    "two inputs": (_two_inputs, ONE_WAY),
    "another output of a layer": (
        lambda config: inputs_of(config, "average")[1]["config"]["keras_history"].__setitem__(2, 1),
        "layer 'average': expected one call with several inputs",
    ),
    "a call argument": (
        lambda config: layer(config, "average")["inbound_nodes"][0]["kwargs"].update(training="evil"),
        "a call without further arguments",
    ),
    "one name twice": (_rename("head_1_conv", "head_0_conv"), "different names, found head_0_conv twice"),
    "other classes in a branch": (
        _fewer_classes,
        "expected 4 classes at the end of every chain, found 3 of layer 'hea",
    ),
    "a branch without softmax": (
        lambda config: layer(config, "head_2_probabilities")["config"].update(activation="linear"),
        r"ends in softmax over the classes, found an output of shape \(4,\) of layer 'head_2_probabilities'",
    ),
    "many layers": (_many_branches, f"expected 1 to {MAX_LAYERS} layers"),
    "many parameters in all": (
        _wide(3, filters=MAX_PARAMETERS // 32),
        f"expected at most {MAX_PARAMETERS} parameters, found",
    ),
    "large outputs in all": (
        _wide(3, filters=MAX_ELEMENTS // 20),
        f"at most {MAX_ELEMENTS} numbers in the outputs of all layers",
    ),
}


class TestRefused:
    @pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
    def test_any_other_graph(self, with_config: Callable[..., Path], change: Any, message: str) -> None:
        path = with_config(change)
        for read in (read_head, read_metadata):
            with pytest.raises(InputError, match=message) as caught:
                read(path)
            assert str(caught.value).startswith(f"{path}: ")
            assert len(str(caught.value)) < 400

    def test_a_lambda_in_a_branch_is_not_run(self, tmp_path: Path) -> None:
        """In a model as Keras itself saves it, which would run it while it builds the graph."""
        witness = tmp_path / "witness"
        inputs = keras.Input(SHAPE)
        good, evil = (keras.layers.Flatten()(inputs) for _ in range(2))
        evil = keras.layers.Lambda(leaves_a_witness(str(witness)), output_shape=(32,))(evil)
        ends = [keras.layers.Dense(4, "softmax")(branch) for branch in (good, evil)]
        path = tmp_path / "evil.hdf5"
        keras.Model(inputs, keras.layers.Average()(ends)).save(path)
        witness.unlink(missing_ok=True)
        with pytest.raises(InputError, match=r"layer 'lambda\w*': expected one of InputLayer.*, found Lambda"):
            read_head(path)
        assert not witness.exists()

    def test_an_average_is_no_part_of_a_sequential_model(self, with_config: Callable[..., Path]) -> None:
        path = with_config(lambda config: config.update(class_name="Sequential"))
        with pytest.raises(InputError, match=r"layer 'average': expected one of [^A]*.*, found Average"):
            read_head(path)

    def test_every_odd_value_is_refused_or_harmless(self, saved: Path) -> None:
        """Whatever stands in any place of the graph: one line, or a model of sane size."""
        with h5py.File(saved) as file:
            text = file.attrs["model_config"]
        names = ("average", "features", "head_0_conv", "head_1_probabilities")
        odd = (None, True, -1, 0, 1, 2**31, float("nan"), "", "\ud800", [], [[]], [0, 0], {}, {"a": 1}, *names)
        outcomes = {"refused": 0, "read": 0}
        for place in graph_places(json.loads(text)):
            for value in odd:
                config = json.loads(text)
                put(config, place, value)
                try:
                    plain = parse_model(saved, json.dumps(config))
                except InputError as error:
                    outcomes["refused"] += 1
                    assert len(str(error)) < 500
                    assert str(error).isprintable()
                else:
                    outcomes["read"] += 1
                    assert len(plain.chains) == 3
                    assert {len(chain) for chain in plain.chains} <= {5, 6}
                    assert sum(math.prod(layer.output) for layer in plain.layers) <= MAX_ELEMENTS
        assert outcomes["refused"] > 500
        assert outcomes["read"] > 10


def graph_places(config: Any) -> Iterator[tuple[Any, ...]]:
    """Where the configuration says how layers hang together, and all of the average."""
    for number, entry in enumerate(config["config"]["layers"]):
        whole = entry["config"]["name"] in ("average", "head_1_conv")
        start = ("config", "layers", number)
        if whole:
            yield from places(entry, start)
        else:
            yield (*start, "inbound_nodes")
    for end in ("input_layers", "output_layers"):
        yield from places(config["config"][end], ("config", end))
