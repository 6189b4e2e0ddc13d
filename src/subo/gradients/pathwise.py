"""Gradients along the path: z as a differentiable function of noise and of q's parameters."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from subo.core.bounds import ELBO, IWAE, Bound
from subo.core.draw import Draw, Factor
from subo.core.estimator import GradientEstimator, _has_path, only_layer
from subo.errors import InputError
from subo.typing import Context

__all__ = ["DReG", "StickingTheLanding"]


class StickingTheLanding(GradientEstimator):
    r"""The pathwise gradient of the ELBO without its score (Roeder et al., 2017, section 3).

    The total derivative of ``log q(z; phi)`` along ``z = g(noise; phi)`` is the part through z plus the score
    ``d log q(z; phi) / d phi`` at fixed z, whose expectation is 0. Without the score, what remains is
    ``grad_z [log p(x, z) - log q(z)] dz/dphi``, which is 0 for every sample once q is the exact posterior.

    Unbiased for the ELBO, with the KL always estimated from the samples; one more small backward pass than
    :class:`Pathwise`, through q's log-density (D passes for an inverse autoregressive flow). For importance-weighted
    bounds leaving the score out is a bias: :class:`DReG` fixes it.
    """

    path = True

    def surrogate(self, draw: Draw, bound: Bound, x: Tensor, context: Context | None = None) -> Float[Tensor, " B"]:
        return bound(draw.with_log_posterior(_through_z(only_layer(draw, self))))

    def check(self, q: Distribution, bound: Bound, *, num_samples: int) -> None:
        _has_path(q)
        if not isinstance(bound, ELBO):
            raise InputError(
                f"StickingTheLanding leaves out a term that has expectation 0 in the ELBO, but not in "
                f"{_name(bound)}. Use DReG with IWAE, or Pathwise."
            )
        if bound.free_bits > 0:
            raise InputError(
                "StickingTheLanding estimates the KL from samples, and free bits cut a sampled KL where its score "
                "does not vanish on average. Use Pathwise, or free_bits 0."
            )


class DReG(GradientEstimator):
    r"""The doubly reparametrized gradient of the importance-weighted bound (Tucker et al., 2019, equation 8).

    The score ``sum_k v_k d log q(z_k) / d phi`` that is left in IWAE's pathwise gradient (``v_k`` the normalized
    weights) is itself an expectation over z and can be reparametrized a second time, which turns the weights of the
    path through z into their squares:

    .. math:: \nabla_\phi = E \sum_k v_k^2 \frac{\partial \log w_k}{\partial z_k} \frac{d z_k}{d \phi}

    theta's gradient keeps the weights ``v_k``. Unbiased for IWAE; where the pathwise signal-to-noise ratio of phi falls
    with K as ``1/sqrt(K)``, this one's rises. One more small backward pass than :class:`Pathwise`,
    like :class:`StickingTheLanding`, which it equals for K = 1. Use a draw only once: its z stays weighted.
    """

    path = True

    def surrogate(self, draw: Draw, bound: Bound, x: Tensor, context: Context | None = None) -> Float[Tensor, " B"]:
        z = only_layer(draw, self).z
        log_weight = draw.log_joint - _through_z(draw.factors[0])
        weight = log_weight.detach().softmax(0)
        if z.requires_grad and len(weight) > 1:  # phi's gradient goes through z, and theta's does not
            wide = weight.reshape(weight.shape + (1,) * (z.ndim - 2))
            z.register_hook(lambda gradient: (gradient * wide).to(gradient.dtype))
        return (weight * log_weight).sum(0)

    def check(self, q: Distribution, bound: Bound, *, num_samples: int) -> None:
        _has_path(q)
        if not isinstance(bound, IWAE):
            raise InputError(
                f"DReG is the gradient of IWAE, but the bound is {_name(bound)}. Use StickingTheLanding with the ELBO, "
                "or Pathwise."
            )


def _through_z(factor: Factor) -> Float[Tensor, "K B"]:
    """``log q(z)`` with the gradient through z, but not through q's parameters.

    To first order ``log q(z) + <z - stop(z), grad_z log q>``: exact in value and gradient for any distribution,
    without a copy of it with stopped parameters.
    """
    with torch.enable_grad():
        still = factor.z.detach().requires_grad_()
        (slope,) = torch.autograd.grad(factor.q.log_prob(still).sum(), still)
    along = (factor.z - still.detach()) * slope
    return factor.log_posterior.detach() + (along.flatten(2).sum(-1) if along.ndim > 2 else along)


def _name(bound: Bound) -> str:
    return type(bound).__name__
