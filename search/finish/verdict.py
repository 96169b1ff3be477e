"""What the test rows say of the found head and of the article's, in a sentence for people who are no statisticians."""

from __future__ import annotations

from features.runtime.text import counted, percent
from search.record.results import HeldOutTest


def verdict(test: HeldOutTest | None) -> str:
    """Returns the sentence.

    Args:
        test: See ``search.finish.held_out``; None where there are no test rows.
    """
    if test is None:
        return "There were no test rows, so nothing is known about new patients."
    where = f"On {counted(test.rows, 'test image')} of {counted(test.patients or 0, 'patient')} that no head had seen"
    low, high = test.accuracy_interval
    mine = f"{percent(test.accuracy, 1)} right (95% interval {percent(low, 1)} to {percent(high, 1)})"
    if test.is_article:
        return f"The search found nothing better than the article's head. {where}, that head called {mine}."
    article, difference = test.article, test.difference
    if article is None or difference is None:
        return f"{where}, the found head called {mine}; the article's head did not come through to compare with."
    both = f"{where}, the found head called {mine} and the article's head {percent(article.accuracy, 1)}"
    points = 100 * difference.value
    span = "95% interval {:+.1f} to {:+.1f} points".format(*(100 * end for end in difference.interval))
    if not difference.larger_than_chance:
        return f"{both}. No difference shown: {points:+.1f} points may well be chance ({span})."
    word = "better" if points > 0 else "worse"
    return f"{both}. The found head is {word} by {abs(points):.1f} points, more than chance explains ({span})."
