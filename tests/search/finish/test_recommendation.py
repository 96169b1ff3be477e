"""What a study recommends: the simplest within a standard error of the best."""

from __future__ import annotations

import html
import re
from dataclasses import replace

import numpy as np
import pytest
from conftest import build_header, fill_store
from ended_study import EndedStudy, drawn_weights, end_study, probabilities
from hypothesis import given
from hypothesis import strategies as st
from made_data import made_data

from features.runtime.errors import DiskFullError, InputError
from features.runtime.text import percent
from features.store.kind import UNKNOWN
from heads.files import plain_layers
from heads.files.head_file import read_head
from heads.metrics.calibration import with_temperature
from heads.metrics.scoring import mean_probabilities, score
from search.finish import final_heads
from search.finish.checkpoints import TopCheckpoints
from search.finish.choice import Choice
from search.finish.conclusion import conclude
from search.finish.export import export_head
from search.finish.recommendation import Entrant, entrants, recommend, row_scores
from search.finish.refit import Refit
from search.finish.repeats import Finalist
from search.record.head_files import copy_path_of, head_files, refit_path_of
from search.record.recommended import describe_rule
from search.record.results import FinalistCost, HeldOutTest
from search.record.study_record import read_record
from search.record.summary import Summary, read_summary, summarise, write_summary
from search.review.outcome import show_outcome
from search.review.report import make_report
from search.setup.export_options import ExportOptions
from search.trials.notes import TrialNotes
from search.trials.ranking import finalists_of, ranking


@pytest.fixture(scope="module")
def ended(tmp_path_factory) -> EndedStudy:
    return end_study(tmp_path_factory.mktemp("recommended"))


def entrant(ended: EndedStudy, kind: str, *rights: int, trial: int = 1) -> Entrant:
    return Entrant(kind, (trial,), 1, [probabilities(ended.data, right) for right in rights])


rights = st.integers(0, 24)


@given(found=st.lists(st.tuples(rights, rights), min_size=2, max_size=4))
def test_it_is_the_first_that_is_within_a_standard_error_of_the_best(ended, found):
    kinds = ("article", "winner", "repeats", "ensemble")
    compared = [entrant(ended, kind, *two) for kind, two in zip(kinds, found, strict=False)]
    recommended = recommend(compared, ended.data, "accuracy")
    values = [one.value for one in recommended.contenders]
    rows = len(ended.data.validation_labels)
    np.testing.assert_allclose(values, [sum(two) / 2 / rows for two in found])
    assert all(one.behind == pytest.approx(max(values) - one.value) for one in recommended.contenders)
    within = [one.behind <= one.error + 1e-12 for one in recommended.contenders]
    assert recommended.kind == kinds[within.index(True)]
    assert recommended.chosen.value + recommended.chosen.error >= max(values) - 1e-12


def test_of_equals_the_simplest_is_taken_and_a_clear_difference_decides(ended):
    alike = [entrant(ended, kind, 20, 20) for kind in ("article", "winner", "ensemble")]
    simplest = recommend(alike, ended.data, "accuracy")
    assert simplest.kind == "article"
    assert describe_rule(simplest, "accuracy").endswith("it is the simplest, and none of these is better")
    apart = [entrant(ended, "article", 4, 4), entrant(ended, "winner", 22, 22), entrant(ended, "ensemble", 22, 22)]
    recommended = recommend(apart, ended.data, "accuracy")
    assert recommended.kind == "winner"
    assert "the best of these" in describe_rule(recommended, "accuracy")
    assert recommend([], ended.data, "accuracy") is None


@pytest.mark.parametrize("objective", ["accuracy", "balanced_accuracy", "loss"])
def test_rows_are_scored_by_the_studys_objective(ended, objective):
    called = probabilities(ended.data, 15, sure=0.8)
    whole = score(called, ended.data.validation_labels, objective).ranking_score
    assert row_scores(called, ended.data.validation_labels, objective).mean() == pytest.approx(whole, rel=1e-5)


def test_for_the_auc_which_has_no_rows_stands_the_logarithm_of_the_true_class(ended):
    called, labels = probabilities(ended.data, 15, sure=0.8), ended.data.validation_labels
    shares = called[np.arange(len(labels)), labels]
    assert row_scores(called, labels, "auc") == pytest.approx(np.log(shares))


def test_with_folds_rows_are_of_the_patients_whose_rows_were_predicted(tmp_path):
    header = build_header(rows=96)
    owners = [row % 32 for row in range(96)]  # whose rows lie apart
    header = replace(header, labels=tuple(one % 4 for one in owners), patients=tuple(map(str, owners)))
    fill_store(tmp_path / "s.h5", header)
    data = made_data(tmp_path / "s.h5", share=0.0, folds=3, seed=1, resident=False)
    missed = data.store.patients[np.concatenate(data.folds)] == "7"
    right, wrong = (probabilities(data, count) for count in (96, 0))
    called = {"article": np.where(missed[:, None], wrong, right), "winner": right}
    recommended = recommend([Entrant(kind, (1,), 1, [one]) for kind, one in called.items()], data, "accuracy")
    article, _ = recommended.contenders
    assert article.error == pytest.approx(article.behind) == pytest.approx(3 / 96)
    assert recommended.kind == "article"


@pytest.mark.parametrize("objective", ["auc", "loss"])
def test_logarithms_are_compared_with_the_temperature_that_each_leaves_with(ended, objective):
    """Smoothed labels, and averages, make heads unsure that are right: that is undone before they leave."""
    labels = ended.data.validation_labels
    often_wrong, unsure = probabilities(ended.data, 16, sure=0.8), probabilities(ended.data, 23, sure=0.3)
    assert score(often_wrong, labels).loss < score(unsure, labels).loss
    compared = [Entrant("article", (0,), 1, [often_wrong] * 2), Entrant("winner", (1,), 1, [unsure] * 2)]
    recommended = recommend(compared, ended.data, objective)
    assert recommended.kind == "winner"
    for one, called in zip(recommended.contenders, (often_wrong, unsure), strict=True):
        assert one.value == pytest.approx(-score(with_temperature(called, one.temperature), labels).loss)


def test_one_wrong_row_does_not_decide_how_sure_a_head_is_taken_to_be(ended):
    runs = [probabilities(ended.data, right, sure=0.5) for right in (24, 23)]
    assert len(ended.data.validation_labels) == 24
    compared = [Entrant("winner", (1,), 1, runs), Entrant("repeats", (1,), 2, [mean_probabilities(runs)])]
    single, average = recommend(compared, ended.data, "loss").contenders
    assert average.temperature < single.temperature < 3 * average.temperature
    assert abs(average.value - single.value) < 0.1


def finalists(ended: EndedStudy, *, better: str) -> list[Finalist]:
    """Three runs each, the best first; what is to be better is right where the others are wrong."""
    found = []
    for index, trial in enumerate(finalists_of(ended.study, 2)):
        notes, rows = TrialNotes.of(trial), len(ended.data.validation_labels)
        right = {"article": rows, "winner": 4}[better] if notes.ordinal == 0 else {"article": 4, "winner": rows}[better]
        found.append(
            Finalist(
                trial=trial.number,
                ordinal=notes.ordinal,
                head=notes.spec,
                is_article=notes.ordinal == 0,
                values=(0.5,) * 3,
                losses=(1.0,) * 3,
                epochs=1,
                rates=(1e-3,),
                probabilities=tuple(probabilities(ended.data, max(0, right - index)) for _ in range(3)),
            )
        )
    return found


@pytest.fixture
def made(tmp_path, monkeypatch) -> EndedStudy:
    """Its refits are made up: nothing is trained."""
    ended = end_study(tmp_path)

    def refit(candidates, _config, data, _own):
        found = {}
        for one in candidates:
            first, *more = (drawn_weights(one.spec, data.first, seed=10 * one.trial + n) for n in range(one.copies))
            found[one.trial] = Refit(one.trial, one.spec, first, one.epochs, 9, more=tuple(more))
        return found, {}

    monkeypatch.setattr(final_heads, "refit", refit)
    return ended


def ended_in(made: EndedStudy, better: str, *, earlier: HeldOutTest | None = None) -> Summary:
    return ended_with(made, sorted(finalists(made, better=better), key=lambda one: one.is_article), earlier=earlier)


def ended_with(made: EndedStudy, repeated: list[Finalist], *, earlier: HeldOutTest | None = None) -> Summary:
    choice = Choice(repeated[0].trial, repeated, FinalistCost(trial_epochs=1, seconds=1.0))
    counted = summarise(made.study, made.config, chosen=choice.trial)
    summary = conclude(choice, made.checkpoints, counted, earlier=earlier)
    write_summary(made.folder, summary)
    return summary


def export(made: EndedStudy, name: str, **options):
    out = made.folder.parent / name
    exported = export_head(made.folder, out, ExportOptions(**options))
    return exported, read_head(out)


def test_the_winners_copies_lie_there_and_leave_as_their_average(made):
    summary = ended_in(made, "winner")
    winner = summary.best.number
    assert [one.kind for one in summary.recommendation.contenders][:2] == ["article", "winner"]
    assert {one.kind: one.copies for one in summary.recommendation.contenders}["repeats"] == 3
    assert all(copy_path_of(made.folder, winner, copy).is_file() for copy in (1, 2))
    exported, head = export(made, "average.hdf5", which="repeats")
    assert head.metadata.trials == (winner,) * 3
    assert head.metadata.temperature == summary.recommendation.of("repeats").temperature
    assert exported.description.endswith("from 3 seeds")
    rows = np.maximum(np.random.default_rng(0).standard_normal((4, *head.metadata.feature_shape), np.float32), 0)
    each = [read_head(copy_path_of(made.folder, winner, copy)).model.predict(rows, verbose=0) for copy in range(3)]
    np.testing.assert_allclose(head.model.predict(rows, verbose=0), np.mean(each, axis=0), atol=1e-6)


def test_what_is_recommended_leaves_unless_something_else_is_asked_for(made):
    summary = ended_in(made, "winner")
    assert summary.recommendation.kind == "winner"
    assert summary.test.recommended is None
    assert export(made, "a.hdf5")[1].metadata.trial == summary.best.number
    assert export(made, "b.hdf5", which="article")[1].metadata.trial == summary.article.number
    assert len(export(made, "c.hdf5", which="ensemble")[1].metadata.trials) == 2
    with pytest.raises(InputError, match="--which: expected no --trial beside it"):
        export(made, "d.hdf5", which="winner", trial=1)


def test_where_that_is_the_articles_head_the_verdict_says_so(made):
    summary = ended_in(made, "article")
    assert summary.recommendation.kind == "article"
    assert summary.test.recommended.trials == (summary.article.number,)
    assert summary.test.recommended.accuracy == summary.test.article.accuracy
    assert "nothing was shown to be better than the article's head" in summary.verdict
    assert export(made, "a.hdf5")[1].metadata.trial == summary.article.number
    assert read_summary(made.folder) == summary


def test_report_and_final_table_speak_of_what_leaves(made, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    repeated = sorted(finalists(made, better="article"), key=lambda one: one.is_article)
    summary = ended_with(made, [replace(one, epochs=3 if one.is_article else 1) for one in repeated])
    found, leaving = summary.test, summary.test.of_recommended
    assert (leaving.accuracy, summary.recommendation.kind) == (summary.test.article.accuracy, "article")
    assert leaving.confusion != found.confusion
    record = read_record(made.folder)
    text = html.unescape(re.sub(r"(<[^>]*>|\s)+", " ", make_report(record).split("<script")[0]))
    assert f"recommended, accuracy on test rows {percent(leaving.accuracy)}" in text
    assert "Recommended is the article's head: 1x1 convolution to 64 channels" in text
    assert f"The search's winner, trial {found.trial}: 1x1 convolution" in text
    lines = zip(leaving.per_class, leaving.confusion, strict=True)
    assert " ".join(f"{one.name} {' '.join(map(str, counts))}" for one, counts in lines) in text
    assert f"recommended: temperature {leaving.calibration.temperature:.3f}" in text
    assert f"the found head: temperature {summary.calibration.temperature:.3f}" in text
    for name in ("best.hdf5", "ensemble.hdf5 --which ensemble", "trial.hdf5 --trial NUMBER"):
        assert f"python -m search.export {made.folder} {name}" in text
    show_outcome(record)
    table = re.sub(r"[^\S\n]+", " ", capsys.readouterr().out)
    assert "what leaves │ trained on 9 rows for 3 epochs" in table
    assert f"recommended on test │ {leaving.accuracy:.4f}" in table
    assert f"found head on test │ {found.accuracy:.4f}" in table


def test_ended_again_the_same_heads_are_tested_once(made):
    summary = ended_in(made, "article")
    assert ended_in(made, "article", earlier=summary.test) == summary
    assert ended_in(made, "winner", earlier=replace(summary.test, heads="others")).test.uses == 2


def test_what_is_recommended_is_added_to_the_test_of_an_older_version(made):
    summary = ended_in(made, "article")
    again = ended_in(made, "article", earlier=replace(summary.test, recommended=None))
    assert again.test == summary.test
    assert again.verdict == summary.verdict


def test_the_average_of_the_articles_heads_is_compared_with_one_of_them(made):
    first, *others = sorted(finalists(made, better="article"), key=lambda one: not one.is_article)
    rows = np.arange(len(made.data.validation_labels))
    right, wrong = (probabilities(made.data, count, sure=sure) for count, sure in ((len(rows), 0.9), (0, 0.5)))
    runs = tuple(np.where((rows % 3 == run)[:, None], wrong, right) for run in range(3))
    summary = ended_with(made, [replace(first, probabilities=runs), *others])
    assert summary.recommendation.kind == "repeats"
    assert summary.test.is_article
    assert summary.test.recommended.difference is not None
    assert "did not come through" not in summary.verdict


def test_the_heads_of_an_earlier_end_stay_until_those_of_the_next_are_all_there(made, monkeypatch):
    ended_in(made, "winner")
    others = [made.folder / "heads" / name for name in ("refit-77.hdf5", "copy-77-1.hdf5", "refit-78.keras")]
    for path in others:
        path.touch()
    there, real, written = head_files(made.folder), TopCheckpoints.save_refit, []

    def full(checkpoints, *told):
        if written:
            raise DiskFullError("refit", "disk full: 0.0 MB free; make room")
        written.extend(real(checkpoints, *told))
        return written

    with monkeypatch.context() as patched, pytest.raises(DiskFullError):
        patched.setattr(TopCheckpoints, "save_refit", full)
        ended_in(made, "winner")
    assert written
    assert {*head_files(made.folder)} == {*there}
    ended_in(made, "winner")
    assert {*head_files(made.folder)} == {*there} - {*others}


def test_an_average_that_no_file_can_hold_is_no_candidate(made, monkeypatch):
    real = TopCheckpoints._metadata

    def seen_otherwise(checkpoints, number, *told, **more):
        resize = "pad" if number == made.study.trials[-1].number else "squash"
        return replace(real(checkpoints, number, *told, **more), image_size=64, resize=resize)

    first, second, *others = (replace(one, is_article=False) for one in finalists(made, better="winner"))
    last = replace(second, trial=made.study.trials[-1].number)
    repeated = [first, last, *others]
    assert "ensemble" in {one.kind for one in ended_with(made, repeated).recommendation.contenders}
    monkeypatch.setattr(TopCheckpoints, "_metadata", seen_otherwise)
    summary = ended_with(made, repeated)
    assert "ensemble" not in {one.kind for one in summary.recommendation.contenders}
    (noted,) = summary.notes
    assert noted.startswith("the average of the finalists is no candidate to be recommended: no file can hold it, as ")
    assert "made square by " in noted


def test_averages_that_are_too_large_for_a_file_are_no_candidates(made, monkeypatch):
    real = TopCheckpoints._metadata

    def of_nobody(checkpoints, *told, **more):
        return replace(real(checkpoints, *told, **more), backbone=UNKNOWN)

    first, second, *others = (replace(one, is_article=False) for one in finalists(made, better="winner"))
    repeated = [first, replace(second, trial=made.study.trials[-1].number), *others]
    averages = {"repeats", "ensemble"}
    monkeypatch.setattr(TopCheckpoints, "_metadata", of_nobody)
    assert averages < {one.kind for one in ended_with(made, repeated).recommendation.contenders}
    largest = max(sum(map(np.size, read_head(path).model.get_weights())) for path in head_files(made.folder))
    monkeypatch.setattr(plain_layers, "MAX_PARAMETERS", largest)
    summary = ended_with(made, repeated)
    assert not averages & {one.kind for one in summary.recommendation.contenders}
    assert sum(f"a head file holds at most {largest:,}" in note for note in summary.notes) == len(averages)


def test_where_all_finalists_diverged_the_best_trial_leaves_as_without_any(made):
    lost = {"values": (None,) * 3, "losses": (None,) * 3, "rates": (), "probabilities": ()}
    repeated = [replace(one, **lost) for one in finalists(made, better="winner")]
    best = ranking(made.study)[0].number
    summary = ended_with(made, sorted(repeated, key=lambda one: one.trial != best))
    assert (summary.best.number, summary.recommendation, summary.calibration) == (best, None, None)
    assert export(made, "best.hdf5")[1].metadata.trial == best


def test_heads_that_diverged_are_not_compared(ended):
    two = finalists(ended, better="winner")
    kinds = [one.kind for one in entrants(two, [two[0].trial], {two[0].trial: 1})]
    assert "ensemble" not in kinds
    assert "repeats" not in kinds
    assert refit_path_of(ended.folder, 3) == copy_path_of(ended.folder, 3, 0)


def test_a_head_that_diverged_when_it_was_trained_on_all_rows_is_no_candidate(ended):
    winner, *_, article = finalists(ended, better="winner")
    assert article.is_article
    assert [one.kind for one in entrants([winner, article], [], {winner.trial: 1})] == ["winner"]


def test_the_finalists_are_averaged_seed_by_seed(ended):
    rights = ((20, 4, 8), (4, 20, 12))
    called = [tuple(probabilities(ended.data, right) for right in runs) for runs in rights]
    repeated = finalists(ended, better="winner")[:2]
    two = [replace(one, probabilities=runs) for one, runs in zip(repeated, called, strict=True)]
    numbers = [one.trial for one in two]
    *_, average = entrants(two, numbers, dict.fromkeys(numbers, 1))
    assert (average.kind, average.trials) == ("ensemble", tuple(numbers))
    np.testing.assert_array_equal(average.called, [mean_probabilities(seed) for seed in zip(*called, strict=True)])


def test_scores_that_are_no_shares_say_what_they_are(ended):
    recommended = recommend([entrant(ended, kind, 20, 20) for kind in ("article", "winner")], ended.data, "loss")
    assert "by the mean logarithm of the true class' calibrated probability the article's head -" in describe_rule(
        recommended, "loss"
    )
    assert "on the validation rows the article's head" in describe_rule(recommended, "balanced_accuracy")
