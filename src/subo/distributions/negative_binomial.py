"""The negative binomial by its mean and dispersion, exact from the geometric to the Poisson limit."""

from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, constraints

__all__ = ["NegativeBinomial"]

_SMALL = 1 / 8  # dispersion below which Stirling's series of log Gamma(1 / dispersion) is exact to 1e-14
_NEAR = 0.01  # relative distance from the mean below which its square is taken from a series
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360)
_SQUARE = tuple((-1) ** k / ((k + 1) * (k + 2)) for k in range(8))


class NegativeBinomial(Distribution):
    r"""Counts with mean m and variance :math:`m + a m^2`; a = 0 is the Poisson distribution.

    .. math:: p(x) = \frac{\Gamma(x + 1/a)}{\Gamma(1/a)\, x!} \frac{(a m)^x}{(1 + a m)^{x + 1/a}}

    (Hilbe, 2011, "Negative Binomial Regression", equation 8.8.) It is a Poisson whose rate is drawn from a Gamma
    distribution of mean m and variance :math:`a m^2`.

    Args:
        log_mean: Logarithm of the mean, of any shape.
        dispersion: a, at least 0, of a shape that broadcasts to that of `log_mean`.

    Example:
        >>> counts = NegativeBinomial(torch.tensor(3.0).log(), torch.tensor(0.5))
        >>> counts.mean, counts.variance
        (tensor(3.), tensor(7.5000))
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 (torch's way)
    support = constraints.nonnegative_integer  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]

    def __init__(self, log_mean: Tensor, dispersion: Tensor):
        self.log_mean, self.dispersion = log_mean, dispersion
        super().__init__(log_mean.shape, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "NegativeBinomial":
        """The same distribution with its parameters expanded to `batch_shape`."""
        return NegativeBinomial(self.log_mean.expand(batch_shape), self.dispersion.expand(batch_shape))

    @property
    def mean(self) -> Tensor:
        """m."""
        return self.log_mean.exp()

    @property
    def variance(self) -> Tensor:
        """``m + a m^2``."""
        return self.mean + self.dispersion * self.mean.square()

    @property
    def mode(self) -> Tensor:
        """``floor(m (1 - a))``, or 0 from a = 1 on: where p(x) / p(x - 1) falls below 1."""
        return (self.mean * (1 - self.dispersion)).floor().clamp(min=0)

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Poisson counts at rates from the Gamma distribution, of shape ``(*sample, *batch)``."""
        log_mean, dispersion = self._wide(self.log_mean), self._wide(self.dispersion)
        size = 1 / dispersion.expand(Size(sample_shape) + self.batch_shape).clamp(min=1e-20)  # not 1/0 for a Poisson
        rate = log_mean.exp() / size * torch._standard_gamma(size)
        return torch.poisson(rate).to(self.log_mean.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the definition, in float64 where the device has it."""
        x, log_mean, dispersion = map(self._wide, (value, self.log_mean, self.dispersion))
        rising = _rising(x, log_mean, dispersion)
        return (x * log_mean - torch.lgamma(x + 1) + rising).to(self.log_mean.dtype)

    def _wide(self, tensor: Tensor) -> Tensor:
        return tensor if self.log_mean.device.type == "mps" else tensor.double()


def _rising(x: Tensor, log_mean: Tensor, a: Tensor) -> Tensor:
    r""":math:`\log \Gamma(x + 1/a) - \log \Gamma(1/a) + x \log a - (x + 1/a) \log(1 + a m)`, which tends to -m."""
    large = a.clamp(min=_SMALL)
    size, log_a = 1 / large, large.log()
    log_total = torch.logaddexp(log_mean + log_a, torch.zeros_like(log_mean))  # log(1 + a m), even where a m overflows
    direct = torch.lgamma(x + size) - torch.lgamma(size) + x * log_a - (x + size) * log_total
    mean = log_mean.where(a <= _SMALL, 0).exp()  # finite where it does not serve
    return torch.where(a > _SMALL, direct, _rising_of_small(x, mean, a.clamp(max=_SMALL)))


def _rising_of_small(x: Tensor, mean: Tensor, a: Tensor) -> Tensor:
    r"""The same where a is small and log Gamma(1/a) is large: by Stirling's series, with its large terms cancelled.

    .. math:: (x + 1/a) \log\frac{1 + a x}{1 + a m} - x - \tfrac12 \log(1 + a x) + c(x + 1/a) - c(1/a)

    With :math:`d = a (x - m) / (1 + a m)` the first two terms are :math:`(x - m)\, d\, g(d) - m`, where
    :math:`g(d) = [(1 + d) \log(1 + d) - d] / d^2`: a series in d that has no 1/a.
    """
    shift = a * (x - mean) / (1 + a * mean)
    near = shift.abs() < _NEAR
    d, away = shift.where(near, 0), a.where(~near, _SMALL)  # each formula where it is accurate, and finite elsewhere
    close = (x - mean) * d * _series(d, _SQUARE) - mean
    far = (x + 1 / away) * ((away * x).log1p() - (away * mean).log1p()) - x
    return torch.where(near, close, far) - (a * x).log1p() / 2 + _stirling(a / (1 + a * x)) - _stirling(a)


def _stirling(inverse: Tensor) -> Tensor:
    """``log Gamma(z) - [(z - 1/2) log z - z + log(2 pi) / 2]`` as a function of 1 / z, for z of at least 8."""
    return inverse * _series(inverse.square(), _STIRLING)


def _series(x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """``sum_k c_k x^k``."""
    total = torch.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = total * x + coefficient
    return total
