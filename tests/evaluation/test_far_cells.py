"""Rows with a cell that lies far from all others, up to the range of floats: its score, and those beside it."""

import math

import pytest
import torch
from torch.testing import assert_close

from subo import likelihood_regret
from subo.data.splits import Split
from subo.evaluation.cells import cell_scores
from subo.evaluation.imputation import impute
from subo.evaluation.scores import score
from subo.inference.ascent import Ascent
from subo.parts.cells import Cells
from subo.recipes import vae

KINDS = ("real", "spike", "count", "positive")
ORDINARY = [0.3, -0.2, 2.0, 0.1]


def examples(rows: int = 300) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 4, generator=generator)
    x[::3, 1] = torch.inf
    x[:, 2] = torch.poisson(torch.full((rows,), 3.0), generator=generator)
    return x


@pytest.fixture
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    settings = {"columns": KINDS, "likelihood": "columns", "latent_dim": 2, "hidden": (8,)}
    return vae((4,), examples=examples(), **settings).model  # pyright: ignore[reportArgumentType]


def far(**cells: float) -> Split:
    """The ordinary row, and one with other cells."""
    names = ("real", "spike", "count", "positive")
    return Split(torch.tensor([ORDINARY, [cells.get(name, cell) for name, cell in zip(names, ORDINARY, strict=True)]]))


def test_a_network_sees_no_number_beyond_the_range_of_its_examples_by_more_than_the_reach():
    x = examples()
    cells, known = Cells(KINDS, x, reach=1.0), x[:, 1].isfinite()
    ends = [cells.max() + cells.std(correction=0) for cells in (x[:, 0], x[known, 1], x[:, 2].log1p(), x[:, 3])]
    ends[2] = ends[2].expm1()
    assert_close(cells(torch.full((1, 4), 1e30)), cells(torch.stack(ends).unsqueeze(0)), rtol=1e-4, atol=1e-4)
    assert_close(cells(x), Cells(KINDS, x)(x))  # within the range nothing changes


def test_weights_of_before_there_was_a_range_have_none():
    x = examples()
    stored = {name: value for name, value in Cells(KINDS, x).state_dict().items() if name in ("center", "unit")}
    cells = Cells(KINDS, reach=1.0)
    cells.load_state_dict(stored)
    assert_close(cells(100 * x.clamp(max=99)), Cells(KINDS, x)(100 * x.clamp(max=99)))


@pytest.mark.parametrize("cell", [30.0, 1e3, 1e15, 1e25, -3e38])
def test_other_cells_are_scored_and_filled_as_beside_an_ordinary_one(cell: float, model):
    rows = far(real=cell)
    scores = cell_scores(model, rows, num_samples=2000)
    assert scores[1, 0] < scores[0, 0] - 3
    assert scores.isfinite().all()
    assert (scores[1, 1:] - scores[0, 1:]).abs().max() < 1
    log_px = score(model, rows, num_samples=2000).log_px
    assert -1000 < log_px[1] < log_px[0]
    gaps = Split(rows.x.index_fill(1, torch.tensor([2, 3]), torch.nan))
    filled = impute(model, gaps, num_draws=200).draws
    assert filled.isfinite().all()
    assert (filled[:, 1].mean(0) - filled[:, 0].mean(0))[2:].abs().max() < 2


def test_a_cell_whose_density_no_float_holds_leaves_the_others_theirs(model):
    rows = far(spike=1e30)
    scores = cell_scores(model, rows, num_samples=500)
    assert scores[1].isneginf().tolist() == [False, True, False, False]
    assert scores[0].isfinite().all()
    assert (scores[1, [0, 2, 3]] - scores[0, [0, 2, 3]]).abs().max() < 1
    gaps = Split(rows.x.index_fill(1, torch.tensor([3]), torch.nan))
    found = impute(model, gaps, num_draws=5)
    assert found.draws.isfinite().all()
    regret = likelihood_regret(model, rows, ascent=Ascent(steps=20), num_samples=20)
    assert regret.isfinite().tolist() == [True, False]
    assert regret[1] == torch.inf


@pytest.mark.parametrize("cell", [1e4, 1e7, 1e9, 1e15, 1e18])
def test_cells_beside_a_cell_of_any_size_have_their_scores(cell: float, model):
    scores = cell_scores(model, far(spike=cell), num_samples=2000)
    assert scores[1, 1] < -1e3
    assert (scores[1, [0, 2, 3]] - scores[0, [0, 2, 3]]).abs().max() < 1
    assert (scores[1, [0, 2, 3]] != 0).all()


def test_a_column_without_a_cell_among_the_examples_has_no_limits():
    x = examples()
    x[:, 0] = torch.nan
    for reach in (1.0, math.inf):
        cells = Cells(KINDS, x, reach=reach)
        found = cells(torch.tensor([ORDINARY]))
        assert found[0, 0] == pytest.approx(ORDINARY[0])
        assert not any(weight.isnan().any() for weight in cells.state_dict().values())


def test_the_regret_of_rows_without_a_density_alone_is_not_a_number(model):
    rows = far(count=-1.0)
    assert likelihood_regret(model, Split(rows.x[1:]), ascent=Ascent(steps=2), num_samples=5).isnan().all()
