"""log p(x) and its parts for every example of a data set, from which an evaluation's means are computed."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from subo.core.draw import LatentVariableModel
from subo.core.offers import Mixture
from subo.data.batches import batches, num_batches
from subo.data.splits import Split, takes_data
from subo.data.support import in_support, stand_ins
from subo.errors import InputError
from subo.evaluation.estimates import bits_per_dim
from subo.evaluation.evidence.importance import ImportanceEstimate, log_marginal
from subo.evaluation.numbers import ALONE, BITS, LIKELY, Beside, Number
from subo.models.folding import decoded_at_a_time
from subo.models.vae import VAE
from subo.runtime.arguments import checked_arguments
from subo.runtime.devices import evaluating, place
from subo.runtime.randomness import forked, seed_of_piece
from subo.runtime.shares import in_shares

_WEIGHED = 1_000_000  # latents drawn at a time, times the components of their prior
_PASSES = 20  # at least, so that progress is also visible with few data,
_AT_ONCE = 1000  # unless there are few latents, which take one pass
_DATA = 100  # examples at a time: small results between large tensors, one by one, would keep fragmenting the heap

__all__ = ["Scores", "latents_at_a_time", "rows_at_a_time", "score"]


@dataclass(frozen=True)
class Scores:
    """Per-example estimates for a whole split, in nats and float64, on the CPU; see ImportanceEstimate.

    Attributes:
        log_px: Importance-sampled log p(x), ``(N,)``.
        standard_error: Standard error of each `log_px`, ``(N,)``.
        effective_sample_size: Effective number of samples, ``(N,)``.
        pareto_k: Shape of the weights' upper tail, ``(N,)``; NaN if there is none, or none was requested.
        rates: Rate of each stochastic layer, ``(L, N)``.
        distortion: Distortion, ``(N,)``.
        num_samples: K.
    """

    log_px: Tensor
    standard_error: Tensor
    effective_sample_size: Tensor
    pareto_k: Tensor
    rates: Tensor
    distortion: Tensor
    num_samples: int

    @property
    def rate(self) -> Tensor:
        """The rate of all layers, ``(N,)``."""
        return self.rates.sum(0)

    @property
    def elbo(self) -> Tensor:
        """``-(rate + distortion)``, ``(N,)``."""
        return torch.where(self.distortion == torch.inf, -torch.inf, -(self.rate + self.distortion))

    @classmethod
    def of(cls, parts: Sequence[ImportanceEstimate]) -> "Scores":
        """Concatenates the estimates of several sets of examples."""

        def joined(name: str) -> Tensor:
            return torch.cat([getattr(part, name).cpu() for part in parts], dim=-1)

        names = ("log_px", "standard_error", "effective_sample_size", "pareto_k", "distortion")
        return cls(**{name: joined(name) for name in names}, rates=joined("rate"), num_samples=parts[0].num_samples)

    def numbers(self, beside: Beside = ALONE) -> Iterator[Number]:
        """Means over the data, and bits per dimension if the number of elements is known."""
        how, count = "importance sampling", self.num_samples
        yield Number.mean(LIKELY, "log p(x)", self.log_px, how, count)
        if beside.num_elements is not None:
            yield Number.mean(LIKELY, BITS, bits_per_dim(self.log_px, beside.num_elements), how, count, unit="bits")
        yield Number.mean(LIKELY, "ELBO = -(rate + distortion)", self.elbo, "samples of q", count)
        yield Number.mean(LIKELY, "rate", self.rate, "samples of q, or closed form", count)
        yield Number.mean(LIKELY, "distortion", self.distortion, "samples of q", count)

    def exact(self) -> "Scores":
        """The same, with log p(x) = 0 and no error where log p(x|z) is 0 for all z, as of rows without any cell."""
        certain = self.distortion == 0
        if not bool(certain.any()):
            return self
        known = {"log_px": 0.0, "standard_error": 0.0, "effective_sample_size": self.num_samples, "pareto_k": torch.nan}
        return replace(self, **{name: getattr(self, name).masked_fill(certain, value) for name, value in known.items()})

    def where(self, inside: Tensor) -> "Scores":
        """The same, with the scores of examples outside the support where `inside`, ``(N,)``, is false."""
        if bool(inside.all()):
            return self
        outside = {"log_px": -torch.inf, "standard_error": 0.0, "distortion": torch.inf}
        names = ("log_px", "standard_error", "effective_sample_size", "pareto_k", "rates", "distortion")
        return replace(
            self, **{name: getattr(self, name).masked_fill(~inside, outside.get(name, torch.nan)) for name in names}
        )


@takes_data
@checked_arguments
@torch.no_grad()
def score(
    model: LatentVariableModel,
    split: Split,
    *,
    num_samples: int = 1000,
    max_rows: int | None = None,
    seed: int = 0,
    pareto: bool = True,
    processes: int = 1,
    advance: Callable[[float], object] | None = None,
) -> Scores:
    """log p(x) of every example; the same numbers at every call with the same seed, in any number of processes.

    Examples outside the likelihood's support, such as 1.2 if it describes [0, 1], have a log p(x) of -infinity, which
    is exact (its error is 0), an infinite distortion, and NaN for all else. They do not affect the numbers of the
    others.

    Args:
        model: The model.
        split: The data, or a tensor of them.
        num_samples: K.
        max_rows: Number of latents drawn at a time; by default as many as the decoder's output allows, at most 40,000.
        seed: Seed for the samples.
        pareto: Whether to fit the weights' tails for k-hat.
        processes: Number of processes of one thread each that share the examples, on the CPU. A script that asks for
            several needs ``if __name__ == "__main__":``, since each of them imports it.
        advance: Called with the number of examples done, as they finish, in fractions.
    """
    if num_samples < 1:
        raise InputError(f"the number of samples must be at least 1, not {num_samples}")
    inside = in_support(model, split)
    if not inside.any():
        nothing = torch.full((len(split),), torch.nan, dtype=torch.float64)
        empty = Scores(nothing, nothing, nothing, nothing, nothing.unsqueeze(0), nothing, num_samples)
        return empty.where(inside)
    split = stand_ins(split, inside)
    max_rows = max_rows or latents_at_a_time(model, split)
    max_rows = min(max_rows, max(_AT_ONCE, math.ceil(len(split) * num_samples / _PASSES)))
    size = max(1, min(len(split), max_rows, _DATA))
    options: dict[str, Any] = {"num_samples": num_samples, "max_rows": max_rows, "pareto": pareto}
    if processes == 1:
        options["advance"] = advance
    work = partial(_estimates, model, split, size, seed, options)

    def done(pieces: range) -> None:
        if advance is not None:
            advance(min(pieces.stop * size, len(split)) - pieces.start * size)

    estimates = in_shares(work, num_batches(split, size), processes=processes, advance=done)
    return Scores.of(estimates).exact().where(inside)


@torch.no_grad()
def _estimates(
    model: Any, split: Split, size: int, seed: int, options: dict[str, Any], pieces: range
) -> list[ImportanceEstimate]:
    """The estimates of some batches of a size, each with noise of its own."""
    parts = batches(split, size, seed=seed, epoch=0, shuffle=False, first=pieces.start)
    estimates = []
    for piece, batch in zip(pieces, parts, strict=False):
        with evaluating(model), forked(seed_of_piece(seed, piece)):
            estimates.append(log_marginal(model, *place(model, batch.x, batch.context), **options))
    return estimates


def latents_at_a_time(model: Any, split: Split) -> int:
    """Number of latents to draw at a time: as many as are decoded, but 16 times that for a VAE, which decodes in parts.

    Not for sequences: the networks that draw and weigh their states need more memory than the decoder. Fewer with a
    mixture prior, since each component weighs each of them.
    """
    rows = rows_at_a_time(model, split)
    if not isinstance(model, VAE) or split.lengths is not None:
        return rows
    components = model.prior.num_components if isinstance(model.prior, Mixture) else 1
    return min(40_000, 16 * rows, max(1, _WEIGHED // components))


def rows_at_a_time(model: Any, split: Split) -> int:
    """Number of latents to decode at a time, at most 5,000; fewer for sequences, so that their steps are bounded."""
    steps = split.num_elements // split.event_shape.numel()
    return min(5000, decoded_at_a_time(getattr(model, "likelihood", None), split.num_elements, steps=steps))
