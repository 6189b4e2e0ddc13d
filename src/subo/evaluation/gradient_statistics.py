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
_BLOCKS = 8  # of the first half, whose means are kept


@dataclass(frozen=True)
class GradientStatistics:
    r"""What n gradients g of one estimator, of theta or of phi, say of it.

    Attributes:
        estimator: Its name.
        bound: The bound's name.
        num_samples: K.
        part: ``phi``, the posterior's parameters (also those that a VampPrior shares), or ``theta``, all others.
        variance: Per parameter, ``trace(Cov g) / count``.
        squared_norm: ``|E g|^2``, estimated without bias: where there is hardly a mean it may be below 0.
        mean_norm: ``|E g|``, its root; None where there is none.
        mean_norm_low: Lower end of a 95% interval; 0 where the draws do not tell the mean from none. See
            :func:`~subo.evaluation.gradient_signal.signal_of`.
        mean_norm_high: Its upper end.
        signal_to_noise: ``|E g| / sqrt(trace(Cov g))``, that of the vector. (Rainforth et al., 2018, section 3, take
            ``|mean| / sd`` parameter by parameter, which scales with K alike. But where that is small, noise alone
            makes it ``1 / sqrt(n)``, and what a step of training gains hangs on the vector.) None where `mean_norm` is.
        signal_to_noise_low: Lower end of a 95% interval. A few large weights can make the trace, and then it is too
            narrow: where the ratio changes with the seed, take more draws.
        signal_to_noise_high: Its upper end.
        bias: Against the reference, in standard errors of the difference: up to 3 in size, nothing speaks for one (of
            a hundred such numbers one will be beyond 3 by chance, hardly any beyond 4). The first half of the draws
            gives two directions, the reference's mean and the difference of the means; along each the second half's
            difference has a standard normal z, unless there is a bias. This is the larger of the two. None for the
            reference itself, and where there is none.
        seconds: Per gradient, forward and back; the median.
        draws: n.
        biased: In what way the estimator is known to be biased; empty where it is not.
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
    """Which estimators cannot follow this bound of this model with K samples, and why.

    Args:
        model: The model.
        x: Data.
        context: What is known beside x.
        bound: The bound.
        estimators: By name; the standard ones by default.
        num_samples: Every K.

    Returns:
        The message of the refusal, by name and K.
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
    """Draws many gradients of the batch's mean bound with each estimator and each K, as training draws one.

    The model is in evaluation mode and does not change. Each estimator is copied; the copy's baseline is fitted to
    the batch for 200 steps, by running means and by the surrogate's own regression, and stays as it is from then
    on: the gradients are independent and of one distribution, as good as the baseline becomes. Of a
    :class:`~subo.Local` posterior only the batch's rows count. No gradient is kept: memory takes ten
    vectors of the size of the parameters for each estimator, however many draws.

    Args:
        model: The model; ``model.posterior`` holds phi.
        x: The batch.
        context: What is known beside x.
        bound: Whose gradient is estimated.
        estimators: By name; by default all of :func:`~subo.evaluation.gradient_draws.standard_estimators` that can.
        num_samples: Every K.
        draws: Gradients of each, at least 10; take 100 or more where the bias matters.
        reference: The name of the estimator that biases are measured against; by default the first unbiased one that
            can, at each K.
        seed: Of the samples. Those of every estimator and K are independent of all others.
        advance: Called with the number of gradients done, as they are.

    Returns:
        One record for each K, part that has parameters, and estimator.

    Raises:
        InputError: An estimator that was given can follow this bound at no K, or a setting is out of range.

    Example:
        >>> from subo import probabilistic_pca
        >>> found = gradient_statistics(probabilistic_pca(5, 2), torch.randn(8, 5), num_samples=(1, 4), draws=20)
        >>> sorted({record.estimator for record in found})[:3]
        ['pathwise', 'score-leave-one-out', 'score-mean']
    """
    if draws < _FEWEST or not num_samples or min(num_samples) < 1:
        raise InputError(
            f"statistics take at least {_FEWEST} draws of each gradient, and K of at least 1: got draws {draws} and "
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
    """Refuses a reference that is unknown or cannot follow the bound, and estimators of which all, or any, must."""
    if reference is not None and reference not in known:
        raise InputError(f"the reference '{reference}' is none of the estimators: {', '.join(known)}")
    for count in num_samples:
        if reference is not None and (reference, count) in refused:
            raise InputError(f"{reference} cannot be the reference at K = {count}: {refused[reference, count]}")
    none_can = len(refused) == len(known) * len(num_samples)
    for name in known if all_needed or none_can else ():
        if all((name, count) in refused for count in num_samples):
            raise InputError(f"{name}: {refused[name, num_samples[0]]}")


class _Moments:
    """Mean and spread of vectors as they come, in two vectors of that size (Welford, 1962)."""

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
        """Of the covariance."""
        return self.squares.sum().item() / (self.count - 1)


class _Tally:
    """What is kept of one estimator's gradients at one K, each part apart."""

    def __init__(self, name: str, draws: GradientDraws, seed: int):
        self.name, self.draws, self.seed = name, draws, seed
        self.moments = {part: _Moments() for part in draws.parameters}
        self.directions: dict[str, Tensor] = {}  # the means of the first half
        self.blocks: dict[str, Tensor] = {}  # the means of its blocks
        self.sizes: list[int] = []  # of these
        self.on_blocks: dict[str, list[Tensor]] = {part: [] for part in draws.parameters}  # the second half, projected
        self.along: dict[tuple[str, str], list[float]] = {}  # (part, whose direction) -> the second half's projections
        self.apart: dict[str, list[float]] = {part: [] for part in draws.parameters}  # its squared distances from them
        self.seconds: list[float] = []

    def first_half(self, count: int, advance: Callable[[int], Any] | None) -> None:
        """Fits the baseline, draws, and takes the means for directions."""
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
        """Draws, and projects what is drawn on the directions of others."""
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
        """The larger z of two, along the reference's mean and along the difference of the means."""
        own, its = ([who._projected(part, d) for d in (reference, self)] for who in (self, reference))
        largest = max(values.abs().max().item() for values in (*own, *its))
        rounding = torch.finfo(self.draws.x.dtype).eps * largest
        along_mean = _z(own[0], its[0], rounding=rounding)
        along_difference = _z(own[1] - own[0], its[1] - its[0], rounding=rounding)
        return max(along_mean, along_difference, key=abs)

    def _projected(self, part: str, other: "_Tally") -> Float[Tensor, " n"]:
        """The second half along another's mean."""
        return torch.tensor(self.along[part, other.name], dtype=torch.float64)

    def _random(self, half: int) -> Any:
        """Random numbers of this estimator's, this K's and this half's own."""
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
    """Of a difference of means: in its standard errors, or in those of rounding, where nothing else varies."""
    difference = (one.mean() - other.mean()).item()
    error = math.sqrt(one.var().item() / len(one) + other.var().item() / len(other))
    return difference / max(error, rounding) if difference else 0.0
