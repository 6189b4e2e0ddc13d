"""Annealed importance sampling and the bracket: against quadrature, closed forms, enumeration, and each other."""

import math
from importlib import import_module
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Beta, Independent, Laplace, MultivariateNormal, Normal, Uniform
from torch.testing import assert_close

import catalog
from assertions import assert_within
from quadrature import exact_log_px, exact_moments, exact_samples, skewed_data, skewed_model
from subo import VAE, BernoulliPrior, Child, Conditional, Gaussian, InputError, Joint, StandardNormal
from subo import Bernoulli as BernoulliFamily
from subo.evaluation.evidence.annealed import AnnealedEstimate, Annealing, ais, begin, chains_error, few_chains
from subo.evaluation.evidence.bidirectional import bdmc
from subo.evaluation.evidence.hamiltonian import Bridge, adapted, pack, transition
from subo.evaluation.evidence.importance import WeightSums
from subo.models.probabilistic_pca import ExactPosterior, LinearGaussian
from subo.parts.conditionals import Local
from subo.runtime.randomness import forked


class Shifted(nn.Module):
    """The exact posterior in another place: weights and their inverses have all moments."""

    def __init__(self, likelihood: LinearGaussian):
        super().__init__()
        self.exact = ExactPosterior(likelihood)

    def forward(self, x: Tensor) -> MultivariateNormal:
        q: Any = self.exact(x)
        return MultivariateNormal(q.mean + 0.5, precision_matrix=q.precision_matrix)


def linear(posterior: type[nn.Module] = ExactPosterior, *, log_scale: float = -0.3) -> VAE:
    likelihood = LinearGaussian(5, 2)
    with torch.no_grad():
        likelihood.weight.copy_(torch.linspace(-0.8, 1, 5)[:, None] + 0.3 * torch.randn(5, 2))
        likelihood.log_scale.fill_(log_scale)
    return VAE(StandardNormal(2), likelihood, posterior(likelihood)).double()


# Transitions


@pytest.mark.slow
def test_transitions_leave_the_skewed_posterior_as_it_is():
    model, x = skewed_model(), skewed_data(3)
    mean, third = exact_moments(model, x)
    annealing = Annealing(chains=50)
    bridge, state = begin(model, x, {}, annealing)
    step = adapted(bridge, state, annealing.betas(50), leapfrog_steps=6)[-1]
    first = state = bridge.at(exact_samples(model, x, 8000))
    for _ in range(8):
        state, probability = transition(bridge, state, 1.0, step, leapfrog_steps=6)
    assert_within(state.z, mean)
    assert_within((state.z - mean) ** 3, third)
    assert (third.abs() > 5 * ((state.z - mean) ** 3).std(0) / 8000**0.5).any(), "no skewness to be mistaken in"
    assert ((probability.mean(0) - 0.65).abs() < 0.15).all()
    correlation = ((state.z - mean) * (first.z - mean)).mean(0) / first.z.var(0)
    assert (correlation < 0.5).all(), "chains that stay where they are leave everything as it is"


def test_halfway_transitions_leave_the_bridge_as_it_is():
    model = linear()
    x = torch.randn(2, 5, dtype=torch.float64)
    precision = torch.lerp(torch.eye(2, dtype=torch.float64), model.likelihood.precision().detach(), 0.5)
    bridge, state = begin(model, x, {}, Annealing(chains=4000))
    step = torch.full((2,), 0.4, dtype=torch.float64)
    for _ in range(30):
        state, _ = transition(bridge, state, 0.5, step, leapfrog_steps=5)
    centered = state.z - state.z.mean(0)
    assert_within(torch.einsum("cbi,cbj->cbij", centered, centered), torch.linalg.inv(precision))


def test_a_trajectory_that_leaves_the_density_is_rejected():
    def log_start(z: Any) -> Tensor:
        return -z.square().sum(-1) / 2

    def log_joint(z: Any) -> Tensor:
        return z.log().sum(-1)

    def inside(z: Any) -> Tensor:
        return torch.ones(z.shape[:2], dtype=torch.bool)

    bridge = Bridge(log_start, log_joint, lambda rows: rows, inside, torch.full((1, 1, 1), 1e-3))
    state = bridge.at(torch.full((4, 1, 1), 1e-3))
    moved, probability = transition(bridge, state, 1.0, torch.tensor([50.0]), leapfrog_steps=3)
    assert_close(moved.z, state.z)
    assert (probability == 0).all()


def test_latents_of_a_graph_are_packed_and_unpacked():
    z = {"top": torch.randn(3, 2, 4), "one": torch.randn(3, 2), "image": torch.randn(3, 2, 2, 5)}
    rows, unpack = pack(z)
    assert rows.shape == (3, 2, 15)
    assert_close(unpack(rows), z)


# The estimate


@pytest.mark.parametrize("start, schedule", [("prior", "linear"), ("posterior", "sigmoid")])
@pytest.mark.usefixtures("errors_of_drawn_weights")
@pytest.mark.slow
def test_it_agrees_with_quadrature(start: Any, schedule: Any):
    model, x = skewed_model(), skewed_data(5)
    found = ais(
        model, x, annealing=Annealing(temperatures=60, chains=200, leapfrog_steps=5, start=start, schedule=schedule)
    )
    assert ((found.log_px - exact_log_px(model, x)).abs() < 5 * found.standard_error).all()
    assert (found.standard_error < 0.1).all()
    assert ((found.acceptance - 0.65).abs() < 0.1).all()


def test_it_agrees_with_the_closed_form():
    model, x = linear(), torch.randn(6, 5, dtype=torch.float64)
    found = ais(model, x, annealing=Annealing(temperatures=60, chains=64, leapfrog_steps=5))
    assert ((found.log_px - model.likelihood.log_px(x)).abs() < 5 * found.standard_error).all()
    assert (found.effective_sample_size > 32).all()
    assert found.log_px.dtype == torch.float64


def test_from_the_exact_posterior_every_weight_is_the_evidence():
    model, x = linear(), torch.randn(4, 5, dtype=torch.float64)
    found = ais(model, x, annealing=Annealing(temperatures=7, chains=3, leapfrog_steps=5, start="posterior"))
    assert_close(found.log_weight, model.likelihood.log_px(x).detach().expand(3, -1))
    assert_close(found.standard_error, torch.zeros(4, dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize("temperatures", [1, 4])
@pytest.mark.parametrize("start", ["prior", "posterior"])
@pytest.mark.slow
def test_weights_are_unbiased_upwards_and_their_inverse_downwards_with_few_temperatures(temperatures: int, start: Any):
    model = linear(Shifted, log_scale=1.0)  # wide enough for 1 / p(x|z) to have a variance
    x = 2.0 * torch.randn(2, 5, dtype=torch.float64)
    log_px = model.likelihood.log_px(x).detach()
    annealing = Annealing(temperatures, chains=4000, leapfrog_steps=2, start=start)
    bridge, state = begin(model, x, {}, annealing)
    steps = annealing.steps(bridge, state)
    up, _ = annealing.upwards(bridge, begin(model, x, {}, annealing)[1], steps)
    assert_within((up - log_px).exp(), 1.0)
    exact = ExactPosterior(model.likelihood)(x).sample(torch.Size([4000]))
    down, _ = annealing.downwards(bridge, bridge.at(exact), steps)
    assert_within((log_px - down).exp(), 1.0)
    assert (up.mean(0) < log_px).all()
    assert (down.mean(0) > log_px).all()


def test_one_temperature_is_importance_sampling_from_the_prior():
    model, x = linear(), torch.randn(3, 5, dtype=torch.float64)
    with forked(3):
        bridge, state = begin(model, x, {}, Annealing(1, chains=8))
    prior = model.prior().log_prob(state.z)
    weights, acceptance = Annealing(1, chains=8).upwards(bridge, state, [])
    assert_close(weights, model.log_joint(x, state.z).detach() - prior)
    assert (acceptance == 1).all()


@pytest.mark.slow
def test_a_context_reaches_prior_and_likelihood():
    model = catalog.conditional_vae().double()
    x, context = torch.randint(2, (4, 6)).double(), catalog.context_of(4)
    found = ais(model, x, context, annealing=Annealing(temperatures=60, chains=64, leapfrog_steps=5))
    truth = exact_log_px(model, x, context)
    assert ((found.log_px - truth).abs() < 5 * found.standard_error).all()
    swapped = exact_log_px(model, x, {name: tensor.flip(0) for name, tensor in context.items()})
    assert ((found.log_px - swapped).abs() > 10 * found.standard_error).any(), "a context that changes nothing"


class Alone:
    """A user's own model: the protocol's three methods, no module, and one layer."""

    def __init__(self, model: VAE):
        self.draw, self.log_joint, self.sample = model.draw, model.log_joint, model.sample


def test_a_model_of_ones_own_is_served():
    model, x = skewed_model(), skewed_data(2)
    own: Any = Alone(model)
    assert_close(
        ais(own, x, annealing=Annealing(temperatures=5, leapfrog_steps=2)).log_px,
        ais(model, x, annealing=Annealing(temperatures=5, leapfrog_steps=2)).log_px,
    )


def test_the_same_seed_gives_the_same_numbers_and_leaves_others_alone():
    model, x = skewed_model(), skewed_data(2)
    before = torch.get_rng_state()
    first, again, other = (
        ais(model, x, annealing=Annealing(temperatures=5, leapfrog_steps=2), seed=seed) for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.log_px, again.log_px)
    assert not torch.equal(first.log_px, other.log_px)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("spread, least", [(0.3, 0.92), (1.0, 0.9), (2.0, 0.87), (3.0, 0.84)])
def test_the_error_of_few_chains_holds_where_one_dominates(spread: float, least: float):
    """Log-weights of a normal, of mean weight 1: of the spread of the weights alone no error is above 1 nat."""
    log_weight = spread * torch.randn(16, 4000, dtype=torch.float64) - spread**2 / 2
    found = AnnealedEstimate.of(log_weight, torch.ones(4000).double(), Annealing(chains=16))
    sums = WeightSums(4000)
    sums.add(log_weight)
    held, delta = (
        (found.log_px.abs() <= 1.96 * error).double().mean() for error in (found.standard_error, sums.standard_error)
    )
    assert held > least
    assert spread < 2 or delta < 0.75
    few = few_chains(found.effective_sample_size)
    assert few.double().mean() > 0.5 if spread >= 2 else few.double().mean() < 0.1


def test_chains_that_were_left_behind_cost_no_error():
    log_weight = 0.3 * torch.randn(100, 50, dtype=torch.float64)
    log_weight[:30] -= 40
    found = AnnealedEstimate.of(log_weight, torch.ones(50).double(), Annealing(chains=100))
    assert found.standard_error.max() < 0.2


def test_chains_without_a_weight_have_no_error():
    log_weight = torch.full((4, 2), -math.inf, dtype=torch.float64)
    log_weight[:, 1] = torch.tensor([-math.inf, 0.0, 0.1, -0.1])
    assert chains_error(log_weight).isfinite().tolist() == [False, True]
    assert chains_error(torch.zeros(1, 2).double()).isinf().all()
    assert (chains_error(torch.zeros(3, 2).double()) == 0).all()


def test_one_chain_knows_nothing_of_its_error():
    found = ais(skewed_model(), skewed_data(2), annealing=Annealing(temperatures=3, chains=1, leapfrog_steps=2))
    assert found.standard_error.isinf().all()


# The bracket


@pytest.mark.parametrize("start", ["prior", "posterior"])
@pytest.mark.slow
def test_the_bracket_holds_and_closes_with_temperatures(start: Any):
    model = skewed_model()
    with forked(0):
        x = model.sample(60)[1].sample()
    truth = exact_log_px(model, x)
    short = bdmc(model, 60, annealing=Annealing(temperatures=5, chains=2, leapfrog_steps=4, start=start))
    long = bdmc(model, 60, annealing=Annealing(temperatures=30, chains=8, leapfrog_steps=4, start=start))
    for sandwich in (short, long):
        below, above = sandwich.lower - truth, sandwich.upper - truth
        assert below.mean() < 5 * below.std() / 60**0.5
        assert above.mean() > -5 * above.std() / 60**0.5
        assert_close(sandwich.means()["width"][0], (above - below).mean().item())
    assert (short.lower - truth).mean() < -0.1, "too good to tell the sides"
    assert (short.upper - truth).mean() > 0.1, "too good to tell the sides"
    assert long.width.mean() < 0.5 * short.width.mean()


@pytest.mark.slow
def test_the_upper_bound_is_the_harmonic_mean_of_its_chains():
    model = linear(log_scale=1.0)
    with forked(0):
        x = model.sample(2000)[1].sample()
    found = bdmc(model, 2000, annealing=Annealing(temperatures=2, chains=4, leapfrog_steps=2))
    truth = model.likelihood.log_px(x).detach()
    assert_within((found.lower - truth).exp(), 1.0)
    assert_within((truth - found.upper).exp(), 1.0)
    assert (found.upper - truth).mean() > 0.01


def test_the_estimate_starts_afresh_after_the_run_that_adapts(monkeypatch: pytest.MonkeyPatch):
    module = import_module("subo.evaluation.evidence.annealed")
    starts, estimated = [], []
    plain = module.begin

    def begun(*arguments: Any) -> Any:
        bridge, state = plain(*arguments)
        starts.append(state)
        return bridge, state

    def upwards(self: Annealing, bridge: Any, state: Any, steps: Any) -> Any:
        estimated.append(state)
        return torch.zeros(16, 2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)

    monkeypatch.setattr(module, "begin", begun)
    monkeypatch.setattr(Annealing, "upwards", upwards)
    ais(skewed_model(), skewed_data(2), annealing=Annealing(temperatures=2, leapfrog_steps=2))
    assert len(starts) == 2
    assert estimated == [starts[1]]
    assert not torch.equal(starts[0].z, starts[1].z)


class Unit(nn.Module):
    """A Beta prior or posterior: validates its arguments, has an edge, and no value beyond it."""

    def forward(self, x: Tensor | None = None) -> Independent:
        shape = (2,) if x is None else (len(x), 2)
        return Independent(Beta(torch.full(shape, 2.0).double(), torch.full(shape, 3.0).double()), 1)


class Noisy(nn.Module):
    def forward(self, z: Tensor) -> Independent:
        return Independent(Normal(z, 0.3), 1)


@pytest.mark.parametrize("start", ["prior", "posterior"])
@pytest.mark.slow
def test_chains_that_leave_the_support_are_rejected(start: Any):
    model = VAE(Unit(), Noisy(), Unit())
    x = torch.tensor([[0.1, 0.9], [0.5, 0.2]]).double()
    found = ais(model, x, annealing=Annealing(temperatures=50, chains=200, leapfrog_steps=4, start=start))
    axis = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    z = torch.cartesian_prod(axis, axis)
    truth = torch.stack([model.log_joint(row[None], z[:, None])[:, 0].logsumexp(0) for row in x]) - 2 * math.log(400)
    assert ((found.log_px - truth).abs() < 5 * found.standard_error + 1e-4).all()


def test_a_flat_prior_is_annealed_from():
    class Flat(nn.Module):
        def forward(self, x: Tensor | None = None) -> Independent:
            shape = (1,) if x is None else (len(x), 1)
            return Independent(Uniform(torch.full(shape, -4.0).double(), torch.full(shape, 4.0).double()), 1)

    x = torch.zeros(1, 1).double()
    found = ais(VAE(Flat(), Noisy(), Flat()), x, annealing=Annealing(temperatures=50, chains=200, leapfrog_steps=4))
    assert (found.log_px + math.log(8)).abs() < 5 * found.standard_error


def share(parent: Tensor) -> Independent:
    """Between 0 and 1, and validated."""
    return Independent(Beta(1.5 + parent[:, :1].square(), torch.full_like(parent[:, :1], 2.0)), 1)


class NoisyShare(nn.Module):
    def forward(self, z: dict[str, Tensor]) -> Independent:
        return Independent(Normal(z["a"], 0.3), 1)


@pytest.mark.parametrize("start", ["prior", "posterior"])
@pytest.mark.slow
def test_chains_that_leave_the_support_of_a_node_are_rejected(start: Any):
    """A node of a graph that lies between 0 and 1, below one that is unbounded: against the sum over a grid of both."""
    posterior = Joint(a=lambda x: share(x), b=Child(Gaussian((1,)), nn.Linear(1, 2), "a"))
    model = VAE(Joint(b=StandardNormal(1), a=lambda b: share(b)), NoisyShare(), posterior).double()
    x = torch.tensor([[0.2], [1.3]], dtype=torch.float64)
    a, b = (torch.arange(400, dtype=torch.float64) + 0.5) / 400, torch.linspace(-6, 6, 241, dtype=torch.float64)
    grid = torch.cartesian_prod(a, b)
    z = {"a": grid[:, None, :1], "b": grid[:, None, 1:]}
    truth = torch.cat([model.log_joint(row[None], z).logsumexp(0) for row in x]) + math.log(0.05 / 400)
    found = ais(model, x, annealing=Annealing(temperatures=50, chains=200, leapfrog_steps=4, start=start))
    assert ((found.log_px - truth).abs() < 5 * found.standard_error + 1e-4).all()
    if start == "prior":
        sandwich = bdmc(model, 30, annealing=Annealing(temperatures=50, chains=16, leapfrog_steps=4))
        width = sandwich.upper - sandwich.lower
        assert width.mean() > -5 * width.std() / 30**0.5
        assert width.mean() < 1


def test_bounds_that_move_with_the_parents_are_those_of_each_chain():
    """For a single example, whose bounds are one number each: they must not stay where the first draw had them."""

    def between(b: Tensor) -> Independent:
        return Independent(Uniform(-b.exp(), b.exp(), validate_args=False), 1)

    posterior = Joint(b=lambda x: Independent(Normal(0 * x, 1.0), 1), a=between)
    model = VAE(Joint(b=StandardNormal(1), a=between), NoisyShare(), posterior).double()
    x = torch.tensor([[1.5]], dtype=torch.float64)
    a, b = torch.linspace(-0.5, 3.5, 801, dtype=torch.float64), torch.linspace(-6, 6, 1201, dtype=torch.float64)
    grid = torch.cartesian_prod(a, b)
    truth = model.log_joint(x, {"a": grid[:, None, :1], "b": grid[:, None, 1:]}).logsumexp(0) + math.log(0.005 * 0.01)
    found = ais(model, x, annealing=Annealing(temperatures=50, chains=300, leapfrog_steps=4))
    assert ((found.log_px - truth).abs() < 5 * found.standard_error + 1e-3).all()


def bits_model() -> VAE:
    """Four bits as latents, all of which can be enumerated."""
    torch.manual_seed(1)
    decoder = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5))
    model = VAE(
        BernoulliPrior(4),
        Conditional(BernoulliFamily((5,)), decoder),
        Conditional(BernoulliFamily((4,)), nn.Linear(5, 4)),
    ).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=1.2)
        for parameter in model.posterior.parameters():
            parameter.mul_(0.3)
    return model


def test_the_bracket_by_importance_sampling_serves_discrete_latents():
    model = bits_model()
    with forked(0):
        x = model.sample(400)[1].sample()
    every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 4)
    truth = model.log_joint(x, every[:, None].expand(-1, 400, -1)).logsumexp(0).detach()
    few = bdmc(model, 400, estimator="importance", num_samples=2)
    many = bdmc(model, 400, estimator="importance", num_samples=2000)
    for sandwich in (few, many):
        assert (sandwich.lower - truth).mean() < 0
        assert (sandwich.upper - truth).mean() > 0
        assert_within((truth - sandwich.upper).exp(), 1.0)  # E[1 / estimate] = 1 / p(x)
        assert_within((sandwich.lower - truth).exp(), 1.0)
    assert many.width.mean() < 0.02 < few.width.mean()
    assert many.acceptance is None


def test_with_one_sample_the_bracket_is_that_of_elbo_and_eubo():
    """By enumeration: E_q[log w], and E[log w] under the exact posterior, log p(x) + KL(p(z|x) || q(z|x))."""
    model = bits_model()
    with forked(0):
        x = model.sample(2000)[1].sample()
    every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 4)[:, None].expand(-1, 2000, -1)
    with torch.no_grad():
        log_joint, log_q = model.log_joint(x, every), model.posterior(x).log_prob(every)
    log_weight, log_posterior = log_joint - log_q, log_joint - log_joint.logsumexp(0)
    elbo, eubo = ((density.exp() * log_weight).sum(0) for density in (log_q, log_posterior))
    assert (elbo < log_joint.logsumexp(0)).all()
    assert (eubo > log_joint.logsumexp(0)).all()
    found = bdmc(model, 2000, estimator="importance", num_samples=1)
    assert_within(found.lower - elbo, 0.0)
    assert_within(found.upper - eubo, 0.0)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"temperatures": 0}, "temperatures must be at least 1, not 0"),
        ({"chains": 0}, "chains must be at least 1, not 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        Annealing(**settings)


def test_discrete_latents_are_refused_with_what_to_use_instead():
    model: Any = catalog.bits_vae()
    with pytest.raises(InputError, match="estimator='importance'"):
        ais(model, torch.zeros(2, 6), annealing=Annealing(temperatures=2))
    with pytest.raises(InputError, match="estimator='importance'"):
        bdmc(model, 2, annealing=Annealing(temperatures=2))


def test_a_likelihood_without_a_gradient_is_refused():
    class Cut(nn.Module):
        def forward(self, z: Tensor) -> Independent:
            return Independent(Laplace(z.detach(), 1.0), 1)

    class Flat(nn.Module):
        def forward(self, x: Tensor) -> Independent:
            return Independent(Normal(x, 1.0), 1)

    class NoGradient(VAE):
        def log_joint(self, x: Any, z: Any, context: Any = None) -> Any:
            return super().log_joint(x, z.detach(), context)

    with pytest.raises(InputError, match="no gradient in z"):
        ais(NoGradient(StandardNormal(2), Cut(), Flat()), torch.zeros(2, 2), annealing=Annealing(temperatures=2))


def test_brackets_of_too_few_data_or_samples_are_refused():
    with pytest.raises(InputError, match="num_data must be at least 2, not 1"):
        bdmc(skewed_model(), 1)
    with pytest.raises(InputError, match="num_samples must be at least 1, not 0"):
        bdmc(skewed_model(), 5, estimator="importance", num_samples=0)


def test_the_sigmoid_ends_at_one_and_is_symmetric():
    betas = [0.0, *Annealing(10).betas()]
    assert_close(betas[-1], 1.0)
    assert all(b > a for a, b in pairwise(betas))
    assert_close(torch.tensor(betas) + torch.tensor(betas).flip(0), torch.ones(11))
    assert betas[1] < Annealing(10, schedule="linear").betas()[0]


@pytest.mark.parametrize("options", [{"estimator": "importance"}, {"annealing": Annealing(2, 2, start="posterior")}])
def test_simulated_examples_have_no_parameters_of_their_own(options: dict[str, Any]):
    family = Gaussian((2,))
    model, rows = VAE(StandardNormal(2), LinearGaussian(3, 2), Local(family, 5)), {"index": torch.arange(5)}
    with pytest.raises(InputError, match="separate parameters for each known example"):
        bdmc(model, 5, rows, **options)
    assert bdmc(model, 5, rows, annealing=Annealing(2, 2, start="prior")).lower.isfinite().all()  # not from q
