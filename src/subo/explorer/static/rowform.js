// A row of a table as a form: a field for each column, empty where the cell is unknown.
import { row, through } from "./numbers.js";
import { cellText } from "./paint.js";

export class RowForm {
  constructor(app) {
    this.app = app;
    this.element = document.createElement("form");
    this.element.className = "rowform";
    this.element.addEventListener("submit", (event) => event.preventDefault());
    this.element.addEventListener("input", () => this.changed?.());
    this.fields = app.record.columns.map((column) => this._field(column));
    this.take(app.example);
  }

  buttons() {
    return [];
  }

  // What is wrong with a field, in words; null if nothing is.
  problem() {
    const wrong = this.app.record.columns.findIndex((column, d) => {
      const text = this.fields[d].value.trim();
      const coded = codedCell(column, text);
      return text !== "" && (Number.isNaN(coded) || coded === -Infinity || (column.kind === "count" && (coded < 0 || !Number.isInteger(Number(text)))));
    });
    if (wrong < 0) return null;
    const column = this.app.record.columns[wrong];
    const needs = { count: "a whole number from 0 upwards", positive: "a number above 0", date: "a date" }[column.kind] || "a number";
    return `${column.name} is ${needs}; an empty field is unknown.`;
  }

  known() {
    return null; // the encoder reads missing cells as they are
  }

  _field(column) {
    const label = document.createElement("label");
    label.textContent = column.name;
    const field = document.createElement(column.levels.length ? "select" : "input");
    if (column.levels.length) field.append(new Option("", ""), ...column.levels.map((level, k) => new Option(level, k)));
    else if (column.kind === "date") field.type = "date";
    label.append(field);
    this.element.append(label);
    return field;
  }

  // The cells of an example of the page.
  take(i) {
    const values = row(this.app.x, i);
    this.app.record.columns.forEach((column, d) => {
      const known = !Number.isNaN(values[d]);
      this.changed?.();
      this.fields[d].value = column.levels.length ? (known ? String(values[d]) : "") : cellText(column, values[d]);
    });
  }

  // The coded cells, NaN where a field is empty or no number.
  values() {
    return Float32Array.from(this.app.record.columns, (column, d) => codedCell(column, this.fields[d].value.trim()));
  }
}

// A written cell as the number that stands for it.
export function codedCell(column, text) {
  if (text === "") return NaN;
  if (column.levels.length) return Number(text);
  const number = column.kind === "date" ? Date.parse(text) / 86400000 : Number(text);
  if (column.spike !== null && number === column.spike) return Infinity;
  const plainNumber = column.log ? Math.log(number) : number;
  if (column.kind === "count") return Math.round(number);
  const scaled = (plainNumber - column.center) / column.unit;
  return column.knots.length ? through(column.knots, column.scores, scaled).value : scaled;
}
