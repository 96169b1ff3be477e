"""HeadSpec: JSON round trip, identity, number of parameters, and what is refused."""

import json
import re
from dataclasses import asdict, fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heads.model.spec import ACTIVATIONS, OPTIMIZERS, POOLINGS, SCHEDULES, HeadSpec

shares = st.floats(0, 1, exclude_max=True)
specs = st.builds(
    HeadSpec,
    conv_width=st.integers(1, 16).map(lambda pages: 16 * pages),
    batch_norm=st.booleans(),
    activation=st.sampled_from(ACTIVATIONS),
    dropout=shares,
    pooling=st.sampled_from(POOLINGS),
    dense_layers=st.integers(0, 2),
    dense_units=st.integers(1, 128),
    dense_dropout=shares,
    learning_rate=st.floats(0, 1, exclude_min=True),
    weight_decay=st.floats(0, 1),
    label_smoothing=shares,
    plateau_factor=st.floats(0, 1, exclude_min=True, exclude_max=True),
    plateau_patience=st.integers(1, 50),
    optimizer=st.sampled_from(OPTIMIZERS),
    momentum=shares,
    schedule=st.sampled_from(SCHEDULES),
)


@given(spec=specs)
def test_json_and_back_is_the_same_head(spec):
    text = json.dumps(spec.to_dict(), allow_nan=False)
    again = HeadSpec.from_dict(json.loads(text))
    assert again == spec
    assert again.identity == spec.identity
    assert re.fullmatch("[0-9a-f]{16}", spec.identity)


@given(one=specs, other=specs)
def test_equal_heads_and_only_these_have_one_identity(one, other):
    assert (one == other) == (one.identity == other.identity)


@given(spec=specs, data=st.data())
def test_every_field_is_part_of_the_identity(spec, data):
    other = data.draw(specs)
    for field in fields(HeadSpec):
        changed = replace(spec, **{field.name: getattr(other, field.name)})
        same = getattr(spec, field.name) == getattr(other, field.name)
        assert (changed.identity == spec.identity) == same, field.name


@pytest.mark.parametrize(
    ("spec", "idle"),
    [
        (HeadSpec(), {"dense_units": 16, "dense_dropout": 0.5, "optimizer": "adamw", "momentum": 0.5}),
        (HeadSpec(dense_layers=1, dense_units=16, optimizer="adamw"), {"optimizer": "adam", "momentum": 0.0}),
        (HeadSpec(schedule="cosine", optimizer="sgd"), {"plateau_factor": 0.9, "plateau_patience": 9}),
    ],
)
def test_heads_that_differ_by_what_has_no_effect_on_them_are_one_in_effect(spec, idle):
    assert replace(spec, **idle).in_effect == spec.in_effect
    assert replace(spec, **idle) != spec
    for name, other in (("optimizer", "sgd"), ("learning_rate", 0.5), ("dense_layers", 2), ("dropout", 0.25)):
        changed = replace(spec, **{name: other})
        assert (changed.in_effect == spec.in_effect) == (changed == spec), name


@given(spec=specs)
def test_what_has_an_effect_is_as_it_was(spec):
    kept = spec.in_effect
    assert kept.in_effect == kept
    used = {"dense_units", "dense_dropout"} if spec.dense_layers else set()
    used |= {"optimizer", "momentum"} if spec.optimizer == "sgd" else set()
    used |= {"plateau_factor", "plateau_patience"} if spec.schedule == "plateau" else set()
    idle = {"dense_units", "dense_dropout", "optimizer", "momentum", "plateau_factor", "plateau_patience"} - used
    for field in fields(HeadSpec):
        value = HeadSpec() if field.name in idle else spec
        assert getattr(kept, field.name) == getattr(value, field.name), field.name


def test_numbers_that_are_equal_are_one_head_whatever_their_type():
    spec = HeadSpec(
        conv_width=np.int64(64),
        dropout=np.float32(0.5),
        dense_dropout=-0.0,
        learning_rate=np.float64(1e-3),
        weight_decay=0,
    )
    assert spec == HeadSpec()
    assert spec.identity == HeadSpec().identity
    assert {type(value) for value in asdict(spec).values()} == {bool, int, float, str}
    assert HeadSpec(learning_rate=1e-5).identity != HeadSpec(learning_rate=2e-5).identity


def test_the_identity_of_the_articles_head_is_for_ever():
    assert HeadSpec().identity == "1cd43a8d2c7f7559"


def test_what_came_later_is_told_only_where_it_differs():
    assert not {"optimizer", "momentum", "schedule"} & HeadSpec().to_dict().keys()
    assert HeadSpec(optimizer="sgd").to_dict()["optimizer"] == "sgd"


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("conv_width", [0, -16, 8, 65, 64.0, "64", True, None]),
        ("batch_norm", [1, 0, "true", None]),
        ("activation", ["tanh", "ReLU", 3, None]),
        ("dropout", [-0.1, 1, 1.5, float("nan"), float("inf"), "0.5", True, None]),
        ("pooling", ["mean", "global", None]),
        ("dense_layers", [-1, 3, 1.0, True]),
        ("dense_units", [0, -1, 2.5]),
        ("dense_dropout", [-0.1, 1, float("nan")]),
        ("learning_rate", [0, -1e-3, float("nan"), float("inf")]),
        ("weight_decay", [-1e-9, float("nan"), float("inf")]),
        ("label_smoothing", [-0.1, 1, float("nan")]),
        ("plateau_factor", [0, 1, -1, float("nan")]),
        ("plateau_patience", [0, -3, 2.0, False]),
        ("optimizer", ["Adam", "rmsprop", None]),
        ("momentum", [-0.1, 1, float("nan")]),
        ("schedule", ["constant", None]),
    ],
)
def test_what_is_out_of_range_is_refused_naming_field_rule_and_value(name, values):
    for value in values:
        with pytest.raises(ValueError, match=f"^{name}: expected .+, found .+"):
            HeadSpec(**{name: value})
        with pytest.raises(ValueError, match=f"^{name}: expected "):
            HeadSpec.from_dict({**HeadSpec().to_dict(), name: value})


def test_every_field_has_values_that_are_refused():
    tested = test_what_is_out_of_range_is_refused_naming_field_rule_and_value.pytestmark[0].args[1]
    assert [name for name, _ in tested] == [field.name for field in fields(HeadSpec)]


def test_unknown_fields_and_other_schemas_are_refused():
    with pytest.raises(ValueError, match=r"conv_widht: expected one of activation, .*, found an unknown field"):
        HeadSpec.from_dict({"conv_widht": 64})
    with pytest.raises(ValueError, match="schema: expected 1, found 2"):
        HeadSpec.from_dict({**HeadSpec().to_dict(), "schema": 2})
    assert HeadSpec.from_dict({}) == HeadSpec()
