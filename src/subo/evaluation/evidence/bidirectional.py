"""A bracket for log p(x): a stochastic lower and a stochastic upper bound, on data drawn from the model itself."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from subo.core.context import check_rows
from subo.core.draw import LatentVariableModel
from subo.errors import InputError
from subo.evaluation.evidence.annealed import Annealing, begin
from subo.evaluation.evidence.hamiltonian import pack
from subo.evaluation.numbers import ALONE, LIKELY, Beside, Number
from subo.parts.conditionals import Given, Local
from subo.runtime.arguments import checked_arguments
from subo.runtime.devices import evaluating, place
from subo.runtime.progress import bar
from subo.runtime.randomness import forked
from subo.typing import Context, Latent, map_latent

__all__ = ["Sandwich", "bdmc"]


@dataclass(frozen=True, eq=False)
class Sandwich:
    """Bounds on log p(x) of N simulated examples, in nats, float64 and on the CPU.

    Each bound holds in expectation over its samples: ``E[lower] <= log p(x) <= E[upper]``. The two numbers of a single
    example may be slightly in the wrong order by chance; the means of many are not.

    Attributes:
        lower: ``log 1/K sum_k w_k`` of chains, or samples, that start without knowing z.
        upper: The same for one or more that start at the z from which x was drawn.
        acceptance: Mean fraction of accepted trajectories, upwards and downwards; None with importance sampling.
        estimator: ``annealed`` or ``importance``.
        num_samples: Number of chains or samples per example.
    """

    lower: Float[Tensor, " N"]
    upper: Float[Tensor, " N"]
    acceptance: Float[Tensor, "2 N"] | None
    estimator: str
    num_samples: int

    @property
    def width(self) -> Float[Tensor, " N"]:
        """``upper - lower``: in expectation at least the error of either."""
        return self.upper - self.lower

    def means(self) -> dict[str, tuple[float, float]]:
        """Mean and standard error over the data for ``lower``, ``upper`` and ``width``; the last is paired."""
        root = math.sqrt(len(self.lower))
        values = {"lower": self.lower, "upper": self.upper, "width": self.width}
        return {name: (v.mean().item(), v.std().item() / root) for name, v in values.items()}

    def numbers(self, beside: Beside = ALONE) -> Iterator[Number]:
        """Both bounds and the width between them, as means over the simulated data."""
        how = "annealing" if self.estimator == "annealed" else "importance sampling"
        yield Number.mean(LIKELY, "simulated data: lower bound", self.lower, how, self.num_samples)
        yield Number.mean(LIKELY, "simulated data: upper bound", self.upper, f"{how} in reverse", self.num_samples)
        yield Number.paired(LIKELY, "  width of this bracket", self.width, self.num_samples)


@checked_arguments
def bdmc(
    model: LatentVariableModel,
    num_data: int = 100,
    context: Context | None = None,
    *,
    estimator: Literal["annealed", "importance"] = "annealed",
    annealing: Annealing = Annealing(),
    num_samples: int = 1000,
    seed: int = 0,
    max_rows: int = 5000,
    progress: bool = False,
) -> Sandwich:
    r"""Brackets log p(x) from both sides, on data simulated from the model (Grosse et al., 2015).

    An example drawn as ``z* ~ p(z)``, ``x ~ p(x|z*)`` comes with one exact sample z* of its posterior p(z|x). A run of
    annealed importance sampling from the start up to p(x, z) gives weights with ``E[w] = p(x)``; the same run in
    reverse, from z* down to the start, gives weights with ``E[1 / w] = 1 / p(x)``. By Jensen's inequality

    .. math:: E\Big[\log \frac1C \sum_c w_c\Big] \le \log p(x) \le E\Big[-\log \frac1C \sum_c \frac1{w'_c}\Big].

    The width says how reliable the lower bound, which is :func:`~subo.evaluation.ais`, is on data drawn from the model;
    for real data, which the model may describe badly, it is no proof.

    With ``estimator="importance"`` there is no annealing and no requirement on the latents (they may be discrete): the
    lower bound has K samples of q(z|x), the upper one z* in place of one of them, for which
    ``E[(1/K sum_k w_k)^{-1}] = 1 / p(x)`` holds as well. If q is poor, both are loose. With K = 1 the lower bound is
    the ELBO, the upper one the evidence upper bound, EUBO, ``log p(x) + KL(p(z|x) || q(z|x))`` in expectation.

    Args:
        model: The model.
        num_data: Number of simulated examples; at least two.
        context: Named context tensors with one row per example, if the model needs any.
        estimator: ``annealed`` or ``importance``.
        annealing: Temperatures, chains and transitions of annealing.
        num_samples: K of importance sampling.
        seed: Seed for data and samples.
        max_rows: Number of latents decoded at a time; bounds memory.
        progress: Whether to show progress.

    Raises:
        InputError: A number makes no sense, the context does not have one row per example, or annealing is requested
            for discrete latents.

    Example:
        >>> from subo import probabilistic_pca
        >>> sandwich = bdmc(probabilistic_pca(5, 2), 20, annealing=Annealing(temperatures=50))
        >>> width, error = sandwich.means()["width"]
        >>> width > -5 * error
        True
    """
    asks_q = estimator == "importance" or annealing.start == "posterior"
    if asks_q and isinstance(getattr(model, "posterior", None), Local | Given):
        raise InputError("the posterior has separate parameters for each known example, but these examples are new")
    check_rows(context, num_data)
    shown = bar(f"a bracket for log p(x) of {num_data} simulated examples", num_data, show=progress)
    lower, upper, acceptance = [], [], []
    with evaluating(model), forked(seed), shown as advance:
        with torch.no_grad():
            _, context = place(model, torch.zeros(1), context or {})
            z, p = model.sample(num_data, context)
            x = p.sample()
        size = max(1, max_rows // annealing.chains) if estimator == "annealed" else max(1, max_rows // 100)
        for rows in torch.arange(num_data).split(size):
            part = {name: tensor[rows] for name, tensor in (context or {}).items()}
            exact = map_latent(lambda leaf, rows=rows: leaf[rows].unsqueeze(0), z)
            if estimator == "annealed":
                below, above, accepted = _annealed(model, x[rows], exact, part, annealing)
                acceptance.append(accepted)
            else:
                below, above = _importance(model, x[rows], exact, part, num_samples, max_rows)
            lower.append(below)
            upper.append(above)
            advance(len(rows))
    return Sandwich(
        torch.cat(lower),
        torch.cat(upper),
        torch.cat(acceptance, dim=1) if acceptance else None,
        estimator,
        annealing.chains if estimator == "annealed" else num_samples,
    )


def _annealed(
    model: Any, x: Tensor, exact: Latent, context: Context, annealing: Annealing
) -> tuple[Tensor, Tensor, Tensor]:
    """Both bounds of a batch, with the same step sizes, which were adapted without z*."""
    bridge, state = begin(model, x, context, annealing)
    steps = annealing.steps(bridge, state)
    up, accepted_up = annealing.upwards(bridge, begin(model, x, context, annealing)[1], steps)
    rows = pack(exact)[0].expand(annealing.chains, -1, -1)
    down, accepted_down = annealing.downwards(bridge, bridge.at(rows), steps)
    log_chains = math.log(annealing.chains)
    below, above = up.logsumexp(0) - log_chains, log_chains - (-down).logsumexp(0)
    return below, above, torch.stack([accepted_up, accepted_down])


@torch.no_grad()
def _importance(
    model: Any, x: Tensor, exact: Latent, context: Context, num_samples: int, max_rows: int
) -> tuple[Tensor, Tensor]:
    """Both bounds of a batch; all samples of q but one are shared by both."""
    draw = model.draw(x, context, num_samples=1, path=False)
    log_q = draw.q.log_prob(exact)
    own = (model.log_joint(x, exact, context) - log_q).cpu().double()
    log_weights, drawn = [], 0
    while drawn < num_samples:
        count = min(max(1, max_rows // len(x)), num_samples - drawn)
        log_weights.append(model.draw(x, context, num_samples=count, path=False).log_weight.cpu().double())
        drawn += count
    log_weight = torch.cat(log_weights)
    with_own = torch.cat([own, log_weight[1:]])
    return log_weight.logsumexp(0) - math.log(num_samples), with_own.logsumexp(0) - math.log(num_samples)
