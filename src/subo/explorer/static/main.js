// The page: what all of its parts share, and their order.
import { Beside } from "./beside.js";
import { Draws } from "./draws.js";
import { Example } from "./example.js";
import { Findings } from "./findings.js";
import { Forecasts } from "./forecasts.js";
import { Layers } from "./layers.js";
import { paragraph } from "./layout.js";
import { Live } from "./live.js";
import { Model } from "./model.js";
import { row, unpack, withError } from "./numbers.js";
import { Own } from "./own.js";
import { painterOf } from "./paint.js";
import { Paths } from "./paths.js";
import { Plane } from "./plane.js";
import { Normal } from "./prior.js";
import { Space } from "./space.js";
import { State } from "./state.js";
import { Training } from "./training.js";
import { Traversals } from "./traversals.js";

class App {
  constructor(record) {
    this.record = record;
    this.model = new Model(record);
    this.space = new Space(record.examples);
    this.examples = Array.from({ length: this.space.means.shape[0] }, (_, i) => i);
    this.x = record.examples.x && unpack(record.examples.x);
    this.q = record.examples.q && { means: unpack(record.examples.plane.means), factors: unpack(record.examples.q.factors) };
    this.size = record.examples.size && unpack(record.examples.size).values;
    this.given = record.examples.given && unpack(record.examples.given);
    this.live = Live.find();
    this.painter = painterOf(record, this.model);
    const colors = Object.keys(record.examples.colors);
    this.state = new State({
      example: 0, z: [], label: 0, color: colors.includes("label") ? "label" : colors[0] || "", back: "none", axes: "auto",
      pins: [], path: "straight", attribute: "", frame: -1, points: "shown",
    });
  }

  // The number of the selected example; an address may have been written by hand.
  get example() {
    return _within(this.state.get("example"), this.examples.length);
  }

  // The posterior mean of an example, and its q if that is a normal.
  meanOf(i) {
    return row(this.space.means, i);
  }

  qOf(i) {
    return this.q ? new Normal(row(this.q.means, i), row(this.q.factors, i)) : null;
  }

  // The dragged point: that of the example until it is moved.
  z() {
    const moved = this.state.get("z");
    return moved.length === this.space.size ? Float32Array.from(moved) : this.meanOf(this.example);
  }

  moveTo(z) {
    this.state.set({ z: Array.from(z) });
  }

  select(i) {
    const label = this.record.examples.labels ? { label: this.record.examples.labels[i] } : {};
    this.state.set({ example: i, z: [], ...(this.record.classes ? label : {}) });
  }

  pins() {
    const pins = this.state.get("pins").map((z) => Float32Array.from([z].flat()));
    return pins.filter((z) => z.length === this.space.size);
  }

  // The condition of the dragged point, and of an example.
  context() {
    const given = this.given && row(this.given, this.example);
    const size = this.size ? this.size[this.example] : 1;
    return { label: _within(this.state.get("label"), this.record.classes?.length || 1), given, size };
  }

  contextOf(i) {
    const label = this.record.examples.labels ? this.record.examples.labels[i] : 0;
    return { label, given: this.given && row(this.given, i), size: this.size ? this.size[i] : 1 };
  }

  // The row of the page's examples, and that of all data.
  rowOf(i) {
    const { rows, source } = this.record.examples;
    return `row ${rows[i]}${source ? ` (row ${source[i]} of all data)` : ""}`;
  }

  // The same, with the class.
  nameOf(i) {
    const { labels, colors } = this.record.examples;
    return labels ? `${this.rowOf(i)}: ${colors.label?.[i] ?? labels[i]}` : this.rowOf(i);
  }

  // The lines of Python that lead to a number.
  python(line) {
    const { run, examples } = this.record;
    return [
      "import torch", "import subo", "",
      `run = subo.open_run(${JSON.stringify(run)})  # the run's folder`,
      `model, split = run.objective.model, run.data().${examples.split}`,
      line, "",
    ].join("\n");
  }
}

function _within(number, count) {
  return Math.min(Math.max(Math.round(number), 0), count - 1);
}

function _header(app) {
  const { record } = app;
  const head = document.createElement("header");
  const title = document.createElement("h1");
  title.textContent = record.run;
  const [first] = Object.values(record.findings);
  const of = (name) => first?.numbers.find((line) => line.name.trim().startsWith(name));
  const known = [of("log p(x"), of("ELBO")].filter(Boolean).map((line) => `${line.name.split("=")[0].trim()} ${withError(line.value, line.standard_error)}`);
  const words = [record.about.recipe, record.about.data.examples, ...known].filter(Boolean).join(" · ");
  head.append(title, paragraph(words));
  return head;
}

export function start(record) {
  const app = new App(record);
  const main = document.createElement("main");
  document.body.append(_header(app), main);
  const add = (Part, where = main) => {
    const part = new Part(app);
    where.append(part.element);
    return part;
  };
  const top = document.createElement("div");
  top.className = "top";
  main.append(top);
  app.plane = add(Plane, top);
  const example = add(Example, top);
  if (record.columns) app.plane.element.append(example.decoded); // both are long: side by side
  if (record.layers) add(Layers);
  if (record.forecasts) add(Forecasts);
  if (app.model.decoder && app.space.size === app.model.latents) add(Paths);
  if (record.course) {
    app.training = add(Training);
    app.live?.follow((course) => app.training.update(course));
  }
  add(Traversals);
  if (app.model.decoder && app.model.encoder && app.model.priors && app.x && app.qOf(0) && !record.classes && _isDrawn(record)) add(Own);
  if (app.model.decodes && (app.model.priors || app.model.draws)) add(Draws);
  add(Findings);
  if (record.beside) add(Beside);
  const missing = Object.entries(app.model.missing).filter(([, reason]) => reason);
  if (missing.length) main.append(paragraph(`Not in this page: ${missing.map(([part, reason]) => `the ${part} (${reason})`).join("; ")}.`, "hint"));
  return app;
}

function _isDrawn({ columns, shape }) {
  return Boolean(columns) || (shape.length === 3 && [1, 3].includes(shape[0]));
}

globalThis.subo = start(JSON.parse(document.getElementById("record").textContent));
