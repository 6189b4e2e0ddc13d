"""P-values against held-out scores: uniform for fresh ones, whatever the model; mistakes as often as allowed."""

import numpy as np
import pytest
import torch
from scipy import stats

from subo.errors import InputError
from subo.evaluation.cells import cell_p_values
from subo.evaluation.conformal import conformal_p_values, marked, too_few_held_out


def test_a_p_value_is_the_rank_by_hand():
    held_out = torch.tensor([3.0, 1.0, 2.0, 2.0])
    found = conformal_p_values(torch.tensor([0.0, 1.0, 2.0, 2.5, 9.0, -torch.inf]), held_out)
    assert (5 * found).tolist() == [1.0, 2.0, 4.0, 4.0, 5.0, 1.0]


def test_a_held_out_example_is_ranked_among_the_others_by_the_score_that_it_has_there():
    held_out = torch.tensor([3.0, 1.0, torch.nan, 2.0, 2.0])
    own = torch.tensor([0, 1, 3, -1, 2])
    noisy = torch.tensor([-7.0, 9.0, 2.5, 2.0, torch.nan])
    found = conformal_p_values(noisy, held_out, own=own)
    torch.testing.assert_close(found, torch.tensor([4 / 4, 1 / 4, 3 / 4, 4 / 5, 1.0]))
    others = [conformal_p_values(held_out[i : i + 1], held_out[torch.arange(5) != i]).item() for i in (0, 1, 3)]
    assert found[:3].tolist() == others
    nothing = conformal_p_values(torch.tensor([1.0]), torch.tensor([torch.nan]), own=torch.tensor([0]))
    assert nothing.tolist() == [1.0]


def test_too_few_held_out_examples_are_said_exactly_where_no_p_value_is_as_small_as_alpha():
    for alpha in (0.3, 1 / 3, 0.1, 0.07, 0.05, 0.01):
        for n in range(1, 130):
            lowest = conformal_p_values(torch.tensor([-1.0], dtype=torch.float64), torch.arange(n).double())
            said = too_few_held_out(n, alpha, fixes="hold out more")
            assert bool(said) == (not marked(lowest, alpha=alpha).any())
            if said:
                least = int(said.split("at least ")[1].rstrip(")"))
                assert not too_few_held_out(least, alpha, fixes="")
                assert too_few_held_out(least - 1, alpha, fixes="")


def test_p_values_of_fresh_rows_are_uniform_and_never_too_small_too_often():
    """Over many pairs of held-out rows and a new one: uniform on 1/20 .. 20/20 exactly."""
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(rng.normal(size=(4000, 20)))
    found = np.array([conformal_p_values(row[:1], row[1:]).item() for row in scores])
    counts = np.bincount((found * 20).round().astype(int), minlength=21)[1:]
    assert stats.chisquare(counts).pvalue > 1e-4
    for alpha in (0.05, 0.1, 0.3):
        assert (found <= alpha + 1e-9).mean() < alpha + 5 * np.sqrt(alpha * (1 - alpha) / 4000)


def test_many_fresh_normal_rows_pass_the_test_of_kolmogorov_and_smirnov():
    rng = np.random.default_rng(1)
    found = conformal_p_values(torch.from_numpy(rng.normal(size=2000)), torch.from_numpy(rng.normal(size=200_000)))
    assert stats.kstest(found.numpy(), "uniform").pvalue > 1e-3


def test_the_false_discovery_rate_is_that_of_benjamini_and_hochberg():
    p_values = torch.tensor([0.03, 0.001, 0.5, 0.012, 0.2, 0.041, 0.008])
    found = marked(p_values, alpha=0.05, false_discovery_rate=True)
    assert found.tolist() == (stats.false_discovery_control(p_values.numpy()) <= 0.05).tolist()
    assert found.sum() == 3
    assert marked(p_values, alpha=0.05).sum() == 5
    assert not marked(torch.tensor([0.5, 0.9]), alpha=0.1, false_discovery_rate=True).any()


@pytest.mark.parametrize("alpha", [0.01, 0.02, 0.05, 0.1])
def test_a_single_row_is_marked_at_the_smallest_p_value_that_is_allowed(alpha: float):
    for dtype in (torch.float64, torch.float32):
        p_value = torch.tensor([1.0], dtype=dtype) / round(1 / alpha)
        assert all(marked(p_value, alpha=alpha, false_discovery_rate=fdr).all() for fdr in (False, True))


def test_among_marked_rows_the_share_of_ordinary_ones_stays_below_alpha():
    rng = np.random.default_rng(2)
    shares = []
    for _ in range(300):
        held_out = torch.from_numpy(rng.normal(size=200))
        scores = torch.from_numpy(np.concatenate([rng.normal(size=80), rng.normal(-5, 1, size=20)]))
        found = marked(conformal_p_values(scores, held_out), alpha=0.2, false_discovery_rate=True)
        shares.append(found[:80].sum().item() / max(1, found.sum().item()))
    assert np.mean(shares) < 0.2 + 5 * np.std(shares) / np.sqrt(300)
    assert np.mean(shares) > 0.05  # and it is used


@pytest.mark.parametrize("alpha", [0.0, 1.0, 1.5])
def test_a_share_lies_between_0_and_1(alpha: float):
    with pytest.raises(InputError):
        marked(torch.tensor([0.5]), alpha=alpha)


def test_cells_are_ranked_column_by_column_among_those_that_are_there():
    cells = torch.tensor([[0.0, 5.0, torch.nan], [9.0, -1.0, 2.0]])
    held_out = torch.tensor([[1.0, torch.nan, torch.nan], [2.0, 0.0, torch.nan], [0.0, 6.0, torch.nan]])
    expected = torch.tensor([[2 / 4, 2 / 3, 1.0], [4 / 4, 1 / 3, 1.0]])
    torch.testing.assert_close(cell_p_values(cells, held_out), expected)
    own = torch.tensor([2, -1])
    of_own = torch.tensor([[1 / 3, 2 / 2, 1.0], [4 / 4, 1 / 3, 1.0]])
    torch.testing.assert_close(cell_p_values(cells, held_out, own=own), of_own)
