"""Semi-amortized inference: an encoder's parameters of q(z|x), refined by a few gradient steps for each example."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from subo.core import context as contexts
from subo.core.bounds import ELBO, Bound
from subo.errors import InputError
from subo.inference.local_bound import slope
from subo.models.vae import VAE
from subo.parts.families import Family
from subo.runtime.arguments import checked_arguments

__all__ = ["Refined"]


class Refined(nn.Module):
    r"""A posterior with an encoder's parameters after some gradient steps, in training and after.

    .. math:: \lambda_0 = \mathrm{network}(x), \quad v_{s+1} = \gamma v_s + \nabla_\lambda L(x; q_{\lambda_s}),
        \quad \lambda_{s+1} = \lambda_s + \alpha v_{s+1}, \quad q(z|x) = q_{\lambda_S}(z)

    (Kim et al., 2018, algorithm 1), with the gradient's norm clipped to `clip` for each example. With `through`, the
    training gradient flows through the steps: theta and the encoder are trained for where the steps will
    lead, at the cost of second derivatives, which are exact here (the paper uses finite differences). Without it, the
    gradient stops there: ``lambda_S = lambda_0 + stop(lambda_S - lambda_0)``, so that the encoder follows the bound's
    slope at lambda_S, and theta is trained as if lambda_S were given. Either way a call costs S forward and backward
    passes, with noise from torch's generator as everywhere.

    The model is referenced and is not a submodule: prior and likelihood are those of the VAE with this posterior.

    Args:
        model: A prior, a likelihood and the posterior to be refined, a :class:`~subo.Conditional`.
        steps: Number of steps S.
        learning_rate: Step size alpha, per nat.
        momentum: Momentum gamma.
        clip: Maximum norm of an example's gradient; None for no limit.
        through: Whether the gradient flows through the steps.
        bound: Bound L that the steps increase.
        num_samples: Number of samples K per step.

    Raises:
        InputError: A number is invalid, or the model's posterior is not a family with a network.

    Example:
        >>> from subo import Bernoulli, Conditional, Gaussian, StandardNormal, mlp
        >>> decoder = Conditional(Bernoulli((6,)), mlp(2, 6))
        >>> model = VAE(StandardNormal(2), decoder, Conditional(Gaussian((2,)), mlp(6, 4)))
        >>> refined = VAE(model.prior, model.likelihood, Refined(model, steps=5))
        >>> refined.draw(torch.zeros(3, 6)).log_weight.shape
        torch.Size([1, 3])
    """

    @checked_arguments
    def __init__(
        self,
        model: VAE,
        *,
        steps: int = 10,
        learning_rate: float = 0.1,
        momentum: float = 0.0,
        clip: float | None = 5.0,
        through: bool = True,
        bound: Bound = ELBO(),
        num_samples: int = 1,
    ):
        super().__init__()
        if steps < 1 or num_samples < 1:
            raise InputError(
                f"refinement takes at least one step and one sample: got {steps} steps and {num_samples} samples"
            )
        if not (learning_rate > 0 and 0 <= momentum < 1 and (clip is None or clip > 0)):
            raise InputError(
                "learning_rate and clip must be positive, and momentum at least 0 and below 1: got "
                f"{learning_rate}, {clip} and {momentum}"
            )
        amortized: Any = model.posterior
        if not (hasattr(amortized, "family") and hasattr(amortized, "network")):
            raise InputError(
                f"refinement starts at a network's parameters, but the model's posterior is "
                f"{type(amortized).__name__}: give a model whose posterior is Conditional(family, network)"
            )
        self.amortized = amortized
        self._of = (model,)  # in a tuple, so that it is not registered as a submodule
        self.steps, self.learning_rate, self.momentum, self.clip = steps, learning_rate, momentum, clip
        self.through, self.bound, self.num_samples = through, bound, num_samples

    @property
    def family(self) -> Family:
        """Parameters -> Distribution, the encoder's."""
        return self.amortized.family

    @property
    def network(self) -> nn.Module:
        """The encoder."""
        return self.amortized.network

    def forward(self, x: Float[Tensor, "B ..."], **context: Tensor) -> Distribution:
        first = contexts.call(self.network, x, context=context).flatten(1)
        through = self.through and torch.is_grad_enabled()
        with torch.enable_grad():
            last = self._refined(first if through else first.detach(), x, context, through=through)
        return self.family(last if through else first + (last - first).detach())

    def _refined(self, params: Tensor, x: Tensor, context: dict[str, Tensor], *, through: bool) -> Float[Tensor, "B P"]:
        velocity = torch.zeros_like(params)
        for _ in range(self.steps):
            if not (through and params.requires_grad):
                params = params.detach().requires_grad_()
            upwards = slope(
                self._of[0],
                self.family,
                params,
                x,
                context,
                bound=self.bound,
                num_samples=self.num_samples,
                create_graph=through,
            )
            if self.clip is not None:
                norm = torch.linalg.vector_norm(upwards, dim=1, keepdim=True)
                upwards = upwards * (self.clip / norm.clamp(min=self.clip))
            velocity = self.momentum * velocity + upwards
            params = params + self.learning_rate * velocity
        return params
