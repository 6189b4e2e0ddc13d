"""Inequalities and identities that hold whatever the model, the data and the weights."""

import itertools
import math
from decimal import Context, Decimal

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal
from torch.testing import assert_close

import catalog
from subo.core.bounds import ELBO, IWAE, MIWAE, Renyi, log_mean_exp, reported
from subo.core.draw import Draw
from subo.core.objective import Objective
from subo.errors import InputError
from subo.gradients import GradientEstimator, Pathwise
from subo.models.probabilistic_pca import LinearGaussian, probabilistic_pca
from subo.models.vae import VAE
from subo.parts.conditionals import Conditional
from subo.parts.families import Bernoulli
from subo.parts.location_scale import Gaussian
from subo.parts.networks import mlp
from subo.parts.priors import StandardNormal


class Weights(Draw):
    """A draw of nothing but given log-weights."""

    def __init__(self, log_weight: Tensor):
        self.log_weight = log_weight


def weights(num_samples: int, num_data: int = 3, spread: float = 3.0) -> Weights:
    return Weights(spread * torch.randn(num_samples, num_data, dtype=torch.float64))


def test_the_renyi_bound_of_order_minus_one_tends_to_the_chi_upper_bound_of_order_two():
    """Of log-normal weights, 1/2 log E[w^2] is their mean plus their variance, above log E[w]."""
    mean, spread, count = -2.0, 0.4, 400_000
    draw = Weights(mean + spread * torch.randn(count, 1, dtype=torch.float64))
    error = math.sqrt(math.expm1(4 * spread**2) / count) / 2  # of the logarithm of a mean of squares
    assert abs(Renyi(-1.0)(draw).item() - (mean + spread**2)) < 5 * error
    assert mean + spread**2 > mean + spread**2 / 2


class _Repeated(nn.Module):
    """One q(z|x) for every row, with parameters of its own: the gradients of the rows are independent estimates."""

    def __init__(self, likelihood: LinearGaussian, x: Tensor):
        super().__init__()
        exact = likelihood.posterior_mean(x).detach()
        widest = torch.linalg.eigvalsh(likelihood.precision())[0].rsqrt().detach()
        self.mean, self.scale = nn.Parameter(exact + 0.5), 1.2 * widest

    def forward(self, x: Tensor) -> Independent:
        return Independent(Normal(self.mean, self.scale), 1)


@pytest.mark.parametrize("alpha, power", [(0.0, -0.5), (0.5, 0.5)])
def test_between_iwae_and_elbo_the_gradient_of_phi_stands_out_more_with_more_samples(alpha: float, power: float):
    """Its signal over its noise goes as K to this power (Rainforth et al., 2018; Daudel et al., 2024)."""
    likelihood = imperfect(1)[0].likelihood
    x = torch.zeros(4000, 5, dtype=torch.float64)
    ratios = []
    for num_samples in (8, 128):
        model = VAE(StandardNormal(2), likelihood, _Repeated(likelihood, x)).double()
        Objective(model, Renyi(alpha), num_samples=num_samples)(x).loss.backward()
        gradient = model.posterior.mean.grad
        ratios.append((gradient.mean(0).abs() / gradient.std(0)).max().item())
    slope = math.log(ratios[1] / ratios[0]) / math.log(128 / 8)
    assert abs(slope - power) < 0.12, ratios


# Orders of bounds


def imperfect(num_data: int = 5000) -> tuple[VAE, Tensor]:
    model = probabilistic_pca(5, 2).double()
    likelihood = model.likelihood
    assert isinstance(likelihood, LinearGaussian)
    with torch.no_grad():
        likelihood.weight.copy_(torch.linspace(-1, 1.5, 5)[:, None] + 0.3 * torch.randn(5, 2))
    model.posterior = catalog.Wide(likelihood, shift=1.0)
    return model, model.sample(num_data)[1].sample()


@pytest.mark.parametrize("num_samples", [1, 2, 5])
def test_the_bounds_rise_from_the_elbo_through_iwae_to_the_evidence(num_samples):
    model, x = imperfect()
    draw = model.draw(x, num_samples=2 * num_samples)
    elbo, more = ELBO(closed_form_kl=False)(draw), IWAE()(draw)
    fewer = MIWAE(inner=num_samples)(draw)
    log_px = model.likelihood.log_px(x)
    steps = [fewer - elbo, more - fewer, log_px - more]
    for step in steps[num_samples == 1 :]:  # with K = 1 IWAE is the ELBO
        step = step.detach()
        assert step.mean() > 5 * step.std() / len(step) ** 0.5
    assert (steps[0] >= -1e-12).all()  # of the same samples, by Jensen's inequality
    assert (steps[1] >= -1e-12).all()


ALPHAS = [-math.inf, -100.0, -2.0, -0.5, 0.0, 0.3, 0.5, 0.99, 1.0, 1.01, 2.0, 100.0, math.inf]


@pytest.mark.parametrize("num_samples", [1, 2, 10])
def test_renyis_bound_falls_as_alpha_rises(num_samples):
    draw = weights(num_samples)
    for lower, higher in itertools.pairwise(ALPHAS):
        drop = Renyi(lower)(draw) - Renyi(higher)(draw)
        assert (drop > 0).all() if num_samples > 1 else (drop.abs() < 1e-12).all()


def test_renyis_bound_has_its_limits():
    draw = weights(7)
    assert torch.equal(Renyi(0.0)(draw), IWAE()(draw))
    assert torch.equal(Renyi(1.0)(draw), draw.log_weight.mean(0))
    assert torch.equal(Renyi(math.inf)(draw), draw.log_weight.min(0).values)
    assert torch.equal(Renyi(-math.inf)(draw), draw.log_weight.max(0).values)
    assert_close(Renyi(1 + 1e-6)(draw), Renyi(1.0)(draw), rtol=0, atol=1e-4)
    assert_close(Renyi(1 - 1e-6)(draw), Renyi(1.0)(draw), rtol=0, atol=1e-4)
    assert_close(Renyi(1e5)(draw), Renyi(math.inf)(draw), rtol=0, atol=1e-4)
    assert_close(Renyi(-1e5)(draw), Renyi(-math.inf)(draw), rtol=0, atol=1e-4)


def test_iwae_is_the_log_of_the_mean_weight():
    draw = weights(7)
    assert_close(IWAE()(draw), draw.log_weight.exp().mean(0).log())
    assert_close(IWAE()(Weights(draw.log_weight - 5000)), IWAE()(draw) - 5000)
    assert_close(log_mean_exp(draw.log_weight, 1), draw.log_weight.exp().mean(1).log())


def test_renyis_bound_is_its_definition():
    draw = weights(7)
    for alpha in (-2.0, 0.3, 2.0):
        expected = draw.log_weight.exp().pow(1 - alpha).mean(0).log() / (1 - alpha)
        assert_close(Renyi(alpha)(draw), expected)


ORDERS = [sign * 10.0**-power for power in (9, 7, 5, 3, 1) for sign in (1, -1)] + [1.0, -2.0, 1e5]


@pytest.mark.parametrize("spread", [1e-3, 1.0, 30.0, 1e5])
def test_renyis_bound_is_exact_in_single_precision_near_alpha_1_and_far_from_it(spread):
    """Against sixty decimal digits; the formula as it stands is off by 1.4 nats at 1 - 1e-7."""
    log_weight = (-99 + spread * torch.randn(20, 3)).requires_grad_()
    digits = Context(prec=60, Emax=10**12, Emin=-(10**12))
    for order in ORDERS:
        alpha = 1 - order
        bound = Renyi(alpha)(Weights(log_weight))
        power = digits.subtract(1, Decimal(alpha))
        for column, value in zip(log_weight.mT.tolist(), bound.tolist(), strict=True):
            powers = [digits.exp(digits.multiply(power, Decimal(weight))) for weight in column]
            exact = float(digits.divide(digits.ln(digits.divide(sum_of(powers, digits), len(powers))), power))
            assert abs(value - exact) < 4e-7 * (99 + spread), alpha
        (slope,) = torch.autograd.grad(bound.sum(), log_weight)
        rounding = 1e-6 + 4e-7 * abs(order) * (99 + spread)  # of the exponents
        assert_close(slope.double(), (float(power) * log_weight.double()).softmax(0), rtol=rounding, atol=1e-30)


def sum_of(values: list[Decimal], digits: Context) -> Decimal:
    total = Decimal(0)
    for value in values:
        total = digits.add(total, value)
    return total


def test_renyis_bound_of_weights_of_zero_and_of_orders_that_floats_hardly_hold():
    log_weight = torch.tensor([[-3.0, -math.inf], [-5.0, -1.0]], requires_grad=True)
    draw = Weights(log_weight)
    assert_close(Renyi(0.5)(draw)[1], -1 - 2 * torch.tensor(2.0).log())  # (e^-0.5 / 2)^2
    assert Renyi(1.5)(draw)[1] == -math.inf
    (slope,) = torch.autograd.grad(Renyi(1 - 1e-7)(draw)[0], log_weight)
    assert_close(slope, torch.tensor([[0.5, 0.0], [0.5, 0.0]]))
    assert Renyi(1e38)(draw)[0] == -5
    assert Renyi(-1e38)(draw)[0] == -3
    with pytest.raises(InputError, match="alpha must be a number"):
        Renyi(math.nan)


# MIWAE


@pytest.mark.parametrize("num_samples, num_data", [(6, 6), (6, 4), (12, 3)])
def test_miwae_is_between_iwae_and_the_elbo_and_reaches_both(num_samples, num_data):
    draw = weights(num_samples, num_data)
    assert torch.equal(MIWAE(groups=1)(draw), IWAE()(draw))
    assert_close(MIWAE(inner=num_samples)(draw), IWAE()(draw))
    assert_close(MIWAE(inner=1)(draw), draw.log_weight.mean(0))
    assert_close(MIWAE(groups=num_samples)(draw), draw.log_weight.mean(0))
    between = MIWAE(groups=2)(draw)
    assert (draw.log_weight.mean(0) < between).all()
    assert (between < IWAE()(draw)).all()


@pytest.mark.parametrize("num_samples, num_data", [(6, 6), (6, 4), (12, 3)])
@pytest.mark.parametrize("groups", [2, 3])
def test_miwae_groups_the_samples_and_not_the_data(num_samples, num_data, groups):
    draw, inner = weights(num_samples, num_data), num_samples // groups
    w = draw.log_weight.exp()
    expected = torch.stack([w[g * inner : (g + 1) * inner].mean(0).log() for g in range(groups)]).mean(0)
    assert_close(MIWAE(groups=groups)(draw), expected)
    assert_close(MIWAE(inner=inner)(draw), expected)


@pytest.mark.parametrize("bound", [MIWAE(groups=4), MIWAE(inner=4)], ids=str)
def test_miwae_refuses_groups_of_unequal_size(bound):
    with pytest.raises(InputError, match="K = 6 is not a multiple of 4"):
        bound(weights(6))


@pytest.mark.parametrize(
    "settings", [{}, {"groups": 2, "inner": 2}, {"groups": 0}, {"inner": 0}, {"inner": -1}], ids=str
)
def test_miwae_takes_one_of_its_two_settings(settings):
    with pytest.raises(InputError, match="either groups or inner|must be at least 1"):
        MIWAE(**settings)


@pytest.mark.parametrize("settings", [{"beta": -1.0}, {"free_bits": -0.1}], ids=str)
def test_an_elbo_refuses_negative_settings(settings):
    with pytest.raises(InputError, match="must be at least 0"):
        ELBO(**settings)


# The KL in closed form is the KL by samples


def has_closed_form(prior: str, posterior: str) -> bool:
    return prior == "standard normal" and any(kind in posterior for kind in ("gaussian", "laplace"))


PAIRS = [pair for pair in itertools.product(catalog.PRIORS, catalog.POSTERIORS) if catalog.fit_together(*pair)]


@pytest.mark.parametrize("prior, posterior", PAIRS)
def test_the_kl_has_a_closed_form_where_it_should(prior, posterior):
    model = catalog.vae(prior, posterior)
    draw = model.draw(torch.rand(4, *catalog.DATA_SHAPE), catalog.context_of(4))
    assert (draw.factors[0].kl is not None) == has_closed_form(prior, posterior)


@pytest.mark.parametrize("prior, posterior", [pair for pair in PAIRS if has_closed_form(*pair)])
def test_the_kl_in_closed_form_is_the_mean_log_ratio_in_value_and_gradient(prior, posterior):
    model = catalog.vae(prior, posterior).double()
    with torch.no_grad():
        for parameter in model.posterior.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    x, context = torch.rand(4, *catalog.DATA_SHAPE, dtype=torch.float64), catalog.context_of(4)
    phi = list(model.posterior.parameters())

    def values_and_gradients(closed_form: bool) -> Tensor:
        rate = model.draw(x, context, num_samples=100).factors[0].rate(closed_form=closed_form)
        gradients = torch.autograd.grad(rate @ torch.arange(1, 5).double(), phi)
        return torch.cat([rate.detach(), *(gradient.to_dense().flatten() for gradient in gradients)])

    estimates = torch.stack([values_and_gradients(False) for _ in range(100)])
    error = (estimates.mean(0) - values_and_gradients(True)).abs()
    assert (error <= 5 * estimates.std(0) / len(estimates) ** 0.5 + 1e-10).all()


# Value and gradient are separate


def small(beta: float = 1.0, free_bits: float = 0.0, **options) -> tuple[Objective, Tensor]:
    """A small model, the same at every call."""
    torch.manual_seed(1)
    model = catalog.vae().double()
    x = torch.rand(4, *catalog.DATA_SHAPE).round().double() * torch.tensor([[0.0], [1.0], [3.0], [9.0]])
    return Objective(model, ELBO(beta=beta, free_bits=free_bits, **options), num_samples=3), x


def step(objective: Objective, x: Tensor, **options):
    """A loss and its gradient, of the same noise at every call."""
    torch.manual_seed(2)
    loss = objective(x, **options)
    gradient = torch.autograd.grad(loss.loss, list(objective.parameters()), allow_unused=True)
    return loss, [
        torch.zeros_like(p) if g is None else g for p, g in zip(objective.parameters(), gradient, strict=True)
    ]


def kl_gradient(objective: Objective, x: Tensor, chosen: slice = slice(None)) -> list[Tensor]:
    """The gradient of the mean KL, over all data and of the chosen ones."""
    torch.manual_seed(2)
    rate = objective.model.draw(x, num_samples=3).factors[0].rate()
    total = rate[chosen].sum() / len(x)
    gradient = torch.autograd.grad(total, list(objective.parameters()), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(objective.parameters(), gradient, strict=True)]


def same_report(one, other):
    for name in ("bound", "rate", "distortion", "elbo"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert torch.equal(one.loss, other.loss)


@pytest.mark.parametrize("beta", [0.0, 0.5, 4.0])
def test_beta_weighs_the_kl_in_the_gradient_and_in_no_reported_number(beta):
    plain, plain_gradient = step(*small())
    shaped, gradient = step(*small(beta=beta))
    same_report(shaped, plain)
    for g, g1, kl in zip(gradient, plain_gradient, kl_gradient(*small()), strict=True):
        assert_close(g, g1 + (beta - 1) * kl, rtol=1e-9, atol=1e-12)


def test_kl_warm_up_is_a_factor_of_beta():
    warm, warm_gradient = step(*small(beta=4.0), kl_weight=0.25)
    plain, gradient = step(*small())
    same_report(warm, plain)
    for one, other in zip(warm_gradient, gradient, strict=True):
        assert_close(one, other)
    _, half = step(*small(), kl_weight=0.5)
    for one, other in zip(half, step(*small(beta=0.5))[1], strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("bound", [IWAE(), Renyi(0.5), MIWAE(groups=1)], ids=str)
def test_kl_warm_up_of_a_bound_without_a_kl_is_refused(bound):
    objective = Objective(catalog.vae(), bound)
    x = torch.zeros(2, *catalog.DATA_SHAPE)
    with pytest.raises(InputError, match=f"{type(bound).__name__} has no KL.*ELBO"):
        objective(x, kl_weight=0.5)
    assert objective(x, kl_weight=1.0).loss.isfinite()


def test_free_bits_stop_the_gradient_of_the_kl_datum_by_datum_and_change_no_reported_number():
    plain, plain_gradient = step(*small())
    rates = plain.rate[0]
    assert rates.argsort().tolist() == [0, 1, 2, 3]
    for below in range(5):  # a threshold above the rates of the first data
        ends = [0.0, *rates.tolist(), 2 * rates[3].item()]
        shaped, gradient = step(*small(free_bits=(ends[below] + ends[below + 1]) / 2))
        same_report(shaped, plain)
        stopped = kl_gradient(*small(), slice(0, below))
        for g, g1, kl in zip(gradient, plain_gradient, stopped, strict=True):
            assert_close(g, g1 - kl, rtol=1e-9, atol=1e-12)


def test_what_training_follows_is_beta_times_the_larger_of_kl_and_free_bits():
    objective, x = small()
    draw = objective.model.draw(x, num_samples=3)
    rate, log_likelihood = draw.factors[0].rate(), draw.log_likelihood.mean(0)
    threshold = rate.median().item()
    expected = log_likelihood - 2 * torch.maximum(rate, torch.full_like(rate, threshold))
    assert_close(ELBO(beta=2.0, free_bits=threshold)(draw), expected)


class Arbitrary(Pathwise):
    """A surrogate whose value has nothing to do with the bound."""

    def surrogate(self, draw, bound, x, context=None):
        return 1e6 + 3 * super().surrogate(draw, bound, x, context)


@pytest.mark.parametrize("bound", catalog.BOUNDS.values(), ids=catalog.BOUNDS.keys())
def test_the_loss_has_the_value_of_the_bound_and_the_gradient_of_the_surrogate(bound):
    x = torch.rand(4, *catalog.DATA_SHAPE, dtype=torch.float64)
    torch.manual_seed(1)
    model = catalog.vae().double()
    plain = Objective(model, bound, num_samples=4)
    odd = Objective(model, bound, gradient=Arbitrary(), num_samples=4)
    (loss, gradient), (other, threefold) = step(plain, x), step(odd, x)
    torch.manual_seed(2)
    draw = model.draw(x, num_samples=4)
    assert_close(loss.bound, reported(bound)(draw).detach())
    assert_close(loss.loss, -loss.bound.mean())
    assert_close(other.loss, loss.loss)
    expected = torch.autograd.grad(-bound(draw).mean(), list(model.parameters()))
    for one, three, truth in zip(gradient, threefold, expected, strict=True):
        assert_close(one, truth)
        assert_close(three, 3 * truth)


@pytest.mark.parametrize("bound", catalog.BOUNDS.values(), ids=catalog.BOUNDS.keys())
def test_the_reported_elbo_is_minus_rate_and_distortion(bound):
    objective = Objective(catalog.vae().double(), bound, num_samples=4)
    x = torch.rand(4, *catalog.DATA_SHAPE, dtype=torch.float64)
    torch.manual_seed(2)
    loss = objective(x)
    torch.manual_seed(2)
    draw = objective.model.draw(x, num_samples=4)
    kl = draw.factors[0].kl
    assert kl is not None
    assert torch.equal(loss.elbo, -(loss.rate.sum(0) + loss.distortion))
    assert_close(loss.rate, kl.detach()[None])
    assert_close(loss.distortion, -draw.log_likelihood.detach().mean(0))
    for number in (loss.bound, loss.rate, loss.distortion, loss.elbo):
        assert not number.requires_grad


class Recorder(GradientEstimator):
    """Sees what the objective gives an estimator."""

    path = False

    def surrogate(self, draw, bound, x, context=None):
        assert isinstance(draw.z, Tensor)
        self.seen = draw.z.requires_grad, bound, context
        return bound(draw)

    def check(self, q, bound, *, num_samples):
        self.checked = q, bound, num_samples


def test_an_estimator_without_a_path_is_given_samples_without_one():
    estimator, context = Recorder(), {"label": torch.zeros(2)}
    bound = ELBO(beta=2.0)
    Objective(catalog.vae(), bound, gradient=estimator)(torch.zeros(2, *catalog.DATA_SHAPE), context)
    assert estimator.seen == (False, bound, context)
    assert estimator.checked[1] is bound


# Sums over the event, means over the batch


def test_the_loss_of_a_batch_is_the_mean_of_its_data():
    model = probabilistic_pca(5, 2).double()
    objective = Objective(model, ELBO(closed_form_kl=False))  # exact, hence free of noise
    x = torch.randn(7, 5, dtype=torch.float64)
    loss, gradient = step(objective, x)
    singles = [step(objective, row[None]) for row in x]
    assert_close(loss.loss, torch.stack([single.loss for single, _ in singles]).mean())
    for i, whole in enumerate(gradient):
        assert_close(whole, torch.stack([g[i] for _, g in singles]).mean(0), rtol=1e-9, atol=1e-9)


class Twice(nn.Module):
    """The same pixels side by side with themselves."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, input: Tensor) -> Tensor:
        return torch.cat([self.network(input)] * 2, -1)


class FirstHalf(nn.Module):
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, input: Tensor) -> Tensor:
        return self.network(input.chunk(2, -1)[0])


@pytest.mark.parametrize("make", [Bernoulli, lambda event: Gaussian(event, 0.5)], ids=["bernoulli", "gaussian"])
def test_an_event_twice_as_large_has_twice_the_distortion_and_the_same_rate(make):
    encoder, decoder = mlp(6, 4).double(), mlp(2, 6).double()
    prior = StandardNormal(2).double()
    q = Conditional(Gaussian((2,)), encoder)
    model = VAE(prior, Conditional(make((6,)), decoder), q)
    wide = VAE(prior, Conditional(make((12,)), Twice(decoder)), Conditional(Gaussian((2,)), FirstHalf(encoder)))
    x = torch.rand(4, 6).round().double()
    torch.manual_seed(2)
    one = Objective(model, num_samples=3)(x)
    torch.manual_seed(2)
    two = Objective(wide, num_samples=3)(torch.cat([x, x], -1))
    assert_close(two.distortion, 2 * one.distortion)
    assert_close(two.rate, one.rate)


@pytest.mark.parametrize("event", [(3,), (2, 4, 5)], ids=str)
def test_the_distortion_of_a_gaussian_has_its_constant(event):
    class Zero(nn.Module):
        def forward(self, z: Tensor) -> Distribution:
            zeros = z.new_zeros(len(z), *event)
            return Independent(Normal(zeros, torch.ones_like(zeros)), len(event))

    model = VAE(StandardNormal(2), Zero(), Conditional(Gaussian((2,)), mlp(torch.Size(event).numel(), 4))).double()
    x = torch.randn(4, *event, dtype=torch.float64)
    expected = (x.square().flatten(1).sum(1) + torch.Size(event).numel() * math.log(2 * math.pi)) / 2
    assert_close(Objective(model)(x).distortion, expected)
