"""Run folders that older versions wrote can be opened, evaluated and resumed."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from command_line import run
from subo.experiments.experiment import open_run
from subo.models.vae import VAE

OLD = Path(__file__).parents[1] / "runs-of-0.1"
NAMES = ["grey", "levels"]


@pytest.fixture(params=NAMES)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a run of 0.1."""
    return Path(shutil.copytree(OLD / request.param, tmp_path / request.param))


def test_an_old_run_opens_with_its_data_and_gives_its_numbers(old):
    stored = json.loads((old / "evaluation.json").read_text())
    experiment = open_run(old)
    test = experiment.data().test
    x, context = test.read(torch.arange(len(test)))
    assert isinstance(experiment.objective.model, VAE)
    with torch.no_grad():
        draw = experiment.objective.model.draw(x, context, num_samples=50)
    assert len(x) == stored["num_data"]
    # The rate is in closed form, hence the same to rounding; the distortion is a mean over samples.
    assert draw.factors[0].rate().mean().item() == pytest.approx(stored["rate"], rel=1e-4)
    assert -draw.log_likelihood.mean().item() == pytest.approx(stored["distortion"], abs=0.1)


def test_an_old_run_is_evaluated_and_resumed(old):
    before = json.loads((old / "evaluation.json").read_text())
    assert run("evaluate", old, "--num-samples", 20) == 0
    assert json.loads((old / "evaluation.json").read_text())["elbo"] == pytest.approx(before["elbo"], abs=0.5)
    assert run("fit", "--resume", "--out", old, "--epochs", 3, "--evaluation-samples", 20) == 0
    assert len((old / "metrics.jsonl").read_text().splitlines()) == 3
