"""Figures: what is drawn is what was measured."""

import math

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image, ImageSequence

from subo import figures
from subo.errors import InputError
from subo.figures import latent_space
from subo.figures.gaps import gap_bars
from subo.figures.sequences import sequence_panels
from subo.figures.style import as_text


def draw(figure: Figure) -> Figure:
    """Lays out and renders a figure, so that every warning of that is an error here."""
    figure.canvas.draw()
    return figure


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def image_of(axes) -> np.ndarray:
    return np.asarray(axes.images[0].get_array())


def dots_of(axes) -> PathCollection:
    (dots,) = (c for c in axes.collections if isinstance(c, PathCollection))
    return dots


def points_of(axes) -> np.ndarray:
    return np.asarray(dots_of(axes).get_offsets())


def bars_of(axes) -> list[Rectangle]:
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


def classes_of(axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def history(epochs: int, *, start: float = 1000.0) -> dict[str, np.ndarray]:
    epoch = np.arange(epochs)
    distortion, rate = 20 + 60 * np.exp(-epoch / 10) + start * (epoch == 0), 12 * (1 - np.exp(-epoch / 10))
    elbo = -distortion - rate
    return {"bound": elbo, "elbo": elbo, "rate": rate, "distortion": distortion}


# Training


def test_training_curves_have_units_and_name_the_bound():
    train, epoch = history(40), np.arange(1, 41)
    figure = draw(figures.training_curves(epoch, train, train, best_epoch=33))
    assert [axes.get_ylabel().split()[0] for axes in figure.axes] == ["ELBO", "rate", "distortion"]
    assert all("nats per example" in axes.get_ylabel() for axes in figure.axes)
    assert texts(figure) == ["train", "validation", "best, epoch 33"]
    for axes, quantity in zip(figure.axes, ("bound", "rate", "distortion"), strict=True):
        np.testing.assert_array_equal(axes.lines[0].get_ydata(), train[quantity])
        assert list(np.asarray(axes.lines[2].get_xdata())) == [33, 33]

    importance_weighted = train | {"bound": train["elbo"] + 1}
    axes = figures.training_curves(epoch, importance_weighted).axes[0]
    assert axes.get_ylabel().startswith("bound")
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), importance_weighted["bound"])


def test_training_curves_are_not_squeezed_by_the_first_epoch():
    elbo, rate, distortion = figures.training_curves(np.arange(40), history(40)).axes
    low, high = distortion.get_ylim()
    late = history(40)["distortion"][4:]
    assert low < late.min()
    assert late.max() < high < 100
    assert "off the axis" in distortion.get_xlabel()
    assert elbo.get_ylim()[0] > -100
    assert rate.get_xlabel() == "epoch"  # it starts at 0 and needs no cut


def test_the_rates_axis_starts_at_zero_or_below_a_negative_estimate():
    late = history(40) | {"rate": np.linspace(30, 31, 40)}
    low, high = figures.training_curves(np.arange(40), late).axes[1].get_ylim()
    assert low == 0
    assert 31 < high < 40
    estimated = history(40) | {"rate": np.linspace(-0.2, 3, 40)}
    assert figures.training_curves(np.arange(40), estimated).axes[1].get_ylim()[0] < -0.2


def test_training_curves_skip_what_was_not_measured():
    sparse = {name: np.where(np.arange(40) % 10 == 9, v, np.nan) for name, v in history(40).items()}
    figure = draw(figures.training_curves(np.arange(40), history(40), sparse))
    assert list(np.asarray(figure.axes[0].lines[1].get_xdata())) == [9, 19, 29, 39]
    nothing = {name: np.full(40, np.nan) for name in sparse}
    assert texts(draw(figures.training_curves(np.arange(40), history(40), nothing))) == ["train"]
    diverged = history(40) | {"rate": np.full(40, np.inf)}
    assert draw(figures.training_curves(np.arange(40), diverged)).axes[1].get_ylim() == (0, 1)


def test_a_single_epoch_is_a_visible_point():
    figure = draw(figures.training_curves(np.array([1]), history(1)))
    assert all(axes.lines[0].get_marker() == "o" for axes in figure.axes)


# Images


def test_tile_puts_every_image_in_its_place():
    images = np.arange(5)[:, None, None] / 10 * np.ones((5, 2, 3))
    picture = figures.tile(images, columns=3)
    assert picture.shape == (2 * 3 - 1, 3 * 4 - 1)
    for index in range(5):
        top, left = 3 * (index // 3), 4 * (index % 3)
        np.testing.assert_array_equal(picture[top : top + 2, left : left + 3], images[index])
    assert (picture[2] == 1).all()
    assert (picture[:, [3, 7]] == 1).all()
    assert (picture[3:, 8:] == 1).all()


def test_tile_knows_channels_and_clips(rng):
    grey, color = rng.normal(size=(4, 1, 5, 6)), rng.normal(size=(4, 3, 5, 6))
    assert figures.tile(grey, columns=2).shape == (11, 13)
    picture = figures.tile(color, columns=2)
    assert picture.shape == (11, 13, 3)
    np.testing.assert_array_equal(picture[6:, 7:], np.clip(np.moveaxis(color[3], 0, -1), 0, 1))
    with pytest.raises(InputError, match="shape"):
        figures.tile(rng.normal(size=(4, 7)), columns=2)


@pytest.mark.parametrize("count, bands, columns", [(1, 1, 1), (12, 1, 12), (13, 2, 7), (100, 2, 12)])
def test_reconstructions_stand_below_their_originals(count, bands, columns):
    originals = np.full((count, 4, 4), 0.25)
    figure = draw(figures.reconstructions(originals, originals + 0.5))
    assert len(figure.axes) == bands
    for axes in figure.axes:
        picture = image_of(axes)
        assert picture.shape == (9, 5 * columns - 1)
        assert (picture[:4, :4] == 0.25).all()
        assert (picture[5:, :4] == 0.75).all()
        assert [label.get_text() for label in axes.get_yticklabels()] == ["original", "reconstruction"]
    if count == 13:
        assert (image_of(figure.axes[1])[:, -4:] == 1).all()


def test_samples_are_a_square_of_images(rng):
    figure = draw(figures.samples(rng.uniform(size=(15, 3, 8, 8))))
    assert image_of(figure.axes[0]).shape == (4 * 9 - 1, 4 * 9 - 1, 3)
    assert "prior" in figure.axes[0].get_title(loc="left")
    draw(figures.samples(np.zeros((2, 8, 8))))
    assert image_of(figures.samples(np.ones((500, 8, 8))).axes[0]).shape == (89, 89)


def test_decoder_grid_has_z2_upwards():
    grid = np.linspace(-3, 3, 4)
    z2, z1 = np.meshgrid(grid, grid, indexing="ij")
    means = (np.stack([z1, z2, 0 * z1], axis=-1)[..., None, None] + 3) / 6 * np.ones((2, 2))  # (G, G, 3, 2, 2)
    figure = draw(figures.decoder_grid(means))
    (axes,) = figure.axes
    picture = image_of(axes)
    assert picture.shape == (4 * 3 - 1, 4 * 3 - 1, 3)
    np.testing.assert_allclose(picture[0, 0, :2], [0, 1])  # top left: z1 = -3, z2 = 3
    np.testing.assert_allclose(picture[-1, 0, :2], [0, 0])
    np.testing.assert_allclose(picture[-1, -1, :2], [1, 0])
    assert (picture[[2, 5, 8]] == 1).all()  # a pixel between images
    assert (picture[:, [2, 5, 8]] == 1).all()
    left, right, bottom, top = axes.images[0].get_extent()
    centers = left + (np.arange(4) * 3 + 1) * (right - left) / 11  # of images two pixels wide
    np.testing.assert_allclose(centers, grid)
    assert (bottom, top) == (left, right)
    assert axes.images[0].origin == "upper"
    assert axes.get_ylim() == (bottom, top)
    assert list(axes.get_xticks()) == list(axes.get_yticks()) == [-3, -2, -1, 0, 1, 2, 3]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("z1", "z2")
    flat = figures.decoder_grid(means.reshape(16, 3, 2, 2))
    np.testing.assert_array_equal(image_of(flat.axes[0]), picture)


def test_decoder_grid_keeps_the_order_of_pixels():
    image = np.arange(6).reshape(2, 3) / 5
    (axes,) = draw(figures.decoder_grid(np.tile(image, (2, 2, 1, 1)), limit=1.5)).axes
    picture = image_of(axes)
    assert picture.shape == (2 * 3 - 1, 2 * 4 - 1)
    for rows, columns in ((slice(2), slice(3)), (slice(3, 5), slice(4, 7))):
        np.testing.assert_array_equal(picture[rows, columns], image)
    left, right, bottom, top = axes.images[0].get_extent()
    assert (top - bottom) * float(axes.get_aspect()) / 5 == pytest.approx((right - left) / 7)  # pixels are square
    assert image_of(draw(figures.decoder_grid(image[None], limit=0.5)).axes[0]).shape == (2, 3)


def test_decoder_grid_of_vectors_is_a_curve_in_every_place(rng):
    means = rng.normal(size=(5, 5, 30))
    (axes,) = draw(figures.decoder_grid(means)).axes
    (curves,) = (c for c in axes.collections if isinstance(c, LineCollection) and len(c.get_segments()) == 25)
    segment = np.asarray(curves.get_segments()[5 * 3 + 1])  # means[3, 1]: z2 = 1.5, z1 = -1.5
    assert np.abs(segment[:, 0] + 1.5).max() < 0.75
    assert np.abs(segment[:, 1] - 1.5).max() < 0.75
    assert np.corrcoef(segment[:, 1], means[3, 1])[0, 1] > 0.999
    draw(figures.decoder_grid(np.ones((9, 4))))
    with pytest.raises(InputError, match="square"):
        figures.decoder_grid(np.ones((8, 4)))


# Vectors


def test_vectors_of_named_features(rng):
    x = rng.normal(size=(9, 3))
    figure = draw(figures.reconstructions(x, 0.9 * x, feature_names=["alcohol", "ash", "hue"]))
    assert len(figure.axes) == 8
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["alcohol", "ash", "hue"]
    np.testing.assert_array_equal(figure.axes[7].lines[0].get_xdata(), x[7])
    np.testing.assert_array_equal(figure.axes[7].lines[1].get_xdata(), 0.9 * x[7])
    assert texts(figure) == ["original", "reconstruction"]
    (axes,) = draw(figures.samples(x, feature_names=["alcohol", "ash", "hue"])).axes
    assert len(axes.lines) == 9
    assert [label.get_text() for label in axes.get_yticklabels()] == ["alcohol", "ash", "hue"]


def test_features_of_different_units_share_an_axis_of_standard_deviations(rng):
    mean, deviation = np.array([0.0, 1e4, 0.5]), np.array([1.0, 1e3, 1e-3])
    standard = rng.normal(size=(9, 3))
    x = mean + deviation * standard
    units = (mean, deviation)
    axes = draw(figures.reconstructions(x, mean + 0.5 * (x - mean), units=units)).axes[7]
    np.testing.assert_allclose(np.asarray(axes.lines[0].get_xdata()), standard[7], rtol=1e-6)
    np.testing.assert_allclose(np.asarray(axes.lines[1].get_xdata()), standard[7] / 2, rtol=1e-6)
    assert "standard deviations" in axes.get_xlabel()
    (axes,) = draw(figures.samples(x, units=units)).axes
    np.testing.assert_allclose(np.asarray(axes.lines[8].get_xdata()), standard[8], rtol=1e-6)
    assert "standard deviations" in axes.get_xlabel()
    assert "standard deviations" in draw(figures.decoder_grid(x, units=units)).axes[0].get_title(loc="left")
    assert axes.get_xlabel() != figures.samples(x).axes[0].get_xlabel() == "value"


@pytest.mark.parametrize("count, panels", [(1, 1), (3, 3), (5, 4), (7, 6), (11, 8)])
def test_long_vectors_fill_whole_rows(rng, count, panels):
    x = rng.normal(size=(count, 40))
    figure = draw(figures.reconstructions(x, x))
    assert len(figure.axes) == panels
    np.testing.assert_array_equal(figure.axes[-1].lines[0].get_ydata(), x[panels - 1])


def test_samples_of_vectors(rng):
    figure = draw(figures.samples(rng.normal(size=(30, 40))))
    assert len(figure.axes) == 12
    (background,) = figure.axes[0].collections
    assert isinstance(background, LineCollection)
    assert len(background.get_segments()) == 30
    (axes,) = draw(figures.samples(rng.normal(size=(30, 1)))).axes
    assert axes.lines[0].get_marker() == "o"
    pairs = rng.normal(size=(30, 2))
    (axes,) = draw(figures.samples(pairs, feature_names=["height", "weight"])).axes
    np.testing.assert_array_equal(axes.collections[0].get_offsets(), pairs)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("height", "weight")


# Strips: places of latent space one after the other


def test_a_strip_has_an_image_for_each_point_and_a_row_for_each_name(rng):
    images = rng.uniform(size=(6, 1, 4, 5))
    (axes,) = draw(figures.strip(images)).axes
    assert image_of(axes).shape == (4, 6 * 6 - 1)
    np.testing.assert_allclose(image_of(axes)[:, :5], images[0, 0])
    (axes,) = draw(figures.strip(images, rows=["z1", "z2"])).axes
    assert image_of(axes).shape == (9, 3 * 6 - 1)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["z1", "z2"]
    np.testing.assert_allclose(image_of(axes)[5:, :5], images[3, 0])


def test_a_strip_of_vectors_has_a_curve_for_each_point(rng):
    vectors = rng.normal(size=(6, 3))
    (axes,) = draw(figures.strip(vectors, feature_names=["a", "b", "c"])).axes
    np.testing.assert_array_equal([line.get_ydata() for line in axes.lines], vectors)
    panels = [axes for axes in draw(figures.strip(vectors, rows=["z1", "z2"])).axes if axes.get_visible()]
    assert [len(axes.lines) for axes in panels] == [3, 3]
    assert [axes.get_title(loc="left") for axes in panels] == ["z1", "z2"]


def test_a_movie_goes_there_and_back(tmp_path, rng):
    images = rng.uniform(size=(4, 1, 8, 8))
    figures.save_movie(images, tmp_path / "path.gif")
    with Image.open(tmp_path / "path.gif") as movie:
        assert (movie.n_frames, movie.size) == (6, (256, 256))  # pyright: ignore[reportAttributeAccessIssue]


# Files


def test_animation_has_all_frames_and_loops(tmp_path, rng, caplog):
    path, frames = tmp_path / "means.gif", rng.normal(size=(5, 30, 2)) * np.arange(1, 6)[:, None, None]
    figures.animate_means(frames, np.arange(30) % 3, [f"epoch {i}" for i in range(5)], path, duration=0.1)
    with Image.open(path) as animation:
        assert animation.info["loop"] == 0
        durations, pictures = [], []
        for frame in ImageSequence.Iterator(animation):
            durations.append(frame.info["duration"])
            pictures.append(np.asarray(frame.convert("RGB")).astype(int))
    assert durations == [100, 100, 100, 100, 2000]
    assert (pictures[0][0, 0] == 255).all()
    moved = np.abs(pictures[0] - pictures[-1]).max(axis=-1) > 0
    assert moved.any()
    assert not moved[-30:].any()  # the axis below stays where it is
    assert [p.name for p in tmp_path.iterdir()] == ["means.gif"]
    assert not caplog.records  # matplotlib tells of limits that it could not keep


def test_animation_has_room_for_the_priors_contours_and_names_the_data(tmp_path, rng, monkeypatch):
    seen: list[Figure] = []
    monkeypatch.setattr(latent_space, "FigureCanvasAgg", lambda f: seen.append(f) or FigureCanvasAgg(f))
    x = np.linspace(-8, 8, 161)
    prior = (x, x, -0.5 * (x**2 + x[:, None] ** 2))
    frames = 0.1 * rng.normal(size=(2, 30, 2))
    figures.animate_means(frames, None, ["epoch 1", "epoch 2"], tmp_path / "a.gif", prior=prior, name="validation data")
    (axes,) = seen[0].axes
    assert axes.get_title(loc="left").splitlines()[0] == "Posterior means of 30 validation data"
    assert axes.get_title(loc="left").splitlines()[-1] == "epoch 2"
    (contours,) = (c for c in axes.collections if isinstance(c, ContourSet))
    outer = np.asarray(contours.get_paths()[0].vertices)
    assert np.abs(outer).max() == pytest.approx(math.sqrt(-2 * math.log(0.01)), rel=0.03)
    assert max(axes.get_xlim()) > outer.max()
    assert min(axes.get_ylim()) < outer.min()


@pytest.mark.slow
def test_animation_of_many_frames_is_small(tmp_path, rng):
    frames = np.linspace(0, 1, 20)[:, None, None] * rng.normal(size=(1000, 2))
    figures.animate_means(frames, np.arange(1000) % 10, [f"epoch {i}" for i in range(20)], tmp_path / "a.gif")
    assert (tmp_path / "a.gif").stat().st_size < 3e6 * 20 / 60


def test_animation_of_collapsed_means_is_drawn(tmp_path):
    figures.animate_means(np.zeros((2, 10, 2)), None, ["a", "b"], str(tmp_path / "collapsed.gif"))
    with pytest.raises(InputError, match=r"\.gif"):
        figures.animate_means(np.zeros((2, 10, 2)), None, ["a", "b"], tmp_path / "collapsed.png")


@pytest.mark.parametrize("ending, magic", [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")])
def test_save_writes_whole_files(tmp_path, ending, magic):
    path = tmp_path / f"kl{ending}"
    path.write_text("old")
    figures.save(figures.kl_per_dimension(np.ones(3)), path)
    assert path.read_bytes().startswith(magic)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_save_leaves_nothing_behind_where_it_fails(tmp_path, monkeypatch):
    def broken(self, target, **options):
        target.write_text("half")
        raise OSError("disk full")

    path = tmp_path / "kl.png"
    path.write_text("old")
    monkeypatch.setattr(Figure, "savefig", broken)
    with pytest.raises(InputError, match=r"cannot write .*kl\.png: disk full"):
        figures.save(Figure(), path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["kl.png"]


def test_save_refuses_other_endings(tmp_path):
    with pytest.raises(InputError, match=r"\.svg"):
        figures.save(Figure(), tmp_path / "kl.jpg")


def test_no_global_state_is_touched(rng):
    before = dict(matplotlib.rcParams)
    draw(figures.latent_plane(rng.normal(size=(20, 2)), np.arange(20) % 2))
    draw(figures.training_curves(np.arange(5), history(5)))
    assert dict(matplotlib.rcParams) == before


NAMES = ["price_$_vs_cost_$", "$x_{", "\u65e5\u672c", "\udcff", "a" * 5000, "\x00\x07", "_hidden", "two\nlines"]


@pytest.mark.parametrize(
    "draw_names",
    [
        lambda x, _: figures.reconstructions(x, x, feature_names=NAMES),
        lambda x, _: figures.samples(x, feature_names=NAMES),
        lambda _, images: figures.samples(images, classes=NAMES),
        lambda x, _: figures.latent_plane(x[:, :2], np.array(NAMES), axes=("$x_{", NAMES[4]), name=NAMES[0]),
        lambda x, _: figures.latent_plane(x[:, :2].repeat(2, 0), np.array([*NAMES, *map(str, range(8))])),
        lambda x, _: figures.decoder_grid(x[:4, :4, None], name=NAMES[1]),
        lambda x, _: figures.kl_per_dimension(x[0] ** 2, names=NAMES),
        lambda x, _: sequence_panels([{"a": x[:, :6], "$b": x[:, :6]}], title="t", feature_names=NAMES),
        lambda x, _: gap_bars(NAMES, x[0], abs(x[:2]), abs(x[2:4])),
    ],
)
def test_names_out_of_the_data_are_text_of_one_line(draw_names, rng, tmp_path):
    figure = draw_names(rng.normal(size=(8, 8)), rng.random(size=(8, 1, 8, 8)))
    figures.save(figure, tmp_path / "a.png")  # warnings are errors
    assert np.prod(figure.get_size_inches()) < 400


def test_names_stay_apart_and_dollars_are_dollars():
    shown = [as_text(name) for name in NAMES]
    assert len(set(shown)) == len(NAMES)
    assert shown[:3] == [r"price_\$_vs_cost_\$", r"\$x_{", r"\u65e5\u672c"]
    assert max(map(len, shown)) <= 42
    assert as_text("größe αβ") == "größe αβ"
