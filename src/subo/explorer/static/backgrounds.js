// What lies behind the points of the plane: the prior's contours, decoded pictures, the aggregate posterior, stretching.
import { shadeParts } from "./colors.js";
import { Mixture, Normal } from "./prior.js";
import { row } from "./numbers.js";
import { tileOf } from "./paint.js";

const _TILES = 15; // decoded pictures of an axis
const _CELLS = 48; // of a map

// The choices that this model offers.
export function backgrounds(app) {
  const { model, record, space } = app;
  const plane = space.size === 2 && model.latents === 2;
  const pictures = model.decodes && record.shape.length === 3 && space.size > 1 && (model.decoder || plane);
  return [
    { value: "none", name: "nothing" },
    ...(plane && model.priors ? [{ value: "prior", name: "prior" }] : []),
    ...(pictures ? [{ value: "grid", name: "decoded, -3 to 3" }] : []),
    ...(pictures && plane ? [{ value: "quantiles", name: "decoded, by the normal's quantiles" }] : []),
    ...(plane && record.examples.q ? [{ value: "aggregate", name: "aggregate posterior" }] : []),
    ...(model.decoder && space.size > 1 && !record.columns ? [{ value: "stretching", name: "how the decoder stretches" }] : []),
  ];
}

// Draws a background into a pen whose coordinates are those of the plane, by `place`; kept until something changes.
export function paintBackground(app, name, pen, place, key) {
  if (!backgrounds(app).some(({ value }) => value === name)) return; // of an address of another run
  const kept = (app.backgroundCache ||= new Map());
  const full = `${name} ${key}`;
  if (!kept.has(full)) {
    kept.clear();
    kept.set(full, _made(app, name));
  }
  const made = kept.get(full);
  if (made) made(pen, place);
}

function _made(app, name) {
  const context = app.context();
  if (name === "prior") return _densityMap((z) => app.model.prior(context).logProb(z), [-4, 4]);
  if (name === "aggregate") return _densityMap(_aggregate(app.q), [-4, 4]);
  if (name === "stretching") return _stretching(app, context);
  if (name === "grid" || name === "quantiles") return _pictures(app, context, name === "quantiles");
  return null;
}

// log q(z) = log mean_n q(z|x_n), over the examples of the page.
function _aggregate({ means, factors }) {
  const parts = Array.from({ length: means.shape[0] }, (_, i) => new Normal(row(means, i), row(factors, i)));
  const mixture = new Mixture(new Float64Array(parts.length).fill(-Math.log(parts.length)), parts);
  return (z) => mixture.logProb(z);
}

// A density as shades of blue, which fade where it falls by four nats.
function _densityMap(logDensity, [low, high]) {
  const values = _onCells(low, high, (point) => logDensity(Float32Array.from(point)));
  const highest = Math.max(...values);
  return _map(values, low, high, (value) => [60, 120, 200, 235 * Math.exp((value - highest) / 2)]);
}

// log sqrt det J'J of the mean of p(x|z) in the plane's two directions, by differences.
function _stretching(app, context) {
  const { model, space } = app;
  const h = 1e-2;
  const origin = space.origin();
  const values = _onCells(-3, 3, ([u, v]) => {
    const corners = [[u, v], [u + h, v], [u, v + h]];
    const [here, right, up] = corners.map((point) => model.mean(space.lift(point, origin), context));
    let [aa, bb, ab] = [0, 0, 0];
    here.forEach((value, d) => {
      const [a, b] = [(right[d] - value) / h, (up[d] - value) / h];
      [aa, bb, ab] = [aa + a * a, bb + b * b, ab + a * b];
    });
    return 0.5 * Math.log(Math.max(aa * bb - ab * ab, 1e-30));
  });
  const sorted = Float64Array.from(values).sort();
  const [lowest, highest] = [0.02, 0.98].map((share) => sorted[Math.floor(share * (sorted.length - 1))]);
  return _map(values, -3, 3, (value) => [...shadeParts((value - lowest) / (highest - lowest || 1)), 170]);
}

// A function's values at the middles of a square's cells, from the lowest line upwards.
function _onCells(low, high, of) {
  const step = (high - low) / _CELLS;
  return Float64Array.from({ length: _CELLS ** 2 }, (_, at) =>
    of([low + ((at % _CELLS) + 0.5) * step, low + (Math.floor(at / _CELLS) + 0.5) * step]),
  );
}

// Draws values as a picture of one pixel a cell, which the browser enlarges smoothly.
function _map(values, low, high, color) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = _CELLS;
  const image = new ImageData(_CELLS, _CELLS);
  values.forEach((value, at) => {
    const line = _CELLS - 1 - Math.floor(at / _CELLS);
    image.data.set(color(value), 4 * (line * _CELLS + (at % _CELLS)));
  });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return (pen, place) => {
    const [left, bottom] = place([low, low]);
    const [right, top] = place([high, high]);
    pen.imageSmoothingEnabled = true;
    pen.drawImage(canvas, left, top, right - left, bottom - top);
  };
}

// Decoded means on a grid: equally spaced, or at quantiles of the normal, where each picture stands for the same mass.
function _pictures(app, context, byQuantiles) {
  const { model, space, record } = app;
  const axis = Array.from({ length: _TILES }, (_, k) =>
    byQuantiles ? normalQuantile((k + 0.5) / _TILES) : -3 + (6 * k) / (_TILES - 1),
  );
  const origin = space.origin();
  const tiles = axis.flatMap((v) => axis.map((u) => tileOf(model.mean(space.lift([u, v], origin), context), record)));
  const edges = axis.map((value, k) => (k ? (value + axis[k - 1]) / 2 : value - (axis[1] - value) / 2));
  edges.push(axis[_TILES - 1] + (axis[_TILES - 1] - axis[_TILES - 2]) / 2);
  return (pen, place) => {
    pen.imageSmoothingEnabled = false;
    tiles.forEach((tile, at) => {
      const [i, j] = [Math.floor(at / _TILES), at % _TILES];
      const [left, bottom] = place([edges[j], edges[i]]);
      const [right, top] = place([edges[j + 1], edges[i + 1]]);
      pen.drawImage(tile, left, top, right - left, bottom - top);
    });
  };
}

// The quantile of the standard normal, by bisection of its distribution function's series (Marsaglia, 2004).
export function normalQuantile(share) {
  let [low, high] = [-9, 9];
  for (let k = 0; k < 60; k++) {
    const middle = (low + high) / 2;
    if (_below(middle) < share) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

function _below(x) {
  if (Math.abs(x) > 8) return x > 0 ? 1 : 0;
  let [term, sum] = [x, x];
  for (let k = 3; Math.abs(term) > 1e-17; k += 2) sum += term *= (x * x) / k;
  return 0.5 + sum * Math.exp(-x * x / 2 - 0.91893853320467274178);
}
