// Pictures of examples: images, curves, rows of a table.
import { theme } from "./colors.js";
import { Random, plain, through } from "./numbers.js";

const _LISTED = 20; // features that are shown as bars with names; more are a curve

// How examples of a record look: a function that makes an element, whose show(values, params) draws.
export function painterOf(record, model) {
  const isImage = record.shape.length === 3 && [1, 3].includes(record.shape[0]);
  if (record.columns) return () => _rowView(record, model);
  return isImage ? (size) => _imageView(record, size) : () => _curveView(record);
}

// Shades of an image in the canvas of its own size; values outside [0, 1] become its ends.
export function imageOf(values, shape, { factor, shift }) {
  const [channels, height, width] = shape;
  const image = new ImageData(width, height);
  for (let at = 0; at < height * width; at++) {
    for (let c = 0; c < 3; c++)
      image.data[4 * at + c] = 255 * (factor * values[(channels === 3 ? c * height * width : 0) + at] + shift) + 0.5;
    image.data[4 * at + 3] = 255;
  }
  return image;
}

// An image enlarged without smoothing, as a canvas of its own.
export function tileOf(values, record) {
  const canvas = document.createElement("canvas");
  [canvas.height, canvas.width] = record.shape.slice(1);
  canvas.getContext("2d").putImageData(imageOf(values, record.shape, record.shading), 0, 0);
  return canvas;
}

function _imageView(record, size = 112) {
  const canvas = document.createElement("canvas");
  [canvas.height, canvas.width] = record.shape.slice(1);
  canvas.className = "image";
  canvas.style.width = `${size}px`;
  canvas.show = (values) =>
    canvas.getContext("2d").putImageData(imageOf(values, record.shape, record.shading), 0, 0);
  return canvas;
}

function _curveView(record) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [440, 220];
  canvas.className = "curve";
  const named = record.features && record.features.length <= _LISTED;
  canvas.show = (values, { beside } = {}) => {
    const pen = canvas.getContext("2d");
    const colors = theme();
    pen.clearRect(0, 0, canvas.width, canvas.height);
    const all = beside ? [...values, ...beside] : [...values];
    const [low, high] = [Math.min(0, ...all), Math.max(0, ...all)];
    const y = (value) => 200 - (180 * (value - low)) / (high - low || 1);
    const x = (d) => 20 + (400 * (d + 0.5)) / values.length;
    pen.strokeStyle = colors.faint;
    pen.strokeRect(20, y(0), 400, 0);
    const draw = (numbers, color, offset) => {
      pen.fillStyle = pen.strokeStyle = color;
      pen.lineWidth = 2;
      if (named) {
        const width = Math.max(3, 120 / values.length);
        numbers.forEach((value, d) => pen.fillRect(x(d) + offset * width, y(Math.max(value, 0)), width, Math.abs(y(value) - y(0))));
        return;
      }
      pen.beginPath();
      numbers.forEach((value, d) => pen.lineTo(x(d), y(value)));
      pen.stroke();
    };
    if (beside) draw(Array.from(beside), colors.second, -1);
    draw(Array.from(values), colors.accent, 0);
    pen.fillStyle = colors.ink;
    pen.font = "13px system-ui, sans-serif";
    if (named) record.features.forEach((name, d) => pen.fillText(name.slice(0, 8), x(d) - 12, 216, 400 / values.length));
    pen.fillText(plain(high), 0, 14);
  };
  return canvas;
}

// A cell of a coded number, as it is written in the table.
export function cellText(column, value) {
  if (Number.isNaN(value)) return "";
  if (column.levels.length) return column.levels[value] ?? "a new level";
  if (value === Infinity) return plain(column.spike);
  const scaled = column.knots.length ? through(column.scores, column.knots, value).value : value;
  const number = scaled * column.unit + column.center;
  if (column.kind === "date") return new Date(number * 86400000).toISOString().slice(0, 10);
  return plain(column.log ? Math.exp(number) : column.kind === "count" ? Math.round(value) : number);
}

// Cells of one column in few words: the shares of its levels, or the range of 8 of 10 cells and the middle.
export function columnSummary(column, values) {
  if (column.levels.length) {
    const counts = column.levels.map((level, k) => [values.filter((value) => value === k).length / values.length, level]);
    const likely = counts.sort((a, b) => b[0] - a[0]).slice(0, 4);
    return likely.map(([share, level]) => `${level} ${Math.round(100 * share)}%`).join(", ");
  }
  const sorted = [...values].sort((a, b) => _beforeSpike(a) - _beforeSpike(b));
  const [low, middle, high] = [0.1, 0.5, 0.9].map((share) => cellText(column, sorted[Math.round(share * (sorted.length - 1))]));
  return `${middle} (${low} to ${high})`;
}

// A row as a list of columns; given p(x|z), the range of its numbers and the probabilities of its levels.
function _rowView(record, model) {
  const table = document.createElement("table");
  table.className = "row";
  table.show = (values, { params, odd } = {}) => {
    const cells = params && model.decoder.family.cells(params);
    table.replaceChildren(
      ...(cells ? [_head(["column", "cell", "where 80% of p(x|z) lies"])] : []),
      ...record.columns.map((column, d) => {
        const line = document.createElement("tr");
        if (odd && odd.includes(d)) [line.className, line.title] = ["odd", "Odd: given the others of its row, among the oddest hundredth of such cells"];
        line.append(_cellOf("th", column.name), _cellOf("td", cellText(column, values[d])));
        line.append(_cellOf("td", ""));
        if (cells) _fill(line.lastChild, column, cells[d]);
        return line;
      }),
    );
  };
  return table;
}

function _head(names) {
  const line = document.createElement("tr");
  line.className = "head";
  line.append(...names.map((name) => _cellOf("td", name)));
  return line;
}

function _cellOf(tag, text) {
  const cell = document.createElement(tag);
  cell.textContent = text;
  return cell;
}

function _fill(cell, column, p) {
  if (p.probabilities) {
    const likely = p.probabilities.map((share, k) => [share, column.levels[k] ?? k]).sort((a, b) => b[0] - a[0]);
    for (const [share, name] of likely.slice(0, 4)) {
      const bar = _cellOf("span", `${name} ${Math.round(100 * share)}%`);
      bar.className = "share";
      bar.style.setProperty("--share", share);
      cell.append(bar);
    }
    return;
  }
  const drawn = _sorted(p);
  const [low, high] = [0.1, 0.9].map((share) => cellText(column, drawn[Math.round(share * (drawn.length - 1))]));
  cell.textContent = low === high ? low : `${low} to ${high}`;
  cell.title = "80% of the draws lie here";
}

// Draws of a cell in order, always the same: their quantiles are shown, whatever the distribution.
function _sorted(p) {
  const random = new Random(1);
  return Array.from({ length: 200 }, () => p.sample(random)).sort((a, b) => _beforeSpike(a) - _beforeSpike(b));
}

function _beforeSpike(value) {
  return value === Infinity ? -1e300 : value;
}
