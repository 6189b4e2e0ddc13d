r"""Size factors: counts whose mean is proportional to a known size s of their row, :math:`m = s \rho(z)`.

The size is the context ``size``, positive, such as the row's total over the mean total. What is modeled is then
p(x|s): an offset :math:`\log s` of the logarithm of the mean (McCullagh and Nelder, 1989, "Generalized Linear Models",
section 6.2). If the size is the row's total, the means of a row sum to it, and so :math:`\rho(z)` has a known sum.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from subo.core import context as contexts
from subo.core.offers import Exposed
from subo.errors import InputError

__all__ = ["LogPerSize", "SumToTotal", "WithOffset", "log_means_of"]


class WithOffset(nn.Module):
    r"""A decoder of counts whose means are multiplied by the size: :math:`\log m = \log \rho(z) + \log s`.

    Args:
        network: ``(N, ...)`` to the parameters of a family; it receives the names of the context that it declares.
        log_means: Which of these are logarithms of means, see :class:`subo.core.offers.Exposed`.

    Example:
        >>> decoder = WithOffset(nn.Identity(), torch.tensor([True, False]))
        >>> decoder(torch.zeros(2, 2), size=torch.tensor([1.0, 2.0]))
        tensor([[0.0000, 0.0000],
                [0.6931, 0.0000]])
    """

    log_means: Tensor

    def __init__(self, network: nn.Module, log_means: Tensor):
        super().__init__()
        self.network = network
        self.register_buffer("log_means", log_means, persistent=False)

    def forward(self, input: Float[Tensor, "N ..."], size: Float[Tensor, " N"], **context: Tensor) -> Tensor:
        params = contexts.call(self.network, input, context=context).flatten(1)
        return params + torch.where(self.log_means, size.to(params).log().unsqueeze(1), 0)


class SumToTotal(nn.Module):
    r"""A decoder of counts whose means sum to a total T: :math:`\rho_j = T m_j / \sum_i m_i`.

    For Poisson and negative binomial counts :math:`\log m` is what the network gives, and :math:`\rho / T` its softmax,
    as in scVI (Lopez et al., 2018). Counts with further zeros have the means :math:`(1 - \pi) m`, and these sum to T.
    So what a row's total says about all of its counts need not be learned.

    Args:
        network: ``(N, ...)`` to the parameters of a family; it receives the names of the context that it declares.
        log_means: Which of these are logarithms of means, see :class:`subo.core.offers.Exposed`.
        total: T.
        zero_logits: Which are logits of the further zeros, in the order of the means; None without any.

    Example:
        >>> decoder = SumToTotal(nn.Identity(), torch.tensor([True, True]), 6.0)
        >>> decoder(torch.tensor([[0.0, 0.0], [0.0, 9.0]])).exp().sum(1).round(decimals=3)
        tensor([6., 6.])
    """

    log_means: Tensor
    total: Tensor
    zero_logits: Tensor | None

    def __init__(
        self, network: nn.Module, log_means: Tensor, total: float | Tensor, *, zero_logits: Tensor | None = None
    ):
        super().__init__()
        self.network = network
        self.register_buffer("log_means", log_means, persistent=False)
        self.register_buffer("zero_logits", zero_logits, persistent=False)
        self.register_buffer("total", torch.as_tensor(total, dtype=torch.get_default_dtype()).clone())

    def forward(self, input: Float[Tensor, "N ..."], **context: Tensor) -> Tensor:
        params = contexts.call(self.network, input, context=context).flatten(1)
        means = params[:, self.log_means]
        if self.zero_logits is not None:
            means = means + logsigmoid(-params[:, self.zero_logits])
        excess = means.logsumexp(1, keepdim=True) - self.total.log()
        return params - torch.where(self.log_means, excess, 0)


class LogPerSize(nn.Module):
    """What an encoder reads of counts: ``log(1 + x / s)``, which large counts and large rows do not dominate.

    Example:
        >>> LogPerSize()(torch.tensor([[0.0, 2.0]]), size=torch.tensor([2.0]))
        tensor([[0.0000, 0.6931]])
    """

    def forward(self, x: Float[Tensor, "N ..."], size: Float[Tensor, " N"]) -> Tensor:
        return (x / size.to(x).reshape(-1, *(1 for _ in x.shape[1:]))).log1p()


def log_means_of(family: Any) -> Tensor:
    """Which parameters of a family a size factor is an offset of.

    Raises:
        InputError: It does not describe counts.
    """
    if isinstance(family, Exposed) and bool(family.log_means.any()):
        return family.log_means
    raise InputError(
        f"`size_factor` multiplies the means of counts, but {type(family).__name__} describes none: use the likelihood "
        "poisson, negative-binomial or zero-inflated-negative-binomial, or a table with columns of counts"
    )
