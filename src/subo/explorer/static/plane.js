// The plane of latent space: examples as points, what lies behind them, and the point z that is dragged.
import { backgrounds, paintBackground } from "./backgrounds.js";
import { colored, theme } from "./colors.js";
import { control, section } from "./layout.js";
import { plain } from "./numbers.js";
import { takeaways } from "./save.js";

const _RADIUS = 3; // of a point, in pixels of the page

export class Plane {
  constructor(app) {
    this.app = app;
    this.canvas = document.createElement("canvas");
    this.canvas.className = "plane";
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "application");
    this.canvas.setAttribute("aria-label", "Latent plane: arrow keys move z, Enter selects the nearest example");
    this.legend = document.createElement("div");
    this.legend.className = "legend";
    this.element = section("plane", "The latent plane", "Drag to move z; click a point to select its example; scroll to zoom.");
    this.element.append(this._controls(), this.canvas, this.legend);
    this.element.append(
      takeaways({
        name: "plane",
        canvas: () => this.canvas,
        rows: () => [["row", ...app.space.names], ...app.examples.map((i) => [app.record.examples.rows[i], ...app.meanOf(i)])],
        python: () => app.python("means = subo.evaluation.latent_usage(model, split).means"),
      }),
    );
    this._fit();
    this._listen();
    app.state.on(["color", "back", "axes", "label"], () => this._refresh());
    app.state.on(["z", "example", "pins", "points"], () => this.draw());
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    this._refresh();
  }

  _controls() {
    const { app } = this;
    const bar = document.createElement("div");
    bar.className = "controls";
    const colors = Object.keys(app.record.examples.colors).map((name) => ({ value: name, name }));
    bar.append(control("Color", app.state, "color", [{ value: "", name: "none" }, ...colors]));
    bar.append(control("Behind", app.state, "back", backgrounds(app)));
    const points = ["shown", "hidden"].map((value) => ({ value, name: value }));
    bar.append(control("Points", app.state, "points", points));
    if (app.space.choices().length) bar.append(control("Axes", app.state, "axes", app.space.choices()));
    return bar;
  }

  _refresh() {
    this.app.space.choose(this.app.state.get("axes"));
    this.points = this.app.examples.map((i) => this.app.space.project(this.app.meanOf(i), i));
    if (this.axes !== String(this.app.space.axes)) this._fit();
    this.axes = String(this.app.space.axes);
    const { colors, legend, range } = colored(this.app.record.examples.colors[this.app.state.get("color")]);
    this.colors = colors;
    this._legend(legend, range);
    this.draw();
  }

  _legend(entries, range) {
    this.legend.replaceChildren(
      ...entries.slice(0, 24).map(({ name, color }) => {
        const entry = document.createElement("span");
        entry.textContent = name;
        entry.style.setProperty("--color", color);
        return entry;
      }),
    );
    if (range) {
      this.legend.innerHTML = '<span class="low"></span><i class="ramp"></i><span class="high"></span>';
      this.legend.querySelector(".low").textContent = `≤ ${plain(range[0])}`;
      this.legend.querySelector(".high").textContent = `≥ ${plain(range[1])}`;
    }
  }

  // The view that shows all points and the square from -3 to 3, as far as examples lie there.
  _fit() {
    const all = this.app.examples.map((i) => this.app.space.project(this.app.meanOf(i), i));
    const reach = Math.max(...all.flat().map(Math.abs), 1e-6);
    this.view = { center: [0, 0], reach: this.app.space.axes ? Math.max(3.3, 1.08 * reach) : 1.12 * reach };
  }

  // From the plane to pixels of the canvas, and back.
  place([u, v]) {
    const { width, height } = this.canvas;
    const scale = Math.min(width, height) / (2 * this.view.reach);
    return [width / 2 + (u - this.view.center[0]) * scale, height / 2 - (v - this.view.center[1]) * scale];
  }

  at([x, y]) {
    const { width, height } = this.canvas;
    const scale = Math.min(width, height) / (2 * this.view.reach);
    return [this.view.center[0] + (x - width / 2) / scale, this.view.center[1] - (y - height / 2) / scale];
  }

  draw() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = null;
      this._paint();
    });
  }

  _paint() {
    const { app, canvas } = this;
    const ratio = devicePixelRatio || 1;
    const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    const pen = canvas.getContext("2d");
    const ink = theme();
    pen.fillStyle = ink.paper;
    pen.fillRect(0, 0, width, height);
    const back = app.state.get("back");
    const place = (point) => this.place(point);
    if (back !== "none") paintBackground(app, back, pen, place, `${app.state.get("label")} ${app.space.axes}`);
    this._axes(pen, ink, ratio);
    const radius = _RADIUS * ratio * (this.points.length > 3000 ? 0.6 : 1);
    const pictures = back === "grid" || back === "quantiles";
    pen.globalAlpha = pictures ? 1 : 0.75;
    [pen.strokeStyle, pen.lineWidth] = [ink.paper, ratio];
    const shown = app.state.get("points") === "hidden" ? [] : this.points;
    shown.forEach((point, k) => {
      const [x, y] = this.place(point);
      pen.fillStyle = this.colors ? this.colors[k] : ink.accent;
      pen.beginPath();
      pen.arc(x, y, radius, 0, 2 * Math.PI);
      pen.fill();
      if (pictures) pen.stroke();
    });
    pen.globalAlpha = 1;
    this._selected(pen, ink, ratio);
    app.onPaint?.();
  }

  _axes(pen, ink, ratio) {
    const [left, top] = this.at([0, 0]);
    const [right, bottom] = this.at([this.canvas.width, this.canvas.height]);
    const step = 10 ** Math.floor(Math.log10(this.view.reach)) * (this.view.reach / 10 ** Math.floor(Math.log10(this.view.reach)) > 4 ? 2 : 1);
    pen.font = `${11 * ratio}px system-ui, sans-serif`;
    pen.strokeStyle = ink.faint;
    pen.lineWidth = ratio / 2;
    pen.fillStyle = ink.ink;
    for (let value = Math.ceil(left / step) * step; value <= right; value += step) {
      const [x] = this.place([value, 0]);
      this._line(pen, [x, 0], [x, this.canvas.height]);
      this._write(pen, plain(Number(value.toFixed(9))), [x + 3 * ratio, this.canvas.height - 5 * ratio], ink);
    }
    for (let value = Math.ceil(bottom / step) * step; value <= top && this.app.space.size > 1; value += step) {
      const [, y] = this.place([0, value]);
      this._line(pen, [0, y], [this.canvas.width, y]);
      this._write(pen, plain(Number(value.toFixed(9))), [4 * ratio, y - 3 * ratio], ink);
    }
    pen.font = `bold ${12 * ratio}px system-ui, sans-serif`;
    const name = this.app.space.label(0);
    this._write(pen, name, [this.canvas.width - pen.measureText(name).width - 8 * ratio, this.canvas.height - 22 * ratio], ink);
    this._write(pen, this.app.space.label(1), [30 * ratio, 16 * ratio], ink);
  }

  // Text with a margin of the paper's color, to be read on pictures, too.
  _write(pen, text, [x, y], ink) {
    pen.save();
    [pen.strokeStyle, pen.lineWidth, pen.lineJoin] = [ink.paper, 3 * (devicePixelRatio || 1), "round"];
    pen.strokeText(text, x, y);
    pen.fillText(text, x, y);
    pen.restore();
  }

  _line(pen, from, to) {
    pen.beginPath();
    pen.moveTo(...from);
    pen.lineTo(...to);
    pen.stroke();
  }

  // The selected example with the ellipse of its q, the pins and the path between the last two, and z.
  _selected(pen, ink, ratio) {
    const { app } = this;
    pen.lineWidth = 2 * ratio;
    const chosen = app.example;
    const q = app.shownQ || app.qOf(chosen);
    pen.strokeStyle = ink.ink;
    if (q) this._ellipse(pen, q);
    const [x, y] = this.place(app.space.project(app.meanOf(chosen), chosen));
    pen.beginPath();
    pen.arc(x, y, 6 * ratio, 0, 2 * Math.PI);
    pen.stroke();
    const path = app.path?.();
    if (path && path.length > 1) {
      pen.strokeStyle = ink.second;
      pen.beginPath();
      for (const z of path) pen.lineTo(...this.place(app.space.project(z)));
      pen.stroke();
    }
    app.pins().forEach((z, k) => {
      const [px, py] = this.place(app.space.project(z));
      pen.fillStyle = ink.second;
      pen.fillRect(px - 4 * ratio, py - 4 * ratio, 8 * ratio, 8 * ratio);
      pen.fillText(k + 1, px + 7 * ratio, py - 5 * ratio);
    });
    const [zx, zy] = this.place(app.space.project(app.z()));
    pen.strokeStyle = ink.paper;
    pen.lineWidth = 5 * ratio;
    for (const color of [ink.paper, ink.second]) {
      pen.strokeStyle = color;
      this._line(pen, [zx - 9 * ratio, zy], [zx + 9 * ratio, zy]);
      this._line(pen, [zx, zy - 9 * ratio], [zx, zy + 9 * ratio]);
      pen.lineWidth = 2.5 * ratio;
    }
  }

  // Two standard deviations of q in the plane.
  _ellipse(pen, q) {
    const { axes, size } = this.app.space;
    if (!axes || size < 2) return;
    const [a, b] = axes;
    const [va, vb, cab] = [q.covariance(a, a), q.covariance(b, b), q.covariance(a, b)];
    const [la, lb] = [Math.sqrt(va), cab / Math.sqrt(va)];
    const rest = Math.sqrt(Math.max(vb - lb * lb, 0));
    pen.beginPath();
    for (let k = 0; k <= 48; k++) {
      const [c, s] = [2 * Math.cos((k * Math.PI) / 24), 2 * Math.sin((k * Math.PI) / 24)];
      pen.lineTo(...this.place([q.mean[a] + la * c, q.mean[b] + lb * c + rest * s]));
    }
    pen.stroke();
  }

  _listen() {
    const { canvas } = this;
    let start = null;
    const pixel = (event) => {
      const box = canvas.getBoundingClientRect();
      const ratio = canvas.width / box.width;
      return [(event.clientX - box.left) * ratio, (event.clientY - box.top) * ratio];
    };
    canvas.addEventListener("pointerdown", (event) => {
      start = { at: pixel(event), moved: false };
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!start) {
        this._name(pixel(event));
        return;
      }
      const here = pixel(event);
      start.moved ||= Math.hypot(here[0] - start.at[0], here[1] - start.at[1]) > 4;
      if (start.moved) this.app.moveTo(this.app.space.lift(this.at(here), this.app.z()));
    });
    canvas.addEventListener("pointerup", (event) => {
      if (start && !start.moved) this._select(pixel(event));
      start = null;
    });
    canvas.addEventListener("pointercancel", () => (start = null));
    canvas.addEventListener("wheel", (event) => this._zoom(event, pixel(event)), { passive: false });
    canvas.addEventListener("dblclick", () => (this._fit(), this.draw()));
    canvas.addEventListener("keydown", (event) => this._key(event));
  }

  // The example whose point is near, or else z at that place.
  _select(pixel) {
    const nearest = this._nearest(pixel);
    if (nearest.distance < 12 * (devicePixelRatio || 1)) this.app.select(nearest.example);
    else this.app.moveTo(this.app.space.lift(this.at(pixel), this.app.z()));
  }

  // What lies under the pointer, as the canvas' title.
  _name(pixel) {
    const { distance, example } = this._nearest(pixel);
    const { colors } = this.app.record.examples;
    const color = colors[this.app.state.get("color")];
    const near = distance < 8 * (devicePixelRatio || 1);
    this.canvas.title = near ? `${this.app.rowOf(example)}${color ? `: ${plain(color[example])}` : ""}` : "";
  }

  _nearest(pixel) {
    let best = { distance: Infinity, example: 0 };
    this.points.forEach((point, k) => {
      const [x, y] = this.place(point);
      const distance = Math.hypot(x - pixel[0], y - pixel[1]);
      if (distance < best.distance) best = { distance, example: this.app.examples[k] };
    });
    return best;
  }

  _zoom(event, pixel) {
    event.preventDefault();
    const before = this.at(pixel);
    this.view.reach = Math.min(Math.max(this.view.reach * Math.exp(event.deltaY / 500), 0.05), 1e4);
    const after = this.at(pixel);
    this.view.center = this.view.center.map((value, d) => value + before[d] - after[d]);
    this.draw();
  }

  _key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    const { app } = this;
    if (moves[event.key]) {
      const step = this.view.reach * (event.shiftKey ? 0.1 : 0.02);
      const here = app.space.project(app.z());
      app.moveTo(app.space.lift(here.map((value, d) => value + step * moves[event.key][d]), app.z()));
    } else if (event.key === "Enter") app.select(this._nearest(this.place(app.space.project(app.z()))).example);
    else if (event.key === "+" || event.key === "-") this._zoom({ preventDefault() {}, deltaY: event.key === "+" ? -100 : 100 }, this.place(app.space.project(app.z())));
    else return;
    event.preventDefault();
  }
}
