"""Where the loss is: the gap between log p(x) and the ELBO, split into the costs of the family and the encoder."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from subo.core.context import check_rows
from subo.core.draw import LatentVariableModel
from subo.data.splits import takes_data
from subo.errors import InputError
from subo.evaluation.best_posteriors import best_posteriors
from subo.evaluation.evidence.annealed import AnnealedEstimate, Annealing, ais, few_chains, has_discrete_latents
from subo.evaluation.evidence.importance import data_at_a_time, log_marginal
from subo.evaluation.inference_gaps import Gaps, larger
from subo.inference.ascent import Ascent
from subo.inference.refitting import Measure, Measured, measure_refitted
from subo.parts.conditionals import Given, Local
from subo.parts.families import Family
from subo.runtime.arguments import accepted, checked_arguments
from subo.runtime.devices import evaluating, place
from subo.runtime.randomness import forked
from subo.typing import Context

__all__ = ["Gaps", "gaps", "mean_log_weight"]

_AT_A_TIME = 500  # examples
_STEP_SAMPLES = 64  # K in each step of the searches


@takes_data
@checked_arguments
def gaps(
    model: LatentVariableModel,
    x: Float[Tensor, "B ..."],
    context: Context | None = None,
    *,
    family: Family | None = None,
    richer: Family | Literal["flow"] | None = "flow",
    ascent: Ascent = Ascent(),
    num_samples: int = 5000,
    elbo_samples: int = 1000,
    annealing: Annealing | None = Annealing(),
    max_rows: int = 5000,
    seed: int = 0,
    progress: bool = False,
) -> Gaps:
    r"""Measures by how much, and why, the ELBO of each example falls short of log p(x) (Cremer et al., 2018, table 1).

    .. math:: \log p(x) - L[q] = \underbrace{\log p(x) - L[q^*]}_{\text{approximation}}
              + \underbrace{L[q^*] - L[q]}_{\text{amortization}}, \qquad q^* = \arg\max_{q \in Q} L[q]

    The best q of an example is found by :func:`subo.infer`, starting from the encoder's and from the family's plainest
    parameters, and measured with samples not used in the search; so is the best of a richer family, which shows what a
    better family would gain. log p(x) is the larger of two estimates, importance sampling from the richest q found and
    annealed importance sampling; if they agree within three standard errors, the more precise one.

    A posterior over several layers or a path in time has no row of parameters; its network is trained on each example
    separately instead, see :func:`~subo.inference.refitting.refitted`, and no richer family is tried.

    All ELBOs are measured with one seed, so that Gaussians use the same noise. A search that stops early makes the
    approximation gap too large and the amortization gap too small; if neither estimate of log p(x) is tight, the
    approximation gap is too small.

    Args:
        model: A :class:`~subo.VAE`, or another model with separate prior, likelihood and posterior.
        x: Data.
        context: Named context tensors, one row per example.
        family: Family of the best q; the posterior's own by default.
        richer: A family to compare with; ``"flow"`` is :class:`~subo.CouplingFlow` around `family`, if its
            distributions are over vectors of at least two elements and can be bent; None leaves it out.
        ascent: Settings of each search; by default 64 samples and, if z has no path, :class:`~subo.ScoreFunction`. A
            network always takes all steps, regardless of tolerance and patience.
        num_samples: K for the importance estimate.
        elbo_samples: K for each ELBO.
        annealing: Settings of the annealed estimate of log p(x), by far the most costly part, with at least two chains;
            None leaves it out, as do discrete latents.
        max_rows: Number of latents that the estimates decode at a time; bounds memory.
        seed: Seed for everything random.
        progress: Whether to show progress.

    Raises:
        InputError: The model has no separate prior, likelihood and posterior, or a posterior that is not amortized; or
            a number or a family makes no sense.

    Example:
        >>> from subo import VAE, Conditional, Gaussian, probabilistic_pca
        >>> pca = probabilistic_pca(5, 2)
        >>> model = VAE(pca.prior, pca.likelihood, Conditional(Gaussian((2,)), torch.nn.Linear(5, 4)))
        >>> found = gaps(model, torch.randn(3, 5), ascent=Ascent(steps=50), annealing=None, richer=None)
        >>> torch.allclose(found.approximation + found.amortization, found.inference)
        True
    """
    family = family or getattr(getattr(model, "posterior", None), "family", None)
    vae: Any = _checked(model, family, x)
    check_rows(context, len(x))
    if annealing is not None:
        accepted("chains", annealing.chains, int, "gaps")
    x, placed = place(model, x, context or {})
    ascent = replace(ascent, num_samples=ascent.num_samples or _STEP_SAMPLES)
    measures = _Measures(num_samples, elbo_samples, max_rows, seed, progress)
    with evaluating(model):
        if family is None:  # the posteriors of z's parts depend on each other
            own, of_best, by_weights = measures.refitted(vae, x, placed, ascent)
            of_richer = None, None
        else:
            own, of_best, of_richer, by_weights = measures.fitted(vae, family, richer, x, placed, ascent)
        by_chains = None if annealing is None else measures.annealed(vae, x, placed, annealing)
    log_px = _larger(by_weights, by_chains)
    return Gaps(*log_px, by_chains is not None, *own, *of_best, *of_richer, num_samples=num_samples)


def _checked(model: Any, family: Family | None, x: Tensor) -> Any:
    needed = ("posterior",) if family is None else ("prior", "likelihood", "posterior")
    if not all(hasattr(model, part) for part in needed):
        raise InputError(
            f"the gaps need the best q of each example, which replaces the posterior, but {type(model).__name__} does "
            "not keep prior, likelihood and posterior separate, as subo.VAE does. Its whole inference gap is log_px - "
            "elbo of subo.evaluation.log_marginal(model, x)."
        )
    if isinstance(model.posterior, Local | Given):
        raise InputError(
            "the posterior has separate parameters for each example, so nothing is amortized: the whole inference gap "
            "comes from the family and the search. It is log_px - elbo of subo.evaluation.log_marginal(model, x)."
        )
    return model


@dataclass(frozen=True)
class _Measures:
    """Measurements at the posteriors that were found, with fixed numbers of samples."""

    num_samples: int
    elbo_samples: int
    max_rows: int
    seed: int
    progress: bool

    def elbo(self, model: LatentVariableModel, x: Tensor, context: Context) -> Measured:
        """The ELBO and its standard error."""
        return mean_log_weight(model, x, context, num_samples=self.elbo_samples, max_rows=self.max_rows)

    def log_px(self, model: LatentVariableModel, x: Tensor, context: Context) -> Measured:
        """log p(x) by importance sampling, and its standard error."""
        estimate = log_marginal(model, x, context, num_samples=self.num_samples, max_rows=self.max_rows)
        return estimate.log_px, estimate.standard_error

    def refitted(self, model: Any, x: Tensor, context: Context, ascent: Ascent) -> tuple[Measured, ...]:
        """The ELBOs at the model's posterior and at its network's best for each example, and log p(x) from these."""
        options = {"seed": self.seed, "progress": self.progress}
        return measure_refitted(model, x, context, ascent, self.elbo, self.log_px, **options)

    def fitted(
        self,
        model: Any,
        family: Family,
        richer: Family | Literal["flow"] | None,
        x: Tensor,
        context: Context,
        ascent: Ascent,
    ) -> tuple[Measured, Measured, Measured | tuple[None, None], Measured]:
        """The ELBOs at the model's posterior, the family's best and the richer one's, and log p(x) from the richest."""
        options = {"ascent": ascent, "seed": self.seed, "progress": self.progress}
        posteriors = best_posteriors(model, family, richer, x, context, **options)
        own, of_best, *of_richer = [
            _by_parts(self.elbo, posterior, x, context, self.seed + 1, _AT_A_TIME)
            for posterior in [lambda _: model, *posteriors]
        ]
        few = data_at_a_time(x, num_samples=self.num_samples, max_rows=self.max_rows)  # all in one pass
        by_weights = _by_parts(self.log_px, posteriors[-1], x, context, self.seed + 2, few)
        return own, of_best, of_richer[0] if of_richer else (None, None), by_weights

    def annealed(self, model: Any, x: Tensor, context: Context, annealing: Annealing) -> AnnealedEstimate | None:
        """log p(x) by annealing; None if latents are discrete."""
        with forked(self.seed):
            if has_discrete_latents(model.draw(x, context, path=False)):
                return None
        options = {"max_rows": self.max_rows, "progress": self.progress}
        return ais(model, x, context, annealing=annealing, seed=self.seed + 3, **options)


def _larger(by_weights: Measured, by_chains: AnnealedEstimate | None) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """log p(x), its standard error and which estimate it is, example by example."""
    log_px, standard_error = by_weights
    if by_chains is None:
        return log_px, standard_error, ("importance",) * len(log_px)
    annealed = by_chains.log_px, by_chains.standard_error
    doubtful = few_chains(by_chains.effective_sample_size)
    log_px, standard_error, by_annealing = larger(log_px, standard_error, *annealed, doubtful=doubtful)
    return log_px, standard_error, tuple("annealed" if by else "importance" for by in by_annealing.tolist())


def _by_parts(
    measure: Measure,
    at: Callable[[Tensor], LatentVariableModel],
    x: Tensor,
    context: Context,
    seed: int,
    size: int,
) -> tuple[Tensor, Tensor]:
    """The measurements, some examples at a time; q is evaluated just for these."""
    with forked(seed):
        parts = [
            measure(at(rows), x[rows], {name: tensor[rows] for name, tensor in context.items()})
            for rows in torch.arange(len(x), device=x.device).split(size)
        ]
    values, errors = zip(*parts, strict=True)
    return torch.cat(values), torch.cat(errors)


@torch.no_grad()
def mean_log_weight(
    model: LatentVariableModel, x: Tensor, context: Context, *, num_samples: int, max_rows: int
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """The ELBO of each example and its standard error, from the log-weights of K samples.

    These are all equal if q is exact; with a KL in closed form, the noise of log p(x|z) would remain.
    """
    total = squares = pivot = torch.zeros(len(x), dtype=torch.float64)
    drawn = 0
    while drawn < num_samples:
        count = min(max(1, max_rows // len(x)), num_samples - drawn)
        draw = model.draw(x, context, num_samples=count, path=False)
        values = draw.log_weight.cpu().double()
        if drawn == 0:
            pivot = values[0].where(values[0].isfinite(), 0.0)  # sums of values near 0 lose no digits
        total = total + (values - pivot).sum(0)
        squares = squares + (values - pivot).square().sum(0)
        drawn += count
    mean = total / drawn
    variance = (squares / drawn - mean.square()).clamp(min=0) / (drawn - 1) if drawn > 1 else mean + math.inf
    return pivot + mean, variance.sqrt()
