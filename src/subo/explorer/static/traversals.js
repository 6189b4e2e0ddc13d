// Each dimension of latent space: what it carries, and what the decoder makes of it.
import { figure, section } from "./layout.js";
import { plain } from "./numbers.js";
import { cellText } from "./paint.js";
import { montage, takeaways } from "./save.js";

const _STOPS = [-3, -2, -1, 0, 1, 2, 3];
const _MOST = 24; // dimensions

export class Traversals {
  constructor(app) {
    this.app = app;
    const { latents } = app.record.examples;
    const shown = app.record.columns ? "Each with the three columns that it changes most from -2 to 2" : "Each from -3 to 3";
    const rule = "Grey: inactive, its posterior mean hardly varies over the examples (variance at most 0.01).";
    this.element = section("dimensions", "The dimensions", `${shown}, the others as at the dragged z; the most informative first${latents.kl ? "" : ", by the variance of posterior means, since the KL of single dimensions is not known"}. ${rule}`);
    this.list = document.createElement("div");
    this.list.className = "traversals";
    this.element.append(this.list);
    this.element.append(
      takeaways({
        name: "dimensions",
        canvas: app.record.columns ? undefined : () => montage(this.list),
        rows: () => [["dimension", "kl", "variance_of_means", "active"], ...latents.names.map((name, d) => [name, latents.kl?.[d], latents.variance[d], latents.active[d]])],
        python: () => app.python("usage = subo.evaluation.latent_usage(model, split)"),
      }),
    );
    this._make();
    app.state.on(["z", "label", "example"], () => this._later());
  }

  _make() {
    const { app } = this;
    const { latents } = app.record.examples;
    const carried = latents.kl || latents.variance;
    const most = Math.max(...carried, 1e-9);
    this.rows = app.space.order.slice(0, _MOST).map((d) => {
      const line = document.createElement("div");
      line.className = latents.active[d] === false ? "dimension inactive" : "dimension";
      const name = document.createElement("span");
      name.textContent = `${latents.names[d]}: ${latents.kl ? `${plain(latents.kl[d])} nats` : `variance ${plain(latents.variance[d])}`}`;
      const bar = document.createElement("i");
      bar.style.setProperty("--share", carried[d] / most);
      line.append(name, bar);
      const pictures = app.model.decoder && !app.record.columns ? _STOPS.map((stop) => this._stop(line, d, stop)) : [];
      this.list.append(line);
      const words = document.createElement("span");
      words.className = "changes";
      if (app.record.columns && app.model.decoder) line.append(words);
      return { d, pictures, words };
    });
    this._later();
  }

  _stop(line, d, stop) {
    const { app } = this;
    const picture = app.painter(app.record.shape.length === 3 ? 56 : 120);
    const box = figure(picture, String(stop));
    box.addEventListener("click", () => app.moveTo(_with(app.z(), d, stop)));
    line.append(box);
    return picture;
  }

  // Later, since a page opens and a drag moves z at every frame, and this decodes many pictures.
  _later() {
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this._show(), 120);
  }

  _show() {
    const { app } = this;
    for (const { d, pictures, words } of this.rows) {
      pictures.forEach((picture, k) => {
        const z = _with(app.z(), d, _STOPS[k]);
        picture.show(app.model.mean(z, app.context()));
      });
      if (app.record.columns && app.model.decoder) words.textContent = changesOf(app, d);
    }
  }
}

// The three columns of a table that a dimension changes most, from -2 to 2: levels by their probabilities, numbers in
// units of their scale.
function changesOf(app, d) {
  const { family } = app.model.decoder;
  const [low, high] = [-2, 2].map((stop) => family.cells(app.model.params(_with(app.z(), d, stop), app.context())));
  const changes = app.record.columns.map((column, j) => {
    if (low[j].probabilities) {
      const shares = low[j].probabilities.map((share, k) => high[j].probabilities[k] - share);
      const k = shares.reduce((best, share, i) => (Math.abs(share) > Math.abs(shares[best]) ? i : best), 0);
      const [from, to] = [low, high].map((cells) => `${Math.round(100 * cells[j].probabilities[k])}%`);
      return { size: 2 * Math.abs(shares[k]), text: `${column.name} ${column.levels[k]} ${from} → ${to}` };
    }
    const [from, to] = [low[j].mean, high[j].mean];
    const size = low[j].scale ? Math.abs(to - from) / ((low[j].scale + high[j].scale) / 2) : Math.abs(Math.log(to / from));
    return { size: Number.isFinite(size) ? size : 0, text: `${column.name} ${cellText(column, from)} → ${cellText(column, to)}` };
  });
  const most = changes.sort((a, b) => b.size - a.size).slice(0, 3);
  return most.map(({ text }) => text).join("; ");
}

function _with(z, d, value) {
  const moved = Float32Array.from(z);
  moved[d] = value;
  return moved;
}
