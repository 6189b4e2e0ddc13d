"""Inference without an encoder: probabilistic PCA knows where it must arrive."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal
from torch.testing import assert_close

from linear_gaussian import D, amortized, best_elbo, d, data, exact_elbo, pca
from shapes import unchecked_shapes
from subo.core.objective import Objective
from subo.data.dataset import Data
from subo.data.splits import Split
from subo.distributions.gaussian import Gaussian as GaussianDistribution
from subo.errors import InputError
from subo.gradients import ScoreFunction
from subo.inference.ascent import LOOK_EVERY, Ascent
from subo.inference.per_example import infer
from subo.models.probabilistic_pca import LinearGaussian, MeanFieldPosterior
from subo.models.vae import VAE
from subo.parts.conditionals import Conditional, Given, Local
from subo.parts.families import Bernoulli
from subo.parts.location_scale import FullRankGaussian, Gaussian
from subo.parts.networks import mlp
from subo.parts.priors import StandardNormal
from subo.training.fitting import fit


class Balanced(GaussianDistribution):
    """A diagonal Gaussian whose 2 D samples are ``loc +- sqrt(D) scale_i``: what is quadratic has its exact mean."""

    def rsample(self, sample_shape=()):
        directions = math.sqrt(self.loc.shape[1]) * torch.eye(self.loc.shape[1], dtype=self.loc.dtype)
        noise = torch.cat([directions, -directions]).unsqueeze(1)
        assert tuple(sample_shape) == (len(noise),)
        return self.loc + self.scale * noise

    def sample(self, sample_shape=()):
        return self.rsample(sample_shape).detach()


class BalancedGaussian(nn.Module):
    """A family without randomness: with 2 D samples its ELBO for a linear model is exact, and so is its gradient."""

    def __init__(self):
        super().__init__()
        self.event_shape, self.num_params = torch.Size([d]), 2 * d

    def forward(self, params: Tensor) -> Distribution:
        loc, raw = params.chunk(2, 1)
        return Balanced(loc, raw.exp(), 1)


# infer: the optimum


@unchecked_shapes()
def test_without_noise_infer_finds_the_best_diagonal_gaussian():
    model, x = pca(), data(30)
    fitted = infer(model, x, family=BalancedGaussian(), ascent=Ascent(num_samples=2 * d, steps=3000, tolerance=1e-7))
    found = exact_elbo(model.likelihood, fitted.q, x).detach()
    assert_close(fitted.bound, found, rtol=1e-8, atol=1e-8)
    assert_close(found, best_elbo(model, x), rtol=0, atol=1e-5)


@unchecked_shapes()
def test_infer_finds_the_best_diagonal_gaussian():
    model, x = pca(), data(30)
    fitted = infer(model, x, family=Gaussian((d,)), ascent=Ascent(num_samples=64, tolerance=1e-4, steps=2000))
    missing = best_elbo(model, x) - exact_elbo(model.likelihood, fitted.q, x).detach()
    assert (missing > -1e-9).all()
    assert missing.mean() < 1e-3
    assert missing.max() < 1e-2


@unchecked_shapes()
@pytest.mark.slow
def test_infer_finds_log_px_with_a_full_rank_gaussian():
    model, x = pca(), data(30)
    fitted = infer(model, x, family=FullRankGaussian((d,)), ascent=Ascent(num_samples=64, tolerance=1e-4, steps=2000))
    log_px = model.likelihood.log_px(x).detach()
    local = VAE(model.prior, model.likelihood, Given(FullRankGaussian((d,)), fitted.params))
    weights = local.draw(x, num_samples=4000).log_weight.detach()
    missing = log_px - weights.mean(0)
    assert (missing.mean() - 5 * weights.mean(1).std() / 4000**0.5) < 1e-3


@unchecked_shapes()
@pytest.mark.slow
def test_infer_needs_no_path_through_z():
    """numpy knows no gradients: all of it comes from the score."""

    class Outside(nn.Module):
        def __init__(self, likelihood: LinearGaussian):
            super().__init__()
            self.likelihood = likelihood

        def forward(self, z: Tensor) -> Distribution:
            loc = z.detach().numpy() @ self.likelihood.weight.detach().numpy().T + self.likelihood.bias.detach().numpy()
            return Independent(Normal(torch.from_numpy(np.asarray(loc)), math.exp(-0.5)), 1)

    model, x = pca(), data(30)
    blind = VAE(model.prior, Outside(model.likelihood), model.posterior)
    fitted = infer(blind, x, family=Gaussian((d,)), ascent=Ascent(gradient=ScoreFunction(), num_samples=32, steps=2000))
    missing = best_elbo(model, x) - exact_elbo(model.likelihood, fitted.q, x).detach()
    assert missing.mean() < 1e-2
    assert missing.max() < 0.1
    with pytest.raises(InputError, match="no gradient in z"):
        infer(blind, x, family=Gaussian((d,)))


@unchecked_shapes()
@pytest.mark.slow
def test_a_decoder_outside_of_torch_is_fitted_by_the_score_and_refused_by_a_path():
    """Its slope in z is unknown; its offset is learned, as is q."""

    class Simulator(nn.Module):
        def __init__(self):
            super().__init__()
            self.offset = nn.Parameter(torch.zeros(3))

        def forward(self, z: Tensor) -> Distribution:
            loc = np.stack([z.detach().numpy()[:, 0] * slope for slope in (1.0, -0.5, 2.0)], axis=1)
            return Independent(Normal(torch.from_numpy(loc) + self.offset, 0.5), 1)

    torch.manual_seed(0)
    slopes, offset = torch.tensor([1.0, -0.5, 2.0]).double(), torch.tensor([3.0, -1.0, 0.5]).double()
    x = torch.randn(400, 1).double() * slopes + offset + 0.5 * torch.randn(400, 3).double()
    log_px = MultivariateNormal(offset, slopes[:, None] * slopes + 0.25 * torch.eye(3).double()).log_prob(x).mean()

    def model() -> VAE:
        q = Conditional(Gaussian((1,)), nn.Linear(3, 2))
        return VAE(StandardNormal(1), Simulator(), q).double()

    with pytest.raises(InputError, match="score-function"):
        fit(Objective(model()), x, epochs=1)
    objective = Objective(model(), gradient=ScoreFunction(), num_samples=8)
    history = fit(objective, x, epochs=500, learning_rate=0.05, decay="cosine")
    assert (objective.model.likelihood.offset - x.mean(0)).abs().max() < 0.1
    assert history.epochs[-1].train.elbo > log_px - 0.1


# infer: never worse, example by example


def test_infer_is_never_worse_than_its_start():
    """Of a start that is the optimum nothing can be gained, and nothing may be lost."""
    model, x = pca(amortized()), data(200)
    best = MeanFieldPosterior(model.likelihood)(x)
    softplus_inverse = (torch.expm1((best.stddev - 1e-3) * math.log(2) / (1 - 1e-3))).log() / (math.log(2) / (1 - 1e-3))
    start = torch.cat([best.mean, softplus_inverse], 1).detach()
    assert_close(Gaussian((d,))(start).stddev, best.stddev.detach())
    fitted = infer(model, x, start=start, ascent=Ascent(steps=200))
    lost = best_elbo(model, x) - exact_elbo(model.likelihood, fitted.q, x).detach()
    assert lost.max() < 1e-3
    assert (fitted.params == start).all(1).double().mean() > 0.95


@unchecked_shapes()
@pytest.mark.slow
def test_infer_improves_on_a_converged_encoder():
    torch.manual_seed(0)
    model, x = pca(amortized()), data(100)
    optimizer = torch.optim.Adam(model.posterior.parameters(), lr=0.02)
    for _ in range(400):
        optimizer.zero_grad()
        Objective(model, num_samples=8)(x).loss.backward()
        optimizer.step()
    for parameter in model.parameters():
        parameter.grad = None
    fitted = infer(model, x, start="amortized")
    before = exact_elbo(model.likelihood, model.posterior(x), x).detach()
    after = exact_elbo(model.likelihood, fitted.q, x).detach()
    assert (after >= before - 1e-3).all()
    assert after.mean() > before.mean()
    assert all(parameter.grad is None for parameter in model.parameters())


@unchecked_shapes()
@pytest.mark.slow
def test_a_datum_stops_by_itself_and_company_changes_nothing():
    model, x = pca(), data(4)
    options = {"family": BalancedGaussian(), "ascent": Ascent(num_samples=2 * d, steps=3000)}
    with torch.no_grad():
        nothing = model.likelihood.bias.clone()  # its mean is 0, hence where the search begins
    near = MeanFieldPosterior(model.likelihood)(nothing[None]).stddev.log().detach()
    x = torch.cat([nothing[None], x])
    start = torch.zeros(5, 2 * d, dtype=torch.float64)
    start[0, d:] = near
    together = infer(model, x, start=start, **options)
    assert together.steps[0] < together.steps[1:].min()
    for i in range(len(x)):
        alone = infer(model, x[i : i + 1], start=start[i : i + 1], **options)
        assert alone.steps == together.steps[i]
        assert_close(alone.params[0], together.params[i], rtol=1e-8, atol=1e-8)
    parts = infer(model, x, start=start, batch_size=3, **options)
    assert_close(parts.params, together.params, rtol=1e-8, atol=1e-8)
    assert parts.trace.shape == together.trace.shape == (1 + math.ceil(int(together.steps.max()) / LOOK_EVERY), 5)
    assert (together.trace[-1] >= together.trace[0]).all()


def test_infer_is_reproducible_and_leaves_everything_as_it_was():
    model, x = pca(amortized()), data(5)
    model.eval()
    state, weights = torch.get_rng_state(), [p.clone() for p in model.parameters()]
    first, second = (infer(model, x, ascent=Ascent(steps=60), seed=3).params for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, infer(model, x, ascent=Ascent(steps=60), seed=4).params)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(*pair) for pair in zip(weights, model.parameters(), strict=True))
    assert all(p.grad is None for p in model.parameters())
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize(
    "options, message",
    [
        ({"start": torch.zeros(4, 3)}, r"shape \(4, 4\), but has \(4, 3\)"),
        ({"family": Gaussian((3,))}, r"shape \(3,\), but the model's z has the shape \(2,\)"),
        (
            {"family": FullRankGaussian((2,)), "start": "amortized"},
            "gives 4 parameters per example, but the family takes 5",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict, message: str):
    with pytest.raises(InputError, match=message):
        infer(pca(amortized()), data(4), **options)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"num_samples": 0}, "num_samples must be at least 1, not 0"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
    ],
)
def test_an_ascent_that_makes_no_sense_is_refused(settings: dict, message: str):
    with pytest.raises(InputError, match=message):
        Ascent(**settings)


def test_an_amortized_start_needs_an_encoder():
    with pytest.raises(InputError, match="'amortized' needs an encoder: got 'amortized' for a Local"):
        infer(pca(Local(Gaussian((d,)), 4)), data(4), start="amortized")


def test_data_without_a_finite_bound_are_named():
    x = data(4)
    x[2, 1] = math.nan
    with pytest.raises(InputError, match="the bound is nan at the start for 1 of 4 examples, first for example 2"):
        infer(pca(amortized()), x)


def test_a_posterior_without_a_family_asks_for_one():
    with pytest.raises(InputError, match=r"MeanFieldPosterior, has no family.*family=Gaussian"):
        infer(pca(), data(4))


def test_unseen_data_of_a_local_posterior_are_inferred_as_the_message_says():
    model, x = pca(Local(Gaussian((d,)), 4)), data(7)
    with pytest.raises(InputError, match=r"subo\.infer\(model, x\)"):
        model.draw(x, {"index": torch.arange(7)})
    assert infer(model, x, {"index": torch.arange(7)}, ascent=Ascent(steps=10)).q.batch_shape == (7,)


def test_held_out_data_are_never_taken_for_training_data():
    """Every split of a data set names its data apart: a row of another example would answer without a word."""
    split = Split(torch.randint(0, 2, (12, D)).float())
    whole = Data("bits", split, split.take(torch.arange(3)), split.take(torch.arange(3, 8)), "binary")
    assert [whole.train.first, whole.validation.first, whole.test.first] == [0, 12, 15]
    assert whole.test.read(torch.arange(2))[1]["index"].tolist() == [15, 16]
    local = VAE(StandardNormal(d), Conditional(Bernoulli((D,)), mlp(d, D, hidden=(4,))), Local(Gaussian((d,)), 12))
    with pytest.raises(InputError, match="index 12 is not one of them"):
        fit(Objective(local), whole, epochs=1)
    fit(Objective(local), whole.train, epochs=1)
    rows = Local(Gaussian((d,)), 5, first=15)
    assert rows(torch.zeros(2, D), index=torch.tensor([15, 19])).batch_shape == (2,)
