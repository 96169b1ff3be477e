"""A network's file is data: what it says is read, and what is not Keras' own is refused in one line, before Keras."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from conftest import ROOT
from made_networks import Twice, edited, flat, grey, nested, saved, tokens, with_layer

from features.extraction.backbone_spec import BackboneSpec
from features.extraction.network import load_network
from features.extraction.network_file import read_network
from features.runtime.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    return saved(tmp_path_factory.mktemp("network") / "good.keras", flat())


def caffe() -> keras.Model:
    """With the preprocessing of an older network of keras.applications: blue first, less the mean of each channel."""
    images = keras.Input((32, 32, 3))
    shown = keras.applications.resnet50.preprocess_input(images)
    return keras.Model(images, keras.layers.Conv2D(2, 3)(shown))


@pytest.mark.parametrize(
    ("make", "shape", "rescales"),
    [
        (flat, (32, 32, 3), False),
        (nested, (None, None, 3), True),
        (tokens, (32, 32, 3), True),
        (grey, (32, 32, 1), False),
        (caffe, (32, 32, 3), True),
    ],
)
def test_what_it_says_of_itself(make, shape, rescales, tmp_path):
    path = saved(tmp_path / "net.keras", make())
    file = read_network(path)
    assert (file.input_shape, file.rescales, file.archive) == (shape, rescales, True)
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    if make not in (tokens, caffe):  # of which .h5 cannot keep the slice
        old = read_network(saved(tmp_path / "net.h5", make()))
        assert (old.input_shape, old.rescales, old.archive) == (shape, rescales, False)


def test_what_it_was_compiled_with_is_no_matter(good, tmp_path):
    @keras.saving.register_keras_serializable("Mine")
    def my_loss(true, predicted):
        return true - predicted

    model = flat()
    model.compile("adam", loss=my_loss)
    file = read_network(saved(tmp_path / "compiled.keras", model))
    assert "compile_config" not in file.config
    assert file.classes == read_network(good).classes
    assert not load_network(file).compiled


def _layer(config: dict, at: int = 1) -> dict:
    return config["config"]["layers"][at]


CHANGES = {
    "code": (
        lambda c: _layer(c).update(class_name="Lambda"),
        "layer first: expected layers of Keras' own, found a Lambda",
    ),
    "code inside": (
        lambda c: _layer(c)["config"].update(activation={"class_name": "__lambda__", "config": {"value": "x"}}),
        "found a __lambda__, which holds code",
    ),
    "a file": (
        lambda c: _layer(c).update(class_name="TFSMLayer"),
        "that need nothing but this file, found a TFSMLayer",
    ),
    "words": (lambda c: _layer(c).update(class_name="StringLookup"), "found a StringLookup"),
    "another module": (lambda c: _layer(c).update(module="os.path"), "the custom class Conv2D of module os.path"),
    "registered": (lambda c: _layer(c).update(registered_name="a>B"), "the custom class Conv2D, registered as a>B"),
    "in a list": (
        lambda c: _layer(c)["inbound_nodes"].append([{"class_name": "Popen", "module": "subprocess"}]),
        "the custom class Popen of module subprocess",
    ),
    "no class": (lambda c: _layer(c).update(class_name=["Conv2D"]), "class_name: expected a class of Keras' own"),
    "a function": (
        lambda c: _layer(c)["config"].update(
            activation={"class_name": "function", "module": "os", "config": "system", "registered_name": "function"}
        ),
        "the custom class system of module os",
    ),
    "no model": (lambda c: c.update(class_name="Dense", registered_name=None), "found Dense"),
    "three axes": (
        lambda c: _layer(c, 0)["config"].update(batch_shape=[None, 8, 8, 8, 3]),
        "input: expected a network of",
    ),
    "oblong": (lambda c: _layer(c, 0)["config"].update(batch_shape=[None, 8, 9, 3]), "input: .* found \\(8, 9, 3\\)"),
    "features": (
        lambda c: _layer(c, 0)["config"].update(batch_shape=[None, 8, 8, 64]),
        "input: .* found \\(8, 8, 64\\)",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_not_keras_own_is_refused_before_keras_sees_it(name, good, tmp_path, monkeypatch):
    change, words = CHANGES[name]
    monkeypatch.setattr(keras.saving, "load_model", None)
    with pytest.raises(InputError, match=words) as caught:
        read_network(edited(tmp_path / "bad.keras", good, change))
    assert str(caught.value).startswith(f"{tmp_path / 'bad.keras'}: ")
    assert "\n" not in str(caught.value)


BUILT = {
    "a function of Keras": {"module": "keras.saving", "class_name": "load_model"},
    "a class that is no layer": {"module": "keras.callbacks", "class_name": "ModelCheckpoint"},
    "a module that is not there": {"module": "keras.src.layers.nothing", "class_name": "Conv2D"},
    "an optimizer": {"module": "keras.optimizers", "class_name": "Adam"},
    "a function in the place of a layer": {"module": "keras.models", "class_name": "clone_model"},
}


@pytest.mark.parametrize("name", BUILT)
def test_what_is_keras_own_and_makes_up_no_network_is_refused(name, good, tmp_path, monkeypatch):
    path = edited(tmp_path / "bad.keras", good, lambda c: _layer(c).update(BUILT[name], registered_name=None))
    monkeypatch.setattr(keras.saving, "load_model", None)
    with pytest.raises(
        InputError, match=f"class_name: expected layers of Keras' own, found {BUILT[name]['class_name']}"
    ):
        load_network(read_network(path))


@pytest.mark.parametrize("ending", [".keras", ".h5"])
@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (lambda: keras.layers.Lambda(lambda x: x), "found a Lambda"),
        (Twice, "the custom class .*Twice"),
    ],
)
def test_code_and_classes_of_the_users_are_refused_by_name(ending, layer, words, tmp_path):
    path = saved(tmp_path / f"net{ending}", with_layer(layer()))
    with pytest.raises(InputError, match=words):
        BackboneSpec(name=str(path), preprocessing="unit")


def test_what_is_no_network_is_said_in_one_line(good, tmp_path):
    model, texts = flat(), {}
    for name, content in {"empty.keras": b"", "text.keras": b"network", "cut.keras": good.read_bytes()[:3000]}.items():
        (tmp_path / name).write_bytes(content)
        texts[name] = "found a"
    model.save_weights(tmp_path / "only.weights.h5")
    with h5py.File(tmp_path / "numbers.h5", "w") as file:
        file["numbers"] = np.arange(3)
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("a.txt", "a")
    with zipfile.ZipFile(tmp_path / "bomb.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", json.dumps({"class_name": "Functional", "config": {}}))
        archive.writestr("model.weights.h5", bytes(2**23))
    (tmp_path / "folder.keras").mkdir()
    texts |= {
        "only.weights.h5": "weights without their network; name the network with --backbone",
        "numbers.h5": "an HDF5 file without model_config",
        "other.keras": "a ZIP archive that is no .keras file",
        "bomb.keras": "model.weights.h5: expected weights that are hardly packed",
        "folder.keras": "a folder",
        "absent.keras": "no such file",
    }
    for name, words in texts.items():
        with pytest.raises(InputError, match=words) as caught:
            BackboneSpec(name=str(tmp_path / name))
        assert str(caught.value).startswith(f"{tmp_path / name}: "), name
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="input: expected a network of square images"):
        BackboneSpec(name=str(ROOT / "tests" / "archives" / "head.hdf5"))


def test_weights_that_do_not_fit_or_are_not_finite_are_refused(good, tmp_path):
    path = edited(tmp_path / "wide.keras", good, lambda c: _layer(c)["config"].update(filters=7))
    with pytest.raises(InputError, match=r"wide\.keras: expected a network .*, found one that Keras .* cannot load"):
        load_network(read_network(path))
    model = flat()
    model.set_weights([np.full_like(array, np.nan) for array in model.get_weights()])
    with pytest.raises(InputError, match="weights that are finite"):
        load_network(read_network(saved(tmp_path / "nan.keras", model)))


def test_what_the_file_does_not_say_is_asked_for(good, tmp_path):
    free = str(saved(tmp_path / "free.keras", nested()))
    for options, words in {
        (("name", str(good)),): "--preprocessing: expected what .* was trained with: unit, tf, torch, caffe, none",
        (("name", free),): "--image-size: .*: it takes images of any size, found none",
        (("name", str(good)), ("image_size", 64)): "--image-size: expected 32, the only size",
        (("name", free), ("image_size", 5000)): "--image-size: expected 1 to 4096",
        (("name", free), ("weights", "random"), ("image_size", 64)): "--weights: expected none: .* is a whole network",
        (("name", free), ("alpha", 0.5), ("image_size", 64)): "--alpha: expected none",
    }.items():
        with pytest.raises(InputError, match=words):
            BackboneSpec(**dict(options))
    spec = BackboneSpec(name=str(good), preprocessing="tf", layer="first")
    assert (spec.title, spec.size, spec.identity) == ("good.keras", 32, (read_network(good).sha256, "first"))
    assert BackboneSpec(name=free, image_size=64).recorded_preprocessing == "none"
    assert BackboneSpec(name="mobilenet", preprocessing="tf").recorded_preprocessing == "backbone"
