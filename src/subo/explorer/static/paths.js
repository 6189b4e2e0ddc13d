// Pins in latent space, and the path between the last two of them: straight, spherical, or the shortest in data space.
import { gifOf } from "./gif.js";
import { button, control, figure, section, table } from "./layout.js";
import { cellText, imageOf } from "./paint.js";
import { montage, takeaways } from "./save.js";

const _POINTS = 9; // of a strip
const _FINE = 17; // of a path that is bent
const _ROUNDS = 80;
const _FRAMES = 24; // of a moving picture, one way
const _SIDE = 224; // of it, in pixels

export class Paths {
  constructor(app) {
    this.app = app;
    this.element = section("paths", "Paths", "Pin two places; the strip shows what lies between them. An attribute moves z by -2 to 2 times the difference between the means of a class and of all others.");
    const bar = document.createElement("div");
    bar.className = "controls";
    bar.append(
      button("Pin z", () => app.state.set({ pins: [...app.state.get("pins"), Array.from(app.z())] })),
      button("Pin the example", () => app.state.set({ pins: [...app.state.get("pins"), Array.from(app.meanOf(app.example))] })),
      button("Remove pins", () => app.state.set({ pins: [] })),
      control("Path", app.state, "path", [
        { value: "straight", name: "straight" },
        { value: "spherical", name: "spherical" },
        { value: "geodesic", name: "geodesic: shortest in data space" },
      ]),
    );
    this.strip = document.createElement("div");
    this.strip.className = "strip";
    const names = app.record.examples.colors.label;
    if (names) {
      const classes = [...new Set(names)].sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
      const choices = classes.map((name) => ({ value: name, name: `towards ${name}` }));
      bar.append(control("Attribute", app.state, "attribute", [{ value: "", name: "none" }, ...choices]));
    }
    this.element.append(bar, this.strip);
    this.element.append(takeaways({ name: "path", canvas: app.record.columns ? undefined : () => montage(this.strip), ...(app.record.shape.length === 3 ? { gif: () => this.gif() } : {}), rows: () => [app.space.names, ...this.points.map((z) => Array.from(z))], python: () => app.python("means = subo.evaluation.decode(model, z)  # z: the rows of the CSV") }));
    this.points = [];
    app.path = () => this.points;
    app.state.on(["pins", "path"], () => app.state.set({ attribute: "" }));
    app.state.on(["pins", "path", "label", "attribute"], () => this._show());
    app.state.on(["z", "example"], () => app.state.get("attribute") && this._later());
    this._show();
  }

  // The path there and back, enlarged; null without one.
  gif() {
    if (this.points.length < 2) return null;
    const there = Array.from({ length: _FRAMES }, (_, k) => {
      const place = (k * (this.points.length - 1)) / (_FRAMES - 1);
      const from = Math.min(Math.floor(place), this.points.length - 2);
      return _mixed(this.points[from], this.points[from + 1], place - from);
    });
    return gifOf([...there, ...there.slice(1, -1).reverse()].map((z) => this._frame(z)));
  }

  _frame(z) {
    const { record, model } = this.app;
    const [, height, width] = record.shape;
    const times = Math.max(1, Math.floor(_SIDE / Math.max(height, width)));
    const [small, large] = [document.createElement("canvas"), document.createElement("canvas")];
    [small.width, small.height, large.width, large.height] = [width, height, times * width, times * height];
    small.getContext("2d").putImageData(imageOf(model.mean(z, this.app.context()), record.shape, record.shading), 0, 0);
    const pen = large.getContext("2d");
    pen.imageSmoothingEnabled = false;
    pen.drawImage(small, 0, 0, large.width, large.height);
    return pen.getImageData(0, 0, large.width, large.height);
  }

  _later() {
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this._show(), 120);
  }

  // A path along an attribute, or between the last two pins.
  _path() {
    const { app } = this;
    const direction = app.state.get("attribute") && attributeOf(app, app.state.get("attribute"));
    if (direction) return Array.from({ length: _POINTS }, (_, k) => _along(app.z(), direction, (4 * k) / (_POINTS - 1) - 2));
    const [from, to] = app.pins().slice(-2);
    return to ? pathBetween(app.model, from, to, app.state.get("path"), app.context()) : [];
  }

  _show() {
    const { app } = this;
    this.points = this._path();
    const shown = this.points.length ? Array.from({ length: _POINTS }, (_, k) => this.points[Math.round((k * (this.points.length - 1)) / (_POINTS - 1))]) : [];
    if (app.record.columns && shown.length) {
      this.strip.replaceChildren(pathTable(app, shown));
      app.plane?.draw();
      return;
    }
    this.strip.replaceChildren(
      ...shown.map((z, k) => {
        const picture = app.painter(72);
        picture.show(app.model.mean(z, app.context()), { params: app.model.params(z, app.context()) });
        return figure(picture, app.state.get("attribute") ? ((4 * k) / (_POINTS - 1) - 2).toFixed(1) : `${k + 1}`);
      }),
    );
    app.plane?.draw();
  }
}

// A path through a table: a line for each column, and how its mean or likeliest level changes.
function pathTable(app, points) {
  const some = points.filter((_, k) => k % 2 === 0);
  const means = some.map((z) => app.model.mean(z, app.context()));
  return table(app.record.columns.map((column, d) => [column.name, ...means.map((mean) => cellText(column, mean[d]))]), "row");
}

// The difference between the mean of the posterior means of a class and that of all others.
export function attributeOf(app, name) {
  const sums = [new Float64Array(app.space.size), new Float64Array(app.space.size)];
  const counts = [0, 0];
  app.record.examples.colors.label.forEach((label, i) => {
    const side = label === name ? 1 : 0;
    counts[side] += 1;
    app.meanOf(i).forEach((value, d) => (sums[side][d] += value));
  });
  return counts[0] && counts[1] ? sums[1].map((value, d) => value / counts[1] - sums[0][d] / counts[0]) : null;
}

function _along(z, direction, share) {
  return Float32Array.from(z, (value, d) => value + share * direction[d]);
}

// Points from one end to the other.
export function pathBetween(model, from, to, kind, context) {
  const straight = Array.from({ length: _FINE }, (_, k) => _mixed(from, to, k / (_FINE - 1)));
  if (kind === "spherical") return straight.map((_, k) => _spherical(from, to, k / (_FINE - 1)));
  return kind === "geodesic" && model.decoder ? _shortest(model, straight, context) : straight;
}

function _mixed(from, to, share) {
  return Float32Array.from(from, (value, d) => (1 - share) * value + share * to[d]);
}

// Along the great circle between two directions, with a length that changes evenly (Shoemake, 1985).
function _spherical(from, to, share) {
  const length = (z) => Math.hypot(...z);
  const [a, b] = [length(from), length(to)];
  const cosine = from.reduce((sum, value, d) => sum + (value / (a || 1)) * (to[d] / (b || 1)), 0);
  const angle = Math.acos(Math.min(Math.max(cosine, -1), 1));
  if (angle < 1e-4 || Math.PI - angle < 1e-4 || !a || !b) return _mixed(from, to, share);
  const weights = [Math.sin((1 - share) * angle), Math.sin(share * angle)].map((value) => value / Math.sin(angle));
  const size = (1 - share) * a + share * b;
  return Float32Array.from(from, (value, d) => size * (weights[0] * (value / a) + weights[1] * (to[d] / b)));
}

// Descends the energy sum_k |f(z_k+1) - f(z_k)|^2 of the decoded path, whose minimum is a geodesic (Shao et al., 2018).
function _shortest(model, points, context) {
  const decoded = points.map((z) => model.mean(z, context));
  const h = 1e-2;
  let [rate, energy] = [0.05, _energy(decoded)];
  for (let round = 0; round < _ROUNDS; round++) {
    const moved = points.map((z, k) => {
      if (k === 0 || k === points.length - 1) return z;
      const pull = decoded[k].map((value, d) => 2 * value - decoded[k - 1][d] - decoded[k + 1][d]);
      const slope = Array.from(z, (_, i) => {
        const aside = model.mean(Float32Array.from(z, (value, j) => (i === j ? value + h : value)), context);
        return aside.reduce((sum, value, d) => sum + ((value - decoded[k][d]) / h) * pull[d], 0);
      });
      return Float32Array.from(z, (value, i) => value - rate * slope[i]);
    });
    const means = moved.map((z) => model.mean(z, context));
    const lower = _energy(means);
    if (lower < energy) {
      points = moved;
      means.forEach((mean, k) => (decoded[k] = mean));
      [energy, rate] = [lower, rate * 1.2];
    } else rate /= 2;
  }
  return points;
}

function _energy(decoded) {
  let total = 0;
  for (let k = 1; k < decoded.length; k++) decoded[k].forEach((value, d) => (total += (value - decoded[k - 1][d]) ** 2));
  return total;
}
