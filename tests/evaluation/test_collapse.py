"""The verdict on posterior collapse: which dimensions carry nothing, how sure, and what to try."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from subo import (
    VAE,
    BernoulliPrior,
    CategoricalPrior,
    Conditional,
    Gaussian,
    InputError,
    InverseAutoregressiveFlow,
    OneHotCategorical,
    StandardNormal,
    mlp,
    probabilistic_pca,
)
from subo import Bernoulli as BernoulliFamily
from subo.data.splits import Split
from subo.evaluation import LatentUsage, latent_usage
from subo.evaluation.latents.collapse import Verdict, verdict


class Slopes(nn.Module):
    """``q(z_d|x) = N(a_d x, s_d^2)``, so that ``KL_d = (a_d^2 x^2 + s_d^2 - 1) / 2 - log s_d``."""

    def __init__(self, slopes: Tensor, scales: Tensor):
        super().__init__()
        self.slopes, self.scales = slopes, scales

    def forward(self, x: Tensor) -> Distribution:
        return Independent(Normal(x * self.slopes, self.scales.expand(len(x), -1)), 1)


def judged(slopes: list[float], scales: list[float] | None = None, *, num: int = 1000, **options: Any) -> Verdict:
    model = VAE(
        StandardNormal(len(slopes)),
        Conditional(Gaussian((1,)), nn.Linear(len(slopes), 2)),
        Slopes(torch.tensor(slopes), torch.tensor(scales or [1.0] * len(slopes))),
    )
    return verdict(latent_usage(model, Split(torch.linspace(-1, 1, num).unsqueeze(1))), **options)


def of(kl: list[float], variance: list[float], *, share: list[float] | None = None, num: int = 1000) -> LatentUsage:
    means, spread = torch.zeros(num, len(variance)), torch.tensor(variance)
    if share is None:
        return LatentUsage(means, spread, spread > 0.01, None)
    return LatentUsage(means, spread, spread > 0.01, torch.tensor(kl), torch.tensor(share))


def test_the_share_of_collapsed_data_is_that_of_small_divergences():
    """``(0.2 x)^2 / 2 < 0.01`` where ``|x| < 0.707``; with a scale of 0.8 no example's posterior is the prior."""
    model = VAE(
        StandardNormal(3),
        Conditional(Gaussian((1,)), nn.Linear(3, 2)),
        Slopes(torch.tensor([0.2, 0.0, 0.0]), torch.tensor([1.0, 1.0, 0.8])),
    )
    usage = latent_usage(model, Split(torch.linspace(-1, 1, 2001).unsqueeze(1)), batch_size=300)
    assert usage.share_collapsed is not None
    assert usage.share_collapsed.tolist() == pytest.approx([0.5**0.5, 1.0, 0.0], abs=1e-3)


def test_a_posterior_that_is_the_prior_has_collapsed():
    found = judged([0.0, 0.0, 0.0], rate=0.0)
    assert found.kind == "full"
    assert found.collapsed == (0, 1, 2)
    assert "the posterior has collapsed" in found.text
    assert "The rate is 0 nats" in found.text
    for option in ("`kl_warmup_epochs=", "`free_bits=", "`beta=", "`updates=aggressive`", "`hidden`"):
        assert option in found.text
    assert "The only latent dimension carries nothing" in judged([0.0]).text


def test_dimensions_that_carry_nothing_beside_others_are_pruned():
    found = judged([1.0, 1.0, 0, 0, 0, 0, 0, 1.0, 1.0, 0, 1.0, 0, 0])
    assert found.kind == "partial"
    assert found.collapsed == (2, 3, 4, 5, 6, 9, 11, 12)
    assert "Dimensions 3-7, 10, 12, 13 (8 of 13) carry nothing" in found.text
    assert "The other 5 do carry something" in found.text
    assert "not posterior collapse" in found.text
    assert "`updates=" not in found.text
    assert "Dimension 2 (1 of 2) carries nothing" in judged([1.0, 0.0]).text


def test_nothing_has_collapsed_where_all_dimensions_are_used():
    found = judged([1.0, 2.0])
    assert (found.kind, found.collapsed) == ("none", ())
    assert "not collapsed: in all 2 latent dimensions it differs from the prior" in found.text
    assert "`" not in found.text


def test_a_few_data_do_not_keep_a_dimension_alive():
    """Delta is 0.01: a share of 99% and more has collapsed."""
    alive, gone = of([0.2], [0.1], share=[0.989]), of([0.2], [0.0], share=[0.991])
    assert verdict(alive).kind == "none"
    assert verdict(gone).kind == "full"


def test_a_constant_posterior_that_is_not_the_prior_is_a_border_case():
    found = judged([1.0, 0.0], [1.0, 0.5])
    assert found.kind == "none"
    assert "Dimension 2 is a borderline case" in found.text
    assert "mutual information" not in found.text
    assert "see whether the mutual information" in judged([0.0, 0.0], [1.0, 0.5]).text
    assert "border" not in judged([1.0, 0.0]).text
    assert "Dimensions 2, 3 are borderline cases" in judged([1.0, 0.0, 0.0], [1.0, 0.5, 0.5]).text


def test_a_rate_of_nothing_is_a_collapse_whatever_the_dimensions_say():
    usage = of([], [0.02, 0.02])
    assert verdict(usage, rate=1.0).kind == "none"
    assert verdict(usage).kind == "none"
    found = verdict(usage, rate=0.009)
    assert (found.kind, found.collapsed) == ("full", (0, 1))


def test_active_units_judge_where_no_divergence_is_known():
    family = InverseAutoregressiveFlow((2,), transforms=1, hidden=(8,))
    posterior = Conditional(family, mlp(1, family.num_params, hidden=(8,)))
    model = VAE(StandardNormal(2), Conditional(Gaussian((1,)), nn.Linear(2, 2)), posterior)
    usage = latent_usage(model, Split(torch.randn(50, 1)))
    assert usage.share_collapsed is None
    assert "by the variance of the posterior means" in verdict(usage).text
    found = verdict(of([], [0.5, 0.005, 0.02]))
    assert (found.kind, found.collapsed) == ("partial", (1,))
    assert "its posterior means barely vary" in found.text
    assert "is the prior" not in found.text


def test_inactive_dimensions_beside_a_rate_are_no_collapse():
    found = verdict(of([], [0.005, 0.0]), rate=0.5)
    assert (found.kind, found.collapsed) == ("none", ())
    assert "has not collapsed: the rate is 0.5 nats" in found.text
    assert "in all 2 latent dimensions" in found.text
    assert verdict(of([], [0.005, 0.0]), rate=0.05).kind == "full"


def test_bits_and_categories_are_judged_one_by_one():
    bits = Conditional(BernoulliFamily((2,)), nn.Linear(1, 2))
    family = OneHotCategorical((2,), num_classes=3)
    categories = Conditional(family, nn.Linear(1, 6))
    for posterior, prior, width in ((bits, BernoulliPrior(2), 2), (categories, CategoricalPrior(2, num_classes=3), 6)):
        with torch.no_grad():
            network: Any = posterior.network
            network.bias.zero_()
            network.weight.zero_()
            network.weight[: width // 2].copy_(torch.tensor([[5.0], [0.0], [-5.0]])[: width // 2])
        model = VAE(prior, Conditional(Gaussian((1,)), nn.Linear(width, 2)), posterior)
        model.likelihood.network = nn.Sequential(nn.Flatten(), model.likelihood.network)
        assert verdict(latent_usage(model, Split(torch.randn(400, 1)))).collapsed == (1,)


def test_the_verdict_says_how_sure_it_is():
    assert "is below 0.01 nats on 99%" in judged([0.0]).text
    assert "too few" not in judged([0.0]).text
    assert "50 examples bound that share to 6% only" in judged([0.0], num=50).text
    with pytest.raises(InputError, match="judged from data, but there are none"):
        verdict(of([], [0.0], num=0))


def test_no_data_are_refused():
    with pytest.raises(InputError, match="there are no data"):
        latent_usage(probabilistic_pca(5, 2), Split(torch.zeros(0, 5)))


def test_the_advice_goes_by_how_the_model_was_trained():
    text = told_by(settings={"beta": 200.0, "free_bits": 0.0})
    assert "What to try: lower `beta` to 1 (at 200 the KL weighs 200 times" in text
    assert "`beta=0.5`" not in text
    assert "What to try: let the KL come in slowly (`kl_warmup_epochs=50`)" in told_by()
    tried = told_by(settings={"beta": 0.5, "free_bits": 2.0, "kl_warmup_epochs": 30.0, "updates": "aggressive"})
    for words in ("more slowly (`kl_warmup_epochs=60`)", "`free_bits=4`", "`beta=0.25`"):
        assert words in tried
    assert "aggressive" not in tried
    of_iwae = told_by(settings={"bound": "iwae", "beta": 1.0})  # which has no KL to weigh
    assert "`bound=elbo` can" in of_iwae
    assert "weigh it less" not in of_iwae
    partial = verdict(of([0.0, 3.0], [0.0, 2.0], share=[1.0, 0.0]), 3.0, settings={"beta": 4.0}).text
    assert "lower `beta` to 1 (at 4" in partial


def told_by(**options: Any) -> str:
    return verdict(of([0.0], [0.0], share=[1.0]), 0.0, **options).text
