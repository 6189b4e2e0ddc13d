"""Hamiltonian transitions for many chains at once: C chains for each of B examples, with separate step sizes.

They leave invariant a density on the bridge from a start ``f_0``, from which samples are known, to the joint density:
``log f_beta(z) = (1 - beta) log f_0(z) + beta log p(x, z)``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from subo.errors import InputError
from subo.typing import Latent

__all__ = ["SETTLE", "TARGET_ACCEPTANCE", "Bridge", "State", "adapted", "pack", "transition"]

TARGET_ACCEPTANCE = 0.65
"""Optimal for Hamiltonian transitions in many dimensions (Beskos et al., 2013)."""
SETTLE = 30
"""Transitions at the first temperature, before step sizes are noted."""
_GAIN = 0.3  # change of the log step size per unit of acceptance above the target
_FIRST_STEP = 0.3
_JITTER = 0.2  # relative, in every trajectory's step size: none is tuned to a period of the density


@dataclass(frozen=True, eq=False)
class State:
    """The positions of the chains, with what the next transition needs to know about them.

    Attributes:
        z: Positions, all latents of a chain in one row.
        log_start: ``log f_0(z)``.
        log_joint: ``log p(x, z)``.
        slope_start: ``grad_z log f_0(z)``.
        slope_joint: ``grad_z log p(x, z)``.
    """

    z: Float[Tensor, "C B D"]
    log_start: Float[Tensor, "C B"]
    log_joint: Float[Tensor, "C B"]
    slope_start: Float[Tensor, "C B D"]
    slope_joint: Float[Tensor, "C B D"]

    def log_density(self, beta: float) -> Float[Tensor, "C B"]:
        """``log f_beta(z)``."""
        return self.log_start + beta * (self.log_joint - self.log_start)

    def slope(self, beta: float) -> Float[Tensor, "C B D"]:
        """``grad_z log f_beta(z)``."""
        return torch.lerp(self.slope_start, self.slope_joint, beta)

    def where(self, chosen: Tensor, other: "State") -> "State":
        """This state where `chosen`, ``(C, B)``, is true, else the other."""
        wide = chosen.unsqueeze(-1)
        return State(
            torch.where(wide, self.z, other.z),
            torch.where(chosen, self.log_start, other.log_start),
            torch.where(chosen, self.log_joint, other.log_joint),
            torch.where(wide, self.slope_start, other.slope_start),
            torch.where(wide, self.slope_joint, other.slope_joint),
        )


@dataclass(frozen=True, eq=False)
class Bridge:
    """The densities between a start and the joint density of B examples and their latents.

    Args:
        log_start: Maps latents ``(C, B, *event)`` to ``log f_0(z)``, ``(C, B)``; may be flat.
        log_joint: Likewise for ``log p(x, z)``; not flat.
        unpack: Maps rows ``(C, B, D)`` to latents.
        inside: Says which latents lie in the support of the distributions, ``(C, B)``.
        safe: Rows ``(1, B, D)`` in the support. Where a trajectory has left it, the densities are evaluated there
            instead, since some distributions refuse values outside.
    """

    log_start: Callable[[Latent], Tensor]
    log_joint: Callable[[Latent], Tensor]
    unpack: Callable[[Tensor], Latent]
    inside: Callable[[Latent], Tensor]
    safe: Float[Tensor, "1 B D"]

    @torch.enable_grad()
    def at(self, z: Float[Tensor, "C B D"]) -> State:
        """The densities and their slopes at these positions: one pass through the model, and one back.

        Outside the support, and where z is NaN, the log-densities are minus infinity and the slopes 0.

        Raises:
            InputError: The joint density has no gradient in z.
        """
        good = z.detach().isfinite().all(-1)
        good = good & self.inside(self.unpack(torch.where(good.unsqueeze(-1), z.detach(), self.safe)))
        asked = torch.where(good.unsqueeze(-1), z.detach(), self.safe).requires_grad_()
        latent = self.unpack(asked)
        log_start, log_joint = self.log_start(latent), self.log_joint(latent)
        if not log_joint.requires_grad:
            raise InputError(
                "log p(x, z) has no gradient in z, but Hamiltonian transitions need one. Usually the likelihood leaves "
                "torch (numpy, detach, rounding). Use importance sampling."
            )
        values = [torch.where(good, log_density.detach(), -torch.inf) for log_density in (log_start, log_joint)]
        slopes = [
            torch.where(good.unsqueeze(-1), _slope(log_density, asked), 0.0) for log_density in (log_start, log_joint)
        ]
        return State(z.detach(), *values, *slopes)


def _slope(log_density: Tensor, z: Tensor) -> Tensor:
    """``grad_z``; 0 for a flat density."""
    if not log_density.requires_grad:
        return torch.zeros_like(z)
    (slope,) = torch.autograd.grad(log_density.sum(), z, retain_graph=True, allow_unused=True)
    return torch.zeros_like(z) if slope is None else slope


def transition(
    bridge: Bridge, state: State, beta: float, step: Float[Tensor, " B"], *, leapfrog_steps: int
) -> tuple[State, Float[Tensor, "C B"]]:
    """One Hamiltonian transition, which leaves ``f_beta`` invariant (Neal, 2011, section 3.2), with unit masses.

    A fresh momentum, `leapfrog_steps` leapfrog steps, and the end accepted with probability
    ``min(1, exp(H(begin) - H(end)))``. A trajectory that ends where the density is 0 or NaN is rejected.

    Args:
        bridge: The densities.
        state: State of the chains.
        beta: Temperature of the density.
        step: Leapfrog step size for each example.
        leapfrog_steps: Number of leapfrog steps.

    Returns:
        The new state of the chains, and the acceptance probability of each end point.
    """
    momentum = torch.randn_like(state.z)
    jitter = 1 + _JITTER * (2 * torch.rand_like(state.log_joint) - 1)
    length = (step * jitter).unsqueeze(-1)
    before = state.log_density(beta) - momentum.square().sum(-1) / 2
    momentum = momentum + length / 2 * state.slope(beta)
    end = state
    for number in range(leapfrog_steps):
        end = bridge.at(end.z + length * momentum)
        last = number == leapfrog_steps - 1
        momentum = momentum + (length / 2 if last else length) * end.slope(beta)
    after = end.log_density(beta) - momentum.square().sum(-1) / 2
    probability = (after - before).exp().clamp(max=1).nan_to_num(0.0)
    accepted = torch.rand_like(probability) < probability
    return end.where(accepted, state), probability


def adapted(
    bridge: Bridge, state: State, betas: list[float], *, leapfrog_steps: int, settle: int = SETTLE
) -> Float[Tensor, "P B"]:
    """Step sizes along the bridge for which about 0.65 of the end points are accepted, found in a separate run.

    At each of P temperatures, one transition is made, and then ``log step += 0.3 (accepted - 0.65)`` for each example,
    with the mean over its chains; `settle` transitions precede, at the first temperature.

    Args:
        bridge: The densities.
        state: Initial state of the chains; samples of ``f_0``.
        betas: The P temperatures, upwards.
        leapfrog_steps: Leapfrog steps of each transition.
        settle: Number of preceding transitions.
    """
    log_step = torch.full_like(state.log_joint[0], _FIRST_STEP).log()
    found = []
    for number, beta in enumerate([betas[0]] * settle + betas):
        state, accepted = transition(bridge, state, beta, log_step.exp(), leapfrog_steps=leapfrog_steps)
        log_step = log_step + _GAIN * (accepted.mean(0) - TARGET_ACCEPTANCE)
        if number >= settle:
            found.append(log_step.exp())
    return torch.stack(found)


def pack(z: Latent) -> tuple[Float[Tensor, "C B D"], Callable[[Tensor], Any]]:
    """All latents of a chain in one row, and the inverse function.

    Args:
        z: Leaves ``(C, B, *event)``.
    """
    if isinstance(z, Tensor):
        shape = z.shape[2:]
        return z.flatten(2) if shape else z.unsqueeze(2), lambda rows: rows.reshape(*rows.shape[:2], *shape)
    parts = {name: pack(leaf) for name, leaf in z.items()}
    sizes = [rows.shape[2] for rows, _ in parts.values()]

    def unpack(rows: Tensor) -> dict[str, Tensor]:
        pieces = rows.split(sizes, dim=2)
        return {name: back(piece) for (name, (_, back)), piece in zip(parts.items(), pieces, strict=True)}

    return torch.cat([rows for rows, _ in parts.values()], dim=2), unpack
