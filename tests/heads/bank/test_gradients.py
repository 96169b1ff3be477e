"""The backward pass of the bank, which is written by hand, against autodiff. Runs on either backend."""

from __future__ import annotations

import re
from dataclasses import replace

import keras
import numpy as np
import pytest
from small_bank import EXTREMES, SHAPE

from heads.bank.mathematics import Bank
from heads.bank.packing import named, pack
from heads.bank.pages import PageTable
from heads.bank.settings import bank_settings
from heads.bank.shape import BankShape
from heads.bank.state import Batch
from heads.bank.tools import PlainTools
from heads.model.spec import HeadSpec
from heads.model.weights import initial_weights

MIXED = [
    HeadSpec(conv_width=32, activation="silu", pooling="flatten", dense_layers=1, dense_units=9, dense_dropout=0.3),
    HeadSpec(conv_width=16, activation="gelu", pooling="max", dense_layers=1, dense_units=5),
    HeadSpec(conv_width=32, activation="relu", pooling="average", dense_layers=0),
    HeadSpec(conv_width=16, activation="gelu", pooling="flatten", dense_layers=2, dense_units=7),
    HeadSpec(conv_width=32, activation="gelu", pooling="concat", dense_layers=1, dense_units=6),
    HeadSpec(conv_width=16, activation="silu", pooling="gem", dense_layers=0),
]


ALONE = [*EXTREMES, HeadSpec(dense_layers=1, dense_units=5, dense_dropout=0.3), *MIXED[-2:]]


@pytest.mark.parametrize("spec", ALONE, ids=str)
def test_gradients_are_those_of_autodiff(spec):
    """The backward pass is written by hand; here with dropout, and rows enough for the stranded sums."""
    specs = [spec, HeadSpec(conv_width=16, activation="gelu", dropout=0.2)]
    shape = BankShape.covering(specs, pages=6, feature_shape=SHAPE, classes=4, batch=75)
    bank = Bank(shape, "float32", PlainTools())
    state, fixed, batch, steps = laid_out(shape, specs)

    def run(weights):
        return bank.gradients(weights, steps, fixed, batch)

    expected = differentiate(lambda weights: keras.ops.sum(run(weights).loss), state)
    found = run({name: keras.ops.convert_to_tensor(values) for name, values in state.items()})
    assert len(np.unique(np.asarray(found.loss))) >= 3  # heads that differ, and free slots
    for name in shape.trained:
        mine = np.asarray(found.weights[name]).reshape(expected[name].shape)
        np.testing.assert_allclose(mine, expected[name], atol=2e-6, rtol=2e-4, err_msg=name)
        assert np.abs(mine).max() > 0 or name in ("hidden", "hidden_bias"), name


@pytest.mark.parametrize(
    ("norm", "dtype"),
    [((True, False), "float32"), ((True,), "float32"), ((False,), "float32"), ((True, False), "bfloat16")],
    ids=str,
)
def test_page_by_page_is_as_all_at_once(norm, dtype):
    """The two ways to run through a bank, on heads of mixed kinds with dropout, free pages, tiles and slots between."""
    kinds = [
        replace(spec, batch_norm=norm[index % len(norm)], dropout=0.3) for index, spec in enumerate([*EXTREMES, *MIXED])
    ]
    shape = BankShape.covering(kinds, pages=24, feature_shape=SHAPE, classes=4, batch=75)
    state, fixed, batch, steps = laid_out(shape, kinds, free=3)
    batch = batch._replace(features=keras.ops.cast(batch.features, dtype))
    rounded = {"atol": 2e-3, "rtol": 2e-2}
    close, of_loss, of_probabilities = (
        (rounded, rounded, rounded)
        if dtype == "bfloat16"
        else ({"atol": 2e-6, "rtol": 2e-4}, {"atol": 1e-6, "rtol": 1e-5}, {"atol": 1e-6})
    )
    tensors = {name: keras.ops.convert_to_tensor(values) for name, values in state.items()}
    banks = [Bank(shape, dtype, PlainTools(one_by_one=one_by_one)) for one_by_one in (True, False)]
    one, other = (bank.gradients(tensors, steps, fixed, batch) for bank in banks)
    np.testing.assert_allclose(np.asarray(one.loss), np.asarray(other.loss), **of_loss)
    assert one.weights.keys() == other.weights.keys()
    for name, found in {**one.weights, **one.statistics}.items():
        expected = {**other.weights, **other.statistics}[name]
        rows = np.arange(found.shape[0])
        if name in one.statistics:  # of free pages each has its own
            rows = np.flatnonzero(np.asarray(fixed["owner"]) >= 0)
        ours, theirs = (np.asarray(keras.ops.cast(array, "float32"))[rows] for array in (found, expected))
        np.testing.assert_allclose(ours, theirs, **close, err_msg=name)
    features = batch.features
    ours, theirs = (np.asarray(bank.probabilities(tensors, steps, fixed, features)) for bank in banks)
    taken = np.asarray(fixed["taken"])
    np.testing.assert_allclose(ours[taken], theirs[taken], **of_probabilities)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="looks at what TensorFlow has XLA compile")
@pytest.mark.parametrize("pages", [6, 36])  # with one size of the products, and with several
def test_the_way_back_is_made_where_the_activations_lay(pages):
    """Of arrays as large as the activations a step clears one, and copies none: on compressed stores both are felt."""
    from heads.bank.on_tensorflow import _Tools

    tools = _Tools(compiled=True, dtype="float32")
    if not tools.one_by_one:
        pytest.skip("a GPU runs whole passes, which clear nothing")
    assert tools.joined
    shape = BankShape.covering(EXTREMES, pages=pages, feature_shape=SHAPE, classes=4, batch=75)
    state, fixed, batch, steps = laid_out(shape, EXTREMES)
    tensors = {name: keras.ops.convert_to_tensor(values) for name, values in state.items()}
    bank = Bank(shape, "float32", tools)
    lined_up = bank._partition_settings(fixed, steps)
    hidden = bank._first_layers(tensors.pop("kernel"), batch.features, lined_up)
    joined = bank._joined_loss_and_gradients
    text = joined.experimental_get_compiler_ir(hidden, tensors, batch.labels, lined_up)(stage="optimized_hlo")
    whole = re.escape(f"f32[{shape.pages},16,{shape.positions * shape.batch}]")
    made = re.findall(rf"= {whole}\S* ([a-z-]+)\(", text[text.index("\nENTRY") :])
    assert ("conditional(" in text[text.index("\nENTRY") :]) == (pages > 6)
    assert len([kind for kind in made if kind not in ("bitcast", "get-tuple-element", "parameter")]) == 1, made


def laid_out(shape: BankShape, specs: list[HeadSpec], *, free: int = 0):
    """A bank with these heads, some places before and between them free: (weights, settings, batch, steps)."""
    table = PageTable(shape)
    blank = [table.place(HeadSpec(conv_width=16)) for _ in range(free)]
    state = {
        name: np.zeros((shape.places[sort], *size), np.float32)
        for sort, arrays in shape.arrays.items()
        for name, size in arrays.items()
    }
    heads: list[HeadSpec | None] = [None] * shape.slots
    for seed, head in enumerate(specs):
        slot = table.place(head)
        heads[slot] = head
        if blank:
            table.release(blank.pop())
        where = table.places_of(slot)
        for sort, arrays in pack(shape, head, named(head, initial_weights(head, SHAPE, 4, seed=seed))).items():
            for name, values in arrays.items():
                state[name][where[sort]] = values
    generator = np.random.default_rng(5)
    settings = bank_settings(
        shape,
        table,
        heads,
        rates=np.full(shape.slots, 1e-3, np.float32),
        seeds=generator.integers(0, 2**31, shape.slots, dtype=np.int32),
        class_weights=generator.uniform(0.5, 2, 4).astype(np.float32),
    )
    tensor = keras.ops.convert_to_tensor
    fixed = {name: tensor(values) for name, values in settings.items()}
    rows = shape.batch
    features = tensor(generator.uniform(0, 2, (rows * 4, 8)).astype(np.float32))
    batch = Batch(features, tensor(generator.integers(0, 4, rows).astype(np.int32)))
    return state, fixed, batch, tensor(np.full(shape.slots, 3, np.int32))


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
