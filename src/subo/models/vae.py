"""The model p(x, z) with its posterior q(z|x), and the draw: all that bounds and gradient estimators see of it."""

from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Size, Tensor, nn
from torch.distributions import Distribution

from subo.core import context as contexts
from subo.core.draw import Draw, Factor
from subo.errors import InputError
from subo.models.folding import decoded_at_a_time, folded_samples, log_prob_of_samples, some_at_a_time
from subo.runtime.arguments import checked_arguments, checked_on_failure
from subo.runtime.descriptions import described
from subo.typing import Context, Latent, Path, leaves, map_latent

__all__ = ["VAE"]


class VAE(nn.Module):
    """A latent-variable model ``p(x, z) = p(z) p(x|z)`` with the posterior ``q(z|x)``.

    Each part is any module whose call returns a Distribution, and handles an ordinary batch; the K samples per example
    are folded into it and unfolded here. A part receives those names of the context that its call declares.

    Args:
        prior: ``() -> p(z)``, batch shape ``()``, or ``(B,)`` given a context.
        likelihood: ``(N, *event) -> p(x|z)``, batch shape ``(N,)``, event shape that of an example.
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

    prior: Any  # modules of any attributes, which a type of theirs would hide
    likelihood: Any
    posterior: Any

    def __init__(self, prior: nn.Module, likelihood: nn.Module, posterior: nn.Module):
        super().__init__()
        for name, part in (("prior", prior), ("likelihood", likelihood), ("posterior", posterior)):
            if not callable(part) or isinstance(part, type):
                raise InputError(
                    f"the {name} is {described(part)}; expected a module whose call returns a Distribution, such "
                    "as StandardNormal(2), or your own nn.Module that makes the distribution in its forward"
                )
        self.prior = prior
        self.likelihood = likelihood
        self.posterior = posterior

    @checked_on_failure
    def draw(
        self, x: Float[Tensor, "B ..."], context: Context | None = None, *, num_samples: int = 1, path: Path = True
    ) -> Draw:
        """K samples of q(z|x) per example, with their densities.

        Args:
            x: Data.
            context: Named context tensors, leading axis B.
            num_samples: Number of samples K.
            path: Whether the samples are differentiable in the posterior's parameters (``rsample``), or a function that
                draws them so.

        Raises:
            InputError: A part returned the wrong shape, or `path` is requested from a posterior that has none.
        """
        if num_samples < 1:
            raise InputError(f"num_samples must be at least 1, not {num_samples}")
        q = self._posterior(x, context)
        p = self._prior(context, len(x), "examples are in the batch")
        if p.event_shape != q.event_shape:
            raise InputError(_shape_message("prior", p, (), q.event_shape))
        z, rows, log_posterior = folded_samples(q, num_samples, path=path)
        split = getattr(q, "factors", None)  # for a graph: one per node
        factors = (Factor(q, p, z, log_posterior=log_posterior),) if split is None else split(p, z)
        return Draw(z, q, factors, lambda: self._log_likelihood(x, rows, num_samples, context))

    @checked_on_failure
    def log_prior(self, z: Latent, context: Context | None = None) -> Float[Tensor, "K B"]:
        """``log p(z)`` at given latents, leaves ``(K, B, *event)``."""
        prior: Any = contexts.call_part("prior", self.prior, {}, context)
        return prior.log_prob(z)

    @checked_on_failure
    def log_joint(self, x: Shaped[Tensor, "B ..."], z: Latent, context: Context | None = None) -> Float[Tensor, "K B"]:
        """``log p(x, z) = log p(z) + log p(x|z)`` at given latents.

        Args:
            x: Data, ``(B, ...)``.
            z: Latents, leaves ``(K, B, *event)``.
            context: Named context tensors, leading axis B.
        """
        if any(leaf.ndim < 2 for leaf in leaves(z)):
            shapes = ", ".join(str(tuple(leaf.shape)) for leaf in leaves(z))
            raise InputError(
                f"latents are (K, B, ...), K for each of B examples; received {shapes}: for a single one write z[None]"
            )
        num_samples = leaves(z)[0].shape[0]
        rows = map_latent(lambda leaf: leaf.flatten(0, 1), z)
        log_likelihood = self._log_likelihood(x, rows, num_samples, context)  # that of a single sample broadcasts
        return self.log_prior(z, context) + log_likelihood

    @checked_arguments
    def sample(self, num_samples: int, context: Context | None = None) -> tuple[Latent, Distribution]:
        """Latents from the prior, and the data's distribution at each of them.

        Args:
            num_samples: Number of samples.
            context: One row per sample, if the model needs any.

        Returns:
            z, leaves ``(num_samples, *event)``, and p(x|z), batch shape ``(num_samples,)``.
        """
        p = self._prior(context, num_samples, "samples are to be drawn")
        z = p.sample(Size([num_samples]) if p.batch_shape == Size() else Size())
        return z, self.decode(z, context)

    @checked_on_failure
    def decode(self, z: Latent, context: Context | None = None) -> Distribution:
        """p(x|z) at given latents, leaves ``(N, *event)``, and as many rows of context."""
        return contexts.as_distribution(
            "likelihood", contexts.call_part("likelihood", self.likelihood, {"z": z}, context)
        )

    def _prior(self, context: Context | None, num_rows: int, which: str) -> Distribution:
        p = contexts.as_distribution("prior", contexts.call_part("prior", self.prior, {}, context))
        if p.batch_shape in (Size(), Size([num_rows])):
            return p
        if any(p.batch_shape == tensor.shape[:1] for tensor in (context or {}).values()):
            raise InputError(f"the context has {p.batch_shape[0]} rows, but {num_rows} {which}: give one row each")
        raise InputError(_shape_message("prior", p, (), p.batch_shape + p.event_shape))

    def _posterior(self, x: Tensor, context: Context | None) -> Distribution:
        q = contexts.as_distribution("posterior", contexts.call_part("posterior", self.posterior, {"x": x}, context))
        if q.batch_shape != x.shape[:1]:
            raise InputError(_shape_message("posterior", q, (len(x),), q.batch_shape[1:] + q.event_shape))
        return q

    def _log_likelihood(self, x: Tensor, rows: Latent, num_samples: int, context: Context | None) -> Tensor:
        """``log p(x | z)``, ``(K, B)``, or ``(B,)`` for K = 1, at latents with K samples folded into the batch.

        Without a gradient, samples are decoded in chunks: they stay in the cache, and memory does not grow with K.
        """
        at_a_time = num_samples if torch.is_grad_enabled() else self._samples_at_a_time(x)
        if num_samples > at_a_time:
            return some_at_a_time(
                lambda some, count: self._log_likelihood(x, some, count, context), rows, num_samples, at_a_time
            )
        num_data = len(x)
        if num_samples > 1:
            contexts.check_same_rows("likelihood", {"x": x}, context or {})  # before rows become those of samples
            context = contexts.repeat(context, num_samples)
        p: Any = self.decode(rows, context)
        if p.batch_shape != Size([num_samples * num_data]) or p.event_shape != x.shape[1:]:
            raise InputError(_shape_message("likelihood", p, (num_samples * num_data,), x.shape[1:]))
        if num_samples == 1:
            return p.log_prob(x)
        return log_prob_of_samples(p, x, num_samples)

    def _samples_at_a_time(self, x: Tensor) -> int:
        """The number of samples per example of a batch to decode at a time."""
        return max(1, decoded_at_a_time(self.likelihood, x.shape[1:].numel()) // max(1, len(x)))


def _shape_message(part: str, got: Distribution, batch_shape: tuple[int, ...], event_shape: tuple[int, ...]) -> str:
    wanted = f"expected {tuple(batch_shape)}, {tuple(event_shape)}"
    came = f"{part} returned batch_shape {tuple(got.batch_shape)}, event_shape {tuple(got.event_shape)}; {wanted}"
    extra = len(event_shape) - len(got.event_shape)
    if extra > 0 and tuple(got.batch_shape) + tuple(got.event_shape) == tuple(batch_shape) + tuple(event_shape):
        return f"{came}: wrap it in Independent(..., {extra})"
    return f"{came}. The batch shape is the number of rows it received, the event shape that of one example."
