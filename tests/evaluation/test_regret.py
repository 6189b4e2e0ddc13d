"""Likelihood regret, against the exact one of a linear Gaussian model."""

import pytest
import torch

from assertions import assert_refused
from linear_gaussian import amortized, best_elbo, data, exact_elbo, pca
from subo import VAE, Gaussian, Local, likelihood_regret
from subo.data import Split
from subo.inference.ascent import Ascent
from subo.models.probabilistic_pca import MeanFieldPosterior

pytestmark = pytest.mark.usefixtures("double_by_default")


def encoder_off_by(shift: float) -> VAE:
    """A linear model whose encoder gives the best diagonal q, moved by some distance in z1."""
    model = pca(amortized())
    x = data(200)
    best = MeanFieldPosterior(model.likelihood)(x)
    whole = torch.cat([x, torch.ones(len(x), 1)], 1)
    weight = torch.linalg.lstsq(whole, best.mean.detach()).solution.T
    layer = model.posterior.network
    raw = model.posterior.family.location_scale.scale.raw_of(best.stddev[0].detach())
    with torch.no_grad():
        layer.weight.copy_(torch.cat([weight[:, :-1], torch.zeros_like(weight[:, :-1])]))
        layer.bias.copy_(torch.cat([weight[:, -1], raw]))
        layer.bias[0] += shift
    return model


def test_it_is_what_the_best_q_gains_over_the_encoders():
    torch.manual_seed(0)
    model, x = encoder_off_by(0.7), data(20)
    exact = best_elbo(model, x) - exact_elbo(model.likelihood, model.posterior(x), x).detach()
    assert (exact > 0.5).all()
    found = likelihood_regret(model, x, ascent=Ascent(steps=300), num_samples=20_000)
    torch.testing.assert_close(found, exact, rtol=0.03, atol=0.03)


def test_an_example_beside_others_has_its_own():
    torch.manual_seed(0)
    x = data(6)
    model = pca(amortized())
    whole = likelihood_regret(model, Split(x, first=7), ascent=Ascent(steps=200), num_samples=2000)
    order = torch.tensor([4, 0, 2])
    some = likelihood_regret(model, Split(x[order]), ascent=Ascent(steps=200), num_samples=2000)
    torch.testing.assert_close(some, whole[order], rtol=0.05, atol=0.3)
    assert whole.std() > 1


def test_a_model_without_an_encoder_is_refused():
    with assert_refused("amortized inference"):
        likelihood_regret(pca(Local(Gaussian((2,)), 5)), data(5))
