"""Which backend a bank runs on.

``heads.bank.on_tensorflow`` and ``heads.bank.on_jax`` are the only files of the bank that import TensorFlow or JAX.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import keras

from features.runtime.errors import InputError
from features.runtime.memory import resident_budget
from heads.bank.program import Program
from heads.bank.shape import BankShape


def make_program(shape: BankShape, dtype: str, scored: int) -> Program:
    """Makes an empty bank on the Keras backend in use, which scores batches of ``scored`` rows."""
    program: Program = _backend().BankProgram(shape, dtype, scored)
    return program


def default_dtype() -> str:
    """``bfloat16`` where the machine multiplies it faster than float32, else ``float32``.

    That is on GPUs, and under TensorFlow on CPUs with AVX512_BF16 or AMX. XLA's own products on CPUs, which JAX uses,
    are slower in bfloat16.
    """
    return "bfloat16" if _backend().fast_in_bfloat16() else "float32"


def default_lanes(dtype: str) -> int:
    """Lanes of the banks of a study whose products are in ``dtype``, see ``BankShape.lanes``.

    It does not depend on the number of cores, as the size of a new study's bank follows from it.
    """
    return int(_backend().lanes(dtype))


def exact_forward(shape: BankShape) -> Callable[..., Any]:
    """Returns ``Bank.probabilities`` of all heads in float32: (weights, steps, settings, features) to (H, B, K)."""
    forward: Callable[..., Any] = _backend().exact_forward(shape)
    return forward


def bare_product() -> Callable[..., Any]:
    """Returns what ``Tools.product`` of a bank's program multiplies with, to be called by itself."""
    product: Callable[..., Any] = _backend().bare_product()
    return product


def skips_free_pages() -> bool:
    """Whether a bank skips pages that no head owns: they cost next to no time, so that it may have many of them."""
    return bool(_backend().skips_free_pages())


def compiles_by_shape() -> bool:
    """Whether even ``exact_forward`` is compiled anew for every shape of bank."""
    return bool(keras.backend.backend() == "jax")


def bank_budget() -> int:
    """Bytes that banks' features may take: ``resident_budget``, or half of what a GPU has left, where that is less.

    They reach a GPU through the host's memory, so both have to do.
    """
    left = _backend().device_memory_left()
    return resident_budget() if left is None else min(resident_budget(), left // 2)


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had, on the host or on the device."""
    return isinstance(error, MemoryError) or bool(_backend().lacks_memory(error))


def _backend() -> ModuleType:
    name = keras.backend.backend()
    if name == "tensorflow":
        from heads.bank import on_tensorflow

        return on_tensorflow
    if name == "jax":
        from heads.bank import on_jax

        return on_jax
    raise InputError("KERAS_BACKEND", expected="tensorflow or jax for the fused engine", found=name)
