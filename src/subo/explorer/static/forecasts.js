// A sequence, and what the model expects after its first three quarters: curves with a fan, or rolls.
import { theme } from "./colors.js";
import { figure, paragraph, section } from "./layout.js";
import { unpack } from "./numbers.js";
import { montage, takeaways } from "./save.js";

const _CURVES = 6; // numbers of a step that are drawn as curves; more are a roll

export class Forecasts {
  constructor(app) {
    this.app = app;
    this.record = app.record.forecasts;
    const share = Math.round(100 * this.record.coverage);
    this.element = section("forecast", "The forecast", `The last quarter of the sequence as it came, and as it is expected from what precedes: the mean, and where ${share}% of the draws lie.`);
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
    const name = `row ${this.app.record.examples.rows[this.app.example]}`;
    if (width <= _CURVES) {
      this.strip.replaceChildren(figure(_fan(this.shown), `${name}: as it came (lines) and as it is expected (dashes, fan), from step ${found.first + length - found.steps + 1}`));
      return;
    }
    const expected = x.values.slice();
    if (ahead) expected.set(ahead.mean, (length - found.steps) * width);
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
  const all = [...x, ...(lower || []), ...(upper || [])];
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const at = (t) => 10 + (860 * t) / Math.max(1, length - 1);
  const y = (value) => 250 - (240 * (value - low)) / (high - low || 1);
  const start = length - steps;
  const hues = [colors.accent, colors.second, colors.ink, ...["#7b3294", "#b35806", "#1b7837"]];
  const line = (values, from, count, d, dashed) => {
    pen.setLineDash(dashed ? [6, 4] : []);
    pen.beginPath();
    for (let t = 0; t < count; t++) pen.lineTo(at(from + t), y(values[t * width + d]));
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

// Steps from left to right, numbers of a step from below; a line where the forecast begins.
function _roll(values, { length, width, steps }) {
  const canvas = _canvas(length, width, "A roll: time from left to right");
  const pen = canvas.getContext("2d");
  const image = new ImageData(length, width);
  const top = Math.max(1e-9, ...values);
  for (let t = 0; t < length; t++)
    for (let d = 0; d < width; d++) {
      const place = 4 * ((width - 1 - d) * length + t);
      image.data.fill(255 - 255 * Math.max(0, Math.min(1, values[t * width + d] / top)), place, place + 3);
      image.data[place + 3] = 255;
    }
  pen.putImageData(image, 0, 0);
  pen.fillStyle = theme().second;
  if (steps) pen.fillRect(length - steps, 0, 0.5, width);
  return canvas;
}
