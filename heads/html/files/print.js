/* Plotly figures on paper.

   Plotly draws for the width of the window; a browser lays the paper out later, and cuts off what is too wide. So each
   figure is drawn anew, just before printing, at a width whose letters suit a page, and its picture is one that a style
   sheet can scale (print.css): to any paper, and also where a browser does not say that it is about to print.

   printable(a drawn figure, how many stand beside each other on paper) */

const PAPER_WIDTH = 720;  // pixels at which a figure of the paper's width is drawn

function printable(figure, columns) {
  const scale = () => {
    const {drawings, width, height} = markDrawing(figure);
    figure.style.setProperty("--shape", `${width} / ${height}`);
    drawings.forEach((drawing) => drawing.setAttribute("viewBox", `0 0 ${width} ${height}`));
  };
  scale();
  figure.on("plotly_afterplot", scale);
  window.addEventListener("beforeprint", () => Plotly.relayout(figure, {width: PAPER_WIDTH / columns}));
  window.addEventListener("afterprint", () => Plotly.relayout(figure, {width: null, autosize: true}));
}
