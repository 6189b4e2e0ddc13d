"""Runs beside each other: exact differences where they are known, their errors, and what must not be compared."""

import csv
import json
import math
import shutil
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, kl_divergence
from torch.testing import assert_close

from command_line import run
from shapes import unchecked_shapes
from subo.cli.compare import print_comparison
from subo.data.splits import Split
from subo.errors import InputError
from subo.evaluation.comparison import Comparison, Estimate, Row, compare
from subo.evaluation.scores import score
from subo.evaluation.summary import measure
from subo.experiments.compare import compare_runs, open_comparable
from subo.experiments.experiment import evaluate_run, open_run
from subo.experiments.fitting import start_run
from subo.models.probabilistic_pca import ExactPosterior, LinearGaussian, MeanFieldPosterior
from subo.models.vae import VAE
from subo.parts.priors import StandardNormal
from subo.runs.run import Run

D, d = 5, 2


def linear() -> LinearGaussian:
    likelihood = LinearGaussian(D, d).double()
    with torch.no_grad():
        likelihood.weight.copy_(torch.linspace(-0.8, 1, D)[:, None] + 0.3 * torch.randn(D, d))
        likelihood.bias.copy_(0.3 * torch.randn(D))
    return likelihood


def vae(posterior: type[nn.Module], likelihood: LinearGaussian) -> VAE:
    return VAE(StandardNormal(d), likelihood, posterior(likelihood)).double()


def sampled(likelihood: LinearGaussian, num: int) -> Split:
    return Split(likelihood.marginal().sample(torch.Size([num])).detach())


# Models whose answers are known


def test_with_exact_posteriors_the_differences_are_those_of_the_evidence():
    a, b = linear(), linear()
    split = sampled(a, 200)
    comparison = compare({"a": vae(ExactPosterior, a), "b": vae(ExactPosterior, b)}, split, num_samples=3)
    exact = (b.log_px(split.x) - a.log_px(split.x)).detach()
    first, second = comparison.rows
    assert (first.log_px_difference, first.elbo_difference) == (None, None)
    for row, likelihood in ((first, a), (second, b)):
        assert_close(row.log_px.mean, likelihood.log_px(split.x).mean().item())
        assert_close(row.bits_per_dim.mean, -row.log_px.mean / D / math.log(2))
        assert_close(row.bits_per_dim.standard_error, row.log_px.standard_error / D / math.log(2))
    assert second.log_px_difference is not None
    assert_close(second.log_px_difference.mean, exact.mean().item())
    assert_close(second.log_px_difference.standard_error, exact.std().item() / 200**0.5)
    assert (comparison.num_data, comparison.num_samples, comparison.split) == (200, 3, "test")


def test_the_mean_difference_estimates_the_divergence_of_the_two_models():
    a, b = linear(), linear()
    split = sampled(a, 2000)
    models = {"a": vae(MeanFieldPosterior, a), "b": vae(MeanFieldPosterior, b)}
    _, row = compare(models, split, num_samples=50).rows
    difference, elbo = row.log_px_difference, row.elbo_difference
    assert difference is not None
    assert elbo is not None
    divergence = kl_divergence(a.marginal(), b.marginal()).item()
    assert divergence > 0.1
    assert abs(difference.mean + divergence) < 5 * difference.standard_error
    gaps = models["b"].posterior.gap() - models["a"].posterior.gap()
    assert abs(elbo.mean + divergence + gaps.item()) < 5 * elbo.standard_error
    assert difference.differs


def test_a_paired_error_is_below_that_of_independent_means():
    a = linear()
    b = linear()
    b.load_state_dict(a.state_dict())
    with torch.no_grad():
        b.bias.add_(0.1)
    split = sampled(a, 500)
    first, second = compare({"a": vae(ExactPosterior, a), "b": vae(ExactPosterior, b)}, split, num_samples=2).rows
    assert second.log_px_difference is not None
    unpaired = math.hypot(first.log_px.standard_error, second.log_px.standard_error)
    assert second.log_px_difference.standard_error < unpaired / 3


def test_importance_sampled_differences_are_within_their_sampling_errors_of_the_exact_ones():
    a, b = linear(), linear()
    split = sampled(a, 50)
    models = {"a": vae(MeanFieldPosterior, a), "b": vae(MeanFieldPosterior, b)}
    _, row = compare(models, split, num_samples=400, seed=3).rows
    errors = [score(model, split, num_samples=400, seed=3).standard_error for model in models.values()]
    exact = (b.log_px(split.x) - a.log_px(split.x)).mean().item()
    assert row.log_px_difference is not None
    # of means over data; the two models' errors may be correlated, so they add up at the most
    bound = sum(error.square().sum().sqrt().item() / len(split) for error in errors)
    assert abs(row.log_px_difference.mean - exact) < 5 * bound


class Big(nn.Module):
    """The same likelihood, which says that it takes many numbers: its latents are decoded few at a time."""

    family = SimpleNamespace(num_params=4_000_000)

    def __init__(self, likelihood: LinearGaussian):
        super().__init__()
        self.likelihood = likelihood

    def forward(self, z: Tensor) -> Distribution:
        return self.likelihood(z)


@unchecked_shapes()
def test_models_share_random_numbers_whatever_memory_they_need():
    likelihood = linear()
    model = vae(MeanFieldPosterior, likelihood)
    big = VAE(model.prior, Big(likelihood), model.posterior)
    grey = Split(torch.rand(40, D, dtype=torch.float64), resample=True)  # bits are drawn batch by batch
    for split in (sampled(likelihood, 40), grey):
        _, row = compare({"small": model, "big": big}, split, num_samples=20).rows
        for difference in (row.log_px_difference, row.elbo_difference):  # batches of other sizes round differently
            assert difference is not None
            assert (difference.mean, difference.standard_error) == pytest.approx((0.0, 0.0), abs=1e-12)
        assert not Estimate(0.0, 0.0).differs


def test_a_comparison_needs_two_models_and_the_same_measurements():
    model = vae(ExactPosterior, linear())
    split = Split(torch.randn(10, D, dtype=torch.float64))
    with pytest.raises(InputError, match="at least two models, but got 1"):
        compare({"a": model}, split)
    with pytest.raises(InputError, match="at least two"):
        compare({"a": model, "b": model}, split.take(torch.arange(1)))
    few, many = (measure(model, split, num_samples=k) for k in (2, 3))
    with pytest.raises(InputError, match="2 samples.*3 samples"):
        Comparison.of({"a": few, "b": many}, num_elements=D)
    with pytest.raises(InputError, match="at least two models"):
        Comparison.of({"a": few}, num_elements=D)


# Runs


def fitted(out: Path, source: str = "digits", *, inference: str = "amortized", **given: Any) -> Path:
    """A run of few parameters, two epochs long, neither measured nor drawn."""
    options = {"latent_dim": 2, "hidden": (16,), "inference": inference, **given.pop("options", {})}
    data = {name: given.pop(name) for name in ("binarize", "dequantize") if name in given}
    data["seed"] = given.pop("data_seed", 0)
    start_run(source, out, options=options, data=data, training={"epochs": 2}, **given)
    return out


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs: two that compare, and others that differ in one thing each."""
    folder = tmp_path_factory.mktemp("runs")
    fitted(folder / "a", binarize="static")
    fitted(folder / "b", binarize="static", options={"hidden": (32,), "prior": "mixture"})
    fitted(folder / "seed", binarize="static", data_seed=1)
    fitted(folder / "again", binarize="static", seed=1)
    fitted(folder / "dynamic", binarize="dynamic")
    fitted(folder / "grey", options={"likelihood": "continuous-bernoulli"})
    fitted(folder / "categorical", options={"likelihood": "categorical"})
    return folder


def assert_comparison_refused(capsys: pytest.CaptureFixture, *argv: object) -> str:
    """The comparison writes nothing but one line, which says why, and ends with code 2."""
    assert run("compare", *argv) == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert captured.out == ""
    (line,) = [line for line in captured.err.splitlines() if line]
    return line


def test_compare_prints_and_writes_what_each_run_gives_alone(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    before = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    assert run("compare", runs / "a", runs / "b", "--num-samples", 20, "--out", tmp_path / "c.csv") == 0
    assert {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()} == before
    shown = capsys.readouterr().out
    for words in (
        "test, 179 examples, nats per example",
        "log-probability",
        "importance sampling",
        "20 samples",
        "bits/dim",
    ):
        assert words in shown
    with (tmp_path / "c.csv").open() as file:
        first, second = list(csv.DictReader(file))
    assert (first["name"], second["name"]) == (str(runs / "a"), str(runs / "b"))
    assert (first["log_px_difference"], first["elbo_difference_se"]) == ("", "")
    scores = []
    for name, row in (("a", first), ("b", second)):
        shutil.copytree(runs / name, tmp_path / name)
        experiment = open_run(tmp_path / name)
        data = experiment.data()
        alone = evaluate_run(experiment, data, num_samples=20)
        for quantity in ("log_px", "log_px_se", "elbo", "elbo_se", "rate", "distortion", "bits_per_dim", "median_ess"):
            assert float(row[quantity]) == pytest.approx(getattr(alone, quantity), rel=1e-6)
        assert (int(row["active_units"]), int(row["latent_dim"])) == (alone.active_units, 2)
        assert float(row["training_seconds"]) == experiment.run.read_metrics()[-1]["seconds"]
        assert (row["num_data"], row["num_samples"], row["seed"], row["split"]) == ("179", "20", "0", "test")
        scores.append(score(experiment.objective.model, data.test, num_samples=20))
    differences = (scores[1].log_px - scores[0].log_px).numpy()
    mean, error = differences.mean(), differences.std(ddof=1) / 179**0.5
    assert float(second["log_px_difference"]) == pytest.approx(mean, rel=1e-6)
    assert float(second["log_px_difference_se"]) == pytest.approx(error, rel=1e-6)
    verdict = "no difference" if abs(mean) <= 2 * error else f"{'better' if mean > 0 else 'worse'} than {runs / 'a'}"
    (line,) = [line for line in shown.splitlines() if line.startswith(f"  {runs / 'b'}") and "log p(x)" in line]
    assert verdict in line


def test_compare_takes_the_first_data_of_a_split_and_writes_json(runs: Path, tmp_path: Path):
    out = tmp_path / "c.json"
    options = ["--split", "validation", "--max-data", 30, "--num-samples", 5, "--seed", 2, "--out", out]
    assert run("compare", runs / "a", runs / "b", *options) == 0
    record = json.loads(out.read_text())
    assert (record["split"], record["num_data"], record["num_samples"], record["seed"]) == ("validation", 30, 5, 2)
    assert (record["unit"], record["log_px_is"]) == ("nats per example", "log-probability")
    experiment = open_run(runs / "a")
    first = experiment.data().validation.take(torch.arange(30))
    alone = score(experiment.objective.model, first, num_samples=5, seed=2)
    assert record["rows"][0]["log_px"] == pytest.approx(alone.log_px.mean().item(), rel=1e-6)
    assert record["rows"][0]["log_px_difference"] is None


def test_a_run_without_an_encoder_is_compared_by_a_posterior_fitted_to_the_data(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    local = fitted(tmp_path / "local", inference="local", binarize="static", device={"precision": "64-true"})
    assert run("compare", runs / "a", local, "--max-data", 20, "--num-samples", 5) == 0
    shown = capsys.readouterr().out
    assert f"{local} has no encoder" in shown
    assert f"{runs / 'a'} has no encoder" not in shown
    assert "test, 20 examples" in shown


def test_a_copy_of_a_run_does_not_differ(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    copy = shutil.copytree(runs / "a", tmp_path / "copy")
    (copy / "metrics.jsonl").unlink()  # then the time of training is unknown
    assert run("compare", runs / "a", copy, "--num-samples", 5) == 0
    shown = capsys.readouterr().out
    for quantity in ("log p(x)", "ELBO"):
        assert f"no difference beyond 2 standard errors in {quantity} (0.0000 +- 0.0000 nats)" in shown


def test_runs_of_other_training_seeds_have_the_same_data_and_are_averaged(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    a, again, b = (open_run(runs / name) for name in ("a", "again", "b"))
    assert a.config.data == again.config.data
    weights = [next(iter(experiment.objective.model.parameters())) for experiment in (a, again)]
    assert not torch.equal(*weights)
    out = tmp_path / "c.json"
    copy = shutil.copytree(runs / "a", tmp_path / "copy")  # the same run once more is no other seed
    names = [runs / "b", runs / "a", runs / "again", copy]
    assert run("compare", *names, "--num-samples", 5, "--out", out) == 0
    first, second = json.loads(out.read_text())["over_seeds"]
    assert (first["runs"], second["runs"]) == ([str(names[0])], [str(names[1]), str(names[2])])
    split = a.data().test
    values = torch.stack([score(e.objective.model, split, num_samples=5).log_px for e in (a, again)]).double()
    assert second["log_px"] == pytest.approx(values.mean().item(), rel=1e-6)
    apart = (values[0].mean() - values[1].mean()).abs().item()
    assert second["log_px_se_seeds"] == pytest.approx(apart / 2, rel=1e-4)  # sd / sqrt(2) of two
    assert second["log_px_se_data"] == pytest.approx(values.mean(0).std().item() / 179**0.5, rel=1e-4)
    reference = score(b.objective.model, split, num_samples=5).log_px.double()
    paired = (values.mean(0) - reference).std().item() / 179**0.5
    assert second["log_px_difference_se_data"] == pytest.approx(paired, rel=1e-4)
    assert second["log_px_difference_se_seeds"] is None
    shown = capsys.readouterr().out
    assert "0, 1" in shown
    assert "one has a single seed" in shown


# What is refused


@pytest.mark.parametrize(
    "first, other, words",
    [
        ("a", "seed", ["the seed of its split and bits is 1, not 0"]),
        ("a", "dynamic", ["its binarization is dynamic, not static"]),
        ("grey", "categorical", ["a log-probability, not a log-density of x/16", "may exceed 1"]),
        ("a", "grey", ["its binarization is none, not static", "a log-density of x/16, not a log-probability"]),
    ],
)
def test_runs_that_differ_in_more_than_the_model(
    runs: Path, first: str, other: str, words: list[str], capsys: pytest.CaptureFixture
):
    message = assert_comparison_refused(capsys, runs / first, runs / other)
    assert message.startswith(f"subo: {runs / other} cannot be compared with {runs / first}: ")
    for word in words:
        assert word in message
    assert "content" not in message  # is another since the settings are


def test_the_third_run_is_looked_at_too(runs: Path, capsys: pytest.CaptureFixture):
    message = assert_comparison_refused(capsys, runs / "a", runs / "b", runs / "seed")
    assert f"{runs / 'seed'} cannot be compared" in message


def test_data_are_the_same_by_their_content(tmp_path: Path, capsys: pytest.CaptureFixture):
    rows = np.random.default_rng(0).normal(size=(60, 3))
    source = tmp_path / "x.npy"
    np.save(source, rows)
    shutil.copy(source, tmp_path / "copy.npy")
    old = fitted(tmp_path / "old", str(source))
    copy = fitted(tmp_path / "of-copy", str(tmp_path / "copy.npy"))
    assert run("compare", old, copy, "--num-samples", 5) == 0
    shown = capsys.readouterr().out
    assert "log-density in the data's units" in shown
    assert "bits/dim" not in shown  # a density has none
    np.save(source, rows + 1)
    new = fitted(tmp_path / "new", str(source))
    assert "same name but different contents" in assert_comparison_refused(capsys, old, new)
    np.save(source, rows[:, :2])
    narrow = fitted(tmp_path / "narrow", str(source))
    assert "the shape of its data is (2,), not (3,)" in assert_comparison_refused(capsys, old, narrow)
    message = assert_comparison_refused(capsys, copy, new)
    assert f"its data are {source}, not {tmp_path / 'copy.npy'}" in message
    assert "has changed since the run" in assert_comparison_refused(capsys, old, copy)  # the first run's


def test_settings_that_are_yet_to_come_are_refused_by_name(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    other = shutil.copytree(runs / "b", tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    config["data"]["dequantization"] = "uniform"
    (other / "config.json").write_text(json.dumps(config))
    message = assert_comparison_refused(capsys, runs / "a", other)
    assert "data has dequantization, which this version of subo" in message
    (other / "config.json").write_text(json.dumps({**config, "format": 2}))
    assert "has format 2, and this version" in assert_comparison_refused(capsys, runs / "a", other)


def test_runs_and_options_that_cannot_be(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    a, b = runs / "a", runs / "b"
    assert "none was given" in assert_comparison_refused(capsys)
    assert "one was given" in assert_comparison_refused(capsys, a)
    assert "Name each run once" in assert_comparison_refused(capsys, a, b, runs / "b" / ".." / "a")
    assert "no run folder" in assert_comparison_refused(capsys, a, runs / "none")
    unfinished = shutil.copytree(a, tmp_path / "unfinished")
    (unfinished / "model.safetensors").unlink()
    assert "not finished" in assert_comparison_refused(capsys, a, unfinished)
    assert "train" in assert_comparison_refused(capsys, a, b, "--split", "train")
    assert "at least 2" in assert_comparison_refused(capsys, a, b, "--max-data", 1)
    assert "at least 1" in assert_comparison_refused(capsys, a, b, "--num-samples", 0)
    assert ".csv" in assert_comparison_refused(capsys, a, b, "--out", tmp_path / "c.txt")
    assert "no folder" in assert_comparison_refused(capsys, a, b, "--out", tmp_path / "none" / "c.csv")
    (tmp_path / "c.csv").mkdir()
    assert "it is a folder" in assert_comparison_refused(capsys, a, b, "--out", tmp_path / "c.csv")


# What is printed


def row(name: str, difference: Estimate | None, **given: Any) -> Row:
    large = Estimate(-12345.678, 123.456)
    numbers = {"median_ess": 900.0, "active_units": 100, "latent_dim": 128, "at_floor": None, **given}
    return Row(
        name=name,
        log_px=large,
        elbo=large,
        rate=Estimate(123.4, 1.2),
        distortion=large,
        bits_per_dim=Estimate(12.3, 0.1),
        log_px_difference=difference,
        elbo_difference=difference,
        **numbers,
    )


def test_the_table_fits_and_the_verdict_is_in_words(runs: Path, capsys: pytest.CaptureFixture):
    name = "runs/with a [long] name, " + 60 * "x"
    rows = (
        row(name, None, training_seconds=99.96),
        row("better", Estimate(1.3123, 0.05), training_seconds=5999.0, median_ess=20.0),
        row("worse", Estimate(-120.4, 12.3), training_seconds=720_000.0, at_floor=0.25),
        row("alike", Estimate(0.09, 0.05), active_units=0),
        row("broken", Estimate(math.nan, math.nan)),
    )
    config = Run(runs / "a").read_config()
    print_comparison(Comparison(rows, "test", 10_000, 1000, 0), config, local=["alike"])
    shown = capsys.readouterr().out
    table = shown[shown.index("run ") : shown.index("Careful")]
    assert max(map(len, table.splitlines())) <= 100
    assert "[long]" in table
    assert "-12345.678" in table
    assert "+- 123.456" in table
    for duration in ("100.0 s", "100.0 min", "200.0 h", "-"):
        assert duration in table
    for words in (
        f"better is 1.312 +- 0.050 nats better than {name} in log p(x)",
        f"worse is 120 +- 12 nats worse than {name} in ELBO",
        f"alike and {name}: no difference beyond 2 standard errors in log p(x) (0.090 +- 0.050 nats)",
        f"broken and {name} cannot be distinguished by ELBO",
        "Careful: better has a median effective sample size of 20.0 of 1000",
        "Careful: worse has 25.0% of its likelihood's scales",
        "Careful: alike has no active latent dimension",
        "Careful: alike has no encoder",
    ):
        assert words in shown, words


def test_progress_of_all_runs_is_one_bar(runs: Path, monkeypatch: pytest.MonkeyPatch):
    from subo.experiments import compare as comparing

    seen: list[tuple[float, str]] = []
    real = comparing.bar

    @contextmanager
    def watched(*given: Any, **options: Any):
        with real(*given, **options) as advance:
            seen.append((given[1], "total"))
            yield lambda count=0, /, description="": (seen.append((count, description)), advance(count, description))

    monkeypatch.setattr(comparing, "bar", watched)
    compare_runs(open_comparable([runs / "a", runs / "b"]), num_samples=100)
    total, steps = seen[0][0], seen[1:]
    assert total == 2 * 179 == sum(count for count, _ in steps)
    assert {words.split(":")[0] for _, words in steps} == {str(runs / "a"), str(runs / "b")}
