"""The continuous Bernoulli, exact to rounding near 1/2 and far from it, in value and gradient.

Importing this module adds its divergence to torch's registry.
"""

import math
from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, constraints, register_kl

__all__ = ["ContinuousBernoulli"]

# log(sinh(u) / u) = sum_n c_n u^(2n): even and smooth, with radius of convergence pi.
_SERIES = (1 / 6, -1 / 180, 1 / 2835, -1 / 37800, 1 / 467775, -691 / 3831077250, 2 / 127702575)
_SERIES_LIMIT = 0.25  # below it the first omitted term is less than 1e-17, above it the direct form is exact enough

# (e^v - 1) / v and log(1 + v) / v, whose derivatives the quotients lose to cancellation near 0.
_EXPM1 = tuple(1 / math.factorial(n + 1) for n in range(9))
_LOG1P = tuple((-1) ** n / (n + 1) for n in range(9))
_QUOTIENT_LIMIT = 0.01  # below it the first omitted term is less than 1e-18


def _polynomial(u: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """``sum_n coefficients[n] * u^n`` by Horner's rule."""
    total = torch.zeros_like(u)
    for coefficient in reversed(coefficients):
        total = total * u + coefficient
    return total


class ContinuousBernoulli(Distribution):
    r"""The continuous Bernoulli on [0, 1], by its natural parameter.

    .. math:: p(x) = \exp(\eta x - A(\eta)), \qquad A(\eta) = \log \int_0^1 e^{\eta x} dx
              = \frac{\eta}{2} + \log \frac{\sinh(\eta/2)}{\eta/2}

    the density of Loaiza-Ganem and Cunningham, 2019, section 3, with :math:`\eta = \log \lambda / (1 - \lambda)`. The
    normalizer is usually written in lambda, as a quotient that is 0/0 at 1/2; in eta it is an even, analytic function,
    and below ``|eta| = 1/2`` it is summed from its power series, so that value and gradient are exact to rounding
    everywhere.

    Args:
        logits: The natural parameter eta, of any shape.
    """

    arg_constraints = {"logits": constraints.real}  # noqa: RUF012 # pyright: ignore[reportAssignmentType] (torch's way)
    support = constraints.unit_interval  # pyright: ignore[reportAssignmentType]
    has_rsample = True

    def __init__(self, logits: Tensor, validate_args: bool | None = None):
        self.logits = logits
        super().__init__(logits.shape, validate_args=validate_args)

    def expand(self, batch_shape: Size, _instance: Any = None) -> "ContinuousBernoulli":
        """The same distribution with its parameter expanded to `batch_shape`."""
        return ContinuousBernoulli(self.logits.expand(batch_shape), validate_args=False)

    @property
    def log_normalizer(self) -> Tensor:
        r"""A(eta), of the batch shape."""
        u = self.logits / 2
        near = u.abs() < _SERIES_LIMIT
        small = torch.where(near, u, torch.zeros_like(u))  # keeps the branch that is not taken from overflowing
        large = torch.where(near, torch.ones_like(u), u.abs())  # and from 0 / 0
        direct = large + torch.log1p(-torch.exp(-2 * large)) - torch.log(2 * large)
        return u + torch.where(near, small * small * _polynomial(small * small, _SERIES), direct)

    @property
    def mean(self) -> Tensor:
        r"""A'(eta) = 1/2 + (coth(u) - 1/u) / 2 with u = eta / 2."""
        u = self.logits / 2
        near = u.abs() < _SERIES_LIMIT
        small, far = torch.where(near, u, torch.zeros_like(u)), torch.where(near, torch.ones_like(u), u)
        slope = small * _polynomial(small * small, tuple(2 * (n + 1) * c for n, c in enumerate(_SERIES)))
        return 0.5 + 0.5 * torch.where(near, slope, 1 / torch.tanh(far) - 1 / far)

    @property
    def variance(self) -> Tensor:
        r"""A''(eta) = (1/u^2 - 1/sinh(u)^2) / 4 with u = eta / 2."""
        u = self.logits / 2
        near = u.abs() < _SERIES_LIMIT
        small, far = torch.where(near, u, torch.zeros_like(u)), torch.where(near, torch.ones_like(u), u.abs())
        curvature = _polynomial(small * small, tuple((2 * n + 2) * (2 * n + 1) * c for n, c in enumerate(_SERIES)))
        inverse_sinh_squared = 4 * torch.exp(-2 * far) / torch.expm1(-2 * far) ** 2
        return torch.where(near, curvature, far**-2 - inverse_sinh_squared) / 4

    @staticmethod
    def logits_of_mean(mean: Tensor) -> Tensor:
        """The parameter whose distribution has this mean, in (0, 1): the inverse of A', by bisection."""
        low, high = torch.full_like(mean, -1e4), torch.full_like(mean, 1e4)
        for _ in range(60):
            middle = (low + high) / 2
            below = ContinuousBernoulli(middle, validate_args=False).mean < mean
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2

    def log_prob(self, value: Tensor) -> Tensor:
        """``eta * x - A(eta)``."""
        return self.logits * value - self.log_normalizer

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        r"""Inverts the distribution function, ``x = log(1 + t (e^eta - 1)) / eta`` for t uniform.

        Evaluated for ``-|eta|``, where nothing overflows, and mirrored; near 0, where it is 0 / 0, as the product
        ``t * (e^eta - 1) / eta * log(1 + w) / w`` with ``w = t (e^eta - 1)``, factor by factor from the power series.
        """
        shape = Size(sample_shape) + self.batch_shape
        uniform = torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device)
        near = self.logits.abs() < _QUOTIENT_LIMIT
        small = torch.where(near, self.logits, torch.zeros_like(self.logits))
        product = uniform * _polynomial(small, _EXPM1) * _polynomial(uniform * torch.expm1(small), _LOG1P)
        eta = -torch.where(near, torch.ones_like(self.logits), self.logits.abs())
        quotient = torch.log1p(uniform * torch.expm1(eta)) / eta
        return torch.where(near, product, torch.where(self.logits > 0, 1 - quotient, quotient))


@register_kl(ContinuousBernoulli, ContinuousBernoulli)
def _kl_continuous_bernoulli(q: ContinuousBernoulli, p: ContinuousBernoulli) -> Tensor:
    """Bregman divergence of the log-normalizer: ``(eta_q - eta_p) A'(eta_q) - A(eta_q) + A(eta_p)``."""
    return (q.logits - p.logits) * q.mean - q.log_normalizer + p.log_normalizer
