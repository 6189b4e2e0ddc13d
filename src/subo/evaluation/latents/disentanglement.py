"""Whether each latent dimension stands for one known factor of the data: MIG, SAP, DCI and the FactorVAE score.

All are of Locatello et al., 2019 (appendix C), where factors are integers. They rank models differently, and none of
them says that a model without such knowledge has found the factors (theorem 1 there).
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Integer
from numpy import ndarray
from torch import Tensor

from subo.errors import InputError
from subo.evaluation.numbers import CARRIED, Number
from subo.evaluation.results import Result, Table, rows_of
from subo.runtime.arguments import checked_arguments

__all__ = ["Disentanglement", "dci_of_importance", "disentanglement", "mutual_information_gap"]

_ACTIVE = 0.05  # of the largest variance: dimensions below do not vote
_NAMES = {
    "mig": ("MIG", "mutual information, gap of the best two dimensions"),
    "sap": ("SAP", "accuracy from one dimension, gap of the best two"),
    "disentanglement": ("DCI disentanglement", "entropy of a dimension's importances"),
    "completeness": ("DCI completeness", "entropy of a factor's importances"),
    "informativeness": ("DCI informativeness", "accuracy of a forest on held-out examples"),
    "factor_vae": ("FactorVAE score", "votes of the dimension that varies least"),
}


@dataclass(frozen=True, repr=False)
class Disentanglement(Result):
    """Scores from 0 to 1, the higher the closer to one dimension for each factor.

    Attributes:
        mig: Mutual information gap (Chen et al., 2018, equation 6).
        sap: Separated attribute predictability (Kumar et al., 2018, section 3).
        disentanglement: DCI: whether each dimension matters to one factor (Eastwood and Williams, 2018, section 2).
        completeness: DCI: whether each factor is held by one dimension.
        informativeness: DCI: how well all dimensions together predict the factors.
        factor_vae: The FactorVAE score (Kim and Mnih, 2018, section 4).
        num_data: Number of examples.
    """

    mig: float
    sap: float
    disentanglement: float
    completeness: float
    informativeness: float
    factor_vae: float
    num_data: int

    def table(self) -> Table:
        """One line for each score."""
        lines = [
            Number(CARRIED, name, getattr(self, key), None, "", how, None, self.num_data)
            for key, (name, how) in _NAMES.items()
        ]
        return Table(f"Disentanglement, {self.num_data:,} examples", ("", "score", "", "", "K", "data"), rows_of(lines))

    def to_dict(self) -> dict[str, Any]:
        """The scores by name."""
        return asdict(self)

    def records(self) -> list[dict[str, Any]]:
        """One row."""
        return [self.to_dict()]


@checked_arguments
def disentanglement(
    codes: Float[Tensor, "..."],
    factors: Integer[Tensor, "..."],
    *,
    num_bins: int = 20,
    num_votes: int = 800,
    group_size: int = 64,
    seed: int = 0,
) -> Disentanglement:
    """How well single latent dimensions stand for known factors.

    Classifiers are fitted to half of the examples, chosen at random, and judged on the others.

    Args:
        codes: Representations, ``(N, D)``, such as :func:`~subo.evaluation.posterior_means`.
        factors: The value of each factor, an integer, ``(N, K)``.
        num_bins: Bins of equal width for the mutual information of a dimension.
        num_votes: Votes of the FactorVAE score, as many again to judge them.
        group_size: Examples that share a factor's value, for each vote.
        seed: Seed for the halves, the votes and the forests.

    Raises:
        InputError: There are fewer than 10 examples, another number of codes, or a factor has a single value.

    Example:
        >>> factors = torch.cartesian_prod(torch.arange(4), torch.arange(5)).repeat(20, 1)
        >>> found = disentanglement(factors.float(), factors)
        >>> round(found.mig, 3), found.factor_vae
        (1.0, 1.0)
    """
    z, v = codes.double().numpy(), factors.numpy()
    if z.ndim != 2 or v.ndim != 2 or len(z) != len(v) or len(z) < 10:
        raise InputError(
            f"codes (N, D) and factors (N, K) are of the same examples, at least 10; received {tuple(codes.shape)} and "
            f"{tuple(factors.shape)}"
        )
    if not np.isfinite(z).all():
        raise InputError("codes must be finite")
    if (v.min(0) == v.max(0)).any():
        single = int((v.min(0) == v.max(0)).argmax())
        raise InputError(f"factor {single} has a single value in these examples: leave it out")
    random = np.random.default_rng(seed)
    order = random.permutation(len(z))
    halves = order[: len(z) // 2], order[len(z) // 2 :]
    importance, accuracy = _forests(z, v, halves, seed)
    modular, complete = dci_of_importance(importance)
    return Disentanglement(
        mig=mutual_information_gap(z, v, num_bins=num_bins),
        sap=_separated(z, v, halves),
        disentanglement=modular,
        completeness=complete,
        informativeness=accuracy,
        factor_vae=_votes(z, v, num_votes, group_size, random),
        num_data=len(z),
    )


def mutual_information_gap(codes: Float[ndarray, "N D"], factors: Integer[ndarray, "N K"], *, num_bins: int) -> float:
    r"""MIG: :math:`\frac1K \sum_k \frac{1}{H(v_k)} (I(z_{j_k}; v_k) - \max_{j \neq j_k} I(z_j; v_k))`.

    Chen et al., 2018, equation 6, with the mutual information of the joint histogram.

    Args:
        codes: Representations.
        factors: Values of the factors.
        num_bins: Bins of each dimension, of equal width.
    """
    gaps = []
    for factor in factors.T:
        _, value = np.unique(factor, return_inverse=True)
        shares = np.bincount(value) / len(value)
        information = sorted(_information(_binned(code, num_bins), value) for code in codes.T)
        second = information[-2] if len(information) > 1 else 0.0
        gaps.append((information[-1] - second) / -(shares * np.log(shares)).sum())
    return float(np.mean(gaps))


def _binned(code: ndarray, num_bins: int) -> ndarray:
    edges = np.linspace(code.min(), code.max(), num_bins + 1)
    return np.digitize(code, edges[1:-1])


def _information(first: ndarray, second: ndarray) -> float:
    """Mutual information of two integers, in nats, by their frequencies."""
    joint = np.zeros((first.max() + 1, second.max() + 1))
    np.add.at(joint, (first, second), 1 / len(first))
    product = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    there = joint > 0
    return float((joint[there] * np.log(joint[there] / product[there])).sum())


def _separated(z: ndarray, v: ndarray, halves: tuple[ndarray, ndarray]) -> float:
    """SAP: the mean gap between the two dimensions that predict a factor best, each by a linear classifier of its own.

    Accuracies are balanced over the factor's values, so that guessing is as good for all factors.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, test = halves
    gaps = []
    for factor in v.T:
        scores = []
        for code in z.T[:, :, None]:
            classifier = make_pipeline(
                StandardScaler(), LogisticRegression(C=1e3, max_iter=500, class_weight="balanced")
            )
            classifier.fit(code[train], factor[train])
            scores.append(float(balanced_accuracy_score(factor[test], classifier.predict(code[test]))))
        best = sorted(scores)
        gaps.append(best[-1] - (best[-2] if len(best) > 1 else 1 / len(np.unique(factor))))
    return float(np.mean(gaps))


def _forests(z: ndarray, v: ndarray, halves: tuple[ndarray, ndarray], seed: int) -> tuple[ndarray, float]:
    """The importance of each dimension for each factor, ``(D, K)``, and the mean accuracy on held-out examples."""
    from sklearn.ensemble import RandomForestClassifier

    train, test = halves
    importances, accuracies = [], []
    for factor in v.T:
        options: Any = {"max_features": 1.0}  # of all dimensions, so that each split takes the best
        forest = RandomForestClassifier(100, random_state=seed, **options).fit(z[train], factor[train])
        importances.append(forest.feature_importances_)
        accuracies.append(forest.score(z[test], factor[test]))
    return np.stack(importances, axis=1), float(np.mean(accuracies))


def dci_of_importance(importance: Float[ndarray, "D K"]) -> tuple[float, float]:
    r"""Disentanglement and completeness of importances R (Eastwood and Williams, 2018, section 2).

    .. math:: D_i = 1 - H_K(R_{i\cdot} / \textstyle\sum_k R_{ik}), \qquad
        C_k = 1 - H_D(R_{\cdot k} / \textstyle\sum_i R_{ik})

    with entropies to the base of the number of terms; means weighted by the share of all importance.

    Args:
        importance: R, not negative.

    Example:
        >>> dci_of_importance(np.eye(3)), dci_of_importance(np.ones((3, 3)))
        ((1.0, 1.0), (0.0, 0.0))
    """

    def score(table: ndarray) -> float:
        total = table.sum(1, keepdims=True)
        shares = np.divide(table, total, out=np.zeros_like(table), where=total > 0)
        logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
        entropy = -(shares * logs).sum(1) / (np.log(table.shape[1]) if table.shape[1] > 1 else 1)
        return round(float((total[:, 0] / table.sum()) @ (1 - entropy)), 12)

    table = np.asarray(importance, dtype=float)
    return score(table), score(table.T)


def _votes(z: ndarray, v: ndarray, count: int, size: int, random: np.random.Generator) -> float:
    """The accuracy of a majority vote: examples that share a factor's value vary least in the dimension that holds it.

    Variances are relative to those of all examples; dimensions that hardly vary at all do not vote.
    """
    variance = z.var(0, ddof=1)
    active = np.flatnonzero(variance > _ACTIVE * variance.max())
    ballots = np.zeros((2, z.shape[1], v.shape[1]), dtype=int)
    for half in range(2):
        for _ in range(count):
            factor = random.integers(v.shape[1])
            alike = np.flatnonzero(v[:, factor] == v[random.integers(len(v)), factor])
            group = z[random.choice(alike, size)][:, active]
            ballots[half, active[(group.var(0, ddof=1) / variance[active]).argmin()], factor] += 1
    chosen = ballots[0].argmax(1)
    return float(ballots[1][np.arange(z.shape[1]), chosen].sum() / count)
