"""The recipe of several layers, and what is measured layer by layer."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.testing import assert_close

from subo import VAE, Bernoulli, Child, Conditional, Gaussian, InputError, Joint, StandardNormal, mlp
from subo.data.splits import Split
from subo.distributions.gaussian import Gaussian as GaussianDistribution
from subo.evaluation import evaluate, latent_usage, posterior_means
from subo.evaluation.reconstruction import reconstruct
from subo.recipes import hierarchical


class AroundX(nn.Module):
    """``q(z1|x) = N(slope x, 1)``, (N, 1)."""

    def __init__(self, slope: float):
        super().__init__()
        self.slope = slope

    def forward(self, x: Tensor) -> Distribution:
        return GaussianDistribution(self.slope * x, torch.ones_like(x), 1)


class AroundZ1(nn.Module):
    """``N(z1, 1/100)``: as a posterior it carries what z1 does."""

    def forward(self, z1: Tensor) -> Distribution:
        return GaussianDistribution(z1, torch.full_like(z1, 0.1), 1)


class AroundZ2(nn.Module):
    def forward(self, z2: Tensor) -> Distribution:
        return GaussianDistribution(z2, torch.ones_like(z2), 1)


def two_layers(slope: float) -> VAE:
    prior = Joint(z2=StandardNormal(1), z1=AroundZ2())
    likelihood = Child(Gaussian((1,)), nn.Linear(1, 2), "z1")
    return VAE(prior, likelihood, Joint(z1=AroundX(slope), z2=AroundZ1())).double()


def test_a_mean_over_samples_is_not_taken_for_activity():
    # E[z2 | x] = E[z1 | x] = 0 of all data; its estimates by 50 samples vary by 1/50, above the 0.01 of an active unit.
    usage = latent_usage(two_layers(0.0), Split(torch.randn(400, 1, dtype=torch.float64)))
    assert usage.layers == (("z1", 1), ("z2", 1))
    assert not usage.active.any()
    assert usage.means[:, 1].var() > 0.01
    assert usage.variance[1] < 0.01


def test_an_upper_layer_is_active_where_the_lower_one_tells_of_x():
    x = torch.randn(1000, 1, dtype=torch.float64)
    usage = latent_usage(two_layers(0.5), Split(x))
    assert usage.active_by_layer == {"z1": 1, "z2": 1}
    assert_close(usage.variance[0], 0.25 * x.var(correction=0))
    assert abs(usage.variance[1].item() - 0.25 * x.var().item()) < 5 * 0.25 * (2 / 1000) ** 0.5
    assert usage.names == ["z1_1", "z2_1"]


def test_rates_by_layer_are_their_closed_forms():
    x = torch.randn(500, 1, dtype=torch.float64)
    result = evaluate(two_layers(0.5), Split(x), num_samples=100)
    assert result.layers is not None
    # KL(N(z1, 1/100) || N(0, 1)) with z1 ~ N(x / 2, 1); E[log q(z1|x) - log p(z1|z2)] with z2 ~ N(z1, 1/100).
    upper = 0.5 * (0.01 + (0.25 * x.square() + 1) - 1) - torch.tensor(0.1).log()
    error = 5 * upper.std().item() / (500 * 100) ** 0.5
    assert abs(result.layers["z2"]["rate"] - upper.mean().item()) < error + 5 * 0.5 * 2**0.5 / (500 * 100) ** 0.5
    assert abs(result.layers["z1"]["rate"] - 0.5 * (0.01 - 1)) < 5 * 0.8 / (500 * 100) ** 0.5
    assert result.rate == pytest.approx(result.layers["z1"]["rate"] + result.layers["z2"]["rate"])
    usage = latent_usage(two_layers(0.5), Split(x))
    assert usage.kl is not None
    assert usage.share_collapsed is None
    assert abs(usage.kl[1].item() - upper.mean().item()) < 0.2
    assert abs(usage.kl[0].item() - 0.5 * (0.01 - 1)) < 5 * 0.8 / (500 * 50) ** 0.5


def test_reconstructions_are_means_over_the_posterior():
    model, x = two_layers(0.5), torch.linspace(-2, 2, 30, dtype=torch.float64).unsqueeze(1)
    layer = model.likelihood.network
    expected = 0.5 * x * layer.weight[0] + layer.bias[0]
    error = 5 * layer.weight[0].abs() / 50**0.5
    assert ((reconstruct(model, Split(x)) - expected).abs() < error).all()
    assert posterior_means(model, Split(x)).shape == (30, 2)


@pytest.mark.parametrize(
    ("event", "options"),
    [
        ((6,), {"latent_dims": (4, 3, 2)}),
        ((1, 7, 5), {"latent_dims": (3, 2), "network": "conv", "channels": (4,), "hidden": (8,)}),
        ((6,), {"latent_dims": (3,), "bound": "iwae", "num_samples": 3}),
        ((6,), {"latent_dims": (3, 2), "gradient": "score-function", "num_samples": 4}),
    ],
)
def test_the_recipe_makes_any_number_of_layers(event: tuple[int, ...], options: dict):
    sizes: dict[str, Any] = {"hidden": (8,), "hidden_between": (5,)} | options
    objective = hierarchical(event, likelihood="bernoulli", **sizes)
    loss = objective(torch.randint(2, (5, *event)).float())
    assert loss.rate.shape == (len(options["latent_dims"]), 5)
    loss.loss.backward()
    assert all(p.grad is not None for p in objective.model.parameters())
    z, p = objective.model.sample(3)
    assert isinstance(z, dict)
    assert {name: leaf.shape[1] for name, leaf in z.items()} == {
        f"z{i + 1}": size for i, size in enumerate(options["latent_dims"])
    }
    assert p.sample().shape == (3, *event)


def test_the_recipe_is_the_graph_that_its_page_shows():
    torch.manual_seed(3)
    objective = hierarchical((6,), likelihood="bernoulli", latent_dims=(4, 2), hidden=(8,), hidden_between=(5,))
    by_hand = VAE(
        Joint(z2=StandardNormal(2), z1=Child(Gaussian((4,)), mlp(2, 8, hidden=(5,)), "z2")),
        Child(Bernoulli((6,)), objective.model.likelihood.network, "z1"),
        Joint(
            z1=Conditional(Gaussian((4,)), mlp(6, 8, hidden=(8,))),
            z2=Child(Gaussian((2,)), mlp(4, 4, hidden=(5,)), "z1"),
        ),
    )
    for mine, theirs in ((by_hand.prior, objective.model.prior), (by_hand.posterior, objective.model.posterior)):
        assert sum(p.numel() for p in mine.parameters()) == sum(p.numel() for p in theirs.parameters())
        values = [p.detach() for p in theirs.parameters()]
        with torch.no_grad():
            for p, value in zip(mine.parameters(), values, strict=True):
                p.copy_(value)
    x, z = torch.randint(2, (5, 6)).float(), {"z1": torch.randn(3, 5, 4), "z2": torch.randn(3, 5, 2)}
    assert_close(by_hand.log_joint(x, z), objective.model.log_joint(x, z))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"latent_dims": ()}, "latent_dims"),
        ({"latent_dims": (4, 0)}, "latent_dims"),
        ({"bound": "iwae"}, "num_samples"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict, words: str):
    with pytest.raises(InputError, match=words):
        hierarchical((6,), likelihood="bernoulli", **options)


def test_one_layer_alone_is_a_model_like_any_other():
    objective = hierarchical((6,), likelihood="bernoulli", latent_dims=(3,), hidden=(8,))
    split = Split(torch.randint(2, (8, 6)).float())
    assert reconstruct(objective.model, split).shape == (8, 6)
    assert latent_usage(objective.model, split).names == ["z1", "z2", "z3"]
    assert evaluate(objective.model, split, num_samples=5).layers is None
