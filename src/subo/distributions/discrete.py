"""Discrete distributions that torch has, made faster, safer or exact at their edges."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Size, Tensor
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import (
    Distribution,
    Independent,
    constraints,
    register_kl,
)
from torch.distributions import OneHotCategorical as TorchOneHotCategorical
from torch.distributions import Poisson as TorchPoisson

from subo.distributions.gaussian import sum_last
from subo.once import once

__all__ = ["Bernoulli", "Categorical", "OneHotCategorical", "Poisson"]


_MANY_BITS = 512  # per event: a quarter of them is long enough for vector instructions


class Bernoulli(Independent):
    """Independent bits as one event: torch's, with one pass fewer over the pixels in its log-density, and made lazily.

    Args:
        logits: ``log p(x = 1) / p(x = 0)``, ``(*batch, *event)``.
        event_dims: Number of trailing dimensions that form an event.
    """

    def __init__(self, logits: Tensor, event_dims: int):
        self.logits = logits
        self.reinterpreted_batch_ndims = event_dims
        split = logits.ndim - event_dims
        Distribution.__init__(self, logits.shape[:split], logits.shape[split:], validate_args=False)

    @once
    def base_dist(self) -> TorchBernoulli:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The elementwise distribution, created on first access."""
        return TorchBernoulli(logits=self.logits, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Bernoulli":
        """The same distribution with its parameters expanded to `batch_shape`."""
        return Bernoulli(self.logits.expand(Size(batch_shape) + self.event_shape), self.reinterpreted_batch_ndims)

    def unflatten(self, sizes: tuple[int, ...]) -> "Bernoulli":
        """The same distribution with its first batch dimension split into `sizes`; a view."""
        return Bernoulli(self.logits.unflatten(0, sizes), self.reinterpreted_batch_ndims)

    def log_prob(self, value: Tensor) -> Tensor:
        """``sum_d x_d l_d - log(1 + exp(l_d))``."""
        logits, found = self.logits, None
        if _wants_few_passes(logits, value) and value.shape[value.ndim - len(self.event_shape) :] == self.event_shape:
            found = _log_prob_of_bits(logits, value, self.reinterpreted_batch_ndims)
            if math.isfinite(found.sum()):
                return found
        if value.shape != logits.shape:
            value, logits = torch.broadcast_tensors(value, logits)
        entropy = F.binary_cross_entropy_with_logits(logits, value, reduction="none")
        log_prob = -sum_last(entropy, self.reinterpreted_batch_ndims)
        return log_prob if found is None else found.where(found.isfinite(), log_prob)


def _wants_few_passes(logits: Tensor, value: Tensor) -> bool:
    """Whether these are bits, no gradient is needed, and the processor reads memory faster than it takes logarithms."""
    kinds = {logits.dtype, value.dtype}
    plain = logits.device.type == "cpu" and kinds in ({torch.float32}, {torch.float64})
    if not plain or (torch.is_grad_enabled() and (logits.requires_grad or value.requires_grad)):
        return False
    return torch.equal(value, (value > 0).to(value.dtype))  # checked per example, not per sample


def _log_prob_of_bits(logits: Tensor, value: Tensor, event_dims: int) -> Tensor:
    r"""``-sum_d log(1 + e_d)`` with ``e_d = exp((1 - 2 x_d) l_d)``, by one logarithm for many elements.

    ``prod_d (1 + e_d) - 1`` is built from pairs, ``(1 + a)(1 + b) - 1 = a + b + a b``: sums of positive numbers, which
    lose nothing where they are small. Infinite where sixteen bits are so unlikely that their product leaves the range
    of floats (below ``exp(-88)`` in single precision). Many bits are processed in four quarters, in memory that
    stays in the cache.
    """
    logits, value = (t.flatten(t.ndim - event_dims) if event_dims else t.unsqueeze(-1) for t in (logits, value))
    signs = torch.rsub(value, 1 / math.log(2), alpha=2 / math.log(2))  # base 2 is three times as fast as base e
    num_bits = logits.shape[-1]
    count = 4 if num_bits % 4 == 0 and num_bits >= _MANY_BITS else 1
    first, *others = zip(logits.chunk(count, -1), signs.chunk(count, -1), strict=True)
    excess = torch.mul(*first).exp2_()
    for other in others:
        excess = _paired(excess, torch.mul(*other).exp2_())
    for _ in range(2 if others else 4):
        half, odd = divmod(excess.shape[-1], 2)
        if odd:
            break
        excess = _paired(excess[..., :half], excess[..., half:])
    return -excess.log1p_().sum(-1)


def _paired(a: Tensor, b: Tensor) -> Tensor:
    """``(1 + a)(1 + b) - 1``, in the memory of a."""
    return a.addcmul_(a, b).add_(b)


@register_kl(Bernoulli, Bernoulli)
def _kl_bernoulli(q: Bernoulli, p: Bernoulli) -> Tensor:
    """Bregman divergence of the log-normalizer: ``sum_d sigma(l_q) (l_q - l_p) - log(1 + e^l_q) + log(1 + e^l_p)``."""
    elements = q.logits.sigmoid() * (q.logits - p.logits) - F.softplus(q.logits) + F.softplus(p.logits)
    return sum_last(elements, q.reinterpreted_batch_ndims)


class Categorical(TorchCategorical):
    """torch's categorical, with the moments that it leaves undefined: those of the values 0 .. C - 1.

    Categorical data are often ordered levels (grey values, ratings), and their mean is then a picture. The
    support ends at the last class whose logit is not -infinity.
    """

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride] (torch's way)
        """0 to the last class that can occur, element by element."""
        possible = self.logits > -torch.inf
        if bool(possible.all()):
            return constraints.integer_interval(0, self._num_events - 1)
        places = torch.arange(self._num_events, device=possible.device)
        return constraints.integer_interval(0, places.where(possible, 0).amax(-1))

    @property
    def mean(self) -> Tensor:
        """``sum_c c p_c``."""
        return (self.probs * torch.arange(self._num_events, device=self.probs.device)).sum(-1)

    @property
    def variance(self) -> Tensor:
        """``sum_c (c - mean)^2 p_c``."""
        levels = torch.arange(self._num_events, device=self.probs.device)
        return (self.probs * (levels - self.mean.unsqueeze(-1)).square()).sum(-1)


class OneHotCategorical(TorchOneHotCategorical):
    """torch's one-hot categorical, with a log-density linear in z: it has the gradient that a relaxed path follows."""

    def expand(self, batch_shape: Any, _instance: Any = None) -> "OneHotCategorical":
        """The same distribution with its parameters expanded to `batch_shape`."""
        logits = self.logits.expand(Size(batch_shape) + self.event_shape)
        return OneHotCategorical(logits=logits, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """``sum_c z_c log p_c``; torch's looks the category up, which cannot be differentiated."""
        return (value * self.logits).sum(-1)


class Poisson(TorchPoisson):
    """torch's Poisson, parametrized by its log-rate: exact in value and gradient where the rate underflows to 0.

    Args:
        log_rate: Logarithm of the rate, of any shape.
    """

    def __init__(self, log_rate: Tensor):
        self.log_rate = log_rate
        super().__init__(log_rate.exp(), validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Poisson":
        """The same distribution with its parameter expanded to `batch_shape`."""
        return Poisson(self.log_rate.expand(batch_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """``x log_rate - rate - log x!``, whose large terms cancel: in float64, where the device has it."""
        wide = self.log_rate.dtype if self.log_rate.device.type == "mps" else torch.float64
        x, log_rate = value.to(wide), self.log_rate.to(wide)
        return (x * log_rate - log_rate.exp() - torch.lgamma(x + 1)).to(self.log_rate.dtype)
