"""Where the loss is: gaps against closed forms and quadrature."""

import math
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal, kl_divergence

from quadrature import exact_log_px, skewed_data, skewed_model
from shapes import unchecked_shapes
from subo import (
    VAE,
    Bernoulli,
    Conditional,
    FullRankGaussian,
    Gaussian,
    InputError,
    InverseAutoregressiveFlow,
    Local,
    StandardNormal,
    mlp,
)
from subo.evaluation.evidence.annealed import AnnealedEstimate, Annealing
from subo.evaluation.gaps import Gaps, gaps
from subo.figures.gaps import gap_bars, gap_curves, gaps_per_datum
from subo.gradients import StickingTheLanding
from subo.inference.ascent import Ascent
from subo.models.probabilistic_pca import ExactPosterior, LinearGaussian, MeanFieldPosterior
from subo.parts.coupling_flow import CouplingFlow

D, d = 5, 3


class Fixed(nn.Module):
    """An encoder by hand: ``params`` a linear function of x."""

    def __init__(self, weight: Tensor, bias: Tensor):
        super().__init__()
        self.linear = nn.Linear(len(weight.mT), len(bias)).double()
        self.linear.weight.data, self.linear.bias.data = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


def linear() -> LinearGaussian:
    """Correlated latents, so that a diagonal q lacks something."""
    torch.manual_seed(4)
    likelihood = LinearGaussian(D, d).double()
    likelihood.weight.data = 0.8 * (torch.randn(D, 1) + 0.5 * torch.randn(D, d)).double()
    return likelihood


def model_with(likelihood: LinearGaussian, shift: float = 0.0, raw: float = 0.0) -> VAE:
    """An encoder whose means are those of the exact posterior, shifted, and whose scales are softplus(raw)."""
    means = likelihood.posterior_mean(torch.eye(D).double()).mT.detach()
    weight = torch.cat([means, torch.zeros(d, D).double()])
    bias = torch.cat([torch.full((d,), shift), torch.full((d,), raw)]).double()
    encoder = Conditional(Gaussian((d,)).double(), Fixed(weight, bias))
    return VAE(StandardNormal(d), likelihood, encoder).double()


def assert_close_to(estimate: Tensor, truth: Tensor | float, error: Tensor | None, slack: float) -> None:
    """Closer than five standard errors, and what the search leaves."""
    assert error is not None
    assert ((estimate - truth).abs() < 5 * error + slack).all(), (estimate - truth, error)
    assert (error < 0.1).all()


@pytest.fixture(scope="module")
@unchecked_shapes()
def pca() -> tuple[VAE, Tensor, Gaps]:
    torch.manual_seed(1)
    model = model_with(linear(), shift=0.3, raw=-1.0)
    x = torch.randn(4, D, dtype=torch.float64)
    return model, x, gaps(model, x, annealing=None, elbo_samples=4000, ascent=Ascent(steps=300, num_samples=8))


def test_the_approximation_gap_is_that_of_the_best_diagonal_gaussian(pca: tuple[VAE, Tensor, Gaps]):
    """``1/2 [sum_i log M_ii - log det M]``, for every example the same."""
    model, x, found = pca
    closed = MeanFieldPosterior(model.likelihood).gap().detach()
    assert closed > 0.5
    assert_close_to(found.approximation, closed, (found.elbo_best_se.square() + found.log_px_se.square()).sqrt(), 2e-3)
    assert_close_to(found.log_px, model.likelihood.log_px(x).detach(), found.log_px_se, 1e-3)


def test_the_amortization_gap_is_the_difference_of_two_divergences(pca: tuple[VAE, Tensor, Gaps]):
    model, x, found = pca
    exact = ExactPosterior(model.likelihood)(x)
    q: Any = model.posterior(x)
    full = torch.distributions.MultivariateNormal(q.mean, torch.diag_embed(q.variance))
    closed = (kl_divergence(full, exact) - MeanFieldPosterior(model.likelihood).gap()).detach()
    assert (closed > 0.2).all()
    assert_close_to(found.amortization, closed, (found.elbo_se.square() + found.elbo_best_se.square()).sqrt(), 2e-3)


def test_a_flow_closes_the_approximation_gap_and_everything_adds_up(pca: tuple[VAE, Tensor, Gaps]):
    _, _, found = pca
    assert found.elbo_richer is not None
    assert found.approximation_richer is not None
    assert (found.elbo < found.elbo_best).all()
    assert (found.elbo_best < found.elbo_richer).all()
    assert (found.approximation_richer < 0.3 * found.approximation).all()
    torch.testing.assert_close(found.approximation + found.amortization, found.inference)
    torch.testing.assert_close(found.inference, found.log_px - found.elbo)
    assert found.log_px_from == ("importance",) * 4
    assert not found.annealed
    assert found.elbo.dtype == torch.float64
    means = found.means()
    assert means["inference"][0] == pytest.approx(means["approximation"][0] + means["amortization"][0])
    assert means["elbo"] == pytest.approx((found.elbo.mean().item(), found.elbo.std().item() / 2))


def test_the_numbers_are_those_of_the_seed_and_nobodys_state_is_touched(pca: tuple[VAE, Tensor, Gaps]):
    model, x, found = pca
    model.train()
    state = torch.get_rng_state()
    options: dict[str, Any] = {"annealing": None, "richer": None, "ascent": Ascent(steps=50, num_samples=4)}
    first, second = (gaps(model, x, **options) for _ in range(2))
    assert torch.equal(first.elbo_best, second.elbo_best)
    assert torch.equal(first.log_px, second.log_px)
    assert not torch.equal(first.elbo, gaps(model, x, seed=1, **options).elbo)
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert first.elbo_richer is None
    assert first.approximation_richer is None
    assert "elbo_richer" not in first.means()
    assert (first.elbo - found.elbo).abs().max() < 5 * math.hypot(first.elbo_se.max(), found.elbo_se.max())


@unchecked_shapes()
def test_full_rank_a_datum_leaves_no_approximation_gap():
    """With the best of its family exact, all that is lost is the encoder's."""
    likelihood = linear()
    x = torch.randn(3, D, dtype=torch.float64)
    found = gaps(
        model_with(likelihood, raw=1.0),
        x,
        family=FullRankGaussian((d,)).double(),
        richer=None,
        ascent=Ascent(gradient=StickingTheLanding(), steps=500, num_samples=8),
        annealing=None,
    )
    assert_close_to(found.approximation, 0.0, found.elbo_best_se + found.log_px_se, 2e-3)
    assert (found.amortization > 0.1).all()


@unchecked_shapes()
def test_a_good_encoder_has_no_amortization_gap():
    """The best diagonal q itself as the encoder: means exact, scales those of ``1 / sqrt(M_ii)``."""
    likelihood = linear()
    scale = MeanFieldPosterior(likelihood)(torch.zeros(1, D).double()).stddev[0].detach()
    family = Gaussian((d,)).double()
    beta, floor = family.location_scale.scale.beta, family.location_scale.scale.floor
    model = model_with(likelihood)
    model.posterior.network.linear.bias.data[d:] = (beta * (scale - floor)).expm1().log() / beta
    found = gaps(
        model,
        torch.randn(3, D, dtype=torch.float64),
        annealing=None,
        richer=None,
        ascent=Ascent(steps=300, num_samples=8),
    )
    assert (found.amortization.abs() < 0.01).all()
    closed = MeanFieldPosterior(likelihood).gap().detach()
    assert_close_to(found.approximation, closed, found.elbo_best_se, 2e-3)


@pytest.mark.parametrize("shift, size", [(20.0, 1.0), (0.0, 30.0)])
@unchecked_shapes()
def test_the_better_of_two_searches_is_taken(shift: float, size: float):
    """In few steps one leads nowhere: the encoder's start, if it is far off, or the origin, if the latents are."""
    likelihood = linear()
    model, x = model_with(likelihood, shift=shift), size * torch.randn(3, D).double()
    found = gaps(model, x, richer=None, annealing=None, ascent=Ascent(steps=150, num_samples=4))
    assert (found.approximation.abs() < MeanFieldPosterior(likelihood).gap() + 0.5).all()


@pytest.mark.usefixtures("errors_of_drawn_weights")
@unchecked_shapes()
@pytest.mark.slow
def test_of_a_skewed_posterior_the_chain_holds_and_a_flow_beats_the_gaussian():
    model = skewed_model()
    x = torch.cat([skewed_data(3), torch.tensor([[0.0, 0.0, 6.0, 1.0]]).double()])
    exact = exact_log_px(model, x)
    family = Gaussian((2,)).double()
    flow = CouplingFlow((2,), transforms=2, hidden=8, base=family).double()
    found = gaps(
        model,
        x,
        family=family,
        richer=flow,
        ascent=Ascent(steps=400, num_samples=16),
        annealing=Annealing(temperatures=50, chains=8),
    )
    assert found.elbo_richer is not None
    assert found.elbo_richer_se is not None
    assert found.annealed
    errors = (found.elbo_best_se.square() + found.elbo_richer_se.square()).sqrt()
    assert (found.elbo < found.elbo_best + 3 * found.elbo_best_se).all()
    assert (found.elbo_best < found.elbo_richer + 3 * errors).all()
    assert (found.elbo_richer < exact + 5 * found.elbo_richer_se).all()
    assert ((found.elbo_richer - found.elbo_best) / errors).max() > 3
    assert_close_to(found.log_px, exact, found.log_px_se, 0.01)


def test_the_larger_estimate_is_taken(monkeypatch: pytest.MonkeyPatch):
    module = import_module("subo.evaluation.gaps")  # the package gives the function of that name

    model, x = model_with(linear()), torch.randn(6, D).double()
    truth = model.likelihood.log_px(x).detach()
    # surely larger, surely smaller, and four that agree, of which a lone chain carries the last
    added = torch.tensor([9.0, -9.0, 9.0, 1e-4, 1e-4, 1e-4]).double()
    errors = torch.tensor([0.25, 0.5, 1e3, 1e-9, torch.inf, 1e-9]).double()
    effective = torch.tensor([16.0, 16, 16, 16, 16, 1]).double()
    chains = AnnealedEstimate(truth + added, errors, effective, errors[None], errors, 1, 1, 1)
    monkeypatch.setattr(module, "ais", lambda *_, **options: chains)
    found = gaps(model, x, richer=None, ascent=Ascent(steps=10, num_samples=2))
    taken = torch.tensor([True, False, False, True, False, False])
    assert found.log_px_from == tuple("annealed" if by else "importance" for by in taken)
    assert torch.equal(found.log_px[taken], chains.log_px[taken])
    assert torch.equal(found.log_px_se[taken], errors[taken])
    assert_close_to(found.log_px[~taken], truth[~taken], found.log_px_se[~taken], 1e-3)


@pytest.mark.slow
def test_discrete_latents_have_no_annealing_and_no_flow():
    torch.manual_seed(0)
    prior = nn.Module()
    prior.forward = lambda: Independent(  # pyright: ignore
        torch.distributions.Bernoulli(logits=torch.zeros(2, dtype=torch.float64), validate_args=False), 1
    )
    likelihood = Conditional(Gaussian((3,), 0.5), mlp(2, 3, hidden=())).double()
    encoder = Conditional(Bernoulli((2,)), mlp(3, 2, hidden=())).double()
    model, x = VAE(prior, likelihood, encoder).double(), torch.randn(3, 3).double()
    states = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 2)[:, None].expand(4, 3, 2)
    log_joint = model.log_joint(x, states).detach()
    exact = log_joint.logsumexp(0)
    found = gaps(model, x, ascent=Ascent(steps=300, num_samples=16))  # by the score function, since z has no path
    assert not found.annealed
    assert found.elbo_richer is None
    assert found.log_px_from == ("importance",) * 3
    assert_close_to(found.log_px, exact, found.log_px_se, 1e-3)
    logits = model.posterior(x).logits.detach()
    log_q = Independent(torch.distributions.Bernoulli(logits=logits), 1).log_prob(states)
    assert_close_to(found.elbo, (log_q.exp() * (log_joint - log_q)).sum(0), found.elbo_se, 1e-9)
    grid = torch.cartesian_prod(*[torch.linspace(-12, 12, 241).double()] * 2)[:, None, None]
    log_q = Independent(torch.distributions.Bernoulli(logits=grid), 1).log_prob(states)  # (G, 4, 3)
    best = (log_q.exp() * (log_joint - log_q)).sum(1).amax(0)
    assert_close_to(found.elbo_best, best, found.elbo_best_se, 0.01)
    assert ((best < exact) & (best > found.elbo)).all(), "a gap of either kind"


def test_a_posterior_that_cannot_be_bent_is_measured_without():
    """A flow's own mean is not known, so that nothing can be standardized."""
    family = InverseAutoregressiveFlow((2,), context_dim=2, hidden=(4,))
    model = VAE(
        StandardNormal(2), Conditional(Gaussian((3,)), mlp(2, 6)), Conditional(family, mlp(3, family.num_params))
    )
    found = gaps(model, torch.randn(2, 3), annealing=None, ascent=Ascent(steps=20, num_samples=2), num_samples=100)
    assert found.elbo_richer is None


@unchecked_shapes()
def test_a_context_reaches_every_part_and_data_go_in_parts(monkeypatch: pytest.MonkeyPatch):
    module = import_module("subo.evaluation.gaps")  # the package gives the function of that name

    class Shifted(nn.Module):
        def forward(self, z: Tensor, label: Tensor) -> Any:
            loc = z + label[:, None]
            return Independent(Normal(loc, torch.full_like(loc, 0.5), validate_args=False), 1)

    encoder = Conditional(Gaussian((2,)), mlp(2, 4, hidden=()))
    model = VAE(StandardNormal(2), Shifted(), encoder).double()
    label = torch.tensor([5.0, -3.0, 0.0]).double()
    x = torch.randn(3, 2).double() + label[:, None]
    monkeypatch.setattr(module, "_AT_A_TIME", 2)
    found = gaps(
        model,
        x,
        {"label": label},
        ascent=Ascent(steps=200, num_samples=8),
        richer=None,
        annealing=Annealing(temperatures=20, chains=4),
    )
    exact = Normal(label[:, None], math.sqrt(1.25)).log_prob(x).sum(1)
    assert_close_to(found.log_px, exact, found.log_px_se, 0.01)
    assert_close_to(found.approximation, 0.0, found.elbo_best_se + found.log_px_se, 0.01)  # independent given x


def test_what_has_no_gaps_is_refused():
    x = torch.randn(3, D).double()
    model = model_with(linear())

    class Own:
        def draw(self, *_: Any, **__: Any): ...

        def log_joint(self, *_: Any): ...

        def sample(self, *_: Any): ...

    with pytest.raises(InputError, match=r"Own does not keep prior, likelihood and posterior separate.*log_marginal"):
        gaps(Own(), x)  # pyright: ignore
    local = VAE(model.prior, model.likelihood, Local(Gaussian((d,)), 3))
    with pytest.raises(InputError, match="nothing is amortized"):
        gaps(local, x, {"index": torch.arange(3)})
    with pytest.raises(InputError, match="It holds no numbers"):
        gaps(model, x[:0])
    with pytest.raises(InputError, match="num_samples must be at least 1, not 0"):
        gaps(model, x, num_samples=0)
    with pytest.raises(InputError, match="chains must be at least 2, not 1. One chain gives no estimate of its error"):
        gaps(model, x, annealing=Annealing(chains=1))
    with pytest.raises(InputError, match=r"events of shape \(2,\)"):
        gaps(model, x, richer=CouplingFlow((2,)), annealing=None, ascent=Ascent(steps=1))


# Figures


def test_bars_end_at_the_elbo_and_tell_their_numbers():
    figure = gap_bars(
        ["a", "b"], np.array([-80.0, -200.0]), np.array([[1.5, -0.5], [0.1, 0.2]]), np.array([[2.0, 3.0], [0.3, 0.4]])
    )
    (axes,) = figure.axes
    tops = [(bar.get_y(), bar.get_height()) for bar in axes.patches]  # pyright: ignore
    assert tops == [(0, 1.5), (0, -0.5), (1.5, 2.0), (-0.5, 3.0)]
    words = " ".join(text.get_text() for text in [*axes.texts, *axes.get_xticklabels()])
    for part in (
        "−ELBO = 83.50",
        "−ELBO = 202.50",
        "−log p(x) = 80.00",
        "1.50\n± 0.10",
        "−0.50\n± 0.20",
        "3.00\n± 0.40",
    ):
        assert part in words


def test_data_stand_in_the_order_of_their_whole_gap():
    axes = gaps_per_datum(np.array([3.0, 1.0, 0.5]), np.array([0.5, 0.2, 4.0])).axes[0]
    first, second = axes.containers
    assert [bar.get_height() for bar in first] == [1.0, 3.0, 0.5]  # pyright: ignore
    assert [bar.get_y() + bar.get_height() for bar in second] == pytest.approx([1.2, 3.5, 4.5])  # pyright: ignore


def test_curves_stack_the_error_on_the_surprisal():
    step = np.array([10, 100, 1000])
    surprisal, error = np.array([[90.0, 80.0, 75.0], [1, 1, 1]]), np.array([[9.0, 5.0, 4.0], [0.1, 0.2, 0.3]])
    both, alone = gap_curves(step, surprisal, error).axes
    assert both.lines[0].get_ydata() == pytest.approx([99.0, 85.0, 79.0])  # pyright: ignore
    assert alone.lines[0].get_ydata() == pytest.approx([9.0, 5.0, 4.0])  # pyright: ignore
    assert both.get_xscale() == "log"
    assert both.get_ylim()[0] < 75
    assert alone.get_ylim()[0] == 0


def test_more_data_than_importance_sampling_takes_at_once_are_measured_each_with_its_own_q():
    model, x = model_with(linear()), torch.randn(40, D).double()
    options: dict[str, Any] = {"richer": None, "ascent": Ascent(steps=10, num_samples=2), "num_samples": 500}
    whole = gaps(model, x, annealing=None, max_rows=2000, **options)  # five at a time
    truth = model.likelihood.log_px(x).detach()
    assert ((whole.log_px - truth).abs() < 5 * whole.log_px_se + 1e-6).all()
    assert whole.log_px_se.max() < 0.5
