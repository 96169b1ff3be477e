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
from heads.bank.pages import HeadArrays
from heads.bank.program import CHUNK, Held, ScoringPlan, TrainingPlan, filled
from heads.bank.shape import BankShape
from heads.bank.state import Batch, Gradients, State, zero_state


class _Tools:
    """Products by TensorFlow; passes fused by XLA, or run as they are."""

    def __init__(self, *, compiled: bool) -> None:
        self._compiled = compiled

    def product(self, a: Any, b: Any, *, transpose_a: bool = False, transpose_b: bool = False) -> Any:
        return tf.matmul(a, b, transpose_a=transpose_a, transpose_b=transpose_b)

    def fuse(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return _fused(function) if self._compiled else function


class BankProgram:
    """See ``heads.bank.program.Program``; the state is kept in variables, updated in place."""

    def __init__(self, shape: BankShape, dtype: str) -> None:
        self._shape, self._dtype, self.traces = shape, dtype, 0
        self._bank = Bank(shape, dtype, _Tools(compiled=True))
        self._state: State = zero_state(shape, lambda size, kind: tf.Variable(tf.zeros(size, kind)))
        self._apply = _fused(self._apply_gradients)
        self._keep = _fused(self._keep_improved)
        self._put_pages, self._put_slots = _fused(self._put), _fused(self._put)
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

    def predict_held(self, settings: Any, held: Held, plan: ScoringPlan, views: int) -> npt.NDArray[np.float32]:
        """See ``Program``."""
        return np.asarray(self._predict_all(_tensors(settings), held, _tensors(plan), views))

    def predict_stream(self, settings: Any, batches: Iterable[tuple[Any, Any]]) -> npt.NDArray[np.float32]:
        """See ``Program``."""
        settings = _tensors(settings)
        return np.stack([np.asarray(self._predict_batch(settings, *_tensors(batch))) for batch in batches])

    def keep(self, improved: npt.NDArray[np.bool_], owner: npt.NDArray[np.int32]) -> None:
        """See ``Program``."""
        self._keep(*_tensors((improved, owner)))

    def write(
        self,
        pages: npt.NDArray[np.int32],
        in_pages: dict[str, HeadArrays],
        slots: npt.NDArray[np.int32],
        in_slots: dict[str, HeadArrays],
    ) -> None:
        """See ``Program``."""
        # Not by the variables' own scatter: it makes every later read of them a copy.
        for put, where, parts in ((self._put_pages, pages, in_pages), (self._put_slots, slots, in_slots)):
            for start in range(0, len(where), CHUNK):
                values = {
                    part: {name: filled(array[start : start + CHUNK]) for name, array in arrays.items()}
                    for part, arrays in parts.items()
                }
                put(*_tensors((filled(where[start : start + CHUNK]), values)))

    def read(self, part: str, fold: int, pages: npt.NDArray[np.int64], slot: int) -> tuple[HeadArrays, HeadArrays]:
        """See ``Program``."""
        state = self._state[part]
        where = np.stack([np.full_like(pages, fold), pages], axis=1)
        in_pages = {name: tf.gather_nd(state[name], where).numpy() for name in self._shape.page_arrays if name in state}
        names = (*self._shape.slot_arrays, "steps")
        return in_pages, {name: state[name][fold, slot].numpy() for name in names if name in state}

    # --- traced -----------------------------------------------------------------------------------------------

    def _loop(self, settings: Any, held: Held, plan: TrainingPlan) -> Any:
        self.traces += 1

        def step(number: Any, losses: Any) -> Any:
            batch = Batch(tf.gather(held, plan.places[number]), plan.labels[number], plan.folds[number])
            return number + 1, self._train(settings, batch, losses)

        start = (tf.constant(0), self._zeros())
        steps = tf.shape(plan.folds)[0]
        return tf.while_loop(lambda number, _: number < steps, step, start, parallel_iterations=1)[1]

    def _one(self, settings: Any, batch: Batch, losses: Any) -> Any:
        self.traces += 1
        return self._train(settings, batch, losses)

    def _train(self, settings: Any, batch: Batch, losses: Any) -> Any:
        batch = batch._replace(features=self._rows(batch.features))
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

    def _keep_improved(self, improved: Any, owner: Any) -> None:
        self._assign("best", self._bank.keep(self._part("weights"), self._part("best"), improved, owner))

    def _predict_loop(self, settings: Any, held: Held, plan: ScoringPlan, views: int) -> Any:
        self.traces += 1
        batches = tf.shape(plan.folds)[0]

        def step(number: Any, found: Any) -> Any:
            features = [tf.gather(held, plan.places[number] + view) for view in range(views)]
            return number + 1, found.write(number, self._predict(settings, features, plan.folds[number]))

        start = (tf.constant(0), tf.TensorArray(tf.float32, size=batches))
        return tf.while_loop(lambda number, _: number < batches, step, start, parallel_iterations=1)[1].stack()

    def _predict_one(self, settings: Any, views: Any, fold: Any) -> Any:
        self.traces += 1
        return self._predict(settings, tf.unstack(views), fold)

    def _predict(self, settings: Any, views: list[Any], fold: Any) -> Any:
        steps = tf.convert_to_tensor(self._state["counters"]["steps"])
        rows = [self._rows(view) for view in views]
        return self._bank.predict(self._part("weights"), steps, settings, rows, fold)

    def _rows(self, features: Any) -> Any:
        return tf.cast(tf.reshape(features, (-1, self._shape.feature_shape[2])), self._dtype)

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
