// Numbers: unpacked from the record, written as text, drawn at random.

const _TYPES = { f32: Float32Array, u8: Uint8Array, bits: Uint8Array, f16: Uint16Array };

// An array of the record, {type, shape, base64}, as {values, shape}; half precision becomes single, levels shares of all.
export function unpack(packed) {
  const text = atob(packed.base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const stored = new _TYPES[packed.type](bytes.buffer);
  const { type, shape, levels } = packed;
  if (type === "f16") return { values: Float32Array.from(stored, half), shape };
  if (type === "bits") {
    const size = shape.reduce((product, side) => product * side, 1);
    return { values: Uint8Array.from({ length: size }, (_, i) => (stored[i >> 3] >> (7 - (i & 7))) & 1), shape };
  }
  return { values: levels ? Float32Array.from(stored, (level) => level / levels) : stored, shape };
}

// The number of 16 bits: sign, five bits of exponent, ten of fraction.
export function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

// Row i of a table {values, shape}.
export function row(table, i) {
  const size = table.shape.slice(1).reduce((product, side) => product * side, 1);
  return table.values.subarray(i * size, (i + 1) * size);
}

// A value with its error, in as many digits as the error supports.
export function withError(value, error) {
  if (value === null || value === undefined || Number.isNaN(value)) return "unknown";
  if (!error) return plain(value);
  const digits = Math.max(0, Math.min(6, 1 - Math.floor(Math.log10(error))));
  return `${value.toFixed(digits)} ± ${error.toFixed(digits)}`;
}

// A number in four digits.
export function plain(value) {
  if (value === null || value === undefined) return "unknown";
  if (typeof value !== "number") return String(value);
  if (!Number.isFinite(value)) return String(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e9) return String(value);
  const size = Math.abs(value);
  return size >= 1e9 || (size < 1e-3 && size > 0) ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}

// Uniform random numbers from a seed (mulberry32), and normal ones from those (Box and Muller).
export class Random {
  constructor(seed) {
    this.state = seed >>> 0;
  }

  uniform() {
    this.state = (this.state + 0x6d2b79f5) >>> 0;
    let t = this.state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  }

  normal() {
    const radius = Math.sqrt(-2 * Math.log(1 - this.uniform()));
    return radius * Math.cos(2 * Math.PI * this.uniform());
  }

  // An index with these logarithms of weights, which need not be normalized.
  among(logWeights) {
    const highest = Math.max(...logWeights);
    const weights = Array.from(logWeights, (value) => Math.exp(value - highest));
    let left = this.uniform() * weights.reduce((sum, weight) => sum + weight, 0);
    for (let i = 0; i < weights.length; i++) if ((left -= weights[i]) <= 0) return i;
    return weights.length - 1;
  }
}

// The piecewise linear function through some points at x, linear beyond them, and its slope there.
export function through(start, end, x) {
  let k = 1;
  while (k < start.length - 1 && start[k] <= x) k++;
  const slope = (end[k] - end[k - 1]) / (start[k] - start[k - 1]);
  return { value: end[k] + (x - start[k]) * slope, slope };
}

// log sum exp(values), exact for values of any size.
export function logSumExp(values) {
  let highest = -Infinity;
  for (const value of values) if (value > highest) highest = value;
  if (highest === -Infinity) return -Infinity;
  let sum = 0;
  for (const value of values) sum += Math.exp(value - highest);
  return highest + Math.log(sum);
}

// The logarithm of the gamma function (Lanczos, with g = 7 and nine terms).
const _LANCZOS = [
  0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059,
  12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7,
];

export function logGamma(x) {
  if (x < 0.5) return Math.log(Math.PI / Math.abs(Math.sin(Math.PI * x))) - logGamma(1 - x);
  let sum = _LANCZOS[0];
  for (let i = 1; i < 9; i++) sum += _LANCZOS[i] / (x - 1 + i);
  const t = x + 6.5;
  return 0.5 * Math.log(2 * Math.PI) + (x - 0.5) * Math.log(t) - t + Math.log(sum);
}

export function softplus(x) {
  return x > 0 ? x + Math.log1p(Math.exp(-x)) : Math.log1p(Math.exp(x));
}

export function sigmoid(x) {
  return 1 / (1 + Math.exp(-x));
}
