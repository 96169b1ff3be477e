"""The sentence agrees with the interval, whatever that is."""

import re
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.finish.verdict import verdict
from search.record.results import Difference, HeadOnTest, HeldOutTest, RecommendedOnTest, ScoresOnTest


def told(value: float, low: float, high: float, **more) -> HeldOutTest:
    scores = {"rows": 98, "patients": 64, "accuracy": 0.95, "accuracy_interval": (0.9, 0.98)}
    scores |= {"balanced_accuracy": 0.95, "loss": 0.2, "per_class": (), "confusion": ()}
    test = HeldOutTest(
        **scores,
        trial=3,
        article=HeadOnTest(trial=0, **(scores | {"accuracy": 0.95 - value})),
        difference=Difference(value=value, interval=(low, high), larger_than_chance=low > 0 or high < 0),
    )
    return replace(test, **more)


@given(value=st.floats(-0.2, 0.2), below=st.floats(0.001, 0.2), above=st.floats(0.001, 0.2))
def test_the_sentence_agrees_with_the_interval(value, below, above):
    low, high = value - below, value + above
    sentence = verdict(told(value, low, high))
    assert ("No difference shown" in sentence) == (low <= 0 <= high)
    assert ("found head is better by" in sentence) == (low > 0)
    assert ("found head is worse by" in sentence) == (high < 0)
    ends = re.search(r"interval ([+-][\d.]+) to ([+-][\d.]+) points", sentence)
    assert [float(end) for end in ends.groups()] == pytest.approx([100 * low, 100 * high], abs=0.051)
    assert "98 test images of 64 patients" in sentence


def test_other_ends_are_said_as_they_are():
    assert "nothing better than the article's head" in verdict(told(0, 0, 0, is_article=True))
    only = verdict(told(0, 0, 0, is_article=True), alone=True)
    assert only.startswith("No other head than the article's was tried. On 98 test images")
    assert verdict(told(0, -0.061, 0.061)).endswith("shown: they are equal here (95% interval -6.1 to +6.1 points).")
    assert "did not come through" in verdict(told(0, 0, 0, article=None, difference=None))
    assert "no test rows" in verdict(None)
    assert "1 test image of 1 patient " in verdict(told(0, 0, 0, rows=1, patients=1))
    assert "98 test images of 60 patients and 4 unknown that" in verdict(told(0, 0, 0, patients_unknown=4))
    assert "98 test images that no head" in verdict(told(0, 0, 0, patients=None))


def test_nobody_is_called_new_whose_patients_are_not_known():
    sentence = verdict(told(0, 0, 0, patients_unknown=64))
    assert sentence.startswith(
        "On 98 test images that no head had seen (their patients are not known, so other images of theirs may have been"
        " trained on), the found head "
    )


@pytest.mark.parametrize("value", [0.1, 0.0])
def test_the_articles_own_head_from_several_seeds_is_no_find_of_the_search(value):
    test = told(value, value - 0.05, value + 0.05, is_article=True)
    scores = {field.name: getattr(test, field.name) for field in fields(ScoresOnTest)}
    average = RecommendedOnTest(kind="repeats", trials=(0,), difference=test.difference, **scores)
    sentence = verdict(replace(test, recommended=average))
    assert sentence.startswith("The search found no better head than the article's. On 98 test images ")
    assert "the recommended average of the article's head from several seeds classified 95.0% correctly" in sentence
    assert "found head" not in sentence
    assert "the recommended average of the found head" in verdict(replace(test, is_article=False, recommended=average))
