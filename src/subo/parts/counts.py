"""Families of counts that vary more than Poisson counts: the negative binomial, also with more zeros than it has."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Size, Tensor, nn
from torch.distributions import Distribution

from subo.distributions.negative_binomial import NegativeBinomial as NegativeBinomialDistribution
from subo.distributions.zero_inflated import ZeroInflated
from subo.parts.families import fields, first_field, independent
from subo.parts.location_scale import Scale
from subo.runtime.arguments import checked_arguments

__all__ = ["DispersionSource", "NegativeBinomial", "ZeroInflatedNegativeBinomial"]

DispersionSource = Literal["shared", "per-dimension", "network"]
"""One learned number, one learned number per dimension, or numbers given by the network."""


_FEW = -2.0  # the logit of pi at the start: nearly without further zeros, and not so near that it learns slowly


class NegativeBinomial(nn.Module):
    r"""Independent counts with mean m = ``exp(params)`` and variance :math:`m + a m^2`: a Poisson for a = 0.

    The dispersion a is a softplus of a free number, with the value 1 at 0. In a VAE the mean varies with z, and a is
    what z leaves unexplained.

    Args:
        event_shape: Shape of one event.
        dispersion: Source of a: ``"shared"``, ``"per-dimension"`` or ``"network"``.

    Example:
        >>> p = NegativeBinomial((3,), dispersion="network")(torch.zeros(1, 6))
        >>> p.mean, p.variance
        (tensor([[1., 1., 1.]]), tensor([[2., 2., 2.]]))
    """

    is_discrete = True

    @checked_arguments
    def __init__(self, event_shape: Sequence[int], *, dispersion: DispersionSource = "per-dimension"):
        super().__init__()
        self.event_shape = Size(event_shape)
        self.dispersion = Scale(dispersion, self.event_shape, floor=0.0)
        self.count = 1 + self.dispersion.from_network
        self.num_params = self.count * self.event_shape.numel()

    def forward(self, params: Float[Tensor, "N ..."]) -> Distribution:
        log_mean, *rest = fields(params, self.event_shape, self.count)
        return independent(NegativeBinomialDistribution(log_mean, self.dispersion.of(*rest)), self.event_shape)

    @property
    def log_means(self) -> Tensor:
        """Which parameters are logarithms of means: the first of each element."""
        return first_field(self)

    @checked_arguments
    def params_of_mean(self, mean: Float[Tensor, "..."]) -> Tensor:
        """The parameters of the distribution with this positive mean; a dispersion among them is 1."""
        return torch.stack([mean.log(), *[torch.zeros_like(mean)] * (self.count - 1)])


class ZeroInflatedNegativeBinomial(nn.Module):
    r"""Independent counts that are 0 with probability :math:`\pi`, and else negative binomial.

    .. math:: p(x) = \pi\, [x = 0] + (1 - \pi)\, \mathrm{NB}(x; m, a)

    (Lopez et al., 2018, "Deep generative modeling for single-cell transcriptomics".) The parameters are log m and the
    logit of :math:`\pi`, which is 1/2 at 0, for each element; the dispersion a is that of :class:`NegativeBinomial`.
    In a VAE, z decides how likely the further zeros are.

    Args:
        event_shape: Shape of one event.
        dispersion: Source of a: ``"shared"``, ``"per-dimension"`` or ``"network"``.

    Example:
        >>> p = ZeroInflatedNegativeBinomial((3,), dispersion="network")(torch.zeros(1, 9))
        >>> p.mean, p.log_prob(torch.zeros(1, 3)).exp()
        (tensor([[0.5000, 0.5000, 0.5000]]), tensor([0.4219]))
    """

    is_discrete = True

    @checked_arguments
    def __init__(self, event_shape: Sequence[int], *, dispersion: DispersionSource = "per-dimension"):
        super().__init__()
        self.event_shape = Size(event_shape)
        self.dispersion = Scale(dispersion, self.event_shape, floor=0.0)
        self.count = 2 + self.dispersion.from_network
        self.num_params = self.count * self.event_shape.numel()

    def forward(self, params: Float[Tensor, "N ..."]) -> Distribution:
        log_mean, logits, *rest = fields(params, self.event_shape, self.count)
        counts = NegativeBinomialDistribution(log_mean, self.dispersion.of(*rest))
        return independent(ZeroInflated(counts, logits), self.event_shape)

    @property
    def log_means(self) -> Tensor:
        """Which parameters are logarithms of means: the first of each element."""
        return first_field(self)

    @property
    def zero_logits(self) -> Tensor:
        """Which parameters are logits of the further zeros: the second of each element."""
        return first_field(self).roll(self.event_shape.numel())

    @checked_arguments
    def params_of_mean(self, mean: Float[Tensor, "..."]) -> Tensor:
        """The parameters of the distribution with this positive mean, few further zeros, and a dispersion of 1."""
        logits, zeros = torch.full_like(mean, _FEW), torch.zeros_like(mean)
        log_mean = mean.log() + math.log1p(math.exp(_FEW))  # q's mean is that over 1 - pi
        return torch.stack([log_mean, logits, *[zeros] * (self.count - 2)])
