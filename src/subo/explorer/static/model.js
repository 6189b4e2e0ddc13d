// The run's model in the page: encoder, decoder and prior, each if it could be exported.
import { familyOf } from "./families.js";
import { Network } from "./network.js";
import { row, softplus, unpack } from "./numbers.js";
import { Mixture, Normal } from "./prior.js";

export class Model {
  constructor(record) {
    const { encoder, decoder, prior } = record.model;
    this.missing = { encoder: encoder.missing, decoder: decoder.missing, prior: prior.missing };
    this.encoder = encoder.missing ? null : { head: encoder.head, network: new Network(encoder) };
    this.decoder = decoder.missing ? null : _decoder(decoder);
    this.priors = prior.missing ? null : prior.of.map(Mixture.of);
    this.draws = prior.draws && prior.draws.map(unpack);
    this.atlas = record.atlas && { ...record.atlas, ...unpack(record.atlas.means) };
    this.latents = record.examples.latents.names.length;
  }

  // Whether a point of latent space has a picture.
  get decodes() {
    return Boolean(this.decoder || this.atlas);
  }

  prior(context = {}) {
    return this.priors && this.priors[this.priors.length > 1 ? context.label || 0 : 0];
  }

  // z from p(z): of a prior that the page knows, else the draw of a number that came with it; null without either.
  fromPrior(context, random, number) {
    if (this.priors) return this.prior(context).sample(random);
    if (!this.draws) return null;
    const draws = this.draws[this.draws.length > 1 ? context.label || 0 : 0];
    return row(draws, number % draws.shape[0]);
  }

  // Parameters of p(x|z); null without a decoder.
  params(z, context) {
    return this.decoder && this.decoder.network.run(z, context);
  }

  // E[x|z], flat; from the atlas where the decoder is not in the page.
  mean(z, context) {
    if (this.decoder) return this.decoder.family.mean(this.params(z, context));
    return this.atlas && _between(this.atlas, z);
  }

  sample(z, context, random) {
    return this.decoder && this.decoder.family.sample(this.params(z, context), random);
  }

  // log p(x|z) and log p(x, z).
  logLikelihood(x, z, context) {
    return this.decoder.family.logProb(this.params(z, context), x);
  }

  logJoint(x, z, context) {
    return this.logLikelihood(x, z, context) + this.prior(context).logProb(z);
  }

  // q(z|x); null if the encoder is not in the page or q is not a normal.
  encode(x, context) {
    return this.encoder && _normalOf(this.encoder.head, this.encoder.network, this.encoder.network.run(x, context));
  }
}

function _decoder(record) {
  const network = new Network(record);
  return { network, family: familyOf(record.head, network) };
}

function _normalOf(head, network, params) {
  const size = head.size;
  const positive = (raw) => head.floor + softplus(head.beta * raw) / head.beta;
  if (head.family === "full-rank") {
    const factor = new Float32Array(size * size);
    for (let i = 0, at = size; i < size; i++)
      for (let j = 0; j <= i; j++, at++) factor[i * size + j] = i === j ? positive(params[at]) : params[at];
    return new Normal(params.subarray(0, size), factor);
  }
  if (head.family !== "gaussian") return null;
  const family = familyOf(head, network);
  const elements = Array.from({ length: size }, (_, d) => family.element(params, d));
  return new Normal(
    Float32Array.from(elements, ({ mean }) => mean),
    Float32Array.from(elements, ({ scale }) => scale),
  );
}

// The mean at a point between four of the atlas, by their distances.
function _between({ reach, points, values, shape }, z) {
  const place = (value) => Math.min(Math.max(((value + reach) / (2 * reach)) * (points - 1), 0), points - 1 - 1e-9);
  const [u, v] = [place(z[0]), place(z[1])];
  const [column, line] = [Math.floor(u), Math.floor(v)];
  const table = { values, shape: [points * points, shape[1]] };
  const corners = [0, 1, 2, 3].map((k) => row(table, (line + (k >> 1)) * points + column + (k & 1)));
  const weights = [0, 1, 2, 3].map((k) => (k & 1 ? u - column : 1 - u + column) * (k >> 1 ? v - line : 1 - v + line));
  return Float32Array.from(corners[0], (_, d) => corners.reduce((sum, corner, k) => sum + weights[k] * corner[d], 0));
}
