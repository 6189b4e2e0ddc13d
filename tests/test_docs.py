"""What the documentation shows, run as written."""

import doctest
import importlib
import pkgutil
import re
import shlex
from pathlib import Path

import pytest
import torch

import subo
from shapes import unchecked_shapes

ROOT = Path(__file__).parent.parent
MODULES = ["subo", *(m.name for m in pkgutil.walk_packages(subo.__path__, "subo.") if m.name != "subo.__main__")]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    torch.manual_seed(0)
    failed, _ = doctest.testmod(module, extraglobs={"torch": torch, "nn": torch.nn, "subo": subo})
    assert failed == 0


NAMES = (
    "inference",
    "evaluation",
    "explorer",
    "large-data",
    "performance",
    "runs",
    "scale",
    "structure",
    "layers",
    "tables",
    "time",
)
PAGES = ("README.md", *(f"docs/{name}.md" for name in NAMES))


def blocks(language: str, page: str = "README.md") -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


@pytest.mark.parametrize(("page", "block"), [(page, block) for page in PAGES for block in blocks("python", page)])
@unchecked_shapes()
@pytest.mark.slow
def test_the_pages_python(page: str, block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    exec(compile(block, page, "exec"), {})


@pytest.mark.parametrize("page", PAGES)
def test_the_pages_shell_lines_name_commands_and_options_that_exist(page: str):
    from subo.cli.app import make_app, recipe_of

    text = "\n".join(blocks("sh", page)).replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.startswith((".venv/bin/subo", "subo "))]
    assert lines
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        make_app(recipe_of(words)).parse_args(words, exit_on_error=False, print_error=False)


def test_ten_lines_of_python_are_ten_lines():
    assert len([line for line in blocks("python")[1].splitlines() if line.strip()]) == 10
