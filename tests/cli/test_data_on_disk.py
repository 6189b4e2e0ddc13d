"""Commands on data that stay on disk, and commands whose rows are shared by processes."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from command_line import assert_refused, run
from subo.runs.run import Run

FIT = ["--epochs", 2, "--hidden", 8, "--latent-dim", 2, "--evaluation-samples", 20, "--likelihood", "gaussian"]
RNG = np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two parts of an array, which would be two sequences without `--on-disk`."""
    (tmp_path / "parts").mkdir()
    for number in range(2):
        x = RNG.normal(size=(150, 1)) * np.array([1.0, 2.0, -1.0]) + 0.2 * RNG.normal(size=(150, 3))
        np.save(tmp_path / "parts" / f"{number}.npy", x.astype(np.float32))
    return tmp_path


@pytest.mark.slow
def test_a_run_of_rows_on_disk_is_fitted_continued_and_used(folder: Path, capsys: pytest.CaptureFixture):
    out = folder / "run"
    assert run("fit", folder / "parts", "--on-disk", "--out", out, *FIT) == 0
    said = capsys.readouterr().out
    assert "300 examples of shape (3,), real, read from disk batch by batch: 240 to train on" in said
    assert Run.open(out).read_config().data.on_disk
    assert run("fit", "--resume", "--out", out, "--epochs", 3) == 0
    assert run("evaluate", out, "--num-samples", 20) == 0
    for command in ("score", "encode"):
        assert run(command, out, folder / "parts", "--out", folder / f"{command}.csv") == 0
        assert run(command, out, folder / "parts", "--part", "test", "--out", folder / f"{command}-test.csv") == 0
        whole, test = (pd.read_csv(folder / f"{command}{end}.csv") for end in ("", "-test"))
        assert (len(whole), len(test)) == (300, 30)
        column = "z1" if command == "encode" else "log_px"
        if command == "encode":  # log p(x) has another draw of its own
            same = whole.set_index("row").loc[test["row"], column]
            np.testing.assert_allclose(same, test[column], rtol=1e-4)
    np.save(folder / "more.npy", np.zeros((4, 3), dtype=np.float32))
    assert run("score", out, folder / "more.npy", "--out", folder / "more.csv") == 0
    pd.DataFrame(np.zeros((4, 3)), columns=list("abc")).to_csv(folder / "more.csv", index=False)
    capsys.readouterr()


def test_what_cannot_stay_on_disk_is_refused(folder: Path, capsys: pytest.CaptureFixture):
    (folder / "x.csv").write_text("a,b\n1,2\n3,4\n5,6\n")
    assert "--on-disk" in assert_refused(capsys, "fit", folder / "x.csv", "--on-disk", "--out", folder / "run")


@pytest.mark.slow
@pytest.mark.parametrize(("command", "column"), [("score", "log_px"), ("encode", "z1")])
def test_rows_are_shared_by_processes_to_the_same_numbers(
    folder: Path, capsys: pytest.CaptureFixture, command: str, column: str
):
    out = folder / "run"
    assert run("fit", folder / "parts", "--on-disk", "--out", out, *FIT) == 0
    for processes in (1, 2):
        written = folder / f"{processes}.csv"
        assert run(command, out, folder / "parts", "--out", written, "--processes", processes) == 0
    one, two = (pd.read_csv(folder / f"{processes}.csv") for processes in (1, 2))
    assert list(one) == list(two)
    np.testing.assert_allclose(one[column], two[column], rtol=1e-4)
    capsys.readouterr()
