r"""Whether a cell is missing, given its own value: the model p(s | x) of cells that are missing not at random.

A column's cells are missing by themselves ("self-masking"; Ipsen, Mattei and Frellsen, 2021, section 3.2), so that

.. math:: p(x_{obs}, s | z) = \prod_{j\ \text{observed}} p(x_j | z)\, P(\text{observed} | x_j)
          \prod_{j\ \text{missing}} E_{p(x | z)}[P(\text{missing} | x)]

The bound of equations 4 to 7 there draws the missing cells beside z. Here each expectation is one-dimensional and is
computed, so that all that is estimated is the integral over z, as without missing cells. To that end P(missing | x) of
numbers has the normal distribution function (Heckman, 1979) in place of the logistic one, from which it differs by at
most 0.01 after scaling:

.. math:: \psi(h) = \delta + (1 - 2 \delta)\, \Phi(h), \qquad \delta = 0.001

The floor bounds what a single cell far out may cost to 7 nats.
"""

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.functional import logsigmoid
from torch.special import ndtr, ndtri

__all__ = ["ByDecay", "ByLevel", "BySpike", "ByThreshold", "SelfMasking"]

_FLOOR = 1e-3
_NODES = torch.arange(-14, 6.5, 0.6, dtype=torch.float64)  # exact to 1e-6 down to two degrees of freedom


class SelfMasking(nn.Module, ABC):
    """P(missing | x) of all columns of one kind."""

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``log P(missing | x)`` and ``log P(observed | x)`` of cells ``(..., n)`` that are all there."""

    @abstractmethod
    def expected(self, p: Any, missing: Tensor) -> Tensor:
        """``log E_p[P(missing | x)]``, ``(..., n)``; it counts only where `missing`, which broadcasts to that."""

    @abstractmethod
    def start(self, x: Tensor) -> None:
        """Makes cells ``(N, n)`` as often missing as they are, NaN, whatever their values."""

    def log_prob(self, x: Tensor, p: Distribution) -> Tensor:
        """``log P(observed | x)``, and where x is NaN ``log E_p[P(missing | x)]``.

        Args:
            x: Cells, ``(..., n)``.
            p: Their distribution without a word about which are missing, of batch shape ``(..., n)``.
        """
        missing = x.isnan()
        known = self(x.where(~missing, 0))[1].masked_fill(missing, 0)
        if not bool(missing.any()):
            return known
        return known + self.expected(p, missing).masked_fill(~missing, 0)


class ByThreshold(SelfMasking):
    r"""Numbers, :math:`P(\text{missing} | x) = \psi(a + b x)`: x and normal noise exceed a threshold, if b > 0.

    Of a normal distribution :math:`E[\Phi(a + b x)] = \Phi((a + b m) / \sqrt{1 + b^2 s^2})`. A Student t is normal
    given w, of a Gamma distribution, with the scale :math:`s / \sqrt{w}`. The integral over log w has an integrand that
    is smooth whatever the slope b, so that the trapezoidal rule converges exponentially (Trefethen and Weideman, 2014).

    Args:
        size: n.

    Example:
        >>> mask = ByThreshold(1)
        >>> mask.slope.data.fill_(2.0)
        tensor([2.])
        >>> mask(torch.tensor([[-1.0], [0.0], [1.0]]))[0].exp().detach().squeeze()
        tensor([0.0237, 0.5000, 0.9763])
    """

    def __init__(self, size: int):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(size))
        self.slope = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        height = self.shift + self.slope * x
        return _log_link(ndtr(height)), _log_link(ndtr(-height))

    def expected(self, p: Any, missing: Tensor) -> Tensor:
        height, width = self.shift + self.slope * p.loc, self.slope * p.scale
        if not hasattr(p, "df"):
            return _log_link(ndtr(height / (1 + width.square()).sqrt()))
        height, at = torch.broadcast_tensors(height, missing)  # many nodes: where they are needed alone
        width, df = width.expand(height.shape)[at], p.df.expand(height.shape)[at]
        of_t = _log_link(_expected_of_t(height[at], width, df))
        return torch.zeros_like(height).masked_scatter(at, of_t)

    def start(self, x: Tensor) -> None:
        with torch.no_grad():
            self.shift.copy_(_height(_share(x)))
            self.slope.zero_()


class BySpike(ByThreshold):
    r"""Numbers beside a spike, written as infinity: as by a threshold, and :math:`\psi(c)` at the spike.

    Args:
        size: n.
    """

    def __init__(self, size: int):
        super().__init__(size)
        self.at_spike = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        spike = x == torch.inf
        height = torch.where(spike, self.at_spike, self.shift + self.slope * x.where(~spike, 0))
        return _log_link(ndtr(height)), _log_link(ndtr(-height))

    def expected(self, p: Any, missing: Tensor) -> Tensor:
        spike = logsigmoid(p.logit) + _log_link(ndtr(self.at_spike))
        return torch.logaddexp(spike, logsigmoid(-p.logit) + super().expected(p.normal, missing))

    def start(self, x: Tensor) -> None:
        super().start(x)
        with torch.no_grad():
            self.at_spike.copy_(self.shift)


def _expected_of_t(height: Tensor, width: Tensor, df: Tensor) -> Tensor:
    r""":math:`E[\Phi(h + d T)]` of Student's T, ``(M,)``: nodes u, with :math:`\log w = u \sqrt{2 / v}`."""
    nodes = _NODES.to(height)
    log_w = nodes * (2 / df).sqrt().unsqueeze(-1)
    density = df.unsqueeze(-1) / 2 * (log_w - log_w.expm1())
    values = ndtr(height.unsqueeze(-1) / (1 + width.square().unsqueeze(-1) * (-log_w).exp()).sqrt())
    return (density.softmax(-1) * values).sum(-1)


class ByDecay(SelfMasking):
    r"""Counts, :math:`P(\text{missing} | x) = \pi_\infty + (\pi_0 - \pi_\infty)\, t^x` with :math:`0 < t < 1`.

    The expectation holds that of :math:`t^x`, the generating function, of the negative binomial with mean m and
    dispersion a :math:`(1 + a m (1 - t))^{-1/a}`.

    Args:
        size: n.
    """

    def __init__(self, size: int):
        super().__init__()
        self.at_zero = nn.Parameter(torch.zeros(size))  # logits
        self.far_off = nn.Parameter(torch.zeros(size))
        self.log_rate = nn.Parameter(torch.zeros(size))  # of -log t

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_power = -x * self.log_rate.exp()
        return self._mixed(log_power, 1), self._mixed(log_power, -1)

    def expected(self, p: Any, missing: Tensor) -> Tensor:
        reach = p.log_mean.clamp(max=60).exp() * -(-self.log_rate.exp()).expm1()
        return self._mixed(-reach * _log1p_over(p.dispersion * reach), 1)

    def _mixed(self, log_power: Tensor, sign: int) -> Tensor:
        """The logarithm of the definition, or with -1 of its complement, given the logarithm of the power."""
        zero, far = (sign * self.at_zero).sigmoid(), (sign * self.far_off).sigmoid()
        return (zero * log_power.exp() - far * log_power.expm1()).log()

    def start(self, x: Tensor) -> None:
        with torch.no_grad():
            share = _share(x).logit()
            self.at_zero.copy_(share)
            self.far_off.copy_(share)
            self.log_rate.copy_(-(x.nan_to_num(0).sum(0) / (~x.isnan()).sum(0).clamp(min=1) + 1).log())


def _log1p_over(y: Tensor) -> Tensor:
    """``log(1 + y) / y``, in value and gradient also near 0."""
    small = y < 1e-2
    near, far = y.where(small, 0), y.where(~small, 1)
    series = sum(((-near) ** k / (k + 1) for k in range(1, 9)), torch.ones_like(near))
    return torch.where(small, series, far.log1p() / far)


class ByLevel(SelfMasking):
    r"""Levels, :math:`P(\text{missing} | x = c) = \psi(a_c)`, also for a level that was never seen.

    The expectation is a sum over the levels.

    Args:
        highest: The largest number of each column that stands for a cell.
    """

    highest: Tensor

    def __init__(self, highest: Tensor):
        super().__init__()
        self.register_buffer("highest", highest, persistent=False)
        self.heights = nn.Parameter(torch.zeros(1 + int(highest.max()), len(highest)))
        self.register_load_state_dict_pre_hook(_with_unseen)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        height = self.heights[x.long(), torch.arange(x.shape[-1], device=x.device)]
        return _log_link(ndtr(height)), _log_link(ndtr(-height))

    def expected(self, p: Any, missing: Tensor) -> Tensor:
        ndim = len(p.batch_shape)
        levels = torch.arange(len(self.heights), device=self.heights.device).view(-1, *[1] * ndim)
        log_prob = p.log_prob(levels.to(self.heights).expand(-1, *p.batch_shape))
        heights = self.heights.view(-1, *[1] * (ndim - 1), self.heights.shape[1])
        return (log_prob.masked_fill(levels > self.highest, -math.inf) + _log_link(ndtr(heights))).logsumexp(0)

    def start(self, x: Tensor) -> None:
        with torch.no_grad():
            self.heights.copy_(_height(_share(x)).expand_as(self.heights))


def _with_unseen(module: "ByLevel", weights: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Gives weights of levels in order, of before one of these could be unseen, the last level's height for it."""
    name = f"{prefix}heights"
    if name in weights and len(weights[name]) == len(module.heights) - 1:
        last, columns = module.highest.long(), torch.arange(len(module.highest))
        weights[name] = torch.cat([weights[name], weights[name][-1:]])
        weights[name][last, columns] = weights[name][last - 1, columns]


def _log_link(share: Tensor) -> Tensor:
    """``log psi``, given Phi."""
    return (_FLOOR + (1 - 2 * _FLOOR) * share).log()


def _height(share: Tensor) -> Tensor:
    """Where psi is a given share."""
    return ndtri(((share - _FLOOR) / (1 - 2 * _FLOOR)).clamp(_FLOOR, 1 - _FLOOR))


def _share(x: Tensor) -> Tensor:
    """The share of missing cells, as if half a cell more were missing and half a cell more observed."""
    return (x.isnan().sum(0) + 0.5) / (len(x) + 1)
