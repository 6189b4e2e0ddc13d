"""Files are whole or not there, may be read by whom the umask says, and a crash leaves nothing for ever."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import save_model
from torch import nn

from subo.files.locks import FolderLock
from subo.files.whole import UNFINISHED, replacing, write_text
from subo.runs.run import Run

posix = pytest.mark.skipif(os.name != "posix", reason="umask, locks and links are POSIX's")

KILLED = """
import os, sys
from subo.files.whole import replacing
from subo.files.locks import FolderLock
lock = FolderLock(os.path.dirname(sys.argv[1])).take()
with replacing(sys.argv[1]) as temporary:
    temporary.write_text("half of it")
    os._exit(9)
"""


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@posix
@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_files_have_the_permissions_that_the_umask_gives(tmp_path: Path, umask: int, mode: int):
    run = Run.create(tmp_path / "run")
    before = os.umask(umask)
    try:
        run.save_weights(nn.Linear(2, 2))
        run.save_weights(nn.Linear(2, 2), epoch=1)
        run.save_checkpoint({"step": 1})
        run.write_metrics([{"epoch": 1}])
        with replacing(tmp_path / "other.safetensors") as temporary:
            save_model(nn.Linear(2, 2), str(temporary))  # which makes files that their owner alone can read
    finally:
        os.umask(before)
    files = [run.model, run.weights_after(1), run.checkpoint, run.metrics, tmp_path / "other.safetensors"]
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in files} == {file.name: oct(mode) for file in files}


@posix
def test_what_a_killed_writer_left_is_removed_by_the_next_one(tmp_path: Path):
    """The file that it was to replace is as it was, and the lock that it held is free."""
    write_text(tmp_path / "z.csv", "old")
    assert subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "z.csv")], check=False).returncode == 9
    assert (tmp_path / "z.csv").read_text() == "old"
    assert len(names_in(tmp_path)) == 2
    assert FolderLock(tmp_path).is_free()
    write_text(tmp_path / "other.csv", "new")
    assert names_in(tmp_path) == ["other.csv", "z.csv"]


@posix
def test_a_writer_that_lives_is_not_disturbed_and_what_is_left_beyond_it_is_removed(tmp_path: Path):
    with replacing(tmp_path / "z.csv") as first:
        first.write_text("whole")
        (tmp_path / f"{UNFINISHED}1").mkdir()  # of a second writer, who was killed
        (tmp_path / f"{UNFINISHED}2").mkdir()  # and of a third
        (tmp_path / f"{UNFINISHED}2" / "z.csv").write_text("half of it")
        write_text(tmp_path / "z.csv", "of the fourth")
        assert names_in(tmp_path) == [f"{UNFINISHED}0", "z.csv"]
        assert first.read_text() == "whole"
    assert (tmp_path / "z.csv").read_text() == "whole"
    assert names_in(tmp_path) == ["z.csv"]


@posix
def test_a_link_where_temporary_files_go_is_not_followed(tmp_path: Path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "z.csv").write_text("mine")
    (tmp_path / f"{UNFINISHED}0").symlink_to(elsewhere)
    write_text(tmp_path / "z.csv", "new")
    assert (elsewhere / "z.csv").read_text() == "mine"
    assert (tmp_path / "z.csv").read_text() == "new"


@posix
def test_without_locks_files_are_written_and_nothing_of_others_is_removed(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("subo.files.locks.fcntl", None)
    (tmp_path / f"{UNFINISHED}0").mkdir()
    write_text(tmp_path / "z.csv", "new")
    assert names_in(tmp_path) == [f"{UNFINISHED}0", "z.csv"]


@posix
def test_a_folder_has_one_holder_and_a_moved_one_is_lost(tmp_path: Path):
    (tmp_path / "run").mkdir()
    with FolderLock(tmp_path / "run") as lock:
        with pytest.raises(BlockingIOError):
            FolderLock(tmp_path / "run").take()
        assert not lock.is_lost()
        (tmp_path / "run").rename(tmp_path / "moved")
        assert lock.is_lost()
        (tmp_path / "run").mkdir()
        assert lock.is_lost()
        assert not FolderLock(tmp_path / "moved").is_free()
    assert FolderLock(tmp_path / "moved").is_free()
