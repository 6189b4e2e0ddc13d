"""Is q the posterior? Simulation-based calibration: ranks of known latents among samples of q."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from subo.core.context import check_rows
from subo.core.draw import LatentVariableModel
from subo.errors import InputError
from subo.evaluation.numbers import ALONE, CARRIED, Beside, Number
from subo.parts.conditionals import Given, Local
from subo.runtime.devices import evaluating, place
from subo.runtime.randomness import forked
from subo.typing import Context

__all__ = ["LOG_JOINT", "Calibration", "calibrate"]

LOG_JOINT = "log p(x, z)"
_WITHIN = 1.0  # mean normal score up to which ranks show the width: beyond, they pile up at one end


@dataclass(frozen=True, eq=False)
class Calibration:
    """Ranks of the latents that generated the data among L samples of q, for Q quantities; tensors are on the CPU.

    Attributes:
        names: Names of the quantities: the elements of z, ``z1`` first (``leaf.1`` of a dict), then ``log p(x, z)``.
        ranks: ``(N, Q)``, each 0 .. L: how many samples of q lie below the latent. Uniform for the exact posterior.
        counts: Histograms of the ranks, with bins of equal width.
        p_values: P-values of the chi-square test of each histogram against uniformity.
        readings: What each histogram's shape means: ``calibrated``, or ``q too low``, ``too high``, ``too narrow``,
            ``too wide`` or ``of the wrong shape``; see :func:`calibrate`.
        level: Probability that not all readings are ``calibrated`` although q is the exact posterior; approximate, for
            a few hundred examples or more.
        num_ranks: L.
    """

    names: tuple[str, ...]
    ranks: Integer[Tensor, "N Q"]
    counts: Integer[Tensor, "Q bins"]
    p_values: Float[Tensor, " Q"]
    readings: tuple[str, ...]
    level: float
    num_ranks: int

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        ranks: Integer[Tensor, "N Q"],
        *,
        num_ranks: int = 99,
        num_bins: int = 20,
        level: float = 0.01,
    ) -> "Calibration":
        """Reads ranks; takes the arguments of :func:`calibrate`."""
        bins = ranks * num_bins // (num_ranks + 1)
        counts = torch.stack([column.bincount(minlength=num_bins) for column in bins.mT])
        p_values = _chi_square(counts)
        alpha = level / (3 * len(names))
        readings = tuple(
            _reading(*scores, p_value < alpha, alpha=alpha, joint=name == LOG_JOINT)
            for name, scores, p_value in zip(names, _z_tests(ranks, num_ranks), p_values.tolist(), strict=True)
        )
        return cls(tuple(names), ranks, counts, p_values, readings, level, num_ranks)

    @property
    def p_value(self) -> float:
        """P-value of all histograms together: the smallest of the Q, times Q (Bonferroni)."""
        return min(1.0, len(self.p_values) * self.p_values.min().item())

    @property
    def is_calibrated(self) -> bool:
        """Whether there is no evidence against q."""
        return all(reading == "calibrated" for reading in self.readings)

    @classmethod
    def joined(cls, parts: Sequence["Calibration"]) -> "Calibration":
        """Reads the ranks of several sets of data as one."""
        first, ranks = parts[0], torch.cat([part.ranks for part in parts])
        return cls.of(first.names, ranks, num_ranks=first.num_ranks, num_bins=first.counts.shape[1], level=first.level)

    def numbers(self, beside: Beside = ALONE) -> Iterator[Number]:
        """The number of quantities that are not calibrated."""
        wrong = sum(reading != "calibrated" for reading in self.readings)
        how, num_data = f"of {len(self.names)}, on simulated data", len(self.ranks)
        name = "quantities out of calibration"
        yield Number(CARRIED, name, float(wrong), None, "", how, self.num_ranks, num_data)


@torch.no_grad()
def calibrate(
    model: LatentVariableModel,
    num_data: int = 1000,
    *,
    num_ranks: int = 99,
    num_bins: int = 20,
    level: float = 0.01,
    context: Context | None = None,
    seed: int = 0,
    batch_size: int = 100,
) -> Calibration:
    r"""Checks q(z|x) against the exact posterior of the model, on data drawn from the model itself.

    .. math:: z^* \sim p(z), \quad x \sim p(x | z^*), \quad z_1, \dots, z_L \sim q(z | x), \qquad
              r_d = \sum_l \mathbb 1[z_{l,d} < z^*_d]

    Given x, z* is a sample of p(z|x): if q is the exact posterior, z* is exchangeable with the L samples, and every r_d
    is uniform on 0 .. L (Talts et al., 2018, theorem 1). The converse needs more than the elements of z, which depend
    only on the marginals of q: the rank of ``log p(x, z)`` depends on the joint and the data (Modrak et al., 2023).
    Equal values, as with discrete latents, are put in random order.

    A quantity is judged by its ranks' normal scores ``y = Phi^-1((r + 1/2) / (L + 1))`` by z-tests of mean and variance
    (after Berkowitz, 2001), and by the chi-square test of its histogram:

    - mean above 0, a slope to the right, z* above q's samples: **q too low**; below 0: **q too high**;
    - variance above that of uniform ranks, a U, z* often outside q's samples: **q too narrow**; below, a hump: **q too
      wide**. The width is not judged if the mean score is beyond 1, since the ranks then pile up at one end;
    - neither, but not uniform either: **q of the wrong shape**.

    Ranks of ``log p(x, z)`` are interpreted in terms of z: q's samples more probable than z*: **q too narrow**, on too
    small a part of the posterior; less probable: **q too wide or misplaced**.

    Calibration is judged where the *model* puts data. If the model does not fit, the real data are elsewhere: their gap
    between log p(x) and ELBO shows how good q is there. And ranks average over x: q may still be wrong for each x, if
    its errors cancel.

    Costs N passes of the encoder and N (L + 1) of the decoder, `batch_size` (L + 1) at a time.

    Args:
        model: The model; its q(z|x) must accept any x, unlike a table of rows for known data.
        num_data: N, at least five per bin.
        num_ranks: L; L + 1 must be a multiple of `num_bins`.
        num_bins: Number of histogram bins.
        level: Probability of any false alarm among the readings, shared evenly by the three tests of all quantities.
        context: Named context tensors with one row for each of the N examples.
        seed: Seed for everything that is drawn.
        batch_size: Number of examples at a time.

    Raises:
        InputError: The ranks do not fill bins evenly, there are too few examples, or the context has a different
            length.

    Example:
        >>> from subo import probabilistic_pca
        >>> found = calibrate(probabilistic_pca(5, 2), 200)
        >>> found.names
        ('z1', 'z2', 'log p(x, z)')
        >>> found.readings
        ('calibrated', 'calibrated', 'calibrated')
    """
    _check(num_data, num_ranks, num_bins, level, batch_size, context)
    if isinstance(getattr(model, "posterior", None), Local | Given):
        raise InputError(
            "the posterior has separate parameters for each known example, but calibration needs q for new data drawn "
            "from the model. Calibrate a model with an encoder."
        )
    ranks, names = [], ()
    with evaluating(model), forked(seed):
        for start in range(0, num_data, batch_size):
            size = min(batch_size, num_data - start)
            rows = {name: value[start : start + size] for name, value in (context or {}).items()}
            names, part = _ranks(model, size, rows, num_ranks)
            ranks.append(part)
    return Calibration.of(names, torch.cat(ranks), num_ranks=num_ranks, num_bins=num_bins, level=level)


def _ranks(
    model: Any, size: int, context: dict[str, Tensor], num_ranks: int
) -> tuple[tuple[str, ...], Integer[Tensor, "B Q"]]:
    """Names of the quantities and their ranks for some data drawn from the model."""
    _, context = place(model, torch.zeros(1), context)
    truth, p = model.sample(size, context)
    x, _ = place(model, p.sample(), {})
    samples = model.draw(x, context, num_samples=num_ranks, path=False).z
    z = _stacked(truth, samples)
    # In one call: the same latents have the same density up to rounding, which the ranks ignore.
    quantities = {**_elements(z, context.get("mask")), LOG_JOINT: model.log_joint(x, z, context)}
    return tuple(quantities), torch.stack([_rank(values) for values in quantities.values()], dim=1).cpu()


def _stacked(truth: Any, samples: Any) -> Any:
    """z* followed by the samples of q, leaves ``(1 + L, B, *event)``."""
    if isinstance(truth, Tensor):
        return torch.cat([truth.unsqueeze(0).to(samples), samples])
    return {name: _stacked(leaf, samples[name]) for name, leaf in truth.items()}


def _elements(z: Any, mask: Bool[Tensor, "B T"] | None) -> dict[str, Tensor]:
    """Every element of z by name, ``(1 + L, B)`` each; for a path in time, its mean over the real steps."""
    if mask is not None and isinstance(z, Tensor):  # padded steps are 0 in all of them, and rank randomly
        z = z.sum(2) / mask.sum(1).reshape(-1, *[1] * (z.ndim - 3))
    leaves = {"z": z} if isinstance(z, Tensor) else {f"{name}.": leaf for name, leaf in z.items()}
    return {
        f"{name}{i + 1}": values
        for name, leaf in leaves.items()
        for i, values in enumerate(leaf.reshape(*leaf.shape[:2], -1).unbind(2))
    }


def _rank(values: Float[Tensor, "R B"]) -> Integer[Tensor, " B"]:
    """How many of the others lie below the first, with ties in random order."""
    truth, samples = values[0], values[1:]
    if values.isnan().any():
        raise InputError("some latents, or log p(x, z) at them, are NaN: q or the model has diverged")
    equal = (samples - truth).abs() <= 16 * torch.finfo(values.dtype).eps * truth.abs()
    below, ties = ((samples < truth) & ~equal).sum(0), equal.sum(0)
    return below + torch.minimum((torch.rand_like(truth) * (ties + 1)).long(), ties)  # the product may round up


def _chi_square(counts: Integer[Tensor, "Q bins"]) -> Float[Tensor, " Q"]:
    """P-values of Pearson's test that all bins are equally likely."""
    num_bins = counts.shape[1]
    expected = counts.sum(1, keepdim=True).double() / num_bins
    statistic = ((counts - expected).square() / expected).sum(1)
    return torch.special.gammaincc(torch.tensor((num_bins - 1) / 2, dtype=torch.float64), statistic / 2)


def _z_tests(ranks: Integer[Tensor, "N Q"], num_ranks: int) -> list[tuple[float, float, float]]:
    """Mean normal score of each quantity, and how many standard errors mean and variance are from uniform ranks'."""
    grid = torch.special.ndtri((torch.arange(num_ranks + 1, dtype=torch.float64) + 0.5) / (num_ranks + 1))
    variance, fourth = grid.square().mean(), grid.pow(4).mean()  # of a uniform rank's score, whose mean is 0
    scores, root = grid[ranks], math.sqrt(len(ranks))
    mean = scores.mean(0)
    shift = mean / variance.sqrt() * root
    spread = (scores.var(0) - variance) / (fourth - variance.square()).sqrt() * root
    return list(zip(mean.tolist(), shift.tolist(), spread.tolist(), strict=True))


def _reading(mean: float, shift: float, spread: float, uneven: bool, *, alpha: float, joint: bool) -> str:
    """What the shape of a rank histogram means."""
    critical = -torch.special.ndtri(torch.tensor(alpha / 2, dtype=torch.float64)).item()
    shifted = abs(shift) > critical
    spread_out = abs(spread) > critical and abs(mean) < _WITHIN
    if joint and shifted:
        return "q too wide or misplaced" if shift > 0 else "q too narrow"
    if not joint and (shifted or spread_out):
        place_of_q = [] if not shifted else ["too low" if shift > 0 else "too high"]
        width = [] if not spread_out else ["too narrow" if spread > 0 else "too wide"]
        return "q " + " and ".join(place_of_q + width)
    return "q of the wrong shape" if spread_out or uneven else "calibrated"


def _check(
    num_data: int, num_ranks: int, num_bins: int, level: float, batch_size: int, context: Context | None
) -> None:
    if num_bins < 2 or num_ranks < 1 or (num_ranks + 1) % num_bins:
        raise InputError(
            f"the num_ranks + 1 = {num_ranks + 1} possible ranks do not fill {num_bins} bins evenly, so the histogram "
            f"of uniform ranks would not be flat: use 2 bins or more, and num_ranks such as {5 * max(2, num_bins) - 1}"
        )
    if num_data < 5 * num_bins:
        raise InputError(f"the chi-square test needs 5 examples per bin, {5 * num_bins} for {num_bins}; got {num_data}")
    if batch_size < 1 or not 0 < level < 1:
        raise InputError(
            f"batch_size must be at least 1 and level between 0 and 1: got batch_size={batch_size}, level={level}"
        )
    check_rows(context, num_data)
