"""A variational autoencoder as a scikit-learn estimator: a map, a density and samples for a table."""

import inspect
import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, DensityMixin, TransformerMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from subo.core.objective import Objective
from subo.data.dataset import Data, describe_constants
from subo.data.splits import Split
from subo.data.support import check_support
from subo.data.values import check_resolution, check_values, constant_elements, kind_of
from subo.errors import InputError
from subo.evaluation.latents.usage import posterior_means
from subo.evaluation.reconstruction import decode
from subo.evaluation.scores import score
from subo.models.folding import check_samples, draw_data
from subo.parts.registry import LIKELIHOODS
from subo.recipes import vae
from subo.recipes.for_data import resolved
from subo.recipes.options import BoundOptions, LatentOptions, LikelihoodOptions, NetworkOptions
from subo.recipes.recipe import documented, parameters_of
from subo.runtime.arguments import checked_arguments, checked_settings
from subo.runtime.devices import DeviceName
from subo.runtime.randomness import forked, stream
from subo.training.fitting import fit

__all__ = ["VariationalAutoencoder"]


_GROUPS = (LikelihoodOptions, LatentOptions, NetworkOptions, BoundOptions)


def _signature() -> inspect.Signature:
    """The options of the recipe, with fewer latents, and those for training on a table."""

    def training(
        self: Any,
        latent_dim: int = 2,
        *,
        epochs: int = 100,
        batch_size: int = 100,
        learning_rate: float = 3e-3,
        validation_fraction: float = 0.1,
        patience: int | None = None,
        evaluation_samples: int = 1000,
        device: DeviceName = "cpu",
        random_state: int | np.random.RandomState | None = None,
        verbose: int | bool = 0,
    ) -> None: ...

    first, second, *rest = inspect.signature(training).parameters.values()
    options = [parameter for group in _GROUPS for parameter in parameters_of(group) if parameter.name != second.name]
    return inspect.Signature([first, second, *options, *rest])


_SIGNATURE = _signature()


class VariationalAutoencoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, DensityMixin, BaseEstimator):
    r"""A variational autoencoder for the rows of a table, as a scikit-learn estimator.

    .. math:: p(x) = \int p(z) \, p(x|z) \, dz, \qquad q(z|x) \approx p(z|x)

    (Kingma and Welling, 2014). :meth:`transform` returns the means of q(z|x), :meth:`inverse_transform` those of
    p(x|z), :meth:`score_samples` log p(x), low for outliers, and :meth:`sample` new rows. Columns need no scaling under
    the gaussian and laplace likelihoods, whose networks see standardized numbers; densities are those of X as given.
    Training uses float32, everything after it float64 on the CPU. There is no ``partial_fit``: center, units and
    held-out rows come from the whole table and cannot be found from one batch.

    Args:
        latent_dim: Size of z: by default two, for a map to look at (subo's recipe has ten). More describe the data
            better; unneeded ones carry nothing.
        epochs: Maximum number of passes over the rows.
        batch_size: Number of rows in a batch.
        learning_rate: Adam's step size; larger than :func:`subo.fit`'s, since a table has few batches per epoch.
        validation_fraction: Fraction of the rows, rounded up, to hold out; the weights are those of the epoch with the
            best bound on them. With 0, none are held out and the last weights are kept.
        patience: Number of epochs without a better bound on the held-out rows after which training stops; None for all
            epochs.
        evaluation_samples: Samples of z per row in :meth:`score_samples`.
        device: Device for training: ``cpu``, ``cuda``, ``mps`` or ``auto``. Networks for tables are rarely faster
            elsewhere than on the CPU.
        random_state: Random state for everything that :meth:`fit` draws and for the noise of :meth:`score_samples`;
            None uses NumPy's global state, as everywhere in scikit-learn.
        verbose: Whether to show progress.

    Attributes:
        model_: The fitted :class:`subo.VAE`, on the CPU in float64.
        likelihood_: Name of the likelihood, never ``auto``.
        history_: What training did, a :class:`subo.training.History`.
        n_iter_: Number of epochs that were run.
        seed_: The integer drawn from `random_state`.
        n_features_in_: Number of columns of X.
        feature_names_in_: Names of the columns, if all are strings.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(200, 1)) @ np.ones((1, 5)) + [0, 0, 0, 0, 100]
        >>> autoencoder = VariationalAutoencoder(hidden=(20,), epochs=5, random_state=0).fit(X)
        >>> autoencoder.likelihood_, autoencoder.transform(X).shape, autoencoder.sample(3).shape
        ('gaussian', (200, 2), (3, 5))
        >>> usual, outlier = autoencoder.score_samples([[0, 0, 0, 0, 100], [5, -5, 5, -5, 95]])
        >>> bool(usual > outlier)
        True
    """

    if TYPE_CHECKING:  # the settings read below; the signature sets all of them
        latent_dim: int
        posterior: str
        epochs: int
        batch_size: int
        learning_rate: float
        validation_fraction: float
        patience: int | None
        evaluation_samples: int
        random_state: int | np.random.RandomState | None
        verbose: int | bool

    def __init__(self, latent_dim: int = 2, **settings: Any):  # by scikit-learn's contract, fit checks these
        bound = _SIGNATURE.bind(self, latent_dim, **settings)
        bound.apply_defaults()
        for name, value in bound.arguments.items():
            if name != "self":
                setattr(self, name, value)

    def fit(self, X: ArrayLike, y: object = None) -> "VariationalAutoencoder":
        """Fits the model, from scratch.

        Args:
            X: Rows, ``(N, D)``, at least two.
            y: Ignored.

        Raises:
            InputError: A value of X is outside the likelihood's support, or the settings make no sense together.
            DivergedError: A number became non-finite during training.
        """
        settings = checked_settings(inspect.signature(type(self)).parameters, self.get_params(deep=False))
        wide = torch.tensor(np.ascontiguousarray(validate_data(self, X, dtype=np.float64, ensure_min_samples=2)))  # pyright: ignore[reportArgumentType]
        check_resolution(wide, where="X", names=_names(self))
        x = wide.float()
        check_values(x, where="X", names=_names(self))
        seed = _seed(self.random_state)
        training, validation = self._split(x, seed)
        held_out = training.take(torch.arange(0)) if validation is None else validation
        data = Data("X", training, held_out, held_out, kind_of(x))  # fit has no use for test data
        names = inspect.signature(vae).parameters
        options = resolved("vae", {name: value for name, value in settings.items() if name in names}, data)
        likelihood = options["likelihood"]
        with forked(seed):
            objective: Objective = vae(x.shape[1:], examples=training.x, **options)
        check_support(objective.model, Split(x), where="X")
        self._warn_of_constants(x, likelihood)
        history = fit(
            objective,
            training if validation is None else data,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            patience=self.patience,
            seed=seed,
            device=settings["device"],
            progress=bool(self.verbose),
        )
        # In float64 a row's numbers do not depend on other rows: in float32, BLAS rounds differently by batch size.
        self.model_ = objective.model.cpu().double().eval()
        self.likelihood_ = likelihood
        self.history_ = history
        self.n_iter_ = len(history.epochs)
        self.seed_ = seed
        self._n_features_out = self.latent_dim
        return self

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Posterior means ``E_q[z|x]``; the same at every call.

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

    def inverse_transform(self, X: ArrayLike) -> np.ndarray:
        """Means ``E[x|z]`` of the data at given latents.

        Args:
            X: Latents z, ``(N, latent_dim)``.

        Returns:
            ``(N, D)``, float64, in the units of the data.
        """
        check_is_fitted(self)
        z = check_array(X, dtype="float64", input_name="X")
        if z.shape[1] != self._n_features_out:
            raise InputError(
                f"inverse_transform expects latents with {self._n_features_out} columns, as returned by transform, but "
                f"these have {z.shape[1]}"
            )
        return decode(self.model_, torch.tensor(np.ascontiguousarray(z))).numpy()

    @checked_arguments
    def sample(self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None) -> np.ndarray:
        """New rows: z from p(z), then x from p(x|z), including its noise.

        Args:
            n_samples: Number of rows.
            random_state: Random state for the draws; None for different ones at every call.

        Returns:
            ``(n_samples, D)``, float64, in the order drawn.
        """
        check_is_fitted(self)
        elements: int = self.n_features_in_  # pyright: ignore[reportAttributeAccessIssue] (set by validate_data)
        check_samples(n_samples, elements, 8 * elements, remedy="Lower n_samples.")
        with forked(_seed(random_state)):
            return draw_data(self.model_, n_samples, elements=elements, dtype=torch.float64).numpy()

    def score_samples(self, X: ArrayLike) -> np.ndarray:
        """``log p(x)`` of each row in nats, by importance sampling; for a density, it depends on the units of X.

        With K = `evaluation_samples` draws of q(z|x), ``log 1/K sum_k p(x, z_k) / q(z_k|x)``: in expectation a lower
        bound, which is tight for large K. A row's noise is derived from its values and `seed_`: its score is the same
        at every call and with any other rows, and errors of different rows are independent, so that their mean is more
        precise than each of them; :func:`subo.evaluation.score` gives standard errors. The cost is K decoder passes per
        row, some milliseconds. A row with a value outside the likelihood's support, such as 1.2 under
        ``continuous-bernoulli``, gets -infinity.

        Args:
            X: Rows, ``(N, D)``.

        Returns:
            ``(N,)``, float64.
        """
        parts = [
            score(self.model_, Split(row), num_samples=self.evaluation_samples, seed=_own_seed(row, self.seed_)).log_px
            for row in self._checked(X).x.split(1)
        ]
        return torch.cat(parts).numpy()

    def score(self, X: ArrayLike, y: object = None) -> float:
        """The mean of :meth:`score_samples`, in nats per row.

        Args:
            X: Rows, ``(N, D)``.
            y: Ignored.
        """
        return float(self.score_samples(X).mean())

    def _warn_of_constants(self, x: torch.Tensor, likelihood: str) -> None:
        """Warns of constant columns: they carry no information, and only the minimum scale limits their density."""
        if LIKELIHOODS[likelihood].is_discrete:
            return
        names = _names(self) or tuple(f"column {number}" for number in range(1, x.shape[1] + 1))
        constant = [names[column] for column in constant_elements(x).nonzero()[:, 0].tolist()]
        if constant:
            warnings.warn(f"X: {describe_constants(constant)}", UserWarning, stacklevel=3)

    def _checked(self, X: ArrayLike) -> Split:
        """Rows, checked against the fitted model."""
        check_is_fitted(self)
        return Split(torch.tensor(np.ascontiguousarray(validate_data(self, X, dtype=np.float32, reset=False))))  # pyright: ignore[reportArgumentType]

    def _split(self, x: torch.Tensor, seed: int) -> tuple[Split, Split | None]:
        """Rows for training, and held-out rows, if any."""
        held_out = min(math.ceil(len(x) * self.validation_fraction), len(x) - 1)
        order = torch.randperm(len(x), generator=stream("split", seed))
        return Split(x[order[held_out:]]), Split(x[order[:held_out]]) if held_out else None


VariationalAutoencoder.__init__.__signature__ = _SIGNATURE  # pyright: ignore[reportFunctionMemberAccess]
VariationalAutoencoder.__doc__ = documented(VariationalAutoencoder, *_GROUPS, before="\n\nAttributes:")


def _own_seed(row: torch.Tensor, seed: int) -> int:
    """The seed of a row's noise, from its contents; 0 and -0 are the same number."""
    return stream("row", (row + 0.0).numpy().tobytes().hex(), seed).initial_seed()


def _seed(random_state: int | np.random.RandomState | None) -> int:
    return int(check_random_state(random_state).randint(2**31 - 1))


def _names(estimator: Any) -> tuple[str, ...] | None:
    names = getattr(estimator, "feature_names_in_", None)
    return None if names is None else tuple(map(str, names))
