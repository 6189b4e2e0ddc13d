"""Priors p(z): modules whose call, without input, returns a Distribution of batch shape ``()``."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import (
    Categorical,
    Distribution,
    Independent,
    MixtureSameFamily,
)

from subo.distributions.discrete import Bernoulli as BernoulliDistribution
from subo.distributions.discrete import OneHotCategorical
from subo.distributions.flow import Flow
from subo.distributions.gaussian import StandardNormal as StandardNormalDistribution
from subo.parts.flows import autoregressive, spline
from subo.parts.location_scale import FullRankGaussian, Gaussian
from subo.runtime.arguments import checked_arguments

__all__ = ["BernoulliPrior", "CategoricalPrior", "FlowPrior", "GaussianMixture", "StandardNormal", "VampPrior"]


class StandardNormal(nn.Module):
    """``N(0, I)``.

    Args:
        *event_shape: Shape of z, usually one number.

    Example:
        >>> StandardNormal(2)().log_prob(torch.zeros(2))
        tensor(-1.8379)
    """

    zeros: Tensor

    @checked_arguments
    def __init__(self, *event_shape: int):
        super().__init__()
        self.register_buffer("zeros", torch.zeros(event_shape), persistent=False)

    def forward(self) -> Distribution:
        return StandardNormalDistribution(self.zeros)


class BernoulliPrior(nn.Module):
    """Independent bits, fair at first.

    Args:
        *event_shape: Shape of z, usually one number.
        trainable: Whether their probabilities are learned.
    """

    @checked_arguments
    def __init__(self, *event_shape: int, trainable: bool = True):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(event_shape), requires_grad=trainable)

    def forward(self) -> Distribution:
        return BernoulliDistribution(self.logits, self.logits.ndim)


class CategoricalPrior(nn.Module):
    """Independent one-hot categories, ``(D, C)``, uniform at first.

    Args:
        dim: Number of categories D.
        num_classes: Number of values C that each can take.
        trainable: Whether their probabilities are learned.
    """

    @checked_arguments
    def __init__(self, dim: int, *, num_classes: int, trainable: bool = True):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(dim, num_classes), requires_grad=trainable)

    def forward(self) -> Distribution:
        return Independent(OneHotCategorical(logits=self.logits, validate_args=False), 1, validate_args=False)


class GaussianMixture(nn.Module):
    """``sum_k w_k N(m_k, S_k)`` with trainable weights, means and covariances.

    Args:
        dim: Size D of z.
        components: Number of components.
        covariance: ``"diagonal"`` or ``"full"``.
        spread: Standard deviation of the means' random start; if all started at the origin, the components would
            always have the same gradient.
    """

    @checked_arguments
    def __init__(
        self,
        dim: int,
        *,
        components: int = 10,
        covariance: Literal["diagonal", "full"] = "diagonal",
        spread: float = 1.0,
    ):
        super().__init__()
        self.family = Gaussian((dim,)) if covariance == "diagonal" else FullRankGaussian((dim,))
        self.logits = nn.Parameter(torch.zeros(components))
        params = torch.zeros(components, self.family.num_params)
        params[:, :dim] = spread * torch.randn(components, dim)  # the means come first in both families
        self.params = nn.Parameter(params)

    @property
    def num_components(self) -> int:
        """Number of components."""
        return len(self.logits)

    def forward(self) -> Distribution:
        weights = Categorical(logits=self.logits, validate_args=False)
        return MixtureSameFamily(weights, self.family(self.params), validate_args=False)


class VampPrior(nn.Module):
    """The posterior's mixture at learned pseudo-inputs, ``p(z) = 1/K sum_k q(z | u_k)``.

    It approximates the aggregate posterior, which is the prior that maximizes the ELBO (Tomczak and Welling, 2018,
    equation 9).

    Args:
        posterior: The model's posterior: the same module, not a copy.
        pseudo_inputs: Initial pseudo-inputs, such as some training data, ``(K, *event)``.
        limits: Interval in which the pseudo-inputs are kept, where the encoder has seen data; none for real data.
    """

    @checked_arguments
    def __init__(
        self,
        posterior: nn.Module,
        pseudo_inputs: Float[Tensor, " K *event"],
        *,
        limits: tuple[float, float] | None = None,
    ):
        super().__init__()
        self.posterior = posterior
        self.limits = limits
        if limits is not None:  # strictly inside, where the gradient is not 0
            low, high = limits
            pseudo_inputs = torch.logit(((pseudo_inputs - low) / (high - low)).clamp(0.05, 0.95))
        self.raw_inputs = nn.Parameter(pseudo_inputs.clone())

    @property
    def num_components(self) -> int:
        """K."""
        return len(self.raw_inputs)

    @property
    def pseudo_inputs(self) -> Float[Tensor, " K *event"]:
        """The inputs u_k, kept within the limits by a sigmoid."""
        if self.limits is None:
            return self.raw_inputs
        low, high = self.limits
        return low + (high - low) * torch.sigmoid(self.raw_inputs)

    def forward(self) -> Distribution:
        inputs = self.pseudo_inputs
        weights = Categorical(logits=inputs.new_zeros(len(inputs)), validate_args=False)
        return MixtureSameFamily(weights, self.posterior(inputs), validate_args=False)


class FlowPrior(nn.Module):
    """A normalizing flow applied to the standard normal.

    Args:
        dim: Size D of z.
        kind: ``"autoregressive"`` (affine maps; the density of a given z in one pass, a sample in D
            steps that together cost about a pass) or ``"spline"``
            (coupling by rational-quadratic splines; two passes either way).
        transforms: Number of maps.
        hidden: Widths of each map's network.
    """

    @checked_arguments
    def __init__(
        self,
        dim: int,
        *,
        kind: Literal["autoregressive", "spline"] = "autoregressive",
        transforms: int = 3,
        hidden: Sequence[int] = (64, 64),
    ):
        super().__init__()
        self.base = StandardNormal(dim)
        make = autoregressive if kind == "autoregressive" else spline
        self.transform = make(dim, transforms=transforms, hidden=hidden)

    def forward(self) -> Distribution:
        # Training needs the density of given z at every step, so the cheap direction must be the one towards the noise.
        return Flow(self.base(), self.transform().inv, validate_args=False)
