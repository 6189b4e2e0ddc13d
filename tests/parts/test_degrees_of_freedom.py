"""The Student t family: where its degrees of freedom come from, and that fitting finds those of data."""

import pytest
import torch
from scipy.stats import t
from torch.testing import assert_close

from subo.errors import InputError
from subo.parts.location_scale import StudentT


@pytest.mark.parametrize(
    "source, shape, start", [(4.0, None, 4.0), ("shared", (), 10.0), ("per-dimension", (3,), 10.0)]
)
def test_the_degrees_of_freedom_are_fixed_or_learned_and_start_at_ten(source, shape, start: float):
    family = StudentT((3,), 2.0, degrees_of_freedom=source, center=1.0, unit=5.0)
    assert [parameter.shape for parameter in family.parameters()] == ([] if shape is None else [shape])
    x = torch.tensor([[1.0, -30.0, 200.0]])
    truth = t.logpdf(x.numpy(), start, 1.0, 10.0).sum()
    assert family(torch.zeros(1, 3)).log_prob(x).item() == pytest.approx(truth, rel=1e-6)


def test_learned_degrees_of_freedom_stay_above_two():
    family = StudentT((3,), 1.0)
    with torch.no_grad():
        family.degrees_of_freedom.raw.fill_(-1e6)
    assert family.degrees_of_freedom.value() == 2
    assert family(torch.zeros(1, 3)).log_prob(torch.tensor([[0.0, 1.0, 1e9]])).isfinite().all()


@pytest.mark.parametrize("degrees", [2.0, 1.0, -3.0, float("nan")])
def test_degrees_of_freedom_without_a_variance_are_refused(degrees: float):
    with pytest.raises(InputError, match="degrees_of_freedom must be .*above 2"):
        StudentT((3,), degrees_of_freedom=degrees)


def test_learning_finds_scale_and_degrees_of_freedom_of_each_dimension():
    x = torch.tensor(t.rvs([3.0, 8.0], 0, [1.0, 0.5], size=(20_000, 2), random_state=0))
    family = StudentT((2,), "per-dimension", degrees_of_freedom="per-dimension").double()
    optimizer = torch.optim.LBFGS(family.parameters(), line_search_fn="strong_wolfe", max_iter=100)

    def loss():
        optimizer.zero_grad()
        value = -family(torch.zeros_like(x)).log_prob(x).mean()
        value.backward()
        return value

    optimizer.step(loss)
    assert_close(family.degrees_of_freedom.value().detach(), torch.tensor([3.0, 8.0]).double(), rtol=0.15, atol=0)
    assert_close(family.location_scale.scale.of().detach(), torch.tensor([1.0, 0.5]).double(), rtol=0.05, atol=0)
