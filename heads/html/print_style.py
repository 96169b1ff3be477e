"""Plotly figures on paper.

Plotly draws for the width of the window; a browser lays the paper out later, and cuts off what is too wide. So each
figure is drawn anew, just before printing, at a width whose letters suit a page, and its picture is one that a style
sheet can scale: to any paper, and also where a browser does not say that it is about to print.
"""

from __future__ import annotations

SCRIPT = """
function printable(figure, width) {
  const scale = () => {
    const {width, height} = figure._fullLayout;
    figure.style.setProperty("--shape", `${width} / ${height}`);
    figure.querySelectorAll(".main-svg").forEach((svg) => svg.setAttribute("viewBox", `0 0 ${width} ${height}`));
  };
  scale();
  figure.on("plotly_afterplot", scale);
  window.addEventListener("beforeprint", () => Plotly.relayout(figure, {width}));
  window.addEventListener("afterprint", () => Plotly.relayout(figure, {width: null, autosize: true}));
}
"""
"""``printable(a drawn figure, width in pixels to draw it at for paper)``."""


STYLE = """
@media print {
  .figure { break-inside: avoid; }
  .figure, .figure .plot-container, .figure .svg-container { width: 100% !important; height: auto !important; }
  .figure .svg-container { aspect-ratio: var(--shape); }
  .figure .main-svg { width: 100% !important; height: 100% !important; }
}
"""
"""Of elements of the class ``figure``."""


PAGE_WIDTH = 720
"""A figure of the page's width is drawn this wide, in pixels."""
