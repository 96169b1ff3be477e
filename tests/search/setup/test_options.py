"""Options are said once: the command line, study files, study.json and the printed command follow from the model."""

from __future__ import annotations

import inspect
import json
import runpy
import shlex
import tomllib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from commands import invoke
from conftest import build_store
from hypothesis import given
from hypothesis import strategies as st
from made_study import make_config

from features.runtime.errors import InputError
from features.store.reader import FeatureStore
from search.setup.config import StudyConfig
from search.setup.images import ImageOptions, take_images
from search.setup.options import BEFORE, RunOptions, RunSection, StudyOptions, option_of, study_options
from search.setup.reproduce import command_line, to_toml
from search.setup.resolve import resolve, study_of
from search.setup.stores import named_paths

VALUES = {
    "trials": 17,
    "epochs": 9,
    "patience": 3,
    "folds": 4,
    "pages": 40,
    "dtype": "bfloat16",
    "pruner": "median",
    "sampler": "qmc",
    "objective": "auc",
    "class_weights": "balanced",
    "finalists": 3,
    "repeats": 2,
    "batch_size": 33,
    "channels": "auto",
    "head": "mine:build",
    "seed": 8,
    "backend": "jax",
    "engine": "fused",
    "storage": None,
    "ignore_parts": True,
}
"""For each option that a study keeps a value, mostly another than the default."""


def test_the_command_line_is_the_model():
    main = runpy.run_module("search.run")["main"]  # a command is run, not imported
    parameters = inspect.signature(main).parameters
    assert parameters.keys() == RunOptions.model_fields.keys() | ImageOptions.model_fields.keys()
    helps = {name: parameter.annotation.__metadata__[0].help for name, parameter in parameters.items()}
    for name, field in RunOptions.model_fields.items():
        assert helps[name].startswith(option_of(field).help)
    assert helps["trials"] == r"Heads to try. \[default: 200]"
    assert helps["dtype"] == r"Of products. \[default: the faster]"
    assert parameters["seed"].annotation.__metadata__[0].max == 2**31 - 1
    kind, option = parameters["folds"].annotation.__args__[0], parameters["folds"].annotation.__metadata__[0]
    assert (kind, option.min) == (str | None, None)  # a number, or auto: its bound is the model's affair


def test_what_a_study_keeps_is_read_back_as_it_was(tmp_path):
    config = make_config(**VALUES)
    config.write(tmp_path)
    assert StudyConfig.read(tmp_path) == config
    written = json.loads((tmp_path / "study.json").read_text())
    assert list(written)[:2] == ["schema", "name"]
    assert {name: written[name] for name in VALUES} == VALUES
    assert VALUES.keys() == StudyOptions.model_fields.keys()


def test_a_study_json_older_than_some_options_means_what_it_meant(tmp_path):
    make_config().write(tmp_path)
    path = tmp_path / "study.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in told.items() if name not in BEFORE}))
    config = StudyConfig.read(tmp_path)
    assert (config.objective, config.class_weights, config.patience) == ("accuracy", "none", 0)
    assert (config.finalists, config.repeats) == (0, 1)


SPLIT, STORES = (make_config().to_dict()[name] for name in ("split", "stores"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"trials": None}, "trials: expected a valid integer"),
        ({"surprise": 1}, "surprise: expected no such key, found 1"),
        ({"sampler": "oracle"}, "sampler: expected 'tpe'"),
        ({"schema": 9}, "schema: expected 1, found 9"),
        ({"stores": {}}, "stores.features: expected a value, found none"),
        ({"stores": STORES | {"features": None}}, "stores.features: expected a valid dictionary, found None"),
        ({"stores": STORES | {"test": {"path": "x.h5"}}}, "stores.test.fingerprint: expected a value, found none"),
        ({"stores": STORES | {"other": None}}, "stores.other: expected no such key, found None"),
        ({"more_stores": {"b": STORES}}, "store_name: expected a name of its own, found none"),
        ({"more_stores": {"b": {}}, "store_name": "a"}, "more_stores.b.features: expected a value, found none"),
        ({"split": SPLIT | {"absent_classes": 5}}, "split.absent_classes: expected a valid dictionary, found 5"),
        ({"split": SPLIT | {"class_counts": {"test": 5}}}, "split.class_counts.test: expected a valid tuple, found 5"),
        ({"split": SPLIT | {"seed": None}}, "split.seed: expected a valid integer, found None"),
        ({"split": SPLIT | {"parts": "taken"}}, "split.parts: expected 'given', found 'taken'"),
        ({"split": SPLIT | {"patients": {"train": 3}}}, "split.patients: expected numbers for train, validation, test"),
    ],
)
def test_a_damaged_study_json_is_refused_by_its_key(tmp_path, change, said):
    make_config().write(tmp_path)
    path = tmp_path / "study.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=f"study.json: {said}"):
        StudyConfig.read(tmp_path)


def test_a_key_that_every_study_has_is_missed(tmp_path):
    make_config().write(tmp_path)
    path = tmp_path / "study.json"
    told = json.loads(path.read_text())
    del told["trials"]
    path.write_text(json.dumps(told))
    with pytest.raises(InputError, match=r"study.json: trials: expected a value, found none"):
        StudyConfig.read(tmp_path)


@pytest.mark.parametrize(("name", "option"), list(study_options()))
def test_a_study_goes_on_with_another_value_only_where_that_leaves_it_the_same(tmp_path, name, option):
    recorded, given = make_config(), make_config(**{name: VALUES[name] or "sqlite:///x.db"})
    if name == "engine":
        given = make_config(engine="solo")
    assert recorded != given
    if option.may_change:
        recorded.check_resumable(tmp_path / "study.json", given)
        return
    with pytest.raises(InputError, match=rf"study.json: {name}: expected .*, found "):
        recorded.check_resumable(tmp_path / "study.json", given)


def test_the_printed_command_gives_every_option_but_where_the_record_is_kept():
    words = shlex.split(command_line(make_config(**VALUES)).replace("\\\n", " "))
    words.remove("--ignore-parts")  # which has no value
    given = dict(zip(words[3::2], words[4::2], strict=True))
    for name, value in VALUES.items():
        if name == "ignore_parts":
            continue
        if name == "storage":
            assert "--storage" not in given
        else:
            assert given[f"--{name.replace('_', '-')}"] == str(value)


@given(name=st.text(), stores=st.lists(st.text()))
def test_the_printed_study_file_keeps_any_text(name, stores):
    config = make_config(name=name, space={"features": stores, "dropout": {"low": 0.0, "high": 1e-05}})
    assert tomllib.loads(to_toml(config)) == {"name": name, "space": config.space}


def test_the_printed_command_is_one_that_the_command_takes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = make_config(folds=5)
    Path("made.toml").write_text(to_toml(config))
    words = shlex.split(command_line(config).replace("\\\n", " "))
    said = invoke("search.run", *words[3:])
    assert (said.status, said.err) == (2, "error: store.h5: expected a feature store, found no such file\n")


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"features": []}, "--features: expected at least one store, found none"),
        ({"features": {}}, "--features: expected at least one store, found none"),
        ({"features": iter(())}, "--features: expected at least one store, found none"),
        ({"validation": []}, "--validation: expected at least one store, found none"),
        ({"test": ()}, "--test: expected at least one store, found none"),
        ({"features": {"a=b": "s.h5"}}, r"--features: expected names without =, / and \\, found a=b"),
        ({"features": {"a/b": "s.h5"}}, r"--features: expected names without =, / and \\, found a/b"),
        ({"features": {"": "s.h5"}}, r"--features: expected names without =, / and \\, found an empty one"),
        ({"head": ""}, "--head: expected something, or not the option, found an empty text"),
        ({"storage": ""}, "--storage: expected something, or not the option, found an empty text"),
        ({"out": ""}, "--out: expected a file or a folder, found an empty name"),
        ({"images": ""}, "--images: expected a file or a folder, found an empty name"),
        ({"trials": np.True_}, "--trials: expected a number, found True"),
        ({"channels": np.True_}, "--channels: expected a number of at least 1, or auto, found True"),
    ],
)
def test_what_python_may_pass_and_means_nothing_is_refused(told, said):
    with pytest.raises(InputError, match=f"^{said}$"):
        RunOptions.given(told)


def test_numbers_of_numpy_are_numbers():
    told = RunOptions.given({"channels": np.int64(8), "trials": np.int64(5), "validation_fraction": np.float32(0.25)})
    assert (told.channels, told.trials, told.validation_fraction) == ("8", 5, 0.25)


@pytest.mark.parametrize("out", ["x" * 300, "a\0b", "s3://bucket/study"])
def test_a_name_that_no_folder_can_have_is_refused(tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError, match=r"--out: expected a folder, found (x{80} \(|a.x00b \(|s3:/bucket/study, an address;)"
    ):
        resolve(RunOptions.given({"out": out}))
    assert not list(tmp_path.iterdir())


def test_an_open_store_is_that_file_wherever_the_process_works_by_then(tmp_path, monkeypatch):
    for folder, rows in (("here", 6), ("there", 9)):
        (tmp_path / folder).mkdir()
        build_store(tmp_path / folder / "a.h5", rows=rows)
    monkeypatch.chdir(tmp_path / "here")
    store = FeatureStore("a.h5")
    assert RunOptions.given({"features": store}).features == ["a.h5"]
    monkeypatch.chdir(tmp_path / "there")
    (path,) = resolve(RunOptions.given({"features": store, "out": "new"})).paths.values()
    assert len(FeatureStore(path)) == 6


def test_images_that_are_no_path_are_refused():
    with pytest.raises(InputError, match="--images: expected the path of a folder, found int"):
        take_images({"images": 5})


def test_processes_together_are_told_what_does_not_go_with_others(tmp_path):
    (tmp_path / "t.toml").write_text(STUDY.replace("[run]", '[run]\nsampler = "qmc"'))
    told = {"study": tmp_path / "t.toml", "out": tmp_path / "study", "storage": f"sqlite:///{tmp_path}/a.db"}
    assert study_of(RunOptions.given(told)) == ("t", tmp_path / "study")
    assert resolve(RunOptions.given(told | {"join": True})).options.sampler == "qmc"
    for ask, more in ((resolve, {"join": True, "channels": 4}), (study_of, {"channels": 4})):
        with pytest.raises(InputError, match=r"--channels: expected none beside --join.*found 4"):
            ask(RunOptions.given(told | more))


def test_a_process_may_name_the_database_of_a_study_otherwise_than_the_others(tmp_path):
    (tmp_path / "t.toml").write_text(STUDY)
    mine, others = f"sqlite:///{tmp_path}/mine.db", f"sqlite:///{tmp_path}/others.db"
    stores = {"features": {"path": "a.h5", "fingerprint": "x"}}
    told = {"study": tmp_path / "t.toml", "out": tmp_path / "study", "storage": mine, "join": True, "trials": 12}
    known = make_config(storage=others, stores=stores)

    def started(noted):
        return resolve(RunOptions.given(told), lambda url, name: noted)

    found = started(known)
    assert (found.recorded.storage, found.options.storage) == (mine, mine)
    (tmp_path / "study").mkdir()
    known.write(tmp_path / "study")  # as where all see one folder
    assert started(known).recorded.storage == mine
    assert started(None).recorded.storage == others  # that is another study, and will be refused
    make_config(storage=mine, stores=stores).write(tmp_path / "study")
    assert started(None).recorded.storage == mine
    make_config(stores=stores).write(tmp_path / "study")
    assert started(known).recorded.storage is None


def test_a_study_that_went_on_with_more_trials_elsewhere_goes_on_with_these(tmp_path):
    (tmp_path / "t.toml").write_text(STUDY)
    (tmp_path / "study").mkdir()
    url = f"sqlite:///{tmp_path}/a.db"
    here = make_config(storage=url, trials=12, stores={"features": {"path": "a.h5", "fingerprint": "x"}})
    here.write(tmp_path / "study")
    there = here.model_copy(update={"trials": 40})
    for more, trials in (({}, 40), ({"trials": 50}, 50)):
        told = {"out": tmp_path / "study", "study": tmp_path / "t.toml", "storage": url, "join": True, **more}
        assert resolve(RunOptions.given(told), lambda url, name: there).options.trials == trials


STUDY = """
name = "t"
[run]
trials = 30
epochs = 12
finalists = 1
[space]
dropout = [0.1, 0.2]
"""


def test_the_command_line_is_before_the_record_and_that_before_the_study_file(tmp_path):
    file, folder = tmp_path / "t.toml", tmp_path / "study"
    file.write_text(STUDY)
    fresh = resolve(RunOptions.given({"study": file, "out": folder, "trials": 5, "epochs": None})).options
    assert (fresh.trials, fresh.epochs, fresh.finalists, fresh.repeats) == (5, 12, 1, None)
    folder.mkdir()
    make_config(trials=40, finalists=0, stores={"features": {"path": "a.h5", "fingerprint": "x"}}).write(folder)
    again = resolve(RunOptions.given({"study": file, "out": folder, "resume": True, "repeats": 3})).options
    assert (again.trials, again.epochs, again.finalists, again.repeats) == (40, 8, 0, 3)
    assert (again.features, again.validation, again.pages) == (["a.h5"], None, 32)
    assert again.validation_fraction == make_config().split.validation


def test_stores_that_go_on_are_those_of_the_record_whatever_their_files_are_called(tmp_path):
    paths = {name: tmp_path / f"{name}.h5" for name in ("size=224", "size=320")}
    recorded = [
        {"features": {"path": str(path), "fingerprint": "x"}, "validation": None, "test": None}
        for path in paths.values()
    ]
    told = {"stores": recorded[0], "store_name": "size=224", "more_stores": {"size=320": recorded[1]}}
    config = make_config(**told)
    (tmp_path / "study").mkdir()
    config.write(tmp_path / "study")
    assert resolve(RunOptions.given({"out": tmp_path / "study", "resume": True})).paths == paths
    words = shlex.split(command_line(config).replace("\\\n", " "))
    assert named_paths([word for before, word in pairwise(words) if before == "--features"]) == paths


def test_what_a_study_file_sets_and_a_study_that_goes_on_does_not_take_is_said(tmp_path):
    file, folder = tmp_path / "t.toml", tmp_path / "study"
    file.write_text(STUDY)
    folder.mkdir()
    make_config(trials=40, epochs=12, stores={"features": {"path": "a.h5", "fingerprint": "x"}}).write(folder)
    told = {"study": file, "out": folder, "resume": True}
    (said,) = resolve(RunOptions.given(told | {"finalists": 2})).unread
    assert said == f"{file}: [run] is for a study that begins; this one goes on with trials = 40 and not 30"
    assert resolve(RunOptions.given(told | {"finalists": 2, "trials": 50})).unread == ()
    assert resolve(RunOptions.given({"out": folder, "resume": True})).unread == ()
    assert resolve(RunOptions.given({"study": file, "out": tmp_path / "other"})).unread == ()


def test_a_demonstration_goes_on_where_its_folder_was_moved(tmp_path):
    folder, old = tmp_path / "study", tmp_path / "old" / "demonstration" / "features.h5"
    (folder / "demonstration").mkdir(parents=True)
    make_config(stores={"features": {"path": str(old), "fingerprint": "x"}}).write(folder)
    told = RunOptions.given({"out": folder, "resume": True})
    assert resolve(told).options.features == [str(old)]  # named where it is in neither place
    store = folder / "demonstration" / "features.h5"
    store.touch()
    assert resolve(told).options.features == [str(store)]
    old.parent.mkdir(parents=True)
    old.touch()
    assert resolve(told).options.features == [str(old)]


def test_how_many_finalists_there_are_may_be_left_open_and_stays_so(tmp_path):
    folder = tmp_path / "study"
    folder.mkdir()
    open_still = {"finalists": None, "repeats": None}
    make_config(stores={"features": {"path": "a.h5", "fingerprint": "x"}}, **open_still).write(folder)
    assert json.loads((folder / "study.json").read_text())["finalists"] is None
    again = resolve(RunOptions.given({"out": folder, "resume": True})).options
    assert (again.finalists, again.repeats) == (None, None)
    assert "--finalists" not in command_line(StudyConfig.read(folder))
    said = [
        make_config(finalists=finalists, repeats=repeats).repeats_in_words
        for finalists, repeats in ((None, None), (None, 2), (3, None), (3, 2), (0, 2))
    ]
    assert said == [
        "as many finalists as fit within a quarter of the search's trial-epochs",
        "as many finalists as fit within a quarter of the search's trial-epochs, 2 times each",
        "3 finalists, as often as fits within a quarter of the search's trial-epochs",
        "3 finalists, 2 times each",
        "no finalists",
    ]


def test_a_study_file_may_set_what_does_not_depend_on_the_data():
    assert RunSection.model_fields.keys() == {
        *("trials", "epochs", "patience", "batch_size", "sampler", "pruner", "objective", "class_weights"),
        *("finalists", "repeats"),
    }
