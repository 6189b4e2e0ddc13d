"""The seam: a draw from the posterior with its densities, all that bounds and gradient estimators see of a model."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, kl_divergence

from subo.once import once
from subo.typing import Context, Latent, Path

__all__ = ["Draw", "Factor", "LatentVariableModel", "divergence", "mean_over_samples", "sum_layers"]


def divergence(q: Distribution, p: Distribution) -> Tensor | None:
    """``KL(q || p)`` in closed form, in nats, where torch's registry knows one, else None."""
    try:
        return kl_divergence(q, p)
    except NotImplementedError:
        return None
    except IndexError:  # torch's divergence between its own Bernoullis does not broadcast
        return kl_divergence(q, p.expand(q.batch_shape))


class Factor:
    """One stochastic layer of a draw: its density under q and under p, computed on demand.

    Args:
        q: The layer's posterior, batch shape ``(B,)``, or ``(K, B)`` below other layers.
        p: The layer's prior; its batch shape broadcasts with q's.
        z: Samples of q, ``(K, B, *event)``.
        log_posterior: ``log q(z)``, ``(K, B)``, if it came with the sample.
        closed_form: Whether the KL may be computed in closed form.
        kl: Computes that closed form where torch's registry cannot; it may return None.
    """

    def __init__(
        self,
        q: Distribution,
        p: Distribution,
        z: Latent,
        *,
        log_posterior: Tensor | None = None,
        closed_form: bool = True,
        kl: Callable[[], Tensor | None] | None = None,
    ):
        self.q, self.p = q, p
        self.z: Any = z  # whatever q and p take
        self._log_posterior = log_posterior
        self._closed_form = closed_form
        self._kl = kl

    @once
    def log_posterior(self) -> Float[Tensor, "K B"]:
        """``log q(z | x)``."""
        return self.q.log_prob(self.z) if self._log_posterior is None else self._log_posterior

    @once
    def log_prior(self) -> Float[Tensor, "K B"]:
        """``log p(z)``."""
        return self.p.log_prob(self.z)

    @once
    def kl(self) -> Float[Tensor, "*K B"] | None:
        """``KL(q || p)`` in closed form, if there is one, else None.

        ``(B,)``, or ``(K, B)`` where it is conditioned on samples: of the layers above, or of a chain's earlier steps.
        """
        if not self._closed_form:
            return None
        return divergence(self.q, self.p) if self._kl is None else self._kl()

    def rate(self, *, closed_form: bool = True) -> Float[Tensor, " B"]:
        """``E_q[log q(z | x) - log p(z)]``: in closed form if available and wanted, else by samples."""
        kl = self.kl if closed_form else None
        if kl is None:
            kl = self.log_posterior - self.log_prior
        return mean_over_samples(kl) if kl.ndim == 2 else kl


class Draw:
    """K samples of z for each of B examples, and their log-densities in nats, computed on demand.

    Args:
        z: Samples, leaves ``(K, B, *event)``.
        q: Posterior that they come from.
        factors: One factor per stochastic layer.
        log_likelihood: Computes ``log p(x | z)``, ``(K, B)``, or ``(B,)`` for a single sample.
    """

    def __init__(self, z: Latent, q: Distribution, factors: tuple[Factor, ...], log_likelihood: Callable[[], Tensor]):
        self.z, self.q, self.factors = z, q, factors
        self._log_likelihood = log_likelihood

    @once
    def log_likelihood(self) -> Float[Tensor, "K B"]:
        """``log p(x | z)``."""
        values = self._computed
        return values if values.ndim == 2 else values.unsqueeze(0)

    @property
    def expected_log_likelihood(self) -> Float[Tensor, " B"]:
        """``E_q[log p(x | z)]``, estimated from the samples: minus the distortion."""
        values = self._computed
        return mean_over_samples(values) if values.ndim == 2 else values

    @once
    def _computed(self) -> Tensor:
        return self._log_likelihood()

    @once
    def log_prior(self) -> Float[Tensor, "K B"]:
        """``log p(z)``, the sum over layers."""
        return sum_layers([factor.log_prior for factor in self.factors])

    @once
    def log_posterior(self) -> Float[Tensor, "K B"]:
        """``log q(z | x)``, the sum over layers."""
        return sum_layers([factor.log_posterior for factor in self.factors])

    @once
    def log_joint(self) -> Float[Tensor, "K B"]:
        """``log p(x, z)``."""
        return self.log_likelihood + self.log_prior

    @once
    def log_weight(self) -> Float[Tensor, "K B"]:
        """``log p(x, z) - log q(z | x)``: its mean is the ELBO, its log-mean-exp the importance-weighted bound."""
        return self.log_joint - self.log_posterior

    def with_log_posterior(self, log_posterior: Float[Tensor, "K B"]) -> "Draw":
        """The same one-layer draw with another ``log q(z | x)``, which the KL is estimated from, too."""
        (factor,) = self.factors
        factor = Factor(factor.q, factor.p, factor.z, log_posterior=log_posterior, closed_form=False)
        return Draw(self.z, self.q, (factor,), lambda: self._computed)


def mean_over_samples(values: Float[Tensor, "K B"]) -> Float[Tensor, " B"]:
    """The mean over K; a single sample is returned as a view, which costs nothing."""
    return values.squeeze(0) if values.shape[0] == 1 else values.mean(0)


def sum_layers(terms: list[Tensor]) -> Tensor:
    """The sum of tensors of one shape, without a zero tensor to start from."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


@runtime_checkable
class LatentVariableModel(Protocol):
    """The one seam: any model that implements these three methods can be trained, evaluated and explored."""

    def draw(self, x: Tensor, context: Context | None = None, *, num_samples: int = 1, path: Path = True) -> Draw:
        """K samples of q(z|x); with `path`, differentiable in the posterior's parameters."""
        ...

    def log_joint(self, x: Tensor, z: Latent, context: Context | None = None) -> Tensor:
        """``log p(x, z)``, ``(K, B)``, at given latents ``(K, B, *event)``."""
        ...

    def sample(self, num_samples: int, context: Context | None = None) -> tuple[Latent, Distribution]:
        """Samples from the prior, and p(x|z) at them."""
        ...
