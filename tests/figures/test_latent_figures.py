"""Figures of the latent space."""

import math

import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.contour import ContourSet
from test_figures import bars_of, classes_of, dots_of, draw, points_of, texts

from subo import figures
from subo.figures.latent_space import mass_levels


def test_kl_bars_are_sorted_and_the_inactive_ones_grey():
    kl, active = np.array([0.001, 2.0, 0.5, 0.0]), np.array([False, True, True, False])
    figure = draw(figures.kl_per_dimension(kl, active=active))
    (axes,) = figure.axes
    assert [bar.get_height() for bar in bars_of(axes)] == [2.0, 0.5, 0.001, 0.0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["z2", "z3", "z1", "z4"]
    colors = [bar.get_facecolor() for bar in bars_of(axes)]
    assert colors == [to_rgba(figures.BLUE)] * 2 + [to_rgba(figures.GREY)] * 2
    assert "nats" in axes.get_ylabel()
    assert "2.5 nats" in axes.get_title(loc="left")
    assert texts(figure)[0].startswith("2 of 4 active")
    assert not draw(figures.kl_per_dimension(kl[:1])).legends
    (axes,) = draw(figures.kl_per_dimension(np.linspace(0, 3, 65))).axes
    assert len(axes.patches) == 65
    assert list(axes.get_xticks()) == []


def test_activity_has_a_logarithmic_axis_and_the_threshold():
    variance = np.array([0.9, 1e-4, 0.0, 0.5])
    (axes,) = draw(figures.activity_per_dimension(variance, active=variance > 0.01)).axes
    assert axes.get_yscale() == "log"
    assert list(np.asarray(axes.lines[0].get_ydata())) == [0.01, 0.01]
    tops = [bar.get_y() + bar.get_height() for bar in bars_of(axes)]
    np.testing.assert_allclose(tops[:3], [0.9, 0.5, 1e-4])
    assert tops[3] == axes.get_ylim()[0]  # a variance of 0 has no height
    draw(figures.activity_per_dimension(np.zeros(3), active=np.zeros(3, dtype=bool)))


def test_mass_levels_of_a_gaussian_are_those_of_chi_squared():
    x, y = np.linspace(-6, 6, 241), np.linspace(-9, 9, 241)
    scale = np.array([1.0, 1.5])
    density = np.exp(-0.5 * ((x / scale[0]) ** 2 + (y[:, None] / scale[1]) ** 2))
    levels = mass_levels(density, np.ones_like(density))
    np.testing.assert_allclose(levels, [0.01, 0.1, 0.5], rtol=0.02)  # P(density < level) = level, in two dimensions


def test_latent_plane_draws_the_prior_with_rows_as_z2(rng):
    x, y = np.linspace(-4, 4, 81), np.linspace(-8, 8, 101)
    log_prior = -0.5 * (x**2 + (y[:, None] / 2) ** 2) - 700.0
    figure = draw(figures.latent_plane(rng.normal(size=(50, 2)), prior=(x, y, log_prior)))
    (contours,) = (c for c in figure.axes[0].collections if isinstance(c, ContourSet))
    for path, mass in zip(contours.get_paths(), (0.99, 0.9, 0.5), strict=True):
        radius = math.sqrt(-2 * math.log(1 - mass))
        np.testing.assert_allclose(np.asarray(path.vertices).max(axis=0), [radius, 2 * radius], rtol=0.03)
    figure.canvas.draw()
    (left, right), (bottom, top) = figure.axes[0].get_xlim(), figure.axes[0].get_ylim()
    outer = np.asarray(contours.get_paths()[0].vertices)
    assert left < outer[:, 0].min() < outer[:, 0].max() < right
    assert bottom < outer[:, 1].min() < outer[:, 1].max() < top
    assert "prior" in figure.axes[0].get_title(loc="left")
    flat = figures.latent_plane(rng.normal(size=(50, 2)), prior=(x, y, np.zeros((101, 81))))
    assert "prior" not in draw(flat).axes[0].get_title(loc="left")


def test_latent_plane_colors_classes(rng):
    means, labels = rng.normal(size=(60, 2)), np.arange(60) % 3
    (axes,) = draw(figures.latent_plane(means, labels, axes=("PC 1", "PC 2"), explained=np.array([0.6, 0.3]))).axes
    np.testing.assert_array_equal(points_of(axes), means)
    colors = np.asarray(dots_of(axes).get_facecolor())
    assert [tuple(c[:3]) for c in colors[:4]] == [to_rgba(figures.CLASS_COLORS[k])[:3] for k in (0, 1, 2, 0)]
    assert axes.get_xlabel() == "PC 1 (60% of the variance)"
    assert axes.get_aspect() == 1
    assert classes_of(axes) == ["0", "1", "2"]
    (axes,) = draw(figures.latent_plane(means, np.array(["ant", "bee"])[labels % 2])).axes
    assert classes_of(axes) == ["ant", "bee"]
    assert "60 examples" in axes.get_title(loc="left")
    (axes,) = draw(figures.latent_plane(means, name="test data")).axes
    assert "60 test data" in axes.get_title(loc="left")


def test_latent_plane_runs_numbers_through_a_color_bar(rng):
    means, values = rng.normal(size=(60, 2)), rng.normal(size=60)
    axes, bar = draw(figures.latent_plane(means, values)).axes
    np.testing.assert_array_equal(dots_of(axes).get_array(), values)
    assert bar.get_ylabel() == "label"
    assert len(draw(figures.latent_plane(means, np.arange(60))).axes) == 2
    _, bar = draw(figures.latent_plane(means, np.array([f"class {i % 12:02}" for i in range(60)]))).axes
    assert [text.get_text() for text in bar.get_yticklabels()] == [f"class {i:02}" for i in range(12)]
    assert bar.get_ylabel() == "label"
    _, bar = draw(figures.latent_plane(means, np.array([f"class {i:02}" for i in range(60)]), meaning="kind")).axes
    assert [text.get_text() for text in bar.get_yticklabels()] == [f"class {i:02}" for i in range(0, 60, 2)]
    assert bar.get_ylabel() == "kind, 30 of 60 named"


def test_latent_plane_thins_large_data_evenly(rng):
    means = rng.normal(size=(12_001, 2))
    (axes,) = draw(figures.latent_plane(means, np.arange(12_001) % 2)).axes
    np.testing.assert_array_equal(points_of(axes), means[::3])
    assert "12,001 examples, 4,001 of them shown" in axes.get_title(loc="left")
    assert len(points_of(figures.latent_plane(means[:5000]).axes[0])) == 5000


def test_latent_plane_spreads_a_single_dimension(rng):
    means = rng.normal(size=(40, 1))
    (axes,) = draw(figures.latent_plane(means)).axes
    x, y = points_of(axes).T
    np.testing.assert_array_equal(x, means[:, 0])
    assert np.abs(y).max() <= 0.5
    assert np.diff(np.sort(y)).min() > 0.01
    assert axes.get_ylabel() == ""
