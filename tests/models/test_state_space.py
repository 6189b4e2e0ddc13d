"""The linear-Gaussian state-space model against dense Gaussians and statsmodels; chains measured against it."""

import math
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Size, Tensor, nn
from torch.distributions import Distribution, MultivariateNormal
from torch.testing import assert_close

from assertions import assert_within
from padding import mask_of
from subo import ELBO, IWAE, VAE, Gaussian, InputError, LinearGaussianStateSpace, MarkovDistribution, Objective, fit
from subo.evaluation import ais, gaps, log_marginal
from subo.evaluation.evidence.annealed import Annealing
from subo.inference.ascent import Ascent
from subo.models.state_space import SharedCovariance

LENGTHS = (6, 1, 3, 4)


pytestmark = pytest.mark.usefixtures("double_by_default")


def random_model(dim: int = 3, latent_dim: int = 2, *, length: int | None = None, noise: float = 0.5):
    """With every parameter away from its start."""
    model = LinearGaussianStateSpace(dim, latent_dim, length=length)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(noise * torch.randn(parameter.shape))
        model.emission.weight.copy_(torch.randn(dim, latent_dim))
    return model


class Dense(NamedTuple):
    """All states and observations of a sequence as one Gaussian."""

    mean_z: Tensor
    covariance_z: Tensor
    mean_x: Tensor
    covariance_x: Tensor
    covariance_zx: Tensor

    @classmethod
    def of(cls, model: LinearGaussianStateSpace, length: int) -> "Dense":
        """``z = G (s + noise)``, where block (t, s) of G is ``A^(t - s)``."""
        weight, dim = model.transition.weight, len(model.transition.weight)
        powers = [torch.linalg.matrix_power(weight, n) for n in range(length)]
        zero = torch.zeros(dim, dim)
        rows = [torch.cat([powers[t - s] if s <= t else zero for s in range(length)], 1) for t in range(length)]
        grown = torch.cat(rows)
        noise = [model.first.family.covariance] + [model.transition_noise.covariance] * (length - 1)
        mean_z = grown @ torch.cat((model.first.loc, model.transition.bias.repeat(length - 1)))
        covariance_z = grown @ torch.block_diag(*noise) @ grown.mT
        read = torch.block_diag(*[model.emission.weight] * length)
        covariance_x = read @ covariance_z @ read.mT + torch.block_diag(*[model.emission_noise.covariance] * length)
        mean_x = read @ mean_z + model.emission.bias.repeat(length)
        return cls(mean_z, covariance_z, mean_x, covariance_x, covariance_z @ read.mT)

    def evidence(self) -> MultivariateNormal:
        return MultivariateNormal(self.mean_x, self.covariance_x)

    def posterior(self, x: Tensor) -> MultivariateNormal:
        gain = torch.linalg.solve(self.covariance_x, self.covariance_zx.mT).mT
        loc = self.mean_z + (x.flatten(1) - self.mean_x) @ gain.mT
        covariance = self.covariance_z - gain @ self.covariance_zx.mT
        return MultivariateNormal(loc, (covariance + covariance.mT) / 2)


# Exact answers against the dense Gaussian


def test_the_evidence_and_its_gradient_are_those_of_the_joint_gaussian():
    model = random_model()
    x = 2 * torch.randn(4, 6, 3)
    found, exact = model.log_px(x), Dense.of(model, 6).evidence().log_prob(x.flatten(1))
    assert_close(found, exact)
    parameters = list(model.parameters())
    assert len(parameters) == 8
    for a, b in zip(
        torch.autograd.grad(found.sum(), parameters), torch.autograd.grad(exact.sum(), parameters), strict=True
    ):
        assert_close(a, b)


def test_smoothed_and_filtered_moments_are_conditional_moments_of_the_joint_gaussian():
    model, x = random_model(), 2 * torch.randn(4, 5, 3)
    exact = Dense.of(model, 5).posterior(x)
    smoothed = model.smooth(x)
    assert_close(smoothed.mean.flatten(1), exact.loc)
    for t in range(5):
        block = slice(2 * t, 2 * t + 2)
        assert_close(smoothed.covariance[:, t], exact.covariance_matrix[:, block, block].expand(4, 2, 2))
        known = Dense.of(model, t + 1).posterior(x[:, : t + 1])
        assert_close(model.filter(x).mean[:, t], known.loc[:, -2:])
        assert_close(model.filter(x).covariance[:, t], known.covariance_matrix[..., -2:, -2:].expand(4, 2, 2))


def test_the_posterior_is_a_chain_with_the_density_of_the_conditional_gaussian():
    model, x = random_model(), 2 * torch.randn(4, 5, 3)
    exact = Dense.of(model, 5).posterior(x)
    q = model.as_vae().posterior(x)
    z = torch.randn(3, 4, 5, 2)
    assert_close(q.log_prob(z), exact.log_prob(z.flatten(2)))
    drawn = q.rsample(Size([20_000])).detach().flatten(2)
    assert_within(drawn, exact.loc.detach())
    centered = drawn - exact.loc.detach()
    assert_within(torch.einsum("kbi,kbj->kbij", centered, centered), exact.covariance_matrix.detach())


def test_with_the_exact_posterior_every_weight_and_its_gradient_are_the_evidences():
    model = random_model()
    vae, x, context = model.as_vae(), torch.randn(4, 6, 3), {"mask": mask_of(*LENGTHS)}
    log_px, parameters = model.log_px(x, context["mask"]), list(model.parameters())
    truth = torch.autograd.grad(log_px.sum(), parameters, retain_graph=True)
    for path in (True, False):
        draw = vae.draw(x, context, num_samples=3, path=path)
        assert_close(draw.log_weight, log_px.expand(3, -1))
        for bound in (IWAE(), ELBO(closed_form_kl=False)):
            found = torch.autograd.grad(bound(draw).sum(), parameters, retain_graph=True)
            for a, b in zip(found, truth, strict=True):
                assert_close(a, b)
    kl = vae.draw(x, context, num_samples=4000).factors[0].kl
    assert kl is not None
    assert_within(kl.detach(), expected_rate(model, x, context["mask"]))


def expected_rate(model: LinearGaussianStateSpace, x: Tensor, mask: Tensor) -> Tensor:
    """``KL(p(z|x) || p(z))`` of dense Gaussians."""
    rates = []
    for row, length in zip(x, mask.sum(1).tolist(), strict=True):
        dense = Dense.of(model, length)
        prior = MultivariateNormal(dense.mean_z, dense.covariance_z)
        rates.append(torch.distributions.kl_divergence(dense.posterior(row[None, :length]), prior)[0])
    return torch.stack(rates).detach()


def test_padding_changes_nothing():
    model, x, mask = random_model(), torch.randn(4, 6, 3), mask_of(*LENGTHS)
    spoilt = torch.where(mask.unsqueeze(-1), x, torch.nan)
    log_px = model.log_px(spoilt, mask)
    parts = {"filter": model.filter(spoilt, mask), "smooth": model.smooth(spoilt, mask)}
    for b, length in enumerate(LENGTHS):
        alone = x[b : b + 1, :length]
        assert_close(model.log_px(alone)[0], log_px[b], rtol=1e-13, atol=0)
        for name, found in parts.items():
            single = getattr(model, name)(alone)
            assert_close(single.mean[0], found.mean[b, :length], rtol=1e-12, atol=1e-13)
            assert_close(single.covariance[0], found.covariance[b, :length], rtol=1e-12, atol=1e-13)
            assert (found.mean[b, length:] == 0).all()
            assert (found.covariance[b, length:] == 0).all()
    for gradient in torch.autograd.grad(log_px.sum(), list(model.parameters())):
        assert gradient.isfinite().all()


def test_it_agrees_with_statsmodels():
    from statsmodels.tsa.statespace.mlemodel import MLEModel

    model = random_model()
    x = torch.randn(30, 3)
    x[5:9] *= 5
    other = MLEModel(x.numpy(), k_states=2, initialization="stationary")
    values: dict[str, Any] = {
        "design": model.emission.weight,
        "obs_intercept": model.emission.bias[:, None],
        "obs_cov": model.emission_noise.covariance,
        "transition": model.transition.weight,
        "state_intercept": model.transition.bias[:, None],
        "selection": torch.eye(2),
        "state_cov": model.transition_noise.covariance,
    }
    for name, value in values.items():
        other[name] = value.detach().numpy()
    first = model.first.loc.detach().numpy(), model.first.family.covariance.detach().numpy()
    other.ssm.initialize_known(*first)
    result: Any = other.ssm.smooth()
    assert_close(model.log_px(x[None])[0].item(), float(result.llf), rtol=1e-9, atol=1e-9)
    smoothed, filtered = model.smooth(x[None]), model.filter(x[None])
    for found, theirs in (
        (smoothed.mean[0].mT, result.smoothed_state),
        (smoothed.covariance[0].permute(1, 2, 0), result.smoothed_state_cov),
        (filtered.mean[0].mT, result.filtered_state),
        (filtered.covariance[0].permute(1, 2, 0), result.filtered_state_cov),
    ):
        assert np.abs(found.detach().numpy() - theirs).max() < 1e-9


def test_it_stays_finite_over_long_sequences_with_hardly_any_noise():
    model = random_model()
    with torch.no_grad():
        model.transition.weight.copy_(torch.tensor([[1.0, 1.0], [0.0, 1.0]]))
        model.transition_noise.set(1e-12 * torch.eye(2))
        model.emission_noise.set(1e-8 * torch.eye(3))
    x = model.as_vae().sample(2, {"mask": torch.ones(2, 200, dtype=torch.bool)})[1].sample()
    smoothed = model.smooth(x)
    assert smoothed.mean.isfinite().all()
    assert (torch.linalg.eigvalsh(smoothed.covariance) > -1e-16).all()
    weights = model.as_vae().draw(x, {"mask": torch.ones(2, 200, dtype=torch.bool)}).log_weight[0]
    assert_close(weights, model.log_px(x), rtol=1e-6, atol=0)


# Chains of a wrong posterior against the evidence


class Shifted(nn.Module):
    """The exact posterior with every state's noise widened and its place moved."""

    def __init__(self, exact: nn.Module, *, by: float = 0.3, factor: float = 1.2):
        super().__init__()
        self.exact, self.by, self.factor = exact, by, factor

    def forward(self, x: Tensor, mask: Tensor | None = None) -> MarkovDistribution:
        q = self.exact(x, mask)
        return MarkovDistribution(
            self.moved(q.first), lambda z, h: self.moved(q.transition(z, h)), q.length, mask=mask, inputs=q.inputs
        )

    def moved(self, p: Any) -> Distribution:
        return MultivariateNormal(p.loc + self.by, scale_tril=self.factor * p.scale_tril)


@pytest.mark.usefixtures("errors_of_drawn_weights")
def test_bounds_of_a_wrong_posterior_are_in_their_order_and_estimates_agree_with_the_evidence():
    model = random_model()
    exact = model.as_vae()
    vae, context = VAE(exact.prior, exact.likelihood, Shifted(exact.posterior)), {"mask": mask_of(4, 1, 3)}
    x = exact.sample(3, context)[1].sample()
    log_px = model.log_px(x, context["mask"]).detach()
    weights = vae.draw(x, context, num_samples=10_000, path=False).log_weight.detach()
    elbo, iwae = weights, weights.view(5, 2000, 3).logsumexp(0) - math.log(5)
    for higher, lower in ((log_px - iwae.mean(0), iwae), (iwae.mean(0) - elbo.mean(0), elbo)):
        assert (higher > 5 * lower.std(0) / len(lower) ** 0.5).all()
    sampled = log_marginal(vae, x, context, num_samples=4000)
    assert ((sampled.log_px - log_px).abs() < 5 * sampled.standard_error).all()
    assert (sampled.standard_error < 0.1).all()
    annealed = ais(vae, x, context, annealing=Annealing(temperatures=20, chains=32, leapfrog_steps=3))
    assert ((annealed.log_px - log_px).abs() < 5 * annealed.standard_error).all()
    assert (annealed.standard_error < 0.3).all()


def test_the_gaps_of_a_mean_field_posterior_are_its_known_ones():
    model = random_model(dim=2, latent_dim=1, length=3)
    exact = model.as_vae()
    vae = VAE(exact.prior, exact.likelihood, Shifted(exact.posterior))
    x = exact.sample(3)[1].sample()
    search: dict[str, Any] = {"ascent": Ascent(steps=100, num_samples=16), "elbo_samples": 500, "num_samples": 1000}
    found = gaps(vae, x, family=Gaussian((3, 1)), richer=None, **search, annealing=None)
    assert ((found.log_px - model.log_px(x)).abs() < 5 * found.log_px_se).all()
    posterior = Dense.of(model, 3).posterior(x)
    precision = posterior.precision_matrix
    gap = 0.5 * (precision.diagonal(dim1=1, dim2=2).log().sum(1) - torch.linalg.slogdet(precision).logabsdet).detach()
    error = 5 * torch.hypot(found.log_px_se, found.elbo_best_se) + 0.01  # the search's own
    assert ((found.approximation - gap).abs() < error).all()


@pytest.mark.slow
def test_learning_with_the_exact_posterior_reaches_the_largest_evidence():
    truth = random_model(dim=2, latent_dim=1, length=8)
    x = truth.as_vae().sample(30)[1].sample()
    best = random_model(dim=2, latent_dim=1, length=8, noise=0.2)
    learned = LinearGaussianStateSpace(2, 1, length=8)
    learned.load_state_dict(best.state_dict())
    optimizer = torch.optim.LBFGS(best.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = -best.log_px(x).mean()
        value.backward()
        return value

    optimizer.step(loss)  # pyright: ignore[reportArgumentType]
    before = learned.log_px(x).mean()
    fit(Objective(learned.as_vae(), IWAE()), x, epochs=80, batch_size=30, learning_rate=0.1, decay="cosine")
    found, largest = learned.log_px(x).mean() / 8, best.log_px(x).mean() / 8
    assert before / 8 < largest - 0.2  # there was something to learn
    assert found > largest - 0.02
    assert largest >= truth.log_px(x).mean() / 8


# What is refused


def test_wrong_shapes_are_refused():
    model = LinearGaussianStateSpace(3, 2)
    with pytest.raises(InputError, match=r"expected sequences \(B, T, 3\).*got \(4, 5, 2\)"):
        model.log_px(torch.zeros(4, 5, 2))
    with pytest.raises(InputError, match="mask' has 3 rows for 4 examples"):
        model.checked(torch.zeros(4, 5, 3), mask_of(5, 2, 1))
    with pytest.raises(InputError, match="sequence 2 of 4 is empty"):
        model.filter(torch.zeros(4, 5, 3), mask_of(5, 0, 1, 3))
    with pytest.raises(InputError, match="dim must be at least 1, not 0"):
        LinearGaussianStateSpace(0, 2)
    with pytest.raises(InputError, match=r"SharedCovariance is over vectors"):
        SharedCovariance((2, 3))
    with pytest.raises(InputError, match="context={'mask'"):
        model.as_vae().draw(torch.zeros(4, 5, 3))
