"""Probabilistic PCA knows its evidence, its posterior and its best fit: what is computed of it must be just these."""

import math
from typing import Any

import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, MultivariateNormal, Normal
from torch.testing import assert_close

from assertions import assert_within
from catalog import Wide
from linear_gaussian import D, d, data, exact_elbo, linear, model_with
from shapes import unchecked_shapes
from subo.core.bounds import ELBO, IWAE, MIWAE, Bound, Renyi
from subo.core.objective import Objective
from subo.errors import InputError
from subo.evaluation.evidence.importance import log_marginal
from subo.models.probabilistic_pca import ExactPosterior, LinearGaussian, MeanFieldPosterior
from subo.models.vae import VAE
from subo.parts.priors import StandardNormal
from subo.typing import Path


class Amortized(nn.Module):
    """``q(z|x) = N(A x + a, diag s^2)``, with parameters of its own."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(D, d)
        self.log_scale = nn.Parameter(torch.zeros(d))

    def forward(self, x: Tensor) -> Independent:
        loc = self.linear(x)
        return Independent(Normal(loc, self.log_scale.exp().expand_as(loc)), 1)


# The fit


@pytest.mark.parametrize("latent_dim", [1, 2, 4])
def test_the_fit_is_scikit_learns(latent_dim):
    x = data()
    oracle = PCA(latent_dim).fit(x.numpy())
    likelihood = LinearGaussian(D, latent_dim).double().fit(x)
    # scikit-learn divides by n - 1 where maximum likelihood divides by n.
    inflation = len(x) / (len(x) - 1)
    assert_close((2 * likelihood.log_scale).exp().item() * inflation, float(oracle.noise_variance_))
    with torch.no_grad():
        likelihood.weight.mul_(inflation**0.5)
        likelihood.log_scale.add_(math.log(inflation) / 2)
    assert_close(likelihood.log_px(x).detach(), torch.tensor(oracle.score_samples(x.numpy())), rtol=1e-10, atol=1e-10)


def test_the_fit_is_a_stationary_point_of_the_likelihood_and_a_maximum():
    x = data()
    likelihood = LinearGaussian(D, d).double().fit(x)
    log_px = likelihood.log_px(x).mean()
    for gradient in torch.autograd.grad(log_px, list(likelihood.parameters())):
        assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-10)
    for parameter in likelihood.parameters():
        with torch.no_grad():
            parameter.add_(0.1 * torch.randn_like(parameter))
        assert likelihood.log_px(x).mean() < log_px


def test_the_evidence_is_bayes_rule_with_the_exact_posterior():
    likelihood, x = linear(-0.5), data(7)
    z = torch.randn(7, d, dtype=torch.float64)
    prior = StandardNormal(d).double()()
    joint = prior.log_prob(z) + likelihood(z).log_prob(x)
    assert_close(joint - ExactPosterior(likelihood)(x).log_prob(z), likelihood.log_px(x))


@pytest.mark.parametrize("dim, latent_dim", [(5, 0), (5, 5), (1, 1)])
def test_pca_of_as_many_latents_as_dimensions_is_refused(dim, latent_dim):
    with pytest.raises(InputError, match=f"latent_dim={latent_dim}, dim={dim}"):
        LinearGaussian(dim, latent_dim)


def test_a_fit_to_one_datum_is_refused():
    with pytest.raises(InputError, match="two examples, not 1"):
        LinearGaussian(D, d).double().fit(data(1))


# With the exact posterior, every weight is p(x)

WEIGHTED: list[Bound] = [
    ELBO(closed_form_kl=False),
    IWAE(),
    *(Renyi(alpha) for alpha in (-math.inf, -1.0, 0.0, 0.5, 1.0, 2.0, math.inf)),
    MIWAE(groups=2),
    MIWAE(inner=2),
    MIWAE(groups=1),
    MIWAE(inner=1),
]
BOUNDS = pytest.mark.parametrize("bound", WEIGHTED, ids=str)


@BOUNDS
@pytest.mark.parametrize("num_samples", [2, 6])
def test_with_the_exact_posterior_every_bound_is_the_evidence_in_value_and_gradient(bound, num_samples):
    likelihood, x = linear(), data(7)
    objective = Objective(model_with(ExactPosterior(likelihood), likelihood), bound, num_samples=num_samples)
    loss, log_px = objective(x), likelihood.log_px(x)
    assert_close(loss.bound, log_px.detach(), rtol=1e-10, atol=1e-10)
    theta = list(likelihood.parameters())
    exact = torch.autograd.grad(log_px.mean(), theta)
    for gradient, expected in zip(torch.autograd.grad(loss.loss, theta), exact, strict=True):
        assert_close(-gradient, expected, rtol=1e-9, atol=1e-9)


class FreeFullRank(nn.Module):
    """The exact posterior of one model, as parameters that are no longer tied to it."""

    def __init__(self, likelihood: LinearGaussian, x: Tensor):
        super().__init__()
        q: Any = ExactPosterior(likelihood)(x)
        self.loc, self.tril = nn.Parameter(q.mean.detach()), nn.Parameter(q.scale_tril.detach().clone())

    def forward(self, x: Tensor) -> Distribution:
        return MultivariateNormal(self.loc, scale_tril=self.tril.tril())


@unchecked_shapes()
def gradients(objective: Objective, x: Tensor, parameters: list[nn.Parameter], times: int) -> list[Tensor]:
    """Independent draws of the loss's gradient, one row a draw, for each parameter."""
    draws = [torch.autograd.grad(objective(x).loss, parameters) for _ in range(times)]
    return [torch.stack(rows) for rows in zip(*draws, strict=True)]


@pytest.mark.parametrize("bound", [ELBO(), ELBO(closed_form_kl=False), IWAE(), Renyi(0.5), MIWAE(groups=2)], ids=str)
def test_at_the_exact_posterior_theta_follows_the_evidence_and_phi_stays(bound):
    likelihood, x = linear(), data(3)
    posterior = FreeFullRank(likelihood, x)
    theta, phi = list(likelihood.parameters()), list(posterior.parameters())
    objective = Objective(model_with(posterior, likelihood), bound, num_samples=4)
    draws = gradients(objective, x, theta + phi, 300)
    for estimates, exact in zip(draws, torch.autograd.grad(likelihood.log_px(x).mean(), theta), strict=False):
        assert_within(-estimates, exact)
    for estimates in draws[len(theta) :]:
        assert_within(estimates, 0.0)


# Diagonal posteriors, whose ELBO is known


def test_the_mean_field_gap_is_exact_and_the_smallest_of_a_diagonal_gaussian():
    likelihood, x = linear(-0.5), data(7)
    posterior = MeanFieldPosterior(likelihood)
    elbo = exact_elbo(likelihood, posterior(x), x)
    assert_close(likelihood.log_px(x) - elbo, posterior.gap().expand(7))
    assert posterior.gap() > 0.01
    loc, scale = (t.detach().clone().requires_grad_() for t in (posterior(x).mean, posterior(x).stddev))
    best = exact_elbo(likelihood, Independent(Normal(loc, scale), 1), x)
    for gradient in torch.autograd.grad(best.sum(), (loc, scale)):
        assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-10)


@pytest.mark.parametrize("closed_form_kl", [True, False])
def test_the_elbo_is_the_evidence_less_the_mean_field_gap(closed_form_kl):
    likelihood, x = linear(), data(3)
    posterior = MeanFieldPosterior(likelihood)
    model = model_with(posterior, likelihood)
    bound = ELBO(closed_form_kl=closed_form_kl)
    with unchecked_shapes():
        estimates = torch.stack([bound(model.draw(x, num_samples=10)).detach() for _ in range(500)])
    assert_within(estimates, (likelihood.log_px(x) - posterior.gap()).detach())


@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("closed_form_kl", [True, False])
def test_the_pathwise_gradient_is_that_of_the_exact_elbo(closed_form_kl, num_samples):
    likelihood, posterior, x = linear(), Amortized().double(), data(4)
    theta, phi = list(likelihood.parameters()), list(posterior.parameters())
    objective = Objective(
        model_with(posterior, likelihood), ELBO(closed_form_kl=closed_form_kl), num_samples=num_samples
    )
    exact = torch.autograd.grad(exact_elbo(likelihood, posterior(x), x).mean(), theta + phi)
    for estimates, truth in zip(gradients(objective, x, theta + phi, 400), exact, strict=True):
        assert_within(-estimates, truth)


def renyi_divergence(q: Distribution, p: MultivariateNormal, alpha: float) -> Tensor:
    """``D_alpha(q || p)`` of a diagonal and a full Gaussian (Gil et al., 2013, table 2)."""
    a, b = q.variance.diag_embed(), p.covariance_matrix
    mixed = alpha * b + (1 - alpha) * a
    shift = (q.mean - p.mean).unsqueeze(-1)
    quadratic = (shift.mT @ torch.linalg.solve(mixed, shift)).flatten() * alpha / 2
    logs = [torch.linalg.slogdet(matrix).logabsdet for matrix in (mixed, a, b)]
    return quadratic - (logs[0] - (1 - alpha) * logs[1] - alpha * logs[2]) / (2 * (alpha - 1))


@pytest.mark.parametrize("alpha", [-0.2, 0.3, 0.5, 0.9])
def test_renyis_bound_of_many_samples_is_the_evidence_less_its_divergence(alpha):
    likelihood, x = linear(), data(3)
    model = model_with(Wide(likelihood), likelihood)
    exact = likelihood.log_px(x) - renyi_divergence(model.posterior(x), ExactPosterior(likelihood)(x), alpha)
    draw = model.draw(x, num_samples=100_000)
    estimate = Renyi(alpha)(draw)
    powers = ((1 - alpha) * (draw.log_weight - draw.log_weight.amax(0))).exp()
    standard_error = powers.std(0) / powers.mean(0) / len(powers) ** 0.5 / (1 - alpha)
    assert ((estimate - exact).abs() < 5 * standard_error).all()
    assert (exact < likelihood.log_px(x) - 5 * standard_error).all() or alpha < 0


# log_marginal


class Counting(nn.Module):
    """A model that remembers how many samples of how many data were drawn of it."""

    def __init__(self, model: VAE):
        super().__init__()
        self.model = model
        self.draws: list[tuple[int, int]] = []

    def draw(self, x, context=None, *, num_samples=1, path: Path = True):
        self.draws.append((num_samples, len(x)))
        return self.model.draw(x, context, num_samples=num_samples, path=path)

    def log_joint(self, x, z, context=None):
        return self.model.log_joint(x, z, context)

    def sample(self, num_samples, context=None):
        return self.model.sample(num_samples, context)


@pytest.mark.parametrize("max_rows", [1, 2, 5, 7, 10, 34, 35, 36, 1000])
@pytest.mark.parametrize("num_samples", [1, 2, 7])
def test_exactly_k_samples_a_datum_are_drawn_and_no_more_than_max_rows_at_once(num_samples, max_rows):
    likelihood, x = linear(), data(5)
    model = Counting(model_with(MeanFieldPosterior(likelihood), likelihood))
    estimate = log_marginal(model, x, num_samples=num_samples, max_rows=max_rows)
    assert estimate.num_samples == num_samples
    assert sum(count * rows for count, rows in model.draws) == num_samples * len(x)
    assert max(count * rows for count, rows in model.draws) <= max_rows


@pytest.mark.parametrize("max_rows", [1, 2, 5, 12, 1000])
def test_with_the_exact_posterior_the_estimate_is_the_evidence_however_it_is_cut(max_rows):
    likelihood, x = linear(), data(5)
    model = model_with(ExactPosterior(likelihood), likelihood)
    estimate = log_marginal(model, x, num_samples=7, max_rows=max_rows)
    assert_close(estimate.log_px, likelihood.log_px(x).detach(), rtol=1e-10, atol=1e-10)
    assert_close(estimate.effective_sample_size, torch.full((5,), 7.0, dtype=torch.float64))
    assert (estimate.standard_error < 1e-6).all()
    assert not estimate.log_px.requires_grad


@pytest.mark.parametrize("max_rows, num_samples", [(4, 200), (50, 1000), (100_000, 2000)])
def test_the_estimate_of_an_imperfect_posterior_is_within_its_own_standard_error(max_rows, num_samples):
    x = data(40)
    likelihood = LinearGaussian(D, d).double().fit(x)
    model, x = model_with(Wide(likelihood), likelihood), x[:8]
    estimate = log_marginal(model, x, num_samples=num_samples, max_rows=max_rows)
    error = estimate.log_px - likelihood.log_px(x).detach()
    assert (error.abs() < 5 * estimate.standard_error).all()
    assert ((estimate.effective_sample_size > 1) & (estimate.effective_sample_size < 0.98 * num_samples)).all()


def test_the_estimate_agrees_with_scikit_learns_score():
    x = data(40)
    oracle = PCA(d).fit(x.numpy())
    likelihood = LinearGaussian(D, d).double().fit(x)
    with torch.no_grad():
        likelihood.weight.mul_((40 / 39) ** 0.5)
        likelihood.log_scale.add_(math.log(40 / 39) / 2)
    estimate = log_marginal(model_with(Wide(likelihood), likelihood), x)
    error = estimate.log_px - torch.tensor(oracle.score_samples(x.numpy()))
    assert (error.abs() < 5 * estimate.standard_error).all()


@pytest.mark.parametrize("num_samples", [20, 400])
def test_the_standard_error_is_the_spread_of_repeated_estimates(num_samples):
    likelihood = linear()
    x = data(1).expand(2000, D)  # each row is a repetition
    model = model_with(Wide(likelihood, shift=0.1, factor=1.3), likelihood)
    estimate = log_marginal(model, x, num_samples=num_samples, max_rows=20_000)
    deviations = (estimate.log_px - estimate.log_px.mean()).square()
    reported = estimate.standard_error.square()
    difference = deviations - reported
    # The delta method is right up to a relative 1/K, which is allowed beside the sampling error.
    slack = reported.mean() * 5 / num_samples
    assert difference.mean().abs() < 5 * difference.std() / len(x) ** 0.5 + slack


def test_the_reported_quantities_are_those_of_the_weights():
    likelihood, x = linear(), data(3)
    model = model_with(Wide(likelihood), likelihood)
    state = torch.get_rng_state()
    estimate = log_marginal(model, x, num_samples=9)
    torch.set_rng_state(state)
    draw = model.draw(x, num_samples=9, path=False)
    w = draw.log_weight.detach().exp()
    assert_close(estimate.log_px, w.mean(0).log())
    assert_close(estimate.standard_error, w.std(0) / w.mean(0) / 3)
    assert_close(estimate.effective_sample_size, w.sum(0).square() / w.square().sum(0))
    assert_close(estimate.distortion, -draw.log_likelihood.detach().mean(0))
    kl = draw.factors[0].kl
    assert kl is not None
    assert_close(estimate.rate, kl.detach()[None])
    assert_close(estimate.elbo, -(estimate.rate[0] + estimate.distortion), rtol=0, atol=0)


@pytest.mark.parametrize("max_rows", [2, 30, 10_000])
def test_rate_and_distortion_are_means_over_all_samples_however_they_are_cut(max_rows):
    likelihood, x = linear(), data(3)
    model = model_with(MeanFieldPosterior(likelihood), likelihood)
    estimate = log_marginal(model, x, num_samples=101, max_rows=max_rows)
    q = model.posterior(x)
    rate = (q.mean.square() + q.variance - 1 - q.variance.log()).sum(1) / 2
    assert_close(estimate.rate[0], rate.detach())
    squares = model.draw(x, num_samples=10_000).log_likelihood.detach()
    distortion = -(exact_elbo(likelihood, q, x) + rate).detach()
    assert ((estimate.distortion - distortion).abs() < 5 * squares.std(0) / 101**0.5).all()


def test_one_sample_tells_nothing_of_the_error():
    likelihood, x = linear(), data(3)
    estimate = log_marginal(model_with(MeanFieldPosterior(likelihood), likelihood), x, num_samples=1)
    assert (estimate.standard_error == math.inf).all()
    assert estimate.standard_error.shape == (3,)
    assert_close(estimate.effective_sample_size, torch.ones(3, dtype=torch.float64))


def test_weights_far_below_the_smallest_number_are_summed_in_log_space():
    likelihood, x = linear(-2), 300 + data(3)
    exact = likelihood.log_px(x).detach()
    assert (exact < -1000).all()  # their exponentials are 0
    estimate = log_marginal(model_with(ExactPosterior(likelihood), likelihood), x, num_samples=10)
    assert_close(estimate.log_px, exact, rtol=1e-10, atol=0)
    assert_close(estimate.effective_sample_size, torch.full((3,), 10.0, dtype=torch.float64), rtol=1e-6, atol=0)


class LabelOnly(nn.Module):
    """A likelihood that is known without any z: ``p(x | label)``."""

    def forward(self, z: Tensor, label: Tensor) -> Distribution:
        return Independent(Bernoulli(logits=label[:, None].expand(-1, D)), 1)


class Prior(nn.Module):
    """The posterior that knows nothing."""

    def forward(self, x: Tensor) -> Distribution:
        return Independent(Normal(x.new_zeros(len(x), d), x.new_ones(len(x), d)), 1)


@pytest.mark.parametrize("max_rows", [2, 3, 14, 1000])
def test_each_datum_keeps_its_own_context_however_the_data_are_cut(max_rows):
    x, label = torch.randint(2, (7, D)).double(), torch.randn(7, dtype=torch.float64)
    model = VAE(StandardNormal(d).double(), LabelOnly(), Prior())
    estimate = log_marginal(model, x, {"label": label}, num_samples=3, max_rows=max_rows)
    assert_close(estimate.log_px, Bernoulli(logits=label[:, None]).log_prob(x).sum(1))


@pytest.mark.parametrize("options", [{"num_samples": 0}, {"max_rows": 0}])
def test_no_samples_and_no_rows_are_refused(options):
    likelihood = linear()
    with pytest.raises(InputError, match="at least 1"):
        log_marginal(model_with(ExactPosterior(likelihood), likelihood), data(3), **options)
