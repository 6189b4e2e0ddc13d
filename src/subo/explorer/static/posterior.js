// The exact posterior of one example with two latents, its bound for any q, and a q that is optimized for it.
import { Random, logSumExp } from "./numbers.js";
import { Normal } from "./prior.js";

const _SIDE = 61; // points of an axis
const _SAMPLES = 64; // of q, for the bound
const _WEIGHED = 300; // and for log p(x)
const _STEP = 5e-3; // of the differences by which the path's gradient is taken

// log p(x, z) on a square of points. It is first taken over the whole plane, then where the mass lies.
export function exactPosterior(model, x, context, reach = 6) {
  let box = { low: [-reach, -reach], high: [reach, reach] };
  let found;
  for (let pass = 0; pass < 4; pass++) {
    found = _onGrid(model, x, context, box);
    const narrower = _aroundMass(found, box);
    const shrinks = narrower.high[0] - narrower.low[0] < 0.7 * (box.high[0] - box.low[0]);
    const shrinksToo = narrower.high[1] - narrower.low[1] < 0.7 * (box.high[1] - box.low[1]);
    if (!shrinks && !shrinksToo) break;
    box = narrower;
  }
  return found;
}

// The joint density on a grid, log p(x) by the sum over it, and the posterior p(z|x) there.
function _onGrid(model, x, context, { low, high }) {
  const step = [0, 1].map((d) => (high[d] - low[d]) / (_SIDE - 1));
  const logJoint = new Float64Array(_SIDE * _SIDE);
  for (let i = 0; i < _SIDE; i++)
    for (let j = 0; j < _SIDE; j++) {
      const z = Float32Array.of(low[0] + j * step[0], low[1] + i * step[1]);
      logJoint[i * _SIDE + j] = model.logJoint(x, z, context);
    }
  const logArea = Math.log(step[0] * step[1]);
  const logPx = logSumExp(logJoint) + logArea;
  return { low, high, side: _SIDE, logPx, logPosterior: logJoint.map((value) => value - logPx), logArea };
}

// The smallest box of the grid points that hold more than 1e-8 of the mass each, and two points more on every side.
function _aroundMass({ logPosterior, logArea }, { low, high }) {
  let [left, right, bottom, top] = [_SIDE, 0, _SIDE, 0];
  logPosterior.forEach((value, at) => {
    if (value + logArea < Math.log(1e-8)) return;
    const [i, j] = [Math.floor(at / _SIDE), at % _SIDE];
    [left, right, bottom, top] = [Math.min(left, j), Math.max(right, j), Math.min(bottom, i), Math.max(top, i)];
  });
  const place = (d, k) => low[d] + (Math.min(Math.max(k, 0), _SIDE - 1) * (high[d] - low[d])) / (_SIDE - 1);
  return { low: [place(0, left - 2), place(1, bottom - 2)], high: [place(0, right + 2), place(1, top + 2)] };
}

// ELBO = E_q[log p(x|z) + log p(z) - log q(z)] by the same noise at every call, with its error.
export function elboOf(model, x, context, q, { samples = _SAMPLES, seed = 1 } = {}) {
  const random = new Random(seed);
  const values = Array.from({ length: samples }, () => {
    const z = q.sample(random);
    return model.logJoint(x, z, context) - q.logProb(z);
  });
  const mean = values.reduce((sum, value) => sum + value, 0) / samples;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (samples - 1);
  return { mean, error: Math.sqrt(variance / samples) };
}

// Samples of q with the logarithms of their importance weights p(x, z) / q(z|x).
export function weighted(model, x, context, q, random, samples = _WEIGHED) {
  const z = Array.from({ length: samples }, () => q.sample(random));
  return { z, logWeights: z.map((one) => model.logJoint(x, one, context) - q.logProb(one)) };
}

// log p(x) by importance sampling, its error by the delta method, and the effective sample size.
export function logMarginal(model, x, context, q, random, samples = _WEIGHED) {
  const { logWeights } = weighted(model, x, context, q, random, samples);
  const total = logSumExp(logWeights);
  const shares = logWeights.map((value) => Math.exp(value - total));
  const squares = shares.reduce((sum, share) => sum + share ** 2, 0);
  return { logPx: total - Math.log(samples), error: Math.sqrt(Math.max(squares - 1 / samples, 0)), ess: 1 / squares, samples };
}

// Steps of Adam on mean and log standard deviations of a factorized q, along the path z = mean + scale * noise.
// The derivative of log p(x, z) in z is a central difference in each dimension; the entropy's is exact.
export class Ascent {
  constructor(model, x, context, q, { samples = 8, rate = 0.05, seed = 2 } = {}) {
    Object.assign(this, { model, x, context, samples, rate, random: new Random(seed), steps: 0 });
    this.size = q.size;
    this.values = new Float64Array(2 * q.size);
    q.mean.forEach((value, d) => (this.values[d] = value));
    for (let d = 0; d < q.size; d++) this.values[q.size + d] = Math.log(q.deviation(d));
    this.first = new Float64Array(2 * q.size);
    this.second = new Float64Array(2 * q.size);
  }

  get q() {
    const scales = Float32Array.from(this.values.subarray(this.size), Math.exp);
    return new Normal(Float32Array.from(this.values.subarray(0, this.size)), scales);
  }

  step() {
    const gradient = this._gradient();
    this.steps += 1;
    gradient.forEach((value, i) => {
      this.first[i] = 0.9 * this.first[i] + 0.1 * value;
      this.second[i] = 0.999 * this.second[i] + 0.001 * value ** 2;
      const mean = this.first[i] / (1 - 0.9 ** this.steps);
      const size = Math.sqrt(this.second[i] / (1 - 0.999 ** this.steps)) + 1e-8;
      this.values[i] += (this.rate * mean) / size;
    });
    return this.q;
  }

  _gradient() {
    const gradient = new Float64Array(2 * this.size);
    const q = this.q;
    for (let k = 0; k < this.samples; k++) {
      const noise = Float64Array.from(q.mean, () => this.random.normal());
      const z = q.move(noise);
      for (let d = 0; d < this.size; d++) {
        const slope = this._slope(z, d) / this.samples;
        gradient[d] += slope;
        gradient[this.size + d] += slope * noise[d] * q.factor[d];
      }
    }
    for (let d = 0; d < this.size; d++) gradient[this.size + d] += 1;
    return gradient;
  }

  _slope(z, d) {
    const at = (value) => this.model.logJoint(this.x, Float32Array.from(z, (old, i) => (i === d ? value : old)), this.context);
    return (at(z[d] + _STEP) - at(z[d] - _STEP)) / (2 * _STEP);
  }
}
