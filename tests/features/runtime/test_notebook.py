"""Progress in a notebook: one place that is drawn over, its last state kept, and no ipywidgets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from features.runtime import command, notebook


class Place:
    """Stands for ``IPython.display``: what is displayed, and with what it is replaced."""

    def __init__(self) -> None:
        self.shown: list[Any] = []

    def HTML(self, text: str) -> str:  # noqa: N802  IPython's name
        return text

    def display(self, thing: Any, *, display_id: bool) -> Place:
        assert display_id
        self.shown.append(thing)
        return self

    def update(self, thing: Any) -> None:
        self.shown.append(thing)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    place = Place()
    monkeypatch.setattr(notebook, "import_module", lambda name: place)
    monkeypatch.setattr(command.console, "is_jupyter", True)
    return place


def test_a_bar_is_drawn_where_the_cell_is_and_stays(place):
    with command.bars("images") as bar:
        on_progress = bar("extracting")
        for done in range(4):
            on_progress(done, 3)
    assert place.shown[0] == ""
    last = place.shown[-1]
    text = "".join(segment.text for segment in command.console.render(last))
    assert "extracting" in text
    assert "3/3" in text


def test_it_is_drawn_a_few_times_a_second_only(place, monkeypatch):
    monkeypatch.setattr(notebook, "REDRAW_EVERY", 3600.0)
    with command.bars("images") as bar:
        on_progress = bar("extracting")
        for done in range(501):
            on_progress(done, 500)
    assert len(place.shown) < 6


def test_nothing_is_shown_to_who_does_not_want_it(place, monkeypatch):
    monkeypatch.setattr(command.console, "quiet", True)
    with command.bars("images") as bar:
        bar("extracting")(0, 1)
    assert not place.shown


def test_what_is_refused_or_was_finished_has_no_bar(place):
    with command.bars("images") as bar:
        bar("extracting")(3, 3)
    assert not place.shown


def test_two_things_have_two_bars_in_one_place(place):
    with command.bars("rows") as bar:
        first, second = bar("finding directions"), bar("projecting")
        first(0, 3)
        first(3, 3)
        second(7, 8)
        second(8, 8)
    text = "".join(segment.text for segment in command.console.render(place.shown[-1]))
    assert "3/3" in text
    assert "8/8" in text
    assert place.shown.count("") == 1
