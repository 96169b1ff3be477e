"""A bank on TensorFlow: the epoch is a graph whose passes XLA compiles, and whose products are those of the faster one.

XLA runs a chain of element-wise operations in one pass over memory where TensorFlow's kernels take one pass each. On
CPUs oneDNN, TensorFlow's, multiplies bfloat16 several times faster than XLA does, and XLA multiplies float32 faster,
most of all where a factor is transposed or the products are many and small. So each does what it does best.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.compiler.tf2xla.python.xla import optimization_barrier

from heads.bank.mathematics import Bank
from heads.bank.packing import Laid
from heads.bank.partitions import PARTITIONS_AT_ONCE, one_of, partition_of, partition_slice
from heads.bank.program import (
    CHUNK,
    ExactForward,
    Held,
    ProgramPart,
    ScoringBatch,
    ScoringPlan,
    TrainingBatch,
    TrainingPlan,
    Values,
    filled,
)
from heads.bank.settings import HostSettings
from heads.bank.shape import BankShape, Sort, Where
from heads.bank.state import Arrays, Batch, Gradients, State, Used, zero_partition

_DEPTH = 32
"""What oneDNN sums over is a multiple of this where rows of one matrix belong to several heads. On processors with AMX
it reads on into the next row, where it is not, and multiplies that by zeros: of a head whose weights have gone to NaN
or infinity that makes NaN in the last channel of the head before it."""
_LEAST = 8
"""Places that a product takes at least: smaller ones XLA multiplies in another way, which rounds in another way. Its
sizes are as far apart, too: each takes time to compile, which so few places do not give back."""


class _Tools:
    """Passes compiled by XLA, or run as they are; products by whoever multiplies faster.

    What follows from device and dtype is in a table of docs/bank.md ("Who does what").

    Args:
        compiled: Whether anything is compiled.
        dtype: Of the products' operands.
    """

    def __init__(self, *, compiled: bool, dtype: str = "float32") -> None:
        self._compiled = compiled
        self.one_by_one = compiled and not tf.config.list_physical_devices("GPU")
        self._by_xla = self.one_by_one and dtype == "float32"
        self.joined, self.by_bits = self._by_xla, self.one_by_one and dtype == "bfloat16"

    def product(self, a: Any, b: Any, *, transpose_a: bool = False, transpose_b: bool = False) -> Any:
        """(n, depth) x (depth, m), rows of one factor being of several heads; or (places, ...) each, place by place."""
        if self.by_bits and len(a.shape) == 2:
            a, b = _deepened(a, int(not transpose_a)), _deepened(b, int(transpose_b))
        return self.bare_product(a, b, transpose_a=transpose_a, transpose_b=transpose_b)

    def bare_product(self, a: Any, b: Any, *, transpose_a: bool = False, transpose_b: bool = False) -> Any:
        """``product`` of factors that need no more depth, as a bank's own arrays."""
        multiply = _product_by_xla if self._by_xla else tf.matmul
        return multiply(a, b, transpose_a=transpose_a, transpose_b=transpose_b)

    def in_use(
        self, function: Callable[..., Any], used: Used, sizes: Sequence[int], *arrays: Any, in_order: bool = False
    ) -> Any:
        if not self.one_by_one:
            return function(*arrays)
        whole = arrays[0].shape[0]

        def compute_first(size: Any) -> Any:
            """Computes so many of the places, those in use first."""
            places, ranks = used.places[:size], tf.minimum(used.ranks, size - 1)
            found = function(*(tf.gather(array, places) for array in arrays))
            return tf.nest.map_structure(lambda array: tf.gather(array, ranks), found)

        def compute_all() -> Any:
            return function(*arrays)

        if not self._by_xla:
            if in_order:
                return compute_first(tf.maximum(used.count, 1))
            return tf.cond(used.count < whole, lambda: compute_first(tf.maximum(used.count, 1)), compute_all)
        *fewer, _ = _sizes(whole, sizes)
        which = tf.reduce_sum(tf.cast(used.count > tf.constant(fewer, tf.int32), tf.int32))
        return tf.switch_case(which, [*(partial(compute_first, size) for size in fewer), compute_all])

    def fuse(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if not self._compiled:
            return function
        return _by_bits(function) if self.by_bits else _fused(function)

    def join(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return _fused(function) if self._by_xla else function

    def seal(self, results: Any) -> Any:
        if not self._compiled:
            return results
        sealed = optimization_barrier(*tf.nest.flatten(results))
        return tf.nest.pack_sequence_as(results, sealed)


class BankProgram:
    """See ``heads.bank.program.Program``; the state is kept in variables, updated in place."""

    def __init__(self, shape: BankShape, dtype: str, scored: int) -> None:
        self._shape, self._dtype, self.traces = shape, dtype, 0
        tools = _Tools(compiled=True, dtype=dtype)
        self._deepens = tools.by_bits
        self._at_once = PARTITIONS_AT_ONCE if tools.one_by_one else 1
        self._bank, self._scoring = Bank(shape, dtype, tools), Bank(shape, dtype, tools, batch=scored)
        exact = ExactForward(replace(shape, folds=1, batch=scored), self._scoring.probabilities)
        self.exact = exact if dtype == "float32" and tools.one_by_one else None  # GPUs may round products to 10 bits
        # One set of variables for each fold: written in place, which a part of a larger array would not be.
        self._state = [
            zero_partition(shape, lambda size, kind: tf.Variable(tf.zeros(size, kind))) for _ in range(shape.folds)
        ]
        self._update_moments, self._update_weights = _fused(self._assign_moments), _fused(self._assign_weights)
        self._keep = _fused(self._keep_improved)
        self._put_at = {sort: _fused(_put) for sort in shape.arrays}
        self._train_epoch = tf.function(self._train_loop, autograph=False, reduce_retracing=True)
        self._train_batch = tf.function(self._train_one, autograph=False)
        self._predict_all = tf.function(self._predict_loop, autograph=False)
        self._predict_batch = tf.function(self._predict_one, autograph=False)

    def hold(self, features: npt.NDArray[Any]) -> Held:
        """See ``Program``."""
        if tf.config.list_physical_devices("GPU"):
            return tf.convert_to_tensor(features)
        # A conversion takes twice the features' memory beside them, and keeps it. DLPack hands over where they lie;
        # NumPy's does not know bfloat16, which goes by its bits.
        narrow = features.dtype == tf.bfloat16.as_numpy_dtype
        held = tf.experimental.dlpack.from_dlpack((features.view(np.uint16) if narrow else features).__dlpack__())
        return tf.bitcast(held, tf.bfloat16) if narrow else held

    def train_epoch(self, settings: HostSettings, held: Held, plan: TrainingPlan) -> npt.NDArray[np.float32]:
        """See ``Program``."""
        return np.asarray(self._train_epoch(_tensors(settings), held, _tensors(plan)))

    def train_stream(
        self, settings: HostSettings, batches: Iterable[TrainingBatch], folds: npt.NDArray[np.int32]
    ) -> npt.NDArray[np.float32]:
        """See ``Program``."""
        tensors, losses = _tensors(settings), self._zeros()
        for batch, fold in zip(batches, folds, strict=True):
            losses = self._train_batch(tensors, *_tensors((Batch(*batch), fold)), losses)
        return np.asarray(losses)

    def predict_held(self, settings: HostSettings, held: Held, plan: ScoringPlan) -> npt.NDArray[np.float32]:
        """See ``Program``."""
        return np.asarray(self._predict_all(_tensors(settings), held, _tensors(plan)))

    def predict_stream(
        self, settings: HostSettings, batches: Iterable[ScoringBatch]
    ) -> Iterator[npt.NDArray[np.float32]]:
        """See ``Program``."""
        tensors = _tensors(settings)
        for batch in batches:
            yield np.asarray(self._predict_batch(tensors, *_tensors(batch)))

    def keep(
        self, improved: npt.NDArray[np.bool_], owner: npt.NDArray[np.int32], page_of_tile: npt.NDArray[np.int32]
    ) -> None:
        """See ``Program``."""
        for of_fold, state in zip(improved, self._state, strict=True):
            if of_fold.any():
                self._keep(state["weights"], state["best"], *_tensors((of_fold, owner, page_of_tile)))

    def write(self, sort: Sort, where: npt.NDArray[np.int32], values: Values) -> None:
        """See ``Program``."""
        # Not by the variables' own scatter: it makes every later read of them a copy.
        for fold in np.unique(where[:, 0]):
            of_fold = np.flatnonzero(where[:, 0] == fold)
            for start in range(0, len(of_fold), CHUNK):
                chunk = of_fold[start : start + CHUNK]
                new = {
                    part: {name: filled(array[chunk]) for name, array in arrays.items()}
                    for part, arrays in values.items()
                }
                old = {part: {name: self._state[fold][part][name] for name in arrays} for part, arrays in new.items()}
                self._put_at[sort](old, *_tensors((filled(where[chunk, 1:]), new)))

    def read(self, part: ProgramPart, fold: int, where: Where) -> Laid:
        """See ``Program``."""
        state, laid = self._state[fold][part], {}
        for sort, names in self._shape.arrays.items():
            present = (*names, "steps") if sort == "slots" else names
            laid[sort] = {name: tf.gather(state[name], where[sort]).numpy() for name in present if name in state}
        return laid

    # --- traced -----------------------------------------------------------------------------------------------

    def _train_loop(self, settings: Any, held: Held, plan: TrainingPlan) -> Any:
        self.traces += 1

        def step(number: Any, losses: Any) -> Any:
            batch = Batch(self._rows_of(held, plan.places[number]), plan.labels[number])
            return number + 1, self._train(settings, batch, plan.folds[number], losses)

        start = (tf.constant(0), self._zeros())
        steps = tf.shape(plan.folds)[0]
        return tf.while_loop(lambda number, _: number < steps, step, start, parallel_iterations=1)[1]

    def _train_one(self, settings: Any, batch: Batch, fold: Any, losses: Any) -> Any:
        self.traces += 1
        return self._train(settings, batch._replace(features=self._rows(batch.features)), fold, losses)

    def _train(self, settings: Any, batch: Batch, fold: Any, losses: Any) -> Any:
        folds = self._shape.folds

        def train(count: int, number: Any, losses: Any) -> Any:
            partitions = [partition_of(number + ahead, fold, folds) for ahead in range(count)]
            # All are read before one is written: TensorFlow has what reads a variable of any of them wait for that.
            read = [self._on(partition, _weights_and_steps) for partition in partitions]
            sliced = [partition_slice(settings, partition) for partition in partitions]
            found = [
                self._bank.gradients(weights, steps, own_settings, batch)
                for (weights, steps), own_settings in zip(read, sliced, strict=True)
            ]
            for partition, own_settings, gradients in zip(partitions, sliced, found, strict=True):
                own_losses = one_of(losses, partition)
                sums = self._on(partition, partial(self._update, gradients, own_settings, own_losses))
                losses = tf.tensor_scatter_nd_update(losses, [[partition]], sums[None])
            return number + count, losses

        every = self._shape.training_partitions
        at_once = min(self._at_once, every)
        left, start = every % at_once, (tf.constant(0), losses)
        if at_once == every:
            return train(every, *start)[1]
        number, losses = tf.while_loop(
            lambda number, _: number < every - left, partial(train, at_once), start, parallel_iterations=1
        )
        return train(left, number, losses)[1] if left else losses

    def _update(self, gradients: Gradients, settings: Any, losses: Any, state: State) -> Any:
        moments = {part: state[part] for part in ("first", "second", "counters")}
        losses = self._update_moments(moments, gradients, settings, losses)
        self._update_weights(state["weights"], moments, gradients, settings)
        return losses

    def _assign_moments(self, moments: State, gradients: Gradients, settings: Any, losses: Any) -> Any:
        new, losses = self._bank.update_moments(_values(moments), gradients, settings, losses)
        _assign(moments, new)
        return losses

    def _assign_weights(self, weights: Arrays, moments: State, gradients: Gradients, settings: Any) -> None:
        _assign(weights, self._bank.update_weights(_values(weights), _values(moments), gradients, settings))

    def _keep_improved(self, weights: Arrays, best: Arrays, improved: Any, owner: Any, page_of_tile: Any) -> None:
        _assign(best, self._bank.keep(_values(weights), _values(best), improved, owner, page_of_tile))

    def _on(self, partition: Any, function: Callable[[State], Any]) -> Any:
        """Runs a function of one partition's variables, in a branch for each: what does without them stands outside."""
        if len(self._state) == 1:
            return function(self._state[0])
        return tf.switch_case(partition, [partial(function, state) for state in self._state])

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
        weights, steps = self._on(fold, _weights_and_steps)
        return self._scoring.probabilities(weights, steps, partition_slice(settings, fold), features)

    def _rows_of(self, held: Held, places: Any) -> Any:
        """B held rows as (S·B, C), S positions and C channels: gathered by position, which costs no more than by row.

        Where products are deepened, some more of the rows follow, so that nothing has to be copied for that.
        """
        positions = self._shape.positions
        flat = tf.reshape(held, (-1, self._shape.feature_shape[2]))
        where = tf.reshape(places[None] * positions + tf.range(positions, dtype=tf.int32)[:, None], (-1,))
        return tf.gather(flat, _deepened(where, 0) if self._deepens else where)

    def _rows(self, features: Any) -> Any:
        """Features of B rows from the host, (B, height, width, C), as (S·B, C), where S is height · width."""
        channels = self._shape.feature_shape[2]
        rows = tf.cast(tf.reshape(features, (-1, self._shape.positions, channels)), self._dtype)
        by_position = tf.reshape(tf.transpose(rows, (1, 0, 2)), (-1, channels))
        return _deepened(by_position, 0) if self._deepens else by_position

    def _zeros(self) -> Any:
        return tf.zeros((self._shape.folds, self._shape.slots))


def fast_in_bfloat16() -> bool:
    """Whether products in bfloat16 beat those in float32."""
    if tf.config.list_physical_devices("GPU"):
        return True
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def skips_free_pages() -> bool:
    """See ``heads.bank.backends.skips_free_pages``."""
    return _Tools(compiled=True).one_by_one


def lanes(dtype: str) -> int:
    """See ``heads.bank.backends.default_lanes``.

    Two where passes and products are programs of their own: XLA runs the pages of one pass one after the other, and
    kernels of a page are too small for several cores. As many lanes as two cores can use; on more, kernels share them.
    """
    return 2 if _Tools(compiled=True, dtype=dtype).by_bits else 1


def device_memory_left() -> None:
    """Nothing: how much memory a GPU has is not in TensorFlow's public API."""


def lacks_memory(error: BaseException) -> bool:
    """See ``heads.bank.backends.lacks_memory``."""
    return isinstance(error, tf.errors.ResourceExhaustedError)


def exact_forward(shape: BankShape) -> Callable[..., Any]:
    """See ``heads.bank.backends.exact_forward``; runs eagerly, so that nothing is compiled for a bank used once."""
    bank = Bank(shape, "float32", _Tools(compiled=False))
    return bank.probabilities


def bare_product() -> Callable[..., Any]:
    """See ``heads.bank.backends.bare_product``."""
    compiled = {dtype: _Tools(compiled=True, dtype=dtype) for dtype in ("bfloat16", "float32")}
    return lambda a, b, **transposed: compiled[a.dtype.name].bare_product(a, b, **transposed)


def _fused(function: Callable[..., Any]) -> Callable[..., Any]:
    compiled: Callable[..., Any] = tf.function(function, jit_compile=True, autograph=False)
    return compiled


def _by_bits(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a function whose bfloat16 arrays go in and out by their bits, see ``heads.bank.places.kept_as``.

    TensorFlow takes an array for its bits, and back, without a copy; XLA makes one.
    """

    def inside(*arrays: Any) -> Any:
        return _viewed(function(*_viewed(arrays, tf.uint16, tf.bfloat16)), tf.bfloat16, tf.uint16)

    compiled = _fused(inside)
    return lambda *arrays: _viewed(compiled(*_viewed(arrays, tf.bfloat16, tf.uint16)), tf.uint16, tf.bfloat16)


def _viewed(arrays: Any, old: tf.DType, new: tf.DType) -> Any:
    def view(array: Any) -> Any:
        return tf.bitcast(array, new) if isinstance(array, tf.Tensor) and array.dtype == old else array

    return tf.nest.map_structure(view, arrays)


def _sizes(whole: int, eighths: Sequence[int]) -> list[int]:
    """Sizes in which a product of so many places is compiled, the whole last; others are ``_LEAST`` apart or more."""
    sizes = [whole]
    for size in sorted({max(_LEAST, -(-whole * part // 8)) for part in eighths}, reverse=True):
        if size <= sizes[0] - _LEAST:
            sizes.insert(0, size)
    return sizes


def _deepened(array: Any, axis: int) -> Any:
    """Zeros behind an axis, up to a multiple of ``_DEPTH``."""
    left = -array.shape[axis] % _DEPTH
    return tf.pad(array, [[0, left if number == axis else 0] for number in range(len(array.shape))]) if left else array


@partial(tf.function, jit_compile=True, autograph=False)
def _product_by_xla(a: Any, b: Any, *, transpose_a: bool, transpose_b: bool) -> Any:
    return tf.matmul(a, b, transpose_a=transpose_a, transpose_b=transpose_b)


def _weights_and_steps(state: State) -> tuple[Arrays, Any]:
    return _values(state["weights"]), _values(state["counters"]["steps"])


def _values(variables: Any) -> Any:
    return tf.nest.map_structure(tf.convert_to_tensor, variables)


def _assign(variables: Any, values: Any) -> None:
    tf.nest.map_structure(lambda variable, value: variable.assign(value), variables, values)


def _put(variables: State, where: Any, values: State) -> None:
    now = _values(variables)
    _assign(
        variables, tf.nest.map_structure(lambda old, new: tf.tensor_scatter_nd_update(old, where, new), now, values)
    )


def _tensors(values: Any) -> Any:
    return tf.nest.map_structure(tf.convert_to_tensor, values)
