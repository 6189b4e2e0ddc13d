"""The negative binomial by its mean and dispersion, exact from the geometric to the Poisson limit."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, constraints

from subo.runtime.host_reads import reads_allowed

__all__ = ["NegativeBinomial"]

_SMALL = 1 / 64  # dispersion below which Stirling's series of log Gamma(1 / dispersion) is exact to 1e-15
_NEAR = 0.01  # relative distance from the mean below which its square is taken from a series, to 3e-13
_STIRLING = (1 / 12, -1 / 360, 1 / 1260)
_STIRLING_SLOPE = tuple((2 * k + 1) * c for k, c in enumerate(_STIRLING))
_SQUARE = tuple((-1) ** k / ((k + 1) * (k + 2)) for k in range(6))
_SQUARE_SLOPE = tuple((-1) ** k / (k + 2) for k in range(6))
_AT_A_TIME = 1 << 15  # counts: the many steps of a formula then work in the processor's cache


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
        return _LogProb.apply(value, self.log_mean, self.dispersion)  # pyright: ignore[reportReturnType]

    def _wide(self, tensor: Tensor) -> Tensor:
        return tensor if self.log_mean.device.type == "mps" else tensor.double()


class _LogProb(torch.autograd.Function):
    """The log-probability, of which a step keeps no more than x, log m and a.

    Its slopes in the last two are in closed form; it has none in x, a whole number, and no forward derivatives, which
    torch.compile would refuse.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, log_mean: Tensor, a: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _by_pieces(_log_prob, x, log_mean, a)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        tensors = ctx.saved_tensors
        grads = [
            (grad * _by_pieces(slope, *tensors)).sum_to_size(tensor.shape).to(tensor.dtype) if needed else None
            for slope, tensor, needed in zip(_SLOPES, tensors[1:], ctx.needs_input_grad[1:], strict=True)
        ]
        return None, *grads


def _by_pieces(of: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """A function of tensors that broadcast, element by element, in float64; on a CPU by pieces of the longest axis."""
    shape = torch.broadcast_tensors(*tensors)[0].shape  # broadcast_shapes takes 40 times as long
    if shape.numel() <= _AT_A_TIME or tensors[1].device.type != "cpu" or torch.compiler.is_compiling():
        return of(*(tensor if tensor.device.type == "mps" else tensor.double() for tensor in tensors)).to(tensors[1])
    axis = max(range(-len(shape), 0), key=lambda axis: shape[axis])
    rows = max(1, _AT_A_TIME * shape[axis] // shape.numel())
    count = -(-shape[axis] // rows)
    split = [
        tensor.split(rows, axis) if tensor.ndim >= -axis and tensor.shape[axis] > 1 else (tensor,) * count
        for tensor in tensors
    ]
    return torch.cat([_by_pieces(of, *piece) for piece in zip(*split, strict=True)], axis)


def _none_is_small(a: Tensor) -> bool:
    """Whether one formula serves all, which takes 0.6 of the time; False where the numbers may not be looked at."""
    if not torch.compiler.is_compiling() and a.device.type == "cpu" and reads_allowed():
        with suppress(RuntimeError):  # as inside of torch.vmap
            return bool((a > _SMALL).all())
    return False


def _log_prob(x: Tensor, log_mean: Tensor, a: Tensor) -> Tensor:
    return x * log_mean - torch.lgamma(x + 1) + _rising(x, log_mean, a)


def _slope_in_log_mean(x: Tensor, log_mean: Tensor, a: Tensor) -> Tensor:
    """``(x - m) / (1 + a m)``, also where m overflows."""
    return x / (1 + a * log_mean.exp()) - 1 / ((-log_mean).exp() + a)


def _slope_in_dispersion(x: Tensor, log_mean: Tensor, a: Tensor) -> Tensor:
    r"""The slope in a, with r = 1/a, the slope e in log m, and the digamma function :math:`\psi`.

    .. math:: r^2 \left[\log(1 + a m) + a e - \psi(x + r) + \psi(r)\right]

    since :math:`dr/da = -r^2`, and the slope of the rest is :math:`x / a - (x + r) m / (1 + a m) = r^2 a e`.
    """
    large = a.clamp(min=_SMALL)
    size, e = 1 / large, _slope_in_log_mean(x, log_mean, large)
    log_total = torch.logaddexp(log_mean + large.log(), torch.zeros_like(log_mean))
    direct = size.square() * (log_total + large * e - torch.digamma(x + size) + torch.digamma(size))
    if _none_is_small(a):
        return direct
    mean = log_mean.where(a <= _SMALL, 0).exp()
    return torch.where(a > _SMALL, direct, _slope_of_small(x, mean, a.clamp(max=_SMALL)))


_SLOPES = _slope_in_log_mean, _slope_in_dispersion


def _rising(x: Tensor, log_mean: Tensor, a: Tensor) -> Tensor:
    r""":math:`\log \Gamma(x + 1/a) - \log \Gamma(1/a) + x \log a - (x + 1/a) \log(1 + a m)`, which tends to -m."""
    large = a.clamp(min=_SMALL)
    size, log_a = 1 / large, large.log()
    log_total = torch.logaddexp(log_mean + log_a, torch.zeros_like(log_mean))  # log(1 + a m), even where a m overflows
    direct = torch.lgamma(x + size) - torch.lgamma(size) + x * log_a - (x + size) * log_total
    if _none_is_small(a):
        return direct
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


def _slope_of_small(x: Tensor, mean: Tensor, a: Tensor) -> Tensor:
    r"""The slope in a of :func:`_rising_of_small`, term by term.

    .. math:: e^2\, \frac{d - \log(1 + d)}{d^2} - \frac{x}{2 (1 + a x)}
              + \frac{1}{(1 + a x)^2} c'\!\left(\frac{a}{1 + a x}\right) - c'(a)

    with :math:`e = (x - m) / (1 + a m)` and d = a e, whose slope in a is e / (1 + a m), while that of
    :math:`d\, g(d)` in d is :math:`[d - \log(1 + d)] / d^2`.
    """
    e = (x - mean) / (1 + a * mean)
    shift = a * e
    near = shift.abs() < _NEAR
    d, away = shift.where(near, 0), shift.where(~near, 1)
    far = (away - ((a * x).log1p() - (a * mean).log1p()).where(~near, 0)) / away.square()
    bend = torch.where(near, _series(d, _SQUARE_SLOPE), far)
    least = 1 / (1 + a * x)
    ends = least.square() * _series((a * least).square(), _STIRLING_SLOPE) - _series(a.square(), _STIRLING_SLOPE)
    return e.square() * bend - x * least / 2 + ends


def _stirling(inverse: Tensor) -> Tensor:
    """``log Gamma(z) - [(z - 1/2) log z - z + log(2 pi) / 2]`` as a function of 1 / z, for z of at least 64."""
    return inverse * _series(inverse.square(), _STIRLING)


def _series(x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """``sum_k c_k x^k``."""
    total = torch.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = total * x + coefficient
    return total
