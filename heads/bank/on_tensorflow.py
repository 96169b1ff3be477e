"""A bank on TensorFlow: the epoch is a graph whose products are TensorFlow's own and whose passes XLA compiles.

On CPUs oneDNN multiplies bfloat16 several times faster than XLA does, and XLA runs a chain of element-wise operations
in one pass over memory where TensorFlow's kernels take one pass each. So each does what it does best.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from heads.bank.mathematics import Bank
from heads.bank.pages import Laid
from heads.bank.program import CHUNK, Held, ScoringPlan, TrainingPlan, Values, filled
from heads.bank.shape import BankShape, Sort
from heads.bank.state import Batch, Gradients, State, zero_state


class _Tools:
    """Products by TensorFlow; passes compiled by XLA, or run as they are."""

    def __init__(self, *, compiled: bool) -> None:
        self._compiled = compiled
        self.one_by_one = compiled and not tf.config.list_physical_devices("GPU")

    def product(self, a: Any, b: Any, *, transpose_a: bool = False, transpose_b: bool = False) -> Any:
        return tf.matmul(a, b, transpose_a=transpose_a, transpose_b=transpose_b)

    def fuse(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return _fused(function) if self._compiled else function


class BankProgram:
    """See ``heads.bank.program.Program``; the state is kept in variables, updated in place."""

    def __init__(self, shape: BankShape, dtype: str, scored: int) -> None:
        self._shape, self._dtype, self.traces = shape, dtype, 0
        self._bank = Bank(shape, dtype, _Tools(compiled=True))
        self._scoring = Bank(shape, dtype, _Tools(compiled=True), batch=scored)
        self._state: State = zero_state(shape, lambda size, kind: tf.Variable(tf.zeros(size, kind)))
        self._apply = _fused(self._apply_gradients)
        self._keep = _fused(self._keep_improved)
        self._put_at = {sort: _fused(self._put) for sort in shape.arrays}
        self._train_epoch = tf.function(self._loop, autograph=False, reduce_retracing=True)
        self._train_batch = tf.function(self._one, autograph=False)
        self._predict_all = tf.function(self._predict_loop, autograph=False)
        self._predict_batch = tf.function(self._predict_one, autograph=False)

    def hold(self, features: npt.NDArray[Any]) -> Held:
        """See ``Program``."""
        return tf.convert_to_tensor(features)

    def train_epoch(self, settings: Any, held: Held, plan: TrainingPlan) -> npt.NDArray[np.float32]:
        """See ``Program``."""
        return np.asarray(self._train_epoch(_tensors(settings), held, _tensors(plan)))

    def train_stream(
        self, settings: Any, batches: Iterable[tuple[Any, Any]], folds: npt.NDArray[np.int32]
    ) -> npt.NDArray[np.float32]:
        """See ``Program``."""
        settings, losses = _tensors(settings), self._zeros()
        for (features, labels), fold in zip(batches, folds, strict=True):
            losses = self._train_batch(settings, _tensors(Batch(features, labels, fold)), losses)
        return np.asarray(losses)

    def predict_held(self, settings: Any, held: Held, plan: ScoringPlan) -> npt.NDArray[np.float32]:
        """See ``Program``."""
        return np.asarray(self._predict_all(_tensors(settings), held, _tensors(plan)))

    def predict_stream(self, settings: Any, batches: Iterable[tuple[Any, Any]]) -> npt.NDArray[np.float32]:
        """See ``Program``."""
        settings = _tensors(settings)
        return np.stack([np.asarray(self._predict_batch(settings, *_tensors(batch))) for batch in batches])

    def keep(
        self, improved: npt.NDArray[np.bool_], owner: npt.NDArray[np.int32], page_of_tile: npt.NDArray[np.int32]
    ) -> None:
        """See ``Program``."""
        self._keep(*_tensors((improved, owner, page_of_tile)))

    def write(self, sort: Sort, where: npt.NDArray[np.int32], values: Values) -> None:
        """See ``Program``."""
        # Not by the variables' own scatter: it makes every later read of them a copy.
        for start in range(0, len(where), CHUNK):
            end = start + CHUNK
            chunk = {
                part: {name: filled(array[start:end]) for name, array in arrays.items()}
                for part, arrays in values.items()
            }
            self._put_at[sort](*_tensors((filled(where[start:end]), chunk)))

    def read(self, part: str, fold: int, where: dict[Sort, npt.NDArray[np.int64]]) -> Laid:
        """See ``Program``."""
        state, laid = self._state[part], {}
        for sort, names in self._shape.arrays.items():
            places = np.stack([np.full_like(where[sort], fold), where[sort]], axis=1)
            mine = (*names, "steps") if sort == "slots" else names
            laid[sort] = {name: tf.gather_nd(state[name], places).numpy() for name in mine if name in state}
        return laid

    # --- traced -----------------------------------------------------------------------------------------------

    def _loop(self, settings: Any, held: Held, plan: TrainingPlan) -> Any:
        self.traces += 1

        def step(number: Any, losses: Any) -> Any:
            rows = self._rows_of(held, plan.places[number])
            return number + 1, self._train(settings, Batch(rows, plan.labels[number], plan.folds[number]), losses)

        start = (tf.constant(0), self._zeros())
        steps = tf.shape(plan.folds)[0]
        return tf.while_loop(lambda number, _: number < steps, step, start, parallel_iterations=1)[1]

    def _one(self, settings: Any, batch: Batch, losses: Any) -> Any:
        self.traces += 1
        return self._train(settings, batch._replace(features=self._rows(batch.features)), losses)

    def _train(self, settings: Any, batch: Batch, losses: Any) -> Any:
        steps = tf.convert_to_tensor(self._state["counters"]["steps"])
        gradients = self._bank.gradients(self._part("weights"), steps, settings, batch)
        return self._apply(gradients, settings, batch.fold, losses)

    def _apply_gradients(self, gradients: Gradients, settings: Any, fold: Any, losses: Any) -> Any:
        now = {part: self._part(part) for part in self._state if part != "best"}
        new, losses = self._bank.update(now, gradients, settings, fold, losses)
        for part, arrays in new.items():
            self._assign(part, arrays)
        return losses

    def _put(self, where: Any, parts: State) -> None:
        for part, arrays in parts.items():
            for name, values in arrays.items():
                variable = self._state[part][name]
                variable.assign(tf.tensor_scatter_nd_update(variable, where, values))

    def _keep_improved(self, improved: Any, owner: Any, page_of_tile: Any) -> None:
        weights, best = self._part("weights"), self._part("best")
        self._assign("best", self._bank.keep(weights, best, improved, owner, page_of_tile))

    def _predict_loop(self, settings: Any, held: Held, plan: ScoringPlan) -> Any:
        self.traces += 1
        batches = tf.shape(plan.folds)[0]

        def step(number: Any, found: Any) -> Any:
            features = self._rows_of(held, plan.places[number])
            return number + 1, found.write(number, self._predict(settings, features, plan.folds[number]))

        start = (tf.constant(0), tf.TensorArray(tf.float32, size=batches))
        return tf.while_loop(lambda number, _: number < batches, step, start, parallel_iterations=1)[1].stack()

    def _predict_one(self, settings: Any, features: Any, fold: Any) -> Any:
        self.traces += 1
        return self._predict(settings, self._rows(features), fold)

    def _predict(self, settings: Any, features: Any, fold: Any) -> Any:
        steps = tf.convert_to_tensor(self._state["counters"]["steps"])
        return self._scoring.predict(self._part("weights"), steps, settings, features, fold)

    def _rows_of(self, held: Held, places: Any) -> Any:
        """Held rows as (S·B, C): gathered position by position, which costs no more than row by row."""
        positions = self._shape.positions
        flat = tf.reshape(held, (-1, self._shape.feature_shape[2]))
        where = places[None] * positions + tf.range(positions, dtype=tf.int32)[:, None]
        return tf.gather(flat, tf.reshape(where, (-1,)))

    def _rows(self, features: Any) -> Any:
        """Features (B, h, w, c) from the host as (S·B, C)."""
        channels = self._shape.feature_shape[2]
        rows = tf.cast(tf.reshape(features, (-1, self._shape.positions, channels)), self._dtype)
        return tf.reshape(tf.transpose(rows, (1, 0, 2)), (-1, channels))

    def _part(self, part: str) -> dict[str, Any]:
        return {name: tf.convert_to_tensor(variable) for name, variable in self._state[part].items()}

    def _assign(self, part: str, arrays: dict[str, Any]) -> None:
        for name, value in arrays.items():
            self._state[part][name].assign(value)

    def _zeros(self) -> Any:
        return tf.zeros((self._shape.folds, self._shape.slots))


def fast_in_bfloat16() -> bool:
    """Whether products in bfloat16 beat those in float32."""
    if tf.config.list_physical_devices("GPU"):
        return True
    told = Path("/proc/cpuinfo")
    flags = told.read_text(encoding="utf-8", errors="replace") if told.exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def exact_forward(shape: BankShape) -> Callable[..., Any]:
    """See ``heads.bank.backends.exact_forward``; runs eagerly, so that nothing is compiled for a bank used once."""
    bank = Bank(shape, "float32", _Tools(compiled=False))
    return lambda weights, steps, settings, features: bank.probabilities(weights, steps, settings, features, None)


def bare_product() -> Callable[..., Any]:
    """See ``heads.bank.backends.bare_product``."""
    return _Tools(compiled=False).product


def _fused(function: Callable[..., Any]) -> Callable[..., Any]:
    compiled: Callable[..., Any] = tf.function(function, jit_compile=True, autograph=False)
    return compiled


def _tensors(values: Any) -> Any:
    return tf.nest.map_structure(tf.convert_to_tensor, values)
