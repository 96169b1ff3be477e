"""A dashboard that stays open: later ends, a study that is removed, another one in its place, and what is away."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import optuna
import pytest
from asked_dashboard import artifacts_of, ask, detail, put_heads
from commands import invoke
from conftest import build_store
from limited_files import largest_file
from made_study import MadeStudy, make_config

from features.rows.feed import Feed
from features.runtime.errors import BottleneckError, InputError
from features.store.reader import FeatureStore
from search.record.head_files import path_of, refit_path_of
from search.record.study_record import read_record
from search.record.summary import read_summary, write_summary
from search.review import dashboard_study
from search.review.confusions import kept_trials, validation_confusions
from search.review.dashboard_study import DashboardStudy

pytest.importorskip("optuna_dashboard")


@pytest.fixture
def made(tmp_path):
    study = MadeStudy(tmp_path / "study", make_config())
    yield study
    study.close()


def test_a_second_end_that_no_look_fell_into_is_shown_like_the_first(made, tmp_path):
    made.train(12)
    made.conclude()
    best, second, *_ = put_heads(made.folder)
    refits = [refit_path_of(made.folder, number) for number in (best, second)]
    for path in refits:
        path.write_bytes(b"of the first end")
    view = DashboardStudy(made.folder, made.config, tmp_path / "artifacts")
    assert artifacts_of(view, best)[refits[0].name] == b"of the first end"
    assert refits[1].name in artifacts_of(view, second)
    held = len(list((tmp_path / "artifacts").iterdir()))

    refits[0].write_bytes(b"of the second end, which is another one")
    refits[1].unlink()
    summary = read_summary(made.folder)
    test = replace(summary.test, confusion=((11, 29), (22, 18)))
    write_summary(made.folder, replace(summary, verdict="Another verdict.", test=test))
    view.refresh()
    assert "Another verdict." in detail(view.app)["note"]["body"]
    kept = artifacts_of(view, best)
    assert kept[refits[0].name] == b"of the second end, which is another one"
    assert b">29<" in kept["confusion-test.svg"]
    assert len(kept) == 4  # none is there twice
    assert refits[1].name not in artifacts_of(view, second)
    assert len(list((tmp_path / "artifacts").iterdir())) == held - 1

    made.conclude()
    write_summary(made.folder, replace(read_summary(made.folder), test=None))
    view.refresh()
    assert "confusion-test.svg" not in artifacts_of(view, best)


@pytest.mark.parametrize("changes", [{"seed": 77}, {}])
def test_another_study_in_its_place_ends_the_command(made, tmp_path, monkeypatch, changes):
    made.train(4)
    monkeypatch.setattr(dashboard_study, "REFRESH_SECONDS", 0.05)
    view = DashboardStudy(made.folder, made.config, tmp_path / "artifacts")
    made.train(1)
    view.refresh()  # which is the same one
    made.close()
    shutil.rmtree(made.folder)
    other = MadeStudy(made.folder, make_config(**changes))
    other.train(4)
    monkeypatch.setattr(dashboard_study, "DashboardStudy", lambda *_: view)
    said = invoke("search.dashboard", made.folder, "--port", 0)
    assert said.status == 1
    assert re.search(r"study: another study is in its place.*start the dashboard again", " ".join(said.err.split()))
    other.close()


def test_a_study_that_was_removed_is_said_in_a_line_and_once(made, tmp_path, monkeypatch, caplog):
    made.train(2)
    view, turns, lines = DashboardStudy(made.folder, made.config, tmp_path / "artifacts"), [], []
    away = made.folder.rename(tmp_path / "away")
    assert ask(view.app, "/dashboard/studies/0")[0] == "200 OK"
    for path in ("/api/studies/0", "/artifacts/0/1/ab"):
        status, body = ask(view.app, path)
        assert status.startswith("503")
        assert "found no such file" in json.loads(body)["reason"]
    assert not caplog.records

    def waits(seconds):
        turns.append(seconds)
        if len(turns) == 3:
            away.rename(made.folder)
        if len(turns) == 4:
            made.folder.rename(away)
        return len(turns) == 6 and view.stop()

    monkeypatch.setattr(view._stopped, "wait", waits)
    monkeypatch.setattr(dashboard_study, "say", lines.append)
    view.keep_up()
    assert len(lines) == 2  # and once more after it had come back
    assert all("found no such file" in line for line in lines)
    away.rename(made.folder)
    assert len(detail(view.app)["trials"]) == 2


def test_what_there_is_no_room_for_is_no_artifact(made, tmp_path):
    made.train(12)
    best = put_heads(made.folder, count=1)[0]
    view = DashboardStudy(made.folder, made.config, tmp_path / "artifacts")
    held = {path.name for path in (tmp_path / "artifacts").iterdir()}
    path_of(made.folder, best).write_bytes(bytes(200_000))
    for _ in range(2):
        with largest_file(100_000), pytest.raises(BottleneckError, match="artifacts: larger than a file may be"):
            view.refresh()
    assert set(artifacts_of(view, best)) == {"learning-curve.svg"}
    assert {path.name for path in (tmp_path / "artifacts").iterdir()} < held
    view.refresh()
    assert artifacts_of(view, best)[f"trial-{best}.hdf5"] == bytes(200_000)


@pytest.fixture
def scored(tmp_path):
    """A study whose store and heads are real."""
    from heads.files.head_file import save_head
    from heads.files.metadata import HeadMetadata
    from heads.model.build import build_head
    from heads.model.spec import HeadSpec

    store = FeatureStore(build_store(tmp_path / "store.h5"))
    stores = {"features": {"path": str(store.path), "fingerprint": store.fingerprint}, "validation": None, "test": None}
    made = MadeStudy(tmp_path / "study", make_config(stores=stores))
    made.train(6)
    rows = {"train": [*range(24)], "validation": [*range(24, 48)], "test": []}
    (made.folder / "split.json").write_text(json.dumps({"rows": rows}))
    (made.folder / "heads").mkdir()
    best = read_record(made.folder).ranked[0]
    metadata = HeadMetadata.of_store(store.header, store.fingerprint, versions={})
    model = build_head(HeadSpec(), metadata.feature_shape, len(metadata.classes))
    save_head(made.folder / "heads" / f"trial-{best.number}.hdf5", model, metadata)
    made.close()
    return made, store, best.number, model


def test_confusions_are_those_of_the_validation_rows(scored, tmp_path):
    made, store, number, model = scored
    record = read_record(made.folder)
    [(trial, counts, names)] = validation_confusions(record)
    assert trial.number == number
    assert tuple(names) == store.classes
    rows = np.arange(24, 48)
    feed = Feed(store, rows, memory_bytes=0)
    called = np.concatenate([np.asarray(model(batch)) for batch in feed.score_batches(8, 0)]).argmax(1)
    expected = np.zeros((len(names), len(names)), int)
    np.add.at(expected, (store.labels[rows], called), 1)
    assert counts == expected.tolist()

    view = DashboardStudy(made.folder, made.config, tmp_path / "artifacts")
    view.pin_confusions(record)
    kept = next(one for one in detail(view.app)["trials"] if one["number"] == number)["artifacts"]
    assert "confusion-validation.svg" in {one["filename"] for one in kept}

    path_of(made.folder, number).touch()  # as where a later end writes it anew
    view.refresh()
    assert "confusion-validation.svg" not in artifacts_of(view, number)


def test_heads_that_a_later_end_keeps_are_scored_too_and_once_more_where_a_store_was_away(
    scored, tmp_path, monkeypatch
):
    made, _, number, _ = scored
    view, turns, pinned = DashboardStudy(made.folder, made.config, tmp_path / "artifacts"), [], []
    heads, other = made.folder / "heads", read_record(made.folder).ranked[1].number

    def waits(seconds):
        turns.append(seconds)
        if len(turns) == 3:
            shutil.copy(heads / f"trial-{number}.hdf5", heads / f"trial-{other}.hdf5")
        if len(turns) == 5:
            path_of(made.folder, number).touch()
        return len(turns) == 7 and view.stop()

    def pin(record):
        pinned.append({one.number for one in kept_trials(record)})
        if len(pinned) == 1:
            raise InputError("store.h5", expected="a feature store", found="no such file")

    monkeypatch.setattr(view._stopped, "wait", waits)
    monkeypatch.setattr(view, "pin_confusions", pin)
    view.keep_up()
    assert pinned == [{number}, {number}, {number, other}, {number, other}]


def test_another_store_in_its_place_is_refused(scored, tmp_path):
    made, _, _, _ = scored
    (tmp_path / "store.h5").unlink()
    other = build_store(tmp_path / "store.h5", rows=51, seed=1)
    with pytest.raises(InputError, match=re.escape(f"{other}: fingerprint")):
        list(validation_confusions(read_record(made.folder)))


@pytest.mark.parametrize(
    ("error", "turns", "said"),
    [
        (KeyError("x"), 3, ["KeyError: 'x'", "any more: KeyError 3 times in a row"]),
        (InputError("study.json", expected="JSON", found="none"), 5, ["study.json: expected JSON, found none"]),
        (optuna.exceptions.StorageInternalError("away"), 5, ["away"]),
    ],
)
def test_what_will_pass_is_tried_again_for_ever_and_a_mistake_three_times(
    made, tmp_path, monkeypatch, error, turns, said
):
    view, asked, lines = DashboardStudy(made.folder, made.config, tmp_path / "artifacts"), [], []

    def fails():
        asked.append(1)
        if len(asked) == 5:
            view.stop()
        raise error

    monkeypatch.setattr(view, "refresh", fails)
    monkeypatch.setattr(dashboard_study, "REFRESH_SECONDS", 0)
    monkeypatch.setattr(dashboard_study, "say", lines.append)
    view.keep_up()
    assert len(asked) == turns
    assert [line.removeprefix("not brought up to date").removeprefix(":").strip() for line in lines] == said
