"""Student's t, exact all the way to its normal limit."""

import math
from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import Chi2, Distribution
from torch.distributions import StudentT as TorchStudentT
from torch.distributions.utils import broadcast_all

from subo.once import once

__all__ = ["StudentT"]

_LARGE = 40.0  # half the degrees of freedom above which the series below is exact to 1e-16
_FAR = 1e18  # scales from the location, whose square a float in single precision holds
_SERIES = (-1 / 8, 1 / 192, -1 / 640, 17 / 14336, -31 / 18432)


class StudentT(TorchStudentT):
    r"""torch's Student t, with a constant that stays accurate for many degrees of freedom v.

    .. math:: p(x) = \frac{\Gamma(\frac{v + 1}{2})}{\Gamma(\frac v2) \sqrt{\pi v}\, s}
        \Big(1 + \frac{(x - l)^2}{v s^2}\Big)^{-(v + 1) / 2}

    (Lange, Little and Taylor, 1989, equation 1.) The mean is l for v > 1, the variance :math:`s^2 v / (v - 2)` for
    v > 2. Far away the density falls as the power :math:`|x|^{-(v + 1)}`, and the log-density's slope in x tends to 0:
    an example far from the others pulls less on l than a nearer one.

    Args:
        df: Degrees of freedom v, positive, of a shape that broadcasts to that of `loc`.
        loc: Locations l, of any shape.
        scale: Scales s, of a shape that broadcasts to that of `loc`.

    Example:
        >>> StudentT(torch.tensor(3.0), torch.zeros(2), torch.ones(2)).variance
        tensor([3., 3.])
    """

    def __init__(self, df: Tensor, loc: Tensor, scale: Tensor):
        self._each = df, scale  # before they are expanded to the locations' shape
        self.df, self.loc, self.scale = broadcast_all(df, loc, scale)
        Distribution.__init__(self, self.loc.shape, validate_args=False)  # torch's makes a chi-squared one each time

    @once
    def _chi2(self) -> Chi2:  # pyright: ignore[reportIncompatibleVariableOverride]
        return Chi2(self.df, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "StudentT":
        """The same distribution with its parameters expanded to `batch_shape`."""
        shape = Size(batch_shape)
        return StudentT(self.df.expand(shape), self.loc.expand(shape), self.scale.expand(shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the definition."""
        df, scale = self._each
        standard = (value - self.loc) / scale
        squares = standard.clamp(-_FAR, _FAR).square()
        farther = 2 * (standard.abs() / _FAR).clamp(min=1).log()  # 1 + r^2 / v is r^2 / v there
        wide = df if df.device.type == "mps" else df.double()
        constant = _log_ratio(wide / 2).to(df.dtype) - math.log(2 * math.pi) / 2 - scale.log()
        return constant - (df + 1) / 2 * ((squares / df).log1p() + farther)


def _log_ratio(half: Tensor) -> Tensor:
    r""":math:`\log \Gamma(h + \frac12) - \log \Gamma(h) - \frac12 \log h`, which tends to 0 as -1/(8h)."""
    small, inverse = half.clamp(max=_LARGE), 1 / half.clamp(min=_LARGE)
    direct = torch.lgamma(small + 0.5) - torch.lgamma(small) - small.log() / 2
    series = sum((c * inverse ** (2 * k + 1) for k, c in enumerate(_SERIES)), torch.zeros_like(inverse))
    return torch.where(half < _LARGE, direct, series)
