"""What the documentation shows, run as written."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest
import torch

import subo

ROOT = Path(__file__).parent.parent
MODULES = ["subo", *(m.name for m in pkgutil.walk_packages(subo.__path__, "subo.") if m.name != "subo.__main__")]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    torch.manual_seed(0)
    failed, _ = doctest.testmod(module, extraglobs={"torch": torch, "nn": torch.nn, "subo": subo})
    assert failed == 0


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("block", blocks("python"))
def test_the_readmes_python(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    exec(compile(block, "README.md", "exec"), {})


def test_the_readmes_shell_lines_name_commands_and_options_that_exist():
    from subo.cli import make_app

    app = make_app()
    lines = [line for block in blocks("sh") for line in block.splitlines() if ".venv/bin/subo" in line]
    assert lines
    for line in lines:
        words = line.split("#")[0].replace(".venv/bin/subo", "").split()
        app.parse_args(words, exit_on_error=False, print_error=False)


def test_ten_lines_of_python_are_ten_lines():
    assert len([line for line in blocks("python")[0].splitlines() if line.strip()]) == 10
