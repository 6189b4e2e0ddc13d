"""A variational autoencoder as a scikit-learn estimator: a map, a density, outliers and samples for a table."""

import inspect
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, DensityMixin, TransformerMixin
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from subo.data.dataset import Data
from subo.data.splits import Split
from subo.data.support import check_support
from subo.data.values import kind_of
from subo.errors import InputError
from subo.evaluation.latents.usage import posterior_means
from subo.evaluation.own_units import log_slopes
from subo.evaluation.reconstruction import decode
from subo.models.folding import check_samples, draw_data
from subo.parts.registry import LIKELIHOODS
from subo.recipes.for_data import model_of, resolved
from subo.recipes.recipe import documented
from subo.runtime.arguments import checked_arguments, checked_settings
from subo.runtime.randomness import forked
from subo.sklearn.arrays import as_stored, numbers_of, seed_of, warn_of_constants
from subo.sklearn.conditions import Condition, Known
from subo.sklearn.division import divided
from subo.sklearn.frames import empty, is_frame, like
from subo.sklearn.imputing import ImputationMethods, Recipe
from subo.sklearn.outliers import OutlierMethods
from subo.sklearn.parameters import CONDITIONS, GROUPS, OPTIONS, SIGNATURE, TRAINING
from subo.sklearn.rows import as_rows, given_rows, size_factor_of, sized, starting_rows
from subo.sklearn.scoring import HeldOut, row_scores
from subo.sklearn.tables import Table
from subo.training.fitting import fit
from subo.training.settings import training_settings

__all__ = ["VariationalAutoencoder"]


class VariationalAutoencoder(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, DensityMixin, OutlierMethods, ImputationMethods, BaseEstimator
):
    r"""A variational autoencoder for the rows of a table, as a scikit-learn estimator.

    .. math:: p(x) = \int p(z) \, p(x|z) \, dz, \qquad q(z|x) \approx p(z|x)

    (Kingma and Welling, 2014). :meth:`transform` returns the means of q(z|x), :meth:`inverse_transform` those of
    p(x|z), :meth:`score_samples` log p(x), low for outliers, which :meth:`predict` finds, :meth:`sample` new rows, and
    :meth:`impute` fills missing cells. Columns need no scaling, and densities are those of X as given. Training uses
    float32, everything after it float64 on the CPU. There is no ``partial_fit``: kinds, center, units and held-out rows
    come from the whole table and cannot be found from one batch.

    A frame of pandas, polars or another library that narwhals knows is a table: each of its columns is described by its
    kind, as ``subo fit`` does it, and cells may be missing. So is an array with missing cells, NaN, whose columns are
    called x0, x1, ... An array without, or a sparse matrix, is described by one likelihood for all numbers, student-t
    or for bits bernoulli; so is everything if `likelihood` names one other than ``columns``. A sparse matrix stays
    sparse, but for the rows of a batch.

    Later frames have the columns of the fit in any order; further ones are left out, with a warning, and levels that
    the fit has never seen have a small probability, with a warning. If all columns of the fit are numbers, names and
    order must be the same, by scikit-learn's contract.

    Args:
        latent_dim: Size of z; auto selects as many as columns, at most 16 and a tenth of the rows: unneeded ones carry
            nothing. Two give a map to look at.
        columns: Kinds of columns in place of those that their cells suggest, as a dictionary or as text,
            ``"age=count,zip=category,id=drop"``; or the path of a schema (.json). See docs/tables.md for the kinds.
        condition: Columns of a frame that the model is conditioned on, a name or several: scores are then log p of the
            other columns given these.
        size_factor: The size s of a row, by which the means of its counts are multiplied: its total (``observed``) or a
            column of a frame, over the mean of the rows to train on. Scores are then log p(x|s), samples have sizes of
            training rows, and :meth:`inverse_transform` gives means at s = 1.
        column_scaling: How numbers and dates of a table are scaled: by center and standard deviation (``standard``), or
            then brought to normal scores, for heavy tails (``quantile``).
        min_level_count: Cells that a level of a category has at least; rarer ones are one level, ``other``.
        epochs: Maximum number of passes over the rows; auto follows from their number, as in
            :func:`subo.training_settings`, which also sets the schedules of learning rate and KL.
        batch_size: Number of rows in a batch; auto follows from their number.
        learning_rate: Adam's largest step size; auto is 0.003.
        validation_fraction: Fraction of the rows, rounded up, to hold out; the weights are those of the epoch with the
            best bound on them. With 0, none are held out and the last weights are kept.
        calibration_fraction: Fraction of the rows, rounded up, of which nothing in the fit knows, to calibrate outliers
            and p-values, see :class:`subo.sklearn.outliers.OutlierMethods`. With 0, the validation rows take their
            place, and the guarantees hold only approximately.
        patience: Number of epochs without a better bound on the held-out rows after which training stops; None for all
            epochs, auto for a third of them.
        evaluation_samples: Samples of z per row in :meth:`score_samples` and :meth:`impute`.
        false_alarm_rate: Largest probability with which :meth:`predict` takes an ordinary new row for an outlier; it
            needs 1 / `false_alarm_rate` - 1 calibration rows at least.
        contamination: Share of the data that :meth:`predict` takes for outliers, in place of `false_alarm_rate`.
        device: Device for training: ``cpu``, ``cuda``, ``mps`` or ``auto``. Networks for tables are rarely faster
            elsewhere than on the CPU.
        random_state: Random state for everything that :meth:`fit` draws and for the noise of :meth:`score_samples`;
            None uses NumPy's global state, as everywhere in scikit-learn.
        verbose: Whether to show progress.

    Attributes:
        model_: The fitted :class:`subo.VAE`, on the CPU in float64.
        likelihood_: Name of the likelihood, never ``auto``.
        size_factor_: What the size of a row is, with its unit; None without sizes.
        schema_: What the columns of a table are, each with its kind and the reason; None for numbers of one kind.
        offset_: The score below which rows are outliers; it is computed when it is first asked for.
        history_: What training did, a :class:`subo.training.History`.
        n_iter_: Number of epochs that were run.
        seed_: The integer drawn from `random_state`.
        n_features_in_: Number of columns of X.
        feature_names_in_: Names of the columns, if all are strings.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(200, 1)) @ np.ones((1, 5)) + [0, 0, 0, 0, 100]
        >>> autoencoder = VariationalAutoencoder(hidden=(20,), epochs=5, random_state=0).fit(X)
        >>> autoencoder.likelihood_, autoencoder.transform(X).shape, autoencoder.sample(3).shape
        ('student-t', (200, 5), (3, 5))
        >>> usual, outlier = autoencoder.score_samples([[0, 0, 0, 0, 100], [5, -5, 5, -5, 95]])
        >>> bool(usual > outlier)
        True
        >>> age = [None, *(20.5 + i / 4 for i in range(199))]
        >>> frame = pd.DataFrame({"age": age, "city": ["Rome", "Oslo", "Rome", None] * 50})
        >>> autoencoder.fit(frame).likelihood_, [column.kind for column in autoencoder.schema_.columns]
        ('columns', ['real', 'category'])
        >>> int(autoencoder.impute(frame).isna().sum().sum()), list(autoencoder.sample(3).columns)
        (0, ['age', 'city'])
    """

    if TYPE_CHECKING:  # the settings read below; the signature sets all of them
        posterior: str
        likelihood: str
        evaluation_samples: int
        random_state: int | np.random.RandomState | None
        verbose: int | bool

    def __init__(
        self, latent_dim: int | Literal["auto"] = "auto", **settings: Any
    ):  # by scikit-learn's contract, fit checks these
        bound = SIGNATURE.bind(self, latent_dim, **settings)
        bound.apply_defaults()
        for name, value in bound.arguments.items():
            if name != "self":
                setattr(self, name, value)

    def fit(self, X: Any, y: object = None) -> "VariationalAutoencoder":
        """Fits the model, from scratch.

        Args:
            X: Rows, ``(N, D)``, at least two, and of a table three.
            y: Ignored.

        Raises:
            InputError: A value of X is outside the likelihood's support, or the settings make no sense together.
            DivergedError: A number became non-finite during training.
        """
        settings = checked_settings(inspect.signature(type(self)).parameters, self.get_params(deep=False))
        given = given_rows(self, X, settings)
        seed = seed_of(self.random_state)
        fractions = {name: settings[f"{name}_fraction"] for name in ("validation", "calibration")}
        parts = divided(given.shape[0], **fractions, seed=seed)
        table = None
        if isinstance(given, pd.DataFrame):
            table = Table.of(X, given, settings, rows=parts.known.tolist())
            rows = table.coded(given)
        else:
            rows = Split(as_stored(given, _names(self)))
        sizes = size_factor_of(rows, settings["size_factor"], parts.training, is_table=table is not None)
        rows = sized(rows, sizes)
        training, held_out = rows.take(parts.training), rows.take(parts.validation)
        kind = kind_of(training.x, held_out.x) if table is None else "mixed"
        data = Data("X", training, held_out, held_out, kind)  # fit has no use for test data
        schema = None if table is None else table.schema
        meaning = replace(data.meaning, table=schema, sizes=sizes)
        data = replace(data, decided=meaning)
        options = resolved("vae", {name: settings[name] for name in (*OPTIONS, *CONDITIONS)}, data)
        likelihood, (examples, context) = options["likelihood"], starting_rows(training, seed)
        known = {"examples": examples, "context": context, "meaning": meaning}
        objective = model_of("vae", options, rows.event_shape, **known, seed=seed)
        check_support(objective.model, rows.take(parts.stand_ins), where="X")
        if table is None and not LIKELIHOODS[likelihood].is_discrete:
            warn_of_constants(rows.x[parts.known], _names(self))
        decided = {name: settings[name] for name in TRAINING if settings[name] != "auto"}
        decided = training_settings(objective, data, **decided)
        history = fit(
            objective,
            data if len(held_out) else training,
            **decided,
            seed=seed,
            device=settings["device"],
            progress=bool(self.verbose),
        )
        # In float64 a row's numbers do not depend on other rows: in float32, BLAS rounds differently by batch size.
        self.model_ = objective.model.cpu().double().eval()
        self.likelihood_, self.schema_, self.size_factor_ = likelihood, schema, sizes
        self._table, self._template = table, empty(X) if is_frame(X) else None
        self._recipe = table and Recipe(data, meaning, options, {**decided, "device": settings["device"]})
        self.history_, self.n_iter_ = history, len(history.epochs)
        self.seed_ = seed
        self._held_out = HeldOut(rows.take(parts.calibration if len(parts.calibration) else parts.validation))
        self._condition = Condition(dict(training.context), schema)
        self._n_features_out = options["latent_dim"]
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Posterior means ``E_q[z|x]``, of the observed cells; the same at every call.

        They are exact, except for flows (``inverse-autoregressive``, ``spline``): there they are means of 1,000
        samples, with the same noise for every row. A row outside the likelihood's support has no p(z|x); it still gets
        the encoder's output, and :meth:`score_samples` marks it with -infinity.

        Args:
            X: Rows, ``(N, D)``.

        Returns:
            ``(N, latent_dim)``, float64.
        """
        x = self._checked(X)
        sampled = self.posterior in ("inverse-autoregressive", "spline")
        return posterior_means(self.model_, x, batch_size=1 if sampled else 1000).numpy()

    def inverse_transform(self, X: Any, *, given: Any = None) -> Any:
        """Means ``E[x|z]`` of the data at given latents.

        Args:
            X: Latents z, ``(N, latent_dim)``.
            given: With a `condition`, the cells of its columns: a value for each, or a frame of one row or N.

        Returns:
            ``(N, D)``, in the units of the data: an array of float64 or, after a fit to a frame, such a frame, with the
            columns that are modeled. In a table, log-normal columns have their median, counts are rounded, and levels
            are the most probable ones.
        """
        check_is_fitted(self)
        z = check_array(X, dtype="float64", input_name="X")
        if z.shape[1] != self._n_features_out:
            wanted = f"latents with {self._n_features_out} columns, as returned by transform"
            raise InputError(f"inverse_transform expects {wanted}, but these have {z.shape[1]}")
        known = self._condition.at(len(z), given)
        return self._written(decode(self.model_, torch.tensor(np.ascontiguousarray(z)), known.context), known)

    @checked_arguments
    def sample(
        self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None, *, given: Any = None
    ) -> Any:
        """New rows: z from p(z), then x from p(x|z), including its noise.

        Args:
            n_samples: Number of rows.
            random_state: Random state for the draws; None for different ones at every call.
            given: With a `condition`, the cells of its columns: a value for each, or a frame of one row or `n_samples`.
                By default those of training rows at random.

        Returns:
            ``(n_samples, D)``, in the order drawn: an array of float64 or, after a fit to a frame, such a frame, with
            the columns that are modeled, those of the condition, and their types. No drawn cell is missing.
        """
        check_is_fitted(self)
        elements: int = self.n_features_in_  # pyright: ignore[reportAttributeAccessIssue] (set by validate_data)
        check_samples(n_samples, elements, 8 * elements, remedy="Lower n_samples.")
        with forked(seed_of(random_state)):
            known = self._condition.drawn(n_samples, given)
            drawn = draw_data(self.model_, n_samples, known.context, elements=elements, dtype=torch.float64)
        return self._written(drawn, known)

    def score_samples(self, X: Any) -> np.ndarray:
        """``log p(x)`` of each row in nats, by importance sampling; for a density, it depends on the units of X.

        With K = `evaluation_samples` draws of q(z|x), ``log 1/K sum_k p(x, z_k) / q(z_k|x)``: in expectation a lower
        bound, which is tight for large K. A row's noise is derived from its values and `seed_`: its score is the same
        at every call and with any other rows, and errors of different rows are independent, so that their mean is more
        precise than each of them; :func:`subo.evaluation.score` gives standard errors. The cost is K decoder passes per
        row, some milliseconds. A row with a value outside the likelihood's support, such as 1.2 under
        ``continuous-bernoulli``, gets -infinity. In a table it is log p of the observed cells: compare rows in which
        the same ones are missing.

        Args:
            X: Rows, ``(N, D)``.

        Returns:
            ``(N,)``, float64.
        """
        return self._row_scores(self._checked(X)).numpy()

    def score(self, X: Any, y: object = None) -> float:
        """The mean of :meth:`score_samples`, in nats per row.

        Args:
            X: Rows, ``(N, D)``.
            y: Ignored.
        """
        return float(self.score_samples(X).mean())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.likelihood in ("auto", "columns")
        tags.input_tags.sparse = True
        return tags

    def _checked(self, X: Any) -> Split:
        """Rows, checked against the fitted model."""
        check_is_fitted(self)
        if self._table is not None:
            return sized(self._table.read(self._table.arranged(self, X)), self.size_factor_)
        numbers = numbers_of(self, X, reset=False, missing=False, dtype=np.float32, dense=False)
        return sized(Split(as_rows(numbers)), self.size_factor_)

    def _written(self, x: Tensor, known: Known) -> Any:
        """Rows of the model in the form of the fit's."""
        if self._table is not None:
            return self._table.write(x, known)
        if self._template is None:
            return x.numpy()
        return like(pd.DataFrame(x.numpy(), columns=[*map(str, self._template.columns)]), self._template)

    def _row_scores(self, split: Split) -> Tensor:
        return row_scores(self.model_, split, num_samples=self.evaluation_samples, seed=self.seed_)

    def _ranked_scores(self, split: Split) -> Tensor:
        return self._row_scores(split) - log_slopes(self.model_, split).sum(1)


VariationalAutoencoder.__init__.__signature__ = SIGNATURE  # pyright: ignore[reportFunctionMemberAccess]
VariationalAutoencoder.__doc__ = documented(VariationalAutoencoder, *GROUPS, before="\n\nAttributes:")


def _names(estimator: Any) -> tuple[str, ...] | None:
    names = getattr(estimator, "feature_names_in_", None)
    return None if names is None else tuple(map(str, names))
