"""Ensembles: the mean of their members wherever a head goes, and in every program that reads the file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import made_heads
import numpy as np
import pytest
from commands import succeed
from conftest import CLASSES, ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from made_heads import predicted, with_random_weights
from PIL import Image

from features.extraction.backbone_spec import BackboneSpec
from features.extraction.extraction import extract_store
from features.extraction.options import ExtractionOptions
from features.rows.feed import Feed
from features.runtime.errors import InputError
from features.store.reader import FeatureStore
from heads.files.backbone import rebuild_backbone
from heads.files.ensemble import build_ensemble, join_heads, members_of
from heads.files.head_file import Head, read_head, read_metadata, save_head, save_model
from heads.files.image_model import build_image_model
from heads.files.metadata import HeadMetadata
from heads.files.plain_layers import ACTIVATIONS
from heads.files.refitted import Refitted
from heads.files.split_recipe import SplitRecipe
from heads.metrics.scoring import predict_probabilities
from heads.model.spec import HeadSpec
from heads.saliency.gradcam import class_activation_map

pytestmark = pytest.mark.usefixtures("drawn_once")

SHAPE = (2, 3, 6)
random_head = partial(made_heads.random_head, shape=SHAPE)
some_features = partial(made_heads.some_features, shape=SHAPE, dtype="float32")
LAYERS = keras.layers
SPECS = st.builds(
    HeadSpec,
    conv_width=st.sampled_from([16, 32, 48]),
    batch_norm=st.booleans(),
    activation=st.sampled_from(["relu", "gelu", "silu"]),
    dropout=st.sampled_from([0.0, 0.5]),
    pooling=st.sampled_from(["flatten", "average", "max"]),
    dense_layers=st.integers(0, 2),
    dense_units=st.sampled_from([16, 24]),
    dense_dropout=st.sampled_from([0.0, 0.3]),
)
THREE = (
    HeadSpec(conv_width=16),
    HeadSpec(conv_width=32, batch_norm=False, activation="gelu", pooling="average", dropout=0.0),
    HeadSpec(conv_width=16, activation="silu", pooling="max", dense_layers=2, dense_units=16, dense_dropout=0.3),
)


def random_heads(specs: Sequence[HeadSpec] = THREE, **options: Any) -> list[Any]:
    return [random_head(spec, seed, **options) for seed, spec in enumerate(specs)]


def mean_of(models: Sequence[Any], features: np.ndarray) -> np.ndarray:
    return np.mean([predicted(model, features).astype(float) for model in models], axis=0)


def assert_equal(found: np.ndarray, expected: np.ndarray) -> None:
    """To the rounding of float32, for probabilities."""
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=3e-7)


METADATA = HeadMetadata(classes=CLASSES, feature_shape=SHAPE, versions={})


class TestBuild:
    @settings(max_examples=4)
    @given(specs=st.lists(SPECS, min_size=1, max_size=4))
    def test_the_mean_of_its_members_in_memory_and_from_the_file(
        self, tmp_path_factory: pytest.TempPathFactory, specs: list[HeadSpec]
    ) -> None:
        path = tmp_path_factory.mktemp("drawn") / "ensemble.hdf5"
        heads, features = random_heads(specs), some_features()
        expected = mean_of(heads, features)
        ensemble = build_ensemble(heads)
        assert_equal(predicted(ensemble, features), expected)
        save_head(path, ensemble, METADATA)
        loaded, plain = read_head(path), keras.models.load_model(path)
        assert_equal(predicted(loaded.model, features), expected)
        assert_equal(predicted(plain, features), expected)
        assert len(members_of(loaded.model)) == len(heads)
        for member, head in zip(members_of(loaded.model), heads, strict=True):
            np.testing.assert_array_equal(predicted(member, features), predicted(head, features))
            assert [type(layer) for layer in member.layers] == [type(layer) for layer in head.layers]

    def test_flat_plain_and_uncompiled(self) -> None:
        heads = random_heads()
        ensemble = build_ensemble(heads)
        assert [tensor.name for tensor in ensemble.inputs] == ["features"]
        assert not ensemble.compiled
        names = [layer.name for layer in ensemble.layers]
        expected = [f"head_{number}_{one.name}" for number, head in enumerate(heads) for one in head.layers[1:]]
        assert sorted(names) == sorted(["features", *expected, "average"])
        assert all(type(layer).__module__.startswith("keras.src.layers.") for layer in ensemble.layers)
        assert ensemble.count_params() == sum(head.count_params() for head in heads)

    def test_one_member_is_a_head(self, tmp_path: Path) -> None:
        (head, *_), features = random_heads(), some_features()
        save_head(tmp_path / "one.hdf5", build_ensemble([head]), METADATA)
        loaded = read_head(tmp_path / "one.hdf5")
        np.testing.assert_array_equal(predicted(loaded.model, features), predicted(head, features))
        assert members_of(loaded.model) == (loaded.model,)
        assert not any(isinstance(layer, LAYERS.Average) for layer in loaded.model.layers)

    def test_weights_are_copies_and_members_share_them(self) -> None:
        heads, features = random_heads(), some_features()
        ensemble = build_ensemble(heads)
        before = predicted(ensemble, features)
        for head in heads:
            head.set_weights([np.zeros_like(array) for array in head.get_weights()])
        np.testing.assert_array_equal(predicted(ensemble, features), before)
        members = members_of(ensemble)
        members[1].set_weights([np.zeros_like(array) for array in members[1].get_weights()])
        assert np.abs(predicted(ensemble, features) - before).max() > 1e-3
        assert_equal(predicted(ensemble, features), mean_of(members, features))

    def test_of_loaded_heads_and_of_the_members_of_ensembles(self, tmp_path: Path) -> None:
        heads, features = random_heads(), some_features()
        for number, head in enumerate(heads):
            save_head(tmp_path / f"{number}.hdf5", head, METADATA)
        loaded = [read_head(tmp_path / f"{number}.hdf5").model for number in range(3)]
        first, second = build_ensemble(loaded[:2]), build_ensemble(loaded[1:])
        joined = build_ensemble([*members_of(first), *members_of(second)])
        assert_equal(predicted(joined, features), mean_of([heads[0], heads[1], heads[1], heads[2]], features))

    def test_of_foreign_heads(self, tmp_path: Path) -> None:
        """Sequential and Functional, of layers that ours do not have."""
        chain = [LAYERS.Conv2D(5, 2, padding="same", name="conv"), LAYERS.ReLU(max_value=1.5), LAYERS.Flatten()]
        chain += [LAYERS.Dense(4), LAYERS.Softmax(), LAYERS.Dropout(0.1)]
        foreign = with_random_weights(keras.Sequential([keras.Input(SHAPE), *chain]), 5)
        heads, features = [foreign, random_head(THREE[0], 1)], some_features()
        save_head(tmp_path / "e.hdf5", build_ensemble(heads), METADATA)
        assert_equal(predicted(read_head(tmp_path / "e.hdf5").model, features), mean_of(heads, features))

    def test_what_does_not_fit(self) -> None:
        head = random_head(THREE[0], 0)
        with pytest.raises(ValueError, match="at least one head"):
            build_ensemble([])
        with pytest.raises(InputError, match=r"head 1: feature_shape: expected \(2, 3, 6\) as head 0, found \(3, 2, 6"):
            build_ensemble([head, random_head(THREE[0], 0, shape=(3, 2, 6))])
        with pytest.raises(InputError, match="head 1: classes: expected 4 as head 0, found 3"):
            build_ensemble([head, random_head(THREE[0], 0, classes=3)])
        with pytest.raises(InputError, match="head 1: expected one chain of layers, found an ensemble; join its"):
            build_ensemble([head, build_ensemble([head, head])])
        flat = LAYERS.Flatten()(head.inputs[0])
        odd = keras.Model(head.inputs[0], LAYERS.Softmax()(LAYERS.UnitNormalization()(LAYERS.Dense(4)(flat))))
        with pytest.raises(InputError, match=r"head 1: layer '\w+': expected one of .*, found UnitNormalization"):
            build_ensemble([head, odd])
        with pytest.raises(InputError, match="the ensemble: model_config: expected 1 to 256 layers, found 302"):
            build_ensemble([head] * 50)


class TestMetadata:
    def heads(self, **changes: Any) -> list[Head]:
        """Two heads, the second one's metadata changed."""
        first = HeadMetadata(
            classes=CLASSES,
            feature_shape=SHAPE,
            views=("identity", "flip"),
            backbone="mobilenet",
            weights="random:3",
            dtype="float32",
            spec=THREE[0],
            store_fingerprint="f" * 64,
            study="heads",
            trial=3,
            value=0.9,
            split=SplitRecipe(1, 0.1, 0.2, "0" * 16),
            versions={"keras": "3"},
        )
        second = replace(first, spec=THREE[1], trial=8, value=0.8, **changes)
        return [Head(random_head(THREE[0], 0), first), Head(random_head(THREE[1], 1), second)]

    def test_what_holds_of_all_members_travels(self, tmp_path: Path) -> None:
        heads = self.heads()
        joined = join_heads(heads, temperature=1.5)
        expected = replace(heads[0].metadata, spec=None, trial=None, trials=(3, 8), value=None, temperature=1.5)
        assert joined.metadata == expected
        save_head(tmp_path / "e.hdf5", joined.model, joined.metadata)
        assert read_metadata(tmp_path / "e.hdf5") == read_head(tmp_path / "e.hdf5").metadata == expected
        assert_equal(predicted(joined.model, some_features()), mean_of([head.model for head in heads], some_features()))

    def test_what_differs_does_not(self) -> None:
        joined = join_heads(self.heads(study="other", split=None, store_fingerprint="0" * 64)).metadata
        assert (joined.study, joined.split, joined.store_fingerprint, joined.value) == ("", None, "", None)
        assert (joined.weights, joined.versions) == ("random:3", {"keras": "3"})

    def test_a_member_without_a_trial(self) -> None:
        heads = self.heads()
        heads[0] = Head(heads[0].model, replace(heads[0].metadata, trial=None))
        assert join_heads(heads).metadata.trials == ()

    def test_what_any_member_was_trained_on_again_is_said(self) -> None:
        """So that whoever scores the average on these rows is warned."""
        heads = self.heads()
        refits = (
            Refitted(parts=("train",), stores=("f" * 64, "0" * 64), rows=7, epochs=3),
            Refitted(parts=("train", "validation"), rows=9, epochs=4, repeats=5, mean=0.5),
        )
        again = [Head(one.model, replace(one.metadata, refit=refit)) for one, refit in zip(heads, refits, strict=True)]
        expected = Refitted(parts=("train", "validation"), stores=("f" * 64, "0" * 64))
        assert join_heads(again).metadata.refit == expected
        assert join_heads([heads[0], again[1]]).metadata.refit == Refitted(parts=("train", "validation"))
        assert join_heads(heads).metadata.refit is None

    @pytest.mark.parametrize(
        ("name", "value"),
        [("classes", CLASSES[::-1]), ("views", ("identity",)), ("backbone", "vgg16"), ("dtype", "float16")],
    )
    def test_features_or_classes_of_another_kind(self, name: str, value: Any) -> None:
        with pytest.raises(InputError, match=rf"head 1: {name}: expected .* as head 0, found"):
            join_heads(self.heads(**{name: value}))

    def test_vectors_that_nobody_knows_the_backbone_of_are_alike_in_one_store_alone(self) -> None:
        unknown = [Head(one.model, replace(one.metadata, backbone="unknown")) for one in self.heads()]
        assert join_heads(unknown).metadata.store_fingerprint == "f" * 64
        unknown[1] = Head(unknown[1].model, replace(unknown[1].metadata, store_fingerprint="0" * 64))
        with pytest.raises(InputError, match=r"head 1: store_fingerprint: expected f+ as head 0, found 0+"):
            join_heads(unknown)


PLAIN = """
import sys, warnings; warnings.simplefilter("error")
import keras, numpy as np
model = keras.models.load_model("ensemble.hdf5")
np.save("plain.npy", model.predict(np.load("features.npy"), verbose=0))
assert not {"heads", "features", "search"} & {name.split(".")[0] for name in sys.modules}
"""
OURS = """
warnings.simplefilter("default")
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from heads.files.head_file import read_head
from heads.saliency.gradcam import class_activation_map
loaded = read_head(Path("ensemble.hdf5")).model
np.save("maps.npy", class_activation_map(loaded, np.load("features.npy"), 2))
"""


@pytest.mark.slow
def test_in_processes_of_its_own_on_either_backend(tmp_path: Path) -> None:
    """Plain Keras reads the file where this project is unknown; on JAX, where it is known, maps are the same."""
    pytest.importorskip("jax")
    heads, features = random_heads(), some_features()
    ensemble = build_ensemble(heads)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"JAX_PLATFORMS": "cpu"}
    running = {}
    for backend, code in {"tensorflow": PLAIN, "jax": PLAIN + OURS}.items():
        folder = tmp_path / backend
        folder.mkdir()
        save_head(folder / "ensemble.hdf5", ensemble, METADATA)
        np.save(folder / "features.npy", features)
        command = [sys.executable, "-c", code, str(ROOT)]
        own = environment | {"KERAS_BACKEND": backend}
        running[folder] = subprocess.Popen(command, cwd=folder, env=own, stderr=subprocess.PIPE, text=True)
    errors = {folder: process.communicate()[1] for folder, process in running.items()}
    for folder, process in running.items():
        assert process.returncode == 0, errors[folder]
        np.testing.assert_allclose(np.load(folder / "plain.npy"), mean_of(heads, features), rtol=1e-4, atol=1e-6)
    maps = class_activation_map(ensemble, features, 2)
    np.testing.assert_allclose(np.load(tmp_path / "jax" / "maps.npy"), maps, atol=1e-4)


class TestMap:
    def test_of_equal_members_is_that_of_one(self) -> None:
        head, features = random_head(THREE[0], 3), some_features()
        maps = class_activation_map(build_ensemble([head] * 3), features, 2)
        np.testing.assert_allclose(maps, class_activation_map(head, features, 2), atol=1e-6)

    def test_is_the_mean_by_each_members_share_of_the_probability(self) -> None:
        heads, features, classes = random_heads(), some_features(), np.arange(7) % 4
        said = np.stack([predicted(head, features)[np.arange(7), classes] for head in heads]).astype(float)
        shares = said / said.sum(axis=0)
        assert shares.std() > 0.05
        maps = [class_activation_map(head, features, classes) for head in heads]
        expected = np.einsum("mnhw,mn->nhw", maps, shares)
        found = class_activation_map(build_ensemble(heads), features, classes)
        assert (found.dtype, found.shape, found.min() >= 0) == (np.float32, (7, *SHAPE[:2]), True)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        other_order = class_activation_map(build_ensemble(heads[::-1]), features, classes)
        np.testing.assert_allclose(found, other_order, atol=1e-5)
        for one, image, index in zip(found, features, classes, strict=True):
            np.testing.assert_allclose(class_activation_map(build_ensemble(heads), image, int(index)), one, atol=1e-4)

    def test_shares_are_what_differentiation_gives(self) -> None:
        """Of the log of the ensemble's probability with respect to the features, by finite differences."""
        heads, features = random_heads((THREE[1], replace(THREE[1], pooling="flatten"))), some_features(1)
        ensemble, step = build_ensemble(heads), np.zeros_like(features)
        step[0, 1, 2, 3] = 0.01

        def slope(model: Any) -> float:
            before, after = (np.log(predicted(model, features + sign * step)[0, 1]) for sign in (-1, 1))
            return float(after - before) / 0.02

        said = np.array([predicted(head, features)[0, 1] for head in heads])
        expected = said @ [slope(head) for head in heads] / said.sum()
        assert slope(ensemble) == pytest.approx(expected, rel=0.02)

    def test_a_member_that_does_not_call_the_class_has_no_say(self) -> None:
        sure, against = random_heads((THREE[0], THREE[0]))
        *rest, bias = against.get_weights()
        against.set_weights([*rest, bias - 100 * np.eye(4)[1]])
        features = some_features()
        assert predicted(against, features)[:, 1].max() < 1e-6
        maps, alone = (class_activation_map(model, features, 1) for model in (build_ensemble([sure, against]), sure))
        np.testing.assert_allclose(maps, alone, atol=1e-3)
        assert not alone.any(axis=(1, 2)).all()  # not even where the one that calls it sees nothing
        assert class_activation_map(against, features, 1).any(axis=(1, 2)).all()

    def test_where_no_member_gives_it_any_probability_all_count(self) -> None:
        heads = random_heads((THREE[0], THREE[0]))
        for head in heads:
            *rest, bias = head.get_weights()
            head.set_weights([*rest, bias - 1000 * np.eye(4)[1]])
        maps = class_activation_map(build_ensemble(heads), some_features(), 1)
        each = [class_activation_map(head, some_features(), 1) for head in heads]
        np.testing.assert_allclose(maps, np.mean(each, axis=0), atol=1e-5)

    def test_nothing_speaks_for_it(self) -> None:
        heads = random_heads((THREE[1], THREE[1]))
        for head in heads:
            conv, kernel, bias = head.get_weights()
            against = np.where(np.arange(kernel.shape[-1]) == 1, -1, 1)  # and for all others
            head.set_weights([np.abs(conv), against * np.abs(kernel), bias])
        np.testing.assert_array_equal(class_activation_map(build_ensemble(heads), some_features(), 1), 0)

    def test_of_convolutions_that_differ_in_size(self) -> None:
        chain = [LAYERS.Conv2D(5, 2, strides=2, activation="relu"), LAYERS.Flatten(), LAYERS.Dense(4, "softmax")]
        coarse = with_random_weights(keras.Sequential([keras.Input((4, 6, 6)), *chain]), 5)
        head, features = random_head(THREE[0], 1, shape=(4, 6, 6)), some_features(shape=(4, 6, 6))
        maps = class_activation_map(build_ensemble([coarse, head]), features, 0)
        assert maps.shape == (7, 4, 6)
        assert np.isfinite(maps).all()
        twice = class_activation_map(build_ensemble([coarse, coarse]), features, 0)
        assert twice.shape == (7, 2, 3)  # nothing is made up where they agree

    def test_every_activation(self) -> None:
        """Keras' functions go by other names in a rebuilt model's layers."""
        names = [name for name in ACTIVATIONS if name != "softmax"]
        chains = [
            [LAYERS.Conv2D(5, 1), LAYERS.Activation(name), LAYERS.Flatten(), LAYERS.Dense(4, "softmax")]
            for name in names
        ]
        heads = [
            with_random_weights(keras.Sequential([keras.Input(SHAPE), *chain]), seed)
            for seed, chain in enumerate(chains)
        ]
        for member, head in zip(members_of(build_ensemble(heads)), heads, strict=True):
            expected = class_activation_map(head, some_features(), 1)
            np.testing.assert_array_equal(class_activation_map(member, some_features(), 1), expected)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``images``, the ``store.h5`` extracted from them, heads ``0.hdf5`` and ``1.hdf5`` and their ``ensemble.hdf5``."""
    folder = tmp_path_factory.mktemp("world")
    generator = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        (folder / "images" / name).mkdir(parents=True)
        for number in range(4):
            pixels = generator.integers(0, 256, (40, 48, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "images" / name / f"{name}-{number}-0.png")
    how = {"backbone": "mobilenet", "weights": "random:3", "image_size": 64, "alpha": 0.25, "preprocessing": "unit"}
    options = ExtractionOptions(**how, views="identity,flip", batch_size=12)
    extract_store(folder / "images", folder / "store.h5", options)
    store = FeatureStore(folder / "store.h5")
    metadata = HeadMetadata.of_store(store.header, store.fingerprint, versions={})
    heads = [
        Head(random_head(spec, seed, shape=store.header.feature_shape, classes=3), replace(metadata, trial=seed))
        for seed, spec in enumerate(THREE[:2])
    ]
    joined = join_heads(heads)
    for name, head in {"0": heads[0], "1": heads[1], "ensemble": joined}.items():
        save_head(folder / f"{name}.hdf5", head.model, head.metadata)
    return folder


def of_store(world: Path, name: str) -> np.ndarray:
    store = FeatureStore(world / "store.h5")
    return predict_probabilities(read_head(world / f"{name}.hdf5").model, Feed(store, store.usable, memory_bytes=10**9))


class TestCommands:
    def test_predict_with_maps(self, world: Path, tmp_path: Path) -> None:
        images = [world / "images" / "a" / "a-0-0.png", world / "images" / "c" / "c-3-0.png"]
        told = json.loads(
            succeed("heads.predict", world / "ensemble.hdf5", *images, "--json", "--heatmaps", tmp_path).out
        )
        expected = np.mean([of_store(world, name) for name in ("0", "1")], axis=0)
        store = FeatureStore(world / "store.h5")
        for image, row in zip(images, told, strict=True):
            place = store.header.paths.index(f"{image.parent.name}/{image.name}")
            np.testing.assert_allclose(list(row["probabilities"].values()), expected[place], atol=2e-3)
            heat = np.load(Path(row["heatmap"]).with_suffix(".npy"))
            model, called = read_head(world / "ensemble.hdf5").model, ("a", "b", "c").index(row["class"])
            np.testing.assert_allclose(heat, class_activation_map(model, store.features[place, 0], called), atol=0.02)

    def test_evaluate_with_a_report(self, world: Path, tmp_path: Path) -> None:
        arguments = (world / "ensemble.hdf5", world / "store.h5", "--json", "--report", tmp_path)
        told = json.loads(succeed("heads.evaluate", *arguments, "--images", world / "images").out)
        store = FeatureStore(world / "store.h5")
        expected = np.mean([of_store(world, name) for name in ("0", "1")], axis=0)
        labels = store.labels[store.usable]
        assert told["accuracy"] == (expected.argmax(axis=1) == labels).mean() < 1
        assert told["loss"] == pytest.approx(-np.log(expected[np.arange(len(labels)), labels]).mean(), rel=1e-4)
        page = (tmp_path / "index.html").read_text(encoding="utf-8")
        wrong = page.count("<article>")
        assert wrong == (expected.argmax(axis=1) != labels).sum()
        assert page.count("data:image/jpeg") == 3 * wrong

    def test_with_the_backbone(self, world: Path, tmp_path: Path) -> None:
        head = read_head(world / "ensemble.hdf5")
        spec = BackboneSpec(name="mobilenet", weights="random:3", image_size=64, alpha=0.25, preprocessing="unit")
        backbone = rebuild_backbone(world / "ensemble.hdf5", head.metadata, spec)
        save_model(tmp_path / "whole.hdf5", build_image_model(backbone, head), {})
        whole = keras.models.load_model(tmp_path / "whole.hdf5", compile=False)
        images = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3), np.uint8)
        expected = mean_of(members_of(head.model), backbone.features(images))
        np.testing.assert_allclose(predicted(whole, images.astype(np.float32)), expected, atol=1e-4)
