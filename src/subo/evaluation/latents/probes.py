"""How much posterior means reveal about labels: a linear probe, nearest neighbors and clusters."""

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from numpy import ndarray
from torch import Tensor

from subo.errors import InputError
from subo.evaluation.numbers import ALONE, CARRIED, Beside, Number
from subo.runtime.randomness import stream

__all__ = ["Probe", "probe"]

_ITERATIONS = 1000


@dataclass(frozen=True)
class Probe:
    """How well labels can be predicted from latents.

    Accuracies are fractions of the test data, with standard errors ``sqrt(p (1 - p) / N)`` over the test data, for the
    classifier as fitted.

    Attributes:
        linear_accuracy: Accuracy of logistic regression on standardized means.
        linear_se: Standard error of `linear_accuracy`.
        knn_accuracy: Accuracy of the nearest neighbors' vote, by Euclidean distance in the latents' own units.
        knn_se: Standard error of `knn_accuracy`.
        majority_accuracy: Accuracy of always predicting the most frequent class of the training data: what both have to
            beat.
        adjusted_rand: Agreement of k-means clusters of the test means with the classes, 0 by chance and 1 at best
            (Hubert and Arabie, 1985).
        normalized_mutual_information: Mutual information of clusters and classes over the mean of their entropies; 0 to
            1, and above 0 by chance.
        num_classes: Number of classes in the training data, and of clusters.
        neighbors: Number of neighbors that vote.
        num_train: Number of training examples.
        num_test: Number of test examples.
        converged: Whether the logistic regression's solver converged; if not, `linear_accuracy` may be too low.
    """

    linear_accuracy: float
    linear_se: float
    knn_accuracy: float
    knn_se: float
    majority_accuracy: float
    adjusted_rand: float
    normalized_mutual_information: float
    num_classes: int
    neighbors: int
    num_train: int
    num_test: int
    converged: bool

    def numbers(self, beside: Beside = ALONE) -> Iterator[Number]:
        """Accuracies with their errors, and the agreement of clusters with classes."""
        for name, value, error, how in (
            ("accuracy of a linear probe", self.linear_accuracy, self.linear_se, "logistic regression"),
            ("accuracy of neighbors", self.knn_accuracy, self.knn_se, f"{self.neighbors} nearest means"),
            ("clusters: adjusted Rand index", self.adjusted_rand, None, "k-means on means"),
            ("clusters: mutual information", self.normalized_mutual_information, None, "k-means, normalized"),
        ):
            yield Number(CARRIED, name, value, error, "", how, None, self.num_test)


def probe(
    train_means: Float[Tensor, "N ..."],
    train_labels: Shaped[Tensor, " N"],
    test_means: Float[Tensor, "M ..."],
    test_labels: Shaped[Tensor, " M"],
    *,
    neighbors: int = 10,
    max_data: int = 10_000,
    seed: int = 0,
) -> Probe:
    """Measures how much information the latents contain about labels that the model never saw.

    A linear probe shows whether classes are linearly separable, neighbors whether they lie together, clusters whether
    they would be found without labels. The three see latents in different units: the probe standardizes each dimension;
    distances are left unchanged, since after standardization they would be dominated by uninformative dimensions.
    Labels that do not occur in the training data count as errors.

    Args:
        train_means: Means from :func:`~subo.evaluation.posterior_means`; those of each example are used as one vector.
        train_labels: Classes of `train_means`.
        test_means: Means of data that the classifiers are not fitted to.
        test_labels: Classes of `test_means`.
        neighbors: Number of neighbors that vote.
        max_data: Largest number of examples in either set; of more, as many are chosen at random, the same at every
            call with the same seed.
        seed: Seed for the choice of examples and the initial clusters.

    Raises:
        InputError: Labels are not classes, there is only one class, there are too few examples, or means are not
            finite.

    Example:
        >>> labels = torch.arange(100) % 2
        >>> means = torch.randn(100, 2) + 10 * labels.unsqueeze(1)
        >>> found = probe(means[:50], labels[:50], means[50:], labels[50:])
        >>> found.linear_accuracy, found.knn_accuracy, found.adjusted_rand
        (1.0, 1.0, 1.0)
    """
    # here, since scikit-learn takes a second to import
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if max_data < 1:
        raise InputError(f"max_data must be at least 1, not {max_data}")
    train, classes = _subset(train_means, train_labels, max_data, seed, name="training")
    test, test_classes = _subset(test_means, test_labels, max_data, seed, name="test")
    num_classes = len(classes.unique())
    _check_classes(num_classes, train=len(train), test=len(test), neighbors=neighbors)
    x, y, x_test, y_test = train.numpy(), classes.numpy(), test.numpy(), test_classes.numpy()
    regression = LogisticRegression(max_iter=_ITERATIONS)
    linear = make_pipeline(StandardScaler(), regression)
    knn = KNeighborsClassifier(neighbors)
    clusters = KMeans(num_classes, n_init=10, random_state=seed)  # pyright: ignore[reportArgumentType]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # recorded in `converged`; of clusters: fewer points than k
        linear.fit(x, y)
        found = clusters.fit_predict(x_test)
    linear_accuracy = _accuracy(linear.predict(x_test), y_test)
    knn_accuracy = _accuracy(knn.fit(x, y).predict(x_test), y_test)
    return Probe(
        linear_accuracy=linear_accuracy,
        linear_se=_standard_error(linear_accuracy, len(test)),
        knn_accuracy=knn_accuracy,
        knn_se=_standard_error(knn_accuracy, len(test)),
        majority_accuracy=(test_classes == classes.mode().values).double().mean().item(),
        adjusted_rand=float(adjusted_rand_score(y_test, found)),
        normalized_mutual_information=float(normalized_mutual_info_score(y_test, found)),
        num_classes=num_classes,
        neighbors=neighbors,
        num_train=len(train),
        num_test=len(test),
        converged=bool((regression.n_iter_ < _ITERATIONS).all()),
    )


def _subset(means: Tensor, labels: Tensor, max_data: int, seed: int, *, name: str) -> tuple[Tensor, Tensor]:
    """At most `max_data` vectors of means in float64, and their classes."""
    if len(means) != len(labels):
        raise InputError(f"there are {len(means)} {name} means but {len(labels)} {name} labels: one each is needed")
    if labels.is_floating_point() and not (labels == labels.round()).all():
        raise InputError(
            f"the {name} labels are not classes: some are not whole numbers. Probes predict classes; cut a quantity "
            "into ranges first, for example with torch.bucketize."
        )
    if not means.isfinite().all():
        raise InputError(f"the {name} means are not all finite numbers: the model has diverged, or its data are not")
    if len(means) > max_data:
        chosen = torch.randperm(len(means), generator=stream(f"probe {name}", seed))[:max_data]
        means, labels = means[chosen], labels[chosen]
    return means.detach().cpu().double().flatten(1), labels.cpu().long()


def _check_classes(num_classes: int, *, train: int, test: int, neighbors: int) -> None:
    if num_classes < 2:
        raise InputError(f"probes distinguish classes, but the {train} training labels have {num_classes}")
    if num_classes > train / 2:
        raise InputError(
            f"the {train} training labels have {num_classes} different values: fewer than two examples per class. "
            "Usually they are a quantity or an index; probes predict classes."
        )
    if test < num_classes:
        raise InputError(f"{num_classes} clusters need at least as many test examples, not {test}")
    if not 1 <= neighbors <= train:
        raise InputError(f"neighbors must be between 1 and the number of training examples, {train}, not {neighbors}")


def _accuracy(predicted: ndarray, labels: ndarray) -> float:
    return float((predicted == labels).mean())


def _standard_error(accuracy: float, num_data: int) -> float:
    return math.sqrt(accuracy * (1 - accuracy) / num_data)
