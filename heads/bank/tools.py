"""What the bank needs beyond ``keras.ops``, where backends differ in speed and not in meaning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from keras import ops

from heads.bank.functions import Tensor


class Tools(Protocol):
    """What the bank needs beyond ``keras.ops``, where backends differ in speed and not in meaning.

    Attributes:
        one_by_one: Whether pages and heads are run through one after the other, see ``heads.bank.places``.
    """

    one_by_one: bool

    def product(self, a: Tensor, b: Tensor, *, transpose_a: bool = False, transpose_b: bool = False) -> Tensor:
        """Product over the last two axes, batched over the others; result in the operands' dtype."""

    def fuse(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns the function compiled as one program, or as it is."""


class PlainTools:
    """``keras.ops`` as they are: for eager use, and where the caller compiles the whole program."""

    def __init__(self, *, one_by_one: bool = False) -> None:
        self.one_by_one = one_by_one

    def product(self, a: Tensor, b: Tensor, *, transpose_a: bool = False, transpose_b: bool = False) -> Tensor:
        """See ``Tools``."""
        return ops.matmul(ops.swapaxes(a, -1, -2) if transpose_a else a, ops.swapaxes(b, -1, -2) if transpose_b else b)

    def fuse(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """See ``Tools``."""
        return function
