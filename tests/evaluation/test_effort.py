"""How much an evaluation measures by default: what fits into a time, and what is said of the rest."""

import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from command_line import run
from subo.data.splits import Split
from subo.errors import InputError
from subo.evaluation.effort import Effort, affordable, gradient_time, seconds_a_sample
from subo.evaluation.evidence.hamiltonian import Bridge, State
from subo.evaluation.summary import evaluate
from subo.experiments.experiment import evaluate_run, open_run
from subo.experiments.fitting import finish_run
from subo.models.probabilistic_pca import probabilistic_pca
from subo.recipes import vae
from subo.recipes.options import PosteriorName


@pytest.mark.parametrize(
    "a_sample, num_data, all_data, effort",
    [
        (0.0, 10_000, False, Effort(1000, 10_000)),
        (60 / 1000 / 80, 80, False, Effort(1000, 80)),
        (61 / 1000 / 80, 80, False, Effort(500, 80)),
        (60 / 100 / 80, 80, False, Effort(100, 80)),
        (60 / 100 / 500, 1000, False, Effort(100, 500)),
        (60 / 100 / 500, 1000, True, Effort(50, 1000)),
        (60 / 2000, 1000, False, Effort(20, 100)),
        (60 / 2000, 40, False, Effort(50, 40)),
        (1e9, 1000, False, Effort(2, 100)),
    ],
)
def test_the_most_that_fits_is_measured(a_sample: float, num_data: int, all_data: bool, effort: Effort):
    found = affordable(60.0, a_sample * (1 - 1e-9), num_data, all_data=all_data)
    assert found == effort
    assert found.num_samples * found.num_data * a_sample <= 60 or found.num_samples == 2


def test_data_that_are_left_out_are_left_out_at_random_the_same_at_every_call():
    rows = Effort(100, 30).rows(1000)
    assert torch.equal(rows, Effort(1000, 30).rows(1000))
    assert len(rows.unique()) == 30
    assert 300 < rows.double().mean() < 700
    assert torch.equal(Effort(100, 30).rows(30), torch.arange(30))


def test_the_time_of_a_sample_is_measured():
    model: Any = probabilistic_pca(5, 2)
    own = model.draw

    def slow(x: Any, *arguments: Any, num_samples: int = 1, **options: Any) -> Any:
        time.sleep(1e-3 * num_samples * len(x))
        return own(x, *arguments, num_samples=num_samples, **options)

    model.draw = slow
    split, state = Split(torch.randn(50, 5)), torch.get_rng_state()
    assert 1e-3 < seconds_a_sample(model, split) < 1e-2
    assert torch.equal(torch.get_rng_state(), state)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "digits"
    small = ["--hidden", 8, "--latent-dim", 2, "--epochs", 1, "--evaluation-samples", 5]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("subo.experiments.fitting.draw_figures", lambda *_: None)
        assert run("fit", "digits", "--out", out, "--binarize", "static", "--quiet", *small) == 0
    return out


def test_an_evaluation_stays_within_the_time_and_says_what_it_left_out(
    fitted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    experiment = open_run(fitted)
    data = experiment.data()
    length = len(data.test)
    monkeypatch.setattr("subo.experiments.experiment.seconds_a_sample", lambda *_: 60 / 100 / 120.5)
    found = finish_run(experiment, figures=False)
    assert (found.num_samples, found.num_data) == (100, 120)
    assert found.reduced_from == {"num_samples": 1000, "num_data": length, "seconds": 60.0}
    some = evaluate(experiment.objective.model, data.test.take(Effort(100, 120).rows(length)), num_samples=100)
    assert found.log_px == some.log_px, "of the data and samples that were chosen, and of nothing else"
    assert json.loads((fitted / "evaluation.json").read_text())["reduced_from"] == found.reduced_from
    assert run("show", fitted) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"100 samples instead of 1,000, of 120 of {length} examples, taken at random" in printed
    assert "longer than 60 s" in printed
    asked = evaluate_run(experiment, data, num_samples=7)
    assert (asked.num_samples, asked.num_data, asked.reduced_from) == (7, length, None)
    monkeypatch.setattr("subo.experiments.experiment.seconds_a_sample", lambda *_: 0.0)
    whole = evaluate_run(experiment, data)
    assert (whole.num_samples, whole.num_data, whole.reduced_from) == (1000, length, None)
    assert math.isfinite(whole.log_px)


def test_what_takes_more_than_an_hour_is_said_before_it_begins(
    fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def stopped(*_: Any, **__: Any) -> None:
        raise InputError("enough")

    monkeypatch.setattr("subo.evaluation.effort.seconds_a_sample", lambda *_: 1e-5)
    for place in ("experiments.experiment.measure", "evaluation.scores.score", "experiments.compare.compare"):
        monkeypatch.setattr(f"subo.{place}", stopped)
    monkeypatch.setattr("subo.experiments.full_evaluation.evaluate_run_fully", stopped)
    monkeypatch.setattr("subo.experiments.fitting._fitted", lambda *_, on_start, **__: on_start() or stopped())
    samples = "Careful: log p(x) of 179 examples by 10,000,000 samples each takes about 5 hours"  # 1e7 * 1e-5 * 179 s
    test, many = ["digits", "--part", "test", "--out", tmp_path / "s.npy"], ["--num-samples", 10_000_000]
    new = ["digits", "--binarize", "static", "--out", tmp_path / "new", "--evaluation-samples", 10_000_000]
    for words, said in (
        (["evaluate", fitted, *many], f"{samples}; --num-samples 1000 takes about 2 seconds"),
        (["evaluate", fitted, "--full", *many], samples),
        (["score", fitted, *test, *many], samples),
        (["compare", fitted, shutil.copytree(fitted, tmp_path / "copy"), *many], samples),
        (["fit", *new], f"{samples}; --evaluation-samples 1000 takes about 2 seconds"),
    ):
        run(*words)
        assert said in capsys.readouterr().out
    for words in (["evaluate", fitted, "--num-samples", 1000], ["evaluate", fitted, "--full"]):
        run(*words)
        assert "takes" not in capsys.readouterr().out


def test_the_time_of_a_gradient_is_measured_with_its_overhead(monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    own = Bridge.at

    def slow(bridge: Bridge, z: torch.Tensor) -> State:
        now[0] += 0.01 + 1e-4 * z.shape[0] * z.shape[1]
        return own(bridge, z)

    monkeypatch.setattr(Bridge, "at", slow)
    monkeypatch.setattr("subo.evaluation.effort.time.thread_time", lambda: now[0])
    pca = probabilistic_pca(5, 2)
    state = torch.get_rng_state()
    found = gradient_time(pca, Split(torch.zeros(60, 5)))
    assert found is not None
    assert found.fixed == pytest.approx(0.01)
    assert found.per_latent == pytest.approx(1e-4)
    assert found.of(50) == pytest.approx(0.015)
    one = gradient_time(pca, Split(torch.zeros(1, 5)))
    assert one is not None
    assert one.of(16) == pytest.approx(0.01 + 16e-4)
    assert torch.equal(torch.get_rng_state(), state)


def test_discrete_latents_have_no_gradient():
    posteriors: tuple[tuple[PosteriorName, bool], ...] = (("bernoulli", False), ("gaussian", True))
    for posterior, has_one in posteriors:
        model = vae((5,), likelihood="bernoulli", posterior=posterior, hidden=(4,)).model
        assert (gradient_time(model, Split(torch.zeros(3, 5))) is not None) == has_one
