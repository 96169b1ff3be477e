"""Study files: what they may say, and what a trial draws from them."""

from __future__ import annotations

import re

import optuna
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from features.runtime.errors import InputError
from heads.model.spec import HeadSpec
from search.setup.options import study_options
from search.setup.space import ARTICLE, Range, Space, read_study_file

STUDIES = sorted((ROOT / "studies").glob("*.toml"))


def draw(space: Space, count: int, seed: int = 0) -> list[tuple[optuna.Trial, HeadSpec]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trials = [study.ask() for _ in range(count)]
    return [(trial, space.suggest(trial)) for trial in trials]


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_shipped_study_files_draw_valid_heads_and_every_trial_has_every_parameter(path):
    study_file = read_study_file(path)
    drawn = draw(study_file.space, 60)
    assert len({frozenset(trial.params) for trial, _ in drawn}) == 1
    assert len({spec.identity for _, spec in drawn}) > 40
    for field in study_file.space.parameters:
        assert len({getattr(spec, field) for _, spec in drawn}) > 1, field
    for field, value in study_file.space.fixed.items():
        assert {getattr(spec, field) for _, spec in drawn} == {value}


def test_the_guides_study_file_is_one_and_the_guide_names_every_option_that_it_may_set(tmp_path):
    guide = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
    (tmp_path / "study.toml").write_text(guide.partition("```toml\n")[2].partition("```")[0], encoding="utf-8")
    study_file = read_study_file(tmp_path / "study.toml")
    assert study_file.run == {"trials": 100, "patience": 10}
    heads = [spec for _, spec in draw(study_file.space, 60)]
    assert {head.conv_width for head in heads} == {16, 32, 48, 64}
    assert {head.weight_decay > 0 for head in heads} == {True, False}
    assert {head.batch_norm for head in heads} == {True}
    assert study_file.space.stores == ("small", "large")
    told = guide.partition("`[run]` takes")[2].partition(".")[0]
    assert re.findall(r"`(\w+)`", told) == [name for name, option in study_options() if option.in_file]


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_articles_head_enqueued_is_the_articles_head(path):
    space = read_study_file(path).space
    study = optuna.create_study()
    study.enqueue_trial(dict(space.parameters_of(ARTICLE)))
    drawn = space.suggest(study.ask())
    for field in space.parameters:
        assert getattr(drawn, field) == getattr(ARTICLE, field)


@given(
    low=st.integers(1, 8),
    steps=st.integers(0, 6),
    dropout=st.floats(0, 0.9),
    or_zero=st.booleans(),
    activations=st.lists(st.sampled_from(["relu", "gelu", "silu"]), min_size=1, max_size=3, unique=True),
    seed=st.integers(0, 100),
)
def test_a_space_survives_its_written_form_and_draws_the_same_from_it(low, steps, dropout, or_zero, activations, seed):
    data = {
        "conv_width": {"low": 16 * low, "high": 16 * (low + steps), "step": 16},
        "dropout": {"low": 0.0, "high": dropout},
        "weight_decay": {"low": 1e-6, "high": 1e-3, "log": True, "or_zero": or_zero},
        "activation": activations,
        "batch_norm": False,
    }
    space = Space.from_dict(data, "here")
    again = Space.from_dict(space.to_dict(), "there")
    assert again == space
    first, second = draw(space, 5, seed), draw(again, 5, seed)
    assert [spec for _, spec in first] == [spec for _, spec in second]
    for _, spec in first:
        assert 16 * low <= spec.conv_width <= 16 * (low + steps)
        assert spec.dropout <= dropout
        assert spec.activation in activations
        assert not spec.batch_norm
        assert 1e-6 <= spec.weight_decay <= 1e-3 or (or_zero and spec.weight_decay == 0)


BESIDE = {
    "a grid": ({"dropout": {"low": 0.1, "high": 0.7, "step": 0.3}}, {"dropout": 0.4}),
    "a grid of whole numbers": ({"dense_units": {"low": 16, "high": 116, "step": 50}}, {"dense_units": 66}),
    "a range": ({"dropout": {"low": 0.6, "high": 0.8}}, {"dropout": 0.6}),
    "numbers": ({"conv_width": [16, 48, 128]}, {"conv_width": 48}),
    "words": ({"pooling": ["average", "max"]}, {"pooling": "average"}),
    "a switch": ({"batch_norm": [False]}, {"batch_norm": False}),
    "above zero": ({"weight_decay": {"low": 1e-6, "high": 1e-2, "log": True}}, {"weight_decay": 1e-6}),
    "or zero": ({"dropout": {"low": 0.6, "high": 0.8, "or_zero": True}}, {"use_dropout": True, "dropout": 0.6}),
}


@pytest.mark.parametrize(("data", "nearest"), BESIDE.values(), ids=BESIDE.keys())
def test_of_what_a_space_cannot_express_it_has_the_nearest_value(data, nearest, recwarn):
    space = Space.from_dict(data, "here")
    assert space.beside(ARTICLE) == tuple(data)
    assert space.parameters_of(ARTICLE) == nearest
    study = optuna.create_study()
    study.enqueue_trial(dict(nearest))
    space.suggest(study.ask())
    assert study.trials[0].params == nearest
    assert not recwarn  # as Optuna warns of values that are not of the range


def test_what_a_space_expresses_is_as_it_is():
    data = {
        "dropout": {"low": 0.2, "high": 0.8, "step": 0.1},
        "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    }
    data |= {"weight_decay": {"low": 1e-6, "high": 1e-2, "log": True, "or_zero": True}, "dense_layers": [1, 0]}
    space = Space.from_dict(data, "here")
    assert space.beside(ARTICLE) == ()
    expressed = {"dropout": 0.5, "learning_rate": 1e-3, "use_weight_decay": False, "dense_layers": 0}
    assert space.parameters_of(ARTICLE) == expressed  # the decay that is switched off is drawn


def test_or_zero_draws_both(tmp_path):
    space = Space({"weight_decay": Range(low=1e-6, high=1e-2, log=True, or_zero=True)}, {})
    values = [spec.weight_decay for _, spec in draw(space, 60)]
    assert 15 < sum(value == 0 for value in values) < 45


@pytest.mark.parametrize(
    ("data", "idle"),
    [
        ({"dropout": [0.1, 0.2], "momentum": [0.8, 0.9]}, ["momentum"]),
        ({"optimizer": ["adam", "adamw"], "dense_layers": [0, 1], "dense_units": [16, 32]}, ["optimizer"]),
        ({"optimizer": ["adam", "sgd"], "momentum": [0.8, 0.9]}, []),
        ({"schedule": "cosine", "plateau_factor": {"low": 0.1, "high": 0.5}}, ["plateau_factor"]),
        ({"schedule": ["cosine", "plateau"], "plateau_factor": {"low": 0.1, "high": 0.5}}, []),
        ({"dense_layers": {"low": 0, "high": 0}, "dense_units": [16, 32]}, ["dense_units"]),
    ],
)
def test_what_has_no_effect_on_any_head_is_known(data, idle):
    assert Space.from_dict(data, "here").idle == idle


BAD = {
    "not TOML": ("name = ", "expected TOML"),
    "no name": ("[space]\ndropout = [0.1, 0.2]", "name: expected a value"),
    "unknown table": ('name = "x"\n[rum]\ntrials = 3', "rum: expected no such key"),
    "unknown run key": ('name = "x"\n[run]\ntrails = 3', "run.trails: expected one of trials, epochs, "),
    "option of the command": (
        'name = "x"\n[run]\nseed = 3',
        "batch_size, found unknown; --seed is for the command line",
    ),
    "true for epochs": ('name = "x"\n[run]\nepochs = true', "run.epochs: expected a valid integer, found True"),
    "true for a number": (
        'name = "x"\n[run]\nbatch_size = true',
        "run.batch_size: expected a valid integer, found True",
    ),
    "bad pruner": ('name = "x"\n[run]\npruner = "axe"', "run.pruner: expected"),
    "unknown field": ('name = "x"\n[space]\nwidth = [16]', "space.width: expected one of conv_width"),
    "odd width": ('name = "x"\n[space]\nconv_width = [16, 24]', "space.conv_width: expected a positive multiple of 16"),
    "odd step": ('name = "x"\n[space]\nconv_width = {low = 16, high = 64, step = 8}', "space.conv_width"),
    "reversed": ('name = "x"\n[space]\ndropout = {low = 0.5, high = 0.1}', "space.dropout: expected low <= high"),
    "log of 0": ('name = "x"\n[space]\nlearning_rate = {low = 0.0, high = 0.1, log = true}', "space.learning_rate"),
    "beyond": (
        'name = "x"\n[space]\ndropout = {low = 0.0, high = 1.5}',
        "space.dropout.high: expected a number in [0, 1)",
    ),
    "range of words": ('name = "x"\n[space]\npooling = {low = 1, high = 2}', "space.pooling: expected a list"),
    "empty list": ('name = "x"\n[space]\npooling = []', "space.pooling: expected a list of different values"),
    "nothing": ('name = "x"\n[space]\npooling = "flatten"', "space: expected at least one list or range"),
    "typo in range": ('name = "x"\n[space]\ndropout = {low = 0.1, hihg = 0.2}', "space.dropout.high: expected a value"),
    "infinite": (
        'name = "x"\n[space]\nconv_width = {low = 16, high = inf, step = 16}',
        "space.conv_width.high: expected a finite number, found inf",
    ),
    "no number": (
        'name = "x"\n[space]\ndense_units = {low = nan, high = 64}',
        "space.dense_units.low: expected a finite",
    ),
    "infinite step": (
        'name = "x"\n[space]\ndropout = {low = 0.0, high = 0.5, step = inf}',
        "space.dropout.step: expected",
    ),
    "endless steps": (
        'name = "x"\n[space]\ndropout = {low = 0.0, high = 0.5, step = 1e-300}',
        "space.dropout: expected at most 2,147,483,647 steps, found step = 1e-300",
    ),
    "huge": (
        'name = "x"\n[space]\ndense_units = {low = 16, high = 1e30}',
        "space.dense_units.high: expected a whole number of at most 2,147,483,647, found 1e+30",
    ),
    "huge choice": (f'name = "x"\n[space]\ndense_units = [16, {10**22}]', "space.dense_units: expected a number of at"),
    "beyond a float": (f'name = "x"\n[space]\nlearning_rate = 1{"0" * 400}', "space.learning_rate: expected a number"),
    "a range beyond a float": (
        f'name = "x"\n[space]\nlearning_rate = {{low = 1, high = 1{"0" * 400}}}',
        "space.learning_rate.high: expected",
    ),
    "the folder itself": ('name = "."\n[space]\ndropout = [0.1, 0.2]', "name: expected"),
    "the folder above": ('name = ".."\n[space]\ndropout = [0.1, 0.2]', "name: expected"),
    "path as name": ('name = "../x"\n[space]\ndropout = [0.1, 0.2]', "name: expected"),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD.keys())
def test_bad_study_files_are_refused_in_one_line_that_names_the_key(tmp_path, text, message):
    path = tmp_path / "study.toml"
    path.write_text(text)
    with pytest.raises(InputError) as refusal:
        read_study_file(path)
    assert str(path) in str(refusal.value)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)
