"""How many latents can be active, before training: from the data's covariance and the likelihood's scale."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from subo.core.bounds import ELBO
from subo.core.context import receives
from subo.core.objective import Objective
from subo.data.sparse_rows import SparseRows
from subo.data.splits import Split
from subo.parts.conditionals import Conditional
from subo.parts.location_scale import Gaussian
from subo.parts.priors import StandardNormal
from subo.runtime.wording import counted

__all__ = ["PredictedUnits", "predict_active_units", "principal_variances"]

_MOST_ELEMENTS = 5000
_FEW, _MANY = 1000, 5000  # examples of which the covariance is taken, of many and of few elements


@dataclass(frozen=True)
class PredictedUnits:
    """What a linear model would use.

    Attributes:
        active: Number of directions of x whose variance is above `threshold`.
        latents: Number of latents.
        directions: Number of directions of x, no more of which can be used.
        largest: The largest variance of a direction, in squared units of the likelihood.
        threshold: ``beta * scale^2``.
    """

    active: int
    latents: int
    directions: int
    largest: float
    threshold: float

    def __str__(self) -> str:
        """In words; empty if all latents, or all directions, can be used."""
        if self.active >= min(self.latents, self.directions):
            return ""
        found = f"beta * scale^2 = {self.threshold:.3g}, and "
        if self.active == 0:
            return (
                f"Careful: no direction of the data has a variance above {found}the largest is {self.largest:.3g}: a "
                "linear model would use no latent, and a collapsed posterior stays collapsed. Use a smaller `scale` or "
                "`beta`, or a learned scale"
            )
        have = f"{counted(self.active, 'direction')} of the data {'has' if self.active == 1 else 'have'}"
        return (
            f"Careful: {have} a variance above {found}there are {self.latents} latents: a linear model would leave "
            f"{self.latents - self.active} of them unused. For more, use a smaller `scale` or `beta`, or a learned "
            "scale"
        )


def predict_active_units(objective: Objective, data: Split) -> PredictedUnits | None:
    r"""Predicts how many latents a linear model would use, from the principal variances of x.

    Let a linear decoder's weight on the latent of a principal direction of variance :math:`\lambda` be w, the fixed
    scale :math:`\sigma`, and the KL's weight :math:`\beta`. With the best linear-Gaussian q, what the direction adds to
    the loss is, up to a constant,

    .. math:: \frac\beta2 \left[ \frac{\lambda}{\beta\sigma^2 + w^2}
              + \log \frac{\beta\sigma^2 + w^2}{\beta\sigma^2} \right],

    which is least at :math:`w^2 = \max(0, \lambda - \beta\sigma^2)`: for :math:`\beta = 1` this is probabilistic PCA
    (Tipping and Bishop, 1999, equation 7; Lucas et al., 2019, section 4). A direction with
    :math:`\lambda \le \beta\sigma^2` is not used, and if none is above it, the collapsed state is stable for networks,
    too, which are linear near it (arXiv 2510.01621).

    Args:
        objective: An ELBO, with a Gaussian likelihood of fixed scale and a standard normal prior.
        data: The training data, of which at most 5,000 are used, or 1,000 of more than 1,000 elements.

    Returns:
        None where the scale is learned, which adapts to the data, or where the argument does not apply.

    Example:
        >>> from subo.recipes import vae
        >>> x = torch.randn(500, 4) * torch.tensor([3.0, 2.0, 0.5, 0.1])
        >>> objective = vae((4,), latent_dim=3, likelihood="gaussian", scale=1.0)  # units of 1: without examples
        >>> predict_active_units(objective, Split(x)).active
        2
    """
    model: Any = objective.model
    likelihood, prior = getattr(model, "likelihood", None), getattr(model, "prior", None)
    bound = objective.bound
    if not (isinstance(bound, ELBO) and isinstance(likelihood, Conditional) and isinstance(prior, StandardNormal)):
        return None
    if bound.free_bits or any(name in data.context or name == "label" for name in _given(likelihood)):
        return None
    family = likelihood.family
    if not isinstance(family, Gaussian) or isinstance(family.location_scale.scale.source, str):
        return None
    scale, unit = float(family.location_scale.scale.source), family.location_scale.unit
    if isinstance(data.x, SparseRows) or data.lengths is not None or data.event_shape.numel() > _MOST_ELEMENTS:
        return None
    most = _MANY if data.event_shape.numel() <= _FEW else _FEW
    known = data.looked_at()
    rows = known[torch.randperm(len(known), generator=torch.Generator().manual_seed(0))[:most]]
    x, _ = data.read(rows, generator=torch.Generator().manual_seed(0))
    variances = principal_variances(x.double() if unit is None else x.double() / unit.cpu().double())
    threshold = bound.beta * scale**2
    used = int((variances > threshold).sum())
    return PredictedUnits(used, prior.zeros.numel(), len(variances), variances[0].item(), threshold)


def _given(likelihood: Conditional) -> set[str]:
    """Names of the context that the likelihood receives."""
    return {name for part in likelihood.modules() for name in receives(part)[0]}


def principal_variances(x: Float[Tensor, "N ..."]) -> Float[Tensor, " M"]:
    """The eigenvalues of the covariance of x, the largest first; at most N of them."""
    centered = (x - x.mean(0)).flatten(1)
    products = centered @ centered.mT if len(centered) < centered.shape[1] else centered.mT @ centered
    return torch.linalg.eigvalsh(products).flip(0).clamp(min=0) / len(x)
