"""A search over several stores of the same images; what its banks compute is made up (``made_bank``)."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest
from conftest import build_store
from killed_study import made_searches
from made_bank import read_head

from features.runtime.errors import InputError
from features.store.reader import FeatureStore
from search import Study, run_study
from search.record.head_files import refit_path_of
from search.setup.config import StudyConfig
from search.setup.reproduce import command_line, to_toml
from search.trials.notes import TrialNotes

FILE = """
name = "several"
[run]
trials = 14
epochs = 6
batch_size = 24
[space]
conv_width = { low = 16, high = 64, step = 16 }
pooling = ["average", "max", "flatten"]
"""
SHAPES = {"small": (1, 1, 6), "wide": (2, 2, 16), "large": (3, 3, 8)}


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("stores")
    return {
        name: build_store(place / f"{name}.h5", rows=96, shape=shape, seed=number)
        for number, (name, shape) in enumerate(SHAPES.items())
    }


@pytest.fixture(scope="module", autouse=True)
def _made():
    with made_searches():
        yield


def search(folder: Path, stores, *, file: str = FILE, **options) -> Study:
    folder.parent.mkdir(parents=True, exist_ok=True)
    (study := folder.with_suffix(".toml")).write_text(file)
    return run_study(stores, study=study, out=folder, progress=False, **({"folds": 0} | options))


@pytest.fixture(scope="module")
def found(stores, tmp_path_factory) -> Study:
    return search(tmp_path_factory.mktemp("found") / "study", stores, finalists=3, repeats=2)


def test_the_articles_head_is_tried_on_each_store_and_trials_choose_between_them(found):
    trials = found.record.trials
    notes = [TrialNotes.of(trial) for trial in trials]
    assert [one.store for one in notes[:3]] == list(SHAPES)
    assert len({one.spec for one in notes[:3]}) == 1
    assert all(trial.params["features"] == TrialNotes.of(trial).store for trial in trials)
    assert {one.store for one in notes[3:]} == set(SHAPES)


def test_each_head_leaves_as_one_of_its_stores_features(found, stores):
    for finalist in found.summary.finalists.heads:
        store = TrialNotes.of(found.record.trials[finalist.trial]).store
        metadata = read_head(refit_path_of(found.folder, finalist.trial)).metadata
        assert metadata.feature_shape == SHAPES[store]
        assert metadata.store_fingerprint == FeatureStore(stores[store]).fingerprint


def test_the_record_says_which_stores_there_are(found, stores):
    config = StudyConfig.read(found.folder)
    assert config.space["features"] == list(SHAPES)
    told = {name: Path(parts.features.path) for name, parts in config.stores_by_name.items()}
    assert told == stores


def test_the_printed_command_searches_the_same_again(found, tmp_path):
    words = shlex.split(command_line(found.config).replace("\\\n", " "))
    given = list(zip(words[3::2], words[4::2], strict=True))
    stores = [value for option, value in given if option == "--features"]
    again = search(tmp_path / "again", stores, file=to_toml(found.config), trials=14, epochs=6, batch_size=24, seed=0)
    theirs = [(trial.params, trial.value) for trial in again.record.trials]
    assert theirs == [(trial.params, trial.value) for trial in found.record.trials]


@pytest.mark.parametrize("fixed", ['"wide"', '["wide", "large"]'])
def test_a_study_file_may_say_between_which_of_them(stores, tmp_path, fixed):
    study = search(tmp_path / "study", stores, file=FILE + f"features = {fixed}\n", finalists=0)
    used = {TrialNotes.of(trial).store for trial in study.record.trials}
    assert used == ({"wide"} if fixed == '"wide"' else {"wide", "large"})


def test_a_store_that_nobody_gave_is_refused(stores, tmp_path):
    with pytest.raises(InputError, match=r"space\.features: expected some of small, wide, large, found huge"):
        search(tmp_path / "study", stores, file=FILE + 'features = ["small", "huge"]\n')
    assert not (tmp_path / "study").exists()


def test_open_stores_and_lists_are_taken_too(stores, tmp_path):
    study = search(tmp_path / "study", [FeatureStore(stores["wide"]), str(stores["small"])], trials=3, finalists=0)
    assert study.config.space["features"] == ["wide", "small"]


def test_they_can_be_trained_on_one_at_a_time(stores, tmp_path):
    study = search(tmp_path / "study", stores, trials=6, engine="solo", finalists=0)
    assert [TrialNotes.of(trial).store for trial in study.record.trials][:3] == list(SHAPES)


def test_each_may_have_its_own_store_to_test_on(stores, tmp_path):
    tests = {
        name: build_store(tmp_path / f"{name}-test.h5", rows=24, shape=shape, seed=5) for name, shape in SHAPES.items()
    }
    told = {"ignore_parts": True, "test": {name: tests[name] for name in reversed(tests)}, "trials": 4, "finalists": 0}
    study = search(tmp_path / "study", stores, **told)
    parts = study.config.stores_by_name
    assert {name: Path(one.test.path) for name, one in parts.items()} == tests
    with pytest.raises(InputError, match="--test: expected one for each of --features"):
        search(tmp_path / "other", stores, test=tests["small"])


def test_a_study_goes_on_with_its_stores_in_another_order(stores, tmp_path):
    given = [f"{name}={path}" for name, path in list(stores.items())[:2]]
    others = [build_store(tmp_path / f"{name}.h5", rows=24, shape=SHAPES[name], seed=9) for name in SHAPES][:2]
    options = {"trials": 4, "epochs": 2, "finalists": 0, "test": [str(path) for path in others]}
    begun = search(tmp_path / "s", given, **options)
    options |= {"trials": 5, "test": options["test"][::-1], "resume": True}
    gone_on = run_study(given[::-1], out=tmp_path / "s", progress=False, **options)
    assert gone_on.config.more_stores.keys() == begun.config.more_stores.keys() == {"wide"}
    assert gone_on.summary.trials == 5
    with pytest.raises(InputError, match="expected"):  # by a name of the other
        run_study([f"small={stores['wide']}", f"wide={stores['small']}"], out=tmp_path / "s", resume=True)


def test_a_single_store_may_have_a_name_and_so_may_its_test_rows(stores, tmp_path):
    other = build_store(tmp_path / "other.h5", rows=48, shape=SHAPES["small"], seed=9)
    told = {"trials": 3, "epochs": 2, "finalists": 0}
    found = search(tmp_path / "one", {"mine": stores["small"]}, test={"mine": other}, **told)
    assert found.summary.test.rows == 48
    assert search(tmp_path / "one", None, resume=True).summary.test == found.summary.test
    with pytest.raises(InputError, match=r"--test: expected one for each of --features \(mine\), found yours="):
        search(tmp_path / "two", {"mine": stores["small"]}, test={"yours": other}, **told)


def test_a_store_that_goes_missing_is_named_on_a_resume(stores, tmp_path):
    mine = {name: Path(shutil.copy(path, tmp_path / path.name)) for name, path in stores.items()}
    study = search(tmp_path / "study", mine, trials=5, finalists=0)
    mine["wide"].unlink()
    with pytest.raises(InputError, match=r"wide\.h5: expected a feature store"):
        run_study(out=study.folder, resume=True, trials=6, progress=False)
    build_store(mine["wide"], rows=96, shape=(2, 2, 16), views=("identity", "flip"))
    with pytest.raises(InputError, match=r"wide\.h5: fingerprint: expected .*this study was made with"):
        run_study(out=study.folder, resume=True, trials=6, progress=False)


def test_what_goes_with_one_store_only_is_refused(stores, tmp_path):
    with pytest.raises(InputError, match="--channels: expected none beside several --features"):
        search(tmp_path / "study", stores, channels=4)
    with pytest.raises(InputError, match="--features: expected one store beside --head"):
        search(tmp_path / "study", stores, head="somewhere:build")
    with pytest.raises(InputError, match=r"b\.h5: images: expected 96"):
        other = build_store(tmp_path / "b.h5", rows=48)
        search(tmp_path / "study", [stores["wide"], other])
