"""Scores of a table in its columns' own units: exact slopes, and ranks that do not depend on the units of the cells."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.testing import assert_close

from subo import VariationalAutoencoder
from subo.data.splits import Split
from subo.data.tables.coding import encode
from subo.data.tables.inferring import infer_schema
from subo.data.tables.schema import Schema
from subo.evaluation.cells import cell_scores
from subo.evaluation.own_units import log_slopes
from subo.evaluation.scores import score
from subo.recipes import vae

ROWS = 200


def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "weight": rng.normal(70, 12, ROWS),
            "income": np.exp(rng.normal(8, 1, ROWS)),
            "debt": np.where(rng.random(ROWS) < 0.4, 0.0, np.exp(rng.normal(5, 1, ROWS))),
            "visits": rng.poisson(5, ROWS) * rng.integers(1, 5, ROWS),
            "city": rng.choice(["Oslo", "Rome"], ROWS),
        }
    )
    for column in ("weight", "income"):
        frame.loc[rng.random(ROWS) < 0.3, column] = np.nan
    return frame


def described(frame: pd.DataFrame, **options: str) -> tuple[Schema, torch.nn.Module, Split]:
    """A schema, a model with random weights that describes its columns, and the coded rows."""
    schema = infer_schema(frame, **options)  # pyright: ignore[reportArgumentType]
    torch.manual_seed(0)
    settings = {"columns": schema.described, "likelihood": "columns", "latent_dim": 2, "hidden": (8,)}
    model = vae((len(schema.modeled),), **settings).model
    model.likelihood.family.set_units(**schema.units())
    return schema, model, Split(encode(frame, schema))


@pytest.mark.parametrize("scaling", ["standard", "quantile"])
def test_slopes_are_derivatives_of_the_coded_numbers(scaling: str):
    frame = table()
    schema, model, rows = described(frame, scaling=scaling)
    assert [column.kind for column in schema.columns] == ["real", "positive", "spike", "count", "category"]
    found = log_slopes(model, rows)
    step = 1e-3
    higher = frame.copy()
    for name in ("weight", "income", "debt"):
        higher[name] = frame[name].where(frame[name] == 0, frame[name] * (1 + step))
    for number, name in enumerate(("weight", "income", "debt")):
        rise = (encode(higher, schema) - rows.x)[:, number]
        slope = (rise / torch.tensor(step * frame[name].to_numpy())).log().float()
        dense = slope.isfinite()
        assert int(dense.sum()) > 100
        close = (found[dense, number] - slope[dense]).abs() < 0.01  # all but those between which a knot lies
        assert close.float().mean() > (0.97 if scaling == "quantile" else 0.999)
        assert not found[~dense, number].any()
    assert not found[:, 3:].any()


def test_rows_and_cells_rank_alike_in_any_units():
    frame = table()
    changed = frame.assign(weight=frame.weight * 1e3, income=frame.income / 1e4, debt=frame.debt * 1e6)
    by_units = []
    for one in (frame, changed):
        _, model, rows = described(one)
        slopes = log_slopes(model, rows)
        log_px, cells = score(model, rows, num_samples=20).log_px, cell_scores(model, rows, num_samples=20)
        by_units.append((log_px, log_px - slopes.sum(1), cells - slopes))
    (plain, scaled, cells), (other, scaled_other, cells_other) = by_units
    assert_close(scaled, scaled_other, atol=1e-3, rtol=1e-4)
    assert_close(cells, cells_other, atol=1e-3, rtol=1e-4, equal_nan=True)
    assert (plain.argsort() != other.argsort()).float().mean() > 0.5  # which log p of the cells does not


def test_a_model_without_columns_has_no_units():
    model = vae((3,), likelihood="gaussian", latent_dim=1).model
    assert torch.equal(log_slopes(model, Split(torch.randn(4, 3))), torch.zeros(4, 1))


def test_outliers_of_a_frame_are_found_in_its_columns_own_units():
    frame = table()
    settings = {"epochs": 2, "hidden": (8,), "latent_dim": 1, "evaluation_samples": 20, "random_state": 0}
    model = VariationalAutoencoder(**settings).fit(frame)
    slopes = log_slopes(model.model_, model._checked(frame)).sum(1).numpy()
    scores = model.score_samples(frame) - slopes
    np.testing.assert_allclose(model.decision_function(frame), scores - model.offset_, atol=1e-9)
    assert pd.Series(model.p_values(frame)).corr(pd.Series(scores), method="spearman") > 0.99
    other = frame.assign(weight=frame.weight * 1e3, debt=frame.debt / 1e3)
    again = VariationalAutoencoder(**settings).fit(other)
    np.testing.assert_allclose(again.p_values(other), model.p_values(frame), atol=0.1)
