"""What the library's messages put between backquotes is a flag where the command line says it."""

import ast
import inspect
import re

import pytest

from subo.cli.app import COMMANDS
from subo.cli.flags import in_flags
from subo.cli.options import fit_signature
from subo.recipes import RECIPES
from test_layers import FILES

IN_PYTHON = {
    *("drop_last", "fabric", "index", "steps_per_epoch", "validation"),
    *("decoder_plane", "reconstructions", "calibration_fraction", "contamination", "false_alarm_rate"),
}
"""Names in messages that no command can cause."""


def strings(tree: ast.AST):
    """All texts of a module but docstrings."""
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
            yield node.value


def names_in_messages() -> set[str]:
    library = [path for name, path in FILES.items() if not name.startswith("cli")]
    texts = (text for path in library for text in strings(ast.parse(path.read_text())))
    return {name for text in texts for name in re.findall(r"`([a-z_]+)[=`]", text)}


def flags() -> set[str]:
    commands = [parameter for command in COMMANDS for parameter in inspect.signature(command).parameters]
    return {*commands, *(name for recipe in RECIPES for name in fit_signature(recipe).parameters)}


def test_every_parameter_in_a_message_is_a_flag():
    assert names_in_messages() - {"run_dir"} - IN_PYTHON <= flags()
    assert names_in_messages() >= IN_PYTHON


@pytest.mark.parametrize("name", sorted(names_in_messages() - IN_PYTHON - {"accept_changes"}))
def test_it_is_written_as_it_is_typed(name: str):
    flag = in_flags(f"Give `{name}`.").removeprefix("Give ").removesuffix(".")
    assert flag.removeprefix("--").replace("-", "_") in flags()
