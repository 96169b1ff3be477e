"""One HTML document that holds all it needs: text first, then figures drawn one after another by the Plotly inside it.

Its blocks are the macros of ``files/blocks.html.jinja``, which escape everything that comes from outside; what they
return is ``Markup``, and any other text that is put into a document is escaped as well. Styles and scripts are the
other files of that folder. The own policy of a document forbids the browser to load anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from heads.html.style import GREY

STYLES = ("document.css", "parallel.css", "print.css")
SCRIPTS = ("plotly_internals.js", "parallel.js", "print.js", "draw.js")
"""In the order in which they stand in a document: the last one begins to draw."""
_OPTION = re.compile(r"((?<![\w-])--[a-z][a-z-]{0,28}[a-z](?![\w-]))")
_AXIS = {
    "gridcolor": "#e4e8ee",
    "linecolor": GREY,
    "zerolinecolor": "#e4e8ee",
    "automargin": True,
    "title": {"font": {"size": 13}},
}
TEMPLATE = {"layout": {"xaxis": _AXIS, "yaxis": _AXIS}}
"""What Plotly figures have in common: it stands once in a document, and not in each figure."""


class Document:
    """A document under construction.

    Args:
        title: Of the document; its first heading.
        subtitle: A sentence below it.
    """

    def __init__(self, title: str, subtitle: str) -> None:
        self.title = title
        self.subtitle = subtitle
        self._body: list[str] = []
        self._figures: list[dict[str, Any]] = []

    def cards(self, cards: Iterable[tuple[str, str, str]]) -> None:
        """Adds large numbers: what it is, the number, a remark."""
        self.lead(_blocks.cards(cards))

    def lead(self, *parts: str) -> None:
        """Adds blocks without a heading; '' is left out."""
        self._body += filter(None, parts)

    def add(self, heading: str, *parts: str) -> None:
        """Adds a section of blocks; '' is left out."""
        self.lead(_blocks.section(heading, [*filter(None, parts)]))

    def figure(self, figure: Any | None, label: str, *, wide: bool = False) -> str:
        """Takes a Plotly figure in, to be drawn with the document.

        Args:
            figure: ``plotly.graph_objects.Figure`` whose layout has a height; nothing is drawn for ``None``.
            label: What it shows, for readers who do not see it.
            wide: Whether it scrolls sideways on a narrow screen instead of shrinking.

        Returns:
            The block that it is drawn in; '' for ``None``.
        """
        if figure is None:
            return ""
        data = json.loads(figure.to_json())
        data["layout"].pop("template", None)  # the same for all, and 7 kB each: the script has it
        self._figures.append(data)
        return Markup(_blocks.figure(len(self._figures) - 1, label, figure.layout.height, wide))

    @staticmethod
    def grid(figures: Iterable[str], *, pairs: bool = False) -> Markup:
        """Figures beside each other, as many as the screen is wide: on paper three, or two where they are ``pairs``."""
        return Markup(_blocks.grid(figures, pairs))

    def html(self) -> str:
        """Returns the whole document."""
        return _environment.get_template("document.html.jinja").render(
            title=self.title,
            subtitle=self.subtitle,
            styles=Markup("".join(map(_file, STYLES))),
            body=Markup("\n").join(self._body),
            plotly=Markup(get_plotlyjs() if self._figures else ""),
            template=_script_json(TEMPLATE),
            figures=_script_json(self._figures),
            scripts=Markup("".join(map(_file, SCRIPTS)) if self._figures else ""),
        )


def in_figure(name: str) -> str:
    """Returns a name for a figure's texts: Plotly, which takes tags and entities for such there, shows it as it is."""
    return escape(name, quote=False)


def prose(text: str) -> Markup:
    """A paragraph."""
    return Markup(_blocks.paragraph(text))


def strong(text: str) -> Markup:
    """A paragraph that is read first."""
    return Markup(_blocks.paragraph(text, "verdict"))


def note(text: str) -> Markup:
    """A remark in small print."""
    return Markup(_blocks.paragraph(text, "note"))


def plain(text: str, *, folded: str = "") -> Markup:
    """Text to copy as it is; behind the title ``folded`` where one is given."""
    return Markup(_blocks.plain(text, folded))


def facts(rows: Iterable[tuple[str, str]]) -> Markup:
    """Names and what they are."""
    return Markup(_blocks.facts(rows))


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    wide: bool = False,
    marked_diagonal: bool = False,
    named_rows: bool = False,
) -> Markup:
    """A table.

    Args:
        head: Names of the columns.
        rows: As many cells each as there are columns.
        wide: The last column holds sentences.
        marked_diagonal: The first column names the rows of a confusion matrix, whose diagonal is marked.
        named_rows: The first column names the rows.

    Raises:
        ValueError: A row is longer or shorter than the head.
    """
    lines = [tuple(cell for _, cell in zip(head, row, strict=True)) for row in rows]
    return Markup(_blocks.table(head, lines, wide, marked_diagonal, named_rows))


def exhibit(heading: str, aside: str, remarks: Iterable[str], pictures: Iterable[tuple[str, str]]) -> Markup:
    """Something to look at, in a row of pictures.

    Args:
        heading: What it is.
        aside: Set smaller, after the heading.
        remarks: Lines in small print.
        pictures: Of each the address (``data:``, or '' where there is nothing to see) and the caption.
    """
    return Markup(_blocks.exhibit(heading, aside, remarks, pictures))


def _script_json(data: Any) -> Markup:
    """JSON that cannot end the script element it stands in."""
    return Markup(json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"))


def _file(name: str) -> str:
    """The text of a package file, also where the package is imported from an archive."""
    return files(__package__).joinpath("files", name).read_text(encoding="utf-8")


def _options_whole(text: str) -> Markup:
    """Text in which the name of an option is one word: a browser would break it behind each of its dashes."""
    whole = Markup('<span class="option">{}</span>')
    parts = _OPTION.split(text)  # every other one is an option
    return Markup().join(whole.format(part) if at % 2 else part for at, part in enumerate(parts))


_environment = Environment(
    loader=FunctionLoader(_file), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
)
_environment.filters["options_whole"] = _options_whole
_blocks: Any = _environment.get_template("blocks.html.jinja").module
"""The macros: a call of one returns ``Markup``."""
