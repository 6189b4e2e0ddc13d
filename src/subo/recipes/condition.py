"""What a model p(x, z | c) is conditioned on: nothing, the class of each example, columns of a table, its size."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, TypeAlias

from torch import Size, Tensor, nn

from subo.errors import InputError
from subo.parts.cells import beside_cells
from subo.parts.labels import labelled
from subo.parts.registry import made

__all__ = ["ConditionOptions", "Widened", "columns_of"]

Widened: TypeAlias = Callable[..., nn.Module]
"""Makes a network that sees c, too: ``(make, shape, planes=False)``, see :func:`subo.parts.labels.labelled`."""


def columns_of(condition: str | Sequence[str]) -> tuple[str, ...]:
    """The columns that a recipe's option ``condition`` names.

    Example:
        >>> columns_of("labels"), columns_of("age"), columns_of(("age", "city"))
        ((), ('age',), ('age', 'city'))
    """
    if isinstance(condition, str):
        return () if condition in ConditionOptions.CHOICES["condition"] else (condition,)
    return tuple(condition)


def _on_nothing() -> None:
    return None


def _on_labels(*, num_labels: int | None) -> Widened:
    if num_labels is None:
        raise InputError("condition labels needs num_labels: one more than the largest label")
    return partial(labelled, num_labels=num_labels)


def _on_columns(*, condition: Any, given: Sequence[str] | None, given_examples: Tensor | None) -> Widened:
    if given is None:
        named = ", ".join(map(repr, columns_of(condition)))
        raise InputError(
            f"`condition` is none, labels, or names of columns of a table that the likelihood columns describes; these "
            f"data are none that was loaded with the condition {named}"
        )

    def widened(make: Callable[[Size], nn.Module], shape: Sequence[int], *, planes: bool = False) -> nn.Module:
        return beside_cells(make, shape, columns=given, examples=given_examples)  # cells are no planes

    return widened


@dataclass(frozen=True)
class ConditionOptions:
    """The model's inputs in addition to x.

    Args:
        condition: What the model is conditioned on: nothing (none), each example's class (labels), or columns of a
            table of mixed columns, such as sex,age. With c, it is p(x|z,c) and q(z|x,c), and log p(x) is log p(x|c);
            with labels the prior is p(z|c), too. Names that hold a comma are put in double quotes.
        num_labels: Number of classes 0 .. num_labels - 1 with condition labels; by default that of the data.
        size_factor: The size s of a row, by which the means of its counts are multiplied: each row's total (observed),
            to which the means then sum, or the name of a column of sizes, both over their mean in the training data.
            The model is then p(x|z,s), and log p(x) is log p(x|s).
    """

    CHOICES: ClassVar[Mapping[str, Mapping[str, Any]]] = {"condition": {"none": _on_nothing, "labels": _on_labels}}

    condition: str | tuple[str, ...] = "none"
    num_labels: int | None = None
    size_factor: str = "none"

    def build(self, *, given: Sequence[str] | None, given_examples: Tensor | None) -> Widened | None:
        """Makes networks see c, too; None without a condition.

        Args:
            given: Kinds of the columns of a table that are the condition.
            given_examples: Some of their cells, which set the units.
        """
        own = {"condition": self.condition, "num_labels": self.num_labels}
        own |= {"given": given, "given_examples": given_examples}
        entry = _on_columns if columns_of(self.condition) else self.CHOICES["condition"][str(self.condition)]
        return made(entry, **own)

    @property
    def is_sized(self) -> bool:
        """Whether means of counts are multiplied by the size of their row."""
        return self.size_factor != "none"

    @property
    def classes(self) -> int | None:
        """Number of classes that the model is conditioned on; None without labels."""
        return self.num_labels if self.condition == "labels" else None
