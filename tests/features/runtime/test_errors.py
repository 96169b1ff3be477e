"""Expected errors are one line, whatever is done with them."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from copy import copy, deepcopy

import pytest
from conftest import build_store
from hypothesis import given, settings
from hypothesis import strategies as st

from features.runtime.errors import BottleneckError, DiskFullError, InputError
from features.runtime.text import one_line

ERROR = InputError("a.h5", field="rows", expected="some", found=0, hint="add one")


def test_it_names_file_field_expectation_and_finding():
    assert str(ERROR) == "a.h5: rows: expected some, found 0; add one"


def test_a_message_is_one_line():
    assert str(BottleneckError("first\n  second\r\n")) == "first second"


def test_a_name_in_it_is_shown_as_it_is_and_reaches_no_terminal():
    said = str(InputError("two  spaces/a\x1b[31m\tb.h5", expected="some", found="\x07"))
    assert said == r"two  spaces/a\x1b[31m\tb.h5: expected some, found \x07"
    assert str(InputError(said, expected="one")) == f"{said}: expected one"


@pytest.mark.parametrize("again", [copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_copies_and_pickles(again):
    error = again(ERROR)
    assert (type(error), str(error), error.field, error.exit_status) == (InputError, str(ERROR), "rows", 2)


def test_within_puts_a_file_in_front_and_keeps_the_rest():
    outer = ERROR.within("b.h5")
    assert (str(outer), outer.field) == (f"b.h5: {ERROR}", "rows")
    assert str(ERROR).startswith("a.h5")


def test_a_refused_split_is_such_an_error(tmp_path):
    from made_data import made_data

    store = build_store(tmp_path / "few.h5", rows=6)
    with pytest.raises(InputError, match=r"few\.h5: split: expected at least"):
        made_data(store, share=0.15)


def kinds(kind: type[BottleneckError] = BottleneckError) -> list[type[BottleneckError]]:
    """The class and all that derive from it in the packages."""
    import features.images.decode  # noqa: F401
    import heads.model.fit
    import heads.prediction.download  # noqa: F401  where errors are derived

    return [kind, *(deeper for below in kind.__subclasses__() for deeper in kinds(below))]


def in_a_thread(error: BaseException) -> BaseException:
    def raising() -> None:
        raise error

    with ThreadPoolExecutor(1) as pool, pytest.raises(type(error)) as caught:
        pool.submit(raising).result()
    return caught.value


BORDERS = {
    "copy": copy,
    "deepcopy": deepcopy,
    "thread": in_a_thread,
    **{f"pickle {number}": lambda error, n=number: pickle.loads(pickle.dumps(error, n)) for number in (0, 2, 5)},
}
texts = st.text(max_size=30)


@pytest.mark.parametrize("border", BORDERS)
@given(words=st.tuples(texts, texts, texts, texts), field=st.none() | texts, hint=st.none() | texts)
@settings(max_examples=30)
def test_every_kind_of_error_crosses_every_border_with_class_text_and_status(border, words, field, hint):
    found = kinds()
    assert {"InputError", "UndecodableError", "DivergedError", "RemoteError"} <= {kind.__name__ for kind in found}
    where, expected, saw, outer = words
    for kind in found:
        told = {"field": field, "expected": expected, "found": saw, "hint": hint}
        if issubclass(kind, DiskFullError) or kind.__name__ == "NotSavedError":  # of a file, and what is wrong
            error = kind(where, expected)
        else:
            error = kind(where, **told) if issubclass(kind, InputError) else kind(" ".join(words))
        error.__cause__ = ValueError("below")
        once = BORDERS[border](error)
        for again in (once, BORDERS[border](once)):
            assert type(again) is kind
            assert (str(again), again.args, again.exit_status) == (str(error), error.args, error.exit_status)
            assert str(again).isprintable()
        if isinstance(error, InputError):
            around = error.within(outer)
            again = BORDERS[border](around)
            assert type(around) is type(again) is kind
            assert str(again) == str(around) == one_line(f"{outer}: {error}")
            assert again.field == around.field == error.field == field
