"""Models conditioned on columns of a table: exact log p(x|c), by a linear-Gaussian model and by enumeration."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal
from torch.testing import assert_close

from assertions import assert_refused, assert_within
from subo.data.splits import Split
from subo.evaluation.imputation import impute
from subo.evaluation.scores import score
from subo.parts.cells import Cells, GivenCells
from subo.recipes import vae

pytestmark = pytest.mark.usefixtures("double_by_default")

NAN = torch.nan
D, GIVEN = 3, ("real", "category 3")
C = torch.tensor(
    [[0.5, 0.0], [-1.5, 2.0], [NAN, 1.0], [2.0, NAN], [0.0, 3.0]]
).double()  # the last level was never seen
SEEN = torch.tensor(
    [  # numbers, levels, and which are observed
        [0.5, 1, 0, 0, 1, 1],
        [-1.5, 0, 0, 1, 1, 1],
        [0.0, 0, 1, 0, 0, 1],
        [2.0, 0, 0, 0, 1, 0],
        [0.0, 0, 0, 0, 1, 1],
    ]
).double()


def layer(network: nn.Module) -> nn.Linear:
    """The only layer with weights."""
    (found,) = (module for module in network.modules() if isinstance(module, nn.Linear))
    return found


def linear_gaussian() -> tuple[Any, Tensor, Tensor, Tensor]:
    """``x = w z + A c + b + s e`` with one z, and its exact posterior as encoder; also w, [A, b] and s."""
    settings: dict[str, Any] = {"likelihood": "columns", "columns": ("real",) * D, "hidden": (), "latent_dim": 1}
    settings["degrees_of_freedom"] = 1e12  # as good as normal
    model: Any = vae((D,), condition=("dose", "site"), given=GIVEN, **settings).model
    w, effects = torch.randn(D), torch.randn(D, 7)
    decoder, encoder = layer(model.likelihood.network), layer(model.posterior.network)
    with torch.no_grad():
        scale = model.likelihood.family.kinds[0].scale
        scale.raw.copy_(scale.raw_of(torch.tensor([0.5, 1.0, 2.0])))
        s = scale.of()
        decoder.weight.copy_(torch.cat([w[:, None], effects[:, :6]], 1))
        decoder.bias.copy_(effects[:, 6])
        variance = 1 / (1 + (w**2 / s**2).sum())
        gain = variance * w / s**2
        mean = torch.cat([gain, torch.zeros(D), -gain @ effects])  # of x, of which cells of it there are, of c and 1
        raw = model.posterior.family.location_scale.scale.raw_of(variance.sqrt())
        encoder.weight.copy_(torch.stack([mean[:-1], torch.zeros(len(mean) - 1)]))
        encoder.bias.copy_(torch.stack([mean[-1], raw]))
    return model, w, effects, s


def exact(w: Tensor, effects: Tensor, s: Tensor) -> MultivariateNormal:
    """p(x|c) for each row of C."""
    mean = SEEN @ effects[:, :6].T + effects[:, 6]
    return MultivariateNormal(mean, (w[:, None] * w + s.square().diag()).expand(len(C), D, D))


def test_log_px_given_c_is_that_of_the_linear_gaussian_model():
    """The weights of the exact posterior do not vary: each is p(x|c)."""
    model, *known = linear_gaussian()
    p = exact(*known)
    x = p.sample()
    log_weight = model.draw(x, {"given": C}, num_samples=4).log_weight
    assert_close(log_weight, p.log_prob(x).expand(4, -1))
    assert (p.log_prob(x.roll(1, 0)) - p.log_prob(x)).abs().min() > 1e-3  # c matters
    scores = score(model, Split(x, context={"given": C}), num_samples=3)
    assert_close(scores.log_px.double(), p.log_prob(x))


def test_a_row_has_its_own_condition_whatever_is_drawn_beside_it():
    model, *known = linear_gaussian()
    split = Split(exact(*known).sample(), context={"given": C})
    order = torch.tensor([3, 0, 4, 1, 2, 0])
    whole, shuffled = (score(model, part, num_samples=3).log_px for part in (split, split.take(order)))
    assert_close(shuffled, whole[order])


def test_samples_and_fillings_follow_the_condition():
    model, *known = linear_gaussian()
    p = exact(*known)
    drawn = model.sample(4000 * len(C), {"given": C.repeat(4000, 1)})[1].sample().unflatten(0, (4000, len(C)))
    spread = p.covariance_matrix.diagonal(dim1=1, dim2=2).sqrt()
    assert_within(drawn, p.mean)
    x = torch.full((len(C), D), NAN)  # nothing is observed but c; q is then wrong, and the weights make up for it
    result = impute(model, Split(x, context={"given": C}), num_draws=2000, num_samples=5000)
    error = spread / 2000**0.5 + spread / result.effective_sample_size.sqrt()[:, None]
    assert result.effective_sample_size.min() > 100
    assert ((result.draws.mean(0) - p.mean).abs() < 5 * error).all()


def test_the_cells_of_the_condition_stand_beside_the_input():
    seen = GivenCells(nn.Identity(), Cells(GIVEN))(torch.full((5, 1), 7.0), given=C)
    assert_close(seen, torch.cat([torch.full((5, 1), 7.0), SEEN], 1))


@pytest.mark.parametrize("kind", ["boolean 2", "ordinal 3", "count"])
def test_probabilities_of_all_rows_sum_to_one_for_each_condition(kind: str):
    """Two discrete latents are summed over: p(x|c) of all rows x of two columns, their unseen levels included."""
    settings: dict[str, Any] = {"likelihood": "columns", "columns": ("boolean 2", "category 3"), "latent_dim": 2}
    model: Any = vae((2,), condition="c", given=(kind,), posterior="bernoulli", hidden=(8,), **settings).model
    for parameter in model.likelihood.parameters():
        nn.init.normal_(parameter)
    x = torch.tensor([*itertools.product(range(3), range(4))]).double()
    z = torch.tensor([*itertools.product(range(2), repeat=2)]).double()
    sums = []
    for c in (0.0, 1.0, NAN):
        given = torch.full((len(x), 1), c)
        log_px = model.log_joint(x, z[:, None].expand(-1, len(x), -1), {"given": given}).logsumexp(0).detach()
        assert_close(log_px.exp().sum(), torch.tensor(1.0))
        scores = score(model, Split(x, context={"given": given}), num_samples=20_000)
        assert ((scores.log_px - log_px).abs() < 5 * scores.standard_error + 1e-6).all()
        sums.append(log_px)
    assert min((sums[i] - sums[j]).abs().max() for i, j in ((0, 1), (0, 2), (1, 2))) > 0.05


@pytest.mark.parametrize("options", [
    {}, {"prior": "mixture"}, {"prior": "spline-flow"}, {"posterior": "categorical"}, {"network": "residual"},
    {"inference": "semi-amortized"}, {"inference": "local", "num_data": 5}, {"bound": "iwae", "num_samples": 3},
    {"posterior": "bernoulli", "baseline": "network"},
], ids=str)  # fmt: skip
def test_every_combination_trains(options: dict[str, Any]):
    settings: dict[str, Any] = {"likelihood": "columns", "columns": ("real", "count", "boolean 2"), "hidden": (8,)}
    x = torch.tensor([[0.1, 3, 1], [NAN, 0, 0], [1, NAN, NAN], [0, 1, 1], [2, 2, 0]])
    settings |= {"condition": ("a", "b"), "given": GIVEN, "examples": (x, {"given": C})}
    objective = vae((3,), **(settings | {"latent_dim": 2} | options))
    loss = objective(x, {"given": C, "index": torch.arange(5)})
    loss.loss.backward()
    assert loss.bound.isfinite().all()
    assert all(p.grad is None or p.grad.is_sparse or p.grad.isfinite().all() for p in objective.parameters())


def test_what_is_refused():
    settings: dict[str, Any] = {"likelihood": "columns", "columns": ("real",)}
    with assert_refused("the vamp prior"):
        vae((1,), condition="a", given=("real",), prior="vamp", **settings)
    with assert_refused("needs condition labels"):
        vae((1,), condition="a", given=("real",), prior="by-label", **settings)
    with assert_refused("names of columns of a table"):
        vae((1,), condition="lables", likelihood="gaussian")
    objective = vae((1,), condition="a", given=("real",), **settings)
    with assert_refused("needs the context 'given'"):
        objective(torch.zeros(2, 1))
