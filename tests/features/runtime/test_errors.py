"""Expected errors are one line, whatever is done with them."""

from __future__ import annotations

import pickle
from copy import copy

import pytest
from conftest import build_store

from features.runtime.errors import BottleneckError, InputError

ERROR = InputError("a.h5", field="rows", expected="some", found=0, hint="add one")


def test_it_names_file_field_expectation_and_finding():
    assert str(ERROR) == "a.h5: rows: expected some, found 0; add one"


def test_a_message_is_one_line():
    assert str(BottleneckError("first\n  second")) == "first second"


@pytest.mark.parametrize("again", [copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_copies_and_pickles(again):
    error = again(ERROR)
    assert (type(error), str(error), error.field, error.exit_status) == (InputError, str(ERROR), "rows", 2)


def test_within_puts_a_file_in_front_and_keeps_the_rest():
    outer = ERROR.within("b.h5")
    assert (str(outer), outer.field) == (f"b.h5: {ERROR}", "rows")
    assert str(ERROR).startswith("a.h5")


def test_a_refused_split_is_such_an_error(tmp_path):
    from search.setup.data import load_data

    store = build_store(tmp_path / "few.h5", rows=6)
    with pytest.raises(InputError, match=r"few\.h5: split: expected at least"):
        load_data(store, validation=None, test=None, validation_share=0.15, test_share=0.15, seed=0)
