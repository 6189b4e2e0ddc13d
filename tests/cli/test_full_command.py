"""The command ``evaluate --full``: stopped and continued, bounded, and of the data that it was asked for."""

import csv
import json
import shutil
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from subo.cli.entry import main
from subo.evaluation.gaps import Gaps, gaps
from subo.inference.ascent import Ascent

pytestmark = pytest.mark.slow


def evaluated(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    captured = capsys.readouterr()
    return int(stopped.value.code or 0), captured.out, captured.err


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("full") / "run"
    options = ["--epochs", "3", "--latent-dim", "2", "--hidden", "16", "--evaluation-samples", "20"]
    with pytest.raises(SystemExit), pytest.MonkeyPatch.context() as patch:
        patch.setattr("subo.experiments.fitting.draw_figures", lambda *_: None)
        main(["fit", "digits", "--out", str(out), "--binarize", "static", *options])
    return out


def test_the_command_stops_and_goes_on_and_writes_all_of_it(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def few_steps(*arguments: Any, **options: Any) -> Gaps:
        return gaps(*arguments, **options | {"ascent": Ascent(steps=50)})

    monkeypatch.setattr(import_module("subo.report.full"), "gaps", few_steps)  # the command has no option for them
    shallow = ["--num-samples", "50", "--max-data", "30", "--intensive-data", "4", "--temperatures", "10"]
    arguments = ["evaluate", str(run), "--full", *shallow]
    code, out, err = evaluated(capsys, *arguments, "--minutes", "0.0001")
    assert code == 0, err
    assert "the same command continues" in out
    code, out, err = evaluated(capsys, *arguments)
    assert code == 0, err
    assert "continues" not in out
    for words in ("How likely", "Where the loss is", "What the latents carry", "approximation gap", "bits per dim"):
        assert words in out
    assert max(map(len, out.split("\n"))) <= 130
    record = json.loads((run / "evaluation.json").read_text())
    assert record["complete"]
    assert record["elbo"] == pytest.approx(-(record["rate"] + record["distortion"]))
    assert {"name", "value", "standard_error", "unit", "estimator", "num_samples", "num_data"} <= set(
        record["numbers"][0]
    )
    rows = list(csv.DictReader((run / "evaluation.csv").read_text().splitlines()))
    assert len(rows) == 30
    assert sum(row["log_px_annealed"] != "" for row in rows) == 4
    mean = sum(float(row["log_px"]) for row in rows) / 30
    assert mean == pytest.approx(record["log_px"])
    for name in ("gaps", "gaps-per-datum", "calibration", "gap-over-training"):
        assert (run / "figures" / f"{name}.png").stat().st_size > 5000
    code, out, _ = evaluated(capsys, "show", str(run))
    assert code == 0
    assert "log p(x)" in out


def test_options_of_the_full_evaluation_are_refused_without_it(run: Path, capsys: pytest.CaptureFixture[str]):
    code, _, err = evaluated(capsys, "evaluate", str(run), "--max-data", "5")
    assert code != 0
    assert "add --full" in " ".join(err.split())
    code, _, err = evaluated(capsys, "evaluate", str(run), "--full", "--minutes", "0")
    assert code != 0
    assert "positive" in err


def rows_of(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "evaluation.csv").read_text().splitlines()))


def test_pieces_of_other_data_are_not_taken_for_these(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """A run whose q is fitted to the data at hand: other --max-data are other data."""
    monkeypatch.setattr(import_module("subo.experiments.experiment"), "Ascent", partial(Ascent, steps=30))
    monkeypatch.setattr(import_module("subo.evaluation.evidence.annealed"), "_PILOT", (5, 5))
    table, run, fresh = tmp_path / "x.npy", tmp_path / "run", tmp_path / "fresh"
    np.save(table, np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32))
    options = ["--inference", "local", "--epochs", "1", "--latent-dim", "2", "--hidden", "8", "--quiet"]
    code, _, err = evaluated(capsys, "fit", str(table), "--out", str(run), "--evaluation-samples", "5", *options)
    assert code == 0, err
    shutil.copytree(run, fresh)
    shallow = ["--full", "--num-samples", "20", "--intensive-data", "2", "--temperatures", "5", "--chains", "2"]
    for folder, max_data in ((run, "10"), (run, "20"), (fresh, "20")):
        code, _, err = evaluated(capsys, "evaluate", str(folder), *shallow, "--max-data", max_data)
        assert code == 0, err
    assert rows_of(run) == rows_of(fresh)


def test_the_gap_over_training_is_measured_a_point_at_a_time(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Stopped after the first of three points, it goes on with the second; other seeds are other points."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("evaluation*"))
    module, asked = import_module("subo.experiments.course"), []
    plain = module.gap_over_training

    def measured(checkpoints: Any, *arguments: Any, **options: Any) -> Any:
        if len(asked) == 1:
            asked.append("stopped")
            raise KeyboardInterrupt
        asked.append(checkpoints[0][0])
        return plain(checkpoints, *arguments, **options)

    def few_steps(*arguments: Any, **options: Any) -> Gaps:
        return gaps(*arguments, **options | {"ascent": Ascent(steps=2)})

    monkeypatch.setattr(module, "gap_over_training", measured)
    monkeypatch.setattr(import_module("subo.report.full"), "gaps", few_steps)
    shallow = ["--full", "--num-samples", "20", "--intensive-data", "2", "--temperatures", "2", "--max-data", "20"]
    assert evaluated(capsys, "evaluate", str(copy), *shallow)[0] == 130
    assert evaluated(capsys, "evaluate", str(copy), *shallow)[0] == 0
    assert asked == [1, "stopped", 2, 3]
    (kept,) = (copy / "evaluation-pieces").rglob("training-20-20-0.json")
    points = json.loads(kept.read_text())
    assert [point["epoch"] for point in points] == [1, 2, 3]
    assert {point["num_data"] for point in points} == {20}
    assert evaluated(capsys, "evaluate", str(copy), *shallow, "--seed", "1", "--minutes", "0.0001")[0] == 0
    assert not (copy / "figures" / "gap-over-training.png").exists()  # of another seed


def test_the_table_fits_a_narrow_terminal(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    arguments = ["evaluate", str(run), "--full", "--max-data", "20", "--num-samples", "20", "--intensive-data", "2"]
    for columns in (80, 100):
        monkeypatch.setenv("COLUMNS", str(columns))
        _, out, _ = evaluated(capsys, *arguments, "--temperatures", "2", "--minutes", "0.0001")
        table = out.split("written to")[0].split("\n")
        assert max(map(len, table[3:])) <= columns
        for estimator in ("importance sampling", "samples of q"):
            assert estimator in " ".join(out.split("Importance sampling:")[0].split())


def test_processes_share_it_and_its_numbers_do_not_depend_on_them(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    shallow = ["--num-samples", "50", "--max-data", "24", "--intensive-data", "3", "--temperatures", "10"]
    found = []
    for processes in ("1", "2"):
        one = shutil.copytree(run, tmp_path / processes, ignore=shutil.ignore_patterns("evaluation*"))
        code, _, err = evaluated(capsys, "evaluate", str(one), "--full", *shallow, "--processes", processes)
        assert code == 0, err
        found.append(json.loads((one / "evaluation.json").read_text()))
        course = next((one / "evaluation-pieces" / "test").glob("training-*.json"))
        found[-1]["course"] = json.loads(course.read_text())
    one, two = found
    assert one["complete"]
    assert two["complete"]
    for name in ("numbers", "course"):
        values = [[list(line.values()) for line in record[name]] for record in found]
        for line, other in zip(*values, strict=True):
            for value, same in zip(line, other, strict=True):
                assert same == (
                    pytest.approx(value, rel=1e-4, abs=1e-4, nan_ok=True) if isinstance(value, float) else value
                )
    assert two["sentences"] == one["sentences"]
