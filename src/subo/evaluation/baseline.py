r"""A model without latents fitted to the same rows, as an answer to the question: compared with what?

Numbers get one Gaussian with all covariances, unless there are more than 2,000 columns of them; every other column is
described by itself, by its own family:

.. math:: p_0(x) = N(x_R;\ m, C) \prod_{j \notin R} p(x_j;\ \eta_j)

m and C are those of the highest likelihood of the observed cells, by expectation maximization over the missing ones
(Little and Rubin, 2019, "Statistical Analysis with Missing Data", section 11.2), the eta_j by gradient. Beside a model
that also describes which cells are missing, each is missing with its column's probability. Beside a model of p(x|c) the
numbers' mean is m + B f(c), by ridge regression on the condition's features f(c); the other columns do not depend on c.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from subo.core.offers import StartsAtExamples
from subo.data.splits import Split
from subo.evaluation.estimates import Estimate
from subo.evaluation.numbers import LIKELY, Number
from subo.parts.columns import Columns
from subo.typing import Context

__all__ = ["Baseline", "Gaussian", "gaussian_of", "lines_of", "table_baseline"]

_ROWS = 10_000  # that it is fitted to
_AT_ONCE = 200_000  # rows that are measured
_WIDEST = 2000  # columns of a covariance
_ROUNDS, _CLOSE = 50, 1e-5  # of expectation maximization; nats per row
_RIDGE = 1e-6  # added to variances, in units of those of the columns
_STEPS = 100  # of the gradient


@dataclass(frozen=True, eq=False)
class Baseline:
    """A model without latents, and what it gives some rows.

    Attributes:
        name: What it is.
        log_px: ``(N,)``, in nats, of the observed cells.
    """

    name: str
    log_px: Float[Tensor, " N"]

    def beside(self, log_px: Float[Tensor, " N"]) -> dict[str, Any]:
        """Its mean log p(x) and how much higher that of a model is for the same rows, with standard errors.

        Args:
            log_px: log p(x) of the model, in nats.

        Example:
            >>> Baseline("one Gaussian", torch.tensor([-3.0, -5.0])).beside(torch.tensor([-2.0, -4.0]))["gain"]
            1.0
        """
        own, gain = Estimate.of(self.log_px.double()), Estimate.of(log_px.double().cpu() - self.log_px.double())
        return {
            "name": self.name,
            "log_px": own.mean,
            "log_px_se": own.standard_error,
            "gain": gain.mean,
            "gain_se": gain.standard_error,
        }


def lines_of(baseline: Mapping[str, Any] | None) -> Iterator[Number]:
    """The lines of what :meth:`Baseline.beside` returned; none without a baseline."""
    if baseline is None:
        return
    for name, key, how in (("of the baseline", "log_px", baseline["name"]), ("minus the baseline's", "gain", "paired")):
        error = baseline[f"{key}_se"]
        known = error if error is not None and math.isfinite(error) else None  # none of a mean that is infinite
        yield Number(LIKELY, f"  {name}", baseline[key], known, "nats", how)


@torch.no_grad()
def table_baseline(
    family: Any, train: Split, held_out: Split, *, features: Callable[[Context], Tensor] | None = None
) -> Baseline:
    """Fits the baseline to the training rows of a table, and gives ``log p_0(x)`` of held-out ones.

    Args:
        family: Family of p(x|z) of the model to be compared; its parameters are left alone.
        train: Training rows, of which 10,000 are used at most.
        held_out: Other rows.
        features: Those of each row's condition, `(N, F)`, of order one.
    """
    if len(held_out) > _AT_ONCE:
        parts = [
            table_baseline(family, train, held_out.take(rows), features=features)
            for rows in torch.arange(len(held_out)).split(_AT_ONCE)
        ]
        return Baseline(parts[0].name, torch.cat([part.log_px for part in parts]))
    known, of_known = train.read(torch.arange(0, len(train), -(-len(train) // _ROWS)))
    rows, of_rows = held_out.read(torch.arange(len(held_out)))

    def jointly(columns: Tensor) -> Tensor:
        """The log-density of the held-out rows' numbers."""
        a, b = known[:, columns], rows[:, columns]
        if features is not None:
            a, b = _around(a.double(), b.double(), features(of_known).double(), features(of_rows).double())
        return (independent(a) if _are_few(a) else gaussian_of(a)).log_prob(b)

    around = "" if features is None else " around a linear regression on the condition"
    if not isinstance(family, Columns):
        limited = family.is_discrete or getattr(family, "limits", None) is not None
        if limited or known.shape[1] > _WIDEST:
            return Baseline("each column by itself", _alone(family, known, rows).double())
        return Baseline(f"{_named(known)}{around}", jointly(torch.arange(known.shape[1])))
    gaps = _log_gaps(known, rows) if len(family.masks) else torch.zeros(len(rows), dtype=torch.float64)
    reals = torch.tensor([*family.numbers], dtype=torch.long)
    cells = _alone(family, known, rows)
    fewest = 2 if features is None else 1  # what c says of a single number counts, too
    if not fewest <= len(reals) <= _WIDEST:
        return Baseline("each column by itself", cells.sum(1) + gaps)
    change = family(torch.zeros(1, family.num_params).to(family.shift)).jacobian.of_columns(rows)
    normal = jointly(reals) + change[:, reals].double().sum(1)
    others = torch.ones(rows.shape[1], dtype=torch.bool)
    others[reals] = False
    name = (
        f"{_named(known[:, reals])}{f' for numbers{around}, other columns by themselves' if others.any() else around}"
    )
    return Baseline(name, normal + cells[:, others].sum(1) + gaps)


def _are_few(x: Tensor) -> bool:
    """Whether rows are too few for covariances: fewer than two for each column."""
    return len(x) < 2 * x.shape[1]


def _named(x: Tensor) -> str:
    return "a Gaussian for each column" if _are_few(x) else "one Gaussian"


def _around(
    known: Float[Tensor, "N D"],
    rows: Float[Tensor, "M D"],
    of_known: Float[Tensor, "N F"],
    of_rows: Float[Tensor, "M F"],
) -> tuple[Float[Tensor, "N D"], Float[Tensor, "M D"]]:
    """Rows less the ridge regression of each column on the features of its known cells.

    Its penalty of 1 is a standard normal prior on the coefficients in units of the noise, so that a level of few rows
    keeps near the others.
    """
    known, rows = known.clone(), rows.clone()
    for columns, there in _patterns(known.T):
        if not there.any():
            continue
        middle = of_known[there].mean(0)
        f, y = of_known[there] - middle, known[there][:, columns]
        slopes = torch.linalg.solve(f.T @ f + torch.eye(f.shape[1]).to(f), f.T @ (y - y.mean(0)))
        known[:, columns] -= (of_known - middle) @ slopes
        rows[:, columns] -= (of_rows - middle) @ slopes
    return known, rows


@dataclass(frozen=True, eq=False)
class Gaussian:
    """``N(mean, covariance)`` of rows, of which any cells may be missing.

    Attributes:
        mean: ``(D,)``.
        covariance: ``(D, D)``.
    """

    mean: Float[Tensor, " D"]
    covariance: Float[Tensor, "D D"]

    def log_prob(self, x: Float[Tensor, "N D"]) -> Float[Tensor, " N"]:
        """The log-density of the observed cells of each row; 0 without any."""
        x, result = x.double(), torch.zeros(len(x), dtype=torch.float64)
        for rows, known in _patterns(x):
            factor = torch.linalg.cholesky(self.covariance[known][:, known])
            scaled = torch.linalg.solve_triangular(factor, (x[rows][:, known] - self.mean[known]).T, upper=False)
            size = 0.5 * int(known.sum()) * math.log(2 * math.pi)
            result[rows] = -0.5 * scaled.square().sum(0) - factor.diagonal().log().sum() - size
        return result


def independent(x: Float[Tensor, "N D"]) -> Gaussian:
    """The Gaussian of the highest likelihood without covariances; variances grow by a millionth, as for the other."""
    x = x.double()
    mean = x.nanmean(0).nan_to_num(0)
    variance = (x - mean).square().nanmean(0).nan_to_num(0)
    return Gaussian(mean, torch.where(variance > 0, variance * (1 + _RIDGE), 1).diag())


@torch.no_grad()
def gaussian_of(x: Float[Tensor, "N D"]) -> Gaussian:
    """The Gaussian of the highest likelihood of the observed cells; variances grow by a millionth.

    With missing cells by expectation maximization, which ends after 50 rounds: before the maximum where columns that
    are nearly multiples of each other lack most of their cells.

    Args:
        x: Rows; NaN where a cell is missing.

    Example:
        >>> x = torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 2.0]])
        >>> gaussian_of(x).mean
        tensor([2., 2.], dtype=torch.float64)
    """
    x = x.double()
    center = x.nanmean(0).nan_to_num(0)
    spread = (x - center).square().nanmean(0).nan_to_num(0).sqrt()
    unit = torch.where(spread > 0, spread, 1)
    y = (x - center) / unit
    ridge = _RIDGE * torch.eye(x.shape[1], dtype=torch.float64)
    current, last = Gaussian(y.new_zeros(y.shape[1]), torch.eye(y.shape[1], dtype=torch.float64)), -math.inf
    for _ in range(_ROUNDS):
        mean, covariance = _expected(current, y)
        current = Gaussian(mean, covariance + ridge)
        if not y.isnan().any():
            break
        level = current.log_prob(y).mean().item()
        if level - last < _CLOSE:
            break
        last = level
    return Gaussian(center + unit * current.mean, unit[:, None] * current.covariance * unit)


def _expected(current: Gaussian, y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of completed rows: each missing cell by its distribution given the row's observed ones."""
    filled, extra = y.clone(), torch.zeros_like(current.covariance)
    for rows, known in _patterns(y):
        gone = ~known
        if not gone.any():
            continue
        across = current.covariance[gone][:, known]
        gain = torch.linalg.solve(current.covariance[known][:, known], across.T).T
        filled[rows[:, None], gone.nonzero()[:, 0]] = (
            current.mean[gone] + (y[rows][:, known] - current.mean[known]) @ gain.T
        )
        left = current.covariance[gone][:, gone] - gain @ across.T
        extra[gone.nonzero()[:, 0][:, None], gone.nonzero()[:, 0]] += len(rows) * left
    mean = filled.mean(0)
    return mean, ((filled - mean).T @ (filled - mean) + extra) / len(y)


def _patterns(x: Tensor) -> Iterator[tuple[Tensor, Bool[Tensor, " D"]]]:
    """The rows with the same observed cells, and which of a row's cells these are."""
    patterns, which = (~x.isnan()).unique(dim=0, return_inverse=True)
    order = which.argsort()
    sizes = which.bincount(minlength=len(patterns)).tolist()
    for pattern, rows in zip(patterns, order.split(sizes), strict=True):
        yield rows, pattern


@torch.enable_grad()
def _alone(family: Any, known: Tensor, rows: Tensor) -> Tensor:
    """Log-probabilities of rows by one set of parameters for all: of each cell for a table of mixed columns."""
    own: Any = deepcopy(family).double().cpu()
    if isinstance(family, Columns):
        own.masks = torch.nn.ModuleList()
    known, rows = known.double(), rows.double()
    start = own.start(known) if isinstance(family, StartsAtExamples) else torch.zeros(own.num_params)
    params = start.double().detach().requires_grad_()
    free = [params, *(p for p in own.parameters() if p.requires_grad)]
    optimizer = torch.optim.LBFGS(free, max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = -own(params[None]).log_prob(known).mean()
        value.backward()
        return value

    optimizer.step(loss)  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        p = own(params[None])
        return p.log_prob_of_columns(rows) if isinstance(family, Columns) else p.log_prob(rows)


def _log_gaps(known: Tensor, rows: Tensor) -> Tensor:
    """The log-probability of which cells of each row are missing, by the shares of missing cells in known ones."""
    share = (known.isnan().sum(0).double() + 0.5) / (len(known) + 1)
    return torch.where(rows.isnan(), share.log(), (-share).log1p()).sum(1)
