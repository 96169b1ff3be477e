"""Every activation and pooling of the table keeps its contract: it is Keras' layer, with the true derivative."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
from conftest import build_store

from features.rows.feed import Feed, plan_epoch
from features.store.reader import FeatureStore
from heads.bank.engine import Engine, Newcomer
from heads.bank.functions import activations, choose, slopes
from heads.bank.shape import BankShape
from heads.files.head_file import read_head, save_head
from heads.files.metadata import HeadMetadata
from heads.model.build import build_head
from heads.model.fit import Schedule, train_solo
from heads.model.functions import ACTIVATIONS, ELEMENT_WISE, POOLINGS, SEARCHED_ACTIVATIONS, pooled_values
from heads.model.pooling_layer import pooling_layer, pooling_of
from heads.model.spec import HeadSpec
from heads.saliency.gradcam import activation_gradient, score_gradient

VALUES = np.concatenate([np.linspace(-7, 7, 41), [-0.3, 0.3, 0.0]]).astype(np.float32)
NOT_SMOOTH = (0.0, 6.0)
PICTURE = (3, 5)
SHAPE = (2, 2, 8)
SPECS = [
    *(HeadSpec(conv_width=16, activation=name, dense_layers=1, dense_units=7) for name in SEARCHED_ACTIVATIONS),
    *(HeadSpec(conv_width=16, pooling=name, batch_norm=False) for name in POOLINGS),
]


def array(tensor) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def derivative(function, values: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Of the sum of ``error`` times the function's values, by TensorFlow."""
    tensorflow = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("TensorFlow's tape")
    tensor = tensorflow.constant(values)
    with tensorflow.GradientTape() as tape:
        tape.watch(tensor)
        total = tensorflow.reduce_sum(tensorflow.convert_to_tensor(function(tensor)) * error)
    return tape.gradient(total, tensor).numpy()


def pictures(seed: int = 0) -> np.ndarray:
    """(4, height, width, 6): some channels 0 everywhere, as after ReLU; some places equal."""
    values = np.random.default_rng(seed).normal(size=(4, *PICTURE, 6)).astype(np.float32).round(1)
    values[..., 0] = 0
    return values


def by_channel(values: np.ndarray) -> np.ndarray:
    """(images, height, width, channels) to the bank's (channels, images, positions)."""
    return np.moveaxis(values, 3, 0).reshape(values.shape[3], values.shape[0], -1)


class TestActivation:
    @pytest.mark.parametrize("name", SEARCHED_ACTIVATIONS)
    def test_the_bank_computes_what_keras_layer_does(self, name: str) -> None:
        (function,) = activations((name,))
        expected = array(keras.layers.Activation(name)(VALUES[None]))
        found = array(function(keras.ops.convert_to_tensor(VALUES[None])))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("name", ELEMENT_WISE)
    def test_the_slope_is_the_derivative_of_keras_function(self, name: str) -> None:
        (entry,) = (one for key, one in ACTIVATIONS.items() if name in (key, *one.aliases))
        smooth = VALUES[~np.isin(VALUES, NOT_SMOOTH)]
        expected = derivative(keras.activations.get(name), smooth, np.ones_like(smooth))
        found = array(entry.slope(keras.ops, keras.ops.convert_to_tensor(smooth))).astype(np.float32)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("name", ELEMENT_WISE)
    def test_grad_cam_goes_back_through_it_as_tensorflow_does(self, name: str) -> None:
        inputs = keras.Input((*PICTURE, 4))
        layers = [keras.layers.Conv2D(4, 1, name="conv"), keras.layers.Flatten()]
        layers += [keras.layers.Dense(6, activation=name), keras.layers.Dense(3, activation="softmax")]
        outputs = inputs
        for layer in layers:
            outputs = layer(outputs)
        model, features = keras.Model(inputs, outputs), pictures()[..., :4]
        shares = np.random.default_rng(1).normal(size=(len(features), 3)).astype(np.float32)
        found, gradient = score_gradient(model, features, shares)
        dense, last = layers[2:]

        def scores(tensor):
            return dense(layers[1](tensor)) @ keras.ops.convert_to_tensor(last.kernel) + last.bias

        np.testing.assert_allclose(gradient, derivative(scores, found, shares), rtol=1e-3, atol=1e-5)

    def test_a_head_gone_wrong_stays_wrong(self) -> None:
        for name in SEARCHED_ACTIVATIONS:
            slope = array(ACTIVATIONS[name].slope(keras.ops, keras.ops.convert_to_tensor(np.float32([np.nan, 1]))))
            assert slope[0] != 0, name

    def test_codes_choose(self) -> None:
        """A code for each row, and one code alone, which runs the one function that it names."""
        tensor = keras.ops.convert_to_tensor
        codes = np.arange(len(SEARCHED_ACTIVATIONS), dtype=np.int32)
        values = tensor(np.tile(VALUES, (len(codes), 1)))
        for functions in (activations(SEARCHED_ACTIVATIONS), slopes(SEARCHED_ACTIVATIONS)):
            together = array(choose(functions, tensor(codes), values))
            for code, row in zip(codes, together, strict=True):
                expected = array(functions[code](values))[0]
                np.testing.assert_allclose(row, expected, rtol=1e-6)
                np.testing.assert_allclose(array(choose(functions, tensor(code), values[0])), expected, rtol=1e-6)


@pytest.mark.parametrize("name", POOLINGS)
class TestPooling:
    def test_the_bank_computes_what_keras_layer_does(self, name: str) -> None:
        values, kept = pictures(), pooled_values(name, PICTURE[0] * PICTURE[1])
        expected = array(pooling_layer(name, (*PICTURE, 6))(values))
        assert expected.shape == (4, 6 * kept)
        for axis in (2, 1):
            given = np.moveaxis(by_channel(values), 2, axis)
            found = array(POOLINGS[name].forward(keras.ops, keras.ops.convert_to_tensor(given), axis))
            found = np.moveaxis(found, axis, 2)
            rows = np.moveaxis(found, 0, 2).reshape(4, -1)
            np.testing.assert_allclose(rows, expected, rtol=1e-5, atol=1e-6)
            assert found.shape[2] == kept

    def test_the_way_back_is_that_of_keras_layer(self, name: str) -> None:
        values, positions = pictures(), PICTURE[0] * PICTURE[1]
        layer, kept = pooling_layer(name, (*PICTURE, 6)), pooled_values(name, positions)
        error = np.random.default_rng(2).normal(size=(4, 6 * kept)).astype(np.float32)
        expected = derivative(layer, values, error)
        of_channels = np.moveaxis(error.reshape(4, kept, 6), 2, 0)
        for axis in (2, 1):
            tensors = (keras.ops.convert_to_tensor(np.moveaxis(a, 2, axis)) for a in (of_channels, by_channel(values)))
            found = array(POOLINGS[name].backward(keras.ops, *tensors, positions, axis))
            np.testing.assert_allclose(np.moveaxis(found, axis, 2), by_channel(expected), rtol=1e-5, atol=1e-7)

    def test_its_layer_is_known_again(self, name: str) -> None:
        assert pooling_of(pooling_layer(name, (*PICTURE, 6))) == name

    def test_what_is_not_looked_at_need_not_be_there(self, name: str) -> None:
        error = keras.ops.ones((6, 4, pooled_values(name, 15)))
        if not POOLINGS[name].looks_back:
            assert POOLINGS[name].backward(keras.ops, error, None, 15, 2).shape == (6, 4, 15)


@pytest.fixture(scope="module")
def feed(tmp_path_factory: pytest.TempPathFactory) -> Feed:
    store = FeatureStore(build_store(tmp_path_factory.mktemp("functions") / "store.h5", rows=60, views=("identity",)))
    return Feed(store, np.arange(60), memory_bytes=10**9)


class TestEverywhere:
    @pytest.mark.slow
    def test_the_bank_trains_as_keras_fit_does(self, feed: Feed) -> None:
        """All entries in one bank, so that it compiles once."""
        specs = [replace(spec, dropout=0.0) for spec in SPECS]
        shape = BankShape.covering(specs, pages=len(specs), feature_shape=SHAPE, classes=4, batch=15)
        engine = Engine(shape, train=feed, dtype="float32")
        slots = engine.insert([Newcomer(spec=spec, seeds=(5,)) for spec in specs])
        losses = [engine.train_epoch(plan_epoch(feed.rows, batch_size=15, views=1, seed=3, epoch=e)) for e in range(2)]
        for spec, slot in zip(specs, slots, strict=True):
            alone = train_solo(spec, feed, feed, Schedule(epochs=2, batch_size=15, plan_seed=3), seed=5)
            found = [float(loss[0, slot]) for loss in losses]
            expected = [record.train_loss for record in alone.curve]
            np.testing.assert_allclose(found, expected, rtol=1e-4, err_msg=f"{spec.activation}, {spec.pooling}")

    @pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.activation}-{spec.pooling}")
    def test_its_file_is_read_and_explained(self, tmp_path, spec: HeadSpec) -> None:
        model, path = build_head(spec, SHAPE, 3, seed=4), tmp_path / "head.hdf5"
        metadata = HeadMetadata(classes=("a", "b", "c"), feature_shape=SHAPE, spec=spec, versions={})
        save_head(path, model, metadata)
        features = np.random.default_rng(0).uniform(0, 2, (4, *SHAPE)).astype(np.float32)
        read = read_head(path)
        assert read.metadata.spec == spec
        np.testing.assert_array_equal(array(read.model(features)), array(model(features)))
        np.testing.assert_array_equal(
            array(keras.models.load_model(path, compile=False)(features)), array(model(features))
        )
        activation, gradient = activation_gradient(read.model, features, 1)
        after = read.model.layers[[layer.name for layer in read.model.layers].index("activation") + 1 :]

        def scores(tensor):
            for layer in after[:-1]:
                tensor = layer(tensor, training=False)
            return tensor @ keras.ops.convert_to_tensor(after[-1].kernel) + after[-1].bias

        shares = np.float32([[-1 / 3, 2 / 3, -1 / 3]] * 4)
        np.testing.assert_allclose(gradient, derivative(scores, activation, shares), rtol=1e-3, atol=1e-6)
