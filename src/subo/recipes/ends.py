"""Where a model meets its data: the family of p(x|z), the way of x into networks, the start of a decoder."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Size, Tensor, nn

from subo.core.offers import StartsAtExamples, StartsAtMean
from subo.data.spread import center_and_units
from subo.errors import InputError
from subo.parts.cells import Cells
from subo.parts.families import Family
from subo.parts.labels import Stack
from subo.parts.networks import Offset, Standardize
from subo.parts.size_factors import LogPerSize

__all__ = ["REACH", "Ends", "ends_of_columns", "ends_of_numbers"]

REACH = 1.0
"""How far beyond the range of training rows a network sees their numbers, in standard deviations."""


@dataclass(frozen=True, eq=False)
class Ends:
    """The two ends of a model: the numbers that its encoder reads, and the family that its decoder serves.

    Attributes:
        family: The family of p(x|z).
        inputs: Shape of what a network reads of an example.
        entry: Makes the module that turns examples into that.
        examples: Some training data; None for placeholders.
    """

    family: Family
    inputs: Size
    entry: Callable[[], nn.Module]
    examples: Tensor | None

    def per_size(self, sizes: Float[Tensor, " N"] | None) -> "Ends":
        """The ends of counts with a size: the encoder reads ``log(1 + x / s)``, cells of a table as without.

        Args:
            sizes: Those of the examples.
        """
        if self.examples is not None and sizes is None:
            raise InputError(
                "`size_factor` needs the size of each row, the context 'size', which these data do not have: load them "
                "with load_data(..., size_factor=...), or pass (x, {'size': x.sum(1) / x.sum(1).mean()})"
            )
        if isinstance(self.family, StartsAtExamples):
            return self
        seen = None if self.examples is None or sizes is None else LogPerSize()(self.examples, sizes)
        center, unit, _ = center_and_units(seen, self.inputs)
        return replace(self, entry=lambda: Stack(LogPerSize(), Standardize(center, unit)))

    def total(self, sizes: Float[Tensor, " N"] | None) -> Tensor:
        """The total of a row of size 1, for sizes that are proportional to totals; a placeholder without examples."""
        if self.examples is None or sizes is None:
            return torch.ones(())
        return (self.examples.flatten(1).sum(1) / sizes.to(self.examples)).mean()

    def start(self, decoder: nn.Module) -> nn.Module:
        """The decoder, which starts at what describes the data without any z, if the family has parameters for that."""
        family, examples = self.family, self.examples
        if isinstance(family, StartsAtExamples):
            start = torch.zeros(family.num_params) if examples is None else family.start(examples)
        elif isinstance(family, StartsAtMean):
            plain: Any = family(torch.zeros(1, family.num_params))
            mean = plain.mean[0]
            if examples is not None:  # shrunk as if by one more example: what never varies would start at infinity
                mean = (examples.sum(0) + mean) / (len(examples) + 1)
            start = family.params_of_mean(mean)
        else:
            return decoder
        return Offset(decoder, start)


def ends_of_numbers(
    event: Size, make: Callable[..., Family], examples: Tensor | None, *, of_steps: bool = False
) -> Ends:
    """Numbers of one kind: networks see them in units of their spread, in which the family works, too.

    Args:
        event: Shape of one example.
        make: Makes the family, given ``center`` and ``unit``.
        examples: Some training data.
        of_steps: Whether an example is a step of a sequence, which may go on beyond all that was seen.
    """
    if examples is not None and not bool(examples.isfinite().all()):
        found = examples[~examples.isfinite()][0].item()
        raise InputError(f"examples must be finite everywhere. They hold {found:g}.")
    center, unit, fine = center_and_units(examples, event)
    within = None if of_steps or len(event) != 1 else _within(examples, unit)
    return Ends(make(center=center, unit=fine), event, lambda: Standardize(center, unit, within=within), examples)


def _within(examples: Tensor | None, unit: Tensor) -> tuple[Tensor, Tensor]:
    """The lowest and the highest number of each column that a network sees; infinite without examples."""
    if examples is None:
        return torch.full_like(unit, -torch.inf), torch.full_like(unit, torch.inf)
    return examples.amin(0).to(unit) - REACH * unit, examples.amax(0).to(unit) + REACH * unit


def ends_of_columns(columns: tuple[str, ...], make: Callable[..., Family], examples: Tensor | None) -> Ends:
    """The columns of a table, which are coded already.

    Args:
        columns: What they are, see :class:`subo.parts.columns.Columns`.
        make: Makes the family, given ``columns``.
        examples: Some training data, coded.
    """
    inputs = Size([Cells(columns).out_features])
    return Ends(make(columns=columns), inputs, lambda: Cells(columns, examples, reach=REACH), examples)
