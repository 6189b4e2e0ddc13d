"""Bits and normals in fewer passes over memory than torch's: the same densities and samples."""

import itertools
import math

import pytest
import torch
from torch.distributions import Normal
from torch.testing import assert_close

from subo.distributions.discrete import Bernoulli
from subo.distributions.gaussian import Gaussian, StandardNormal
from subo.models.folding import sampled


@pytest.mark.parametrize("event", [(), (1,), (7,), (12,), (2, 4, 4), (514,), (784,), (4, 999)])
@pytest.mark.parametrize("scale", [0.1, 3.0, 40.0, 1000.0])
def test_bits_have_the_same_log_density_with_and_without_a_gradient(event, scale):
    logits = scale * torch.randn(6, *event, dtype=torch.float32)
    x = torch.where(torch.rand(6, *event) < 0.9, (logits > 0).float(), (logits < 0).float())
    wide, bits_ = logits.double().view(6, -1), x.double().view(6, -1)
    exact = (bits_ * wide - wide.clamp(min=0) - (-wide.abs()).exp().log1p()).sum(1)
    p = Bernoulli(logits, len(event))
    assert_close(p.log_prob(x).double(), exact, rtol=1e-6, atol=3e-7)
    assert_close(p.log_prob(x).double(), exact, rtol=2e-5, atol=1e-37)  # also where almost nothing is left of it
    precise = Bernoulli(logits.double(), len(event))
    assert_close(precise.log_prob(x.double()), exact, rtol=1e-12, atol=1e-300)
    followed = Bernoulli(logits.clone().requires_grad_(), len(event)).log_prob(x)
    assert_close(p.log_prob(x), followed.detach(), rtol=2e-6, atol=1e-6)
    assert followed.requires_grad


@pytest.mark.parametrize(
    "value",
    [torch.rand(5, 32), torch.randint(2, (5, 32)).float(), torch.full((5, 32), 0.5), torch.full((5, 32), math.inf)],
)
def test_values_between_the_bits_have_the_same_log_density_as_with_a_gradient(value):
    p = Bernoulli(torch.randn(5, 32), 1)
    followed = Bernoulli(p.logits.clone().requires_grad_(), 1)
    assert_close(p.log_prob(value), followed.log_prob(value).detach(), equal_nan=True)


@pytest.mark.parametrize("num", [32, 1024])
def test_bits_that_leave_the_range_of_floats_do_not_take_the_others_with_them(num):
    logits = torch.tensor([[-60.0], [60.0]]).expand(2, num)
    ones, exact = torch.ones(2, num), num * torch.tensor([-60.0, -math.exp(-60.0)])
    assert_close(Bernoulli(logits, 1).log_prob(ones), exact, rtol=2e-5, atol=0)
    assert Bernoulli(torch.full((1, num), torch.nan), 1).log_prob(ones).isnan().all()


@pytest.mark.parametrize("event", [(3, 4), (3, 400), (3, 174)])
def test_bits_broadcast_over_samples_and_pairs_and_leave_their_logits_as_they_are(event):
    logits, x = torch.randn(12, *event, dtype=torch.float64), torch.randint(2, (4, *event)).double()
    before = logits.clone()
    p = Bernoulli(logits, 2)
    repeated = p.log_prob(x.expand(3, 4, *event).flatten(0, 1)).unflatten(0, (3, 4))
    assert_close(p.unflatten((3, 4)).log_prob(x), repeated)
    pairs = p.log_prob(x.unsqueeze(1).expand(4, 12, *event))
    assert pairs.shape == (4, 12)
    assert_close(p.log_prob(x.unsqueeze(1)), pairs)
    for k, b in itertools.product(range(3), range(4)):
        assert_close(repeated[k, b], pairs[b, 4 * k + b])
    assert torch.equal(logits, before)


def test_a_normals_sample_is_that_of_torch_without_a_gradient():
    loc, scale = torch.randn(4, 20, requires_grad=True), torch.rand(4, 20) + 0.1
    state = torch.get_rng_state()
    sample = Gaussian(loc, scale, 1).sample(torch.Size([3]))
    torch.set_rng_state(state)
    assert_close(sample, Normal(loc, scale).sample(torch.Size([3])))
    assert not sample.requires_grad


@pytest.mark.parametrize("make", [
    lambda: Gaussian(torch.randn(4, 3, 2).double(), torch.rand(4, 3, 2).double() + 0.1, 2),
    lambda: Gaussian(torch.randn(4, 3).double().requires_grad_(), torch.rand(4, 1).double() + 0.1, 1),
    lambda: Gaussian(torch.randn(4, 3).double(), torch.tensor(0.3).double(), 1),
    lambda: StandardNormal(torch.zeros(3).double()),
], ids=["matrices", "one scale a row", "one scale", "standard"])  # fmt: skip
@pytest.mark.parametrize("size", [(), (5,), (5, 2)])
def test_a_normals_sample_comes_with_its_density(make, size):
    q = make()
    state = torch.get_rng_state()
    sample, log_prob = q.sample_and_log_prob(size)
    torch.set_rng_state(state)
    assert torch.equal(sample, q.sample(size))
    assert_close(log_prob, q.log_prob(sample).detach(), rtol=1e-10, atol=1e-10)
    assert log_prob.shape == (*size, *q.batch_shape)
    assert not sample.requires_grad
    assert not log_prob.requires_grad


def test_a_subclass_that_weighs_otherwise_is_not_passed_over():
    class Shifted(Gaussian):
        def log_prob(self, value):
            return super().log_prob(value) - 1

    q = Shifted(torch.zeros(4, 3), torch.ones(4, 3), 1)
    with torch.no_grad():
        z, log_prob = sampled(q, torch.Size([5]), path=False)
    found = q.log_prob(z) if log_prob is None else log_prob
    assert_close(found, Gaussian(q.loc, q.scale, 1).log_prob(z) - 1)
