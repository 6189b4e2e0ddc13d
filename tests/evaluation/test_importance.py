"""log p(x) by samples of the posterior and of the prior, and the tails of the weights: exact answers, ArviZ itself."""

import itertools
import math

import numpy as np
import pytest
import torch
from arviz_stats.base import array_stats
from scipy.stats import binom, genpareto
from torch import Tensor, nn
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Distribution, Independent
from torch.testing import assert_close

from catalog import Wide
from quadrature import exact_log_px, skewed_data, skewed_model
from subo import VAE, Conditional, GaussianMixture, InputError, StandardNormal, VampPrior, mlp
from subo import Gaussian as GaussianFamily
from subo.data.splits import Split
from subo.distributions.discrete import Bernoulli
from subo.evaluation.evidence.importance import WeightSums, log_marginal
from subo.evaluation.evidence.pareto import WeightTail, highest_pareto_k, pareto_k, tail_length
from subo.evaluation.evidence.prior_sampling import log_marginal_from_prior
from subo.evaluation.scores import latents_at_a_time, score
from subo.evaluation.summary import measure
from subo.models.probabilistic_pca import ExactPosterior, LinearGaussian, MeanFieldPosterior
from subo.typing import Path


def pareto(k: float, num: int, data: int = 1) -> Tensor:
    """Log-weights of a Pareto distribution of shape k: ``u^-k``."""
    return -k * torch.rand(num, data, dtype=torch.float64).log()


def arviz(log_weight: Tensor) -> Tensor:
    """ArviZ's k-hat of all the weights; psislw takes log-likelihoods, of which the weights are the inverse."""
    return torch.from_numpy(array_stats.psislw(-log_weight.mT.numpy())[1])


# Pareto k-hat


@pytest.mark.parametrize("num_samples", [25, 26, 224, 225, 226, 227, 228, 229, 230, 1000, 1001, 20_000])
def test_the_tail_alone_has_arvizs_k_hat_of_all_weights(num_samples):
    log_weight = torch.cat([pareto(0.9, num_samples, 3), torch.randn(num_samples, 3, dtype=torch.float64)], dim=1)
    tail = WeightTail(6, num_samples)
    for part in log_weight.split(17):
        tail.add(part)
    assert_close(tail.pareto_k(), arviz(log_weight), rtol=0, atol=1e-12)
    assert_close(pareto_k(log_weight, num_samples), arviz(log_weight), rtol=0, atol=1e-12)


@pytest.mark.parametrize("k", [0.05, 0.7, 3.0])
@pytest.mark.parametrize("spread", [0.01, 1.0, 30.0, 100.0])
def test_steep_and_flat_tails_have_arvizs_k_hat(k: float, spread: float):
    for log_weight in (pareto(k, 500, 20), spread * torch.randn(500, 20, dtype=torch.float64)):
        assert_close(pareto_k(log_weight, 500), arviz(log_weight), rtol=1e-12, atol=1e-12)


def test_a_fit_whose_grid_meets_the_exponential_distribution_is_that_beside_it():
    """At theta = 0 sigma is the mean, where ``k / theta`` is 0 / 0: ArviZ leaves all weights out."""
    tail = [30, 30, 31, 31, 33, 33, 34, 34, 35, 35, 35, 35, 36, 36, 37, 37, 37, 37, 38, 38, 39]
    weights = torch.tensor([*range(1, 30), *[1] * 50, *tail], dtype=torch.float64)
    torch.manual_seed(0)
    beside = (weights + 1e-7 * torch.randn(100, dtype=torch.float64)).log()
    assert_close(pareto_k(weights.log()[:, None], 100), arviz(beside[:, None]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("k", [0.1, 0.5, 0.9, 1.5])
def test_k_hat_is_the_shape_of_known_tails(k):
    num_samples = 40_000
    found = pareto_k(pareto(k, num_samples, 50), num_samples)
    length = tail_length(num_samples)
    # The estimate's asymptotic standard deviation is (1 + k) / sqrt(M); its prior pulls it towards 1/2 as 10 weights.
    pulled = (length * k + 10 * 0.5) / (length + 10)
    within = 5 * (1 + k) / math.sqrt(length * 50) + 0.01
    assert abs(found.mean() - pulled) < within


def test_k_hat_knows_no_unit_of_the_weights_and_is_no_sum_over_data():
    log_weight = pareto(0.6, 2000, 4)
    shifted = log_weight + torch.tensor([0.0, -5000.0, 300.0, 4.0], dtype=torch.float64)
    assert_close(pareto_k(shifted, 2000), pareto_k(log_weight, 2000), rtol=0, atol=1e-6)
    assert_close(pareto_k(log_weight[:, 2:3], 2000)[0], pareto_k(log_weight, 2000)[2], rtol=0, atol=0)


def test_weights_without_a_tail_have_no_k_hat():
    assert pareto_k(pareto(0.5, 24, 3), 24).isnan().all()
    assert pareto_k(torch.zeros(100, 2).double(), 100).isnan().all()
    ties = torch.randint(1, 4, (1000, 2)).double().log()
    assert pareto_k(ties, 1000).isnan().all()
    one = torch.zeros(1000, 1).double()
    one[3] = 0.5
    assert pareto_k(one, 1000).isnan().all()


def test_weights_that_vanish_beside_the_largest_have_the_worst_k_hat():
    assert (pareto_k(1000 * torch.randn(1000, 2).double(), 1000) == math.inf).all()
    steep = torch.linspace(-1, 0, 1000, dtype=torch.float64)[:, None] * torch.tensor([7_000.0, 9_900.0, 10_500.0, 1e5])
    assert (pareto_k(steep, 1000) > 100).all()  # where a part of the tail is not 0 beside the largest weight, too
    zeros = torch.full((1000, 1), -math.inf).double()
    zeros[:5] = torch.randn(5, 1).double()
    assert (pareto_k(zeros, 1000) == math.inf).all()


def test_only_the_tail_is_kept_of_however_many_weights():
    num_samples = 1_000_000
    tail, most = WeightTail(2, num_samples), 0
    for _ in range(100):
        tail.add(torch.randn(10_000, 2, dtype=torch.float64))
        most = max(most, sum(part.numel() for part in tail._parts))
    assert most <= 2 * 4 * (tail_length(num_samples) + 1)
    assert (tail.pareto_k() < 0.3).all()


# Against exact evidences


def pca(log_scale: float = 0.0) -> tuple[VAE, LinearGaussian]:
    likelihood = LinearGaussian(5, 2).double()
    with torch.no_grad():
        likelihood.bias.normal_()
        likelihood.log_scale.fill_(log_scale)
    return VAE(StandardNormal(2), likelihood, Wide(likelihood)).double(), likelihood


def assert_estimates(estimate, truth: Tensor):
    error = (estimate.log_px - truth.detach()).abs()
    assert (error < 5 * estimate.standard_error).all()
    assert (estimate.standard_error < 0.2).all()


@pytest.mark.parametrize("max_rows", [64, 5000])
@pytest.mark.usefixtures("errors_of_drawn_weights")
@pytest.mark.slow
def test_both_estimates_of_probabilistic_pca_are_the_evidence(max_rows):
    model, likelihood = pca()
    x = likelihood(torch.randn(8, 2, dtype=torch.float64)).sample()
    truth = likelihood.log_px(x)
    assert_estimates(log_marginal(model, x, num_samples=2000, max_rows=max_rows), truth)
    assert_estimates(log_marginal_from_prior(model, x, num_samples=20_000, max_rows=max_rows), truth)


@pytest.mark.usefixtures("errors_of_drawn_weights")
def test_both_estimates_of_a_skewed_posterior_are_those_of_quadrature():
    model, x = skewed_model(0.9), skewed_data(6)
    truth = exact_log_px(model, x)
    assert_estimates(log_marginal(model, x, num_samples=5000), truth)
    assert_estimates(log_marginal_from_prior(model, x, num_samples=50_000), truth)


def test_too_narrow_a_posterior_has_a_high_k_hat_and_a_wide_one_has_not():
    x = skewed_data(20)
    narrow = log_marginal(skewed_model(0.15), x, num_samples=2000)
    wide = log_marginal(skewed_model(0.9), x, num_samples=2000)
    assert narrow.pareto_k.median() > 0.7 > wide.pareto_k.median()


class Coins(nn.Module):
    """Six bits with logits linear in x, or fixed."""

    def __init__(self, num_in: int = 0):
        super().__init__()
        self.bias = nn.Parameter(torch.randn(6))
        self.weight = nn.Parameter(torch.randn(num_in, 6))

    def forward(self, x: Tensor | None = None) -> Distribution:
        logits = self.bias if x is None else self.bias + x @ self.weight
        return Independent(TorchBernoulli(logits=logits, validate_args=False), 1, validate_args=False)


class Pixels(nn.Module):
    """Bits given bits, and a label where there is one."""

    def __init__(self):
        super().__init__()
        self.network = mlp(6, 8, hidden=(10,))

    def forward(self, z: Tensor, label: Tensor | None = None) -> Distribution:
        logits = 2 * self.network(z)
        return Bernoulli(logits if label is None else logits + label.unsqueeze(-1), 1)


def bits() -> tuple[VAE, Tensor]:
    """A model of six latent bits with a poor posterior, and ten data."""
    model = VAE(Coins(), Pixels(), Coins(8)).double()
    with torch.no_grad():
        model.posterior.weight.mul_(0.2)
    return model, torch.randint(2, (10, 8)).double()


def enumerated(model: VAE, x: Tensor, context: dict[str, Tensor] | None = None) -> Tensor:
    states = torch.tensor(list(itertools.product((0.0, 1.0), repeat=6)), dtype=torch.float64)
    with torch.no_grad():
        return model.log_joint(x, states.unsqueeze(1).expand(-1, len(x), 6), context).logsumexp(0)


@pytest.mark.parametrize("max_rows", [30, 5000])
@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.usefixtures("errors_of_drawn_weights")
@pytest.mark.slow
def test_both_estimates_of_latent_bits_are_those_of_enumeration(max_rows, labelled):
    model, x = bits()
    context = {"label": torch.linspace(-2, 2, 10, dtype=torch.float64)} if labelled else None
    truth = enumerated(model, x, context)
    assert_estimates(log_marginal(model, x, context, num_samples=2000, max_rows=max_rows), truth)
    assert_estimates(log_marginal_from_prior(model, x, context, num_samples=3000, max_rows=max_rows), truth)


# The naive estimator


class Counting(nn.Module):
    """A model that remembers how many samples of the prior it was asked for."""

    def __init__(self, model: VAE):
        super().__init__()
        self.model = model
        self.asked: list[int] = []
        self.passes: list[tuple[int, int]] = []

    def sample(self, num_samples, context=None):
        self.asked.append(num_samples)
        return self.model.sample(num_samples, context)

    def draw(self, x, context=None, *, num_samples=1, path: Path = True):
        self.passes.append((num_samples, len(x)))
        return self.model.draw(x, context, num_samples=num_samples, path=path)

    def log_joint(self, x, z, context=None):
        return self.model.log_joint(x, z, context)


@pytest.mark.parametrize("max_rows", [1, 3, 17, 40, 10_000])
@pytest.mark.parametrize("num_samples", [1, 40])
def test_exactly_k_samples_of_the_prior_are_decoded_once_for_all_data_or_for_each_in_its_context(num_samples, max_rows):
    model = Counting(pca()[0])
    x = torch.randn(21, 5, dtype=torch.float64)
    assert log_marginal_from_prior(model, x, num_samples=num_samples, max_rows=max_rows).num_samples == num_samples
    assert sum(model.asked) == num_samples
    assert max(model.asked) <= max_rows
    model.asked.clear()
    log_marginal_from_prior(model, x, {"label": torch.zeros(21)}, num_samples=num_samples, max_rows=max_rows)
    assert sum(model.asked) == 21 * num_samples
    assert max(model.asked) <= max_rows


def test_the_naive_estimate_is_the_mean_of_the_likelihoods_of_shared_samples():
    model, likelihood = pca()
    x = torch.randn(3, 5, dtype=torch.float64)
    state = torch.get_rng_state()
    estimate = log_marginal_from_prior(model, x, num_samples=9)
    torch.set_rng_state(state)
    z = model.sample(9)[0]
    w = likelihood(z).log_prob(x.unsqueeze(1).expand(3, 9, 5)).mT.detach().exp()
    assert_close(estimate.log_px, w.mean(0).log())
    assert_close(estimate.standard_error, w.std(0) / w.mean(0) / 3)
    assert_close(estimate.effective_sample_size, w.sum(0).square() / w.square().sum(0))
    assert log_marginal_from_prior(model, x, num_samples=1).standard_error.isinf().all()


def test_the_naive_estimator_needs_many_more_samples_where_the_posterior_is_narrow():
    _, likelihood = pca(log_scale=-3)
    model = VAE(StandardNormal(2), likelihood, MeanFieldPosterior(likelihood)).double()
    x = likelihood(torch.randn(20, 2, dtype=torch.float64)).sample()
    naive, sampled = (estimator(model, x, num_samples=1000) for estimator in (log_marginal_from_prior, log_marginal))
    assert naive.effective_sample_size.median() < 10 < 100 < sampled.effective_sample_size.median()


@pytest.mark.parametrize("estimator", [log_marginal, log_marginal_from_prior])
def test_what_cannot_be_estimated_is_refused(estimator):
    model = pca()[0]
    with pytest.raises(InputError, match="num_samples must be at least 1, not 0"):
        estimator(model, torch.zeros(3, 5).double(), num_samples=0)
    with pytest.raises(InputError, match="max_rows must be at least 1, not 0"):
        estimator(model, torch.zeros(3, 5).double(), max_rows=0)
    with pytest.raises(InputError, match="It holds no numbers"):
        estimator(model, torch.zeros(0, 5).double())


@pytest.mark.parametrize("estimator", [log_marginal, log_marginal_from_prior])
def test_what_is_no_data_is_refused_with_what_would_be(estimator):
    with pytest.raises(InputError, match=r"a tensor, an array, a pair .* received str: subo\.load_data"):
        estimator(pca()[0], "digits")


# Passes, sums and progress


def test_weights_of_zero_are_summed_as_such():
    sums = WeightSums(3)
    first = torch.tensor([[-math.inf, 0.0, -900.0], [-math.inf, -math.inf, -900.0]]).double()
    second = torch.tensor([[2.0, math.log(3), -900.0]]).double()
    sums.add(first)
    sums.add(second)
    assert_close(sums.log_mean, torch.tensor([2 - math.log(3), math.log(4 / 3), -900.0]).double())
    assert_close(sums.effective_sample_size, torch.tensor([1.0, 16 / 10, 3.0]).double())


def test_each_datum_has_many_samples_in_a_pass_so_that_its_encoder_is_seldom_asked():
    model = Counting(pca()[0])
    log_marginal(model, torch.zeros(100, 5).double(), num_samples=1000, max_rows=2000, pareto=False)
    assert min(count for count, _ in model.passes) >= 200
    assert sum(count * data for count, data in model.passes) == 100 * 1000


def test_passes_are_as_few_and_as_equal_as_the_bound_on_their_latents_allows():
    model = Counting(pca()[0])
    log_marginal(model, torch.zeros(2, 5).double(), num_samples=5000, max_rows=3200, pareto=False)
    assert model.passes == [(1250, 2)] * 4


def test_a_mixture_prior_of_many_components_weighs_fewer_latents_at_a_time():
    q, split = Conditional(GaussianFamily((2,)), mlp(5, 4)), Split(torch.zeros(3, 5))
    likelihood = Conditional(GaussianFamily((5,)), mlp(2, 10))
    vamp = VampPrior(q, torch.zeros(500, 5))
    for prior, rows in ((StandardNormal(2), 40_000), (GaussianMixture(2, components=100), 10_000), (vamp, 2000)):
        assert latents_at_a_time(VAE(prior, likelihood, q), split) == rows


@pytest.mark.parametrize("num_samples, max_rows", [(7, 5000), (7, 3), (1000, 300), (30_000, 999)])
def test_progress_adds_up_to_the_data_exactly_and_moves_within_a_datum(num_samples, max_rows):
    model, _ = pca()
    steps: list[float] = []
    split = Split(torch.randn(3, 5))
    score(model, split, num_samples=num_samples, max_rows=max_rows, advance=steps.append)
    assert sum(steps) == 3
    assert min(steps) >= 0
    assert num_samples < 10_000 or len(steps) > 80


def test_progress_is_seen_of_few_data_that_a_pass_could_hold():
    steps: list[float] = []
    score(pca()[0], Split(torch.randn(50, 5)), num_samples=1000, advance=steps.append)
    assert len(steps) >= 20
    assert max(steps) <= 3


def test_k_hat_can_be_left_out():
    model, _ = pca()
    split = Split(torch.randn(30, 5))
    with_tails, without = score(model, split, num_samples=100), score(model, split, num_samples=100, pareto=False)
    assert torch.equal(with_tails.log_px, without.log_px)
    assert without.pareto_k.isnan().all()
    assert with_tails.pareto_k.shape == (30,)


def test_an_evaluation_counts_the_data_whose_estimates_cannot_be_trusted():
    evaluation, scores = measure(skewed_model(0.15), Split(skewed_data(40)), num_samples=500)
    highest = 1 - 1 / math.log10(500)
    assert evaluation.high_pareto_k == int((scores.pareto_k > highest).sum()) > 5
    assert evaluation.highest_pareto_k == pytest.approx(highest)
    assert evaluation.median_pareto_k == pytest.approx(float(np.median(scores.pareto_k)), abs=0.1)
    assert f"Pareto k-hat above 0.63 for {evaluation.high_pareto_k}" in repr(evaluation)
    exact = pca()[1]
    model = VAE(StandardNormal(2), exact, ExactPosterior(exact)).double()
    evaluation, _ = measure(model, Split(torch.randn(5, 5)), num_samples=20)
    assert (evaluation.high_pareto_k, evaluation.median_pareto_k) == (0, None)
    assert "k-hat" not in repr(evaluation)


# Errors that hold


def weighed(log_weight: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """log p(x), its error by the tail, that of the delta method, and k-hat, of columns of log-weights."""
    sums, tail = WeightSums(log_weight.shape[1]), WeightTail(log_weight.shape[1], len(log_weight))
    for part in log_weight.split(70):
        sums.add(part)
        tail.add(part)
    return sums.log_mean, sums.error_by(tail), sums.standard_error, tail.pareto_k()


def heavy(k: float, num: int, data: int) -> Tensor:
    """Log-weights of a standard normal target and a q of variance 1 - k, of mean 1: their tail has the shape k."""
    z = torch.randn(num, data, dtype=torch.float64) * math.sqrt(1 - k)
    return z.square() * (0.5 / (1 - k) - 0.5) + 0.5 * math.log1p(-k)


@pytest.mark.parametrize("num_samples, threshold", [(1, -math.inf), (10, 0), (100, 0.5), (1000, 2 / 3), (5000, 0.7)])
def test_the_highest_k_hat_is_that_of_the_paper(num_samples, threshold):
    assert highest_pareto_k(num_samples) == pytest.approx(threshold)


@pytest.mark.parametrize("num_samples, data", [(100, 400), (1000, 200)])
@pytest.mark.parametrize("k", [0.3, 0.68])
def test_the_truth_lies_within_the_error_where_k_hat_is_below_its_threshold(k, num_samples, data):
    for log_weight in (pareto(k, num_samples, data) + math.log1p(-k), heavy(k, num_samples, data)):
        log_px, error, delta, k_hat = weighed(log_weight)
        sure = k_hat <= highest_pareto_k(num_samples)
        count = int(sure.sum())
        held = int((log_px.abs() <= 1.96 * error)[sure].sum())
        assert count > 90
        # as many as this, or fewer, are seen once in a thousand times where 92% are held
        assert held > binom.ppf(0.001, count, 0.92)
        assert (error >= delta).all()
        assert k < 0.5 or (log_px.abs() <= 1.96 * delta)[sure].double().mean() < 0.9, "delta's would do"


def test_an_error_of_light_tails_is_that_of_the_delta_method():
    _, error, delta, _ = weighed(torch.rand(5000, 20, dtype=torch.float64))
    assert (error / delta).max() < 1.05
    _, error, delta, _ = weighed(torch.randn(10_000, 20, dtype=torch.float64) * 0.1)
    assert (error / delta).max() < 1.1


def test_an_error_by_the_tail_knows_no_unit_and_no_other_datum():
    log_weight = heavy(0.5, 1000, 4)
    error = weighed(log_weight)[1]
    shifted = log_weight + torch.tensor([0.0, -5000.0, 300.0, 4.0], dtype=torch.float64)
    assert_close(weighed(shifted)[1], error, rtol=1e-6, atol=0)
    assert_close(weighed(log_weight[:, 2:3])[1], error[2:3])


def test_errors_where_there_is_no_tail():
    few = pareto(0.5, 24, 3)
    assert torch.equal(weighed(few)[1], weighed(few)[2])
    assert (weighed(torch.zeros(100, 2).double())[1] < 1e-6).all()
    assert weighed(torch.full((100, 2), -math.inf).double())[1].isinf().all()
    assert weighed(1000 * torch.randn(1000, 2).double())[1].isinf().all()


def test_the_error_of_a_mean_exceedance_is_that_of_its_posterior_by_brute_force():
    """The posterior of k < 1 and log sigma on a fine grid of both, for one tail."""
    num_samples, length = 1000, tail_length(1000)
    log_weight = heavy(0.5, num_samples, 1)
    weights = log_weight.exp()[:, 0].sort().values.numpy()
    cutoff, x = weights[-length - 1], weights[-length:] - weights[-length - 1]
    k, log_sigma = np.meshgrid(np.linspace(-0.6, 0.999, 300), np.log(x.mean()) + np.linspace(-2, 1, 200), indexing="ij")
    log_likelihood = np.sum([genpareto.logpdf(value, k, scale=np.exp(log_sigma)) for value in x], axis=0)
    shares = np.exp(log_likelihood - log_likelihood.max()).ravel()
    mean = (np.exp(log_sigma) / (1 - k)).ravel()
    order = mean.argsort()
    cumulative = shares[order].cumsum() / shares.sum()
    middle, upper = (mean[order][cumulative.searchsorted(p)] for p in (0.5, 0.975))
    replaced = np.concatenate([weights[:-length], np.full(length, cutoff + middle)])
    spread = replaced.std(ddof=1) / replaced.mean() / math.sqrt(num_samples)
    above = np.log1p(length * (upper - middle) / num_samples / replaced.mean()) / 1.96
    assert weighed(log_weight)[1].item() == pytest.approx(math.hypot(above, spread), rel=0.05)
