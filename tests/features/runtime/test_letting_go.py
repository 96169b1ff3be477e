"""Where a call ends early, what it had in memory goes, though the error is kept."""

from __future__ import annotations

import weakref

import numpy as np
import pytest

from features.runtime.errors import InputError
from features.runtime.letting_go import frames_cleared_on_failure

held: list[weakref.ref[np.ndarray]] = []


def fails(with_what: BaseException, *, out_of: Exception | None = None) -> None:
    features = np.zeros(8)
    held.append(weakref.ref(features))
    if out_of is None:
        raise with_what
    try:
        fails(out_of)
    except type(out_of):
        raise with_what from None


@pytest.mark.parametrize("error", [KeyboardInterrupt(), InputError("store.h5", expected="a store")], ids=repr)
@pytest.mark.parametrize("cause", [None, ValueError("first")], ids=repr)
def test_a_stop_or_a_refusal_holds_nothing(error, cause):
    held.clear()
    with pytest.raises(type(error)) as kept, frames_cleared_on_failure():
        fails(error, out_of=cause)
    assert kept.value is error
    assert kept.traceback[-1].name == "fails"
    assert [found() for found in held] == [None] * (1 if cause is None else 2)


def test_nor_does_a_function_within_another_one_hold_what_that_had():
    def outer() -> None:
        features = np.zeros(8)
        held.append(weakref.ref(features))

        def inner() -> None:
            fails(KeyboardInterrupt(features.shape))

        inner()

    held.clear()
    with pytest.raises(KeyboardInterrupt) as kept, frames_cleared_on_failure():
        outer()
    assert kept.value.args == ((8,),)
    assert kept.traceback[-1].name == "outer"
    assert [found() for found in held] == [None, None]


def test_what_nobody_expects_can_be_looked_into():
    held.clear()
    with pytest.raises(ZeroDivisionError) as kept, frames_cleared_on_failure():
        fails(ZeroDivisionError())
    assert kept.value
    assert held[0]() is not None


def test_what_the_caller_was_at_stays_the_callers():
    held.clear()
    with pytest.raises(KeyboardInterrupt) as kept:
        try:
            fails(ZeroDivisionError())
        except ZeroDivisionError:
            with frames_cleared_on_failure():
                fails(KeyboardInterrupt())
    assert isinstance(kept.value.__context__, ZeroDivisionError)
    assert [found() is not None for found in held] == [True, False]
