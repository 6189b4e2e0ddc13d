"""Counts with more zeros than their distribution has."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Size, Tensor
from torch.distributions import Distribution, constraints

__all__ = ["ZeroInflated"]


class ZeroInflated(Distribution):
    r"""Counts that are 0 with probability :math:`\pi`, and else come from a distribution q, which may give 0, too.

    .. math:: p(x) = \pi\, [x = 0] + (1 - \pi)\, q(x), \qquad \pi = 1 / (1 + e^{-l})

    (Lopez et al., 2018, "Deep generative modeling for single-cell transcriptomics", where q is negative binomial.)

    Args:
        counts: q, of any batch shape, with a ``mode``.
        logits: l, of a shape that broadcasts to that batch shape; -infinity for no further zeros.

    Example:
        >>> from subo.distributions.negative_binomial import NegativeBinomial
        >>> counts = NegativeBinomial(torch.tensor(3.0).log(), torch.tensor(0.5))
        >>> inflated = ZeroInflated(counts, torch.tensor(0.0))
        >>> inflated.mean, inflated.variance
        (tensor(1.5000), tensor(6.))
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 (torch's way)
    support = constraints.nonnegative_integer  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]

    def __init__(self, counts: Any, logits: Tensor):
        self.counts, self.logits = counts, logits
        super().__init__(counts.batch_shape, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "ZeroInflated":
        """The same distribution with its parameters expanded to `batch_shape`."""
        return ZeroInflated(self.counts.expand(batch_shape), self.logits.expand(batch_shape))

    @property
    def mean(self) -> Tensor:
        """``(1 - pi) m``, with the mean m of q."""
        return torch.sigmoid(-self.logits) * self.counts.mean

    @property
    def variance(self) -> Tensor:
        """``(1 - pi) (v + pi m^2)``, with the mean m and the variance v of q."""
        spread = self.counts.variance + torch.sigmoid(self.logits) * self.counts.mean.square()
        return torch.sigmoid(-self.logits) * spread

    @property
    def mode(self) -> Tensor:
        """The mode of q or 0, whichever is more probable."""
        mode = self.counts.mode
        return mode.where(self.log_prob(mode) > self.log_prob(torch.zeros_like(mode)), 0)

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Counts from q, each replaced by 0 with probability pi; of shape ``(*sample, *batch)``."""
        counts = self.counts.sample(sample_shape)
        kept = torch.sigmoid(-self.logits).expand(Size(sample_shape) + self.batch_shape)
        return counts * torch.bernoulli(kept)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the definition."""
        counted = F.logsigmoid(-self.logits) + self.counts.log_prob(value)
        return torch.where(value == 0, torch.logaddexp(F.logsigmoid(self.logits), counted), counted)
