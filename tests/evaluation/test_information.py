"""Mutual information, total correlation and the aggregate posterior: quadrature, enumeration, identities."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, MultivariateNormal, Normal, kl_divergence
from torch.testing import assert_close

from subo import (
    VAE,
    CategoricalPrior,
    Conditional,
    Draw,
    Gaussian,
    GaussianMixture,
    InputError,
    InverseAutoregressiveFlow,
    OneHotCategorical,
    StandardNormal,
    mlp,
)
from subo import Bernoulli as BernoulliFamily
from subo.data.splits import Split
from subo.evaluation.latents import information
from subo.evaluation.latents.information import mutual_information
from subo.evaluation.latents.total_correlation import TotalCorrelation, total_correlation
from subo.evaluation.latents.usage import latent_usage
from subo.parts.labels import ByLabel, Labelled
from subo.report.full import Depth, evaluate_fully


class Linear(nn.Module):
    """``q(z|x) = N(a x, s^2)``, in one dimension."""

    def __init__(self, slope: float, scale: float):
        super().__init__()
        self.slope, self.scale = slope, scale

    def forward(self, x: Tensor):
        loc = self.slope * x
        return Independent(Normal(loc, torch.full_like(loc, self.scale), validate_args=False), 1, validate_args=False)


class Bits(nn.Module):
    """Independent bits with logits linear in x, or without x."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor):
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor | None = None):
        logits = self.bias if x is None else x @ self.weight + self.bias
        return Independent(Bernoulli(logits=logits, validate_args=False), 1, validate_args=False)


def linear(slope: float = 1.5, scale: float = 0.4) -> VAE:
    likelihood = Conditional(Gaussian((1,)), nn.Linear(1, 2))
    return VAE(StandardNormal(1), likelihood, Linear(slope, scale)).double()


def known(value: float | None) -> float:
    """A term that this prior leaves nothing unknown of."""
    assert value is not None
    return value


def numbers(n: int) -> Split:
    return Split(torch.randn(n, 1, dtype=torch.float64))


def by_quadrature(model: VAE, x: Tensor) -> tuple[float, float]:
    """``I(x; z)`` and ``KL(q(z) || p(z))``: the aggregate posterior of a finite set is a finite mixture."""
    grid = torch.linspace(-12, 12, 20_001, dtype=torch.float64)
    log_q = model.posterior(x).base_dist.log_prob(grid[:, None, None])[..., 0]  # (G, N)
    log_aggregate = log_q.logsumexp(1) - math.log(len(x))
    log_prior = Normal(0.0, 1.0).log_prob(grid)

    def integral(values: Tensor) -> float:
        return float(torch.trapezoid(values, grid))

    terms = (log_q.exp() * (log_q - log_aggregate[:, None])).mean(1)
    return integral(terms), integral(log_aggregate.exp() * (log_aggregate - log_prior))


@pytest.mark.parametrize("slope, scale", [(1.5, 0.4), (0.2, 1.0), (3.0, 0.01)])
def test_both_terms_agree_with_quadrature_in_one_dimension(slope: float, scale: float):
    model, split = linear(slope, scale), numbers(12)
    truth, marginal = by_quadrature(model, split.x)
    found = mutual_information(model, split, num_samples=2000)
    assert abs(found.value - truth) < 5 * found.standard_error + 1e-6
    assert abs(known(found.marginal_kl) - marginal) < 5 * known(found.marginal_kl_se)
    assert found.standard_error < 0.02
    assert found.num_data == 12
    assert found.num_samples == 2000
    assert found.ceiling == math.log(12)


def test_discrete_latents_agree_with_enumeration():
    weight = torch.randn(2, 3, dtype=torch.float64)
    prior = Bits(torch.zeros(0), torch.tensor([0.5, -1.0, 0.0], dtype=torch.float64))
    posterior = Bits(2 * weight, torch.zeros(3, dtype=torch.float64))
    model = VAE(prior, Conditional(Gaussian((2,)), mlp(3, 4)), posterior).double()
    x = torch.randn(9, 2, dtype=torch.float64)
    states = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 3)
    log_q = posterior(x).log_prob(states[:, None].expand(8, 9, 3))
    aggregate = log_q.exp().mean(1)
    truth = (log_q.exp() * (log_q - aggregate.log()[:, None])).sum(0).mean()
    marginal = (aggregate * (aggregate.log() - prior().log_prob(states))).sum()
    found = mutual_information(model, Split(x), num_samples=5000)
    assert abs(found.value - truth) < 5 * found.standard_error
    assert abs(known(found.marginal_kl) - marginal) < 5 * known(found.marginal_kl_se)


def test_the_rate_is_their_sum_and_that_of_the_posterior():
    model, split = linear(), numbers(50)
    found = mutual_information(model, split, num_samples=500)
    assert found.rate == pytest.approx(found.value + known(found.marginal_kl), abs=1e-12)
    exact = kl_divergence(model.posterior(split.x), Independent(Normal(torch.zeros(1), torch.ones(1)), 1)).mean()
    assert abs(found.rate - exact) < 5 * (found.standard_error + known(found.marginal_kl_se))


def test_a_collapsed_posterior_tells_nothing_and_a_sharp_one_all_that_is_to_tell():
    collapsed = mutual_information(linear(slope=0.0), numbers(50))
    assert collapsed.value == pytest.approx(0.0, abs=1e-12)
    sharp = mutual_information(linear(scale=1e-9), numbers(50))
    assert sharp.value == pytest.approx(sharp.ceiling, abs=1e-9)
    assert sharp.value <= sharp.ceiling
    assert mutual_information(linear(), numbers(1)).value == 0.0


def test_the_same_numbers_at_every_call_by_seed_and_whatever_the_chunks(monkeypatch: pytest.MonkeyPatch):
    model, split = linear(), numbers(70)
    state = torch.get_rng_state()
    found = mutual_information(model, split)
    assert found == mutual_information(model, split)
    assert found != mutual_information(model, split, seed=1)
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    monkeypatch.setattr(information, "_NUMBERS", 500)
    assert mutual_information(model, split).value == pytest.approx(found.value, rel=1e-12)
    monkeypatch.setattr(information, "_ENCODED", 15)  # the samples are others
    several = mutual_information(model, split, num_samples=100)
    assert abs(several.value - by_quadrature(model, split.x)[0]) < 5 * several.standard_error


def test_a_subset_of_many_data_keeps_their_index_and_labels():
    """A local posterior has a row for each index of the split."""
    seen = []

    class Named(Linear):
        def forward(self, x: Tensor, index: Tensor, label: Tensor):  # pyright: ignore
            seen.append((x, index, label))
            return super().forward(x)

    model = linear()
    model.posterior = Named(1.0, 1.0)
    split = Split(torch.arange(100.0).unsqueeze(1).double(), labels=torch.arange(100) % 7)
    assert mutual_information(model, split, max_data=30).num_data == 30
    (x, index, label) = seen[0]
    assert len(set(index.tolist())) == 30
    assert torch.equal(x[:, 0], index.double())
    assert torch.equal(label, index % 7)


def test_flow_posteriors_whose_density_needs_the_inverse():
    family = InverseAutoregressiveFlow((2,), transforms=1, hidden=(8,))
    posterior = Conditional(family, mlp(1, family.num_params, hidden=(8,)))
    model = VAE(StandardNormal(2), Conditional(Gaussian((1,)), nn.Linear(2, 2)), posterior).double()
    split = numbers(20)
    found = mutual_information(model, split, num_samples=50)
    assert -5 * found.standard_error < found.value <= found.ceiling
    draw = model.draw(split.x, num_samples=2000, path=False)
    rate = (draw.log_posterior - draw.log_prior).mean()  # in one pass, without the inverse
    assert abs(found.rate - rate) < 5 * (found.standard_error + known(found.marginal_kl_se))


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(InputError, match="max_data and num_samples must be at least 1: got 1000 and 0"):
        mutual_information(linear(), numbers(3), num_samples=0)
    with pytest.raises(InputError, match="there are no data"):
        mutual_information(linear(), numbers(0))
    assert mutual_information(linear(), numbers(5), num_samples=1).standard_error == math.inf


def test_several_layers_are_refused():
    class Two(VAE):
        def draw(self, x, context=None, *, num_samples=1, path=True):
            draw = super().draw(x, context, num_samples=num_samples, path=path)
            z: Any = draw.z
            return Draw({"a": z, "b": z}, draw.q, draw.factors * 2, lambda: draw.log_likelihood)

    model = linear()
    with pytest.raises(InputError, match="this model has 2 stochastic layers"):
        mutual_information(Two(model.prior, model.likelihood, model.posterior), numbers(5))


# Within classes


class BitsOfAClass(nn.Module):
    """``q(z|x, c)``: near the prior of the class, and moved by x."""

    def __init__(self, prior: ByLabel, weight: Tensor):
        super().__init__()
        self._prior, self.weight = (prior,), weight

    def forward(self, x: Tensor, label: Tensor) -> Distribution:
        return Independent(Bernoulli(logits=self._prior[0].params[label] + x @ self.weight, validate_args=False), 1)


def of_classes(*, told: bool = True) -> tuple[VAE, Split]:
    """Three bits whose probabilities hang on the class; of unequal classes, one of them a lone example."""
    prior = ByLabel(BernoulliFamily((3,)), num_labels=3).double()
    with torch.no_grad():
        prior.params.copy_(torch.tensor([[3.0, -3.0, 0.0], [-3.0, 2.0, 1.0], [0.0, 3.0, -2.0]]))
    weight = torch.tensor([[1.0, 1.0, -0.5], [0.0, 0.5, 1.0]], dtype=torch.float64)
    posterior = BitsOfAClass(prior, weight) if told else Bits(weight, torch.zeros(3, dtype=torch.float64))
    likelihood = Conditional(Gaussian((2,)), Labelled(mlp(6, 4), num_labels=3)).double()
    split = Split(torch.randn(12, 2, dtype=torch.float64), labels=torch.tensor([0, 1, 0, 2, 1, 0, 1, 0, 0, 1, 0, 1]))
    return VAE(prior, likelihood, posterior), split


def enumerated(model: VAE, split: Split) -> dict[str, float]:
    """Means over the classes, each by its share, of what the eight states give."""
    states = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 3)
    label = split.labels
    assert label is not None
    context = {"label": label} if isinstance(model.posterior, BitsOfAClass) else {}
    log_q = model.posterior(split.x, **context).log_prob(states[:, None].expand(8, 12, 3)).detach()
    found: dict[str, float] = {}
    for c in label.unique():
        own, share = log_q[:, label == c], float((label == c).double().mean())
        aggregate = own.exp().mean(1)
        ones = aggregate @ states
        log_product = (states * ones.log() + (1 - states) * (1 - ones).log()).sum(1)
        log_prior = model.prior(label=c.unsqueeze(0)).log_prob(states).detach()
        terms = {
            "information": (own.exp() * (own - aggregate.log()[:, None])).sum(0).mean(),
            "marginal": (aggregate * (aggregate.log() - log_prior)).sum(),
            "correlation": (aggregate * (aggregate.log() - log_product)).sum(),
            "dimensions": (aggregate * (log_product - log_prior)).sum(),
        }
        for name, value in terms.items():
            found[name] = found.get(name, 0.0) + share * float(value)
    return found


@pytest.mark.parametrize("told", [True, False])
def test_with_a_prior_for_each_class_the_rate_is_cut_within_classes(told: bool):
    """Held against q(z) of all classes, the mean of log q - log p is -0.6: no divergence."""
    model, split = of_classes(told=told)
    truth = enumerated(model, split)
    found = mutual_information(model, split, num_samples=5000)
    assert abs(found.value - truth["information"]) < 5 * found.standard_error
    assert abs(known(found.marginal_kl) - truth["marginal"]) < 5 * known(found.marginal_kl_se)
    assert found.standard_error < 0.02
    assert found.rate == pytest.approx(found.value + known(found.marginal_kl), abs=1e-12)
    assert abs(found.rate - truth["information"] - truth["marginal"]) < 5 * found.rate_se
    assert (found.given, found.received) == (("label",), ("label",))
    assert found.ceiling == pytest.approx((6 * math.log(6) + 5 * math.log(5)) / 12)
    parts = measured(model, split, num_samples=5000)
    assert (parts.marginal_kl, parts.given) == (found.marginal_kl, ("label",))
    assert abs(parts.value - truth["correlation"]) < 5 * parts.standard_error
    assert abs(known(parts.dimension_kl) - truth["dimensions"]) < 5 * known(parts.dimension_kl_se)


def test_the_full_table_names_what_is_within_classes_and_no_divergence_is_below_0():
    model, split = of_classes()
    depth = Depth(num_samples=20, intensive_data=2, temperatures=2, chains=2, gap_steps=1, calibration_data=100)
    table = {line.name: line for line in evaluate_fully(model, split, depth=depth).numbers()}
    parts = [
        table[name]
        for name in (
            "I(x; z | c) within classes",
            "KL(q(z|c) || p(z|c)) within classes",
            "  their sum, the rate by these samples",
            "total correlation within classes",
            "KL of the dimensions within classes",
        )
    ]
    assert parts[0].value + parts[1].value == pytest.approx(parts[2].value, abs=1e-12)
    assert parts[3].value + parts[4].value == pytest.approx(parts[1].value, abs=1e-12)
    for line in parts:
        assert line.standard_error is not None
        assert line.value > -5 * line.standard_error
    truth = enumerated(model, split)
    assert abs(parts[1].value - truth["marginal"]) < 5 * (parts[1].standard_error or 0)
    assert "E log N_c" in parts[0].estimator


def test_one_prior_of_all_classes_is_held_against_the_aggregate_of_all_and_the_information_is_of_both():
    model, split = of_classes()
    model.prior = Bits(torch.zeros(0), torch.tensor([0.5, -1.0, 0.0], dtype=torch.float64))
    depth = Depth(num_samples=20, intensive_data=2, temperatures=2, chains=2, gap_steps=1, calibration_data=100)
    table = {line.name for line in evaluate_fully(model, split, depth=depth).numbers()}
    assert {"mutual information I((x, c); z)", "marginal KL(q(z) || p(z))"} <= table
    found = mutual_information(model, split)
    assert (found.given, found.received, found.ceiling) == ((), ("label",), math.log(12))


def test_a_mean_that_only_the_class_moves_makes_no_active_unit():
    """The first latent is the prior of its class, the second follows x."""
    prior = ByLabel(Gaussian((2,)), num_labels=2).double()
    with torch.no_grad():
        prior.params[1, 0] = 5.0

    class Posterior(nn.Module):
        def forward(self, x: Tensor, label: Tensor) -> Distribution:
            loc = torch.cat([5.0 * label.unsqueeze(1), x + 5.0 * label.unsqueeze(1)], dim=1)
            return Independent(Normal(loc, torch.ones_like(loc)), 1)

    model = VAE(prior, Conditional(Gaussian((1,)), nn.Linear(2, 2)).double(), Posterior())
    split = Split(torch.randn(400, 1, dtype=torch.float64), labels=torch.arange(400) % 2)
    usage = latent_usage(model, split, batch_size=150)
    assert usage.active.tolist() == [False, True]
    own = torch.stack([split.x[c::2, 0].var() for c in (0, 1)]).mean()
    assert_close(usage.variance, torch.stack([torch.zeros_like(own), own]))


# Total correlation


class Plane(nn.Module):
    """Both latents follow the same number, ``q(z|x) = N((a x, b x), S)``; S diagonal, or as it is."""

    def __init__(self, slopes: tuple[float, float], covariance: Tensor, *, diagonal: bool):
        super().__init__()
        self.slopes, self.covariance, self.diagonal = torch.tensor(slopes, dtype=torch.float64), covariance, diagonal

    def forward(self, x: Tensor) -> Distribution:
        loc = x * self.slopes
        if self.diagonal:
            scale = self.covariance.diagonal().sqrt().expand_as(loc)
            return Independent(Normal(loc, scale, validate_args=False), 1, validate_args=False)
        return MultivariateNormal(loc, self.covariance, validate_args=False)


def plane(slopes: tuple[float, float], *, diagonal: bool = True, prior: nn.Module | None = None) -> VAE:
    covariance = torch.tensor([[0.3, 0.2], [0.2, 0.5]], dtype=torch.float64)
    likelihood = Conditional(Gaussian((1,)), nn.Linear(2, 2))
    return VAE(prior or StandardNormal(2), likelihood, Plane(slopes, covariance, diagonal=diagonal)).double()


def measured(model: VAE, split: Split, **options: Any) -> TotalCorrelation:
    found = total_correlation(model, split, **options)
    assert found is not None
    return found


def on_the_plane(model: VAE, x: Tensor) -> tuple[float, float, float]:
    """Total correlation, dimension-wise and marginal KL, all from the density on a grid and its sums over rows."""
    axis = torch.linspace(-9, 9, 301, dtype=torch.float64)
    step = float(axis[1] - axis[0])
    z = torch.cartesian_prod(axis, axis)
    aggregate = model.posterior(x).log_prob(z.unsqueeze(1).expand(-1, len(x), 2)).exp().mean(1).view(301, 301)
    prior = model.prior().log_prob(z).exp().view(301, 301)

    def divergence(q: Tensor, p: Tensor, cell: float) -> float:
        return float(torch.special.xlogy(q, q / p).sum() * cell)

    first, second = aggregate.sum(1) * step, aggregate.sum(0) * step
    standard = Normal(0.0, 1.0).log_prob(axis).exp()
    by_dimension = divergence(first, standard, step) + divergence(second, standard, step)
    product = first.unsqueeze(1) * second
    return divergence(aggregate, product, step**2), by_dimension, divergence(aggregate, prior, step**2)


@pytest.mark.parametrize("diagonal", [True, False])
@pytest.mark.parametrize("slopes", [(1.0, 1.5), (2.0, -0.5), (0.0, 1.0)])
def test_total_correlation_agrees_with_quadrature_in_the_plane(slopes: tuple[float, float], diagonal: bool):
    model, split = plane(slopes, diagonal=diagonal), numbers(7)
    correlation, by_dimension, marginal = on_the_plane(model, split.x)
    found = measured(model, split, num_samples=2000)
    assert abs(found.value - correlation) < 5 * found.standard_error + 1e-6
    assert abs(known(found.dimension_kl) - by_dimension) < 5 * known(found.dimension_kl_se)
    assert abs(known(found.marginal_kl) - marginal) < 5 * known(found.marginal_kl_se)
    assert found.standard_error < 0.02
    assert (correlation < 1e-9) == (diagonal and slopes[0] == 0)


def test_two_latents_of_one_number_are_correlated_and_of_none_are_not():
    both = measured(plane((2.0, 2.0)), numbers(200))
    assert both.value > 0.7
    nothing = measured(plane((0.0, 0.0)), numbers(200))
    assert nothing.value == pytest.approx(0.0, abs=1e-12)
    assert nothing.dimension_kl == pytest.approx(nothing.marginal_kl, abs=1e-12)


def test_the_marginal_kl_is_the_sum_of_its_parts_and_that_of_the_mutual_information():
    model, split = plane((1.0, 1.5)), numbers(300)
    found, information = measured(model, split, max_data=60), mutual_information(model, split, max_data=60)
    assert found.value + known(found.dimension_kl) == pytest.approx(found.marginal_kl, abs=1e-12)
    assert (found.marginal_kl, found.marginal_kl_se) == (information.marginal_kl, information.marginal_kl_se)
    assert (found.num_data, found.num_samples) == (60, 4)


def test_total_correlation_of_bits_agrees_with_enumeration():
    weight = torch.tensor([[2.0, 2.0, -1.0], [0.0, 1.0, 3.0]], dtype=torch.float64)
    prior = Bits(torch.zeros(0), torch.tensor([0.5, -1.0, 0.0], dtype=torch.float64))
    model = VAE(prior, Conditional(Gaussian((2,)), mlp(3, 4)), Bits(weight, weight[0] / 4)).double()
    x = torch.randn(9, 2, dtype=torch.float64)
    states = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 3)
    aggregate = model.posterior(x).log_prob(states[:, None].expand(8, 9, 3)).exp().mean(1)
    ones = aggregate @ states
    log_product = (states * ones.log() + (1 - states) * (1 - ones).log()).sum(1)
    found = measured(model, Split(x), num_samples=5000)
    correlation = (aggregate * (aggregate.log() - log_product)).sum()
    assert correlation > 0.1
    assert abs(found.value - correlation) < 5 * found.standard_error
    by_dimension = (aggregate * (log_product - prior().log_prob(states))).sum()
    assert abs(known(found.dimension_kl) - by_dimension) < 5 * known(found.dimension_kl_se)


def test_a_category_is_one_dimension():
    """Its C numbers sum to 1, which would be correlation enough."""
    family = OneHotCategorical((2,), num_classes=3)
    posterior = Conditional(family, nn.Linear(1, family.num_params))
    model = VAE(CategoricalPrior(2, num_classes=3), Conditional(Gaussian((1,)), mlp(6, 2)), posterior).double()
    with torch.no_grad():
        network: Any = posterior.network
        network.weight.mul_(6)
        model.prior.logits.copy_(torch.tensor([[0.0, 1.0, 2.0], [1.0, 0.0, 0.0]]))
    split = numbers(8)
    probs = posterior(split.x).base_dist.probs.detach()  # (N, 2, C)
    aggregate = torch.einsum("na,nb->ab", probs[:, 0], probs[:, 1]) / 8
    product = probs[:, 0].mean(0).unsqueeze(1) * probs[:, 1].mean(0)
    prior = model.prior.logits.detach().softmax(1)
    found = measured(model, split, num_samples=3000)
    correlation = (aggregate * (aggregate / product).log()).sum()
    assert correlation > 0.1
    assert abs(found.value - correlation) < 5 * found.standard_error
    by_dimension = (probs.mean(0) * (probs.mean(0) / prior).log()).sum()
    assert abs(known(found.dimension_kl) - by_dimension) < 5 * known(found.dimension_kl_se)


def test_where_marginals_or_a_factorized_prior_are_missing():
    split = numbers(6)
    mixture = plane((1.0, 1.5), prior=GaussianMixture(2, components=3))
    found, standard = measured(mixture, split), measured(plane((1.0, 1.5)), split)
    assert found.dimension_kl is None
    assert found.dimension_kl_se is None
    assert found.value == standard.value
    assert found.marginal_kl != standard.marginal_kl
    family = InverseAutoregressiveFlow((2,), transforms=1, hidden=(8,))
    flow = Conditional(family, mlp(1, family.num_params, hidden=(8,)))
    assert total_correlation(VAE(mixture.prior, mixture.likelihood, flow).double(), split) is None


def test_total_correlation_is_the_same_at_every_call_and_whatever_the_chunks(monkeypatch: pytest.MonkeyPatch):
    model, split = plane((1.0, 1.5)), numbers(70)
    state = torch.get_rng_state()
    found = measured(model, split)
    assert found == measured(model, split)
    assert found != measured(model, split, seed=1)
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    with monkeypatch.context() as patch:
        patch.setattr(information, "_NUMBERS", 1000)
        assert measured(model, split).value == pytest.approx(found.value, rel=1e-12)
    monkeypatch.setattr(information, "_ENCODED", 15)
    several = measured(model, split, num_samples=100)
    assert abs(several.value - on_the_plane(model, split.x)[0]) < 5 * several.standard_error
    assert measured(model, split, num_samples=1).standard_error == math.inf
    with pytest.raises(InputError, match="there are no data"):
        total_correlation(model, numbers(0))
