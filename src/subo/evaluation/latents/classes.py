"""Classes of data: examples with the same prior p(z|c), within which q can be compared with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Integer
from torch import Tensor, nn

from subo.core import context as contexts
from subo.data.splits import Split
from subo.models.graph import Child, Joint

__all__ = ["Classes", "prior_classes", "received"]


@dataclass(frozen=True, eq=False)
class Classes:
    """Which examples share a prior.

    Attributes:
        names: Names of the context that the prior receives: ``label``, or any other.
        of_data: Class of each example, numbered from 0.
    """

    names: tuple[str, ...]
    of_data: Integer[Tensor, " N"]

    @property
    def sizes(self) -> Integer[Tensor, " N"]:
        """The size of each example's class."""
        return torch.bincount(self.of_data)[self.of_data]


def prior_classes(model: Any, split: Split, index: Integer[Tensor, " N"] | None = None) -> Classes | None:
    """Groups examples by the context that the model's prior receives.

    Args:
        model: A model with a `prior`.
        split: The data.
        index: Positions of the examples; all by default.

    Returns:
        None if the prior receives no context, or one that few examples share, such as a real number: with most of them
        alone in their class, there are no classes.

    Example:
        >>> from subo import VAE, Conditional, Gaussian, mlp
        >>> from subo.parts.labels import ByLabel
        >>> p, q = Conditional(Gaussian((5,)), mlp(2, 10)), Conditional(Gaussian((2,)), mlp(5, 4))
        >>> model = VAE(ByLabel(Gaussian((2,)), num_labels=3), p, q)
        >>> prior_classes(model, Split(torch.zeros(6, 5), labels=torch.tensor([0, 2, 0, 2, 2, 2]))).sizes
        tensor([2, 4, 2, 4, 4, 4])
    """
    known = _known(split)
    names = _read(getattr(model, "prior", None), known)
    if not names:
        return None
    columns = [known[name].reshape(len(split), -1).double() for name in names]
    rows = torch.cat(columns, dim=1)
    rows = rows if index is None else rows[index]
    classes = Classes(names, rows.unique(dim=0, return_inverse=True)[1])
    return classes if (classes.sizes > 1).double().mean() >= 0.5 else None


def received(model: Any, split: Split) -> tuple[str, ...]:
    """Names of the context that any part of a model receives."""
    return _read(model, _known(split))


def _known(split: Split) -> dict[str, Tensor]:
    return dict(split.context) if split.labels is None else {"label": split.labels, **split.context}


def _read(module: Any, known: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The names that the module, or one within it, declares."""
    declared: set[str] = set()
    for part in module.modules() if isinstance(module, nn.Module) else [module] if callable(module) else []:
        declared.update(contexts.receives(part)[0])
        if isinstance(part, Child):
            declared.update(part.parents)
        if isinstance(part, Joint):  # its nodes may be functions
            declared.update(*part.parents.values())
    return tuple(name for name in known if name in declared)
