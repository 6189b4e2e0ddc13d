"""Sequences: which steps of a padded batch are real, and sequences whose steps are independent of each other.

A batch of sequences ``(B, T, ...)`` is padded to its longest one. Its mask ``(B, T)`` is True at the real steps, which
come first in every row. Padded steps do not count: their log-densities are 0, and so are their values. At a real step
NaN stands for a value that was not observed, and is integrated out (:mod:`subo.distributions.observed`); of a step
without any observed value only the state remains.
"""

from typing import Any

import torch
from jaxtyping import Bool, Shaped
from torch import Size, Tensor, nn
from torch.distributions import Distribution, constraints

from subo.core.context import check_rows
from subo.distributions.observed import observed_log_prob
from subo.errors import InputError
from subo.parts.families import Family
from subo.runtime.arguments import checked_arguments

__all__ = ["Emission", "Steps", "check_mask", "check_observed", "masked"]


def check_mask(
    mask: Tensor, *, length: int | None = None, num_data: int | None = None, may_be_empty: bool = False
) -> None:
    """Refuses a mask that does not say how long each sequence is.

    Args:
        mask: ``(B, T)``, True at real steps.
        length: Number of steps T, if known.
        num_data: Number of sequences B, if known: a single row would be broadcast to every sequence.
        may_be_empty: Whether a row may have no True: of a window after the sequence's end.

    Raises:
        InputError: The mask is not ``(B, T)`` booleans, does not have one row per sequence, or a row has no True, or
            one after a False.
    """
    if mask.dtype != torch.bool or mask.ndim != 2 or mask.shape[1] < 1 or (length or mask.shape[1]) != mask.shape[1]:
        raise InputError(
            f"a mask is (B, T) booleans, True at the real steps of each of B sequences{_of(length)}; got "
            f"{mask.dtype} of shape {tuple(mask.shape)}. For lengths (B,) it is arange(T) < lengths[:, None]."
        )
    if num_data is not None:
        check_rows({"mask": mask}, num_data)
    if not (may_be_empty or mask[:, 0].all()):
        row = int((~mask[:, 0]).nonzero()[0, 0])
        what = "is empty: its mask has no True. Leave it out" if not mask[row].any() else "begins with padding"
        raise InputError(f"sequence {row + 1} of {len(mask)} {what}; every sequence has a first step, then others.")
    gap = (mask[:, 1:] & ~mask[:, :-1]).any(1)
    if gap.any():
        raise InputError(
            f"the mask of sequence {int(gap.nonzero()[0, 0]) + 1} of {len(mask)} has a True after a False: real steps "
            "come first, padding after them. Unobserved steps are not padding."
        )


def _of(length: int | None) -> str:
    return "" if length is None else f" of {length} steps"


def masked(values: Shaped[Tensor, "..."], mask: Bool[Tensor, "... T"] | None, *, event_dims: int = 0) -> Tensor:
    """The values, 0 at padded steps: selected, not multiplied, so that non-finite padding becomes 0, too.

    Args:
        values: ``(..., T, *event)``.
        mask: ``(B, T)`` or any shape that broadcasts to the values without their event; None if all steps are real.
        event_dims: Number of dimensions of an event.

    Example:
        >>> masked(torch.tensor([[1, 2, 3]]), torch.tensor([[True, True, False]]))
        tensor([[1, 2, 0]])
    """
    return values if mask is None else torch.where(mask.reshape(mask.shape + (1,) * event_dims), values, 0)


def check_observed(x: Shaped[Tensor, "B T ..."], mask: Bool[Tensor, "B T"] | None) -> None:
    """Refuses sequences with infinity at a real step, and a mask that does not fit; NaN is a missing value."""
    if mask is not None:
        check_mask(mask, length=x.shape[1], num_data=len(x))
    infinite = masked(x, mask, event_dims=x.ndim - 2).isinf().flatten(1).any(1)
    if infinite.any():
        row = int(infinite.nonzero()[0, 0])
        raise InputError(f"sequence {row + 1} of {len(x)} holds infinity; a missing value is NaN.")


class Steps(Distribution):
    r"""A sequence of independent steps as one event: ``log p(x) = sum_t mask_t log p(x_t)``, of the observed values.

    Args:
        steps: The distribution of every step of every sequence, batch shape ``(prod(lead) * T,)``.
        lead: The batch shape, usually ``(N,)``.
        mask: ``(*lead, T)``, True at real steps; None if all are.
    """

    arg_constraints: dict = {}  # noqa: RUF012 (torch's protocol)

    def __init__(self, steps: Distribution, lead: tuple[int, ...], *, mask: Tensor | None = None):
        self.steps, self.mask = steps, mask
        self.length = steps.batch_shape.numel() // Size(lead).numel()
        super().__init__(Size(lead), Size([self.length, *steps.event_shape]), validate_args=False)

    @property
    def has_rsample(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the steps have it."""
        return self.steps.has_rsample

    @property
    def support(self) -> Any:
        """The support of the steps, at each of them; it contains 0 for all families, and so the padding, too."""
        return constraints.independent(self.steps.support, 1)  # pyright: ignore[reportArgumentType]

    @property
    def mean(self) -> Tensor:
        """``(*lead, T, *event)``."""
        return self._unfolded(self.steps.mean, 0)

    @property
    def variance(self) -> Tensor:
        """``(*lead, T, *event)``."""
        return self._unfolded(self.steps.variance, 0)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """``(*sample, *lead, T, *event)``, differentiable in the parameters."""
        return self._unfolded(self.steps.rsample(Size(sample_shape)), len(sample_shape))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """``(*sample, *lead, T, *event)``."""
        return self._unfolded(self.steps.sample(Size(sample_shape)), len(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """``(*sample, *lead)``, in nats."""
        return self.log_prob_by_step(value).sum(-1)

    def log_prob_by_step(self, value: Tensor) -> Tensor:
        """``log p(x_t)`` of the observed values of each step, ``(*sample, *lead, T)``, 0 at padded ones."""
        value = masked(value, self.mask, event_dims=len(self.steps.event_shape))  # padding may be anything
        sizes = (*self.batch_shape, self.length)
        unflatten = getattr(self.steps, "unflatten", None)
        if unflatten is not None:  # no copies are needed for the samples
            return masked(observed_log_prob(unflatten(sizes), value), self.mask)
        split = value.ndim - len(self.event_shape)
        lead = torch.broadcast_shapes(value.shape[:split], self.batch_shape)
        value = value.expand(lead + self.event_shape)
        rows = value.reshape(*lead[: len(lead) - len(self.batch_shape)], -1, *self.steps.event_shape)
        return masked(observed_log_prob(self.steps, rows).unflatten(-1, sizes), self.mask)

    def unflatten(self, sizes: tuple[int, ...]) -> "Steps":
        """The same distribution with its first batch dimension split into `sizes`; a view."""
        mask = None if self.mask is None else self.mask.unflatten(0, sizes)
        return Steps(self.steps, (*sizes, *self.batch_shape[1:]), mask=mask)

    def _unfolded(self, values: Tensor, split: int) -> Tensor:
        values = values.unflatten(split, (*self.batch_shape, self.length))
        return masked(values, self.mask, event_dims=len(self.steps.event_shape))


class Emission(nn.Module):
    """The likelihood of a sequence with steps independent given its states: ``p(x|z) = prod_t p(x_t | z_t)``.

    Args:
        family: Parameters -> Distribution of one step.
        network: States -> parameters, ``(N, *event) -> (N, family.num_params)``; shared by all steps.

    Example:
        >>> from subo import Gaussian, mlp
        >>> likelihood = Emission(Gaussian((3,)), mlp(2, 6))
        >>> p = likelihood(torch.zeros(5, 7, 2))
        >>> p.batch_shape, p.event_shape
        (torch.Size([5]), torch.Size([7, 3]))
    """

    @checked_arguments
    def __init__(self, family: Family, network: nn.Module):
        super().__init__()
        self.family = family
        self.network = network

    def forward(self, z: Shaped[Tensor, "N T ..."], mask: Bool[Tensor, "N T"] | None = None) -> Steps:
        if mask is not None:
            check_mask(mask, length=z.shape[1], num_data=len(z), may_be_empty=True)
            z = masked(z, mask, event_dims=z.ndim - 2)
        return Steps(self.family(self.network(z.flatten(0, 1))), (len(z),), mask=mask)
