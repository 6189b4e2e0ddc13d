"""Sequences with missing values and steps, against sums over all paths and the Gaussian of what is observed."""

from typing import Any

import pytest
import torch
from test_hidden_markov import FAMILIES, data_of, paths
from test_hidden_markov import random_model as random_hidden_markov
from test_state_space import Dense
from test_state_space import random_model as random_state_space
from torch import Tensor, nn
from torch.distributions import Independent, MultivariateNormal, Normal
from torch.testing import assert_close

from assertions import assert_refused, assert_within
from padding import mask_of
from subo import ELBO, IWAE, Bernoulli, Categorical, Gaussian, OneHotCategorical, Poisson, Split, fit, make
from subo.data.spread import observed_in_turn
from subo.data.values import kind_of, num_classes_of
from subo.distributions.observed import observed_log_prob
from subo.models.deep_markov import BackwardReader
from subo.parts.columns import Columns

pytestmark = pytest.mark.usefixtures("double_by_default")
NAN = float("nan")
HIDDEN_LENGTHS, LENGTHS = (4, 1, 3), (6, 1, 3, 4)


def with_gaps(x: Tensor, share: float = 0.4, *, whole: int = 0) -> Tensor:
    """Data of which some values are missing, or whole elements of `whole` dimensions, and the second step of all."""
    chosen = torch.rand(x.shape[: x.ndim - whole]) < share
    chosen[:, 1:2] = True
    return x.masked_fill(chosen.reshape(chosen.shape + (1,) * whole), NAN)


@pytest.mark.parametrize("event", [(), (3,), (2, 3)])
def test_of_independent_elements_the_factors_of_the_observed_ones_remain(event: tuple[int, ...]):
    loc, scale = torch.randn(4, *event), torch.rand(4, *event) + 0.5
    x = with_gaps(torch.randn(5, 4, *event))
    p = Independent(Normal(loc, scale), len(event))
    cells = Normal(loc, scale).log_prob(x.nan_to_num(0))
    expected = torch.where(x.isnan(), 0, cells).reshape(5, 4, -1).sum(-1)
    assert_close(observed_log_prob(p, x), expected)


def test_of_a_normal_the_block_of_the_observed_elements_remains():
    factor = torch.randn(4, 4).tril(-1) + torch.diag(torch.rand(4) + 0.5)
    factor.requires_grad_()
    p, x = MultivariateNormal(torch.randn(4), scale_tril=factor), with_gaps(torch.randn(6, 4))
    found, exact = observed_log_prob(p, x), torch.zeros(6)
    for row in range(6):
        seen = ~x[row].isnan()
        if seen.any():
            block = MultivariateNormal(p.loc[seen], p.covariance_matrix[seen][:, seen])
            exact[row] = block.log_prob(x[row, seen])
    assert_close(found, exact)
    a, b = (torch.autograd.grad(values.sum(), factor, retain_graph=True)[0] for values in (found, exact))
    assert_close(a, b)


def test_what_cannot_be_integrated_out_is_refused():
    p = torch.distributions.Dirichlet(torch.ones(3))
    with assert_refused("Dirichlet cannot be integrated out"):
        observed_log_prob(p, torch.tensor([0.5, NAN, 0.5]))
    one_hot = OneHotCategorical((1,), num_classes=3)(torch.zeros(1, 3))
    with assert_refused("as a whole or not at all"):
        observed_log_prob(one_hot, torch.tensor([[[1.0, NAN, 0.0]]]))


# A hidden Markov model: all paths, with the factors of the observed values


@pytest.mark.parametrize("make", FAMILIES.values(), ids=FAMILIES.keys())
def test_a_hidden_markov_model_is_as_by_going_through_all_paths(make: Any):
    model = random_hidden_markov(make())
    x, mask = data_of(model, *HIDDEN_LENGTHS)
    x = with_gaps(x, whole=1 if isinstance(model.likelihood.family, OneHotCategorical) else 0)
    log_px, marginals = model.log_px(x, mask), model.posterior_marginals(x, mask)
    best, log_joint = model.most_likely_path(x, mask)
    exact = [log_joint_of_paths(model, x[b, :length]) for b, length in enumerate(HIDDEN_LENGTHS)]
    truth = torch.stack([each.logsumexp(0) for each in exact])
    assert_close(log_px, truth)
    parameters = [*model.prior.parameters(), *model.likelihood.parameters()]
    grads = [torch.autograd.grad(value.sum(), parameters, retain_graph=True) for value in (log_px, truth)]
    for a, b in zip(*grads, strict=True):
        assert_close(a, b)
    for b, length in enumerate(HIDDEN_LENGTHS):
        z, weight = paths(length, 3), exact[b].softmax(0)
        assert_close(marginals[b, :length], torch.einsum("n,nts->ts", weight, nn.functional.one_hot(z, 3).double()))
        assert_close(log_joint[b], exact[b].max())
        assert_close(exact[b][(z == best[b, :length]).all(1)].squeeze(), exact[b].max())
        alone = {"mask": mask_of(length)}
        assert_close(model.log_joint(x[b : b + 1, :length], z[:, None], alone)[:, 0], exact[b])
    draw = model.draw(x, {"mask": mask}, num_samples=3)
    assert_close(draw.log_weight, truth.expand(3, -1))


def log_joint_of_paths(model: Any, x: Tensor) -> Tensor:
    """``log p(x_observed, z)`` of every path: the density of the observed numbers, found by summing out the others."""
    initial, transition = (table.logits.log_softmax(-1) for table in (model.prior.initial, model.prior.transition))
    z, family, rows = paths(len(x), 3), model.likelihood.family, model.likelihood.network.weight
    total = initial[z[:, 0]]
    for t in range(len(x)):
        total = total + torch.stack([observed(family, rows[state], x[t]) for state in range(3)])[z[:, t]]
        if t:
            total = total + transition[z[:, t - 1], z[:, t]]
    return total


def observed(family: Any, row: Tensor, x: Tensor) -> Tensor:
    """``log p(x_observed)`` of one step in one state, by a family of fewer elements, or a sum over all values."""
    seen, p = ~x.isnan(), family(row[None])
    if seen.all():
        return p.log_prob(x[None])[0]
    if isinstance(p, MultivariateNormal):
        block = p.covariance_matrix[0][seen][:, seen]
        return MultivariateNormal(p.loc[0, seen], block).log_prob(x[seen]) if seen.any() else torch.zeros(())
    if isinstance(family, Bernoulli | Categorical | OneHotCategorical):
        classes = 2 if isinstance(family, Bernoulli) else 3
        values = torch.cartesian_prod(*[torch.arange(classes)] * max(1, x.shape[0] if x.ndim else 1)).double()
        values = nn.functional.one_hot(values.long(), 3).double() if isinstance(family, OneHotCategorical) else values
        values = values.reshape(-1, *x.shape)
        fits = (torch.where(seen, values, 0) == x.nan_to_num(0)).reshape(len(values), -1).all(1)
        return p.log_prob(values[fits].unsqueeze(1))[:, 0].logsumexp(0)
    assert isinstance(family, Gaussian | Poisson)
    return torch.where(seen, p.base_dist.log_prob(x.nan_to_num(0))[0], 0).sum()  # pyright: ignore


# A linear-Gaussian model: the Gaussian of the observed numbers


def parts_of(model: Any, x: Tensor) -> tuple[Tensor, MultivariateNormal]:
    """``log p(x_observed)`` of one sequence ``(T, D)``, and the posterior of its states, by blocks of the joint."""
    dense, seen = Dense.of(model, len(x)), ~x.isnan().flatten()
    covariance, cross = dense.covariance_x[seen][:, seen], dense.covariance_zx[:, seen]
    error = x.flatten()[seen] - dense.mean_x[seen]
    log_px = MultivariateNormal(dense.mean_x[seen], covariance).log_prob(x.flatten()[seen])
    gain = torch.linalg.solve(covariance, cross.mT).mT
    rest = dense.covariance_z - gain @ cross.mT
    return log_px, MultivariateNormal(dense.mean_z + gain @ error, (rest + rest.mT) / 2)


def test_a_linear_gaussian_model_is_as_the_gaussian_of_the_observed_numbers():
    model, mask = random_state_space(), mask_of(*LENGTHS)
    x = with_gaps(2 * torch.randn(4, 6, 3))
    log_px, smoothed, filtered = model.log_px(x, mask), model.smooth(x, mask), model.filter(x, mask)
    exact = [parts_of(model, x[b, :length]) for b, length in enumerate(LENGTHS)]
    truth = torch.stack([value for value, _ in exact])
    assert_close(log_px, truth)
    for a, b in zip(*(torch.autograd.grad(v.sum(), [*model.parameters()]) for v in (log_px, truth)), strict=True):
        assert_close(a, b)
    for b, length in enumerate(LENGTHS):
        posterior = exact[b][1]
        assert_close(smoothed.mean[b, :length].flatten(), posterior.loc)
        for t in range(length):
            block = slice(2 * t, 2 * t + 2)
            assert_close(smoothed.covariance[b, t], posterior.covariance_matrix[block, block])
            known = parts_of(model, x[b, : t + 1])[1] if not x[b, : t + 1].isnan().all() else None
            if known is not None:
                assert_close(filtered.mean[b, t], known.loc[-2:])
                assert_close(filtered.covariance[b, t], known.covariance_matrix[-2:, -2:])
        assert (smoothed.mean[b, length:] == 0).all()


def test_with_missing_values_the_posterior_is_exact_too_and_every_weight_the_evidence():
    model, context = random_state_space(), {"mask": mask_of(*LENGTHS)}
    vae, x = model.as_vae(), with_gaps(2 * torch.randn(4, 6, 3))
    log_px, parameters = model.log_px(x, context["mask"]), list(model.parameters())
    truth = torch.autograd.grad(log_px.sum(), parameters, retain_graph=True)
    draw = vae.draw(x, context, num_samples=3, path=True)
    assert_close(draw.log_weight, log_px.expand(3, -1))
    for bound in (IWAE(), ELBO(closed_form_kl=False)):
        found = torch.autograd.grad(bound(draw).sum(), parameters, retain_graph=True)
        for a, b in zip(found, truth, strict=True):
            assert_close(a, b)
    z = vae.posterior(x[:1]).rsample((20_000,)).detach().flatten(2)
    assert_within(z[:, 0], parts_of(model, x[0])[1].loc.detach())


def test_columns_of_a_table_may_be_the_steps_of_a_chain():
    model = random_hidden_markov(Columns((2,), columns=("real", "category 3")))
    x = torch.tensor([[[0.5, 2.0], [NAN, 1.0], [NAN, NAN]]])
    exact = log_joint_of_paths_of_columns(model, x[0]).logsumexp(0)
    assert_close(model.log_px(x)[0], exact)


def log_joint_of_paths_of_columns(model: Any, x: Tensor) -> Tensor:
    initial, transition = (table.logits.log_softmax(-1) for table in (model.prior.initial, model.prior.transition))
    z, p = paths(len(x), 3), model.likelihood.family(model.likelihood.network.weight)
    emitted = torch.stack([p.log_prob_of_columns(row.expand(3, -1)).sum(-1) for row in x])
    total = initial[z[:, 0]] + emitted[0, z[:, 0]]
    for t in range(1, len(x)):
        total = total + transition[z[:, t - 1], z[:, t]] + emitted[t, z[:, t]]
    return total


# The recipe deep-markov


def waves() -> Any:
    """Noisy waves with missing values, and three steps of each without any."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(12, 20, (40,), generator=generator)
    parts = []
    for length in lengths.tolist():
        phase = 6 * torch.rand((), generator=generator)
        x = torch.stack([(0.5 * torch.arange(length) + phase).sin(), (0.5 * torch.arange(length) + phase).cos()], 1)
        x = x + 0.1 * torch.randn(x.shape, generator=generator)
        x[torch.rand(x.shape, generator=generator) < 0.2] = NAN
        x[4:7] = NAN
        parts.append(x)
    return Split(torch.cat(parts), lengths=lengths)


def test_the_recipe_starts_at_the_observed_values_and_learns_from_them():
    split = waves()
    settings = {"latent_dim": 3, "hidden": (16,), "transition_hidden": 16, "reader_hidden": 16}
    objective = make("deep-markov", split, likelihood="gaussian", **settings)
    unit = objective.model.likelihood.family.location_scale.unit
    observed = split.x[~split.x.isnan().any(1)]
    assert_close(unit, observed.std(0, correction=0), rtol=0.15, atol=0)
    reader = objective.model.posterior.reader
    assert reader.missing_indicator
    before = objective(*split.read(torch.arange(40))).bound.mean()
    fit(objective, split, epochs=15, batch_size=8, learning_rate=1e-2)
    after = objective(*split.read(torch.arange(40))).bound
    assert after.isfinite().all()
    assert after.mean() > before + 5


def test_a_missing_value_is_no_value_to_the_reader_but_its_mark():
    reader = BackwardReader(nn.Flatten(), 2, hidden=4, missing_indicator=True)
    x = torch.randn(1, 3, 2)
    gone = x.clone()
    gone[0, 1, 0] = NAN
    filled = gone.nan_to_num(0)
    assert not torch.allclose(reader(gone), reader(filled))
    plain = BackwardReader(nn.Flatten(), 2, hidden=4)
    assert_close(plain(gone), plain(filled))


def test_an_encoder_with_parameters_has_a_gradient_where_values_are_missing():
    reader = BackwardReader(nn.Linear(3, 2), 2, hidden=4)
    x = torch.randn(2, 4, 3)
    x[0, 1, 2] = NAN
    reader(x).sum().backward()
    assert all(
        parameter.grad is not None and bool(parameter.grad.isfinite().all()) for parameter in reader.parameters()
    )


def test_observed_values_stand_in_for_missing_ones():
    x = torch.randn(1000, 3)
    x[torch.rand(1000, 3) < 0.4] = NAN
    x[:, 2] = NAN
    full = observed_in_turn(x)
    known = ~x.isnan()
    assert_close(full[known], x[known])
    for column in range(2):
        assert {*full[:, column].tolist()} == {*x[known[:, column], column].tolist()}
        assert_close(full[:, column].std(), x[known[:, column], column].std(), rtol=0.05, atol=0)
    assert (full[:, 2] == 0).all()


def test_kinds_and_classes_are_those_of_the_observed_values():
    x = torch.tensor([[0.0, NAN], [1.0, 2.0]])
    assert (kind_of(x[:, :1]), kind_of(x), num_classes_of([x])) == ("binary", "whole", (2, 3))
    with assert_refused("none is observed"):
        Split.from_sequences([torch.full((3, 2), NAN)])
