"""Head files: what goes out, what comes in, and everything that must not."""

from __future__ import annotations

import copy
import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from conftest import CLASSES, build_header, build_store

from features.runtime.errors import BottleneckError, InputError
from heads.files.head_file import load_head, read_metadata, save_head
from heads.files.layer_config import MAX_PARAMETERS
from heads.files.metadata import HeadMetadata
from heads.files.plain_layers import ACTIVATIONS, parse_model
from heads.model.build import build_head
from heads.model.spec import HeadSpec

SHAPE = (2, 2, 8)
SPECS = (
    HeadSpec(conv_width=16),
    HeadSpec(conv_width=32, batch_norm=False, activation="gelu", pooling="average", dropout=0.0),
    HeadSpec(conv_width=16, activation="silu", pooling="max", dense_layers=2, dense_units=5, dense_dropout=0.3),
)


def random_head(spec: HeadSpec = SPECS[0], *, seed: int = 1) -> Any:
    """A head whose every weight, moving statistics included, is a random number."""
    model = build_head(spec, SHAPE, len(CLASSES), seed=seed)
    generator = np.random.default_rng(seed)
    model.set_weights([generator.uniform(0.1, 1, array.shape) for array in model.get_weights()])
    return model


def some_features(rows: int = 5) -> np.ndarray:
    return np.random.default_rng(7).uniform(0, 2, (rows, *SHAPE)).astype(np.float16)


def predicted(model: Any, features: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(features, training=False))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "head.hdf5"
    save_head(path, random_head(), HeadMetadata.of_store(build_header(), "f" * 64, versions={"keras": "3"}))
    return path


@pytest.fixture
def edited(saved: Path, tmp_path: Path) -> Callable[[Callable[[Any], object]], Path]:
    """Copies the saved head and applies a function to the open file."""

    def edit(change: Callable[[Any], object]) -> Path:
        path = tmp_path / "edited.hdf5"
        shutil.copy(saved, path)
        with h5py.File(path, "r+") as file:
            change(file)
        return path

    return edit


@pytest.fixture
def with_config(edited: Callable[..., Path]) -> Callable[[Callable[[Any], object]], Path]:
    """Copies the saved head and applies a function to its model's configuration, decoded."""

    def edit(change: Callable[[Any], object]) -> Path:
        def rewrite(file: Any) -> None:
            config = json.loads(file.attrs["model_config"])
            change(config)
            file.attrs["model_config"] = json.dumps(config)

        return edited(rewrite)

    return edit


def layer(config: Any, name: str) -> Any:
    return next(entry for entry in config["config"]["layers"] if entry["config"]["name"] == name)


class TestOut:
    @pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.pooling)
    def test_comes_back_as_it_was(self, tmp_path: Path, spec: HeadSpec) -> None:
        split = {"seed": 3, "validation": 0.1, "test": 0.2, "identity": "0" * 16}
        metadata = HeadMetadata.of_store(
            build_header(views=("identity", "flip")),
            "f" * 64,
            spec=spec,
            study="heads",
            trial=17,
            value=0.9375,
            split=split,
            versions={"keras": keras.version()},
        )
        model = random_head(spec)
        save_head(tmp_path / "head.hdf5", model, metadata)
        head = load_head(tmp_path / "head.hdf5")
        assert head.metadata == metadata == read_metadata(tmp_path / "head.hdf5")
        assert head.metadata.views == ("identity", "flip")
        assert not head.model.compiled
        np.testing.assert_array_equal(predicted(head.model, some_features()), predicted(model, some_features()))
        assert [one.name for one in head.model.layers] == [one.name for one in model.layers]

    def test_unknown_stays_unknown(self, tmp_path: Path) -> None:
        metadata = HeadMetadata(classes=("é", "二"), feature_shape=SHAPE, versions={})
        save_head(tmp_path / "head.h5", build_head(SPECS[0], SHAPE, 2), metadata)
        assert load_head(tmp_path / "head.h5").metadata == metadata

    def test_h5py_alone_reads_the_metadata(self, saved: Path) -> None:
        with h5py.File(saved) as file:
            attributes = dict(file.attrs)
        assert attributes["kind"] == "head"
        assert attributes["classes"].tolist() == list(CLASSES)
        assert attributes["feature_shape"].tolist() == list(SHAPE)
        assert (attributes["backbone"], attributes["alpha"], attributes["image_size"]) == ("mobilenet", 0.25, 64)
        assert json.loads(attributes["versions"]) == {"keras": "3"}
        assert "training_config" not in attributes
        assert not {"spec", "split", "trial", "value"} & set(attributes)

    def test_loads_where_this_project_is_unknown(self, tmp_path: Path) -> None:
        metadata = HeadMetadata(classes=CLASSES, feature_shape=SHAPE, versions={})
        for number, spec in enumerate(SPECS):
            save_head(tmp_path / f"{number}.hdf5", random_head(spec), metadata)
        np.save(tmp_path / "features.npy", some_features())
        code = (
            "import sys, warnings; warnings.simplefilter('error')\n"
            "import keras, numpy as np\n"
            "features = np.load('features.npy')\n"
            "for number in range(3):\n"
            "    model = keras.models.load_model(f'{number}.hdf5')\n"
            "    np.save(f'{number}.npy', model.predict(features, verbose=0))\n"
            "    model.compile('adam', 'sparse_categorical_crossentropy')\n"
            "    model.fit(features, np.zeros(len(features)), verbose=0)\n"
            "assert not {'heads', 'features', 'search'} & {name.split('.')[0] for name in sys.modules}\n"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        for number, spec in enumerate(SPECS):
            there, here = np.load(tmp_path / f"{number}.npy"), predicted(random_head(spec), some_features())
            np.testing.assert_allclose(there, here, atol=1e-6)

    def test_says_nothing(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        save_head(
            tmp_path / "head.hdf5", random_head(), HeadMetadata(classes=CLASSES, feature_shape=SHAPE, versions={})
        )
        assert capfd.readouterr() == ("", "")

    def test_other_endings_are_refused(self, tmp_path: Path) -> None:
        metadata = HeadMetadata(classes=CLASSES, feature_shape=SHAPE, versions={})
        with pytest.raises(InputError, match=r"ends in \.hdf5 or \.h5, found \.keras"):
            save_head(tmp_path / "head.keras", random_head(), metadata)

    def test_a_full_disk_leaves_the_old_file(self, saved: Path, tmp_path: Path) -> None:
        path = Path(shutil.copy(saved, tmp_path / "head.hdf5"))
        before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
        metadata = replace(read_metadata(saved), value=0.5)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        try:
            with pytest.raises(BottleneckError, match=r"head\.hdf5: ") as caught:
                save_head(path, random_head(), metadata)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert "\n" not in str(caught.value)
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]


class TestForeign:
    def test_the_articles_head(self, article_file: Path) -> None:
        head = load_head(article_file)
        assert head.metadata.classes == ("CNV", "DME", "DRUSEN", "NORMAL")
        assert head.metadata.feature_shape == (8, 8, 2048)
        assert head.metadata.backbone == "unknown"
        assert head.metadata.versions == {"keras": "2.1.5"}
        features = np.random.default_rng(0).uniform(0, 1, (3, 8, 8, 2048)).astype(np.float32)
        np.testing.assert_allclose(predicted(head.model, features), _article_by_hand(article_file, features), atol=1e-5)

    @pytest.mark.parametrize("bare_list", [False, True], ids=["Keras 3", "Keras 2.1"])
    def test_a_sequential_model(self, tmp_path: Path, bare_list: bool, caplog: pytest.LogCaptureFixture) -> None:
        layers = keras.layers
        model = keras.Sequential(
            [
                keras.Input(SHAPE),
                layers.Conv2D(6, 2, strides=2, padding="same", activation="tanh"),
                layers.BatchNormalization(center=False),
                layers.ReLU(max_value=2.0, negative_slope=0.1, threshold=0.05),
                layers.GlobalMaxPooling2D(),
                layers.Dense(3),
                layers.Softmax(),
            ]
        )
        path = tmp_path / "foreign.h5"
        model.save(path)
        if bare_list:
            with h5py.File(path, "r+") as file:
                config = json.loads(file.attrs["model_config"])
                rest = config["config"]["layers"][1:]
                rest[0]["config"]["batch_input_shape"] = [None, *SHAPE]
                file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": rest}).encode()
        head = load_head(path)
        assert head.metadata.classes == ("class-0", "class-1", "class-2")
        np.testing.assert_array_equal(predicted(head.model, some_features()), predicted(model, some_features()))

    def test_every_activation(self, tmp_path: Path) -> None:
        layers = [keras.layers.Dense(4, activation=name) for name in (*ACTIVATIONS, "softmax")]
        model = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), *layers, keras.layers.Dropout(0.5)])
        model.save(tmp_path / "head.hdf5")
        head = load_head(tmp_path / "head.hdf5")
        np.testing.assert_array_equal(predicted(head.model, some_features()), predicted(model, some_features()))


def _article_by_hand(path: Path, features: np.ndarray) -> np.ndarray:
    """The article's head in a few lines of NumPy, float64."""
    with h5py.File(path) as file:
        arrays: dict[str, np.ndarray] = {}
        file["model_weights"].visititems(
            lambda name, item: (
                arrays.update({name.rpartition("/")[2]: item[()].astype(float)})
                if isinstance(item, h5py.Dataset) and "dense" not in name
                else None
            )
        )
        dense = file["model_weights/dense_1/dense_1"]
        kernel, bias = dense["kernel:0"][()].astype(float), dense["bias:0"][()].astype(float)
    convolved = features.astype(float) @ arrays["kernel:0"][0, 0]
    normed = (convolved - arrays["moving_mean:0"]) / np.sqrt(arrays["moving_variance:0"] + 1e-3) + arrays["beta:0"]
    scores = np.maximum(normed, 0).reshape(len(features), -1) @ kernel + bias
    exponentials = np.exp(scores - scores.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


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
    "a regulariser": (_set("conv", "kernel_regularizer", {"class_name": "L2"}), "kernel_regularizer: expected null"),
    "a constraint": (_set("batch_norm", "beta_constraint", CUSTOM), "beta_constraint: expected null"),
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
        r"expected one of .*, found Functional",
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
            load_head(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert len(str(caught.value)) < 400

    def test_a_lambda_is_not_run(self, tmp_path: Path) -> None:
        witness = tmp_path / "witness"
        inputs = keras.Input(SHAPE)
        outputs = keras.layers.Lambda(_leaves_a_witness(str(witness)), output_shape=(4,))(inputs)
        path = tmp_path / "evil.hdf5"
        keras.Model(inputs, outputs).save(path)
        witness.unlink(missing_ok=True)
        with pytest.raises(InputError, match=r"layer 'lambda\w*': expected one of InputLayer.*, found Lambda"):
            load_head(path)
        assert not witness.exists()

    def test_every_odd_value_is_refused_or_harmless(self, saved: Path) -> None:
        """Whatever stands in any place of the configuration: one line, or a model of sane size."""
        with h5py.File(saved) as file:
            text = file.attrs["model_config"]
        odd = (None, True, -1, 0, 2**31, 1e308, float("nan"), "", "\ud800", "x" * 9999, [], [[]], [0, 0], {}, {"a": 1})
        refused = 0
        for place in _places(json.loads(text)):
            for value in odd:
                config = json.loads(text)
                _put(config, place, value)
                try:
                    plain = parse_model(saved, json.dumps(config))
                except InputError as error:
                    refused += 1
                    assert len(str(error)) < 500
                    assert str(error).isprintable()
                else:
                    assert plain.classes <= 2**20
        assert refused > 1000

    @pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "9" * 10_000, "null", "[1]", '{"class_name": "Model"}'])
    def test_no_json_of_a_model(self, edited: Callable[..., Path], text: str) -> None:
        path = edited(lambda file: file.attrs.__setitem__("model_config", text))
        with pytest.raises(InputError, match=r"edited\.hdf5: model"):
            load_head(path)


def _leaves_a_witness(path: str) -> Callable[[Any], Any]:
    def run(tensor: Any, witness: str = path) -> Any:
        import pathlib

        pathlib.Path(witness).touch()
        return tensor[:, 0, 0, :4]

    return run


def _places(config: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if at:
        yield at
    items = config.items() if isinstance(config, dict) else enumerate(config) if isinstance(config, list) else ()
    for key, value in items:
        yield from _places(value, (*at, key))


def _put(config: Any, place: tuple[Any, ...], value: Any) -> None:
    for key in place[:-1]:
        config = config[key]
    config[place[-1]] = value


KERNEL = "model_weights/conv/conv/kernel"


def _replaced(**options: Any) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        del file[KERNEL]
        file.create_dataset(KERNEL, **options)

    return change


def _linked(link: Any) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        del file[KERNEL]
        file[KERNEL] = link

    return change


def _virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((1, 1, 8, 16), "f4")
    layout[:] = h5py.VirtualSource("other.hdf5", "secret", (1, 1, 8, 16))
    del file[KERNEL]
    file.create_virtual_dataset(KERNEL, layout)


def _not_finite(file: Any) -> None:
    file[KERNEL][0, 0, 0, 0] = np.nan


WEIGHTS = {
    "another shape": (
        _replaced(data=np.zeros((1, 1, 8, 17), "f4")),
        r"float32 \(1, 1, 8, 16\), found float32",
    ),
    "another type": (_replaced(data=np.zeros((1, 1, 8, 16), "i4")), r"expected float32 \(1, 1, 8, 16\), found int32"),
    "a bomb": (_replaced(shape=(1 << 40,), dtype="f4", chunks=(1 << 20,)), "expected float32"),
    "other file's bytes": (
        _replaced(shape=(1, 1, 8, 16), dtype="f4", external=[("/etc/passwd", 0, 512)]),
        "weights in the file itself",
    ),
    "a virtual dataset": (_virtual, "weights in the file itself"),
    "an external link": (_linked(h5py.ExternalLink("other.hdf5", "/x")), "weights in the file itself"),
    "a soft link": (_linked(h5py.SoftLink("/model_weights")), "weights in the file itself"),
    "NaN": (_not_finite, "finite weights"),
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


@pytest.mark.parametrize(("change", "message"), WEIGHTS.values(), ids=WEIGHTS)
def test_weights_that_do_not_fit(edited: Callable[..., Path], change: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_head(edited(change))


def _attribute(name: str, value: Any) -> Callable[[Any], None]:
    return lambda file: file.attrs.__setitem__(name, value)


METADATA = {
    "a newer schema": (_attribute("schema", 2), "schema: expected 1, found"),
    "few classes": (_attribute("classes", ["a", "b"]), "classes: expected 4 different names"),
    "one class twice": (_attribute("classes", ["a", "b", "b", "c"]), "classes: expected 4 different names"),
    "numbers as classes": (_attribute("classes", [1, 2, 3, 4]), "classes: expected texts"),
    "another shape": (_attribute("feature_shape", [2, 2, 9]), r"feature_shape: expected \(2, 2, 8\) as its input"),
    "no shape": (lambda file: file.attrs.__delitem__("feature_shape"), "feature_shape: expected an attribute"),
    "a spec": (_attribute("spec", '{"conv_width": 17}'), "spec: expected a JSON object that fits, found another .*17"),
    "no JSON": (_attribute("split", "{"), "split: expected a JSON object"),
    "a text as number": (_attribute("image_size", "big"), "image_size: expected a whole number"),
    "an infinite number": (_attribute("alpha", np.inf), "alpha: expected a number"),
    "a dtype": (_attribute("dtype", "int8"), "dtype: expected float16 or float32"),
    "no views": (_attribute("views", np.zeros(0, h5py.string_dtype())), "views: expected at least one"),
    "a number as text": (_attribute("backbone", 3), "backbone: expected a text"),
    "an image model": (_attribute("kind", "image_model"), "found a model from image to class; search.export without"),
    "another kind": (_attribute("kind", "tail"), "kind: expected head, found 'tail'"),
}


@pytest.mark.parametrize(("change", "message"), METADATA.values(), ids=METADATA)
def test_metadata_that_does_not_fit(edited: Callable[..., Path], change: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_head(edited(change))


class TestNoHead:
    def test_missing_folder_empty_text(self, tmp_path: Path) -> None:
        (tmp_path / "empty.hdf5").touch()
        (tmp_path / "text.hdf5").write_text("hello")
        for name, found in {
            "none.hdf5": "no such file",
            ".": "a folder",
            "empty.hdf5": "an empty file",
            "text.hdf5": "no HDF5",
        }.items():
            with pytest.raises(InputError, match=f"found {found}$"):
                load_head(tmp_path / name)

    def test_cut_short(self, saved: Path, tmp_path: Path) -> None:
        content = saved.read_bytes()
        for length in range(100, len(content) - 1, len(content) // 40):
            (tmp_path / "cut.hdf5").write_bytes(content[:length])
            with pytest.raises(InputError, match="found a damaged file"):
                load_head(tmp_path / "cut.hdf5")

    def test_a_keras_archive(self, tmp_path: Path) -> None:
        random_head().save(tmp_path / "head.keras")
        with pytest.raises(InputError, match=r"found a \.keras archive; save it as \.hdf5"):
            load_head(tmp_path / "head.keras")

    def test_a_feature_store(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="found a feature store"):
            load_head(build_store(tmp_path / "store.h5"))

    def test_the_articles_features(self, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "features.h5", "w") as file:
            file["features-0"] = np.zeros((1, *SHAPE))
        with pytest.raises(InputError, match="found features in the article's layout"):
            load_head(tmp_path / "features.h5")

    def test_weights_alone(self, saved: Path, tmp_path: Path) -> None:
        with h5py.File(saved) as source, h5py.File(tmp_path / "weights.h5", "w") as file:
            for name, value in source["model_weights"].attrs.items():
                file.attrs[name] = value
        with pytest.raises(InputError, match=r"model_config: expected a head .*, found weights without their model"):
            load_head(tmp_path / "weights.h5")
