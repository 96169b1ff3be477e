"""The dashboard: shows a study with what was pinned on it, and leaves its record alone."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from xml.etree import ElementTree

import optuna
import pytest
from asked_dashboard import ask, detail, put_heads
from made_study import MadeStudy, make_config
from optuna.trial import TrialState

from features.runtime.errors import BottleneckError, InputError
from heads.model.own import OwnSpec
from search.record.storage import JOURNAL
from search.record.study_record import read_record
from search.review.dashboard_study import DashboardStudy
from search.review.note import note_on
from search.review.overlay import Overlay
from search.review.read_only import only_as
from search.review.svg import confusion_svg, curve_svg
from search.setup.config import StudyConfig
from search.trials.notes import TrialNotes

pytest.importorskip("optuna_dashboard")


@pytest.fixture
def made(tmp_path):
    study = MadeStudy(tmp_path / "study", make_config())
    yield study
    study.close()


def test_a_running_study_is_shown_as_it_grows_and_its_journal_is_not_touched(made, tmp_path):
    made.train(5)
    put_heads(made.folder)
    before = (made.folder / JOURNAL).read_bytes()
    view = DashboardStudy(made.folder, made.config, tmp_path / "artifacts")
    shown = detail(view.app)
    assert [trial["number"] for trial in shown["trials"]] == [0, 1, 2, 3, 4]
    assert "5 of 12 trials" in shown["note"]["body"]
    assert shown["objective_names"] == ["validation accuracy"]
    names = {one["id"] for one in shown["plotly_graph_objects"]}
    assert names == {"value-and-size", "learning-curves", "what-ended-when"}
    assert (made.folder / JOURNAL).read_bytes() == before

    made.train(2)
    view.refresh()
    assert "7 of 12 trials" in detail(view.app)["note"]["body"]
    after = (made.folder / JOURNAL).read_bytes()
    assert after.startswith(before)
    made.train(5)  # the search itself never noticed
    assert all(trial.state.is_finished() for trial in made.opened.study.get_trials())
    assert sorted(path.name for path in made.folder.iterdir()) == ["heads", "journal.log", "split.json", "study.json"]


def test_the_best_heads_have_their_file_and_curve_as_artifacts(made, tmp_path):
    made.train(12)
    made.conclude(classes=("A & <B>", "B"))
    best = put_heads(made.folder)
    view = DashboardStudy(made.folder, made.config, tmp_path / "artifacts")
    trials = {trial["number"]: trial for trial in detail(view.app)["trials"]}
    artifacts = {number: {one["filename"]: one for one in trial["artifacts"]} for number, trial in trials.items()}
    assert set(artifacts[best[0]]) == {f"trial-{best[0]}.hdf5", "learning-curve.svg", "confusion-test.svg"}
    assert set(artifacts[best[1]]) == {f"trial-{best[1]}.hdf5", "learning-curve.svg"}
    assert all(not kept for number, kept in artifacts.items() if number not in best)

    def fetch(name: str) -> bytes:
        identity = artifacts[best[0]][name]["artifact_id"]
        return ask(view.app, f"/artifacts/0/{trials[best[0]]['trial_id']}/{identity}")[1]

    assert fetch(f"trial-{best[0]}.hdf5") == b"head %d" % best[0]
    ElementTree.fromstring(fetch("confusion-test.svg"))
    assert b"A &amp; &lt;B&gt;" in fetch("confusion-test.svg")
    assert artifacts[best[0]]["learning-curve.svg"]["mimetype"] == "image/svg+xml"
    held = list((tmp_path / "artifacts").iterdir())
    view.refresh()
    assert list((tmp_path / "artifacts").iterdir()) == held  # nothing is pinned twice


def test_artifacts_that_the_record_notes_are_not_offered_as_their_files_are_elsewhere(made, tmp_path):
    made.train(2)
    noted = {"artifact_id": "0a", "filename": "photo.png", "mimetype": "image/png", "encoding": None}
    storage = made.opened.study._storage
    for key, value in (("artifacts:0a", json.dumps(noted)), ("dashboard:artifacts:1:0b", "no JSON")):
        storage.set_study_system_attr(0, key, value)
    trial = made.opened.study.ask()
    trial.storage.set_trial_system_attr(trial._trial_id, "artifacts:0a", json.dumps(noted))
    made.opened.flush()
    view = DashboardStudy(made.folder, made.config, tmp_path / "artifacts")
    shown = detail(view.app)
    assert [one["artifacts"] for one in (shown, *shown["trials"])] == [[], [], [], []]
    assert ask(view.app, "/artifacts/0/0a")[0].startswith("404")
    assert ask(view.app, "/artifacts/0/2/0a")[0].startswith("404")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_whatever_would_write_is_refused_with_the_reason(made, tmp_path, method):
    made.train(3)
    before = (made.folder / JOURNAL).read_bytes()
    view = DashboardStudy(made.folder, made.config, tmp_path / "artifacts")
    for path in ("/api/studies", "/api/studies/0", "/api/studies/0/note", "/api/studies/0/rename", "/api/artifacts/0"):
        status, body = ask(view.app, path, method)
        assert status.startswith("403")
        assert "only looks" in json.loads(body)["reason"]
    assert (made.folder / JOURNAL).read_bytes() == before
    assert len(detail(view.app)["trials"]) == 3


@pytest.mark.parametrize(
    ("bound", "asked", "answered"),
    [
        ("127.0.0.1", "localhost:8080", True),
        ("127.0.0.1", "LOCALHOST", True),
        ("127.0.0.1", "[::1]:8080", True),
        ("127.0.0.1", "rebound.example.org:8080", False),
        ("127.0.0.1", "127.0.0.1.example.org", False),
        ("127.0.0.1", "", False),
        ("Lab-7", "lab-7:8080", True),
        ("lab-7", "rebound.example.org", False),
        ("0.0.0.0", "lab-7.example.org:8080", True),
    ],
)
def test_a_page_whose_own_name_came_to_mean_this_machine_reads_no_study(made, tmp_path, bound, asked, answered):
    made.train(1)
    app = only_as(DashboardStudy(made.folder, made.config, tmp_path / "artifacts").app, bound)
    status, body = ask(app, "/api/studies/0", host=asked)
    assert status.startswith("200" if answered else "403")
    assert (b"trials" in body) == answered


def test_the_storage_itself_refuses_to_change_a_trial(made):
    made.train(2)
    running = made.begin()
    study = optuna.load_study(study_name="made", storage=Overlay(made.folder, None))
    for change in (
        study.ask,
        lambda: study.tell(running.number, 0.5),
        lambda: study.set_user_attr("a", 1),
        lambda: study.enqueue_trial({}),
        lambda: optuna.delete_study(study_name="made", storage=study._storage),
    ):
        with pytest.raises(BottleneckError, match="only looks"):
            change()
    assert [t.state for t in study.get_trials()][-1] == TrialState.RUNNING


def test_the_best_trial_is_the_searchs_own(made):
    """Optuna takes the first of equal values; here the loss decides."""
    study = made.opened.study
    for loss in (0.5, 0.2, 0.3):
        trial = study.ask()
        trial.set_user_attr("validation_loss", loss)
        trial.set_user_attr("validation_accuracy", 0.9)
        study.tell(trial, 0.9)
    made.opened.flush()
    overlay = Overlay(made.folder, None)
    assert overlay.get_best_trial(0).user_attrs["validation_loss"] == 0.2


def test_what_is_pinned_stays_where_it_was_pinned(made):
    made.train(2)
    overlay = Overlay(made.folder, None)
    overlay.set_study_system_attr(0, "pin", 1)
    overlay.set_trial_system_attr(1, "pin", 2)
    assert overlay.get_study_system_attrs(0)["pin"] == 1
    assert overlay.get_all_studies()[0].system_attrs["pin"] == 1
    assert overlay.get_trial_system_attrs(1)["pin"] == 2
    assert [t._system_attrs.get("pin") for t in overlay.get_all_trials(0, deepcopy=False)] == [None, 2]
    fresh = Overlay(made.folder, None)
    assert "pin" not in fresh.get_study_system_attrs(0)


def test_long_attributes_are_shown_in_a_line_and_recorded_whole(made):
    made.train(1)
    trial = made.opened.study.ask()
    rates = [0.001 / 3] * 30 + [0.0005] * 20
    trial.set_user_attr("learning_rates", rates)
    trial.set_user_attr("short", [1, 2])
    made.opened.study.tell(trial, state=TrialState.FAIL)
    made.opened.flush()
    overlay = Overlay(made.folder, None)
    shown = overlay.get_trial(1).user_attrs
    assert shown == {"learning_rates": "0.0003333 x 30, 0.0005 x 20", "short": [1, 2]}
    assert overlay.get_all_trials(0)[1].user_attrs == shown
    assert overlay.record.get_trial(1).user_attrs == {"learning_rates": rates, "short": [1, 2]}
    spec = overlay.get_trial(0).user_attrs["spec"]
    assert len(spec) == 96
    assert spec.startswith("schema 1, conv_width 64, ")
    assert spec.endswith("…")


@pytest.mark.parametrize("after", [1, 3, 8])
def test_a_journal_that_was_cut_back_is_read_anew(tmp_path, after):
    """As --resume does: shorter than before, as long, or longer by the time of the next look."""
    made = MadeStudy(tmp_path / "study", make_config(trials=40))
    made.train(2)
    kept = made.opened.journal.size()
    made.train(3)
    made.begin()
    overlay = Overlay(made.folder, None)
    assert len(overlay.get_all_trials(0)) == 6
    made.close()
    with (made.folder / JOURNAL).open("r+b") as file:
        file.truncate(kept)
    again = MadeStudy(tmp_path / "study", make_config(trials=40), resume=True)
    again.train(after)
    seen = overlay.get_all_trials(0)
    assert [t.state for t in seen] == [t.state for t in again.opened.study.get_trials()]
    assert [t.datetime_start for t in seen] == [t.datetime_start for t in read_record(again.folder).trials]
    again.close()


def test_a_database_is_looked_at_in_the_same_way(tmp_path):
    url = f"sqlite:///{tmp_path / 'heads.db'}"
    made = MadeStudy(tmp_path / "study", make_config(trials=4, epochs=2, storage=url))
    made.train(3)
    view = DashboardStudy(made.folder, made.config, tmp_path / "artifacts")
    shown = detail(view.app, view.study_id)
    assert len(shown["trials"]) == 3
    assert "3 of 4 trials" in shown["note"]["body"]
    storage = made.opened.study._storage
    assert not any(key.startswith("dashboard") for key in storage.get_study_system_attrs(view.study_id))
    view.storage._opened.remove_session()
    view.storage._opened._backend.engine.dispose()
    made.close()


@pytest.mark.slow
def test_what_each_poll_sends_again_of_five_hundred_trials_is_small(tmp_path):
    made = MadeStudy(tmp_path / "study", make_config(trials=500, epochs=30))
    made.train(500)
    view = DashboardStudy(made.close(), made.config, tmp_path / "artifacts")
    detail(view.app)
    status, body = ask(view.app, "/api/studies/0?after=500")
    assert status == "200 OK"
    assert len(body) < 80_000  # of every poll: the note and the figures


def test_what_an_own_function_suggested_is_no_markup_in_the_note(made, monkeypatch):
    """A bar would end the cell of a table, and what is behind it would not be shown."""
    own = OwnSpec("heads.py:build", {"kind|of [head]": "*relu|6*", "_b_": "<i>\n#"})
    monkeypatch.setattr(TrialNotes, "head", property(lambda _: own))
    made.train(3)
    lines = note_on(read_record(made.folder)).splitlines()
    rows = [line for line in lines if "kind" in line]
    assert {row.count("|") for row in rows} == {6}  # as many as in the line above them
    told = re.sub(r"&#(\d+);", lambda found: chr(int(found[1])), rows[0])
    assert told.endswith(r"heads.py:build: kind|of [head] *relu|6*, _b_ <i>\n# |")
    assert not set("*_[]<") & set(rows[0])


def test_small_pictures_are_svg_with_their_numbers():
    text = confusion_svg([[5, 0], [1, 9]], ["a<b", "a name that is far too long"], "rows & columns")
    found = ["".join(node.itertext()) for node in ElementTree.fromstring(text).iter("{http://www.w3.org/2000/svg}text")]
    assert {"5", "0", "1", "9", "a<b", "rows & columns"} <= set(found)
    for values in ({1: 0.5}, {1: 0.5, 2: 0.75, 3: 0.7}, {1: 0.5, 2: 0.5}):
        line = ElementTree.fromstring(curve_svg(values, "t")).find("{http://www.w3.org/2000/svg}polyline")
        assert line is not None
        assert len(line.attrib["points"].split()) == len(values)


def test_small_pictures_know_odd_names():
    """XML has no control characters, and a Chinese letter is as wide as two others: it would lie over the cells."""
    text = confusion_svg([[5, 0], [1, 9]], ["a\x1b[31m", "视网膜静脉阻塞并发黄斑水肿"], "rows")
    found = ["".join(node.itertext()) for node in ElementTree.fromstring(text).iter("{http://www.w3.org/2000/svg}text")]
    assert "a\\x1b[31m" in found
    assert {"视网膜静脉阻塞并…", "视网膜静…"} <= set(found)


def test_without_optuna_dashboard_it_says_what_to_install(made, tmp_path, monkeypatch):
    made.train(1)
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    with pytest.raises(BottleneckError, match=r"pip install 'bottleneck-search\[dashboard\]'"):
        DashboardStudy(made.folder, made.config, tmp_path / "artifacts")


def test_what_is_no_study_is_refused(tmp_path):
    with pytest.raises(InputError, match="study directory"):
        StudyConfig.read(tmp_path)
    make_config().write(tmp_path)
    with pytest.raises(InputError, match="expected a study's journal"):
        DashboardStudy(tmp_path, make_config(), tmp_path / "artifacts")
    assert not (tmp_path / JOURNAL).exists()


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_interrupted(made, tmp_path, stop):
    made.train(4)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    command = [sys.executable, "-m", "search.dashboard", str(made.folder), "--port", "0"]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    watchdog = threading.Timer(120, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = re.match(r"(http://127\.0\.0\.1:(\d+))/dashboard/studies/0", line)
        assert address, line
        with urllib.request.urlopen(f"{address[1]}/api/studies/0", timeout=30) as answer:
            assert len(json.loads(answer.read())["trials"]) == 4
        with urllib.request.urlopen(address[0], timeout=30) as answer:
            assert b"<html" in answer.read().lower()
        with pytest.raises(urllib.error.HTTPError, match="403") as refused:
            urllib.request.urlopen(urllib.request.Request(f"{address[1]}/api/studies/0", method="DELETE"), timeout=30)
        refused.value.close()
        elsewhere = urllib.request.Request(f"{address[1]}/api/studies/0", headers={"Host": "rebound.example.org"})
        with pytest.raises(urllib.error.HTTPError, match="403") as refused:
            urllib.request.urlopen(elsewhere, timeout=30)
        refused.value.close()
        taken = [*command[:-1], address[2]]
        second = subprocess.run(taken, capture_output=True, text=True, timeout=60, check=False)
        assert second.returncode == 2
        assert second.stderr.splitlines()[-1].startswith("error: --host, --port: expected this machine's, and a free ")
        assert list(temporary.iterdir())
        process.send_signal(stop)
        assert process.wait(30) == 128 + stop
        assert not list(temporary.iterdir())
        assert "Traceback" not in process.stderr.read()
    finally:
        watchdog.cancel()
        process.kill()
        process.communicate()
