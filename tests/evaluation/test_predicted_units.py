"""How many latents can be used, predicted before training and held to what linear models come to."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn

from subo import ELBO, IWAE, Objective
from subo.data.splits import Split
from subo.evaluation.latents.predicted_units import PredictedUnits, predict_active_units, principal_variances
from subo.recipes import vae

VARIANCES = torch.tensor([4.0, 2.0, 1.2, 0.5, 0.1], dtype=torch.float64)


def examples() -> Tensor:
    """Data whose covariance has these eigenvalues exactly, in turned axes."""
    torch.manual_seed(0)
    noise = torch.randn(400, 5, dtype=torch.float64)
    white = noise - noise.mean(0)
    white = white @ torch.linalg.inv(torch.linalg.cholesky(white.mT @ white / len(white))).mT
    turned, _ = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))
    return 3.0 + white * VARIANCES.sqrt() @ turned.mT


def objective(scale: Any = 1.0, **options: Any) -> Objective:
    return vae((5,), **{"latent_dim": 4, "likelihood": "gaussian", "scale": scale, "hidden": (), **options})


def best_weights(x: Tensor, beta: float, scale: float) -> Tensor:
    """Squared singular values of the decoder of a linear model whose loss, in closed form, is least."""
    torch.manual_seed(1)
    x = x - x.mean(0)
    weight = nn.Parameter(0.3 * torch.randn(5, 4, dtype=torch.float64))
    encoder = nn.Parameter(0.3 * torch.randn(4, 5, dtype=torch.float64))
    log_variance = nn.Parameter(torch.zeros(4, dtype=torch.float64))
    search = torch.optim.LBFGS([weight, encoder, log_variance], max_iter=3000, line_search_fn="strong_wolfe",
                               tolerance_grad=1e-12, tolerance_change=1e-16, history_size=50)  # fmt: skip

    def loss() -> Tensor:
        search.zero_grad()
        mean, variance = x @ encoder.mT, log_variance.exp()
        misfit = (x - mean @ weight.mT).square().sum(1).mean() + (weight.square().sum(0) * variance).sum()
        rate = 0.5 * (mean.square().mean(0) + variance - 1 - log_variance).sum()
        total = misfit / (2 * scale**2) + beta * rate
        total.backward()
        return total

    search.step(loss)
    return torch.linalg.svdvals(weight.detach()).square()


@pytest.mark.parametrize("beta, scale, used", [(1.0, 1.0, 3), (3.0, 1.0, 1), (1.0, 0.5, 4), (1.0, 2.1, 0)])
def test_a_linear_model_uses_the_directions_above_beta_times_the_variance_of_the_noise(
    beta: float, scale: float, used: int
):
    x = examples()
    found = predict_active_units(objective(scale, beta=beta), Split(x))
    assert found is not None
    assert (found.active, found.latents, found.threshold) == (used, 4, pytest.approx(beta * scale**2))
    assert found.largest == pytest.approx(4.0, rel=1e-5)
    expected = (VARIANCES[:4] - beta * scale**2).clamp(min=0)
    torch.testing.assert_close(best_weights(x, beta, scale), expected, atol=2e-4, rtol=1e-3)


def test_variances_are_those_of_pca():
    x = examples()
    np.testing.assert_allclose(principal_variances(x), PCA().fit(x.numpy()).explained_variance_ * 399 / 400, rtol=1e-9)
    wide = torch.randn(7, 50, dtype=torch.float64)
    assert principal_variances(wide).shape == (7,)


def test_scales_are_in_the_units_of_the_likelihood():
    x = examples().float()
    far = 1000 * x
    own, same = (
        predict_active_units(objective(0.8, examples=rows), Split(rows)) for rows in (x, far)
    )  # units follow the data
    assert own is not None
    assert same is not None
    assert (own.active, own.latents) == (same.active, same.latents)
    assert own.largest == pytest.approx(same.largest, rel=1e-4)


def test_where_it_is_not_known_nothing_is_said():
    split = Split(examples().float())
    assert predict_active_units(objective("shared"), split) is None
    assert predict_active_units(objective(likelihood="laplace"), split) is None
    assert predict_active_units(objective(prior="mixture"), split) is None
    assert predict_active_units(Objective(objective().model, IWAE(), num_samples=3), split) is None
    assert predict_active_units(Objective(objective().model, ELBO(free_bits=0.5)), split) is None
    assert (
        predict_active_units(objective(condition="labels", num_labels=2), Split(split.x, labels=torch.arange(400) % 2))
        is None
    )
    assert predict_active_units(Objective(objective().model, ELBO()), split) is not None


@pytest.mark.parametrize(
    "units, words",
    [
        (PredictedUnits(4, 4, 5, 3.0, 1.0), ""),
        (PredictedUnits(0, 4, 5, 0.5, 1.0), "no latent"),
        (PredictedUnits(1, 4, 5, 3.0, 1.0), "1 direction of the data has"),
        (PredictedUnits(2, 4, 5, 3.0, 1.0), "leave 2 of them unused"),
        (PredictedUnits(3, 20, 3, 3.0, 1.0), ""),
    ],
)
def test_in_words(units: PredictedUnits, words: str):
    assert words in str(units)
    assert bool(str(units)) == bool(words)
