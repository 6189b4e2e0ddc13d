r"""Scores of a table's rows and cells whose ranks do not depend on the units of its columns.

log p(y) of cells y is a log-density: in units that are c times as small it is log c lower for each cell of the column.
Rows that lack the cell, or have it at a spike, where there is a probability, stay as they are: which rows have the
lowest log p(y) depends on the unit. So it does if a column is replaced by its logarithm. The numbers x(y) that the
model sees are in units of the column's own spread, and logarithms where it is positive, so that

.. math:: \log p(x) = \log p(y) - \sum_j \log \left| \frac{dx_j}{dy_j} \right|

is the same in any units of y. The sum does not depend on z: whatever estimates log p(y) estimates this as well.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from subo.core.draw import LatentVariableModel
from subo.data.splits import Split, takes_data
from subo.data.support import likelihood_at
from subo.distributions.columns import Columns

__all__ = ["log_slopes"]


@takes_data
@torch.no_grad()
def log_slopes(model: LatentVariableModel, split: Split) -> Float[Tensor, "N D"]:
    """``log |dx_j / dy_j|`` of every cell: to subtract from its score, or their sum from that of its row.

    It is 0 where there is no density: for missing cells, levels, counts, at a spike. Where a model describes no columns
    there is one number for each row, 0.

    Args:
        model: The model.
        split: Rows, coded as the model's data were.

    Example:
        >>> from subo.recipes import vae
        >>> from subo.data.tables.schema import Column, Schema
        >>> schema = Schema((Column("grams", "real", unit=1000.0), Column("size", "positive", unit=2.0, log=True)))
        >>> model = vae((2,), latent_dim=1, likelihood="columns", columns=schema.described).model
        >>> model.likelihood.family.set_units(**schema.units())
        >>> log_slopes(model, Split(torch.tensor([[0.5, torch.nan], [-1.0, 0.0]])))
        tensor([[-6.9078,  0.0000],
                [-6.9078, -0.6931]])
    """
    p = likelihood_at(model, split)
    if not isinstance(p, Columns):
        return torch.zeros(len(split), 1)
    return p.jacobian.of_columns(split.x.to(p.jacobian.shift)).cpu()
