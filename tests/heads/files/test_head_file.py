"""Head files: what goes out, what comes in, and files that are no heads."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from conftest import CLASSES, build_header, build_store
from edited_files import saved_head
from limited_files import largest_file
from made_heads import PLAIN, SHAPE, predicted, random_head, some_features

from features.runtime.errors import BottleneckError, InputError
from heads.files.head_file import read_head, read_metadata, save_head
from heads.files.metadata import HeadMetadata
from heads.files.own_file import save_own_head
from heads.files.plain_layers import ACTIVATIONS
from heads.files.split_recipe import SplitRecipe
from heads.model.build import build_head
from heads.model.spec import HeadSpec

saved = saved_head
SPECS = (
    PLAIN,
    HeadSpec(conv_width=32, batch_norm=False, activation="gelu", pooling="average", dropout=0.0),
    HeadSpec(conv_width=16, activation="silu", pooling="max", dense_layers=2, dense_units=5, dense_dropout=0.3),
)


class TestOut:
    @pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.pooling)
    def test_comes_back_as_it_was(self, tmp_path: Path, spec: HeadSpec) -> None:
        split = SplitRecipe(seed=3, validation=0.1, test=0.2, identity="0" * 16, parts="given")
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
        head = read_head(tmp_path / "head.hdf5")
        assert head.metadata == metadata == read_metadata(tmp_path / "head.hdf5")
        assert head.metadata.views == ("identity", "flip")
        assert not head.model.compiled
        np.testing.assert_array_equal(predicted(head.model, some_features()), predicted(model, some_features()))
        assert [one.name for one in head.model.layers] == [one.name for one in model.layers]

    def test_unknown_stays_unknown(self, tmp_path: Path) -> None:
        metadata = HeadMetadata(classes=("é", "二"), feature_shape=SHAPE, versions={})
        save_head(tmp_path / "head.h5", build_head(PLAIN, SHAPE, 2), metadata)
        assert read_head(tmp_path / "head.h5").metadata == metadata

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

    @pytest.mark.slow
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
        before = path.read_bytes()
        metadata = replace(read_metadata(saved), value=0.5)
        with largest_file(10_000), pytest.raises(BottleneckError, match=r"head\.hdf5: ") as caught:
            save_head(path, random_head(), metadata)
        assert "\n" not in str(caught.value)
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]


class TestForeign:
    def test_the_articles_head(self, article_file: Path) -> None:
        head = read_head(article_file)
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
        head = read_head(path)
        assert head.metadata.classes == ("class-0", "class-1", "class-2")
        np.testing.assert_array_equal(predicted(head.model, some_features()), predicted(model, some_features()))

    @pytest.mark.parametrize(
        "how",
        [
            {"kernel_regularizer": "l1", "kernel_constraint": "max_norm"},
            {"kernel_regularizer": keras.regularizers.L2(0.01), "bias_constraint": "non_neg"},
            {"kernel_regularizer": keras.regularizers.OrthogonalRegularizer(), "bias_constraint": "unit_norm"},
            {"kernel_constraint": keras.constraints.MinMaxNorm(), "activity_regularizer": "l2"},
            {"bias_regularizer": keras.regularizers.L1L2()},
        ],
        ids=", ".join,
    )
    def test_what_kept_weights_small_is_left_behind(self, how: dict[str, Any], tmp_path: Path) -> None:
        """Regularisers and constraints are Keras' own in a file that Keras wrote: such a head is plain all the same."""
        inputs = keras.Input(SHAPE)
        features = keras.layers.Conv2D(4, 1, activation="relu", **how)(inputs)
        features = keras.layers.BatchNormalization(gamma_regularizer="l2", beta_constraint="non_neg")(features)
        features = keras.layers.GlobalAveragePooling2D(activity_regularizer="l1")(features)
        model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax", **how)(features))
        model.save(tmp_path / "foreign.h5")
        metadata = HeadMetadata(classes=("a", "b", "c"), feature_shape=SHAPE, versions={})
        own = save_own_head(tmp_path / "own.hdf5", lambda: model, model, metadata)
        for path in (tmp_path / "foreign.h5", own):
            assert path.suffix in (".h5", ".hdf5")
            read = read_head(path).model
            assert not {"L1", "L2", "L1L2", "NonNeg"} & set(re.findall(r"\w+", read.to_json()))
            np.testing.assert_array_equal(predicted(read, some_features()), predicted(model, some_features()))

    def test_every_activation(self, tmp_path: Path) -> None:
        layers = [keras.layers.Dense(4, activation=name) for name in (*ACTIVATIONS, "softmax")]
        model = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), *layers, keras.layers.Dropout(0.5)])
        model.save(tmp_path / "head.hdf5")
        head = read_head(tmp_path / "head.hdf5")
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


class TestNoHead:
    def test_missing_folder_empty_text(self, tmp_path: Path) -> None:
        (tmp_path / "empty.hdf5").touch()
        (tmp_path / "text.hdf5").write_text("hello")
        for name, found in {
            "none.hdf5": "no such file",
            ".": "a folder",
            "empty.hdf5": "an empty file",
            "text.hdf5": "a file that is no HDF5",
        }.items():
            with pytest.raises(InputError, match=f"found {found}$"):
                read_head(tmp_path / name)

    def test_cut_short(self, saved: Path, tmp_path: Path) -> None:
        content = saved.read_bytes()
        for length in range(100, len(content) - 1, len(content) // 40):
            (tmp_path / "cut.hdf5").write_bytes(content[:length])
            with pytest.raises(InputError, match=r"found a (damaged file|file cut short)"):
                read_head(tmp_path / "cut.hdf5")

    def test_a_feature_store(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="found a feature store"):
            read_head(build_store(tmp_path / "store.h5"))

    def test_the_articles_features(self, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "features.h5", "w") as file:
            file["features-0"] = np.zeros((1, *SHAPE))
        with pytest.raises(InputError, match="found features in the article's layout"):
            read_head(tmp_path / "features.h5")

    def test_weights_alone(self, saved: Path, tmp_path: Path) -> None:
        with h5py.File(saved) as source, h5py.File(tmp_path / "weights.h5", "w") as file:
            for name, value in source["model_weights"].attrs.items():
                file.attrs[name] = value
        with pytest.raises(InputError, match=r"expected a head .*, found weights without their model"):
            read_head(tmp_path / "weights.h5")
