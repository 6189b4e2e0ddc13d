"""What the networks compute, beside the shapes that the conformance test holds."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, interpolate

from subo.evaluation import log_marginal
from subo.parts.networks import Tanh, Upscale, conv_decoder, conv_encoder, mlp, residual_mlp
from subo.recipes.for_data import make
from subo.runtime.devices import evaluating
from subo.runtime.randomness import forked


@pytest.mark.parametrize("height, width", [(1, 1), (3, 5), (4, 6)])
def test_upscale_repeats_pixels_and_convolves(height, width):
    torch.manual_seed(0)
    upscale = Upscale(5, 3, (2 * height, 2 * width)).double()
    x = torch.randn(2, 5, height, width, dtype=torch.float64)
    weight, bias = upscale.convolution.weight, upscale.convolution.bias
    expected = conv2d(interpolate(x, scale_factor=2), weight, bias, padding=1)
    torch.testing.assert_close(upscale(x), expected)
    upscale.size = (2 * height - 1, 2 * width - 1)
    torch.testing.assert_close(upscale(x), expected[..., :-1, :-1])


def test_an_untrained_decoder_draws_no_checkerboard():
    """Away from the borders a constant input gives a constant image: no place differs from its neighbors."""
    torch.manual_seed(0)
    convolutions = list(conv_decoder(3, (2, 64, 64), hidden=8))[4:]
    assert any(isinstance(module, Upscale) for module in convolutions)
    image = nn.Sequential(*convolutions)(torch.randn(1, 64, 1, 1).expand(1, 64, 16, 16))
    inside = image[..., 16:-16, 16:-16]
    torch.testing.assert_close(inside, inside[..., :1, :1].expand_as(inside))
    assert inside.abs().max() > 1e-3


@pytest.mark.parametrize("may_overwrite", [False, True])
@pytest.mark.parametrize("measured", [False, True])
def test_tanh_is_that_of_torch_and_overwrites_its_input_only_where_it_may(may_overwrite: bool, measured: bool):
    x = 3 * torch.randn(50, dtype=torch.float64)
    given, followed = x.clone(), x.clone().requires_grad_()
    layer = Tanh(may_overwrite=may_overwrite)
    with evaluating(layer) if measured else nullcontext():
        torch.testing.assert_close(layer(given), x.tanh(), rtol=0, atol=1e-15)
        assert torch.equal(given, x) is not (may_overwrite and measured)
        torch.testing.assert_close(torch.autograd.grad(layer(followed).sum(), followed)[0], 1 - x.tanh().square())
        assert torch.equal(followed, x)


def test_hidden_layers_are_overwritten_only_while_the_library_measures():
    network, x = mlp(4, 3, hidden=(8,)), torch.randn(5, 4)
    linear, tanh = network[1], network[2]

    @torch.no_grad()
    def hidden_stays() -> bool:
        hidden = linear(x)
        kept = hidden.clone()
        torch.testing.assert_close(tanh(hidden), kept.tanh())
        return torch.equal(hidden, kept)

    assert hidden_stays()
    network.eval()
    assert hidden_stays()  # a user's own evaluation is not the library's
    with pytest.raises(KeyError), evaluating(network):
        with evaluating(nn.Sequential(network)):
            assert not hidden_stays()
        assert not hidden_stays()
        raise KeyError
    assert hidden_stays()


def test_estimates_that_overwrite_hidden_layers_are_those_that_do_not(monkeypatch: pytest.MonkeyPatch):
    model, x = make("vae", torch.randn(6, 5), hidden=(8, 8), latent_dim=2).model, torch.randn(6, 5)
    with forked(0):
        found = log_marginal(model, x, num_samples=50).log_px
    assert not any(part.overwrites for part in model.modules() if isinstance(part, Tanh))
    for part in model.modules():
        if isinstance(part, Tanh):
            monkeypatch.setattr(part, "may_overwrite", False)
    with forked(0):
        assert torch.equal(found, log_marginal(model, x, num_samples=50).log_px)


def test_a_perceptron_leaves_what_it_is_given_and_gives_the_same_with_and_without_a_gradient():
    network, x = mlp(4, 3, hidden=(8, 8)).double(), torch.randn(5, 4, dtype=torch.float64)
    given = x.clone()
    with torch.no_grad():
        found = network(given)
    torch.testing.assert_close(found, network(x).detach())
    assert torch.equal(given, x)


@pytest.mark.parametrize(
    "network",
    [
        mlp(6, 3, hidden=(400, 400), dropout=0.3),
        residual_mlp(6, 3, hidden=(400, 400), dropout=0.3),
        conv_encoder((1, 4, 6), 3, hidden=400, dropout=0.3),
    ],
    ids=["mlp", "residual", "conv"],
)
def test_dropout_drops_its_share_of_hidden_units_in_training_alone(network: nn.Sequential):
    """What is kept is scaled by 1 / (1 - share), so that each unit has its mean."""
    x = torch.randn(50, 1, 4, 6) if isinstance(network[0], nn.Conv2d) else torch.randn(50, 6)
    layers = [module for module in network.modules() if isinstance(module, nn.Dropout)]
    assert layers
    assert not any(isinstance(module, nn.Dropout) for module in mlp(6, 3).modules())
    seen: list[tuple[Any, Any]] = []
    for layer in layers:
        layer.register_forward_hook(lambda module, args, output: seen.append((args[0], output)))
    with forked(0):
        network(x)
    for hidden, dropped in seen:
        kept = dropped != 0
        share = 1 - kept.float().mean().item()
        assert abs(share - 0.3) < 5 * (0.3 * 0.7 / hidden.numel()) ** 0.5
        torch.testing.assert_close(dropped[kept], hidden[kept] / 0.7)
    network.eval()
    torch.testing.assert_close(network(x), network(x), rtol=0, atol=0)


def test_only_the_encoder_of_few_rows_with_many_columns_drops_units():
    def shares(rows: int, columns: int, **options: Any) -> list[float]:
        model = make("vae", torch.ones(rows, columns), likelihood="poisson", **options).model
        assert not any(isinstance(module, nn.Dropout) for module in model.likelihood.modules())
        return [module.p for module in model.posterior.modules() if isinstance(module, nn.Dropout)]

    assert shares(30, 40) == [0.2, 0.2]
    assert shares(40, 30) == []
    assert shares(30, 40, dropout=0.0) == []
    assert shares(40, 30, dropout=0.5, hidden=(8,)) == [0.5]
