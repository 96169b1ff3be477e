/* The one place that knows how Plotly builds a drawing: names that its documentation does not promise. The rest of our
   scripts and styles keep to its documented calls, and to the classes that are given here. Should an upgrade rename
   something, this says so, and tests/search/review/test_browser.py says what.

   markDrawing(a drawn figure) gives the class "drawing-box" to the elements around the drawing and "drawing" to the SVGs
   laid over each other that it consists of; it returns these and their size in pixels. */

function markDrawing(figure) {
  const find = (name) => {
    const found = [...figure.querySelectorAll(name)];
    if (!found.length) throw new Error(`Plotly ${Plotly.version} draws without ${name}: see plotly_internals.js`);
    return found;
  };
  const boxes = [...find(".plot-container"), ...find(".svg-container")], drawings = find(".main-svg");
  boxes.forEach((box) => box.classList.add("drawing-box"));
  find(".svg-container").forEach((box) => box.classList.add("drawing-frame"));
  drawings.forEach((drawing) => drawing.classList.add("drawing"));
  const [width, height] = ["width", "height"].map((side) => Number(drawings[0].getAttribute(side)));
  if (!(width > 0 && height > 0)) throw new Error(`Plotly ${Plotly.version} gives .main-svg no size in pixels`);
  return {drawings, width, height};
}
