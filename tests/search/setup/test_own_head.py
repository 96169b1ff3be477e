"""``--head``: how somebody's own function is found, called and looked at."""

from __future__ import annotations

import hashlib
import sys
from functools import partial
from pathlib import Path

import keras
import numpy as np
import optuna
import pytest
from conftest import ROOT
from made_study import make_config
from optuna.trial import FixedTrial

from features.runtime.errors import InputError
from heads.model.own import OwnSpec
from search.setup.config import StudyConfig
from search.setup.options import RunOptions
from search.setup.own_function import find_function, name_of
from search.setup.own_head import BuildError, OwnHead, changed_since
from search.setup.resolve import resolve

SHAPE = (2, 2, 8)
SOURCE = """
import keras

def build(trial, feature_shape, classes):
    units = trial.suggest_int("units", 4, 16, step=4)
    flat = [keras.Input(feature_shape), keras.layers.Flatten(), keras.layers.Dense(units, "relu")]
    return keras.Sequential([*flat, keras.layers.Dense(classes, "softmax")])

number = 3
"""


@pytest.fixture
def source(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine_of_test.py"
    path.write_text(SOURCE)
    yield path
    for name in ("mine_of_test", "own_head_mine_of_test"):
        sys.modules.pop(name, None)


def own(call) -> OwnHead:
    return OwnHead(find_function(name_of(call), call), SHAPE, 4)


def layers(*last) -> keras.Model:
    return keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), *last])


def test_a_function_with_arguments_fixed_is_known_by_itself(source):
    function = find_function("mine_of_test:build").call
    fixed = partial(partial(function), classes=3)
    assert (name_of(function), name_of(fixed)) == ("mine_of_test:build", "mine_of_test:partial(build)")
    record = find_function(name_of(fixed), fixed).record
    assert (record.file, record.sha256) == ("mine_of_test.py", hashlib.sha256(source.read_bytes()).hexdigest())
    with pytest.raises(InputError, match="expected MODULE:FUNCTION"):
        find_function(name_of(fixed))


@pytest.mark.parametrize("named", ["mine_of_test:build", "mine_of_test.py:build", "./mine_of_test.py:build"])
def test_a_function_is_found_by_its_module_or_its_file(source, named):
    found = find_function(named)
    assert found.record.function == named
    assert found.record.file == "mine_of_test.py"
    assert found.record.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert str(source.parent) not in sys.path
    model = OwnHead(found, SHAPE, 4).make(FixedTrial({"units": 8}), seed=0)
    assert model.count_params() == 8 * 33 + 4 * 9


def test_a_file_does_not_take_the_place_of_another_module(source):
    there = source.parent / "sub" / "mine_of_test.py"
    there.parent.mkdir()
    there.write_text("def build(trial, feature_shape, classes):\n    return 'other'\n")
    first, second = find_function("mine_of_test.py:build"), find_function("sub/mine_of_test.py:build")
    assert first.call is not second.call
    assert sys.modules["mine_of_test"].build is first.call
    assert find_function("mine_of_test:build").call is first.call


@pytest.mark.parametrize(
    ("named", "text", "says"),
    [
        ("build", "", r"--head: expected MODULE:FUNCTION or FILE\.py:FUNCTION, found build"),
        ("mine_of_test.py:", "", "--head: expected MODULE"),
        ("nowhere.py:build", "", "--head: expected .*, found no file nowhere.py"),
        (
            "no_such_module_of_test:build",
            "",
            "--head: expected .*, found no module no_such_module_of_test; modules are",
        ),
        (
            "mine_of_test.py:biuld",
            "",
            "mine_of_test.py: biuld: expected a function, found no such function; there is build",
        ),
        ("mine_of_test.py:number", "", "mine_of_test.py: number: expected a function, found int"),
        ("mine_of_test.py:build", "\n1 / 0\n", r"imported, found ZeroDivisionError in line 11 \(division by zero\)"),
        ("mine_of_test:build", "\nimport no_such_thing\n", r"mine_of_test: .*ModuleNotFoundError.*no_such_thing"),
        ("mine_of_test.py:build", "\ndef (\n", "SyntaxError"),
    ],
)
def test_what_is_not_found_is_said_in_a_line(source, named, text, says):
    source.write_text(SOURCE + text)
    with pytest.raises(InputError, match=says) as told:
        find_function(named)
    assert "\n" not in str(told.value)


def a_part(trial, feature_shape, classes):
    return 3


def raising(trial, feature_shape, classes):
    trial.suggest_int("n", 1, 4)
    raise ValueError("on\nmany lines")


def logits(trial, feature_shape, classes):
    return layers(keras.layers.Dense(classes))


def too_many(trial, feature_shape, classes):
    return layers(keras.layers.Dense(classes + 1, "softmax"))


def of_other_features(trial, feature_shape, classes):
    return keras.Sequential([keras.Input((9, 9, 3)), keras.layers.Flatten(), keras.layers.Dense(classes, "softmax")])


def two_inputs(trial, feature_shape, classes):
    inputs = [keras.Input(feature_shape), keras.Input(feature_shape)]
    flat = keras.layers.Flatten()(keras.layers.Add()(inputs))
    return keras.Model(inputs, keras.layers.Dense(classes, "softmax")(flat))


def of_vectors(trial, feature_shape, classes):
    return keras.Sequential([keras.layers.Reshape((7,)), keras.layers.Dense(classes, "softmax")])


def of_tuples(trial, feature_shape, classes):
    return layers(*map(keras.layers.Dense, trial.suggest_categorical("units", [8, (8, 4)])))


def of_no_number(trial, feature_shape, classes):
    return layers(keras.layers.Dropout(trial.suggest_categorical("dropout", [0.5, float("nan")])))


def noting_an_object(trial, feature_shape, classes):
    trial.set_user_attr("layer", keras.layers.Flatten)


def reporting(trial, feature_shape, classes):
    trial.report(0.5, 1)


def no_loss(trial, feature_shape, classes):
    model = layers(keras.layers.Dense(classes, "softmax"))
    model.compile("adam", "no_such_loss")
    return model


def averaging(trial, feature_shape, classes):
    model = layers(keras.layers.Dense(classes, "softmax"))
    optimizer = keras.optimizers.Adam(use_ema=True)
    if trial.suggest_categorical("scaled", [True, False]):
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer, "categorical_crossentropy")
    return model


class _Unsaved(keras.layers.Layer):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, values):
        return values * 2


def not_saved(trial, feature_shape, classes):
    return layers(_Unsaved(object()), keras.layers.Dense(classes, "softmax"))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (a_part, "expected a keras.Model, found int"),
        (raising, r"expected a keras.Model, found ValueError in line \d+ \(on many lines\)"),
        (logits, "expected probabilities of the classes, a softmax at the end, found outputs whose sum is"),
        (too_many, r"expected outputs of shape \(batch, 4\), found \(batch, 5\)"),
        (of_other_features, r"expected one input of \(2, 2, 8\), found \(9, 9, 3\)"),
        (two_inputs, r"expected one input of \(2, 2, 8\), found \[\(None, 2, 2, 8\)"),
        (of_vectors, r"expected a model of features \(2, 2, 8\), found ValueError"),
        (of_tuples, r"expected choices of 'units' that are finite numbers, texts, True, .*, found \(8, 4\)"),
        (of_no_number, "expected choices of 'dropout' that are finite numbers, .*, found nan"),
        (noting_an_object, "expected an attribute 'layer' that JSON can hold, found <class"),
        (reporting, r"found AttributeError in line \d+ \(a trial has no report here"),
        (no_loss, "expected a model that can be trained on labels, found ValueError"),
        (averaging, "expected an optimizer that leaves the weights as it trained them, found use_ema=True"),
        (not_saved, "expected a model that Keras can save, found"),
    ],
)
def test_what_is_no_head_is_refused_before_there_is_a_study(call, says):
    with pytest.raises(BuildError, match=says) as told:
        own(call).rehearse()
    line = str(told.value)
    assert line.startswith(f"test_own_head.py: {call.__name__}(trial, (2, 2, 8), 4): expected ")
    assert "\n" not in line


def test_a_function_that_fails_now_and_then_is_a_matter_of_its_trials():
    calls = []

    def now_and_then(trial, feature_shape, classes):
        calls.append(trial.suggest_int("n", 1, 100))
        if len(calls) == 1:
            raise ValueError("this one")
        return layers(keras.layers.Dense(classes, "softmax"))

    mine = own(now_and_then)
    mine.rehearse()
    assert len(calls) == 2
    calls.clear()
    trial = FixedTrial({"n": 7})
    spec, problem = mine.suggest(trial, seed=0)
    assert spec == OwnSpec(f"{__name__}:{now_and_then.__qualname__}", {"n": 7})
    assert "found ValueError" in problem
    assert mine.suggest(trial, seed=0) == (spec, None)


def test_a_choice_that_only_some_trials_draw_is_a_matter_of_these():
    def build(trial, feature_shape, classes):
        if trial.suggest_categorical("deep", [False, True]):
            trial.suggest_categorical("units", [(8,), (8, 4)])
        return layers(keras.layers.Dense(classes, "softmax"))

    mine, study = own(build), optuna.create_study()
    mine.rehearse()
    study.enqueue_trial({"deep": True})
    trial = study.ask()
    spec, problem = mine.suggest(trial, seed=0)
    assert "expected choices of 'units'" in problem
    assert spec.params == trial.params == {"deep": True}  # nothing that a record cannot hold


def test_a_function_s_attributes_are_kept_apart_from_the_study_s_notes():
    def build(trial, feature_shape, classes):
        trial.suggest_int("n", 1, 4)
        trial.set_user_attr("store", "mine")
        trial.set_user_attr("epochs", [3.5])
        assert trial.user_attrs == {"store": "mine", "epochs": [3.5]}
        assert (trial.number, trial.params) == (0, {"n": trial.params["n"]})
        return layers(keras.layers.Dense(classes, "softmax"))

    trial = optuna.create_study().ask()
    trial.set_user_attr("store", "ours")
    spec, problem = own(build).suggest(trial, seed=0)
    assert problem is None
    assert trial.user_attrs == {"store": "ours", "own.store": "mine", "own.epochs": [3.5]}
    own(build).rebuild(spec, seed=0)


def test_the_same_parameters_and_seed_make_the_same_weights():
    def build(trial, feature_shape, classes):
        units = trial.suggest_categorical("units", [4, 8])
        return keras.Sequential(
            [keras.layers.Flatten(), keras.layers.Dense(units), keras.layers.Dense(classes, "softmax")]
        )

    mine, spec = own(build), OwnSpec("x:build", {"units": 8})
    first, second, other = (mine.rebuild(spec, seed=seed).get_weights() for seed in (1, 1, 2))
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(first[0], other[0])


def test_a_changed_source_is_said_and_kept_as_it_was(source, tmp_path):
    recorded = find_function("mine_of_test.py:build").record
    make_config(own_head=recorded, head="mine_of_test.py:build", engine="solo", pages=None, dtype=None).write(tmp_path)
    read = StudyConfig.read(tmp_path)
    assert read.own_head == recorded
    assert list(changed_since(read.own_head, OwnHead(find_function("mine_of_test.py:build"), SHAPE, 4))) == []
    source.write_text(SOURCE + "# another line\n")
    (said,) = changed_since(read.own_head, OwnHead(find_function("mine_of_test.py:build"), SHAPE, 4))
    assert said.startswith("mine_of_test.py has changed since the study was begun (sha256 ")


def test_options_that_do_not_go_with_own_heads_are_refused(tmp_path):
    given = {"head": "a:b", "out": tmp_path / "study"}
    assert resolve(RunOptions.given(given | {"folds": 3})).options.engine == "solo"
    assert not resolve(RunOptions.given(given)).space.parameters
    for more, says in (
        ({"engine": "fused"}, "--engine: expected solo"),
        ({"channels": "8"}, "--channels: expected none beside --head"),
        ({"folds": 1}, "--folds"),
    ):
        with pytest.raises(InputError, match=says):
            resolve(RunOptions.given(given | more))
    (tmp_path / "study").mkdir()
    make_config(head="a:b", engine="solo", pages=None, dtype=None).write(tmp_path / "study")
    with pytest.raises(
        InputError, match=r"--head: expected a:b again, as .*study\.json has it, found none; code is run only"
    ):
        resolve(RunOptions.given({"out": tmp_path / "study", "resume": True}))


def test_the_document_s_example_makes_heads(tmp_path):
    text = (ROOT / "docs" / "own-heads.md").read_text(encoding="utf-8")
    example = text.partition("```python\n")[2].partition("```")[0]
    assert len(example.splitlines()) <= 25
    (tmp_path / "my_heads_of_test.py").write_text(example)
    mine = OwnHead(find_function(f"{tmp_path / 'my_heads_of_test.py'}:build"), SHAPE, 4)
    mine.rehearse()
    spec, problem = mine.suggest(FixedTrial(_EXAMPLE), seed=0)
    assert problem is None
    assert spec.params == _EXAMPLE
    assert sys.modules.pop("my_heads_of_test").build is mine.function.call


_EXAMPLE = {
    "squeeze": True,
    "width": 32,
    "pooling": "max",
    "hidden": 1,
    "units_0": 16,
    "dropout_0": 0.25,
    "learning_rate": 0.001,
}
