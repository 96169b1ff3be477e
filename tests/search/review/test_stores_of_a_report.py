"""A study of several stores: its report says how far each got, what an image costs, and which head is worth it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from browser import CUT, PHONE, WIDER, Visit, chromium, require, what_is_missing
from made_study import COUNTS, SPACE, MadeStudy, make_config
from test_report import HOSTILE, Reader

from features.runtime.text import milliseconds
from search.record.costs import CostOfUse, StoreCost
from search.record.study_record import StudyRecord, read_record
from search.record.summary import SUMMARY_FILE, Summary, read_summary, write_summary
from search.review import figures
from search.review.cheapest_head import cheapest_head, costed_trials, standard_error
from search.review.dashboard_study import small_figures
from search.review.gallery import Gallery
from search.review.note import note_on
from search.review.report import make_report
from search.review.stores import article_trials
from search.review.tables import trials_frame
from search.review.words import cost_in_words
from search.study import Study
from search.trials.notes import TrialNotes

NAMES = ("small", "large")


def store_at(path: str) -> dict:
    return {"features": {"path": path, "fingerprint": path}, "validation": None, "test": None}


def make_study(folder: Path, names: tuple[str, ...] = NAMES, **changes) -> MadeStudy:
    space = SPACE.to_dict() | {"features": list(names)}
    more = {name: store_at(f"{name}.h5") for name in names[1:]}
    told = {"space": space, "stores": store_at(f"{names[0]}.h5"), "store_name": names[0], "more_stores": more}
    return MadeStudy(folder, make_config(trials=40, **told | changes))


def add_cost(folder: Path, names: tuple[str, ...] = NAMES, *, views: int = 3) -> None:
    """Gives a summary what an image costs: 2 ms in the first store, 30 ms in the second, and 0.5 ms more by trial."""
    summary, record = read_summary(folder), read_record(folder)
    stores = tuple(
        StoreCost(
            name=name,
            fingerprint=f"{name}.h5",
            backbone="mobilenet, alpha 0.25" if index == 0 else "mobilenet_v2",
            image_size=96 if index == 0 else 224,
            feature_shape=(2, 2, 64),
            views=views,
            milliseconds=(2.0, 30.0)[index],
        )
        for index, name in enumerate(names)
    )
    heads = {f"{trial.number}": 0.5 + trial.number / 1000 for trial in record.ranked}
    write_summary(folder, replace(summary, cost_of_use=CostOfUse(stores=stores, heads=heads)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = make_study(tmp_path_factory.mktemp("stores") / "study")
    made.train(40)
    made.conclude()
    add_cost(made.close())
    return made.folder


@pytest.fixture(scope="module")
def record(folder) -> StudyRecord:
    return read_record(folder)


@pytest.fixture(scope="module")
def page(record) -> str:
    return make_report(record)


def store_of(trial) -> str:
    return TrialNotes.of(trial).store


def test_the_table_says_how_far_each_store_got(record, page):
    rows = Reader(page).rows_after("", "backbone", "pixels")[: len(NAMES)]
    articles = article_trials(record)
    frame = trials_frame(record)
    assert list(frame.index[frame["is_article"]]) == [0, 1]
    assert [trial.number for trial in articles.values()] == [0, 1]
    assert list(articles) == list(NAMES)
    for name, row in zip(NAMES, rows, strict=True):
        own = [trial for trial in record.trials if store_of(trial) == name]
        completed = [trial for trial in own if trial.state.name == "COMPLETE"]
        assert row[0] == name
        assert row[3:6] == ["2x2x64", "3", "2 ms" if name == "small" else "30 ms"]
        assert row[6:9] == [f"{len(own)}", f"{len(completed)}", f"{sum(TrialNotes.of(one).epochs for one in own)}"]
        assert row[9] == f"{100 * max(one.value for one in completed):.2f}%"
        assert row[10] == f"{100 * articles[name].value:.2f}%"
    assert rows[0][1:3] == ["mobilenet, alpha 0.25", "96"]


def test_the_leaderboard_names_store_and_cost(record, page):
    rows = Reader(page).rows_after("", "trial", "repeated", "accuracy")
    for row, trial in zip(rows, record.ranked[:5], strict=False):
        told = record.summary.cost_of_use.of(trial.number, store_of(trial))
        assert row[8:10] == [store_of(trial), milliseconds(told)]
    assert record.summary.best.store == store_of(record.ranked[0])
    assert f"On the features of {record.summary.best.store}: mobilenet" in page


def test_the_figure_has_a_colour_a_store_and_the_front_of_all(record):
    figure = Gallery(record)["value-and-cost"]
    traces = {trace.name: trace for trace in figure.data}
    assert list(traces)[:3] == ["small", "large", "no cheaper head is better"]
    assert traces["small"].marker.color != traces["large"].marker.color
    assert figure.layout.xaxis.type == "log"
    for name in NAMES:
        own = {trial.number for trial in record.ranked if store_of(trial) == name}
        assert set(traces[name].text) == {f"trial {number}" for number in own}
    heads = [figures.Point(one.trial.number, one.milliseconds, one.trial.value) for one in costed_trials(record)]
    front = figures.pareto_front(heads, "accuracy")
    assert list(traces["no cheaper head is better"].text) == [f"trial {point.number}" for point in front]
    assert max(traces["small"].x) < 3
    assert min(traces["large"].x) > 30
    assert traces["best"].text == (f"trial {record.ranked[0].number}",)


def test_the_cheapest_within_one_standard_error_is_named_beside_the_best(record, page):
    found = cheapest_head(record)
    mean = next(one.mean for one in record.finalists if one.trial == found.best.trial.number)
    assert found.margin == pytest.approx(max(0.02 / 3**0.5, (mean * (1 - mean) / 100) ** 0.5))  # of repeats, of rows
    assert standard_error(record, record.ranked[-1]) == pytest.approx(
        (record.ranked[-1].value * (1 - record.ranked[-1].value) / 100) ** 0.5  # of the validation rows
    )
    text = f"The best head is trial {found.best.trial.number} on {found.best.store}"
    assert text in page
    means = {one.trial: one.mean for one in record.finalists}
    for one in costed_trials(record):
        mine, theirs = (means.get(head.trial.number) for head in (one, found.best))
        worse = theirs - mine if mine is not None else found.best.trial.value - one.trial.value
        if worse <= found.margin:
            assert found.cheapest.milliseconds <= 1.02 * one.milliseconds


def test_cheapest_is_the_best_of_those_that_cost_the_same(record):
    heads = dict.fromkeys(record.summary.cost_of_use.heads, 1.0)
    stores = tuple(replace(one, milliseconds=3.0) for one in record.summary.cost_of_use.stores)
    alike = replace(record, summary=replace(record.summary, cost_of_use=CostOfUse(stores=stores, heads=heads)))
    found = cheapest_head(alike)
    assert found.cheapest == found.best
    assert "No cheaper head is within one standard error of it" in make_report(alike)
    assert "cheapest within one standard error" not in [trace.name for trace in Gallery(alike)["value-and-cost"].data]


def ranked_by_loss(record: StudyRecord, means: tuple[float, ...], *, diverged: int = 0) -> StudyRecord:
    """With such means of the first finalists, each cheaper than the one before; what others cost is not known."""
    heads = tuple(
        replace(one, mean=mean, sd=0.03, diverged=diverged)
        for one, mean in zip(record.finalists[: len(means)], means, strict=True)
    )
    stores = tuple(replace(one, milliseconds=1.0) for one in record.summary.cost_of_use.stores)
    cost = CostOfUse(stores=stores, heads={f"{one.trial}": 9.0 - index for index, one in enumerate(heads)})
    finalists = replace(record.summary.finalists, heads=heads)
    config = record.config.model_copy(update={"objective": "loss"})
    return replace(record, config=config, summary=replace(record.summary, finalists=finalists, cost_of_use=cost))


def test_of_losses_the_larger_one_is_the_worse(record):
    found = cheapest_head(ranked_by_loss(record, (0.20, 0.21, 0.30)))
    assert [found.best.trial.number, found.cheapest.trial.number] == [one.trial for one in record.finalists[:2]]


def test_the_error_of_a_mean_is_of_the_repeats_that_came_through(record):
    assert cheapest_head(ranked_by_loss(record, (0.2, 0.3), diverged=1)).margin == pytest.approx(0.03 / 2**0.5)


def test_with_folds_the_error_of_a_share_is_of_all_rows_that_judge(record):
    folded = replace(record, config=record.config.model_copy(update={"folds": 5}))
    trial = folded.ranked[-1]
    assert trial.number not in [one.trial for one in folded.finalists]
    assert standard_error(folded, trial) == pytest.approx((trial.value * (1 - trial.value) / COUNTS["train"]) ** 0.5)


def test_a_mean_of_classes_is_as_uncertain_as_its_rarest_class(record):
    counts = {"train": (300, 100), "validation": (90, 0, 10)}
    split = record.config.split.model_copy(update={"class_counts": counts})
    balanced = record.config.model_copy(update={"objective": "balanced_accuracy", "split": split})
    trial = record.ranked[-1]
    variance = trial.value * (1 - trial.value)
    expected = (variance / 90 + variance / 10) ** 0.5 / 2
    assert standard_error(replace(record, config=balanced), trial) == pytest.approx(expected)
    folded = balanced.model_copy(update={"folds": 5})
    expected = (variance / 300 + variance / 100) ** 0.5 / 2
    assert standard_error(replace(record, config=folded), trial) == pytest.approx(expected)
    old = balanced.model_copy(update={"split": record.config.split})
    assert standard_error(replace(record, config=old), trial) == pytest.approx((variance / 100) ** 0.5)


def test_features_are_one_of_the_parameters(record):
    gallery = Gallery(record)
    assert "features" in gallery["importance"].data[0].y
    assert set(gallery["parameter-features"].data[0].x) == set(NAMES)
    assert "features" in [axis.label for axis in gallery["parameters-together"].data[0].dimensions]


def test_the_table_of_trials_and_the_dashboard_have_them_too(record, folder):
    frame = trials_frame(record)
    assert list(frame.columns[6:8]) == ["features", "milliseconds"]
    best = record.ranked[0]
    assert frame.loc[best.number, "features"] == store_of(best)
    assert frame.loc[best.number, "milliseconds"] == record.summary.cost_of_use.of(best.number, store_of(best))
    assert frame.loc[frame["state"] != "completed", "milliseconds"].isna().all()
    note = note_on(record)
    assert f"The best head takes the features of {store_of(best)}." in note
    assert f"An image with it: {cost_in_words(record.summary, record.summary.best)}." in note
    assert "| trial | accuracy | repeated | parameters | features | an image | head |" in note
    assert "value-and-cost" in dict(small_figures(record))
    assert f"trial {best.number} on {store_of(best)}" in repr(Study(folder))


def test_before_the_end_there_are_counts_and_no_costs(tmp_path):
    made = make_study(tmp_path / "study")
    made.train(12)
    record = read_record(made.close())
    rows = Reader(make_report(record)).rows_after("", "backbone", "pixels")
    assert [row[:7] for row in rows[:2]] == [
        [name, *"-----", f"{sum(store_of(one) == name for one in record.trials)}"] for name in NAMES
    ]
    assert "value-and-cost" not in Gallery(record)
    assert cheapest_head(record) is None


def test_what_is_not_known_of_a_backbone_is_said(folder, record):
    told = record.summary.cost_of_use
    unknown = tuple(replace(one, milliseconds=None, backbone="unknown") for one in told.stores)
    summary = replace(record.summary, cost_of_use=replace(told, stores=unknown))
    text = make_report(replace(record, summary=summary))
    assert "What an image costs is not known" in text
    assert [row[5] for row in Reader(text).rows_after("", "backbone", "pixels")[:2]] == ["not known"] * 2
    assert cost_in_words(summary, summary.best).startswith("not known: head 0.5")


def test_a_study_of_one_store_has_one_line_on_cost(tmp_path):
    made = MadeStudy(tmp_path / "study", make_config(trials=12))
    made.train(12)
    made.conclude()
    before = make_report(read_record(made.close()))
    assert "an image, with the head found" not in before  # of an older version
    add_cost(made.folder, ("",), views=1)  # of several views the curves have a line of their own
    record = read_record(made.folder)
    after = make_report(record)
    lines = set(after.splitlines()) - set(before.splitlines())
    assert len(lines) == 1, lines
    assert "on the machine of the search: backbone 2 ms, head 0.5" in lines.pop()
    assert "Stores" not in [row[0] for row in Reader(after).rows if row]
    assert "milliseconds" not in trials_frame(record).columns
    assert "store" not in record.summary.to_dict()["best"]


def test_a_damaged_cost_is_refused_and_a_missing_one_is_none(folder, tmp_path):
    told = read_summary(folder).to_dict()
    assert Summary.from_dict(told).cost_of_use == read_summary(folder).cost_of_use
    del told["cost_of_use"]
    assert Summary.from_dict(told).cost_of_use is None
    assert "cost_of_use" not in Summary.from_dict(told).to_dict()
    for damaged in ({"stores": 3}, {"stores": [], "heads": {"0": "fast"}}, []):
        with pytest.raises(ValueError, match="cost_of_use"):
            Summary.from_dict({**told, "cost_of_use": damaged})
    assert (folder / SUMMARY_FILE).is_file()


def test_names_of_stores_are_shown_and_not_run(tmp_path):
    names = (HOSTILE, "b")
    made = make_study(tmp_path / "study", names)
    made.train(20)
    made.conclude()
    add_cost(made.close(), names)
    reader = Reader(make_report(read_record(made.folder)))
    assert reader.tags.count("script") == 4
    assert "img" not in reader.tags
    assert HOSTILE in [row[0] for row in reader.rows]


@pytest.mark.slow
def test_it_is_drawn_on_a_desktop_and_a_phone(folder, tmp_path, page):
    require(what_is_missing())
    path = tmp_path / "report.html"
    path.write_text(page)
    with chromium() as browser:
        for window in ({}, PHONE):
            with Visit(browser, path.as_uri(), **window) as visit:
                visit.wait_until_drawn()
                wide, shown = visit.page.evaluate(WIDER)
                assert (visit.errors, visit.page.evaluate(CUT), wide <= shown) == ([], [], True)
