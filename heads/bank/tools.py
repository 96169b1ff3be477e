"""What the bank needs beyond ``keras.ops``, where backends differ in speed and not in meaning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from keras import ops

from heads.bank.state import Used
from heads.model.functions import Tensor


class Tools(Protocol):
    """What the bank needs beyond ``keras.ops``, where backends differ in speed and not in meaning.

    Attributes:
        one_by_one: Whether pages and heads are run through one after the other, see ``heads.bank.places``.
        joined: Whether passes with products between them are one compiled program, see ``join``: there a pass can take
            over the memory of an array that is not needed after it.
    """

    one_by_one: bool
    joined: bool

    def product(self, a: Tensor, b: Tensor, *, transpose_a: bool = False, transpose_b: bool = False) -> Tensor:
        """Product over the last two axes, batched over the others; result in the operands' dtype."""

    def in_use(
        self, function: Callable[..., Any], used: Used, sizes: Sequence[int], *arrays: Tensor, in_order: bool = False
    ) -> Any:
        """Applies products to places: arrays (n, ...) to one (n, ...), or to several.

        Args:
            function: Makes of each place what does not depend on the others.
            used: Places in use; of others the result may be anything.
            sizes: Eighths of all places, up to all 8. Where a program may have several sizes, of which each is
                compiled, the least of these that holds the places in use is computed. Where nothing is compiled, just
                those in use are.
            arrays: What it is given.
            in_order: Whether the function has to be given places as ``used`` lists them.
        """

    def fuse(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns the function compiled as one program, or as it is."""

    def join(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """``fuse`` for passes with the products between them, where these are as fast within one program."""

    def seal(self, results: Any) -> Any:
        """Hands on what one branch of a condition makes, so that no compiler computes the other branch, too."""


class PlainTools:
    """``keras.ops`` as they are: for eager use, and where the caller compiles the whole program."""

    joined = True

    def __init__(self, *, one_by_one: bool = False) -> None:
        self.one_by_one = one_by_one

    def product(self, a: Tensor, b: Tensor, *, transpose_a: bool = False, transpose_b: bool = False) -> Tensor:
        """See ``Tools``."""
        return ops.matmul(ops.swapaxes(a, -1, -2) if transpose_a else a, ops.swapaxes(b, -1, -2) if transpose_b else b)

    def in_use(
        self, function: Callable[..., Any], used: Used, sizes: Sequence[int], *arrays: Tensor, in_order: bool = False
    ) -> Any:
        """See ``Tools``; computes all places of the one lane that there is, since compiled shapes are fixed."""
        del used, sizes, in_order
        return function(*arrays)

    def fuse(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """See ``Tools``."""
        return function

    def join(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """See ``Tools``."""
        return function

    def seal(self, results: Any) -> Any:
        """See ``Tools``."""
        return results
