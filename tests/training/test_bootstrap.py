"""Refits to rows drawn with replacement vary as the fitted parameters do."""

import math

import pytest
import torch
from torch import nn

import subo
from subo.core.objective import Objective
from subo.data.dataset import Data
from subo.data.splits import Split
from subo.errors import InputError
from subo.evaluation.imputation import Imputation, check_refits
from subo.training.bootstrap import bootstrap


class Mean(nn.Module):
    """A location-only model whose fit is the mean of the rows: p(x) is normal about it, and z says nothing."""

    def __init__(self, center: float):
        super().__init__()
        self.loc = nn.Parameter(torch.tensor([center]))

    def forward(self, z: torch.Tensor) -> torch.distributions.Distribution:
        loc = self.loc + 0 * z
        return torch.distributions.Independent(torch.distributions.Normal(loc, 1.0), 1)


def of_mean(data: Data, seed: int) -> Objective:
    """Starts at the mean of the rows that it is given, where training leaves it but for a step."""
    q = subo.Conditional(subo.Gaussian((1,)), subo.mlp(1, 2, hidden=()))
    return Objective(subo.VAE(subo.StandardNormal(1), Mean(data.train.x.mean().item()), q))


@pytest.mark.slow
def test_the_spread_of_refits_is_the_standard_error():
    x = torch.randn(200, 1)
    data = Data("x", Split(x), Split(x[:0]), Split(x[:0]), kind="real")
    fits = [
        objective.model.likelihood.loc.item()
        for objective in bootstrap(of_mean, data, refits=60, epochs=1, learning_rate=1e-9, batch_size=200)
    ]
    expected = x.std(correction=0).item() / math.sqrt(200)
    spread = torch.tensor(fits).std().item()
    assert abs(spread / expected - 1) < 5 / math.sqrt(2 * 59)
    assert abs(sum(fits) / 60 - x.mean().item()) < 5 * expected / math.sqrt(60)


def test_refits_are_the_same_with_the_same_seed_and_hold_rows_of_the_data_alone():
    x = torch.arange(50.0).unsqueeze(1)
    seen: list[Data] = []

    def build(data: Data, seed: int) -> Objective:
        seen.append(data)
        return of_mean(data, seed)

    data = Data("x", Split(x, labels=torch.arange(50)), Split(x[:5]), Split(x[:0]), kind="real")
    for _ in range(2):
        assert len(list(bootstrap(build, data, refits=2, seed=3, epochs=1))) == 2
    first, second, again = (part.train.x for part in seen[:3])
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert set(first.flatten().tolist()) < set(x.flatten().tolist())  # some rows are not drawn
    assert torch.equal(seen[0].train.labels, first[:, 0].long())  # pyright: ignore[reportArgumentType]
    assert torch.equal(seen[0].validation.x, x[:5])


def test_imputations_of_several_models_follow_each_other():
    draws = torch.arange(12.0).reshape(2, 3, 2)
    parts = [Imputation(draws, torch.tensor([5.0, 9.0, 3.0]), 10), Imputation(draws + 12, torch.full((3,), 4.0), 10)]
    joined = Imputation.of(parts)
    assert torch.equal(joined.draws.flatten(), torch.arange(24.0))
    assert joined.effective_sample_size.tolist() == [4.0, 4.0, 3.0]


@pytest.mark.parametrize("draws", [None, 3])
def test_draws_are_divided_equally(draws: int | None):
    with pytest.raises(InputError, match="`draws` must be a multiple of 2, such as 8"):
        check_refits(draws, 2)
