// Curves over the epochs, as SVG: each in its own panel, training and validation.
import { plain } from "./numbers.js";

const _SVG = "http://www.w3.org/2000/svg";
const [_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM] = [360, 170, 52, 10, 24, 26];

function _node(name, attributes, text) {
  const node = document.createElementNS(_SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

// A panel with one line for each series, {name, values, style}; mark is a position on the horizontal axis.
export function curves(title, x, series) {
  const svg = _node("svg", { viewBox: `0 0 ${_WIDTH} ${_HEIGHT}`, role: "img", class: "curves" });
  svg.append(_node("title", {}, `${title} over the epochs`));
  const known = series.flatMap(({ values }) => values).filter((value) => value !== null);
  if (!known.length) return svg;
  const [low, high] = _range(known);
  const place = {
    x: (value) => _LEFT + ((value - x[0]) / (x[x.length - 1] - x[0] || 1)) * (_WIDTH - _LEFT - _RIGHT),
    y: (value) => _HEIGHT - _BOTTOM - ((Math.min(Math.max(value, low), high) - low) / (high - low || 1)) * (_HEIGHT - _TOP - _BOTTOM),
  };
  svg.append(_node("text", { x: _LEFT, y: 14, class: "title" }, title));
  for (const value of [low, (low + high) / 2, high]) {
    svg.append(_node("line", { x1: _LEFT, x2: _WIDTH - _RIGHT, y1: place.y(value), y2: place.y(value), class: "tick" }));
    svg.append(_node("text", { x: _LEFT - 6, y: place.y(value) + 4, "text-anchor": "end" }, plain(value)));
  }
  for (const value of [x[0], x[x.length - 1]])
    svg.append(_node("text", { x: place.x(value), y: _HEIGHT - 8, "text-anchor": "middle" }, value));
  series.forEach(({ name, values, style }, k) => {
    const points = values.map((value, i) => (value === null ? "" : `${place.x(x[i])},${place.y(value)}`)).join(" ");
    svg.append(_node("polyline", { points, class: style }));
    svg.append(_node("text", { x: _WIDTH - _RIGHT - 80 * (series.length - 1 - k), y: 14, "text-anchor": "end", class: style }, name));
  });
  const cursor = _node("line", { y1: _TOP, y2: _HEIGHT - _BOTTOM, class: "cursor", visibility: "hidden" });
  svg.append(cursor);
  svg.mark = (value) => {
    cursor.setAttribute("visibility", value === null ? "hidden" : "visible");
    cursor.setAttribute("x1", place.x(value));
    cursor.setAttribute("x2", place.x(value));
  };
  return svg;
}

// Draws such a panel with the pen of a canvas, in a box of the page.
export function drawn(pen, svg, [left, top, width, height]) {
  pen.save();
  pen.translate(left, top);
  pen.scale(width / _WIDTH, height / _HEIGHT);
  for (const mark of svg.querySelectorAll("line, polyline, text")) {
    const style = getComputedStyle(mark);
    if (style.visibility === "hidden") continue;
    if (mark.tagName === "text") {
      [pen.fillStyle, pen.font] = [style.fill, `${style.fontWeight} ${style.fontSize} ${style.fontFamily}`];
      pen.textAlign = { middle: "center", end: "right" }[style.textAnchor] ?? "left";
      pen.fillText(mark.textContent, mark.getAttribute("x"), mark.getAttribute("y"));
      continue;
    }
    const ends = ["1", "2"].map((end) => ({ x: mark.getAttribute(`x${end}`), y: mark.getAttribute(`y${end}`) }));
    [pen.strokeStyle, pen.lineWidth] = [style.stroke, parseFloat(style.strokeWidth)];
    pen.setLineDash(style.strokeDasharray === "none" ? [] : style.strokeDasharray.split(/[ ,]+/).map(parseFloat));
    pen.beginPath();
    for (const { x, y } of mark.points ? Array.from(mark.points) : ends) pen.lineTo(Number(x), Number(y));
    pen.stroke();
  }
  pen.restore();
}

// The range that is shown: without the first steps of training, if those are far from all else.
function _range(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share) => sorted[Math.round(share * (sorted.length - 1))];
  const [low, high, spread] = [at(0), at(1), at(0.95) - at(0.05)];
  const cut = [Math.max(low, at(0.05) - 0.6 * spread), Math.min(high, at(0.95) + 0.6 * spread)];
  return cut[0] < cut[1] ? cut : [low - 0.5, high + 0.5];
}
