"""Finalists: chosen by the mean of repeats that nobody has selected. The repeats' bank is made up here."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import stdev
from typing import Any

import pytest
from ended_study import EndedStudy, end_study, probabilities
from terminal import terminal

from features.runtime.errors import InputError
from heads.metrics.scoring import EpochRecord, Score
from search.finish import repeats
from search.finish.repeat_plan import plan_repeats
from search.finish.repeats import run_repeats
from search.record.head_files import FINALISTS
from search.record.results import FinalistRecord
from search.record.storage import JOURNAL
from search.setup.file_names import STUDY_FILE
from search.setup.seeds import derive_seed
from search.training import display, sizing
from search.training.bank_shapes import BankShapes
from search.training.throughput import Throughput
from search.trials.notes import TrialNotes
from search.trials.ranking import finalists_of, is_article

RIGHT = {0: (3, 5), 1: (6, 6), 2: (9, 1)}
"""Rows classified correctly in the two repeats of the best trial, the second best and the article's head."""


class MadeBank:
    """Stands for ``run_pool``: every repeat calls so many rows rightly as it is told to.

    Attributes:
        diverged: Ordinals of repeats that diverge.
        reason: Why they fail.
        sure: How sure a finalist is of what it calls, where that matters.
        ran: Ordinals of the repeats that ran.
        seeds: Of their first weights.
        shapes: Of the banks that there were to run them in, of each time.
    """

    def __init__(self, data, rights: Mapping[int, tuple[int, int]]) -> None:
        self.data = data
        self.rights = rights
        self.diverged: set[int] = set()
        self.reason = "diverged in epoch 1: loss not finite"
        self.sure: dict[int, float] = {}
        self.ran: list[int] = []
        self.seeds: list[int] = []
        self.shapes: list[BankShapes] = []

    def __call__(self, recording, *, shapes, book, sink, display, **_):
        self.shapes.append(shapes)
        while (asked := book.ask()) is not None:
            self.ran.append(asked.ordinal)
            self.seeds.append(asked.seed)
            place, run = divmod(asked.ordinal, 2)
            if asked.ordinal in self.diverged:
                book.fail(asked, self.reason, epochs=1)
                continue
            made = probabilities(self.data, self.rights[place][run], sure=self.sure.get(place, 0.7))
            score = sink.scores(made)[0]
            sink.offer(asked, [], score, [made])
            epochs = asked.epochs
            assert asked.last_counts
            asked.trial.report(score.accuracy, epochs)
            TrialNotes.write(asked.trial, learning_rates=[0.1 * (1 + run)] * epochs)
            record = EpochRecord(epochs, 0.1, Score(score.loss, score.accuracy, score.accuracy), 1e-3)
            book.complete(asked, record, epochs=epochs, parameters=1)
            display.epoch()
        recording.opened.flush()
        return Throughput()


@pytest.fixture
def ended(tmp_path):
    return end_study(tmp_path)


@pytest.fixture
def bank(ended, monkeypatch):
    made = MadeBank(ended.data, RIGHT)
    monkeypatch.setattr(repeats, "run_pool", made)
    return made


def repeat(ended: EndedStudy):
    plan = plan_repeats(ended.study, ended.config)
    return run_repeats(ended.searched, plan=plan, snapshot_every=1e9)


def trials_of(ended: EndedStudy) -> list[int]:
    return [trial.number for trial in finalists_of(ended.study, 2)]


def test_the_best_on_the_mean_wins_though_another_had_the_best_value(ended, bank):
    first, second, article = trials_of(ended)
    found, cost = repeat(ended)
    rows = len(ended.data.validation.rows)
    assert [one.trial for one in found] == [second, article, first]
    assert [one.mean for one in found] == pytest.approx([6 / rows, 5 / rows, 4 / rows])
    assert found[1].sd == pytest.approx(stdev((9 / rows, 1 / rows)))
    assert [one.is_article for one in found] == [False, True, False]
    assert all(len(one.probabilities) == 2 for one in found)
    assert cost.trial_epochs == sum(2 * one.epochs for one in found)


def test_the_display_calls_no_repeat_the_articles_head(ended, bank, monkeypatch):
    console = terminal(monkeypatch)
    monkeypatch.setattr(display, "console", console)
    monkeypatch.setattr(display, "REDRAW_EVERY", 0)
    repeat(ended)
    shown = console.file.getvalue()
    assert "6 of 6 done" in shown
    assert "article" not in shown


def test_each_trains_as_long_as_its_trial_needed_at_the_mean_of_its_repeats_rates(ended, bank):
    found, _ = repeat(ended)
    for one in found:
        assert one.epochs == one.record.epochs == TrialNotes.of(ended.study.get_trials()[one.trial]).best_epoch
        assert one.rates == pytest.approx([0.15] * one.epochs)
    assert len({one.epochs for one in found}) > 1


def test_one_that_diverged_comes_last_and_its_other_repeats_count(ended, bank):
    _, second, _ = trials_of(ended)
    bank.diverged = {2}
    found, _ = repeat(ended)
    last = found[-1]
    assert last.trial == second
    assert last.values[0] is None
    assert (last.sound, last.sd) == ([last.values[1]], None)
    record = last.record
    assert (record.repeats, record.diverged, record.through, record.mean) == (2, 1, 1, last.values[1])
    assert (record.failures, record.how_lost) == ((bank.reason,), "diverged")


def test_one_that_failed_for_another_reason_says_which(ended, bank):
    bank.diverged, bank.reason = {2, 3}, "my_heads.py: build(width=8): expected a keras.Model, found ValueError"
    record = repeat(ended)[0][-1].record
    assert FinalistRecord.from_dict(record.to_dict()) == record
    assert (record.diverged, record.how_lost, record.other_failures) == (2, "failed", [bank.reason])


def test_of_one_that_always_diverged_no_mean_is_told(ended, bank):
    bank.diverged = {2, 3}
    found, _ = repeat(ended)
    assert math.isnan(found[-1].mean)
    assert found[-1].record.mean is None
    assert found[-1].probabilities == ()


def test_equal_means_are_decided_by_the_loss(ended, bank):
    first, second, _ = trials_of(ended)
    bank.rights = {0: (6, 6), 1: (6, 6), 2: (0, 0)}
    bank.sure = {0: 0.4}  # which costs less where most is misclassified
    found, _ = repeat(ended)
    assert [one.trial for one in found[:2]] == [first, second]
    bank.sure = {1: 0.4}
    shutil.rmtree(ended.folder / FINALISTS)
    found, _ = repeat(ended)
    assert [one.trial for one in found[:2]] == [second, first]
    assert found[0].mean == found[1].mean


def test_by_the_loss_the_least_mean_wins_and_is_told_as_it_is(ended, bank):
    config = ended.config.model_copy(update={"objective": "loss"})
    plan = plan_repeats(ended.study, config)
    found, _ = run_repeats(replace(ended.searched, config=config), plan=plan, snapshot_every=1e9)
    assert [one.values for one in found] == [one.losses for one in found]
    assert 0 < found[0].mean < found[1].mean < found[2].mean


def test_repeats_begin_with_other_weights_than_the_trials_did(ended, bank):
    repeat(ended)
    trials = {derive_seed(ended.config.seed, "head", trial.number) for trial in ended.study.get_trials()}
    assert len({*bank.seeds}) == 6
    assert trials.isdisjoint(bank.seeds)


def test_what_has_been_repeated_is_not_repeated_again(ended, bank):
    before, cost = repeat(ended)
    assert sorted(bank.ran) == [*range(6)]
    again, same_cost = repeat(ended)
    assert len(bank.ran) == 6
    assert [one.record for one in again] == [one.record for one in before]
    assert same_cost == cost


@pytest.mark.parametrize(
    ("name", "kept", "said"),
    [("validation/0.npy", None, "found no such file"), ("validation/1.npy", 90, "damaged"), (STUDY_FILE, 9, "found")],
)
def test_of_a_damaged_file_of_theirs_it_is_said_what_to_do(ended, bank, name, kept, said):
    before, _ = repeat(ended)
    path = ended.folder / FINALISTS / name
    content = path.read_bytes()
    path.unlink()
    if kept is not None:
        path.write_bytes(content[:kept])
    with pytest.raises(InputError, match=f"{name}: .*{said}.*; remove .*{FINALISTS} to train the finalists again$"):
        repeat(ended)
    shutil.rmtree(ended.folder / FINALISTS)
    assert [one.record for one in repeat(ended)[0]] == [one.record for one in before]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: content.replace(b"}", b"", 1), "found a damaged line, 1 of"),
        (lambda content: re.sub(rb'"epochs":[0-9]+', b'"epochs":"x"', content), "found a damaged one"),
        (lambda content: re.sub(rb'"seed":[0-9]+', b'"seed":9', content), "it is the record of another study"),
    ],
    ids=["a line", "a trial", "another study's"],
)
def test_a_record_of_theirs_that_is_damaged_is_told_with_what_to_do(ended, bank, change, said):
    repeat(ended)
    path = ended.folder / FINALISTS / JOURNAL
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(InputError, match=f"{JOURNAL}: .*{said}.*; remove .*{FINALISTS} to train the finalists again$"):
        repeat(ended)


def test_other_repeats_begin_anew(ended, bank):
    repeat(ended)
    ended.made.config = ended.config.model_copy(update={"finalists": 1})
    repeat(ended)
    assert len(bank.ran) == 6 + 4


def test_a_run_whose_end_was_lost_is_run_again_and_counted(ended, bank):
    repeat(ended)
    journal = ended.folder / FINALISTS / "journal.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    ends = [index for index, line in enumerate(lines) if b'"state":1' in line]
    journal.write_bytes(b"".join(lines[: ends[-1]]))
    _, cost = repeat(ended)
    assert cost.interrupted == 1
    assert bank.ran == [*range(6), 5]


def test_where_they_go_on_their_bank_is_what_it_was_however_little_memory_is_left(ended, bank, monkeypatch):
    repeat(ended)
    monkeypatch.setattr(sizing, "bank_budget", lambda: 0)
    repeat(ended)
    shutil.rmtree(ended.folder / FINALISTS)
    repeat(ended)
    first, again, anew = bank.shapes
    assert again == first
    assert anew.pages < first.pages


def test_of_other_repeats_whose_removal_was_stopped_nothing_is_taken(ended, bank, monkeypatch):
    repeat(ended)
    ended.made.config = ended.config.model_copy(update={"finalists": 1})
    real = shutil.rmtree

    def stopped(folder: Path, **options: Any) -> None:
        if (folder / STUDY_FILE).is_file():  # which went first, and nothing after it
            (folder / STUDY_FILE).unlink()
            raise KeyboardInterrupt
        real(folder, **options)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(shutil, "rmtree", stopped)
        repeat(ended)
    assert not (ended.folder / FINALISTS).exists()
    repeat(ended)
    assert len(bank.ran) == 6 + 4
    assert [path.name for path in ended.folder.iterdir() if "old" in path.name] == []


def test_the_articles_head_is_repeated_beside_the_best(ended, bank):
    found, _ = repeat(ended)
    articles = [one for one in found if one.is_article]
    assert [one.trial for one in articles] == [t.number for t in ended.study.get_trials() if is_article(t)]
