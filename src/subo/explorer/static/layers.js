// A ladder's layers: what is left of the selected example where only its upper layers are kept.
import { figure, paragraph, section } from "./layout.js";
import { row, unpack } from "./numbers.js";
import { montage, takeaways } from "./save.js";

export class Layers {
  constructor(app) {
    this.app = app;
    this.record = app.record.layers;
    this.shades = unpack(this.record.shades);
    this.element = section("layers", "The layers", "The mean of x where the layers up to the named one are the example's and those below are drawn anew, by 16 samples: what sharpens from one picture to the next is what the layer adds.");
    this.strip = document.createElement("div");
    this.strip.className = "strip";
    this.element.append(this.strip, takeaways({ name: "layers", canvas: () => montage(this.strip) }));
    app.state.on(["example"], () => this._show());
    this._show();
  }

  _show() {
    const { app } = this;
    const i = app.example;
    const count = this.shades.shape[1];
    if (i >= count) {
      this.strip.replaceChildren(paragraph(`Kept for the first ${count} of these examples.`, "hint"));
      return;
    }
    const add = (picture, caption) => figure(picture, caption);
    const own = app.painter(96);
    own.show(row(app.x, i));
    const pictures = this.record.names.map((name, l) => {
      const picture = app.painter(96);
      picture.show(this.shadesOf(l, i));
      return add(picture, l ? `and ${name}` : `${name} alone`);
    });
    this.strip.replaceChildren(...pictures, add(own, app.rowOf(i)));
  }

  // The picture of one layer and example, as values of x.
  shadesOf(l, i) {
    const { factor, shift } = this.app.record.shading;
    const [, count, ...event] = this.shades.shape;
    const size = event.reduce((product, side) => product * side, 1);
    const at = (l * count + i) * size;
    return Float32Array.from(this.shades.values.subarray(at, at + size), (shade) => (shade / 255 - shift) / factor);
  }
}
