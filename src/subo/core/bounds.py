"""Bounds on log p(x), in nats, to be maximized: from a draw's ``(K, B)`` log-weights to one number per example.

A bound is any callable ``Draw -> (B,)``. Those here are frozen records of their settings. The reduction over the K
samples is part of the bound; the reduction over the data is not.
"""

import math
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from subo.core.draw import Draw, sum_layers
from subo.core.offers import Shaping
from subo.errors import InputError
from subo.runtime.arguments import check_fields, checked_on_failure

__all__ = ["BOUNDS", "ELBO", "IWAE", "MIWAE", "Bound", "Renyi", "log_mean_exp", "reported"]

Bound = Callable[[Draw], Tensor]

_LIMIT = 1e16  # of |1 - alpha|: beyond it Renyi's bound equals its limit to double precision


def log_mean_exp(values: Tensor, dim: int) -> Tensor:
    """``log 1/n sum_i exp(values_i)`` along `dim`, without overflow."""
    return values.logsumexp(dim) - math.log(values.shape[dim])


@dataclass(frozen=True)
class ELBO:
    r"""The evidence lower bound, ``E_q[log p(x|z)] - KL(q(z|x) || p(z))`` (Kingma and Welling, 2014, equation 3).

    With ``beta = 1`` and no free bits this is a bound on log p(x): Jensen's inequality applied to
    ``log E_q[exp(log_weight)]``. `beta` and `free_bits` shape what training follows and never a number that is
    reported.

    Args:
        beta: Weight of the KL (Higgins et al., 2017, equation 4).
        free_bits: Nats per example and stochastic layer below which a KL is not pushed down any further,
            ``max(free_bits, KL)`` (Kingma et al., 2016, equation 15, here per example, so that it does not
            depend on the batch). Where the KL is estimated from samples, it is the estimate that is compared.
        closed_form_kl: Whether the KL is computed in closed form where torch knows one; otherwise it is estimated
            from the samples.

    Raises:
        InputError: A setting is negative.
    """

    beta: float = 1.0
    free_bits: float = 0.0
    closed_form_kl: bool = True

    def __post_init__(self):
        check_fields(self)

    @checked_on_failure
    def __call__(self, draw: Draw) -> Float[Tensor, " B"]:
        rates = [factor.rate(closed_form=self.closed_form_kl) for factor in draw.factors]
        if self.free_bits > 0:
            rates = [rate.clamp(min=self.free_bits) for rate in rates]
        rate = sum_layers(rates)
        plain = not isinstance(self.beta, Tensor) and self.beta == 1
        return draw.expected_log_likelihood - (rate if plain else self.beta * rate)

    @checked_on_failure
    def tempered(self, weight: float) -> "ELBO":
        """The same bound with the weight of its KL multiplied: a step of KL warm-up (Sonderby et al., 2016).

        Args:
            weight: The factor; in a recorded or compiled step a tensor of one number, which is read anew each time.
        """
        if not isinstance(weight, Tensor):
            return replace(self, beta=self.beta * weight)
        tempered = copy(self)  # not checked again: that would read the weight
        object.__setattr__(tempered, "beta", self.beta * weight)
        return tempered

    def reported(self) -> "ELBO":
        """The bound on log p(x) that this one shapes: beta 1, no free bits."""
        return ELBO(closed_form_kl=self.closed_form_kl) if self.beta != 1 or self.free_bits else self


@dataclass(frozen=True)
class IWAE:
    r"""The importance-weighted bound, ``E[log 1/K sum_k w_k]`` (Burda et al., 2016, equation 8).

    ``1/K sum_k w_k`` is unbiased for p(x), so Jensen gives a bound, and one that rises with K to log p(x).
    """

    @checked_on_failure
    def __call__(self, draw: Draw) -> Float[Tensor, " B"]:
        return log_mean_exp(draw.log_weight, 0)


@dataclass(frozen=True)
class Renyi:
    r"""The variational Renyi bound, ``1/(1-alpha) log 1/K sum_k w_k^(1-alpha)`` (Li and Turner, 2016, section 4).

    It falls as alpha rises: the IWAE bound at 0, the ELBO at 1, the largest weight at minus infinity. Between 0 and 1
    it is the VR-IWAE bound (Daudel et al., 2023, equation 7). For phi, the signal-to-noise ratio of its gradient along
    the path then rises with the square root of K, where that of IWAE falls with it (Daudel et al., 2024, arXiv
    2410.12035; Rainforth et al., 2018). For ``alpha < 0`` it is not a lower bound on log p(x) as K grows: it tends to
    the chi upper bound, CUBO, of order ``1 - alpha`` (Dieng et al., 2017, equation 3).

    At alpha = 1 the formula is 0/0, and near it the logarithm's rounding is divided by ``1 - alpha``. With the mean m
    of the log-weights l taken out, the same number is

    .. math:: m + \frac{1}{1-\alpha} \log\Big(1 + \frac1K \sum_k \big[e^{(1-\alpha)(l_k - m)} - 1\big]\Big)

    whose sum is of order :math:`(1-\alpha)^2`, so that rounding stays that of the log-weights' spread. It is used where
    no exponent exceeds 1; elsewhere :math:`1/|1-\alpha|` is less than the spread, and the definition serves.

    Args:
        alpha: The order.

    Raises:
        InputError: `alpha` is not a number.
    """

    alpha: float

    def __post_init__(self):
        check_fields(self)

    @checked_on_failure
    def __call__(self, draw: Draw) -> Float[Tensor, " B"]:
        log_weight, power = draw.log_weight, 1 - self.alpha
        if power == 0:
            return log_weight.mean(0)
        if abs(power) > _LIMIT:
            return log_weight.amax(0) if power > 0 else log_weight.amin(0)
        direct = log_mean_exp(power * log_weight, 0) / power
        center = log_weight.detach().mean(0)  # any constant would do; the sum is smallest around the mean
        exponents = power * (log_weight - center)
        near = exponents.detach().abs().amax(0) <= 1  # false where a weight is 0, since its exponent is NaN
        small = exponents.where(near, 0.0)  # keeps the branch that is not taken from overflowing
        return (center + small.expm1().mean(0).log1p() / power).where(near, direct)


@dataclass(frozen=True)
class MIWAE:
    r"""The mean of importance-weighted bounds over groups of samples (Rainforth et al., 2018, section 5).

    The K samples are split into `groups` of `inner` samples: ``mean over groups of log mean of w in a group``.
    ``groups=1`` is IWAE, ``inner=1`` the ELBO. Give one of the two; the other is K divided by it.

    Args:
        groups: Number of groups (the paper's M).
        inner: Number of samples in a group (the paper's K).
    """

    groups: int | None = None
    inner: int | None = None

    def __post_init__(self):
        check_fields(self)
        given = self.groups if self.inner is None else self.inner
        if (self.groups is None) == (self.inner is None) or given is None or given < 1:
            raise InputError(
                f"MIWAE takes either groups or inner, at least 1: got groups={self.groups}, inner={self.inner}"
            )

    @checked_on_failure
    def __call__(self, draw: Draw) -> Float[Tensor, " B"]:
        log_weight = draw.log_weight
        num_samples = log_weight.shape[0]
        divisor = self.groups or self.inner or 1
        if num_samples % divisor:
            raise InputError(
                f"MIWAE splits K samples into equal groups: K = {num_samples} is not a multiple of {divisor}. "
                "Change num_samples, groups or inner."
            )
        groups = self.groups or num_samples // divisor
        return log_mean_exp(log_weight.unflatten(0, (groups, num_samples // groups)), 1).mean(0)


def reported(bound: Bound) -> Bound:
    """What is reported when training follows `bound`: itself, or the true bound that it shapes."""
    return bound.reported() if isinstance(bound, Shaping) else bound


def _renyi(*, alpha: float) -> Bound:
    return Renyi(alpha)


BOUNDS: dict[str, Callable[..., Bound]] = {"elbo": ELBO, "iwae": IWAE, "renyi": _renyi, "miwae": MIWAE}
"""The bounds by name; the keywords of each are the options that it takes."""
