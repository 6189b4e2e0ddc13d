r"""The linear-Gaussian state-space model, with exactly known evidence and posterior (the Kalman filter).

.. math:: z_1 \sim N(m, P), \quad z_t = A z_{t-1} + b + N(0, Q), \quad x_t = C z_t + d + N(0, R)

It is a :class:`~subo.Markov` prior and an :class:`~subo.Emission` like any other, and so also a VAE: an
example, a benchmark, and the oracle for everything done with chains.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Size, Tensor, nn
from torch.distributions import Distribution, MultivariateNormal

from subo.distributions.observed import embedded, has_missing, observed_log_prob
from subo.errors import InputError
from subo.models.emission import Emission, check_mask, check_observed, masked
from subo.models.markov import Markov, MarkovDistribution
from subo.models.vae import VAE
from subo.parts.conditionals import Conditional
from subo.runtime.arguments import checked_arguments

__all__ = ["FirstState", "LinearGaussianStateSpace", "Moments", "SharedCovariance", "StateSpacePosterior"]


class SharedCovariance(nn.Module):
    """A family of normals with one learned covariance, ``N(params, L L^T)``: noise around a network's output.

    L is lower triangular, with the exponential of its parameters on the diagonal: initially the identity.

    Args:
        event_shape: ``(D,)``.
    """

    def __init__(self, event_shape: Sequence[int]):
        super().__init__()
        self.event_shape = Size(event_shape)
        if len(self.event_shape) != 1:
            raise InputError(f"SharedCovariance is over vectors (D,), not over events of shape {tuple(event_shape)}")
        (self.num_params,) = self.event_shape
        self.raw = nn.Parameter(torch.zeros(self.num_params, self.num_params))

    @property
    def scale_tril(self) -> Float[Tensor, "D D"]:
        """L."""
        return self.raw.tril(-1) + self.raw.diagonal().exp().diag_embed()

    @property
    def covariance(self) -> Float[Tensor, "D D"]:
        """``L L^T``."""
        return self.scale_tril @ self.scale_tril.mT

    @torch.no_grad()
    def set(self, covariance: Float[Tensor, "D D"]) -> None:
        """Sets the covariance, which must be positive definite."""
        factor = torch.linalg.cholesky(covariance)
        self.raw.copy_(factor.tril(-1) + factor.diagonal().log().diag_embed())

    def forward(self, params: Float[Tensor, "*N D"]) -> Distribution:
        return MultivariateNormal(params, scale_tril=self.scale_tril, validate_args=False)


class FirstState(nn.Module):
    """``p(z_1) = N(m, P)``, initially the standard normal.

    Args:
        dim: Size of z.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(dim))
        self.family = SharedCovariance((dim,))

    def forward(self) -> Distribution:
        return self.family(self.loc)


class Moments(NamedTuple):
    """Means and covariances of every state, 0 at padded steps.

    Attributes:
        mean: Mean of z_t.
        covariance: Covariance of z_t.
    """

    mean: Float[Tensor, "B T d"]
    covariance: Float[Tensor, "B T d d"]


class LinearGaussianStateSpace(nn.Module):
    r"""The model, with learnable parameters, and its exact inference.

    Predicted and filtered moments, ``p(z_t | x_1 .. x_{t-1})`` and ``p(z_t | x_1 .. x_t)``, alternate by

    .. math:: m^-_t = A m_{t-1} + b, \quad P^-_t = A P_{t-1} A^T + Q, \quad S_t = C P^-_t C^T + R, \quad
              K_t = P^-_t C^T S_t^{-1}

    ``m_t = m^-_t + K_t (x_t - C m^-_t - d)`` and ``P_t = (I - K_t C) P^-_t (I - K_t C)^T + K_t R K_t^T``, a sum of
    squares that stays positive (Joseph's form), and ``log p(x) = sum_t log N(x_t; C m^-_t + d, S_t)``. Covariances do
    not depend on the data, and are computed once for all of them.

    Values that were not observed are NaN. Then S_t is that of the observed ones, K_t is 0 for the others, and so is
    their part of ``R^{-1}``: covariances depend on which are missing, and each sequence has its own.

    Args:
        dim: Size D of an observation.
        latent_dim: Size d of a state.
        length: Number of steps T, for sampling and for batches without a mask.

    Example:
        >>> model = LinearGaussianStateSpace(3, 2, length=7)
        >>> x = model.as_vae().sample(5)[1].sample()
        >>> model.log_px(x).shape, model.smooth(x).mean.shape
        (torch.Size([5]), torch.Size([5, 7, 2]))
        >>> torch.allclose(model.as_vae().draw(x).log_weight[0], model.log_px(x), atol=1e-3)
        True
    """

    @checked_arguments
    def __init__(self, dim: int, latent_dim: int, *, length: int | None = None):
        super().__init__()
        self.first = FirstState(latent_dim)
        self.transition = nn.Linear(latent_dim, latent_dim)
        self.transition_noise = SharedCovariance((latent_dim,))
        self.emission = nn.Linear(latent_dim, dim)
        self.emission_noise = SharedCovariance((dim,))
        self.length = length

    def as_vae(self) -> VAE:
        """The same model as a VAE with a chain of latents and the exact posterior, sharing its parameters.

        Every weight is then p(x), for any z: ``log p(x, z) - log q(z|x) = log p(x)``. So IWAE, and the ELBO without a
        KL in closed form, are the evidence itself, and their pathwise gradients the evidence's, free of noise.
        """
        prior = Markov(self.first, Conditional(self.transition_noise, self.transition), length=self.length)
        return VAE(prior, Emission(self.emission_noise, self.emission), StateSpacePosterior(self))

    @checked_arguments
    def log_px(self, x: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"] | None = None) -> Float[Tensor, " B"]:
        """The exact evidence of the observed values, in nats; differentiable in the parameters."""
        x = self._observed(x, mask)
        run = self._run(x)
        by_step = observed_log_prob(MultivariateNormal(run.expected, run.covariance_of_x, validate_args=False), x)
        return masked(by_step, mask).sum(-1)

    @checked_arguments
    def filter(self, x: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"] | None = None) -> Moments:
        """Moments of ``p(z_t | x_1 .. x_t)``: each state given the observations so far."""
        run = self._run(self._observed(x, mask))
        return _moments(run.mean, run.covariance.expand(len(x), *run.covariance.shape[-3:]), mask)

    @checked_arguments
    def smooth(self, x: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"] | None = None) -> Moments:
        r"""Moments of ``p(z_t | x)``: filtered ones, corrected backwards by later data (Rauch, Tung, Striebel).

        With ``G_t = P_t A^T (P^-_{t+1})^{-1}``, the mean of z_t given x and z_{t+1} is ``m_t + G_t (z_{t+1} -
        m^-_{t+1})``; its moments over z_{t+1} given x are those of z_t.
        """
        run = self._run(self._observed(x, mask))
        weight, noise = self.transition.weight, self.transition_noise.covariance
        mean, covariance = run.mean[:, -1], run.covariance[..., -1, :, :].expand(len(x), -1, -1)
        means, covariances = [mean], [covariance]
        for t in reversed(range(x.shape[1] - 1)):
            filtered = run.covariance[..., t, :, :]
            factor = torch.linalg.cholesky(run.predicted_covariance[..., t + 1, :, :])
            gain = torch.cholesky_solve(weight @ filtered, factor).mT
            rest = torch.eye(len(weight)).to(weight) - gain @ weight
            fixed = rest @ filtered @ rest.mT + gain @ noise @ gain.mT  # of z_t given x and z_{t+1}
            mean = run.mean[:, t] + _times(gain, mean - run.predicted_mean[:, t + 1])
            covariance = fixed + gain @ covariance @ gain.mT
            if mask is not None:  # nothing comes after the last real step
                mean = torch.where(mask[:, t + 1, None], mean, run.mean[:, t])
                covariance = torch.where(mask[:, t + 1, None, None], covariance, filtered)
            means.append(mean)
            covariances.append(covariance)
        return _moments(torch.stack(means[::-1], 1), torch.stack(covariances[::-1], 1), mask)

    def checked(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """The data, with padding set to 0.

        Raises:
            InputError: The data are not ``(B, T, D)``, or the mask does not fit.
        """
        dim = self.emission.out_features
        if x.ndim != 3 or x.shape[2] != dim or x.shape[1] < 1:
            raise InputError(f"expected sequences (B, T, {dim}), padded to the longest; got {tuple(x.shape)}")
        if mask is None:
            return x
        check_mask(mask, length=x.shape[1], num_data=len(x))
        return masked(x, mask, event_dims=1)

    def _observed(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """The same, after checking that they are finite or missing."""
        x = self.checked(x, mask)
        check_observed(x, None)
        return x

    def _run(self, x: Tensor) -> "_Run":
        """The filter over all steps."""
        weight, bias, noise = self.transition.weight, self.transition.bias, self.transition_noise.covariance
        read, shift, blur = self.emission.weight, self.emission.bias, self.emission_noise.covariance
        eye, seen = torch.eye(len(weight)).to(weight), ~x.isnan() if has_missing(x) else None
        mean, covariance = self.first.loc.expand(len(x), -1), self.first.family.covariance
        means, covariances = [], []
        for t in range(x.shape[1]):
            if t > 0:
                mean, covariance = F.linear(mean, weight, bias), weight @ covariance @ weight.mT + noise
            predicted, uncertain = mean, covariance
            expected, of_x = F.linear(mean, read, shift), read @ covariance @ read.mT + blur
            known, error, used = of_x, x[:, t] - expected, read
            if seen is not None:
                known, used = embedded(of_x, seen[:, t]), torch.where(seen[:, t].unsqueeze(-1), read, 0)
                error = torch.where(seen[:, t], x[:, t].nan_to_num(0) - expected, 0)
            gain = torch.cholesky_solve(used @ covariance, torch.linalg.cholesky(known)).mT
            rest = eye - gain @ read
            mean = mean + _times(gain, error)
            covariance = rest @ covariance @ rest.mT + gain @ blur @ gain.mT
            means.append((predicted, mean, expected))
            covariances.append((uncertain, covariance, of_x))
        return _Run(
            *(torch.stack(each, 1) for each in zip(*means, strict=True)),
            *(torch.stack(torch.broadcast_tensors(*each), -3) for each in zip(*covariances, strict=True)),
        )


class _Run(NamedTuple):
    """The filter's results at every step; one covariance for all sequences where no value is missing."""

    predicted_mean: Float[Tensor, "B T d"]
    mean: Float[Tensor, "B T d"]
    expected: Float[Tensor, "B T D"]
    predicted_covariance: Float[Tensor, "*B T d d"]
    covariance: Float[Tensor, "*B T d d"]
    covariance_of_x: Float[Tensor, "*B T D D"]


def _times(matrix: Float[Tensor, "*_ d e"], vector: Float[Tensor, "*B e"]) -> Float[Tensor, "*B d"]:
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)


def _moments(mean: Tensor, covariance: Tensor, mask: Tensor | None) -> Moments:
    return Moments(masked(mean, mask, event_dims=1), masked(covariance, mask, event_dims=2))


class StateSpacePosterior(nn.Module):
    r"""``q(z|x) = p(z|x)`` of a :class:`LinearGaussianStateSpace`: a chain with steps that depend on what is to come.

    They depend on it through ``p(x_t .. x_T | z_t)``, proportional to ``exp(e_t^T z_t - z_t^T H_t z_t / 2)``. A step is
    the transition times that, with ``J = (Q^{-1} + H_t)^{-1}``:

    .. math:: q(z_t | z_{t-1}, x) = N((I - J H_t)(A z_{t-1} + b) + J e_t, \; J)

    and the remaining function of z_{t-1}, times the observation at t - 1, is that of the previous step:

    .. math:: H_{t-1} = C^T R^{-1} C + A^T (I - J H_t)^T H_t A, \quad
              e_{t-1} = C^T R^{-1} (x_{t-1} - d) + A^T (I - J H_t)^T (e_t - H_t b)

    J is computed as ``L (I + L^T H_t L)^{-1} L^T`` with ``Q = L L^T``, and H as a sum of squares: no noise is inverted
    but that of the observations.

    Args:
        state_space: The model: the same module, not a copy.
    """

    def __init__(self, state_space: LinearGaussianStateSpace):
        super().__init__()
        self.state_space = state_space

    def forward(self, x: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"] | None = None) -> MarkovDistribution:
        own = self.state_space
        x = own.checked(x, mask)
        weight, bias = own.transition.weight, own.transition.bias
        read, observed = own.emission.weight, ~x.isnan()
        if bool(observed.all()):
            solved = torch.cholesky_solve(read, own.emission_noise.scale_tril)  # R^-1 C
        else:
            read = torch.where(observed.unsqueeze(-1), read, 0)
            factor = torch.linalg.cholesky(embedded(own.emission_noise.covariance, observed))
            solved, x = torch.cholesky_solve(read, factor), x.nan_to_num(0)
        seen = masked((read.mT @ solved).expand(*x.shape[:2], -1, -1), mask, event_dims=2)
        linear = masked(_times(solved.mT, x - own.emission.bias), mask, event_dims=1)
        h, e = seen[:, -1], linear[:, -1]
        steps = []
        for t in reversed(range(1, x.shape[1])):
            j, rest, squares = _absorbed(own.transition_noise.scale_tril, h)
            scale_tril = torch.linalg.cholesky(j)
            shift = rest @ bias + (j @ e.unsqueeze(-1)).squeeze(-1)
            steps.append(torch.cat([rest @ weight, shift.unsqueeze(-1), scale_tril], -1))
            e = linear[:, t - 1] + ((e - h @ bias).unsqueeze(-2) @ rest @ weight).squeeze(-2)
            h = seen[:, t - 1] + weight.mT @ squares @ weight
        j, rest, _ = _absorbed(own.first.family.scale_tril, h)
        loc = rest @ own.first.loc + (j @ e.unsqueeze(-1)).squeeze(-1)
        first = MultivariateNormal(loc, scale_tril=torch.linalg.cholesky(j), validate_args=False)
        unused = loc.new_zeros(len(x), len(bias), 2 * len(bias) + 1)  # the first state has no predecessor
        return MarkovDistribution(
            first, _affine, x.shape[1], mask=mask, inputs=torch.stack([unused, *reversed(steps)], 1)
        )


def _absorbed(scale_tril: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``J``, ``I - J H`` and ``(I - J H)^T H``, the last as ``(I - J H)^T H (I - J H) + H J Q^{-1} J H``."""
    eye = torch.eye(len(scale_tril)).to(scale_tril)
    factor = torch.linalg.cholesky(eye + scale_tril.mT @ h @ scale_tril)
    half = torch.linalg.solve_triangular(factor, scale_tril.mT.expand_as(h), upper=False)
    j = half.mT @ half
    rest = eye - j @ h
    other = torch.cholesky_solve(scale_tril.mT @ h, factor)
    return j, rest, rest.mT @ h @ rest + other.mT @ other


def _affine(previous: Float[Tensor, "N d"], inputs: Float[Tensor, "N d e"]) -> Distribution:
    """``N(W z + s, L L^T)`` for inputs ``[W, s, L]``."""
    dim = previous.shape[1]
    weight, shift, scale_tril = inputs.split([dim, 1, dim], -1)
    loc = (weight @ previous.unsqueeze(-1) + shift).squeeze(-1)
    return MultivariateNormal(loc, scale_tril=scale_tril, validate_args=False)
