"""The places of the bank: what goes into pages comes out of them, and nobody shares one. Runs on either backend."""

from __future__ import annotations

from itertools import count

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from small_bank import SHAPE, SPECS, shape_of

from heads.bank.pages import FREE, PageTable, listed, named, pack, unpack
from heads.bank.shape import BankShape
from heads.model.spec import HeadSpec
from heads.model.weights import initial_weights


@settings(max_examples=50)
@given(specs=st.lists(SPECS, min_size=1, max_size=3), seed=st.integers(0, 5))
def test_packed_and_unpacked_is_the_same(specs, seed):
    shape = shape_of()
    for spec in specs:
        weights = initial_weights(spec, SHAPE, 4, seed=seed)
        in_pages, in_slot = pack(shape, spec, named(spec, weights))
        assert set(in_pages) == set(shape.page_arrays)
        assert set(in_slot) == set(shape.slot_arrays)
        back = listed(spec, unpack(shape, spec, in_pages, in_slot))
        for one, other in zip(weights, back, strict=True):
            np.testing.assert_array_equal(one, other)
        total = sum(int(np.count_nonzero(array)) for array in (*in_pages.values(), *in_slot.values()))
        assert total == sum(int(np.count_nonzero(array)) for array in weights)  # all else is padding


@settings(max_examples=50)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 4)), max_size=40))
def test_pages_are_never_owned_twice(moves):
    table = PageTable(10, 5)
    owned: dict[int, list[int]] = {}
    turn = count()
    for arrives, number in moves:
        if arrives and table.has_room(number):
            slot = table.place(number)
            assert slot not in owned
            owned[slot] = table.of(slot).tolist()
        elif not arrives and owned:
            slot = sorted(owned)[next(turn) % len(owned)]
            assert table.release(slot).tolist() == owned.pop(slot)
        held = [page for pages in owned.values() for page in pages]
        assert len(set(held)) == len(held) == 10 - table.free
        for slot, pages in owned.items():
            assert table.of(slot).tolist() == pages
            assert table.page_in_head[pages].tolist() == list(range(len(pages)))
    assert (table.owner == FREE).sum() == table.free


def test_a_bank_compiles_only_what_its_study_uses():
    plain = BankShape.covering([HeadSpec(dropout=0)], pages=8, feature_shape=(8, 8, 2048), classes=4, batch=100)
    assert (plain.slots, plain.units, plain.dense_layers, plain.dropout) == (2, 4, 0, False)
    assert set(plain.page_arrays) == {"kernel", "beta", "mean", "variance", "dense"}
    pooled = BankShape.covering(
        [HeadSpec(pooling="max", batch_norm=False)], pages=8, feature_shape=(8, 8, 2048), classes=4, batch=100
    )
    assert pooled.page_arrays == {"kernel": (16, 2048), "dense": (16, 1, 4)}
    assert plain.step_flops == 2 * 100 * 128 * 64 * (2 * 2048 + 3 * 4)
