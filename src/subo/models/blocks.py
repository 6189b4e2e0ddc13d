"""Parts of a ladder: blocks, which are stochastic layers; how they merge q with p; and the bottom-up pass."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from subo.distributions.gaussian import Gaussian
from subo.errors import InputError
from subo.runtime.arguments import checked_arguments

__all__ = ["Block", "BottomUp", "Correction", "PrecisionWeighted", "Update"]


class Block(nn.Module):
    """One stochastic layer of a ladder, as three modules over N rows.

    Args:
        prior: ``h -> p(z_l | h)``, such as ``Conditional(Gaussian((8,)), network)``.
        posterior: ``(h, features, p) -> q(z_l | h, features)``, where p is what the prior returned:
            :class:`Correction`, :class:`PrecisionWeighted`, or a module of your own.
        update: ``(h, z_l) -> h``, the state for the next block and, after the last block, for the likelihood.
    """

    prior: Any  # as a VAE's parts
    posterior: Any
    update: Any

    @checked_arguments
    def __init__(self, prior: nn.Module, posterior: nn.Module, update: nn.Module):
        super().__init__()
        self.prior, self.posterior, self.update = prior, posterior, update


class Correction(nn.Module):
    r"""``N(m_p + a, diag(s_p s)^2)``: the prior ``N(m_p, diag s_p^2)``, shifted and rescaled depending on h and x.

    Where the network outputs zeros, q is the prior (Vahdat and Kautz, 2020, section 3.2).

    Args:
        proposal: ``(h, features) -> N(a, diag s^2)``, with the two concatenated, as features or channels.
    """

    @checked_arguments
    def __init__(self, proposal: nn.Module):
        super().__init__()
        self.proposal = proposal

    def forward(self, h: Tensor, features: Tensor, p: Distribution) -> Gaussian:
        p, change = _gaussian(p, "prior"), _gaussian(self.proposal(torch.cat([h, features], 1)), "proposal")
        return Gaussian(p.loc + change.loc, p.scale * change.scale, len(p.event_shape))


class PrecisionWeighted(nn.Module):
    r"""``N(m_p, s_p^2) N(m, s^2)``, normalized: the prior times a Gaussian from x alone (Sonderby et al., 2016).

    The precisions add, ``1 / s_q^2 = 1 / s_p^2 + 1 / s^2``, and the mean is the precision-weighted one,
    ``m_q = s_q^2 (m_p / s_p^2 + m / s^2)``: what Bayes' rule does with a Gaussian likelihood of z_l.

    Args:
        proposal: ``features -> N(m, diag s^2)``.
    """

    @checked_arguments
    def __init__(self, proposal: nn.Module):
        super().__init__()
        self.proposal = proposal

    def forward(self, h: Tensor, features: Tensor, p: Distribution) -> Gaussian:
        p, own = _gaussian(p, "prior"), _gaussian(self.proposal(features), "proposal")
        variance = p.scale.square() + own.scale.square()
        loc = p.loc + p.scale.square() / variance * (own.loc - p.loc)
        return Gaussian(loc, p.scale * own.scale * variance.rsqrt(), len(p.event_shape))


def _gaussian(p: Distribution, part: str) -> Gaussian:
    if not isinstance(p, Gaussian):
        raise InputError(
            f"this posterior merges Gaussians, but its {part} returned a {type(p).__name__}: make it a "
            "Conditional(Gaussian(event_shape), network), or give the block your own posterior"
        )
    return p


class Update(nn.Module):
    """``network(h + project(z))``: adds z_l to the state and applies a network, such as a residual one.

    Args:
        project: ``z_l -> (N, *state)``.
        network: ``(N, *state) -> (N, *next state)``.
    """

    @checked_arguments
    def __init__(self, project: nn.Module, network: nn.Module):
        super().__init__()
        self.project, self.network = project, network

    def forward(self, h: Tensor, z: Tensor) -> Tensor:
        return self.network(h + self.project(z))


class BottomUp(nn.Module):
    """The bottom-up pass: a sequence of stages whose outputs are the features of the levels, the last one's first.

    Args:
        *stages: The first takes x, each later one the output of the one before.

    Example:
        >>> [tuple(f.shape) for f in BottomUp(nn.Linear(8, 4), nn.Linear(4, 2))(torch.zeros(5, 8))]
        [(5, 2), (5, 4)]
    """

    @checked_arguments
    def __init__(self, *stages: nn.Module):
        super().__init__()
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features[::-1]
