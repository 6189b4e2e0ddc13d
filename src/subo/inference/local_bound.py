"""The bound of each example as a function of its q's parameters, and its noisy gradient."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from subo.core import context as contexts
from subo.core.bounds import ELBO, Bound
from subo.errors import InputError
from subo.gradients import GradientEstimator, Pathwise, check_path
from subo.models.vae import VAE
from subo.parts.conditionals import Given
from subo.parts.families import Family
from subo.runtime.randomness import forked
from subo.typing import Context

__all__ = ["SAMPLES", "LocalBound", "slope"]

SAMPLES = 64
"""Samples of z per example for the comparison of two parameter values."""
_NUMBERS = 20_000_000  # per tensor of data: 80 MB of float32


def slope(
    model: VAE,
    family: Family,
    params: Float[Tensor, "B P"],
    x: Float[Tensor, "B ..."],
    context: Context | None = None,
    *,
    bound: Bound = ELBO(),
    gradient: GradientEstimator | None = None,
    num_samples: int = 1,
    create_graph: bool = False,
) -> Float[Tensor, "B P"]:
    """The gradient of each example's bound in its q's parameters; no other gradients are computed or accumulated.

    Args:
        model: The prior and the likelihood.
        family: Family of q.
        params: Parameters at which it is computed; they require a gradient.
        x: Data.
        context: Named context tensors, one row per example.
        bound: Bound to differentiate.
        gradient: Estimator of its gradient.
        num_samples: Number of samples K.
        create_graph: Whether the gradient itself can be differentiated.
    """
    gradient = gradient or Pathwise()
    local = VAE(model.prior, model.likelihood, Given(family, params))
    draw = local.draw(x, context, num_samples=num_samples, path=gradient.path)
    surrogate = gradient.surrogate(draw, bound, x, context)
    (found,) = torch.autograd.grad(surrogate.sum(), params, create_graph=create_graph)
    return found


@dataclass(frozen=True, eq=False)
class LocalBound:
    """The bound that is maximized for each example, and its noisy gradient."""

    model: VAE
    family: Family
    bound: Bound
    gradient: GradientEstimator
    num_samples: int

    @torch.enable_grad()
    def slope(self, params: Tensor, x: Tensor, context: Context) -> Tensor:
        """The ascent direction; 0, which means no step, where it is not finite."""
        found = slope(
            self.model,
            self.family,
            params.detach().requires_grad_(),
            x,
            context,
            bound=self.bound,
            gradient=self.gradient,
            num_samples=self.num_samples,
        )
        return found.nan_to_num(0.0, 0.0, 0.0)

    @torch.no_grad()
    def values(self, params: Tensor, x: Tensor, context: Context, *, seed: int, samples: int = SAMPLES) -> Tensor:
        """The bound computed R times, ``(R, B)``; the same seed and number of examples give the same noise."""
        times = max(8, samples // self.num_samples, samples // 8)
        at_once = max(1, _NUMBERS // (self.num_samples * x.numel()))
        counts = [min(at_once, times - done) for done in range(0, times, at_once)]
        with forked(seed):
            return torch.cat([self._repeated(params, x, context, count) for count in counts])

    def _repeated(self, params: Tensor, x: Tensor, context: Context, times: int) -> Tensor:
        q = Given(self.family, params.repeat(times, 1))
        local = VAE(self.model.prior, self.model.likelihood, q)
        rows = x.repeat(times, *[1] * (x.ndim - 1))
        draw = local.draw(rows, contexts.repeat(context, times), num_samples=self.num_samples, path=False)
        return self.bound(draw).unflatten(0, (times, len(x)))

    def check(self, params: Tensor, x: Tensor, context: Context, *, rows: Tensor) -> None:
        """Refuses a family that is not over z, a gradient that does not fit it, and data without a finite bound."""
        wanted = contexts.call(self.model.prior, context=context).event_shape
        if self.family.event_shape != wanted:
            raise InputError(
                f"the family is over events of shape {tuple(self.family.event_shape)}, but the model's z has the shape "
                f"{tuple(wanted)}. Give a family over {tuple(wanted)}."
            )
        self.gradient.check(self.family(params), self.bound, num_samples=self.num_samples)
        with torch.enable_grad():
            local = VAE(self.model.prior, self.model.likelihood, Given(self.family, params.detach().requires_grad_()))
            check_path(local.draw(x, context, num_samples=max(2, self.num_samples), path=self.gradient.path))
        values = self.values(params, x, context, seed=0).mean(0)
        bad = ~values.isfinite()
        if bad.any():
            raise InputError(
                f"the bound is {values[bad][0].item()} at the start for {int(bad.sum())} of {len(x)} examples, "
                f"first for example {int(rows[bad.cpu()][0])}. Usually such data are not what the likelihood "
                "describes (NaN, values outside its support), or the start is far off: try start=None."
            )
