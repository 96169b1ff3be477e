"""What happened in a study beside its numbers is said in a line each, at its end."""

from __future__ import annotations

from dataclasses import replace

from made_study import MadeStudy, make_config

from search.finish.incidents import incidents
from search.record.summary import Summary, read_summary, summarise, write_summary


def test_nothing_is_said_of_a_study_in_which_nothing_happened(tmp_path):
    made = MadeStudy(tmp_path / "s", make_config(trials=3))
    made.train(3)
    assert list(incidents(made.opened.study, summarise(made.opened.study, made.config), "accuracy")) == []
    made.close()


def test_failures_choice_divergence_and_repeated_tests_are_said(tmp_path):
    made = MadeStudy(tmp_path / "s", make_config(trials=12))
    made.train(12, reason="its loss was not finite")
    made.conclude()
    summary = read_summary(made.folder)
    assert summary and summary.test and summary.finalists and summary.best
    first, *rest = summary.finalists.heads
    summary = replace(
        summary,
        interrupted=2,
        test=replace(summary.test, uses=3),
        finalists=replace(
            summary.finalists,
            heads=(replace(first, diverged=1), *rest),
            cost=replace(summary.finalists.cost, interrupted=1),
        ),
    )
    failed, interrupted, run_again, diverged, chosen, tested = incidents(made.opened.study, summary, "accuracy")
    made.close()
    assert failed == "1 trial failed (6): its loss was not finite"
    assert interrupted.startswith("2 trials ")
    assert run_again == "1 repeat left by a killed run, begun again from the start"
    assert diverged == f"trial {first.trial}: 1 of its 3 repeats diverged"
    assert f"trial {summary.best.number} was chosen, whose repeats are the best: the fewest diverged" in chosen
    assert "used 3 times" in tested
    lost = replace(first, diverged=3, failures=("diverged in epoch 2: no loss", "my_heads.py: expected a model"))
    summary = replace(summary, finalists=replace(summary.finalists, heads=(lost, *rest)))
    *_, failed, _, _ = incidents(made.opened.study, summary, "accuracy")
    assert failed == f"trial {first.trial}: 3 of its 3 repeats failed: my_heads.py: expected a model"


def test_a_second_use_of_the_test_rows_is_said_and_the_first_is_not(tmp_path):
    made = MadeStudy(tmp_path / "s", make_config(trials=12))
    made.train(12)
    made.conclude()
    summary = read_summary(made.folder)
    ends = [replace(summary, test=replace(summary.test, uses=uses)) for uses in (1, 2)]
    told = [incidents(made.opened.study, end, "accuracy") for end in ends]
    once, twice = ([line for line in lines if "test rows" in line] for lines in told)
    made.close()
    assert not once
    assert len(twice) == 1
    assert "used 2 times" in twice[0]


def test_notes_are_kept_in_the_summary_and_older_summaries_have_none(tmp_path):
    made = MadeStudy(tmp_path / "s", make_config())
    made.train(3)
    summary = replace(summarise(made.opened.study, made.config), notes=("one thing", "another"))
    made.close()
    write_summary(made.folder, summary)
    assert read_summary(made.folder) == summary
    told = summary.to_dict()
    assert told.pop("notes") == ["one thing", "another"]
    assert Summary.from_dict(told).notes == ()
