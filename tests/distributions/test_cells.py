"""Distributions of single cells: sums to one, values by hand and by SciPy, samples by their frequencies."""

import itertools

import pytest
import torch
from scipy import stats
from torch.testing import assert_close

from subo.distributions.cells import Levels, Ordinal, Spiked
from subo.distributions.columns import Columns, Group, Jacobian, Rows
from subo.distributions.gaussian import Gaussian
from subo.distributions.negative_binomial import NegativeBinomial

pytestmark = pytest.mark.usefixtures("double_by_default")


def test_levels_sum_to_one_with_the_unseen_one_among_them():
    logits = torch.randn(7, 4)
    logits[:, 3] = -torch.inf  # three levels
    p = Levels(logits, torch.tensor(0.01), torch.tensor(3))
    probabilities = torch.stack([p.log_prob(torch.full((7,), float(c))) for c in range(4)]).exp()
    assert_close(probabilities.sum(0), torch.ones(7))
    assert_close(probabilities[3], torch.full((7,), 0.01))
    assert_close(probabilities[:3].T, 0.99 * logits[:, :3].softmax(-1))


def test_levels_are_drawn_as_often_as_they_are_probable_and_never_unseen():
    p = Levels(torch.tensor([0.0, 1.0, 2.0]), torch.tensor(0.5), torch.tensor(3))
    drawn = p.sample(torch.Size([20_000]))
    found = torch.bincount(drawn.long(), minlength=4) / 20_000
    expected = torch.tensor([0.0, 1.0, 2.0]).softmax(-1)
    assert found[3] == 0
    assert ((found[:3] - expected).abs() < 5 * (expected * (1 - expected) / 20_000).sqrt()).all()
    assert p.mode == p.mean == 2


def test_grades_are_differences_of_logistic_functions():
    thresholds = torch.tensor([[-1.0, 0.5, 2.0], [-0.3, 0.7, torch.inf]])
    location = torch.tensor([0.4, -1.2])
    p = Ordinal(location, thresholds, torch.tensor(0.01))
    ends = torch.cat([torch.full((2, 1), -torch.inf), thresholds, torch.full((2, 1), torch.inf)], 1)
    expected = 0.99 * (ends - location[:, None]).sigmoid().diff(dim=1)
    for grade, levels in itertools.product(range(4), (4, 3)):
        found = p.log_prob(torch.full((2,), float(grade))).exp()[4 - levels]
        assert_close(found, expected[4 - levels, grade] if grade < levels else torch.tensor(0.01))
    assert_close(p.log_prob(torch.tensor([4.0, 3.0])).exp(), torch.full((2,), 0.01))  # beyond the levels of each


def test_grades_far_out_are_exact_in_value_and_gradient():
    location = torch.tensor(800.0, requires_grad=True)
    log_prob = Ordinal(location, torch.tensor([0.0, 1.0]), torch.tensor(0.0)).log_prob(torch.tensor(1.0))
    # sigma(1 - m) - sigma(-m) is e^(1 - m) - e^(-m) for large m
    assert log_prob.item() == pytest.approx(-800 + torch.tensor(torch.e - 1).log().item())
    log_prob.backward()
    assert location.grad == pytest.approx(-1)


def test_grades_are_drawn_as_often_as_they_are_probable():
    p = Ordinal(torch.tensor(0.3), torch.tensor([-1.0, 0.5, 2.0]), torch.tensor(0.1))
    expected = torch.stack([p.log_prob(torch.tensor(float(grade))) for grade in range(4)]).exp() / 0.9  # known levels
    found = torch.bincount(p.sample(torch.Size([20_000])).long(), minlength=4) / 20_000
    assert ((found - expected).abs() < 5 * (expected * (1 - expected) / 20_000).sqrt()).all()
    assert p.mode == expected.argmax()
    assert p.mean == 1  # the median, where the distribution function passes 1/2


def test_a_spike_has_a_probability_and_everything_else_a_density():
    p = Spiked(torch.tensor(0.4), Gaussian(torch.tensor(1.0), torch.tensor(2.0), 0))
    share = torch.tensor(0.4).sigmoid()
    assert p.log_prob(torch.tensor(torch.inf)).exp() == pytest.approx(share.item())
    x = torch.linspace(-40, 40, 100_001)
    assert torch.trapezoid(p.log_prob(x).exp(), x).item() == pytest.approx(1 - share.item())
    drawn = p.sample(torch.Size([20_000]))
    error = (share * (1 - share) / 20_000).sqrt()
    assert (drawn.isinf().double().mean() - share).abs() < 5 * error
    assert abs(drawn[drawn.isfinite()].mean() - 1) < 5 * 2 / 80


def test_the_mode_of_a_count_is_its_most_probable_value():
    log_mean, dispersion = torch.tensor([1.0, 3.0, 0.5, 2.0]), torch.tensor([0.3, 0.01, 2.0, 1.0])
    p = NegativeBinomial(log_mean, dispersion)
    counts = torch.arange(200.0).unsqueeze(1)
    size = 1 / dispersion
    expected = stats.nbinom.pmf(counts.numpy(), size.numpy(), (size / (size + log_mean.exp())).numpy()).argmax(0)
    assert p.mode.tolist() == expected.tolist()
    assert p.log_prob(counts.expand(-1, 4)).argmax(0).tolist() == expected.tolist()


def columns(params: torch.Tensor) -> Columns:
    """The first and third column normal with scale 2, the second with two levels; the third in logarithms."""
    normals = Group(torch.tensor([0, 2]), slice(0, 2), lambda loc: Gaussian(loc, torch.tensor(2.0), 0))
    levels = Group(
        torch.tensor([1]),
        slice(2, 4),
        lambda logits: Levels(logits.unsqueeze(-2), torch.tensor([0.1]), torch.tensor([2])),
    )
    jacobian = Jacobian(torch.tensor([3.0, 0.0, 0.5]), torch.tensor([0.0, 0.0, 1.5]))
    none = torch.zeros(3, dtype=torch.bool)
    whole, highest = torch.tensor([False, True, False]), torch.tensor([torch.inf, 2.0, torch.inf])
    return Columns(params, [normals, levels], jacobian, Rows(none, whole, highest))


def test_a_row_is_the_sum_of_its_observed_cells_with_their_jacobians():
    params = torch.randn(5, 4)
    x = torch.tensor([0.5, 1.0, -2.0]).expand(5, 3).clone()
    p = columns(params)
    of_cells = torch.stack(
        [
            torch.from_numpy(stats.norm.logpdf(0.5, params[:, 0].numpy(), 2)) - 3.0,
            params[:, 2:].log_softmax(-1)[:, 1] + torch.tensor(0.9).log(),
            torch.from_numpy(stats.norm.logpdf(-2.0, params[:, 1].numpy(), 2)) - (0.5 + 1.5 * -2.0),
        ],
        1,
    )
    assert_close(p.log_prob(x), of_cells.sum(1))
    assert_close(p.log_prob_of_columns(x), of_cells)
    x[:, 2] = torch.nan
    assert_close(p.log_prob(x), of_cells[:, :2].sum(1))
    x[:] = torch.nan
    assert p.log_prob(x).tolist() == [0.0] * 5  # nothing is observed


def test_missing_cells_pass_no_gradient():
    params = torch.randn(2, 4, requires_grad=True)
    x = torch.tensor([[0.5, torch.nan, 1.0], [torch.nan, 0.0, torch.nan]])
    columns(params).log_prob(x).sum().backward()
    assert params.grad is not None
    assert params.grad.isfinite().all()
    assert params.grad[0, 2:].tolist() == [0.0, 0.0]
    assert params.grad[1, :2].tolist() == [0.0, 0.0]


def test_samples_of_one_example_are_weighted_without_copies_of_it():
    params, x = torch.randn(6, 4), torch.tensor([[0.5, 1.0, torch.nan], [0.1, 2.0, 0.3]])
    assert_close(
        columns(params).unflatten((3, 2)).log_prob(x), columns(params).log_prob(x.repeat(3, 1)).unflatten(0, (3, 2))
    )


@pytest.mark.parametrize(
    "row, inside",
    [
        ([0.0, 1.0, 0.0], True),
        ([torch.nan] * 3, True),
        ([0.0, 2.0, 0.0], True),  # unseen
        ([0.0, 3.0, 0.0], False),
        ([0.0, 0.5, 0.0], False),
        ([0.0, 0.0, torch.inf], False),
        ([0.0, 0.0, -torch.inf], False),  # a logarithm of 0
    ],
)
def test_rows_outside_of_the_support_are_found(row: list[float], inside: bool):
    assert bool(columns(torch.zeros(1, 4)).support.check(torch.tensor(row))) == inside
