"""What is computed of models and data for their pictures."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Distribution, Independent, Normal

from subo import VAE, Bernoulli, Conditional, Gaussian, StandardNormal, figures, mlp
from subo.data.dataset import Data, split
from subo.data.splits import Split
from subo.data.tables.schema import Column, Schema
from subo.data.values import kind_of
from subo.evaluation import latent_usage
from subo.recipes import deep_markov
from subo.report.pictures import _prior_density, draw_latent_plane, feature_units, shading
from subo.report.sequence_pictures import draw_sequence_samples
from subo.report.table_pictures import draw_columns, draw_pairs


class Far(nn.Module):
    """A wide prior that is nowhere near the origin."""

    def forward(self) -> Distribution:
        return Independent(Normal(torch.tensor([100.0, 0.0]), torch.tensor([20.0, 0.1])), 1)


def small_vae(prior: nn.Module) -> VAE:
    return VAE(
        prior,
        Conditional(Bernoulli((5,)), mlp(2, 5, hidden=(4,))),
        Conditional(Gaussian((2,)), mlp(5, 4, hidden=(4,))),
    )


def data_of(x: torch.Tensor, **options) -> Data:
    return Data("x", *split(x), kind=kind_of(x), **options)


def test_the_priors_grid_has_room_for_its_contours():
    for prior, center, scale in ((Far(), [100.0, 0.0], [20.0, 0.1]), (StandardNormal(2), [0.0, 0.0], [1.0, 1.0])):
        x, y, log_density = _prior_density(small_vae(prior))
        assert log_density.shape == (len(y), len(x)) == (200, 200)
        contour = 3.03  # standard deviations, that enclose 99%
        for axis, c, s in zip((x, y), center, scale, strict=True):
            assert axis[0] < c - contour * s < c + contour * s < axis[-1]
            assert axis[-1] - axis[0] < 4 * contour * s
        row, column = np.unravel_index(log_density.argmax(), log_density.shape)
        assert abs(x[column] - center[0]) < 0.1 * scale[0]
        assert abs(y[row] - center[1]) < 0.1 * scale[1]


def test_a_tables_columns_have_units_and_others_share_one():
    torch.manual_seed(0)
    x = torch.randn(50, 3) * torch.tensor([1.0, 100.0, 0.0]) + torch.tensor([0.0, 5.0, 7.0])
    data = data_of(x)
    units = feature_units(data)
    assert units is not None
    np.testing.assert_allclose(units[0], data.train.x.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(units[1], [*data.train.x.std(0, correction=0)[:2].tolist(), 7.0], rtol=1e-4)
    assert data.constant_features() == ("3",)
    curves = torch.randn(50, 100)
    assert feature_units(data_of(curves)) is None
    assert feature_units(data_of(curves, feature_names=tuple(f"x{i}" for i in range(100)))) is not None
    assert feature_units(data_of(torch.rand(50, 3))) is None
    assert feature_units(data_of(torch.randn(50, 1, 4, 4))) is None


def test_classes_have_their_names_in_the_legend():
    torch.manual_seed(0)
    held_out = Split(torch.rand(20, 5).round(), labels=torch.arange(20) % 2)
    model = small_vae(StandardNormal(2))
    figure = draw_latent_plane(model, latent_usage(model, held_out), held_out, classes=("ant", "bee"))
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["ant", "bee"]


def test_pictures_of_other_values_are_brought_into_the_unit_interval():
    levels = torch.arange(17.0).reshape(1, 1, 17, 1)
    assert shading(levels)(levels).max() == 1
    np.testing.assert_array_equal(shading(levels / 16)(levels), levels)
    vectors = levels.reshape(1, 17)
    np.testing.assert_array_equal(shading(vectors)(vectors), vectors)
    assert np.isfinite(shading(5 + 0 * levels)(levels)).all()
    assert figures.tile(shading(levels)(levels), columns=1).shape == (17, 1)


def test_samples_of_sequences_are_draws_beside_their_means(monkeypatch: pytest.MonkeyPatch):
    """Draws differ from the means beside them by the noise of p(x|z), 0.5 here."""
    shown: list[Any] = []
    monkeypatch.setattr("subo.report.sequence_pictures.sequence_panels", lambda rows, **_: shown.append(rows))
    model = deep_markov((2,), likelihood="gaussian", scale=0.5, latent_dim=2, reader_hidden=8, hidden=(8,)).model.eval()
    for drawn in (True, False):
        draw_sequence_samples(model, length=500, num=3, drawn=drawn)
    both, means = shown
    assert [[*row] for row in both] == 3 * [["draw of x", "mean of p(x|z) there"]]
    assert [[*row] for row in means] == 3 * [["mean of p(x|z) there"]]
    noise = np.concatenate([row["draw of x"] - row["mean of p(x|z) there"] for row in both])
    assert abs(noise.std() - 0.5) < 5 * 0.5 / np.sqrt(2 * noise.size)


def test_many_levels_in_order_do_not_seem_to_go_with_what_they_are_independent_of():
    schema = Schema((Column("minute", "ordinal", levels=tuple(range(60))), Column("x", "real")))
    torch.manual_seed(0)
    rows = torch.stack([torch.randint(60, (240,)).float(), torch.randn(240)], 1)
    ordered = torch.stack([rows[:, 0], rows[:, 0] + 0.1 * rows[:, 1]], 1)
    of_data: Any = [draw_pairs(Split(x), x, schema).axes[0].images[0].get_array() for x in (rows, ordered)]
    assert abs(of_data[0][0, 1]) < 5 / 240**0.5  # by groups it would be near (59 / 239)^(1/2), which is above that
    assert of_data[1][0, 1] > 0.99


def test_many_levels_in_order_are_drawn_as_the_numbers_that_they_are():
    levels = tuple(range(1, 32))
    schema = Schema((Column("day", "ordinal", levels=levels), Column("grade", "ordinal", levels=(1, 2, 5))))
    rows = torch.tensor([[0.0, 0.0], [30.0, 2.0], [31.0, 1.0], [float("nan"), 1.0]])  # of days one unseen, one missing
    figure = draw_columns(Split(rows), rows[:2], schema)
    day, grade, *_ = figure.axes
    stairs: Any = day.patches[0]
    assert stairs.get_data().edges[[0, -1]] == pytest.approx([1, 31], abs=1)
    assert sum(stairs.get_data().values) == pytest.approx(1)
    assert [label.get_text() for label in grade.get_xticklabels()] == ["1", "2", "5"]
