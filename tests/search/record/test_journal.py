"""The buffered journal: Optuna's own format, durable after a flush, mended after a kill."""

from __future__ import annotations

import hashlib
import json
from types import SimpleNamespace
from wsgiref.util import setup_testing_defaults

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from features.runtime.errors import BottleneckError, InputError
from search.record import journal as module
from search.record.journal import BufferedJournal
from search.record.storage import load_study, open_record

optuna.logging.set_verbosity(optuna.logging.WARNING)


def run_trials(study: optuna.Study, count: int) -> None:
    for _ in range(count):
        trial = study.ask()
        value = trial.suggest_float("x", 0, 1)
        trial.report(value / 2, 1)
        trial.set_user_attr("note", {"nested": [1, 2.5, None]})
        study.tell(trial, value)


def table(study: optuna.Study) -> list[tuple]:
    return [(t.number, t.state, t.value, t.params, t.intermediate_values, t.user_attrs) for t in study.get_trials()]


def test_optunas_own_reader_sees_what_was_flushed_and_nothing_else(tmp_path):
    opened = open_record(tmp_path, "s", None, direction="maximize", resume=False)
    run_trials(opened.study, 3)
    opened.flush()
    run_trials(opened.study, 2)
    seen = load_study(tmp_path, "s", None)
    assert table(seen) == table(opened.study)[:3]
    opened.close()
    assert table(load_study(tmp_path, "s", None)) == table(opened.study)


def test_a_reopened_study_goes_on_where_it_stopped(tmp_path):
    for count in (2, 3, 1):
        opened = open_record(tmp_path, "s", None, direction="maximize", resume=count != 2)
        run_trials(opened.study, count)
        opened.close()
    trials = load_study(tmp_path, "s", None).get_trials()
    assert [trial.number for trial in trials] == list(range(6))


@pytest.mark.parametrize("torn", [b"{", b'{"op_code": 4, "worker_id"', b"\xff\xfe"])
def test_a_torn_last_line_is_cut_off(tmp_path, torn):
    opened = open_record(tmp_path, "s", None, direction="maximize", resume=False)
    run_trials(opened.study, 2)
    opened.close()
    path = tmp_path / "journal.log"
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    again = open_record(tmp_path, "s", None, direction="maximize", resume=True)
    assert path.read_bytes() == whole
    assert len(again.study.trials) == 2
    again.close()


class StoppedHash:
    """A hash in the midst of which Ctrl-C is heard, once: what was written is on the disk by then."""

    to_come = False

    def __init__(self, of):
        self.of = of

    def copy(self):
        return StoppedHash(self.of.copy())

    def update(self, content):
        self.of.update(content)
        if StoppedHash.to_come:
            StoppedHash.to_come = False
            raise KeyboardInterrupt

    def hexdigest(self):
        return self.of.hexdigest()


def test_a_stop_while_what_was_written_is_counted_neither_loses_a_line_nor_writes_one_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "hashlib", SimpleNamespace(sha256=lambda *of: StoppedHash(hashlib.sha256(*of))))
    opened = open_record(tmp_path, "s", None, direction="maximize", resume=False)
    run_trials(opened.study, 2)
    monkeypatch.setattr(StoppedHash, "to_come", True)
    with pytest.raises(KeyboardInterrupt):
        opened.flush()
    run_trials(opened.study, 1)
    opened.close()
    assert not StoppedHash.to_come
    assert table(load_study(tmp_path, "s", None)) == table(opened.study)
    content = opened.journal.path.read_bytes()
    assert (opened.journal.size(), opened.journal.sha256()) == (len(content), hashlib.sha256(content).hexdigest())


def test_damage_before_the_last_line_is_refused_by_name(tmp_path):
    opened = open_record(tmp_path, "s", None, direction="maximize", resume=False)
    run_trials(opened.study, 2)
    opened.close()
    path = tmp_path / "journal.log"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], b"\x00garbage\n", *lines[4:]]))
    with pytest.raises(InputError, match=f"expected an Optuna journal, found a damaged line, 4 of {len(lines)} "):
        BufferedJournal(path)


@pytest.mark.parametrize("how", ["glued", "cut short", "empty"])
def test_damage_in_the_last_whole_line_is_refused_before_anything_is_appended(tmp_path, how):
    opened = open_record(tmp_path, "s", None, direction="maximize", resume=False)
    run_trials(opened.study, 2)
    opened.close()
    path = tmp_path / "journal.log"
    *lines, one, last = path.read_bytes().splitlines(keepends=True)
    changed = {"glued": [one[:-1] + last], "cut short": [one, last[:-9] + b"\n"], "empty": [one, last, b"\n"]}[how]
    path.write_bytes(b"".join([*lines, *changed]))
    count = len(lines) + len(changed)
    with pytest.raises(InputError, match=f"found a damaged line, {count} of {count} .*; it is the last one: remove it"):
        open_record(tmp_path, "s", None, direction="maximize", resume=True)
    path.write_bytes(b"".join([*lines, *changed[:-1]]))  # as told
    open_record(tmp_path, "s", None, direction="maximize", resume=True).close()


@pytest.mark.parametrize(
    ("make", "why"),
    [(lambda path: path.mkdir(), "Is a directory"), (lambda path: path.symlink_to(path), "symbolic links")],
)
def test_a_place_that_cannot_be_written_is_one_line(tmp_path, make, why):
    make(tmp_path / "journal.log")
    with pytest.raises(BottleneckError, match=f"journal.log: cannot be written: .*{why}"):
        open_record(tmp_path, "s", None, direction="maximize", resume=False)


def test_its_lines_are_those_that_optunas_backend_writes(tmp_path):
    def record(backend, name: str) -> list[dict]:
        study = optuna.create_study(
            storage=JournalStorage(backend), study_name="s", sampler=optuna.samplers.RandomSampler(seed=1)
        )
        run_trials(study, 2)
        if isinstance(backend, BufferedJournal):
            backend.close()
        logs = JournalFileBackend(str(tmp_path / name)).read_logs(0)
        volatile = ("worker_id", "datetime_start", "datetime_complete")
        return [{key: value for key, value in log.items() if key not in volatile} for log in logs]

    ours = record(BufferedJournal(tmp_path / "ours"), "ours")
    assert ours == record(JournalFileBackend(str(tmp_path / "theirs")), "theirs")
    assert len(ours) > 10


def test_another_direction_is_refused(tmp_path):
    open_record(tmp_path, "s", None, direction="maximize", resume=False).close()
    with pytest.raises(InputError, match="direction: expected minimize, found maximize"):
        open_record(tmp_path, "s", None, direction="minimize", resume=True)


def test_what_a_killed_start_left_without_trials_gives_way_to_another_study(tmp_path):
    made = open_record(tmp_path, "s", None, direction="maximize", resume=False)
    made.study.set_user_attr("made_of", {"seed": 3})
    made.close()
    again = open_record(tmp_path, "s", None, direction="minimize", resume=False)
    run_trials(again.study, 1)
    again.close()
    found = load_study(tmp_path, "s", None)
    assert (found.direction.name, len(found.trials), found.user_attrs) == ("MINIMIZE", 1, {})


@pytest.mark.parametrize(
    ("file", "works"),
    [
        (None, "pass --out for another directory"),
        ("heads.db", "--resume and the --out that it was begun with, or give the study file another name"),
    ],
)
def test_an_existing_study_is_not_overwritten_and_what_works_is_said(tmp_path, file, works):
    url = file and f"sqlite:///{tmp_path / file}"
    for trials in (0, 1):  # an empty one is what a run killed at its start leaves
        opened = open_record(tmp_path, "s", url, direction="maximize", resume=False)
        run_trials(opened.study, trials)
        opened.close()
    with pytest.raises(InputError, match=f"study: expected no study 's' yet, found one; .*{works}"):
        open_record(tmp_path / "other" if url else tmp_path, "s", url, direction="maximize", resume=False)


def test_a_wrong_storage_is_one_line(tmp_path):
    for url in ("nonsense", "sqlite:////nowhere/at/all.db", "postgresql://nobody@localhost:1/none"):
        with pytest.raises(BottleneckError) as refusal:
            open_record(tmp_path, "s", url, direction="maximize", resume=False)
        assert "--storage" in str(refusal.value)
        assert "\n" not in str(refusal.value)


def test_the_dashboard_opens_a_study_as_it_is_while_the_search_holds_it(tmp_path):
    dashboard = pytest.importorskip("optuna_dashboard")
    opened = open_record(tmp_path, "s", None, direction="maximize", resume=False)
    run_trials(opened.study, 3)
    opened.flush()
    app = dashboard.wsgi(JournalStorage(JournalFileBackend(str(tmp_path / "journal.log"))))
    environment: dict = {"PATH_INFO": "/api/studies"}
    setup_testing_defaults(environment)
    answers: list[str] = []
    body = b"".join(app(environment, lambda status, *_: answers.append(status)))
    assert answers == ["200 OK"]
    assert [study["study_name"] for study in json.loads(body)["study_summaries"]] == ["s"]
    opened.close()
