"""The run directory: whole files or none, and clear words for what is wrong."""

import errno
import json
import resource
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import subo
from subo import InputError
from subo.files.whole import read_json, replacing, write_json
from subo.runs.config import RunConfig
from subo.runs.older import SINCE
from subo.runs.run import Run

OLD_RUNS = Path(__file__).parents[1] / "runs-of-0.1"


def test_a_crash_while_writing_leaves_the_old_file_and_no_other(tmp_path: Path):
    write_json(tmp_path / "a.json", {"old": 1})
    with pytest.raises(RuntimeError), replacing(tmp_path / "a.json") as temporary:
        temporary.write_text("half of")
        raise RuntimeError
    assert read_json(tmp_path / "a.json") == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_temporary_file_keeps_the_ending_that_writers_choose_their_format_by(tmp_path: Path):
    with replacing(tmp_path / "a.png") as temporary:
        assert temporary.suffix == ".png"
        temporary.write_bytes(b"x")
    assert (tmp_path / "a.png").read_bytes() == b"x"


def test_writing_nowhere_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="cannot write .*No such file"):
        write_json(tmp_path / "missing" / "a.json", 1)


def test_json_has_no_nan_and_broken_json_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "a.json", float("nan"))
    (tmp_path / "b.json").write_text('{"a": ')
    with pytest.raises(InputError, match=r"b\.json is not JSON"):
        read_json(tmp_path / "b.json")


def test_create_refuses_what_it_would_destroy(tmp_path: Path):
    run = Run.create(tmp_path / "run")
    run.write_config({"a": 1})
    with pytest.raises(InputError, match="already contains a run.*`resume`.*`overwrite`"):
        Run.create(run.path)
    run.save_checkpoint({"step": 1})
    Run.create(run.path, overwrite=True)
    assert not run.config.exists()
    assert not run.checkpoint.exists()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("dear")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="not a subo run"):
            Run.create(tmp_path / "thesis", overwrite=overwrite)
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "dear"
    with pytest.raises(InputError, match="is a file"):
        Run.create(tmp_path / "thesis" / "chapter.tex")


def test_overwriting_removes_files_of_a_run_only(tmp_path: Path):
    run = Run.create(tmp_path / "run")
    run.write_config({})
    (run.path / "notes.txt").write_text("mine")
    Run.create(run.path, overwrite=True)
    assert (run.path / "notes.txt").read_text() == "mine"


def test_open_says_what_is_missing(tmp_path: Path):
    with pytest.raises(InputError, match="there is no run folder"):
        Run.open(tmp_path / "none")
    with pytest.raises(InputError, match=r"no config\.json"):
        Run.open(tmp_path)
    run = Run.create(tmp_path / "run")
    run.write_config({})
    with pytest.raises(InputError, match=r"not finished.*`resume`"):
        Run.open(run.path)
    assert Run.open(run.path, finished=False) == run


def test_weights_come_back_and_damaged_or_foreign_ones_do_not(tmp_path: Path):
    run, module = Run.create(tmp_path / "run"), nn.Linear(3, 2)
    run.save_weights(module)
    other = nn.Linear(3, 2)
    run.load_weights(other)
    assert torch.equal(module.weight, other.weight)
    with pytest.raises(InputError, match="weights of a different model"):
        run.load_weights(nn.Linear(4, 2))
    whole = run.model.read_bytes()
    for damaged in (whole[:40], b"", b"PK\x03\x04 something else entirely"):
        run.model.write_bytes(damaged)
        with pytest.raises(InputError, match="not a readable safetensors file"):
            run.load_weights(other)


def test_shared_modules_are_saved_once_and_come_back_shared(tmp_path: Path):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(2, 2)
            self.b = self.a

    run, module, other = Run.create(tmp_path / "run"), Twice(), Twice()
    run.save_weights(module)
    run.load_weights(other)
    assert torch.equal(other.b.weight, module.a.weight)
    assert other.a is other.b


def test_checkpoints_hold_no_code(tmp_path: Path):
    run = Run.create(tmp_path / "run")
    with pytest.raises(InputError, match="no checkpoint to resume from"):
        run.load_checkpoint()
    run.save_checkpoint({"tensor": torch.ones(2), "numbers": [1, 2.5, None, "a"]})
    assert run.load_checkpoint()["numbers"] == [1, 2.5, None, "a"]
    torch.save({"module": nn.Linear(1, 1)}, run.checkpoint)
    with pytest.raises(InputError, match="not a readable checkpoint"):
        run.load_checkpoint()
    run.checkpoint.write_bytes(b"broken")
    with pytest.raises(InputError, match="not a readable checkpoint"):
        run.load_checkpoint()


def test_metrics_are_lines(tmp_path: Path):
    measured = dict.fromkeys(("bound", "elbo", "rate", "distortion"), 1.0)
    first, second = ({"epoch": i, "step": i, "seconds": 0.5, "train": measured, "validation": None} for i in (1, 2))
    run = Run.create(tmp_path / "run")
    assert run.read_metrics() == []
    run.append_metrics(first)
    run.append_metrics(second)
    assert run.read_metrics() == [first, second]
    run.write_metrics([first])
    assert run.read_metrics() == [first]


def test_a_system_that_gives_no_more_files_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("subo.files.locks.FolderLock.take", refuse)
    with pytest.raises(InputError, match=r"cannot write .*a\.json: Too many open files.*ulimit"):
        write_json(tmp_path / "a.json", 1)
    assert list(tmp_path.iterdir()) == []


def test_an_epoch_that_a_full_disk_refuses_is_told_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = Run.create(tmp_path / "run")
    run.append_metrics({"epoch": 1})
    monkeypatch.setattr("json.dumps", lambda *_, **__: "x" * 3_000_000)  # more than the limit below
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(InputError, match=r"cannot write .*metrics\.jsonl: "):
            run.append_metrics({"epoch": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert run.metrics.read_text().count("\n") == 1


@pytest.mark.parametrize("old", sorted(OLD_RUNS.iterdir()), ids=lambda path: path.name)
def test_a_config_is_written_as_it_is_read(old: Path):
    config = RunConfig.from_json(read_json(old / "config.json"), where=old.name)
    written = json.loads(json.dumps(config.as_json()))
    again = RunConfig.from_json(written, where=old.name)
    assert again.as_json() == config.as_json()
    assert (again.data, again.options, again.device) == (config.data, config.options, config.device)
    assert "auto" not in config.options.values()
    for section in ("data", "training", "options", "device"):
        broken = {**written, section: {**written[section], "of_tomorrow": 1}}
        with pytest.raises(InputError, match=rf"config.json: {section} has of_tomorrow, which this version"):
            RunConfig.from_json(broken, where="config.json")


CONFIG = RunConfig.from_json(read_json(OLD_RUNS / "grey" / "config.json"), where="config.json").as_json()


def refusal(config: dict[str, Any]) -> str:
    """The message with which a config is refused."""
    with pytest.raises(InputError, match=r"^config\.json") as refused:
        RunConfig.from_json(config, where="config.json")
    return str(refused.value)


@pytest.mark.parametrize("name", [*CONFIG["data"], *CONFIG["training"]])
def test_a_config_without_a_name_that_it_needs_is_refused(name: str):
    section = "data" if name in CONFIG["data"] else "training"
    rest = {known: value for known, value in CONFIG[section].items() if known != name}
    if name in (
        *SINCE["data"],
        *SINCE["training"],
        "meaning",
        "binarization",
    ):  # which older runs do not say, or in other words
        assert RunConfig.from_json({**CONFIG, section: rest}, where="config.json")
    else:
        assert name in refusal({**CONFIG, section: rest})


@pytest.mark.parametrize(
    "options", [{"gradient": "nope"}, {"posterior": ["gaussian"]}, {"prior": {}}, {"latent_dim": "five"}]
)
def test_a_config_of_options_that_cannot_be_is_refused(options: dict[str, Any]):
    assert f"{next(iter(options))} must be" in refusal({**CONFIG, "options": options})
    with pytest.raises(InputError, match=f"{next(iter(options))} must be"):
        subo.make("vae", torch.rand(9, 3), **options)


@pytest.mark.parametrize("meaning", ["grey", [], {}, {"kind": "grey"}, {**CONFIG["data"]["meaning"], "more": 1}])
def test_a_config_whose_data_mean_nothing_is_refused(meaning: Any):
    assert "meaning" in refusal({**CONFIG, "data": {**CONFIG["data"], "meaning": meaning}})


@pytest.mark.parametrize("levels", ["x", None, []])
def test_a_config_of_levels_that_are_no_number_is_refused(levels: Any):
    data = {name: value for name, value in CONFIG["data"].items() if name != "meaning"}
    assert "levels" in refusal({**CONFIG, "data": {**data, "levels": levels}})
