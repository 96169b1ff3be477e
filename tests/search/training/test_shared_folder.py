"""A study directory that several processes have a part in: their time adds up, and one runs what comes after."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from made_mirrors import Clock
from made_snapshots import METER, WIDE, damage, leave_snapshot

from features.runtime.errors import InputError
from features.runtime.files import being_written
from search.setup.file_names import SNAPSHOT_FILE
from search.training import shared_folder as module
from search.training.shared_folder import WORKERS_FOLDER, await_end, clear_away, together, worker_folder
from search.training.throughput import THROUGHPUT_FILE, Throughput


def test_each_process_has_a_folder_of_its_own_which_may_be_there(tmp_path):
    folder = tmp_path / "study"
    mine = worker_folder(folder, "one")
    assert mine == folder / WORKERS_FOLDER / "one"
    (mine / "kept").touch()
    assert worker_folder(folder, "one") == mine
    assert (mine / "kept").exists()
    assert worker_folder(folder, "two").is_dir()


def test_the_time_of_all_adds_up_whether_they_are_through_or_were_killed(tmp_path):
    assert together(tmp_path) == Throughput()
    METER.write(worker_folder(tmp_path, "through"))
    killed = replace(METER, epochs=2, training_seconds=0.25)
    leave_snapshot(worker_folder(tmp_path, "killed"), {0: 1}, throughput=killed)
    worker_folder(tmp_path, "just begun")
    (tmp_path / WORKERS_FOLDER / "a file").touch()
    assert together(tmp_path) == METER + killed
    # One that went on after it had been through: its snapshot counts all of that, too.
    leave_snapshot(worker_folder(tmp_path, "through"), {0: 1}, throughput=METER + killed)
    assert together(tmp_path) == METER + killed + killed


def test_snapshots_are_cleared_away_and_what_they_said_of_the_time_is_kept(tmp_path):
    METER.write(worker_folder(tmp_path, "through"))
    path = leave_snapshot(worker_folder(tmp_path, "killed"), {0: 1}, throughput=replace(METER, epochs=2))
    being_written(path).write_bytes(b"torn")
    worker_folder(tmp_path, "just begun")
    before = together(tmp_path)
    for _ in range(2):
        clear_away(tmp_path, ())
        assert together(tmp_path) == before
    assert [left.name for left in path.parent.iterdir()] == [THROUGHPUT_FILE]
    assert Throughput.read(path.parent) == replace(METER, epochs=2)
    assert not (tmp_path / WORKERS_FOLDER / "just begun" / THROUGHPUT_FILE).exists()
    clear_away(tmp_path / "where nobody was", ())


def test_who_is_at_work_clears_its_own_place(tmp_path):
    paths = {
        name: leave_snapshot(worker_folder(tmp_path, name), {0: 1}, throughput=METER) for name in ("killed", "slow")
    }
    clear_away(tmp_path, ["slow"])
    assert not paths["killed"].exists()
    assert paths["slow"].exists()
    assert not (paths["slow"].parent / THROUGHPUT_FILE).exists()  # which it is about to write


def test_a_snapshot_of_theirs_that_is_damaged_is_named(tmp_path):
    (worker_folder(tmp_path, "one") / SNAPSHOT_FILE).write_bytes(b"damaged")
    with pytest.raises(InputError, match=f"one/{SNAPSHOT_FILE}: "):
        together(tmp_path)


def test_of_snapshots_only_what_they_say_of_the_time_is_read(tmp_path):
    path = leave_snapshot(worker_folder(tmp_path, "killed"), {0: 1}, spec=WIDE)
    damage(path, "0/0/weights/kernel")
    assert together(tmp_path) == METER
    clear_away(tmp_path, ())
    assert together(tmp_path) == METER
    assert not path.exists()


# --- waiting for the end ----------------------------------------------------------------------------------------------


class MadeCrew:
    """Others who run what comes after the search: elected, and through, after so many looks."""

    def __init__(self, *, ended_after: int | None = None, elected_after: int | None = None) -> None:
        self.ended_after, self.elected_after = ended_after, elected_after
        self.looks = self.elections = 0
        self.asked: set[int] = set()

    def has_ended(self, trials: int) -> bool:
        self.asked.add(trials)
        self.looks += 1
        return self.ended_after is not None and self.looks > self.ended_after

    def elect(self) -> bool:
        self.elections += 1
        return self.elected_after is not None and self.elections > self.elected_after


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


def end(crew: MadeCrew, *, helps_at: int | None = None) -> tuple[bool, int, int]:
    """Waits; returns whether the end is this process's to run.

    With it the look before which the record was flushed last, and how often it was asked to take a share of the end,
    which it has at the ``helps_at``-th time.
    """
    flushed, helped = [], []

    def meanwhile() -> bool:
        helped.append(crew.looks)
        return len(helped) == helps_at

    mine = await_end(crew, SimpleNamespace(flush=lambda: flushed.append(crew.looks)), 12, meanwhile)
    assert crew.asked == {12}
    assert flushed[0] == 0, "what this process has told is to be known first"
    return mine, flushed[-1], len(helped)


def test_where_the_end_has_been_run_nobody_is_elected(clock):
    crew, begun = MadeCrew(ended_after=0, elected_after=0), clock.now
    assert end(crew) == (False, 0, 0)
    assert (crew.elections, clock.now) == (0, begun)


def test_who_is_elected_has_heard_of_everything_and_looks_once_more_before_it_runs_the_end(clock):
    crew, begun = MadeCrew(elected_after=0), clock.now
    assert end(crew) == (True, 1, 0)
    assert (crew.looks, clock.now) == (2, begun)


def test_who_is_not_elected_waits_until_another_has_run_it(clock):
    crew, begun = MadeCrew(ended_after=5), clock.now
    assert end(crew) == (False, 0, 5)
    assert clock.now - begun == 5 * module.LOOK_S


def test_who_is_not_elected_takes_its_share_once(clock):
    crew = MadeCrew(ended_after=5)
    assert end(crew, helps_at=2) == (False, 0, 2)
    assert crew.elections == 5


def test_where_the_elected_one_dies_another_is(clock):
    crew = MadeCrew(elected_after=3)
    assert end(crew, helps_at=1) == (True, 4, 1)
    assert crew.elections == 4


def test_who_is_elected_after_another_has_run_it_does_not_run_it_again(clock):
    crew = MadeCrew(ended_after=1, elected_after=0)  # it ended between the look and the election
    assert end(crew) == (False, 1, 0)
