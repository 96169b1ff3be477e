"""Dropout masks of the bank: the right share of zeros, and nothing in common. Runs on either backend."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from heads.bank.dropout import kept, keys


def draw(seeds, steps, channels, *, layer=0, rate=0.3, count_=6400) -> np.ndarray:
    seeds, steps, channels = np.broadcast_arrays(*(np.array(part, np.int32) for part in (seeds, steps, channels)))
    tensor = keras.ops.convert_to_tensor
    key = keys(tensor(seeds), tensor(steps), tensor(channels), layer=layer)
    return np.asarray(kept(key, tensor(np.full(seeds.shape, rate, np.float32)), np.arange(count_)))


def test_masks_keep_the_right_share():
    for rate in (0.0, 0.05, 0.5, 0.8):
        share = draw(3, np.arange(40), 0, rate=rate).mean(axis=1)
        assert np.abs(share - (1 - rate)).max() < 5 * np.sqrt(rate * (1 - rate) / 6400) + 1e-9
    rates = np.asarray(
        kept(keys(*(np.zeros(2, np.int32),) * 3, layer=0), np.array([0.1, 0.9], np.float32), np.arange(6400))
    )
    assert rates.mean(axis=1) == pytest.approx([0.9, 0.1], abs=0.03)


def test_masks_of_heads_steps_channels_layers_and_places_are_independent():
    """64 masks that differ in one number each; any two agree as often as chance has it, and so do shifted ones."""
    base = [np.full(64, number, np.int32) for number in (11, 5, 3)]
    for varied in range(3):
        arguments = [np.arange(64, dtype=np.int32) if index == varied else part for index, part in enumerate(base)]
        masks = draw(*arguments, rate=0.5) * 2.0 - 1
        agreement = np.abs(masks @ masks.T / 6400 - np.eye(64)).max()
        assert agreement < 5.5 / np.sqrt(6400), ("seed", "step", "channel")[varied]
        for shift in (1, 2, 64):  # next position, next row
            along = np.abs((masks[:, shift:] * masks[:, :-shift]).mean(axis=1)).max()
            assert along < 5.5 / np.sqrt(6400), (varied, shift)
    layers = [draw(11, 5, 3, layer=layer, rate=0.5) * 2.0 - 1 for layer in (0, 1, 2)]
    assert max(abs((layers[a] * layers[b]).mean()) for a, b in ((0, 1), (0, 2), (1, 2))) < 5.5 / np.sqrt(6400)
