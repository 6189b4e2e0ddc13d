"""Families: how a tensor of parameters becomes a distribution over one event.

A family is a module that declares its ``event_shape`` and ``num_params``, the number of parameters of one
distribution, and turns ``(N, num_params)`` numbers, in whatever shape a network outputs them (``(N, P * D)`` for a
perceptron, ``(N, P * C, H, W)`` for a convolution), into a Distribution of batch shape ``(N,)``. The same families
serve as likelihoods p(x|z), as posteriors q(z|x) and as components of priors. This module has those for bits, classes
and counts; :mod:`subo.parts.location_scale` has the Gaussians, :mod:`subo.parts.flows` the flows.

All parameters at zero give the family's plainest member: the standard normal, the fair coin, the unit rate.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Size, Tensor, nn
from torch.distributions import Distribution, Independent

from subo.distributions.discrete import Bernoulli as BernoulliDistribution
from subo.distributions.discrete import Categorical as CategoricalDistribution
from subo.distributions.discrete import OneHotCategorical as OneHotCategoricalDistribution
from subo.distributions.discrete import Poisson as PoissonDistribution
from subo.distributions.gaussian import ContinuousBernoulli as ContinuousBernoulliDistribution
from subo.errors import InputError
from subo.runtime.arguments import checked_arguments

__all__ = [
    "Bernoulli",
    "Categorical",
    "ContinuousBernoulli",
    "Family",
    "NamedFamily",
    "OneHotCategorical",
    "Poisson",
]


@runtime_checkable
class Family(Protocol):
    """Parameters -> Distribution: what :class:`~subo.Conditional` requires of a family."""

    event_shape: Size
    num_params: int

    def __call__(self, params: Tensor) -> Distribution:
        """The distributions, batch shape ``(N,)``, with parameters ``(N, ...)``."""
        ...


class NamedFamily(Family, Protocol):
    """A family that can be chosen by name: it declares what recipes and reports need to know."""

    is_discrete: bool
    """Whether it assigns probabilities rather than densities."""


def checked(params: Tensor, event_shape: Size, count: int) -> Tensor:
    """The parameters, checked to be `count` per example, the family's num_params, and in at least single precision.

    Networks may compute in 16 bits. Densities, as sums over hundreds of elements, would lose whole nats.
    """
    if params.numel() != params.shape[0] * count:
        raise InputError(
            f"a family over events of shape {tuple(event_shape)} takes {count} parameters per example; the network "
            f"gave {params.shape[1:].numel()} (shape {tuple(params.shape)}). Make the network's output as large as the "
            "family's num_params."
        )
    return params if params.dtype.itemsize > 2 else params.float()


def fields(params: Tensor, event_shape: Size, count: int) -> tuple[Tensor, ...]:
    """Splits parameters, in whatever shape a network gave them, into `count` tensors ``(N, *event_shape)``."""
    params = checked(params, event_shape, count * event_shape.numel())
    if len(event_shape) == 1 and params.shape[1:] == (count * event_shape[0],):  # no reshape in the backward pass
        return (params,) if count == 1 else params.chunk(count, 1)
    if count == 1:  # avoids unbind, whose gradient is a copy
        return (params.reshape(params.shape[0], *event_shape),)
    return params.reshape(params.shape[0], count, *event_shape).unbind(1)


def first_field(family: Family) -> Tensor:
    """Which parameters are those of the first field, that is the first for each element: ``(num_params,)``."""
    return torch.arange(family.num_params) < family.event_shape.numel()


def independent(elements: Distribution, event_shape: Size) -> Distribution:
    """Joins the elements into one event. Arguments are not validated: the loss is checked at every step, data early."""
    return Independent(elements, len(event_shape), validate_args=False)


class Bernoulli(nn.Module):
    """Independent bits, ``p(x = 1) = sigmoid(params)``: for data of exactly 0 and 1.

    Grey values in between have no Bernoulli likelihood: binarize them, or use :class:`ContinuousBernoulli`.

    Args:
        event_shape: Shape of one event.

    Example:
        >>> Bernoulli((3,))(torch.zeros(1, 3)).log_prob(torch.ones(1, 3)).exp()
        tensor([0.1250])
    """

    is_discrete = True
    limits = (0.0, 1.0)

    @checked_arguments
    def __init__(self, event_shape: Sequence[int]):
        super().__init__()
        self.event_shape = Size(event_shape)
        self.num_params = self.event_shape.numel()

    def forward(self, params: Float[Tensor, "N ..."]) -> Distribution:
        (logits,) = fields(params, self.event_shape, 1)
        return BernoulliDistribution(logits, len(self.event_shape))

    @checked_arguments
    def params_of_mean(self, mean: Float[Tensor, "..."]) -> Tensor:
        """The parameters of the distribution with this mean, in (0, 1)."""
        return torch.logit(mean)


class ContinuousBernoulli(nn.Module):
    r"""Independent values in [0, 1] with density ``exp(eta * x - A(eta))``: for grey pixels.

    Far from 0 that is an exponential's density, which falls from an end of the interval over ``1 / |eta|``, its
    standard deviation, and is ``|eta|`` high there: it is unbounded, and an element that is 0 in all N examples adds
    about ``log 2(N + 1)`` nats to log p(x), which are meaningless. Therefore
    :math:`|\eta| = |\tanh(s \cdot \text{params})| / s < 1 / s`: up to s = 0.1 no standard deviation is below s and no
    density above 1/s, within 1%. For a larger s the interval cuts the exponential off: the standard deviation is at
    least 0.182 for s = 0.2 and 0.263 for s = 0.5 (the uniform's is 0.289), and the density at most 5.03 and 2.31.

    Args:
        event_shape: Shape of one event.
        min_scale: s, in the units of [0, 1]; None leaves the density unbounded.
    """

    is_discrete = False
    limits = (0.0, 1.0)

    @checked_arguments
    def __init__(self, event_shape: Sequence[int], *, min_scale: float | None = 1e-3):
        super().__init__()
        self.event_shape = Size(event_shape)
        self.num_params = self.event_shape.numel()
        self.min_scale = min_scale

    def forward(self, params: Float[Tensor, "N ..."]) -> Distribution:
        (logits,) = fields(params, self.event_shape, 1)
        if self.min_scale is not None:
            logits = (self.min_scale * logits).tanh() / self.min_scale
        return independent(ContinuousBernoulliDistribution(logits, validate_args=False), self.event_shape)

    @checked_arguments
    def params_of_mean(self, mean: Float[Tensor, "..."]) -> Tensor:
        """The parameters of the distribution with this mean, in (0, 1); near the floor for means too near an end."""
        logits = ContinuousBernoulliDistribution.logits_of_mean(mean)
        if self.min_scale is None:
            return logits
        return (self.min_scale * logits).clamp(-0.99, 0.99).atanh() / self.min_scale  # at 1 the gradient would vanish

    def share_at_floor(self, distribution: Independent) -> float | None:
        """Share of the standard deviations within 5% of their floor; None without a floor."""
        if self.min_scale is None:
            return None
        logits: Tensor = distribution.base_dist.logits  # pyright: ignore[reportAttributeAccessIssue]
        return (1.05 * self.min_scale * logits.abs() >= 1).double().mean().item()


class Categorical(nn.Module):
    r"""Independent elements with values 0 .. num_classes - 1; parameters are logits.

    If elements differ in their number of classes, each has logits for the largest number, and those of its
    impossible classes become -infinity: :math:`p_d(c) = e^{l_c} / \sum_{c' < C_d} e^{l_{c'}}`, exactly normalized over
    the :math:`C_d` possible ones, which alone are sampled, and 0, with no gradient, for the others.

    Args:
        event_shape: Shape of one event.
        num_classes: Number of values an element can take; one number, or for a vector one per element.

    Example:
        >>> columns = Categorical((2,), num_classes=(2, 4))(torch.zeros(1, 8))
        >>> columns.log_prob(torch.tensor([[1.0, 3.0]])).exp(), columns.log_prob(torch.tensor([[3.0, 1.0]]))
        (tensor([0.1250]), tensor([-inf]))
    """

    is_discrete = True
    impossible: Tensor | None

    @checked_arguments
    def __init__(self, event_shape: Sequence[int], *, num_classes: int | Sequence[int]):
        super().__init__()
        self.event_shape = Size(event_shape)
        counts = [num_classes] if isinstance(num_classes, int) else list(num_classes)
        if not isinstance(num_classes, int) and self.event_shape != (len(counts),):
            raise InputError(
                f"received {len(counts)} numbers of classes for data of shape {tuple(event_shape)}: give one for each "
                "column, or a single one for all"
            )
        self.num_classes = max(counts)
        self.num_params = self.num_classes * self.event_shape.numel()
        own = torch.tensor(counts).unsqueeze(-1) <= torch.arange(self.num_classes)
        self.register_buffer("impossible", own if bool(own.any()) else None, persistent=False)

    def forward(self, params: Float[Tensor, "N ..."]) -> Distribution:
        logits = torch.stack(fields(params, self.event_shape, self.num_classes), dim=-1)
        if self.impossible is not None:
            logits = logits.masked_fill(self.impossible, -torch.inf)
        return independent(CategoricalDistribution(logits=logits, validate_args=False), self.event_shape)


class OneHotCategorical(nn.Module):
    """Vectors of one-hot categories, ``(D, C)`` numbers that are 0 or 1: categorical latents that a decoder can read.

    Args:
        event_shape: ``(D,)``, the number of categorical variables.
        num_classes: Number of values each can take.
    """

    is_discrete = True

    @checked_arguments
    def __init__(self, event_shape: Sequence[int], *, num_classes: int):
        super().__init__()
        self.event_shape = Size((*event_shape, num_classes))
        self.num_params = self.event_shape.numel()

    def forward(self, params: Float[Tensor, "N ..."]) -> Distribution:
        params = checked(params, self.event_shape, self.num_params)
        logits = params.reshape(params.shape[0], *self.event_shape)
        return Independent(
            OneHotCategoricalDistribution(logits=logits, validate_args=False),
            len(self.event_shape) - 1,
            validate_args=False,
        )


class Poisson(nn.Module):
    """Independent counts with rate ``exp(params)``.

    Args:
        event_shape: Shape of one event.
    """

    is_discrete = True

    @checked_arguments
    def __init__(self, event_shape: Sequence[int]):
        super().__init__()
        self.event_shape = Size(event_shape)
        self.num_params = self.event_shape.numel()

    def forward(self, params: Float[Tensor, "N ..."]) -> Distribution:
        (log_rate,) = fields(params, self.event_shape, 1)
        return independent(PoissonDistribution(log_rate), self.event_shape)

    @property
    def log_means(self) -> Tensor:
        """Which parameters are logarithms of means: all."""
        return first_field(self)

    @checked_arguments
    def params_of_mean(self, mean: Float[Tensor, "..."]) -> Tensor:
        """The parameters of the distribution with this positive mean."""
        return mean.log()
