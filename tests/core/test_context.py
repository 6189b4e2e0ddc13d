"""Any tensor as context: a linear model whose log p(x|c) is known, rows that stay together, what is refused."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal
from torch.testing import assert_close

from assertions import assert_refused
from shapes import unchecked_shapes
from subo import ELBO, VAE, Emission, Gaussian, HiddenMarkov, Objective, StandardNormal, evaluate, fit, infer, train
from subo.data.batches import batches
from subo.data.dataset import Data, split
from subo.data.loading import _joined
from subo.data.splits import Split
from subo.evaluation import (
    ais,
    bdmc,
    calibrate,
    forecast,
    gaps,
    latent_usage,
    log_marginal,
    mutual_information,
    score,
    total_correlation,
)
from subo.evaluation import log_marginal_from_prior as from_prior
from subo.evaluation.evidence.annealed import Annealing
from subo.evaluation.gradient_statistics import gradient_statistics
from subo.evaluation.reconstruction import decode, reconstruct
from subo.inference.ascent import Ascent
from subo.models.emission import Steps
from subo.models.markov import Markov
from subo.recipes.for_data import examples_of
from subo.report.class_pictures import prior_of
from subo.report.pictures import draw_latent_plane
from subo.runtime.devices import make_fabric, place

Z, D, C, NOISE = 2, 4, 3, 0.5


class Prior(nn.Module):
    """``p(z|c) = N(M c, I)``."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(Z, C))

    def forward(self, c: Tensor) -> Distribution:
        return Independent(Normal(c @ self.weight.mT, 1.0), 1)


class Regression(nn.Module):
    """``p(x|z, c) = N(W z + V c + b, s^2 I)``."""

    def __init__(self):
        super().__init__()
        self.weight, self.slope = nn.Parameter(torch.randn(D, Z)), nn.Parameter(torch.randn(D, C))
        self.bias = nn.Parameter(torch.randn(D))

    def forward(self, z: Tensor, c: Tensor) -> Distribution:
        return Independent(Normal(z @ self.weight.mT + c @ self.slope.mT + self.bias, NOISE), 1)


class Posterior(nn.Module):
    """``p(z|x, c)``, exact; or with its deviations too large, and each dimension by itself."""

    def __init__(self, prior: nn.Module, likelihood: Regression, *, width: float | None = None):
        super().__init__()
        self._of, self.width = (prior, likelihood), width

    def forward(self, x: Tensor, c: Tensor) -> Distribution:
        prior, p = self._of
        precision = torch.eye(Z).to(x) + p.weight.mT @ p.weight / NOISE**2
        told = (x - c @ p.slope.mT - p.bias) @ p.weight / NOISE**2
        if isinstance(prior, Prior):
            told = told + c @ prior.weight.mT
        mean = torch.linalg.solve(precision, told.mT).mT
        if self.width is not None:
            return Independent(Normal(mean, self.width * precision.diagonal().rsqrt().expand_as(mean)), 1)
        return MultivariateNormal(mean, precision_matrix=precision.expand(len(x), Z, Z))


def linear_model(*, prior: nn.Module | None = None, width: float | None = None) -> VAE:
    prior, likelihood = (prior or Prior()).double(), Regression().double()
    return VAE(prior, likelihood, Posterior(prior, likelihood, width=width))


def evidence(model: VAE, c: Tensor) -> MultivariateNormal:
    """``p(x|c)`` in closed form."""
    p = model.likelihood
    mean = c @ (p.slope + p.weight @ model.prior.weight).mT + p.bias
    return MultivariateNormal(mean, p.weight @ p.weight.mT + NOISE**2 * torch.eye(D).to(c))


def data_of(model: VAE, num: int) -> tuple[Tensor, Tensor]:
    c = torch.randn(num, C, dtype=torch.float64)
    return evidence(model, c).sample().detach(), c


# What is measured is log p(x|c)


def test_with_the_exact_posterior_evaluation_gives_log_p_of_x_given_c():
    model = linear_model()
    x, c = data_of(model, 230)  # several batches
    data = Split(x, context={"c": c})
    truth = evidence(model, c).log_prob(x).detach()
    assert_close(score(model, data, num_samples=3).log_px, truth)
    result = evaluate(model, data, num_samples=3)
    assert [result.log_px, result.log_px_se] == pytest.approx([truth.mean().item(), truth.std().item() / 230**0.5])
    shuffled = c[torch.randperm(230)]
    wrong = evidence(model, shuffled).log_prob(x).detach()
    assert_close(score(model, replace(data, context={"c": shuffled}), num_samples=3).log_px, wrong)
    assert wrong.mean() < truth.mean() - 1


def test_with_another_posterior_the_estimate_is_within_its_error():
    model = linear_model(width=1.3)
    x, c = data_of(model, 40)
    found = score(model, Split(x, context={"c": c}), num_samples=2000)
    assert ((found.log_px - evidence(model, c).log_prob(x)).abs() < 5 * found.standard_error).all()
    assert found.standard_error.max() < 0.2


def test_what_else_is_measured_of_a_split_is_told_its_context():
    model = linear_model()
    x, c = data_of(model, 30)
    data = Split(x, context={"c": c})
    posterior = model.posterior(x, c)
    assert_close(latent_usage(model, data).means, posterior.mean.detach(), check_dtype=False)
    assert_close(reconstruct(model, data), model.likelihood(posterior.mean, c).mean.detach())
    information = mutual_information(model, data, num_samples=20)
    # every example has a prior of its own: no density that the aggregate posterior could be compared with
    assert (information.marginal_kl, information.given, information.received) == (None, (), ("c",))
    assert 0 < information.value < information.ceiling == math.log(30)
    correlation = total_correlation(model, data)
    assert correlation is not None
    assert (correlation.marginal_kl, correlation.dimension_kl) == (None, None)
    assert correlation.value > -5 * correlation.standard_error
    sandwich = bdmc(model, 30, {"c": c}, estimator="importance", num_samples=10)
    assert_close(sandwich.lower, sandwich.upper)
    assert calibrate(model, 200, num_ranks=19, num_bins=10, context={"c": c.repeat(7, 1)[:200]}).is_calibrated


def test_the_prior_of_the_latent_plane_is_mixed_over_the_data():
    model = linear_model()
    x, c = data_of(model, 20)
    data = Split(x, context={"c": c})
    z = torch.randn(6, Z, dtype=torch.float64)
    of_each = model.prior(c).log_prob(z.unsqueeze(1))
    assert_close(prior_of(model, context={"c": c}).log_prob(z), of_each.logsumexp(1) - math.log(20))
    shared = linear_model(prior=StandardNormal(Z))
    assert_close(prior_of(shared, context={"c": c}).log_prob(z), shared.prior().log_prob(z))
    assert len(draw_latent_plane(model, latent_usage(model, data), data).axes) == 1


def test_local_search_and_the_gaps_are_told_the_context():
    model = linear_model(width=1.0)
    x, c = data_of(model, 4)
    exact, data = model.posterior(x, c).mean, Split(x, context={"c": c})
    x, context = data.read(torch.arange(4))
    fitted = infer(model, x, context, family=Gaussian((Z,)), ascent=Ascent(steps=400))
    assert (fitted.q.mean - exact).abs().max() < 0.1
    found = gaps(model, x, context, family=Gaussian((Z,)), ascent=Ascent(steps=100), annealing=None, richer=None)
    assert ((found.log_px - evidence(model, c).log_prob(x)).abs() < 5 * found.log_px_se).all()


# What is fitted


def test_a_fit_by_exact_gradients_is_least_squares():
    """With one covariance for all data, the slope of largest likelihood is that of least squares, whatever it is."""
    truth = linear_model()
    x, c = data_of(truth, 60)
    model = linear_model(prior=StandardNormal(Z))
    model.likelihood.weight.requires_grad_(False).mul_(0.3)  # W stays, and the problem is a convex one
    objective = Objective(model, ELBO(closed_form_kl=False))  # every log-weight is log p(x|c): no noise
    options: dict[str, Any] = {"batch_size": 60, "learning_rate": 0.1, "decay": "cosine"}
    fit(objective, Split(x, context={"c": c}), epochs=300, fabric=make_fabric(precision="64-true"), **options)
    design = torch.cat([c, torch.ones_like(c[:, :1])], 1)
    best = torch.linalg.lstsq(design, x).solution.mT
    assert_close(model.likelihood.slope.detach(), best[:, :C], atol=1e-3, rtol=0)
    assert_close(model.likelihood.bias.detach(), best[:, C], atol=1e-3, rtol=0)


def test_a_fit_on_three_splits_keeps_to_the_models_precision():
    """Covariates of 64 bits beside a model of 32; counts stay counts."""
    x, c = data_of(linear_model(), 40)
    parts = split(x.float(), context={"c": c, "count": torch.arange(40)})
    model = linear_model(prior=StandardNormal(Z)).float()
    history = fit(Objective(model), Data("x", *parts, kind="real"), epochs=2, batch_size=10)
    assert len(history.epochs) == 2
    assert evaluate(model, parts[2], num_samples=10).num_data == 4
    _, context = place(model, *parts[0].read(torch.arange(3)))
    assert {name: tensor.dtype for name, tensor in context.items()} == {
        "index": torch.long, "c": torch.float32, "count": torch.long
    }  # fmt: skip
    assert place(None, torch.zeros(3), {"c": c})[1]["c"].dtype == torch.float64


def test_a_name_that_the_data_lack_is_told():
    with assert_refused("needs the context 'c'"):
        fit(Objective(linear_model()), torch.zeros(10, D, dtype=torch.float64), epochs=1)


# Sequences


class Shifted(nn.Module):
    """``p(x_t | z_t, c) = N(z_t + c, s^2)``, with one c for a sequence."""

    def __init__(self):
        super().__init__()
        self.family = Gaussian((1,), min_scale=1e-3)

    def forward(self, z: Tensor, c: Tensor, mask: Tensor | None = None) -> Steps:
        loc = (z + c.unsqueeze(1)).flatten(0, 1)
        return Steps(self.family(torch.cat([loc, torch.full_like(loc, -9.0)], 1)), (len(z),), mask=mask)


class Still(nn.Module):
    """A state near 0, whatever the last one."""

    def forward(self, *before: Tensor) -> Distribution:
        loc = torch.zeros_like(before[0]) if before else torch.zeros(1)
        return Independent(Normal(loc, 1e-3), 1)


class Guess(nn.Module):
    """A chain that knows as little."""

    def __init__(self):
        super().__init__()
        self.chain = Markov(Still(), Still())

    def forward(self, x: Tensor, mask: Tensor) -> Distribution:
        return self.chain(mask)


def sequences() -> Split:
    lengths, c = torch.tensor([3, 1, 4, 2]), torch.tensor([[0.0], [10.0], [20.0], [30.0]])
    return Split(c.repeat_interleave(lengths, 0).clone(), lengths=lengths, context={"c": c})


@unchecked_shapes()
def test_sequences_are_forecast_and_measured_given_their_context():
    model = VAE(Markov(Still(), Still()), Shifted(), Guess())
    data = sequences()
    found = forecast(model, data, steps=2, num_samples=50)
    assert_close(found.mean, data.context["c"].unsqueeze(1).expand(4, 2, 1), atol=5e-3, rtol=0)
    assert evaluate(model, data, num_samples=5).at_floor is not None
    assert examples_of(data, seed=0).shape == (10, 1)


# Rows stay together


def numbered(num: int = 23, **options: Any) -> Split:
    """Data whose context tells which example it is."""
    number = torch.arange(num)
    context = {"c": 10.0 * number.unsqueeze(1).repeat(1, 2), "plane": 2 * number[:, None, None]}
    return Split(number.unsqueeze(1).float(), labels=3 * number, context=context, **options)


def assert_together(x: Tensor, context: Any) -> None:
    number = x.flatten(1)[:, 0]
    assert torch.equal(context["c"], 10 * number.unsqueeze(1).repeat(1, 2))
    assert torch.equal(context["plane"][:, 0, 0], 2 * number.long())


def test_rows_and_context_are_read_taken_split_and_joined_together():
    data = numbered()
    index = torch.tensor([7, 2, 2, 22])
    x, context = data.read(index)
    assert list(context) == ["index", "label", "c", "plane"]
    assert_together(x, context)
    taken = data.take(index)
    assert_together(taken.x, taken.context)
    parts = split(data.x, labels=data.labels, context=data.context, seed=1)
    for part in parts:
        assert_together(part.x, part.context)
    whole = _joined(*parts)
    assert len(whole) == 23
    assert_together(whole.x, whole.context)
    fewer = _joined(parts[0], replace(parts[1], context={"plane": parts[1].context["plane"]}))
    assert set(fewer.context) == {"plane"}
    named = Data("x", *parts, kind="real")
    assert_together(*named.test.read(torch.arange(len(named.test))))
    assert repr(data) == "Split(23 of shape (1,), float32, labels, c, plane)"


def test_a_draw_keeps_the_context():
    grey = Split(torch.full((5, 2), 128, dtype=torch.uint8), levels=255, resample=True, context={"c": torch.arange(5)})
    for part in (grey, replace(grey, dequantize=True)):
        assert part.drawn(torch.Generator()).context["c"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("resample", [False, True])
def test_batches_of_every_epoch_keep_rows_together(world_size: int, resample: bool):
    data = numbered()
    data = replace(data, x=data.x / 23, resample=resample)  # bits tell little, their index all
    for epoch in range(3):
        seen = []
        for rank in range(world_size):
            for batch in batches(data, 5, seed=0, epoch=epoch, rank=rank, world_size=world_size):
                assert_together(batch.context["index"].unsqueeze(1).float(), batch.context)
                seen += batch.context["index"].tolist()
        assert set(seen) == set(range(23))


def test_sequences_keep_their_context():
    data = sequences()
    taken = data.take(torch.tensor([2, 0]))
    assert taken.context["c"].flatten().tolist() == [20, 0]
    for batch in batches(data, 3, seed=0, epoch=0):
        c = batch.context["c"].unsqueeze(1).expand_as(batch.x)[batch.context["mask"]]
        assert torch.equal(batch.x[batch.context["mask"]], c)


def test_the_fingerprint_tells_contexts_apart():
    def print_of(**context: Tensor) -> str:
        x = torch.zeros(4, 2)
        return Data("x", *[Split(x, context=context)] * 3, kind="real").fingerprint

    c, zero = torch.arange(4.0), torch.zeros(4)
    prints = [print_of(), print_of(c=c), print_of(d=c), print_of(c=c.flip(0)), print_of(c=c, d=zero),
              print_of(c=zero, d=c)]  # fmt: skip
    assert len(set(prints)) == len(prints)
    assert print_of(d=c, c=zero) == prints[-1]


# What is refused


@unchecked_shapes()
def test_a_split_refuses_what_is_no_context():
    x = torch.zeros(20, 2)
    for num in (30, 5, 1):
        with assert_refused("'label'", f"{num} rows for 20 examples"):
            Split(x, labels=torch.zeros(num, dtype=torch.long))
        with assert_refused("'c'", f"{num} rows for 20 examples"):
            Split(x, context={"c": torch.zeros(num, 2)})
    with assert_refused("'c'", "20 rows for 2 examples"):
        Split(x, lengths=torch.tensor([15, 5]), context={"c": torch.zeros(20)})
    with assert_refused("'c'", "single number"):
        Split(x, context={"c": torch.tensor(2.0)})
    with assert_refused("'c'", "ndarray", "torch.as_tensor"):
        Split(x, context={"c": np.zeros(20)})  # pyright: ignore[reportArgumentType]
    for name, mend in (("index", "numbers"), ("label", "labels"), ("mask", "lengths")):
        with assert_refused(f"'{name}'", mend, "another name"):
            Split(x, context={name: torch.zeros(20)})
    with assert_refused("'c'", "19 rows for 20 examples"):
        split(x, context={"c": torch.zeros(19)})


@pytest.mark.parametrize("num", [9, 3, 1])
def test_a_context_of_another_length_is_refused_wherever_it_comes_in(num: int):
    model = linear_model()
    x, c = data_of(model, 5)
    context = {"c": torch.zeros(num, C, dtype=torch.float64)}
    calls = (
        lambda: log_marginal(model, x, context, num_samples=2),
        lambda: from_prior(model, x, context, num_samples=2),
        lambda: infer(model, x, context, family=Gaussian((Z,)), ascent=Ascent(steps=1)),
        lambda: ais(model, x, context, annealing=Annealing(temperatures=2)),
        lambda: gaps(model, x, context),
        lambda: bdmc(model, 5, context, estimator="importance"),
        lambda: gradient_statistics(model, x, context, draws=20),
        lambda: decode(model, torch.zeros(5, Z, dtype=torch.float64), context),
        lambda: next(train(Objective(model), [(x, context)])),
    )
    for call in calls:
        with assert_refused("'c'", f"{num} rows for 5 examples"):
            call()
    with assert_refused("'c'", f"{num} rows for 100 examples"):
        calibrate(model, 100, num_ranks=19, num_bins=10, context=context)
    assert log_marginal(model, x, {"c": c}, num_samples=2).log_px.shape == (5,)


@unchecked_shapes()
def test_a_mask_of_another_length_is_refused():
    model, x = HiddenMarkov(2, Gaussian((1,))), torch.zeros(2, 3, 1)
    for mask in (torch.ones(1, 3, dtype=torch.bool), torch.ones(3, 3, dtype=torch.bool)):
        for call in (model.log_px, model.posterior_marginals, model.most_likely_path):
            with assert_refused("'mask'", f"{len(mask)} rows for 2 examples"):
                call(x, mask)
        with assert_refused("'mask'", f"{len(mask)} rows for 2 examples"):
            Emission(Gaussian((1,)), nn.Linear(1, 2))(x, mask)
    assert model.log_px(x, torch.ones(2, 3, dtype=torch.bool)).shape == (2,)
