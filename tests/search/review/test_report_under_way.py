"""The report of a study that is under way, was stopped, or was ended elsewhere."""

from __future__ import annotations

import html
import json
from dataclasses import asdict

import optuna
import pytest
from limited_files import largest_file
from made_crew import DEAD
from made_study import MadeStudy, make_config

from features.runtime.errors import InputError
from features.runtime.lock import WriterLock
from heads.html.document import Document
from search.finish.export_choice import what_leaves
from search.record.crew import ENDED, ENDED_IN, WORKER_KEY
from search.record.noted_config import CONFIG
from search.record.owner import Owner
from search.record.study_record import Progress, is_running, read_record
from search.review.note import note_on
from search.review.outcome import show_outcome
from search.review.report import make_report
from search.setup.config import REPORT_FILE
from search.setup.export_options import ExportOptions


def test_a_study_that_processes_work_on_together_runs_until_the_last_has_left(tmp_path):
    url = f"sqlite:///{tmp_path}/a.db"
    made = MadeStudy(tmp_path / "s", make_config(storage=url))
    made.train(3)
    made.opened.close()
    assert read_record(made.folder).progress is Progress.STOPPED
    study = optuna.load_study(study_name="made", storage=url)
    study.set_user_attr(CONFIG, made.config.to_dict())
    worker = asdict(Owner.of_this_process())
    study.set_user_attr(f"{WORKER_KEY}one", worker)
    study.set_user_attr(f"{WORKER_KEY}gone", worker | DEAD)
    record = read_record(made.folder)
    assert record.progress is Progress.RUNNING
    study.set_user_attr(ENDED, 12)
    assert read_record(made.folder).progress is Progress.STOPPED  # it is leaving
    study.set_user_attr(f"{WORKER_KEY}one", worker | DEAD)
    study.set_user_attr(ENDED, 0)
    page = make_report(read_record(made.folder))
    assert 'The search was stopped: 3 of 12 trials. It goes on with <span class="option">--join</span>.' in page
    assert f"--out {made.folder} --join" in page


def test_a_study_that_another_worker_has_ended_has_its_results_there_and_not_those_of_an_earlier_end(tmp_path, capsys):
    url = f"sqlite:///{tmp_path}/a.db"
    made = MadeStudy(tmp_path / "s", make_config(storage=url))
    made.train(6)
    made.conclude()
    made.train(6)
    folder = made.close()
    study = optuna.load_study(study_name="made", storage=url)
    for name, value in ((CONFIG, made.config.to_dict()), (ENDED, 12), (ENDED_IN, "/there on another")):
        study.set_user_attr(name, value)
    record = read_record(folder)
    assert (record.progress, record.was_ended_elsewhere) == (Progress.FINISHED, True)
    show_outcome(record)
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert "another worker has written what was found, into /there on another" in said.err
    with pytest.raises(InputError, match=r"s/heads: expected the head of trial \d+, found none; what .* /there on"):
        what_leaves(record, ExportOptions())


def test_a_study_that_went_on_with_more_trials_elsewhere_has_these(tmp_path):
    made = MadeStudy(tmp_path / "s", make_config(storage=f"sqlite:///{tmp_path}/a.db", trials=20))
    made.train(12)
    made.conclude()
    made.train(8)
    folder = made.close()
    made.config.model_copy(update={"trials": 12}).write(folder)
    study = optuna.load_study(study_name="made", storage=made.config.storage)
    study.set_user_attr(CONFIG, made.config.to_dict())
    for name, value in ((ENDED, 12), (ENDED_IN, "/there on another")):
        study.set_user_attr(name, value)
    record = read_record(folder)
    assert (record.config.trials, record.progress, record.ended_in) == (20, Progress.STOPPED, None)
    study.set_user_attr(ENDED, 20)
    record = read_record(folder)
    assert (record.progress, record.ended_in) == (Progress.FINISHED, "/there on another")


def test_while_the_search_runs_it_says_so_and_leaves_the_record_alone(tmp_path):
    made = MadeStudy(tmp_path / "study", make_config())
    lock = WriterLock(made.folder / "study.json")
    made.train(5)
    asked = made.begin()
    before = (made.folder / "journal.log").read_bytes()
    record = read_record(made.folder)
    text = make_report(record)
    assert record.progress is Progress.RUNNING
    assert "still running: 5 of 12 trials so far" in text
    assert "have not been shown to this head" in text
    assert f"--out {made.folder} --resume" in text
    assert asked.number in [trial.number for trial in record.trials]
    assert '"name":"running"' in text
    assert (made.folder / "journal.log").read_bytes() == before
    assert sorted(path.name for path in made.folder.iterdir()) == [
        ".study.json.lock",
        "journal.log",
        "split.json",
        "study.json",
    ]
    lock.release()
    assert not is_running(made.folder)
    assert read_record(made.folder).progress is Progress.STOPPED
    made.close()


def test_killed_behind_the_last_trial_it_is_not_over(tmp_path):
    made = MadeStudy(tmp_path / "study", make_config())
    made.train(12)
    folder = made.close()
    record = read_record(folder)
    text = html.unescape(make_report(record))
    assert record.progress is Progress.STOPPED
    assert "stopped: 12 of 12 trials, what comes after them (repeats, last training, test) is still to come" in text
    assert f"--out {folder} --resume" in text
    assert "stopped; what comes after them" in note_on(record)
    made = MadeStudy(folder, make_config(), resume=True)
    made.conclude()
    made.close()
    assert read_record(folder).progress is Progress.FINISHED


def test_without_a_completed_trial_it_is_a_page_all_the_same(tmp_path):
    made = MadeStudy(tmp_path / "study", make_config())
    made.train(0)
    assert "No trial has completed yet." in make_report(read_record(made.folder))
    made.begin()
    text = make_report(read_record(made.folder))
    assert "No trial has completed yet." in text
    assert "Learning curves" in text
    made.close()


def test_an_old_test_result_is_not_shown_for_a_new_winner(tmp_path):
    made = MadeStudy(tmp_path / "study", make_config())
    made.train(12)
    made.conclude()
    summary = json.loads((made.folder / "summary.json").read_text())
    summary["test"]["trial"] += 1
    (made.folder / "summary.json").write_text(json.dumps(summary))
    record = read_record(made.close())
    assert record.summary.test is None
    assert "have not been shown to this head" in make_report(record)


def test_a_full_disk_leaves_the_old_page(tmp_path, invoke):
    made = MadeStudy(tmp_path / "s", make_config())
    made.train(3)
    page = made.close() / REPORT_FILE
    old = Document("old", "page").html()
    page.write_text(old, encoding="utf-8")
    with largest_file(100_000):
        status, _, err = invoke("search.report", made.folder)
    assert status == 1
    assert err.splitlines()[-1].startswith(f"error: {page}: larger than a file may be here")
    assert page.read_text(encoding="utf-8") == old
    assert [path.name for path in made.folder.glob("*html*")] == [REPORT_FILE]
