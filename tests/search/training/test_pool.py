"""The pool: trials that share a bank are the trials they would be alone, and no page idles while one could use it."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import build_store
from made_bank import MadeProgram, use_made_banks
from made_data import made_data
from made_study import make_config
from optuna.trial import TrialState

from features.rows.feed import Feed
from features.runtime.errors import InputError
from features.store.reader import FeatureStore
from heads.bank.shape import BankShape
from heads.files.head_file import read_head
from heads.metrics.scoring import predict_probabilities, score
from heads.model.fit import Schedule, train_solo
from heads.model.spec import HeadSpec
from search.finish.checkpoints import TopCheckpoints
from search.finish.searched import Searched
from search.record.head_files import path_of
from search.record.storage import open_record
from search.setup.data import SearchData
from search.setup.seeds import derive_seed
from search.setup.space import Space
from search.setup.stores import StudyData
from search.training import pool, sizing
from search.training.bank_figures import describe_bank
from search.training.bank_shapes import BankShapes
from search.training.banks import Banks
from search.training.display import Display
from search.training.runner import Recording, run_pool
from search.training.sizing import settle_banks
from search.trials.ask_tell import Book
from search.trials.ranking import ranking

SPACE = {
    "conv_width": {"low": 16, "high": 64, "step": 16},
    "batch_norm": [True, False],
    "activation": ["relu", "gelu", "silu"],
    "dropout": 0.0,
    "pooling": ["flatten", "average", "max"],
    "dense_layers": [0, 1, 2],
    "dense_units": {"low": 8, "high": 24, "step": 8},
    "learning_rate": {"low": 1e-3, "high": 3e-2, "log": True},
    "plateau_patience": {"low": 1, "high": 3},
}
SHAPE = (2, 2, 8)
PARTS = {"validation_share": 0.3, "test_share": 0.0, "resident": False}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return build_store(tmp_path_factory.mktemp("store") / "store.h5", rows=120, views=("identity", "flip"), shape=SHAPE)


def search(store: Path, folder: Path, space: dict, *, shrinks: bool = False, **changes) -> SimpleNamespace:
    """Runs a study in this process; returns what there is to look at."""
    folder.mkdir()
    settings = {"trials": 14, "epochs": 5, "folds": 0, "pruner": "halving", "pages": 10, "dtype": "float32", **changes}
    parsed = Space.from_dict(space, "here")
    data = made_data(store, **PARTS, folds=settings["folds"])
    told = {"name": "pool", "seed": 4, "batch_size": 25, "sampler": "tpe", "space": parsed.to_dict()}
    config = make_config(**told, split=data.split, **settings)
    opened = open_record(folder, "pool", None, direction="maximize", resume=False)
    study_data = StudyData.of_one(data)
    config, shapes = settle_banks(config, parsed, study_data)
    book = Book(opened.study, config, parsed)
    checkpoints = TopCheckpoints(Searched(folder, opened.study, config, parsed, study_data))
    with closing(opened), Display(opened.study, config) as display:
        throughput = run_pool(
            Recording(folder, opened, None, 1e9),
            shapes=shapes,
            data=study_data,
            book=book,
            sink=checkpoints,
            display=display,
            shrinks=shrinks,
        )
    bank = describe_bank(shapes.pages, str(config.dtype), throughput, bare=None)
    return SimpleNamespace(study=opened.study, config=config, data=data, bank=bank, folder=folder)


@pytest.fixture(scope="module")
def found(store, tmp_path_factory) -> SimpleNamespace:
    return search(store, tmp_path_factory.mktemp("pool") / "study", SPACE)


def solo(found: SimpleNamespace, trial, *, epochs: int):
    """The same trial alone."""
    data: SearchData = found.data
    budget = {"memory_bytes": 2**30}
    return train_solo(
        HeadSpec.from_dict(trial.user_attrs["spec"]),
        Feed(data.store, data.train.rows, **budget),
        Feed(data.store, data.validation.rows, **budget),
        Schedule(
            epochs=epochs,
            batch_size=found.config.batch_size,
            plan_seed=derive_seed(found.config.seed, "batches"),
            first_epoch=trial.user_attrs["first_epoch"],
        ),
        seed=derive_seed(found.config.seed, "head", trial.user_attrs["ordinal"]),
    )


def test_a_trial_in_the_pool_is_the_trial_alone(found):
    trials = [t for t in found.study.get_trials() if t.user_attrs["ordinal"] != 0]  # the article's head has dropout
    later = [t for t in trials if t.user_attrs["first_epoch"] > 0]
    assert later, "no trial joined a running bank"
    one_row = 1 / len(found.data.validation.rows) + 1e-9
    for trial in [*trials[:2], *later[:2]]:
        alone = solo(found, trial, epochs=len(trial.intermediate_values))
        values = [record.validation.accuracy for record in alone.curve]
        assert list(trial.intermediate_values.values()) == pytest.approx(values, abs=one_row)
        if trial.value is not None and trial.state.name == "COMPLETE":
            assert trial.value == pytest.approx(alone.best.validation.accuracy, abs=one_row)
            assert trial.user_attrs["validation_loss"] == pytest.approx(alone.best.validation.loss, abs=2e-3)
            rates = [record.learning_rate for record in alone.curve][: trial.user_attrs["best_epoch"]]
            assert trial.user_attrs["learning_rates"] == pytest.approx(rates)


def test_every_trial_is_told_and_each_kept_head_scores_what_was_recorded(found):
    trials = found.study.get_trials()
    assert len(trials) == 14
    assert all(trial.state.is_finished() for trial in trials)
    best = ranking(found.study)[:5]
    opened = FeatureStore(found.data.store.path)
    feed = Feed(opened, found.data.validation.rows, memory_bytes=2**30)
    for trial in best:
        head = read_head(path_of(found.folder, trial.number))
        assert score(predict_probabilities(head.model, feed), feed.labels).accuracy == trial.value
        assert head.model.count_params() == trial.user_attrs["parameters"]


def test_one_compilation_serves_the_whole_study_and_pages_are_used(found):
    assert found.bank.compilations == 2  # training and scoring
    assert found.bank.page_occupancy > 0.6
    assert found.bank.heads_at_once > 2
    assert 0 < found.bank.bookkeeping_share < 1
    assert not (found.folder / "snapshot.npz").exists()


def test_no_page_idles_while_a_waiting_trial_would_fit(store, tmp_path, monkeypatch):
    use_made_banks(monkeypatch)  # who sits where does not depend on what is computed
    narrow = {"conv_width": [16], "dropout": [0.0, 0.1], "pooling": "average"}
    found = search(store, tmp_path / "study", narrow, trials=23, pages=6, epochs=2, pruner="none")
    started = [t.user_attrs["first_epoch"] for t in found.study.get_trials()]
    # The article's head is wider than this bank's space: 4 of 6 pages; then 2 narrow ones join it, then 6 at a time.
    assert started == sorted(started)
    counts = np.bincount(started)[::2]
    assert counts[0] == 3
    assert set(counts[1:-1].tolist()) == {6}


@pytest.mark.parametrize(("pays", "banks"), [(0, 2), (pool.A_SMALLER_BANK, 1)])
def test_a_smaller_bank_is_only_made_where_it_pays(store, tmp_path, monkeypatch, pays, banks):
    use_made_banks(monkeypatch)
    monkeypatch.setattr(pool, "A_SMALLER_BANK", pays)
    found = search(store, tmp_path / "study", SPACE, shrinks=True, trials=8, epochs=8, pages=32)
    assert found.bank.compilations == 2 * banks


def test_each_folds_head_has_first_weights_of_its_own(store, tmp_path, monkeypatch):
    use_made_banks(monkeypatch)
    seeds, insert = [], Banks.insert

    def inserting(banks, arriving):
        seeds.extend(one.newcomer.seeds for one in arriving)
        return insert(banks, arriving)

    monkeypatch.setattr(Banks, "insert", inserting)
    found = search(store, tmp_path / "study", SPACE, folds=3, trials=4, epochs=1)
    assert len({seed for folds in seeds for seed in folds}) == 4 * 3
    assert [folds[0] for folds in seeds] == [derive_seed(found.config.seed, "head", index) for index in range(4)]


@pytest.mark.parametrize("where", ["hold", "train_epoch"])
def test_memory_that_is_not_there_after_all_is_said_in_one_line(store, tmp_path, monkeypatch, where):
    def without_memory(*_):
        return np.ones(2**60, np.int8)

    use_made_banks(monkeypatch)
    monkeypatch.setattr(MadeProgram, where, without_memory)
    with pytest.raises(InputError, match=r"--engine: expected memory for a bank of 10 pages.*--resume"):
        search(store, tmp_path / "study", SPACE)


@pytest.mark.parametrize(
    ("stores", "memory", "bank", "held"),
    [
        (1, 1, 0.5, 1),
        (3, 2.5, 0, 2),
        (3, 2.5, 0.4, 2),  # all banks are within a quarter of the memory, of which the features' half is 2.5 stores
        (3, 2.5, 0.75, 1),  # what banks take beyond it is not the features'
        (1, 1, 0.6, 0),
        (2, 0.9, 0, 0),
    ],
)
def test_the_features_of_all_stores_share_one_half_of_the_memory(store, monkeypatch, stores, memory, bank, held):
    use_made_banks(monkeypatch)
    data = made_data(store, **PARTS)
    of_store = 4 * len(data.store) * data.store.header.row_values
    made: list[MadeProgram] = []

    def hold(program, features):
        made.append(program)
        return features

    def budget() -> int:
        """Falls as features are held, as that of the machine does: by half of what they take."""
        return int(of_store * (memory - len(set(made)) / 2))

    monkeypatch.setattr(MadeProgram, "hold", hold)
    monkeypatch.setattr(sizing, "bank_budget", budget)
    monkeypatch.setattr(sizing, "_bank_bytes", lambda *_: int(bank * of_store))
    shape = BankShape.covering([HeadSpec(conv_width=16)], pages=1, feature_shape=SHAPE, classes=4, batch=25)
    names = [f"store {number}" for number in range(stores)]
    config = SimpleNamespace(dtype="float32", objective="accuracy", class_weights="none")
    Banks(BankShapes(dict.fromkeys(names, shape), 1), dict.fromkeys(names, data), config)
    assert len(set(made)) == held


def test_another_error_in_a_bank_stays_what_it_is(store, tmp_path, monkeypatch):
    use_made_banks(monkeypatch)
    monkeypatch.setattr(MadeProgram, "train_epoch", lambda *_: [].pop())
    with pytest.raises(IndexError):
        search(store, tmp_path / "study", SPACE)


def test_diverging_heads_fail_with_their_reason_and_the_others_go_on(store, tmp_path, monkeypatch):
    use_made_banks(monkeypatch)  # of real ones tests/search/test_search.py, where it is slow
    wild = {"conv_width": [16, 32], "learning_rate": [1e-3, 1e30], "batch_norm": False}
    found = search(store, tmp_path / "study", wild, trials=10, epochs=3, pruner="none")
    trials = found.study.get_trials()
    failed = [trial for trial in trials if "failure" in trial.user_attrs]
    assert failed
    assert all("diverged in epoch" in trial.user_attrs["failure"] for trial in failed)
    assert {trial.params["learning_rate"] for trial in failed} == {1e30}
    assert all(t.value is not None for t in trials if t.params["learning_rate"] == 1e-3)


@pytest.mark.parametrize("made", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_with_folds_a_trial_is_the_mean_over_its_folds(store, tmp_path, monkeypatch, made):
    if made:
        use_made_banks(monkeypatch)
    reported: dict[tuple[int, int], np.ndarray] = {}
    finished: dict[int, list[np.ndarray]] = {}
    train, offer = Banks.train, TopCheckpoints.offer

    def training(banks, epoch, trials):
        trained = train(banks, epoch, trials)
        for one in trials:
            reported[one.asked.number, one.epochs + 1] = trained[one.store].scores.accuracy[:, one.slot].copy()
        return trained

    def offering(checkpoints, asked, weights, score, probabilities):
        finished[asked.number] = probabilities
        offer(checkpoints, asked, weights, score, probabilities)

    monkeypatch.setattr(Banks, "train", training)
    monkeypatch.setattr(TopCheckpoints, "offer", offering)
    found = search(store, tmp_path / "study", SPACE, folds=3, trials=6, epochs=3, pruner="none")
    data = found.data
    rows = np.concatenate(data.folds)
    assert sorted(rows.tolist()) == data.train.rows.tolist()
    patients = [set(data.store.patients[fold].tolist()) for fold in data.folds]
    assert not (patients[0] & patients[1] or patients[0] & patients[2] or patients[1] & patients[2])
    labels = [data.store.labels[fold] for fold in data.folds]
    for trial in found.study.get_trials():
        for epoch, value in trial.intermediate_values.items():
            assert value == pytest.approx(reported[trial.number, epoch].mean())
        pairs = zip(finished[trial.number], labels, strict=True)
        of_folds = [score(probabilities, true) for probabilities, true in pairs]
        assert len({one.loss for one in of_folds}) == 3
        assert trial.value == pytest.approx(np.mean([one.accuracy for one in of_folds]))
        assert trial.user_attrs["validation_loss"] == pytest.approx(np.mean([one.loss for one in of_folds]))
    assert max(np.ptp(of_folds) for of_folds in reported.values()) > 0
    assert json.dumps(found.bank.to_dict())


@pytest.mark.slow
def test_a_half_empty_bank_gives_way_to_a_smaller_one_and_heads_go_on_as_they_were(store, tmp_path, monkeypatch):
    """Most of the trials are pruned at once, and none comes in: the others end in another bank."""
    options = {"trials": 8, "epochs": 8, "pages": 32}
    monkeypatch.setattr(pool, "A_SMALLER_BANK", 0)
    whole = search(store, tmp_path / "whole", SPACE, **options)
    shrunk = search(store, tmp_path / "shrunk", SPACE, shrinks=True, **options)
    assert whole.bank.compilations == 2
    assert shrunk.bank.compilations >= 4
    assert shrunk.bank.page_occupancy > 1.3 * whole.bank.page_occupancy
    compared = 0
    for one, other in zip(whole.study.get_trials(), shrunk.study.get_trials(), strict=True):
        assert (one.state, one.params) == (other.state, other.params)
        assert one.intermediate_values.keys() == other.intermediate_values.keys()
        if one.state == TrialState.COMPLETE:  # rounding differs with the number of pages
            compared += 1
            assert one.user_attrs["learning_rates"] == other.user_attrs["learning_rates"]
            assert one.user_attrs["validation_loss"] == pytest.approx(other.user_attrs["validation_loss"], rel=1e-3)
    assert compared >= 1
