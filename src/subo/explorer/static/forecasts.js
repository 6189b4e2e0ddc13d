// A sequence, and what the model expects after its first three quarters: curves with a fan, or rolls.
import { theme } from "./colors.js";
import { figure, paragraph, section } from "./layout.js";
import { unpack } from "./numbers.js";
import { montage, takeaways } from "./save.js";

const _CURVES = 6; // numbers of a step that are drawn as curves; more are a roll
const _MISSING = "#f3c9b0";
const [_ACROSS, _DOWN] = [10, 5]; // of a roll's cell, in pixels

export class Forecasts {
  constructor(app) {
    this.app = app;
    this.record = app.record.forecasts;
    const few = unpack(this.record.sequences[0].x).shape[1] <= _CURVES;
    const fan = few ? `, and where ${Math.round(100 * this.record.coverage)}% of the draws lie` : "";
    this.element = section("forecast", "The forecast", `The last quarter of the sequence as it came, and as it is expected from what precedes: the mean${fan}.`);
    this.strip = document.createElement("div");
    this.strip.className = "forecast";
    this.element.append(this.strip, takeaways({ name: "forecast", canvas: () => montage(this.strip), python: () => app.python("ahead = subo.evaluation.forecast(model, split, steps=12)") }));
    app.state.on(["example"], () => this._show());
    this._show();
  }

  _show() {
    const { sequences } = this.record;
    const found = sequences[this.app.record.examples.sequence[this.app.example]];
    if (!found) {
      this.strip.replaceChildren(paragraph(`Kept for the first ${sequences.length} of these sequences.`, "hint"));
      return;
    }
    const x = unpack(found.x);
    const [length, width] = x.shape;
    const ahead = found.steps ? { mean: unpack(found.mean).values, lower: unpack(found.lower).values, upper: unpack(found.upper).values } : null;
    this.shown = { x: x.values, length, width, first: found.first, steps: found.steps, ...ahead };
    const name = this.app.rowOf(this.app.example);
    if (width <= _CURVES) {
      this.strip.replaceChildren(figure(_fan(this.shown), `${name}: as it came (lines) and as it is expected (dashes, fan), from step ${found.first + length - found.steps + 1}`));
      return;
    }
    const expected = x.values.slice();
    if (ahead) expected.set(ahead.mean, (length - found.steps) * width);
    Object.assign(this.shown, _range([...x.values, ...expected], width));
    this.strip.replaceChildren(
      figure(_roll(x.values, this.shown), `${name}, as it came`),
      ...(ahead ? [figure(_roll(expected, this.shown), "the same, and after the line the mean of what is expected")] : []),
    );
  }
}

function _canvas(width, height, name) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height, className: "wide" });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", name);
  return canvas;
}

// Curves of each number of a step, with the draws' range behind the mean.
function _fan({ x, length, width, steps, mean, lower, upper }) {
  const canvas = _canvas(880, 260, "A sequence and its forecast");
  const pen = canvas.getContext("2d");
  const colors = theme();
  const all = [...x, ...(lower || []), ...(upper || [])].filter(Number.isFinite); // NaN is a missing value
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const at = (t) => 10 + (860 * t) / Math.max(1, length - 1);
  const y = (value) => 250 - (240 * (value - low)) / (high - low || 1);
  const start = length - steps;
  const hues = [colors.accent, colors.second, colors.ink, ...["#7b3294", "#b35806", "#1b7837"]];
  const line = (values, from, count, d, dashed) => {
    pen.setLineDash(dashed ? [6, 4] : []);
    const known = (t) => t >= 0 && t < count && !Number.isNaN(values[t * width + d]);
    pen.beginPath();
    for (let t = 0; t < count; t++) {
      if (!known(t)) continue;
      const place = [at(from + t), y(values[t * width + d])];
      pen[known(t - 1) ? "lineTo" : "moveTo"](...place);
      if (!known(t - 1) && !known(t + 1)) pen.fillRect(place[0] - 2, place[1] - 2, 4, 4);
    }
    pen.stroke();
  };
  for (let d = 0; d < width; d++) {
    pen.strokeStyle = pen.fillStyle = hues[d];
    if (steps) {
      pen.globalAlpha = 0.18;
      pen.beginPath();
      for (let t = 0; t < steps; t++) pen.lineTo(at(start + t), y(upper[t * width + d]));
      for (let t = steps - 1; t >= 0; t--) pen.lineTo(at(start + t), y(lower[t * width + d]));
      pen.fill();
      pen.globalAlpha = 1;
    }
    pen.lineWidth = 2;
    line(x, 0, length, d, false);
    if (steps) line(mean, start, steps, d, true);
  }
  return canvas;
}

// Steps from left to right, numbers of a step from below, of those that occur; a line where the forecast begins.
function _roll(values, { length, width, steps, low, high }) {
  const rows = high - low + 1;
  const canvas = _canvas(length * _ACROSS, rows * _DOWN, "A roll: time from left to right");
  const pen = canvas.getContext("2d");
  const top = Math.max(1e-9, ...values.filter(Number.isFinite));
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  for (let t = 0; t < length; t++)
    for (let d = low; d <= high; d++) {
      const value = values[t * width + d];
      const share = Math.max(0, Math.min(1, value / top));
      if (!share && !Number.isNaN(value)) continue;
      pen.fillStyle = Number.isNaN(value) ? _MISSING : `rgb(0 0 0 / ${share})`;
      pen.fillRect(t * _ACROSS, (high - d) * _DOWN, _ACROSS, _DOWN);
    }
  pen.fillStyle = theme().second;
  if (steps) pen.fillRect((length - steps) * _ACROSS - 1, 0, 2, canvas.height);
  return canvas;
}

// The lowest and the highest number of a step that is ever more than a twentieth of the largest, and one beside each.
function _range(values, width) {
  const least = Math.max(...values.filter(Number.isFinite)) / 20;
  const found = Array.from({ length: width }, (_, d) => d).filter((d) => {
    for (let at = d; at < values.length; at += width) if (values[at] > least) return true;
    return false;
  });
  return found.length ? { low: Math.max(0, found[0] - 1), high: Math.min(width - 1, found.at(-1) + 1) } : { low: 0, high: width - 1 };
}
