import math
from functools import partial

import mpmath
import numpy as np
import pytest
import torch
from numpy.polynomial.legendre import leggauss
from scipy.stats import kstest
from torch.autograd import gradcheck, gradgradcheck
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Distribution, Independent, Laplace, MultivariateNormal, Normal, kl_divergence
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode
from zuko.transforms import AutoregressiveTransform

from subo.distributions.discrete import Bernoulli, Categorical, Poisson
from subo.distributions.flow import Flow
from subo.distributions.gaussian import ContinuousBernoulli, Gaussian, StandardNormal, finite_density
from subo.parts.flows import InverseAutoregressiveFlow, NeuralSplineFlow, autoregressive, spline
from subo.parts.priors import FlowPrior

double = partial(torch.tensor, dtype=torch.float64)

# The continuous Bernoulli, against 150 digits

POSITIVE = (
    1e-8,
    1e-3,
    0.005,
    0.00999,
    0.01001,
    0.1,
    0.3,
    0.49,
    0.4999999,
    0.5000001,
    0.51,
    1,
    3,
    10,
    30,
    100,
    300,
)
ETAS = sorted([0.0, *POSITIVE, *(-eta for eta in POSITIVE)])


def precise(function, eta: float):
    """A function of eta at 150 digits, or its limit where eta is 0."""
    with mpmath.workdps(150):
        return function(mpmath.mpf(eta) if eta else mpmath.mpf("1e-30"))


def log_normalizer(eta):
    return mpmath.log(mpmath.expm1(eta) / eta)


def mean(eta):
    return 1 / (1 - mpmath.exp(-eta)) - 1 / eta


def variance(eta):
    return 1 / eta**2 - 1 / (4 * mpmath.sinh(eta / 2) ** 2)


@pytest.mark.parametrize("name, exact", [("log_normalizer", log_normalizer), ("mean", mean), ("variance", variance)])
@pytest.mark.parametrize("dtype, rtol", [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=str)
def test_continuous_bernoulli_is_exact_at_every_parameter(name, exact, dtype, rtol):
    eta = torch.tensor(ETAS, dtype=dtype)
    truth = torch.tensor([float(precise(exact, value.item())) for value in eta], dtype=dtype)
    assert_close(getattr(ContinuousBernoulli(eta), name), truth, rtol=rtol, atol=1e-29)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=str)
@pytest.mark.parametrize("x", [0.0, 0.25, 0.5, 1.0])
def test_continuous_bernoulli_log_density_and_its_gradient_are_exact(x, dtype, tolerance):
    eta = torch.tensor(ETAS, dtype=dtype, requires_grad=True)
    log_prob = ContinuousBernoulli(eta).log_prob(torch.tensor(x, dtype=dtype))
    (gradient,) = torch.autograd.grad(log_prob.sum(), eta)
    truth = [float(precise(lambda eta: eta * x - log_normalizer(eta), value.item())) for value in eta]
    slope = [float(precise(lambda eta: x - mean(eta), value.item())) for value in eta]
    assert_close(log_prob.detach(), torch.tensor(truth, dtype=dtype), rtol=tolerance, atol=tolerance)
    assert_close(gradient, torch.tensor(slope, dtype=dtype), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ["log_normalizer", "mean", "variance"])
def test_continuous_bernoulli_has_two_derivatives_everywhere(name):
    eta = double([-30, -3, -0.5, -0.1, -1e-3, 0, 1e-3, 0.1, 0.5, 3, 30]).requires_grad_()
    assert gradcheck(lambda eta: getattr(ContinuousBernoulli(eta), name), eta)
    assert gradgradcheck(lambda eta: getattr(ContinuousBernoulli(eta), name), eta)


@pytest.mark.parametrize("eta", [-300, -30, -1, -1e-3, 0, 1e-8, 0.3, 5, 300])
def test_continuous_bernoulli_samples_follow_its_distribution_function(eta):
    x = ContinuousBernoulli(double(eta)).sample((20_000,))
    assert ((x >= 0) & (x <= 1)).all()

    def cdf(x):
        return np.expm1(eta * x) / np.expm1(eta) if eta else x

    assert kstest(x.numpy(), cdf).pvalue > 6e-7  # five standard errors


@pytest.mark.parametrize("eta", [*ETAS, 1e-20, -1e-20, 1e-12])
def test_continuous_bernoulli_samples_move_with_the_parameter_as_their_quantile_does(eta):
    parameter = double(eta).requires_grad_()
    for seed in range(5):
        torch.manual_seed(seed)
        t = torch.rand((), dtype=torch.float64).item()
        torch.manual_seed(seed)
        x = ContinuousBernoulli(parameter).rsample()
        (slope,) = torch.autograd.grad(x, parameter)
        mirrored = eta >= 0.01  # there the sample is of the quantile 1 - t

        def quantile(h, level=1 - t if mirrored else t):
            return mpmath.log1p(level * mpmath.expm1(h)) / h

        assert_close(x.item(), float(precise(quantile, eta)), rtol=1e-12, atol=1e-15)
        with mpmath.workdps(150):
            exact = float(mpmath.diff(quantile, mpmath.mpf(eta or 1e-30)))
        assert_close(slope.item(), exact, rtol=1e-10, atol=1e-13)


def test_continuous_bernoulli_divergence_is_the_expected_log_ratio():
    nodes, weights = unit_interval()
    q = ContinuousBernoulli(double([-20, -1, 0, 1e-3, 4, 0.5]).requires_grad_())
    p = ContinuousBernoulli(double([3, -1, 1e-8, 0.4, -0.2, 30]).requires_grad_())
    density = q.log_prob(nodes)
    expected = (weights * density.exp() * (density - p.log_prob(nodes))).sum(0)
    assert_same_value_and_gradient(kl_divergence(q, p), expected, (q.logits, p.logits))


def unit_interval() -> tuple[torch.Tensor, torch.Tensor]:
    nodes, weights = leggauss(100)
    return double((nodes[:, None] + 1) / 2), double(weights[:, None] / 2)


def assert_same_value_and_gradient(one, other, parameters):
    """Two expressions agree, and so do their gradients, along a direction that tells all elements apart."""
    direction = torch.linspace(1, 2, one.numel(), dtype=one.dtype).reshape(one.shape)
    assert_close(one, other, rtol=1e-10, atol=1e-12)
    for a, b in zip(*(torch.autograd.grad(f, parameters, direction) for f in (one, other)), strict=True):
        assert_close(a, b, rtol=1e-9, atol=1e-12)


# Divergences, against torch's own


def test_full_rank_against_diagonal_divergence_is_that_of_two_full_covariances():
    loc, other_loc = torch.randn(2, 4, 3, dtype=torch.float64).unbind()
    tril = (
        torch.randn(4, 3, 3, dtype=torch.float64).tril(-1) + torch.rand(3).double().add(0.5).diag()
    ).requires_grad_()
    scale = torch.rand(4, 3, dtype=torch.float64).add(0.5).requires_grad_()
    loc, other_loc = loc.requires_grad_(), other_loc.requires_grad_()
    q = MultivariateNormal(loc, scale_tril=tril)
    p = Independent(Normal(other_loc, scale), 1)
    oracle = kl_divergence(q, MultivariateNormal(other_loc, scale_tril=scale.diag_embed()))
    assert_same_value_and_gradient(kl_divergence(q, p), oracle, (loc, tril, other_loc, scale))


def test_full_rank_against_anything_else_diagonal_has_no_divergence_in_closed_form():
    q = MultivariateNormal(torch.zeros(2), torch.eye(2))
    with pytest.raises(NotImplementedError):
        kl_divergence(q, Independent(Laplace(torch.zeros(2), torch.ones(2)), 1))


@pytest.mark.parametrize("kind", [Normal, Laplace])
@pytest.mark.parametrize("event", [(3,), (2, 3, 2)], ids=str)
def test_independent_against_standard_normal_divergence_is_the_sum_of_torchs(kind, event):
    loc = torch.randn(4, *event, dtype=torch.float64).requires_grad_()
    scale = torch.rand(4, *event, dtype=torch.float64).add(0.1).requires_grad_()
    q = Independent(kind(loc, scale), len(event))
    zeros = torch.zeros(event, dtype=torch.float64)
    elements = kl_divergence(kind(loc, scale), Normal(zeros, torch.ones_like(zeros)))
    assert_same_value_and_gradient(kl_divergence(q, StandardNormal(zeros)), elements.flatten(1).sum(1), (loc, scale))


def test_full_rank_against_standard_normal_divergence_is_torchs():
    loc = torch.randn(4, 3, dtype=torch.float64).requires_grad_()
    tril = (torch.randn(4, 3, 3, dtype=torch.float64).tril(-1) + torch.eye(3)).requires_grad_()
    q = MultivariateNormal(loc, scale_tril=tril)
    zeros = torch.zeros(3, dtype=torch.float64)
    oracle = kl_divergence(q, MultivariateNormal(zeros, torch.eye(3, dtype=torch.float64)))
    assert_same_value_and_gradient(kl_divergence(q, StandardNormal(zeros)), oracle, (loc, tril))


# Bernoulli, categorical, standard normal


@pytest.mark.parametrize("event", [(), (5,), (2, 3, 2)], ids=str)
def test_bernoulli_log_density_is_torchs(event):
    logits = (10 * torch.randn(4, *event, dtype=torch.float64)).requires_grad_()
    p = Bernoulli(logits, len(event))
    oracle = Independent(TorchBernoulli(logits=logits), len(event))
    x = oracle.sample((3,))
    assert_same_value_and_gradient(p.log_prob(x), oracle.log_prob(x), (logits,))
    assert_close(p.log_prob(x[0]), oracle.log_prob(x[0]))
    assert_close(p.log_prob(x[0, 0]), oracle.log_prob(x[0, 0]))  # broadcast
    assert_close(p.mean, oracle.mean)


@pytest.mark.parametrize("event", [(), (5,), (2, 3, 2)], ids=str)
@pytest.mark.parametrize("scale_shape", ["scalar", "event", "full"])
def test_gaussian_is_torchs_independent_normal(event, scale_shape):
    loc = torch.randn(4, *event, dtype=torch.float64).requires_grad_()
    shape = {"scalar": (), "event": event, "full": (4, *event)}[scale_shape]
    scale = torch.rand(shape, dtype=torch.float64).add(0.3).requires_grad_()
    q = Gaussian(loc, scale, len(event))
    oracle = Independent(Normal(loc, scale.expand_as(loc)), len(event))
    x = oracle.sample((3,))
    assert_same_value_and_gradient(q.log_prob(x), oracle.log_prob(x), (loc, scale))
    assert_close(q.expand((3, 4)).log_prob(x), oracle.log_prob(x))
    assert_close(q.entropy(), oracle.entropy())
    assert q.batch_shape == (4,)
    assert q.event_shape == event
    assert q.has_rsample
    zeros = torch.zeros(event, dtype=torch.float64)
    kl = kl_divergence(oracle.base_dist, Normal(zeros, torch.ones_like(zeros))).reshape(4, -1).sum(1)
    assert_same_value_and_gradient(kl_divergence(q, StandardNormal(zeros)), kl, (loc, scale))


def test_a_normal_wider_than_the_square_root_of_floats_has_a_density():
    wide = Normal(torch.tensor([1e25], dtype=torch.float32), torch.tensor([1e24], dtype=torch.float32))
    exact = Normal(10.0, torch.tensor(1.0, dtype=torch.float64)).log_prob(torch.tensor(12.0)) - math.log(1e24)
    value = torch.tensor([1.2e25], dtype=torch.float32)
    assert_close(finite_density(wide).log_prob(value).double(), exact.reshape(1), rtol=1e-5, atol=0.0)
    laplace = Laplace(0.0, 1.0)
    assert finite_density(laplace) is laplace


def test_gaussian_samples_have_its_moments_and_its_path():
    torch.manual_seed(0)
    loc, scale = double([[1.0, -2.0]]).requires_grad_(), double([[0.5, 3.0]]).requires_grad_()
    z = Gaussian(loc, scale, 1).rsample((20_000,))
    standard = ((z - loc) / scale).detach()
    for i in range(2):
        assert kstest(standard[:, 0, i].numpy(), "norm").pvalue > 1e-4
    grad_loc, grad_scale = torch.autograd.grad(z.sum(), (loc, scale))
    assert_close(grad_loc, torch.full_like(loc, 20_000))
    assert_close(grad_scale, standard.sum(0))


def test_categorical_moments_are_those_of_its_values():
    logits = torch.randn(3, 7, dtype=torch.float64)
    p, levels = Categorical(logits=logits), torch.arange(7)
    probs = TorchCategorical(logits=logits).probs
    expected = (probs * levels).sum(-1)
    assert_close(p.mean, expected)
    assert_close(p.variance, (probs * (levels - expected[:, None]) ** 2).sum(-1))


def test_categorical_variance_of_an_almost_certain_high_level_keeps_its_digits():
    logits = torch.zeros(256)
    logits[254:] = double([22, 30])
    truth = Categorical(logits=logits.double()).variance.item()
    assert_close(Categorical(logits=logits).variance.item(), truth, rtol=1e-4, atol=0)


@pytest.mark.parametrize("event", [(2,), (2, 3)], ids=str)
def test_standard_normal_density_is_the_product_of_its_elements(event):
    z = torch.randn(5, *event, dtype=torch.float64)
    expected = -(z.square().flatten(1).sum(1) + z[0].numel() * math.log(2 * math.pi)) / 2
    assert_close(StandardNormal(torch.zeros(event, dtype=torch.float64)).log_prob(z), expected)


# Flows


def flow(kind, dim=3, num=4):
    """A flow posterior with a context, far from the identity."""
    family = kind((dim,), context_dim=5, transforms=3, hidden=(16,)).double()
    with torch.no_grad():
        for parameter in family.parameters():
            parameter.mul_(2)
    return family, torch.randn(num, family.num_params, dtype=torch.float64)


FLOWS = pytest.mark.parametrize("kind", [InverseAutoregressiveFlow, NeuralSplineFlow])


@FLOWS
def test_a_flow_gives_a_sample_the_density_that_it_gives_the_value(kind):
    family, params = flow(kind)
    q = family(params)
    z, log_prob = q.rsample_and_log_prob((7,))
    assert z.shape == (7, 4, 3)
    assert_close(q.log_prob(z), log_prob, rtol=1e-8, atol=1e-8)


def one_row(function, value: torch.Tensor) -> torch.Tensor:
    return function(value[None])[0]


@FLOWS
def test_a_flow_changes_the_density_of_its_base_by_the_jacobian(kind):
    family, params = flow(kind, num=1)
    q = family(params)
    assert isinstance(q, Flow)
    for seed in range(3):
        torch.manual_seed(seed)
        z, log_prob = q.rsample_and_log_prob()
        torch.manual_seed(seed)
        noise = q.base.rsample()
        jacobian = torch.autograd.functional.jacobian(lambda e, f=q.transform: one_row(f, e), noise[0])
        assert isinstance(jacobian, torch.Tensor)
        assert_close(q.transform(noise), z)
        assert_close(log_prob, q.base.log_prob(noise) - torch.linalg.slogdet(jacobian).logabsdet, rtol=1e-9, atol=1e-9)


@FLOWS
def test_two_maps_let_every_element_of_a_flow_depend_on_every_other(kind):
    family = kind((2,), context_dim=1, transforms=2, hidden=(16,)).double()
    q = family(torch.randn(1, family.num_params, dtype=torch.float64))
    jacobian = torch.autograd.functional.jacobian(lambda e: one_row(q.transform, e), q.base.sample()[0])
    assert isinstance(jacobian, torch.Tensor)
    assert (jacobian != 0).all()


@pytest.mark.parametrize("make", [autoregressive, spline])
@pytest.mark.parametrize("dim, context_dim", [(5, 3), (4, 0), (2, 3)])
def test_the_inverse_in_stages_is_that_of_whole_passes(make, dim, context_dim):
    """zuko's: value, determinant and gradients, of latents that are each held against three contexts."""
    stack = make(dim, context_dim=context_dim, transforms=2, hidden=(9, 7)).double()
    context = torch.randn(3, context_dim, dtype=torch.float64, requires_grad=True) if context_dim else None
    z = torch.randn(4, 1, dim, dtype=torch.float64, requires_grad=True)
    given = [z, *stack.parameters()] + ([] if context is None else [context])
    staged = stack(context).inv.call_and_ladj(z)
    values, log_det = z, torch.zeros(())
    for masked in reversed(list(stack.transforms)):
        plain = AutoregressiveTransform(lambda x, masked=masked: masked.meta(context, x), masked.passes)
        found = plain._inverse(values)
        log_det = log_det - plain.log_abs_det_jacobian(found, values)
        values = found
    assert_close(staged[0], values.expand_as(staged[0]), rtol=0, atol=1e-9)
    assert_close(staged[1], log_det, rtol=0, atol=1e-9)
    assert_close(stack(context).inv(z), staged[0])
    assert_close(stack(context)(staged[0]), z.expand_as(staged[0]), rtol=0, atol=1e-9)
    slopes = (torch.autograd.grad((e.sin().sum() + d.square().sum()), given) for e, d in (staged, (values, log_det)))
    for one, other in zip(*slopes, strict=True):
        assert_close(one, other, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("make", [autoregressive, spline])
def test_the_inverse_in_stages_multiplies_no_more_than_a_pass(make):
    """Each weight once for each latent; those of the context once for each context."""
    (masked,) = make(6, context_dim=4, transforms=1, hidden=(12, 12)).transforms
    z, context = torch.randn(50, 1, 6), torch.randn(2, 4)
    with FlopCounterMode(display=False) as counter:
        masked(context).inv.call_and_ladj(z)
    of_a_pass = 2 * 100 * sum(layer.weight.numel() for layer in list(masked.hyper)[::2])
    assert 0.2 * of_a_pass < counter.get_total_flops() < of_a_pass


@FLOWS
def test_each_row_of_a_flow_has_its_own_context(kind):
    family, params = flow(kind)
    z = torch.randn(4, 3, dtype=torch.float64)
    together = family(params).log_prob(z)
    apart = torch.cat([family(row[None]).log_prob(value) for row, value in zip(params, z, strict=True)])
    assert_close(together, apart, rtol=1e-9, atol=1e-9)
    other = params.clone()
    other[:, -1] += 1  # the context's last number: the base stays as it was
    assert (family(other).log_prob(z) != together).all()


def expanded(make: Distribution) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    wide = make.expand(torch.Size([3, *make.batch_shape]))
    assert wide.batch_shape == (3, *make.batch_shape)
    assert wide.event_shape == make.event_shape
    x = wide.sample()
    assert x.shape == (3, *make.batch_shape, *make.event_shape)
    return wide.log_prob(x), make.log_prob(x)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ContinuousBernoulli(torch.randn(4)),
        lambda: Bernoulli(torch.randn(4, 5), 1),
        lambda: Categorical(logits=torch.randn(4, 5)),
        lambda: Poisson(torch.randn(4)),
        lambda: StandardNormal(torch.zeros(2)),
        lambda: StandardNormal(torch.zeros(2, 3)),
        lambda: NeuralSplineFlow((2,), context_dim=1)(torch.randn(4, 5)),
        lambda: FlowPrior(2)(),
    ],
    ids=[
        "continuous-bernoulli",
        "bernoulli",
        "categorical",
        "poisson",
        "normal",
        "normal, matrices",
        "flow",
        "flow prior",
    ],
)
def test_an_expanded_distribution_has_the_same_density(make):
    assert_close(*expanded(make()))
