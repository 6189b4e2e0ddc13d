"""What was changed since it was written is refused, and no result is shown beside weights that it is not of."""

import csv
import json
import math
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from command_line import assert_refused, run
from subo import InputError
from subo.experiments.experiment import open_run
from subo.files.digests import digest_of
from subo.files.weights import WeightsFile
from subo.files.whole import read_json, write_json
from subo.runs.own_files import noted_digest
from subo.runs.run import Run

OLD = Path(__file__).parents[1] / "runs-of-0.1" / "levels"


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three epochs, which this version has written to its end."""
    out = Path(shutil.copytree(OLD, tmp_path_factory.mktemp("fitted") / "run"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("subo.experiments.fitting.draw_figures", lambda *_: None)
        assert run("fit", "--resume", "--out", out, "--epochs", 3, "--evaluation-samples", 5, "--quiet") == 0
    return out


@pytest.fixture
def copy(fitted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(fitted, tmp_path / "run"))


def edit(out: Path, section: str, name: str, value: Any) -> None:
    config = read_json(out / "config.json")
    config[section][name] = value
    write_json(out / "config.json", config)


def test_digests_tell_apart_what_differs_in_anything():
    values = [
        {},
        {"a": torch.zeros(2)},
        {"b": torch.zeros(2)},
        {"a": torch.zeros(2, 1)},
        {"a": torch.zeros(2, dtype=torch.float64)},
        {"a": torch.tensor([0.0, -0.0])},
        {"a": [0, 0]},
        {"a": [0.0, 0.0]},
        {"a": "0"},
        {"a": None},
        {"a": torch.zeros(0)},
        {"a": torch.tensor(True)},
    ]
    assert len({digest_of(value) for value in values}) == len(values)
    x = torch.arange(6.0).reshape(2, 3)
    assert digest_of(x.T) == digest_of(x.T.contiguous()) != digest_of(x)


def test_the_same_weights_make_the_same_file(tmp_path: Path):
    made, module = Run.create(tmp_path / "run", {"recipe": "mine"}), nn.Linear(30, 20)
    files = []
    for _ in range(5):
        made.save_weights(module)
        files.append(made.model.read_bytes())
    assert len(set(files)) == 1


@pytest.mark.parametrize("where", [-1, -20, 0.5, 0.9])
def test_a_changed_byte_is_refused(tmp_path: Path, where: float):
    """In what a file holds; in its first part, which says how to read it, most changes make it unreadable."""
    made, module = Run.create(tmp_path / "run"), nn.Linear(30, 20)
    made.save_weights(module)
    made.save_weights(module, epoch=1)
    made.save_checkpoint({"weights": module.state_dict(), "step": 7})
    reads: dict[Path, Callable[[], Any]] = {
        made.model: lambda: made.load_weights(nn.Linear(30, 20)),
        made.weights_after(1): lambda: made.load_weights(nn.Linear(30, 20), epoch=1),
        made.checkpoint: made.load_checkpoint,
    }
    for file, read in reads.items():
        read()
        content = bytearray(file.read_bytes())
        if file == made.checkpoint:  # of which zip archives are made: among its numbers
            place = content.index(module.weight.detach().numpy().tobytes()) + 100
        else:
            place = len(content) + int(where) if where < 0 else int(where * len(content))
        content[place] ^= 1
        file.write_bytes(content)
        with pytest.raises(InputError, match="SHA-256"):
            read()


@pytest.mark.parametrize("value, told", [(math.nan, "NaN"), (math.inf, "infinite"), (-math.inf, "infinite")])
def test_numbers_that_are_none_are_refused_with_and_without_digests(tmp_path: Path, value: float, told: str):
    made, module = Run.create(tmp_path / "run"), nn.Linear(3, 2)
    with torch.no_grad():
        module.bias[1] = value
    made.save_weights(module)
    with pytest.raises(InputError, match=f"{told}.*bias"):
        made.load_weights(module)
    save_file(dict(module.state_dict()), made.model)
    with pytest.raises(InputError, match=f"{told}.*bias"):
        made.load_weights(module)


def test_infinities_that_are_no_parameters_are_let_be(tmp_path: Path):
    made, module = Run.create(tmp_path / "run"), nn.Linear(3, 2)
    module.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    made.save_weights(module)
    read = nn.Linear(3, 2)
    read.register_buffer("mask", torch.zeros(2))
    made.load_weights(read)
    assert torch.equal(read.state_dict()["mask"], torch.tensor([0.0, -torch.inf]))


def test_a_digest_that_was_lost_is_no_older_version(copy: Path, capsys: pytest.CaptureFixture):
    """Of a run that this version made: its config says what values mean, and its files note digests."""
    config = read_json(copy / "config.json")
    config["data"]["meaning"] = Run(copy).read_config().as_json()["data"]["meaning"]
    write_json(copy / "config.json", config)
    assert run("show", copy, "--accept-changes") == 0
    weights = WeightsFile.read(copy / "model.safetensors").tensors
    state = Run.open(copy).load_checkpoint()
    open_run(copy)
    save_file(weights, copy / "model.safetensors")
    torch.save(state, copy / "checkpoint.pt")
    assert "no SHA-256 digest" in assert_refused(capsys, "evaluate", copy)
    with pytest.raises(InputError, match=r"checkpoint\.pt has no SHA-256 digest"):
        Run.open(copy).load_checkpoint()
    assert run("show", copy, "--accept-changes") == 0
    open_run(copy)
    Run.open(copy).load_checkpoint()


@pytest.mark.parametrize(
    "section, name, value",
    [
        ("options", "likelihood", "laplace"),
        ("options", "activation", "relu"),
        ("options", "min_scale", 0.1),
        ("data", "fingerprint", "0123456789abcdef"),
        ("training", "learning_rate", 0.5),
        ("device", "precision", "64-true"),
    ],
)
def test_settings_that_were_changed_are_named_and_refused(copy: Path, section: str, name: str, value: Any):
    before = read_json(copy / "config.json")[section][name]
    edit(copy, section, name, value)
    with pytest.raises(InputError, match=rf"{section}\.{name} is .* and was .*`accept_changes=.*`"):
        open_run(copy)
    with pytest.raises(InputError, match=rf"{section}\.{name} is"):
        Run.open(copy).load_checkpoint()
    edit(copy, section, name, before)
    assert open_run(copy).digest == Run(copy).digest


def test_settings_on_which_no_number_depends_may_be_changed(copy: Path):
    edit(copy, "data", "source", "elsewhere")
    edit(copy, "training", "epochs", 7)
    (copy / "config.json").write_text(json.dumps(read_json(copy / "config.json")))  # another layout
    assert open_run(copy).digest == Run(copy).digest
    Run.open(copy).load_checkpoint()


def test_a_change_that_is_meant_is_accepted_and_its_results_are_others(copy: Path, capsys: pytest.CaptureFixture):
    before = open_run(copy).digest
    edit(copy, "options", "min_scale", 0.1)
    assert "--accept-changes" in assert_refused(capsys, "show", copy)
    assert "min_scale" in assert_refused(capsys, "fit", "--resume", "--out", copy, "--epochs", 4)
    edit(copy, "training", "epochs", 3)
    assert run("show", copy, "--accept-changes") == 0
    shown = capsys.readouterr().out
    assert "evaluation.json belongs to other weights" in shown
    assert "log p(x)" not in shown
    assert open_run(copy).digest != before
    Run.open(copy).load_checkpoint()
    Run.open(copy).load_weights(open_run(copy).objective.model, epoch=1)


def test_what_is_to_be_known_of_a_training_is_told_with_its_weights(copy: Path, capsys: pytest.CaptureFixture):
    opened = Run.open(copy)
    opened.read_config()
    opened.save_weights(open_run(copy).objective.model, caution="training diverged.")
    for command in (["show"], ["evaluate", "--num-samples", 5]):
        capsys.readouterr()
        assert run(command[0], copy, *command[1:]) == 0
        assert "Careful: training diverged." in capsys.readouterr().out


def test_results_carry_the_digest_of_their_weights(copy: Path):
    assert run("evaluate", copy, "--num-samples", 5, "--split", "validation") == 0
    small = ["--draws", 10, "--num-samples", 1, "--estimators", "pathwise", "--batch-size", 2]
    assert run("gradients", copy, *small) == 0
    for name in ("evaluation.json", "evaluation-validation.json", "gradients.csv"):
        assert noted_digest(copy / name) == Run(copy).digest
    rows = list(csv.DictReader((copy / "gradients.csv").read_text().splitlines()))
    assert {row["weights"] for row in rows} == {Run(copy).digest}


def test_no_result_outlives_its_weights(copy: Path, monkeypatch: pytest.MonkeyPatch):
    """Though the training that changed them was stopped at its end, and resuming it had nothing left to train."""
    results = ["evaluation-validation.json", "evaluation.csv", "gradients.csv", "figures/samples.png"]
    (copy / "figures").mkdir(exist_ok=True)
    for name in results:
        (copy / name).touch()
    mine = [copy / "figures" / "plan.txt", copy / "figures" / "for-the-paper.png", copy / "evaluation-mine.csv"]
    for guest in mine:
        guest.write_text("mine")
    resume = ["fit", "--resume", "--out", copy, "--evaluation-samples", 5, "--quiet"]
    assert run(*resume) == 0  # nothing to do: the weights stay, and so do results
    assert all((copy / name).exists() for name in results)
    with monkeypatch.context() as patch:
        plain = Run.append_metrics

        def stopped(self: Run, record: dict[str, Any]) -> None:
            plain(self, record)
            signal.raise_signal(signal.SIGINT)

        patch.setattr(Run, "append_metrics", stopped)
        assert run(*resume, "--epochs", 4) == 130
    assert all((copy / name).exists() for name in results)
    before = Run(copy).digest
    assert run(*resume) == 0
    assert Run(copy).digest != before
    assert not any((copy / name).exists() for name in results)
    assert all(guest.exists() for guest in mine)
    assert noted_digest(copy / "evaluation.json") == Run(copy).digest


def test_weights_that_are_replaced_while_they_are_measured(copy: Path, monkeypatch, capsys: pytest.CaptureFixture):
    """Nothing is written: the numbers would stand in the folder of other weights."""
    import subo.experiments.experiment

    plain, before = subo.experiments.experiment.measure, (copy / "evaluation.json").read_bytes()

    def replaced(model: Any, *arguments: Any, **options: Any) -> Any:
        result = plain(model, *arguments, **options)
        opened = Run.open(copy)
        opened.read_config()
        with torch.no_grad():
            next(model.parameters()).add_(1)
        monkeypatch.setattr(Run, "clear_evaluations", lambda self: None)
        opened.save_weights(model)
        return result

    monkeypatch.setattr(subo.experiments.experiment, "measure", replaced)
    assert "were replaced" in assert_refused(capsys, "evaluate", copy, "--num-samples", 5)
    assert (copy / "evaluation.json").read_bytes() == before
    monkeypatch.undo()
    assert run("show", copy) == 0
    assert "log p(x)" not in capsys.readouterr().out


def test_settings_of_one_run_and_weights_of_another_are_not_mixed(copy: Path, tmp_path: Path):
    other = Run.create(tmp_path / "other", read_json(copy / "config.json") | {"device": {"precision": "64-true"}})
    other.save_weights(open_run(copy).objective.model)
    shutil.copy(other.model, copy / "model.safetensors")
    with pytest.raises(InputError, match=r"device\.precision"):
        open_run(copy)


def test_old_runs_open_without_digests_and_show_their_results(tmp_path: Path, capsys: pytest.CaptureFixture):
    old = Path(shutil.copytree(OLD, tmp_path / "old"))
    assert Run(old).digest is None
    assert run("show", old) == 0
    assert "log p(x)" in capsys.readouterr().out
    assert run("evaluate", old, "--num-samples", 5) == 0
    assert noted_digest(old / "evaluation.json") == open_run(old).digest
    capsys.readouterr()
    assert run("show", old) == 0
    assert "log p(x)" in capsys.readouterr().out
