"""Several trainings in processes: seeds of one setting, and sweeps over settings."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from assertions import assert_refused as assert_refused_in_python
from command_line import assert_refused, run
from subo.cli.app import command_of
from subo.cli.flags import words_of
from subo.experiments.seeds import runs_within, seed_folder
from subo.experiments.sweeps import Sweep, Trial, ranked, save_trials
from subo.runs.run import Run
from subo.runtime.jobs import Job, run_jobs

SETTINGS = {"epochs": 2, "hidden": [8]}
FIT = ["--epochs", 2, "--hidden", 8, "--latent-dim", 2, "--evaluation-samples", 20]


def written(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


def table(folder: Path) -> Path:
    rows = np.random.default_rng(0).normal(size=(60, 3)).round(3)
    pd.DataFrame(rows, columns=list("abc")).to_csv(folder / "t.csv", index=False)
    return folder / "t.csv"


# What is tried


def test_a_grid_is_all_combinations(tmp_path: Path):
    grid = {"latent_dim": [2, 5], "beta": [0.5, 1.0, 4.0]}
    sweep = Sweep.read(written(tmp_path / "s.json", {"data": "digits", "settings": SETTINGS, "grid": grid}))
    assert (sweep.data, sweep.settings, sweep.varied) == ("digits", SETTINGS, ("latent_dim", "beta"))
    assert [(t["latent_dim"], t["beta"]) for t in sweep.trials] == [(z, b) for z in (2, 5) for b in (0.5, 1.0, 4.0)]
    assert sweep.folder(tmp_path, 3) == tmp_path / "3"


def test_each_trial_has_its_seeds(tmp_path: Path):
    asked = {"data": "digits", "settings": {**SETTINGS, "seed": 5}, "grid": {"beta": [1.0]}}
    plain = Sweep.read(written(tmp_path / "s.json", asked))
    assert (plain.seeds, plain.runs(tmp_path / "1")) == ((), [tmp_path / "1"])
    plain.keep(tmp_path / "plain", num_samples=9)
    assert "seeds" not in json.loads((tmp_path / "plain" / "sweep.json").read_text())  # as before there were any
    several = Sweep.read(written(tmp_path / "s.json", {**asked, "seeds": 3}))
    assert several.runs(tmp_path / "1") == [tmp_path / "1" / f"seed-{seed}" for seed in (5, 6, 7)]
    several.keep(tmp_path / "several", num_samples=9)
    several.keep(tmp_path / "several", num_samples=9)
    plain.keep(tmp_path / "several", num_samples=9)  # nothing has begun there
    (tmp_path / "several" / "1" / "seed-5").mkdir(parents=True)
    Run(tmp_path / "several" / "1" / "seed-5").config.write_text("{}")
    with assert_refused_in_python("sweep of other trials"):
        several.keep(tmp_path / "several", num_samples=9)


def test_a_sweep_is_extended_by_trials_and_seeds(tmp_path: Path):
    out = tmp_path / "out"

    def kept(num_samples: int = 9, **others: Any) -> Sweep:
        asked = {"data": "digits", "settings": SETTINGS, "random": {"beta": [1, 2, 3, 4, 5]}, **others}
        return Sweep.read(written(tmp_path / "s.json", asked)).keep(out, num_samples=num_samples)

    few = kept(trials=9, seeds=2)
    begun = seed_folder(few.folder(out, 3), 0)
    begun.mkdir(parents=True)
    Run(begun).config.write_text("{}")
    more = kept(trials=12, seeds=3)
    assert more.trials[:9] == few.trials
    assert len(more.trials) == 12
    assert (more.folder(out, 3), more.folder(out, 4)) == (out / "3", out / "04")
    assert more.runs(out / "3") == [out / "3" / f"seed-{seed}" for seed in range(3)]
    assert json.loads((out / "sweep.json").read_text())["trials"] == [*more.trials]
    for other in ({"trials": 9, "seeds": 3}, {"trials": 12, "seeds": 2}, {"trials": 12}, {"trials": 12, "seed": 1}):
        with assert_refused_in_python("sweep of other trials"):
            kept(**other)
    with assert_refused_in_python("another `num_samples`"):
        kept(trials=12, seeds=3, num_samples=8)


def test_values_that_are_added_to_a_grid_come_after_those_that_it_had(tmp_path: Path):
    def kept(grid: Any) -> Sweep:
        asked = {"data": "digits", "settings": SETTINGS, "grid": grid}
        return Sweep.read(written(tmp_path / "s.json", asked)).keep(tmp_path / "out", num_samples=9)

    kept({"latent_dim": [2, 5], "beta": [1]})
    (tmp_path / "out" / "1").mkdir()
    Run(tmp_path / "out" / "1").config.write_text("{}")
    trials = kept({"latent_dim": [1, 2, 5], "beta": [0.5, 1]}).trials
    assert [tuple(trial.values()) for trial in trials] == [(2, 1), (5, 1), (1, 0.5), (1, 1), (2, 0.5), (5, 0.5)]


def test_a_trial_of_several_seeds_is_their_mean_with_both_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Run, "read_evaluation", lambda run, split: json.loads(run.evaluation_of(split).read_text()))
    monkeypatch.setattr(Run, "read_metrics", lambda run: [json.loads(run.metrics.read_text())])
    runs = [tmp_path / "1" / f"seed-{seed}" for seed in range(3)]
    for run_dir, log_px in zip(runs, (-3.0, -4.0, -6.5), strict=True):
        run_dir.mkdir(parents=True)
        measured = {"log_px": log_px, "log_px_se": -log_px / 10, "num_samples": 20}
        Run(run_dir).evaluation_of("validation").write_text(json.dumps(measured))
        Run(run_dir).metrics.write_text(json.dumps({"epoch": 4, "seconds": -log_px}))
    trial = Trial.of(tmp_path / "1", {"beta": 1}, runs)
    assert trial.log_px == -4.5
    assert trial.log_px_se == pytest.approx(0.45)
    assert trial.log_px_seed_se == pytest.approx(math.sqrt((1.5**2 + 0.5**2 + 2**2) / 2 / 3))
    assert (trial.epochs, trial.seconds) == (4, 4.5)
    save_trials(tmp_path / "t.csv", [trial], ("beta",))
    assert pd.read_csv(tmp_path / "t.csv")["validation_log_px_seed_se"][0] == pytest.approx(trial.log_px_seed_se)


def test_random_values_fill_their_ranges_and_are_the_same_by_seed(tmp_path: Path):
    ranges: dict[str, Any] = {
        "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "beta": {"low": 1.0, "high": 3.0},
        "latent_dim": {"low": 2, "high": 5},
        "prior": ["normal", "vamp"],
    }
    asked = {"data": "digits", "random": ranges, "trials": 2000, "seed": 1}
    trials = Sweep.read(written(tmp_path / "s.json", asked)).trials
    assert trials == Sweep.read(tmp_path / "s.json").trials
    assert trials != Sweep.read(written(tmp_path / "s.json", {**asked, "seed": 2})).trials
    rates = np.log10([trial["learning_rate"] for trial in trials])
    assert -4 <= rates.min() < rates.max() <= -2
    assert abs(rates.mean() + 3) < 5 * (2 / math.sqrt(12)) / math.sqrt(2000)
    betas = np.array([trial["beta"] for trial in trials])
    assert abs(betas.mean() - 2) < 5 * (2 / math.sqrt(12)) / math.sqrt(2000)
    sizes = np.bincount([trial["latent_dim"] for trial in trials])
    assert list(np.flatnonzero(sizes)) == [2, 3, 4, 5]
    assert (abs(sizes[2:] - 500) < 5 * math.sqrt(2000 * 0.25 * 0.75)).all()
    assert {trial["prior"] for trial in trials} == {"normal", "vamp"}


@pytest.mark.parametrize(
    "sweep, facts",
    [
        ([], ("is not a sweep", '"grid"')),
        ({"grid": {"beta": [1]}}, ("the key data",)),
        ({"data": "digits"}, ("either a grid, or random values",)),
        ({"data": "digits", "grid": {"beta": [1]}, "random": {"beta": [1]}}, ("either a grid",)),
        ({"data": "digits", "grid": {"beta": [1]}, "trials": 3}, ("either a grid",)),
        ({"data": "digits", "grids": {}}, ("unknown key 'grids'",)),
        ({"data": "digits", "grid": {}}, ("grid: expected an object",)),
        ({"data": "digits", "grid": {"beta": 1}}, ("beta must be a list",)),
        ({"data": "digits", "grid": {"beta": [1]}, "seeds": 0}, ("seeds must be the number of trainings",)),
        ({"data": "digits", "grid": {"seed": [1, 2]}, "seeds": 2}, ("seed cannot be varied",)),
        ({"data": "digits", "grid": {"beta": []}}, ("beta must be a list",)),
        ({"data": "digits", "settings": {"beta": 1}, "grid": {"beta": [1]}}, ("beta is both set and varied",)),
        ({"data": "digits", "settings": 3, "grid": {"beta": [1]}}, ("settings: expected an object",)),
        ({"data": "digits", "random": {"beta": [1]}}, ("trials must be", "None")),
        ({"data": "digits", "random": {"beta": [1]}, "trials": True}, ("trials must be",)),
        ({"data": "digits", "random": {"beta": [1]}, "trials": 2, "seed": -1}, ("seed must be",)),
        ({"data": "digits", "random": {"beta": 3}, "trials": 2}, ("beta must be a list of values or a range",)),
        ({"data": "digits", "random": {"beta": {"low": 2, "high": 1}}, "trials": 2}, ("low < high",)),
        ({"data": "digits", "random": {"beta": {"low": 0, "high": 10**23}}, "trials": 2}, ("low < high",)),
        ({"data": "digits", "random": {"beta": {"low": -1e308, "high": 1e308}}, "trials": 2}, ("low < high",)),
        ({"data": "digits", "random": {"beta": {"low": 0, "high": 1, "log": True}}, "trials": 2}, ("above 0",)),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused(sweep: Any, facts: tuple[str, ...], tmp_path: Path):
    with assert_refused_in_python("s.json", *facts):
        Sweep.read(written(tmp_path / "s.json", sweep))


def test_settings_as_words_are_read_back():
    settings = {"latent_dim": 3, "hidden": [20, 10], "dequantize": False, "learning_rate": 1e-3, "prior": "vamp"}
    names = {"condition": ("sex", "city, where born"), "missing": ["?", "-999"], "columns": "a=count,b=drop"}
    bound: Any = command_of(["fit", "t.csv", *words_of({**settings, **names})])
    given = bound.keywords
    assert {name: given[name] for name in settings} == {**settings, "hidden": (20, 10)}
    assert {name: given[name] for name in names} == {**names, "missing": ("?", "-999")}


def test_the_best_comes_first_and_failures_last(tmp_path: Path):
    trials = [Trial("1", {"beta": 1}, log_px=-3.0), Trial("2", {"beta": [1, 2]}, failure="no"), Trial("3", {"beta": 2})]
    trials += [Trial("4", {"beta": 3}, log_px=-1.0), Trial("5", {"beta": 4}, log_px=math.nan)]
    order = ranked(trials)
    assert [trial.name for trial in order] == ["4", "1", "5", "2", "3"]
    save_trials(tmp_path / "t.csv", order, ("beta",))
    rows = pd.read_csv(tmp_path / "t.csv")
    assert list(rows["validation_log_px"][:2]) == [-1.0, -3.0]
    assert rows.set_index("trial")["failure"].to_dict()[2] == "no"


def test_drawn_values_stay_in_their_range(tmp_path: Path):
    ranges = {"learning_rate": {"low": 0.9, "high": 0.99999}, "beta": {"low": 12345.2, "high": 12345.8}}
    sweep = written(tmp_path / "s.json", {"data": "digits", "random": ranges, "trials": 500})
    for trial in Sweep.read(sweep).trials:
        assert 0.9 <= trial["learning_rate"] <= 0.99999
        assert 12345.2 <= trial["beta"] <= 12345.8


def test_a_folder_of_seeds_is_its_runs_in_their_order(tmp_path: Path):
    for name in ("seed-10", "seed-2", "other"):
        (tmp_path / name).mkdir()
    assert [path.name for path in runs_within(tmp_path)] == ["seed-2", "seed-10"]
    (tmp_path / "config.json").write_text("{}")
    assert runs_within(tmp_path) == [tmp_path]
    assert runs_within(tmp_path / "none") == [tmp_path / "none"]


def test_options_of_several_trainings_that_make_no_sense(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert "give both" in assert_refused(capsys, "fit", "digits", "--jobs", 2)
    assert "--seeds must be" in assert_refused(capsys, "fit", "digits", "--seeds", 1)
    Run(tmp_path / "run").path.mkdir()
    Run(tmp_path / "run").config.write_text("{}")
    assert "is a single run" in assert_refused(capsys, "fit", "digits", "--seeds", 2, "--out", tmp_path / "run")
    (tmp_path / "seed-1").mkdir()
    assert "--resume goes on" in assert_refused(capsys, "fit", "digits", "--seeds", 2, "--out", tmp_path)
    sweep = {"data": "digits", "grid": {"out": ["a"]}}
    assert "sets out" in assert_refused(capsys, "sweep", written(tmp_path / "s.json", sweep))
    for settings, said in ({"latent_dimm": 2}, "Did you mean latent_dim?"), ({"recipe": "ladder"}, "does not have"):
        asked = {"data": "digits", "settings": settings, "grid": {"num_symbols": [1]}}
        assert said in assert_refused(capsys, "sweep", written(tmp_path / "s.json", asked))
    good = written(tmp_path / "s.json", {"data": "digits", "grid": {"beta": [1, 2]}})
    assert "is a run" in assert_refused(capsys, "sweep", good, "--out", tmp_path / "run")
    (tmp_path / "kept" / "1").mkdir(parents=True)
    Run(tmp_path / "kept" / "1").config.write_text("{}")
    written(tmp_path / "kept" / "sweep.json", {"data": "digits"})
    assert "other trials" in assert_refused(capsys, "sweep", good, "--out", tmp_path / "kept")


# In processes


@pytest.mark.slow
def test_commands_run_some_at_a_time_and_all_to_their_end():
    jobs = [Job("help", ("--version",)), Job("wrong", ("fit", "--nonsense"))]
    ended = {one.job.name: one for one in run_jobs(jobs, at_a_time=2)}
    assert (ended["help"].code, ended["help"].message) == (0, "")
    assert ended["wrong"].code == 2
    assert "--nonsense" in ended["wrong"].message
    assert run_jobs([]) == []


@pytest.mark.slow
def test_seeds_have_a_mean_and_the_error_between_them(tmp_path: Path, capsys: pytest.CaptureFixture):
    data, out = table(tmp_path), tmp_path / "runs"
    assert run("fit", data, "--seeds", 3, "--seed", 4, "--out", out, *FIT) == 0
    said = capsys.readouterr().out
    assert "4, 5, 6" in said
    found = json.loads((out / "seeds.json").read_text())
    (mean,) = found["over_seeds"]
    rows = [row["log_px"] for row in found["rows"]]
    assert mean["log_px"] == pytest.approx(np.mean(rows))
    assert mean["log_px_se_seeds"] == pytest.approx(np.std(rows, ddof=1) / math.sqrt(3))
    seeds = [Run(path).read_config().training.seed for path in runs_within(out)]
    assert seeds == [4, 5, 6]
    assert found["split"] == "test"
    before = [(path / "model.safetensors").stat().st_mtime_ns for path in runs_within(out)]
    assert run("fit", data, "--seeds", 3, "--seed", 4, "--out", out, *FIT, "--resume", "--quiet") == 0
    assert "--beta" in assert_refused(capsys, "fit", "--seeds", 3, "--seed", 4, "--out", out, "--resume", "--beta", 3)
    assert [(path / "model.safetensors").stat().st_mtime_ns for path in runs_within(out)] == before
    untouched = tmp_path / "untouched"
    assert run("fit", data, "--seeds", 2, "--out", untouched, *FIT, "--measure", "validation", "--quiet") == 0
    assert json.loads((untouched / "seeds.json").read_text())["split"] == "validation"
    assert not any(Run(path).evaluation_of("test").exists() for path in runs_within(untouched))
    assert run("compare", out, "--num-samples", 20, "--out", tmp_path / "c.json") == 0
    assert len(json.loads((tmp_path / "c.json").read_text())["rows"]) == 3


@pytest.mark.slow
def test_a_sweep_chooses_by_validation_data_and_measures_the_test_data_once(
    tmp_path: Path, capsys: pytest.CaptureFixture
):
    grid = {"learning_rate": [1e-5, 0.02], "prior": ["normal", "nonsense"]}
    asked = {"data": str(table(tmp_path)), "settings": {**SETTINGS, "epochs": 10}, "grid": grid}
    sweep, out = written(tmp_path / "s.json", asked), tmp_path / "sweep"
    assert run("sweep", sweep, "--out", out, "--num-samples", 20) == 0
    said = capsys.readouterr().out
    assert 'Invalid value "nonsense"' in said
    rows = pd.read_csv(out / "trials.csv")
    assert list(rows["trial"][:2]) == [3, 1]  # the larger step, in ten epochs
    assert rows["validation_log_px"].notna().sum() == 2
    assert rows["failure"].notna().sum() == 2
    assert [Run(out / name).evaluation_of("test").exists() for name in "13"] == [False, True]
    assert not list((out / "1" / "figures").glob("*"))
    before = (out / "3" / "evaluation.json").stat().st_mtime_ns
    assert run("sweep", sweep, "--out", out, "--num-samples", 20) == 0
    assert "2 of them still to be done" in capsys.readouterr().out  # those that failed
    assert (out / "3" / "evaluation.json").stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_sweep_over_seeds_chooses_by_their_mean_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture):
    asked = {"data": str(table(tmp_path)), "settings": {**SETTINGS, "epochs": 10}, "seeds": 2}
    asked["grid"] = {"learning_rate": [1e-5, 0.02]}
    sweep, out = written(tmp_path / "s.json", asked), tmp_path / "sweep"
    assert run("sweep", sweep, "--out", out, "--num-samples", 20) == 0
    said = capsys.readouterr().out
    assert "2 trials of 2 seeds each, 2 of them still to be done" in said
    rows = pd.read_csv(out / "trials.csv").set_index("trial")
    assert list(rows.index) == [2, 1]
    for name in "12":
        found = [json.loads(Run(path).evaluation_of("validation").read_text()) for path in runs_within(out / name)]
        assert rows["validation_log_px"][int(name)] == pytest.approx(np.mean([one["log_px"] for one in found]))
        assert [path.name for path in runs_within(out / name)] == ["seed-0", "seed-1"]
        tested = [Run(path).evaluation_of("test").exists() for path in runs_within(out / name)]
        assert tested == [name == "2"] * 2
    assert json.loads((out / "2" / "seeds.json").read_text())["split"] == "test"
    (out / "1" / "seed-1" / "evaluation-validation.json").unlink()
    assert run("sweep", sweep, "--out", out, "--num-samples", 20) == 0
    again = capsys.readouterr().out
    assert "2 trials of 2 seeds each, 1 of them still to be done" in again
    assert "whose test data were measured before, once" in again
    assert "trial 1, seed 1: done" in again
    written(tmp_path / "s.json", {**asked, "grid": {"learning_rate": [1e-5, 0.02, 0.05]}})
    assert run("sweep", sweep, "--out", out, "--num-samples", 20) == 0
    assert "3 trials of 2 seeds each, 1 of them still to be done" in (more := capsys.readouterr().out)
    best = pd.read_csv(out / "trials.csv").trial[0]
    assert ("of an earlier choice, 2, the test data were measured, too" in more) == (best == 3)


@pytest.mark.slow
def test_a_density_is_not_chosen_over_a_probability(tmp_path: Path, capsys: pytest.CaptureFixture):
    bits = np.random.default_rng(0).integers(2, size=(60, 3))
    np.save(tmp_path / "bits.npy", bits.astype(bool))
    grid = {"likelihood": ["bernoulli", "gaussian"]}
    asked = {"data": str(tmp_path / "bits.npy"), "settings": SETTINGS, "grid": grid}
    sweep, out = written(tmp_path / "s.json", asked), tmp_path / "sweep"
    refused = assert_refused(capsys, "sweep", sweep, "--out", out, "--num-samples", 20)
    assert "a density is not a probability" in refused
    assert len(pd.read_csv(out / "trials.csv")) == 2
    assert not any(Run(out / name).evaluation_of("test").exists() for name in "12")
    assert "another --num-samples" in assert_refused(capsys, "sweep", sweep, "--out", out, "--num-samples", 30)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_a_stopped_sweep_leaves_no_process_behind_and_goes_on(tmp_path: Path):
    asked = {"data": str(table(tmp_path)), "settings": {**SETTINGS, "epochs": 100_000}, "grid": {"beta": [1, 2, 3]}}
    sweep, out = written(tmp_path / "s.json", asked), tmp_path / "sweep"
    command = [sys.executable, "-m", "subo", "sweep", str(sweep), "--out", str(out), "--jobs", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 100
    while not all((out / name / "metrics.jsonl").exists() for name in "12") and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=100)
    assert process.returncode == 130
    assert f"subo sweep {sweep}" in said
    for name in "12":
        assert (out / name / "checkpoint.pt").exists()
        with Run(out / name).writing():  # nobody else does
            pass
    assert not (out / "3").exists()
