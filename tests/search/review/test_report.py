"""The report: one file, from the record alone."""

from __future__ import annotations

import copy
import html
import json
import pickle
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import optuna
import pytest
from browser import Visit, chromium, require, what_is_missing
from commands import invoke, succeed
from made_study import PATIENTS, MadeStudy, make_config
from meeting import meet
from optuna.trial import TrialState

from heads.model.spec import HeadSpec
from search import open_study
from search.record.costs import CostOfUse, StoreCost
from search.record.results import LeakCounts
from search.record.study_record import StudyRecord, read_record
from search.review import figures, parameter_figures
from search.review.gallery import Gallery
from search.review.outcome import show_outcome
from search.review.plotting import short_score, thinned
from search.review.report import make_report, write_report
from search.review.trust import leaks
from search.review.words import describe_head, seeds_in_words
from search.setup.audit import AUDIT_FILE, describe, read_audit
from search.setup.reproduce import command_line, to_toml
from search.setup.space import Space, read_study_file
from search.trials.ranking import ranking

HOSTILE = '</script><script>alert(1)</script><img src=x onerror=alert(1)>&"'


class Reader(HTMLParser):
    """Takes a page apart: its tags, the texts of its table cells, what it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.rows: list[list[str]] = []
        self.ids: dict[str, str] = {}
        self._cell = False
        self._script = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.append(tag)
        self.loads += [given[name] for name in ("src", "href", "srcset", "data") if given.get(name)]
        self._script = given.get("id", "") if tag == "script" else ""
        if tag == "tr":
            self.rows.append([])
        self._cell = tag in ("td", "th")
        if self._cell:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self._cell = self._cell and tag not in ("td", "th")

    def handle_data(self, data):
        if self._cell:
            self.rows[-1][-1] += data
        if self._script:
            self.ids[self._script] = self.ids.get(self._script, "") + data

    def rows_after(self, *head: str) -> list[list[str]]:
        place = next(at for at, row in enumerate(self.rows) if row[: len(head)] == list(head))
        return self.rows[place + 1 :]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    made = MadeStudy(tmp_path_factory.mktemp("report") / "study", make_config(trials=40))
    made.train(40)
    made.conclude()
    made.keep_head(ranking(made.opened.study)[2].number)  # the winner's
    return made.close()


@pytest.fixture(scope="module")
def page(finished) -> str:
    succeed("search.report", finished)
    return (finished / "report.html").read_text(encoding="utf-8")


def test_it_is_one_small_file_that_loads_nothing(page, finished):
    reader = Reader(page)
    assert reader.loads == []
    assert "link" not in reader.tags
    assert "default-src 'none'" in page[:1000]
    assert len(page.encode()) < 6_000_000
    assert "@import" not in page.split("</style>")[0]
    assert "url(" not in page.split("</style>")[0]
    assert page.count("plotly.js v") == 1
    assert [path.name for path in finished.glob("report*")] == ["report.html"]


def test_the_leaderboard_is_the_ranking(page, finished):
    record = read_record(finished)
    winner = record.ranked[0]
    rows = Reader(page).rows_after("", "trial", "repeated", "accuracy")
    assert [row[1] for row in rows[:20]] == [str(trial.number) for trial in record.ranked[:20]]
    assert winner.number == record.summary.best.number == record.finalists[0].trial
    by_value = ranking(record.study)
    assert winner.number == by_value[2].number  # the repeats decide, not the value
    assert [trial.number for trial in record.ranked[4:]] == [
        trial.number for trial in by_value if trial.number not in {one.trial for one in record.finalists}
    ]
    assert rows[0][2] == "90.00%\u00a0±\u00a02.00%"
    assert rows[0][3:5] == [f"{winner.value:.4f}", f"{winner.user_attrs['validation_loss']:.4f}"]
    assert rows[0][7] == f"{winner.user_attrs['parameters']:,}"
    assert f"convolution to {winner.user_attrs['spec']['conv_width']} channels" in rows[0][8]
    assert any("The article's head:" in row[8] for row in rows[:21])


def test_it_tells_what_the_summary_tells(page, finished):
    summary = json.loads((finished / "summary.json").read_text())
    text = re.sub(r"<[^>]*>", " ", page.split("<script")[0])
    assert f"{100 * summary['best']['value']:.2f}%" in text
    assert summary["verdict"] in html.unescape(text)
    assert "No difference shown: +5.0 points may well be chance (95% interval -1.2 to +11.0 points)" in text
    assert "95% interval 77.03% to 92.15%" in text
    assert "one row is 1.00%" in text
    assert "90.00%\u00a0±\u00a02.00%" in text
    assert "mean ± 2.00% over 3 seeds" in text
    assert "trained on 500 rows (train and validation together) for 7 epochs" in text
    assert "80 test rows of 40 patients were used once" in text
    assert "0.0610 before, 0.0240 after" in text
    told = ["6.5 on average", "123.4 GFLOP/s", "321", "5 min 21 s one at a time", "91.00%", "4.76% of the time"]
    told += ["40 of 40 trials", "ab" * 32, "cd" * 8, "optuna 5.0.0", "python -m search.export", "diverged"]
    for part in told:
        assert part in text, part
    confusion = Reader(page).rows_after("true \\ called")
    assert confusion[:2] == [["A", "37", "3"], ["B", "8", "32"]]


def test_every_figure_has_its_data_and_its_place(page, finished):
    reader = Reader(page)
    drawn = json.loads(reader.ids["figures"])
    assert len(drawn) == page.count('class="figure"')
    assert all(figure["data"] for figure in drawn)
    repeats, history = (figure["data"] for figure in drawn[:2])
    told = json.loads((finished / "summary.json").read_text())["finalists"]["heads"]
    assert repeats[0]["x"] == pytest.approx([value for one in told for value in one["values"]])
    assert repeats[1]["x"] == pytest.approx([one["mean"] for one in told])
    first = history
    record = read_record(finished)
    assert first[0]["x"] == [trial.number for trial in record.trials if trial.state == TrialState.COMPLETE]
    assert max(first[1]["y"]) == pytest.approx(ranking(record.study)[0].value)
    assert first[1]["y"] == sorted(first[1]["y"])


def test_its_study_file_and_its_command_make_the_same_study(finished, tmp_path):
    config = read_record(finished).config
    path = tmp_path / "made.toml"
    path.write_text(to_toml(config))
    assert read_study_file(path).space == Space.from_dict(config.space, "here")
    line = command_line(config)
    for part in ("--features store.h5", "--trials 40", "--batch-size 10", "--seed 3", "--validation-fraction 0.15"):
        assert part in line
    assert "--validation store" not in line
    spaced = make_config(stores={"features": {"path": "a b.h5", "fingerprint": ""}}, folds=3)
    assert "--features 'a b.h5'" in command_line(spaced)
    assert "--validation-fraction" not in command_line(spaced)


def test_its_words_fit_the_study(finished):
    record = read_record(finished)

    def told(record: StudyRecord, **changes: object) -> str:
        config = record.config.model_copy(update=changes)
        return html.unescape(re.sub(r"\s+", " ", make_report(replace(record, config=config)).split("<script")[0]))

    usual = told(record)
    for words in ("their means are less too high than that of the best trial", "its last one counts"):
        assert words in usual
    for words in ("one of the best of 40 trials", "by accuracy on validation, then loss,"):
        assert words in usual
    assert "fused, 32 pages, float32 on tensorflow" in usual
    of_loss = told(record, objective="loss")
    assert "their means are less too low" in of_loss
    assert "by loss on validation, then number" in of_loss
    assert "solo on tensorflow" in told(record, engine="solo")
    unknown = record.config.split.model_copy(update={"patients": dict.fromkeys(PATIENTS, 0)})
    assert "; no patient is known" in told(record, split=unknown)
    assert "in two parts" not in usual  # nobody has counted
    for shared, words in ((0, "; no patient in two parts"), (1, "; 1 patient in two parts")):
        audited = replace(record.summary, audit=LeakCounts(patients_shared=shared, near_identical=0))
        assert words in told(replace(record, summary=audited))
    assert "As the best of its epochs" in told(replace(record, summary=replace(record.summary, trials=1)))
    assert "On new patients" in usual
    of_strangers = replace(record.summary.test, patients_unknown=record.summary.test.patients)
    of_strangers = told(replace(record, summary=replace(record.summary, test=of_strangers)))
    assert "On new patients" not in of_strangers
    assert "On test rows" in of_strangers
    assert "found head" in usual
    of_article = replace(record.summary.test, is_article=True, recommended=None)
    assert "found head" not in told(replace(record, summary=replace(record.summary, test=of_article, verdict="")))


def test_its_words_fit_a_study_of_little(finished):
    """One test row, patients that nobody knows, the article's head as the winner, one trial to time."""
    record = read_record(finished)
    summary, article = record.summary, record.article
    strangers = record.config.split.model_copy(update={"patients": dict.fromkeys(PATIENTS, 0)})
    of_one = replace(summary.test, is_article=True, rows=1, patients=1, patients_unknown=1)
    alone = replace(summary.one_at_a_time, sampled=(0,))
    best = replace(summary.best, number=article.number, value=article.value)
    heads = tuple(one for one in summary.finalists.heads if one.is_article)
    repeated = replace(summary.finalists, heads=heads)
    little = replace(summary, test=of_one, one_at_a_time=alone, best=best, finalists=repeated)
    config = record.config.model_copy(update={"split": strangers, "folds": 5})
    told = html.unescape(make_report(replace(record, summary=little, config=config)).split("<script")[0])
    for words in (
        "The 1 test row whose patients are not known was used once",
        "the mean over 5 folds;",
        "As the best of its epochs",
        "than it will be on new images.",
        "the article's head, accuracy on test rows",
        "The article's head was trained again from 3 seeds.",
        "from a few epochs of trial 0<",
    ):
        assert words in told, words
    others = replace(summary.finalists, heads=tuple(one for one in summary.finalists.heads if not one.is_article))
    told = make_report(replace(record, summary=replace(summary, finalists=others)))
    assert "The best trials were trained again from 3 seeds each." in told


def test_a_study_whose_trials_all_diverged_has_no_curves(tmp_path):
    made = MadeStudy(tmp_path / "study", make_config())
    for _ in range(3):
        asked = made.book.ask()
        asked.trial.report(float("nan"), 1)
        made.book.fail(asked, "diverged", epochs=1)
    made.opened.flush()
    assert list(Gallery(read_record(made.close()))) == ["what-ended-when"]


def test_axes_of_few_and_of_equal_values(tmp_path):
    """A trial has no half, and a share that all repeats have is not between 0 and 2."""
    made = MadeStudy(tmp_path / "study", make_config(epochs=3))
    made.train(3)
    record = read_record(made.close())
    gallery = Gallery(record)
    assert [gallery[name].layout.xaxis.dtick for name in ("history", "learning-curves", "what-ended-when")] == [1] * 3
    assert gallery["what-ended-when"].layout.yaxis.dtick == 1
    one = replace(made.finalist(record.ranked[0], 1.0), values=(1.0, 1.0, 1.0), sd=0.0)
    assert figures.repeats([one], "accuracy").layout.xaxis.range == (0.98, 1.02)


def test_counts_of_thousands_are_written_alike(finished):
    record = read_record(finished)
    config = record.config.model_copy(update={"trials": 2000})
    many = replace(record, config=config, summary=replace(record.summary, trials=1500, completed=1200))
    report = make_report(many)
    assert "1,500 of 2,000 trials" in report
    assert "1,200 completed" in report


@pytest.mark.parametrize(("truncated", "told"), [(False, "10,000 pairs"), (True, "10,000 pairs or more")])
def test_screen_and_report_say_alike_whether_there_may_be_more_pairs(tmp_path, truncated, told):
    audit = {"identity": "ab" * 8, "rows": {"train": 9, "test": 9}, "patients": {"train": 9, "test": 9}, "pairs": []}
    found = audit | {"patients_shared": 0, "near_identical": 10_000, "truncated": truncated}
    (tmp_path / AUDIT_FILE).write_text(json.dumps(found), encoding="utf-8")
    report = "".join(leaks(SimpleNamespace(folder=tmp_path)))
    assert f"nearly identical: {told}; near_identical.csv lists them" in report
    assert f"across parts: {told}, listed in near_identical.csv" in "\n".join(describe(read_audit(tmp_path)))


def test_the_screen_has_times_as_the_report_has_them_and_no_rate_where_none_went_by(finished, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("search.review.outcome.export_of_recommended", lambda _: None)  # made heads have no files
    record = read_record(finished)
    told_of = {9.5: "2 h 1 min, 9.5 trial-epochs/s", 1234.5678: "2 h 1 min, 1,235 trial-epochs/s", None: "2 h 1 min"}
    for rate, told in told_of.items():
        summary = replace(record.summary, search_seconds=7312.0, trial_epochs_per_second=rate)
        show_outcome(replace(record, summary=summary))
        table = re.sub(r"[^\S\n]+", " ", capsys.readouterr().out)
        assert f"time │ {told} │" in table
        assert "one at a time │ about 5 min 21 s for" in table


def test_names_from_outside_are_shown_and_not_run(tmp_path):
    made = MadeStudy(tmp_path / "study", make_config(name=HOSTILE))
    made.train(12, reason=f"weights {HOSTILE}")
    made.conclude(classes=(HOSTILE, "B"))
    text = make_report(read_record(made.close()))
    tags = Reader(text).tags
    assert tags.count("script") == 4
    assert "img" not in tags
    assert "<img" not in text.split("<script>")[0]
    assert HOSTILE in [row[0] for row in Reader(text).rows]  # as text, whole


def test_curves_of_several_views_say_what_they_are_scored_on(finished):
    words, record = "An epoch is scored on the first view of an image", read_record(finished)
    store = StoreCost(name="", fingerprint="f", backbone="net", image_size=8, feature_shape=(1, 1, 2), views=1)
    for views, said in ((1, False), (3, True)):
        cost = CostOfUse(stores=(replace(store, views=views),))
        assert (words in make_report(replace(record, summary=replace(record.summary, cost_of_use=cost)))) is said


def test_what_is_no_study_is_refused_and_nothing_is_made(tmp_path):
    refuse("study.json: expected a study directory", tmp_path)
    make_config().write(tmp_path)
    refuse("expected a study's journal, found no such file", tmp_path)
    refuse("--out", tmp_path, "--out", tmp_path / "none" / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["study.json"]
    made = MadeStudy(tmp_path / "study", make_config())
    made.close()
    (made.folder / "summary.json").write_text("{")
    refuse("summary", made.folder)


def test_only_a_report_is_replaced(finished, tmp_path):
    journal = finished / "journal.log"
    page, before = tmp_path / "page.html", journal.read_bytes()
    page.write_text("<!DOCTYPE html>\n<html><title>somebody's own</title></html>")
    for path in (journal, page):
        refuse("--out: expected a new file, or a report to replace, found another file", finished, "--out", path)
    assert journal.read_bytes() == before
    page.write_text("")
    for _ in range(2):  # an empty file, then the report itself
        succeed("search.report", finished, "--out", page)


def refuse(words: str, *arguments: object) -> None:
    status, out, err = invoke("search.report", *arguments)
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert words in err


def test_a_head_in_words_leaves_out_what_has_no_effect():
    plain = describe_head(HeadSpec())
    assert "64 channels, batch norm, relu, dropout 0.5, flatten" in plain
    assert "hidden" not in plain
    assert "weight decay" not in plain
    deep = describe_head(
        HeadSpec(dense_layers=2, dense_units=32, dense_dropout=0.25, weight_decay=1e-4, batch_norm=False)
    )
    assert "2 hidden of 32 units with dropout 0.25" in deep
    assert "weight decay 0.0001" in deep
    assert "batch norm" not in deep


def test_the_front_is_what_no_smaller_head_beats():
    point = figures.Point
    several = [
        point(0, 10, 0.5),
        point(1, 20, 0.7),
        point(2, 15, 0.5),
        point(3, 30, 0.7),
        point(4, 20, 0.6),
        point(5, 40, 0.9),
    ]
    assert [one.number for one in figures.pareto_front(several, "accuracy")] == [0, 1, 5]
    assert figures.pareto_front([], "accuracy") == []


def test_the_best_loss_so_far_is_the_least(finished):
    record = read_record(finished)
    traces = {trace.name: trace for trace in figures.history(record.ranked, record.article, "loss").data}
    values = np.array(traces["completed"].y)
    assert list(traces["best so far"].y) == np.minimum.accumulate(values).tolist()
    assert values.min() < values[0]


def test_thinning_keeps_the_best_and_the_worst(finished):
    ranked = ranking(read_record(finished).study)
    few = thinned(ranked, 5, "accuracy")
    assert len(few) == 5
    assert few[0].number == ranked[0].number
    assert few[-1].number == ranked[-1].number
    assert thinned(ranked, 1000, "accuracy") == ranked


def test_thinning_keeps_the_winner_of_equal_values():
    """Which is that of the lower loss: ranked first, whatever its number."""
    trials = [optuna.trial.create_trial(value=0.9) for _ in range(9)]
    for number, trial in enumerate(reversed(trials)):
        trial.number = number
    assert thinned(trials, 3, "accuracy")[0].number == 8


def test_a_parameter_is_shown_only_where_it_had_an_effect(finished):
    ranked = read_record(finished).ranked
    shown = parameter_figures.slice_of(ranked, "dense_units", "accuracy").data[0]
    deep = [trial for trial in ranked if trial.user_attrs["spec"]["dense_layers"]]
    assert 0 < len(deep) < len(ranked)
    assert set(shown.text) == {f"trial {trial.number}" for trial in deep}
    assert "use_weight_decay" not in parameter_figures.parameter_names(ranked)
    plateau = [trial for trial in ranked if trial.user_attrs["spec"].get("schedule", "plateau") == "plateau"]
    assert 0 < len(plateau) < len(ranked)
    assert len(parameter_figures.slice_of(ranked, "plateau_factor", "accuracy").data[0].x) == len(plateau)
    another = copy.deepcopy(ranked[0])
    another.user_attrs["spec"]["conv_width"] += 16
    widths = parameter_figures.slice_of([another, *ranked[1:]], "conv_width", "accuracy").data[0].x
    assert len(widths) == len(parameter_figures.slice_of(ranked, "conv_width", "accuracy").data[0].x) - 1
    decayed = parameter_figures.slice_of(ranked, "weight_decay", "accuracy")
    assert len(decayed.data[0].x) == sum(trial.params["use_weight_decay"] for trial in ranked)


def test_figures_read_as_the_tables_do():
    values = [*np.random.default_rng(0).random(2000).tolist(), 0.91664999, 0.12345, 1 / 3, 1.0, 0.0, 12.34565]
    assert [f"{short_score(value):.4f}" for value in values] == [f"{value:.4f}" for value in values]
    assert max(len(str(short_score(value))) for value in values) < 12
    assert short_score(0.912345678) == 0.91235


def test_the_parameter_that_decides_is_the_most_important(finished):
    trials = read_record(finished).trials
    sets = parameter_figures.scored_sets(trials, "accuracy")
    figure = parameter_figures.importance(parameter_figures.importances(sets))
    assert figure.data[0].y[-1] == "conv_width"  # see MadeStudy.accuracy
    assert [bars.name for bars in figure.data] == ["after 4 epochs, 36 trials", "at the end, 28 trials"]
    assert parameter_figures.scored_sets(trials[:3], "accuracy") == {}


def test_figures_are_computed_when_they_are_asked_for_and_once(finished, monkeypatch):
    asked, real = [], parameter_figures.importances

    def importances(*given):
        asked.append(given)
        return real(*given)

    monkeypatch.setattr(parameter_figures, "importances", importances)
    monkeypatch.setattr(parameter_figures, "MOST_AXES", 3)
    gallery = Gallery(read_record(finished))
    assert {"importance", "parameters-together"} <= set(gallery)
    assert asked == []
    across = gallery["parameters-together"]
    assert [axis.label for axis in across.data[0].dimensions[1:]] == gallery.together[0]
    assert gallery["importance"] is gallery["importance"]
    assert len(asked) == 1


def test_figures_of_a_notebook_have_a_template_and_those_of_a_report_none(finished):
    figure = open_study(finished).figures()["history"]
    assert figure.layout.template.layout.xaxis.gridcolor
    assert Gallery(read_record(finished))["history"].layout.template.layout.xaxis.gridcolor is None


def test_what_a_notebook_holds_of_a_study_can_be_pickled(finished):
    gallery = open_study(finished).figures()
    assert "importance" in gallery
    again = pickle.loads(pickle.dumps(gallery))
    assert all(again[name] == gallery[name] for name in gallery)


def test_a_study_whose_directory_has_gone_is_shown_with_the_reason(finished, tmp_path):
    study = open_study(shutil.copytree(finished, tmp_path / "study"))
    shutil.rmtree(study.folder)
    for shown in (repr(study), study._repr_html_()):
        assert "study.json: expected a study directory, found no such file" in shown


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    made = MadeStudy(tmp_path_factory.mktemp("large") / "study", make_config(trials=2000, epochs=20, sampler="random"))
    made.train(2000)
    made.conclude()
    return made.close()


@pytest.mark.slow
def test_two_thousand_trials_are_a_small_page(large):  # how soon: benchmarks/report.py
    text = make_report(read_record(large))
    assert len(text.encode()) < 6_000_000
    assert "200 of 2,000 curves" in text


@pytest.mark.slow
def test_a_page_of_two_thousand_trials_opens(large, tmp_path):
    require(what_is_missing())
    path = tmp_path / "large.html"
    succeed("search.report", large, "--out", path)
    with chromium() as browser, Visit(browser) as visit:
        visit.page.goto(path.as_uri())
        visit.wait_until_drawn()
        assert visit.errors == []


def test_the_command_says_where_it_wrote(finished, tmp_path):
    out = tmp_path / "page.html"
    assert invoke("search.report", finished, "--out", out) == (0, f"{out}: made, 40 trials, finished\n", "")
    assert out.stat().st_size > 10_000


def test_two_write_it_at_once_and_a_store_whose_name_is_no_text_is_named_by_its_escapes(tmp_path, monkeypatch):
    made = MadeStudy(
        tmp_path / "study", make_config(stores={"features": {"path": "st\udcff.h5", "fingerprint": "ab" * 32}})
    )
    made.train(1)
    record, path = read_record(made.close()), tmp_path / "report.html"
    assert not meet(monkeypatch, 2, lambda _: write_report(path, record))
    assert "st\\udcff.h5" in html.unescape(path.read_text(encoding="utf-8"))
    assert {one.name for one in tmp_path.iterdir()} == {"report.html", "study"}


def test_seeds_are_those_that_came_through_and_with_folds_each_is_of_one(finished):
    finalist = replace(read_record(finished).finalists[0], repeats=10, diverged=1)
    assert seeds_in_words(finalist, 0) == "9 seeds"
    assert seeds_in_words(finalist, 5) == "9 seeds, each of one fold"
