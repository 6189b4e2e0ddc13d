"""Recorded steps: the numbers of plain ones, recorded once, looked at together, and refused where they cannot be.

No graph is recorded on a CPU: what stands in for the recorder calls the same work again on the same places in memory.
"""

import json
import subprocess
import sys
from contextlib import nullcontext
from typing import Any

import pytest
import torch

import subo
from assertions import assert_refused
from subo import IWAE, VAE, Bernoulli, Conditional, DivergedError, DReG, Gaussian, Objective, StandardNormal, fit, mlp
from subo.data import Split
from subo.data.on_device import Places, moved, places
from subo.parts.labels import Labelled
from subo.training import compiling, epochs
from subo.training.loop import Schedule, train
from subo.training.optimizers import make_optimizer

CPU = torch.device("cpu")


class CalledAgain:
    """Records nothing: a replay calls the work."""

    def __init__(self) -> None:
        self.recorded = 0

    def aside(self) -> nullcontext:
        return nullcontext()

    def record(self, work, generators):
        self.recorded += 1
        return work


@pytest.fixture
def recorder(monkeypatch) -> CalledAgain:
    """The CPU as a device that records, and on which the data lie."""
    stand_in = CalledAgain()
    monkeypatch.setattr(compiling, "recorder_of", lambda device: stand_in)
    monkeypatch.setattr(
        epochs, "kept_on", lambda device, split: None if split.lengths is not None else moved(split, device)
    )
    return stand_in


def bits_vae(labels: int = 0) -> VAE:
    torch.manual_seed(1)
    decoder, encoder = mlp(2 + labels, 6, hidden=(8,)), mlp(6 + labels, 4, hidden=(8,))
    if labels:
        decoder, encoder = (Labelled(network, num_labels=labels) for network in (decoder, encoder))
    return VAE(StandardNormal(2), Conditional(Bernoulli((6,)), decoder), Conditional(Gaussian((2,)), encoder))


LABELS = torch.arange(50) % 3
GREY = Split(torch.randint(256, (50, 6), dtype=torch.uint8), levels=255, labels=LABELS, resample=True)
FITS: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "elbo": ({}, {}, 1),
    "warm-up and cosine": ({}, {"kl_warmup_epochs": 2, "warmup_epochs": 1, "decay": "cosine"}, 1),
    "clipped": ({}, {"clip": 0.1}, 1),
    "iwae": ({"bound": IWAE(), "gradient": DReG(), "num_samples": 3}, {}, 1),
    "elbo, then iwae": ({"bound": IWAE(), "num_samples": 3}, {"elbo_epochs": 2}, 2),
    "elbo with a warm-up, then iwae": (
        {"bound": IWAE(), "num_samples": 3},
        {"elbo_epochs": 2, "kl_warmup_epochs": 2},
        2,
    ),
    "adamw": ({}, {"optimizer": "AdamW"}, 1),
    "double precision": ({}, {"precision": "64-true"}, 1),
    "batches that divide the data": ({}, {"batch_size": 10}, 1),
}


@pytest.mark.parametrize("label", FITS)
def test_a_fit_is_that_of_plain_steps_and_recorded_once(recorder, label):
    of_objective, settings, recordings = FITS[label]
    fits = []
    for compile in ("none", "graph"):
        objective = Objective(bits_vae(), **of_objective)
        history = fit(objective, GREY, **{"epochs": 5, "batch_size": 8, **settings}, compile=compile)
        fits.append((objective, history))
    (plain, plain_history), (recorded, history) = fits
    torch.testing.assert_close(recorded.state_dict(), plain.state_dict(), rtol=1e-4, atol=1e-6)
    for one, other in zip(history.epochs, plain_history.epochs, strict=True):
        assert one.step == other.step
        assert one.learning_rate == other.learning_rate
        assert one.kl_weight == other.kl_weight
        for name in ("bound", "objective", "elbo", "rate", "distortion"):
            assert getattr(one.train, name) == pytest.approx(getattr(other.train, name), rel=1e-5), name
    assert recorder.recorded == recordings


def test_labels_and_validation_come_along(recorder):
    data = subo.Data(
        "grey",
        GREY,
        Split((GREY.x[:20] / 255).round(), labels=LABELS[:20]),
        GREY.take(torch.arange(0)),
        kind="grey",
    )
    weights = []
    for compile in ("none", "auto"):
        objective = Objective(bits_vae(labels=3))
        fit(objective, data, epochs=4, batch_size=8, compile=compile, patience=2)
        weights.append(objective.state_dict())
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-4, atol=1e-6)
    assert recorder.recorded == 1


@pytest.mark.parametrize("recipe", ["vae", "hierarchical"])
def test_default_models_are_recorded(recorder, recipe):
    """Of real numbers too, whose likelihood is Student's t; what is recorded reads no number."""
    rows = Split(torch.randn(60, 4)) if recipe == "vae" else Split(torch.rand(60, 1, 4, 4))
    weights = []
    for compile in ("none", "graph"):
        torch.manual_seed(3)
        objective = subo.make(recipe, rows, hidden=(8,))
        fit(objective, rows, epochs=2, batch_size=10, compile=compile)
        weights.append(objective.state_dict())
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-4, atol=1e-6)
    assert recorder.recorded == 1


def test_batches_of_a_loader_are_copied_to_their_place(recorder):
    x = torch.bernoulli(torch.full((40, 6), 0.4))
    weights = []
    for compile in ("none", "graph"):
        objective = Objective(bits_vae())
        fit(objective, list(x.split(8)), epochs=3, compile=compile)
        weights.append(objective.state_dict())
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-4, atol=1e-6)
    assert recorder.recorded == 1


def test_steps_come_when_their_losses_are_known(recorder):
    objective, x = Objective(bits_vae()), torch.ones(4, 6)
    made = []

    def batches():
        for number in range(1, 9):
            made.append(number)
            yield x

    seen = [
        (step.number, len(made), step.settled)
        for step in train(objective, batches(), compile="graph", schedule=Schedule(look_every=3))
    ]
    assert seen == [
        *((1, 3, False), (2, 3, False), (3, 3, True)),
        *((4, 6, False), (5, 6, False), (6, 6, True)),
        *((7, 8, False), (8, 8, True)),
    ]


@pytest.mark.parametrize("clip", [None, 1.0])
def test_after_a_loss_that_is_not_finite_nothing_changes(recorder, clip):
    """The bad batch is the sixth of nine, and only then are all of them looked at."""
    x = torch.randn(9, 4, 5)
    x[5, 2, 1] = 1e30
    reached = []
    for compile in ("none", "graph"):
        torch.manual_seed(2)
        objective = Objective(subo.probabilistic_pca(5, 2))
        steps = []
        with pytest.raises(DivergedError, match="step 6: the .* is -?inf") as caught:
            steps.extend(step.number for step in train(objective, list(x), steps=9, clip=clip, compile=compile))
        reached.append((steps, objective.state_dict(), str(caught.value)))
    (_, plain, message), (steps, recorded, same) = reached
    assert steps == [1, 2, 3, 4, 5]
    assert same == message
    torch.testing.assert_close(recorded, plain, rtol=1e-4, atol=1e-6)


def test_the_optimizer_is_given_back_as_it_was(recorder):
    objective = Objective(bits_vae())
    optimizer = make_optimizer(objective, learning_rate=0.01)
    list(train(objective, [torch.ones(4, 6)] * 6, optimizer=optimizer, compile="graph", schedule=Schedule(warmup=2)))
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)
    assert not hasattr(optimizer, "found_inf")
    assert isinstance(optimizer.param_groups[0]["lr"], float)
    list(train(objective, [torch.ones(4, 6)], optimizer=optimizer))


def test_a_stopped_fit_goes_on_as_if_it_had_not(recorder, tmp_path):
    def fitted(folder: str, *epochs: int) -> dict:
        objective = Objective(bits_vae())
        for number in epochs:
            fit(
                objective,
                GREY,
                epochs=number,
                batch_size=8,
                compile="graph",
                run_dir=tmp_path / folder,
                resume=number != epochs[0],
            )
        return objective.state_dict()

    torch.testing.assert_close(fitted("whole", 6), fitted("parts", 3, 6), rtol=0, atol=0)


def test_what_cannot_be_recorded_is_refused_or_left_to_plain_steps(recorder):
    x = torch.bernoulli(torch.full((60, 6), 0.5))
    refused: dict[str, dict[str, Any]] = {
        "alternating updates": {"updates": "alternating"},
        "the optimizer is SGD": {"optimizer": "SGD"},
        "products in bf16-mixed": {"precision": "bf16-mixed"},
    }
    for name, options in refused.items():
        with assert_refused("compile graph", name, "use auto"):
            fit(Objective(bits_vae()), x, epochs=1, compile="graph", **options)
    for compile in ("auto", "none"):
        fit(Objective(bits_vae()), x, epochs=1, compile=compile, updates="alternating")
    assert recorder.recorded == 0


class Reading(torch.nn.Module):
    """A network that decides by a number of its input."""

    def __init__(self):
        super().__init__()
        self.network = mlp(6, 4, hidden=(8,))

    def forward(self, x):
        return self.network(x if bool(x.sum() > 0) else -x)


def test_a_part_that_reads_a_number_is_named_or_left_to_plain_steps(recorder):
    def objective() -> Objective:
        torch.manual_seed(1)
        decoder = Conditional(Bernoulli((6,)), mlp(2, 6, hidden=(8,)))
        return Objective(VAE(StandardNormal(2), decoder, Conditional(Gaussian((2,)), Reading())))

    x = torch.bernoulli(torch.full((60, 6), 0.5))
    with assert_refused("compile graph", "a number is read from the device", "test_recorded.py", "bool(x.sum() > 0)"):
        fit(objective(), x, epochs=2, batch_size=10, compile="graph")
    one = objective()
    history = fit(one, x, epochs=2, batch_size=10, compile="auto")
    assert history.epochs[-1].step == 12
    assert recorder.recorded == 0


def test_sequences_are_refused_or_left_to_plain_steps(recorder):
    rolls = Split(torch.randint(2, (40, 3)).float(), lengths=torch.full((8,), 5))
    objective = subo.make("deep-markov", rolls)
    with assert_refused("compile graph", "sequences", "use auto"):
        fit(objective, rolls, epochs=1, batch_size=4, compile="graph")
    assert fit(objective, rolls, epochs=1, batch_size=4, compile="auto").epochs[-1].step == 2
    assert recorder.recorded == 0


def test_auto_that_cannot_record_is_training_without(recorder):
    """The step that was tried has drawn nothing."""
    weights = []
    for compile in ("none", "auto"):
        torch.manual_seed(1)
        decoder = Conditional(Bernoulli((6,)), mlp(2, 6, hidden=(8,)))
        objective = Objective(VAE(StandardNormal(2), decoder, Conditional(Gaussian((2,)), Reading())))
        fit(objective, torch.ones(60, 6), epochs=2, batch_size=10, compile=compile)
        weights.append(objective.state_dict())
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("existing", [False, True])
def test_a_divergence_before_the_first_look_is_said_and_kept_as_any_other(recorder, tmp_path, existing):
    x = torch.randn(9, 4, 5)
    if existing:
        fit(Objective(subo.probabilistic_pca(5, 2)), x.flatten(0, 1), epochs=2, batch_size=4, run_dir=tmp_path / "run")
    x[5, 2, 1] = 1e30
    objective = Objective(subo.probabilistic_pca(5, 2))
    with pytest.raises(DivergedError, match="step 6"):
        fit(objective, list(x), epochs=1, compile="graph", run_dir=tmp_path / "run", overwrite=existing)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["training"]["compile"] == "graph"


def test_looks_are_counted_from_where_the_epoch_began(recorder):
    """An epoch that ran out of time has fewer steps, so that later ones do not end at multiples of an epoch's."""
    schedule = Schedule(look_every=10, look_from=3)
    steps = train(Objective(bits_vae()), [torch.ones(4, 6)], steps=23, schedule=schedule, compile="graph", first=3)
    assert [step.number for step in steps if step.settled] == [13, 23]


def test_data_that_do_not_fit_the_model_are_explained(recorder):
    with assert_refused("6", "5"):
        list(train(Objective(bits_vae()), [torch.ones(4, 5)], compile="graph"))


def test_batches_on_a_device_are_those_of_other_training():
    from subo.data.batches import batches

    there = moved(GREY, CPU)
    for epoch in range(2):
        one = places(there, 8, seed=3, epoch=epoch, first=2)
        other = batches(GREY, 8, seed=3, epoch=epoch, first=2)
        for place, batch in zip(one, other, strict=True):
            assert isinstance(place, Places)
            assert len(place) == len(batch)
            read = place.read()
            torch.testing.assert_close(read.x, batch.x, rtol=0, atol=0)
            torch.testing.assert_close(read.context, batch.context, rtol=0, atol=0)


def test_no_device_but_cuda_records():
    with assert_refused("compile graph", "only CUDA has graphs, and the device is cpu"):
        fit(Objective(bits_vae()), torch.ones(20, 6), epochs=1, compile="graph")


COMPILED = """
import torch
import subo

torch.manual_seed(1)
data = subo.load_data("digits", binarize="dynamic").train.take(torch.arange(300))
for objective in (subo.make("vae", data), subo.make("hierarchical", data)):
    bounds, before = [], {name: tensor.clone() for name, tensor in objective.state_dict().items()}
    for compile in ("none", "torch"):
        objective.load_state_dict(before)
        history = subo.fit(objective, data, epochs=4, batch_size=128, kl_warmup_epochs=2, compile=compile)
        bounds.append(torch.tensor([epoch.train.bound for epoch in history.epochs]))
    torch.testing.assert_close(*bounds, rtol=1e-5, atol=0)
    assert bounds[0][-1] > bounds[0][0] + 0.5
"""


@pytest.mark.slow
def test_compiled_steps_are_plain_ones():
    """In a process of its own: torch does not compile the tests' checks of shapes."""
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
