/* Parallel coordinates as SVG of our own, from the figure that Plotly would draw.

   Plotly draws them with WebGL. There the page would be blank on machines without it, takes seconds where it is emulated
   (remote desktops, virtual machines), prints as pixels, and has to let scripts compile others ("unsafe-eval"). A few
   hundred lines need none of that.

   drawParallel(id of an element, parcoords trace, height): the trace's first dimension is what its lines are coloured
   by, its customdata are numbers of trials, the best first. */

function drawParallel(place, trace, height) {
  const WIDTH = 1088, LEFT = 52, RIGHT = 44, TOP = 52, BOTTOM = height - 14, NAMESPACE = "http://www.w3.org/2000/svg";
  const make = (name, attributes, parent, text) => {
    const element = document.createElementNS(NAMESPACE, name);
    Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
    if (text !== undefined) element.textContent = text;
    return parent.appendChild(element);
  };
  const round = (value) => Math.round(value * 10) / 10;
  const ticksOf = (low, high) => {  // about six round numbers
    const rough = (high - low) / 6, power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((times) => times * power >= rough);
    const count = Math.floor(high / step + 1e-9) - Math.ceil(low / step - 1e-9) + 1;
    return Array.from({length: count}, (_, at) => (Math.ceil(low / step - 1e-9) + at) * step);
  };
  const axes = trace.dimensions.map((dimension, at) => {
    const known = dimension.values.filter((value) => value !== null);
    let [low, high] = dimension.range || [Math.min(...known), Math.max(...known)];
    if (low === high) { low -= 0.5; high += 0.5; }
    const ticks = dimension.tickvals || ticksOf(low, high);
    const texts = dimension.ticktext || ticks.map((tick) => String(Number(tick.toPrecision(6))));
    const x = LEFT + (WIDTH - LEFT - RIGHT) * at / Math.max(trace.dimensions.length - 1, 1);
    const y = (value) => BOTTOM - (BOTTOM - TOP) * (value - low) / (high - low);
    const back = (position) => low + (high - low) * (BOTTOM - position) / (BOTTOM - TOP);
    return {...dimension, at, x, y, back, ticks, texts, picked: null};
  });
  const parent = document.getElementById(place);
  const svg = make("svg", {class: "parallel", viewBox: `0 0 ${WIDTH} ${height}`}, parent);

  // The best are drawn last, and darkest: by rank, so that a few very weak trials do not take all the shades; and
  // steeply, so that of hundreds the best still stand out. Of equal ones the first is the best.
  const values = trace.line.color, order = values.map((_, at) => at).sort((a, b) => values[a] - values[b] || b - a);
  const faint = Math.min(0.8, 0.3 + 30 / order.length);
  const lines = order.map((row, rank) => {
    const best = rank === order.length - 1, share = best ? 1 : (rank / (order.length - 1)) ** 3;
    const mix = (from, to) => Math.round(from + (to - from) * share);
    let pen = "M";
    const path = axes.map((axis) => {
      if (axis.values[row] === null) { pen = "M"; return ""; }
      const step = `${pen}${round(axis.x)},${round(axis.y(axis.values[row]))}`;
      pen = "L";
      return step;
    }).join("");
    const stroke = best ? "#0a0a0a" : `rgb(${mix(196, 8)},${mix(211, 48)},${mix(230, 107)})`;
    const opacity = best ? 1 : faint + (1 - faint) * share ** 2;
    const look = {stroke, "stroke-width": best ? 2.5 : 1.1, "stroke-opacity": opacity};
    const line = make("path", {class: "line", d: path, ...look}, svg);
    make("title", {}, line, `trial ${trace.customdata[row]}: ${axes[0].label} ${axes[0].values[row]}`);
    return {row, line};
  });

  const refresh = () => lines.forEach(({row, line}) => {
    const kept = axes.every(({values, picked}) =>
      picked === null || (values[row] !== null && values[row] >= picked[0] && values[row] <= picked[1]));
    line.classList.toggle("off", !kept);
  });
  const height_of = (event) => {  // the pointer's place in the drawing, whatever size it is shown in
    const seen = svg.createSVGPoint();
    seen.x = event.clientX; seen.y = event.clientY;
    return Math.min(BOTTOM, Math.max(TOP, seen.matrixTransform(svg.getScreenCTM().inverse()).y));
  };
  axes.forEach((axis) => {
    make("line", {class: "axis", x1: axis.x, x2: axis.x, y1: TOP, y2: BOTTOM}, svg);
    const first = axis.at === 0, last = !first && axis.at === axes.length - 1;
    const style = first ? "text-anchor: start" : last ? "text-anchor: end" : "";
    const place = {x: first ? 2 : last ? WIDTH - 2 : axis.x, y: axis.at % 2 ? 36 : 16};  // two heights: names are long
    make("text", {class: "name", ...place, style}, svg, axis.label);
    axis.ticks.forEach((tick, at) => {
      make("line", {class: "axis", x1: axis.x - 3, x2: axis.x, y1: axis.y(tick), y2: axis.y(tick)}, svg);
      make("text", {class: "tick", x: axis.x - 6, y: axis.y(tick) + 4}, svg, axis.texts[at]);
    });
    const picked = make("rect", {class: "picked", x: axis.x - 6, width: 12, y: 0, height: 0}, svg);
    const grip = make("rect", {class: "grip", x: axis.x - 11, width: 22, y: TOP - 6, height: BOTTOM - TOP + 12}, svg);
    const pick = (from, to) => {
      const some = Math.abs(from - to) > 3, [upper, lower] = from < to ? [from, to] : [to, from];
      axis.picked = some ? [axis.back(lower + 0.5), axis.back(upper - 0.5)] : null;  // the ends of an axis are inside
      picked.setAttribute("y", upper);
      picked.setAttribute("height", some ? lower - upper : 0);
      refresh();
    };
    let begun = null;
    grip.addEventListener("pointerdown", (event) => {
      begun = height_of(event);
      grip.setPointerCapture(event.pointerId);
      pick(begun, begun);  // a click without a drag lets go of the axis
    });
    grip.addEventListener("pointermove", (event) => { if (begun !== null) pick(begun, height_of(event)); });
    ["pointerup", "pointercancel"].forEach((name) => grip.addEventListener(name, () => { begun = null; }));
  });
}
