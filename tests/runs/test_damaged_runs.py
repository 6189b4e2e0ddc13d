"""Damaged files of a run: one message that names the file, never a traceback, and nothing blocked for good."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from command_line import run
from subo import InputError
from subo.experiments.experiment import open_run
from subo.experiments.fitting import finish_run
from subo.files.whole import read_json
from subo.report.stages import Stage, measure_in_stages
from subo.runs.run import Run
from subo.training.checkpoints import restore

OLD = Path(__file__).parents[1] / "runs-of-0.1" / "grey"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A finished run."""
    return Path(shutil.copytree(OLD, tmp_path / "run"))


def halved(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def scrambled(path: Path) -> None:
    path.write_bytes(bytes(byte ^ 0x5A for byte in path.read_bytes()))


def of_another_kind(path: Path) -> None:
    path.write_text("[1, 2]\n")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES = [halved, emptied, scrambled, of_another_kind, a_folder]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "evaluation.json", "model.safetensors"])
def test_show_names_a_damaged_file(name: str, damage: Callable[[Path], None], old: Path, capsys: pytest.CaptureFixture):
    damage(old / name)
    code, captured = run("show", old), capsys.readouterr()
    if name == "metrics.jsonl" and damage is emptied:  # of a run that has trained for no epoch yet
        assert code == 0
        return
    assert code == 2, captured
    (line,) = captured.err.splitlines()
    assert line.startswith("subo: ")
    assert name in line


@pytest.mark.parametrize(
    "change, words",
    [
        ({"recipe": 3}, "recipe must be text or null, not 3"),
        ({"options": None}, "options must be a group of settings, not None"),
        ({"data": {"event_shape": "8"}}, "data.event_shape must be a list of whole numbers, not '8'"),
        ({"data": {"seed": True}}, "data.seed must be a whole number, not True"),
        ({"data": {"sizes": {}}}, "data.sizes.train is missing"),
        ({"options": {"latent_dim": "five"}}, "config.json"),
        ({"options": {"latent_dim": -5}}, "config.json"),
        ({"options": {"no_such": 1}}, "config.json"),
    ],
)
def test_settings_of_the_wrong_kind_are_named(change: dict[str, Any], words: str, old: Path):
    config = json.loads((old / "config.json").read_text())
    for name, value in change.items():
        config[name] = {**config[name], **value} if isinstance(value, dict) else value
    (old / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=words.replace(".", r"\.")):
        open_run(old)


def test_a_name_that_is_said_twice_is_refused(tmp_path: Path):
    for text in ('{"a": {"b": 1, "b": 2}}', '{"a": NaN}', "[" * 100_000):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(InputError, match=r"a\.json is not JSON"):
            read_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    "name, value",
    [
        *((name, None) for name in ("settings", "step", "epoch", "best_weights", "random", "objective", "records")),
        ("step", "7"),
        ("records", [{"epoch": 1}]),
        ("best_weights", {}),
        ("optimizer", {}),
        ("random", []),
    ],
)
def test_checkpoints_that_load_and_are_none_are_refused(name: str, value: Any, old: Path):
    from lightning_fabric import Fabric

    from subo.training.optimizers import make_optimizer
    from subo.training.updates import make_updates

    kept, objective = Run(old).load_checkpoint(), open_run(old).objective
    if value is None:
        del kept[name]
    else:
        kept[name] = value
    state = torch.get_rng_state()
    with pytest.raises(InputError, match="the checkpoint was damaged.*Restore it from a copy"):
        restore(kept, objective, make_optimizer(objective, "Adam"), make_updates("joint"), {}, Fabric())
    assert torch.equal(torch.get_rng_state(), state)


def test_what_the_system_keeps_back_is_told_so(old: Path, monkeypatch: pytest.MonkeyPatch):
    def denied(self: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    experiment = open_run(old)
    kept, model = experiment.run, experiment.objective.model
    monkeypatch.setattr(Path, "open", denied)
    for read, name in ((kept.load_checkpoint, "checkpoint"), (lambda: kept.load_weights(model), "model")):
        with pytest.raises(InputError, match=rf"cannot read .*{name}.*: Permission denied. Change the permissions"):
            read()


def test_a_checkpoint_of_something_else_is_refused(old: Path):
    torch.save([1, 2], old / "checkpoint.pt")
    with pytest.raises(InputError, match="not a readable checkpoint"):
        Run(old).load_checkpoint()


@dataclass(frozen=True)
class Found:
    """What a stage may find."""

    value: torch.Tensor


@pytest.mark.parametrize("damage", [halved, emptied, scrambled])
def test_a_damaged_piece_of_an_evaluation_is_measured_again_and_said(damage: Callable[[Path], None], tmp_path: Path):
    pieces = [torch.arange(3), torch.arange(3, 5)]
    stage = Stage("a", "title", Found, pieces, lambda rows, seed: Found(rows + seed % 100))
    first = measure_in_stages([stage], folder=tmp_path / "p")["a"].record.value
    whole = sorted((tmp_path / "p").glob("*.safetensors"))[0]
    content = whole.read_bytes()
    damage(whole)
    told: list[str] = []
    again = measure_in_stages([stage], folder=tmp_path / "p", notice=told.append)["a"].record.value
    assert torch.equal(first, again)
    assert len(told) == 1
    assert str(whole) in told[0]
    assert whole.read_bytes() == content
    changed = bytearray(content)
    changed[-1] ^= 1  # a number among the results
    whole.write_bytes(bytes(changed))
    assert torch.equal(measure_in_stages([stage], folder=tmp_path / "p")["a"].record.value, first)
    told.clear()
    save_file(load_file(whole), whole, metadata={"digest": "0" * 64})  # as an older version noted another one
    assert torch.equal(measure_in_stages([stage], folder=tmp_path / "p", notice=told.append)["a"].record.value, first)
    assert len(told) == 1
    assert "no SHA-256 digest" in told[0]
    assert whole.read_bytes() == content


def test_pictures_that_fail_cost_no_numbers(old: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("subo.experiments.fitting.draw_figures", broken)
    (old / "evaluation.json").unlink()
    notes: list[str] = []
    finish_run(open_run(old), num_samples=2, note=notes.append)
    assert "not all pictures could be drawn" in notes[0]
    assert (old / "evaluation.json").exists()
