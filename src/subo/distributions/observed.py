r"""The density of those elements of an event that were observed: NaN stands for the others, which are integrated out.

Of independent elements the factors of the observed ones remain. Of a normal with covariance S, let M be the diagonal
matrix of what is observed, and

.. math:: S_M = M S M + I - M,

which has the covariance of the observed elements as its block, and the identity beside it: its determinant is that of
the block, and ``r^T S_M^{-1} r`` with ``r = M (x - loc)`` is the square of the observed elements alone.
"""

import math

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal

from subo.distributions.columns import Columns
from subo.errors import InputError

__all__ = ["embedded", "has_missing", "observed_log_prob"]


def has_missing(x: Shaped[Tensor, "..."]) -> bool:
    """Whether an element is NaN."""
    return x.is_floating_point() and bool(x.isnan().any())


def observed_log_prob(p: Distribution, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """``log p(x_observed)``, of the sample and batch shape.

    Args:
        p: Independent elements, a multivariate normal, or the columns of a table.
        x: A value that broadcasts to the event; NaN where an element is missing.

    Raises:
        InputError: p is none of these, or a one-hot element is missing in part.

    Example:
        >>> from subo.distributions.gaussian import Gaussian
        >>> x = torch.tensor([[0.0, float("nan")], [float("nan"), float("nan")]])
        >>> observed_log_prob(Gaussian(torch.zeros(2, 2), torch.ones(2, 2), 1), x)
        tensor([-0.9189,  0.0000])
    """
    if isinstance(p, Columns) or not has_missing(x):
        return p.log_prob(x)
    missing = x.isnan()
    if isinstance(p, MultivariateNormal):
        return _of_normal(p, x, ~missing)
    if not isinstance(p, Independent):
        raise InputError(
            f"values are missing, and the missing elements of a {type(p).__name__} cannot be integrated out: use a "
            "likelihood of independent elements, such as gaussian, or fill them"
        )
    inner = len(p.base_dist.event_shape)  # of a one-hot element
    if inner:
        some, missing = missing.flatten(-inner).any(-1), missing.flatten(-inner).all(-1)
        if bool((some & ~missing).any()):
            raise InputError(
                "an element of several numbers, such as a one-hot one, is missing as a whole or not at all"
            )
    cells = p.base_dist.log_prob(x.nan_to_num(0)).masked_fill(missing, 0)
    outer = p.reinterpreted_batch_ndims
    return cells.flatten(-outer).sum(-1) if outer else cells


def embedded(covariance: Float[Tensor, "*#S D D"], seen: Bool[Tensor, "*#S D"]) -> Float[Tensor, "*_ D D"]:
    """The block of what is seen, and the identity beside it: ``S_M``."""
    both = seen.unsqueeze(-1) & seen.unsqueeze(-2)
    return torch.where(both, covariance, torch.eye(covariance.shape[-1]).to(covariance))


def _of_normal(p: MultivariateNormal, x: Tensor, seen: Tensor) -> Tensor:
    rest = torch.where(seen, x.nan_to_num(0) - p.loc, 0)
    factor = torch.linalg.cholesky(embedded(p.covariance_matrix, seen))
    scaled = torch.linalg.solve_triangular(factor, rest.unsqueeze(-1), upper=False).squeeze(-1)
    log_scale = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return -0.5 * scaled.square().sum(-1) - log_scale - 0.5 * math.log(2 * math.pi) * seen.sum(-1).to(rest)
