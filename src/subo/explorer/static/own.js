// An example of one's own: drawn, dropped or written; encoded, scored, and with what is unknown filled in.
import { Board } from "./board.js";
import { RowForm } from "./rowform.js";
import { button, figure, paragraph, section, table } from "./layout.js";
import { Random, withError } from "./numbers.js";
import { logMarginal, weighted } from "./posterior.js";

const _FILLED = 4; // draws of what is unknown
const _ROUNDS = 40; // of a chain, for each of them

export class Own {
  constructor(app) {
    this.app = app;
    const isTable = Boolean(app.record.columns);
    const hint = isTable
      ? "Change cells; an empty cell is unknown and is filled in from its exact conditional, by importance resampling."
      : `Draw, or drop an image; with Blank, pixels become unknown and are filled in.${app.x.values instanceof Uint8Array ? " The model describes bits: greys count as black or white." : ""}`;
    this.element = section("own", "Your own x", hint);
    this.input = isTable ? new RowForm(app) : new Board(app);
    this.input.changed = () => this.result.replaceChildren();
    this.result = document.createElement("div");
    const bar = document.createElement("div");
    bar.className = "controls";
    bar.append(
      button("From the example", () => this.input.take(app.example)),
      ...this.input.buttons(),
      button("Measure", () => this._measure(), "Encodes, scores and fills in"),
    );
    this.element.append(bar, this.input.element, this.result);
  }

  _measure() {
    const { app } = this;
    const x = this.input.values();
    const known = this.input.known();
    const context = app.context();
    const random = new Random(1);
    const q = app.model.encode(x, context);
    const found = known ? null : logMarginal(app.model, x, context, q, random);
    const problem = this.input.problem?.();
    if (problem) {
      this.result.replaceChildren(paragraph(problem, "place"));
      return;
    }
    const rows = known ? [] : [["q(z|x), mean", Array.from(q.mean.slice(0, 6), (value) => value.toFixed(2)).join(", "), ""]];
    if (known) rows.push(["unknown pixels", `${known.filter((one) => !one).length} of ${known.length}`, "filled in below; the encoder needs whole images, so that there is no log p(x)"]);
    if (found) {
      rows.push([app.record.log_px, withError(found.logPx, found.error), `${found.samples} samples, ${found.ess.toFixed(0)} of them effective${found.ess < found.samples / 20 ? ": too few to be trusted" : ""}${x.some(Number.isNaN) ? "; of the known cells" : ""}`]);
      const scores = app.record.examples.scores?.log_px.filter((value) => value !== null) || [];
      const below = scores.filter((value) => value <= found.logPx).length;
      if (!x.some(Number.isNaN)) rows.push(["p-value", ((below + 1) / (scores.length + 1)).toFixed(3), `share of the page's ${app.record.examples.split} examples that are as odd`]);
    }
    this.result.replaceChildren(table(rows), this._pictures(x, known, q, context, random));
    if (!known) app.moveTo(q.mean);
  }

  _pictures(x, known, q, context, random) {
    const { app } = this;
    const strip = document.createElement("div");
    strip.className = "strip";
    const add = (values, caption, options) => {
      const picture = app.painter(84);
      picture.show(values, options);
      strip.append(figure(picture, caption));
    };
    if (app.record.columns) add(x, "your row, and p(x|z) at its z", { params: app.model.params(q.mean, context) });
    else if (!known) add(app.model.mean(q.mean, context), "reconstruction");
    const filled = app.record.columns ? this._cells(x, q, context, random) : known && this._pixels(x, known, context, random);
    (filled || []).forEach((values, k) => add(values, known ? `mean at draw ${k + 1}` : `filled, draw ${k + 1}`));
    if (known) strip.prepend(paragraph("Unknown pixels: E[x|z] at draws of z given the known ones, by Metropolis within Gibbs.", "hint"));
    return strip;
  }

  // Missing cells: z by the importance weights, then the cells from p(x|z).
  _cells(x, q, context, random) {
    if (!x.some(Number.isNaN)) return null;
    const { z, logWeights } = weighted(this.app.model, x, context, q, random);
    return Array.from({ length: _FILLED }, () => {
      const drawn = this.app.model.sample(z[random.among(logWeights)], context, random);
      return Float32Array.from(x, (value, d) => (Number.isNaN(value) ? drawn[d] : value));
    });
  }

  // Unknown pixels: z is proposed by q at the filled x and accepted by Metropolis' rule, so that the chain's limit is
  // exact (Mattei and Frellsen, 2018, algorithm 1); then the pixels are drawn from p(x|z).
  _pixels(x, known, context, random) {
    const { model } = this.app;
    return Array.from({ length: _FILLED }, () => {
      let z = model.prior(context).sample(random);
      let filled = null;
      for (let round = 0; round < _ROUNDS; round++) {
        const drawn = model.sample(z, context, random);
        filled = Float32Array.from(x, (value, d) => (known[d] ? value : drawn[d]));
        const q = model.encode(filled, context);
        const proposed = q.sample(random);
        const gain = model.logJoint(filled, proposed, context) - model.logJoint(filled, z, context);
        if (Math.log(random.uniform()) < gain + q.logProb(z) - q.logProb(proposed)) z = proposed;
      }
      const mean = model.mean(z, context);
      return Float32Array.from(filled, (value, d) => (known[d] ? value : mean[d]));
    });
  }
}
