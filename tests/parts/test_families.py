import math
from typing import Any

import pytest
import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor, nn
from torch.distributions import Distribution, constraints
from torch.testing import assert_close

import catalog
from subo.errors import InputError
from subo.parts import families as f
from subo.parts import location_scale as ls
from subo.parts.conditionals import Conditional
from subo.recipes.ends import Ends

LOG_2PI = math.log(2 * math.pi)


def some(family: Any, num: int = 1) -> tuple[Distribution, Tensor]:
    """Distributions of a family in float64, away from its plainest member."""
    family = family.double()
    with torch.no_grad():
        for parameter in family.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    params = torch.randn(num, family.num_params, dtype=torch.float64)
    return family(params), params


# Mass and moments: enumerated where the support is countable, by quadrature elsewhere


def panels(low: float, high: float, count: int, order: int = 10) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes and weights on `count` equal panels of an interval."""
    nodes, weights = (torch.tensor(array) for array in leggauss(order))
    half = (high - low) / count / 2
    middle = low + half * (2 * torch.arange(count, dtype=torch.float64) + 1)
    return (middle[:, None] + half * nodes).flatten(), (half * weights).repeat(count)


def line(q: Distribution) -> tuple[Tensor, Tensor]:
    """All that one element of q can be, and the weight of each point."""
    support = getattr(q.support, "base_constraint", q.support)
    if support is constraints.boolean:
        points = torch.arange(2).double()
    elif support is constraints.nonnegative_integer:
        points = torch.arange(20_000).double()
    elif isinstance(support, type(constraints.integer_interval(0, 1))):
        points = torch.arange(support.lower_bound, support.upper_bound + 1).double()
    elif support is constraints.unit_interval:
        return panels(0, 1, 10)
    else:  # a panel ends where a Laplace has its kink; the sinh reaches into tails that fall as a power
        points, weights = panels(-40, 40, 1600)
        return q.mean.item() + points.sinh(), weights * points.cosh()
    return points, torch.ones_like(points)


def plane(q: Distribution) -> tuple[Tensor, Tensor]:
    """A grid of points in two dimensions that holds all of q's mass, and the weight of each."""
    samples = q.sample((2000,)).squeeze(1)
    axes = [
        panels(m - 12 * s, m + 12 * s, 36)
        for m, s in zip(samples.mean(0).tolist(), samples.std(0).tolist(), strict=True)
    ]
    return torch.cartesian_prod(*(axis[0] for axis in axes)), torch.cartesian_prod(*(axis[1] for axis in axes)).prod(1)


@torch.no_grad()
def moments(q: Distribution, points: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mass, mean and variance of each element, of points ``(M, D)``."""
    density = weights * torch.cat([q.log_prob(part[:, None]) for part in points.split(10_000)]).squeeze(-1).exp()
    mass, mean = density.sum(), density @ points
    return mass, mean, density @ (points - mean).square()


def agrees(samples: Tensor, truth: Tensor):
    """Whether the mean of independent samples is within five standard errors of the truth."""
    error = (samples.mean(0) - truth).abs()
    assert (error <= 5 * samples.std(0) / len(samples) ** 0.5).all(), (samples.mean(0), truth)


@pytest.mark.parametrize("make", catalog.ELEMENTWISE.values(), ids=catalog.ELEMENTWISE.keys())
def test_an_elementwise_family_has_mass_one_and_its_samples_have_its_moments(make):
    q, _ = some(make((1,)))
    points, weights = line(q)
    mass, mean, variance = moments(q, points[:, None], weights)
    assert_close(mass, torch.ones_like(mass), rtol=1e-10, atol=0)
    assert_close(q.mean[0], mean, rtol=1e-9, atol=1e-9)
    assert_close(q.variance[0], variance, rtol=1e-9, atol=1e-9)
    samples = q.sample((20_000,))[:, 0].double()
    agrees(samples, mean)
    agrees((samples - mean).square(), variance)


@pytest.mark.parametrize("make", catalog.OVER_VECTORS.values(), ids=catalog.OVER_VECTORS.keys())
def test_a_family_over_vectors_has_mass_one_and_its_samples_have_its_moments(make):
    q, _ = some(make((2,)))
    mass, mean, variance = moments(q, *plane(q))
    # The conditioners of the flows have kinks, across which quadrature keeps fewer digits.
    tolerance = 1e-8 if make is catalog.OVER_VECTORS["full-rank gaussian"] else 1e-3
    assert_close(mass, torch.ones_like(mass), rtol=tolerance, atol=0)
    samples = q.sample((20_000,))[:, 0]
    agrees(samples, mean)
    agrees((samples - mean).square(), variance)


@pytest.mark.parametrize("event", [(3,), (2, 3, 2)], ids=str)
@pytest.mark.parametrize("make", catalog.ELEMENTWISE.values(), ids=catalog.ELEMENTWISE.keys())
def test_elements_are_independent_and_each_reads_its_own_parameters(make, event):
    family = make(event).double()
    params = torch.randn(1, family.num_params, dtype=torch.float64)
    q = family(params)
    x = q.sample()
    alone = make((1,)).double()
    fields = params.reshape(-1, q.event_shape.numel())
    parts = [
        alone(field[None]).log_prob(value.reshape(1, 1)) for field, value in zip(fields.mT, x.flatten(), strict=True)
    ]
    assert_close(q.log_prob(x), torch.stack(parts).sum(0))


# Parameters at zero


@pytest.mark.parametrize(
    "label", ["gaussian", "gaussian, shared scale", "gaussian, scale per dimension", "full-rank gaussian"]
)
def test_gaussian_families_start_at_the_standard_normal(label):
    family: Any = catalog.FAMILIES[label]((3,))
    family = family.double()
    z = torch.randn(5, 3, dtype=torch.float64)
    expected = -(z.square().sum(1) + 3 * LOG_2PI) / 2
    assert_close(family(torch.zeros(5, family.num_params, dtype=torch.float64)).log_prob(z), expected)


@pytest.mark.parametrize("make, value", [(f.Bernoulli, 0.5), (f.Poisson, 1.0), (f.ContinuousBernoulli, 0.5)])
def test_other_families_start_at_their_plainest_member(make, value):
    assert_close(make((3,))(torch.zeros(1, 3)).mean, torch.full((1, 3), value))


# The scale and its floor


def scale_of(q: Any) -> Tensor:
    return q.base_dist.scale


FLOORED = pytest.mark.parametrize("make", [ls.Gaussian, ls.Laplace, ls.StudentT])


@FLOORED
@pytest.mark.parametrize("floor", [1e-6, 1e-3, 0.5, 0.9])
def test_a_scale_is_one_at_zero_and_rises_from_its_floor(make, floor):
    raw = torch.tensor([[-1e4], [-5.0], [0.0], [5.0], [1e4]], dtype=torch.float64)
    scale = scale_of(make((1,), min_scale=floor).double()(torch.cat([torch.zeros_like(raw), raw], 1))).squeeze(1)
    assert scale[2] == pytest.approx(1, abs=1e-14)
    assert scale[0] == floor
    assert (scale.diff() > 0).all()
    assert scale.isfinite().all()


@FLOORED
@pytest.mark.parametrize("source", ["shared", "per-dimension"])
def test_a_learned_scale_stays_above_its_floor(make, source):
    family = make((3,), source, min_scale=0.25)
    raw = family.location_scale.scale.raw
    assert raw.shape == (() if source == "shared" else (3,))
    with torch.no_grad():
        raw.fill_(-1e6)
    q = family(torch.zeros(2, 3))
    assert (scale_of(q) == 0.25).all()
    assert family.share_at_floor(q) == 1


def test_the_diagonal_of_a_cholesky_factor_stays_above_its_floor():
    family = ls.FullRankGaussian((3,), min_scale=0.25)
    params = torch.full((1, family.num_params), -1e6)
    q: Any = family(params)
    diagonal = q.scale_tril.diagonal(dim1=1, dim2=2)
    assert (diagonal == 0.25).all()


def test_a_cholesky_factor_is_read_row_by_row():
    family = ls.FullRankGaussian((3,))
    params = torch.zeros(1, 9)
    params[0, 3:] = torch.tensor([0.0, 10, 0, 20, 30, 0])
    expected = torch.tensor([[1.0, 0, 0], [10, 1, 0], [20, 30, 1]])
    q: Any = family(params)
    assert_close(q.scale_tril[0], expected)


@FLOORED
@pytest.mark.parametrize("unit", [None, 4.0, torch.tensor([0.01, 4.0])], ids=["none", "number", "tensor"])
def test_the_share_at_the_floor_counts_the_scales_that_lie_there(make, unit):
    family = make((2,), min_scale=0.1, unit=unit)
    params = torch.zeros(4, 2, 2)
    params[0, 1, 0] = params[2, 1, 1] = params[3, 1, 1] = -100
    assert family.share_at_floor(family(params)) == 3 / 8


@FLOORED
@pytest.mark.parametrize(
    "options", [{"min_scale": 0.0}, {"min_scale": -1.0}, {"min_scale": 1.0}, {"scale": 1e-4}, {"scale": 0.0}]
)
def test_a_scale_without_a_floor_is_refused(make, options):
    with pytest.raises(InputError, match="min_scale|scale must be positive"):
        make((2,), **options)


def test_a_full_rank_gaussian_without_a_floor_is_refused():
    with pytest.raises(InputError, match="min_scale"):
        ls.FullRankGaussian((2,), min_scale=0.0)


def test_the_diagonal_of_a_cholesky_factor_at_its_floor_is_counted():
    family = ls.FullRankGaussian((3,), min_scale=0.25)
    params = torch.zeros(2, family.num_params)
    params[0, 3] = -1e6  # the first entry of L
    assert family.share_at_floor(family(params)) == pytest.approx(1 / 6)


@pytest.mark.parametrize("min_scale", [1e-3, 0.02])
def test_no_density_of_a_continuous_bernoulli_exceeds_that_of_its_smallest_scale(min_scale):
    family = f.ContinuousBernoulli((1,), min_scale=min_scale).double()
    params = torch.tensor([-1e9, -1e4, -10.0, 0.0, 1e-3, 10.0, 1e9], dtype=torch.float64)[:, None]
    p: Any = family(params)
    x = torch.linspace(0, 1, 101, dtype=torch.float64)[:, None, None]
    assert p.log_prob(x).max() <= -math.log(min_scale) + 1e-12
    assert p.stddev.min() >= 0.99 * min_scale
    assert family.share_at_floor(p) == pytest.approx(3 / 7)
    free: Any = f.ContinuousBernoulli((1,), min_scale=None)
    assert_close(p.log_prob(x)[:, 2:6], free(params).log_prob(x)[:, 2:6], rtol=0, atol=340 * min_scale**2)
    assert free.share_at_floor(free(params)) is None


def test_an_untrained_continuous_bernoulli_has_the_datas_mean_and_can_be_taught():
    family = f.ContinuousBernoulli((4,)).double()
    mean = torch.tensor([1e-5, 1e-2, 0.5, 0.9], dtype=torch.float64)
    params = family.params_of_mean(mean).requires_grad_()
    assert_close(family(params[None]).mean[0, 1:], mean[1:], rtol=1e-6, atol=0)
    assert family(params[None]).mean[0, 0] < 1.1e-3  # as near as the floor lets it be
    family(params[None]).log_prob(torch.full((1, 4), 0.3, dtype=torch.float64)).sum().backward()
    assert params.grad is not None
    assert (params.grad[0].abs() > 0).all()


def test_an_element_that_never_varies_gives_at_most_its_floor():
    x = torch.zeros(500, 1)
    free, floored = f.ContinuousBernoulli((1,), min_scale=None), f.ContinuousBernoulli((1,))
    zeros = nn.Linear(1, 1).requires_grad_(False)
    zeros.weight.zero_()
    zeros.bias.zero_()
    first = {
        family: family(Ends(family, x.shape[1:], nn.Identity, x).start(zeros)(x[:1])) for family in (free, floored)
    }
    started = {family: p.log_prob(x).mean().item() for family, p in first.items()}
    assert started[free] == pytest.approx(math.log(2 * 501), abs=0.01)  # for nothing
    assert started[floored] <= math.log(1000)
    assert floored.share_at_floor(first[floored]) == 1


def test_classes_of_their_own_are_normalized_and_the_others_impossible():
    family = f.Categorical((3,), num_classes=(2, 4, 3)).double()
    params = torch.randn(1, family.num_params, dtype=torch.float64, requires_grad=True)
    p: Any = family(params)
    logits = params.detach().reshape(4, 3)  # class by class
    every = torch.cartesian_prod(*(torch.arange(4).double(),) * 3)
    log_prob = p.log_prob(every)
    possible = (every < torch.tensor([2, 4, 3])).all(1)
    assert torch.equal(log_prob > -math.inf, possible)
    assert_close(log_prob.exp().sum(), torch.tensor(1.0).double())
    for column, count in enumerate((2, 4, 3)):
        shares = logits[:count, column].softmax(0)
        assert_close(p.base_dist.probs[0, column, :count], shares)
        assert_close(p.mean[0, column], (shares * torch.arange(count)).sum())
    assert torch.equal(p.support.check(every), possible)
    assert (p.sample(torch.Size([500])) < torch.tensor([2, 4, 3])).all()
    (gradient,) = torch.autograd.grad(log_prob[possible].sum(), params)
    assert torch.equal(gradient.reshape(4, 3) != 0, torch.arange(4)[:, None] < torch.tensor([2, 4, 3]))


def test_the_same_number_of_classes_for_all_is_that_number():
    params = torch.randn(5, 8)
    one, each = (f.Categorical((2,), num_classes=classes)(params) for classes in (4, (4, 4)))
    x = torch.randint(4, (5, 2))
    assert torch.equal(one.log_prob(x), each.log_prob(x))


@pytest.mark.parametrize(
    "classes, words", [(1, "num_classes must be at least 2, not 1"), ((3, 1), "each at least 2"), ((2, 2, 2), "3 numb")]
)
def test_numbers_of_classes_that_make_no_sense_are_refused(classes, words):
    with pytest.raises(InputError, match=words):
        f.Categorical((2,), num_classes=classes)


# The data's own units


@FLOORED
@pytest.mark.parametrize("source", [0.5, "shared", "per-dimension", "network"])
@pytest.mark.parametrize(
    "center, unit",
    [(2.0, 3.0), (None, 3.0), (2.0, None), (torch.tensor([1.0, -2, 0]), torch.tensor([0.5, 3, 1]))],
    ids=["numbers", "unit", "center", "tensors"],
)
def test_units_give_the_density_of_the_data_as_they_came(make, source, center, unit):
    plain, in_units = make((3,), source).double(), make((3,), source, center=center, unit=unit).double()
    params = torch.randn(5, plain.num_params, dtype=torch.float64)
    center = torch.as_tensor(0.0 if center is None else center).double()
    unit = torch.as_tensor(1.0 if unit is None else unit).double().expand(3)
    x = 4 * torch.randn(5, 3, dtype=torch.float64)
    expected = plain(params).log_prob((x - center) / unit) - unit.log().sum()
    assert_close(in_units(params).log_prob(x), expected, rtol=1e-12, atol=1e-12)


# Extremes


@pytest.mark.parametrize("dtype, largest", [(torch.float32, 80.0), (torch.float64, 700.0)], ids=str)
def test_poisson_is_finite_at_extreme_parameters(dtype, largest):
    params = torch.tensor([-1e6, -200.0, -100.0, largest], dtype=dtype)[:, None].requires_grad_()
    log_prob = f.Poisson((1,))(params).log_prob(torch.tensor([[0.0], [1.0], [1000.0]], dtype=dtype)[:, None])
    (gradient,) = torch.autograd.grad(log_prob.sum(), params)
    assert log_prob.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("size", [1e2, 1e6, 1e30])
@pytest.mark.parametrize("label", ["bernoulli", "continuous-bernoulli", "categorical"])
def test_bounded_families_are_finite_at_extreme_parameters(label, size):
    family = catalog.FAMILIES[label]((3,))
    params = (size * torch.randn(4, family.num_params)).requires_grad_()
    log_prob = family(params).log_prob(torch.tensor([0.0, 1.0, 1.0]).expand(4, 3))
    (gradient,) = torch.autograd.grad(log_prob.sum(), params)
    assert log_prob.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("make", [f.Bernoulli, f.Poisson, ls.Gaussian, ls.Laplace, ls.StudentT, ls.FullRankGaussian])
def test_densities_are_in_single_precision_whatever_the_networks_compute_in(make):
    network = nn.Linear(4, make((3,)).num_params, dtype=torch.float32)
    conditional = Conditional(make((3,)), network)
    with torch.autocast("cpu", torch.bfloat16):
        p: Any = conditional(torch.randn(5, 4, dtype=torch.float32))
        assert network(torch.randn(5, 4, dtype=torch.float32)).dtype == torch.bfloat16
    assert p.sample().dtype == p.mean.dtype == p.log_prob(p.sample()).dtype == torch.float32


@pytest.mark.parametrize("floor, deviation, density", [(0.1, 0.0998, 10.0005), (0.2, 0.182, 5.03), (0.5, 0.263, 2.31)])
def test_the_floor_of_a_continuous_bernoulli_is_that_of_an_exponential_where_it_is_small(floor, deviation, density):
    for end, eta in ((0.0, -1e6), (1.0, 1e6)):
        p = f.ContinuousBernoulli((1,), min_scale=floor)(torch.tensor([[eta]], dtype=torch.float64))
        x = torch.tensor([[end]], dtype=torch.float64)
        assert p.stddev.item() == pytest.approx(deviation, rel=2e-3)
        assert p.log_prob(x).exp().item() == pytest.approx(density, rel=2e-3)
