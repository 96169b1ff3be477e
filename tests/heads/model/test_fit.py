"""The solo trainer: the reference that everything else is measured against."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import psutil
import pytest
from conftest import build_store

from features.rows.feed import Feed, plan_epoch
from features.rows.split import split_rows
from features.store.reader import FeatureStore
from heads.files.head_file import read_head
from heads.metrics.scoring import EpochRecord, Score, predict_probabilities, score
from heads.model.build import build_head
from heads.model.fit import DivergedError, Schedule, TrainedHead, train_solo
from heads.model.spec import HeadSpec

SPEC = HeadSpec(conv_width=16, dropout=0.2)
MEMORY = 10**9


@pytest.fixture(scope="module")
def feeds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Feed, Feed]:
    """(train, validation) of a learnable store of two views."""
    path = build_store(tmp_path_factory.mktemp("store") / "store.h5", rows=96, views=("identity", "flip"))
    return split(FeatureStore(path))


def split(store: FeatureStore) -> tuple[Feed, Feed]:
    parts = split_rows(store.usable, store.labels, store.patients, validation=0.25, test=0, seed=0)
    return tuple(Feed(store, rows, memory_bytes=MEMORY) for rows in (parts.train, parts.validation))


def train(feeds: tuple[Feed, Feed], spec: HeadSpec = SPEC, **options) -> TrainedHead:
    of_this_head = {"seed": options.pop("seed", 6), "on_epoch": options.pop("on_epoch", None)}
    schedule = Schedule(**{"epochs": 6, "batch_size": 20, "plan_seed": 2} | options)
    return train_solo(spec, *feeds, schedule, **of_this_head)


def as_trained(head: TrainedHead, feed: Feed) -> keras.Model:
    model = build_head(head.spec, feed.shape, len(feed.store.classes))
    model.set_weights(head.weights)
    return model


def test_learns(feeds) -> None:
    head = train(feeds, replace(SPEC, learning_rate=0.01), epochs=25, batch_size=8)
    assert head.best.validation.accuracy >= 0.9
    assert head.curve[-1].train_loss < head.curve[0].train_loss / 2
    assert [record.epoch for record in head.curve] == list(range(1, 26))


def test_the_best_epochs_weights_are_kept(feeds) -> None:
    best: Score | None = None

    def until_it_gets_worse(record: EpochRecord) -> bool:
        nonlocal best
        better = record.validation.better_than(best)
        best = record.validation if better else best
        return better

    head = train(feeds, replace(SPEC, learning_rate=0.3), epochs=60, on_epoch=until_it_gets_worse)
    assert head.best.epoch == len(head.curve) - 1
    assert replace(head.best, validation=best) == head.curve[-2]
    _, validation = feeds
    model = as_trained(head, validation)
    first_view = predict_probabilities(model, validation, views=[0])
    assert score(first_view, validation.labels) == best
    both = predict_probabilities(model, validation)
    second_view = predict_probabilities(model, validation, views=[1])
    np.testing.assert_allclose(both, (first_view + second_view) / 2, rtol=1e-6)
    assert score(both, validation.labels) == head.best.validation != best
    np.testing.assert_array_equal(both, head.probabilities)


def test_where_the_last_epoch_counts_no_better_one_before_is_picked(feeds) -> None:
    picked, last = (
        train(feeds, replace(SPEC, learning_rate=0.3), epochs=5, last_counts=last) for last in (False, True)
    )
    assert picked.curve == last.curve
    assert picked.best.epoch < last.best.epoch == 5
    np.testing.assert_array_equal(predict_probabilities(as_trained(last, feeds[1]), feeds[1]), last.probabilities)
    assert not np.array_equal(last.probabilities, picked.probabilities)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_head(feeds) -> None:
    first, second = train(feeds, epochs=3), train(feeds, epochs=3)
    assert first.curve == second.curve
    for one, other in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    assert train(feeds, epochs=3, seed=5).curve != first.curve
    assert train(feeds, epochs=3, plan_seed=3).curve != first.curve


@pytest.mark.parametrize("first_epoch", [0, 7])
@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
def test_is_adam_on_the_planned_batches(feeds, first_epoch: int, weight_decay: float) -> None:
    """Against AdamW written out in NumPy-driven steps: which rows, which view, in which order, and the update."""
    spec = HeadSpec(conv_width=16, dropout=0.0, batch_norm=False, label_smoothing=0.1, weight_decay=weight_decay)
    epochs = 3
    head = train(feeds, spec, epochs=epochs, first_epoch=first_epoch)
    assert head.best.epoch == epochs, "the weights kept are not the last ones: choose another seed"
    feed = feeds[0]
    weights = build_head(spec, feed.shape, 4, seed=6).get_weights()
    moments = [np.zeros_like(array, np.float64) for array in weights]
    squares = [np.zeros_like(array, np.float64) for array in weights]
    weights = [array.astype(np.float64) for array in weights]
    step, losses = 0, []
    for epoch in range(epochs):
        plan = plan_epoch(feed.rows, batch_size=20, views=2, seed=2, epoch=first_epoch + epoch)
        losses.append([])
        for rows, views in zip(plan.rows, plan.views, strict=True):
            step += 1
            loss, gradients = _loss_and_gradients(weights, feed.take(rows, views), feed.store.labels[rows])
            losses[-1].append(loss)
            for i, gradient in enumerate(gradients):
                weights[i] -= weights[i] * weight_decay * spec.learning_rate
                moments[i] = 0.9 * moments[i] + 0.1 * gradient
                squares[i] = 0.999 * squares[i] + 0.001 * gradient**2
                scale = np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
                weights[i] -= spec.learning_rate * scale * moments[i] / (np.sqrt(squares[i]) + 1e-7)
    np.testing.assert_allclose([record.train_loss for record in head.curve], np.mean(losses, axis=1), rtol=1e-4)
    for ours, by_hand in zip(head.weights, weights, strict=True):
        np.testing.assert_allclose(ours, by_hand, atol=2e-5)


def _loss_and_gradients(weights: list[np.ndarray], features: np.ndarray, labels: np.ndarray) -> tuple:
    """Smoothed cross entropy of a head of convolution, ReLU, flatten, softmax; and its gradients, by hand."""
    kernel, dense, bias = weights
    features = features.astype(np.float64)
    convolved = features @ kernel[0, 0]
    active = np.maximum(convolved, 0).reshape(len(labels), -1)
    scores = active @ dense + bias
    exponentials = np.exp(scores - scores.max(1, keepdims=True))
    shares = exponentials / exponentials.sum(1, keepdims=True)
    targets = np.eye(4)[labels] * 0.9 + 0.1 / 4
    error = (shares - targets) / len(labels)
    back = (error @ dense.T).reshape(convolved.shape) * (convolved > 0)
    into_kernel = np.einsum("bhwc,bhwk->ck", features, back)[None, None]
    return -(targets * np.log(shares)).sum(1).mean(), (into_kernel, active.T @ error, error.sum(0))


@pytest.mark.slow
def test_the_plateau_is_that_of_keras(feeds) -> None:
    spec = replace(SPEC, learning_rate=0.05, plateau_factor=0.1, plateau_patience=2, batch_norm=False)
    head = train(feeds, spec, epochs=30, batch_size=8)
    rates, rate, best, waited = [], np.float32(spec.learning_rate), np.inf, 0
    for record in head.curve:
        rates.append(float(rate))
        if record.validation.loss < best - 1e-4:
            best, waited = record.validation.loss, 0
            continue
        waited += 1
        if waited >= spec.plateau_patience and rate > np.float32(5e-5):
            rate, waited = np.float32(max(float(rate) * spec.plateau_factor, 5e-5)), 0
    assert [record.learning_rate for record in head.curve] == pytest.approx(rates, rel=1e-6)
    assert len(set(rates)) >= 3, "this run shows nothing: choose another seed"
    assert min(rates) == pytest.approx(5e-5), "the floor was never met: train longer"


def test_stops_where_told(feeds) -> None:
    told: list[EpochRecord] = []

    def on_epoch(record: EpochRecord) -> bool:
        told.append(record)
        return record.epoch < 3

    head = train(feeds, epochs=50, on_epoch=on_epoch)
    assert tuple(told) == head.curve
    assert [record.epoch for record in told] == [1, 2, 3]
    assert head.curve == train(feeds, epochs=3).curve


def test_a_rate_without_measure_diverges(feeds) -> None:
    with pytest.raises(DivergedError, match=r"^diverged in epoch \d+: .* not finite$"):
        train(feeds, replace(SPEC, learning_rate=1e30))


def test_features_that_are_not_finite_diverge(tmp_path: Path) -> None:
    store = FeatureStore(build_store(tmp_path / "store.h5"))
    parts = split(store)
    broken = parts[0]
    broken._features = broken._features.copy()  # type: ignore[union-attr]
    broken._features[3] = np.nan
    with pytest.raises(DivergedError, match="diverged in epoch 1: training loss not finite"):
        train(parts)


@pytest.mark.slow
def test_a_streamed_store_trains_alike(feeds) -> None:
    streamed = tuple(Feed(feed.store, feed.rows, memory_bytes=0) for feed in feeds)
    assert not streamed[0].resident
    assert train(streamed, epochs=2).curve == train(feeds, epochs=2).curve


@pytest.mark.slow
def test_memory_does_not_grow(feeds) -> None:
    """A head of this size that Keras or TensorFlow keeps alive is 5 MB, most of it graph."""
    process = psutil.Process()
    for number in range(4):
        train(feeds, epochs=1, seed=number)
    before = process.memory_info().rss
    for number in range(20):
        train(feeds, epochs=1, seed=number)
    assert process.memory_info().rss - before < 30e6


@pytest.mark.parametrize(
    ("first", "second", "better"),
    [
        (Score(0.5, 0.9, 0.9), None, True),
        (Score(0.5, 0.9, 0.9), Score(0.4, 0.8, 0.8), True),
        (Score(0.4, 0.9, 0.9), Score(0.5, 0.9, 0.9), True),
        (Score(0.5, 0.9, 0.9), Score(0.5, 0.9, 0.9), False),
        (Score(float("nan"), 0.9, 0.9), None, False),
        (Score(0.5, 0.1, 0.1), Score(float("nan"), float("nan"), float("nan")), True),
    ],
)
def test_which_score_is_better(first: Score, second: Score | None, better: bool) -> None:
    assert first.better_than(second) is better


JAX = """
import sys
from pathlib import Path
from features.runtime.backend import use_backend
use_backend("jax")
sys.path[:0] = [sys.argv[3], str(Path(sys.argv[3]).parents[1])]
import numpy as np
from test_fit import SPEC, as_trained, predict_probabilities, score, split, train
from features.store.reader import FeatureStore
from heads.files.metadata import HeadMetadata
from heads.files.head_file import read_head, save_head
from dataclasses import replace

store = FeatureStore(sys.argv[1])
feeds = split(store)
head = train(feeds, replace(SPEC, learning_rate=0.05, dropout=0.0, plateau_patience=1), epochs=8)
rates = [record.learning_rate for record in head.curve]
assert min(rates) < max(rates), rates
model = as_trained(head, feeds[1])
assert score(predict_probabilities(model, feeds[1]), feeds[1].labels) == head.best.validation
metadata = HeadMetadata.of_store(store.header, store.fingerprint, spec=head.spec, versions={})
save_head(Path(sys.argv[2]), model, metadata)
probabilities = predict_probabilities(read_head(Path(sys.argv[2])).model, feeds[1])
np.save(sys.argv[2] + ".npy", probabilities)
np.save(sys.argv[2] + ".curve.npy", [(r.train_loss, r.validation.loss, r.learning_rate) for r in head.curve])
"""


@pytest.mark.slow
def test_jax_does_the_same(feeds, tmp_path: Path) -> None:
    pytest.importorskip("jax")
    path = tmp_path / "head.hdf5"
    command = [sys.executable, "-c", JAX, str(feeds[0].store.path), str(path), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    probabilities = predict_probabilities(read_head(path).model, feeds[1])  # on TensorFlow
    np.testing.assert_allclose(probabilities, np.load(f"{path}.npy"), atol=1e-5)
    here = train(feeds, replace(SPEC, learning_rate=0.05, dropout=0.0, plateau_patience=1), epochs=8)
    curve = [(r.train_loss, r.validation.loss, r.learning_rate) for r in here.curve]
    np.testing.assert_allclose(curve[:2], np.load(f"{path}.curve.npy")[:2], rtol=1e-3)
