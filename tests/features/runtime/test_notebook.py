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
    with command.progress("images") as display:
        task = display.add_task("extracting", total=3)
        for _ in range(3):
            display.advance(task)
    assert place.shown[0] == ""
    last = place.shown[-1]
    text = "".join(segment.text for segment in command.console.render(last))
    assert "extracting" in text
    assert "3/3" in text


def test_it_is_drawn_a_few_times_a_second_only(place, monkeypatch):
    monkeypatch.setattr(notebook, "REDRAW_EVERY", 3600.0)
    with command.progress("images") as display:
        task = display.add_task("extracting", total=500)
        for _ in range(500):
            display.advance(task)
    assert len(place.shown) < 6


def test_nothing_is_shown_to_who_does_not_want_it(place, monkeypatch):
    monkeypatch.setattr(command.console, "quiet", True)
    with command.progress("images") as display:
        display.advance(display.add_task("extracting", total=1))
    assert not place.shown
