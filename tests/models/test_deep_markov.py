"""Deep Markov models: their networks by their formulas, padding that changes nothing, and forecasts."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn.functional import relu
from torch.testing import assert_close

from subo import ELBO, IWAE, Conditional, Gaussian, InputError, Objective, StandardNormal, mlp
from subo.data.splits import Split
from subo.distributions.gaussian import Gaussian as GaussianDistribution
from subo.evaluation import (
    calibrate,
    evaluate,
    forecast,
    latent_usage,
    log_marginal,
    log_marginal_from_prior,
    mutual_information,
)
from subo.evaluation.latents.usage import draws
from subo.evaluation.reconstruction import reconstruct
from subo.evaluation.summary import share_at_floor
from subo.models.deep_markov import BackwardReader, Combiner, GatedTransition, Smoother
from subo.models.emission import Emission
from subo.models.hidden_markov import HiddenMarkov
from subo.models.markov import Markov
from subo.models.state_space import LinearGaussianStateSpace
from subo.models.vae import VAE
from subo.recipes import deep_markov

D, T = 3, 5


@pytest.fixture
def objective() -> Objective:
    sizes = {"latent_dim": 2, "transition_hidden": 6, "hidden": (5,), "reader_hidden": 4}
    return deep_markov((D,), likelihood="bernoulli", **sizes).double()


def ragged() -> tuple[Tensor, Tensor]:
    """Three sequences of bits, padded to five steps with what is no example, and their mask."""
    mask = torch.arange(T) < torch.tensor([[5], [2], [1]])
    x = torch.randint(2, (3, T, D)).double()
    return torch.where(mask.unsqueeze(2), x, torch.nan), mask


def test_the_gated_transition_is_its_formula():
    step = GatedTransition(2, hidden=6).double()
    z = torch.randn(7, 2, dtype=torch.float64)
    gate, proposal = step.gate(z).sigmoid(), step.proposal(z)
    assert_close(step(z)[:, :2], (1 - gate) * z + gate * proposal)  # the linear map is the identity to begin with
    assert_close(step(z)[:, 2:], relu(proposal) @ step.scale.weight.mT + step.scale.bias)


def test_the_combiner_is_its_formula():
    combiner = Combiner(2, 4).double()
    z, h = torch.randn(7, 2, dtype=torch.float64), torch.randn(7, 4, dtype=torch.float64)
    mixed = ((z @ combiner.of_state.weight.mT + combiner.of_state.bias).tanh() + h) / 2
    assert_close(combiner(z, h).mean, (mixed @ combiner.params.weight.mT + combiner.params.bias)[:, :2])


def test_the_reader_sees_the_present_and_the_future_alone():
    reader = BackwardReader(torch.nn.Flatten(), D, hidden=4).double()
    x = torch.randn(1, T, D, dtype=torch.float64, requires_grad=True)
    for t in range(T):
        (slope,) = torch.autograd.grad(reader(x)[0, t].sum(), x)
        seen = slope[0].abs().sum(1) > 0
        assert seen.tolist() == [s >= t for s in range(T)]


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
def test_each_sequence_is_read_as_if_alone(cell: str):
    reader = BackwardReader(torch.nn.Flatten(), D, hidden=4, cell=cell).double()
    x, mask = ragged()
    x = x.nan_to_num(7.0)
    h = reader(x, mask)
    for row, length in enumerate(mask.sum(1).tolist()):
        assert_close(h[row : row + 1, :length], reader(x[row : row + 1, :length]))
        assert (h[row, length:] == 0).all()


def test_padding_changes_no_number_and_no_gradient(objective: Objective):
    model, (x, mask) = objective.model, ragged()
    x = x.nan_to_num(1.0)  # what stands in padding is a value like any other
    z = torch.randn(6, 3, T, 2, dtype=torch.float64)

    def terms(x: Tensor, z: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        context = {"mask": mask}
        q, p = model.posterior(x, mask), model.prior(mask)
        kl = q.kl_by_step(p, z)
        assert kl is not None
        return model.log_joint(x, z, context), q.log_prob(z), kl.sum(-1)

    together = terms(x, z, mask)
    for row, length in enumerate(mask.sum(1).tolist()):
        rows = slice(row, row + 1)
        alone = terms(x[rows, :length], z[:, rows, :length], mask[rows, :length])
        for of_batch, of_one in zip(together, alone, strict=True):
            assert_close(of_batch[:, row], of_one[:, 0], rtol=0, atol=1e-12)
        slopes = [
            torch.autograd.grad(
                (joint - posterior).sum(), list(model.parameters()), retain_graph=True, materialize_grads=True
            )
            for joint, posterior in ((together[0][:, row], together[1][:, row]), (alone[0], alone[1]))
        ]
        for of_batch, of_one in zip(*slopes, strict=True):
            assert_close(of_batch, of_one, rtol=0, atol=1e-10)


def test_the_bounds_are_ordered_and_independent_estimates_agree(objective: Objective):
    model, (x, mask) = objective.model, ragged()
    x, context = x.nan_to_num(0.0), {"mask": mask}
    with torch.no_grad():
        draw = model.draw(x, context, num_samples=2000, path=False)
        assert (ELBO()(draw) <= IWAE()(draw) + 1e-9).all()
    by_q = log_marginal(model, x, context, num_samples=2000)
    by_prior = log_marginal_from_prior(model, x, context, num_samples=20_000)  # which knows nothing of q
    error = (by_q.standard_error**2 + by_prior.standard_error**2).sqrt()
    assert ((by_q.log_px - by_prior.log_px).abs() < 5 * error).all()


def test_usage_and_reconstructions_are_of_steps(objective: Objective):
    lengths = torch.tensor([4, 1, 3])
    split = Split(torch.randint(2, (8, D)).double(), lengths=lengths)
    usage = latent_usage(objective.model, split)
    assert usage.means.shape == (8, 2)
    assert usage.active.shape == (2,)
    assert reconstruct(objective.model, split).shape == (8, D)
    draw, context = next(draws(objective.model, split))
    assert isinstance(draw.z, Tensor)
    assert draw.z.shape[1:] == (3, 4, 2)
    assert context["mask"].sum() == 8


def exact_forecast(model: LinearGaussianStateSpace, x: Tensor, mask: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Mean and variance of the next observations, by the Kalman filter."""
    filtered, last = model.filter(x, mask), mask.sum(1) - 1
    rows = torch.arange(len(x))
    A, C = model.transition.weight, model.emission.weight
    covariances = (
        filtered.covariance.expand(len(x), -1, -1, -1) if filtered.covariance.ndim == 3 else filtered.covariance
    )
    m, P = filtered.mean[rows, last], covariances[rows, last]
    means, variances = [], []
    for _ in range(steps):
        m, P = m @ A.mT + model.transition.bias, A @ P @ A.mT + model.transition_noise.covariance
        means.append(m @ C.mT + model.emission.bias)
        variances.append((C @ P @ C.mT + model.emission_noise.covariance).diagonal(dim1=-2, dim2=-1))
    return torch.stack(means, 1), torch.stack(variances, 1)


@pytest.mark.parametrize("wrong", [False, True], ids=["exact q", "wrong q, weighted"])
def test_a_forecast_of_a_linear_model_is_kalmans(wrong: bool):
    truth = LinearGaussianStateSpace(1, 1).double()
    with torch.no_grad():
        truth.transition.weight.fill_(0.9)
        truth.transition.bias.fill_(0.3)
        truth.emission.weight.fill_(1.5)
    lengths, x = torch.tensor([3, 1, 4]), torch.randn(8, 1, dtype=torch.float64)
    split = Split(x, lengths=lengths)
    model = truth.as_vae()
    if wrong:
        q = Smoother(BackwardReader(torch.nn.Flatten(), 1, hidden=3), Combiner(1, 3), 1).double()
        model = VAE(model.prior, model.likelihood, q)
    K = 40_000
    found = forecast(model, split, steps=3, num_samples=K, coverage=0.8)
    batch, context = split.read(torch.arange(3))
    mean, variance = exact_forecast(truth, batch, context["mask"], 3)
    error = 5 * (variance / found.effective_sample_size.reshape(-1, 1, 1)).sqrt()
    assert ((found.mean - mean).abs() < error).all()
    spread = 1.2815515655446004 * variance.sqrt()  # 80% of a normal lie within
    assert ((found.upper - mean - spread).abs() < 3 * error).all()
    assert ((mean - spread - found.lower).abs() < 3 * error).all()


def test_forecasts_refuse_what_has_no_next_step(objective: Objective):
    flat = VAE(StandardNormal(2), Conditional(Gaussian((D,)), mlp(2, 6)), Conditional(Gaussian((2,)), mlp(D, 4)))
    sequences = Split(torch.zeros(3, D), lengths=torch.tensor([2, 1]))
    for model, split, options, words in (
        (objective.model, Split(torch.zeros(3, D)), {"steps": 2}, "no order in time"),
        (objective.model, sequences, {"steps": 0}, "steps and num_samples"),
        (objective.model, sequences, {"steps": 1, "coverage": 1.0}, "coverage"),
        (flat, sequences, {"steps": 1}, "StandardNormal"),
    ):
        with pytest.raises(InputError, match=words):
            forecast(model, split, **options)


def test_a_mask_is_needed_and_checked(objective: Objective):
    x, mask = torch.zeros(2, 3, D, dtype=torch.float64), torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(InputError, match="mask"):
        objective.model.draw(x)
    empty = mask.clone()
    empty[1] = False
    with pytest.raises(InputError, match="sequence 2 of 2 is empty"):
        objective.model.draw(x, {"mask": empty})
    with pytest.raises(InputError, match="cell must be one of"):
        BackwardReader(torch.nn.Flatten(), 2, cell="gated")
    chain = Markov(StandardNormal(2), Conditional(Gaussian((2,)), mlp(2, 4)), length=3)
    model = VAE(
        chain,
        Emission(Gaussian((D,)), mlp(2, 6)),
        Smoother(BackwardReader(torch.nn.Flatten(), D, hidden=3), Combiner(2, 3), 2),
    )
    assert model.draw(torch.zeros(2, 3, D)).log_weight.shape == (1, 2)


def test_an_exact_posterior_of_paths_is_calibrated_and_a_wrong_one_is_not():
    model = LinearGaussianStateSpace(1, 1).double().as_vae()
    mask = torch.arange(3) < torch.randint(1, 4, (400, 1))
    found = calibrate(model, 400, context={"mask": mask})
    assert found.names == ("z1", "log p(x, z)")
    assert set(found.readings) == {"calibrated"}
    q = Smoother(BackwardReader(torch.nn.Flatten(), 1, hidden=3), Combiner(1, 3), 1).double()
    wrong = calibrate(VAE(model.prior, model.likelihood, q), 400, context={"mask": mask})
    assert "calibrated" not in wrong.readings


def test_the_information_of_sequences_is_refused(objective: Objective):
    split = Split(torch.zeros(5, D), lengths=torch.tensor([3, 2]))
    with pytest.raises(InputError, match="sequences of different lengths"):
        mutual_information(objective.model, split)


def test_a_state_that_moves_as_the_prior_does_is_not_active():
    # Every posterior is the prior: states move from 3 to 0 in all sequences alike, and tell nothing of x.
    step = torch.nn.Linear(1, 2)
    with torch.no_grad():
        step.weight.copy_(torch.tensor([[0.8], [0.0]]))
        step.bias.zero_()
    chain = Markov(Moved(), Conditional(Gaussian((1,)), step)).double()
    model = VAE(chain, Emission(Gaussian((1,)), mlp(1, 2)).double(), PriorAsPosterior(chain))
    split = Split(torch.randn(600, 1, dtype=torch.float64), lengths=torch.full((60,), 10))
    usage = latent_usage(model, split)
    assert usage.means.reshape(60, 10).mean(0).diff().abs().max() > 0.2
    assert not usage.active.any()


class Moved(torch.nn.Module):
    """``N(3, 1)``."""

    def forward(self) -> GaussianDistribution:
        return GaussianDistribution(torch.full((1,), 3.0).double(), torch.ones(1).double(), 1)


class PriorAsPosterior(torch.nn.Module):
    def __init__(self, prior: Markov):
        super().__init__()
        self.prior = prior

    def forward(self, x: Tensor, mask: Tensor) -> Distribution:
        return self.prior(mask)


def test_what_stands_in_padding_reaches_no_gradient(objective: Objective):
    x, mask = ragged()  # NaN where there is padding
    loss = objective(x, {"mask": mask})
    assert loss.bound.isfinite().all()
    loss.loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in objective.model.parameters())


def test_scales_at_the_floor_are_counted_at_real_steps():
    model = deep_markov((1,), likelihood="gaussian", scale="network", latent_dim=1, hidden=(4,)).model
    lengths = torch.tensor([10, 1, 1])
    split = Split(torch.randn(12, 1), lengths=lengths)

    class AtZero(torch.nn.Module):
        """The floor at z = 0, as padding has it, and a scale of one elsewhere."""

        def forward(self, z: Tensor) -> Tensor:
            return torch.cat([z, torch.where(z == 0, -100.0, 0.0)], dim=1)

    model.likelihood.network = AtZero()
    assert share_at_floor(model, split) == 0

    class Masked(torch.nn.Module):
        """Wants to know which steps are real."""

        def __init__(self, likelihood: Any):
            super().__init__()
            self.likelihood, self.family = likelihood, likelihood.family

        def forward(self, z: Tensor, mask: Tensor) -> Distribution:
            assert mask.shape == z.shape[:2]
            return self.likelihood(z)

    model.likelihood = Masked(model.likelihood)
    assert share_at_floor(model, split) == 0


def test_hidden_markov_models_are_evaluated_and_forecast_like_others():
    model = HiddenMarkov(2, Gaussian((1,))).double()
    split = Split(torch.randn(12, 1, dtype=torch.float64), lengths=torch.tensor([5, 3, 4]))
    result = evaluate(model, split, num_samples=3)
    x, context = split.read(torch.arange(3))
    assert result.log_px == pytest.approx(model.log_px(x, context["mask"]).mean().item())
    marginals = model.posterior_marginals(x, context["mask"])[context["mask"]]
    means = latent_usage(model, split).means
    assert means.shape == (12, 2)
    assert ((means - marginals).abs() < 5 * (0.25 / 50) ** 0.5).all()
    assert forecast(model, split, steps=2, num_samples=20).mean.shape == (3, 2, 1)
