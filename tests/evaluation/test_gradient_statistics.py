"""Statistics of gradient estimators, against a model whose gradients have a mean and variance in closed form."""

import math
import weakref

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.testing import assert_close

from catalog import vae
from shapes import unchecked_shapes
from subo import (
    ELBO,
    IWAE,
    VAE,
    BernoulliPrior,
    Conditional,
    DReG,
    InputError,
    Local,
    Pathwise,
    ScoreFunction,
    StandardNormal,
    StraightThrough,
    mlp,
)
from subo.core.bounds import Bound
from subo.core.draw import Draw
from subo.distributions.gaussian import Gaussian
from subo.evaluation.gradient_draws import STANDARD, GradientDraws, standard_estimators
from subo.evaluation.gradient_signal import Signal, signal_of
from subo.evaluation.gradient_statistics import GradientStatistics, gradient_statistics, refusals
from subo.parts import families, location_scale
from subo.typing import Context

MU, B, SCALE = 0.4, -0.2, 0.7


class Place(nn.Module):
    """``q(z|x) = N(mu, scale)``: one parameter."""

    def __init__(self, scale: float = 1.0):
        super().__init__()
        self.mu, self.scale = nn.Parameter(torch.tensor(MU, dtype=torch.float64)), scale

    def forward(self, x: Tensor) -> Distribution:
        return Gaussian(self.mu.expand(len(x), 1), torch.full((), self.scale, dtype=torch.float64), 1)


class Shift(nn.Module):
    """``p(x|z) = N(z + b, s)``: one parameter."""

    def __init__(self):
        super().__init__()
        self.b = nn.Parameter(torch.tensor(B, dtype=torch.float64))

    def forward(self, z: Tensor) -> Distribution:
        return Gaussian(z + self.b, torch.tensor(SCALE, dtype=torch.float64), 1)


def toy(scale: float = 1.0) -> VAE:
    return VAE(StandardNormal(1).double(), Shift(), Place(scale))


def example(gap: float) -> Tensor:
    """One x, this far from what the middle of q decodes to."""
    return torch.full((1, 1), MU + B + gap, dtype=torch.float64)


def by_name(records: list[GradientStatistics], part: str = "phi") -> dict[str, GradientStatistics]:
    return {record.estimator: record for record in records if record.part == part}


@unchecked_shapes()
def test_the_statistics_are_those_of_the_closed_form():
    """``z = mu + e``, ``d = x - mu - b``: pathwise ``(d - e) / s^2 - mu``, score ``e f(e) - mu``, f quadratic in e."""
    d, draws = 2.0, 1000
    estimators = {"pathwise": Pathwise(), "score": ScoreFunction("none")}
    found = gradient_statistics(toy(), example(d), estimators=estimators, draws=draws)
    phi, theta = by_name(found), by_name(found, "theta")
    mean, variance = d / SCALE**2 - MU, 1 / SCALE**4
    # of e f(e) = a e + g e^2 + h e^3, with E e^2 = 1, E e^4 = 3, E e^6 = 15
    a, g, h = -math.log(SCALE * math.sqrt(2 * math.pi)) - d**2 / (2 * SCALE**2), d / SCALE**2, -1 / (2 * SCALE**2)
    noisy = a**2 + 2 * g**2 + 15 * h**2 + 6 * a * h
    e = np.random.default_rng(0).normal(size=1_000_000)
    fourth = ((a * e + g * e**2 + h * e**3 - g) ** 4).mean()
    spread = {"pathwise": variance * math.sqrt(2 / draws), "score": math.sqrt((fourth - noisy**2) / draws)}
    for name, truth in (("pathwise", variance), ("score", noisy)):
        record = phi[name]
        assert abs(record.variance - truth) < 5 * spread[name]
        assert record.mean_norm is not None
        assert record.signal_to_noise is not None
        error = (record.mean_norm_high - record.mean_norm_low) / 2 / 1.96
        assert error == pytest.approx(math.sqrt(truth / draws), rel=0.25)
        assert abs(record.mean_norm - mean) < 5 * error
        assert record.mean_norm**2 == pytest.approx(record.squared_norm)
        assert record.signal_to_noise == pytest.approx(record.mean_norm / math.sqrt(record.variance))
        of_mean, of_trace = error / record.mean_norm, spread[name] / truth / 2
        width = (record.signal_to_noise_high - record.signal_to_noise_low) / 2 / 1.96
        assert width == pytest.approx(record.signal_to_noise * math.hypot(of_mean, of_trace), rel=0.3)
        assert abs(theta[name].variance - variance) < 5 * spread["pathwise"]
        assert abs((theta[name].mean_norm or 0) - d / SCALE**2) < 5 * math.sqrt(variance / draws)
        assert (record.draws, record.bound, record.num_samples) == (draws, "ELBO", 1)
        assert record.seconds > 0
    assert phi["pathwise"].bias is None
    assert abs(phi["score"].bias or 0) < 4


@unchecked_shapes()
def test_the_mean_of_a_batch_has_its_share_of_the_variance():
    (one, *_), (many, *_) = (
        gradient_statistics(toy(), example(2.0).expand(count, 1), estimators={"p": Pathwise()}, draws=1000)
        for count in (1, 10)
    )
    assert many.variance == pytest.approx(one.variance / 10, rel=5 * math.sqrt(4 / 1000))


def test_noise_alone_is_no_signal():
    """At the optimum the gradient's mean is 0, and the norm of n draws' mean is not."""
    x = example(MU * SCALE**2)
    record = by_name(gradient_statistics(toy(), x, estimators={"p": Pathwise()}, draws=400))["p"]
    assert record.mean_norm_low == record.signal_to_noise_low == 0
    assert record.mean_norm_high < 5 / SCALE**2 / 20
    assert abs(record.squared_norm) < 5 * math.sqrt(2) / SCALE**4 / 400


def size_of(g: Tensor) -> Signal:
    """Of the mean of vectors, of which the first half are in eight blocks."""
    parts = g[: len(g) // 2].tensor_split(8)
    blocks, others = torch.stack([part.mean(0) for part in parts]), g[len(g) // 2 :]
    return signal_of(
        g.mean(0),
        g.var(0).sum().item(),
        count=len(g),
        blocks=blocks,
        sizes=torch.tensor([len(part) for part in parts], dtype=torch.float64),
        projections=others @ blocks.mT,
        distances=(others - g[: len(g) // 2].mean(0)).square().sum(1),
    )


def test_the_size_of_the_mean_is_that_of_all_gradients_drawn(monkeypatch: pytest.MonkeyPatch):
    drawn: list[Tensor] = []
    draw = GradientDraws.draw

    def watched(self: GradientDraws) -> tuple[dict[str, Tensor], float]:
        gradient, seconds = draw(self)
        drawn.append(torch.cat([gradient["phi"], gradient["theta"]]))
        return gradient, seconds

    monkeypatch.setattr(GradientDraws, "draw", watched)
    x = example(1.0)
    record = by_name(gradient_statistics(toy(), x, estimators={"p": Pathwise()}, draws=45))["p"]
    found = size_of(torch.stack(drawn)[:, :1])
    assert record.squared_norm == pytest.approx(found.squared_norm)
    assert (record.mean_norm_low, record.mean_norm_high) == pytest.approx(found.norm_interval)
    assert (record.signal_to_noise_low, record.signal_to_noise_high) == pytest.approx(found.ratio_interval)


SPIKE = [1.0, *[0.2] * 49]


@unchecked_shapes()
@pytest.mark.parametrize(
    ("scales", "place", "sizes"),
    [
        ([1.0], 0, (0.0, 1.0, 2.0, 4.0)),  # |mean| in standard errors along it: 1.15 was printed as 0 in 17% of seeds
        ([1.0] * 30, 0, (0.0, 2.0, 5.0, 15.0)),
        (SPIKE, 0, (0.0, 2.0, 5.0)),  # all of the signal where the noise is
        (SPIKE, 1, (0.3, 1.0, 2.0)),  # and where it is not
    ],
)
@pytest.mark.slow
def test_the_intervals_cover_the_size_of_the_mean_in_95_of_a_hundred_cases(scales, place, sizes):
    """Estimate and error of the norm covered it in 72 to 88%; the squared norm is unbiased, and no interval is 0."""
    scale, count, cases = torch.tensor(scales, dtype=torch.float64), 100, 400
    trace = scale.square().sum().item()
    for size in sizes:
        truth, mean = size / math.sqrt(count), torch.zeros_like(scale)
        mean[place] = truth
        found = [size_of(mean + scale * torch.randn(count, len(scale), dtype=torch.float64)) for _ in range(cases)]
        covers = sum(r.norm_interval[0] <= truth <= r.norm_interval[1] for r in found)
        of_ratio = sum(r.ratio_interval[0] <= truth / trace**0.5 <= r.ratio_interval[1] for r in found)
        # of 400 that cover with probability 0.95, fewer than 365 do in one of a thousand cases
        assert min(covers, of_ratio) >= 365, (size, covers, of_ratio)
        squares = np.array([r.squared_norm for r in found])
        assert abs(squares.mean() - truth**2) < 5 * squares.std() / cases**0.5
        assert all(r.norm_interval[1] > 0 for r in found)
        assert [r.norm is None for r in found] == [r.squared_norm <= 0 for r in found]


class Scaled(Pathwise):
    def surrogate(self, draw: Draw, bound: Bound, x: Tensor, context: Context | None = None) -> Tensor:
        return 1.1 * bound(draw)


class Drawn(Pathwise):
    """Also pulls phi upwards."""

    def surrogate(self, draw: Draw, bound: Bound, x: Tensor, context: Context | None = None) -> Tensor:
        return bound(draw) + 2 * draw.q.mean.sum(-1)


@unchecked_shapes()
def test_a_bias_is_found_and_none_where_there_is_none():
    estimators = {"pathwise": Pathwise(), "again": Pathwise(), "scaled": Scaled()}
    found = by_name(gradient_statistics(toy(), example(6.0), estimators=estimators, draws=400))
    assert abs(found["again"].bias or 0) < 4
    assert (found["scaled"].bias or 0) > 4
    at_optimum = {"pathwise": Pathwise(), "drawn": Drawn()}  # where the mean gives no direction
    found = by_name(gradient_statistics(toy(), example(MU * SCALE**2), estimators=at_optimum, draws=400))
    assert abs(found["drawn"].bias or 0) > 4


@unchecked_shapes()
@pytest.mark.slow
def test_the_bias_of_an_unbiased_estimator_is_a_standard_normal_of_two():
    torch.manual_seed(1)
    model, x = vae(), torch.rand(3, 6).round()
    estimators = {"one": Pathwise(), "other": Pathwise()}
    zs = []
    for seed in range(30):
        found = gradient_statistics(model, x, estimators=estimators, draws=40, seed=seed)
        zs += [record.bias for record in found if record.bias is not None]
    assert len(zs) == 60
    assert np.mean(np.abs(zs) > 2) < 0.25  # 0.09 of independent ones
    assert np.mean(np.abs(zs) > 0.5) > 0.6  # 0.85 of independent ones


def test_what_does_not_vary_has_no_bias_from_rounding():
    """The prior's gradient is that of the closed-form KL, whatever the samples."""

    class Prior(nn.Module):
        def __init__(self):
            super().__init__()
            self.loc = nn.Parameter(torch.full((1,), 0.3))

        def forward(self) -> Distribution:
            return Gaussian(self.loc, torch.tensor(1.0), 1)

    model = VAE(Prior(), Shift().requires_grad_(False), Place()).float()
    estimators = {"pathwise": Pathwise(), "score": ScoreFunction("mean")}
    found = by_name(gradient_statistics(model, example(1.0).float(), estimators=estimators, draws=20), "theta")
    assert abs(found["score"].bias or 0) < 3
    assert found["pathwise"].mean_norm == pytest.approx(0.1, rel=1e-5)


def test_the_signal_falls_with_samples_for_the_pathwise_gradient_and_rises_for_dreg():
    """Rainforth et al., 2018, theorem 1: as K^-1/2; Tucker et al., 2019: as K^1/2."""
    estimators = {"pathwise": Pathwise(), "dreg": DReG()}
    found = gradient_statistics(
        toy(0.9), example(0.5).expand(500, 1), bound=IWAE(), estimators=estimators, num_samples=(8, 128), draws=80
    )
    ratio = {(r.estimator, r.num_samples): r.signal_to_noise or 0.0 for r in found if r.part == "phi"}
    assert 1 / 8 < ratio["pathwise", 128] / ratio["pathwise", 8] < 1 / 2  # theory: 1 / 4
    assert 2 < ratio["dreg", 128] / ratio["dreg", 8] < 8  # theory: 4


@unchecked_shapes()
@pytest.mark.slow
def test_a_baseline_is_fitted_to_the_batch_and_what_was_given_stays_as_it_was():
    x = torch.linspace(-3, 4, 8, dtype=torch.float64).unsqueeze(1)
    network = mlp(1, 1, hidden=(20,)).double()
    before = [parameter.clone() for parameter in network.parameters()]
    estimators = {
        "none": ScoreFunction("none"),
        "mean": ScoreFunction("mean").double(),
        "network": ScoreFunction(network).double(),
    }
    model = toy()
    model.train()
    found = by_name(gradient_statistics(model, x, estimators=estimators, draws=400))
    assert found["network"].variance < 0.8 * found["mean"].variance < 0.64 * found["none"].variance
    assert estimators["mean"].steps == 0
    for parameter, value in zip(network.parameters(), before, strict=True):
        assert_close(parameter, value)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_numbers_are_the_same_again_and_do_not_depend_on_the_other_estimators():
    def phi(*names: str, seed: int = 0) -> list[float | None]:
        estimators = standard_estimators(example(1.0), names)
        found = gradient_statistics(toy(), example(1.0), estimators=estimators, draws=20, seed=seed)
        record = by_name(found)["score-mean"]
        return [record.variance, record.mean_norm, record.signal_to_noise]

    state = torch.get_rng_state()
    assert phi("pathwise", "score-mean") == phi("score-mean")
    assert phi("score-mean") != phi("score-mean", seed=1)
    assert torch.equal(torch.get_rng_state(), state)


def test_no_gradient_is_kept(monkeypatch: pytest.MonkeyPatch):
    drawn: list[weakref.ref] = []
    draw = GradientDraws.draw

    def watched(self: GradientDraws) -> tuple[dict[str, Tensor], float]:
        assert sum(vector() is not None for vector in drawn) <= 4  # of this step and the last
        gradient, seconds = draw(self)
        drawn.extend(weakref.ref(vector) for vector in gradient.values())
        return gradient, seconds

    monkeypatch.setattr(GradientDraws, "draw", watched)
    gradient_statistics(toy(), example(1.0), estimators={"p": Pathwise(), "s": ScoreFunction("none")}, draws=30)
    assert len(drawn) == 120


# Whose parameters are which


def test_the_posterior_is_phi_also_where_the_prior_shares_it():
    model = vae(prior="vamp")
    parts = GradientDraws(model, torch.rand(3, 6), None, ELBO(), Pathwise(), 1).parameters
    assert {id(p) for p in parts["phi"]} == {id(p) for p in model.posterior.parameters()}
    assert any(p is model.prior.raw_inputs for p in parts["theta"])
    found = gradient_statistics(model, torch.rand(3, 6), estimators={"p": Pathwise()}, draws=10)
    assert all(math.isfinite(record.variance) for record in found)


def test_of_free_parameters_the_rows_of_the_batch_count():
    def variance(num_data: int) -> float:
        model = VAE(StandardNormal(1), Conditional(location_scale.Gaussian((1,)), mlp(1, 2)), posterior(num_data))
        torch.manual_seed(3)
        for parameter in model.likelihood.parameters():
            nn.init.normal_(parameter, std=0.3)
        context = {"index": torch.tensor([3, 1])}
        found = gradient_statistics(model, torch.ones(2, 1), context, estimators={"p": Pathwise()}, draws=20)
        return by_name(found)["p"].variance

    def posterior(num_data: int) -> Local:
        return Local(location_scale.Gaussian((1,)), num_data)

    assert variance(5) == pytest.approx(variance(500))


def test_a_part_without_parameters_has_no_record():
    model = toy()
    model.likelihood.requires_grad_(False)
    found = gradient_statistics(model, example(1.0), estimators={"p": Pathwise()}, draws=10)
    assert [record.part for record in found] == ["phi"]
    model.requires_grad_(False)
    with pytest.raises(InputError, match="no trainable parameters"):
        gradient_statistics(model, example(1.0), draws=10)


# Which estimators, and which is the reference


def bits() -> VAE:
    q, p = families.Bernoulli((4,)), families.Bernoulli((6,))
    return VAE(BernoulliPrior(4), Conditional(p, mlp(4, 6)), Conditional(q, mlp(6, 4)))


@unchecked_shapes()
@pytest.mark.slow
def test_discrete_latents_are_compared_with_an_unbiased_estimator_of_low_variance():
    x = torch.rand(5, 6).round()
    found = gradient_statistics(bits(), x, num_samples=(1, 4), draws=10)
    phi = {(r.estimator, r.num_samples): r for r in found if r.part == "phi"}
    assert {name for name, _ in phi} == {
        *(
            "score-leave-one-out",
            "score-network",
            "score-mean",
            "score-none",
            "straight-through",
            "reinmax",
            "gumbel-softmax",
        ),
    }
    assert phi["score-leave-one-out", 4].bias is None
    assert phi["score-network", 1].bias is None
    assert phi["straight-through", 4].biased
    assert not phi["score-none", 4].biased
    found = gradient_statistics(bits(), x, bound=IWAE(), num_samples=(4,), draws=10)
    assert by_name(found)["vimco"].bias is None
    assert by_name(found)["wake-phi"].biased
    lone = gradient_statistics(bits(), x, estimators={"st": StraightThrough()}, draws=10)
    assert all(record.bias is None for record in lone)


def test_refusals_say_why_by_name_and_number_of_samples():
    found = refusals(toy(), example(1.0), bound=IWAE(), num_samples=(1, 4))
    assert ("vimco", 1) in found
    assert ("vimco", 4) not in found
    assert "IWAE" in found["sticking-the-landing", 4]
    assert {"straight-through", "gumbel-softmax", "sticking-the-landing"} <= {name for name, _ in found}
    records = gradient_statistics(toy(), example(1.0), bound=IWAE(), num_samples=(1, 4), draws=10)
    assert {(r.estimator, r.num_samples) for r in records} == {(n, k) for n in STANDARD for k in (1, 4)} - set(found)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"draws": 9}, "at least 10"),
        ({"num_samples": (0, 2)}, "at least 1"),
        ({"num_samples": ()}, "none"),
        ({"reference": "dreg", "estimators": {"p": Pathwise()}}, "'dreg' is not one of the estimators: p"),
        ({"estimators": {"p": Pathwise(), "d": DReG()}}, "d: DReG is the gradient of IWAE"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings, words):
    with pytest.raises(InputError, match=words):
        gradient_statistics(toy(), example(1.0), **settings)


def test_a_name_that_is_none_lists_the_names():
    with pytest.raises(InputError, match="'paths'.*pathwise, sticking-the-landing, dreg"):
        standard_estimators(example(1.0), ["paths"])


def test_a_baseline_of_a_table_is_a_number_where_cells_are_missing():
    x = torch.tensor([[1.0, torch.nan, torch.inf], [torch.nan] * 3, [0.5, 2.0, -1.0]])
    network = next(part for part in standard_estimators(x, ["score-network"])["score-network"].children())
    assert network(x).isfinite().all()
