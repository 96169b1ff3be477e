"""Numbers, durations and lists in words."""

from __future__ import annotations

import pytest

from features.runtime.command import say
from features.runtime.text import (
    counted,
    decimal,
    duration,
    listed,
    numbered,
    percent,
    shortened,
    utc_seconds,
    utc_text,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0, "0 s"), (0.2468, "0.25 s"), (9.99, "10 s"), (10, "10 s"), (90.4, "90 s"), (119.4, "119 s")),
        *((120, "2 min 0 s"), (321, "5 min 21 s"), (7199.4, "119 min 59 s"), (7200, "2 h 0 min"), (7530, "2 h 5 min")),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_shares_and_scores():
    assert (percent(0.8625), percent(0.86254, 1), percent(1, 0), percent(None)) == ("86.25%", "86.3%", "100%", "-")
    assert (decimal(0.43215), decimal(0), decimal(None)) == ("0.4321", "0.0000", "-")


def test_counts_and_lists():
    assert [counted(number, "patient") for number in (0, 1, 1234)] == ["0 patients", "1 patient", "1,234 patients"]
    assert [numbered(number, "row") for number in (0, 1, 2)] == ["rows", "row", "rows"]
    assert listed(range(3), 3) == "0, 1, 2"
    assert listed(iter("abcde"), 3) == "a, b, c and 2 more"
    assert listed([], 3) == ""


def test_a_text_that_is_cut_says_so():
    assert [shortened(text, 3) for text in ("", "abc", "abcd")] == ["", "abc", "abc..."]


def test_times_are_in_utc_to_the_second_and_read_back(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert utc_text(1709251199.9) == "2024-02-29T23:59:59Z"
    assert utc_seconds("2024-02-29T23:59:59Z") == 1709251199
    assert utc_seconds("yesterday") is None


def test_a_remark_is_printed_as_it_is(capsys):
    line = f"[red]note[/red]: {'long ' * 60}a:smile:b.h5"
    say(line)
    assert capsys.readouterr() == ("", line + "\n")
