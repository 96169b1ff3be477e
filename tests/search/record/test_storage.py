"""Reading and resuming need the record to be there; nothing is made in its place, and no password is told."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import optuna
import pytest
from commands import invoke
from made_database import study_database
from made_study import MadeStudy, make_config
from postgres import running_server

from features.runtime.errors import BottleneckError, InputError
from features.runtime.files import write_json
from search.record.database import storage_errors
from search.record.opened_study import held
from search.record.record_identity import MADE_OF, note_made_of
from search.record.storage import JOURNAL, config_in_storage, join_record, open_record, open_storage
from search.record.study_record import read_record
from search.setup.config import StudyConfig
from search.setup.file_names import STUDY_FILE
from search.setup.options import RunOptions
from search.setup.resolve import resolve
from search.setup.storage_url import VARIABLE
from search.study import open_study

optuna.logging.set_verbosity(optuna.logging.WARNING)
READERS = [
    lambda folder: invoke("search.report", folder),
    lambda folder: invoke("search.export", folder, folder / "out.hdf5"),
    lambda folder: invoke("search.dashboard", folder, "--port", 0),
]


def everything(folder: Path) -> dict[str, str]:
    """Names of all that lies in a folder, and what is in the files."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def absent(folder: Path) -> tuple[str | None, str]:
    return None, f"{JOURNAL}: study 'made': expected a study's journal, found no such file"


def emptied(folder: Path) -> tuple[str | None, str]:
    (folder / JOURNAL).touch()
    return None, "expected a study's journal, found an empty file"


def a_folder(folder: Path) -> tuple[str | None, str]:
    (folder / JOURNAL).mkdir()
    return None, "expected a study's journal, found a folder"


def of_another(folder: Path) -> tuple[str | None, str]:
    open_record(folder, "another", None, direction="maximize", resume=False).close()
    return None, "expected a study's journal, found only 'another'"


def no_database(folder: Path) -> tuple[str | None, str]:
    return f"sqlite:///{folder / 'heads.db'}", "heads.db: study 'made': expected a study's database, found no such file"


def no_folder(folder: Path) -> tuple[str | None, str]:
    return f"sqlite:///{folder / 'nowhere' / 'heads.db'}", "found no such file"


def empty_database(folder: Path) -> tuple[str | None, str]:
    (folder / "heads.db").touch()
    return f"sqlite:///{folder / 'heads.db'}", "expected a study's database, found an empty database"


def no_studies(folder: Path) -> tuple[str | None, str]:
    url = f"sqlite:///{folder / 'heads.db'}"
    study = optuna.create_study(storage=url, study_name="s")
    optuna.delete_study(study_name=study.study_name, storage=url)
    return url, "expected a study's database, found no study"


def other_studies(folder: Path) -> tuple[str | None, str]:
    url = f"sqlite:///{folder / 'heads.db'}"
    for name in ("b", "c"):
        optuna.create_study(storage=url, study_name=name)
    return url, "expected a study's database, found only 'b', 'c'"


def no_database_at_all(folder: Path) -> tuple[str | None, str]:
    (folder / "heads.db").write_bytes(b"something else " * 400)
    return f"sqlite:///{folder / 'heads.db'}", "file is not a database"


def old_relative(folder: Path) -> tuple[str | None, str]:
    return "sqlite:///heads.db", "expected heads.db in the working directory or in the study directory, found neither"


MISSING = [absent, emptied, a_folder, of_another, no_database, no_folder, empty_database, no_studies, other_studies]
MISSING += [no_database_at_all, old_relative]


@pytest.mark.parametrize("missing", MISSING, ids=lambda one: one.__name__)
def test_a_record_that_is_not_there_is_refused_and_nothing_is_made(tmp_path, monkeypatch, missing):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "study"
    folder.mkdir()
    url, words = missing(folder)
    config = make_config(storage=url)
    config.write(folder)
    before = everything(tmp_path)
    for reader in READERS:
        said = reader(folder)
        assert (said.status, said.out, len(said.err.splitlines())) == (2, "", 1)
        assert words in said.err
    with pytest.raises(InputError) as refused:
        _ = open_study(folder).summary
    assert words in str(refused.value)
    if missing is not old_relative:  # resolved before a record is opened
        with pytest.raises(InputError) as refused:
            open_record(folder, "made", url, direction="maximize", resume=True)
        assert words in str(refused.value)
    assert everything(tmp_path) == before


def test_a_record_begins_with_its_study_so_that_a_killed_start_can_be_resumed(tmp_path):
    opened = open_record(tmp_path, "s", None, direction="maximize", resume=False)
    # killed here: nothing more is written
    assert [study.study_name for study in open_storage(tmp_path, None, "s").get_all_studies()] == ["s"]
    opened.close()


def test_an_old_study_with_a_relative_url_is_read_from_its_folder_and_from_inside(tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path / 'study' / 'heads.db'}"
    made = MadeStudy(tmp_path / "study", make_config(storage=url, epochs=1))
    made.train(1)
    made.close()
    kept = json.loads((made.folder / "study.json").read_text())
    write_json(made.folder / "study.json", kept | {"storage": "sqlite:///heads.db"})
    for here in (made.folder, tmp_path):
        monkeypatch.chdir(here)
        assert len(read_record(made.folder).trials) == 1
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    (made.folder / "heads.db").rename(tmp_path / "other" / "heads.db")
    assert len(read_record(made.folder).trials) == 1
    assert [path.name for path in Path().iterdir()] == ["heads.db"]


def test_no_password_is_kept_or_told(tmp_path):
    url = f"sqlite:///file:{tmp_path / 'heads.db'}?mode=rwc&uri=true&password=hunter2"
    made = MadeStudy(tmp_path / "study", make_config(storage=url, epochs=1))
    made.train(1)
    made.close()
    said = invoke("search.report", made.folder)
    assert said.status == 0
    study = open_study(made.folder)
    texts = [said.out, said.err, repr(study), study._repr_html_(), repr(study.config), repr(study.summary)]
    texts += [repr(made.config), *(path.read_text() for path in made.folder.rglob("*.*") if path.suffix != ".hdf5")]
    assert not [text for text in texts if "hunter2" in text]
    assert StudyConfig.read(made.folder).storage.count("***") == 1


@pytest.mark.parametrize("kind", [optuna.exceptions.StorageInternalError, "sqlalchemy"])
def test_what_a_database_raises_is_one_line_without_the_password(kind):
    from sqlalchemy.exc import OperationalError

    url = "postgresql://anna:hunter2@host/heads"
    error = OperationalError("SELECT 1", {"password": "hunter2"}, Exception(f"lost\n{url}"))
    raised = error if kind == "sqlalchemy" else kind("hunter2 is lost")
    with pytest.raises(BottleneckError) as told, storage_errors(url):
        raise raised
    assert "hunter2" not in str(told.value)
    assert "postgresql://anna:***@host/heads: " in str(told.value)
    assert told.value.__suppress_context__


def test_what_goes_wrong_is_told_and_not_what_closing_fails_of_after_it(tmp_path, capsys):
    url = study_database(tmp_path)
    for error, said in ((ValueError, 0), (KeyboardInterrupt, 1)):
        opened = join_record(url, "s", direction="maximize", grace=60)
        trial = opened.study.ask()
        with pytest.raises(error), held(opened, url):
            (tmp_path / "heads.db").rename(tmp_path / "aside.db")
            trial.set_user_attr("a", 1)
            raise error
        assert capsys.readouterr().err.count("note: what was noted last is lost: ") == said
        (tmp_path / "aside.db").rename(tmp_path / "heads.db")


def test_a_database_file_that_is_removed_is_told_and_not_made_anew(tmp_path):
    url = study_database(tmp_path)
    opened = join_record(url, "s", direction="maximize", grace=60)
    with pytest.raises(BottleneckError) as told, held(opened, url):
        (tmp_path / "heads.db").unlink()
        opened.crew.living(anew=True)
        opened.study.set_user_attr("a", 1)
    assert str(told.value) == f"{url}: the file is not there any more"
    assert not (tmp_path / "heads.db").exists()


def test_a_server_that_asks_for_a_password_has_it_from_the_environment(tmp_path, monkeypatch):
    told = {"features": ["a.h5"], "out": tmp_path / "study", "join": True}
    with running_server(password="hunter2 %/x") as server:
        url = server.new_database("made")
        monkeypatch.delenv(VARIABLE, raising=False)
        with pytest.raises(BottleneckError, match=f"no password supplied.*set {VARIABLE} to the whole URL"):
            resolve(RunOptions(**told, storage=url), config_in_storage)
        monkeypatch.setenv(VARIABLE, url.replace("tests@", "tests:hunter2%20%25%2Fx@"))
        found = resolve(RunOptions(**told, storage=url), config_in_storage)
        assert found.options.storage is not None
        opened = join_record(found.options.storage, "s", direction="maximize", grace=10)
        assert opened.crew.living() == 1
        opened.close()


def test_a_folder_in_the_place_of_a_study_file_is_called_one(tmp_path):
    (tmp_path / STUDY_FILE).mkdir()
    with pytest.raises(InputError, match=f"{STUDY_FILE}: expected a study directory, found a folder"):
        StudyConfig.read(tmp_path)


def swap(name: str, one: Path, other: Path) -> None:
    content = (one / name).read_bytes()
    (one / name).write_bytes((other / name).read_bytes())
    (other / name).write_bytes(content)


STORE = {"path": "store.h5", "fingerprint": "ef" * 32}


@pytest.mark.parametrize("name", [JOURNAL, STUDY_FILE])
@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"seed": 4}, "seed: expected"),
        ({"split": make_config().split.model_copy(update={"identity": "ef" * 8})}, "split.identity: expected"),
        ({"stores": {"features": STORE}}, "stores.features.fingerprint: expected"),
    ],
    ids=["seed", "split", "store"],
)
def test_a_record_and_a_study_file_of_two_studies_are_refused(tmp_path, name, change, why):
    for folder, changes in ((tmp_path / "one", {}), (tmp_path / "other", change)):
        folder.mkdir()
        config = make_config(**changes)
        opened = open_record(folder, config.name, None, direction="maximize", resume=False)
        note_made_of(opened.study, config)
        opened.close()
        made = MadeStudy(folder, config, resume=True)
        made.train(1)
        note_made_of(made.opened.study, make_config(seed=9))  # which has begun
        made.close()
        assert read_record(folder).summary.trials == 1
    swap(name, tmp_path / "one", tmp_path / "other")
    with pytest.raises(InputError, match=f"{JOURNAL}: {why} .*; it is the record of another study"):
        read_record(tmp_path / "one")


@pytest.mark.parametrize(("noted", "said"), [("other", "expected what the study was made of"), ({}, "seed: expected")])
def test_what_a_record_says_that_it_was_made_of_is_not_believed(tmp_path, noted, said):
    made = MadeStudy(tmp_path, make_config())
    made.opened.study.set_user_attr(MADE_OF, noted)
    made.close()
    with pytest.raises(InputError, match=said):
        read_record(tmp_path)
