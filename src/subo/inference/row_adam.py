"""Adam for parameters of which a batch touches only a few rows: each row has its own step count."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from subo.errors import InputError

__all__ = ["RowAdam", "adam_step"]


def adam_step(
    params: Float[Tensor, " n *P"],
    gradient: Float[Tensor, " n *P"],
    mean: Float[Tensor, " n *P"],
    square: Float[Tensor, " n *P"],
    count: Float[Tensor, " n *one"] | int,
    *,
    lr: Float[Tensor, " n *one"] | float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> None:
    r"""One descent step for every row, in place (Kingma and Ba, 2015, algorithm 1).

    ``m <- b1 m + (1 - b1) g``, ``v <- b2 v + (1 - b2) g^2``,
    ``params <- params - lr * [m / (1 - b1^t)] / (sqrt(v / (1 - b2^t)) + eps)``

    Args:
        params: Parameters to update.
        gradient: Gradient g.
        mean: m, the running mean of g.
        square: v, the running mean of g^2.
        count: t, the number of this step, for all rows or for each.
        lr: Step size, for all rows or for each.
        betas: Decay rates b1 and b2.
        eps: Keeps the quotient finite.
    """
    mean.lerp_(gradient, 1 - betas[0])
    square.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
    denominator = (square / (1 - betas[1] ** count)).sqrt_().add_(eps)
    params.sub_(lr / (1 - betas[0] ** count) * mean / denominator)


class RowAdam(Optimizer):
    r"""Adam (Kingma and Ba, 2015, algorithm 1) in which every row of a parameter has its own step count.

    Moments and step count belong to the row: a row without an example in the batch is unchanged, and so is its
    bias correction. torch's SparseAdam has one count for all rows, so that a row seen late gets a first step of
    ``(1 - b1) / sqrt(1 - b2) = 3`` times the length; Adam itself moves all rows at every step, on stale
    moments.

    Two moments and a count: memory is three times that of the parameters, and time scales with the batch.

    Args:
        params: Parameters ``(N, ...)`` whose gradients are sparse over the first axis; repeated rows are summed.
        lr: Step size.
        betas: Decay rates of the two moments.
        eps: Keeps the quotient finite.

    Example:
        >>> rows = nn.Embedding(1000, 4, sparse=True)
        >>> optimizer = RowAdam(rows.parameters(), lr=0.1)
        >>> before = rows.weight.detach().clone()
        >>> rows(torch.tensor([3, 7, 3])).sum().backward()
        >>> optimizer.step()
        >>> (rows.weight != before).any(1).nonzero().flatten()
        tensor([3, 7])
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.05,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore
        """Updates the rows that have a gradient.

        Raises:
            InputError: A gradient is dense.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)
        return loss

    def _move(self, parameter: nn.Parameter, group: dict[str, Any]) -> None:
        gradient: Any = parameter.grad
        if not gradient.is_sparse:
            raise InputError(
                f"RowAdam takes gradients that are sparse over rows, but one of shape {tuple(gradient.shape)} is "
                "dense. Look rows up with nn.Embedding(..., sparse=True), or use torch's Adam."
            )
        state = self.state[parameter]
        if not state:
            state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
            state["count"] = parameter.new_zeros(len(parameter), *[1] * (parameter.ndim - 1))
        gradient = gradient.coalesce()
        (rows,), values = gradient.indices(), gradient.values()
        state["count"].index_add_(0, rows, torch.ones_like(state["count"][rows]))
        moved = [tensor[rows] for tensor in (parameter, state["mean"], state["square"])]
        params, mean, square = moved
        adam_step(
            params, values, mean, square, state["count"][rows], lr=group["lr"], betas=group["betas"], eps=group["eps"]
        )
        for whole, part in zip((parameter, state["mean"], state["square"]), moved, strict=True):
            whole.index_copy_(0, rows, part)
