// Samples from the prior beside samples from the aggregate posterior: do they look alike?
import { button, figure, section, table } from "./layout.js";
import { Random, row } from "./numbers.js";
import { columnSummary } from "./paint.js";
import { montage, takeaways } from "./save.js";

const _EACH = 24;
const _ROWS = 20; // of a table, for each z

export class Draws {
  constructor(app) {
    this.app = app;
    this.seed = 1;
    this.element = section(
      "samples",
      "Prior or posterior",
      `z from p(z), and z from q(z|x) of random examples${app.record.classes || app.given ? ", both with the condition of these" : ""}. What only the first shows has no data; what only the second shows is never drawn.`,
    );
    this.sides = document.createElement("div");
    this.sides.className = "sides";
    const bar = document.createElement("div");
    bar.className = "controls";
    bar.append(
      button("Draw again", () => {
        this.seed += 1;
        this._show();
      }),
    );
    this.element.append(bar, this.sides);
    const told = this._told();
    if (told) this.element.append(told);
    this.element.append(takeaways({ name: "samples", canvas: app.record.columns ? undefined : () => montage(this.sides), python: () => app.python("z, p = model.sample(24)\nx = p.mean") }));
    this._show();
  }

  _show() {
    const { app } = this;
    const random = new Random(this.seed);
    const chosen = Array.from({ length: _EACH }, () => Math.floor(random.uniform() * app.examples.length));
    const fromPrior = chosen.map((i, k) => [app.model.fromPrior(app.contextOf(i), random, _EACH * (this.seed - 1) + k), app.contextOf(i)]);
    const fromData = chosen.map((i) => [app.qOf(i) ? app.qOf(i).sample(random) : app.meanOf(i), app.contextOf(i)]);
    const sides = [this._side("z ~ p(z)", fromPrior), this._side("z ~ q(z|x)", fromData)];
    this.sides.replaceChildren(...sides, ...(app.record.columns ? [figure(this._ofData(), "the data: the page's examples")] : []));
  }

  _side(caption, drawn) {
    const { app } = this;
    const box = document.createElement("div");
    box.className = "mosaic";
    if (app.record.columns) return figure(this._summary(drawn), caption);
    for (const [z, context] of drawn) {
      const picture = app.painter(52);
      picture.show(app.model.mean(z, context), { params: app.model.params(z, context) });
      box.append(picture);
    }
    return figure(box, caption);
  }

  _ofData() {
    const { app } = this;
    const column = (d) => app.examples.map((i) => row(app.x, i)[d]).filter((value) => !Number.isNaN(value));
    return table(app.record.columns.map((one, d) => [one.name, columnSummary(one, column(d))]), "row");
  }

  // What rows drawn at these z are like, column by column.
  _summary(drawn) {
    const { app } = this;
    const random = new Random(this.seed);
    const rows = drawn.flatMap(([z, context]) => Array.from({ length: _ROWS }, () => app.model.sample(z, context, random)));
    return table(app.record.columns.map((column, d) => [column.name, columnSummary(column, rows.map((values) => values[d]))]), "row");
  }

  // The numbers that tell both apart, from the evaluation.
  _told() {
    const lines = Object.values(this.app.record.findings).flatMap(({ numbers }) => numbers);
    const told = lines.filter(({ name }) => /marginal|aggregate|q\(z\) \|\| p\(z\)/i.test(name)).slice(0, 2);
    if (!told.length) return null;
    const element = document.createElement("p");
    element.textContent = told.map(({ name, value, unit }) => `${name}: ${Number(value).toFixed(3)} ${unit}`).join("; ");
    return element;
  }
}
