"""Runs that take another one's place, and folders that change while a run trains in them."""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from command_line import assert_refused, run
from subo import InputError, Objective, fit, probabilistic_pca
from subo.experiments.experiment import open_run
from subo.files.whole import UNFINISHED, read_json, write_json
from subo.runs.run import Run
from subo.training.history import Epoch

OLD = Path(__file__).parents[1] / "runs-of-0.1" / "levels"


class Killed(BaseException):
    """What comes instead of a SIGKILL: nothing that the program does afterwards reaches the disk."""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "old"))


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def kill_at(patch: pytest.MonkeyPatch, number: int) -> list[str]:
    """From the numbered change of the disk on, none happens; gives the changes so far."""
    done: list[str] = []

    def dying(name: str, plain: Any) -> Any:
        def change(*arguments: Any, **options: Any) -> Any:
            if len(done) >= number:
                raise Killed
            done.append(name)
            return plain(*arguments, **options)

        return change

    for name in ("replace", "unlink", "mkdir", "touch"):
        patch.setattr(Path, name, dying(name, getattr(Path, name)))
    patch.setattr(shutil, "rmtree", dying("rmtree", shutil.rmtree))
    return done


def test_a_kill_at_any_moment_leaves_the_old_run_or_a_free_place(tmp_path: Path):
    """Whichever of the changes is the last: the old run opens, or a new one is taken without --overwrite."""
    config = read_json(OLD / "config.json") | {"recipe": "another"}
    states = []
    for number in range(100):
        folder = Path(shutil.copytree(OLD, tmp_path / str(number)))
        (folder / "notes.txt").write_text("mine")
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, number)
            try:
                Run.create(folder, config, overwrite=True)
                killed = False
            except Killed:
                killed = True
        assert (folder / "notes.txt").read_text() == "mine"
        if not killed:
            break
        if read_json(folder / "config.json") == read_json(OLD / "config.json"):
            assert content(folder).items() >= content(OLD).items()
            assert open_run(folder).config.recipe == "vae"
            states.append("old")
        elif read_json(folder / "config.json") == config:  # the new one: its folders for pictures came last
            assert not Run(folder).checkpoint.exists()
            states.append("new")
        else:
            with pytest.raises(InputError, match="Start it again"):
                open_run(folder)
            states.append("between")
            Run.create(folder, config)
        Run.create(folder, config, overwrite=True)
        assert sorted(content(folder)) == ["config.json", "notes.txt"]
    assert not killed
    assert states == sorted(states, key=["old", "between", "new"].index)
    assert set(states) == {"old", "between", "new"}


def test_a_folder_in_which_nothing_was_written_yet_is_free(tmp_path: Path):
    """As version 0.1 left it where it was killed before its first file was whole, and as a kill now leaves it."""
    for name in ("figures", "snapshots", f"{UNFINISHED}0"):
        (tmp_path / "run" / name).mkdir(parents=True)
    (tmp_path / "run" / ".config.0123abcd.json").write_text("{")
    (tmp_path / "run" / f"{UNFINISHED}0" / "config.json").write_text("{")
    made = Run.create(tmp_path / "run", {"new": 1})
    assert list(content(made.path)) == ["config.json"]


def test_what_is_left_of_a_run_is_replaced_when_asked_for(old: Path):
    (old / "config.json").unlink()
    with pytest.raises(InputError, match=r"no config\.json.*`overwrite`"):
        Run.create(old)
    assert list(content(Run.create(old, {"new": 1}, overwrite=True).path)) == ["config.json"]


def test_pictures_of_others_are_not_taken_for_a_run(tmp_path: Path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "plan.pdf").write_text("mine")
    with pytest.raises(InputError, match="not a subo run"):
        Run.create(tmp_path, overwrite=True)


def test_a_run_that_does_not_train_leaves_the_old_one(old: Path, capsys: pytest.CaptureFixture):
    """Refused by an option, by the data, or since its first step leads nowhere."""
    before = content(old)
    small = ["--hidden", 4, "--epochs", 1, "--out", old, "--overwrite", "--quiet"]
    assert_refused(capsys, "fit", "digits", *small, "--learning-rate", 1e38)
    assert_refused(capsys, "fit", "digits", *small, "--batch-size", 0)
    assert_refused(capsys, "fit", "digits", *small, "--likelihood", "poisson", "--bound", "renyi", "--beta", -1)
    assert content(old) == before


def test_one_process_trains_in_a_folder_and_others_read(old: Path, capsys: pytest.CaptureFixture):
    before = content(old)
    with Run(old).writing():
        for how in (["--resume", "--epochs", 3], ["digits", "--overwrite", "--epochs", 1]):
            assert "has only one writer" in assert_refused(capsys, "fit", *how, "--out", old)
        assert content(old) == before
        assert run("show", old) == 0
        assert run("evaluate", old, "--num-samples", 5) == 0
    assert run("fit", "--resume", "--out", old, "--epochs", 3, "--evaluation-samples", 5, "--quiet") == 0


@pytest.mark.parametrize("name", ["snapshots", "figures", "evaluation-pieces"])
def test_links_are_not_followed(old: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture):
    """What lies beyond them is nobody's to write or delete: resuming is refused, and overwriting removes the link."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for file in ("weights-000009.safetensors", "gaps.png"):
        (elsewhere / file).write_text("mine")
    shutil.rmtree(old / name, ignore_errors=True)
    (old / name).symlink_to(elsewhere)
    before = content(elsewhere)
    for command in (["fit", "--resume", "--epochs", 3, "--out", old], ["evaluate", old, "--full"]):
        assert "symbolic link" in assert_refused(capsys, *command)
    Run.create(old, {"new": 1}, overwrite=True)
    assert not (old / name).is_symlink()
    assert content(elsewhere) == before


def test_half_replaced_runs_say_so(old: Path, capsys: pytest.CaptureFixture):
    write_json(old / "config.json", read_json(old / "config.json") | {"replacing": True})
    for command in (["show", old], ["evaluate", old], ["fit", "--resume", "--out", old]):
        assert "Start it again" in assert_refused(capsys, *command)


def model() -> Objective:
    """The same at every call."""
    torch.manual_seed(0)
    return Objective(probabilistic_pca(3, 1))


def test_a_folder_that_was_moved_is_not_written_to_where_another_one_is_now(tmp_path: Path):
    x, place, moved = torch.randn(50, 3), tmp_path / "run", tmp_path / "moved"

    def move(epoch: Epoch) -> None:
        if epoch.epoch == 2:
            place.rename(moved)
            Run.create(place, {"another": "run"})

    with pytest.raises(InputError, match="moved, removed or replaced"):
        fit(model(), x, epochs=4, run_dir=place, on_epoch=move, checkpoint_minutes=1e-9)
    assert list(content(place)) == ["config.json"]
    assert len(fit(model(), x, epochs=4, run_dir=moved, resume=True).epochs) == 4


def test_training_that_cannot_write_leaves_its_last_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """And goes on from there to the same weights as if nothing had happened."""
    x, whole, resumed = torch.randn(50, 3), model(), model()
    fit(whole, x, epochs=4, run_dir=tmp_path / "whole")
    with monkeypatch.context() as patch:
        plain = Run.append_metrics

        def full(self: Run, record: dict[str, Any]) -> None:
            if record["epoch"] == 3:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.metrics))
            plain(self, record)

        patch.setattr(Run, "append_metrics", full)
        with pytest.raises(InputError, match=r"No space left.*checkpoint of step 3 is written"):
            fit(model(), x, epochs=4, run_dir=tmp_path / "run")
    history = fit(resumed, x, epochs=4, run_dir=tmp_path / "run", resume=True)
    assert [epoch.epoch for epoch in history.epochs] == [1, 2, 3, 4]
    assert [record["epoch"] for record in Run(tmp_path / "run").read_metrics()] == [1, 2, 3, 4]
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.skipif(os.name != "posix", reason="limits are POSIX's")
def test_a_line_of_metrics_is_whole_or_not_there(tmp_path: Path):
    import resource

    made, record = Run.create(tmp_path / "run"), {"epoch": 1, "note": "x" * 100}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(InputError, match="large"):
            for _ in range(20):
                made.append_metrics(record)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    lines = made.metrics.read_text().splitlines()
    assert 1 < len(lines) < 10
    assert all(json.loads(line) == record for line in lines)
