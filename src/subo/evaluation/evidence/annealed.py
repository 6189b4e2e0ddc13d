"""log p(x) by annealed importance sampling: from a known start, through a bridge of densities, to p(x, z)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import Distribution

from subo.core import context as contexts
from subo.core.draw import Draw, LatentVariableModel
from subo.data.splits import takes_data
from subo.data.support import explained, support_of
from subo.errors import InputError
from subo.evaluation.evidence.hamiltonian import SETTLE, Bridge, State, adapted, pack, transition
from subo.evaluation.evidence.importance import WeightSums
from subo.evaluation.numbers import ALONE, LIKELY, Beside, Number
from subo.runtime.arguments import check_fields, checked_arguments
from subo.runtime.devices import evaluating, place
from subo.runtime.progress import bar
from subo.runtime.randomness import forked
from subo.typing import Context, leaves, map_latent

__all__ = [
    "AnnealedEstimate",
    "Annealing",
    "Start",
    "TemperatureSchedule",
    "ais",
    "begin",
    "chains_error",
    "few_chains",
    "has_discrete_latents",
]

Start = Literal["prior", "posterior"]
TemperatureSchedule = Literal["sigmoid", "linear"]

_SIGMOID = 4.0  # where the sigmoid is cut: at sigma(-4) and sigma(4)
_FEW = 4
_PILOT = (50, 200)  # temperatures of the run that adapts the steps: a tenth of all, within these limits


@dataclass(frozen=True, eq=False)
class AnnealedEstimate:
    """Per-example estimates from C chains, in nats, float64 and on the CPU.

    Attributes:
        log_px: ``log 1/C sum_c w_c``. In expectation a lower bound on log p(x), which is tight for many temperatures.
        standard_error: Standard error of `log_px`, from the spread of the chains' weights, see :func:`chains_error`;
            infinite for one chain.
        effective_sample_size: ``(sum w)^2 / sum w^2``, between 1 and C. If it is small, one chain dominates the
            estimate, see :func:`few_chains`.
        log_weight: Log-weight of each chain.
        acceptance: Mean fraction of accepted trajectories; far from 0.65, the step sizes are unsuitable.
        chains: C.
        temperatures: T.
        leapfrog_steps: Leapfrog steps of each transition.
    """

    log_px: Float[Tensor, " B"]
    standard_error: Float[Tensor, " B"]
    effective_sample_size: Float[Tensor, " B"]
    log_weight: Float[Tensor, "C B"]
    acceptance: Float[Tensor, " B"]
    chains: int
    temperatures: int
    leapfrog_steps: int

    @classmethod
    def of(cls, log_weight: Tensor, acceptance: Tensor, annealing: "Annealing") -> "AnnealedEstimate":
        """The estimate from the weights of the chains."""
        sums = WeightSums(log_weight.shape[1])
        sums.add(log_weight)
        error = torch.maximum(sums.standard_error, chains_error(log_weight))
        counts = (len(log_weight), annealing.temperatures, annealing.leapfrog_steps)
        return cls(sums.log_mean, error, sums.effective_sample_size, log_weight, acceptance, *counts)

    def numbers(self, beside: Beside = ALONE) -> Iterator[Number]:
        """The mean over the data, how much it exceeds importance sampling's, and how many chains count."""
        count, num_data, how = self.chains, len(self.log_px), f"annealing, {self.temperatures:,} temperatures"
        yield Number.mean(LIKELY, beside.name("log p(x)", num_data), self.log_px, how, count)
        yield from beside.less(self.log_px, count)
        worth, how = self.effective_sample_size.nanmedian().item(), f"of {count}, by their weights"
        yield Number(LIKELY, "  effective chains, median", worth, None, "", how, count, num_data)


def chains_error(log_weight: Float[Tensor, "C B"]) -> Float[Tensor, " B"]:
    r"""A standard error of ``log 1/C sum_c w_c`` that allows for better chains that were not drawn.

    That of the delta method is at most 1 for any weights: ``sqrt((C / ess - 1) / (C - 1))`` with ``ess >= 1``. If one
    chain stands out by many nats, the next such chain would raise the estimate by many. The sum of many small steps
    makes log-weights approximately normal (Neal, 2001, section 4), with median m and variance v, and
    ``log E[w] = m + v / 2``. With v from only the C / 2 chains above m, since those left behind say nothing about those
    ahead, and the variance of m + v / 2,

    .. math:: \max(m + \tfrac v2 - \log \tfrac1C \sum_c w_c, 0) / 1.96 + \sqrt{(v + v^2) / C}

    also covers what the average lacks. `benchmarks/coverage.txt` shows how well.

    Args:
        log_weight: Log-weight of each chain.

    Returns:
        The error in nats; infinite for one chain, and if no weight is above 0.
    """
    chains = len(log_weight)
    if chains < 2:
        return torch.full_like(log_weight[0], torch.inf)
    ordered = log_weight.sort(0).values
    median = (ordered[(chains - 1) // 2] + ordered[chains // 2]) / 2
    v = (ordered[chains // 2 :] - median).square().mean(0) * chains / (chains - 1)
    lacking = (median + v / 2 - log_weight.logsumexp(0) + math.log(chains)).clamp(min=0)
    return (lacking / 1.96 + ((v + v.square()) / chains).sqrt()).nan_to_num(nan=torch.inf)


def few_chains(effective_sample_size: Float[Tensor, " B"]) -> Bool[Tensor, " B"]:
    """Where fewer than four chains count: one or two dominate the estimate, and even its error rests on a few."""
    return effective_sample_size < _FEW


@dataclass(frozen=True)
class Annealing:
    """How a start is annealed to the joint density.

    Args:
        temperatures: T, the number of steps of the bridge.
        chains: C, for each example.
        leapfrog_steps: Leapfrog steps of the one Hamiltonian transition at each temperature.
        start: Where chains begin: the prior, or the posterior q, from which the path is shorter if q is good, at the
            cost of evaluating its density at every step.
        schedule: Temperatures ``beta_t``: ``linear``, t / T; or ``sigmoid``, close together at both ends (Wu et al.,
            2017, appendix).

    Raises:
        InputError: A setting makes no sense.
    """

    temperatures: int = 1000
    chains: int = 16
    leapfrog_steps: int = 10
    start: Start = "prior"
    schedule: TemperatureSchedule = "sigmoid"

    def __post_init__(self):
        check_fields(self)

    def betas(self, count: int | None = None) -> list[float]:
        """``beta_1 < ... < beta_T = 1``; ``beta_0 = 0`` is the start itself."""
        places = torch.linspace(0, 1, (count or self.temperatures) + 1, dtype=torch.float64)
        if self.schedule == "sigmoid":
            curve = (_SIGMOID * (2 * places - 1)).sigmoid()
            places = (curve - curve[0]) / (curve[-1] - curve[0])
        return places[1:].tolist()

    @property
    def _pilot(self) -> int:
        """Temperatures of the run that adapts the steps."""
        fewest, most = _PILOT
        return min(max(self.temperatures // 10, fewest), most)

    def num_gradients(self, *, runs: int = 1) -> int:
        """Number of gradients of log p(x, z) for each chain, in that many runs with the same step sizes."""
        return self.leapfrog_steps * (SETTLE + self._pilot + runs * (self.temperatures - 1))

    def steps(self, bridge: Bridge, state: State) -> list[Tensor]:
        """A leapfrog step size for each temperature and example, adapted in a separate run.

        Step sizes adapted during the estimate would depend on its chains, and bias it.
        """
        count = self._pilot
        table = adapted(bridge, state, self.betas(count), leapfrog_steps=self.leapfrog_steps)
        return [table[min(t * count // self.temperatures, count - 1)] for t in range(self.temperatures)]

    def upwards(self, bridge: Bridge, state: State, steps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Log-weights ``(C, B)`` of chains from the start, and the mean acceptance ``(B,)``.

        ``log w = sum_t (beta_t - beta_{t-1}) [log p(x, z_{t-1}) - log f_0(z_{t-1})]``, where ``z_t`` follows from
        ``z_{t-1}`` by a transition that leaves ``f_{beta_t}`` invariant (Neal, 2001, equation 11).
        """
        log_weight = torch.zeros_like(state.log_joint, dtype=torch.float64, device="cpu")
        accepted, previous, betas = torch.zeros_like(state.log_joint[0]), 0.0, self.betas()
        for t, beta in enumerate(betas):
            log_weight += (beta - previous) * (state.log_joint - state.log_start).cpu().double()
            previous = beta
            if t < self.temperatures - 1:  # nothing depends on z after the last weight
                state, probability = transition(bridge, state, beta, steps[t], leapfrog_steps=self.leapfrog_steps)
                accepted += probability.mean(0)
        return log_weight, _mean(accepted, self.temperatures)

    def downwards(self, bridge: Bridge, state: State, steps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The same for chains that go back, from samples of p(z|x) to the start: the reverse of :meth:`upwards`.

        A transition is its own reverse, so the chain that went up by ``T_1 .. T_{T-1}`` comes down by
        ``T_{T-1} .. T_1``, and the log-weight, the same sum over its positions, estimates ``log p(x)`` from above:
        ``E[1 / w] = 1 / p(x)`` (Grosse et al., 2015, section 3).
        """
        log_weight = torch.zeros_like(state.log_joint, dtype=torch.float64, device="cpu")
        accepted, betas = torch.zeros_like(state.log_joint[0]), [0.0, *self.betas()]
        for t in reversed(range(self.temperatures)):
            if t < self.temperatures - 1:
                state, probability = transition(
                    bridge, state, betas[t + 1], steps[t], leapfrog_steps=self.leapfrog_steps
                )
                accepted += probability.mean(0)
            log_weight += (betas[t + 1] - betas[t]) * (state.log_joint - state.log_start).cpu().double()
        return log_weight, _mean(accepted, self.temperatures)


@takes_data
@checked_arguments
def ais(
    model: LatentVariableModel,
    x: Float[Tensor, "B ..."],
    context: Context | None = None,
    *,
    annealing: Annealing = Annealing(),
    seed: int = 0,
    max_rows: int = 5000,
    progress: bool = False,
) -> AnnealedEstimate:
    r"""Estimates log p(x) of each example by annealed importance sampling (Neal, 2001; Wu et al., 2017).

    .. math:: \hat p(x) = \frac1C \sum_c w_c, \qquad
              w = \prod_t \frac{f_{\beta_t}(z_{t-1})}{f_{\beta_{t-1}}(z_{t-1})}, \qquad
              f_\beta(z) = f_0(z)^{1 - \beta} p(x, z)^\beta

    is unbiased for p(x) for any number of temperatures: a sequence of Hamiltonian transitions and weights is importance
    sampling over whole paths. Unlike :func:`~subo.log_marginal`, it does not depend on the quality of q. It costs
    ``T * leapfrog_steps`` gradients of log p(x, z) per chain, and another 30 transitions and a tenth of the
    temperatures (50 to 200) for adapting the step sizes beforehand.

    Args:
        model: A model with continuous latents.
        x: Data.
        context: Named context tensors, one row per example.
        annealing: Temperatures, chains and transitions.
        seed: Seed for the chains.
        max_rows: Number of latents decoded at a time; bounds memory.
        progress: Whether to show progress.

    Raises:
        InputError: The latents are discrete, or log p(x, z) has no gradient in them.

    Example:
        >>> from subo import probabilistic_pca
        >>> model, x = probabilistic_pca(5, 2), torch.zeros(3, 5)
        >>> estimate = ais(model, x, annealing=Annealing(temperatures=50))
        >>> error = (estimate.log_px - model.likelihood.log_px(x)).abs()
        >>> bool((error < 5 * estimate.standard_error + 1e-4).all())
        True
    """
    contexts.check_rows(context, len(x))
    shown = bar(f"log p(x) by annealing, {annealing.temperatures} temperatures", len(x), show=progress)
    parts = []
    with evaluating(model), forked(seed), shown as advance, explained(model, x, context or {}, where="x"):
        for rows in torch.arange(len(x)).split(max(1, max_rows // annealing.chains)):
            batch = place(model, x[rows], {name: tensor[rows] for name, tensor in (context or {}).items()})
            bridge, state = begin(model, *batch, annealing)
            steps = annealing.steps(bridge, state)
            parts.append(annealing.upwards(bridge, begin(model, *batch, annealing)[1], steps))
            advance(len(rows))
    log_weight, acceptance = (torch.cat(tensors, dim=-1) for tensors in zip(*parts, strict=True))
    return AnnealedEstimate.of(log_weight, acceptance, annealing)


def begin(model: Any, x: Tensor, context: Context, annealing: Annealing) -> tuple[Bridge, State]:
    """The bridge of a batch, and C samples of its start per example."""
    chains = annealing.chains
    with torch.no_grad():
        draw = model.draw(x, context, num_samples=chains if annealing.start == "posterior" else 1, path=False)
        if has_discrete_latents(draw):
            raise InputError(
                "annealing moves latents by Hamiltonian transitions, which need continuous latents, but this model's "
                "are discrete. Use importance sampling (log_marginal), and bdmc(..., estimator='importance') for a "
                "bracket."
            )
        if annealing.start == "posterior":
            z, log_start = draw.z, draw.q.log_prob
        else:
            z, _ = model.sample(chains * len(x), contexts.repeat(context, chains))
            z = map_latent(lambda leaf: leaf.unflatten(0, (chains, len(x))), z)
            log_start = _log_prior(model, draw, context)
    rows, unpack = pack(z)
    inside = _inside(draw, annealing.start)
    bridge = Bridge(log_start, lambda latent: model.log_joint(x, latent, context), unpack, inside, rows[:1])
    return bridge, bridge.at(rows)


def _log_prior(model: Any, draw: Draw, context: Context) -> Any:
    """``log p(z)`` as a function of z: the model's own, or that of its only layer."""
    own = getattr(model, "log_prior", None)
    if own is not None:
        return lambda z: own(z, context)
    only, *others = draw.factors
    if others:
        raise InputError(
            f"{type(model).__name__} has {len(draw.factors)} stochastic layers but no method log_prior(z, context), "
            "which annealing from the prior needs. Add it, or use start='posterior'."
        )
    return only.p.log_prob


def _inside(draw: Draw, start: Start) -> Any:
    """Where the prior, and a posterior that chains start from, have a density, in every layer."""
    names = None if isinstance(draw.z, Tensor) else {id(leaf): name for name, leaf in draw.z.items()}
    supports = [
        (None if names is None else names[id(factor.z)], support)
        for factor in (draw.factors[:1] if names is None else draw.factors)
        if names is None or id(factor.z) in names
        for p in ((factor.p, factor.q) if start == "posterior" else (factor.p,))
        if (support := support_of(p)) is not None and (names is None or _is_fixed(p, support))
    ]

    def inside(z: Any) -> Tensor:
        leaf = leaves(z)[0]
        found = torch.ones(leaf.shape[:2], dtype=torch.bool, device=leaf.device)
        for name, support in supports:
            elements = support.check(z if name is None else z[name])
            found = found & (elements.flatten(2).all(-1) if elements.ndim > 2 else elements)
        return found

    return inside


def _is_fixed(p: Distribution, support: Any) -> bool:
    """Whether its bounds are fixed: below other nodes, tensors of bounds may change with these."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    moving = any(isinstance(bound, Tensor) and bound.ndim > 0 for bound in vars(support).values())
    return len(p.batch_shape) < 2 or not moving


def has_discrete_latents(draw: Draw) -> bool:
    """Whether any layer's posterior or prior is over discrete values."""
    distributions = [distribution for factor in draw.factors for distribution in (factor.q, factor.p)]
    return any(getattr(support_of(distribution), "is_discrete", False) for distribution in distributions)


def _mean(accepted: Tensor, temperatures: int) -> Tensor:
    """The mean over the transitions; 1 if there are none."""
    return (accepted / (temperatures - 1) if temperatures > 1 else torch.ones_like(accepted)).cpu().double()
