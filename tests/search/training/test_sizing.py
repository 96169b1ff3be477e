"""The size of a study's bank: room for the heads that there can be, and not for the widest imaginable."""

from __future__ import annotations

from math import prod
from pathlib import Path

import pytest

from features.runtime.errors import InputError
from heads.bank.pages import PageTable
from heads.bank.shape import BankShape, pages_of
from heads.model.spec import HeadSpec
from search.setup.space import read_study_file
from search.setup.stores import ALONE
from search.training import sizing
from search.training.sizing import BankRequest, bank_shapes, whole_bank

STUDY = Path(__file__).parents[3] / "studies" / "heads.toml"


@pytest.fixture(scope="module")
def request_() -> BankRequest:
    space = read_study_file(STUDY).space
    return BankRequest(
        specs=space.extremes(),
        typical=space.typical(),
        feature_shape=(7, 7, 1280),
        classes=4,
        batch=93,
        folds=1,
        dtype="float32",
    )


def bank_shape(request: BankRequest, *, trials: int, pages: int | None) -> BankShape:
    """The bank for a study of one store."""
    return bank_shapes({ALONE: request}, trials=trials, pages=pages).first


def padded(pages: int, shape) -> int:
    """Numbers of a bank whose every page has the widest dense kernel, and a slot for the narrowest head."""
    of_page = 16 * (1280 + 3 + 49 * shape.units)
    of_slot = shape.units * (shape.units + 2) + (shape.units + 1) * shape.classes
    return pages * (of_page + of_slot)


def test_the_default_spaces_bank_is_less_than_half_of_a_padded_one(request_):
    shape = bank_shape(request_, trials=60, pages=None)
    values = sum(shape.places[sort] * prod(size) for sort, arrays in shape.arrays.items() for size in arrays.values())
    assert 0.2 < values / padded(shape.pages, shape) < 0.5


def test_every_head_of_the_space_finds_room_in_an_empty_bank(request_):
    shape = bank_shape(request_, trials=1, pages=request_.widest)
    for spec in (*request_.specs, *request_.typical):
        assert PageTable(shape).has_room(spec), spec


def test_so_does_the_widest_that_flattens_to_more_classes_than_units(request_):
    heads = [HeadSpec(conv_width=256, pooling="average", dense_layers=1, dense_units=16), HeadSpec(conv_width=16)]
    request = BankRequest(**{**vars(request_), "specs": heads, "typical": heads, "classes": 100})
    shape = bank_shape(request, trials=1, pages=request.widest)
    assert PageTable(shape).has_room(HeadSpec(conv_width=256))


def test_typical_heads_are_of_the_space_and_the_same_each_time(request_):
    space = read_study_file(STUDY).space
    assert space.typical() == list(request_.typical)
    widths = [spec.conv_width for spec in request_.typical]
    assert (min(widths), max(widths)) == (16, 256)
    assert {spec.pooling for spec in request_.typical} == {"flatten", "average", "max"}
    assert 100 < sum(widths) / len(widths) < 170
    assert any(spec.weight_decay == 0 for spec in request_.typical)


def test_a_bank_for_given_heads_has_just_their_places(request_):
    heads = request_.typical[:5]
    shape = whole_bank(BankRequest(**{**vars(request_), "specs": heads, "typical": ()}))
    table = PageTable(shape)
    for spec in heads:
        table.place(spec)
    assert (table.free, table.free_tiles, table.free_slots) == (0, 0, 0)
    assert shape.pages == sum(map(pages_of, heads))


def test_each_of_several_banks_may_have_all_pages_where_free_ones_cost_nothing(request_, monkeypatch):
    smaller = BankRequest(**{**vars(request_), "feature_shape": (7, 7, 256)})
    requests = {"large": request_, "small": smaller}
    monkeypatch.setattr(sizing, "skips_free_pages", lambda: True)
    shapes = bank_shapes(requests, trials=60, pages=None)
    assert {shape.pages for shape in shapes.by_store.values()} == {shapes.pages}
    assert shapes.first.feature_shape == request_.feature_shape
    monkeypatch.setattr(sizing, "skips_free_pages", lambda: False)
    shared = bank_shapes(requests, trials=60, pages=shapes.pages)
    assert {shape.pages for shape in shared.by_store.values()} == {max(request_.widest, shapes.pages // 2)}
    assert shared.pages == shapes.pages


def test_memory_is_that_of_all_banks_together(request_, monkeypatch):
    pages = request_.widest + 20
    monkeypatch.setattr(sizing, "bank_budget", lambda: 2 * pages * request_.page_bytes)
    one = bank_shapes({"a": request_}, trials=10**4, pages=None)
    two = bank_shapes({"a": request_, "b": request_}, trials=10**4, pages=None)
    assert one.pages == pages // 16 * 16
    assert two.pages == request_.widest
    monkeypatch.setattr(sizing, "bank_budget", lambda: request_.widest * request_.page_bytes)
    with pytest.raises(InputError, match="GB of memory for a bank of one head"):
        bank_shapes({"a": request_, "b": request_}, trials=60, pages=None)


def test_what_heads_say_of_many_rows_and_classes_is_planned_with(request_, monkeypatch):
    many = BankRequest(**{**vars(request_), "classes": 200, "feature_shape": (1, 1, 512)})
    scored = BankRequest(**{**vars(many), "scored": 50_000})
    shape = scored.shape(scored.widest)
    predictions = 4 * shape.slots * scored.scored * scored.classes
    assert scored.page_bytes * shape.pages > predictions
    in_folds = BankRequest(**{**vars(scored), "folds": 5})  # all may end at once
    assert in_folds.page_bytes * in_folds.shape(in_folds.widest).pages > 5 * predictions
    monkeypatch.setattr(sizing, "bank_budget", lambda: 2 * 128 * many.page_bytes)
    assert bank_shape(many, trials=10**4, pages=None).pages == 128
    with pytest.raises(InputError, match="GB of memory for a bank of one head of 200 classes"):
        bank_shape(scored, trials=10**4, pages=None)
    monkeypatch.setattr(sizing, "bank_budget", lambda: 10**12)
    assert bank_shape(scored, trials=200, pages=None) == bank_shape(many, trials=200, pages=None)
