"""The recipe of ladders: what is built of each setting, how it starts, that it trains, and its layers' picture."""

import inspect
import math
from pathlib import Path
from typing import Any

import docstring_parser
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from safetensors.torch import load_model, save_model
from torch import Tensor

from subo import InputError, Ladder, figures, fit
from subo.cli.options import fit_signature
from subo.core.offers import StartsAtMean
from subo.parts.registry import LIKELIHOODS
from subo.recipes import RECIPES
from subo.recipes.ladder import ladder


def bits(shape: tuple[int, ...], count: int = 6) -> Tensor:
    return torch.randint(2, (count, *shape)).float()


SMALL: dict[str, Any] = {"likelihood": "bernoulli", "hidden": (12, 8), "channels": (4, 3), "latent_dims": (4, 3, 2)}


def small(**changes: Any) -> dict[str, Any]:
    """The settings of a small ladder, with some changed."""
    return SMALL | changes


@pytest.mark.parametrize("merge", ["residual", "precision"])
@pytest.mark.parametrize("shape", [(9,), (1, 4, 5)])
def test_vectors_and_flattened_images(shape: tuple[int, ...], merge: Any):
    objective = ladder(shape, merge=merge, **SMALL)
    loss = objective(bits(shape))
    assert loss.rate.shape == (3, 6)
    z, p = objective.model.sample(5)
    assert {name: leaf.shape[1:] for name, leaf in z.items()} == {"z3": (2,), "z2": (3,), "z1": (4,)}
    assert p.event_shape == shape
    loss.loss.backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in objective.parameters())


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 7, 11), (2, 5, 1), (1, 1, 1)], ids=str)
@pytest.mark.parametrize("merge", ["residual", "precision"])
def test_maps_of_images_of_any_size(shape: tuple[int, int, int], merge: Any):
    objective = ladder(shape, network="conv", merge=merge, depth=2, num_samples=2, **SMALL)
    loss = objective(bits(shape))
    loss.loss.backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in objective.parameters())
    z, p = objective.model.sample(3)
    size = shape[1:]
    for name, channels in (("z1", 4), ("z2", 3), ("z3", 2)):
        size = tuple(math.ceil(length / 2) for length in size)
        assert z[name].shape == (3, channels, *size)
    assert p.event_shape == shape
    assert objective.model.log_joint(bits(shape, 3), {k: v[None] for k, v in z.items()}).shape == (1, 3)


def test_sizes_of_28_by_28_are_halved_layer_by_layer():
    z, _ = ladder((1, 28, 28), network="conv", **SMALL).model.sample(1)
    assert [tuple(leaf.shape[2:]) for leaf in z.values()] == [(4, 4), (7, 7), (14, 14)]


@pytest.mark.parametrize("likelihood", [name for name in LIKELIHOODS if name not in ("bernoulli", "columns")])
@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_every_likelihood_starts_at_the_datas_mean(likelihood: Any, network: Any):
    x = torch.rand(200, 2, 4, 3) * torch.tensor([0.2, 0.9])[:, None, None]
    discrete = LIKELIHOODS[likelihood].is_discrete
    reals = 40 * x if discrete else 50 + 10 * x
    x = {"categorical": 4 * x, "continuous-bernoulli": x}.get(likelihood, reals)
    x = x.floor() if discrete else x
    settings = small(likelihood=likelihood, num_classes=4)
    means = torch.zeros(2, 4, 3)
    for _ in range(5):  # a single untrained network has a random offset, which for a logarithm is a factor
        objective = ladder((2, 4, 3), examples=x, network=network, scale="network", **settings)
        assert objective(x[:6]).bound.isfinite().all()
        with torch.no_grad():
            means += objective.model.sample(500)[1].mean.median(0).values / 5
    if issubclass(LIKELIHOODS[likelihood], StartsAtMean):  # per pixel
        truth = x.mean(0)
    else:
        truth, means = x.mean(), means.mean()
    spread = x.std()
    assert ((means - truth).abs() < (1.0 if discrete else 0.5) * spread).all()


@pytest.mark.parametrize("layers", [1, 3, 30])
def test_it_starts_near_the_prior_whatever_its_depth(layers: int):
    x = bits((20,), 200)
    settings = small(latent_dims=(4,) * layers, hidden=(32,))
    objective: Any = ladder((20,), examples=x, **settings)
    with torch.no_grad():
        draw = objective.model.draw(x)
        rates = torch.stack([factor.rate() for factor in draw.factors])
        states = objective.model.features(x)
    assert rates.mean(1).sum() < 1  # nats, of all layers
    assert (rates >= 0).all()
    assert states[0].std() < 3 * states[-1].std()  # branches add up to what one would give
    assert -draw.expected_log_likelihood.mean() < 20 * math.log(2) * 1.5


def test_the_samples_of_a_datum_are_independent_of_its_batch():
    objective, x = ladder((9,), **SMALL), bits((9,))
    draw: Any = objective.model.draw(x, num_samples=3)
    for b in range(6):
        z = {name: leaf[:, b : b + 1] for name, leaf in draw.z.items()}
        own = objective.model.draw(x[b : b + 1]).q.log_prob(z)
        torch.testing.assert_close(own[:, 0], draw.log_posterior[:, b], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(objective.model.log_prior(z)[:, 0], draw.log_prior[:, b], rtol=1e-4, atol=1e-4)


def test_weights_saved_and_loaded_give_the_same_numbers(tmp_path: Path):
    x, one, other = bits((9,)), ladder((9,), **SMALL).model, ladder((9,), **SMALL).model
    save_model(one, str(tmp_path / "model.safetensors"))
    load_model(other, tmp_path / "model.safetensors")
    z, _ = one.sample(6)
    z = {name: leaf.unsqueeze(0) for name, leaf in z.items()}
    assert torch.equal(one.log_joint(x, z), other.log_joint(x, z))
    assert torch.equal(one.draw(x).q.log_prob(z), other.draw(x).q.log_prob(z))


@pytest.mark.parametrize("gradient", ["auto", "pathwise", "score-function", "vimco"])
def test_every_gradient_that_is_offered_runs(gradient: Any):
    bound: Any = "iwae" if gradient == "vimco" else "elbo"
    objective = ladder((9,), gradient=gradient, bound=bound, num_samples=2, **SMALL)
    objective(bits((9,))).loss.backward()
    assert all(parameter.grad is not None for parameter in objective.parameters())


@pytest.mark.slow
def test_training_with_warm_up_and_free_bits_raises_the_bound_on_structured_bits():
    torch.manual_seed(3)
    kinds = torch.randint(2, (4, 16)).float()  # four patterns with a tenth of their bits flipped
    x = (kinds[torch.randint(4, (400,))] - (torch.rand(400, 16) < 0.1).float()).abs()
    settings = small(hidden=(32,))
    objective = ladder((16,), examples=x, free_bits=0.05, **settings)
    history = fit(objective, x, epochs=25, learning_rate=5e-3, kl_warmup_epochs=5.0, updates="joint")
    entropy = 16 * -(0.1 * math.log(0.1) + 0.9 * math.log(0.9)) + math.log(4)  # what no model can beat by far
    first, last = history.epochs[0].train.bound, history.epochs[-1].train.bound
    assert last > first + 1
    assert -1.25 * entropy < last < -0.9 * entropy


def test_every_setting_has_an_option_with_a_help():
    parameters = fit_signature("ladder").parameters
    described = {p.arg_name: p.description for p in docstring_parser.parse(ladder.__doc__ or "").params}
    names = [n for n in inspect.signature(ladder).parameters if n not in ("event_shape", "examples", "num_data")]
    assert set(names) <= set(parameters)
    assert all(described.get(name) for name in names)
    assert RECIPES["ladder"] is ladder


def test_widths_go_on_upwards_and_those_of_layers_that_are_not_there_are_left_out():
    model: Any = ladder((9,), **small(latent_dims=(2, 2, 2, 2), hidden=(8, 6))).model
    assert [tuple(f.shape) for f in model.features(bits((9,)))] == [(6, 6), (6, 6), (6, 6), (6, 8)]
    lone: Any = ladder((9,), **small(latent_dims=(2,))).model
    assert [tuple(f.shape) for f in lone.features(bits((9,)))] == [(6, 12)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latent_dims": ()}, "latent_dims are the sizes of z1"),
        ({"latent_dims": (3, 0)}, "latent_dims must be numbers, each at least 1"),
        ({"hidden": ()}, "hidden gives the layers' widths"),
        ({"depth": 0}, "depth.*at least 1"),
        ({"network": "conv"}, r"images of shape \(C, H, W\)"),
        ({"bound": "iwae"}, "the bound iwae with one sample"),
        ({"likelihood": "auto"}, "likelihood auto depends on the data"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        ladder((9,), **small(**settings))


# What the layers decide


def test_rows_share_what_is_held_and_differ_in_what_is_not():
    torch.manual_seed(0)
    model: Ladder = ladder((4, 5), **SMALL).model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)  # away from a start at which latents hardly matter
    squares = model.sample_below(50, 40)
    assert squares.shape == (3, 50, 40, 4, 5)
    within = squares.var(2).mean((1, 2, 3))  # along rows, which share more and more
    whole = squares.flatten(1, 2).var(1).mean((1, 2))
    assert within[0] > 0.9 * whole[0]
    assert within[0] > within[1] > within[2] > 0
    assert (whole[1:] > 0.5 * whole[0]).all()


def picture_of(figure: Figure, panel: int) -> np.ndarray:
    return np.asarray(figure.axes[panel].images[0].get_array())


@pytest.mark.parametrize("channel", [(), (1,), (3,)])
def test_a_panel_a_layer_says_what_is_held(channel: tuple[int, ...]):
    images = np.random.default_rng(0).random((4, 2, 3, *channel, 5, 6))
    figure = figures.layers(images)
    figure.canvas.draw()
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == [
        "all redrawn",
        "z4 held in each row",
        "z4, z3 held in each row",
        "z4, z3, z2 held in each row",
    ]
    for level in range(4):
        tiles = figures.tile(images[level].reshape(6, *channel, 5, 6), columns=3)
        np.testing.assert_array_equal(picture_of(figure, level), tiles)
    many = figures.layers(np.zeros((6, 1, 1, 2, 2)), names=list("fedcba"))
    assert many.axes[5].get_title(loc="left") == "f to b held in each row"


def test_images_that_are_no_layers_are_refused():
    with pytest.raises(InputError, match=r"layers have the shape.*\(3, 4, 5\)"):
        figures.layers(np.zeros((3, 4, 5)))
    with pytest.raises(InputError, match="3 layers of images, but 2 names"):
        figures.layers(np.zeros((3, 1, 1, 4, 5)), names=["z2", "z1"])
