// The plane that is shown of latent space: two of its dimensions, or the first two principal components.
import { row, unpack } from "./numbers.js";

export class Space {
  constructor({ plane, latents }) {
    this.means = unpack(plane.means);
    this.size = this.means.shape[1];
    this.names = latents.names;
    this.explained = plane.explained;
    if (plane.directions) {
      const directions = unpack(plane.directions);
      this.directions = [row(directions, 0), row(directions, 1)];
      this.center = unpack(plane.center).values;
    }
    this.order = _mostInformative(latents);
    this.choose("auto");
  }

  // Shows "components", or two dimensions such as "0,3"; "auto" is the components where there are more than two.
  choose(axes) {
    const chosen = String(axes).split(",").map(Number);
    const valid = chosen.length === 2 && chosen.every((d) => Number.isInteger(d) && d >= 0 && d < this.size);
    this.axes = valid ? chosen : this.directions ? null : [0, Math.min(1, this.size - 1)];
  }

  // The choices: the components, and pairs of the most informative dimensions.
  choices() {
    const pairs = [];
    const few = this.order.slice(0, 4);
    few.forEach((a, i) => few.slice(i + 1).forEach((b) => pairs.push([a, b])));
    const named = pairs.map(([a, b]) => ({ value: `${a},${b}`, name: `${this.names[a]}, ${this.names[b]}` }));
    return this.directions ? [{ value: "auto", name: "principal components" }, ...named] : [];
  }

  label(k) {
    if (this.axes) return this.size === 1 && k === 1 ? "" : this.names[this.axes[k]];
    const share = this.explained ? ` (${Math.round(100 * this.explained[k])}%)` : "";
    return `component ${k + 1}${share}`;
  }

  // Where a point of latent space lies in the plane; points of one dimension are spread by their number.
  project(z, i = 0) {
    if (!this.axes)
      return this.directions.map((direction) =>
        direction.reduce((sum, weight, d) => sum + weight * (z[d] - this.center[d]), 0),
      );
    return this.size === 1 ? [z[0], ((i * 0.618034) % 1) - 0.5] : [z[this.axes[0]], z[this.axes[1]]];
  }

  // The point of latent space at a place of the plane: what the plane does not show stays as in z.
  lift([u, v], z) {
    const moved = Float32Array.from(z);
    if (this.axes) {
      moved[this.axes[0]] = u;
      if (this.size > 1) moved[this.axes[1]] = v;
      return moved;
    }
    const old = this.project(z);
    [u - old[0], v - old[1]].forEach((step, k) => this.directions[k].forEach((weight, d) => (moved[d] += step * weight)));
    return moved;
  }

  // The point of the plane where all else is the center: 0, or the mean of the means.
  origin() {
    return this.axes ? new Float32Array(this.size) : Float32Array.from(this.center);
  }
}

// Dimensions by their KL, or by how much the means vary.
function _mostInformative({ kl, variance }) {
  const by = kl || variance;
  return by.map((_, d) => d).sort((a, b) => by[b] - by[a]);
}
