"""Models of data by a recipe, and models in one file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import subo
from assertions import assert_refused
from subo.evaluation import ais, latent_usage, log_marginal, mutual_information
from subo.evaluation.evidence.annealed import Annealing
from subo.evaluation.reconstruction import reconstruct

X = torch.linspace(-1, 1, 60).reshape(12, 5)


@pytest.mark.parametrize("options", [
    {"prior": "vamp", "prior_components": 3},
    {"posterior": "spline", "prior": "mixture"},
    {"likelihood": "laplace", "scale": "network", "hidden": (7,)},
    {"inference": "local"},
])  # fmt: skip
def test_a_model_comes_back_from_its_file_as_it_was(options: dict, tmp_path: Path):
    model = subo.make("vae", X, latent_dim=2, **options).model.eval()
    subo.save(model, tmp_path / "model.safetensors")
    again = subo.load_model(tmp_path / "model.safetensors")
    assert dict(again.state_dict()).keys() == dict(model.state_dict()).keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    z = torch.randn(3, 2)
    assert torch.equal(again.decode(z).log_prob(X[:3]), model.decode(z).log_prob(X[:3]))


def test_a_model_in_double_precision_stays_so(tmp_path: Path):
    model = subo.make("ladder", X, latent_dims=(2, 1), hidden=(4,)).model.double()
    subo.save(model, tmp_path / "model.safetensors")
    assert {p.dtype for p in subo.load_model(tmp_path / "model.safetensors").parameters()} == {torch.float64}


def test_weights_of_a_model_without_a_recipe_go_into_one_that_is_built_alike(tmp_path: Path):
    pca, path = subo.probabilistic_pca(5, 2), tmp_path / "pca.safetensors"
    subo.save(pca, path)
    with assert_refused("does not say how its model is built", "load_weights"):
        subo.load_model(path)
    again = subo.probabilistic_pca(5, 2)
    subo.load_weights(again, path)
    assert torch.equal(again.likelihood.weight, pca.likelihood.weight)
    with assert_refused("the weights of another model"):
        subo.load_weights(subo.probabilistic_pca(4, 2), path)


def test_a_changed_file_is_refused(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    subo.save(subo.make("vae", X, hidden=(4,)), path)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with assert_refused("SHA-256"):
        subo.load_model(path)


def test_make_resolves_what_is_left_to_the_data():
    assert type(subo.make("vae", (X > 0).float(), hidden=(4,)).model.likelihood.family).__name__ == "Bernoulli"
    assert type(subo.make("vae", X, hidden=(4,)).model.likelihood.family).__name__ == "StudentT"
    images = X.reshape(12, 1, 1, 5)
    assert type(subo.make("vae", images, hidden=(4,)).model.likelihood.family).__name__ == "Gaussian"
    labelled = subo.make("vae", (X, torch.arange(12) % 3), condition="labels", hidden=(4,))
    assert labelled.model.made_by.options["num_labels"] == 3
    with assert_refused("there is no recipe 'vea'"):
        subo.make("vea", X)
    with assert_refused("does not describe"):
        subo.make("vae", subo.Split(X, lengths=torch.tensor([5, 7])))


def test_load_is_the_former_name_of_load_data():
    with pytest.warns(DeprecationWarning, match="load_data"):
        assert subo.load is subo.load_data


FORMS = {
    "array": X.numpy(),
    "split": subo.Split(X),
    "labels": (X, torch.arange(12)),
    "context": (X.numpy(), {"more": np.zeros(12, dtype=np.float32)}),
}


@pytest.mark.parametrize("data", FORMS.values(), ids=FORMS)
@pytest.mark.slow
def test_examples_are_taken_in_any_form(data: object):
    """What is drawn may differ, and what is computed of the examples may not."""
    pca = subo.probabilistic_pca(5, 2)

    def measured(given: object) -> list[Tensor]:
        torch.manual_seed(0)
        return [
            log_marginal(pca, given, num_samples=50).log_px,
            ais(pca, given, annealing=Annealing(temperatures=10, chains=2)).log_px,
            latent_usage(pca, given).means,
            reconstruct(pca, given),
            torch.tensor(mutual_information(pca, given).value),
            torch.tensor(subo.evaluate(pca, given, num_samples=50).log_px),
        ]

    for here, there in zip(measured(data), measured(X), strict=True):
        assert torch.equal(here, there)
