// A board of pixels to draw on, in the image's own resolution.
import { button } from "./layout.js";
import { row } from "./numbers.js";
import { imageOf } from "./paint.js";

export class Board {
  constructor(app) {
    this.app = app;
    [this.channels, this.height, this.width] = app.record.shape;
    this.shades = new Float32Array(this.channels * this.height * this.width);
    this.blank = new Uint8Array(this.height * this.width);
    this.tool = "draw";
    this.element = document.createElement("canvas");
    Object.assign(this.element, { width: this.width, height: this.height, className: "board" });
    this.element.setAttribute("aria-label", "A board to draw an image on; an image file may be dropped here");
    this._listen();
    this._show();
  }

  buttons() {
    const tools = { draw: "Draw", erase: "Erase", blank: "Blank" };
    const made = Object.entries(tools).map(([tool, name]) => button(name, () => this._choose(tool, made)));
    made[0].setAttribute("aria-pressed", "true");
    return [...made, button("Clear", () => this._clear())];
  }

  _choose(tool, buttons) {
    this.tool = tool;
    const names = ["draw", "erase", "blank"];
    buttons.forEach((one, k) => one.setAttribute("aria-pressed", String(names[k] === tool)));
  }

  _clear() {
    this.shades.fill(0);
    this.blank.fill(0);
    this._show();
  }

  // The shades of an example of the page.
  take(i) {
    const { factor, shift } = this.app.record.shading;
    row(this.app.x, i).forEach((value, d) => (this.shades[d] = factor * value + shift));
    this.blank.fill(0);
    this._show();
  }

  // The values in the data's own units; bits where the data are bits.
  values() {
    const { factor, shift } = this.app.record.shading;
    const bits = this.app.x.values instanceof Uint8Array;
    return Float32Array.from(this.shades, (shade) => (bits ? Number(shade > 0.5) : (shade - shift) / factor));
  }

  // Which values are known; null if all are.
  known() {
    if (!this.blank.some(Boolean)) return null;
    return Uint8Array.from(this.shades, (_, d) => (this.blank[d % this.blank.length] ? 0 : 1));
  }

  _show() {
    this.changed?.();
    const pen = this.element.getContext("2d");
    const image = imageOf(this.shades, this.app.record.shape, { factor: 1, shift: 0 });
    this.blank.forEach((unknown, at) => unknown && image.data.set([230, 140, 20, 255], 4 * at));
    pen.putImageData(image, 0, 0);
  }

  _listen() {
    const { element } = this;
    const act = (event) => {
      if (!event.buttons) return;
      const box = element.getBoundingClientRect();
      this._dab(((event.clientX - box.left) / box.width) * this.width, ((event.clientY - box.top) / box.height) * this.height);
    };
    element.addEventListener("pointerdown", (event) => {
      element.setPointerCapture(event.pointerId);
      act(event);
    });
    element.addEventListener("pointermove", act);
    element.addEventListener("dragover", (event) => event.preventDefault());
    element.addEventListener("drop", (event) => {
      event.preventDefault();
      if (event.dataTransfer.files[0]) this._drop(event.dataTransfer.files[0]);
    });
  }

  // A soft dab around a place, whose radius grows with the image.
  _dab(x, y) {
    const radius = Math.max(0.8, this.width / 18) * (this.tool === "draw" ? 1 : 1.6);
    for (let i = 0; i < this.height; i++)
      for (let j = 0; j < this.width; j++) {
        const near = Math.max(0, 1 - Math.hypot(j + 0.5 - x, i + 0.5 - y) / (radius + 0.5));
        if (!near) continue;
        const at = i * this.width + j;
        if (this.tool === "blank") this.blank[at] = 1;
        else this.blank[at] = 0;
        for (let c = 0; c < this.channels && this.tool !== "blank"; c++) {
          const place = c * this.height * this.width + at;
          this.shades[place] = this.tool === "draw" ? Math.min(1, this.shades[place] + 1.6 * near) : 0;
        }
      }
    this._show();
  }

  async _drop(file) {
    let picture;
    try {
      picture = await createImageBitmap(file);
    } catch {
      return; // not an image
    }
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [this.width, this.height];
    const pen = canvas.getContext("2d");
    pen.drawImage(picture, 0, 0, this.width, this.height);
    const { data } = pen.getImageData(0, 0, this.width, this.height);
    for (let at = 0; at < this.height * this.width; at++)
      for (let c = 0; c < this.channels; c++) {
        const grey = (data[4 * at] + data[4 * at + 1] + data[4 * at + 2]) / 3;
        this.shades[c * this.height * this.width + at] = (this.channels === 3 ? data[4 * at + c] : grey) / 255;
      }
    this.blank.fill(0);
    this._show();
  }
}
