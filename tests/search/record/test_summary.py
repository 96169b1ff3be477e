"""summary.json: typed, the same bytes back, and what older versions wrote is read."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest
from made_study import MadeStudy, make_config

from features.runtime.errors import InputError
from search.record.results import RecommendedOnTest, ScoresOnTest
from search.record.study_record import read_record
from search.record.summary import SUMMARY_FILE, Summary, read_summary, write_summary


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = MadeStudy(tmp_path_factory.mktemp("summary") / "study", make_config(trials=12))
    made.train(12)
    made.conclude()
    return made.close()


@pytest.fixture
def told(folder) -> dict:
    return json.loads((folder / SUMMARY_FILE).read_text())


def test_it_comes_back_byte_for_byte(folder, tmp_path):
    write_summary(tmp_path, read_summary(folder))
    assert (tmp_path / SUMMARY_FILE).read_bytes() == (folder / SUMMARY_FILE).read_bytes()


KEYS = """name objective trials completed pruned failed interrupted trial_epochs search_seconds trial_epochs_per_second
best article finalists ensemble refit calibration test verdict split store seed engine failures bank one_at_a_time
notes"""
TEST_KEYS = """trial is_article uses heads rows patients patients_unknown accuracy accuracy_interval balanced_accuracy
loss per_class confusion calibration article difference ensemble"""


def test_its_keys_are_those_of_the_format_in_their_order(told):
    assert list(told) == KEYS.split()
    assert list(told["test"]) == TEST_KEYS.split()
    assert list(told["test"]["article"]) == ["trial", *TEST_KEYS.split()[4:14]]
    assert list(told["test"]["ensemble"]) == ["trials", *TEST_KEYS.split()[4:14]]
    assert list(told["test"]["difference"]) == ["value", "interval", "larger_than_chance"]
    assert list(told["finalists"]) == ["cost", "heads"]


def test_it_is_read_by_name(folder):
    summary = read_record(folder).summary
    assert summary.test.accuracy == 0.8625
    assert summary.test.article.trial == summary.article.number == 0
    assert summary.test.per_class[1].sensitivity == 0.9
    assert summary.best.spec.conv_width == summary.best.params["conv_width"]
    assert "No difference shown" in summary.verdict


def test_without_an_articles_head_its_numbers_are_null(told):
    told["article"] = {"number": None, "value": None}
    summary = Summary.from_dict(told)
    assert summary.article is None
    assert summary.to_dict() == told


def test_an_older_one_lacks_what_was_added_since(told, tmp_path):
    """As the first version wrote it: no finalists, and of the test rows the metrics alone."""
    for name in ("finalists", "ensemble", "refit", "calibration", "verdict", "one_at_a_time"):
        del told[name]
    for name in ("is_article", "heads", "patients", "calibration", "article", "difference", "ensemble"):
        del told["test"][name]
    (tmp_path / SUMMARY_FILE).write_text(json.dumps(told))
    summary = read_summary(tmp_path)
    assert summary.finalists is None
    assert (summary.test.uses, summary.test.heads, summary.test.article) == (1, "", None)
    assert summary.test.accuracy == 0.8625


def test_what_a_later_version_adds_is_passed_over(told):
    assert Summary.from_dict({**told, "weather": "fair"}) == Summary.from_dict(told)


@pytest.mark.parametrize(
    "text", ["{", "[]", "3", "{}", '{"name": "x", "trials": "many"}', '{"name": "x", "trials": 1, "best": 3}']
)
def test_what_is_damaged_is_named(text, tmp_path):
    (tmp_path / SUMMARY_FILE).write_text(text)
    with pytest.raises(InputError, match=r"summary\.json: ([\w.]+: )?expected .*; put a copy back, or "):
        read_summary(tmp_path)


def test_where_there_is_none_there_is_none(tmp_path):
    assert read_summary(tmp_path) is None


def test_when_the_search_goes_on_only_what_still_holds_is_left(tmp_path):
    made = MadeStudy(tmp_path / "study", make_config(trials=12))
    made.train(6)
    made.conclude()
    concluded = replace(read_summary(made.folder), notes=("rows are uneven", "recommended: it"), notes_of_start=1)
    write_summary(made.folder, concluded)
    before = read_record(made.folder).summary
    assert before.finalists is not None
    assert before.notes == concluded.notes
    made.train(6)
    summary = read_record(made.close()).summary
    assert summary.trials == 12
    assert (summary.finalists, summary.ensemble, summary.calibration) == (None, None, None)
    assert summary.notes == ("rows are uneven",)
    assert summary.bank == before.bank  # measured, and told with the number of trials that it is of
    assert (summary.test is None) == (summary.best.number != before.best.number)


def test_when_the_search_goes_on_it_recommends_nothing_that_it_has_not_compared(folder):
    before = read_record(folder).summary
    scores = {name: getattr(before.test, name) for name in (one.name for one in fields(ScoresOnTest))}
    average = RecommendedOnTest(kind="ensemble", trials=(0, before.best.number), **scores)
    concluded = replace(before, test=replace(before.test, recommended=average))
    gone_on = replace(before, trials=before.trials + 1).merged_with(concluded, still_chosen=False)
    assert gone_on.test == before.test
    assert gone_on.verdict is None
    assert before.merged_with(concluded, still_chosen=True).test == concluded.test
