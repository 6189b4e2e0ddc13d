"""Priors, and posteriors without an encoder."""

import pytest
import torch
from test_own_parts import OwnPosterior
from torch import Size, Tensor
from torch.distributions import Categorical, MixtureSameFamily
from torch.testing import assert_close

import catalog
from small_vae import D, d, data
from subo.errors import InputError
from subo.parts.conditionals import Local
from subo.parts.location_scale import Gaussian
from subo.parts.priors import FlowPrior, GaussianMixture, StandardNormal, VampPrior

# Posteriors without an encoder


def test_a_local_posterior_finds_its_rows_by_index():
    q = Local(Gaussian((d,)), 10).double()
    with torch.no_grad():
        q.params.copy_(torch.arange(40).reshape(10, 4))
    index = torch.tensor([7, 0, 7])
    assert q(torch.zeros(3, D, dtype=torch.float64), index).mean.tolist() == [[28.0, 29], [0, 1], [28, 29]]
    q(torch.zeros(3, D, dtype=torch.float64), index).mean.sum().backward()
    assert q.params.grad is not None
    assert q.params.grad.is_sparse
    assert q.params.grad.to_dense().abs().sum(1).nonzero().flatten().tolist() == [0, 7]


@pytest.mark.parametrize("index, named", [([3, 10], 10), ([-1, 3], -1), ([12, -2], 12)])
def test_data_never_seen_have_no_local_posterior(index, named):
    q = Local(Gaussian((d,)), 10)
    with pytest.raises(InputError, match=rf"the 10 examples.* index {named} .*subo\.infer"):
        q(torch.zeros(2, D), torch.tensor(index))


def test_a_local_posterior_without_an_index_asks_for_it():
    model = catalog.vae(posterior="local gaussian")
    with pytest.raises(InputError, match="'index'"):
        model.draw(data())


# Priors


def test_the_vamp_prior_is_the_mixture_of_the_models_own_posterior():
    model = catalog.vae("vamp").double()
    prior, posterior = model.prior, model.posterior
    assert isinstance(prior, VampPrior)
    assert prior.posterior is posterior
    z = torch.randn(7, d, dtype=torch.float64)

    def mixture() -> Tensor:
        components = [posterior(u[None]).log_prob(z) for u in prior.pseudo_inputs]
        return torch.stack(components).exp().mean(0).log()

    before = prior().log_prob(z)
    assert_close(before, mixture())
    with torch.no_grad():
        for parameter in posterior.parameters():
            parameter.add_(0.1)
    assert_close(prior().log_prob(z), mixture())
    assert (prior().log_prob(z) != before).all()
    names = [name for name, _ in model.named_parameters()]
    assert len(names) == len(set(names)) == 9  # two layers twice, and the pseudo-inputs


def test_the_vamp_priors_inputs_stay_in_their_limits_and_learn_from_anywhere():
    """A clamp would stop the gradient of every pixel that starts at 0 or 1, as most pixels of bits do."""
    q = OwnPosterior()
    start = torch.tensor([[0.0] * D, [0.5] * D, [1.0] * D])
    limited = VampPrior(q, start, limits=(0.0, 1.0))
    assert (limited.pseudo_inputs - start).abs().max() <= 0.0501
    (gradient,) = torch.autograd.grad(limited().log_prob(torch.randn(5, d)).sum(), [limited.raw_inputs])
    assert (gradient != 0).all()
    with torch.no_grad():
        limited.raw_inputs.mul_(100)
    assert 0 <= limited.pseudo_inputs.min() <= limited.pseudo_inputs.max() <= 1
    free = VampPrior(q, 7 * start)
    assert torch.equal(free.pseudo_inputs, 7 * start)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_a_mixture_prior_is_the_weighted_sum_of_its_components(covariance):
    prior = GaussianMixture(d, components=3, covariance=covariance).double()
    with torch.no_grad():
        prior.logits.normal_()
        prior.params.add_(torch.randn_like(prior.params))
    p, z = prior(), torch.randn(7, d, dtype=torch.float64)
    assert isinstance(p, MixtureSameFamily)
    components = torch.stack([prior.family(row[None]).log_prob(z) for row in prior.params])
    expected = (prior.logits.softmax(0)[:, None] * components.exp()).sum(0).log()
    assert_close(p.log_prob(z), expected)


def test_the_components_of_a_mixture_start_apart_and_plain():
    prior = GaussianMixture(d, components=5, spread=3.0)
    p = prior()
    assert isinstance(p, MixtureSameFamily)
    assert_close(p.component_distribution.variance, torch.ones(5, d))
    assert isinstance(p.mixture_distribution, Categorical)
    assert_close(p.mixture_distribution.probs, torch.full((5,), 0.2))
    assert p.component_distribution.mean.std() > 1


@pytest.mark.parametrize("kind", ["autoregressive", "spline"])
def test_the_density_of_a_flow_prior_is_that_of_its_noise_times_the_jacobian(kind):
    prior = FlowPrior(3, kind=kind, hidden=(8,)).double()
    z = torch.randn(3, dtype=torch.float64)
    towards_noise = prior.transform()
    jacobian = torch.autograd.functional.jacobian(towards_noise, z)
    assert isinstance(jacobian, Tensor)
    noise = StandardNormal(3).double()().log_prob(towards_noise(z))
    assert_close(prior().log_prob(z), noise + torch.linalg.slogdet(jacobian).logabsdet)
    assert_close(towards_noise(prior().rsample()).shape, Size([3]))


@pytest.mark.parametrize("make", [
    lambda: GaussianMixture(d, components=0),
    lambda: FlowPrior(d, transforms=0),
], ids=["mixture", "flow"])  # fmt: skip
def test_a_prior_of_nothing_is_refused(make):
    with pytest.raises(InputError, match="must be at least 1, not 0"):
        make()
