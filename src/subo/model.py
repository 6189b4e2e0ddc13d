"""The model p(x, z) with its posterior q(z|x), and the draw: all that bounds and gradient estimators see of it."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Size, Tensor, nn
from torch.distributions import Distribution, kl_divergence

from subo import context as contexts
from subo import parts
from subo.arguments import checked_arguments, checked_on_failure
from subo.descriptions import described
from subo.errors import InputError
from subo.sampling import decoded_at_a_time, folded_samples, log_prob_of_samples, some_at_a_time
from subo.typing import Context, Latent, Path, leaves, map_latent

__all__ = [
    "VAE",
    "Draw",
    "Factor",
    "LatentVariableModel",
    "divergence",
    "mean_over_samples",
    "sum_layers",
]


def divergence(q: Distribution, p: Distribution) -> Tensor | None:
    """``KL(q || p)`` in closed form, in nats, where torch's registry knows one, else None."""
    try:
        return kl_divergence(q, p)
    except NotImplementedError:
        return None
    except IndexError:  # torch's divergence of its own bits does not broadcast
        return kl_divergence(q, p.expand(q.batch_shape))


class Factor:
    """One stochastic layer of a draw: its density under q and under p, computed when asked for.

    Args:
        q: The layer's posterior, batch shape ``(B,)``, or ``(K, B)`` below other layers.
        p: The layer's prior; its batch shape broadcasts with q's.
        z: Samples of q, ``(K, B, *event)``.
        log_posterior: ``log q(z)``, ``(K, B)``, where it came with the sample.
        closed_form: Whether the KL may be computed in closed form.
        kl: Computes that closed form, where it is not for torch's registry to know; it may find that there is none.
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

    @cached_property
    def log_posterior(self) -> Float[Tensor, "K B"]:
        """``log q(z | x)``."""
        return self.q.log_prob(self.z) if self._log_posterior is None else self._log_posterior

    @cached_property
    def log_prior(self) -> Float[Tensor, "K B"]:
        """``log p(z)``."""
        return self.p.log_prob(self.z)

    @cached_property
    def kl(self) -> Float[Tensor, "*K B"] | None:
        """``KL(q || p)`` in closed form, where there is one, else None.

        ``(B,)``, or ``(K, B)`` where it is given samples: of the layers above, or of a chain's steps before.
        """
        if not self._closed_form:
            return None
        return divergence(self.q, self.p) if self._kl is None else self._kl()

    def rate(self, *, closed_form: bool = True) -> Float[Tensor, " B"]:
        """``E_q[log q(z | x) - log p(z)]``: in closed form if there is one and it is wanted, else by samples."""
        kl = self.kl if closed_form else None
        if kl is None:
            kl = self.log_posterior - self.log_prior
        return mean_over_samples(kl) if kl.ndim == 2 else kl


class Draw:
    """K samples of z for each of B data, and their log-densities, in nats; computed when asked for.

    Args:
        z: The samples, leaves ``(K, B, *event)``.
        q: The posterior that they come from.
        factors: One per stochastic layer.
        log_likelihood: Computes ``log p(x | z)``, ``(K, B)``, or of a lone sample ``(B,)``.
    """

    def __init__(self, z: Latent, q: Distribution, factors: tuple[Factor, ...], log_likelihood: Callable[[], Tensor]):
        self.z, self.q, self.factors = z, q, factors
        self._log_likelihood = log_likelihood

    @cached_property
    def log_likelihood(self) -> Float[Tensor, "K B"]:
        """``log p(x | z)``."""
        values = self._computed
        return values if values.ndim == 2 else values.unsqueeze(0)

    @property
    def expected_log_likelihood(self) -> Float[Tensor, " B"]:
        """``E_q[log p(x | z)]`` by the samples: minus the distortion."""
        values = self._computed
        return mean_over_samples(values) if values.ndim == 2 else values

    @cached_property
    def _computed(self) -> Tensor:
        return self._log_likelihood()

    @cached_property
    def log_prior(self) -> Float[Tensor, "K B"]:
        """``log p(z)``, the sum over layers."""
        return sum_layers([factor.log_prior for factor in self.factors])

    @cached_property
    def log_posterior(self) -> Float[Tensor, "K B"]:
        """``log q(z | x)``, the sum over layers."""
        return sum_layers([factor.log_posterior for factor in self.factors])

    @cached_property
    def log_joint(self) -> Float[Tensor, "K B"]:
        """``log p(x, z)``."""
        return self.log_likelihood + self.log_prior

    @cached_property
    def log_weight(self) -> Float[Tensor, "K B"]:
        """``log p(x, z) - log q(z | x)``: its mean is the ELBO, its log-mean-exp the importance-weighted bound."""
        return self.log_joint - self.log_posterior

    def with_log_posterior(self, log_posterior: Float[Tensor, "K B"]) -> "Draw":
        """The same draw of one layer with another ``log q(z | x)``, from which the KL is estimated, too."""
        (factor,) = self.factors
        factor = Factor(factor.q, factor.p, factor.z, log_posterior=log_posterior, closed_form=False)
        return Draw(self.z, self.q, (factor,), lambda: self._computed)


def mean_over_samples(values: Float[Tensor, "K B"]) -> Float[Tensor, " B"]:
    """The mean over K; of one sample, itself, which is a view and costs nothing."""
    return values.squeeze(0) if values.shape[0] == 1 else values.mean(0)


def sum_layers(terms: list[Tensor]) -> Tensor:
    """The sum of tensors of one shape, without a zero to start from."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


@runtime_checkable
class LatentVariableModel(Protocol):
    """The one seam: whatever implements these three can be trained, evaluated and explored."""

    def draw(self, x: Tensor, context: Context | None = None, *, num_samples: int = 1, path: Path = True) -> Draw:
        """K samples of q(z|x); with `path`, differentiable in the posterior's parameters."""
        ...

    def log_joint(self, x: Tensor, z: Latent, context: Context | None = None) -> Tensor:
        """``log p(x, z)``, ``(K, B)``, of given latents ``(K, B, *event)``."""
        ...

    def sample(self, num_samples: int, context: Context | None = None) -> tuple[Latent, Distribution]:
        """Samples of the prior, and p(x|z) at them."""
        ...


class VAE(nn.Module):
    """A latent-variable model ``p(x, z) = p(z) p(x|z)`` with the posterior ``q(z|x)``.

    Each part is any module whose call returns a Distribution, and handles an ordinary batch; the K samples a datum
    are folded into it and unfolded here. A part receives those names of the context that its call declares.

    Args:
        prior: ``() -> p(z)``, batch shape ``()``, or ``(B,)`` given a context.
        likelihood: ``(N, *event) -> p(x|z)``, batch shape ``(N,)``, event shape that of a datum.
        posterior: ``(B, ...) -> q(z|x)``, batch shape ``(B,)``.

    Example:
        >>> from subo import Bernoulli, Conditional, Gaussian, StandardNormal, mlp
        >>> model = VAE(
        ...     StandardNormal(2),
        ...     Conditional(Bernoulli((64,)), mlp(2, 64)),
        ...     Conditional(Gaussian((2,)), mlp(64, 4)),
        ... )
        >>> model.draw(torch.zeros(5, 64), num_samples=3).log_weight.shape
        torch.Size([3, 5])
    """

    prior: Any
    likelihood: Any
    posterior: Any

    def __init__(self, prior: nn.Module, likelihood: nn.Module, posterior: nn.Module):
        super().__init__()
        for name, part in (("prior", prior), ("likelihood", likelihood), ("posterior", posterior)):
            if not callable(part) or isinstance(part, type):
                raise InputError(
                    f"as {name} came {described(part)}; expected a module whose call returns a Distribution, such "
                    "as StandardNormal(2), or an nn.Module of your own that makes the distribution in its forward"
                )
        self.prior = prior
        self.likelihood = likelihood
        self.posterior = posterior

    @checked_on_failure
    def draw(
        self, x: Float[Tensor, "B ..."], context: Context | None = None, *, num_samples: int = 1, path: Path = True
    ) -> Draw:
        """K samples of q(z|x) a datum, with their densities.

        Args:
            x: Data.
            context: What is known beside x, by name, leading axis B.
            num_samples: K.
            path: Whether the samples are differentiable in the posterior's parameters (``rsample``), or what draws
                them so.

        Raises:
            InputError: A part returned another shape than it should, or `path` is asked of a posterior that has none.
        """
        if num_samples < 1:
            raise InputError(f"num_samples must be at least 1, not {num_samples}")
        q = self._posterior(x, context)
        p = self._prior(context, len(x), "data are in the batch")
        if p.event_shape != q.event_shape:
            raise InputError(_shape_message("prior", p, (), q.event_shape))
        z, rows, log_posterior = folded_samples(q, num_samples, path=path)
        split = getattr(q, "factors", None)  # of a graph: one a node
        factors = (Factor(q, p, z, log_posterior=log_posterior),) if split is None else split(p, z)
        return Draw(z, q, factors, lambda: self._log_likelihood(x, rows, num_samples, context))

    @checked_on_failure
    def log_prior(self, z: Latent, context: Context | None = None) -> Float[Tensor, "K B"]:
        """``log p(z)`` of given latents, leaves ``(K, B, *event)``."""
        prior: Any = parts.call("prior", self.prior, {}, context)
        return prior.log_prob(z)

    @checked_on_failure
    def log_joint(self, x: Shaped[Tensor, "B ..."], z: Latent, context: Context | None = None) -> Float[Tensor, "K B"]:
        """``log p(x, z) = log p(z) + log p(x|z)`` of given latents.

        Args:
            x: Data, ``(B, ...)``.
            z: Latents, leaves ``(K, B, *event)``.
            context: What is known beside x.
        """
        if any(leaf.ndim < 2 for leaf in leaves(z)):
            shapes = ", ".join(str(tuple(leaf.shape)) for leaf in leaves(z))
            raise InputError(
                f"latents are (K, B, ...), K of each of B data, and came as {shapes}: of one write z[None]"
            )
        num_samples = leaves(z)[0].shape[0]
        rows = map_latent(lambda leaf: leaf.flatten(0, 1), z)
        log_likelihood = self._log_likelihood(x, rows, num_samples, context)  # one of one sample broadcasts
        return self.log_prior(z, context) + log_likelihood

    @checked_arguments
    def sample(self, num_samples: int, context: Context | None = None) -> tuple[Latent, Distribution]:
        """Latents from the prior, and the data's distribution at each of them.

        Args:
            num_samples: How many.
            context: One row per sample, where the model needs any.

        Returns:
            z, leaves ``(num_samples, *event)``, and p(x|z), batch shape ``(num_samples,)``.
        """
        p = self._prior(context, num_samples, "samples are to be drawn")
        z = p.sample(Size([num_samples]) if p.batch_shape == Size() else Size())
        return z, self.decode(z, context)

    @checked_on_failure
    def decode(self, z: Latent, context: Context | None = None) -> Distribution:
        """p(x|z) of given latents, leaves ``(N, *event)``, and as many rows of context."""
        return parts.distribution("likelihood", parts.call("likelihood", self.likelihood, {"z": z}, context))

    def _prior(self, context: Context | None, num_rows: int, which: str) -> Distribution:
        p = parts.distribution("prior", parts.call("prior", self.prior, {}, context))
        if p.batch_shape in (Size(), Size([num_rows])):
            return p
        if any(p.batch_shape == tensor.shape[:1] for tensor in (context or {}).values()):
            raise InputError(f"the context has {p.batch_shape[0]} rows, and {num_rows} {which}: one each")
        raise InputError(_shape_message("prior", p, (), p.batch_shape + p.event_shape))

    def _posterior(self, x: Tensor, context: Context | None) -> Distribution:
        q = parts.distribution("posterior", parts.call("posterior", self.posterior, {"x": x}, context))
        if q.batch_shape != x.shape[:1]:
            raise InputError(_shape_message("posterior", q, (len(x),), q.batch_shape[1:] + q.event_shape))
        return q

    def _log_likelihood(self, x: Tensor, rows: Latent, num_samples: int, context: Context | None) -> Tensor:
        """``log p(x | z)``, ``(K, B)``, or ``(B,)`` of one, of latents whose K samples are folded into the batch.

        Without a gradient some samples are decoded at a time: they stay in the cache, and memory does not grow with K.
        """
        at_a_time = num_samples if torch.is_grad_enabled() else self._samples_at_a_time(x)
        if num_samples > at_a_time:
            return some_at_a_time(
                lambda some, count: self._log_likelihood(x, some, count, context), rows, num_samples, at_a_time
            )
        num_data = len(x)
        if num_samples > 1:
            parts.check_rows("likelihood", {"x": x}, context or {})  # before rows are those of samples
            context = contexts.repeat(context, num_samples)
        p: Any = self.decode(rows, context)
        if p.batch_shape != Size([num_samples * num_data]) or p.event_shape != x.shape[1:]:
            raise InputError(_shape_message("likelihood", p, (num_samples * num_data,), x.shape[1:]))
        if num_samples == 1:
            return p.log_prob(x)
        return log_prob_of_samples(p, x, num_samples)

    def _samples_at_a_time(self, x: Tensor) -> int:
        """Of each datum in a batch."""
        return max(1, decoded_at_a_time(self.likelihood, x.shape[1:].numel()) // max(1, len(x)))


def _shape_message(part: str, got: Distribution, batch_shape: tuple[int, ...], event_shape: tuple[int, ...]) -> str:
    wanted = f"expected {tuple(batch_shape)}, {tuple(event_shape)}"
    came = f"{part} returned batch_shape {tuple(got.batch_shape)}, event_shape {tuple(got.event_shape)}; {wanted}"
    extra = len(event_shape) - len(got.event_shape)
    if extra > 0 and tuple(got.batch_shape) + tuple(got.event_shape) == tuple(batch_shape) + tuple(event_shape):
        return f"{came}: wrap it in Independent(..., {extra})"
    return f"{came}. The batch shape is the number of rows it was given, the event shape that of one datum."
