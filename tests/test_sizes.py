"""A function fits on a screen, a signature in the head, and a file is one page."""

import ast
from pathlib import Path

import pytest

import subo

ROOT = Path(subo.__file__).parent
FILES = {path.relative_to(ROOT).as_posix(): path for path in sorted(ROOT.rglob("*.py"))}
LINES, PARAMETERS, FILE_LINES = 80, 12, 350

FLAT = {
    ("training/fitting.py", "fit"),  # all settings of a training, as flags and notebooks name them
    ("sklearn/estimator.py", "VariationalAutoencoder.__init__"),  # scikit-learn clones it by flat parameters
}
"""Functions whose many parameters are wanted; of their length the docstring does not count."""


def functions(tree: ast.AST, within: str = ""):
    """Each function with its name, which a class's name precedes."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield within + node.name, node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from functions(node, f"{within}{node.name}.")


def length(function: ast.FunctionDef | ast.AsyncFunctionDef, *, docstring: bool = True) -> int:
    first = function.body[0]
    documented = ast.get_docstring(function) is not None and not docstring
    assert function.end_lineno is not None
    assert first.end_lineno is not None
    return function.end_lineno - function.lineno + 1 - documented * (first.end_lineno - first.lineno + 1)


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef, *, method: bool) -> int:
    given = function.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    own = method and [a.arg for a in (*given.posonlyargs, *given.args)][:1] in (["self"], ["cls"])
    return len([argument for argument in named if argument is not None]) - own


@pytest.mark.parametrize("name", FILES)
def test_functions_and_files_are_short(name: str):
    text = FILES[name].read_text()
    assert text.count("\n") <= FILE_LINES
    for function, node in functions(ast.parse(text)):
        flat = (name, function) in FLAT
        assert length(node, docstring=not flat) <= LINES, function
        assert parameters(node, method="." in function) <= PARAMETERS or flat, function


def test_the_exceptions_exist():
    for name, function in FLAT:
        found = [known for known, _ in functions(ast.parse(FILES[name].read_text()))]
        assert function in found


def test_lengths_and_parameters_are_counted():
    source = "class A:\n    def f(self, a, *b, c=1, **d):\n        '''Two\n        lines.'''\n        return a\n"
    ((name, node),) = functions(ast.parse(source))
    assert (name, length(node), length(node, docstring=False), parameters(node, method=True)) == ("A.f", 4, 2, 4)
