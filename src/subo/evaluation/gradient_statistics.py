"""Signal, noise, bias and time of gradient estimators on a model: many draws of each, on one batch."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from subo.core.bounds import ELBO, Bound
from subo.core.context import check_rows
from subo.data.splits import takes_data
from subo.errors import InputError
from subo.evaluation.gradient_draws import GradientDraws, standard_estimators
from subo.evaluation.gradient_signal import signal_of
from subo.gradients import GradientEstimator
from subo.models.vae import VAE
from subo.runtime.devices import evaluating
from subo.runtime.randomness import forked, stream
from subo.typing import Context

__all__ = ["GradientStatistics", "gradient_statistics", "refusals"]

_FEWEST = 10  # draws
_BLOCKS = 8  # of the first half; their means are kept


@dataclass(frozen=True)
class GradientStatistics:
    r"""Statistics of n gradients g of one estimator, with respect to theta or phi.

    Attributes:
        estimator: Name of the estimator.
        bound: Name of the bound.
        num_samples: K.
        part: ``phi``, the posterior's parameters (also those that a VampPrior shares), or ``theta``, all others.
        variance: Per parameter, ``trace(Cov g) / count``.
        squared_norm: ``|E g|^2``, estimated without bias: for a mean near 0 it may be negative.
        mean_norm: ``|E g|``, its root; None if it has none.
        mean_norm_low: Lower end of a 95% interval; 0 if the draws do not show that the mean differs from 0. See
            :func:`~subo.evaluation.gradient_signal.signal_of`.
        mean_norm_high: Upper end of that interval.
        signal_to_noise: ``|E g| / sqrt(trace(Cov g))``, for the whole vector. (Rainforth et al., 2018, section 3, use
            ``|mean| / sd`` parameter by parameter, which scales with K in the same way. But if that is small, noise
            alone makes it ``1 / sqrt(n)``, and the gain of a training step depends on the vector.) None if `mean_norm`
            is.
        signal_to_noise_low: Lower end of a 95% interval. A few large weights can dominate the trace, and then it is too
            narrow: if the ratio changes with the seed, use more draws.
        signal_to_noise_high: Upper end of that interval.
        bias: Difference from the reference in standard errors: up to 3 in size, there is no evidence of a bias (one in
            a hundred such numbers exceeds 3 by chance, hardly any exceed 4). The first half of the draws gives two
            directions, the reference's mean and the difference of the means; along each, the second half's difference
            has a standard normal z, unless there is a bias. This is the larger of the two. None for the reference
            itself, and if there is no reference.
        seconds: Median time per gradient, forward and backward.
        draws: n.
        biased: How the estimator is known to be biased; empty if it is not.
    """

    estimator: str
    bound: str
    num_samples: int
    part: str
    variance: float
    squared_norm: float
    mean_norm: float | None
    mean_norm_low: float
    mean_norm_high: float
    signal_to_noise: float | None
    signal_to_noise_low: float
    signal_to_noise_high: float
    bias: float | None
    seconds: float
    draws: int
    biased: str


def refusals(
    model: VAE,
    x: Float[Tensor, "B ..."],
    context: Context | None = None,
    *,
    bound: Bound = ELBO(),
    estimators: Mapping[str, GradientEstimator] | None = None,
    num_samples: Sequence[int] = (1,),
) -> dict[tuple[str, int], str]:
    """Which estimators do not support this bound of this model with K samples, and why.

    Args:
        model: The model.
        x: Data.
        context: Named context tensors, one row per example.
        bound: The bound.
        estimators: Estimators by name; the standard ones by default.
        num_samples: All values of K.

    Returns:
        The error message, by name and K.
    """
    found = {}
    with forked(0), evaluating(model):
        for name, estimator in (estimators or standard_estimators(x)).items():
            for count in num_samples:
                if reason := GradientDraws(model, x, context, bound, deepcopy(estimator).eval(), count).refusal():
                    found[name, count] = reason
    return found


@takes_data
def gradient_statistics(
    model: VAE,
    x: Float[Tensor, "B ..."],
    context: Context | None = None,
    *,
    bound: Bound = ELBO(),
    estimators: Mapping[str, GradientEstimator] | None = None,
    num_samples: Sequence[int] = (1,),
    draws: int = 200,
    reference: str | None = None,
    seed: int = 0,
    advance: Callable[[int], Any] | None = None,
) -> list[GradientStatistics]:
    """Draws many gradients of the batch's mean bound with each estimator and each K, as a training step draws one.

    The model is in evaluation mode and does not change. Each estimator is copied; the copy's baseline is fitted to the
    batch for 200 steps, by running means and by the surrogate's own regression, and then frozen: the gradients are
    independent and identically distributed, with a fully fitted baseline. For a :class:`~subo.Local` posterior, only
    the batch's rows count. No gradient is kept: memory holds ten vectors of the size of the parameters for each
    estimator, for any number of draws.

    Args:
        model: The model; ``model.posterior`` contains phi.
        x: The batch.
        context: Named context tensors, one row per example.
        bound: Bound whose gradient is estimated.
        estimators: Estimators by name; by default all of :func:`~subo.evaluation.gradient_draws.standard_estimators`
            that support the bound.
        num_samples: All values of K.
        draws: Number of gradients of each, at least 10; use 100 or more if the bias matters.
        reference: Name of the estimator that biases are measured against; by default the first unbiased one that
            supports the bound, at each K.
        seed: Seed for the samples. Those of every estimator and K are independent of all others.
        advance: Called with the number of gradients done, as they finish.

    Returns:
        One record per K, part that has parameters, and estimator.

    Raises:
        InputError: A given estimator does not support this bound at any K, or a setting is out of range.

    Example:
        >>> from subo import probabilistic_pca
        >>> found = gradient_statistics(probabilistic_pca(5, 2), torch.randn(8, 5), num_samples=(1, 4), draws=20)
        >>> sorted({record.estimator for record in found})[:3]
        ['pathwise', 'score-leave-one-out', 'score-mean']
    """
    if draws < _FEWEST or not num_samples or min(num_samples) < 1:
        raise InputError(
            f"statistics need at least {_FEWEST} draws of each gradient, and K of at least 1: got draws {draws} and "
            f"num_samples {', '.join(map(str, num_samples)) or 'none'}"
        )
    check_rows(context, len(x))
    with forked(seed):
        known = estimators or standard_estimators(x)
    refused = refusals(model, x, context, bound=bound, estimators=known, num_samples=num_samples)
    _check_able(refused, known, num_samples, reference, all_needed=bool(estimators))
    records = []
    with evaluating(model):
        for count in dict.fromkeys(num_samples):
            able = {name: estimator for name, estimator in known.items() if (name, count) not in refused}
            unbiased = [name for name, estimator in able.items() if not estimator.biased]
            against = reference if reference in able else next(iter(unbiased), None)
            tallies = {
                name: _Tally(name, GradientDraws(model, x, context, bound, deepcopy(estimator), count), seed)
                for name, estimator in able.items()
            }
            for tally in tallies.values():
                tally.first_half(draws // 2, advance)
            for name, tally in tallies.items():
                watched = tallies if name == against else {name, against} & set(tallies)
                tally.second_half(draws - draws // 2, [tallies[other] for other in watched], advance)
            parts = next(iter(tallies.values())).draws.parameters if tallies else ()
            records += [t.record(part, tallies.get(against or "")) for part in parts for t in tallies.values()]
    return records


def _check_able(
    refused: Mapping[tuple[str, int], str],
    known: Mapping[str, GradientEstimator],
    num_samples: Sequence[int],
    reference: str | None,
    *,
    all_needed: bool,
) -> None:
    """Refuses an unknown reference, or one that does not support the bound, and estimators that have to but do not."""
    if reference is not None and reference not in known:
        raise InputError(f"the reference '{reference}' is not one of the estimators: {', '.join(known)}")
    for count in num_samples:
        if reference is not None and (reference, count) in refused:
            raise InputError(f"{reference} cannot be the reference at K = {count}: {refused[reference, count]}")
    none_can = len(refused) == len(known) * len(num_samples)
    for name in known if all_needed or none_can else ():
        if all((name, count) in refused for count in num_samples):
            raise InputError(f"{name}: {refused[name, num_samples[0]]}")


class _Moments:
    """Running mean and spread of vectors, in two vectors of that size (Welford, 1962)."""

    def __init__(self):
        self.count = 0
        self.mean, self.squares = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)

    def add(self, vector: Float[Tensor, " P"]) -> None:
        self.count += 1
        apart = vector - self.mean
        self.mean = self.mean + apart / self.count
        self.squares = self.squares + apart * (vector - self.mean)

    @property
    def trace(self) -> float:
        """The trace of the covariance."""
        return self.squares.sum().item() / (self.count - 1)


class _Tally:
    """What is kept of one estimator's gradients at one K, for each part separately."""

    def __init__(self, name: str, draws: GradientDraws, seed: int):
        self.name, self.draws, self.seed = name, draws, seed
        self.moments = {part: _Moments() for part in draws.parameters}
        self.directions: dict[str, Tensor] = {}  # the means of the first half
        self.blocks: dict[str, Tensor] = {}  # the means of its blocks
        self.sizes: list[int] = []  # of these
        self.on_blocks: dict[str, list[Tensor]] = {part: [] for part in draws.parameters}  # the second half, projected
        self.along: dict[tuple[str, str], list[float]] = {}  # by part and direction: the second half's projections
        self.apart: dict[str, list[float]] = {part: [] for part in draws.parameters}  # squared distances from them
        self.seconds: list[float] = []

    def first_half(self, count: int, advance: Callable[[int], Any] | None) -> None:
        """Fits the baseline, draws, and uses the means as directions."""
        with self._random(0):
            self.draws.warm_up()
            sums: dict[str, list[Tensor]] = {part: [] for part in self.moments}
            self.sizes = [len(block) for block in torch.arange(count).tensor_split(min(_BLOCKS, count))]
            for size in self.sizes:
                self._run(size, (), advance)
                for part, moments in self.moments.items():
                    sums[part].append(moments.count * moments.mean)
        self.directions = {part: moments.mean for part, moments in self.moments.items()}
        for part, until in sums.items():
            of_blocks = torch.stack(until).diff(dim=0, prepend=torch.zeros_like(until[0]).unsqueeze(0))
            self.blocks[part] = of_blocks / torch.tensor(self.sizes).unsqueeze(1)

    def second_half(self, count: int, watched: Sequence["_Tally"], advance: Callable[[int], Any] | None) -> None:
        """Draws, and projects the draws on the directions of other estimators."""
        with self._random(1):
            self._run(count, watched, advance)

    def record(self, part: str, reference: "_Tally | None") -> GradientStatistics:
        """The statistics of a part."""
        moments = self.moments[part]
        signal = signal_of(
            moments.mean,
            moments.trace,
            count=moments.count,
            blocks=self.blocks[part],
            sizes=torch.tensor(self.sizes, dtype=torch.float64),
            projections=torch.stack(self.on_blocks[part]),
            distances=torch.tensor(self.apart[part], dtype=torch.float64),
        )
        (low, high), (ratio_low, ratio_high) = signal.norm_interval, signal.ratio_interval
        bound = self.draws.bound
        return GradientStatistics(
            estimator=self.name,
            bound=getattr(bound, "__name__", type(bound).__name__),
            num_samples=self.draws.num_samples,
            part=part,
            variance=moments.trace / moments.mean.numel(),
            squared_norm=signal.squared_norm,
            mean_norm=signal.norm,
            mean_norm_low=low,
            mean_norm_high=high,
            signal_to_noise=signal.ratio,
            signal_to_noise_low=ratio_low,
            signal_to_noise_high=ratio_high,
            bias=None if reference in (None, self) else self._bias(part, reference),
            seconds=sorted(self.seconds)[len(self.seconds) // 2],
            draws=moments.count,
            biased=self.draws.estimator.biased,
        )

    def _bias(self, part: str, reference: "_Tally") -> float:
        """The larger of two z, along the reference's mean and along the difference of the means."""
        own, its = ([who._projected(part, d) for d in (reference, self)] for who in (self, reference))
        largest = max(values.abs().max().item() for values in (*own, *its))
        rounding = torch.finfo(self.draws.x.dtype).eps * largest
        along_mean = _z(own[0], its[0], rounding=rounding)
        along_difference = _z(own[1] - own[0], its[1] - its[0], rounding=rounding)
        return max(along_mean, along_difference, key=abs)

    def _projected(self, part: str, other: "_Tally") -> Float[Tensor, " n"]:
        """The second half projected on another estimator's mean."""
        return torch.tensor(self.along[part, other.name], dtype=torch.float64)

    def _random(self, half: int) -> Any:
        """Separate random numbers for this estimator, this K and this half."""
        return forked(stream("gradients", self.name, self.draws.num_samples, half, self.seed).initial_seed())

    def _run(self, count: int, watched: Iterable["_Tally"], advance: Callable[[int], Any] | None) -> None:
        for _ in range(count):
            gradient, seconds = self.draws.draw()
            self.seconds.append(seconds)
            for part, vector in gradient.items():
                self.moments[part].add(vector)
                if self.directions:
                    self.apart[part].append((vector - self.directions[part]).square().sum().item())
                    self.on_blocks[part].append(self.blocks[part] @ vector)
                for other in watched:
                    projection = (other.directions[part] @ vector).item()
                    self.along.setdefault((part, other.name), []).append(projection)
            if advance is not None:
                advance(1)


def _z(one: Float[Tensor, " n"], other: Float[Tensor, " m"], *, rounding: float) -> float:
    """A difference of means, in its standard errors or, if nothing else varies, in those of rounding."""
    difference = (one.mean() - other.mean()).item()
    error = math.sqrt(one.var().item() / len(one) + other.var().item() / len(other))
    return difference / max(error, rounding) if difference else 0.0
