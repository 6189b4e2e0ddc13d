// Training: curves over the epochs, and a slider that moves the points to where they lay.
import { curves } from "./axes.js";
import { classColor, theme } from "./colors.js";
import { button, section } from "./layout.js";
import { unpack } from "./numbers.js";
import { montage, takeaways } from "./save.js";

const _CURVES = { bound: "bound", elbo: "ELBO", rate: "rate", distortion: "distortion" };

export class Training {
  constructor(app) {
    this.app = app;
    this.element = section("training", "Training", "Nats per example over the epochs; the slider moves validation examples to their posterior means of then.");
    this.sides = document.createElement("div");
    this.sides.className = "course";
    this.element.append(this.sides);
    this.element.append(takeaways({ name: "training", canvas: () => montage(this.sides), rows: () => _rows(this.course), python: () => app.python("history = run.run.read_metrics()") }));
    app.state.on(["frame"], () => this.frames && this.show());
    this.update(app.record.course);
  }

  // Shows a course of training, which a running fit makes longer.
  update(course) {
    if (this.course && this.course.epochs.length === course.epochs.length) return;
    this.course = course;
    const box = document.createElement("div");
    box.className = "panels";
    this.panels = Object.entries(_CURVES).map(([key, title]) =>
      curves(title, course.epochs, [
        { name: "training", values: course.train[key], style: "first" },
        ...(course.validation ? [{ name: "validation", values: course.validation[key], style: "second" }] : []),
      ]),
    );
    if (course.gap) this.panels.push(_gap(course.gap));
    box.append(...this.panels);
    this.sides.replaceChildren(box);
    if (course.frames) this._makeFrames(course.frames);
  }

  _makeFrames(frames) {
    const { app } = this;
    this.frames = { ...unpack(frames.means), epochs: frames.epochs, labels: frames.labels };
    this.canvas = document.createElement("canvas");
    [this.canvas.width, this.canvas.height, this.canvas.className] = [560, 560, "frames"];
    this.slider = document.createElement("input");
    Object.assign(this.slider, { type: "range", min: 0, max: frames.epochs.length - 1, value: frames.epochs.length - 1 });
    this.slider.setAttribute("aria-label", "Epoch");
    this.words = document.createElement("output");
    this.slider.addEventListener("input", () => app.state.set({ frame: Number(this.slider.value) }));
    const bar = document.createElement("div");
    bar.className = "controls";
    bar.append(button("Play", () => this._play(), "From the first epoch to the last; once more stops it"), this.slider, this.words);
    const moving = document.createElement("div");
    moving.append(this.canvas, bar);
    this.sides.append(moving);
    this.show();
  }

  // The number of the frame that is shown; -1 in the state is the last.
  get frame() {
    const asked = this.app.state.get("frame");
    const last = this.frames.epochs.length - 1;
    return asked < 0 || asked > last ? last : asked;
  }

  // Where the examples lie in a frame, between two frames for a share.
  points(frame) {
    const [, count, size] = this.frames.shape;
    const [low, share] = [Math.floor(frame), frame - Math.floor(frame)];
    const high = Math.min(low + 1, this.frames.epochs.length - 1);
    return Array.from({ length: count }, (_, i) =>
      Array.from({ length: 2 }, (_, d) => {
        if (d >= size) return ((i * 0.618034) % 1) - 0.5;
        const at = (k) => this.frames.values[(k * count + i) * size + d];
        return (1 - share) * at(low) + share * at(high);
      }),
    );
  }

  show(frame = this.frame) {
    const pen = this.canvas.getContext("2d");
    const ink = theme();
    const last = this.points(this.frames.epochs.length - 1).flat();
    const reach = 1.15 * Math.max(...last.map(Math.abs), 1e-6);
    pen.fillStyle = ink.paper;
    pen.fillRect(0, 0, this.canvas.width, this.canvas.height);
    this.points(frame).forEach(([u, v], i) => {
      pen.fillStyle = this.frames.labels ? classColor(this.frames.labels[i]) : ink.accent;
      pen.globalAlpha = 0.8;
      pen.beginPath();
      pen.arc(280 + (280 * u) / reach, 280 - (280 * v) / reach, 4, 0, 2 * Math.PI);
      pen.fill();
    });
    pen.globalAlpha = 1;
    const epoch = this.frames.epochs[Math.round(frame)];
    this.slider.value = Math.round(frame);
    this.words.textContent = `epoch ${epoch}`;
    for (const panel of this.panels) panel.mark?.(epoch);
  }

  _play() {
    cancelAnimationFrame(this.playing);
    if (this.isPlaying) {
      this.isPlaying = false;
      return;
    }
    this.isPlaying = true;
    const last = this.frames.epochs.length - 1;
    const seconds = matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 4;
    const began = performance.now();
    const advance = () => {
      const frame = Math.min(last, seconds ? ((performance.now() - began) / 1000 / seconds) * last : last);
      this.show(frame);
      if (frame < last) this.playing = requestAnimationFrame(advance);
      else this.isPlaying = false;
      if (frame >= last) this.app.state.set({ frame: -1 });
    };
    advance();
  }
}

// What training lowers is a sum: what the model does not know of the data, and what the posterior adds.
function _gap({ epochs, surprisal, error }) {
  const sum = surprisal.map((value, i) => (value === null || error[i] === null ? null : value + error[i]));
  return curves("-ELBO = surprisal + error", epochs, [
    { name: "-ELBO", values: sum, style: "first" },
    { name: "surprisal", values: surprisal, style: "second" },
  ]);
}

function _rows(course) {
  const parts = course.validation ? ["train", "validation"] : ["train"];
  const keys = Object.keys(_CURVES);
  const head = ["epoch", ...parts.flatMap((part) => keys.map((key) => `${part}_${key}`))];
  return [head, ...course.epochs.map((epoch, i) => [epoch, ...parts.flatMap((part) => keys.map((key) => course[part][key][i]))])];
}
