// What is selected, kept in the address after #, so that a link shows the same.

export class State {
  // Defaults by name: numbers, words, or lists of numbers.
  constructor(defaults) {
    this.defaults = defaults;
    this.values = { ...defaults, ...this._read() };
    this.listeners = [];
    addEventListener("hashchange", () => {
      const values = { ...this.defaults, ...this._read() };
      const changed = Object.keys(values).filter((name) => String(values[name]) !== String(this.values[name]));
      if (changed.length) this._change(values, changed);
    });
  }

  get(name) {
    return this.values[name];
  }

  set(changes) {
    const changed = Object.keys(changes).filter((name) => String(changes[name]) !== String(this.values[name]));
    if (changed.length) this._change({ ...this.values, ...changes }, changed);
  }

  // Calls a function after a change of any of these names.
  on(names, listener) {
    this.listeners.push({ names, listener });
  }

  _change(values, changed) {
    this.values = values;
    clearTimeout(this.writing);
    this.writing = setTimeout(() => this._write(), 150); // browsers limit how often the address may change
    for (const { names, listener } of this.listeners) if (names.some((name) => changed.includes(name))) listener();
  }

  _write() {
    const parts = Object.keys(this.values)
      .filter((name) => String(this.values[name]) !== String(this.defaults[name]))
      .map((name) => `${name}=${encodeURIComponent(_text(this.values[name]))}`);
    try {
      history.replaceState(null, "", parts.length ? `#${parts.join("&")}` : location.href.split("#")[0]);
    } catch {
      // a page in a notebook's frame has no address of its own
    }
  }

  _read() {
    const found = {};
    for (const part of location.hash.slice(1).split("&")) {
      const [name, text] = part.split("=");
      if (text === undefined || !(name in this.defaults)) continue;
      const value = _valueOf(decodeURIComponent(text), this.defaults[name]);
      if (value !== undefined) found[name] = value;
    }
    return found;
  }
}

function _text(value) {
  return Array.isArray(value) ? value.map((one) => (Array.isArray(one) ? one.join(",") : _short(one))).join(";") : _short(value);
}

function _short(value) {
  return typeof value === "number" ? String(Number(value.toPrecision(6))) : String(value);
}

// The value of a word of the address in the type of its default; undefined if it does not fit.
function _valueOf(text, like) {
  if (typeof like === "number") return Number.isFinite(Number(text)) ? Number(text) : undefined;
  if (!Array.isArray(like)) return text;
  const rows = text ? text.split(";").map((part) => part.split(",").map(Number)) : [];
  if (rows.some((numbers) => numbers.some((number) => !Number.isFinite(number)))) return undefined;
  return rows.every((numbers) => numbers.length === 1) ? rows.flat() : rows;
}
