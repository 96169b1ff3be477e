"""Small pictures as SVG text: a learning curve and a confusion matrix, for where Plotly is too much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from rich.cells import cell_len, set_cell_size

from features.runtime.text import printable
from heads.html.style import BLUE, INK, RULE

WIDTH, HEIGHT, MARGIN = 480, 300, 48
_FRAME = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">'
)


def curve_svg(values: Mapping[int, float], title: str) -> str:
    """Draws a value by epoch; at least one epoch. The vertical axis spans what the curve does."""
    epochs = [*values]
    low, high = min(values.values()), max(values.values())
    span, last = (high - low) or 1.0, max(max(epochs) - min(epochs), 1)
    inner_width, inner_height = WIDTH - 1.5 * MARGIN, HEIGHT - 2 * MARGIN
    places = " ".join(
        f"{MARGIN + inner_width * (epoch - min(epochs)) / last:.1f},{MARGIN + inner_height * (high - value) / span:.1f}"
        for epoch, value in values.items()
    )
    texts = [
        _text(MARGIN, 24, title, bold=True),
        _text(4, MARGIN + 4, f"{high:.3f}"),
        _text(4, HEIGHT - MARGIN + 4, f"{low:.3f}"),
        _text(MARGIN, HEIGHT - 16, f"epoch {min(epochs)} to {max(epochs)}"),
    ]
    line = f'<polyline points="{places}" fill="none" stroke="{BLUE}" stroke-width="2"/>'
    return _picture(WIDTH, HEIGHT, [line, *texts])


def confusion_svg(counts: Sequence[Sequence[int]], names: Sequence[str], title: str) -> str:
    """Draws (true class, predicted class) counts; shades are shares of the true class."""
    side, left, top = 64, 132, 92
    parts = [_text(8, 24, title, bold=True), _text(8, 46, "rows: true, columns: called")]
    for row, (name, line) in enumerate(zip(names, counts, strict=True)):
        y = top + row * side
        parts.append(_text(8, y + side / 2 + 4, _cut(name)))
        parts.append(_text(left + row * side + 4, top - 10, _cut(name, 9)))
        for column, count in enumerate(line):
            shade = count / max(sum(line), 1)
            x, ink = left + column * side, "#fff" if shade > 0.55 else INK
            parts.append(
                f'<rect x="{x}" y="{y}" width="{side}" height="{side}" fill="{BLUE}" fill-opacity="{shade:.3f}"'
                f' stroke="{RULE}"/>'
            )
            parts.append(
                f'<text x="{x + side / 2}" y="{y + side / 2 + 4}" text-anchor="middle" fill="{ink}">{count}</text>'
            )
    return _picture(left + side * len(names) + 16, top + side * len(names) + 16, parts)


def _picture(width: int, height: int, parts: Sequence[str]) -> str:
    background = f'<rect width="{width}" height="{height}" fill="#fff"/>'
    return _FRAME.format(width=width, height=height) + background + "".join(parts) + "</svg>\n"


def _text(x: float, y: float, text: str, *, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x}" y="{y}" fill="{INK}"{weight}>{escape(printable(text))}</text>'


def _cut(name: str, most: int = 17) -> str:
    """The beginning of a name that has the room of so many letters: Chinese ones take that of two each."""
    shown = printable(name)
    return shown if cell_len(shown) <= most else set_cell_size(shown, most - 1).rstrip() + "…"
