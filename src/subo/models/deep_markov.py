r"""Deep Markov models: a chain of latent vectors with networks for its steps, and a posterior that reads backwards.

.. math:: p(x, z) = p(z_1) \prod_{t=2}^T p(z_t | z_{t-1}) \prod_{t=1}^T p(x_t | z_t), \qquad
          q(z | x) = \prod_{t=1}^T q(z_t | z_{t-1}, h_t)

Given z_{t-1}, the state z_t depends on x_t, ..., x_T alone; so does h_t, which a recurrent network computes from them
(Krishnan, Shalit and Sontag, 2017, "Structured inference networks for nonlinear state space models").
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.functional import relu

from subo.distributions.gaussian import Gaussian as GaussianDistribution
from subo.errors import InputError
from subo.models.emission import check_mask, masked
from subo.models.markov import MarkovDistribution
from subo.parts.location_scale import Gaussian
from subo.parts.networks import mlp

__all__ = ["BackwardReader", "Combiner", "GatedTransition", "Smoother", "Start"]


class GatedTransition(nn.Module):
    r"""The parameters of a step from z: between a linear map and a network, dimension by dimension.

    .. math:: \mathrm{loc} = (1 - g) \odot (A z + b) + g \odot h, \qquad g = \sigma(\mathrm{mlp}_g(z)),
              \quad h = \mathrm{mlp}_h(z), \quad \mathrm{scale} = \mathrm{softplus}(C \max(h, 0) + d)

    with A initially the identity (Krishnan et al., 2017, section 5).

    Args:
        dim: Size of z.
        hidden: Width of both networks' hidden layer.

    Example:
        >>> GatedTransition(2)(torch.zeros(5, 2)).shape
        torch.Size([5, 4])
    """

    def __init__(self, dim: int, *, hidden: int = 200):
        super().__init__()
        self.gate = mlp(dim, dim, hidden=(hidden,), activation=nn.ReLU)
        self.proposal = mlp(dim, dim, hidden=(hidden,), activation=nn.ReLU)
        self.linear = nn.Linear(dim, dim)
        self.scale = nn.Linear(dim, dim)
        nn.init.eye_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, z: Float[Tensor, "N D"]) -> Float[Tensor, "N P"]:
        gate, proposal = self.gate(z).sigmoid(), self.proposal(z)
        loc = torch.lerp(self.linear(z), proposal, gate)
        return torch.cat([loc, self.scale(relu(proposal))], dim=1)


class BackwardReader(nn.Module):
    """A recurrent network that reads each sequence from its last real step to its first: ``h_t`` from ``x_t ... x_T``.

    Args:
        encoder: Network applied to each step, ``(N, *event) -> (N, width)``.
        width: Number of its outputs.
        hidden: Size of h.
        cell: Kind of the recurrent network.
        missing_indicator: Whether the recurrent network also receives which elements of a step are observed; a step
            then has `width` elements.

    What the encoder gives for a missing value, NaN, is replaced by 0. An encoder with parameters would get NaN for its
    gradient: it is given 0 in place of missing values, which the indicator distinguishes from a 0.

    Example:
        >>> BackwardReader(nn.Flatten(), 3, hidden=8)(torch.zeros(5, 7, 3)).shape
        torch.Size([5, 7, 8])
    """

    def __init__(
        self, encoder: nn.Module, width: int, *, hidden: int = 200, cell: str = "gru", missing_indicator: bool = False
    ):
        super().__init__()
        cells: dict[str, Callable[..., nn.Module]] = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}
        if cell not in cells:
            raise InputError(f"cell must be one of {', '.join(cells)}, not '{cell}'")
        self.encoder = encoder
        self.missing_indicator = missing_indicator
        self.recurrent = cells[cell](width * (1 + missing_indicator), hidden, batch_first=True)

    def forward(self, x: Float[Tensor, "B T ..."], mask: Bool[Tensor, "B T"] | None = None) -> Float[Tensor, "B T H"]:
        x = masked(x, mask, event_dims=x.ndim - 2)  # padding may be anything, even NaN
        known = torch.where(x.isnan(), 0, x) if any(True for _ in self.encoder.parameters()) else x
        steps = self.encoder(known.flatten(0, 1)).unflatten(0, x.shape[:2])
        steps = torch.where(steps.isnan(), 0, steps)
        if self.missing_indicator:
            steps = torch.cat([steps, (~x.isnan()).flatten(2).to(steps)], -1)
        order = reversal(mask, x.shape[1], x.device).unsqueeze(-1)
        backwards, _ = self.recurrent(torch.take_along_dim(steps, order, dim=1))
        return masked(torch.take_along_dim(backwards, order, dim=1), mask, event_dims=1)


def reversal(mask: Bool[Tensor, "B T"] | None, length: int, device: torch.device) -> Tensor:
    """Indices that reverse the real steps and leave padding at the end; its own inverse.

    Example:
        >>> reversal(torch.tensor([[True, True, False]]), 3, torch.device("cpu"))
        tensor([[1, 0, 2]])
    """
    times = torch.arange(length, device=device).unsqueeze(0)
    if mask is None:
        return times.flip(1)
    return torch.where(mask, mask.sum(1, keepdim=True) - 1 - times, times)


class Combiner(nn.Module):
    r"""``q(z_t | z_{t-1}, h_t)``: a Gaussian whose parameters are linear in ``(tanh(W z_{t-1} + b) + h_t) / 2``.

    (Krishnan et al., 2017, section 4, the combiner of their structured inference network.)

    Args:
        dim: Size of z.
        hidden: Size of h.
    """

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.family = Gaussian((dim,))
        self.of_state = nn.Linear(dim, hidden)
        self.params = nn.Linear(hidden, 2 * dim)

    def forward(self, previous: Float[Tensor, "N D"], inputs: Float[Tensor, "N H"]) -> Distribution:
        return self.family(self.params((self.of_state(previous).tanh() + inputs) / 2))


class Smoother(nn.Module):
    """The posterior ``q(z|x) = prod_t q(z_t | z_{t-1}, h_t)``, a chain whose steps see the present and the future.

    With `previous`, ``(B, D)``, the last states of an earlier window, it goes on from these.

    Args:
        reader: ``(x, mask) -> h``, ``(B, T, H)``, such as :class:`BackwardReader`.
        combiner: ``(previous (N, D), h (N, H)) -> Distribution``, such as :class:`Combiner`.
        dim: Size of z.

    Example:
        >>> q = Smoother(BackwardReader(nn.Flatten(), 3, hidden=8), Combiner(2, 8), 2)
        >>> q(torch.zeros(5, 7, 3)).sample((4,)).shape
        torch.Size([4, 5, 7, 2])
    """

    def __init__(self, reader: nn.Module, combiner: nn.Module, dim: int):
        super().__init__()
        self.reader = reader
        self.combiner = combiner
        self.start = nn.Parameter(torch.zeros(dim))

    def forward(
        self,
        input: Float[Tensor, "B T ..."],
        mask: Bool[Tensor, "B T"] | None = None,
        previous: Float[Tensor, "B D"] | None = None,
    ) -> MarkovDistribution:
        if mask is not None:
            check_mask(mask, length=input.shape[1], num_data=len(input), may_be_empty=previous is not None)
        h = self.reader(input, mask)
        first = self.combiner(self.start.expand(len(input), -1) if previous is None else previous, h[:, 0])
        return MarkovDistribution(first, self.combiner, input.shape[1], mask=mask, inputs=h)


class Start(nn.Module):
    """A learned Gaussian ``p(z_1)``, initially N(0, I).

    Args:
        event_shape: Shape of z_1.
    """

    def __init__(self, event_shape: Sequence[int]):
        super().__init__()
        self.family = Gaussian(event_shape)
        self.params = nn.Parameter(torch.zeros(self.family.num_params))

    def forward(self) -> Distribution:
        p: Any = self.family(self.params.unsqueeze(0))
        return GaussianDistribution(p.loc.squeeze(0), p.scale.squeeze(0), len(p.event_shape))
