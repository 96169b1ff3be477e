"""One study, one search: a copied directory does not fail the trials of the one that runs; passwords stay out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import pytest
from commands import invoke
from conftest import build_store
from killed_study import STUDY as SMALL
from killed_study import made_searches
from tiny_study import STUDY

from features.runtime.errors import BottleneckError, InputError
from features.runtime.lock import WriterLock
from search import open_study, run_study
from search.record.crew import SharedOrdinals
from search.setup.file_names import STUDY_FILE
from search.setup.options import RunOptions
from search.setup.resolve import resolve
from search.training.display import Display
from search.training.shared_folder import together, worker_folder
from search.training.throughput import Throughput

FEW = {"trials": 2, "epochs": 2, "folds": 0, "finalists": 0, "progress": False}


@pytest.mark.slow
def test_a_copied_directory_leaves_the_running_search_alone_and_goes_on_after_it(tmp_path, monkeypatch):
    build_store(tmp_path / "store.h5", rows=120)
    (tmp_path / "tiny.toml").write_text(STUDY)
    (tmp_path / "second").mkdir()
    monkeypatch.chdir(tmp_path)
    refused, real = [], Display.epoch

    def meanwhile(display: Display, trained: int = 1) -> None:
        real(display, trained)
        if not refused and (tmp_path / "study" / "study.json").exists():
            shutil.copytree("study", "copy", ignore=shutil.ignore_patterns(".*"))
            with pytest.raises(BottleneckError) as told:
                run_study(out="copy", resume=True, progress=False)
            refused.append(str(told.value))

    monkeypatch.setattr(Display, "epoch", meanwhile)
    url = "sqlite:///file:heads.db?mode=rwc&uri=true&password=hunter2"
    study = run_study("store.h5", study="tiny.toml", out="study", storage=url, **FEW)
    assert "study 'tiny': process" in refused[0]
    assert "searches it" in refused[0]
    assert study.summary.interrupted == 0
    kept = json.loads((tmp_path / "study" / "study.json").read_text())["storage"]
    assert str(tmp_path / "heads.db") in kept
    assert "hunter2" not in kept + refused[0] + (tmp_path / "study" / "report.html").read_text(encoding="utf-8")

    monkeypatch.chdir(tmp_path / "second")
    assert len(run_study(out="../study", resume=True, trials=3, progress=False).trials()) == 3
    assert list((tmp_path / "second").iterdir()) == []
    assert len(open_study("../copy").trials()) == 3  # the same study
    with pytest.raises(InputError, match=r"study\.json: storage: expected .*heads\.db.*found .*other\.db"):
        run_study(out="../copy", resume=True, storage="sqlite:///other.db", progress=False)
    (tmp_path / "heads.db").unlink()
    said = invoke("search.run", "--out", "../copy", "--resume", "--trials", 4)
    assert (said.status, said.out) == (2, "")
    assert "study 'tiny': expected a study's database, found no such file" in said.err
    assert not (tmp_path / "heads.db").exists()
    assert list((tmp_path / "second").iterdir()) == []


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_that_ends_with_the_search_is_refused(url, tmp_path):
    (tmp_path / "tiny.toml").write_text(STUDY)
    with pytest.raises(InputError, match="--storage: expected a database that outlives the search, found sqlite://"):
        resolve(RunOptions(study=tmp_path / "tiny.toml", storage=url, out=tmp_path / "out"))


@pytest.fixture
def made() -> Iterator[None]:
    with made_searches():
        yield


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize("when", ["search", "repeats", "refit", "calibration", "test"])
def test_a_search_whose_directory_was_removed_leaves_that_of_the_next_one_alone(tmp_path, when):
    folder, begun = tmp_path / "study", []
    (tmp_path / "study.toml").write_text(SMALL)

    def begin_another(stage: str) -> None:
        if stage == when:
            shutil.rmtree(folder)
            begun.append(WriterLock(folder / STUDY_FILE))
            for name in ("heads", "finalists/validation"):
                (folder / name).mkdir(parents=True)

    options = {"study": tmp_path / "study.toml", "out": folder, "trials": 4, "finalists": 2, "repeats": 2, "folds": 0}
    with pytest.raises(BottleneckError, match=r"study\.json: removed, or another process's, since this one began"):
        run_study(
            build_store(tmp_path / "store.h5", rows=96),
            **options,
            snapshot_every=0,
            progress=False,
            on_stage=begin_another,
        )
    begun[0].check()
    assert sorted(path.name for path in folder.rglob("*")) == [".study.json.lock", "finalists", "heads", "validation"]


@pytest.mark.usefixtures("made")
def test_a_study_that_was_begun_alone_is_joined_with_its_own_options_only(tmp_path):
    (tmp_path / "study.toml").write_text(SMALL)
    (tmp_path / "other.toml").write_text(SMALL.replace("step = 16", "step = 80"))
    told = {"study": tmp_path / "study.toml", "storage": f"sqlite:///{tmp_path}/a.db", "snapshot_every": 0} | FEW
    store = build_store(tmp_path / "store.h5", rows=96)
    run_study(store, **told, out=tmp_path / "alone")
    for changed, said in (({"epochs": 3}, "epochs"), ({"study": tmp_path / "other.toml"}, r"space\.conv_width")):
        with pytest.raises(InputError, match=rf"a\.db: {said}: expected "):
            run_study(store, **told | changed, out=tmp_path / "joined", join=True)
    joined = run_study(store, **told | {"trials": 4}, out=tmp_path / "joined", join=True)
    assert joined.summary.completed == 4
    resumed = run_study(store, out=tmp_path / "alone", resume=True, trials=5, progress=False)
    assert resumed.summary.completed == 5


@pytest.mark.usefixtures("made")
def test_other_options_of_what_comes_last_are_passed_over_once_it_is_over_and_hold_alone(tmp_path, capsys):
    (tmp_path / "study.toml").write_text(SMALL)
    told = {"study": tmp_path / "study.toml", "storage": f"sqlite:///{tmp_path}/a.db", "snapshot_every": 0, "folds": 0}
    told |= {"features": build_store(tmp_path / "store.h5", rows=96), "out": tmp_path / "study"}
    told |= {"trials": 4, "epochs": 2, "repeats": 2}
    run_study(**told, finalists=0, join=True, progress=False)
    ended = run_study(**told, finalists=2, join=True)
    assert "has ended with no finalists; --resume without --join" in capsys.readouterr().err
    assert (ended.config.finalists, ended.record.finalists) == (0, ())
    again = run_study(**told, finalists=2, resume=True, progress=False)
    assert again.config.finalists == 2
    assert len(again.record.finalists) >= 2


@pytest.mark.usefixtures("made")
def test_the_time_of_who_waits_for_the_others_is_on_the_disk_and_is_added_up_last(tmp_path, monkeypatch):
    folder, seen, real = tmp_path / "study", [], SharedOrdinals.wait

    def wait(ordinals: SharedOrdinals) -> bool:
        seen.append(together(folder).head_epochs)
        return real(ordinals)

    monkeypatch.setattr(SharedOrdinals, "wait", wait)
    (tmp_path / "study.toml").write_text(SMALL)
    told = {
        "study": tmp_path / "study.toml",
        "storage": f"sqlite:///{tmp_path}/a.db",
        "out": folder,
        "join": True,
    } | FEW
    other = Throughput(epochs=3, head_epochs=5, page_epochs=30, room=90, training_seconds=1.0)

    def ends(stage: str) -> None:
        if stage == "test":
            other.write(worker_folder(folder, "another"))

    store = build_store(tmp_path / "store.h5", rows=96)
    found = run_study(store, **told, snapshot_every=1e9, on_stage=ends).summary
    assert seen[0] == found.trial_epochs
    assert found.bank.training_seconds > 1


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"storage": None}, "--join: expected --storage"),
        ({"features": None}, "--join: expected --features"),
        ({"channels": 4}, "--channels: expected none beside --join"),
        ({"head": "some:function"}, "--head: expected none beside --join"),
    ],
)
def test_what_does_not_go_with_others_is_refused_and_nothing_is_made(tmp_path, changed, said):
    store = build_store(tmp_path / "store.h5", rows=24)
    told = {"features": store, "out": tmp_path / "study", "storage": f"sqlite:///{tmp_path}/a.db", "join": True}
    with pytest.raises(InputError, match=said):
        run_study(**told | changed, progress=False)
    assert not (tmp_path / "study").exists()
    assert not (tmp_path / "a.db").exists()
