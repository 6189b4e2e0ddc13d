"""Where the loss is: the gap between log p(x) and the ELBO, cut into what the family and what the encoder cost."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from subo.core.context import check_rows
from subo.core.draw import LatentVariableModel
from subo.data.splits import takes_data
from subo.errors import InputError
from subo.evaluation.best_posteriors import best_posteriors
from subo.evaluation.evidence.annealed import AnnealedEstimate, Annealing, ais, few_chains, has_discrete_latents
from subo.evaluation.evidence.importance import data_at_a_time, log_marginal
from subo.inference.ascent import Ascent
from subo.inference.refitting import Measure, Measured, measure_refitted
from subo.parts.conditionals import Given, Local
from subo.parts.families import Family
from subo.runtime.arguments import accepted, checked_arguments
from subo.runtime.devices import evaluating, place
from subo.runtime.randomness import forked
from subo.typing import Context

__all__ = ["Gaps", "gaps", "larger", "mean_log_weight"]

_AT_A_TIME = 500  # data
_SURE = 3.0  # standard errors by which two estimates must differ, for the smaller to be taken for the looser
_STEP_SAMPLES = 64  # K of a step of the searches


@dataclass(frozen=True, eq=False)
class Gaps:
    """Per-example gaps in nats, float64 and on the CPU; a difference below 0 is noise, or a search that stopped early.

    Attributes:
        log_px: The larger of importance sampling and annealed importance sampling, each in expectation a lower bound;
            where they agree within their errors, the more precise.
        log_px_se: Standard error of the one that was taken.
        log_px_from: Which one that was, ``importance`` or ``annealed``.
        annealed: Whether annealing took part; it does not where latents are discrete.
        elbo: Of the model's own posterior.
        elbo_se: Its standard error, by the samples of z.
        elbo_best: Of the best q of the same family, found for each example by itself.
        elbo_best_se: Its standard error.
        elbo_richer: Of the best q of a richer family; None where none was asked for, or none fits.
        elbo_richer_se: Its standard error.
    """

    log_px: Float[Tensor, " B"]
    log_px_se: Float[Tensor, " B"]
    log_px_from: tuple[str, ...]
    annealed: bool
    elbo: Float[Tensor, " B"]
    elbo_se: Float[Tensor, " B"]
    elbo_best: Float[Tensor, " B"]
    elbo_best_se: Float[Tensor, " B"]
    elbo_richer: Float[Tensor, " B"] | None
    elbo_richer_se: Float[Tensor, " B"] | None

    @property
    def approximation(self) -> Float[Tensor, " B"]:
        """``log p(x) - ELBO(best q)``: what the family cannot do."""
        return self.log_px - self.elbo_best

    @property
    def amortization(self) -> Float[Tensor, " B"]:
        """``ELBO(best q) - ELBO``: what the encoder does not find."""
        return self.elbo_best - self.elbo

    @property
    def inference(self) -> Float[Tensor, " B"]:
        """``log p(x) - ELBO``: the sum of both, the error term of the SUBO."""
        return self.log_px - self.elbo

    @property
    def approximation_richer(self) -> Float[Tensor, " B"] | None:
        """``log p(x) - ELBO(best richer q)``."""
        return None if self.elbo_richer is None else self.log_px - self.elbo_richer

    def finite(self) -> "Gaps":
        """The same of the data whose numbers are all finite: an infinite log p(x) leaves no gap to speak of."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        rows = torch.stack(list(tensors.values())).isfinite().all(0)
        origins = tuple(name for name, kept in zip(self.log_px_from, rows.tolist(), strict=True) if kept)
        return replace(self, log_px_from=origins, **{name: value[rows] for name, value in tensors.items()})

    def means(self) -> dict[str, tuple[float, float]]:
        """Every quantity's mean over the data with its standard error, by their spread; infinite for one example."""
        names = ("log_px", "elbo", "elbo_best", "elbo_richer")
        names += ("approximation", "approximation_richer", "amortization", "inference")
        values = {name: getattr(self, name) for name in names}
        root = math.sqrt(len(self.elbo))
        return {
            name: (value.mean().item(), value.std().item() / root if len(value) > 1 else math.inf)
            for name, value in values.items()
            if value is not None
        }


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

    The best q of an example is searched for by :func:`subo.infer`, from the encoder's and from the family's plainest
    parameters, and measured by samples that took no part in the search; so is the best of a richer family, which
    shows what a better family would gain. log p(x) is the larger of importance sampling from the richest q that was
    found and of annealed importance sampling; where they agree within three standard errors, the more precise.

    A posterior over several layers or a path in time has no row of parameters; its network is trained on each example
    by itself instead, see :func:`~subo.inference.refitting.refitted`, and no richer family is tried.

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
        ascent: Each search, with 64 samples by default and, where z has no path, :class:`~subo.ScoreFunction`. A
            network takes all the steps, whatever tolerance and patience.
        num_samples: K of the importance estimate.
        elbo_samples: K of each ELBO.
        annealing: The annealed estimate of log p(x), by far the most costly part, of at least two chains; None leaves
            it out, as do discrete latents.
        max_rows: Latents decoded at a time by the estimates; bounds memory.
        seed: Seed for everything random.
        progress: Whether to show progress.

    Raises:
        InputError: The model has no prior, likelihood and posterior apart, or a posterior that is not amortized; or a
            number or a family makes no sense.

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
        if family is None:  # z has parts whose posteriors depend on each other
            own, of_best, by_weights = measures.refitted(vae, x, placed, ascent)
            of_richer = None, None
        else:
            own, of_best, of_richer, by_weights = measures.fitted(vae, family, richer, x, placed, ascent)
        by_chains = None if annealing is None else measures.annealed(vae, x, placed, annealing)
    return Gaps(*_larger(by_weights, by_chains), by_chains is not None, *own, *of_best, *of_richer)


def larger(
    log_px: Tensor, standard_error: Tensor, annealed: Tensor, annealed_error: Tensor, *, doubtful: Tensor | None = None
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"], Bool[Tensor, " B"]]:
    """The larger estimate where they surely differ, the more precise where they do not, and where annealing gave it.

    Both are lower bounds in expectation. Of two that agree, the larger of each pair would be too large: noise, which
    few chains have much of, would be taken for a tighter bound.

    Args:
        log_px: By importance sampling.
        standard_error: Of that.
        annealed: By annealing.
        annealed_error: Of that.
        doubtful: Where annealing's error cannot be relied on, and is hence not taken for the smaller one.
    """
    difference = annealed - log_px
    noise = _SURE * torch.hypot(annealed_error, standard_error)
    precise = annealed_error < standard_error
    if doubtful is not None:
        precise = precise & ~doubtful
    by_annealing = (difference > noise) | ((difference > -noise) & precise)
    by_annealing = (by_annealing & annealed.isfinite()) | ~log_px.isfinite()
    return (
        torch.where(by_annealing, annealed, log_px),
        torch.where(by_annealing, annealed_error, standard_error),
        by_annealing,
    )


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


@dataclass(frozen=True)
class _Measures:
    """What is measured at the posteriors that were found, and by how many samples."""

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
        """The ELBOs at the model's posterior and at its network's best for each example, and log p(x) by the latter."""
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
        """The ELBOs at the model's posterior, the family's best and the richer one's, and log p(x) by the richest."""
        options = {"ascent": ascent, "seed": self.seed, "progress": self.progress}
        posteriors = best_posteriors(model, family, richer, x, context, **options)
        own, of_best, *of_richer = [
            _by_parts(self.elbo, posterior, x, context, self.seed + 1, _AT_A_TIME)
            for posterior in [lambda _: model, *posteriors]
        ]
        few = data_at_a_time(x, num_samples=self.num_samples, max_rows=self.max_rows)  # all in a pass
        by_weights = _by_parts(self.log_px, posteriors[-1], x, context, self.seed + 2, few)
        return own, of_best, of_richer[0] if of_richer else (None, None), by_weights

    def annealed(self, model: Any, x: Tensor, context: Context, annealing: Annealing) -> AnnealedEstimate | None:
        """log p(x) by annealing; None where latents are discrete."""
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
    """What is measured of some data at a time; q is asked for just these."""
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
