// A network as a list of operations on one flat array, the page's counterpart of subo/explorer/operations.py.
import { logSumExp, sigmoid, softplus, unpack } from "./numbers.js";

const _ACTIVATIONS = {
  tanh: () => Math.tanh,
  sigmoid: () => sigmoid,
  softplus: ({ slope }) => (x) => softplus(slope * x) / slope,
  silu: () => (x) => x / (1 + Math.exp(-x)),
  relu: () => (x) => (x > 0 ? x : 0),
  elu: ({ slope }) => (x) => (x > 0 ? x : slope * Math.expm1(x)),
  gelu: () => (x) => 0.5 * x * (1 + _erf(x / Math.SQRT2)),
  "gelu-tanh": () => (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  "leaky-relu": ({ slope }) => (x) => (x > 0 ? x : slope * x),
};

// The error function within 1e-12: its series for small x, a continued fraction for large ones.
function _erf(x) {
  const size = Math.abs(x);
  if (size > 6) return Math.sign(x);
  if (size < 2.5) {
    let term = size;
    let sum = size;
    for (let n = 1; n < 60; n++) {
      term *= (-size * size) / n;
      sum += term / (2 * n + 1);
    }
    return (Math.sign(x) * 2 * sum) / Math.sqrt(Math.PI);
  }
  let fraction = 0;
  for (let n = 60; n > 0; n--) fraction = n / 2 / (size + fraction);
  return Math.sign(x) * (1 - Math.exp(-size * size) / Math.sqrt(Math.PI) / (size + fraction));
}

export class Network {
  constructor(record) {
    this.inputs = record.inputs;
    this.stores = { f16: unpack(record.numbers.f16).values, f32: unpack(record.numbers.f32).values };
    this.steps = record.operations.map((operation) => this._step(operation));
  }

  // Numbers that a record refers to by precision and position; null stays null.
  at(place, count) {
    return place && this.stores[place[0]].subarray(place[1], place[1] + count);
  }

  // The outputs for one input; context has a vector for each name, or the number of a class as label.
  run(input, context = {}) {
    let values = input;
    for (const step of this.steps) values = step(values, context);
    return values;
  }

  _step(operation) {
    const make = {
      linear: () => this._linear(operation),
      activation: () => this._activation(operation),
      convolution: () => this._convolution(operation),
      transposed: () => this._transposed(operation),
      normalize: () => this._normalize(operation),
      affine: () => this._affine(operation),
      residual: () => this._residual(operation),
      join: () => this._join(operation),
      cells: () => _cells(operation),
      clamp: () => _clamp(operation),
      offset: () => _offset(operation),
      total: () => _total(operation),
      "per-size": () => (x, { size = 1 }) => Float32Array.from(x, (value) => Math.log1p(value / size)),
    }[operation.op];
    if (!make) throw new Error(`unknown operation ${operation.op}`);
    return make();
  }

  _linear({ in: inputs, out: outputs, weight, bias }) {
    const w = this.at(weight, inputs * outputs);
    const b = this.at(bias, outputs);
    return (x) => {
      const y = new Float32Array(outputs);
      for (let o = 0, at = 0; o < outputs; o++) {
        let sum = b ? b[o] : 0;
        for (let i = 0; i < inputs; i++, at++) sum += w[at] * x[i];
        y[o] = sum;
      }
      return y;
    };
  }

  _activation(operation) {
    const of = _ACTIVATIONS[operation.name](operation);
    return (x) => Float32Array.from(x, of);
  }

  _convolution({ in: [channels, height, width], out: [outputs, rows, columns], kernel, stride, padding, weight, bias }) {
    const w = this.at(weight, outputs * channels * kernel[0] * kernel[1]);
    const b = this.at(bias, outputs);
    return (x) => {
      const y = new Float32Array(outputs * rows * columns);
      for (let o = 0; o < outputs; o++)
        for (let r = 0; r < rows; r++)
          for (let c = 0; c < columns; c++) {
            let sum = b ? b[o] : 0;
            for (let i = 0; i < channels; i++)
              for (let u = 0; u < kernel[0]; u++) {
                const h = r * stride[0] - padding[0] + u;
                if (h < 0 || h >= height) continue;
                for (let v = 0; v < kernel[1]; v++) {
                  const k = c * stride[1] - padding[1] + v;
                  if (k < 0 || k >= width) continue;
                  sum += w[((o * channels + i) * kernel[0] + u) * kernel[1] + v] * x[(i * height + h) * width + k];
                }
              }
            y[(o * rows + r) * columns + c] = sum;
          }
      return y;
    };
  }

  // Each input adds its kernel to the outputs around it; what lies outside is cut off.
  _transposed({ in: [channels, height, width], out: [outputs, rows, columns], kernel, stride, padding, weight, bias }) {
    const w = this.at(weight, channels * outputs * kernel[0] * kernel[1]);
    const b = this.at(bias, outputs);
    return (x) => {
      const y = new Float32Array(outputs * rows * columns);
      if (b) for (let o = 0; o < outputs; o++) y.fill(b[o], o * rows * columns, (o + 1) * rows * columns);
      for (let i = 0; i < channels; i++)
        for (let h = 0; h < height; h++)
          for (let k = 0; k < width; k++) {
            const value = x[(i * height + h) * width + k];
            if (value === 0) continue;
            for (let o = 0; o < outputs; o++)
              for (let u = 0; u < kernel[0]; u++) {
                const r = h * stride[0] - padding[0] + u;
                if (r < 0 || r >= rows) continue;
                for (let v = 0; v < kernel[1]; v++) {
                  const c = k * stride[1] - padding[1] + v;
                  if (c < 0 || c >= columns) continue;
                  y[(o * rows + r) * columns + c] += value * w[((i * outputs + o) * kernel[0] + u) * kernel[1] + v];
                }
              }
          }
      return y;
    };
  }

  _normalize({ size, eps, weight, bias }) {
    const w = this.at(weight, size);
    const b = this.at(bias, size);
    return (x) => {
      let mean = 0;
      for (let i = 0; i < size; i++) mean += x[i] / size;
      let variance = 0;
      for (let i = 0; i < size; i++) variance += (x[i] - mean) ** 2 / size;
      const factor = 1 / Math.sqrt(variance + eps);
      return Float32Array.from(x, (value, i) => (value - mean) * factor * w[i] + b[i]);
    };
  }

  _affine({ size, weight, bias }) {
    const w = this.at(weight, size);
    const b = this.at(bias, size);
    return (x) => Float32Array.from(x, (value, i) => w[i] * value + b[i]);
  }

  _residual({ branch }) {
    const steps = branch.map((operation) => this._step(operation));
    return (x, context) => {
      const inner = steps.reduce((values, step) => step(values, context), x);
      return Float32Array.from(x, (value, i) => value + inner[i]);
    };
  }

  // The condition behind the input: a class as one-hot code, each number repeated for all pixels; or coded cells.
  _join({ name, classes, repeat, operations }) {
    const steps = (operations || []).map((operation) => this._step(operation));
    return (x, context) => {
      let added;
      if (name === "label") {
        added = new Float32Array(classes * repeat);
        added.fill(1, context.label * repeat, (context.label + 1) * repeat);
      } else added = steps.reduce((values, step) => step(values, context), context[name]);
      const joined = new Float32Array(x.length + added.length);
      joined.set(x);
      joined.set(added, x.length);
      return joined;
    };
  }
}

// Logarithms of means, shifted so that the means sum to a total; those of counts with further zeros are lower.
function _total({ places, logits, total }) {
  return (x) => {
    const means = places.map((place, i) => x[place] - (logits ? softplus(x[logits[i]]) : 0));
    const excess = logSumExp(means) - Math.log(total);
    const moved = Float32Array.from(x);
    for (const place of places) moved[place] -= excess;
    return moved;
  };
}

// The logarithm of the row's size, added to logarithms of means.
function _offset({ places }) {
  return (x, { size = 1 }) => {
    const moved = Float32Array.from(x);
    for (const place of places) moved[place] += Math.log(size);
    return moved;
  };
}

// Numbers no lower than low and no higher than high; null stands for infinity.
function _clamp({ low, high }) {
  return (x) => Float32Array.from(x, (value, i) => _within(value, low[i], high[i]));
}

function _within(value, low, high) {
  return Math.min(Math.max(value, low ?? -Infinity), high ?? Infinity);
}

// A table's row as numbers in units, one-hot levels, spikes, and what is observed; NaN is missing, infinity a spike.
// No number lies beyond low and high, those of the training rows; null stands for infinity.
function _cells({ numbers, counts, spikes, column, level, center, unit, unseen, low = [], high = [] }) {
  return (x) => {
    const shown = numbers.map((index, i) => {
      const value = counts[i] ? Math.log1p(Math.max(0, x[index])) : x[index];
      const scaled = (_within(value, low[i], high[i]) - center[i]) / unit[i];
      return Number.isFinite(x[index]) && !(unseen[i] !== null && x[index] >= unseen[i]) ? scaled : 0;
    });
    const hot = column.map((index, i) => (x[index] === level[i] ? 1 : 0));
    const spiked = spikes.map((index) => (x[index] === Infinity ? 1 : 0));
    const observed = Array.from(x, (value) => (Number.isNaN(value) ? 0 : 1));
    return Float32Array.from([...shown, ...hot, ...spiked, ...observed]);
  };
}
