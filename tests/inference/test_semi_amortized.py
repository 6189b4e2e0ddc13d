"""Refined posteriors: an encoder's answer, bettered by a few steps."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from linear_gaussian import amortized, best_elbo, d, data, exact_elbo, pca
from shapes import unchecked_shapes
from subo.core.bounds import ELBO
from subo.core.objective import Objective
from subo.data.splits import Split
from subo.errors import InputError
from subo.evaluation.evidence.importance import log_marginal
from subo.evaluation.latents.usage import latent_usage
from subo.evaluation.reconstruction import reconstruct
from subo.inference.ascent import Ascent
from subo.inference.per_example import infer
from subo.inference.semi_amortized import Refined
from subo.models.vae import VAE
from subo.parts.conditionals import Given
from subo.parts.families import Bernoulli
from subo.parts.location_scale import Laplace
from subo.runtime.randomness import forked
from subo.training.fitting import fit


def refined(model: VAE, **options) -> VAE:
    return VAE(model.prior, model.likelihood, Refined(model, **options))


def test_refinement_lies_between_the_encoder_and_each_datums_optimum():
    model, x = pca(amortized()), data(40)
    elbo = [exact_elbo(model.likelihood, model.posterior(x), x).mean().item()]
    for steps in (1, 5, 50):
        with torch.no_grad():
            q = refined(model, steps=steps, learning_rate=0.05, num_samples=64).posterior(x)
        elbo.append(exact_elbo(model.likelihood, q, x).mean().item())
    assert elbo == sorted(elbo)
    best = best_elbo(model, x).mean().item()
    assert elbo[-1] < best
    assert best - elbo[-1] < 0.05 * (best - elbo[0])


@pytest.fixture
def small() -> tuple[VAE, Tensor]:
    return pca(amortized()), data(3)


def loss_of(model: VAE, x: Tensor) -> Tensor:
    with forked(1):
        return Objective(model, num_samples=2)(x).loss


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_the_gradient_through_the_steps_is_that_of_the_whole_computation(small, momentum):
    model, x = small
    whole = refined(model, steps=4, learning_rate=0.1, momentum=momentum, clip=3.0)
    parameters = list(whole.parameters())
    gradients = torch.autograd.grad(loss_of(whole, x), parameters)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        direction = torch.randn_like(parameter)
        with torch.no_grad():
            values = []
            for sign in (1, -1):
                parameter.add_(sign * 1e-6 * direction)
                values.append(loss_of(whole, x).item())
                parameter.sub_(sign * 1e-6 * direction)
        assert (values[0] - values[1]) / 2e-6 == pytest.approx((gradient * direction).sum().item(), rel=1e-4, abs=1e-6)


def test_the_gradient_that_stops_is_that_at_the_last_parameters(small):
    model, x = small
    whole = refined(model, steps=4, through=False)
    parameters = list(whole.parameters())
    gradients = torch.autograd.grad(loss_of(whole, x), parameters)
    with forked(1):
        last = whole.posterior._refined(model.posterior.network(x).detach(), x, {}, through=False).detach()
        last.requires_grad_()
        objective = Objective(VAE(model.prior, model.likelihood, Given(model.posterior.family, last)), num_samples=2)
        loss = objective(x).loss
    theta = list(model.likelihood.parameters())
    *expected, slope = torch.autograd.grad(loss, [*theta, last])
    encoder = torch.autograd.grad(model.posterior.network(x), list(model.posterior.parameters()), slope)
    for gradient, other in zip(gradients, [*expected, *encoder], strict=True):
        assert_close(gradient, other)


def test_with_and_without_a_gradient_the_value_is_the_same(small):
    model, x = small
    for through in (True, False):
        whole = refined(model, steps=3, through=through)
        with torch.no_grad():
            value = loss_of(whole, x)
        assert not value.requires_grad
        assert_close(loss_of(whole, x).detach(), value, rtol=1e-12, atol=1e-12)


def test_prior_and_likelihood_are_not_parts_of_the_posterior_that_is_refined():
    model = pca(amortized())
    whole = refined(model)
    assert set(map(id, whole.posterior.parameters())) == set(map(id, model.posterior.parameters()))
    assert sorted(whole.state_dict()) == sorted(
        name.replace("posterior.", "posterior.amortized.") for name in model.state_dict()
    )


@pytest.mark.parametrize("through", [True, False])
def test_a_refined_model_is_fitted_and_evaluated(through):
    model, x = pca(amortized()).float(), data(60).float()
    whole = refined(model, steps=3, through=through)
    history = fit(Objective(whole), Split(x), epochs=5, learning_rate=0.01, updates="alternating")
    assert history.epochs[-1].train.elbo > history.epochs[0].train.elbo
    log_px = model.likelihood.log_px(x).detach().double()
    with_steps, without = (log_marginal(one, x, num_samples=500) for one in (whole, model))
    assert without.elbo.mean() < with_steps.elbo.mean() < log_px.mean()
    assert reconstruct(whole, Split(x)).shape == x.shape
    assert latent_usage(whole, Split(x)).means.shape == (60, d)
    assert infer(whole, x[:3], start="amortized", ascent=Ascent(steps=10)).params.shape == (3, 2 * d)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"momentum": 1.0}, "momentum must be below 1"),
        ({"clip": 0.0}, "must be positive"),
    ],
)
def test_refinement_that_makes_no_sense_is_refused(options: dict, message: str):
    with pytest.raises(InputError, match=message):
        Refined(pca(amortized()), **options)


def test_refinement_needs_an_encoder_and_a_path():
    with pytest.raises(InputError, match=r"MeanFieldPosterior: give a model whose posterior is Conditional"):
        Refined(pca())
    model = pca(amortized(d, Bernoulli((d,))))
    with pytest.raises(InputError, match="no rsample"):
        refined(model).draw(data(2), path=False)


def test_a_family_keeps_its_own_parameters_while_it_is_fitted():
    """A shared scale belongs to all data: it is held fixed, as a flow's maps are."""
    family = Laplace((d,), "shared").double()
    before = family.location_scale.scale.raw.clone()
    fitted = infer(pca(), data(4), family=family, ascent=Ascent(steps=100))
    assert torch.equal(family.location_scale.scale.raw, before)
    assert family.location_scale.scale.raw.grad is None
    assert (fitted.bound > fitted.trace[0]).all()


@unchecked_shapes()
def test_another_bound_is_climbed():
    model, x = pca(amortized()), data(10)
    wide = infer(model, x, bound=ELBO(beta=0.1), ascent=Ascent(num_samples=16, steps=300))
    assert (wide.q.stddev > 0).all()
    assert (wide.bound > infer(model, x, ascent=Ascent(num_samples=16, steps=300)).bound).all()
