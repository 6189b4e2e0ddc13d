"""The distributions, and the closed-form divergences, that torch lacks.

Importing this module adds some rules to torch's registry of KL divergences, for pairs that had none.
"""

import math
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Size, Tensor
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import (
    Distribution,
    Independent,
    MultivariateNormal,
    Normal,
    Transform,
    constraints,
    kl_divergence,
    register_kl,
)
from torch.distributions import OneHotCategorical as TorchOneHotCategorical
from torch.distributions import Poisson as TorchPoisson

from subo.continuous_bernoulli import ContinuousBernoulli

__all__ = [
    "Bernoulli",
    "Categorical",
    "ContinuousBernoulli",
    "Flow",
    "Gaussian",
    "OneHotCategorical",
    "Poisson",
    "StandardNormal",
]

_HALF_LOG_2PI = math.log(2 * math.pi) / 2
_MANY_BITS = 512  # of an event: a quarter of them is long enough a run for a processor's vectors


class Bernoulli(Independent):
    """Independent bits as one event: torch's, with one pass less over the pixels in its log-density, and made lazily.

    Args:
        logits: ``log p(x = 1) / p(x = 0)``, ``(*batch, *event)``.
        event_dims: How many of its last dimensions make an event.
    """

    def __init__(self, logits: Tensor, event_dims: int):
        self.logits = logits
        self.reinterpreted_batch_ndims = event_dims
        split = logits.ndim - event_dims
        Distribution.__init__(self, logits.shape[:split], logits.shape[split:], validate_args=False)

    @cached_property
    def base_dist(self) -> TorchBernoulli:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The elements, for who asks for them."""
        return TorchBernoulli(logits=self.logits, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Bernoulli":
        """The same distribution with its parameters expanded to `batch_shape`."""
        return Bernoulli(self.logits.expand(Size(batch_shape) + self.event_shape), self.reinterpreted_batch_ndims)

    def unflatten(self, sizes: tuple[int, ...]) -> "Bernoulli":
        """The same distribution with its first batch dimension cut into `sizes`; a view."""
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
    """Whether no gradient is asked for of bits, on a processor that is slower at logarithms than at reading memory."""
    kinds = {logits.dtype, value.dtype}
    plain = logits.device.type == "cpu" and kinds in ({torch.float32}, {torch.float64})
    if not plain or (torch.is_grad_enabled() and (logits.requires_grad or value.requires_grad)):
        return False
    return torch.equal(value, (value > 0).to(value.dtype))  # of each datum, not of its samples


def _log_prob_of_bits(logits: Tensor, value: Tensor, event_dims: int) -> Tensor:
    r"""``-sum_d log(1 + e_d)`` with ``e_d = exp((1 - 2 x_d) l_d)``, by one logarithm for many elements.

    ``prod_d (1 + e_d) - 1`` is built from pairs, ``(1 + a)(1 + b) - 1 = a + b + a b``: sums of positive numbers, which
    lose nothing where they are small. Infinite where sixteen bits are so unlikely that their product leaves the range
    of floats (below ``exp(-88)`` in single precision). Of many bits a quarter is taken after the other, in memory that
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
    """Bregman divergence of the log-normaliser: ``sum_d sigma(l_q) (l_q - l_p) - log(1 + e^l_q) + log(1 + e^l_p)``."""
    elements = q.logits.sigmoid() * (q.logits - p.logits) - F.softplus(q.logits) + F.softplus(p.logits)
    return sum_last(elements, q.reinterpreted_batch_ndims)


class Categorical(TorchCategorical):
    """torch's categorical, with the moments that it leaves undefined: those of the value 0 .. C - 1.

    Data that a categorical describes are often ordered levels (grey values, ratings), whose mean is a picture. Its
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
        """``sum_c z_c log p_c``; torch's looks the category up, through which nothing can be differentiated."""
        return (value * self.logits).sum(-1)


class Poisson(TorchPoisson):
    """torch's Poisson, by the logarithm of its rate: exact in value and gradient where the rate underflows to 0.

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


class Flow(Distribution):
    r"""A base distribution pushed through an invertible map, with a sample and its density in one pass.

    .. math:: z = f(e), \quad e \sim p_0, \qquad \log q(z) = \log p_0(e) - \log |\det \partial f / \partial e|

    (Rezende and Mohamed, 2015, equation 5). What torch's ``TransformedDistribution`` lacks is
    :meth:`rsample_and_log_prob`: an inverse autoregressive flow samples in one pass and inverts in D of them, and a
    posterior that only asks for the density of its own samples never needs the inverse.

    Args:
        base: Distribution of e over vectors.
        transform: The map f from e to z.
    """

    arg_constraints: dict = {}  # noqa: RUF012 (torch's protocol)
    has_rsample = True

    def __init__(self, base: Distribution, transform: Transform, validate_args: bool | None = None):
        self.base = base
        self.transform = transform
        super().__init__(base.batch_shape, base.event_shape, validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        """All real vectors."""
        return constraints.real_vector

    def expand(self, batch_shape: Size, _instance: Any = None) -> "Flow":
        """The same distribution with its base expanded to `batch_shape`."""
        return Flow(self.base.expand(batch_shape), self.transform, validate_args=False)

    def rsample_and_log_prob(self, sample_shape: Any = ()) -> tuple[Tensor, Tensor]:
        """A sample ``(*sample, *batch, D)`` and its log-density ``(*sample, *batch)``, without any inversion."""
        noise = self.base.rsample(Size(sample_shape))
        z, log_det = self._call_and_log_det(self.transform, noise)
        return z, self.base.log_prob(noise) - log_det

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """A sample of shape ``(*sample, *batch, D)``, differentiable in the parameters."""
        return self._call_and_log_det(self.transform, self.base.rsample(Size(sample_shape)))[0]

    @staticmethod
    def _call_and_log_det(transform: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        """zuko's name for a map and its log-determinant at once."""
        return transform.call_and_ladj(x)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density of any z, by the inverse map."""
        noise, log_det = self._call_and_log_det(self.transform.inv, value)
        return self.base.log_prob(noise) + log_det


class Gaussian(Independent):
    r"""Independent normals as one event: torch's, made and sampled in fewer operations, which training feels.

    Args:
        loc: Locations, ``(*batch, *event)``.
        scale: Standard deviations, of a shape that broadcasts to that of `loc`.
        event_dims: How many of its last dimensions make an event.
    """

    has_rsample = True  # pyright: ignore[reportAssignmentType] (told without making the elements)

    def __init__(self, loc: Tensor, scale: Tensor, event_dims: int):
        self.loc, self.scale = loc, scale
        self.reinterpreted_batch_ndims = event_dims
        shape = loc.shape
        split = len(shape) - event_dims
        Distribution.__init__(self, shape[:split], shape[split:], validate_args=False)

    @cached_property
    def base_dist(self) -> Normal:  # pyright: ignore[reportIncompatibleVariableOverride] (an attribute of torch's)
        """The elements, for who asks for them."""
        return Normal(self.loc, self.scale, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Gaussian":
        """The same distribution with its parameters expanded to `batch_shape`."""
        shape = Size(batch_shape) + self.event_shape
        return Gaussian(self.loc.expand(shape), self.scale.expand(shape), self.reinterpreted_batch_ndims)

    def unflatten(self, sizes: tuple[int, ...]) -> "Gaussian":
        """The same distribution with its first batch dimension cut into `sizes`; a view."""
        scale = self.scale.expand(self.loc.shape).unflatten(0, sizes)
        return Gaussian(self.loc.unflatten(0, sizes), scale, self.reinterpreted_batch_ndims)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """``loc + scale * noise``, of shape ``(*sample, *batch, *event)``."""
        return torch.addcmul(self.loc, self.scale, self._noise(sample_shape))

    def _noise(self, sample_shape: Any) -> Tensor:
        return torch.randn(Size(sample_shape) + self.loc.shape, dtype=self.loc.dtype, device=self.loc.device)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """The same, without a gradient."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def sample_and_log_prob(self, sample_shape: Any = ()) -> tuple[Tensor, Tensor]:
        r"""Samples and their log-density, without a gradient.

        The density is that of the noise, ``-sum_d [ noise_d^2 / 2 + log scale_d + 1/2 log 2 pi ]``, which need not be
        found again from the sample.
        """
        with torch.no_grad():
            noise = self._noise(sample_shape)
            z = torch.addcmul(self.loc, self.scale, noise)
            log_scale = sum_last(self.scale.log().expand(self.loc.shape), self.reinterpreted_batch_ndims)
            half_square = 0.5 * sum_last(noise.square_(), self.reinterpreted_batch_ndims)
            return z, -(half_square + log_scale) - _HALF_LOG_2PI * self.event_shape.numel()

    def log_prob(self, value: Tensor) -> Tensor:
        r"""``-sum_d [ (x_d - loc_d)^2 / (2 scale_d^2) + log scale_d + 1/2 log 2 pi ]``."""
        standard = (value - self.loc) / self.scale
        elements = torch.add(self.scale.log(), standard.square(), alpha=0.5)
        return -sum_last(elements, self.reinterpreted_batch_ndims) - _HALF_LOG_2PI * self.event_shape.numel()


class StandardNormal(Gaussian):
    """``N(0, I)`` over events: a normal that divergences can tell from others, and need not divide by 1 for.

    Args:
        zeros: A tensor of zeros of the event's shape, where the samples are wanted.
    """

    def __init__(self, zeros: Tensor):
        self.loc = zeros
        self.reinterpreted_batch_ndims = zeros.ndim
        Distribution.__init__(self, Size(), zeros.shape, validate_args=False)

    @cached_property
    def scale(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Ones."""
        return torch.ones_like(self.loc)

    def log_prob(self, value: Tensor) -> Tensor:
        """``-1/2 sum_d [ x_d^2 + log 2 pi ]``."""
        return -0.5 * sum_last(value.square(), self.loc.ndim) - _HALF_LOG_2PI * self.event_shape.numel()


@register_kl(Gaussian, StandardNormal)
def _kl_gaussian_standard(q: Gaussian, p: StandardNormal) -> Tensor:
    r"""KL(N(m, diag s^2) || N(0, I)) = sum_i [ (m_i^2 + s_i^2) / 2 - log s_i ] - D / 2.

    Kingma and Welling, 2014, appendix B.
    """
    squares = torch.addcmul(q.loc.square(), q.scale, q.scale)
    elements = torch.sub(q.scale.log(), squares, alpha=0.5)
    return torch.rsub(sum_last(elements, q.reinterpreted_batch_ndims), -0.5 * q.event_shape.numel())


@register_kl(Independent, StandardNormal)
def _kl_independent_standard(q: Independent, p: StandardNormal) -> Tensor:
    """The same for torch's own Independent(Normal); other elements as torch knows them."""
    elements = q.base_dist
    if isinstance(elements, Normal):
        return _kl_gaussian_standard(Gaussian(elements.loc, elements.scale, q.reinterpreted_batch_ndims), p)
    return sum_last(kl_divergence(elements, p.base_dist), q.reinterpreted_batch_ndims)


def sum_last(values: Tensor, dims: int) -> Tensor:
    """The sum over the last `dims` dimensions."""
    if dims == 1:
        return values.sum(-1)
    return values.flatten(-dims).sum(-1) if dims else values


@register_kl(MultivariateNormal, Independent)
def _kl_full_rank_diagonal(q: MultivariateNormal, p: Independent) -> Tensor:
    r"""KL(N(m, L L^T) || N(n, diag s^2)), the full-rank posterior against a factorised prior.

    ``1/2 sum_i [ (L L^T)_ii / s_i^2 + (m_i - n_i)^2 / s_i^2 - 1 + log s_i^2 ] - sum_i log L_ii``
    """
    if not (isinstance(p.base_dist, Normal) and p.reinterpreted_batch_ndims == 1):
        raise NotImplementedError  # which torch's kl_divergence says as well where it knows none
    variance = p.base_dist.variance
    squares = q.scale_tril.square().sum(-1) + (q.loc - p.base_dist.loc).square()
    log_det = q.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return 0.5 * (squares / variance - 1 + variance.log()).sum(-1) - log_det
