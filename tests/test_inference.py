"""Inference without an encoder, row by row and refined: probabilistic PCA knows where each of them must arrive."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal
from torch.testing import assert_close

from shapes import unchecked_shapes
from subo.bounds import ELBO
from subo.conditionals import Conditional, Given, Local
from subo.data import Data, Split
from subo.devices import make_fabric
from subo.distributions import Gaussian as GaussianDistribution
from subo.errors import InputError
from subo.evaluation.importance import log_marginal
from subo.evaluation.reconstruction import reconstruct
from subo.evaluation.usage import latent_usage
from subo.families import Bernoulli
from subo.fitting import fit
from subo.gradients import ScoreFunction
from subo.history import Epoch
from subo.inference import LOOK_EVERY, infer
from subo.linear_gaussian import LinearGaussian, MeanFieldPosterior
from subo.location_scale import FullRankGaussian, Gaussian, Laplace
from subo.model import VAE
from subo.networks import mlp
from subo.objective import Objective
from subo.optimizers import Combined, RowAdam, clip_gradients, make_optimizer
from subo.priors import StandardNormal
from subo.randomness import forked
from subo.refinement import Refined
from test_exact import D, d, data, exact_elbo, linear, model_with


def pca(posterior: nn.Module | None = None) -> VAE:
    """A linear model, by default with the best of diagonal posteriors."""
    likelihood = linear(-0.5)
    return model_with(posterior or MeanFieldPosterior(likelihood), likelihood)


def amortized(num_params: int = 2 * d, family: nn.Module | None = None) -> Conditional:
    return Conditional(family or Gaussian((d,)), nn.Linear(D, num_params)).double()  # type: ignore[arg-type]


def best_elbo(model: VAE, x: Tensor) -> Tensor:
    return exact_elbo(model.likelihood, MeanFieldPosterior(model.likelihood)(x), x).detach()


class Balanced(GaussianDistribution):
    """A diagonal Gaussian whose 2 D samples are ``loc +- sqrt(D) scale_i``: what is quadratic has its exact mean."""

    def rsample(self, sample_shape=()):
        directions = math.sqrt(self.loc.shape[1]) * torch.eye(self.loc.shape[1], dtype=self.loc.dtype)
        noise = torch.cat([directions, -directions]).unsqueeze(1)
        assert tuple(sample_shape) == (len(noise),)
        return self.loc + self.scale * noise

    def sample(self, sample_shape=()):
        return self.rsample(sample_shape).detach()


class BalancedGaussian(nn.Module):
    """A family without randomness: with 2 D samples its ELBO for a linear model is exact, and so is its gradient."""

    def __init__(self):
        super().__init__()
        self.event_shape, self.num_params = torch.Size([d]), 2 * d

    def forward(self, params: Tensor) -> Distribution:
        loc, raw = params.chunk(2, 1)
        return Balanced(loc, raw.exp(), 1)


# infer: the optimum


@unchecked_shapes()
def test_without_noise_infer_finds_the_best_diagonal_gaussian():
    model, x = pca(), data(30)
    fitted = infer(model, x, family=BalancedGaussian(), num_samples=2 * d, steps=3000, tolerance=1e-7)
    found = exact_elbo(model.likelihood, fitted.q, x).detach()
    assert_close(fitted.bound, found, rtol=1e-8, atol=1e-8)
    assert_close(found, best_elbo(model, x), rtol=0, atol=1e-5)


@unchecked_shapes()
def test_infer_finds_the_best_diagonal_gaussian():
    model, x = pca(), data(30)
    fitted = infer(model, x, family=Gaussian((d,)), num_samples=64, tolerance=1e-4, steps=2000)
    missing = best_elbo(model, x) - exact_elbo(model.likelihood, fitted.q, x).detach()
    assert (missing > -1e-9).all()
    assert missing.mean() < 1e-3
    assert missing.max() < 1e-2


@unchecked_shapes()
def test_infer_finds_log_px_with_a_full_rank_gaussian():
    model, x = pca(), data(30)
    fitted = infer(model, x, family=FullRankGaussian((d,)), num_samples=64, tolerance=1e-4, steps=2000)
    log_px = model.likelihood.log_px(x).detach()
    local = VAE(model.prior, model.likelihood, Given(FullRankGaussian((d,)), fitted.params))
    weights = local.draw(x, num_samples=4000).log_weight.detach()
    missing = log_px - weights.mean(0)
    assert (missing.mean() - 5 * weights.mean(1).std() / 4000**0.5) < 1e-3


@unchecked_shapes()
def test_infer_needs_no_path_through_z():
    """numpy knows no gradients: all of it comes from the score."""

    class Outside(nn.Module):
        def __init__(self, likelihood: LinearGaussian):
            super().__init__()
            self.likelihood = likelihood

        def forward(self, z: Tensor) -> Distribution:
            loc = z.detach().numpy() @ self.likelihood.weight.detach().numpy().T + self.likelihood.bias.detach().numpy()
            return Independent(Normal(torch.from_numpy(np.asarray(loc)), math.exp(-0.5)), 1)

    model, x = pca(), data(30)
    blind = VAE(model.prior, Outside(model.likelihood), model.posterior)
    fitted = infer(blind, x, family=Gaussian((d,)), gradient=ScoreFunction(), num_samples=32, steps=2000)
    missing = best_elbo(model, x) - exact_elbo(model.likelihood, fitted.q, x).detach()
    assert missing.mean() < 1e-2
    assert missing.max() < 0.1
    with pytest.raises(InputError, match="no gradient in z"):
        infer(blind, x, family=Gaussian((d,)))


@unchecked_shapes()
def test_a_decoder_outside_of_torch_is_fitted_by_the_score_and_refused_by_a_path():
    """Its slope in z is unknown; its offset is learned, as is q."""

    class Simulator(nn.Module):
        def __init__(self):
            super().__init__()
            self.offset = nn.Parameter(torch.zeros(3))

        def forward(self, z: Tensor) -> Distribution:
            loc = np.stack([z.detach().numpy()[:, 0] * slope for slope in (1.0, -0.5, 2.0)], axis=1)
            return Independent(Normal(torch.from_numpy(loc) + self.offset, 0.5), 1)

    torch.manual_seed(0)
    slopes, offset = torch.tensor([1.0, -0.5, 2.0]).double(), torch.tensor([3.0, -1.0, 0.5]).double()
    x = torch.randn(400, 1).double() * slopes + offset + 0.5 * torch.randn(400, 3).double()
    log_px = MultivariateNormal(offset, slopes[:, None] * slopes + 0.25 * torch.eye(3).double()).log_prob(x).mean()

    def model() -> VAE:
        q = Conditional(Gaussian((1,)), nn.Linear(3, 2))
        return VAE(StandardNormal(1), Simulator(), q).double()

    with pytest.raises(InputError, match="score-function"):
        fit(Objective(model()), x, epochs=1)
    objective = Objective(model(), gradient=ScoreFunction(), num_samples=8)
    history = fit(objective, x, epochs=500, learning_rate=0.05, decay="cosine")
    assert (objective.model.likelihood.offset - x.mean(0)).abs().max() < 0.1
    assert history.epochs[-1].train.elbo > log_px - 0.1


# infer: never worse, datum by datum


def test_infer_is_never_worse_than_its_start():
    """Of a start that is the optimum nothing can be gained, and nothing may be lost."""
    model, x = pca(amortized()), data(200)
    best = MeanFieldPosterior(model.likelihood)(x)
    softplus_inverse = (torch.expm1((best.stddev - 1e-3) * math.log(2) / (1 - 1e-3))).log() / (math.log(2) / (1 - 1e-3))
    start = torch.cat([best.mean, softplus_inverse], 1).detach()
    assert_close(Gaussian((d,))(start).stddev, best.stddev.detach())
    fitted = infer(model, x, start=start, steps=200)
    lost = best_elbo(model, x) - exact_elbo(model.likelihood, fitted.q, x).detach()
    assert lost.max() < 1e-3
    assert (fitted.params == start).all(1).double().mean() > 0.95


@unchecked_shapes()
def test_infer_improves_on_a_converged_encoder():
    torch.manual_seed(0)
    model, x = pca(amortized()), data(100)
    optimizer = torch.optim.Adam(model.posterior.parameters(), lr=0.02)
    for _ in range(400):
        optimizer.zero_grad()
        Objective(model, num_samples=8)(x).loss.backward()
        optimizer.step()
    for parameter in model.parameters():
        parameter.grad = None
    fitted = infer(model, x, start="amortized")
    before = exact_elbo(model.likelihood, model.posterior(x), x).detach()
    after = exact_elbo(model.likelihood, fitted.q, x).detach()
    assert (after >= before - 1e-3).all()
    assert after.mean() > before.mean()
    assert all(parameter.grad is None for parameter in model.parameters())


@unchecked_shapes()
def test_a_datum_stops_by_itself_and_company_changes_nothing():
    model, x = pca(), data(4)
    options = {"family": BalancedGaussian(), "num_samples": 2 * d, "steps": 3000}
    with torch.no_grad():
        nothing = model.likelihood.bias.clone()  # its mean is 0, hence where the search begins
    near = MeanFieldPosterior(model.likelihood)(nothing[None]).stddev.log().detach()
    x = torch.cat([nothing[None], x])
    start = torch.zeros(5, 2 * d, dtype=torch.float64)
    start[0, d:] = near
    together = infer(model, x, start=start, **options)
    assert together.steps[0] < together.steps[1:].min()
    for i in range(len(x)):
        alone = infer(model, x[i : i + 1], start=start[i : i + 1], **options)
        assert alone.steps == together.steps[i]
        assert_close(alone.params[0], together.params[i], rtol=1e-8, atol=1e-8)
    parts = infer(model, x, start=start, batch_size=3, **options)
    assert_close(parts.params, together.params, rtol=1e-8, atol=1e-8)
    assert parts.trace.shape == together.trace.shape == (1 + math.ceil(int(together.steps.max()) / LOOK_EVERY), 5)
    assert (together.trace[-1] >= together.trace[0]).all()


def test_infer_is_reproducible_and_leaves_everything_as_it_was():
    model, x = pca(amortized()), data(5)
    model.eval()
    state, weights = torch.get_rng_state(), [p.clone() for p in model.parameters()]
    first, second = (infer(model, x, steps=60, seed=3).params for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, infer(model, x, steps=60, seed=4).params)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(*pair) for pair in zip(weights, model.parameters(), strict=True))
    assert all(p.grad is None for p in model.parameters())
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize(
    "options, message",
    [
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"learning_rate": 0.0}, "learning rate must be positive"),
        ({"start": torch.zeros(4, 3)}, r"shape \(4, 4\), and has \(4, 3\)"),
        ({"family": Gaussian((3,))}, r"shape \(3,\), and the model's z has the shape \(2,\)"),
        (
            {"family": FullRankGaussian((2,)), "start": "amortized"},
            "gives 4 parameters a datum, and the family takes 5",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict, message: str):
    with pytest.raises(InputError, match=message):
        infer(pca(amortized()), data(4), **options)


def test_an_amortized_start_needs_an_encoder():
    with pytest.raises(InputError, match="'amortized' needs an encoder: got 'amortized' for a Local"):
        infer(pca(Local(Gaussian((d,)), 4)), data(4), start="amortized")


def test_data_without_a_finite_bound_are_named():
    x = data(4)
    x[2, 1] = math.nan
    with pytest.raises(
        InputError, match="the bound is nan at the start for 1 of 4 data, of which datum 2 is the first"
    ):
        infer(pca(amortized()), x)


def test_a_posterior_without_a_family_asks_for_one():
    with pytest.raises(InputError, match=r"MeanFieldPosterior, has no family.*family=Gaussian"):
        infer(pca(), data(4))


def test_unseen_data_of_a_local_posterior_are_inferred_as_the_message_says():
    model, x = pca(Local(Gaussian((d,)), 4)), data(7)
    with pytest.raises(InputError, match=r"subo\.infer\(model, x\)"):
        model.draw(x, {"index": torch.arange(7)})
    assert infer(model, x, {"index": torch.arange(7)}, steps=10).q.batch_shape == (7,)


def test_held_out_data_are_never_taken_for_training_data():
    """Every split of a data set names its data apart: a row of another datum would answer without a word."""
    split = Split(torch.randint(0, 2, (12, D)).float())
    whole = Data("bits", split, split.take(torch.arange(3)), split.take(torch.arange(3, 8)), "binary")
    assert [whole.train.first, whole.validation.first, whole.test.first] == [0, 12, 15]
    assert whole.test.read(torch.arange(2))[1]["index"].tolist() == [15, 16]
    local = VAE(StandardNormal(d), Conditional(Bernoulli((D,)), mlp(d, D, hidden=(4,))), Local(Gaussian((d,)), 12))
    with pytest.raises(InputError, match="index 12 is not one of them"):
        fit(Objective(local), whole, epochs=1)
    fit(Objective(local), whole.train, epochs=1)
    rows = Local(Gaussian((d,)), 5, first=15)
    assert rows(torch.zeros(2, D), index=torch.tensor([15, 19])).batch_shape == (2,)


# Rows


def row_problem(num_rows: int = 5) -> tuple[nn.Parameter, nn.Parameter]:
    start = torch.randn(num_rows, 3, dtype=torch.float64)
    return nn.Parameter(start.clone()), nn.Parameter(start.clone())


def look_up(params: Tensor, index: list[int]) -> Tensor:
    return nn.functional.embedding(torch.tensor(index), params, sparse=True)


def test_a_row_that_is_always_met_moves_as_with_adam():
    rows, dense = row_problem()
    ours, adam = RowAdam([rows], lr=0.1), torch.optim.Adam([dense], lr=0.1)
    for step in range(20):
        for params, optimizer in ((rows, ours), (dense, adam)):
            optimizer.zero_grad()
            looked_up = look_up(params, [2]) if params is rows else params[[2]]
            (looked_up - step).pow(4).sum().backward()
            optimizer.step()
    assert_close(rows[2], dense[2], rtol=1e-13, atol=1e-13)


def test_a_row_keeps_its_own_time():
    """A row that is met seldom and late moves as it would by itself."""
    rows, dense = row_problem()
    before = rows.detach().clone()
    ours, adam = RowAdam([rows], lr=0.1), torch.optim.Adam([dense], lr=0.1)
    for step in range(30):
        ours.zero_grad()
        look_up(rows, [0, 3] if step % 7 == 6 else [0]).square().sum().backward()
        ours.step()
    for _ in range(4):
        adam.zero_grad()
        dense.square().sum().backward()
        adam.step()
    assert_close(rows[3], dense[3], rtol=1e-13, atol=1e-13)
    assert torch.equal(rows[[1, 2, 4]], before[[1, 2, 4]])


def test_repeated_rows_are_summed():
    rows, _ = row_problem()
    optimizer = RowAdam([rows], lr=0.1, betas=(0.9, 0.999))
    (2 * look_up(rows, [1, 1])).sum().backward()
    optimizer.step()
    state = optimizer.state[rows]
    assert_close(state["mean"][1], torch.full((3,), (1 - 0.9) * 4, dtype=torch.float64))
    assert state["count"].flatten().tolist() == [0, 1, 0, 0, 0]


def test_a_dense_gradient_is_refused():
    rows, _ = row_problem()
    rows.sum().backward()
    with pytest.raises(InputError, match=r"shape \(5, 3\) is dense.*sparse=True"):
        RowAdam([rows]).step()


def local_objective(num_data: int, *, seed: int = 0) -> Objective:
    torch.manual_seed(seed)
    decoder = Conditional(Bernoulli((5,)), mlp(2, 5, hidden=(8,)))
    return Objective(VAE(StandardNormal(2), decoder, Local(Gaussian((2,)), num_data)))


def test_one_optimizer_serves_rows_and_what_they_share():
    objective = local_objective(9)
    optimizer = make_optimizer(objective, "SGD", learning_rate=0.5, rows_learning_rate=0.1)
    assert isinstance(optimizer, Combined)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.1]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(objective.parameters()))
    before = [parameter.detach().clone() for parameter in objective.parameters()]
    for group in optimizer.param_groups:
        group["lr"] = 0.0  # as a schedule does
    objective(torch.ones(2, 5), {"index": torch.tensor([3, 7])}).loss.backward()
    optimizer.step()
    assert all(torch.equal(*pair) for pair in zip(before, objective.parameters(), strict=True))
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    optimizer.step()
    moved = (objective.model.posterior.params != 0).any(1).nonzero().flatten()
    assert moved.tolist() == [3, 7]
    only = make_optimizer(Local(Gaussian((2,)), 3), rows_learning_rate=0.2)
    assert isinstance(only, RowAdam)
    assert only.param_groups[0]["lr"] == 0.2
    with pytest.raises(InputError, match="learning rate must be positive"):
        make_optimizer(objective, rows_learning_rate=0.0)


def test_clipping_knows_sparse_gradients():
    objective, dense = local_objective(9), local_objective(9)
    x, context = torch.ones(3, 5), {"index": torch.tensor([3, 7, 3])}
    for one in (objective, dense):
        with forked(1):
            one(x, context).loss.backward()
    posterior = dense.model.posterior
    posterior.params.grad = posterior.params.grad.to_dense()
    expected = torch.nn.utils.clip_grad_norm_(dense.parameters(), 0.1)
    norm = clip_gradients(make_fabric(device="cpu"), objective, make_optimizer(objective), 0.1)
    assert norm == pytest.approx(float(expected), rel=1e-6)
    for parameter, other in zip(objective.parameters(), dense.parameters(), strict=True):
        assert parameter.grad is not None
        assert_close(parameter.grad.to_dense(), other.grad)


class Stop(Exception):
    """Stands for a crash."""


@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-mixed"])
def test_a_crashed_local_fit_resumes_bit_for_bit(tmp_path: Path, precision: str):
    x = torch.bernoulli(torch.full((40, 5), 0.4))
    options = {
        "epochs": 5,
        "batch_size": 15,
        "decay": "cosine",
        "clip": 0.5,
        "updates": "alternating",
        "posterior_steps": 2,
    }

    def crash(epoch: Epoch) -> None:
        if epoch.epoch == 3:
            raise Stop

    def fabric():
        return make_fabric(device="cpu", precision=precision)

    whole, broken, resumed = local_objective(40), local_objective(40), local_objective(40, seed=5)
    history = fit(whole, Split(x), fabric=fabric(), **options)
    with pytest.raises(Stop):
        fit(broken, Split(x), run_dir=tmp_path, checkpoint_minutes=1e-9, on_epoch=crash, fabric=fabric(), **options)
    again = fit(resumed, Split(x), run_dir=tmp_path, resume=True, fabric=fabric(), **options)
    for parameter, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(parameter, other)
    assert [e.train for e in history.epochs] == [e.train for e in again.epochs]


@unchecked_shapes()
def test_a_local_fit_of_a_linear_model_reaches_the_best_of_diagonal_posteriors():
    model, x = pca(Local(Gaussian((d,)), 60)), data(60)
    for parameter in model.likelihood.parameters():
        parameter.requires_grad_(False)
    objective = Objective(model, num_samples=16)
    optimizer = make_optimizer(objective, rows_learning_rate=0.1)
    fabric = make_fabric(device="cpu", precision="64-true")
    fit(objective, Split(x), epochs=300, batch_size=20, optimizer=optimizer, decay="cosine", fabric=fabric)
    q = model.posterior(x, index=torch.arange(60))
    assert (best_elbo(model, x) - exact_elbo(model.likelihood, q, x).detach()).mean() < 5e-3


# Refined


def refined(model: VAE, **options) -> VAE:
    return VAE(model.prior, model.likelihood, Refined(model, **options))


def test_refinement_lies_between_the_encoder_and_each_datums_optimum():
    model, x = pca(amortized()), data(40)
    elbo = [exact_elbo(model.likelihood, model.posterior(x), x).mean().item()]
    for steps in (1, 5, 50):
        with torch.no_grad():
            q = refined(model, steps=steps, learning_rate=0.05, num_samples=64).posterior(x)
        elbo.append(exact_elbo(model.likelihood, q, x).mean().item())
    assert elbo == sorted(elbo)
    best = best_elbo(model, x).mean().item()
    assert elbo[-1] < best
    assert best - elbo[-1] < 0.05 * (best - elbo[0])


@pytest.fixture
def small() -> tuple[VAE, Tensor]:
    return pca(amortized()), data(3)


def loss_of(model: VAE, x: Tensor) -> Tensor:
    with forked(1):
        return Objective(model, num_samples=2)(x).loss


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_the_gradient_through_the_steps_is_that_of_the_whole_computation(small, momentum):
    model, x = small
    whole = refined(model, steps=4, learning_rate=0.1, momentum=momentum, clip=3.0)
    parameters = list(whole.parameters())
    gradients = torch.autograd.grad(loss_of(whole, x), parameters)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        direction = torch.randn_like(parameter)
        with torch.no_grad():
            values = []
            for sign in (1, -1):
                parameter.add_(sign * 1e-6 * direction)
                values.append(loss_of(whole, x).item())
                parameter.sub_(sign * 1e-6 * direction)
        assert (values[0] - values[1]) / 2e-6 == pytest.approx((gradient * direction).sum().item(), rel=1e-4, abs=1e-6)


def test_the_gradient_that_stops_is_that_at_the_last_parameters(small):
    model, x = small
    whole = refined(model, steps=4, through=False)
    parameters = list(whole.parameters())
    gradients = torch.autograd.grad(loss_of(whole, x), parameters)
    with forked(1):
        last = whole.posterior._refined(model.posterior.network(x).detach(), x, {}, through=False).detach()
        last.requires_grad_()
        objective = Objective(VAE(model.prior, model.likelihood, Given(model.posterior.family, last)), num_samples=2)
        loss = objective(x).loss
    theta = list(model.likelihood.parameters())
    *expected, slope = torch.autograd.grad(loss, [*theta, last])
    encoder = torch.autograd.grad(model.posterior.network(x), list(model.posterior.parameters()), slope)
    for gradient, other in zip(gradients, [*expected, *encoder], strict=True):
        assert_close(gradient, other)


def test_with_and_without_a_gradient_the_value_is_the_same(small):
    model, x = small
    for through in (True, False):
        whole = refined(model, steps=3, through=through)
        with torch.no_grad():
            value = loss_of(whole, x)
        assert not value.requires_grad
        assert_close(loss_of(whole, x).detach(), value, rtol=1e-12, atol=1e-12)


def test_prior_and_likelihood_are_not_parts_of_the_posterior_that_is_refined():
    model = pca(amortized())
    whole = refined(model)
    assert set(map(id, whole.posterior.parameters())) == set(map(id, model.posterior.parameters()))
    assert sorted(whole.state_dict()) == sorted(
        name.replace("posterior.", "posterior.amortized.") for name in model.state_dict()
    )


@pytest.mark.parametrize("through", [True, False])
def test_a_refined_model_is_fitted_and_evaluated(through):
    model, x = pca(amortized()).float(), data(60).float()
    whole = refined(model, steps=3, through=through)
    history = fit(Objective(whole), Split(x), epochs=5, learning_rate=0.01, updates="alternating")
    assert history.epochs[-1].train.elbo > history.epochs[0].train.elbo
    log_px = model.likelihood.log_px(x).detach().double()
    with_steps, without = (log_marginal(one, x, num_samples=500) for one in (whole, model))
    assert without.elbo.mean() < with_steps.elbo.mean() < log_px.mean()
    assert reconstruct(whole, Split(x)).shape == x.shape
    assert latent_usage(whole, Split(x)).means.shape == (60, d)
    assert infer(whole, x[:3], start="amortized", steps=10).params.shape == (3, 2 * d)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"steps": 0}, "at least one step and one sample: got 0 steps"),
        ({"momentum": 1.0}, "momentum at least 0 and below 1"),
        ({"clip": 0.0}, "must be positive"),
    ],
)
def test_refinement_that_makes_no_sense_is_refused(options: dict, message: str):
    with pytest.raises(InputError, match=message):
        Refined(pca(amortized()), **options)


def test_refinement_needs_an_encoder_and_a_path():
    with pytest.raises(InputError, match=r"MeanFieldPosterior: give a model whose posterior is Conditional"):
        Refined(pca())
    model = pca(amortized(d, Bernoulli((d,))))
    with pytest.raises(InputError, match="no rsample"):
        refined(model).draw(data(2), path=False)


def test_a_family_keeps_its_own_parameters_while_it_is_fitted():
    """A shared scale belongs to all data: it is held fixed, as a flow's maps are."""
    family = Laplace((d,), "shared").double()
    before = family.location_scale.scale.raw.clone()
    fitted = infer(pca(), data(4), family=family, steps=100)
    assert torch.equal(family.location_scale.scale.raw, before)
    assert family.location_scale.scale.raw.grad is None
    assert (fitted.bound > fitted.trace[0]).all()


@unchecked_shapes()
def test_another_bound_is_climbed():
    model, x = pca(amortized()), data(10)
    wide = infer(model, x, bound=ELBO(beta=0.1), num_samples=16, steps=300)
    assert (wide.q.stddev > 0).all()
    assert (wide.bound > infer(model, x, num_samples=16, steps=300).bound).all()
