"""What a browser asks the dashboard of a study for, and what there is to show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

from optuna.artifacts import get_all_artifact_meta

from search.record.study_record import read_record
from search.review.dashboard_study import DashboardStudy
from search.setup.optuna_internals import id_of_trial


def ask(app: Any, path: str, method: str = "GET", *, host: str = "127.0.0.1") -> tuple[str, bytes]:
    environment: dict[str, Any] = {"PATH_INFO": path.split("?", maxsplit=1)[0], "QUERY_STRING": path.partition("?")[2]}
    environment |= {"REQUEST_METHOD": method, "HTTP_HOST": host}
    setup_testing_defaults(environment)
    answers: list[str] = []
    answer = app(environment, lambda status, *_: answers.append(status))
    body = b"".join(answer)
    getattr(answer, "close", lambda: None)()  # as servers do
    return answers[0], body


def detail(app: Any, study: int = 0) -> dict[str, Any]:
    status, body = ask(app, f"/api/studies/{study}")
    assert status == "200 OK"
    return json.loads(body)


def put_heads(folder: Path, count: int = 3) -> list[int]:
    """Puts files where the best heads would be."""
    best = [trial.number for trial in read_record(folder).ranked[:count]]
    (folder / "heads").mkdir()
    for number in best:
        (folder / "heads" / f"trial-{number}.hdf5").write_bytes(b"head %d" % number)
    return best


def artifacts_of(view: DashboardStudy, number: int) -> dict[str, bytes]:
    """What there is to download of a trial, by name; the dashboard keeps lists of trials for some seconds."""
    trial = view.storage.get_all_trials(0)[number]
    noted = get_all_artifact_meta(trial, storage=view.storage)
    place = f"/artifacts/0/{id_of_trial(trial)}"
    return {one.filename: ask(view.app, f"{place}/{one.artifact_id}")[1] for one in noted}
