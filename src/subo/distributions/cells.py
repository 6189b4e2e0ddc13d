"""Distributions of single cells of a table that torch lacks: levels with a place for new ones, grades, and spikes."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Size, Tensor
from torch.distributions import Distribution

from subo.distributions.gaussian import Gaussian

__all__ = ["Levels", "Ordinal", "Spiked"]


class Levels(Distribution):
    r"""One of C levels, or one that was never seen before.

    .. math:: p(c) = (1 - \varepsilon)\, \mathrm{softmax}(l)_c, \qquad p(C) = \varepsilon

    The value C stands for every level beyond those known. After N cells without a new level Laplace's rule of
    succession gives :math:`\varepsilon = 1 / (N + 2)`. Known levels alone are drawn.

    Args:
        logits: ``(..., C)``; -infinity for a level that a column does not have.
        unseen: :math:`\varepsilon`, of a shape that broadcasts to ``(...)``; 0 gives -infinity.
        levels: C of each column, of a shape that broadcasts to ``(...)``: the value of an unseen level.

    Example:
        >>> p = Levels(torch.zeros(2), torch.tensor(0.1), torch.tensor(2))
        >>> p.log_prob(torch.tensor([0.0, 1.0, 2.0])).exp()
        tensor([0.4500, 0.4500, 0.1000])
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 (torch's way)

    def __init__(self, logits: Tensor, unseen: Tensor, levels: Tensor):
        self.logits = logits.log_softmax(-1)
        self.unseen, self.levels = unseen, levels
        super().__init__(logits.shape[:-1], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """``log p(value)``."""
        known = value < self.levels
        level = value.where(known, 0).long()
        logits, index = torch.broadcast_tensors(self.logits, level.unsqueeze(-1))[0], level.unsqueeze(-1)
        index = index.expand(*logits.shape[:-1], 1)
        of_level = logits.gather(-1, index).squeeze(-1) + (-self.unseen).log1p()
        return torch.where(known, of_level, self.unseen.log())

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Known levels, as floats, by the largest of logits with Gumbel noise."""
        with torch.no_grad():
            shape = Size(sample_shape) + self.logits.shape
            noise = torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device)
            tiny = torch.finfo(noise.dtype).tiny
            gumbel = -(-noise.clamp(min=tiny).log()).clamp(min=tiny).log()
            return (self.logits + gumbel).argmax(-1).to(self.logits.dtype)

    @property
    def mode(self) -> Tensor:
        """The most probable level."""
        return self.logits.argmax(-1).to(self.logits.dtype)

    @property
    def mean(self) -> Tensor:
        """The most probable level, since levels have no mean."""
        return self.mode


class Ordinal(Distribution):
    r"""One of C levels in order by proportional odds (McCullagh, 1980, equation 2.4), or one that was never seen.

    .. math:: P(x \le k) = (1 - \varepsilon)\, \sigma(\theta_k - \mu), \qquad p(C) = \varepsilon

    The value C and :math:`\varepsilon` are as for :class:`Levels`: known levels alone are drawn. From
    :math:`\sigma(b) - \sigma(a) = \sigma(b)\, \sigma(-a)\, (1 - e^{a - b})` the probability of a level is exact also
    where both ends are far out.

    Args:
        location: :math:`\mu`, ``(...)``.
        thresholds: :math:`\theta_0 < \theta_1 < ...`, ``(..., C - 1)``; infinity from the last level of a column on.
        unseen: :math:`\varepsilon`, of a shape that broadcasts to ``(...)``; 0 gives -infinity.

    Example:
        >>> p = Ordinal(torch.zeros(()), torch.tensor([0.0, 50.0]), torch.tensor(0.1))
        >>> p.log_prob(torch.tensor([0.0, 1.0, 2.0, 3.0]))
        tensor([ -0.7985,  -0.7985, -50.1054,  -2.3026])
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 (torch's way)

    def __init__(self, location: Tensor, thresholds: Tensor, unseen: Tensor):
        self.location, self.thresholds, self.unseen = location, thresholds, unseen
        self.levels = 1 + thresholds.isfinite().sum(-1)
        super().__init__(location.shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """``log (1 - eps) + log [ sigma(theta_k - mu) - sigma(theta_(k-1) - mu) ]``; ``log eps`` beyond the levels."""
        known = (value >= 0) & (value < self.levels)
        level = value.where(known, 0).long()
        upper, lower = self._threshold(level, 0), self._threshold(level, -1)
        last, first = upper.isinf(), lower.isinf()
        above = torch.where(last, 0.0, F.logsigmoid(upper.where(~last, 0) - self.location))
        below = torch.where(first, 0.0, F.logsigmoid(self.location - lower.where(~first, 0)))
        inner = ~(last | first)
        gap = torch.where(inner, lower - upper, -1.0)  # finite where it does not serve
        between = torch.where(inner, (-gap.exp()).log1p(), 0.0)
        return torch.where(known, above + below + between + (-self.unseen).log1p(), self.unseen.log())

    def _threshold(self, level: Tensor, step: int) -> Tensor:
        """The threshold above a level, or with -1 that below it, infinite at the ends."""
        index = level + step
        thresholds = self.thresholds.expand(*index.shape, self.thresholds.shape[-1])
        found = thresholds.gather(-1, index.clamp(0, thresholds.shape[-1] - 1).unsqueeze(-1)).squeeze(-1)
        return found.where((index >= 0) & (index < thresholds.shape[-1]), torch.inf if step == 0 else -torch.inf)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """The number of thresholds below a logistic variable around the location."""
        with torch.no_grad():
            shape = Size(sample_shape) + self.location.shape
            eps = torch.finfo(self.location.dtype).eps
            noise = torch.rand(shape, dtype=self.location.dtype, device=self.location.device).clamp(eps, 1 - eps)
            return self._grade(self.location + noise.logit())

    @property
    def mean(self) -> Tensor:
        """The median level."""
        return self._grade(self.location)

    @property
    def mode(self) -> Tensor:
        """The most probable level."""
        levels = torch.arange(self.thresholds.shape[-1] + 1, dtype=self.location.dtype, device=self.location.device)
        levels = levels.view(-1, *[1] * self.location.ndim)
        log_prob = self.log_prob(levels.expand(-1, *self.location.shape)).masked_fill(levels >= self.levels, -torch.inf)
        return log_prob.argmax(0).to(self.location.dtype)

    def _grade(self, variable: Tensor) -> Tensor:
        return (variable.unsqueeze(-1) > self.thresholds).sum(-1).to(self.location.dtype)


class Spiked(Distribution):
    r"""A single value with probability :math:`\pi`, written as infinity, and a normal density everywhere else.

    Its density is with respect to Lebesgue measure plus a point: :math:`\log \pi` at the spike,
    :math:`\log(1 - \pi) + \log N(x)` elsewhere.

    Args:
        logit: The logit of :math:`\pi`.
        normal: The density beside the spike.
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 (torch's way)

    def __init__(self, logit: Tensor, normal: Gaussian):
        self.logit, self.normal = logit, normal
        super().__init__(logit.shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the definition."""
        spike = value == torch.inf
        beside = F.logsigmoid(-self.logit) + self.normal.log_prob(value.where(~spike, 0))
        return torch.where(spike, F.logsigmoid(self.logit), beside)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Infinity with probability pi, else a normal draw."""
        with torch.no_grad():
            beside = self.normal.sample(Size(sample_shape))
            return torch.where(torch.rand_like(beside) < self.logit.sigmoid(), torch.inf, beside)

    @property
    def mean(self) -> Tensor:
        """The spike where it is more probable than not, else the normal's mean: the spike has no number here."""
        return torch.where(self.logit > 0, torch.inf, self.normal.loc)

    @property
    def mode(self) -> Tensor:
        """As the mean."""
        return self.mean
