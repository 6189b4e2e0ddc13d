"""Disentanglement scores on cases that can be worked by hand."""

import math

import numpy as np
import pytest
import torch

from subo import InputError
from subo.evaluation.latents.disentanglement import dci_of_importance, disentanglement, mutual_information_gap

GRID = torch.cartesian_prod(torch.arange(4), torch.arange(5)).repeat(30, 1)


def test_a_dimension_for_each_factor_has_the_best_scores():
    found = disentanglement(2 - 3 * GRID.double().flip(1), GRID)
    assert found.mig == pytest.approx(1)
    assert found.factor_vae == 1
    assert found.disentanglement > 0.99
    assert found.completeness > 0.99
    assert found.informativeness == 1
    # the other dimension is as good as a guess: 1 - 1/4 and 1 - 1/5, but for held-out chance
    assert found.sap == pytest.approx(0.775, abs=0.08)


def test_a_turned_representation_has_lower_scores_but_the_same_information():
    angle = math.pi / 4
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    straight = GRID.double() / GRID.double().std(0)
    aligned, turned = disentanglement(straight, GRID), disentanglement(straight @ turn, GRID)
    for name in ("mig", "sap", "disentanglement", "completeness"):
        assert getattr(turned, name) < getattr(aligned, name) - 0.3, name
    assert turned.informativeness > 0.95


def test_the_mutual_information_gap_of_two_bits_by_hand():
    """z1 = v; z2 is v with one error in four: I(z2; v) = log 2 - H(1/4)."""
    v = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    z = np.stack([v, [0, 0, 0, 1, 1, 1, 1, 0]], 1).astype(float)
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert mutual_information_gap(z, v[:, None], num_bins=2) == pytest.approx(entropy / math.log(2))
    assert mutual_information_gap(z[:, [0, 0]], v[:, None], num_bins=2) == pytest.approx(0)
    assert mutual_information_gap(z[:, :1], v[:, None], num_bins=2) == pytest.approx(1)


def test_dci_of_three_dimensions_and_two_factors_by_hand():
    importance = np.array([[0.8, 0.0], [0.2, 0.2], [0.0, 0.8]])
    modular, complete = dci_of_importance(importance)
    assert modular == pytest.approx(0.4 * 1 + 0.2 * 0 + 0.4 * 1)
    entropy = -(0.8 * math.log(0.8) + 0.2 * math.log(0.2)) / math.log(3)
    assert complete == pytest.approx(1 - entropy)


def test_a_dimension_that_does_not_vary_does_not_vote():
    codes = torch.cat([GRID.double(), torch.zeros(len(GRID), 1, dtype=torch.float64)], 1)
    found = disentanglement(codes, GRID, num_votes=200)
    assert found.factor_vae == 1
    assert found.mig == pytest.approx(1)


def test_scores_are_shown_and_the_same_at_every_call():
    codes = torch.randn(len(GRID), 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    first, second = (disentanglement(codes, GRID, num_votes=100) for _ in range(2))
    assert first == second
    assert first.mig < 0.1
    assert 0.2 < first.factor_vae < 0.85
    assert "MIG" in repr(first)
    assert first.to_frame().shape == (1, 7)


@pytest.mark.parametrize(
    ("codes", "factors", "what"),
    [
        (torch.randn(20, 2), GRID[:19], "same examples"),
        (torch.randn(600, 2), torch.zeros(600, 1, dtype=torch.long), "single value"),
        (torch.full((600, 2), math.nan), GRID, "finite"),
    ],
)
def test_what_is_wrong_is_refused(codes: torch.Tensor, factors: torch.Tensor, what: str):
    with pytest.raises(InputError, match=what):
        disentanglement(codes, factors)
