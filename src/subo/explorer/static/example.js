// The selected example and the dragged point: pictures, the bound and log p(x), q beside the exact posterior. What is
// decoded at z is above the example, or, being as long as its row of a table, below the plane.
import { shade } from "./colors.js";
import { button, figure, paragraph, section, table } from "./layout.js";
import { Random, plain, row, withError } from "./numbers.js";
import { Ascent, elboOf, exactPosterior } from "./posterior.js";
import { montage, takeaways } from "./save.js";

const _DRAWS = 6;
const _STEPS = 300;

export class Example {
  constructor(app) {
    this.app = app;
    this.element = section("example", "The example", "");
    this.decoded = document.createElement("div");
    this.decoded.className = "decoded";
    this.body = document.createElement("div");
    this.element.append(this._finder(), ...(app.record.columns ? [] : [this.decoded]), this.body);
    if (app.model.decodes || (app.live && app.record.examples.latents.layers.length === 1)) this._makeDecoded();
    app.state.on(["z", "label", "example"], () => this._showDecoded());
    app.state.on(["example"], () => this._show());
    this._showDecoded();
    this._show();
  }

  // Ways to an example: its row, its neighbors, the lowest log p(x).
  _finder() {
    const { app } = this;
    const { rows, scores } = app.record.examples;
    const bar = document.createElement("div");
    bar.className = "controls";
    const label = document.createElement("label");
    const field = document.createElement("input");
    Object.assign(field, { type: "number", min: 1, className: "rownumber" });
    const show = () => (field.value = rows[app.example]);
    field.addEventListener("change", () => {
      const found = rows.indexOf(Number(field.value));
      if (found >= 0) app.select(found);
      show();
    });
    app.state.on(["example"], show);
    show();
    label.append("row ", field);
    const distinct = [...new Set(rows)]; // of sequences, many points have one row
    const step = (by) => () => app.select(rows.indexOf(distinct.at((distinct.indexOf(rows[app.example]) + by) % distinct.length)));
    bar.append(label, button("Previous", step(-1)), button("Next", step(1)));
    if (scores) bar.append(this._lowest(scores));
    return bar;
  }

  _lowest({ log_px: logPx }) {
    const { app } = this;
    const order = app.examples.filter((i) => logPx[i] !== null).sort((a, b) => logPx[a] - logPx[b]);
    const select = document.createElement("select");
    select.append(new Option(`lowest ${app.record.log_px}`, ""));
    for (const i of order.slice(0, 20)) select.append(new Option(`${app.rowOf(i)}: ${logPx[i].toFixed(1)}`, i));
    select.addEventListener("change", () => {
      if (select.value) app.select(Number(select.value));
      select.value = "";
    });
    return select;
  }

  _makeDecoded() {
    this.picture = this.app.painter(168);
    this.picture.setAttribute("aria-label", "The mean of p(x given z) at the dragged z");
    this.place = paragraph("", "place");
    const classes = this.app.record.classes;
    this.decoded.append(figure(this.picture, "decoded at z"), this.place);
    if (classes) this.decoded.append(this._classes(classes));
  }

  // A switch for the class that the decoder is given.
  _classes(classes) {
    const label = document.createElement("label");
    label.textContent = "class ";
    const select = document.createElement("select");
    classes.forEach((name, k) => select.append(new Option(name, k)));
    select.addEventListener("change", () => this.app.state.set({ label: Number(select.value) }));
    const show = () => (select.value = this.app.state.get("label"));
    this.app.state.on(["label"], show);
    show();
    label.append(select);
    return label;
  }

  _showDecoded() {
    if (!this.picture) return;
    const { app } = this;
    const z = app.z();
    const context = app.context();
    if (app.model.decodes) this.picture.show(app.model.mean(z, context), { params: app.model.params(z, context) });
    if (!app.model.decoder && app.live) this._ask(z, context);
    const shown = Array.from(z.slice(0, 6), (value) => value.toFixed(2)).join(", ");
    this.place.textContent = `z = (${shown}${z.length > 6 ? ", ..." : ""})`;
  }

  // The live model's picture, where the page has none or an atlas.
  async _ask(z, { label }) {
    const means = await this.app.live.decode([z], this.app.record.classes ? label : null);
    if (means) this.picture.show(means[0]);
  }

  _show() {
    const { app } = this;
    const i = app.example;
    const scores = app.record.examples.scores;
    cancelAnimationFrame(this.running);
    app.shownQ = null;
    this.body.replaceChildren(app.record.examples.sequence ? this._step(i) : this._pictures(i));
    if (scores) this.body.append(this._numbers(i, scores));
    if (app.model.decoder && app.model.priors && app.qOf(i) && app.x) this.body.append(this._inference(i));
  }

  // A step of a sequence: which one, and the mean of its state; its curves are those of the forecast.
  _step(i) {
    const { examples } = this.app.record;
    const length = examples.sequence.filter((of) => of === examples.sequence[i]).length;
    const states = Array.from(this.app.meanOf(i), (value, d) => [examples.latents.names[d], plain(value)]);
    return table([["sequence", this.app.nameOf(i)], ["step", `${examples.colors["time step"][i]} of ${length}`], ["posterior mean", ""], ...states]);
  }

  _pictures(i) {
    const { app } = this;
    const strip = document.createElement("div");
    strip.className = "strip";
    if (!app.x) return strip;
    const add = (values, caption, options) => {
      const picture = app.painter(84);
      picture.show(values, options);
      strip.append(figure(picture, caption));
    };
    const context = app.contextOf(i);
    const z = app.meanOf(i);
    const name = app.nameOf(i);
    if (app.record.columns) {
      add(row(app.x, i), `${name}, and p(x|z) at its z`, { params: app.model.params(z, context), odd: app.record.examples.odd?.[i] });
      return strip;
    }
    add(row(app.x, i), name);
    if (!app.model.decodes) return strip;
    add(app.model.mean(z, context), "reconstruction", { params: app.model.params(z, context), beside: row(app.x, i) });
    const q = app.qOf(i);
    if (!app.model.decoder || !q) return strip;
    const random = new Random(i + 1);
    for (let k = 0; k < _DRAWS; k++) {
      const drawn = q.sample(random);
      const noisy = k >= _DRAWS / 2;
      add(noisy ? app.model.sample(drawn, context, random) : app.model.mean(drawn, context), noisy ? "x drawn" : "mean at z ~ q");
    }
    return strip;
  }

  _numbers(i, scores) {
    const { app } = this;
    const name = app.record.log_px;
    const gap = scores.log_px[i] === null || scores.elbo[i] === null ? null : scores.log_px[i] - scores.elbo[i];
    const trusted = !(scores.pareto_k[i] > 0.7);
    const box = document.createElement("div");
    box.append(
      table([
        [name, trusted ? withError(scores.log_px[i], scores.standard_error[i]) : `about ${plain(scores.log_px[i])} or higher`, `${scores.num_samples} samples`],
        ["ELBO", plain(scores.elbo[i]), "= -(rate + distortion)"],
        ["rate", plain(scores.rate[i]), "KL(q(z|x) || p(z))"],
        ["distortion", plain(scores.distortion[i]), "-E log p(x|z)"],
        ["gap", trusted ? plain(gap) : "", trusted ? `${name} - ELBO${gap < 0 ? ": below 0 by the noise of the samples" : ""}` : "not known by these samples"],
        ["k-hat", plain(scores.pareto_k[i]), trusted ? "" : `above 0.7: ${scores.num_samples} samples are too few, and the error is not known`],
      ]),
      takeaways({
        name: `example-${app.record.examples.rows[i]}`,
        canvas: app.record.columns ? undefined : () => montage(this.body),
        rows: () => [["row", "row_of_all", "log_px", "standard_error", "elbo", "rate", "distortion", "pareto_k"], ...app.examples.map((n) => [
          app.record.examples.rows[n], app.record.examples.source?.[n] ?? "", ...["log_px", "standard_error", "elbo", "rate", "distortion", "pareto_k"].map((key) => scores[key][n]),
        ])],
        python: () => app.python(`scores = subo.evaluation.score(model, split.take(torch.tensor([${app.record.examples.rows[i] - 1}])))`),
      }),
    );
    return box;
  }

  // The exact posterior on a grid, and q's ascent to it.
  _inference(i) {
    const { app } = this;
    const box = document.createElement("div");
    box.className = "inference";
    const context = app.contextOf(i);
    const x = row(app.x, i);
    const words = paragraph("", "place");
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height, canvas.hidden] = [244, 244, true];
    canvas.className = "posterior";
    if (app.model.latents === 2)
      box.append(
        button("Exact posterior", () => {
          this.exact = { i, ...exactPosterior(app.model, x, context) };
          canvas.hidden = false;
          this._compare(canvas, words, x, context, app.shownQ || app.qOf(i));
        }, "Computes p(z|x) on a grid, and log p(x) as its sum"),
      );
    if (app.model.latents <= 16)
      box.append(button("Optimize q", () => this._optimize(i, x, context, canvas, words), "Gradient steps on the bound of this example alone"));
    box.append(canvas, words);
    return box;
  }

  _compare(canvas, words, x, context, q) {
    const { app } = this;
    const bound = elboOf(app.model, x, context, q);
    const exact = this.exact && this.exact.i === app.example ? this.exact : null;
    const first = q === app.qOf(app.example) || !app.shownQ ? null : elboOf(app.model, x, context, app.qOf(app.example));
    let text = first ? `ELBO of the encoder's q: ${withError(first.mean, first.error)} nats; of the optimized q: ${withError(bound.mean, bound.error)}.` : `ELBO of the encoder's q: ${withError(bound.mean, bound.error)} nats.`;
    if (exact) {
      _paintPosterior(canvas, exact, q);
      text += ` Exact ${app.record.log_px}: ${exact.logPx.toFixed(3)}. KL(q || p(z|x)) = ${withError(exact.logPx - bound.mean, bound.error)}, q being the white ellipse of two standard deviations.`;
    }
    words.textContent = text;
  }

  _optimize(i, x, context, canvas, words) {
    const { app } = this;
    const ascent = new Ascent(app.model, x, context, app.qOf(i));
    cancelAnimationFrame(this.running);
    const advance = () => {
      const until = performance.now() + 25;
      while (performance.now() < until && ascent.steps < _STEPS) {
        ascent.rate = 0.05 * (1 - ascent.steps / _STEPS);
        app.shownQ = ascent.step();
      }
      this._compare(canvas, words, x, context, app.shownQ);
      words.textContent += ` ${ascent.steps} steps${ascent.steps < _STEPS ? "" : ", done"}.`;
      app.plane.draw();
      if (ascent.steps < _STEPS) this.running = requestAnimationFrame(advance);
    };
    this.running = requestAnimationFrame(advance);
  }
}

// The posterior as shades, with the ellipse of two standard deviations of q.
function _paintPosterior(canvas, { side, logPosterior, low, high }, q) {
  const pen = canvas.getContext("2d");
  const highest = Math.max(...logPosterior);
  const cell = canvas.width / side;
  logPosterior.forEach((value, at) => {
    pen.fillStyle = shade(Math.exp(value - highest));
    pen.fillRect((at % side) * cell, canvas.height - (Math.floor(at / side) + 1) * cell, cell + 0.5, cell + 0.5);
  });
  const place = (z) => [0, 1].map((d) => {
    const share = (z[d] - low[d]) / (high[d] - low[d] || 1);
    return d ? canvas.height * (1 - share) : canvas.width * share;
  });
  pen.strokeStyle = "#fff";
  pen.lineWidth = 2;
  const first = Math.sqrt(q.covariance(0, 0));
  const mixed = q.covariance(0, 1) / first;
  const rest = Math.sqrt(Math.max(q.covariance(1, 1) - mixed ** 2, 0));
  pen.beginPath();
  for (let k = 0; k <= 48; k++) {
    const [c, s] = [2 * Math.cos((k * Math.PI) / 24), 2 * Math.sin((k * Math.PI) / 24)];
    pen.lineTo(...place([q.mean[0] + first * c, q.mean[1] + mixed * c + rest * s]));
  }
  pen.stroke();
  pen.fillStyle = "#fff";
  pen.font = "11px system-ui, sans-serif";
  pen.fillText(`z1: ${low[0].toFixed(2)} to ${high[0].toFixed(2)}`, 6, canvas.height - 6);
  pen.fillText(`z2, upwards: ${low[1].toFixed(2)} to ${high[1].toFixed(2)}`, 6, 14);
  canvas.setAttribute("aria-label", "Exact posterior, and the ellipse of q");
}
