"""The family of mixed tables and the way of cells into networks, against the columns one by one."""

import itertools
import math
from typing import Any

import pytest
import torch
from scipy.stats import t
from torch import nn
from torch.testing import assert_close

from subo.data.splits import Split
from subo.distributions.cells import Ordinal
from subo.distributions.negative_binomial import NegativeBinomial
from subo.errors import InputError
from subo.models.vae import VAE
from subo.parts.cells import Cells
from subo.parts.columns import Columns, kind_and_levels
from subo.parts.conditionals import Conditional
from subo.parts.families import Bernoulli
from subo.parts.priors import BernoulliPrior
from subo.recipes import RECIPES
from subo.recipes.for_data import make
from subo.training.fitting import fit

pytestmark = pytest.mark.usefixtures("double_by_default")

t_of: Any = t
NAN, INF = torch.nan, torch.inf
KINDS = ("count", "real", "category 3", "ordinal 4", "spike", "boolean 2", "category 40", "positive")


def rows(num: int = 400) -> torch.Tensor:
    """Rows of these kinds, a fifth of whose cells are missing."""
    columns = [
        torch.poisson(torch.full((num,), 3.0)),
        torch.randn(num),
        torch.randint(3, (num,)).double(),
        torch.randint(4, (num,)).double(),
        torch.where(torch.rand(num) < 0.3, INF, torch.randn(num)),
        torch.randint(2, (num,)).double(),
        torch.randint(40, (num,)).double(),
        torch.randn(num),
    ]
    x = torch.stack(columns, 1)
    return torch.where(torch.rand_like(x) < 0.2, NAN, x)


@pytest.mark.parametrize("source", ["shared", "per-dimension", "network"])
def test_an_untrained_decoder_describes_each_column_by_its_frequencies(source):
    x = rows()
    family = Columns((8,), columns=KINDS, scale=source, dispersion=source)
    p = family(family.start(x).unsqueeze(0))

    def probability(column: int, value: float) -> float:
        cell = torch.full((1, 8), NAN)
        cell[0, column] = value
        return p.log_prob(cell).exp().item()

    for column, levels in ((2, 3), (5, 2), (6, 40)):
        counts = torch.bincount(x[:, column][~x[:, column].isnan()].long(), minlength=levels) + 0.5
        expected = (counts / counts.sum() * (1 - 1e-4)).tolist()
        assert [probability(column, level) for level in range(levels)] == pytest.approx(expected)
        assert probability(column, levels) == pytest.approx(1e-4)  # a new level
    known = x[:, 3][~x[:, 3].isnan()]
    for level in range(3):
        below = sum(probability(3, grade) for grade in range(level + 1))
        share = ((known <= level).sum().item() + (level + 1) / 4) / (len(known) + 1)
        assert below == pytest.approx(share * (1 - 1e-4))
    assert probability(3, 4) == pytest.approx(1e-4)
    spikes = x[:, 4][~x[:, 4].isnan()].isinf()
    assert probability(4, INF) == pytest.approx((spikes.sum().item() + 0.5) / (len(spikes) + 1))
    counts = x[:, 0][~x[:, 0].isnan()]
    assert p.mean[0, 0].item() == pytest.approx((counts.sum().item() + 1) / (len(counts) + 1))


def test_a_start_has_the_variance_of_counts():
    torch.manual_seed(1)
    x = NegativeBinomial(torch.full((5000, 1), 2.0), torch.tensor(0.7)).sample()
    for source in ("per-dimension", "network"):
        family = Columns((1,), columns=("count",), dispersion=source)
        made = family.kinds[0](family.start(x), torch.zeros(1))
        assert made.variance.item() == pytest.approx(x.var().item(), rel=0.02)


def test_many_levels_and_few_do_not_share_an_array():
    sizes = {tuple(kind.index.tolist()) for kind in Columns((8,), columns=KINDS).kinds}
    assert {(5,), (2,), (6,), (1,), (7,)} <= sizes


def test_units_turn_densities_of_numbers_into_those_of_cells():
    family = Columns((2,), columns=("real", "positive"))
    family.set_units(shift=torch.tensor([0.3, -1.0]), slope=torch.tensor([0.0, 2.0]), unseen=torch.full((2,), 0.5))
    params, x = torch.zeros(1, 2), torch.tensor([[0.2, 0.7]])
    plain = Columns((2,), columns=("real", "positive"))(params).log_prob(x)
    assert_close(family(params).log_prob(x), plain - (0.3 - 1.0 + 2.0 * 0.7))


@pytest.mark.parametrize(
    "columns, words",
    [(("real",), "1 columns were described, for data of shape"), (("real", "colour"), "no kind of column 'colour'")],
)
def test_columns_that_cannot_be(columns, words):
    with pytest.raises(InputError, match=words):
        Columns((2,), columns=columns)


def test_scales_at_their_floor_are_counted():
    family = Columns((2,), columns=("real", "spike"), min_scale=0.01)
    p = family(torch.zeros(3, family.num_params))
    assert family.share_at_floor(p) == 0
    with torch.no_grad():
        family.kinds[0].scale.raw.fill_(-100)
    assert family.share_at_floor(p) == 0.5
    assert (
        Columns((1,), columns=("count",)).share_at_floor(Columns((1,), columns=("count",))(torch.zeros(1, 1))) is None
    )


def test_a_level_that_was_never_seen_is_inside_the_support_and_no_other_is():
    for kind in ("ordinal 3", "category 3"):
        support = Columns((1,), columns=(kind,)).rows
        values = torch.tensor([[0.0], [2.0], [3.0], [4.0], [1.5], [-1.0]])
        assert support.check(values).tolist() == [True] * 3 + [False] * 3


def test_two_levels_in_order_have_no_steps_between_thresholds_and_train():
    x = torch.randint(2, (40, 1)).double()
    objective: Any = RECIPES["vae"]((1,), likelihood="columns", columns=("ordinal 2",), latent_dim=1, hidden=(4,))
    fit(objective, Split(x.float()), epochs=1)
    assert objective.model.likelihood.family.kinds[0].log_steps.numel() == 0


# The way into networks


def test_cells_are_numbers_levels_spikes_and_a_mask():
    x = torch.tensor([[4.0, 2.0, 1.0, 3.0, INF, 0.0, 39.0, 1.5], [NAN] * 8])
    found = Cells(KINDS)(x)
    hot = [[0, 1, 0], [1, 0], [*[0] * 39, 1]]
    numbers = [math.log(5.0), 2.0, 3.0, 0.0, 1.5]
    assert_close(found[0], torch.tensor([*numbers, *itertools.chain(*hot), 1.0, *[1.0] * 8]))
    assert not found[1].any()


def test_numbers_enter_in_units_of_their_spread_and_unseen_levels_without_a_level():
    x = rows()
    entry = Cells(KINDS, x)
    numbers = entry(x)[:, :5]
    known = ~x[:, [0, 1, 3, 4, 7]].isfinite().logical_not()
    for column in range(5):
        values = numbers[known[:, column], column]
        assert values.mean().item() == pytest.approx(0, abs=1e-9)
        assert values.std(correction=0).item() == pytest.approx(1)
    new = x[:1].clone()
    new[0, 2], new[0, 3] = 3.0, 4.0
    assert entry(new)[0, 5:8].tolist() == [0.0] * 3
    assert entry(new)[0, 2] == 0  # of the numbers, that of the grade
    assert entry(new)[0, -6] == 1


# A model with a known answer


def test_a_discrete_table_is_enumerated():
    """Two bits z decide three columns; p of any cells and of missing ones given others is a sum over four z."""
    from subo.data.splits import Split
    from subo.evaluation.evidence.importance import log_marginal
    from subo.evaluation.imputation import impute

    kinds = ("category 3", "ordinal 3", "boolean 2")
    family, decoder = Columns((3,), columns=kinds), nn.Linear(2, 3 + 1 + 2)
    nn.init.normal_(decoder.weight, std=2)
    prior = BernoulliPrior(2)
    q = Conditional(Bernoulli((2,)), nn.Sequential(Cells(kinds), nn.Linear(9, 2)))
    model = VAE(prior, Conditional(family, decoder), q)
    z = torch.cartesian_prod(torch.arange(2.0), torch.arange(2.0))
    log_prior, p = prior().log_prob(z), model.decode(z)

    def log_px(row: torch.Tensor) -> float:
        return (log_prior + p.log_prob(row.expand(4, 3))).logsumexp(0).item()

    known = [(a, b, c) for a in (0.0, 1.0, 2.0) for b in (0.0, 1.0, 2.0) for c in (0.0, 1.0)]
    total = sum(math.exp(log_px(torch.tensor(row))) for row in known)
    assert total == pytest.approx((1 - 1e-4) ** 3)  # the rest is unseen
    x = torch.tensor([[1.0, NAN, 1.0], [NAN, 2.0, NAN], [2.0, 0.0, 0.0]])
    found = log_marginal(model, x, num_samples=50_000)
    exact = torch.tensor([log_px(row) for row in x])
    assert ((found.log_px - exact).abs() < 5 * found.standard_error).all()
    draws = impute(model, Split(x), num_draws=20_000, num_samples=20_000).draws
    for grade in range(3):
        exact_share = math.exp(log_px(torch.tensor([1.0, grade, 1.0])) - log_px(x[0]))
        error = math.sqrt(2 * exact_share * (1 - exact_share) / 20_000)
        assert abs((draws[:, 0, 1] == grade).double().mean().item() - exact_share) < 5 * error


def test_every_recipe_describes_tables():
    from subo.data.dataset import Data
    from subo.data.meaning import Meaning
    from subo.data.splits import Split
    from subo.data.tables.schema import Column, Schema

    torch.set_default_dtype(torch.float32)
    schema = Schema(
        tuple(
            Column(f"c{i}", kind, levels=tuple(range(levels)))  # pyright: ignore[reportArgumentType]
            for i, (kind, levels) in enumerate(map(kind_and_levels, KINDS))
        )
    )
    part = Split(rows(40).float())
    meaning = Meaning("mixed", (8,), table=schema)
    data = Data("t", part, part, part, kind="mixed", decided=meaning)
    priors = [{"prior": name, "prior_components": 5} for name in ("mixture", "vamp", "spline-flow")]
    models = [("vae", options) for options in priors]
    for recipe, options in [*((name, {}) for name in RECIPES if name != "deep-markov"), *models]:
        objective = make(recipe, data, **options)
        loss = objective(part.x)
        assert loss.bound.isfinite().all()
        loss.loss.backward()
        assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in objective.parameters())
    with pytest.raises(InputError, match="does not describe"):
        make("vae", data, likelihood="gaussian")
    with pytest.raises(InputError, match="is none"):
        make("vae", torch.randn(20, 3), likelihood="columns")


def test_thresholds_of_grades_are_learned():
    x = torch.randint(4, (200, 1)).double()
    family = Columns((1,), columns=("ordinal 4",))
    params = nn.Parameter(family.start(x).expand(200, -1).clone())
    (-family(params).log_prob(x).sum()).backward()
    assert isinstance(family.kinds[0](params, torch.zeros(1)), Ordinal)
    assert all(parameter.grad is not None for parameter in family.parameters())


def test_real_numbers_may_have_heavy_tails():
    x = torch.tensor([[0.5, NAN, 2.0], [-3.0, 1.0, 9.0]])
    family = Columns((3,), columns=("real", "positive", "date"), degrees_of_freedom=4.0, scale="network")
    params = torch.linspace(-1, 1, family.num_params)  # of the real number and the date, then of the positive one
    found = family(params[None]).log_prob_of_columns(x)
    scale = family.kinds[0].scale.of(params[2:4])
    tailed = t_of(4.0, params[:2].numpy(), scale.numpy()).logpdf(x[:, [0, 2]].numpy())
    assert_close(found[:, [0, 2]], torch.tensor(tailed))
    normal = torch.distributions.Normal(params[4], family.kinds[1].scale.of(params[5:])).log_prob(x[1, 1])
    assert_close(found[1, 1], normal[0])
    assert family.numbers == (0, 1, 2)
