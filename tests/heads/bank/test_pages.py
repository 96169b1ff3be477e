"""The places of the bank: what goes into pages comes out of them, and nobody shares one. Runs on either backend."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from small_bank import SHAPE, SPECS, shape_of

from heads.bank.packing import listed, named, pack, unpack
from heads.bank.pages import FREE, PageTable
from heads.bank.shape import BankShape, pages_of
from heads.model.spec import HeadSpec
from heads.model.weights import initial_weights


@settings(max_examples=50)
@given(specs=st.lists(SPECS, min_size=1, max_size=3), seed=st.integers(0, 5))
def test_packed_and_unpacked_is_the_same(specs, seed):
    shape = shape_of()
    for spec in specs:
        weights = initial_weights(spec, SHAPE, 4, seed=seed)
        laid = pack(shape, spec, named(spec, weights))
        assert {sort: set(arrays) for sort, arrays in laid.items()} == {s: set(a) for s, a in shape.arrays.items()}
        back = listed(spec, unpack(shape, spec, laid))
        for one, other in zip(weights, back, strict=True):
            np.testing.assert_array_equal(one, other)
        total = sum(int(np.count_nonzero(array)) for arrays in laid.values() for array in arrays.values())
        assert total == sum(int(np.count_nonzero(array)) for array in weights)  # all else is padding


@settings(max_examples=50)
@given(st.lists(st.tuples(st.booleans(), SPECS), max_size=40), st.integers(9, 12), st.integers(1, 3))
def test_places_are_never_owned_twice(moves, pages, lanes):
    shape = replace(shape_of(pages), slots=4, tiles=7, lanes=lanes)
    table = PageTable(shape)
    owned: dict[int, dict[str, list[int]]] = {}
    turn = count()
    for arrives, spec in moves:
        if arrives and table.has_room(spec):
            slot = table.place(spec)
            assert slot not in owned
            owned[slot] = {sort: places.tolist() for sort, places in table.places_of(slot).items()}
            assert (len(owned[slot]["pages"]), len(owned[slot]["tiles"])) == (pages_of(spec), shape.tiles_of(spec))
        elif not arrives and owned:
            slot = sorted(owned)[next(turn) % len(owned)]
            released = {sort: places.tolist() for sort, places in table.release(slot).items()}
            assert released == owned.pop(slot)
        for sort, free in (("pages", table.free), ("tiles", table.free_tiles), ("slots", table.free_slots)):
            held = [place for places in owned.values() for place in places[sort]]
            assert len(set(held)) == len(held) == shape.places[sort] - free
        for slot, places in owned.items():
            assert table.pages_of_slot(slot).tolist() == places["pages"]
            assert table.page_in_head[places["pages"]].tolist() == list(range(len(places["pages"])))
        layout = table.layout()
        for name in ("used_pages", "used_pooled", "used_tiles", "used_slots"):
            listed, ranks = np.atleast_2d(layout[name]), np.atleast_2d(layout[f"{name}_ranks"])
            assert (np.take_along_axis(listed, ranks, axis=1) == np.arange(listed.shape[1])).all()
        assert sorted(layout["used_slots"][: layout["used_slots_count"]].tolist()) == sorted(owned)
        used = [
            start + places[:much]
            for start, places, much in zip(
                shape.lane_starts, layout["used_pages"], layout["used_pages_count"], strict=True
            )
        ]
        assert np.concatenate(used).tolist() == np.flatnonzero(table.owner != FREE).tolist()
        assert all((shape.lane_of(mine) == lane).all() for lane, mine in enumerate(used))
        tiles = layout["used_tiles"][: layout["used_tiles_count"]]
        lanes_of_tiles = shape.lane_of(table.page_of_tile[tiles]).tolist()
        assert lanes_of_tiles == sorted(lanes_of_tiles)
        assert layout["tiles_in_lane"].tolist() == [lanes_of_tiles.count(lane) for lane in range(lanes)]
        for page, tiles in enumerate(layout["tiles_of_page"]):
            for part, tile in enumerate(tiles[: layout["tile_count"][page]]):
                assert (table.page_of_tile[tile], table.part_of_tile[tile]) == (page, part)
    assert (table.owner == FREE).sum() == table.free


@given(st.integers(1, 40), st.integers(1, 5))
def test_each_page_lies_in_one_lane_and_a_head_is_spread_over_them(pages, lanes):
    shape = replace(shape_of(), pages=pages, lanes=lanes)
    every = np.arange(pages)
    for lane, start in enumerate(shape.lane_starts):
        mine = every[shape.lane_of(every) == lane]
        assert ((start <= mine) & (mine < start + shape.lane_pages)).all()
        assert 0 <= start <= pages - shape.lane_pages
    table = PageTable(shape)
    table.place(HeadSpec(conv_width=16 * max(1, pages // 2), pooling="average"))
    in_use = np.bincount(shape.lane_of(np.flatnonzero(table.owner != FREE)), minlength=lanes)
    whole = in_use[np.bincount(shape.lane_of(every), minlength=lanes) == shape.lane_pages]
    assert whole.max() - whole.min() <= 1


def test_a_bank_compiles_only_what_its_study_uses():
    plain = BankShape.covering([HeadSpec(dropout=0)], pages=8, feature_shape=(8, 8, 2048), classes=4, batch=100)
    assert (plain.slots, plain.tiles, plain.units, plain.dense_layers, plain.dropout) == (2, 8, 4, 0, False)
    assert set(plain.page_arrays) == {"kernel", "beta", "mean", "variance"}
    assert plain.tile_arrays == {"tiles": (16, 64, 4)}
    pooled = BankShape.covering(
        [HeadSpec(pooling="max", batch_norm=False)], pages=8, feature_shape=(8, 8, 2048), classes=4, batch=100
    )
    assert pooled.page_arrays == {"kernel": (16, 2048), "pooled": (16, 4)}
    assert (pooled.tiles, pooled.tile_arrays) == (0, {})


def test_only_what_heads_need_is_counted_as_work():
    spec = HeadSpec(conv_width=64, dropout=0)
    shape = BankShape.covering([spec], pages=8, feature_shape=(8, 8, 2048), classes=4, batch=100)
    assert shape.step_flops([spec, spec]) == 2 * 100 * 128 * 64 * (2 * 2048 + 3 * 4)
    deep = replace(spec, pooling="average", dense_layers=2, dense_units=10)
    assert shape.step_flops([deep]) == 2 * 100 * (2 * 64 * 64 * 2048 + 3 * 64 * 10 + 3 * 10 * (10 + 4))
