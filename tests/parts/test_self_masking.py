"""Cells missing by their own value: every expectation against a sum or an integral, and models with known answers."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.testing import assert_close

from subo.data.splits import Split
from subo.distributions.cells import Levels, Ordinal, Spiked
from subo.distributions.gaussian import Gaussian
from subo.distributions.negative_binomial import NegativeBinomial
from subo.distributions.student_t import StudentT
from subo.evaluation.cells import cell_scores
from subo.evaluation.evidence.importance import log_marginal
from subo.evaluation.imputation import impute, with_own_gaps
from subo.models.vae import VAE
from subo.parts.cells import Cells
from subo.parts.columns import Columns
from subo.parts.conditionals import Conditional
from subo.parts.families import Bernoulli
from subo.parts.priors import BernoulliPrior
from subo.parts.self_masking import ByDecay, ByLevel, BySpike, ByThreshold, SelfMasking
from tables import FactorAnalysis

pytestmark = pytest.mark.usefixtures("double_by_default")

NAN, INF = torch.nan, torch.inf
KINDS = ("count", "real", "category 3", "ordinal 4", "spike", "boolean 2", "positive")


def link(height: Tensor) -> Tensor:
    return 1e-3 + 0.998 * torch.special.ndtr(height)


def randomized(mask: nn.Module, scale: float = 1.0) -> None:
    with torch.no_grad():
        for parameter in mask.parameters():
            parameter.normal_().mul_(scale)


def assert_exact(mask: SelfMasking, found: Tensor, expected: Tensor, *parameters: Tensor, rtol: float = 1e-6) -> None:
    """In value and in the gradient of everything that it depends on."""
    assert_close(found, expected, rtol=rtol, atol=1e-9)
    of = [*parameters, *mask.parameters()]
    gradients = [torch.autograd.grad(value.sum(), of, allow_unused=True) for value in (found, expected)]
    for parameter, own, exact in zip(of, *gradients, strict=True):
        zero = torch.zeros_like(parameter)
        assert_close(zero if own is None else own, zero if exact is None else exact, rtol=10 * rtol, atol=1e-7)


def integral(mask: SelfMasking, log_prob, loc: Tensor, scale: Tensor) -> Tensor:
    """``log E P(missing | x)`` of a density, over a grid that is fine near its location and wide."""
    u = torch.linspace(-16, 16, 20_001).unsqueeze(-1)
    x = loc + scale * u.sinh()
    weight = scale.log() + u.cosh().log() + math.log(32 / 20_000)
    return (log_prob(x) + mask(x)[0] + weight).logsumexp(0)


@pytest.mark.parametrize("slope", [0.0, 0.7, -3.0, 40.0])
def test_the_expectation_of_a_threshold_is_the_integral(slope: float):
    mask = ByThreshold(3)
    randomized(mask)
    with torch.no_grad():
        mask.slope.fill_(slope)
    loc, scale = torch.randn(3, requires_grad=True), torch.tensor([0.3, 1.0, 2.0], requires_grad=True)
    gone = torch.ones(3, dtype=torch.bool)
    exact = integral(mask, lambda x: Gaussian(loc, scale, 0).log_prob(x), loc.detach(), scale.detach())
    assert_exact(mask, mask.expected(Gaussian(loc, scale, 0), gone), exact, loc, scale)
    df = torch.tensor([2.5, 5.0, 60.0], requires_grad=True)
    exact = integral(mask, lambda x: StudentT(df, loc, scale).log_prob(x), loc.detach(), scale.detach())
    assert_exact(mask, mask.expected(StudentT(df, loc, scale), gone), exact, loc, scale, df, rtol=3e-6)


def test_a_cell_far_out_costs_seven_nats_at_most():
    mask = ByThreshold(1)
    with torch.no_grad():
        mask.slope.fill_(3.0)
    missing, observed = mask(torch.tensor([[1e8], [-1e8], [0.5]]).requires_grad_())
    assert_close(observed[0].exp(), torch.tensor([1e-3]))
    assert_close(missing[1].exp(), torch.tensor([1e-3]))
    assert_close(missing[2].exp(), torch.tensor([1e-3 + 0.998 * Normal(0.0, 1.0).cdf(torch.tensor(1.5)).item()]))


def test_the_expectation_beside_a_spike_has_two_parts():
    mask = BySpike(2)
    randomized(mask)
    logit, loc = torch.randn(2, requires_grad=True), torch.randn(2, requires_grad=True)
    normal = Gaussian(loc, torch.ones(2), 0)
    exact = integral(mask, normal.log_prob, loc.detach(), torch.ones(2))
    share = logit.sigmoid()
    both = (share * mask(torch.full((2,), INF))[0].exp() + (1 - share) * exact.exp()).log()
    assert_exact(mask, mask.expected(Spiked(logit, normal), torch.ones(2, dtype=torch.bool)), both, logit, loc)


@pytest.mark.parametrize("dispersion", [0.0, 1e-5, 0.3, 4.0])
def test_the_expectation_over_counts_is_the_sum(dispersion: float):
    mask = ByDecay(3)
    randomized(mask)
    log_mean = torch.tensor([-2.0, 0.5, 3.0], requires_grad=True)
    a = torch.full((3,), dispersion, requires_grad=True)
    counts = torch.arange(6000.0).unsqueeze(-1)
    p = NegativeBinomial(log_mean, a)
    exact = (p.log_prob(counts) + mask(counts)[0]).logsumexp(0)
    assert_exact(mask, mask.expected(p, torch.ones(3, dtype=torch.bool)), exact, log_mean, a)


def test_the_expectation_over_levels_is_the_sum():
    mask = ByLevel(torch.tensor([3.0, 2.0]))
    randomized(mask)
    logits = torch.randn(2, 3, requires_grad=True)
    own = torch.tensor([[True, True, True], [True, True, False]])
    p = Levels(logits.masked_fill(~own, -INF), torch.full((2,), 0.1), torch.tensor([3, 2]))
    by_column = []
    for column, levels in enumerate((3, 2)):
        known = logits[column, :levels].softmax(-1) * 0.9
        shares = torch.cat([known, torch.tensor([0.1])])
        by_column.append((shares * link(mask.heights[: levels + 1, column])).sum().log())
    assert_exact(mask, mask.expected(p, torch.ones(2, dtype=torch.bool)), torch.stack(by_column), logits)
    graded = ByLevel(torch.tensor([3.0]))
    randomized(graded)
    location = torch.randn(1, requires_grad=True)
    grades = Ordinal(location, torch.tensor([[-0.5, 1.0]]), torch.tensor([0.1]))
    terms = [grades.log_prob(torch.tensor([k])) + graded(torch.tensor([k]))[0] for k in (0.0, 1.0, 2.0, 3.0)]
    found = graded.expected(grades, torch.ones(1, dtype=torch.bool))
    assert_exact(graded, found, torch.stack(terms).logsumexp(0), location)


def test_weights_of_before_levels_in_order_could_be_unseen_are_read():
    mask = ByLevel(torch.tensor([3.0, 2.0]))
    randomized(mask)
    heights = mask.heights.detach().clone()
    mask.load_state_dict({"heights": heights[:-1]})
    assert_close(mask.heights.detach()[:, 0], torch.cat([heights[:3, 0], heights[2:3, 0]]))
    assert_close(mask.heights.detach()[:3, 1], torch.cat([heights[:2, 1], heights[1:2, 1]]))
    mask.load_state_dict({"heights": heights})
    assert_close(mask.heights.detach(), heights)


@pytest.mark.parametrize("make", [ByThreshold, BySpike, ByDecay, lambda size: ByLevel(torch.full((size,), 4.0))])
def test_a_cell_is_missing_or_observed_and_at_first_whatever_its_value(make):
    mask, x = make(2), torch.tensor([[0.0, 1.0], [4.0, 3.0]])
    randomized(mask)
    missing, observed = mask(x)
    assert_close(missing.exp() + observed.exp(), torch.ones(2, 2))
    mask.start(torch.tensor([[1.0, NAN], [2.0, NAN], [NAN, 3.0]]))
    assert_close(mask(x)[0].exp(), torch.tensor([[1.5 / 4, 2.5 / 4]] * 2))


def test_columns_and_their_masks_add_up():
    family = Columns((7,), columns=KINDS, missing_model="self", degrees_of_freedom=5.0)
    randomized(family, 0.5)
    p = family(torch.randn(4, family.num_params))
    x = torch.where(torch.rand(6, 4, 7) < 0.4, NAN, p.sample((6,)))
    alone = Columns((7,), columns=KINDS, degrees_of_freedom=5.0)
    alone.load_state_dict({k: v for k, v in family.state_dict().items() if not k.startswith("masks")})
    of_cells = p.log_prob_of_columns(x)
    assert_close(of_cells.sum(-1), p.log_prob(x))
    masked = of_cells - alone(p.params).log_prob_of_columns(x)
    observed = torch.log1p(-p.log_missing(x.where(~x.isnan(), 0)).exp())
    assert_close(masked[~x.isnan()], observed[~x.isnan()])
    candidates = p.sample((40_000,))  # the mean over draws is the expectation, column by column
    shares = p.log_missing(candidates).exp()
    error = shares.std(0) / 200
    gone = p.log_prob_of_columns(torch.full((4, 7), NAN)).exp()
    assert ((shares.mean(0) - gone).abs() < 5 * error + 2e-4).all()  # of levels never seen none is drawn


# Models with a known answer


def two_bits() -> tuple[VAE, list[str]]:
    """Two bits decide a category and a grade, which hide by themselves."""
    kinds = ["category 3", "ordinal 3"]
    family, decoder = Columns((2,), columns=kinds, missing_model="self"), nn.Linear(2, 4)
    nn.init.normal_(decoder.weight, std=2)
    for mask, heights in zip(family.masks, ([-1.5, 0.0, 1.0, 0.0], [1.5, -0.5, -1.5]), strict=True):
        mask.heights = nn.Parameter(torch.tensor(heights).unsqueeze(1), requires_grad=False)
    family.set_units(shift=torch.zeros(2), slope=torch.zeros(2), unseen=torch.zeros(2))
    q = Conditional(Bernoulli((2,)), nn.Sequential(Cells(kinds), nn.Linear(6, 2)))
    return VAE(BernoulliPrior(2), Conditional(family, decoder), q), kinds


@pytest.mark.slow
def test_a_discrete_table_with_its_mask_is_enumerated():
    torch.manual_seed(5)
    model, _ = two_bits()
    z = torch.cartesian_prod(torch.arange(2.0), torch.arange(2.0))
    log_z = model.prior().log_prob(z)
    p: Any = model.decode(z)
    levels = range(3)

    def joint(a: int, b: int, gone: tuple[bool, ...]) -> float:
        """p(a, b, which are missing), by the parts."""
        x = torch.tensor([float(a), float(b)]).expand(4, 2)
        missing = p.log_missing(x).exp()
        shares = torch.where(torch.tensor(gone), missing, 1 - missing).prod(-1)
        values = torch.ones(4)
        for group in p.groups:
            made = group.make(p.params[..., group.params])
            values = values * made.log_prob(x[:, group.index]).exp().squeeze(-1)
        return (log_z.exp() * values * shares).sum().item()

    masks = list(itertools.product([False, True], repeat=2))
    assert sum(joint(a, b, gone) for a in levels for b in levels for gone in masks) == pytest.approx(1)
    x = torch.tensor([[1.0, NAN], [NAN, 2.0], [NAN, NAN], [2.0, 0.0]])
    exact = torch.tensor(
        [
            sum(joint(1, b, (False, True)) for b in levels),
            sum(joint(a, 2, (True, False)) for a in levels),
            sum(joint(a, b, (True, True)) for a in levels for b in levels),
            joint(2, 0, (False, False)),
        ]
    )
    found = log_marginal(model, x, num_samples=50_000)
    assert ((found.log_px - exact.log()).abs() < 5 * found.standard_error).all()
    draws = impute(model, Split(x), num_draws=10_000, num_samples=10_000).draws
    for grade in levels:
        share = joint(1, grade, (False, True)) / exact[0].item()
        error = math.sqrt(2 * share * (1 - share) / 10_000)
        assert abs((draws[:, 0, 1] == grade).double().mean().item() - share) < 5 * error
        at_random = sum(joint(1, grade, gone) for gone in masks) / sum(
            joint(1, b, gone) for b in levels for gone in masks
        )
        assert abs(share - at_random) > 10 * error  # which the mask has moved
    cells = cell_scores(model, Split(x[3:]), num_samples=50_000)
    other = sum(joint(a, 0, (gone, False)) for a in levels for gone in (False, True))
    assert cells[0, 0].item() == pytest.approx(math.log(exact[3].item() / other), abs=0.05)


def hiding() -> FactorAnalysis:
    """Factor analysis of three columns with one factor, of which cells hide by themselves."""
    truth = FactorAnalysis(3, 1)
    family = Columns((3,), columns=("real",) * 3, missing_model="self")
    family.kinds[0].load_state_dict(truth.model.likelihood.family.kinds[0].state_dict())
    with torch.no_grad():
        family.masks[0].shift.copy_(torch.tensor([-0.5, 0.0, 0.3]))
        family.masks[0].slope.copy_(torch.tensor([2.0, 1.0, -1.5]))
    truth.model.likelihood.family = family
    return truth


def test_factor_analysis_with_its_mask_is_integrated_in_value_and_gradient():
    """The joint density over (z, x_mis) on a grid, from normal densities alone."""
    torch.manual_seed(2)
    model = hiding().model
    mask, weight = model.likelihood.family.masks[0], model.likelihood.network.weight
    bias, scale = model.likelihood.network.bias, model.likelihood.family.kinds[0].scale.of().detach()
    x = torch.tensor([[0.4, NAN, -0.3]])
    z = torch.linspace(-8, 8, 401).unsqueeze(-1)
    means = z @ weight.T + bias
    gone = torch.linspace(-12, 12, 2001)
    normal = Normal(torch.zeros(()), torch.ones(()))
    log_p = normal.log_prob(z[:, 0]) + math.log(16 / 400)
    for column in (0, 2):
        cell = x[0, column]
        log_p = log_p + Normal(means[:, column], scale[column]).log_prob(cell)
        log_p = log_p + (1 - link(mask.shift[column] + mask.slope[column] * cell)).log()
    hidden = Normal(means[:, 1:2], scale[1]).log_prob(gone).exp() * link(mask.shift[1] + mask.slope[1] * gone)
    exact = (log_p + hidden.sum(-1).log() + math.log(24 / 2000)).logsumexp(0)
    of_model = (model.log_joint(x, z.unsqueeze(1)).squeeze(-1) + math.log(16 / 400)).logsumexp(0)
    assert_close(of_model, exact)
    parameters = [mask.shift, mask.slope, weight, bias]
    gradients = (torch.autograd.grad(value, parameters) for value in (of_model, exact))
    for own, other in zip(*gradients, strict=True):
        assert_close(own, other)
    found = log_marginal(model, x, num_samples=50_000)
    assert (found.log_px - exact).abs().item() < 5 * found.standard_error.item()


def test_imputed_cells_have_the_moments_of_the_hidden_ones():
    torch.manual_seed(2)
    truth = hiding()
    model, x = truth.model, torch.tensor([[0.4, NAN, -0.3]])
    mask = model.likelihood.family.masks[0]
    mean, covariance = truth.missing(x[0])
    grid = torch.linspace(-12, 12, 20_001)
    density = Normal(mean, covariance.sqrt().squeeze()).log_prob(grid).exp()
    density = density * link((mask.shift[1] + mask.slope[1] * grid).detach())
    density = density / density.sum()
    first = (density * grid).sum()
    spread = (density * (grid - first).square()).sum().sqrt()
    found = impute(model, Split(x), num_draws=8000, num_samples=8000)
    draws = found.draws[:, 0, 1]
    error = spread * math.sqrt(1 / 8000 + 1 / found.effective_sample_size[0].item())
    assert abs(draws.mean() - first) < 5 * error
    assert draws.std().item() == pytest.approx(spread.item(), rel=0.06)
    assert abs(first - mean) > 5 * error  # cells at random would lie lower


def test_samples_lack_the_cells_that_their_mask_hides():
    torch.manual_seed(2)
    truth = hiding()
    family = truth.model.likelihood.family
    x = truth.model.sample(20_000)[1].sample()
    gone = with_own_gaps(truth.model, x, seed=1).isnan()
    high = x[:, 0] > x[:, 0].median()
    for rows in (high, ~high):
        share = family.masks[0](x[rows])[0].exp().mean(0).detach()
        error = (share * (1 - share) / int(rows.sum())).sqrt()
        assert ((gone[rows].double().mean(0) - share).abs() < 5 * error).all()
    assert torch.equal(gone, with_own_gaps(truth.model, x, seed=1).isnan())
