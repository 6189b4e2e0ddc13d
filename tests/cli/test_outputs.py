"""No command writes over what it reads, nor over a part of a run."""

import os
from pathlib import Path

import numpy as np
import pytest

from command_line import assert_refused
from subo import InputError
from subo.cli.arguments import check_apart, check_ending
from subo.experiments.fitting import start_run
from subo.runs.run import Run

DATA = {"event_shape": [2], "sizes": {"train": 8, "validation": 1, "test": 1}, "kind": "real", "binarize": "none"}
CONFIG = {"recipe": "vae", "options": {}, "training": {}, "device": {}}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table, a run that was fitted to another one, and a folder of arrays."""
    monkeypatch.chdir(tmp_path)
    for name in ("t.csv", "train.csv"):
        (tmp_path / name).write_text("a,b\n1,2\n")
    data = {**DATA, "source": str(tmp_path / "train.csv"), "seed": 0, "fingerprint": "0"}
    Run.create("run").write_config({**CONFIG, "data": data})
    (tmp_path / "run" / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "arrays").mkdir()
    np.save(tmp_path / "arrays" / "1.npy", np.zeros((3, 2)))
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        "score run t.csv --out t.csv",
        "score run t.csv --out ./run/../t.csv",
        "score run t.csv --out run/evaluation.csv",
        "score run arrays --out arrays/1.npy",
        "encode run t.csv --out link.csv",
        "encode run t.csv --out hard.csv",
        "encode run arrays --out arrays/z.npy",
        "encode run t.csv --out alias/gradients.csv",
        "reconstruct run t.csv --out train.csv",
        "reconstruct run arrays --out arrays/z.png",
        "sample run --out train.csv",
        "sample run --out run/figures/samples.png",
        "forecast run t.csv --steps 2 --out t.csv",
        "compare run run --out run/config.json",
        "compare run run --out train.csv",
        "gradients run --out run/figures",
    ],
)
def test_an_output_over_an_input_is_refused(command: str, folder: Path, capsys: pytest.CaptureFixture):
    (folder / "link.csv").symlink_to("t.csv")
    os.link("t.csv", "hard.csv")
    (folder / "alias").symlink_to("run")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert "cannot write" in assert_refused(capsys, *command.split())
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.usefixtures("folder")
def test_other_outputs_may_lie_anywhere():
    for out in ("z.csv", "run/z.csv", "arrays/z.csv", "run/notes/z.png", "t.npy"):
        check_apart(Path(out), Path("run"), "t.csv", "arrays", "digits")


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "source, out", [("arrays", "arrays/run"), ("t.csv", "."), ("arrays", "arrays"), ("run/data.csv", "run")]
)
def test_a_run_lies_apart_from_its_data(source: str, out: str, overwrite: bool, folder: Path):
    (folder / "run" / "data.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="must be separate"):
        start_run(source, Path(out), overwrite=overwrite)


def test_endings_are_compared_in_lower_case(tmp_path: Path):
    assert check_ending(tmp_path / "S.NPY", ".npy", ".csv") == ".npy"
    with pytest.raises(InputError, match="ending must be"):
        check_ending(tmp_path / "s.txt", ".npy", ".csv")
