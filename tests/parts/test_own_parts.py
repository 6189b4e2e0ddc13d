"""What a user brings: distributions of dictionaries, plain modules, flows of zuko."""

from typing import Any

import pytest
import torch
import zuko
from torch import Tensor, nn
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Distribution, Independent
from torch.testing import assert_close

import catalog
from small_vae import B, D, d, data, normal
from subo.core.bounds import IWAE
from subo.core.objective import Objective
from subo.models.vae import VAE


class Dictionary(Distribution):
    """A latent of two parts that share nothing but their rows."""

    arg_constraints: dict = {}  # noqa: RUF012
    has_rsample = True

    def __init__(self, **parts: Distribution):
        self.parts = parts
        super().__init__(next(iter(parts.values())).batch_shape, validate_args=False)

    def rsample(self, sample_shape: Any = ()) -> Any:
        return {name: part.rsample(sample_shape) for name, part in self.parts.items()}

    def sample(self, sample_shape: Any = ()) -> Any:
        return {name: part.sample(sample_shape) for name, part in self.parts.items()}

    def log_prob(self, value: Any):
        return sum(part.log_prob(value[name]) for name, part in self.parts.items())


def test_a_latent_may_be_a_dictionary():
    class Prior(nn.Module):
        def forward(self) -> Distribution:
            return Dictionary(a=normal(torch.zeros(1)), b=normal(torch.zeros(4)))

    class Likelihood(nn.Module):
        def forward(self, z: dict[str, Tensor]) -> Distribution:
            return normal(torch.cat([z["a"] + 1, z["b"] * z["a"], z["a"]], 1))

    class Posterior(nn.Module):
        def forward(self, x: Tensor) -> Distribution:
            return Dictionary(a=normal(x[:, :1]), b=normal(x[:, 2:]))

    model, x = VAE(Prior(), Likelihood(), Posterior()), torch.randn(B, D)
    draw = model.draw(x, num_samples=4)
    assert isinstance(draw.z, dict)
    assert draw.z["a"].shape == (4, B, 1)
    z = {name: leaf[2, 1][None] for name, leaf in draw.z.items()}
    expected = Likelihood()(z).log_prob(x[1:2]) + Prior()().log_prob(z) - Posterior()(x[1:2]).log_prob(z)
    assert_close(draw.log_weight[2, 1], expected[0])
    assert_close(model.log_joint(x, draw.z), draw.log_joint)
    assert Objective(model, IWAE(), num_samples=4)(x).loss.isfinite()
    z, p = model.sample(5)
    assert isinstance(z, dict)
    assert p.batch_shape == (5,)


class OwnPrior(nn.Module):
    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.ones(d))

    def forward(self) -> Distribution:
        return normal(self.loc)


class OwnLikelihood(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(d, D)

    def forward(self, z: Tensor) -> Distribution:
        return Independent(TorchBernoulli(logits=self.linear(z)), 1)


class OwnPosterior(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(D, d)

    def forward(self, x: Tensor) -> Distribution:
        return normal(self.linear(x), 0.5)


@pytest.mark.parametrize("bound", catalog.BOUNDS.values(), ids=catalog.BOUNDS.keys())
def test_plain_modules_that_return_torchs_distributions_serve_in_all_positions(bound):
    model = VAE(OwnPrior(), OwnLikelihood(), OwnPosterior())
    loss = Objective(model, bound, num_samples=4)(data())
    loss.loss.backward()
    assert loss.bound.isfinite().all()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("flow", [zuko.flows.MAF, zuko.flows.NSF])
def test_a_flow_of_zuko_serves_as_prior(flow):
    model = catalog.vae()
    model.prior = flow(d, transforms=2, hidden_features=(8,))
    loss = Objective(model, num_samples=3)(data())
    loss.loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    z, p = model.sample(5)
    assert isinstance(z, Tensor)
    assert z.shape == (5, d)
    assert p.batch_shape == (5,)


def test_a_flow_of_zuko_serves_as_posterior():
    model = catalog.vae()
    model.posterior = zuko.flows.MAF(d, D, transforms=2, hidden_features=(8,))
    draw = model.draw(data(), num_samples=3)
    assert isinstance(draw.z, Tensor)
    assert_close(draw.log_posterior, draw.q.log_prob(draw.z), rtol=1e-3, atol=1e-3)
    Objective(model)(data()).loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.posterior.parameters())
