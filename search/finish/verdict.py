"""What the test rows say of the found head and of the article's, in a sentence for people who are no statisticians."""

from __future__ import annotations

from features.runtime.text import capitalized, counted, percent
from heads.metrics.patients import all_unknown, of_patients
from search.record.recommended import ARTICLE, REPEATS
from search.record.results import HeldOutTest


def verdict(test: HeldOutTest | None, *, alone: bool = False) -> str:
    """Returns the sentence.

    Args:
        test: See ``search.finish.held_out``; None where there are no test rows.
        alone: Whether no other head than the article's was tried, as by a study of one trial.
    """
    if test is None:
        return "There were no test rows, so nothing is known about new patients."
    recommended = test.recommended
    if all_unknown(test.patients, test.patients_unknown):
        unknown = "their patients are not known, so other images of theirs may have been trained on"
        where = f"On {counted(test.rows, 'test image')} that no head had seen ({unknown})"
    else:
        of_whom = of_patients(test.patients, test.patients_unknown)
        where = f"On {counted(test.rows, 'test image')}{of_whom} that no head had seen"
    told = test.of_recommended
    low, high = told.accuracy_interval
    mine = f"{percent(told.accuracy, 1)} correctly (95% interval {percent(low, 1)} to {percent(high, 1)})"
    if test.is_article and recommended is None:
        begin = "No other head than the article's was tried"
        begin = begin if alone else "The search found nothing better than the article's head"
        return f"{begin}. {where}, that head classified {mine}."
    if recommended is not None and recommended.kind == ARTICLE:
        shown = "On the validation rows nothing was shown to be better than the article's head, which is recommended"
        return f"{shown}. {where}, it classified {mine}; the search's own winner {percent(test.accuracy, 1)}."
    found, difference = _name(test), recommended.difference if recommended else test.difference
    if test.is_article:
        where = f"The search found no better head than the article's. {where}"
    if test.article is None or difference is None:
        return f"{where}, {found} classified {mine}; the article's head did not come through to compare with."
    both = f"{where}, {found} classified {mine} and the article's head {percent(test.article.accuracy, 1)}"
    points = 100 * difference.value
    span = "95% interval {:+.1f} to {:+.1f} points".format(*(100 * end for end in difference.interval))
    if not difference.larger_than_chance:
        why = f"{points:+.1f} points may well be chance" if points else "they are equal here"
        return f"{both}. No difference shown: {why} ({span})."
    word = "better" if points > 0 else "worse"
    return f"{both}. {capitalized(found)} is {word} by {abs(points):.1f} points, more than chance explains ({span})."


def _name(test: HeldOutTest) -> str:
    recommended = test.recommended
    if recommended is None:
        return test.winner
    if recommended.kind == REPEATS:
        return f"the recommended average of {test.winner} from several seeds"
    return f"the recommended average of {counted(len(recommended.trials), 'head')}"
