"""Optuna's names that it does not promise to keep: each test says which one an upgrade has changed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import optuna
import pytest
import sqlalchemy
from made_database import commits, connected, database, new_study
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.exceptions import StorageInternalError
from optuna.samplers import TPESampler
from optuna.storages import InMemoryStorage, RDBStorage
from optuna.trial import TrialState, create_trial
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from search.setup import optuna_internals as internals


@pytest.fixture
def study() -> optuna.Study:
    """The second study of its storage: numbers in the storage and in the study differ."""
    storage = InMemoryStorage()
    optuna.create_study(storage=storage, study_name="first").ask()
    return optuna.create_study(storage=storage, study_name="second")


def storage_of(study: optuna.Study) -> optuna.storages.BaseStorage:
    return study._storage


def test_trial_is_made_of_a_study_and_a_number_in_the_storage(study):
    asked = study.ask()
    asked.suggest_float("x", 0, 1)
    running = internals.running_trial(study, study.get_trials()[0])
    assert (running.number, running.params) == (asked.number, asked.params), "optuna.trial.Trial(study, trial_id)"
    running.report(0.5, 1)
    running.set_user_attr("told", 1)
    study.tell(running, 0.25)
    (told,) = study.get_trials()
    assert (told.state, told.value) == (TrialState.COMPLETE, 0.25)
    assert (told.intermediate_values, told.user_attrs) == ({1: 0.5}, {"told": 1})


def test_a_claimed_trial_is_drawn_by_what_has_ended_by_now(study):
    def draws() -> float:
        study.sampler = TPESampler(n_startup_trials=1, seed=0)
        waiting = create_trial(state=TrialState.RUNNING)
        study.add_trial(waiting)
        return internals.claimed_trial(study, study.get_trials()[-1]).suggest_float("x", 0, 1)

    with ThreadPoolExecutor(1) as asking:  # and told in another thread
        first = asking.submit(draws).result()
        study.add_trial(create_trial(params={"x": 0.5}, distributions={"x": FloatDistribution(0, 1)}, value=1.0))
        second = asking.submit(draws).result()
    assert first != second, "Study._thread_local.cached_all_trials"


def test_frozen_trial_knows_its_number_in_the_storage(study):
    study.ask()
    (trial,) = study.get_trials()
    number = internals.id_of_trial(trial)
    assert number != trial.number
    assert storage_of(study).get_trial(number).number == trial.number, "FrozenTrial._trial_id"


def test_a_trial_that_waits_is_as_one_that_was_enqueued(study):
    study.enqueue_trial({"x": 0.5}, user_attrs={"place": 3})
    study.add_trial(internals.waiting_trial({"x": 0.5}, {"place": 3}))
    enqueued, waiting = study.get_trials()
    assert internals.fixed_parameters(enqueued) == {"x": 0.5}, "the system attribute fixed_params"
    assert waiting.system_attrs == enqueued.system_attrs
    assert (waiting.state, waiting.user_attrs) == (enqueued.state, enqueued.user_attrs)
    asked = [study.ask(), study.ask(), study.ask()]
    assert [trial.suggest_float("x", 0, 1) for trial in asked][:2] == [0.5, 0.5]
    assert internals.fixed_parameters(study.get_trials()[2]) == {}


def test_frozen_study_knows_its_number_and_its_attributes_can_be_laid_over(study):
    frozen = next(one for one in storage_of(study).get_all_studies() if one.study_name == "second")
    assert isinstance(frozen, internals.FrozenStudy), "optuna.study._frozen.FrozenStudy"
    number = storage_of(study).get_study_id_from_name("second")
    assert internals.id_of_study(frozen) == number, "FrozenStudy._study_id"


def test_an_artifact_is_noted_as_optuna_notes_it(study, tmp_path):
    from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta, upload_artifact

    (tmp_path / "curve.svg").touch()
    store, trial = FileSystemArtifactStore(tmp_path), study.ask()
    upload_artifact(artifact_store=store, file_path=str(tmp_path / "curve.svg"), study_or_trial=trial)
    (noted,) = get_all_artifact_meta(trial)
    (trial,) = study.get_trials()
    assert dict([internals.attribute_of_artifact(noted)]) == trial.system_attrs, "optuna.artifacts._upload"
    assert all(map(internals.notes_artifact, trial.system_attrs)), "optuna.artifacts._upload"
    assert not internals.notes_artifact("fixed_params")


def test_nothing_else_touches_private_names_of_optuna():
    """The dashboard's overlay and the book of trials go through the adapter."""
    import re

    from conftest import ROOT

    private = re.compile(
        r"\._trial_id|\._study_id|\._system_attrs|\._user_attrs|\._storage\b|optuna[\w.]*\._\w|import _|fixed_params\b"
    )
    adapter = ROOT / "search" / "setup" / "optuna_internals.py"
    found = {
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in (ROOT / "search").rglob("*.py")
        if path != adapter
        for line in path.read_text(encoding="utf-8").splitlines()
        if private.search(line)
    }
    assert not found


# --- of a database ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> Iterator[str]:
    with database("sqlite", tmp_path_factory.mktemp("internals")) as url:
        yield url


@pytest.fixture
def rdb(url) -> Iterator[RDBStorage]:
    made = connected(url)
    yield made
    made.engine.dispose()


@pytest.fixture
def number(rdb) -> int:
    """A study's number in it, in which trials' numbers are others than in the study."""
    rdb.create_new_trial(new_study(rdb))
    return new_study(rdb)


WHOLE = create_trial(
    state=TrialState.COMPLETE,
    values=[math.inf],
    params={"rate": 0.5, "pooling": "max"},
    distributions={"rate": FloatDistribution(0, 1), "pooling": CategoricalDistribution(["average", "max"])},
    user_attrs={"a": {"b": [1, None]}},
    system_attrs={"fixed_params": {"rate": 0.5}},
    intermediate_values={1: 0.25, 2: -math.inf},
)


def test_a_transaction_is_committed_where_its_context_ends(rdb, number):
    done = commits(rdb)
    with internals.transaction(rdb) as session:
        assert isinstance(session, Session), "_create_scoped_session yields a session"
        study = session.get(internals.tables.StudyModel, number)
        study.study_name = f"another {number}"
        assert not done
    assert len(done) == 1
    assert rdb.get_study_name_from_id(number) == f"another {number}"


def test_a_transaction_that_raises_changes_nothing(rdb, number):
    before = rdb.get_study_name_from_id(number)
    away = OperationalError("UPDATE", {}, Exception("gone"))
    for error, raised in ((KeyError("ours"), KeyError), (away, StorageInternalError)):
        with pytest.raises(raised) as told, internals.transaction(rdb) as session:
            session.get(internals.tables.StudyModel, number).study_name = "another"
            session.flush()
            raise error
        assert told.value is error or told.value.__cause__ is error, "who tries again looks at the cause"
        rdb.remove_session()
        assert rdb.get_study_name_from_id(number) == before


def test_of_two_that_add_the_same_row_one_is_refused_as_such(rdb, number):
    table = internals.tables.StudyUserAttributeModel
    for raised in (nullcontext(), pytest.raises(IntegrityError)):  # which is no StorageInternalError
        with raised, internals.transaction(rdb) as session:
            session.add(table(study_id=number, key="a", value_json="1"))


def test_a_transaction_keeps_others_from_writing_from_its_first_moment(rdb, number, url):
    other = connected(url)
    other.engine.dispose()  # its first connection would wait for five seconds
    sqlalchemy.event.listen(other.engine, "connect", lambda raw, _: raw.execute("PRAGMA busy_timeout = 0"))
    with internals.transaction(rdb), pytest.raises(StorageInternalError) as refused:
        other.set_study_user_attr(number, "a", 1)
    assert "locked" in str(refused.value.__cause__)
    other.engine.dispose()


@pytest.mark.parametrize("state", [TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE])
def test_a_new_trial_has_its_numbers_and_all_of_its_template_within_the_transaction(rdb, number, state):
    template = WHOLE if state == TrialState.COMPLETE else create_trial(state=state, user_attrs={"a": 1})
    for index in range(2):
        with internals.transaction(rdb) as session:
            row = internals.new_trial(rdb, session, number, template)
            session.flush()
            assert (row.number, row.state, row.study_id) == (index, state, number), "_get_prepared_new_trial"
            assert row.trial_id is not None
            made = row.trial_id
        trial = rdb.get_trial(made)
        assert internals.id_of_trial(trial) == made
        for name in ("state", "values", "params", "distributions", "user_attrs", "system_attrs", "intermediate_values"):
            assert getattr(trial, name) == getattr(template, name), name
    assert [trial.number for trial in rdb.get_all_trials(number)] == [0, 1]


def test_a_new_trial_that_is_not_committed_is_none(rdb, number):
    with pytest.raises(KeyError), internals.transaction(rdb) as session:
        internals.new_trial(rdb, session, number, WHOLE)
        raise KeyError
    rdb.remove_session()
    assert rdb.get_all_trials(number) == []


def test_tables_have_the_columns_and_the_keys_that_are_written():
    tables = internals.tables
    written = {
        tables.StudyModel: {"study_id", "study_name"},
        tables.StudyUserAttributeModel: {"study_id", "key", "value_json"},
        tables.TrialModel: {"trial_id", "number", "study_id", "state", "datetime_start", "datetime_complete"},
        tables.TrialUserAttributeModel: {"trial_id", "key", "value_json"},
        tables.TrialSystemAttributeModel: {"trial_id", "key", "value_json"},
        tables.TrialParamModel: {"trial_id", "param_name", "param_value", "distribution_json"},
        tables.TrialValueModel: {"trial_id", "objective", "value", "value_type"},
        tables.TrialIntermediateValueModel: {"trial_id", "step", "intermediate_value", "intermediate_value_type"},
        tables.TrialHeartbeatModel: {"trial_id", "heartbeat"},
    }
    unique = {
        tables.StudyUserAttributeModel: {"study_id", "key"},
        tables.TrialUserAttributeModel: {"trial_id", "key"},
        tables.TrialSystemAttributeModel: {"trial_id", "key"},
        tables.TrialParamModel: {"trial_id", "param_name"},
        tables.TrialValueModel: {"trial_id", "objective"},
        tables.TrialIntermediateValueModel: {"trial_id", "step"},
        tables.TrialHeartbeatModel: {"trial_id"},
    }
    for model, columns in written.items():
        there = model.__table__.columns
        assert columns <= set(there.keys()), model.__name__
        needed = {one.name for one in there if not (one.nullable or one.default or one.server_default)}
        assert needed <= {*columns, *(one.name for one in model.__table__.primary_key)}, "what is to be written, too"
    for model, columns in unique.items():
        constraints = [one for one in model.__table__.constraints if isinstance(one, sqlalchemy.UniqueConstraint)]
        assert columns in [{one.name for one in constraint.columns} for constraint in constraints], model.__name__


def test_values_are_stored_as_what_they_are_read_from():
    values, steps = internals.tables.TrialValueModel, internals.tables.TrialIntermediateValueModel
    for value in (0.25, math.inf, -math.inf):
        assert values.stored_repr_to_value(*values.value_to_stored_repr(value)) == value
    for value in (0.25, math.inf, -math.inf, math.nan):
        stored = steps.intermediate_value_to_stored_repr(value)
        assert repr(steps.stored_repr_to_intermediate_value(*stored)) == repr(value)


def test_a_studys_row_is_found_by_its_number_under_a_lock(rdb, number):
    find = internals.tables.StudyModel.find_or_raise_by_id
    with internals.transaction(rdb) as session:
        assert find(number, session, for_update=True).study_id == number
        with pytest.raises(KeyError):
            find(10**6, session, for_update=True)


def test_what_is_noted_beside_a_trial_is_an_attribute_of_optunas(study):
    trial = study.ask()
    internals.note_beside(trial, "a", [1])
    (found,) = study.get_trials()
    assert (found.system_attrs, found.user_attrs) == ({"a": [1]}, {}), "Trial.storage, Trial._trial_id"


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("wanted", [True, False])
def test_of_conditions_is_warned_where_that_is_wanted(wanted, caplog, request):
    request.addfinalizer(lambda: internals.warn_of_conditions(True))
    request.addfinalizer(optuna.logging.disable_propagation)
    optuna.logging.enable_propagation()
    internals.warn_of_conditions(wanted)
    study = optuna.create_study(sampler=optuna.samplers.QMCSampler(seed=0))
    study.ask()  # has drawn nothing yet
    for _ in range(2):
        study.ask().suggest_float("x", 0, 1)
    found = any("conditions" in record.message for record in caplog.records)
    assert found == wanted, "optuna.samplers._qmc._logger"


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_the_points_of_a_sequence_are_optunas_and_a_place_has_one():
    def point(study: optuna.Study, sampler: optuna.samplers.BaseSampler) -> tuple[float, int]:
        study.sampler = sampler
        trial = study.ask()
        return trial.suggest_float("x", 0, 1), trial.suggest_int("n", 1, 64)

    def begun() -> optuna.Study:
        study = optuna.create_study()
        point(study, optuna.samplers.RandomSampler(seed=0))
        study.tell(0, 0.0)
        return study

    beside = optuna.samplers.RandomSampler(seed=0)
    theirs, optunas = begun(), optuna.samplers.QMCSampler(scramble=True, seed=5)
    one_after_the_other = [point(theirs, optunas) for _ in range(4)]
    ours = begun()
    placed = [point(ours, internals.PlacedSequence(place, seed=5, beside=beside)) for place in (3, 0, 1, 3, 2)]
    found = dict(zip((3, 0, 1, 2), (placed[3], *placed[1:3], placed[4]), strict=True))
    assert placed[0] == placed[3]
    assert [found[place] for place in range(4)] == one_after_the_other, "QMCSampler._find_sample_id"


def test_brackets_follow_from_a_number_of_ours(study):
    numbers = {0: 7, 1: None, 2: 5}
    placed = internals.PlacedHyperband(lambda one: numbers.get(one.number, one.number), least=1, most=81, reduction=3)
    optunas = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=81, reduction_factor=3)
    for _ in range(12):
        study.ask().report(0.5, 1)
    trials = study.get_trials()
    for pruner in (placed, optunas):
        pruner.prune(study, trials[-1])
    of_ours, of_optuna = ([one._get_bracket_id(study, trial) for trial in trials] for one in (placed, optunas))
    assert of_ours[3:] == of_optuna[3:], "HyperbandPruner._get_bracket_id(study, trial)"
    assert of_ours[:3] == [of_optuna[7], -1, of_optuna[5]]
    assert len(set(of_optuna)) > 1
    assert [trial.number for trial in trials] == list(range(12))
