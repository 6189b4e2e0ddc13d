"""The posterior of a ladder as a distribution: all layers at once, by top-down passes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, constraints

from subo.core.draw import sum_layers
from subo.models.folding import sampled

__all__ = ["Choice", "LadderPosterior"]

Choice = Callable[[str, Distribution, Distribution | None], Tensor]
"""How a top-down pass chooses z_l: from a layer's name, its prior and its posterior to ``(N, *event)``."""


class LadderPosterior(Distribution):
    """``q(z | x)`` of B examples, with all layers, as dicts of tensors.

    Args:
        descend: The model's top-down pass.
        features: Features of the data, from :meth:`~subo.Ladder.features`.
        has_rsample: Whether all layers have a path.
    """

    arg_constraints: dict = {}  # noqa: RUF012 (torch's protocol)

    def __init__(
        self, descend: Callable[[Choice, Sequence[Tensor]], Tensor], features: Sequence[Tensor], *, has_rsample: bool
    ):
        self.descend, self.features = descend, features
        self.has_rsample = has_rsample  # pyright: ignore[reportAttributeAccessIssue]
        super().__init__(features[0].shape[:1], Size(), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """Only each factor's own support is used."""
        return constraints.real

    def rsample(self, sample_shape: Any = ()) -> dict[str, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Samples, leaves ``(*sample, B, *event)``, differentiable in the parameters."""
        return self._drawn(Size(sample_shape), path=True)

    def sample(self, sample_shape: Any = ()) -> dict[str, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The same, without a gradient through the samples."""
        with torch.no_grad():
            return self._drawn(Size(sample_shape), path=False)

    def _drawn(self, sample_shape: Size, *, path: bool) -> dict[str, Tensor]:
        z: dict[str, Tensor] = {}
        num_samples = sample_shape.numel()

        def choose(name: str, p: Distribution, q: Any) -> Tensor:
            rows = sampled(q, Size() if z else Size([num_samples]), path=path)[0]
            rows = rows if z else rows.flatten(0, 1)
            z[name] = rows.unflatten(0, sample_shape + self.batch_shape)
            return rows

        self.descend(choose, self.features)
        return z

    def log_prob(self, value: Mapping[str, Tensor]) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """``sum_l log q(z_l | z_{>l}, x)``, ``(*sample, B)``, for leaves ``(*sample, B, *event)``."""
        found: list[tuple[Any, Tensor]] = []

        def choose(name: str, p: Distribution, q: Any) -> Tensor:
            leaf = value[name]
            split = leaf.ndim - len(q.event_shape)
            rows = leaf.reshape(leaf.shape[:split].numel(), *leaf.shape[split:])
            found.append((q, rows if found else leaf))
            return rows

        self.descend(choose, self.features)
        first, *others = [q.log_prob(leaf) for q, leaf in found]
        return sum_layers([first, *(log_posterior.reshape(first.shape) for log_posterior in others)])
