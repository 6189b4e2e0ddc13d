"""Pictures in one call: one set of axes each, that hold the numbers of the model."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from torch import nn

import subo
from subo import InputError, Objective, Split, plot
from subo.evaluation import Gaps, latent_usage
from subo.evaluation.reconstruction import reconstruct
from subo.report.pictures import grid_means
from subo.training.history import History


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    plt.switch_backend("Agg")
    yield
    plt.close("all")


def model(features: int = 5, latent_dim: int = 2) -> subo.VAE:
    torch.manual_seed(0)
    encoder = subo.Conditional(subo.Gaussian((latent_dim,)), nn.Linear(features, 2 * latent_dim))
    decoder = subo.Conditional(subo.Gaussian((features,)), nn.Linear(latent_dim, 2 * features))
    return subo.VAE(subo.StandardNormal(latent_dim), decoder, encoder)


class Flat(nn.Module):
    """Numbers of an image from its pixels."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(20, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.flatten(1))


def image_model() -> subo.VAE:
    torch.manual_seed(0)
    decoder = subo.Conditional(subo.Bernoulli((1, 4, 5)), nn.Linear(2, 20))
    return subo.VAE(subo.StandardNormal(2), decoder, subo.Conditional(subo.Gaussian((2,)), Flat()))


X = torch.linspace(-2, 2, 60).reshape(12, 5).sin()
IMAGES = (torch.linspace(0, 9, 15 * 20).reshape(15, 1, 4, 5).sin() > 0).float()


def rendered(ax: Axes) -> Axes:
    ax.figure.canvas.draw()  # whose warnings are errors here
    return ax


def fitted(epochs: int = 3) -> History:
    return subo.fit(Objective(model()), X, validation=X[:4], epochs=epochs)


def gaps() -> Gaps:
    values = torch.tensor([-4.0, -5.0, -torch.inf]).double()
    error, elbo = torch.full((3,), 0.1).double(), torch.tensor([-7.0, -6.0, -9.0]).double()
    return Gaps(values, error, ("importance",) * 3, False, elbo, error, elbo + 0.25, error, None, None)


CALLS: dict[str, Any] = {
    "latent_plane": lambda ax: plot.latent_plane(model(), X, ax=ax),
    "kl_by_dimension": lambda ax: plot.kl_by_dimension(model(), X, ax=ax),
    "reconstructions": lambda ax: plot.reconstructions(model(), X, ax=ax),
    "images": lambda ax: plot.reconstructions(image_model(), IMAGES, ax=ax),
    "samples": lambda ax: plot.samples(model(), 8, ax=ax),
    "curves": lambda ax: plot.samples(model(30), 8, ax=ax),
    "decoder_plane": lambda ax: plot.decoder_plane(model(), ax=ax),
    "history": lambda ax: plot.history(fitted(), ax=ax),
    "gaps": lambda ax: plot.gaps(gaps(), ax=ax),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_picture_is_drawn_on_the_axes_given_or_on_new_ones(name: str):
    figure, (given, other) = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
    assert CALLS[name](given) is given
    rendered(given)
    assert given.has_data()
    assert not other.has_data()
    assert not figure.legends, "a legend of one panel does not stand below all"
    assert len(plt.get_fignums()) == 1
    new = rendered(CALLS[name](None))
    assert len(plt.get_fignums()) == 2
    assert new.figure is not figure
    assert new.get_title(loc="left")


def test_panels_of_a_figure_within_a_figure_are_drawn_on():
    inner: Any = plt.figure(layout="constrained").subfigures(1, 2)
    ax = plot.latent_plane(model(), (X, torch.arange(12)), ax=inner[0].add_subplot())
    rendered(ax)
    assert inner[0].axes[0] is ax
    assert any(isinstance(mark, PathCollection) for mark in ax.collections)
    assert [len(panel.axes) for panel in inner] == [2, 0]  # the plane and the bar of its colors


def test_the_plane_has_the_posterior_means_and_the_classes():
    labels = torch.arange(12) % 2
    ax = plot.latent_plane(model(), (X.numpy(), labels.numpy()), classes=("ant", "bee"))
    (dots,) = (c for c in ax.collections if isinstance(c, PathCollection))
    np.testing.assert_allclose(np.asarray(dots.get_offsets()), latent_usage(model(), X).means, rtol=1e-6)
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["ant", "bee"]
    assert plot.latent_plane(model(latent_dim=4), X).get_xlabel().startswith("first principal component")


def test_the_plane_is_colored_by_any_column():
    ages = np.linspace(20.5, 60.25, 12)
    ax = plot.latent_plane(model(), X, color={"age": ages})
    (dots,) = (c for c in ax.collections if isinstance(c, PathCollection))
    np.testing.assert_array_equal(np.asarray(dots.get_array()), ages)
    ax = plot.latent_plane(model(), (X, torch.arange(12)), color={"city": ["Oslo", None, "Rome"] * 4})
    legend = ax.get_legend()
    assert legend is not None
    assert (legend.get_title().get_text(), len(legend.get_texts())) == ("city", 3)


class Shifted(nn.Module):
    """Means that follow a context."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 10)

    def forward(self, z: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        return self.linear(z) + torch.cat([shift, torch.zeros_like(shift)], dim=1).expand(len(z), 10)


def test_a_model_is_drawn_in_its_context():
    torch.manual_seed(0)
    encoder = subo.Conditional(subo.Gaussian((2,)), nn.Linear(5, 4))
    own = subo.VAE(subo.StandardNormal(2), subo.Conditional(subo.Gaussian((5,)), Shifted()), encoder)

    def curves(shift: float) -> np.ndarray:
        ax = plot.samples(own, 6, context={"shift": torch.full((6, 5), shift)})
        return np.array([line.get_xdata() for line in ax.lines])

    np.testing.assert_allclose(curves(3.0), curves(0.0) + 3, rtol=1e-5, atol=1e-5)
    one = {"shift": torch.full((1, 5), 3.0)}
    none = {"shift": torch.zeros(1, 5)}
    torch.testing.assert_close(grid_means(own, context=one), grid_means(own, context=none) + one["shift"])
    assert rendered(plot.decoder_plane(own, context=one)).has_data()


def test_bars_are_the_kl_of_each_dimension():
    usage = latent_usage(model(latent_dim=3), X)
    assert usage.kl is not None
    heights = [bar.get_height() for bar in plot.kl_by_dimension(model(latent_dim=3), X).patches]  # pyright: ignore
    np.testing.assert_allclose(heights, usage.kl.sort(descending=True).values, rtol=1e-6)


def test_reconstructions_are_those_of_the_model():
    ax = plot.reconstructions(model(), X, feature_names=list("abcde"))
    original, mean = (np.asarray(line.get_xdata()) for line in ax.lines)
    np.testing.assert_allclose(original, X[0], rtol=1e-6)
    np.testing.assert_allclose(mean, reconstruct(model(), X)[0], rtol=1e-6)
    assert [text.get_text() for text in ax.get_yticklabels()] == list("abcde")
    picture = np.asarray(plot.reconstructions(image_model(), IMAGES).images[0].get_array())
    assert picture.shape == (2 * 5 - 1, 12 * 6 - 1), "12 images of 4 x 5, one pixel apart"
    np.testing.assert_allclose(picture[:4, 6:11], IMAGES[1, 0])
    np.testing.assert_allclose(picture[5:, 6:11], reconstruct(image_model(), IMAGES)[1, 0], rtol=1e-6)


def test_samples_are_the_same_by_seed_and_leave_random_numbers_alone():
    own = model()
    before = torch.get_rng_state()
    first, again, other = (
        [np.asarray(line.get_xdata()) for line in plot.samples(own, 5, seed=seed).lines] for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert len(first) == 5
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(np.stack(first), np.stack(other))


def test_a_history_has_the_curves_of_its_epochs():
    done = fitted()
    ax = plot.history(done, "rate")
    curves = {line.get_label(): np.asarray(line.get_ydata()) for line in ax.lines[:2]}
    np.testing.assert_array_equal(curves["train"], [epoch.train.rate for epoch in done.epochs])
    np.testing.assert_array_equal(curves["validation"], [epoch.validation.rate for epoch in done.epochs])  # pyright: ignore
    assert ax.get_ylabel() == "rate [nats per example]"
    assert plot.history(done).get_ylabel() == "ELBO [nats per example]"


def test_what_cannot_be_drawn_is_refused_before_a_figure_is_made():
    chains = Split(X, lengths=torch.tensor([6, 6]))
    for call, words in (
        (lambda: plot.decoder_plane(model(latent_dim=3)), "two continuous latents"),
        (lambda: plot.reconstructions(model(), chains), "sequences"),
        (lambda: plot.history(History((), None, "minutes")), "no epochs"),
        (lambda: plot.gaps(Gaps.unknown(3)), "nothing to draw"),
        (lambda: plot.samples(model(), feature_names=["a"]), "1 feature names for 5 features"),
        (lambda: plot.latent_plane(model(), "digits"), "load_data"),
        (lambda: plot.samples(model(), 0), "num_samples must be"),
        (lambda: plot.latent_plane(model(), X, color={"age": [1.0, 2.0]}), "a value for each of 12 examples"),
        (lambda: plot.latent_plane(model(), X, color={}), "received 0 names"),
        (lambda: plot.history(fitted(1), ax="left"), "ax must be"),  # pyright: ignore[reportArgumentType]
    ):
        with pytest.raises(InputError, match=words):
            call()
    assert not plt.get_fignums()


@pytest.mark.slow
def test_the_module_is_there_when_it_is_asked_for():
    lines = (
        "import sys, subo; subo.fit; assert 'matplotlib' not in sys.modules and 'plot' in dir(subo); "
        "assert callable(subo.plot.samples) and 'matplotlib' in sys.modules"
    )
    run = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=False)
    assert run.stderr == ""
