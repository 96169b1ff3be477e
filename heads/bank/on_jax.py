"""A bank on JAX: an epoch is one XLA program, to which the state is donated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from heads.bank.mathematics import Bank
from heads.bank.packing import HeadArrays, Laid
from heads.bank.partitions import one_of, partition_of, partition_slice, put_back
from heads.bank.program import (
    CHUNK,
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
from heads.bank.state import Arrays, Batch, State, zero_state
from heads.bank.tools import PlainTools


class _Tools(PlainTools):
    """The whole program is compiled."""

    def seal(self, results: Any) -> Any:
        return jax.lax.optimization_barrier(results)


class BankProgram:
    """See ``heads.bank.program.Program``."""

    def __init__(self, shape: BankShape, dtype: str, scored: int) -> None:
        self._shape, self._dtype, self.traces = shape, dtype, 0
        tools = _Tools(one_by_one=jax.default_backend() == "cpu")
        self._bank = Bank(shape, dtype, tools)
        self._scoring = Bank(shape, dtype, tools, batch=scored)
        self.exact = None  # its scoring is compiled as a whole, with the rows that it takes
        self._state: State = zero_state(shape, jnp.zeros)
        self._train_epoch = jax.jit(self._loop, donate_argnums=0)
        self._train_batch = jax.jit(self._one, donate_argnums=0)
        self._predict_all = jax.jit(self._predict_loop)
        self._predict_batch = jax.jit(self._predict_one)
        keep = jax.vmap(self._bank.keep, in_axes=(0, 0, 0, None, None))
        self._keep = jax.jit(keep, donate_argnums=1)

    def hold(self, features: npt.NDArray[Any]) -> Held:
        """See ``Program``."""
        return jax.device_put(features, may_alias=True)  # without the word for it they would be copied on a CPU

    def train_epoch(self, settings: HostSettings, held: Held, plan: TrainingPlan) -> npt.NDArray[np.float32]:
        """See ``Program``."""
        state, losses = self._train_epoch(self._changing(), settings, held, plan)
        self._state |= state
        return np.asarray(losses)

    def train_stream(
        self, settings: HostSettings, batches: Iterable[TrainingBatch], folds: npt.NDArray[np.int32]
    ) -> npt.NDArray[np.float32]:
        """See ``Program``."""
        losses = self._zeros()
        for batch, fold in zip(batches, folds, strict=True):
            state, losses = self._train_batch(self._changing(), settings, Batch(*batch), fold, losses)
            self._state |= state
        return np.asarray(losses)

    def predict_held(self, settings: HostSettings, held: Held, plan: ScoringPlan) -> npt.NDArray[np.float32]:
        """See ``Program``."""
        return np.asarray(self._predict_all(self._scored(), settings, held, plan))

    def predict_stream(
        self, settings: HostSettings, batches: Iterable[ScoringBatch]
    ) -> Iterator[npt.NDArray[np.float32]]:
        """See ``Program``."""
        for batch in batches:
            yield np.asarray(self._predict_batch(self._scored(), settings, *batch))

    def keep(
        self, improved: npt.NDArray[np.bool_], owner: npt.NDArray[np.int32], page_of_tile: npt.NDArray[np.int32]
    ) -> None:
        """See ``Program``."""
        state = self._state
        state["best"] = self._keep(state["weights"], state["best"], improved, owner, page_of_tile)

    def write(self, sort: Sort, where: npt.NDArray[np.int32], values: Values) -> None:
        """See ``Program``."""
        del sort
        for start in range(0, len(where), CHUNK):
            end = start + CHUNK
            for part, arrays in values.items():
                old = {name: self._state[part][name] for name in arrays}
                new = {name: filled(array[start:end]) for name, array in arrays.items()}
                self._state[part] = {**self._state[part], **_put(old, filled(where[start:end]), new)}

    def read(self, part: ProgramPart, fold: int, where: Where) -> Laid:
        """See ``Program``."""
        laid: Laid = {}
        for sort, names in self._shape.arrays.items():
            mine = (*names, "steps") if sort == "slots" else names
            laid[sort] = self._read(part, mine, [(fold, int(place)) for place in where[sort]])
        return laid

    def _read(self, part: ProgramPart, names: Iterable[str], places: list[tuple[int, int]]) -> HeadArrays:
        arrays = {name: self._state[part][name] for name in names if name in self._state[part]}
        chunks = []
        for start in range(0, len(places), CHUNK):
            where = np.array(places[start : start + CHUNK], np.int32)
            taken = jax.device_get(_get(arrays, filled(where)))  # together: each would be a round trip to a GPU
            chunks.append({name: array[: len(where)] for name, array in taken.items()})
        return {
            name: np.concatenate([np.zeros((0, *array.shape[2:]), array.dtype), *(chunk[name] for chunk in chunks)])
            for name, array in arrays.items()
        }

    def _changing(self) -> State:
        return {part: arrays for part, arrays in self._state.items() if part != "best"}

    def _scored(self) -> State:
        return {part: self._state[part] for part in ("weights", "counters")}

    def _zeros(self) -> npt.NDArray[np.float32]:
        return np.zeros((self._shape.folds, self._shape.slots), np.float32)

    # --- traced -----------------------------------------------------------------------------------------------

    def _loop(self, state: State, settings: Any, held: Held, plan: TrainingPlan) -> Any:
        self.traces += 1

        def step(carry: Any, batch: TrainingPlan) -> Any:
            state, losses = carry
            rows = Batch(self._rows(held[batch.places]), batch.labels)
            return self._train(state, losses, settings, rows, batch.folds), None

        return jax.lax.scan(step, (state, jnp.asarray(self._zeros())), plan)[0]

    def _one(self, state: State, settings: Any, batch: Batch, fold: Any, losses: Any) -> Any:
        self.traces += 1
        return self._train(state, losses, settings, batch._replace(features=self._rows(batch.features)), fold)

    def _train(self, state: State, losses: Any, settings: Any, batch: Batch, fold: Any) -> Any:
        folds = self._shape.folds

        def step(number: Any, carry: Any) -> Any:
            partition = partition_of(number, fold, folds)
            own_settings = partition_slice(settings, partition)
            own_state, own_losses = one_of(carry, partition)
            weights, steps = own_state["weights"], own_state["counters"]["steps"]
            gradients = self._bank.gradients(weights, steps, own_settings, batch)
            return put_back(carry, self._bank.update(own_state, gradients, own_settings, own_losses), partition)

        return jax.lax.fori_loop(0, self._shape.training_partitions, step, (state, losses))

    def _predict_loop(self, state: State, settings: Any, held: Held, plan: ScoringPlan) -> Any:
        self.traces += 1

        def step(carry: None, batch: ScoringPlan) -> Any:
            return carry, self._predict(state, settings, held[batch.places], batch.folds)

        return jax.lax.scan(step, None, plan)[1]

    def _predict_one(self, state: State, settings: Any, features: Any, fold: Any) -> Any:
        self.traces += 1
        return self._predict(state, settings, features, fold)

    def _predict(self, state: State, settings: Any, features: Any, fold: Any) -> Any:
        own_state, own_settings = one_of(state, fold), partition_slice(settings, fold)
        weights, steps = own_state["weights"], own_state["counters"]["steps"]
        return self._scoring.probabilities(weights, steps, own_settings, self._rows(features))

    def _rows(self, features: Any) -> Any:
        """Features of B rows as (S·B, C), position by position."""
        channels = self._shape.feature_shape[2]
        rows = features.reshape(-1, self._shape.positions, channels).astype(self._dtype)
        return rows.swapaxes(0, 1).reshape(-1, channels)


def fast_in_bfloat16() -> bool:
    """Whether products in bfloat16 beat those in float32."""
    return bool(jax.default_backend() != "cpu")


def lanes(dtype: str) -> int:
    """See ``heads.bank.backends.default_lanes``: here a step is one program, whose pages XLA runs through in order."""
    del dtype
    return 1


def skips_free_pages() -> bool:
    """See ``heads.bank.backends.skips_free_pages``: products take all pages."""
    return False


def device_memory_left() -> int | None:
    """Bytes that this process may still take of a GPU's memory; None of a CPU, and where nothing counts it."""
    try:
        found = jax.local_devices()[0].memory_stats() or {}
    except jax.errors.JaxRuntimeError:
        return None
    limit, used = found.get("bytes_limit", -1), found.get("bytes_in_use", 0)
    return max(0, limit - max(0, used)) if limit > 0 else None


def lacks_memory(error: BaseException) -> bool:
    """See ``heads.bank.backends.lacks_memory``."""
    return isinstance(error, jax.errors.JaxRuntimeError) and str(error).startswith("RESOURCE_EXHAUSTED")


@lru_cache(maxsize=32)
def exact_forward(shape: BankShape) -> Callable[..., Any]:
    """See ``heads.bank.backends.exact_forward``."""
    bank = Bank(shape, "float32", PlainTools())
    forward = jax.jit(bank.probabilities)

    def run(*arguments: Any) -> Any:
        with jax.default_matmul_precision("float32"):  # on GPUs the default is TensorFloat-32
            return forward(*arguments)

    return run


def bare_product() -> Callable[..., Any]:
    """See ``heads.bank.backends.bare_product``."""
    product: Callable[..., Any] = jax.jit(PlainTools().product, static_argnames=("transpose_a", "transpose_b"))
    return product


def _get_now(arrays: Arrays, where: Any) -> Arrays:
    return {name: array[where[:, 0], where[:, 1]] for name, array in arrays.items()}


def _put_now(arrays: Arrays, where: Any, values: Arrays) -> Arrays:
    place = where[:, 0], where[:, 1]
    return {name: array.at[place].set(values[name]) for name, array in arrays.items()}


_get = jax.jit(_get_now)
_put = jax.jit(_put_now, donate_argnums=0)
