"""Functions of many heads at once, chosen by codes: a code is a place in the names that a bank was made for.

The functions themselves are those of ``heads.model.functions``. A code for each leading index computes every function
for all of them and chooses; a single code, of one page or one head, computes the one function that it names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from keras import ops, tree

from heads.model.functions import ACTIVATIONS, Tensor

Function = Callable[..., Any]
Seal = Callable[[Any], Any]
"""Hands on what one branch of a condition makes, see ``choose``."""


def as_deep(vector: Tensor, array: Tensor) -> Tensor:
    """Adds axes to the end of ``vector`` until it broadcasts over ``array``."""
    return ops.reshape(vector, (*vector.shape, *[1] * (len(array.shape) - len(vector.shape))))


def unsealed(results: Any) -> Any:
    """The seal of code that runs as it is written."""
    return results


def choose(functions: Sequence[Function], code: Tensor, *arrays: Tensor, seal: Seal = unsealed) -> Any:
    """Returns what the chosen function makes of the arrays: an array, or a tuple of arrays.

    Args:
        functions: Those that there are; their results are alike in shape and dtype.
        code: int32, a place among them. A scalar runs that function alone; else (n,), and each leading index of the
            results is of its own function.
        arrays: What the function is given.
        seal: What the results of one function go through. Without one a compiler may take a condition on cheap
            functions for a choice between their results, and compute them all.
    """
    if len(code.shape) == 0:
        return _run_one(functions, code, arrays, seal)
    results = [function(*arrays) for function in functions]
    chosen = results[0]
    for place, result in enumerate(results[1:], 1):
        chosen = tree.map_structure(
            lambda new, old, place=place: ops.where(as_deep(ops.equal(code, place), new), new, old), result, chosen
        )
    return chosen


def in_own_kernel(function: Function, code: Tensor, *arrays: Tensor) -> Any:
    """Runs a function in a kernel of its own where ``code`` is a scalar.

    Compilers join what they can: a pass whose result is written into a part of an array would be joined with that
    writing, which runs on one core and one number at a time.
    """
    return choose((function,), code, *arrays)


def _run_one(functions: Sequence[Function], code: Tensor, arrays: Sequence[Tensor], seal: Seal) -> Any:
    first, *others = functions
    if others:
        return ops.cond(ops.equal(code, 0), lambda: seal(first(*arrays)), lambda: _last(others, code - 1, arrays, seal))
    # The condition always holds, which no compiler knows.
    return ops.cond(code >= 0, lambda: first(*arrays), lambda: tree.map_structure(ops.zeros_like, first(*arrays)))


def _last(functions: Sequence[Function], code: Tensor, arrays: Sequence[Tensor], seal: Seal) -> Any:
    return functions[0](*arrays) if len(functions) == 1 else _run_one(functions, code, arrays, seal)


def activations(names: Sequence[str]) -> list[Function]:
    """Returns the functions of these names, of one array."""
    return [_on_keras_ops(ACTIVATIONS[name].forward) for name in names]


def slopes(names: Sequence[str]) -> list[Function]:
    """Returns their derivatives."""
    return [_on_keras_ops(ACTIVATIONS[name].slope) for name in names]


def _on_keras_ops(formula: Function | None) -> Function:
    assert formula is not None, "no activation of a search"
    return lambda values: formula(ops, values)
