r"""Hidden Markov models: a chain of states 0 .. S-1, each of which emits an observation; all inference is exact.

Values that were not observed are NaN, and are integrated out.

It follows from the messages ``log b_t(s) = log p(x_{t+1} .. x_T | z_t = s)``, which are computed backwards:

.. math:: \log b_{t-1}(s) = \log \sum_{s'} p(z_t = s' | z_{t-1} = s) \, p(x_t | s') \, b_t(s'), \qquad b_T = 1
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Integer, Shaped
from torch import Size, Tensor, nn
from torch.distributions import Distribution

from subo.core.draw import Draw
from subo.distributions.discrete import Categorical
from subo.distributions.observed import observed_log_prob
from subo.errors import InputError
from subo.models.emission import Emission, check_mask, check_observed, masked
from subo.models.markov import Markov, MarkovDistribution
from subo.models.vae import VAE
from subo.parts.families import Family
from subo.runtime.arguments import checked_arguments, checked_on_failure
from subo.typing import Context, Latent, Path

__all__ = ["HiddenMarkov", "HiddenMarkovPosterior", "StateTable"]


class StateTable(nn.Module):
    """A distribution over states 0 .. S-1 by a table of logits, with a row per previous state; uniform at first.

    Args:
        *shape: ``(S,)`` for the first state, ``(S, S)`` for one that follows another.
    """

    def __init__(self, *shape: int):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(shape))

    @property
    def log_probs(self) -> Float[Tensor, "*previous S"]:
        """The normalized table."""
        return self.logits.log_softmax(-1)

    def forward(self, *previous: Integer[Tensor, " N"]) -> Distribution:
        return Categorical(logits=self.logits[previous], validate_args=False)


class HiddenMarkovPosterior(nn.Module):
    r"""``q(z|x) = p(z|x)`` of a hidden Markov model: a chain with steps that depend on the observations to come.

    .. math:: q(z_1 | x) \propto p(z_1) p(x_1 | z_1) b_1(z_1), \qquad
              q(z_t | z_{t-1}, x) \propto p(z_t | z_{t-1}) p(x_t | z_t) b_t(z_t)

    Args:
        prior: The model's chain: the same module, not a copy.
        likelihood: The model's emission, likewise the same module.
    """

    def __init__(self, prior: Markov, likelihood: Emission):
        super().__init__()
        self.prior = prior
        self.likelihood = likelihood

    def forward(self, x: Shaped[Tensor, "B T ..."], mask: Bool[Tensor, "B T"] | None = None) -> MarkovDistribution:
        future = self.future(x, mask)
        first = Categorical(logits=self.initial + future[:, 0], validate_args=False)
        return MarkovDistribution(first, self._step, x.shape[1], mask=mask, inputs=future)

    def future(self, x: Shaped[Tensor, "B T ..."], mask: Bool[Tensor, "B T"] | None) -> Float[Tensor, "B T S"]:
        """``log p(x_t .. x_T | z_t)`` for every step and state, 0 at padded ones."""
        emitted = self.emitted(x, mask).unbind(1)  # the gradient of a slice is as large as the whole
        transition, messages = self.transition, [emitted[-1]]
        for t in reversed(range(1, x.shape[1])):
            following = (transition + messages[-1].unsqueeze(1)).logsumexp(2)
            messages.append(emitted[t - 1] + masked(following, None if mask is None else mask[:, t], event_dims=1))
        return torch.stack(messages[::-1], 1)

    def emitted(self, x: Shaped[Tensor, "B T ..."], mask: Bool[Tensor, "B T"] | None) -> Float[Tensor, "B T S"]:
        """``log p(x_t | z_t)`` of the observed values for every step and state, 0 at padded ones."""
        if mask is not None:
            check_mask(mask, length=x.shape[1], num_data=len(x))
            x = masked(x, mask, event_dims=x.ndim - 2)
        network: Any = self.likelihood.network
        of_states = self.likelihood.family(network.weight)
        values = x.unsqueeze(2).expand(*x.shape[:2], *of_states.batch_shape, *of_states.event_shape)
        return masked(observed_log_prob(of_states, values), mask, event_dims=1)

    @property
    def initial(self) -> Float[Tensor, " S"]:
        """``log p(z_1)``."""
        table: Any = self.prior.initial
        return table.log_probs

    @property
    def transition(self) -> Float[Tensor, "S S"]:
        """``log p(z_t | z_{t-1})``, one row per previous state."""
        table: Any = self.prior.transition
        return table.log_probs

    def _step(self, previous: Tensor, future: Tensor) -> Distribution:
        return Categorical(logits=self.transition[previous] + future, validate_args=False)


class HiddenMarkov(nn.Module):
    r"""A hidden Markov model, ``p(x, z) = p(z_1) prod_t p(z_t | z_{t-1}) prod_t p(x_t | z_t)``, exact in log space.

    It is a latent-variable model like any other, with the exact posterior unless another is given. With the exact one
    every weight is the evidence, ``log p(x, z) - log q(z|x) = log p(x)`` for any z and parameters: their gradient
    at fixed z is that of log p(x), free of noise. :class:`~subo.VIMCO` with IWAE follows exactly that, since the
    signals ``L - L_{-k}`` of its scores are 0 if all weights are equal. (The score-function gradient of the ELBO
    is also unbiased, but noisy: it leaves out the score of q, which has mean 0.)

    Args:
        num_states: Number of states S.
        family: Family of an observation given its state, with a row of parameters per state. They start at random:
            identical states would stay identical.
        posterior: ``(x (B, T, ...), mask) -> q(z|x)``, a :class:`~subo.MarkovDistribution` over integers, batch
            shape ``(B,)``; the exact one by default.
        length: Number of steps T, for sampling without a mask.

    Example:
        >>> from subo import IWAE, VIMCO, Gaussian, Objective
        >>> model = HiddenMarkov(3, Gaussian((2,)))
        >>> x = torch.randn(4, 6, 2)
        >>> loss = Objective(model, IWAE(), gradient=VIMCO(), num_samples=2)(x)
        >>> torch.allclose(loss.bound, model.log_px(x), atol=1e-4)
        True
    """

    @checked_arguments
    def __init__(
        self, num_states: int, family: Family, *, posterior: nn.Module | None = None, length: int | None = None
    ):
        super().__init__()
        self.prior = Markov(StateTable(num_states), StateTable(num_states, num_states), length=length)
        self.likelihood = Emission(family, nn.Embedding(num_states, family.num_params))
        self.posterior = HiddenMarkovPosterior(self.prior, self.likelihood) if posterior is None else posterior

    @property
    def exact(self) -> HiddenMarkovPosterior:
        """The exact posterior, even if the model uses another."""
        return HiddenMarkovPosterior(self.prior, self.likelihood)

    # Exact answers

    @checked_arguments
    def log_px(self, x: Shaped[Tensor, "B T ..."], mask: Bool[Tensor, "B T"] | None = None) -> Float[Tensor, " B"]:
        """The exact evidence of the observed values, in nats; differentiable in the parameters."""
        exact = self.exact
        return (exact.initial + exact.future(self._observed(x, mask), mask)[:, 0]).logsumexp(-1)

    @checked_arguments
    def posterior_marginals(
        self, x: Shaped[Tensor, "B T ..."], mask: Bool[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B T S"]:
        """``p(z_t = s | x)``, 0 at padded steps; differentiable."""
        return self._marginals(x, mask)[0]

    @checked_arguments
    def pairwise_marginals(
        self, x: Shaped[Tensor, "B T ..."], mask: Bool[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B U S S"]:
        """``p(z_t = s, z_{t+1} = s' | x)`` for ``t = 1 .. T - 1``, 0 where t + 1 is padded; differentiable."""
        return self._marginals(x, mask)[1]

    def _marginals(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """The exact posterior's chain, run forward: ``p(z_{t+1}|x) = sum_s p(z_t = s | x) q(z_{t+1} | s, x)``."""
        exact = self.exact
        future = exact.future(self._observed(x, mask), mask)
        steps = (exact.transition + future[:, 1:].unsqueeze(2)).softmax(-1)
        of_each = steps.unbind(1)
        singles, pairs = [(exact.initial + future[:, 0]).softmax(-1)], []
        for t in range(x.shape[1] - 1):
            pairs.append(singles[-1].unsqueeze(2) * of_each[t])
            singles.append(pairs[-1].sum(1))
        pairwise = torch.stack(pairs, 1) if pairs else steps
        return (
            masked(torch.stack(singles, 1), mask, event_dims=1),
            masked(pairwise, None if mask is None else mask[:, 1:], event_dims=2),
        )

    @checked_arguments
    def most_likely_path(
        self, x: Shaped[Tensor, "B T ..."], mask: Bool[Tensor, "B T"] | None = None
    ) -> tuple[Integer[Tensor, "B T"], Float[Tensor, " B"]]:
        """The states z that maximize ``log p(x, z)``, and its value in nats (Viterbi's algorithm).

        Returns:
            The path, 0 at padded steps, and its log joint density, differentiable in the parameters.
        """
        exact = self.exact
        emitted = exact.emitted(self._observed(x, mask), mask).unbind(1)
        transition, best = exact.transition, exact.initial + emitted[0]
        stay = torch.arange(best.shape[1], device=x.device).expand_as(best)
        pointers = []
        for t in range(1, x.shape[1]):
            reached, before = (best.unsqueeze(2) + transition).max(1)
            reached = reached + emitted[t]
            if mask is not None:  # padding changes no state
                reached = torch.where(mask[:, t, None], reached, best)
                before = torch.where(mask[:, t, None], before, stay)
            best = reached
            pointers.append(before)
        log_joint, state = best.max(1)
        path = [state]
        for before in reversed(pointers):
            path.append(before.gather(1, path[-1].unsqueeze(1)).squeeze(1))
        return masked(torch.stack(path[::-1], 1), mask), log_joint

    def _observed(self, x: Tensor, mask: Tensor | None) -> Tensor:
        check_observed(self._checked(x), mask)
        return x

    # As a latent-variable model

    @checked_on_failure
    def draw(
        self, x: Shaped[Tensor, "B T ..."], context: Context | None = None, *, num_samples: int = 1, path: Path = False
    ) -> Draw:
        """K paths of states per sequence, ``(K, B, T)`` integers, with their densities; see :meth:`subo.VAE.draw`."""
        return self._vae.draw(x, self._with_mask(x, context), num_samples=num_samples, path=path)

    @checked_on_failure
    def log_prior(self, z: Latent, context: Context | None = None) -> Float[Tensor, "K B"]:
        """``log p(z)`` at given paths ``(K, B, T)``."""
        return self._vae.log_prior(z, context)

    @checked_on_failure
    def log_joint(self, x: Tensor, z: Latent, context: Context | None = None) -> Float[Tensor, "K B"]:
        """``log p(x, z)`` at given paths ``(K, B, T)``."""
        return self._vae.log_joint(x, z, self._with_mask(x, context))

    @checked_arguments
    def sample(self, num_samples: int, context: Context | None = None) -> tuple[Latent, Distribution]:
        """Paths from the prior, and the observations' distribution at each; as long as the mask, or `length`."""
        return self._vae.sample(num_samples, context)

    @checked_on_failure
    def decode(self, z: Latent, context: Context | None = None) -> Distribution:
        """The observations' distribution at given paths ``(N, T)``."""
        return self._vae.decode(z, context)

    @property
    def _vae(self) -> VAE:
        return VAE(self.prior, self.likelihood, self.posterior)

    def _with_mask(self, x: Tensor, context: Context | None) -> Context:
        """The context; without a mask all steps are real, whatever their number."""
        context = context or {}
        if "mask" in context:
            return context
        return {**context, "mask": torch.ones(self._checked(x).shape[:2], dtype=torch.bool, device=x.device)}

    def _checked(self, x: Tensor) -> Tensor:
        event = Size(self.likelihood.family.event_shape)
        if x.ndim != 2 + len(event) or x.shape[2:] != event or x.shape[1] < 1:
            wanted = ", ".join(["B", "T", *map(str, event)])
            raise InputError(f"expected sequences ({wanted}), padded to the longest; got {tuple(x.shape)}")
        return x
