"""Where the loss is: the gap between log p(x) and the ELBO, cut into what the family and what the encoder cost."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from subo.core.context import check_rows
from subo.core.draw import LatentVariableModel
from subo.data.splits import takes_data
from subo.errors import InputError
from subo.evaluation.evidence.annealed import ais, few_chains, has_discrete_latents
from subo.evaluation.evidence.importance import data_at_a_time, log_marginal
from subo.evaluation.inference_gaps import Gaps, larger
from subo.gradients import GradientEstimator, Pathwise, ScoreFunction
from subo.inference.per_example import infer
from subo.inference.refitting import Measure, measure_refitted
from subo.models.vae import VAE
from subo.parts.conditionals import Given, Local
from subo.parts.coupling_flow import CouplingFlow
from subo.parts.families import Family
from subo.runtime.arguments import checked_arguments
from subo.runtime.devices import evaluating, place
from subo.runtime.randomness import forked
from subo.typing import Context

__all__ = ["Gaps", "gaps", "mean_log_weight"]

_AT_A_TIME = 500  # data
_FLOW_RATE = 0.01  # Adam's first step for the weights of a flow's networks


@takes_data
@checked_arguments
def gaps(
    model: LatentVariableModel,
    x: Float[Tensor, "B ..."],
    context: Context | None = None,
    *,
    family: Family | None = None,
    richer: Family | Literal["flow"] | None = "flow",
    steps: int = 1000,
    step_samples: int = 64,
    gradient: GradientEstimator | None = None,
    num_samples: int = 5000,
    elbo_samples: int = 1000,
    annealed: bool = True,
    temperatures: int = 1000,
    chains: int = 16,
    max_rows: int = 5000,
    seed: int = 0,
    progress: bool = False,
) -> Gaps:
    r"""Measures by how much, and why, the ELBO of each example falls short of log p(x) (Cremer et al., 2018, table 1).

    .. math:: \log p(x) - L[q] = \underbrace{\log p(x) - L[q^*]}_{\text{approximation}}
              + \underbrace{L[q^*] - L[q]}_{\text{amortization}}, \qquad q^* = \arg\max_{q \in Q} L[q]

    The best q of an example is looked for by :func:`subo.infer`, from the encoder's and from the family's plainest
    parameters, and measured by samples that took no part in the search; so is the best of a richer family, which
    tells what a better family would gain. log p(x) is the larger of importance sampling from the richest q that was
    found and of annealed importance sampling; where they agree within three standard errors, the more precise.

    A posterior over several layers or a path in time has no row of parameters; its network is trained on each example
    by itself instead, see :func:`~subo.inference.refitting.refitted`, example after example, and no richer family is
    tried.

    All ELBOs are measured with one seed, so that Gaussians meet the same noise. A search that stops early makes the
    approximation gap too large and the amortization gap too small; where neither estimate of log p(x) is tight, the
    approximation gap is too small.

    Args:
        model: A :class:`~subo.VAE`, or one that keeps prior, likelihood and posterior apart as it does.
        x: Data.
        context: What is known beside x, by name.
        family: Of the best q; the posterior's own by default.
        richer: A family to compare with; ``"flow"`` is :class:`~subo.CouplingFlow` around `family`, where
            its distributions are over vectors of at least two elements and can be bent; None leaves it out.
        steps: The most of each search.
        step_samples: K of each of its steps.
        gradient: How the searches' gradient is estimated; by default along the path, where the family has one, and
            else by :class:`~subo.ScoreFunction`.
        num_samples: Of the importance estimate.
        elbo_samples: Of each ELBO.
        annealed: Whether log p(x) is also estimated by annealing, much the most costly part; discrete latents have
            none.
        temperatures: Of the annealing.
        chains: Of the annealing.
        max_rows: Latents decoded at a time by the estimates; bounds memory.
        seed: Of everything random.
        progress: Whether to show progress.

    Raises:
        InputError: The model has no prior, likelihood and posterior apart, or a posterior that is not amortized; or a
            number or a family makes no sense.

    Example:
        >>> from subo import Conditional, Gaussian, probabilistic_pca
        >>> pca = probabilistic_pca(5, 2)
        >>> model = VAE(pca.prior, pca.likelihood, Conditional(Gaussian((2,)), torch.nn.Linear(5, 4)))
        >>> found = gaps(model, torch.randn(3, 5), steps=50, step_samples=4, annealed=False, richer=None)
        >>> torch.allclose(found.approximation + found.amortization, found.inference)
        True
    """
    family = family or getattr(getattr(model, "posterior", None), "family", None)
    vae: Any = _checked(model, family, x)
    check_rows(context, len(x))
    x, placed = place(model, x, context or {})
    if gradient is None and family is not None:
        gradient = Pathwise() if family(x.new_zeros(1, family.num_params)).has_rsample else ScoreFunction()
    search: dict[str, Any] = {"steps": steps, "num_samples": step_samples, "gradient": gradient}
    elbo = partial(mean_log_weight, num_samples=elbo_samples, max_rows=max_rows)
    by_weights = partial(_log_px, num_samples=num_samples, max_rows=max_rows)
    with evaluating(model):
        if family is None:  # z has parts whose posteriors depend on each other
            options = {"seed": seed, "progress": progress}
            own, of_best, (log_px, log_px_se) = measure_refitted(vae, x, placed, search, elbo, by_weights, **options)
            of_richer = []
        else:
            posteriors = _searched(vae, family, richer, x, placed, search | {"seed": seed, "progress": progress})
            own, of_best, *of_richer = [
                _by_parts(elbo, posterior, x, placed, seed + 1, _AT_A_TIME)
                for posterior in [lambda _: model, *posteriors]
            ]
            few = data_at_a_time(x, num_samples=num_samples, max_rows=max_rows)  # as many as it takes, all in a pass
            log_px, log_px_se = _by_parts(by_weights, posteriors[-1], x, placed, seed + 2, few)
        by_annealing = torch.zeros(len(x), dtype=torch.bool)
        with forked(seed):
            discrete = has_discrete_latents(vae.draw(x, placed, path=False))
        if annealed := annealed and not discrete:
            options: dict[str, Any] = {"temperatures": temperatures, "chains": chains, "max_rows": max_rows}
            estimate = ais(vae, x, placed, **options, seed=seed + 3, progress=progress)
            by_chains = estimate.log_px, estimate.standard_error
            doubtful = few_chains(estimate.effective_sample_size)
            log_px, log_px_se, by_annealing = larger(log_px, log_px_se, *by_chains, doubtful=doubtful)
    winner = tuple("annealed" if by else "importance" for by in by_annealing.tolist())
    return Gaps(log_px, log_px_se, winner, annealed, *own, *of_best, *(of_richer[0] if of_richer else (None, None)))


def _checked(model: Any, family: Family | None, x: Tensor) -> Any:
    needed = ("posterior",) if family is None else ("prior", "likelihood", "posterior")
    if not all(hasattr(model, part) for part in needed):
        raise InputError(
            f"the gaps need the best q of each example, which is looked for with the posterior taken away, and "
            f"{type(model).__name__} does not keep prior, likelihood and posterior apart, as subo.VAE does. Its whole "
            "inference gap is log_px - elbo of subo.evaluation.log_marginal(model, x)."
        )
    if isinstance(model.posterior, Local | Given):
        raise InputError(
            "the posterior has parameters of its own for each example, so nothing is amortized: all of the inference "
            "gap comes from the family and the search. It is log_px - elbo of subo.evaluation.log_marginal(model, x)."
        )
    return model


def _searched(
    model: VAE, family: Family, richer: Family | Literal["flow"] | None, x: Tensor, context: Context, search: dict
) -> list[Callable[[Tensor], VAE]]:
    """The model with the best q of the family, and with that of the richer one where there is one, for some data."""
    family, best = _best(model, family, x, context, search)
    flow = _flow(family, best) if richer == "flow" else richer
    posteriors = [_local(model, family, best)]
    if flow is not None:
        posteriors.append(_local(model, flow, _bent(model, flow, family, best, x, context, search)))
    return posteriors


def _best(
    model: VAE, family: Family, x: Tensor, context: Context, search: dict[str, Any]
) -> tuple[Family, Float[Tensor, "B P"]]:
    """The family and the better parameters of two searches, example by example."""
    found = [infer(model, x, context, family=family, **search)]
    if family is getattr(model.posterior, "family", None) and hasattr(model.posterior, "network"):
        found.append(infer(model, x, context, family=family, start="amortized", **search))
    bounds = torch.stack([one.bound for one in found])
    best = bounds.nan_to_num(nan=-math.inf).argmax(0)
    return family, torch.stack([one.params for one in found])[best, torch.arange(len(x), device=best.device)]


def _flow(family: Family, params: Tensor) -> CouplingFlow | None:
    """A flow around the family, in its precision, where that can be."""
    q: Any = family(params[:1])
    if not q.has_rsample or len(family.event_shape) != 1 or family.event_shape[0] < 2:
        return None
    try:
        _ = q.mean, q.stddev
    except NotImplementedError:  # as of a flow
        return None
    return CouplingFlow(family.event_shape, base=family).to(params)


def _bent(
    model: VAE, flow: Any, family: Family, best: Tensor, x: Tensor, context: Context, search: dict[str, Any]
) -> Float[Tensor, "B Q"]:
    """The best parameters of a richer family: of one that bends the first, from its best on, and in shorter steps."""
    if getattr(flow, "base", None) is not family:
        return infer(model, x, context, family=flow, **search).params
    start = flow.around(best)
    return infer(model, x, context, family=flow, start=start, learning_rate=_FLOW_RATE, **search).params


def _local(model: VAE, family: Family, params: Tensor) -> Callable[[Tensor], VAE]:
    """The model with the posterior that was found, for some of the data."""
    return lambda rows: VAE(model.prior, model.likelihood, Given(family, params[rows]))


def _by_parts(
    measure: Measure,
    at: Callable[[Tensor], LatentVariableModel],
    x: Tensor,
    context: Context,
    seed: int,
    size: int,
) -> tuple[Tensor, Tensor]:
    """What is measured of some data at a time; q is asked for just these."""
    with forked(seed):
        parts = [
            measure(at(rows), x[rows], {name: tensor[rows] for name, tensor in context.items()})
            for rows in torch.arange(len(x), device=x.device).split(size)
        ]
    values, errors = zip(*parts, strict=True)
    return torch.cat(values), torch.cat(errors)


def _log_px(model: LatentVariableModel, x: Tensor, context: Context, **options: Any) -> tuple[Tensor, Tensor]:
    estimate = log_marginal(model, x, context, **options)
    return estimate.log_px, estimate.standard_error


@torch.no_grad()
def mean_log_weight(
    model: LatentVariableModel, x: Tensor, context: Context, *, num_samples: int, max_rows: int
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """The ELBO of each example and its standard error, by the log-weights of K samples.

    They are all the same where q is exact; with a KL in closed form, the noise of log p(x|z) would stay.
    """
    total = squares = pivot = torch.zeros(len(x), dtype=torch.float64)
    drawn = 0
    while drawn < num_samples:
        count = min(max(1, max_rows // len(x)), num_samples - drawn)
        draw = model.draw(x, context, num_samples=count, path=False)
        values = draw.log_weight.cpu().double()
        if drawn == 0:
            pivot = values[0].where(values[0].isfinite(), 0.0)  # sums of what is near 0 lose no digits
        total = total + (values - pivot).sum(0)
        squares = squares + (values - pivot).square().sum(0)
        drawn += count
    mean = total / drawn
    variance = (squares / drawn - mean.square()).clamp(min=0) / (drawn - 1) if drawn > 1 else mean + math.inf
    return pivot + mean, variance.sqrt()
