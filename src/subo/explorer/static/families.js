// Families of p(x|z): the mean, the log-density and draws for given parameters, the counterpart of explorer/heads.py.
import { logGamma, logSumExp, sigmoid, softplus, through } from "./numbers.js";

const _LOG_2PI = Math.log(2 * Math.PI);

// The family of a record; its numbers lie in the network's stores.
export function familyOf(head, network) {
  const make = {
    bernoulli: _bernoulli,
    "continuous-bernoulli": _continuousBernoulli,
    poisson: _poisson,
    "negative-binomial": _negativeBinomial,
    "zero-inflated-negative-binomial": _zeroInflated,
    categorical: _categorical,
    gaussian: _located(_normal),
    laplace: _located(_laplace),
    "student-t": _located(_studentT),
    columns: _columns,
  }[head.family];
  if (!make) throw new Error(`unknown family ${head.family}`);
  return { name: head.family, size: head.size, ...make(head, network) };
}

// A family of independent elements, from one function of the parameters of an element.
function _elementwise(size, element) {
  return {
    mean: (params) => Float32Array.from({ length: size }, (_, d) => element(params, d).mean),
    logProb(params, x) {
      let total = 0;
      for (let d = 0; d < size; d++) total += element(params, d).logProb(x[d]);
      return total;
    },
    sample: (params, random) => Float32Array.from({ length: size }, (_, d) => element(params, d).sample(random)),
    element,
  };
}

function _bernoulli({ size }) {
  return {
    mean: (params) => Float32Array.from(params, sigmoid),
    logProb(params, x) {
      let total = 0;
      for (let d = 0; d < size; d++) total += x[d] * params[d] - softplus(params[d]);
      return total;
    },
    sample: (params, random) => Float32Array.from(params, (logit) => (random.uniform() < sigmoid(logit) ? 1 : 0)),
  };
}

// Density exp(eta x - A(eta)) on [0, 1], A = log((e^eta - 1) / eta).
function _continuousBernoulli({ size, min_scale: floor }) {
  return _elementwise(size, (params, d) => {
    const eta = floor ? Math.tanh(floor * params[d]) / floor : params[d];
    const small = Math.abs(eta) < 1e-2;
    const a = small
      ? eta / 2 + (eta * eta) / 24
      : Math.max(eta, 0) + Math.log(-Math.expm1(-Math.abs(eta)) / Math.abs(eta));
    const mean = small ? 0.5 + eta / 12 : 1 / -Math.expm1(-eta) - 1 / eta;
    const sample = (random) => {
      const u = random.uniform();
      return small ? u : eta > 0 ? 1 + Math.log(u + (1 - u) * Math.exp(-eta)) / eta : Math.log1p(u * Math.expm1(eta)) / eta;
    };
    return { mean, logProb: (x) => eta * x - a, sample };
  });
}

function _poissonDraw(rate, random) {
  if (rate > 50) return Math.max(0, Math.round(rate + Math.sqrt(rate) * random.normal()));
  let count = 0;
  for (let product = random.uniform(); product > Math.exp(-rate); product *= random.uniform()) count++;
  return count;
}

function _poisson({ size }) {
  return _elementwise(size, (params, d) => ({
    mean: Math.exp(params[d]),
    logProb: (x) => x * params[d] - Math.exp(params[d]) - logGamma(x + 1),
    sample: (random) => _poissonDraw(Math.exp(params[d]), random),
  }));
}

// Mean m and variance m + a m^2; a Poisson whose rate has a Gamma distribution (Marsaglia and Tsang's draws).
function _counted(logMean, a) {
  const mean = Math.exp(logMean);
  const logProb = (x) => {
    if (a < 1e-6) return x * logMean - mean - logGamma(x + 1);
    const shape = 1 / a;
    const pairs = logGamma(x + shape) - logGamma(shape) - logGamma(x + 1);
    return pairs + x * (Math.log(a) + logMean) - (x + shape) * Math.log1p(a * mean);
  };
  const sample = (random) => _poissonDraw(a < 1e-6 ? mean : mean * a * _gamma(1 / a, random), random);
  return { mean, logProb, sample };
}

function _gamma(shape, random) {
  if (shape < 1) return _gamma(shape + 1, random) * random.uniform() ** (1 / shape);
  const d = shape - 1 / 3;
  for (;;) {
    const z = random.normal();
    const v = (1 + z / Math.sqrt(9 * d)) ** 3;
    if (v > 0 && Math.log(random.uniform()) < (z * z) / 2 + d - d * v + d * Math.log(v)) return d * v;
  }
}

function _negativeBinomial({ size, dispersion }, network) {
  const a = _scaled(dispersion, size, network);
  return _elementwise(size, (params, d) => _counted(params[d], a(params[size + d], d)));
}

// 0 with probability pi, else negative binomial.
function _zeroInflated({ size, dispersion }, network) {
  const a = _scaled(dispersion, size, network);
  return _elementwise(size, (params, d) => {
    const [logit, counted] = [params[size + d], _counted(params[d], a(params[2 * size + d], d))];
    const [more, kept] = [-softplus(-logit), -softplus(logit)];
    return {
      mean: sigmoid(-logit) * counted.mean,
      logProb: (x) => (x === 0 ? logSumExp([more, kept + counted.logProb(0)]) : kept + counted.logProb(x)),
      sample: (random) => (random.uniform() < sigmoid(logit) ? 0 : counted.sample(random)),
    };
  });
}

// A scale: numbers of its own, or a softplus of what the network gives, above a floor.
function _scaled(scale, size, network) {
  if (scale.values) {
    const own = network.at(scale.values, size);
    return (raw, d) => own[d];
  }
  return (raw) => scale.floor + softplus(scale.beta * raw) / scale.beta;
}

const _normal = (loc, scale) => ({
  mean: loc,
  scale,
  logProb: (x) => -0.5 * ((x - loc) / scale) ** 2 - Math.log(scale) - 0.5 * _LOG_2PI,
  sample: (random) => loc + scale * random.normal(),
});

const _laplace = (loc, scale) => ({
  mean: loc,
  scale,
  logProb: (x) => -Math.abs(x - loc) / scale - Math.log(2 * scale),
  sample(random) {
    const u = random.uniform() - 0.5;
    return loc - scale * Math.sign(u) * Math.log1p(-2 * Math.abs(u));
  },
});

const _studentT = (loc, scale, v) => ({
  mean: loc,
  scale,
  logProb(x) {
    const constant = logGamma((v + 1) / 2) - logGamma(v / 2) - 0.5 * Math.log(v * Math.PI) - Math.log(scale);
    return constant - ((v + 1) / 2) * Math.log1p(((x - loc) / scale) ** 2 / v);
  },
  sample: (random) => loc + (scale * random.normal()) / Math.sqrt((2 * _gamma(v / 2, random)) / v),
});

function _located(make) {
  return ({ size, scale, center, unit, degrees }, network) => {
    const [middle, units, v] = [center, unit, degrees].map((place) => network.at(place || null, size));
    const of = _scaled(scale, size, network);
    return _elementwise(size, (params, d) => {
      const factor = units ? units[d] : 1;
      const loc = (middle ? middle[d] : 0) + factor * params[d];
      return make(loc, factor * of(params[size + d], d), v && v[d]);
    });
  };
}

function _categorical({ size, count, impossible }) {
  return _elementwise(size, (params, d) => {
    const logits = Array.from({ length: count }, (_, c) =>
      impossible && impossible[d * count + c] ? -Infinity : params[c * size + d],
    );
    return _levels(logits);
  });
}

function _levels(logits) {
  const highest = Math.max(...logits);
  const weights = logits.map((logit) => Math.exp(logit - highest));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return {
    probabilities: weights.map((weight) => weight / total),
    mean: weights.reduce((sum, weight, c) => sum + c * weight, 0) / total,
    logProb: (x) => logits[x] - highest - Math.log(total),
    sample: (random) => random.among(logits),
  };
}

// Columns of a table by kind; a missing cell is NaN and adds nothing.
function _columns({ groups, shift, slope, knots, scores, size }, network) {
  const cells = (params) => {
    const all = new Array(size);
    for (const group of groups) {
      const own = params.subarray(group.first);
      group.index.forEach((column, i) => (all[column] = _cell(group, own, i, network)));
    }
    return all;
  };
  return {
    cells,
    mean: (params) => Float32Array.from(cells(params), (cell) => cell.mean),
    logProb(params, x) {
      let total = 0;
      cells(params).forEach((cell, d) => {
        if (Number.isNaN(x[d])) return;
        total += cell.logProb(x[d]);
        if (!Number.isFinite(x[d])) return;
        const back = knots ? through(scores[d], knots[d], x[d]) : { value: x[d], slope: 1 };
        total -= Math.log(back.slope) + shift[d] + slope[d] * back.value;
      });
      return total;
    },
    sample: (params, random) => Float32Array.from(cells(params), (cell) => cell.sample(random)),
  };
}

function _cell(group, params, i, network) {
  const n = group.index.length;
  if (group.name === "number" || group.name === "spike") {
    const rest = group.name === "spike" ? params.subarray(n) : params;
    const scale = _scaled(group.scale, n, network)(rest[n + i], i);
    const v = group.degrees && network.at(group.degrees, n)[i];
    const number = v ? _studentT(rest[i], scale, v) : _normal(rest[i], scale);
    return group.name === "spike" ? _spiked(params[i], number) : number;
  }
  if (group.name === "count") return _counted(params[i], _scaled(group.dispersion, n, network)(params[n + i], i));
  const known = group.name === "ordinal" ? _ordinal(params[i], group.thresholds[i]) : _nominal(group, params, i);
  return {
    ...known,
    logProb: (x) =>
      x < group.levels[i] ? known.logProb(x) + Math.log1p(-group.unseen[i]) : Math.log(group.unseen[i]),
  };
}

function _nominal(group, params, i) {
  const logits = Array.from(params.subarray(i * group.most, i * group.most + group.levels[i]));
  return { ..._levels(logits), mean: logits.indexOf(Math.max(...logits)) };
}

function _spiked(logit, number) {
  return {
    ...number,
    spike: sigmoid(logit),
    mean: logit > 0 ? Infinity : number.mean,
    logProb: (x) => (x === Infinity ? -softplus(-logit) : -softplus(logit) + number.logProb(x)),
    sample: (random) => (random.uniform() < sigmoid(logit) ? Infinity : number.sample(random)),
  };
}

function _ordinal(location, thresholds) {
  const below = [0, ...thresholds.map((threshold) => sigmoid(threshold - location)), 1];
  const probabilities = below.slice(1).map((value, k) => Math.max(value - below[k], 1e-300));
  return {
    probabilities,
    mean: thresholds.filter((threshold) => location > threshold).length,
    logProb: (x) => Math.log(probabilities[x]),
    sample: (random) => random.among(probabilities.map(Math.log)),
  };
}
