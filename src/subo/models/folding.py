"""Samples for many examples at once: how they are drawn, folded into the batch, decoded in chunks, and weighted."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Size, Tensor
from torch.distributions import Distribution, kl_divergence, register_kl

from subo.errors import InputError
from subo.runtime.memory import check_room
from subo.typing import Context, Latent, Path, leaves, map_latent

__all__ = [
    "check_samples",
    "decoded_at_a_time",
    "draw_data",
    "folded_samples",
    "log_prob_of_samples",
    "sampled",
    "some_at_a_time",
]

_NUMBERS = 2_000_000  # parameters of p(x|z) in one tensor: 8 MB of float32
_STATES = 300_000  # of sequences at a time; the networks of a deep Markov model take about 3 KB each
_DRAWN = 1000  # examples drawn at a time


def sampled(q: Any, size: Size, *, path: Path) -> tuple[Any, Tensor | None]:
    """Samples of q, and their log-density if it comes with them.

    Raises:
        InputError: A path is requested from a distribution that has none.
    """
    if callable(path):
        return path(q, size), None
    joint = getattr(q, "rsample_and_log_prob", None)
    if not torch.is_grad_enabled():
        if "sample_and_log_prob" in vars(type(q)):  # a subclass may sample or weight differently
            joint = q.sample_and_log_prob
    elif not path:
        joint = None
    if joint is not None:
        return joint(size)
    if not path:
        return q.sample(size), None
    if not q.has_rsample:
        raise InputError(
            f"the posterior's {type(q).__name__} has no rsample: the gradient has no path from z to its parameters. "
            "Use a gradient estimator that needs none (ScoreFunction for the ELBO; VIMCO for IWAE, which for an exact "
            "posterior is free of noise), or a family that has one (Gaussian, a flow)."
        )
    return q.rsample(size), None


def log_prob_of_samples(p: Any, x: Float[Tensor, " B *event"], num_samples: int) -> Float[Tensor, "K B"]:
    """``log p(x)`` of data under distributions over ``K * B`` rows, sample-major."""
    unflatten = getattr(p, "unflatten", None)
    if unflatten is not None:  # x need not be copied K times
        return unflatten((num_samples, len(x))).log_prob(x)
    return p.log_prob(x.expand(num_samples, *x.shape).flatten(0, 1)).unflatten(0, (num_samples, len(x)))


def folded_samples(q: Distribution, num_samples: int, *, path: Path) -> tuple[Latent, Latent, Tensor | None]:
    """K samples of q, the same with K folded into the batch and, if it comes with them, their log-density."""
    size = Size([num_samples] if num_samples > 1 else [])  # a single sample needs no folding and unfolding
    sample, log_posterior = sampled(q, size, path=path)
    if num_samples > 1:
        return sample, map_latent(lambda leaf: leaf.flatten(0, 1), sample), log_posterior
    lone = map_latent(lambda leaf: leaf.unsqueeze(0), sample)
    return lone, sample, None if log_posterior is None else log_posterior.unsqueeze(0)


def decoded_at_a_time(likelihood: Any, num_elements: int, *, steps: int = 1) -> int:
    """How many latents to decode at a time, so that the number of parameters of p(x|z) is bounded.

    Args:
        likelihood: Likelihood; its family, if any, sets the number of parameters per element, else 1.
        num_elements: Number of elements per example; for sequences, of all steps (the family counts one step's).
        steps: Number of steps of sequences, each of which has a latent.
    """
    family = getattr(likelihood, "family", None)
    params, elements = getattr(family, "num_params", 1), getattr(family, "event_shape", Size()).numel()
    return max(1, min(_NUMBERS // max(1, num_elements * max(1, params // max(1, elements))), _STATES // steps))


def some_at_a_time(
    function: Callable[[Latent, int], Tensor], rows: Latent, num_samples: int, at_a_time: int
) -> Float[Tensor, "K B"]:
    """``function(rows, K)``, ``(K, B)``, computed for at most `at_a_time` consecutive samples at once and concatenated.

    Args:
        function: Returns ``(k, B)``, or ``(B,)`` for one sample, for ``k * B`` rows.
        rows: Leaves ``(K * B, *event)``, sample-major.
        num_samples: Number of samples K.
        at_a_time: The largest k.
    """
    num_data = len(leaves(rows)[0]) // num_samples
    parts = []
    for first in range(0, num_samples, at_a_time):
        count = min(at_a_time, num_samples - first)
        part = slice(first * num_data, (first + count) * num_data)
        some = map_latent(lambda leaf, part=part: leaf[part], rows)
        parts.append(function(some, count).view(count, num_data))
    return torch.cat(parts)


def check_samples(num: int, elements: int, bytes_each: int, *, remedy: str) -> None:
    """Refuses more samples than memory holds, before the first is drawn.

    Args:
        num: Number of samples.
        elements: Number of elements in each.
        bytes_each: Bytes per sample, including all copies that exist at the same time.
        remedy: What to do.

    Raises:
        NoRoomError: Memory is too small for them.
    """
    check_room(num * bytes_each, f"{num:,} samples of {elements:,} numbers each", remedy)


@torch.no_grad()
def draw_data(
    model: Any,
    num: int,
    context: Context | None = None,
    *,
    elements: int,
    steps: int = 1,
    mean: bool = False,
    dtype: torch.dtype | None = None,
) -> Shaped[Tensor, " N *event"]:
    """New data, drawn in chunks into one tensor: z from the prior, then x from p(x|z).

    Args:
        model: The model.
        num: Number of examples.
        context: One row per example, if the model needs any.
        elements: Number of elements of an example; for a sequence, over all steps.
        steps: Number of steps of a sequence.
        mean: Whether to return E[x|z] instead.
        dtype: Type of the data; that of p(x|z) by default.
    """
    at_a_time = min(_DRAWN, decoded_at_a_time(getattr(model, "likelihood", None), elements, steps=steps))
    data = None
    for first in range(0, num, at_a_time):
        rows = slice(first, min(first + at_a_time, num))
        known = None if context is None else {name: tensor[rows] for name, tensor in context.items()}
        _, p = model.sample(rows.stop - first, known)
        x = p.mean if mean else p.sample()
        if data is None:
            data = x.new_empty((num, *x.shape[1:]), dtype=dtype)
        data[rows] = x
    assert data is not None
    return data


class Unfolded(Distribution):
    """Reshapes a distribution over ``N = prod(lead)`` rows to batch shape `lead`, if it cannot do so itself.

    Args:
        base: Distribution with batch shape ``(N,)``.
        lead: New batch shape.
    """

    arg_constraints: dict = {}  # noqa: RUF012 (torch's protocol)

    def __init__(self, base: Distribution, lead: Size):
        self.base = base
        super().__init__(lead, base.event_shape, validate_args=False)

    @property
    def has_rsample(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the base has it."""
        return self.base.has_rsample

    @property
    def support(self) -> Any:
        """The base's support."""
        return self.base.support

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """``(*sample, *lead, *event)``."""
        return self.base.rsample(Size(sample_shape)).unflatten(len(sample_shape), self.batch_shape)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """``(*sample, *lead, *event)``."""
        return self.base.sample(Size(sample_shape)).unflatten(len(sample_shape), self.batch_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """``(*sample, *lead)``."""
        split = value.ndim - len(self.event_shape) - len(self.batch_shape)
        value = value.expand(*value.shape[:split], *self.batch_shape, *self.event_shape)
        return self.base.log_prob(value.flatten(split, split + len(self.batch_shape) - 1)).unflatten(
            -1, self.batch_shape
        )


@register_kl(Unfolded, Unfolded)
def _kl_unfolded(q: Unfolded, p: Unfolded) -> Tensor:
    """The KL of the rows."""
    return kl_divergence(q.base, p.base).unflatten(0, q.batch_shape)


def _unfolded(p: Distribution, lead: Size) -> Distribution:
    own = getattr(p, "unflatten", None)
    return Unfolded(p, lead) if own is None else own(tuple(lead))


def _folded(tensor: Shaped[Tensor, "B ..."], lead: Size) -> Tensor:
    """The context of B examples for every row of ``(*lead)``, the last of which is B."""
    return tensor.expand(*lead[:-1], *tensor.shape).reshape(lead.numel(), *tensor.shape[1:])
