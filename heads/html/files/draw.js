/* Draws a document's figures, one after another, and says on its body when all are there. */

const figures = JSON.parse(document.getElementById("figures").textContent);
const template = JSON.parse(document.getElementById("template").textContent);
const options = {responsive: true, displayModeBar: false};

async function draw(place, {data, layout}) {
  if (data[0] && data[0].type === "parcoords") return drawParallel("figure-" + place, data[0], layout.height);
  const figure = await Plotly.newPlot("figure-" + place, data, {...layout, template, autosize: true}, options);
  const grid = figure.closest(".grid");
  printable(figure, grid ? (grid.classList.contains("pairs") ? 2 : 3) : 1);
}

(async () => {
  for (const [place, figure] of figures.entries()) {
    await draw(place, figure).catch((error) => console.error("figure", place, error));
    await new Promise((done) => setTimeout(done));  // so that the page can be scrolled in between
  }
  document.body.dataset.drawn = figures.length;
})();
