"""Probes of posterior means: against scikit-learn by hand, on classes whose separation is known."""

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from subo import InputError
from subo.evaluation.latents import probes
from subo.evaluation.latents.probes import Probe, probe


def blobs(num: int, distance: float, *, dim: int = 3) -> tuple[Tensor, Tensor]:
    """Three unit normals, `distance` apart on the first axis."""
    labels = torch.arange(num) % 3
    means = torch.randn(num, dim)
    means[:, 0] += distance * labels
    return means, labels


def probed(distance: float, *, num: int = 600, **options: Any) -> Probe:
    return probe(*blobs(num, distance), *blobs(num, distance), **options)


def test_a_linear_probe_is_as_good_as_bayes_rule_on_normal_classes():
    """Of three classes 2 apart, each is taken for a neighbor with probability Phi(-1), the middle one for either."""
    found = probed(2.0, num=3000)
    bayes = 1 - 4 / 3 * stats.norm.cdf(-1)
    assert abs(found.linear_accuracy - bayes) < 4 * found.linear_se + 0.005
    assert found.linear_se == pytest.approx(math.sqrt(bayes * (1 - bayes) / 3000), rel=0.05)
    assert found.knn_accuracy < bayes + 4 * found.knn_se
    assert found.converged


def test_separate_classes_are_found_by_all_and_noise_by_none():
    apart = probed(20.0)
    assert apart.linear_accuracy == apart.knn_accuracy == apart.adjusted_rand == 1.0
    assert apart.normalized_mutual_information == pytest.approx(1.0)
    assert apart.linear_se == 0.0
    assert apart.majority_accuracy == pytest.approx(1 / 3)
    noise = probed(0.0)
    assert abs(noise.linear_accuracy - 1 / 3) < 4 * noise.linear_se
    assert abs(noise.knn_accuracy - 1 / 3) < 4 * noise.knn_se
    assert abs(noise.adjusted_rand) < 0.02
    assert (noise.num_classes, noise.num_train, noise.num_test) == (3, 600, 600)


def test_the_numbers_are_scikit_learns():
    (x, y), (x_test, y_test) = blobs(300, 1.5), blobs(200, 1.5)
    found = probe(x, y, x_test, y_test, neighbors=7)
    a, b = x.double().numpy(), x_test.double().numpy()
    scaled = [(part - a.mean(0)) / a.std(0) for part in (a, b)]
    assert found.linear_accuracy == LogisticRegression().fit(scaled[0], y).score(scaled[1], y_test)
    assert found.knn_accuracy == KNeighborsClassifier(7).fit(a, y).score(b, y_test)
    clusters: Any = KMeans(3, n_init=10, random_state=0)  # pyright: ignore[reportArgumentType]
    assert found.adjusted_rand == adjusted_rand_score(y_test, clusters.fit_predict(b))


def test_classes_that_no_plane_parts_are_told_by_neighbors_alone():
    def rings(num: int) -> tuple[Tensor, Tensor]:
        labels, angle = torch.arange(num) % 2, 2 * math.pi * torch.rand(num)
        radius = 1 + 2 * labels + 0.1 * torch.randn(num)
        return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1), labels

    found = probe(*rings(500), *rings(500))
    assert found.knn_accuracy > 0.99
    assert found.linear_accuracy < 0.65
    assert found.adjusted_rand < 0.1


def test_distances_keep_the_latents_units():
    """A dimension that tells nothing and hardly moves would drown the others if it were standardized."""

    def faint(num: int) -> tuple[Tensor, Tensor]:
        means, labels = blobs(num, 4.0, dim=60)
        means[:, 1:] *= 1e-3
        return means, labels

    assert probe(*faint(300), *faint(300)).knn_accuracy > 0.9


def test_the_majority_is_the_training_datas():
    means = torch.randn(40, 2)
    train, test = torch.tensor([5] * 30 + [7] * 10), torch.tensor([5] * 10 + [7] * 30)
    assert probe(means, train, means, test).majority_accuracy == 0.25


def test_more_data_are_thinned_the_same_way_at_every_call():
    means, labels = blobs(500, 1.0)
    state, of_numpy = torch.get_rng_state(), str(np.random.get_state())  # noqa: NPY002
    found = probe(means, labels, means, labels, max_data=200)
    assert (found.num_train, found.num_test) == (200, 200)
    assert found == probe(means, labels, means, labels, max_data=200)
    assert found != probe(means, labels, means, labels, max_data=200, seed=1)
    assert torch.equal(state, torch.get_rng_state())
    assert of_numpy == str(np.random.get_state())  # noqa: NPY002


def test_collapsed_means_are_measured_without_a_warning():
    labels = torch.arange(30) % 2
    found = probe(torch.zeros(30, 2), labels, torch.zeros(30, 2), labels)
    assert found.linear_accuracy == found.majority_accuracy == 0.5
    assert found.adjusted_rand == 0.0


def test_a_solver_that_does_not_converge_is_told_in_the_record(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(probes, "_ITERATIONS", 1)
    filters = list(warnings.filters)
    assert not probed(1.0).converged
    assert warnings.filters == filters


def test_means_of_any_shape_and_whole_floating_labels_are_taken():
    means, labels = blobs(90, 20.0, dim=4)
    found = probe(means.view(90, 2, 2), labels.double(), means.view(90, 2, 2), labels.float())
    assert found.linear_accuracy == 1.0


@pytest.mark.parametrize(
    "labels, options, message",
    [
        (torch.linspace(0, 1, 60), {}, "the training labels are not classes: some are not whole numbers"),
        (torch.full((60,), math.nan), {}, "are not classes"),
        (torch.zeros(60), {}, "the 60 training labels have 1"),
        (torch.arange(60), {}, "60 different values: fewer than two examples per class"),
        (torch.arange(60) % 20, {}, "20 clusters need at least as many test examples, not 10"),
        (torch.arange(60) % 2, {"neighbors": 61}, "between 1 and the number of training examples, 60, not 61"),
        (torch.arange(60) % 2, {"max_data": 0}, "max_data must be at least 1, not 0"),
    ],
)
def test_what_cannot_be_probed_is_refused(labels: Tensor, options: dict[str, int], message: str):
    with pytest.raises(InputError, match=message):
        probe(torch.randn(60, 2), labels, torch.randn(10, 2), torch.arange(10) % 2, **options)


def test_every_mean_needs_its_label():
    with pytest.raises(InputError, match="there are 60 training means but 59 training labels: one each"):
        probes._subset(torch.zeros(60, 2), torch.zeros(59), 100, 0, name="training")


def test_means_of_a_model_that_diverged_are_refused():
    means, labels = blobs(60, 1.0)
    with pytest.raises(InputError, match="the test means are not all finite"):
        probe(means, labels, means / 0, labels)
