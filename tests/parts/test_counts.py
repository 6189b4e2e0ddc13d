"""Families of counts: their dispersion, their start, and that fitting finds the dispersion and zeros of data."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from subo.parts.counts import NegativeBinomial, ZeroInflatedNegativeBinomial
from subo.recipes import vae
from subo.recipes.ends import Ends


@pytest.mark.parametrize("source, numbers", [("shared", 1), ("per-dimension", 3), ("network", 0)])
def test_the_dispersion_is_learned_or_given(source, numbers: int):
    family = NegativeBinomial((3,), dispersion=source)
    assert sum(parameter.numel() for parameter in family.parameters()) == numbers
    assert family.num_params == (6 if source == "network" else 3)
    p = family(torch.zeros(2, family.num_params))
    assert_close(p.mean, torch.ones(2, 3))
    assert_close(p.variance, torch.full((2, 3), 2.0), check_stride=False)


@pytest.mark.parametrize("source", ["shared", "per-dimension", "network"])
def test_a_decoder_starts_at_the_datas_mean(source):
    x = torch.tensor([[0.0, 3.0, 1e6], [0.0, 5.0, 3e6]])
    family = NegativeBinomial((3,), dispersion=source)
    decoder = nn.Linear(1, family.num_params)
    nn.init.zeros_(decoder.weight)
    nn.init.zeros_(decoder.bias)
    p = family(Ends(family, x.shape[1:], nn.Identity, x).start(decoder)(torch.zeros(1, 1)))
    assert_close(p.mean[0], (x.sum(0) + 1) / 3)
    assert_close(p.variance[0], p.mean[0] + p.mean[0].square(), check_stride=False)


@pytest.mark.parametrize("source", ["shared", "per-dimension", "network"])
def test_weights_fit_a_model_that_has_seen_no_data(source):
    options: Any = {"likelihood": "negative-binomial", "dispersion": source, "hidden": (4,)}
    fitted, empty = vae((3,), examples=torch.ones(5, 3), **options), vae((3,), **options)
    empty.load_state_dict(fitted.state_dict())
    assert_close(empty.model.decode(torch.ones(1, 10)).mean, fitted.model.decode(torch.ones(1, 10)).mean)


def test_learning_finds_the_dispersion_of_each_dimension():
    torch.manual_seed(0)
    truth = torch.tensor([0.1, 2.0], dtype=torch.float64)
    rate = torch.distributions.Gamma(1 / truth, 1 / (truth * 10)).sample((20_000,))
    x, family = torch.poisson(rate), NegativeBinomial((2,)).double()
    log_mean = x.mean(0).log().expand_as(x)  # the maximum, whatever the dispersion
    optimizer = torch.optim.LBFGS(family.parameters(), line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = -family(log_mean).log_prob(x).mean()
        value.backward()
        return value

    optimizer.step(loss)
    assert_close(family.dispersion.of().detach(), truth, rtol=0.1, atol=0)


@pytest.mark.parametrize("source", ["shared", "network"])
def test_a_decoder_of_inflated_counts_starts_at_the_datas_mean(source):
    x = torch.tensor([[0.0, 3.0, 1e6], [0.0, 5.0, 3e6]])
    family = ZeroInflatedNegativeBinomial((3,), dispersion=source)
    decoder = nn.Linear(1, family.num_params)
    nn.init.zeros_(decoder.weight)
    nn.init.zeros_(decoder.bias)
    p = family(Ends(family, x.shape[1:], nn.Identity, x).start(decoder)(torch.zeros(1, 1)))
    assert_close(p.mean[0], (x.sum(0) + 0.5) / 3)
    assert_close(family(family.params_of_mean(x[1:2]).flatten().unsqueeze(0)).mean, x[1:2].clamp(min=0))


def test_learning_finds_the_further_zeros():
    torch.manual_seed(0)
    truth = ZeroInflatedNegativeBinomial((1,)).double()
    params = torch.tensor([[1.5, -0.7]], dtype=torch.float64)
    x = truth(params).sample((20_000,)).flatten(0, 1)
    found, family = (
        torch.zeros(1, 2, dtype=torch.float64, requires_grad=True),
        ZeroInflatedNegativeBinomial((1,)).double(),
    )
    optimizer = torch.optim.LBFGS([found, *family.parameters()], line_search_fn="strong_wolfe", max_iter=100)

    def loss():
        optimizer.zero_grad()
        value = -family(found).log_prob(x).mean()
        value.backward()
        return value

    optimizer.step(loss)
    assert_close(found.detach(), params, rtol=0.1, atol=0)
    assert_close(family.dispersion.of().detach(), torch.ones(1, dtype=torch.float64), rtol=0.1, atol=0)
