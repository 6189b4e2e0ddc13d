// Another run beside this one: numbers with paired differences, settings that differ, samples of both.
import { figure, paragraph, section } from "./layout.js";
import { row, unpack, withError } from "./numbers.js";
import { montage, takeaways } from "./save.js";

const _WORDS = { log_px: "log p(x)", elbo: "ELBO", rate: "rate", distortion: "distortion" };

export class Beside {
  constructor(app) {
    this.app = app;
    const { names, split, count, num_samples: samples } = (this.record = app.record.beside);
    this.element = section("beside", `Beside ${names[1]}`, `Both runs on the same ${count.toLocaleString("en")} ${split} examples, K = ${samples.toLocaleString("en")}, in nats per example. Differences are paired example by example, so that their errors are smaller than those of the columns.`);
    this.element.append(this._table(this.rows()), ...this._sentences(), this._settings(), ...this._samples());
    this.element.append(takeaways({ name: "beside", canvas: () => montage(this.element), rows: () => this.rows(), python: () => app.python(`comparison = subo.compare({"${names[0]}": run.model, "${names[1]}": subo.open_run("${names[1]}").model}, split)`) }));
  }

  // What is shown, as text.
  rows() {
    const { names, numbers, differences, active } = this.record;
    const known = Object.entries(numbers).map(([name, pairs]) => [
      this._called(name), ...pairs.map(([mean, error]) => withError(mean, error)), differences[name] ? withError(...differences[name]) : "",
    ]);
    return [["", ...names, `${names[1]} - ${names[0]}`], ...known, ["active latents", ...active, ""]];
  }

  _called(name) {
    return name === "log_px" ? this.app.record.log_px : _WORDS[name];
  }

  _table([head, ...rows]) {
    const element = document.createElement("table");
    element.className = "numbers";
    const line = (cells, tag) => {
      const row = document.createElement("tr");
      for (const text of cells) {
        const cell = document.createElement(tag);
        cell.textContent = text;
        row.append(cell);
      }
      element.append(row);
    };
    line(head, "th");
    for (const cells of rows) line(cells, "td");
    return element;
  }

  _sentences() {
    const [first, second] = this.record.names;
    return Object.entries(this.record.differences).map(([name, [mean, error]]) => {
      if (!Number.isFinite(mean)) return paragraph(`By ${this._called(name)} they cannot be told apart: it is not finite for some example.`);
      if (Math.abs(mean) <= 2 * error) return paragraph(`${second} and ${first}: no difference beyond 2 standard errors in ${this._called(name)}.`);
      return paragraph(`${second} is ${withError(Math.abs(mean), error)} nats ${mean > 0 ? "better" : "worse"} than ${first} in ${this._called(name)}.`);
    });
  }

  _settings() {
    const { names, settings } = this.record;
    const box = document.createElement("details");
    const head = document.createElement("summary");
    head.textContent = settings.length === 1 ? "1 setting differs" : `${settings.length} settings differ`;
    box.append(head, this._table([["setting", ...names], ...settings]));
    return box;
  }

  _samples() {
    const { names, samples } = this.record;
    if (this.app.record.columns || samples.some((packed) => !packed)) return [];
    return samples.flatMap((packed, k) => {
      const means = unpack(packed);
      const strip = document.createElement("div");
      strip.className = "strip";
      for (let i = 0; i < means.shape[0]; i++) {
        const picture = this.app.painter(72);
        picture.show(row(means, i));
        strip.append(figure(picture, ""));
      }
      return [paragraph(`Means of p(x|z) at samples of the prior of ${names[k]}:`), strip];
    });
  }
}
