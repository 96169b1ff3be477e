"""The backward pass of the bank, which is written by hand, against autodiff. Runs on either backend."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from small_bank import EXTREMES, SHAPE

from heads.bank.mathematics import Bank
from heads.bank.pages import PageTable, hyperparameters, named, pack
from heads.bank.shape import BankShape, pages_of
from heads.bank.state import Batch
from heads.bank.tools import PlainTools
from heads.model.spec import HeadSpec
from heads.model.weights import initial_weights


@pytest.mark.parametrize("spec", [*EXTREMES, HeadSpec(dense_layers=1, dense_units=5, dense_dropout=0.3)], ids=str)
def test_gradients_are_those_of_autodiff(spec):
    """The backward pass is written by hand; here with dropout, and rows enough for the stranded sums."""
    specs = [spec, HeadSpec(conv_width=16, activation="gelu", dropout=0.2)]
    shape = BankShape.covering(specs, pages=6, feature_shape=SHAPE, classes=4, batch=75)
    bank = Bank(shape, "float32", PlainTools())
    table, state = PageTable(6, shape.slots), {}
    heads: list[HeadSpec | None] = [None] * shape.slots
    for seed, head in enumerate(specs):
        slot = table.place(pages_of(head))
        heads[slot] = head
        drawn = named(head, initial_weights(head, SHAPE, 4, seed=seed))
        for places, arrays in zip((table.of(slot), slot), pack(shape, head, drawn), strict=True):
            for name, values in arrays.items():
                lead = shape.pages if name in shape.page_arrays else shape.slots
                size = values.shape[1:] if name in shape.page_arrays else values.shape
                state.setdefault(name, np.zeros((1, lead, *size), np.float32))[0, places] = values
    generator = np.random.default_rng(5)
    settings_ = {
        "owner": table.owner,
        "page_in_head": table.page_in_head,
        **hyperparameters(shape, heads),
        "learning_rate": np.full((1, shape.slots), 1e-3, np.float32),
        "seed": generator.integers(0, 2**31, (1, shape.slots), dtype=np.int32),
        "class_weight": generator.uniform(0.5, 2, 4).astype(np.float32),
    }
    tensor = keras.ops.convert_to_tensor
    fixed = {name: tensor(values) for name, values in settings_.items()}
    features = tensor(generator.uniform(0, 2, (75 * 4, 8)).astype(np.float32))
    batch = Batch(features, tensor(generator.integers(0, 4, 75).astype(np.int32)), tensor(np.int32(0)))
    steps = tensor(np.full((1, shape.slots), 3, np.int32))

    def run(weights):
        return bank.gradients(weights, steps, fixed, batch)

    expected = differentiate(lambda weights: keras.ops.sum(run(weights).loss), state)
    found = run({name: tensor(values) for name, values in state.items()})
    assert len(np.unique(np.asarray(found.loss))) >= 3  # heads that differ, and free slots
    for name in shape.trained:
        mine = np.asarray(found.weights[name]).reshape(expected[name].shape)
        np.testing.assert_allclose(mine, expected[name], atol=2e-6, rtol=2e-4, err_msg=name)
        assert np.abs(mine).max() > 0 or name in ("hidden", "hidden_bias"), name


def differentiate(function, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    if keras.backend.backend() == "jax":
        import jax

        return {name: np.asarray(value) for name, value in jax.grad(function)(weights).items()}
    import tensorflow as tf

    variables = {name: tf.Variable(value) for name, value in weights.items()}
    with tf.GradientTape() as tape:
        value = function({name: tf.convert_to_tensor(variable) for name, variable in variables.items()})
    return {
        name: np.zeros(weights[name].shape) if gradient is None else tf.convert_to_tensor(gradient).numpy()
        for name, gradient in tape.gradient(value, variables).items()
    }
