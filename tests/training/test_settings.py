"""Defaults that follow from the size of a table, or the number of images or sequences."""

from dataclasses import replace

import pytest
import torch

import subo
from subo.data import Data, Split, split
from subo.recipes.data_size import SequencesSize, TableSize
from subo.recipes.for_data import resolved
from subo.training.settings import BY_ROWS, training_settings


def table(rows: int, columns: int = 4) -> Data:
    return Data("rows", *split(torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))), kind="real")


@pytest.mark.parametrize(
    ("rows", "columns", "latents", "width", "batch"),
    [
        (10, 4, 2, 32, 16),
        (112, 4, 4, 32, 16),
        (700, 2, 2, 128, 64),
        (3000, 30, 16, 256, 256),
        (10**6, 99, 16, 256, 1024),
    ],
)
def test_sizes(rows: int, columns: int, latents: int, width: int, batch: int):
    size = TableSize(rows, columns)
    assert (size.latent_dim, size.widths, size.batch_size) == (latents, (width, width), batch)


@pytest.mark.parametrize(
    ("rows", "components", "covariance"), [(999, 10, "diagonal"), (1000, 10, "full"), (999, 9, "full")]
)
def test_a_full_covariance_has_ten_rows_for_each_entry(rows: int, components: int, covariance: str):
    """Of 4 latents 10 entries a component."""
    data = Data("rows", Split(torch.randn(rows, 4)), Split(torch.randn(5, 4)), Split(torch.randn(5, 4)), kind="real")
    options = {"prior_components": components, "latent_dim": 4}
    assert resolved("vae", options, data)["prior_covariance"] == covariance
    assert (
        subo.make("vae", torch.rand(500, 1, 3, 3), prior="mixture").model.made_by.options["prior_covariance"]
        == "diagonal"
    )


def test_a_model_of_a_table_follows_from_its_size_unless_it_is_asked_for():
    auto = resolved("vae", {}, table(1000))
    found = {name: auto[name] for name in ("latent_dim", "prior", "scale", "hidden", "activation")}
    assert found == {
        "latent_dim": 4,
        "prior": "mixture",
        "scale": "network",
        "hidden": (128, 128),
        "activation": "silu",
    }
    asked = {"latent_dim": 2, "prior": "normal", "scale": "shared", "hidden": (9,), "activation": "tanh"}
    assert {**resolved("vae", asked, table(1000)), **asked} == resolved("vae", asked, table(1000))
    assert resolved("vae", {"posterior": "bernoulli"}, table(1000))["prior"] == "bernoulli"


def images(count: int) -> Data:
    return Data("images", *split(torch.zeros(count, 1, 2, 2)), kind="grey")


@pytest.mark.parametrize(("count", "batch", "steps"), [(20, 16, 6000), (1797, 128, 6000), (12_000, 128, 6000)])
def test_fewer_images_get_small_batches_and_enough_steps(count: int, batch: int, steps: int):
    data = images(count)
    found = {name: resolved("vae", {}, data)[name] for name in ("latent_dim", "hidden", "activation", "prior")}
    assert found == {"latent_dim": 16, "hidden": (256, 256), "activation": "silu", "prior": "normal"}
    settings = training_settings(subo.make("vae", data, hidden=(8,)), data)
    made = settings["epochs"] * -(-len(data.train) // settings["batch_size"])
    assert steps <= made <= 1.02 * steps
    assert settings["batch_size"] == batch
    assert settings["kl_warmup_epochs"] == pytest.approx(0.2 * settings["epochs"])
    assert training_settings(subo.make("vae", data), data, epochs=3)["epochs"] == 3


def test_a_few_images_without_validation_are_seen_a_hundred_times_at_most():
    data = images(300)
    by_row = subo.make("vae", data, hidden=(8,), inference="local")
    settings = training_settings(by_row, data)
    assert (settings["epochs"], settings["warmup_epochs"]) == (100, 2)
    assert "patience" not in settings
    assert training_settings(by_row, data, epochs=400)["epochs"] == 400
    assert training_settings(subo.make("vae", data), data.train)["epochs"] == 100
    assert training_settings(subo.make("vae", data), data)["epochs"] == 750


@pytest.mark.parametrize(("count", "batch"), [(30, 16), (286, 32), (2000, 128)])
def test_sequences_get_small_batches_and_enough_steps(count: int, batch: int):
    parts = (Split.from_sequences([torch.randn(4, 2)] * n) for n in (count, 5, 5))
    data = Data("waves", *parts, kind="real")
    objective = subo.make("deep-markov", data, latent_dim=2, hidden=(4,), reader_hidden=4, transition_hidden=4)
    settings = training_settings(objective, data)
    made = settings["epochs"] * -(-len(data.train) // settings["batch_size"])
    assert 2000 <= made <= 1.02 * 2000
    assert (settings["batch_size"], settings["kl_warmup_epochs"]) == (batch, 0.2 * settings["epochs"])
    assert training_settings(objective, data, batch_size=100, epochs=7)["kl_warmup_epochs"] == pytest.approx(1.4)


@pytest.mark.parametrize(("length", "steps"), [(20.0, 2000), (100.0, 2000), (200.0, 1000), (5000.0, 300)])
def test_long_sequences_get_fewer_steps(length: float, steps: int):
    assert SequencesSize(160, length, 5000).epochs(10) == steps // 10


def test_many_images_get_wide_networks_and_a_cosine():
    data, fewer = images(12_500), images(12_490)
    found = {name: resolved("vae", {}, data)[name] for name in ("latent_dim", "hidden", "activation", "prior")}
    assert found == {"latent_dim": 50, "hidden": (500, 500), "activation": "silu", "prior": "normal"}
    assert resolved("vae", {"hidden": (9,)}, data)["hidden"] == (9,)
    assert resolved("vae", {}, fewer)["hidden"] == (256, 256)


@pytest.mark.parametrize(("count", "epochs"), [(12_500, 100), (62_500, 60), (625_000, 10)])
def test_the_epochs_of_many_images_follow_from_their_number(count: int, epochs: int):
    data = images(count)
    objective = subo.make("vae", data, hidden=(8,))
    settings = training_settings(objective, data)
    assert (settings["epochs"], settings["batch_size"], settings["decay"]) == (epochs, 250, "cosine")
    assert settings["patience"] == max(5, round(0.3 * epochs))
    assert settings["kl_warmup_epochs"] == pytest.approx(0.2 * epochs)
    assert training_settings(objective, data, epochs=4, patience=2)["patience"] == 2


@pytest.mark.parametrize(("rows", "steps"), [(100, 4000), (20_000, 6300), (60_000, 8000)])
def test_steps_follow_from_the_rows(rows: int, steps: int):
    data = table(rows)
    settings = training_settings(subo.make("vae", data, hidden=(8,)), data)
    made = settings["epochs"] * -(-len(data.train) // settings["batch_size"])
    assert steps <= made <= 1.05 * steps
    assert set(settings) == set(BY_ROWS)


def test_what_is_given_stays_and_the_rest_follows_it():
    data = table(200)
    objective = subo.make("vae", data, hidden=(8,))
    settings = training_settings(objective, data, epochs=10, learning_rate=0.1)
    assert (settings["epochs"], settings["learning_rate"], settings["kl_warmup_epochs"]) == (10, 0.1, 2)
    by_clock = training_settings(objective, data, minutes=1.0)
    assert by_clock["minutes"] == 1
    assert "epochs" not in by_clock


def test_only_what_the_objective_allows_is_set():
    data = table(200)
    weighted = subo.make("vae", data, hidden=(8,), bound="iwae", num_samples=5)
    assert "kl_warmup_epochs" not in training_settings(weighted, data)
    local = subo.make("vae", data, hidden=(8,), inference="local")
    assert "patience" not in training_settings(local, data)
    alone = Data("rows", data.train, Split(torch.zeros(0, 4)), data.test, kind="real")
    assert "patience" not in training_settings(weighted, alone)
    for some in (images(20), Data("waves", *[Split.from_sequences([torch.zeros(4, 2)])] * 3, kind="real")):
        none = replace(some, train=some.train.take(torch.arange(0)))
        assert training_settings(subo.make(("vae", "deep-markov")[some.sequential], some), none, clip=1.0) == {
            "clip": 1.0
        }


def test_where_the_clock_alone_ends_training_the_kl_counts_in_full_at_its_end():
    data = table(60)
    history = subo.fit(subo.make("vae", data, hidden=(8,)), data, minutes=0.01, kl_warmup_epochs=1e6)
    assert history.epochs[0].kl_weight < 1
    assert history.epochs[-1].kl_weight == 1


def test_they_fit():
    data = table(60)
    objective = subo.make("vae", data)
    history = subo.fit(objective, data, **training_settings(objective, data, epochs=2))
    assert len(history.epochs) == 2


@pytest.mark.parametrize(("longest", "window"), [(1000, None), (1001, 100)])
def test_long_sequences_are_trained_in_windows_where_the_model_can(longest: int, window: int | None):
    lengths = torch.tensor([longest, 2, 3, 4])
    data = Data("waves", *(Split(torch.zeros(int(lengths.sum()), 1), lengths=lengths) for _ in range(3)), kind="real")
    sizes = {"latent_dim": 2, "reader_hidden": 3, "transition_hidden": 3, "hidden": (3,)}
    chain = subo.make("deep-markov", data, **sizes)
    assert training_settings(chain, data).get("window") == window
    assert training_settings(chain, data, window=7)["window"] == 7
    other = subo.Objective(chain.model, subo.IWAE(), num_samples=2)
    assert "window" not in training_settings(other, data)
