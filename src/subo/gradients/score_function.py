"""Score-function gradients: they need no path through z, so they work for discrete latents and for any decoder."""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from subo.core.bounds import ELBO, IWAE, Bound
from subo.core.draw import Draw, mean_over_samples
from subo.core.estimator import GradientEstimator, needs_samples
from subo.errors import InputError
from subo.runtime.arguments import checked_arguments
from subo.typing import Context

__all__ = ["VIMCO", "ScoreFunction", "WakePhi"]

_DECAY = 0.99  # of running means of the learning signal


class ScoreFunction(GradientEstimator):
    r"""The score-function gradient, with a baseline (Williams, 1992; Mnih and Gregor, 2014; Kool et al., 2019).

    .. math:: \nabla_\phi E_q[f(z)] = E_q[(f(z) - b) \nabla_\phi \log q(z)] + E_q[\nabla_\phi f(z)]

    for any b that does not depend on z, since the score has expectation 0. For the ELBO, f is ``log p(x|z)``, with the
    KL differentiated in closed form if possible, else ``log w(z)``, per sample; for any other bound, f is the
    bound, multiplied by the sum of its K samples' scores. The gradient of theta is the plain one, at fixed z.

    Unbiased for every bound, any number of layers, any likelihood; one forward and one backward pass. Its variance is
    that of f, so that the baseline decides whether it is usable.

    Args:
        baseline: ``"none"``; ``"mean"``, a running mean of f over steps; ``"leave-one-out"``, the mean of the other
            samples' f (the ELBO with K >= 2; for IWAE the same idea is :class:`VIMCO`); or a module ``x -> (B,)`` or
            ``(B, 1)`` that learns to predict f from x (Mnih and Gregor, 2014, section 2.3), on top of the running
            mean. Its squared error is part of the surrogate: it learns along with the model.
        normalize: Divide the centered signal by its running standard deviation where that is above 1 (Mnih and Gregor,
            2014, section 2.3). That scales phi's gradient, and leaves its direction unbiased, since all of it then is
            signal times score: the KL is estimated from samples, too. For the ELBO, and a prior without phi in it
            (not a VampPrior).

    Example:
        >>> from subo import ELBO, Objective
        >>> from subo.models.probabilistic_pca import probabilistic_pca
        >>> objective = Objective(probabilistic_pca(5, 2), ELBO(), gradient=ScoreFunction(), num_samples=4)
        >>> objective(torch.zeros(3, 5)).bound.shape
        torch.Size([3])
    """

    path = False

    mean: Tensor
    variance: Tensor
    steps: Tensor

    @checked_arguments
    def __init__(
        self,
        baseline: Literal["none", "mean", "leave-one-out"] | nn.Module = "leave-one-out",
        *,
        normalize: bool = False,
    ):
        super().__init__()
        if not isinstance(baseline, nn.Module) and baseline not in ("none", "mean", "leave-one-out"):
            raise InputError(f"the baseline must be 'none', 'mean', 'leave-one-out' or a module of x, not {baseline!r}")
        self.baseline = "network" if isinstance(baseline, nn.Module) else baseline
        self.network = baseline if isinstance(baseline, nn.Module) else None
        self.normalize = normalize
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("variance", torch.zeros(()))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def surrogate(self, draw: Draw, bound: Bound, x: Tensor, context: Context | None = None) -> Float[Tensor, " B"]:
        if isinstance(bound, ELBO):
            direct, signal = _elbo(draw, bound, closed_form=bound.closed_form_kl and not self.normalize)
            score = draw.log_posterior
        else:
            direct = bound(draw)
            signal, score = direct.unsqueeze(0), draw.log_posterior.sum(0, keepdim=True)
        signal = signal.detach()
        centered, regression = self._centred(signal, x)
        surrogate = direct + mean_over_samples(self._normalized(centered) * score)
        if self.training and torch.is_grad_enabled():
            self._remember(signal, centered)
        return surrogate if regression is None else surrogate + regression

    def check(self, q: Distribution, bound: Bound, *, num_samples: int) -> None:
        if self.normalize and not isinstance(bound, ELBO):
            raise InputError(
                f"normalize scales all of phi's gradient in the ELBO, but only a part of it in {type(bound).__name__}: "
                "leave it out, or use the ELBO."
            )
        if self.normalize and isinstance(bound, ELBO) and bound.free_bits > 0:
            raise InputError(
                "normalize estimates the KL from samples, but free bits need it in closed form: leave one out."
            )
        if self.baseline == "leave-one-out":
            needs_samples(num_samples, "the baseline leave-one-out", "the baseline mean")
            if not isinstance(bound, ELBO):
                instead = "VIMCO is the same idea for it" if isinstance(bound, IWAE) else "use the baseline mean"
                raise InputError(
                    "leave-one-out needs a signal for each sample, which the ELBO has; "
                    f"{type(bound).__name__} has one for all of them: {instead}."
                )

    def _centred(self, signal: Float[Tensor, "S B"], x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The signal minus its baseline, and the loss term that trains a network as a baseline."""
        if self.baseline == "none":
            return signal, None
        if self.baseline == "leave-one-out":
            others = (signal.sum(0) - signal) / (len(signal) - 1)
            return signal - others, None
        centered = signal - self._running_mean()
        if self.network is None:
            return centered, None
        error = centered - self.network(x).reshape(len(x))
        return error.detach(), -0.5 * error.square().mean(0)

    def _running_mean(self) -> Tensor:
        """The mean of earlier steps' signals, 0 before the first; this step's signal would introduce a bias."""
        return self.mean / (1 - _DECAY ** self.steps.clamp(min=1))

    def _normalized(self, centered: Tensor) -> Tensor:
        if not self.normalize:
            return centered
        return centered / (self.variance / (1 - _DECAY ** self.steps.clamp(min=1))).sqrt().clamp(min=1)

    @torch.no_grad()
    def _remember(self, signal: Tensor, centered: Tensor) -> None:
        self.mean.lerp_(signal.mean().to(self.mean), 1 - _DECAY)
        self.variance.lerp_(centered.detach().square().mean().to(self.variance), 1 - _DECAY)
        self.steps += 1


class VIMCO(GradientEstimator):
    r"""The score-function gradient of IWAE, comparing each sample with a bound without it (Mnih and Rezende, 2016).

    The signal of sample k is ``L - L_{-k}``: L the importance-weighted bound, ``L_{-k}`` the same with ``w_k`` replaced
    by the geometric mean of the other weights (section 2.3), which does not depend on z_k and is a baseline. The
    bound's own gradient at fixed z is added to the weighted scores. Unbiased for IWAE with K >= 2 samples, any number
    of layers and any likelihood; one forward and one backward pass, and ``(K, K, B)`` numbers.
    """

    path = False

    def surrogate(self, draw: Draw, bound: Bound, x: Tensor, context: Context | None = None) -> Float[Tensor, " B"]:
        log_weight = draw.log_weight.detach()
        signal = _without_each(log_weight)
        return bound(draw) + (signal * draw.log_posterior).sum(0)

    def check(self, q: Distribution, bound: Bound, *, num_samples: int) -> None:
        if not isinstance(bound, IWAE):
            raise InputError(
                f"VIMCO is the gradient of IWAE, but the bound is {type(bound).__name__}. "
                "For the ELBO, ScoreFunction with the baseline leave-one-out is the same idea."
            )
        needs_samples(num_samples, "VIMCO", "ScoreFunction")


class WakePhi(GradientEstimator):
    r"""Reweighted wake-sleep: theta maximizes IWAE, phi approaches the posterior (Bornschein and Bengio, 2015).

    In the wake phase phi's gradient is ``sum_k v_k grad log q(z_k)``, with the normalized weights ``v_k``: the
    self-normalized estimate of ``E_{p(z|x)}[grad log q(z)] = -grad KL(p(z|x) || q(z|x))`` (section 2.3), which
    is not the bound's direction. It is consistent as K grows and biased for a finite K. theta's gradient is that of
    IWAE, unbiased. Works for any number of layers and any likelihood, with K >= 2; one forward and one backward pass.
    """

    path = False
    biased = "phi follows -KL(p(z|x) || q(z|x)), by self-normalized weights, instead of the bound"

    def surrogate(self, draw: Draw, bound: Bound, x: Tensor, context: Context | None = None) -> Float[Tensor, " B"]:
        weight = draw.log_weight.detach().softmax(0)
        return (weight * (draw.log_joint + draw.log_posterior)).sum(0)

    def check(self, q: Distribution, bound: Bound, *, num_samples: int) -> None:
        if not isinstance(bound, IWAE):
            raise InputError(
                f"WakePhi trains the model by IWAE, but the bound is {type(bound).__name__}. Use IWAE, or the gradient "
                "ScoreFunction."
            )
        needs_samples(num_samples, "WakePhi", "ScoreFunction")


def _elbo(draw: Draw, bound: ELBO, *, closed_form: bool) -> tuple[Float[Tensor, " B"], Float[Tensor, "K B"]]:
    """The part of the ELBO that is differentiated directly, and the signal of each sample.

    The score of ``log q`` at fixed z has expectation 0 and is left out of the former.
    """
    direct, signal = draw.expected_log_likelihood, draw.log_likelihood
    for factor in draw.factors:
        kl = factor.kl if closed_form else None
        if kl is not None and kl.ndim == 1:  # it does not depend on any sample
            direct = direct - bound.beta * kl.clamp(min=bound.free_bits)
            continue
        if bound.free_bits > 0:
            raise InputError(
                "free bits cut each example's KL, which is a number only in closed form; this one is estimated from "
                "samples. Use free_bits 0, or families with a KL known to torch, without normalizing the signal."
            )
        if kl is None:
            direct = direct + bound.beta * mean_over_samples(factor.log_prior)
            kl = factor.log_posterior - factor.log_prior
        else:
            direct = direct - bound.beta * mean_over_samples(kl)
        signal = signal - bound.beta * kl
    return direct, signal


def _without_each(log_weight: Float[Tensor, "K B"]) -> Float[Tensor, "K B"]:
    """``L - L_{-k}``, each sample's contribution to the importance-weighted bound."""
    num_samples = len(log_weight)
    others = (log_weight.sum(0) - log_weight) / (num_samples - 1)
    replaced = log_weight.expand(num_samples, *log_weight.shape).clone()  # [k, j]: weight j without sample k
    replaced.diagonal(dim1=0, dim2=1).copy_(others.mT)
    log_k = math.log(num_samples)
    return (log_weight.logsumexp(0) - log_k) - (replaced.logsumexp(1) - log_k)
