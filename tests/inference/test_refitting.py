"""The gaps of structured models: a posterior network trained on each example by itself."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from subo import VAE, Child, Conditional, Gaussian, InputError, Joint, StandardNormal
from subo.evaluation import gaps
from subo.inference.ascent import Ascent
from subo.inference.refitting import own_parameters, refitted
from subo.models.deep_markov import BackwardReader, Combiner, Smoother
from subo.models.state_space import LinearGaussianStateSpace


def chain() -> VAE:
    """``z2 -> z1 -> x``, all of them one number, linear and Gaussian; q is bottom-up and linear, and can be exact."""
    prior = Joint(z2=StandardNormal(1), z1=Child(Gaussian((1,)), nn.Linear(1, 2), "z2"))
    likelihood = Child(Gaussian((1,), 0.5), nn.Linear(1, 1), "z1")
    node = Conditional(Gaussian((1,)), nn.Linear(1, 2)), Child(Gaussian((1,)), nn.Linear(1, 2), "z1")
    return VAE(prior, likelihood, Joint(z1=node[0], z2=node[1])).double()


def exact_log_px(model: VAE, x: Tensor) -> Tensor:
    """By quadrature over z1 and z2."""
    grid = torch.linspace(-12, 12, 601, dtype=torch.float64)
    z2, z1 = torch.meshgrid(grid, grid, indexing="ij")
    z = {"z2": z2.reshape(-1, 1, 1), "z1": z1.reshape(-1, 1, 1)}
    with torch.no_grad():
        joint = model.log_joint(x, {name: leaf.expand(-1, len(x), 1) for name, leaf in z.items()})
    return joint.logsumexp(0) + 2 * (grid[1] - grid[0]).log()


@pytest.mark.slow
def test_the_gaps_of_layers_are_found_where_q_can_be_exact():
    model, x = chain(), torch.tensor([[-1.0], [2.0]], dtype=torch.float64)
    with torch.no_grad():  # constant scales make all of it Gaussian
        for part in (model.prior.node("z1"), model.posterior.node("z1"), model.posterior.node("z2")):
            part.network.weight[1].zero_()
    before = [p.clone() for p in model.parameters()]
    found = gaps(
        model, x, ascent=Ascent(steps=700, num_samples=16), num_samples=2000, elbo_samples=2000, annealing=None
    )
    assert_close(list(model.parameters()), before)  # the model is left as it was
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    truth = exact_log_px(model, x)
    assert ((found.log_px - truth).abs() < 5 * found.log_px_se + 1e-6).all()
    assert (found.approximation > -5 * found.elbo_best_se - 1e-6).all()
    assert (found.approximation < 5 * found.elbo_best_se + 0.01).all()
    assert (found.amortization > 0.05).all()
    assert ((found.inference - (truth - found.elbo)).abs() < 5 * found.log_px_se + 1e-6).all()


def test_an_exact_posterior_has_nothing_to_refit_and_no_gap():
    state_space = LinearGaussianStateSpace(2, 1).double()
    model, x = state_space.as_vae(), torch.randn(2, 3, 2, dtype=torch.float64)
    assert own_parameters(model) == []
    mask = torch.tensor([[True, True, True], [True, False, False]])
    found = gaps(model, x, {"mask": mask}, ascent=Ascent(steps=5), num_samples=20, elbo_samples=20, annealing=None)
    for gap in (found.approximation, found.amortization):
        assert_close(gap, torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-8)
    assert_close(found.log_px, state_space.log_px(x, mask).detach(), rtol=0, atol=1e-8)


@pytest.mark.slow
def test_a_chain_with_another_posterior_has_both_gaps():
    exact = LinearGaussianStateSpace(1, 1).double()
    parts, x = exact.as_vae(), torch.randn(2, 3, 1, dtype=torch.float64)
    q = Smoother(BackwardReader(nn.Flatten(), 1, hidden=4), Combiner(1, 4), 1).double()
    mask = torch.ones(2, 3, dtype=torch.bool)
    model = VAE(parts.prior, parts.likelihood, q)
    found = gaps(model, x, {"mask": mask}, ascent=Ascent(steps=150, num_samples=8), num_samples=4000, annealing=None)
    truth = exact.log_px(x).detach()
    assert ((found.log_px - truth).abs() < 5 * found.log_px_se + 1e-3).all()
    assert (found.amortization > 0).all()
    assert (found.approximation < found.inference).all()


def test_refitting_refuses_what_it_cannot_do():
    model = chain()
    with pytest.raises(InputError, match="one example at a time"):
        refitted(model, torch.zeros(2, 1))
    with pytest.raises(InputError, match="no module 'posterior'"):
        refitted(nn.Identity(), torch.zeros(1, 1))
