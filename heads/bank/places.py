"""How a bank's places are run through: one after the other, or all at once.

On CPUs one after the other: what belongs to a page stays in the cache from one piece of work to the next, each page
runs the one function of its kind, and what is free is passed over. On GPUs all at once, every function for every place,
since a kernel for a page would leave most of the device idle. The functions are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from keras import backend, ops

from heads.bank.state import Arrays, Used
from heads.model.functions import Tensor

Sizes = dict[str, tuple[int, ...]]
"""Shape of one place of each result, float32 all of them."""


class Each(Protocol):
    """Applies a function to places."""

    def run(self, function: Callable[[Arrays], Arrays], arrays: Arrays, used: Used, results: Sizes) -> Arrays:
        """Returns what the function makes of each place in use, float32; of others anything finite or their own.

        Args:
            function: Makes results of the arrays of one place, or, all at once, of all places.
            arrays: (n, ...) each, of n places: pages, tiles or heads.
            used: Those in use.
            results: Shapes of what the function makes.
        """


class OneByOne:
    """One place after the other; free ones are left at zeros."""

    def run(self, function: Callable[[Arrays], Arrays], arrays: Arrays, used: Used, results: Sizes) -> Arrays:
        """See ``Each``."""
        count = used.places.shape[0]

        def body(number: Tensor, found: Arrays) -> Arrays:
            place = ops.take(used.places, number, axis=0)
            made = function({name: at(array, place) for name, array in arrays.items()})
            return {name: put(found[name], place, made[name]) for name in found}

        start = {name: ops.zeros((count, *size), "float32") for name, size in results.items()}
        found: Arrays = ops.fori_loop(0, used.count, body, start)
        return found


class AllAtOnce:
    """All places as one."""

    def run(self, function: Callable[[Arrays], Arrays], arrays: Arrays, used: Used, results: Sizes) -> Arrays:
        """See ``Each``."""
        del used, results
        return function(arrays)


def kept_as(dtype: str) -> str:
    """Returns the dtype in which places of a dtype are read and written one by one: 16-bit floats by their bits.

    XLA on CPUs has no operations on 16-bit floats, moving them included: it converts to float32 and back, and where one
    place of an array is read or written, it converts the whole array.
    """
    return "uint16" if dtype == "bfloat16" else dtype


def bits(array: Tensor) -> Tensor:
    """Returns the array in the dtype of ``kept_as``."""
    return ops.view(array, "uint16") if _is_bfloat16(array) else array


def at(array: Tensor, place: Tensor, dtype: str | None = None) -> Tensor:
    """Returns ``array[place]``, (n, ...) to (...), where ``array`` holds the bits of another dtype in that one."""
    found = ops.take(array, place, axis=0)
    return found if dtype is None or kept_as(dtype) == dtype else ops.view(found, dtype)


def put(array: Tensor, place: Tensor, value: Tensor, dtype: str | None = None) -> Tensor:
    """Returns the array with another value at one place, written in its dtype; of another dtype's bits, in that one."""
    start = (place, *[0] * (len(array.shape) - 1))
    return ops.slice_update(array, start, bits(ops.cast(value, dtype or array.dtype))[None])


def _is_bfloat16(array: Tensor) -> bool:
    return bool(backend.standardize_dtype(array.dtype) == "bfloat16")
