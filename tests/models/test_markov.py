"""Markov chains against dense Gaussians and enumeration, in value and gradient; padding; sequences of steps."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Size, Tensor, nn
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, StudentT, kl_divergence
from torch.testing import assert_close

from assertions import assert_within
from padding import mask_of
from subo import (
    ELBO,
    IWAE,
    VAE,
    VIMCO,
    Bernoulli,
    Conditional,
    DReG,
    Emission,
    Gaussian,
    InputError,
    Markov,
    MarkovDistribution,
    Objective,
    Pathwise,
    Poisson,
    ScoreFunction,
    StandardNormal,
    StickingTheLanding,
    mlp,
)
from subo.core.bounds import Bound
from subo.core.draw import Draw
from subo.distributions.discrete import Categorical, OneHotCategorical
from subo.distributions.gaussian import Gaussian as GaussianDistribution
from subo.evaluation import ais, log_marginal
from subo.evaluation.evidence.annealed import Annealing
from subo.models.emission import Steps, check_mask, masked
from subo.models.hidden_markov import StateTable

pytestmark = pytest.mark.usefixtures("double_by_default")


# A chain of vectors is a Gaussian


class LinearChain(nn.Module):
    """``z_1 ~ N(m, s^2)``, ``z_t ~ N(A z_{t-1} + h_t, s^2)``, as a chain and as one Gaussian over all of z."""

    def __init__(self, dim: int, length: int, scale: float = 0.7):
        super().__init__()
        self.weight, self.loc = nn.Parameter(0.6 * torch.randn(dim, dim)), nn.Parameter(torch.randn(dim))
        self.log_scale = nn.Parameter(torch.tensor(scale).log())
        self.length = length

    def step(self, previous: Tensor, inputs: Tensor) -> Distribution:
        return GaussianDistribution(previous @ self.weight.mT + inputs, self.log_scale.exp(), 1)

    def chain(self, inputs: Tensor, mask: Tensor | None = None) -> MarkovDistribution:
        first = GaussianDistribution(self.loc + inputs[:, 0], self.log_scale.exp(), 1)
        return MarkovDistribution(first, self.step, self.length, mask=mask, inputs=inputs)

    def dense(self, inputs: Tensor) -> MultivariateNormal:
        """``z = G (h + noise)``, where block (t, s) of G is ``A^(t - s)``."""
        dim = len(self.loc)
        powers = [torch.linalg.matrix_power(self.weight, n) for n in range(self.length)]
        zero = torch.zeros(dim, dim)
        rows = [
            torch.cat([powers[t - s] if s <= t else zero for s in range(self.length)], 1) for t in range(self.length)
        ]
        grown = torch.cat(rows)
        start = torch.cat([self.loc, torch.zeros(dim * (self.length - 1))])
        loc = (inputs.flatten(1) + start) @ grown.mT
        return MultivariateNormal(loc, self.log_scale.exp() ** 2 * grown @ grown.mT)


def test_a_linear_chain_has_the_density_of_its_joint_gaussian_and_its_gradient():
    model, inputs = LinearChain(2, 4), torch.randn(3, 4, 2)
    z = torch.randn(5, 3, 4, 2, requires_grad=True)
    found, exact = model.chain(inputs).log_prob(z), model.dense(inputs).log_prob(z.flatten(2))
    assert_close(found, exact)
    assert_close(model.chain(inputs).log_prob_by_step(z).sum(-1), exact)
    variables = [*model.parameters(), z]
    weight = torch.randn(5, 3)
    for a, b in zip(
        torch.autograd.grad((weight * found).sum(), variables),
        torch.autograd.grad((weight * exact).sum(), variables),
        strict=True,
    ):
        assert_close(a, b)


def test_its_samples_have_the_moments_of_that_gaussian_and_are_differentiable_along_the_chain():
    model, inputs = LinearChain(2, 3), torch.randn(2, 3, 2)
    q, dense = model.chain(inputs), model.dense(inputs)
    assert (q.batch_shape, q.event_shape, q.has_rsample) == (Size([2]), Size([3, 2]), True)
    z = q.rsample(Size([20_000]))
    centered = (z.flatten(2) - dense.loc).detach()
    assert_within(centered, 0.0)
    assert_within(torch.einsum("kbi,kbj->kbij", centered, centered), dense.covariance_matrix.detach())
    (slope,) = torch.autograd.grad(z[:, :, 2].sum(), model.loc)  # of z_3, by way of z_1 and z_2
    assert_close(slope, 2 * 20_000 * (model.weight @ model.weight).detach().sum(0))
    assert not q.sample(Size([2])).requires_grad


def test_a_chain_that_is_given_nothing_has_no_batch():
    prior = Markov(StandardNormal(2), Conditional(Gaussian((2,)), mlp(2, 4, hidden=(8,))), length=3)
    p = prior()
    assert p.batch_shape == Size()
    assert p.sample().shape == (3, 2)
    z = p.sample(Size([4, 5]))
    assert p.log_prob(z).shape == (4, 5)
    assert_close(p.log_prob(z)[1, 2], p.log_prob(z[1, 2]))
    assert p.support.check(z).all()
    assert not p.support.is_discrete


# A chain of states is a table


class TableChain(nn.Module):
    """A chain of S states with inputs that are added to its logits; one of one-hot categories has the same tables."""

    def __init__(self, num_states: int = 3):
        super().__init__()
        self.first = nn.Parameter(torch.randn(num_states))
        self.table = nn.Parameter(torch.randn(num_states, num_states))

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> MarkovDistribution:
        first = Categorical(logits=self.first + inputs[:, 0])
        return MarkovDistribution(
            first, lambda z, h: Categorical(logits=self.table[z] + h), inputs.shape[1], mask=mask, inputs=inputs
        )

    def one_hot(self, inputs: Tensor) -> MarkovDistribution:
        first = OneHotCategorical(logits=self.first + inputs[:, 0])
        return MarkovDistribution(
            first, lambda z, h: OneHotCategorical(logits=z @ self.table + h), inputs.shape[1], inputs=inputs
        )


def paths(length: int, num_states: int) -> Tensor:
    """All of them, ``(S^T, T)``."""
    return torch.tensor(list(itertools.product(range(num_states), repeat=length)))


def test_the_probabilities_of_all_paths_are_products_of_the_table_and_sum_to_one():
    model, inputs = TableChain(), torch.randn(2, 4, 3)
    z = paths(4, 3)
    found = model(inputs).log_prob(z[:, None].expand(-1, 2, -1))
    for b in range(2):
        exact = (model.first + inputs[b, 0]).log_softmax(0)[z[:, 0]]
        for t in range(1, 4):
            exact = exact + (model.table + inputs[b, t]).log_softmax(1)[z[:, t - 1], z[:, t]]
        assert_close(found[:, b], exact)
    assert_close(found.exp().sum(0), torch.ones(2))
    one_hot = nn.functional.one_hot(z, 3).to(inputs)
    assert_close(model.one_hot(inputs).log_prob(one_hot[:, None].expand(-1, 2, -1, -1)), found)


def test_samples_of_states_have_their_frequencies():
    model, inputs = TableChain(), torch.randn(2, 3, 3)
    q, z = model(inputs), paths(3, 3)
    probabilities = q.log_prob(z[:, None].expand(-1, 2, -1)).exp().detach()
    drawn = q.sample(Size([20_000]))
    assert (drawn.dtype, drawn.shape, q.has_rsample) == (torch.long, (20_000, 2, 3), False)
    assert q.support.is_discrete
    for samples in (drawn, model.one_hot(inputs).sample(Size([20_000])).argmax(-1)):
        frequencies = (samples[:, None] == z[:, None]).double().prod(-1).mean(0)
        error = (probabilities * (1 - probabilities) / 20_000).sqrt()
        assert ((frequencies - probabilities).abs() < 5 * error + 5 / 20_000).all()
    with pytest.raises(InputError, match="a step of the chain has no rsample \\(Categorical\\).*ScoreFunction"):
        q.rsample()


# Divergences


def test_the_mean_of_the_divergence_by_steps_is_that_of_all_paths_in_value_and_gradient():
    q_of, p_of, inputs, other = TableChain(), TableChain(), torch.randn(2, 3, 3), torch.randn(2, 3, 3)
    q, p, z = q_of(inputs), p_of(other), paths(3, 3)[:, None].expand(-1, 2, -1)
    (factor,) = q.factors(p, z)
    assert factor.kl is not None
    assert factor.kl.shape == (27, 2)
    probabilities = q.log_prob(z).exp()
    exact = (probabilities * (q.log_prob(z) - p.log_prob(z))).sum(0)
    assert_close((probabilities * factor.kl).sum(0), exact)
    by_step = q.kl_by_step(p, z)
    assert by_step is not None
    assert_close(by_step.sum(-1), factor.kl)
    for a, b in zip(
        torch.autograd.grad(
            (probabilities * factor.kl).sum(), [*q_of.parameters(), *p_of.parameters()], retain_graph=True
        ),
        torch.autograd.grad(exact.sum(), [*q_of.parameters(), *p_of.parameters()]),
        strict=True,
    ):
        assert_close(a, b)


def test_the_divergence_of_two_gaussian_chains_is_that_of_their_joints():
    a, b, inputs = LinearChain(2, 3), LinearChain(2, 3, 1.1), torch.randn(2, 3, 2)
    q, p = a.chain(inputs), b.chain(torch.zeros(2, 3, 2))
    z = q.rsample(Size([5000]))
    (factor,) = q.factors(p, z)
    assert factor.kl is not None
    exact = kl_divergence(a.dense(inputs), b.dense(torch.zeros(2, 3, 2))).detach()
    assert_within(factor.kl.detach(), exact)
    assert_within((factor.log_posterior - factor.log_prior).detach(), exact)
    assert (factor.kl.std(0) < (factor.log_posterior - factor.log_prior).std(0)).all()  # what the closed form is for


def test_there_is_no_closed_form_where_a_step_has_none_or_the_prior_is_no_chain():
    model, inputs = LinearChain(2, 3), torch.randn(4, 3, 2)
    q = model.chain(inputs)
    z = q.sample(Size([2]))
    first = GaussianDistribution(torch.zeros(2), torch.ones(()), 1)
    heavy = MarkovDistribution(first, lambda previous: Independent(StudentT(3.0, previous), 1), 3)
    whole = GaussianDistribution(torch.zeros(3, 2), torch.ones(()), 2)
    heavy_first = MarkovDistribution(Independent(StudentT(3.0, torch.zeros(2)), 1), lambda z: model.step(z, z), 3)
    for p in (heavy, heavy_first, whole):
        (factor,) = q.factors(p, z)
        assert factor.kl is None
        assert_close(factor.rate(), (q.log_prob(z) - p.log_prob(z)).mean(0))


def test_a_chain_of_one_state_is_that_state():
    model, inputs = LinearChain(2, 1), torch.randn(3, 1, 2)
    q, p = model.chain(inputs), Markov(StandardNormal(2), mlp(2, 2), length=1)()
    z = q.rsample(Size([6]))
    assert_close(q.log_prob(z), q.first.log_prob(z[..., 0, :]))
    assert_close(q.factors(p, z)[0].kl, kl_divergence(q.first, StandardNormal(2)()).expand(6, 3))


# Padding


def padded_model(discrete: bool) -> tuple[VAE, Tensor]:
    torch.manual_seed(3)

    class Posterior(nn.Module):
        def __init__(self):
            super().__init__()
            self.of_x, self.chain = nn.Linear(3, 2), TableChain(2)

        def forward(self, x: Tensor, mask: Tensor | None = None) -> MarkovDistribution:
            inputs = self.of_x(x)
            if discrete:
                return self.chain(inputs, mask)
            first = GaussianDistribution(inputs[:, 0], torch.ones(()), 1)
            return MarkovDistribution(
                first, lambda z, h: GaussianDistribution(z + h, torch.ones(()), 1), x.shape[1], mask=mask, inputs=inputs
            )

    vectors = Markov(StandardNormal(2), Conditional(Gaussian((2,)), mlp(2, 4, hidden=(8,))))
    network = nn.Embedding(2, 6) if discrete else nn.Linear(2, 6)
    model = VAE(states() if discrete else vectors, Emission(Gaussian((3,)), network), Posterior())
    return model, torch.randn(4, 5, 3)


def states(length: int | None = None) -> Markov:
    """A prior over two states."""
    prior = Markov(StateTable(2), StateTable(2, 2), length=length)
    for parameter in prior.parameters():
        nn.init.normal_(parameter)
    return prior


LENGTHS = (5, 1, 3, 4)


@pytest.mark.parametrize("discrete", [False, True])
def test_padding_changes_nothing(discrete: bool):
    model, x = padded_model(discrete)
    context = {"mask": mask_of(*LENGTHS)}
    draw = model.draw(x, context, num_samples=2, path=not discrete)
    z: Any = draw.z
    assert (masked(z, ~context["mask"], event_dims=z.ndim - 3) == 0).all()
    kl = draw.factors[0].kl
    assert kl is not None
    for b, length in enumerate(LENGTHS):  # each by itself, without padding
        alone = {"mask": mask_of(length)}
        xb, zb = x[b : b + 1, :length], z[:, b : b + 1, :length]
        assert_close(model.log_joint(xb, zb, alone)[:, 0], draw.log_joint[:, b], rtol=1e-13, atol=0)
        q, p = model.posterior(xb, alone["mask"]), model.prior(alone["mask"])
        assert_close(q.log_prob(zb)[:, 0], draw.log_posterior[:, b], rtol=1e-13, atol=0)
        assert_close(q.factors(p, zb)[0].kl[:, 0], kl[:, b], rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("discrete", [False, True])
def test_what_lies_in_the_padding_is_never_looked_at(discrete: bool):
    model, x = padded_model(discrete)
    mask = mask_of(*LENGTHS)
    z = torch.randint(2, (2, 4, 5)) if discrete else torch.randn(2, 4, 5, 2)
    gone = ~mask if discrete else ~mask.unsqueeze(-1)
    wild = torch.where(gone, 10**6 if discrete else torch.nan, z).requires_grad_(not discrete)
    spoilt = torch.where(mask.unsqueeze(-1), x, torch.nan)
    found = model.log_joint(spoilt, wild, {"mask": mask})
    assert_close(found, model.log_joint(x, z, {"mask": mask}))
    if not discrete:
        (slope,) = torch.autograd.grad(found.sum(), wild)
        assert (slope[:, ~mask] == 0).all()
        assert (slope[:, mask] != 0).all()
    found.sum().backward() if discrete else model.log_joint(spoilt, z, {"mask": mask}).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("discrete", [False, True])
def test_parts_of_a_padded_batch_are_measured_as_the_whole(discrete: bool):
    model, x = padded_model(discrete)
    context = {"mask": mask_of(*LENGTHS)}
    whole = log_marginal(model, x, context, num_samples=1000)
    parts = log_marginal(model, x, context, num_samples=1000, max_rows=300)
    assert ((whole.log_px - parts.log_px).abs() < 5 * torch.hypot(whole.standard_error, parts.standard_error)).all()
    if not discrete:
        found = ais(model, x, context, annealing=Annealing(temperatures=5, chains=32, leapfrog_steps=2))
        error = torch.hypot(found.standard_error, whole.standard_error)
        assert ((found.log_px - whole.log_px).abs() < 5 * error).all()
    z, p = model.sample(4, context)
    assert (p.mean[~context["mask"]] == 0).all()
    assert (p.sample()[~context["mask"]] == 0).all()
    assert isinstance(z, Tensor)


# Sequences of steps


@pytest.mark.parametrize("family", [Gaussian, Bernoulli, Poisson])
def test_steps_are_independent_given_their_states(family: Any):
    likelihood = Emission(family((3,)), mlp(2, family((3,)).num_params, hidden=(8,)))
    z, mask = torch.randn(4, 5, 2), mask_of(*LENGTHS)
    p = likelihood(z, mask)
    assert (p.batch_shape, p.event_shape) == (Size([4]), Size([5, 3]))
    x = p.sample(Size([6]))
    assert p.support.check(x).all()
    by_step = p.log_prob_by_step(x)
    for b, t in itertools.product(range(4), range(5)):
        alone = likelihood.family(likelihood.network(z[b, t][None]))
        exact = alone.log_prob(x[:, b, t]) if mask[b, t] else torch.zeros(6)
        assert_close(by_step[:, b, t], exact)
        assert_close(p.mean[b, t], alone.mean[0] if mask[b, t] else torch.zeros(3))
        assert_close(p.variance[b, t], alone.variance[0] if mask[b, t] else torch.zeros(3))
    assert_close(p.log_prob(x), by_step.sum(-1))
    cut = Steps(likelihood.family(likelihood.network(z.flatten(0, 1))), (4,), mask=mask).unflatten((2, 2))
    assert_close(cut.log_prob(x[0, :2]), p.log_prob(torch.cat([x[0, :2]] * 2)).reshape(2, 2))


# Gradients: with exact expectations over z, by quadrature and by enumeration


class Continuous(nn.Module):
    """``q(z_t | z_{t-1}, x_t) = N(a z_{t-1} + c x_t, s^2)``, in one dimension, not the exact posterior's form."""

    def __init__(self):
        super().__init__()
        self.params = nn.Parameter(torch.tensor([0.3, 0.5, -0.2]))

    def forward(self, x: Tensor) -> MarkovDistribution:
        a, c, log_scale = self.params
        first = GaussianDistribution(c * x[:, 0], log_scale.exp(), 1)
        return MarkovDistribution(
            first, lambda z, h: GaussianDistribution(a * z + c * h, log_scale.exp(), 1), x.shape[1], inputs=x
        )

    def dense(self, x: Tensor) -> MultivariateNormal:
        a, c, log_scale = self.params
        grown = torch.stack([torch.stack([a ** (t - s) if s <= t else 0 * a for s in range(3)]) for t in range(3)])
        return MultivariateNormal((c * x[..., 0]) @ grown.mT, log_scale.exp() ** 2 * grown @ grown.mT)


class Transition(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.8))

    def forward(self, z: Tensor) -> Distribution:
        return GaussianDistribution(self.weight * z, torch.tensor(0.6), 1)


def continuous() -> VAE:
    likelihood = Emission(Gaussian((1,), 0.9), nn.Linear(1, 1))
    return VAE(Markov(StandardNormal(1), Transition(), length=3), likelihood, Continuous())


def exact_elbo(model: VAE, x: Tensor) -> Tensor:
    """``E_q[log p(x, z)] + H[q]`` of one sequence, of Gaussians: second moments are all it takes."""
    q = model.posterior.dense(x)
    weight, (read, shift) = model.prior.transition.weight, model.likelihood.network.parameters()
    moments = q.covariance_matrix + q.loc[:, :, None] * q.loc[:, None]
    first = -0.5 * moments[:, 0, 0] - 0.5 * math.log(2 * math.pi)
    squares = sum(
        moments[:, t, t] - 2 * weight * moments[:, t, t - 1] + weight**2 * moments[:, t - 1, t - 1] for t in (1, 2)
    )
    steps = -0.5 * squares / 0.6**2 - 2 * (math.log(0.6) + 0.5 * math.log(2 * math.pi))
    error = (x[..., 0] - read[0, 0] * q.loc - shift).square() + read[0, 0] ** 2 * q.variance
    return first + steps + (-0.5 * error / 0.9**2 - math.log(0.9) - 0.5 * math.log(2 * math.pi)).sum(1) + q.entropy()


@pytest.mark.parametrize("closed_form", [True, False])
@pytest.mark.parametrize(
    "make", [Pathwise, StickingTheLanding, lambda: ScoreFunction("none")], ids=["path", "stl", "score"]
)
def test_the_mean_gradient_of_the_elbo_is_exact_by_quadrature(make: Any, closed_form: bool, monkeypatch):
    """Surrogates are polynomials of the noise of degree 4 at the most in each step: four nodes a step are exact."""
    model, x = continuous(), torch.tensor([0.4, -1.0, 0.7]).reshape(1, 3, 1)
    exact = exact_elbo(model, x)
    truth = torch.autograd.grad(exact.sum(), list(model.parameters()))

    points, weights = (torch.as_tensor(a) for a in hermite(4))
    nodes = torch.cartesian_prod(points, points, points)
    weight = torch.cartesian_prod(weights, weights, weights).prod(1)
    noise = [nodes[:, t] for t in range(3)]
    monkeypatch.setattr(torch, "randn", lambda shape, **_: noise.pop(0).reshape(shape))
    estimator, bound = make(), ELBO(closed_form_kl=closed_form)
    draw = model.draw(x.expand(len(nodes), -1, -1), path=estimator.path)
    assert_close((weight * bound(draw)).sum(), exact[0])
    surrogate = estimator.surrogate(draw, bound, x.expand(len(nodes), -1, -1))
    for found, true in zip(
        torch.autograd.grad((weight * surrogate).sum(), list(model.parameters())), truth, strict=True
    ):
        assert_close(found, true)


def hermite(count: int) -> tuple[Any, Any]:
    """Nodes and weights of an expectation over a standard normal."""
    import numpy as np

    points, weights = np.polynomial.hermite_e.hermegauss(count)
    return points, weights / weights.sum()


def test_the_doubly_reparametrized_gradient_of_iwae_has_the_mean_of_the_pathwise_one():
    model, x = continuous(), torch.tensor([0.4, -1.0, 0.7]).reshape(1, 3, 1).expand(100, 3, 1)
    parameters = list(model.parameters())
    differences = []
    objectives = [Objective(model, IWAE(), gradient=gradient, num_samples=3) for gradient in (DReG(), Pathwise())]
    for _ in range(40):
        dreg, path = (torch.autograd.grad(objective(x).loss, parameters) for objective in objectives)
        differences.append(torch.cat([(a - b).flatten() for a, b in zip(dreg, path, strict=True)]))
    found = torch.stack(differences)
    assert_within(found, 0.0)
    assert (found.std(0) > 0).all()


def discrete() -> tuple[VAE, Tensor]:
    """Two states, three steps, bits; a posterior that is not the exact one."""

    class Posterior(nn.Module):
        def __init__(self):
            super().__init__()
            self.of_x, self.chain = nn.Linear(2, 2), TableChain(2)

        def forward(self, x: Tensor) -> MarkovDistribution:
            return self.chain(self.of_x(x))

    likelihood = Emission(Bernoulli((2,)), nn.Embedding(2, 2))
    return VAE(states(3), likelihood, Posterior()), torch.randint(2, (1, 3, 2)).double()


ESTIMATORS = [
    ("score", lambda: ScoreFunction("none"), ELBO()),
    ("score, samples", lambda: ScoreFunction("none"), ELBO(closed_form_kl=False)),
    ("leave-one-out", ScoreFunction, ELBO()),
    ("leave-one-out, samples", ScoreFunction, ELBO(closed_form_kl=False)),
    ("score, iwae", lambda: ScoreFunction("none"), IWAE()),
    ("vimco", VIMCO, IWAE()),
]


@pytest.mark.parametrize("make, bound", [entry[1:] for entry in ESTIMATORS], ids=[entry[0] for entry in ESTIMATORS])
def test_the_mean_gradient_over_all_pairs_of_paths_is_that_of_the_bound(make: Any, bound: Bound):
    model, x = discrete()
    z = paths(3, 2)
    pairs = torch.cartesian_prod(torch.arange(8), torch.arange(8))
    drawn = z[pairs].transpose(0, 1)  # (2, 64, 3): an example for each pair of samples
    wide = x.expand(64, -1, -1)
    q, p = model.posterior(wide), model.prior()
    rows = drawn.flatten(0, 1)
    draw = Draw(
        drawn,
        q,
        q.factors(p, drawn),
        lambda: model.likelihood(rows).log_prob(wide.repeat(2, 1, 1)).unflatten(0, (2, 64)),
    )
    probability = q.log_prob(drawn).sum(0).exp()
    exact = (probability * bound(draw)).sum()
    truth = torch.autograd.grad(exact, list(model.parameters()), retain_graph=True)
    surrogate = make().surrogate(draw, bound, wide)
    found = torch.autograd.grad((probability.detach() * surrogate).sum(), list(model.parameters()))
    for a, b in zip(found, truth, strict=True):
        assert_close(a, b)
        assert b.abs().max() > 1e-4


# What is refused


def test_masks_that_say_nothing_sensible_are_refused():
    with pytest.raises(InputError, match="sequence 2 of 3 is empty: its mask has no True"):
        check_mask(torch.tensor([[True, True], [False, False], [True, False]]))
    with pytest.raises(InputError, match="sequence 1 of 1 begins with padding"):
        check_mask(torch.tensor([[False, True]]))
    with pytest.raises(InputError, match="mask of sequence 2 of 2 has a True after a False"):
        check_mask(torch.tensor([[True, False, False], [True, False, True]]))
    with pytest.raises(InputError, match=r"\(B, T\) booleans.*torch.int64 of shape \(2, 2\)"):
        check_mask(torch.ones(2, 2, dtype=torch.long))
    with pytest.raises(InputError, match=r"of 3 steps; got torch.bool of shape \(2, 2\).*lengths"):
        check_mask(torch.ones(2, 2, dtype=torch.bool), length=3)
    with pytest.raises(InputError, match="torch.bool of shape"):
        check_mask(torch.ones(2, 0, dtype=torch.bool))


def test_a_chain_of_no_known_length_asks_for_a_mask():
    prior = Markov(StandardNormal(2), Conditional(Gaussian((2,)), mlp(2, 4, hidden=(8,))))
    with pytest.raises(InputError, match=r"context=\{'mask': ...\}.*length=T"):
        prior()
    with pytest.raises(InputError, match="length is 0"):
        MarkovDistribution(StandardNormal(2)(), prior.transition, 0)


@pytest.mark.parametrize("without", ["prior", "posterior"])
def test_a_chain_that_counts_padding_is_not_set_against_one_that_does_not(without: str):
    model, x = padded_model(discrete=True)
    q, p = model.posterior(x, mask_of(*LENGTHS)), model.prior(mask_of(*LENGTHS))
    whole = MarkovDistribution(p.first, p.transition, 5)
    chains = (q, whole) if without == "prior" else (model.posterior(x), p)
    with pytest.raises(InputError, match=f"which the {without} counts.*mask=mask"):
        chains[0].factors(chains[1], q.sample(Size([2])))
    full = model.posterior(x, mask_of(5, 5, 5, 5))
    assert full.factors(whole, full.sample(Size([2])))[0].kl is not None


def test_parts_of_a_chain_that_do_not_fit_are_refused():
    first, loc = StandardNormal(2)(), torch.zeros(3, 2)
    wide = Independent(Normal(loc, 1.0), 1)
    with pytest.raises(InputError, match=r"transition returned batch_shape \(3, 2\).*Independent"):
        MarkovDistribution(wide, lambda z: Normal(z, 1.0), 4).sample()
    with pytest.raises(InputError, match="transition returned Tensor; expected a torch"):
        MarkovDistribution(wide, mlp(2, 2), 4).sample()
    with pytest.raises(RuntimeError) as error:
        MarkovDistribution(wide, Conditional(Gaussian((2,)), mlp(5, 4)), 4).sample()
    assert "the transition, which was given z of shape (3, 2)." in error.value.__notes__[0]
    with pytest.raises(RuntimeError) as error:
        MarkovDistribution(
            wide, lambda z, h: Independent(Normal(z + h, 1.0), 1), 4, inputs=torch.zeros(3, 4, 7)
        ).sample()
    assert "z of shape (3, 2), inputs of shape (3, 7)" in error.value.__notes__[0]
    with pytest.raises(InputError, match=r"first step \(3,\), mask \(2,\)"):
        MarkovDistribution(wide, mlp(2, 2), 4, mask=mask_of(4, 2))
    with pytest.raises(InputError, match=r"inputs have the shape \(3, 5\); expected \(B, 4, ...\)"):
        MarkovDistribution(wide, mlp(2, 2), 4, inputs=torch.zeros(3, 5))
    with pytest.raises(InputError, match=r"4 states of shape \(2,\) received values of shape \(3, 5, 2\)"):
        MarkovDistribution(first, mlp(2, 2), 4).log_prob(torch.zeros(3, 5, 2))
