"""Colours of reports, and what the layout of their figures has in common; ``files/document.css`` has the same ones."""

from __future__ import annotations

from typing import Any

INK, RULE, GREY = "#1a1a1a", "#dfe4ea", "#9aa5b1"
BLUE, OCHRE, GREEN, RED = "#1f5fa8", "#c9862b", "#3d8b52", "#b3261e"
LAYOUT: dict[str, Any] = {
    "template": {},  # whoever shows a figure gives it one: Plotly's own would take as long as all the rest
    "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "hovermode": "closest",
}
