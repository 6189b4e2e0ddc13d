"""A generative process that one knows, as a VAE: the two-parameter logistic model against marginal likelihood."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent
from torch.testing import assert_close

import subo

N, J = 300, 5


class TwoParameterLogistic(nn.Module):
    """Right answers with probability ``sigmoid(a_j (theta - b_j))``, a > 0."""

    def __init__(self, num_items: int):
        super().__init__()
        self.log_discrimination = nn.Parameter(torch.zeros(num_items))
        self.difficulty = nn.Parameter(torch.zeros(num_items))

    def forward(self, theta: Tensor) -> Distribution:
        logits = self.log_discrimination.exp() * (theta - self.difficulty)
        return Independent(Bernoulli(logits=logits, validate_args=False), 1)


pytestmark = pytest.mark.usefixtures("double_by_default")


def rule(num_nodes: int) -> tuple[Tensor, Tensor]:
    """Nodes and log-weights of a mean over N(0, 1)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(num_nodes)
    return torch.tensor(nodes), torch.tensor(weights).log() - math.log(2 * math.pi) / 2


def log_px(params: Tensor, x: Tensor) -> Tensor:
    """Of each person at params = (log a, b), by quadrature."""
    nodes, log_weights = rule(61)
    log_a, b = params.chunk(2)
    right = torch.sigmoid(log_a.exp() * (nodes[:, None] - b))
    answers = torch.where(x[:, None] == 1, right, 1 - right).log().sum(2)
    return (answers + log_weights).logsumexp(1)


def best_elbo(params: Tensor, x: Tensor) -> Tensor:
    """The ELBOs at (log a, b, mean of each person, log-scale of each person), by quadrature."""
    nodes, log_weights = rule(21)
    items, (loc, log_scale) = params[: 2 * J], params[2 * J :].unflatten(0, (2, -1))
    log_a, b = items.chunk(2)
    logits = log_a.exp() * ((loc + log_scale.exp() * nodes[:, None])[..., None] - b)
    log_likelihood = log_weights.exp() @ (x * logits - F.softplus(logits)).sum(2)
    return log_likelihood - (loc.square() + (2 * log_scale).exp() - 1 - 2 * log_scale) / 2


def maximum(objective: Callable[[Tensor], Tensor], size: int) -> Tensor:
    params = torch.zeros(size, requires_grad=True)
    options: dict[str, Any] = {"max_iter": 1000, "tolerance_grad": 1e-7, "tolerance_change": 1e-13}
    optimizer = torch.optim.LBFGS([params], line_search_fn="strong_wolfe", **options)

    def closure() -> float:
        optimizer.zero_grad()
        loss = -objective(params).sum()
        loss.backward()
        return loss.item()

    optimizer.step(closure)
    return params.detach()


@pytest.fixture(scope="module")
def answers() -> Tensor:
    """Those of N persons to J items."""
    generator = torch.Generator().manual_seed(3)
    a, b = torch.tensor([0.7, 1.0, 1.4, 1.8, 2.2]).double(), torch.tensor([-1.0, 0.5, 0.0, 1.2, -0.4]).double()
    theta = torch.randn(N, 1, generator=generator, dtype=torch.float64)
    return torch.bernoulli(torch.sigmoid(a * (theta - b)), generator=generator)


def vae(posterior: str) -> subo.VAE:
    family = subo.Gaussian((1,))
    amortized = subo.Conditional(family, subo.mlp(J, 2, hidden=(16,)))
    q = amortized if posterior == "amortized" else subo.Local(family, N)
    return subo.VAE(subo.StandardNormal(1), TwoParameterLogistic(J), q)


def of(model: subo.VAE) -> Tensor:
    """Its parameters (log a, b)."""
    return torch.cat([model.likelihood.log_discrimination, model.likelihood.difficulty])


def estimated(x: Tensor, posterior: str, bound: subo.ELBO | subo.IWAE) -> Tensor:
    model = vae(posterior)
    gradient = subo.DReG() if isinstance(bound, subo.IWAE) else None  # IWAE's pathwise gradient leaves q noisy
    objective = subo.Objective(model, bound, gradient=gradient, num_samples=20)
    subo.fit(objective, x, epochs=250, batch_size=N, learning_rate=0.05, decay="cosine")
    return of(model).detach().double()


def test_the_vae_is_the_model_in_value_and_gradient(answers: Tensor):
    model = vae("amortized")
    torch.nn.init.normal_(model.likelihood.log_discrimination, std=0.3)
    torch.nn.init.normal_(model.likelihood.difficulty)
    nodes, log_weights = rule(61)
    z = nodes[:, None, None].expand(-1, N, 1)
    by_joint = model.log_joint(answers, z) - model.log_prior(z) + log_weights[:, None]
    params = of(model).detach().requires_grad_()
    truth = log_px(params, answers)
    assert_close(by_joint.logsumexp(0), truth)
    wanted = [model.likelihood.log_discrimination, model.likelihood.difficulty]
    found = torch.cat(torch.autograd.grad(by_joint.logsumexp(0).sum(), wanted))
    assert_close(found, torch.autograd.grad(truth.sum(), params)[0])
    estimate = subo.log_marginal(model, answers, num_samples=200)
    assert ((estimate.log_px - truth).abs() < 5 * estimate.standard_error).all()


@pytest.mark.slow
def test_estimates_are_those_of_marginal_maximum_likelihood_unless_the_elbo_is_maximized(answers: Tensor):
    best = maximum(lambda params: log_px(params, answers), 2 * J)
    hessian = torch.autograd.functional.hessian(lambda params: -log_px(params, answers).sum(), best)
    errors = torch.linalg.inv(torch.as_tensor(hessian)).diagonal().sqrt()

    def distance(found: Tensor, target: Tensor) -> float:
        return ((found - target) / errors).abs().max().item()

    # The ELBO's own maximum is another one, which is where its estimates go.
    biased = maximum(lambda params: best_elbo(params, answers), 2 * J + 2 * N)[: 2 * J]
    assert distance(biased, best) > 0.25
    by_elbo = estimated(answers, "amortized", subo.ELBO())
    assert distance(by_elbo, biased) < 0.15 < 0.2 < distance(by_elbo, best)
    for posterior in ("amortized", "per example"):
        assert distance(estimated(answers, posterior, subo.IWAE()), best) < 0.2
