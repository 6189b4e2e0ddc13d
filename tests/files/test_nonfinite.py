"""Numbers that are not finite: one form in files, and one bad row that stops nothing."""

import csv
import json
import math
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from command_line import run
from run_configs import run_config
from subo import VAE, StandardNormal
from subo.cli.compare import print_comparison
from subo.data.splits import Split
from subo.evaluation.comparison import compare
from subo.evaluation.estimates import Estimate
from subo.evaluation.gaps import Gaps, gaps
from subo.evaluation.summary import measure
from subo.figures.gaps import gap_curves, gaps_per_datum
from subo.files.nonfinite import decoded, encoded
from subo.inference.ascent import Ascent
from subo.models.probabilistic_pca import ExactPosterior, LinearGaussian
from subo.runtime.randomness import stream

FOUR = [math.inf, -math.inf, math.nan, 1.5]


def test_json_gives_back_which_one_it_was():
    record = {"a": FOUR, "b": {"c": -math.inf, "d": None}, "name": "test", "count": 3, "told": True}
    text = json.dumps(encoded(record), allow_nan=False)
    assert repr(decoded(json.loads(text))) == repr(record)
    assert encoded(np.float64(-np.inf)) == "-inf"


def test_a_mean_is_minus_infinity_and_that_of_the_others_is_told():
    found = Estimate.of(torch.tensor([1.0, -math.inf, 3.0, 2.0]).double())
    assert (found.mean, found.num_not_finite) == (-math.inf, 1)
    assert found.others is not None
    assert (found.others.mean, found.others.standard_error) == pytest.approx((2.0, 1 / math.sqrt(3)))
    assert Estimate.of(torch.tensor([-math.inf, 3.0])).others is None
    assert Estimate.of(torch.tensor([1.0, 3.0]).double()).num_not_finite == 0


def exact(shift: float = 0.0) -> tuple[VAE, LinearGaussian]:
    """Probabilistic PCA in double precision, whose posterior is exact."""
    likelihood = LinearGaussian(5, 2).double()
    with torch.no_grad():
        likelihood.bias.fill_(shift)
    return VAE(StandardNormal(2), likelihood, ExactPosterior(likelihood)).double(), likelihood


@pytest.fixture
def with_a_bad_row() -> Split:
    x = torch.randn(20, 5).double()
    x[7] = 1e200  # whose square is beyond float64
    return Split(x)


def test_an_evaluation_counts_what_is_not_finite(with_a_bad_row: Split):
    model, likelihood = exact()
    evaluation, scores = measure(model, with_a_bad_row, num_samples=30)
    rest = torch.cat([with_a_bad_row.x[:7], with_a_bad_row.x[8:]])
    truth = likelihood.log_px(rest).detach()
    assert (evaluation.log_px, evaluation.elbo, evaluation.bits_per_dim) == (-math.inf, -math.inf, math.inf)
    assert evaluation.num_not_finite == 1
    assert evaluation.log_px_finite == pytest.approx(truth.mean().item())
    assert evaluation.log_px_finite_se == pytest.approx(truth.std().item() / math.sqrt(19))
    assert (scores.standard_error[7], scores.effective_sample_size[7]) == (math.inf, 0)
    evaluation, _ = measure(model, Split(rest), num_samples=30)
    assert (evaluation.num_not_finite, evaluation.log_px_finite) == (0, None)


def test_models_are_compared_on_the_others(with_a_bad_row: Split, capsys: pytest.CaptureFixture[str]):
    (one, first), (two, second) = exact(), exact(4.0)
    comparison = compare({"one": one, "two": two}, with_a_bad_row, num_samples=3)
    rest = torch.cat([with_a_bad_row.x[:7], with_a_bad_row.x[8:]])
    truth = (second.log_px(rest) - first.log_px(rest)).detach()
    difference = comparison.rows[1].log_px_difference
    assert difference is not None
    assert difference.others is not None
    assert_close(difference.others.mean, truth.mean().item())
    flat = comparison.rows[1].flat()
    assert flat["log_px"] == -math.inf
    assert (flat["num_not_finite"], flat["log_px_difference_finite"]) == (1, difference.others.mean)
    print_comparison(comparison, run_config("gaussian", levels=1))
    printed = " ".join(capsys.readouterr().out.split())
    assert "log p(x) of 1 of 20 examples is not finite" in printed
    assert "not finite for 1 of the examples; over the others two is" in printed
    assert "nan" not in printed


def test_figures_leave_out_what_is_not_finite_and_say_so():
    values = np.array([1.0, np.inf, 2.0, np.nan])
    figure = gaps_per_datum(values, np.ones(4))
    assert "2 examples left out" in figure.axes[0].get_xlabel()
    assert len(figure.axes[0].patches) == 4  # two data, two gaps
    surprisal, error = np.array([[np.inf, 3.0, 2.0], [0.1] * 3]), np.ones((2, 3))
    figure = gap_curves(np.array([1, 10, 100]), surprisal, error)
    assert "1 points left out" in figure.axes[0].get_title(loc="left")
    figure.canvas.draw()


@pytest.mark.slow
def test_a_row_of_the_test_data_beyond_floats_stops_no_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    x = np.random.default_rng(0).normal(size=(60, 3))
    bad = int(torch.randperm(60, generator=stream("split", 0))[-2])  # of the test data
    x[bad] = 1e30
    np.savetxt(tmp_path / "t.csv", x, delimiter=",", header="a,b,c", comments="")
    monkeypatch.setattr("subo.experiments.fitting.draw_figures", lambda *_: None)
    monkeypatch.setattr(import_module("subo.report.full"), "gaps", _few_steps)
    monkeypatch.setattr(import_module("subo.evaluation.evidence.annealed"), "_PILOT", (5, 5))
    out, few = tmp_path / "run", ["--num-samples", 30]
    small = ["--epochs", 2, "--latent-dim", 2, "--hidden", 8, "--evaluation-samples", 30, "--likelihood", "gaussian"]
    assert run("fit", tmp_path / "t.csv", "--out", out, *small) == 0
    assert run("show", out) == 0
    assert "-inf" in capsys.readouterr().out
    shallow = ["--intensive-data", 6, "--temperatures", 3, "--chains", 2]
    assert run("evaluate", out, "--full", *few, *shallow) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "log p(x) of 1 of 6 examples is not finite" in printed
    assert "nan" not in printed
    record = decoded(json.loads((out / "evaluation.json").read_text()))
    assert (record["log_px"], record["num_not_finite"]) == (-math.inf, 1)
    assert math.isfinite(record["log_px_finite"])
    rows = list(csv.DictReader((out / "evaluation.csv").read_text().splitlines()))
    worst = next(row for row in rows if row["log_px"] == "-inf")
    assert (worst["log_px_se"], worst["pareto_k"], worst["log_px_annealed"]) == ("inf", "nan", "-inf")
    assert (worst["approximation_gap"], len([row for row in rows if row["approximation_gap"] == "nan"])) == ("nan", 1)
    assert (out / "figures" / "gaps-per-datum.png").stat().st_size > 5000
    assert run("show", out) == 0
    assert run("score", out, tmp_path / "t.csv", "--out", tmp_path / "s.csv", *few) == 0
    assert "(1 left out: not finite)" in " ".join(capsys.readouterr().out.split())
    assert (tmp_path / "s.csv").read_text().splitlines()[1 + bad].endswith(",-inf,inf,0.0,nan")


def _few_steps(*arguments: Any, **options: Any) -> Gaps:
    return gaps(*arguments, **options | {"ascent": Ascent(steps=20)})


def test_what_an_older_run_wrote_as_null_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from subo.cli.messages import print_evaluation

    result = dict.fromkeys(("log_px", "log_px_se", "elbo", "elbo_se", "distortion", "median_ess", "bits_per_dim"))
    result |= {"split": "test", "num_data": 12, "num_samples": 5, "rate": 1.0, "active_units": 2, "latent_dim": 2}
    config = run_config("bernoulli", levels=1, event_shape=(4,), kind="binary")
    print_evaluation(result | {"at_floor": None}, config, run=tmp_path)
    assert "log p(x)           nan   by 5 samples" in capsys.readouterr().out
