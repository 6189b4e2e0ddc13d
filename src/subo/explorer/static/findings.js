// What was measured, in reading order, and what the run is.
import { section, table } from "./layout.js";
import { withError } from "./numbers.js";
import { takeaways } from "./save.js";

export class Findings {
  constructor(app) {
    this.element = section("findings", "The numbers", "Means over examples, ± standard errors.");
    const found = Object.entries(app.record.findings);
    if (!found.length) this.element.append(_note("Nothing has been measured with these weights yet: subo evaluate RUN"));
    for (const [split, { numbers, sentences, count, full, complete }] of found) {
      const head = document.createElement("h3");
      head.textContent = `${split}, ${count ? count.toLocaleString("en") : "?"} examples`;
      this.element.append(head, _lines(numbers));
      for (const sentence of sentences) this.element.append(_note(sentence));
      if (!full) this.element.append(_note("More of it: subo evaluate RUN --full measures annealed importance sampling, gaps, what the latents carry, and calibration."));
      if (!complete) this.element.append(_note("This evaluation is not complete yet: the same command continues it."));
      this.element.append(takeaways({ name: `numbers-${split}`, rows: () => _rows(numbers), python: () => app.python(`numbers = run.run.read_evaluation("${split}")`) }));
    }
    this.element.append(_glossary(app.record.log_px), _about(app.record));
  }
}

// What the words mean, in the order in which a reader meets them.
function _glossary(name) {
  const box = document.createElement("details");
  const head = document.createElement("summary");
  head.textContent = "What the words mean";
  box.append(head);
  box.append(
    table(
      [
        ["nat", "the unit of natural logarithms of probabilities: 1.44 bits"],
        [name, "how probable the model finds an example; estimated from samples of q(z|x), weighted by p(x, z) / q(z|x)"],
        ["ELBO", `a lower bound on ${name} that needs no weights: minus rate minus distortion`],
        ["rate", "KL(q(z|x) || p(z)), how far q is from the prior: the nats that z carries about x"],
        ["distortion", "what is left to say about x once z is known: the mean of -log p(x|z) under q"],
        ["gap", `${name} - ELBO = KL(q(z|x) || p(z|x)): what q misses of the exact posterior`],
        ["k-hat", "the shape of the weights' tail; above 0.7 the samples are too few, and neither value nor error can be trusted"],
        ["effective samples", "how many equal weights would be as informative"],
        ["active unit", "a dimension of z whose posterior mean varies over the examples (variance above 0.01)"],
        ["bound", "what training maximized; the ELBO unless another was chosen"],
        ["p-value", "the share of held-out examples that are at least as improbable"],
      ],
      "about",
    ),
  );
  return box;
}

function _note(text) {
  const element = document.createElement("p");
  element.textContent = text;
  return element;
}

function _lines(numbers) {
  const element = document.createElement("table");
  element.className = "numbers";
  let section = null;
  for (const line of numbers) {
    if (line.section !== section) {
      section = line.section;
      const head = document.createElement("tr");
      head.innerHTML = '<th colspan="4" scope="colgroup"></th>';
      head.firstChild.textContent = section;
      element.append(head);
    }
    const row = document.createElement("tr");
    const value = typeof line.value === "number" ? withError(line.value, line.standard_error) : String(line.value);
    const how = [line.estimator, line.num_samples && `K = ${line.num_samples.toLocaleString("en")}`].filter(Boolean).join(", ");
    for (const text of [line.name.trim(), value, line.unit, how]) {
      const cell = document.createElement("td");
      cell.textContent = text;
      row.append(cell);
    }
    element.append(row);
  }
  return element;
}

function _rows(numbers) {
  const names = ["section", "name", "value", "standard_error", "unit", "estimator", "num_samples", "num_data"];
  return [names, ...numbers.map((line) => names.map((name) => line[name]))];
}

function _about({ about, log_px: name, log_px_is: meaning }) {
  const box = document.createElement("details");
  const head = document.createElement("summary");
  head.textContent = "Configuration, data and versions";
  box.append(head);
  if (about.command) {
    const command = document.createElement("pre");
    command.textContent = about.command;
    box.append(command);
  }
  const parts = [[["recipe", about.recipe], [`${name} is a`, meaning], ["weights", about.weights]], Object.entries(about.data), Object.entries(about.versions), Object.entries(about.settings)];
  for (const rows of parts) box.append(table(rows, "about"));
  return box;
}
