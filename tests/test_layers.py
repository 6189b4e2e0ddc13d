"""Packages import one way, deferred imports counted; only the command line prints and knows flags."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import subo

ROOT = Path(subo.__file__).parent
ORDER = (
    "errors",
    "typing",
    "once",
    "runtime",
    "distributions",
    "files",
    "core",
    "figures",
    "data",
    "parts",
    "gradients",
    "models",
    "inference",
    "recipes",
    "runs",
    "evaluation",
    "training",
    "sklearn",
    "report",
    "plot",
    "experiments",
    "explorer",
    "public",
    "cli",
)


def name_of(path: Path) -> str:
    """``evaluation.gaps`` of its file; a package's own name of its ``__init__``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}
INSIDE = [name for name in FILES if name not in ("", "__main__")]


def statements(tree: ast.AST):
    """All nodes that run, in functions too; hence not those below ``if TYPE_CHECKING``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        yield from statements(node)


def imports(name: str) -> set[str]:
    """What a module imports, in full, wherever it does."""
    found: set[str] = set()
    for node in statements(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: imports are absolute"
            assert node.module is not None
            found |= {f"{node.module}.{a.name}" for a in node.names} | {node.module}
    return found


def ours(name: str) -> set[str]:
    """The modules of subo that a module imports."""
    return {i.removeprefix("subo.") for i in imports(name)} & set(FILES) - {name, ""}


@pytest.mark.parametrize("name", INSIDE)
def test_a_package_imports_only_packages_before_it(name: str):
    own = name.split(".")[0]
    above = ORDER[ORDER.index(own) + 1 :]
    assert not {i for i in ours(name) if i.split(".")[0] in above}


def test_imports_have_no_circle():
    """Faces of packages import their modules; a module imports no face that imports it."""
    order = list(TopologicalSorter({name: ours(name) for name in INSIDE}).static_order())  # which raises at a circle
    assert set(order) >= set(INSIDE)


def test_the_check_sees_imports():
    assert "subo.core.bounds" in imports("core.objective")
    assert "core.bounds" in ours("core.objective")
    assert "torch" in imports("models.vae")
    assert any(i.startswith("evaluation") for i in ours("cli.score"))  # imported within a function


@pytest.mark.parametrize("name", [name for name in INSIDE if name.split(".")[0] == "figures"])
def test_figures_draw_arrays_and_import_neither_torch_nor_a_model(name: str):
    assert not any(i.split(".")[0] == "torch" for i in imports(name))
    assert {i.split(".")[0] for i in ours(name)} <= {"figures", "errors", "typing", "runtime", "files"}


def test_networks_know_nothing_of_probability():
    assert ours("parts.networks") <= {"errors", "runtime.arguments"}
    assert not any("distributions" in name for name in imports("parts.networks"))


@pytest.mark.parametrize("name", [name for name in INSIDE if name != "files.tables"])
def test_tables_are_written_in_one_place(name: str):
    called = {node.attr for node in statements(ast.parse(FILES[name].read_text())) if isinstance(node, ast.Attribute)}
    assert not called & {"DictWriter", "writerow", "writerows", "to_csv", "savetxt"}


def strings(name: str) -> list[str]:
    """The texts in a module's code, without docstrings."""
    tree = ast.parse(FILES[name].read_text())
    documentation = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation
    ]


LIBRARY = [name for name in INSIDE if name.split(".")[0] != "cli"]


@pytest.mark.parametrize("name", LIBRARY)
def test_only_the_command_line_prints(name: str):
    calls = [node.func for node in ast.walk(ast.parse(FILES[name].read_text())) if isinstance(node, ast.Call)]
    assert not [call for call in calls if isinstance(call, ast.Name) and call.id == "print"]


@pytest.mark.parametrize("name", LIBRARY)
def test_only_the_command_line_knows_flags(name: str):
    flags = [
        text for text in strings(name) if re.search(r"(?<![\w-])--[a-z][a-z-]+|\bsubo (fit|evaluate|show)\b", text)
    ]
    assert not flags
