// Mixtures of normals over z: priors, and the aggregate posterior.
import { logSumExp, row, unpack } from "./numbers.js";

const _LOG_ROOT_2PI = 0.5 * Math.log(2 * Math.PI);

// A normal N(mean, L L'), with L as standard deviations (D,) or as a lower triangle (D, D).
export class Normal {
  constructor(mean, factor) {
    this.mean = mean;
    this.size = mean.length;
    this.factor = factor;
    this.diagonal = factor.length === this.size;
  }

  // The entry of L.
  at(i, j) {
    return this.diagonal ? (i === j ? this.factor[i] : 0) : this.factor[i * this.size + j];
  }

  logProb(z) {
    const noise = new Float64Array(this.size);
    let total = 0;
    for (let i = 0; i < this.size; i++) {
      let rest = z[i] - this.mean[i];
      if (!this.diagonal) for (let j = 0; j < i; j++) rest -= this.at(i, j) * noise[j];
      noise[i] = rest / this.at(i, i);
      total -= 0.5 * noise[i] ** 2 + Math.log(this.at(i, i)) + _LOG_ROOT_2PI;
    }
    return total;
  }

  // mean + L noise.
  move(noise) {
    return Float32Array.from(this.mean, (value, i) => {
      let sum = value;
      for (let j = this.diagonal ? i : 0; j <= i; j++) sum += this.at(i, j) * noise[j];
      return sum;
    });
  }

  sample(random) {
    return this.move(Float64Array.from(this.mean, () => random.normal()));
  }

  // Standard deviation of one dimension.
  deviation(d) {
    if (this.diagonal) return this.factor[d];
    let sum = 0;
    for (let j = 0; j <= d; j++) sum += this.at(d, j) ** 2;
    return Math.sqrt(sum);
  }

  // Covariance of two dimensions.
  covariance(a, b) {
    let sum = 0;
    for (let j = 0; j < this.size; j++) sum += this.at(a, j) * this.at(b, j);
    return sum;
  }
}

export class Mixture {
  constructor(logWeights, parts) {
    this.logWeights = logWeights;
    this.parts = parts;
  }

  static of(record) {
    const [means, factors] = [unpack(record.means), unpack(record.factors)];
    const parts = Array.from({ length: means.shape[0] }, (_, i) => new Normal(row(means, i), row(factors, i)));
    return new Mixture(unpack(record.log_weights).values, parts);
  }

  logProb(z) {
    if (this.parts.length === 1) return this.parts[0].logProb(z);
    return logSumExp(this.parts.map((part, i) => this.logWeights[i] + part.logProb(z)));
  }

  sample(random) {
    return this.parts[random.among(this.logWeights)].sample(random);
  }
}
