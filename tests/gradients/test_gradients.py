"""Gradient estimators against exact gradients: by quadrature for a continuous latent, by enumeration for bits.

Every row of a batch has parameters of its own, all alike: one pass gives thousands of independent estimates of one
example's gradient, whose mean is compared with the truth in standard errors of itself.
"""

import itertools
import math
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Distribution, Independent, Normal
from torch.testing import assert_close

from subo import (
    ELBO,
    IWAE,
    MIWAE,
    VAE,
    VIMCO,
    DReG,
    GradientEstimator,
    GumbelSoftmax,
    InputError,
    Objective,
    Pathwise,
    ReinMax,
    Renyi,
    ScoreFunction,
    StandardNormal,
    StickingTheLanding,
    StraightThrough,
    WakePhi,
)
from subo.core.bounds import Bound, log_mean_exp
from subo.core.draw import Factor
from subo.distributions.discrete import Bernoulli, OneHotCategorical
from subo.distributions.gaussian import Gaussian
from subo.gradients.score_function import _without_each
from subo.models.probabilistic_pca import ExactPosterior, LinearGaussian
from subo.parts.networks import mlp

pytestmark = pytest.mark.usefixtures("double_by_default")


def rows_of(values: Tensor, count: int) -> nn.Parameter:
    return nn.Parameter(values.expand(count, *values.shape).clone())


def tiled(rows: Tensor, like: Tensor) -> Tensor:
    """Rows for K samples folded into the batch, sample-major."""
    return rows.repeat(len(like) // len(rows), *([1] * (rows.ndim - 1)))


# A continuous latent: z ~ N(0, 1), x = w z + b + noise in two dimensions, q a normal of any place and width


X = torch.tensor([0.7, -1.1], dtype=torch.float64)
WEIGHT, BIAS, SCALE = torch.tensor([1.2, -0.4]).double(), torch.tensor([0.1, 0.3]).double(), 0.6
LOC, LOG_SCALE = torch.tensor([0.1]).double(), torch.tensor([-0.3]).double()


class Line(nn.Module):
    def __init__(self, count: int):
        super().__init__()
        self.weight, self.bias = rows_of(WEIGHT, count), rows_of(BIAS, count)

    def forward(self, z: Tensor) -> Distribution:
        return Gaussian(tiled(self.weight, z) * z + tiled(self.bias, z), torch.tensor(SCALE), 1)


class Bell(nn.Module):
    def __init__(self, count: int):
        super().__init__()
        self.loc, self.log_scale = rows_of(LOC, count), rows_of(LOG_SCALE, count)

    def forward(self, x: Tensor) -> Distribution:
        return Gaussian(self.loc, self.log_scale.exp(), 1)


def line(count: int) -> VAE:
    return VAE(StandardNormal(1), Line(count), Bell(count))


def by_quadrature(bound: Bound, num_samples: int, points: int = 60) -> dict[str, Tensor]:
    """The exact gradient of the bound's expectation over K samples, by Gauss-Hermite over their noise."""
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(points))
    noise = torch.cartesian_prod(*[nodes] * num_samples).reshape(-1, num_samples).T  # (K, P)
    probability = torch.cartesian_prod(*[weights / math.sqrt(2 * math.pi)] * num_samples).reshape(-1, num_samples)
    values = {name: value.clone().requires_grad_() for name, value in zip(NAMES, TRUTHS, strict=True)}
    z = (values["loc"] + values["log_scale"].exp() * noise.unsqueeze(-1)).squeeze(-1)
    mean = z.unsqueeze(-1) * values["weight"] + values["bias"]
    log_weight = (
        Normal(mean, SCALE).log_prob(X).sum(-1)
        + Normal(0.0, 1.0).log_prob(z)
        - Normal(values["loc"], values["log_scale"].exp()).log_prob(z)
    )
    each = log_weight.mean(0) if isinstance(bound, ELBO) else log_mean_exp(log_weight, 0)
    if isinstance(bound, ELBO):  # beta weighs the KL alone
        likelihood = Normal(mean, SCALE).log_prob(X).sum(-1)
        each = (likelihood + bound.beta * (log_weight - likelihood)).mean(0)
    total = (each * probability.prod(-1)).sum()
    return dict(zip(NAMES, torch.autograd.grad(total, list(values.values())), strict=True))


NAMES = ("weight", "bias", "loc", "log_scale")
TRUTHS = (WEIGHT, BIAS, LOC, LOG_SCALE)
PHI = ("loc", "log_scale")


def gradients(model: VAE, x: Tensor, estimator: GradientEstimator, bound: Bound, num_samples: int) -> dict[str, Tensor]:
    """Each row's gradient, by the parameter's own name."""
    draw = model.draw(x, num_samples=num_samples, path=estimator.path)
    estimator.check(draw.q, bound, num_samples=num_samples)
    surrogate = estimator.surrogate(draw, bound, x)
    named = dict(model.named_parameters())
    found = torch.autograd.grad(surrogate.sum(), list(named.values()))
    return {name.split(".")[-1]: value.flatten(1) for name, value in zip(named, found, strict=True)}


def assert_unbiased(estimates: Tensor, truth: Tensor, what: str):
    mean, deviation = estimates.mean(0), estimates.std(0)
    error = deviation / math.sqrt(len(estimates))
    distance = (mean - truth.flatten()).abs()
    assert (distance <= 5 * error + 1e-9).all(), f"{what}: {(distance / error).max():.1f} standard errors"
    assert (error < 0.2 * (truth.abs().max() + 0.05)).all(), f"{what}: too noisy for a test"


def seen(estimator: ScoreFunction) -> ScoreFunction:
    """An estimator in the middle of training: its running means are not 0."""
    estimator.mean.fill_(-1.5)
    estimator.variance.fill_(0.9)
    estimator.steps.fill_(200)
    return estimator


ON_ELBO = {
    "pathwise": (Pathwise, ELBO(), 1),
    "pathwise, sampled kl": (Pathwise, ELBO(closed_form_kl=False), 2),
    "sticking the landing": (StickingTheLanding, ELBO(), 2),
    "sticking the landing, one sample, beta": (StickingTheLanding, ELBO(beta=0.5), 1),
    "score, none": (lambda: ScoreFunction("none"), ELBO(), 1),
    "score, none, sampled kl": (lambda: ScoreFunction("none"), ELBO(closed_form_kl=False), 2),
    "score, mean": (lambda: seen(ScoreFunction("mean")), ELBO(), 2),
    "score, leave-one-out": (lambda: ScoreFunction("leave-one-out"), ELBO(), 2),
    "score, leave-one-out, beta, sampled kl": (ScoreFunction, ELBO(beta=2.0, closed_form_kl=False), 2),
    "score, network": (lambda: seen(ScoreFunction(mlp(2, 1, hidden=(4,)))), ELBO(), 2),
}
ON_IWAE = {
    "pathwise, iwae": (Pathwise, IWAE(), 2),
    "dreg": (DReG, IWAE(), 2),
    "dreg, one sample": (DReG, IWAE(), 1),
    "vimco": (VIMCO, IWAE(), 2),
    "score, none, iwae": (lambda: ScoreFunction("none"), IWAE(), 2),
    "score, mean, iwae": (lambda: seen(ScoreFunction("mean")), IWAE(), 2),
}


@pytest.mark.parametrize(
    ("make", "bound", "num_samples"), [*ON_ELBO.values(), *ON_IWAE.values()], ids=[*ON_ELBO, *ON_IWAE]
)
def test_the_mean_gradient_is_the_exact_one(make, bound, num_samples):
    count = 40_000
    truth = by_quadrature(bound, num_samples)
    found = gradients(line(count), X.expand(count, 2), make(), bound, num_samples)
    for name in NAMES:
        assert_unbiased(found[name], truth[name], name)


def test_wake_phi_trains_the_model_by_the_importance_weighted_bound():
    count = 40_000
    truth = by_quadrature(IWAE(), 2)
    found = gradients(line(count), X.expand(count, 2), WakePhi(), IWAE(), 2)
    for name in ("weight", "bias"):
        assert_unbiased(found[name], truth[name], name)


def test_wake_phi_goes_to_the_posterior_as_samples_grow():
    count, num_samples = 500, 2000
    found = gradients(line(count), X.expand(count, 2), WakePhi(), IWAE(), num_samples)
    # E_{p(z|x)}[grad log q(z)], with the posterior of a line: N(m, v)
    variance = 1 / (1 + WEIGHT.square().sum() / SCALE**2)
    mean = variance * (WEIGHT * (X - BIAS)).sum() / SCALE**2
    scale = LOG_SCALE.exp()
    truth = torch.cat([(mean - LOC) / scale**2, (variance + (mean - LOC) ** 2) / scale**2 - 1])
    estimates = torch.cat([found["loc"], found["log_scale"]], dim=1)
    error = estimates.std(0) / math.sqrt(count)
    assert ((estimates.mean(0) - truth).abs() < 5 * error + 3 / num_samples).all()  # the bias is of order 1 / K


def test_sticking_the_landing_has_no_variance_at_the_exact_posterior():
    likelihood = LinearGaussian(6, 2).double()
    model = VAE(StandardNormal(2), likelihood, ExactPosterior(LinearGaussian(6, 2).double()))
    model.posterior.likelihood.load_state_dict(likelihood.state_dict())
    x, phi = torch.randn(50, 6), list(model.posterior.parameters())

    def noise(estimator: GradientEstimator, bound: Bound) -> float:
        draw = model.draw(x, num_samples=2)
        return max(g.abs().max().item() for g in torch.autograd.grad(estimator.surrogate(draw, bound, x).sum(), phi))

    assert noise(StickingTheLanding(), ELBO()) < 1e-10
    assert noise(DReG(), IWAE()) < 1e-10
    assert noise(Pathwise(), ELBO(closed_form_kl=False)) > 0.1


def test_signal_to_noise_falls_with_samples_for_the_pathwise_gradient_and_rises_for_dreg():
    """Rainforth et al., 2018, theorem 1: as K^-1/2; Tucker et al., 2019, figure 1: as K^1/2."""

    mean, deviation = {}, {}
    for num_samples in (8, 128):
        count = 400_000 // num_samples
        x = X.expand(count, 2)
        dreg = gradients(line(count), x, DReG(), IWAE(), num_samples)["loc"]
        pathwise = gradients(line(count), x, Pathwise(), IWAE(), num_samples)["loc"]
        mean[num_samples] = dreg.mean(0).abs()  # of both, and here known much better
        deviation[num_samples] = pathwise.std(0), dreg.std(0)
    pathwise, dreg = (mean[128] / deviation[128][i] / (mean[8] / deviation[8][i]) for i in (0, 1))
    assert 1 / 8 < pathwise < 1 / 2  # theory: 1 / 4
    assert 2 < dreg < 8  # theory: 4


def test_the_doubly_reparametrized_gradient_has_the_lower_variance():
    count = 4000
    for num_samples in (4, 32):
        x = X.expand(count, 2)
        dreg = gradients(line(count), x, DReG(), IWAE(), num_samples)
        pathwise = gradients(line(count), x, Pathwise(), IWAE(), num_samples)
        for name in PHI:
            assert dreg[name].var(0) < pathwise[name].var(0)


# Bits: 6 of them, enumerated


BITS = 6
STATES = torch.tensor(list(itertools.product((0.0, 1.0), repeat=BITS)), dtype=torch.float64)  # (64, 6)
Y = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
TABLE = torch.linspace(-1.5, 2.0, 3 * BITS, dtype=torch.float64).reshape(3, BITS).sin() * 2
PRIOR_LOGITS = torch.linspace(-1, 1, BITS, dtype=torch.float64)
LOGITS = torch.linspace(0.8, -0.9, BITS, dtype=torch.float64)


class Decoder(nn.Module):
    def __init__(self, count: int):
        super().__init__()
        self.table = rows_of(TABLE, count)

    def forward(self, z: Tensor) -> Distribution:
        return Bernoulli(torch.einsum("nod,nd->no", tiled(self.table, z), z - 0.5), 1)


class Coins(nn.Module):
    def __init__(self, count: int):
        super().__init__()
        self.logits = rows_of(LOGITS, count)

    def forward(self, x: Tensor) -> Distribution:
        return Bernoulli(self.logits, 1)


class CoinsPrior(nn.Module):
    """One row for every example: p(z) has a gradient of its own in each."""

    def __init__(self, count: int):
        super().__init__()
        self.prior_logits = rows_of(PRIOR_LOGITS, count)

    def forward(self) -> Distribution:
        return Bernoulli(self.prior_logits, 1)


def bits(count: int) -> VAE:
    return VAE(CoinsPrior(count), Decoder(count), Coins(count))


def by_enumeration(bound: Bound, num_samples: int, *, wake: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
    """The exact bound and its gradient: the sum over all states of K samples. With `wake`, phi's is wake-phi's."""
    values = {"prior_logits": PRIOR_LOGITS, "table": TABLE, "logits": LOGITS}
    values = {name: value.clone().requires_grad_() for name, value in values.items()}
    log_q = Bernoulli(values["logits"], 1).log_prob(STATES)
    likelihood = Bernoulli((STATES - 0.5) @ values["table"].T, 1).log_prob(Y)
    log_weight = likelihood + Bernoulli(values["prior_logits"], 1).log_prob(STATES) - log_q
    index = torch.cartesian_prod(*[torch.arange(64)] * num_samples).reshape(-1, num_samples)  # all joint states
    probability = log_q[index].sum(1).exp()
    if isinstance(bound, ELBO):
        each = (likelihood + bound.beta * (log_weight - likelihood))[index].mean(1)
    else:
        each = log_mean_exp(log_weight[index], 1)
    total = (probability * each).sum()
    found = dict(zip(values, torch.autograd.grad(total, list(values.values()), retain_graph=True), strict=True))
    if wake:
        weights = log_weight[index].softmax(1).detach()
        follow = (probability.detach() * (weights * log_q[index]).sum(1)).sum()
        (found["logits"],) = torch.autograd.grad(follow, [values["logits"]])
    return total.detach(), found


DISCRETE = {
    "score, none": (lambda: ScoreFunction("none"), ELBO(), 1),
    "score, none, sampled kl": (lambda: ScoreFunction("none"), ELBO(closed_form_kl=False), 2),
    "score, mean": (lambda: seen(ScoreFunction("mean")), ELBO(), 2),
    "score, leave-one-out": (ScoreFunction, ELBO(), 2),
    "score, leave-one-out, sampled kl": (ScoreFunction, ELBO(closed_form_kl=False), 2),
    "score, network": (lambda: seen(ScoreFunction(mlp(3, 1, hidden=(4,)))), ELBO(), 2),
    "score, mean, iwae": (lambda: seen(ScoreFunction("mean")), IWAE(), 2),
    "vimco": (VIMCO, IWAE(), 2),
    "wake phi": (WakePhi, IWAE(), 2),
}


@pytest.mark.parametrize(("make", "bound", "num_samples"), DISCRETE.values(), ids=DISCRETE)
def test_the_mean_gradient_over_bits_is_that_of_enumeration(make, bound, num_samples):
    count, estimator = 30_000, make()
    _, truth = by_enumeration(bound, num_samples, wake=isinstance(estimator, WakePhi))
    found = gradients(bits(count), Y.expand(count, 3), estimator, bound, num_samples)
    for name, exact in truth.items():
        assert_unbiased(found[name], exact, name)


@pytest.mark.parametrize(
    "make, bound",
    [
        (ScoreFunction, ELBO()),
        (StraightThrough, ELBO()),
        (ReinMax, ELBO()),
        (GumbelSoftmax, ELBO()),
        (lambda: ScoreFunction("mean"), IWAE()),
        (VIMCO, IWAE()),
        (WakePhi, IWAE()),
        (StraightThrough, IWAE()),
        (GumbelSoftmax, IWAE()),
    ],
)
def test_the_reported_bound_is_that_of_enumeration(make, bound):
    count = 20_000
    truth, _ = by_enumeration(bound, 2)
    objective = Objective(bits(count), bound, gradient=make(), num_samples=2)
    loss = objective(Y.expand(count, 3))
    assert abs(loss.bound.mean() - truth) < 5 * loss.bound.std() / math.sqrt(count)
    assert_close(loss.loss.detach(), -loss.bound.mean())


def test_leave_one_out_has_less_variance_than_no_baseline():
    count = 4000
    x = Y.expand(count, 3)
    none = gradients(bits(count), x, ScoreFunction("none"), ELBO(), 4)["logits"].var(0).mean()
    others = gradients(bits(count), x, ScoreFunction(), ELBO(), 4)["logits"].var(0).mean()
    vimco = gradients(bits(count), x, VIMCO(), IWAE(), 4)["logits"].var(0).mean()
    plain = gradients(bits(count), x, ScoreFunction("none"), IWAE(), 4)["logits"].var(0).mean()
    assert others < 0.5 * none
    assert vimco < 0.5 * plain


def test_vimcos_signal_is_the_bound_less_the_bound_without_the_sample():
    log_weight = torch.randn(3, 2)
    signal = _without_each(log_weight)
    for k in range(3):
        others = [j for j in range(3) if j != k]
        geometric = log_weight[others].mean(0)
        without = log_mean_exp(torch.cat([log_weight[others], geometric[None]]), 0)
        assert_close(signal[k], log_mean_exp(log_weight, 0) - without)


def test_a_network_learns_to_be_the_baseline():
    """Its gradient is that of its squared error, and of nothing else."""
    network = mlp(3, 1, hidden=(4,))
    estimator = ScoreFunction(network)
    x = Y.expand(5, 3)
    model = bits(5)
    draw = model.draw(x, num_samples=2, path=False)
    found = torch.autograd.grad(estimator.surrogate(draw, ELBO(), x).sum(), list(network.parameters()))
    error = draw.log_likelihood.detach() - network(x).squeeze(1)
    wanted = torch.autograd.grad(-0.5 * error.square().mean(0).sum(), list(network.parameters()))
    for one, other in zip(found, wanted, strict=True):
        assert_close(one, other)


def test_running_means_are_of_earlier_steps_and_only_of_training():
    estimator = ScoreFunction("mean")
    objective = Objective(bits(5), gradient=estimator)
    x = Y.expand(5, 3)
    objective.eval()
    objective(x)
    assert estimator.steps == 0
    objective.train()
    draw = objective.model.draw(x, path=False)
    estimator.surrogate(draw, ELBO(), x)
    assert estimator.steps == 1
    assert_close(estimator._running_mean(), draw.log_likelihood.mean())
    assert {"gradient.mean", "gradient.variance", "gradient.steps"} <= set(objective.state_dict())


def test_normalizing_divides_by_the_running_deviation_where_it_is_above_one():
    signal = torch.randn(4, 3)
    estimator = seen(ScoreFunction("mean", normalize=True))
    estimator.variance.fill_(16 * (1 - 0.99**200))
    assert_close(estimator._normalized(signal), signal / 4)
    estimator.variance.fill_(0.01)
    assert_close(estimator._normalized(signal), signal)


def test_normalizing_leaves_the_direction_of_phis_gradient():
    """The KL's share is scaled like the likelihood's: otherwise it would be the only one that is left."""
    count, estimator = 30_000, seen(ScoreFunction("mean", normalize=True))
    estimator.variance.fill_(16 * (1 - 0.99**200))
    _, truth = by_enumeration(ELBO(), 2)
    found = gradients(bits(count), Y.expand(count, 3), estimator, ELBO(), 2)
    assert_unbiased(4 * found["logits"], truth["logits"], "phi")
    for name in ("table", "prior_logits"):
        assert_unbiased(found[name], truth[name], name)


# Stand-ins for the path of discrete latents


class Tilt(Distribution):
    """``log p(x) = <slope, z>``: linear in z, and of no use but to be differentiated."""

    def __init__(self, z: Tensor, slope: Tensor):
        self.value = z @ slope
        super().__init__(z.shape[:1], torch.Size([3]), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.value


def test_straight_through_is_exact_where_the_likelihood_is_linear():
    count, slope = 5, torch.linspace(-1, 2, BITS)

    class Linear(nn.Module):
        def forward(self, z: Tensor) -> Distribution:
            return Tilt(z, slope)

    model = VAE(CoinsPrior(count), Linear(), Coins(count))
    draw = model.draw(Y.expand(count, 3), num_samples=1, path=StraightThrough().path)
    (found,) = torch.autograd.grad(draw.log_likelihood.sum(), [model.posterior.logits])
    p = LOGITS.sigmoid()
    assert_close(found, (slope * p * (1 - p)).expand(count, BITS))  # of E[<slope, z>] = <slope, p>
    z = draw.factors[0].z
    assert_close(z, z.round())


def test_straight_through_is_biased_where_it_is_not():
    count = 30_000
    _, truth = by_enumeration(ELBO(), 1)
    for estimator in (StraightThrough(), GumbelSoftmax()):
        found = gradients(bits(count), Y.expand(count, 3), estimator, ELBO(), 1)
        assert_unbiased(found["table"], truth["table"], "theta's is not biased")
        error = found["logits"].std(0) / math.sqrt(count)
        assert ((found["logits"].mean(0) - truth["logits"]).abs() > 5 * error).any()
        assert estimator.biased


def test_reinmax_has_less_bias_than_straight_through():
    count = 30_000
    _, truth = by_enumeration(ELBO(), 1)
    far = []
    for estimator in (ReinMax(), StraightThrough()):
        found = gradients(bits(count), Y.expand(count, 3), estimator, ELBO(), 1)["logits"]
        far.append((found.mean(0) - truth["logits"]).norm())
        noise = (found.std(0) / math.sqrt(count)).norm()
    assert far[0] + 5 * noise < far[1]


@pytest.mark.parametrize("kind", ["bits", "one-hot"])
@pytest.mark.parametrize("degree, exact", [(1, True), (2, True), (3, False)])
def test_reinmax_is_exact_up_to_quadratic_functions(kind: str, degree: int, exact: bool):
    """Its gradient depends on the sample alone, so that its expectation is a sum over samples: no noise is left."""
    logits = torch.tensor([0.7] if kind == "bits" else [0.3, -1.2, 0.9, 0.1]).requires_grad_()
    generator = torch.Generator().manual_seed(3)
    weights = [torch.randn([len(logits)] * order, generator=generator) for order in range(1, degree + 1)]

    def f(z: Tensor) -> Tensor:
        letters = "abc"
        terms = [
            torch.einsum(",".join([letters[:order], *letters[:order]]), w, *[z] * order)
            for order, w in enumerate(weights, 1)
        ]
        return torch.stack(terms).sum()

    q = Independent(TorchBernoulli(logits=logits), 1) if kind == "bits" else OneHotCategorical(logits=logits)
    values = torch.tensor([[0.0], [1.0]]) if kind == "bits" else torch.eye(4)
    mean = torch.stack([q.log_prob(z).exp() * f(z) for z in values]).sum()
    (truth,) = torch.autograd.grad(mean, logits, retain_graph=True)
    z = ReinMax().path(q, torch.Size([500]))
    expected = torch.zeros_like(logits)
    for value in values:
        first = z[int(((z - value).abs().sum(-1) < 1e-9).nonzero()[0])]
        (slope,) = torch.autograd.grad(f(first), logits, retain_graph=True)
        expected += q.log_prob(value).exp().detach() * slope
    assert torch.allclose(expected, truth, rtol=1e-9, atol=1e-12) == exact


@pytest.mark.parametrize("kind", ["bits", "one-hot"])
def test_gumbel_softmax_samples_are_of_q_and_their_slope_is_of_the_softmax(kind):
    logits = torch.randn(4, 3).requires_grad_()
    q = Independent(TorchBernoulli(logits=logits), 1) if kind == "bits" else OneHotCategorical(logits=logits)
    estimator = GumbelSoftmax(0.7)
    torch.manual_seed(1)
    z = estimator.path(q, torch.Size([20_000]))
    assert_close(z, z.round(), atol=1e-12, rtol=0)
    error = (q.mean * (1 - q.mean) / 20_000).sqrt()
    assert ((z.mean(0) - q.mean).abs() < 5 * error).all()
    torch.manual_seed(1)
    uniform = torch.rand(20_000, 4, 3)
    if kind == "bits":
        soft = torch.sigmoid((logits + (uniform / (1 - uniform)).log()) / 0.7)
    else:
        soft = ((logits - (-uniform.log()).log()) / 0.7).softmax(-1)
    weights = torch.randn(3)
    for one, other in zip(*(torch.autograd.grad((v @ weights).sum(), logits) for v in (z, soft)), strict=True):
        assert_close(one, other)


@pytest.mark.parametrize(
    "estimator", [StraightThrough(), ReinMax(), GumbelSoftmax(1.0)], ids=["straight-through", "reinmax", "gumbel"]
)
def test_a_path_through_categories_reaches_their_densities(estimator):
    """log q(z) - log p(z) is linear in z: its gradient along a straight path is the exact one."""
    count = 40_000
    logits, prior = torch.tensor([[0.3, -0.5, 0.8]]), torch.tensor([[0.1, 0.4, -0.2]])
    rows = rows_of(logits, count)
    q = Independent(OneHotCategorical(logits=rows), 1)
    p = Independent(OneHotCategorical(logits=prior), 1)
    z = estimator.path(q, torch.Size([]))
    (found,) = torch.autograd.grad((q.log_prob(z) - p.log_prob(z)).sum(), rows)
    start = logits.clone().requires_grad_()
    kl = torch.distributions.kl_divergence(OneHotCategorical(logits=start), OneHotCategorical(logits=prior))
    (truth,) = torch.autograd.grad(kl.sum(), start)
    if not isinstance(estimator, GumbelSoftmax):
        assert_unbiased(found.flatten(1), truth, "phi")
    assert found.flatten(1).mean(0) @ truth.flatten() > 0  # Gumbel-softmax is biased, and not blind


@pytest.mark.parametrize("ours", [True, False])
def test_a_kl_between_bits_is_known_whoever_made_them(ours):
    logits, prior = torch.randn(4, 3), torch.randn(3)
    exact = Factor(Bernoulli(logits, 1), Bernoulli(prior, 1), torch.zeros(1, 4, 3)).kl
    of_torch = Independent(TorchBernoulli(logits=prior), 1)
    q = Bernoulli(logits, 1) if ours else Independent(TorchBernoulli(logits=logits), 1)
    assert_close(Factor(q, of_torch, torch.zeros(1, 4, 3)).kl, exact)


# What makes no sense is refused


def gaussian(count: int = 3) -> Distribution:
    return Gaussian(torch.zeros(count, 2), torch.ones(count, 2), 1)


@pytest.mark.parametrize(
    ("estimator", "q", "bound", "num_samples", "words"),
    [
        (Pathwise(), Bernoulli(torch.zeros(3, 2), 1), ELBO(), 1, "ScoreFunction"),
        (StickingTheLanding(), Bernoulli(torch.zeros(3, 2), 1), ELBO(), 1, "no rsample"),
        (StickingTheLanding(), gaussian(), IWAE(), 4, "DReG"),
        (StickingTheLanding(), gaussian(), ELBO(free_bits=1.0), 4, "free_bits 0"),
        (DReG(), gaussian(), ELBO(), 4, "StickingTheLanding"),
        (DReG(), gaussian(), MIWAE(groups=2), 4, "MIWAE"),
        (DReG(), Bernoulli(torch.zeros(3, 2), 1), IWAE(), 4, "no rsample"),
        (ScoreFunction(), gaussian(), ELBO(), 1, "at least 2, or the baseline mean"),
        (ScoreFunction(), gaussian(), IWAE(), 4, "VIMCO"),
        (ScoreFunction(), gaussian(), Renyi(0.5), 4, "baseline mean"),
        (ScoreFunction("mean", normalize=True), gaussian(), IWAE(), 4, "use the ELBO"),
        (VIMCO(), gaussian(), IWAE(), 1, "at least 2"),
        (VIMCO(), gaussian(), ELBO(), 4, "leave-one-out"),
        (WakePhi(), gaussian(), IWAE(), 1, "at least 2"),
        (WakePhi(), gaussian(), ELBO(), 4, "IWAE"),
        (StraightThrough(), gaussian(), ELBO(), 1, "Pathwise"),
        (GumbelSoftmax(), gaussian(), ELBO(), 1, "Pathwise"),
    ],
)
def test_a_combination_that_makes_no_sense_is_refused_and_the_right_one_named(estimator, q, bound, num_samples, words):
    with pytest.raises(InputError, match=words):
        estimator.check(q, bound, num_samples=num_samples)


class Loose(ScoreFunction):
    path = cast(Any, "sample")


class Whole(Pathwise):
    def surrogate(self, draw, bound, x, context=None):
        return bound(draw).mean()


def test_an_estimator_that_keeps_not_to_its_contract_is_refused():
    with pytest.raises(InputError, match="path must be True"):
        Objective(bits(3), gradient=Loose())
    with pytest.raises(InputError, match="one number per example"):
        Objective(line(3), gradient=Whole())(X.expand(3, 2))


def test_settings_out_of_range_are_refused():
    with pytest.raises(InputError, match="positive"):
        GumbelSoftmax(0.0)


def test_free_bits_need_a_kl_in_closed_form():
    model, x = bits(3), Y.expand(3, 3)
    draw = model.draw(x, num_samples=2, path=False)
    with pytest.raises(InputError, match="closed form"):
        ScoreFunction().surrogate(draw, ELBO(free_bits=0.1, closed_form_kl=False), x)
