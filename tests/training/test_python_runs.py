"""Runs that fit makes in Python: they are kept, loaded and resumed in Python, and the command line says so."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import SGD

from assertions import assert_refused
from command_line import assert_refused as assert_command_refused
from command_line import run as command
from subo import (
    ELBO,
    VAE,
    Bernoulli,
    Conditional,
    Gaussian,
    InputError,
    Interrupted,
    Objective,
    StandardNormal,
    fit,
    load_weights,
    mlp,
)
from subo.data.dataset import Data, split
from subo.experiments.experiment import open_run
from subo.experiments.fitting import resume_run
from subo.runs.run import Run
from subo.training.history import Epoch


def binary(seed: int = 0) -> Data:
    x = torch.bernoulli(torch.full((100, 5), 0.5), generator=torch.Generator().manual_seed(seed))
    return Data("bits", *split(x), kind="binary")


def objective(seed: int = 0, hidden: int = 8) -> Objective:
    torch.manual_seed(seed)
    decoder = Conditional(Bernoulli((5,)), mlp(2, 5, hidden=(hidden,)))
    return Objective(VAE(StandardNormal(2), decoder, Conditional(Gaussian((2,)), mlp(5, 4, hidden=(hidden,)))))


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_the_weights_that_a_run_kept_are_loaded_into_a_model_made_as_its_own(tmp_path: Path):
    fitted, out = objective(), tmp_path / "run"
    fit(fitted, binary(), epochs=3, run_dir=out)
    again = objective(seed=1)
    load_weights(again.model, out)
    assert same(again.model, fitted.model)
    with pytest.raises(InputError, match="weights of a different model"):
        load_weights(objective(hidden=9).model, out)
    with assert_refused("load_weights(objective.model, run_dir)"):
        load_weights(again, out)
    load_weights(again.model, out, epoch=1)
    assert not same(again.model, fitted.model)


def test_the_config_says_of_which_data_objective_and_training_it_is(tmp_path: Path):
    fitted, data = objective(), binary()
    fit(fitted, data, epochs=1, batch_size=20, optimizer=SGD(fitted.parameters(), 0.1), seed=3, run_dir=tmp_path)
    config = Run(tmp_path).read_config()
    assert config.recipe is None
    assert config.objective == {
        "model": "VAE",
        "bound": "ELBO(beta=1.0, free_bits=0.0, closed_form_kl=True)",
        "gradient": "Pathwise",
        "num_samples": 1,
    }
    assert config.data.fingerprint == data.fingerprint
    training = config.training
    assert (training.epochs, training.batch_size, training.optimizer, training.seed) == (1, 20, "SGD", 3)


def test_a_run_stopped_in_python_tells_the_call_that_goes_on(tmp_path: Path):
    def ask(epoch: Epoch) -> None:
        if epoch.epoch == 2:
            signal.raise_signal(signal.SIGINT)

    out, data, whole, broken, resumed = tmp_path / "run", binary(), objective(), objective(), objective(seed=5)
    fit(whole, data, epochs=4)
    with pytest.raises(Interrupted, match=r"with the same call of subo\.fit and `resume=True`"):
        fit(broken, data, epochs=4, run_dir=out, on_epoch=ask)
    assert not Run(out).model.exists()
    fit(resumed, data, epochs=4, run_dir=out, resume=True)
    assert same(resumed, whole)
    assert Run(out).model.exists()
    fit(resumed, data, epochs=5, run_dir=out, resume=True)
    assert Run(out).read_config().training.epochs == 5


def test_going_on_with_other_data_is_refused(tmp_path: Path):
    fit(objective(), binary(), epochs=1, run_dir=tmp_path)
    with assert_refused("started with different data", "same order and split"):
        fit(objective(), binary(seed=1), epochs=2, run_dir=tmp_path, resume=True)
    alone = tmp_path / "alone"
    fit(objective(), binary().train, epochs=1, run_dir=alone)
    fit(objective(), binary().train.x, epochs=2, run_dir=alone, resume=True)
    with assert_refused("started with different data"):
        fit(objective(), binary(seed=1).train, epochs=3, run_dir=alone, resume=True)


def test_going_on_with_another_objective_or_other_settings_is_refused(tmp_path: Path):
    fit(objective(), binary(), epochs=1, run_dir=tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    model = objective().model
    cases: list[tuple[Objective, dict[str, Any], str]] = [
        (Objective(model, num_samples=3), {}, "objective.num_samples is 3 and was 1"),
        (Objective(model, ELBO(beta=2.0)), {}, "objective.bound"),
        (objective(), {"learning_rate": 0.1}, "training.learning_rate is 0.1 and was 0.001"),
        (objective(), {"clip": 5.0}, "training.clip is 5.0 and was null"),
    ]
    for other, options, fact in cases:
        with assert_refused("started with other settings", fact):
            fit(other, binary(), epochs=2, run_dir=tmp_path, resume=True, **options)
    assert (tmp_path / "config.json").read_bytes() == before
    assert len(Run(tmp_path).read_metrics()) == 1


def test_a_run_is_replaced_when_that_is_asked_for_alone(tmp_path: Path):
    fit(objective(), binary(), epochs=2, run_dir=tmp_path)
    with assert_refused("already contains a run"):
        fit(objective(), binary(), epochs=1, run_dir=tmp_path)
    assert len(Run(tmp_path).read_metrics()) == 2
    fit(objective(), binary(), epochs=1, run_dir=tmp_path, overwrite=True)
    assert len(Run(tmp_path).read_metrics()) == 1


def test_a_folder_that_version_0_1_made_in_python_becomes_a_run_when_it_goes_on(tmp_path: Path):
    fit(objective(), binary(), epochs=1, run_dir=tmp_path)
    for file in ("config", "model"):  # it wrote neither
        getattr(Run(tmp_path), file).unlink()
    resumed = objective()
    fit(resumed, binary(), epochs=2, run_dir=tmp_path, resume=True)
    again = objective(seed=1)
    load_weights(again.model, tmp_path)
    assert same(again.model, resumed.model)


def test_commands_say_how_such_a_run_is_loaded_and_resumed(tmp_path: Path, capsys: pytest.CaptureFixture):
    out = tmp_path / "run"
    fit(objective(), binary(), epochs=1, run_dir=out)
    for tried in (open_run, resume_run):
        with assert_refused("VAE", "made in Python", f"subo.load_weights(model, '{out}')", "resume=True"):
            tried(out)
    assert "made in Python" in assert_command_refused(capsys, "evaluate", out)
    assert command("show", out) == 0
    shown = capsys.readouterr().out
    for words in ("none: made in Python", "model VAE", "bits", "finished"):
        assert words in shown
