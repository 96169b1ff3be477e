"""What it costs to use a study's heads: measured once, kept while stores and trials are the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import build_store
from ended_study import EndedStudy, end_study

from features.rows.feed import Feed
from features.store.reader import FeatureStore
from features.store.source import FeatureSource
from heads.model.build import build_head
from heads.model.own import OwnSpec
from heads.model.spec import HeadSpec
from heads.prediction import speed
from heads.prediction.speed import Pace, milliseconds_per_row, multiply_adds
from search.finish import cost
from search.finish.cost import cost_of_use
from search.finish.searched import Searched
from search.record.costs import CostOfUse, StoreCost
from search.setup.own_head import OwnFunction, OwnHead, OwnHeadRecord
from search.setup.stores import StudyData
from search.trials.notes import TrialNotes
from search.trials.ranking import ranking


@pytest.fixture(scope="module")
def ended(tmp_path_factory) -> EndedStudy:
    return end_study(tmp_path_factory.mktemp("cost"))


def test_an_untrained_backbone_is_nobodys_to_use_and_heads_are_measured(ended, monkeypatch):
    monkeypatch.setattr(cost, "milliseconds_per_image", None)  # is not asked
    found = cost_of_use(ended.searched)
    numbers = [f"{trial.number}" for trial in ranking(ended.study)]
    assert [(one.name, one.backbone, one.views, one.milliseconds) for one in found.stores] == [
        ("", "mobilenet, alpha 0.25", 1, None)
    ]
    assert sorted(found.heads) == sorted(numbers)
    assert all(one > 0 for one in found.heads.values())
    assert found.of(int(numbers[0]), "") is None
    assert CostOfUse.from_dict(found.to_dict()) == found


def test_heads_that_a_function_no_longer_makes_cost_nobody_knows_what(ended, monkeypatch):
    def build(trial, feature_shape, classes):
        trial.suggest_float("new since", 0, 1)

    function = OwnFunction(build, OwnHeadRecord(function="mine:build"))
    own = OwnHead.for_data(function, ended.study_data.first)
    monkeypatch.setattr(TrialNotes, "head", property(lambda _: OwnSpec("mine:build", {"units": 8})))
    found = cost_of_use(replace(ended.searched, space=own))
    assert set(found.heads.values()) == {None}


def test_what_was_measured_stays_while_stores_and_trials_are_the_same(ended, monkeypatch):
    first = cost_of_use(ended.searched)
    monkeypatch.setattr(cost, "milliseconds_per_row", lambda model, shape: 7.0)
    assert cost_of_use(ended.searched, first) is first
    fewer = replace(first, heads=dict(list(first.heads.items())[1:]))
    assert set(cost_of_use(ended.searched, fewer).heads.values()) == {7.0}
    others = replace(first, stores=(replace(first.stores[0], fingerprint="other", milliseconds=3.0),))
    assert cost_of_use(ended.searched, others).stores == first.stores


def with_stores(ended: EndedStudy, stores: dict[str, FeatureSource]) -> Searched:
    """The same study, of several stores of which all trials took the first."""
    named = {
        name: replace(ended.data, train=Feed(one, ended.data.train.rows, memory_bytes=0))
        for name, one in stores.items()
    }
    return replace(ended.searched, data=StudyData(named))


def opened(path: Path, monkeypatch: pytest.MonkeyPatch, *, views: Sequence[str] = ("identity",), **header: Any) -> Any:
    store = FeatureStore(build_store(path, rows=96, views=views))
    monkeypatch.setattr(store, "header", replace(store.header, **header))
    return store


def test_each_backbone_is_measured_once_and_counts_in_each_view(ended, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(cost, "milliseconds_per_image", lambda spec: asked.append(spec) or 2.5)
    monkeypatch.setattr(cost, "milliseconds_per_row", lambda model, shape: 0.25)
    one = opened(tmp_path / "one.h5", monkeypatch, views=("identity", "flip"), weights="imagenet")
    two = opened(tmp_path / "two.h5", monkeypatch, weights="imagenet")
    three = opened(tmp_path / "three.h5", monkeypatch, weights="imagenet", image_size=96)
    found = cost_of_use(with_stores(ended, {"": one, "two": two}))
    assert [(told.name, told.views, told.milliseconds) for told in found.stores] == [("", 2, 5.0), ("two", 1, 2.5)]
    assert len(asked) == 1
    assert set(found.heads.values()) == {0.5}  # in two views
    again = cost_of_use(with_stores(ended, {"": one, "three": three}), found)
    assert again.stores[0] == found.stores[0]
    assert [spec.size for spec in asked] == [64, 96]


def test_features_from_elsewhere_have_no_backbone(ended, tmp_path, monkeypatch):
    store = opened(tmp_path / "store.h5", monkeypatch, backbone="unknown", weights="unknown", alpha=None)
    found = cost_of_use(with_stores(ended, {"": store}))
    assert (found.stores[0].backbone, found.stores[0].milliseconds) == ("unknown", None)
    assert None not in found.heads.values()


def test_a_time_is_told_by_store_and_trial():
    store = StoreCost(name="a", fingerprint="f", backbone="net", image_size=8, feature_shape=(1, 1, 2), views=3)
    told = CostOfUse(stores=(replace(store, milliseconds=4.0), replace(store, name="b")), heads={"1": 0.5, "2": None})
    assert [told.of(1, "a"), told.of(2, "a"), told.of(3, "a"), told.of(1, "b"), told.of(1, "c")] == [4.5] + [None] * 4
    assert told.holds_of({"a": "f", "b": "f"}, [1, 2])
    assert not told.holds_of({"a": "f", "b": "f"}, [1, 3])
    assert not told.holds_of({"a": "f"}, [1])


def test_a_heads_size_is_what_its_products_multiply():
    shape = (3, 4, 8)
    for spec in (HeadSpec(conv_width=16), HeadSpec(conv_width=32, pooling="average", dense_layers=2, dense_units=48)):
        model = build_head(spec, shape, 5)
        kernels = {layer.name: layer.kernel.shape for layer in model.layers if hasattr(layer, "kernel")}
        products = {name: int(kernel[-2] * kernel[-1]) for name, kernel in kernels.items()}
        products["conv"] *= 12
        assert multiply_adds(spec, shape, 5) == sum(products.values())
    assert milliseconds_per_row(model, shape) > 0


def test_a_heads_time_is_that_of_one_row_in_milliseconds(monkeypatch):
    now, rows = [0.0], []

    def predict_batch(model, features, size):
        rows.append(len(features))
        now[0] += 0.5

    monkeypatch.setattr(speed, "predict_batch", predict_batch)
    monkeypatch.setattr(speed, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    assert milliseconds_per_row(None, (7, 7, 64)) == pytest.approx(500 / rows[0])
    assert rows[0] == speed.MOST_ROWS
    assert milliseconds_per_row(None, (1024, 1024, 2)) == pytest.approx(500 / 2)


def test_of_heads_of_several_sizes_the_larger_one_costs_more(ended, monkeypatch):
    monkeypatch.setattr(cost, "milliseconds_per_row", lambda model, shape: model.count_params() / 1000)
    found = cost_of_use(ended.searched).heads
    widths = {f"{trial.number}": TrialNotes.of(trial).spec.conv_width for trial in ranking(ended.study)}
    averaged = {f"{trial.number}" for trial in ranking(ended.study) if TrialNotes.of(trial).spec.pooling != "flatten"}
    assert len({widths[number] for number in averaged}) > 1
    ordered = sorted(averaged, key=widths.__getitem__)
    assert found[ordered[0]] < found[ordered[-1]]


def test_the_pace_is_the_line_through_what_was_measured():
    pace = Pace.through({1_000_000: 3.0, 3_000_000: 5.0})
    assert (pace.start, pace.each) == pytest.approx((2.0, 1.0))
    assert pace.of(2_000_000) == pytest.approx(4.0)
    assert Pace.through({1_000_000: 3.0}) == (3.0, 0.0)
    noise = Pace.through({1_000_000: 5.0, 3_000_000: 3.0})  # larger heads take no less
    assert (noise.start, noise.each) == pytest.approx((4.0, 0.0))
    steep = Pace.through({1_000_000: 1.0, 3_000_000: 5.0})
    assert (steep.start, steep.each) == pytest.approx((0.0, 1.6))
