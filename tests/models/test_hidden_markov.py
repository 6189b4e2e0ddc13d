"""Hidden Markov models against all their paths and hmmlearn; learning by gradients without noise, and by others."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Size, Tensor, nn
from torch.distributions import Distribution
from torch.testing import assert_close

from assertions import assert_within
from padding import mask_of
from subo import (
    ELBO,
    IWAE,
    VIMCO,
    Bernoulli,
    Categorical,
    FullRankGaussian,
    Gaussian,
    HiddenMarkov,
    InputError,
    LatentVariableModel,
    MarkovDistribution,
    Objective,
    OneHotCategorical,
    Poisson,
    ScoreFunction,
    fit,
    mlp,
)
from subo.core.draw import Draw
from subo.distributions.discrete import Categorical as CategoricalDistribution
from subo.evaluation import ais, log_marginal

LENGTHS = (4, 1, 3)


pytestmark = pytest.mark.usefixtures("double_by_default")


FAMILIES: dict[str, Any] = {
    "gaussian": lambda: Gaussian((2,)),
    "full-rank gaussian": lambda: FullRankGaussian((2,)),
    "bernoulli": lambda: Bernoulli((2,)),
    "poisson": lambda: Poisson((2,)),
    "categorical": lambda: Categorical((2,), num_classes=3),
    "categorical, one number": lambda: Categorical((), num_classes=3),
    "one-hot": lambda: OneHotCategorical((1,), num_classes=3),
}


def random_model(family: Any, num_states: int = 3, **options: Any) -> HiddenMarkov:
    model = HiddenMarkov(num_states, family, **options)
    for parameter in (*model.prior.parameters(), *model.likelihood.parameters()):
        nn.init.normal_(parameter)
    return model


def data_of(model: HiddenMarkov, *lengths: int) -> tuple[Tensor, Tensor]:
    mask = mask_of(*lengths)
    return model.sample(len(lengths), {"mask": mask})[1].sample().double(), mask


def paths(length: int, num_states: int) -> Tensor:
    return torch.tensor(list(itertools.product(range(num_states), repeat=length)))


def log_joint_of_paths(model: HiddenMarkov, x: Tensor) -> Tensor:
    """``log p(x, z)`` of every path of one sequence ``(T, ...)``, by its definition; ``(S^T,)``."""
    initial, transition = (table.logits.log_softmax(-1) for table in (model.prior.initial, model.prior.transition))  # pyright: ignore
    num_states = len(initial)
    z = paths(len(x), num_states)
    of_states = model.likelihood.family(model.likelihood.network.weight)  # pyright: ignore[reportArgumentType]
    emitted = torch.stack([of_states.log_prob(row.expand(num_states, *row.shape)) for row in x])
    total = initial[z[:, 0]] + emitted[0, z[:, 0]]
    for t in range(1, len(x)):
        total = total + transition[z[:, t - 1], z[:, t]] + emitted[t, z[:, t]]
    return total


# Exact answers against all paths


@pytest.mark.parametrize("make", FAMILIES.values(), ids=FAMILIES.keys())
def test_everything_is_as_by_going_through_all_paths(make: Any):
    model = random_model(make())
    x, mask = data_of(model, *LENGTHS)
    parameters = [*model.prior.parameters(), *model.likelihood.parameters()]
    assert isinstance(model, LatentVariableModel)
    log_px, marginals, pairs = (
        model.log_px(x, mask),
        model.posterior_marginals(x, mask),
        model.pairwise_marginals(x, mask),
    )
    best, log_joint = model.most_likely_path(x, mask)
    exact = [log_joint_of_paths(model, x[b, :length]) for b, length in enumerate(LENGTHS)]
    truth = torch.stack([each.logsumexp(0) for each in exact])
    assert_close(log_px, truth)
    for a, b in zip(
        torch.autograd.grad(log_px.sum(), parameters),
        torch.autograd.grad(truth.sum(), parameters, retain_graph=True),
        strict=True,
    ):
        assert_close(a, b)
    for b, length in enumerate(LENGTHS):
        z, weight = paths(length, 3), exact[b].softmax(0)
        states = nn.functional.one_hot(z, 3).double()
        assert_close(marginals[b, :length], torch.einsum("n,nts->ts", weight, states))
        assert_close(pairs[b, : length - 1], torch.einsum("n,nts,ntr->tsr", weight, states[:, :-1], states[:, 1:]))
        assert (marginals[b, length:] == 0).all()
        assert (pairs[b, length - 1 :] == 0).all()
        assert (best[b, :length] == z[exact[b].argmax()]).all()
        assert (best[b, length:] == 0).all()
        assert_close(log_joint[b], exact[b].max())
        alone = {"mask": mask_of(length)}
        q = model.posterior(x[b : b + 1, :length], alone["mask"])
        assert_close(q.log_prob(z[:, None])[:, 0], exact[b].log_softmax(0))
        assert_close(model.log_joint(x[b : b + 1, :length], z[:, None], alone)[:, 0], exact[b])


def test_marginals_and_the_best_paths_value_are_differentiable():
    model, length = random_model(Gaussian((2,))), 4
    x, _ = data_of(model, length)
    parameters = [*model.prior.parameters(), *model.likelihood.parameters()]
    exact = log_joint_of_paths(model, x[0])
    states = nn.functional.one_hot(paths(length, 3), 3).double()
    weight = torch.randn(length, 3)
    truth = (weight * torch.einsum("n,nts->ts", exact.softmax(0), states)).sum(), exact.max()
    found = (weight * model.posterior_marginals(x)[0]).sum(), model.most_likely_path(x)[1].sum()
    for a, b in zip(found, truth, strict=True):
        for one, other in zip(
            torch.autograd.grad(a, parameters), torch.autograd.grad(b, parameters, retain_graph=True), strict=True
        ):
            assert_close(one, other)


def test_padding_changes_nothing():
    model = random_model(Gaussian((2,)))
    x, mask = data_of(model, *LENGTHS)
    spoilt = torch.where(mask.unsqueeze(-1), x, torch.nan)
    whole = model.log_px(spoilt, mask)
    assert_close(whole, model.log_px(x, mask))
    for b, length in enumerate(LENGTHS):
        alone = x[b : b + 1, :length]
        assert_close(model.log_px(alone)[0], whole[b], rtol=1e-13, atol=0)
        assert_close(
            model.posterior_marginals(alone)[0], model.posterior_marginals(spoilt, mask)[b, :length], rtol=1e-13, atol=0
        )
    for gradient in torch.autograd.grad(whole.sum(), [*model.prior.parameters(), *model.likelihood.parameters()]):
        assert gradient.isfinite().all()


# Against hmmlearn


def test_a_gaussian_model_agrees_with_hmmlearn():
    from hmmlearn.hmm import GaussianHMM

    model = random_model(Gaussian((2,)))
    x, mask = data_of(model, 30, 20)
    other = GaussianHMM(3, "diag")
    p: Any = model.likelihood.family(model.likelihood.network.weight)  # pyright: ignore[reportArgumentType]
    other.means_, other.covars_ = p.mean.detach().numpy(), p.variance.detach().numpy()
    assert_agrees(model, x, mask, other, np.concatenate([x[0], x[1, :20]]))


def test_a_categorical_model_agrees_with_hmmlearn():
    from hmmlearn.hmm import CategoricalHMM

    model = random_model(Categorical((1,), num_classes=4))
    x, mask = data_of(model, 30, 20)
    other = CategoricalHMM(3)
    params: Any = model.likelihood.network.weight
    other.emissionprob_ = params.reshape(3, 4).softmax(1).detach().numpy()
    assert_agrees(model, x, mask, other, np.concatenate([x[0], x[1, :20]]).astype(int))


def assert_agrees(model: HiddenMarkov, x: Tensor, mask: Tensor, other: Any, steps: np.ndarray):
    other.startprob_ = model.exact.initial.exp().detach().numpy()
    other.transmat_ = model.exact.transition.exp().detach().numpy()
    lengths = mask.sum(1).tolist()
    score, marginals = other.score_samples(steps, lengths)
    assert abs(model.log_px(x, mask).sum().item() - score) < 1e-6
    assert np.abs(model.posterior_marginals(x, mask)[mask].detach().numpy() - marginals).max() < 1e-6
    log_joint, path = other.decode(steps, lengths)
    found, values = model.most_likely_path(x, mask)
    assert abs(values.sum().item() - log_joint) < 1e-6
    assert (found[mask].numpy() == path).all()


# As a latent-variable model


def test_samples_have_the_probabilities_of_the_evidence():
    model = random_model(Bernoulli((1,)), length=3)
    z, p = model.sample(20_000)
    assert isinstance(z, Tensor)
    assert (z.shape, z.dtype) == (Size([20_000, 3]), torch.long)
    bits = p.sample()[..., 0]
    all_bits = torch.tensor(list(itertools.product((0.0, 1.0), repeat=3)))
    exact = model.log_px(all_bits.unsqueeze(-1)).exp().detach()
    assert_close(exact.sum(), torch.tensor(1.0))
    assert_within((bits[:, None] == all_bits).all(-1).double(), exact)


@pytest.mark.parametrize("make", [lambda: Gaussian((2,)), lambda: Bernoulli((2,))], ids=["gaussian", "bernoulli"])
def test_with_the_exact_posterior_every_weight_is_the_evidence_and_vimco_its_gradient(make: Any):
    model = random_model(make())
    x, mask = data_of(model, *LENGTHS)
    draw = model.draw(x, {"mask": mask}, num_samples=5)
    assert isinstance(draw.z, Tensor)
    assert draw.z.dtype == torch.long
    log_px, parameters = model.log_px(x, mask), [*model.prior.parameters(), *model.likelihood.parameters()]
    assert_close(draw.log_weight, log_px.expand(5, -1))
    truth = torch.autograd.grad(log_px.mean(), parameters)
    objective = Objective(model, IWAE(), gradient=VIMCO(), num_samples=2)
    for _ in range(3):  # whatever z
        loss = objective(x, {"mask": mask})
        assert_close(loss.bound, log_px)
        for a, b in zip(torch.autograd.grad(-loss.loss, parameters), truth, strict=True):
            assert_close(a, b)


def test_the_score_function_gradient_with_the_exact_posterior_has_the_evidences_as_its_mean_and_noise():
    model = random_model(Bernoulli((2,)), num_states=2)
    x, _ = data_of(model, 3)
    parameters = [*model.prior.parameters(), *model.likelihood.parameters()]
    drawn = paths(3, 2)[torch.cartesian_prod(torch.arange(8), torch.arange(8))].transpose(0, 1)
    wide, bound = x.expand(64, -1, -1), ELBO(closed_form_kl=False)  # an example for each pair of paths
    q, p, rows = model.posterior(wide), model.prior(mask_of(*[3] * 64)), drawn.flatten(0, 1)
    draw = Draw(
        drawn,
        q,
        q.factors(p, drawn),
        lambda: model.likelihood(rows).log_prob(wide.repeat(2, 1, 1)).unflatten(0, (2, 64)),
    )
    surrogate, weight = ScoreFunction().surrogate(draw, bound, wide), q.log_prob(drawn).sum(0).exp().detach()
    truth = torch.autograd.grad(model.log_px(x).sum(), parameters)
    mean = torch.autograd.grad((weight * surrogate).sum(), parameters, retain_graph=True)
    one = torch.autograd.grad(surrogate[5], parameters)
    for a, b, c in zip(mean, truth, one, strict=True):
        assert_close(a, b)
        assert (c - b).abs().max() > 1e-3


def test_without_a_mask_all_steps_are_real():
    model = random_model(Gaussian((2,)))
    x, mask = data_of(model, 5, 5)
    assert torch.equal(model.log_px(x), model.log_px(x, mask))
    assert_close(model.draw(x, num_samples=2).log_weight, model.log_px(x).expand(2, -1))
    z = torch.randint(3, (4, 2, 5))
    assert_close(model.log_joint(x, z), model.log_joint(x, z, {"mask": mask}))


class Amortized(nn.Module):
    """``q(z_t | z_{t-1}, x)`` from a table and what a network makes of the whole sequence."""

    def __init__(self, num_states: int, length: int, dim: int):
        super().__init__()
        self.network = mlp(length * dim, length * num_states, hidden=(16,))
        self.table = nn.Parameter(torch.zeros(num_states, num_states))
        self.num_states = num_states

    def forward(self, x: Tensor, mask: Tensor | None = None) -> MarkovDistribution:
        inputs = self.network(x.flatten(1)).unflatten(1, (x.shape[1], self.num_states))
        first = CategoricalDistribution(logits=inputs[:, 0])
        return MarkovDistribution(first, self.step, x.shape[1], mask=mask, inputs=inputs)

    def step(self, previous: Tensor, inputs: Tensor) -> Distribution:
        return CategoricalDistribution(logits=self.table[previous] + inputs)


def test_bounds_of_an_amortized_posterior_lie_below_the_evidence_in_their_order():
    model = random_model(Bernoulli((2,)), posterior=Amortized(3, 4, 2))
    x, mask = data_of(model, *LENGTHS)
    log_px = model.log_px(x, mask).detach()
    weights = model.draw(x, {"mask": mask}, num_samples=10_000).log_weight.detach()
    elbo, iwae = weights, weights.view(5, 2000, 3).logsumexp(0) - math.log(5)
    for higher, lower in ((log_px - iwae.mean(0), iwae), (iwae.mean(0) - elbo.mean(0), elbo)):
        assert (higher > 5 * lower.std(0) / len(lower) ** 0.5).all()
    found = log_marginal(model, x, {"mask": mask}, num_samples=4000)
    assert ((found.log_px - log_px).abs() < 5 * found.standard_error).all()
    exact = HiddenMarkov(3, Bernoulli((2,)))
    exact.prior.load_state_dict(model.prior.state_dict())
    exact.likelihood.load_state_dict(model.likelihood.state_dict())
    assert_close(log_marginal(exact, x, {"mask": mask}, num_samples=10).log_px, log_px)
    with pytest.raises(InputError, match="discrete"):
        ais(model, x, {"mask": mask})


# Learning


def maximized(model: HiddenMarkov, x: Tensor) -> float:
    """The largest evidence a step, by the exact gradient and Newton-like steps from where the model is."""
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = -model.log_px(x).mean()
        value.backward()
        return value

    optimizer.step(loss)  # pyright: ignore[reportArgumentType]
    return model.log_px(x).mean().item() / x.shape[1]


def separate(length: int) -> tuple[HiddenMarkov, Tensor]:
    """Two states that stay, with bits that tell them apart but for some, and data of it."""
    truth = HiddenMarkov(2, Bernoulli((2,)), length=length)
    with torch.no_grad():
        truth.prior.transition.logits.copy_(torch.tensor([[2.0, 0.0], [-1.0, 1.5]]))  # pyright: ignore
        truth.likelihood.network.weight.copy_(torch.tensor([[2.0, -1.5], [-2.0, 1.0]]))  # pyright: ignore
    return truth, truth.sample(200)[1].sample()


@pytest.mark.parametrize("amortized", [False, True], ids=["exact", "amortized"])
@pytest.mark.slow
def test_learning_reaches_the_largest_evidence(amortized: bool):
    length = 5
    truth, x = separate(length)
    posterior = Amortized(2, length, 2) if amortized else None
    learned, best = (
        HiddenMarkov(2, Bernoulli((2,)), length=length, posterior=posterior),
        HiddenMarkov(2, Bernoulli((2,))),
    )
    for part in ("prior", "likelihood"):
        getattr(best, part).load_state_dict(getattr(learned, part).state_dict())
    before, largest = learned.log_px(x).mean().item() / length, maximized(best, x)
    assert largest >= truth.log_px(x).mean().item() / length
    objective = Objective(learned, IWAE(), gradient=VIMCO(), num_samples=8 if amortized else 2)
    fit(objective, x, epochs=100, batch_size=200, learning_rate=0.05, decay="cosine")
    found = learned.log_px(x).mean().item() / length
    assert before < largest - 0.1  # there was something to learn
    assert largest - 0.02 < found
    if not amortized:
        return
    gap = (learned.log_px(x) - log_marginal(learned, x, num_samples=200).elbo).mean().item() / length
    assert 0 < gap < 0.1  # the posterior has learned, too


# What is refused


def test_wrong_shapes_are_refused():
    model = HiddenMarkov(3, Bernoulli((2,)))
    with pytest.raises(InputError, match=r"expected sequences \(B, T, 2\), padded to the longest; got \(4, 5, 3\)"):
        model.log_px(torch.zeros(4, 5, 3))
    with pytest.raises(InputError, match=r"got \(4, 0, 2\)"):
        model.draw(torch.zeros(4, 0, 2))
    with pytest.raises(InputError, match="sequence 2 of 2 is empty"):
        model.log_px(torch.zeros(2, 5, 2), mask_of(5, 0))
    with pytest.raises(InputError, match="True after a False"):
        model.draw(torch.zeros(1, 3, 2), {"mask": torch.tensor([[True, False, True]])})
    with pytest.raises(InputError, match="num_states must be at least 1, not 0"):
        HiddenMarkov(0, Bernoulli((2,)))
    with pytest.raises(InputError, match=r"no rsample.*ScoreFunction"):
        model.draw(torch.zeros(4, 5, 2), path=True)
    with pytest.raises(InputError, match="context={'mask'"):
        model.sample(3)
