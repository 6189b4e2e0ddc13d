"""Simulation-based calibration: ranks are uniform for the exact posterior and are not for a wrong one."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from matplotlib.patches import Rectangle
from scipy import stats
from torch import Size, Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, MultivariateNormal, Normal

from quadrature import Rates, skewed_model
from subo import VAE, BernoulliPrior, Conditional, InputError, StandardNormal, probabilistic_pca
from subo import Bernoulli as BernoulliFamily
from subo.evaluation.latents import calibration
from subo.evaluation.latents.calibration import LOG_JOINT, calibrate
from subo.figures.calibration import _band, rank_histograms
from subo.models.probabilistic_pca import ExactPosterior, LinearGaussian, MeanFieldPosterior

WEIGHT = torch.tensor([[1.0, 0.8], [0.5, 1.0], [-0.7, 0.2], [0.3, 0.3], [1.0, 1.2]])
HUMP, WIDTH = 0.8, 0.617  # in standard deviations: normal scores of ranks keep mean 0 and the variance of uniform ranks


class Changed(nn.Module):
    """The exact posterior, its scale multiplied and its mean moved by so many of its standard deviations."""

    def __init__(self, exact: nn.Module, *, factor: float = 1.0, shift: float = 0.0):
        super().__init__()
        self.exact, self.factor, self.shift = exact, factor, shift

    def forward(self, x: Tensor):
        q = self.exact(x)
        loc = q.mean + self.shift * q.variance.sqrt()
        return MultivariateNormal(loc, scale_tril=self.factor * q.scale_tril, validate_args=False)


def pca(posterior: Any = ExactPosterior, **changes: float) -> VAE:
    """Probabilistic PCA whose exact posterior is correlated."""
    likelihood = LinearGaussian(5, 2)
    with torch.no_grad():
        likelihood.weight.copy_(WEIGHT)
    q = posterior(likelihood)
    return VAE(StandardNormal(2), likelihood, Changed(q, **changes) if changes else q).double()


# Gaussian posteriors


def test_ranks_of_the_exact_posterior_are_uniform():
    found = calibrate(pca(), 2000)
    assert found.names == ("z1", "z2", LOG_JOINT)
    assert found.readings == ("calibrated",) * 3
    assert found.is_calibrated
    assert found.p_value > 0.01
    for ranks in found.ranks.mT.numpy():  # every single one of the L + 1, both ends among them
        assert stats.chisquare(np.bincount(ranks, minlength=100)).pvalue > 0.001
    assert found.counts.sum(1).tolist() == [2000] * 3


def test_false_alarms_are_as_rare_as_the_level_says():
    model = pca()
    found = [calibrate(model, 100, num_ranks=19, num_bins=10, level=0.2, seed=seed) for seed in range(100)]
    alarms = sum(not one.is_calibrated for one in found)
    assert stats.binomtest(alarms, 100, 0.2, alternative="greater").pvalue > 0.001
    small = [one.p_values.min() < 0.05 for one in found]
    assert 2 < sum(small) < 40  # of three quantities: about 14 of 100


@pytest.mark.parametrize(
    "changes, of_z, of_joint",
    [
        ({"factor": 0.5}, "q too narrow", "q too narrow"),
        ({"factor": 2.0}, "q too wide", "q too wide or misplaced"),
        ({"shift": 0.5}, "q too high", "q too wide or misplaced"),
        ({"shift": -0.5}, "q too low", "q too wide or misplaced"),
        ({"shift": 4.0}, "q too high", "q too wide or misplaced"),  # all ranks at one end: nothing is said of the width
        ({"shift": -0.5, "factor": 0.5}, "q too low and too narrow", None),
    ],
)
def test_the_shape_says_what_is_wrong(changes: dict[str, float], of_z: str, of_joint: str | None):
    found = calibrate(pca(ExactPosterior, **changes))
    assert found.readings[:2] == (of_z, of_z)
    assert of_joint is None or found.readings[2] == of_joint
    assert found.p_value < 1e-6
    assert not found.is_calibrated


def test_a_mean_field_posterior_is_too_narrow_in_every_dimension():
    found = calibrate(pca(MeanFieldPosterior))
    assert found.readings[:2] == ("q too narrow", "q too narrow")


def test_wrong_correlation_is_seen_by_the_joint_density_alone():
    """Marginals that are exact are calibrated one by one."""

    class Mirrored(ExactPosterior):
        def forward(self, x: Tensor):
            q: Any = super().forward(x)
            sign = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=x.dtype)
            return MultivariateNormal(q.mean, q.covariance_matrix * sign)

    found = calibrate(pca(Mirrored))
    assert found.readings[:2] == ("calibrated", "calibrated")
    assert found.readings[2] == "q too wide or misplaced"


# A skewed posterior


class Cells(Distribution):
    """A density that is constant in every cell of a grid."""

    def __init__(self, weight: Tensor, points: Tensor, width: float):
        super().__init__(weight.shape[:1], points.shape[1:], validate_args=False)
        self.weight, self.points, self.width = weight, points, width

    def sample(self, sample_shape: Any = ()) -> Tensor:
        cell = self.weight.multinomial(Size(sample_shape).numel(), replacement=True).mT
        jitter = torch.rand(*cell.shape, 2, dtype=self.points.dtype) - 0.5
        return (self.points[cell] + self.width * jitter).view(self._extended_shape(Size(sample_shape)))

    def covariance(self) -> Tensor:
        off = self.points - (self.weight @ self.points).unsqueeze(1)
        return torch.einsum("bg,bgi,bgj->bij", self.weight, off, off)


class OnGrid(nn.Module):
    """The posterior of the skewed counts, by quadrature; or a normal of its covariance about its mode."""

    def __init__(self, *, normal: bool = False):
        super().__init__()
        axis = torch.linspace(-6, 6, 121, dtype=torch.float64)
        self.points, self.width, self.normal = torch.cartesian_prod(axis, axis), 0.1, normal
        self.log_rates = Rates()(self.points)
        self.log_prior = -self.points.square().sum(1) / 2

    def forward(self, x: Tensor) -> Distribution:
        logits = x @ self.log_rates.mT - self.log_rates.exp().sum(1) + self.log_prior
        q = Cells(logits.softmax(1), self.points, self.width)
        return MultivariateNormal(self.points[logits.argmax(1)], q.covariance()) if self.normal else q


def test_a_skewed_posterior_is_calibrated_by_its_own_samples():
    model = skewed_model()
    model.posterior = OnGrid()
    found = calibrate(model, 1000)
    assert found.readings == ("calibrated",) * 3
    assert found.p_value > 0.01


@pytest.mark.slow
def test_a_normal_about_the_mode_of_a_skewed_posterior_is_found_out():
    """As Laplace's approximation has it: z1 leans to the left, its mode lies above most of it; z2 to the right."""
    model = skewed_model()
    model.posterior = OnGrid(normal=True)
    found = calibrate(model, 5000)
    assert found.readings == ("q too high", "q too low", "q of the wrong shape")
    assert calibrate(skewed_model(), 500).p_value < 1e-6  # a rough guess, wrong in place and width, too


def test_two_humps_of_the_right_place_and_width_have_the_wrong_shape():
    class Humps(ExactPosterior):
        def forward(self, x: Tensor):
            q: Any = super().forward(x)
            loc, scale = q.mean.unsqueeze(2), q.variance.sqrt().unsqueeze(2)
            humps = Normal(loc + HUMP * scale * torch.tensor([-1.0, 1.0]), (WIDTH * scale).expand(-1, -1, 2))
            return Independent(MixtureSameFamily(Categorical(torch.ones(len(x), 2, 2)), humps), 1)

    assert calibrate(pca(Humps), 2000).readings[:2] == ("q of the wrong shape",) * 2


# Discrete latents, layers and context


class States(Distribution):
    """Vectors of three bits, any distribution over the eight of them."""

    def __init__(self, logits: Tensor, states: Tensor):
        super().__init__(logits.shape[:1], states.shape[1:], validate_args=False)
        self.logits, self.states = logits, states

    def sample(self, sample_shape: Any = ()) -> Tensor:
        drawn = self.logits.softmax(1).multinomial(Size(sample_shape).numel(), replacement=True).mT
        return self.states[drawn].view(self._extended_shape(Size(sample_shape)))


class Enumerated(nn.Module):
    """The exact posterior of bits, tempered."""

    def __init__(self, power: float):
        super().__init__()
        self.power, self.model = power, []  # in a list: the model owns its posterior, not the other way round

    def forward(self, x: Tensor):
        states = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=x.dtype)] * 3)
        log_joint = self.model[0].log_joint(x, states[:, None].expand(8, len(x), 3))
        return States(self.power * log_joint.mT, states)


@pytest.mark.parametrize("power, is_calibrated", [(1.0, True), (0.3, False)])
def test_equal_ranks_of_bits_are_uniform_for_the_enumerated_posterior_alone(power: float, is_calibrated: bool):
    prior, decoder = BernoulliPrior(3), nn.Linear(3, 4)
    with torch.no_grad():
        prior.logits.copy_(torch.tensor([1.0, -1.5, 0.5]))
        decoder.weight.mul_(4)
    posterior = Enumerated(power)
    model = VAE(prior, Conditional(BernoulliFamily((4,)), decoder), posterior).double()
    posterior.model.append(model)
    found = calibrate(model, 1000)
    assert found.names == ("z1", "z2", "z3", LOG_JOINT)
    assert found.is_calibrated == is_calibrated
    assert (found.p_value > 0.01) == is_calibrated


def test_equal_values_that_differ_by_rounding_are_ranked_at_random():
    value = torch.tensor([1.0, 1 + 1e-15, 1 - 1e-15, 1.0], dtype=torch.float64)
    ranks = calibration._rank(value.unsqueeze(1).expand(4, 4000))
    assert stats.chisquare(ranks.bincount(minlength=4).numpy()).pvalue > 0.001
    distinct = torch.tensor([[2.0, -1.0], [1.0, 0.0], [3.0, 1.0], [0.0, 2.0]])
    assert calibration._rank(distinct).tolist() == [2, 0]


def test_layers_are_ranked_element_by_element():
    class Two:
        """``a ~ N(0, 1)``, ``b_i ~ N(0, 1)``, and x tells nothing of them: the posterior is the prior, less of b."""

        def sample(self, num_samples: int, context: Any = None):
            z = {"a": torch.randn(num_samples), "b": torch.randn(num_samples, 2)}
            return z, Normal(torch.zeros(num_samples, 1), torch.ones(num_samples, 1))

        def draw(self, x: Tensor, context: Any = None, *, num_samples: int = 1, path: Any = True) -> Any:
            a, b = torch.randn(num_samples, len(x)), torch.randn(num_samples, len(x), 2)
            return SimpleNamespace(z={"a": a, "b": b * torch.tensor([0.4, 1.0])})

        def log_joint(self, x: Tensor, z: Any, context: Any = None) -> Tensor:
            return -(z["a"].square() + z["b"].square().sum(-1)) / 2 - x.square().sum(-1) / 2

    found = calibrate(cast(Any, Two()), 600)
    assert found.names == ("a.1", "b.1", "b.2", LOG_JOINT)
    assert found.readings == ("calibrated", "q too narrow", "calibrated", "q too narrow")


def test_every_datum_has_its_row_of_the_context():
    class Shifted(nn.Module):
        def forward(self, z: Tensor, label: Tensor):
            return Independent(Normal(z + label.unsqueeze(1), torch.ones_like(z)), 1)

    seen: list[Tensor] = []

    class Exact(nn.Module):
        def forward(self, x: Tensor, label: Tensor):
            seen.append(label)
            loc = (x - label.unsqueeze(1)) / 2
            return Independent(Normal(loc, torch.full_like(loc, 0.5**0.5)), 1)

    model = VAE(StandardNormal(1), Shifted(), Exact()).double()
    label = 10 * torch.randn(250, dtype=torch.float64)
    assert calibrate(model, 250, context={"label": label}, batch_size=60).is_calibrated
    assert torch.equal(torch.cat(seen), label)
    with pytest.raises(InputError, match="the context 'label' has 250 rows for 300 examples"):
        calibrate(model, 300, context={"label": label})


def test_the_same_ranks_at_every_call_by_seed_and_nothing_else_is_touched():
    model, state = pca(), torch.get_rng_state()
    found = calibrate(model, 130, num_ranks=39)
    assert torch.equal(found.ranks, calibrate(model, 130, num_ranks=39).ranks)
    assert not torch.equal(found.ranks, calibrate(model, 130, num_ranks=39, seed=1).ranks)
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    assert found.ranks.shape == (130, 3)
    assert found.num_ranks == 39
    assert calibrate(probabilistic_pca(5, 2), 100).p_value > 1e-4  # in single precision, too


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_ranks": 100}, "101 possible ranks do not fill 20 bins evenly"),
        ({"num_bins": 1}, "use 2 bins or more"),
        ({"num_data": 99}, "needs 5 examples per bin, 100 for 20; got 99"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"level": 1.0}, "level between 0 and 1"),
    ],
)
def test_what_cannot_be_tested_is_refused(options: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        calibrate(pca(), **options)


# The picture


def test_the_worst_histograms_come_first_and_stand_on_the_ranks():
    found = calibrate(pca(MeanFieldPosterior), 500)
    figure = rank_histograms(
        found.counts.numpy(), found.names, found.readings, found.p_values.numpy(), num_ranks=found.num_ranks
    )
    figure.canvas.draw()
    panels = [axes for axes in figure.axes if axes.get_visible()]
    worst = int(found.p_values.argmin())
    assert panels[0].get_title(loc="left") == f"{found.names[worst]}: q too narrow"
    assert panels[2].get_title(loc="left") == "log p(x, z): calibrated"
    bars = [patch for patch in panels[0].patches if isinstance(patch, Rectangle)][-20:]
    assert [bar.get_height() for bar in bars] == found.counts[worst].tolist()
    assert (bars[0].get_x(), bars[-1].get_x() + bars[-1].get_width()) == (-0.5, 99.5)


def test_of_many_quantities_sixteen_are_shown():
    counts, p_values = np.full((20, 10), 30), np.linspace(0.02, 1, 20)
    readings = ["calibrated"] * 18 + ["q too low"] * 2
    names = [f"z{i + 1}" for i in range(20)]
    figure = rank_histograms(counts, names, readings, p_values, num_ranks=99)
    figure.canvas.draw()
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[:3] == ["z19: q too low", "z20: q too low", "z1: calibrated"]
    assert len(titles) == 16
    assert "16 worst of 20" in figure.get_suptitle()


@pytest.mark.parametrize("num_data, share", [(100, 0.05), (1000, 0.05), (20_000, 0.1)])
def test_the_band_is_the_binomials(num_data: int, share: float):
    assert _band(num_data, share) == tuple(stats.binom.ppf([0.005, 0.995], num_data, share))
