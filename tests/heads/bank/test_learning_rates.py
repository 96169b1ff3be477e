"""The vectorised plateau schedule against the Keras callback, number by number."""

from __future__ import annotations

from types import SimpleNamespace

import keras
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from heads.bank.learning_rates import FIELDS, LearningRates
from heads.model.spec import PLATEAU_MIN_DELTA, PLATEAU_MIN_RATE, HeadSpec

LOSSES = st.one_of(
    st.floats(0, 2, width=32),
    st.sampled_from([0.5, 0.5 - PLATEAU_MIN_DELTA, 0.5 - 0.99 * PLATEAU_MIN_DELTA, 0.5 - 1.01 * PLATEAU_MIN_DELTA]),
    st.sampled_from([float("nan"), float("inf"), -float("inf"), 3e38, 1e-45]),
)
SPECS = st.builds(
    HeadSpec,
    learning_rate=st.sampled_from([1e-2, 1e-3, 1.1e-4, 5.1e-5, 5e-5, 1e-5]),
    plateau_factor=st.floats(0.1, 0.9),
    plateau_patience=st.integers(1, 4),
)


def keras_rates(spec: HeadSpec, losses: list[float]) -> list[float]:
    """Rates in force after each epoch according to the callback."""
    optimizer = keras.optimizers.Adam(spec.learning_rate)
    callback = keras.callbacks.ReduceLROnPlateau(
        monitor="val_loss",
        factor=spec.plateau_factor,
        patience=spec.plateau_patience,
        min_delta=PLATEAU_MIN_DELTA,
        min_lr=PLATEAU_MIN_RATE,
    )
    callback.set_model(SimpleNamespace(optimizer=optimizer))
    callback.on_train_begin()
    rates = []
    for epoch, loss in enumerate(losses):
        callback.on_epoch_end(epoch, {"val_loss": loss})
        rates.append(float(keras.ops.convert_to_numpy(optimizer.learning_rate)))
    return rates


@settings(max_examples=60)
@given(
    heads=st.lists(st.tuples(SPECS, st.lists(LOSSES, min_size=12, max_size=12)), min_size=1, max_size=4),
    joined=st.integers(0, 5),
)
def test_same_rates_as_keras_for_every_head(heads, joined):
    """The last head joins later; neither its schedule nor those of the others may notice."""
    rates = LearningRates((len(heads) + 1,))  # one place stays free
    present = np.zeros(len(heads) + 1, bool)
    found: list[list[float]] = [[] for _ in heads]
    for epoch in range(12):
        for number, (spec, _) in enumerate(heads):
            if epoch == (joined if number == len(heads) - 1 else 0):
                rates.start((number,), spec)
                present[number] = True
        losses = np.array([losses[epoch] for _, losses in heads] + [float("nan")])
        before = rates.rates.copy()
        cut = rates.update(losses, present)
        assert (cut == (rates.rates < before)).all() or (before < PLATEAU_MIN_RATE).any()
        for number in np.flatnonzero(present[:-1]):
            found[number].append(float(rates.rates[number]))
    for number, (spec, losses) in enumerate(heads):
        mine = losses[joined:] if number == len(heads) - 1 else losses
        assert found[number] == keras_rates(spec, mine), f"head {number}"
    assert rates.rates[-1] == 0


def test_saved_and_loaded_elsewhere_goes_on_alike():
    losses = np.random.default_rng(0).uniform(0.3, 0.5, 20)
    whole, other = LearningRates((1,)), LearningRates((2, 3))
    whole.start((0,), HeadSpec(plateau_patience=2))
    for loss in losses[:7]:
        whole.update(np.array([loss]), np.array([True]))
    state = whole.save((0,))
    assert set(state) == set(FIELDS)
    other.load((1, 2), state)
    here = np.zeros((2, 3), bool)
    here[1, 2] = True
    for loss in losses[7:]:
        whole.update(np.array([loss]), np.array([True]))
        other.update(np.full((2, 3), loss), here)
        assert other.rates[1, 2] == whole.rates[0]
    assert whole.rates[0] < 1e-3
    assert (other.rates[~here] == 0).all()


@given(first=st.floats(1e-5, 0.1), epochs=st.integers(1, 60))
def test_a_cosine_is_that_of_keras(first, epochs):
    spec = HeadSpec(learning_rate=first, schedule="cosine")
    rates, here = LearningRates((2,)), np.array([True, False])
    rates.start((0,), spec, epochs)
    decay = keras.optimizers.schedules.CosineDecay(first, decay_steps=epochs)
    for epoch in range(epochs):
        expected = float(keras.ops.convert_to_numpy(decay(epoch)))
        assert abs(float(rates.rates[0]) - expected) <= 1e-6 * first
        again = LearningRates((1,))
        again.load((0,), rates.save((0,)))
        assert rates.update(np.array([0.5, 0.5]), here)[0]
        again.update(np.array([0.7]), np.array([True]))  # whatever the losses
        assert again.rates[0] == rates.rates[0]
    assert rates.rates[0] == 0
    rates.start((0,), HeadSpec(), epochs)
    assert set(rates.save((0,))) == set(FIELDS)
