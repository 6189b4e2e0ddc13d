"""The estimator as an outlier detector: thresholds and p-values from rows that were held out of training."""

import math
import warnings
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from subo.data.splits import Split
from subo.errors import InputError
from subo.evaluation.conformal import conformal_p_values, too_few_held_out
from subo.sklearn.scoring import HeldOut, conformal_threshold, quantile_threshold

__all__ = ["OutlierMethods"]


def _has_held_out(estimator: Any) -> bool:
    if estimator.validation_fraction or estimator.calibration_fraction:
        return True
    raise AttributeError("outliers are found by held-out rows: set `calibration_fraction`, such as to 0.1")


class OutlierMethods(ABC):
    r"""What an outlier detector of scikit-learn has, with thresholds from n held-out rows.

    A row with score s = log p(x), of a table with each column in units of its own spread
    (:mod:`subo.evaluation.own_units`), has the p-value :math:`p = (1 + \#\{i: s_i \le s\}) / (n + 1)`, where the
    :math:`s_i` are the scores of the held-out rows: the `calibration_fraction` of the rows given to ``fit``, of which
    nothing in the fit knows, neither training nor the choice of the epoch, nor kinds, levels and units of columns. If
    a new row and the n are exchangeable, as independent rows of one distribution are, then
    :math:`P(p \le \alpha) \le \alpha` for every :math:`\alpha`, whatever the model and for every n, and with no ties
    :math:`P(p \le \alpha) > \alpha - 1 / (n + 1)` (Vovk, Gammerman and Shafer, 2005, proposition 2.4). It holds on
    average over the draw of the n rows: given these n, the share of ordinary rows that is flagged varies around it with
    a standard deviation of about :math:`\sqrt{\alpha (1 - \alpha) / n}`.

    Without calibration rows, the validation rows take their place. They have selected the epoch, and kinds and units
    of columns know them, so that they may score slightly too well, and the inequality holds only approximately
    (docs/tables.md has a measurement).
    """

    if TYPE_CHECKING:
        false_alarm_rate: float
        contamination: float | None
        evaluation_samples: int
        _held_out: HeldOut

    @abstractmethod
    def _ranked_scores(self, split: Split) -> Tensor:
        """``log p(x)`` of rows as the model reads them, in units of its columns' own."""

    @abstractmethod
    def _checked(self, X: Any) -> Split:
        """Rows as the model reads them."""

    @property
    def offset_(self) -> float:
        """The threshold: rows that score below it are outliers. -infinity if no row can be one."""
        try:
            return self._threshold()
        except InputError as error:  # so that there is no such attribute
            raise AttributeError(str(error)) from error

    @available_if(_has_held_out)
    def predict(self, X: Any) -> np.ndarray:
        """Which rows are outliers.

        Args:
            X: Rows, ``(N, D)``.

        Returns:
            ``(N,)``: -1 for outliers, 1 for others. By default outliers are the rows with a p-value of at most
            `false_alarm_rate`; with `contamination`, the rows that score below that quantile of the held-out rows.
        """
        return np.where(self.decision_function(X) < 0, -1, 1)

    @available_if(_has_held_out)
    def decision_function(self, X: Any) -> np.ndarray:
        """The score of each row less the threshold `offset_`, in nats: below 0 for outliers.

        The score is that of `score_samples`, of a table with each column in units of its own spread: which rows are
        odd does not depend on the units that the table has.

        Args:
            X: Rows, ``(N, D)``.

        Returns:
            ``(N,)``, float64.
        """
        check_is_fitted(self)
        scores = self._ranked_scores(self._checked(X)).numpy()
        if not math.isinf(offset := self._threshold()):
            return scores - offset
        fixes = (
            "set `contamination`, such as to 0.05, for a share of the data, increase `false_alarm_rate`, or hold out "
            "more rows by `calibration_fraction`"
        )
        if message := too_few_held_out(len(self._held_out), self.false_alarm_rate, fixes=fixes):
            warnings.warn(message, UserWarning, stacklevel=2)
        return np.where(np.isneginf(scores), 0.0, np.inf)

    @available_if(_has_held_out)
    def p_values(self, X: Any) -> np.ndarray:
        r"""The conformal p-value of each row: small for outliers, uniform for ordinary new rows.

        It is :math:`(1 + \#\{i: s_i \le s\}) / (n + 1)`, of which the class says what it guarantees. Rows that the
        model was fitted to rank as less odd than they are.

        Args:
            X: Rows, ``(N, D)``.

        Returns:
            ``(N,)``, float64.
        """
        check_is_fitted(self)
        return conformal_p_values(self._ranked_scores(self._checked(X)), self._held_out_scores()).numpy()

    @available_if(_has_held_out)
    def fit_predict(self, X: Any, y: object = None) -> np.ndarray:
        """Fits the model, and predicts for the same rows, of which those in training seem more ordinary than new ones.

        Args:
            X: Rows, ``(N, D)``.
            y: Ignored.
        """
        return self.fit(X).predict(X)  # pyright: ignore[reportAttributeAccessIssue]

    def _threshold(self) -> float:
        scores = self._held_out_scores()
        if self.contamination is not None:
            return quantile_threshold(scores, self.contamination)
        return conformal_threshold(scores, self.false_alarm_rate)

    def _held_out_scores(self) -> Tensor:
        check_is_fitted(self)
        if len(self._held_out) == 0:
            raise InputError("this model was fitted without held-out rows: set `calibration_fraction` and fit it again")
        return self._held_out.scores(self._ranked_scores, self.evaluation_samples)
