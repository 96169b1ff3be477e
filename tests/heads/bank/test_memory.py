"""What a bank takes of memory: features are held once, and what cannot be had is known for that."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import keras
import numpy as np
import pytest
from conftest import ROOT

from heads.bank import backends
from heads.bank.backends import bank_budget, lacks_memory
from heads.bank.exact import Finished, predict_exactly
from heads.bank.program import ExactForward
from heads.bank.shape import BankShape
from heads.metrics.scoring import mean_probabilities
from heads.model.spec import HeadSpec
from heads.model.weights import initial_weights

HELD = """
import sys
from pathlib import Path
from types import SimpleNamespace
from features.runtime.allocator import keep_freed_memory
from features.runtime.backend import use_backend

use_backend(sys.argv[1])
keep_freed_memory()
import keras
import numpy as np
from heads.bank.engine import Engine
from heads.bank.shape import BankShape
from heads.model.spec import HeadSpec

def taken(what):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) * 1024

dtype, shape = sys.argv[2], (2, 2, 128)
size = 512 * (2 if dtype == "bfloat16" else 4)
rows = 210_000_000 // size
feed = SimpleNamespace(rows=np.arange(rows), views=1, shape=shape, resident=True)
feed.store = SimpleNamespace(labels=np.zeros(rows, np.int32))
feed.take = lambda rows, view: np.broadcast_to(np.float16(rows % 100)[:, None], (len(rows), 512))
room = BankShape.covering([HeadSpec()], pages=4, feature_shape=shape, classes=4, batch=8)
keras.ops.zeros(3)
before = taken("VmRSS")
engine = Engine(room, train=feed, dtype=dtype)
held = engine._held[0]
assert held.shape == (rows, 512)
for row in (0, 1, 255, 256, 257, rows - 1):
    assert (keras.ops.convert_to_numpy(keras.ops.cast(held[row], "float32")) == row % 100).all()
print(rows * size, taken("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux says how much memory a process had at most")
@pytest.mark.parametrize(
    ("backend", "dtype"), [("tensorflow", "float32"), ("tensorflow", "bfloat16"), ("jax", "float32")]
)
def test_features_on_a_cpu_are_in_memory_once(backend, dtype):
    pytest.importorskip(backend)
    done = subprocess.run(
        [sys.executable, "-c", HELD, backend, dtype],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    features, peak = map(int, done.stdout.split())
    assert features > 200e6
    assert peak < 1.4 * features


def four_heads(shape: BankShape) -> list[Finished]:
    weights = initial_weights(HeadSpec(), shape.feature_shape, shape.classes, seed=0)
    return [Finished(spec=HeadSpec(), weights=weights)] * 4


@pytest.mark.parametrize(("rows", "views"), [(50, 1), (50, 3), (13, 7), (3, 20), (1, 2)])
def test_views_are_averaged_as_they_come_and_as_if_they_were_all_there(rows, views):
    """With all of them at once, many heads that end together would take as many times what is planned with."""
    shape = BankShape.covering([HeadSpec()], pages=16, feature_shape=(2, 2, 8), classes=5, batch=8)
    predicted = np.random.default_rng(0).random((shape.slots, rows * views, 5), np.float32)
    taken = []

    def take(chosen, of):
        taken.extend(zip(chosen, of, strict=True))
        return np.broadcast_to((chosen * views + of)[:, None, None, None], (len(chosen), *shape.feature_shape))

    def run(weights, steps, settings, features):
        numbers = keras.ops.convert_to_numpy(features).reshape(shape.positions, shape.batch, -1)[0, :, 0]
        return predicted[:, numbers.astype(int)]

    feed = SimpleNamespace(views=views, take=take)
    found = predict_exactly(four_heads(shape), feed, np.arange(rows), shape, ExactForward(shape, run))
    assert taken == [(row, view) for row in range(rows) for view in range(views)]
    for one, by_view in zip(found, predicted.reshape(-1, rows, views, 5), strict=False):
        np.testing.assert_array_equal(one, mean_probabilities(list(np.moveaxis(by_view, 1, 0))))
        assert one.dtype == np.float32
        assert one.base is None  # whoever keeps it keeps nobody else's


def test_finished_heads_take_no_more_memory_than_what_is_returned():
    views, rows, classes = 4, 5000, 40
    shape = BankShape.covering([HeadSpec()], pages=16, feature_shape=(1, 1, 8), classes=classes, batch=64)
    forward = ExactForward(shape, lambda *_: np.zeros((shape.slots, 64, classes), np.float32))
    heads = four_heads(shape)
    feed = SimpleNamespace(views=views, take=lambda chosen, of: np.zeros((len(chosen), 1, 1, 8), np.float16))
    tracemalloc.start()
    found = predict_exactly(heads, feed, np.arange(rows), shape, forward)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * sum(one.nbytes for one in found)


@pytest.mark.parametrize(("left", "budget"), [(None, 1000), (600, 300), (0, 0), (5000, 1000)])
def test_what_banks_and_features_may_take_is_a_gpus_memory_where_that_is_less(monkeypatch, left, budget):
    monkeypatch.setattr(backends, "resident_budget", lambda: 1000)
    monkeypatch.setattr(backends, "_backend", lambda: SimpleNamespace(device_memory_left=lambda: left))
    assert bank_budget() == budget


def test_what_is_left_of_a_gpus_memory_is_what_jax_may_take_of_it(monkeypatch):
    jax = pytest.importorskip("jax")
    from heads.bank.on_jax import device_memory_left

    unknown = jax.errors.JaxRuntimeError("UNIMPLEMENTED: GetAllocatorStats")
    for found, left in (
        ({"bytes_limit": 12, "bytes_in_use": 5}, 7),
        ({"bytes_limit": 12, "bytes_in_use": 12}, 0),
        ({"bytes_in_use": 5}, None),
        (None, None),  # of a CPU, whose memory is the host's
        ({"bytes_limit": -1, "bytes_in_use": 5}, None),
        (unknown, None),
    ):
        device = SimpleNamespace(memory_stats=Mock(side_effect=[found]))
        monkeypatch.setattr(jax, "local_devices", lambda device=device: [device])
        assert device_memory_left() == left


def test_an_allocation_that_failed_is_known_on_each_backend():
    def error_of(function, *arguments):
        with pytest.raises(Exception, match=r"\w") as caught:
            keras.ops.convert_to_numpy(function(*arguments))
        return caught.value

    assert lacks_memory(MemoryError())
    assert lacks_memory(error_of(keras.ops.ones, (2**50,)))
    assert not lacks_memory(error_of(keras.ops.matmul, keras.ops.ones((2, 3)), keras.ops.ones((2, 3))))
