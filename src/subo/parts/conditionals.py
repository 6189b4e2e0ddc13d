"""Conditional distributions: a family and the source of its parameters.

Any module whose call returns a ``torch.distributions.Distribution`` is a conditional distribution; these are
ready-made ones. The prior p(z), the likelihood p(x|z) and the posterior q(z|x) are one concept in three
positions.
"""

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.distributions import Distribution

from subo.core import context as contexts
from subo.errors import InputError
from subo.parts.families import Family
from subo.runtime.arguments import checked_arguments

__all__ = ["Conditional", "Given", "Local"]


class Conditional(nn.Module):
    """A distribution with parameters computed by a network: ``family(network(input))``.

    As q(z|x) this is amortized inference, as p(x|z) it is a decoder.

    Args:
        family: Parameters -> Distribution.
        network: Input -> parameters, ``(N, ...) -> (N, family.num_params)`` in any shape. It receives those names
            of the context that its ``forward`` declares.

    Example:
        >>> from subo.parts.location_scale import Gaussian
        >>> q = Conditional(Gaussian((2,)), nn.Linear(5, 4))
        >>> q(torch.zeros(3, 5)).sample().shape
        torch.Size([3, 2])
    """

    @checked_arguments
    def __init__(self, family: Family, network: nn.Module):
        super().__init__()
        self.family = family
        self.network = network

    def forward(self, input: Float[Tensor, "N ..."], **context: Tensor) -> Distribution:
        return self.family(contexts.call(self.network, input, context=context))


class Local(nn.Module):
    """A distribution with free parameters, one row per example: variational inference without an encoder.

    The batch's context identifies the examples by ``index``. Rows start at zero, the family's plainest member. The
    gradient is sparse: it holds only the batch's rows, and :class:`~subo.inference.row_adam.RowAdam` moves only those.

    Args:
        family: Parameters -> Distribution.
        num_data: Number of rows.
        first: Index of the first row; a data set's training split counts from 0.

    Example:
        >>> from subo.parts.location_scale import Gaussian
        >>> q = Local(Gaussian((2,)), 100)
        >>> q(torch.zeros(3, 5), index=torch.tensor([0, 7, 99])).mean.shape
        torch.Size([3, 2])
    """

    @checked_arguments
    def __init__(self, family: Family, num_data: int, *, first: int = 0):
        super().__init__()
        self.family = family
        self.first = first
        self.rows = nn.Embedding.from_pretrained(torch.zeros(num_data, family.num_params), freeze=False, sparse=True)

    @property
    def params(self) -> Tensor:
        """All rows, ``(num_data, family.num_params)``."""
        return self.rows.weight

    def forward(self, input: Float[Tensor, "B ..."], index: Integer[Tensor, " B"]) -> Distribution:
        unknown = index[(index < self.first) | (index >= self.first + len(self.params))]
        if len(unknown):
            raise InputError(
                f"this posterior holds parameters for the {len(self.params)} examples it was fitted to, and index "
                f"{int(unknown[0])} is not one of them. New examples have no parameters yet: optimize some with "
                "subo.infer(model, x); if z has no path, use gradient=ScoreFunction() and num_samples=8."
            )
        return self.family(self.rows(index - self.first if self.first else index))


class Given(nn.Module):
    """A distribution with given parameters, one row per example of the batch, in its order.

    They are not parameters of the module: their owner updates them, or lets gradients flow through to their source.

    Args:
        family: Parameters -> Distribution.
        params: ``(B, family.num_params)``.

    Example:
        >>> from subo.parts.location_scale import Gaussian
        >>> q = Given(Gaussian((2,)), torch.zeros(3, 4))
        >>> q(torch.zeros(3, 5)).mean.shape
        torch.Size([3, 2])
    """

    @checked_arguments
    def __init__(self, family: Family, params: Float[Tensor, "B ..."]):
        super().__init__()
        self.family = family
        self.params = params

    def forward(self, input: Float[Tensor, "B ..."]) -> Distribution:
        return self.family(self.params)
