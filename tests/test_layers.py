"""Imports run one way, and the core knows no concrete family, prior, network or figure."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import subo

ROOT = Path(subo.__file__).parent
CORE = [
    "typing",
    "errors",
    "locks",
    "limits",
    "descriptions",
    "arguments",
    "files",
    "randomness",
    "context",
    "parts",
    "continuous_bernoulli",
    "distributions",
    "sampling",
    "model",
    "bounds",
    "gradients.estimator",
    "gradients.pathwise",
    "gradients.score",
    "gradients.discrete",
    "gradients",
    "objective",
]
BESIDE = [
    "networks",
    "families",
    "location_scale",
    "flows",
    "conditionals",
    "conditioning",
    "priors",
    "linear_gaussian",
]
CONCRETE = {*BESIDE, "figures"}


def name_of(path: Path) -> str:
    """``evaluation.importance`` of its file; a package's own name of its ``__init__``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}


def statements(tree: ast.AST):
    """All nodes that run, hence not those below ``if TYPE_CHECKING``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        yield from statements(node)


def imports(name: str, *, deferred: bool = True) -> set[str]:
    """What a module imports, in full; with or without what only its functions import."""
    found: set[str] = set()
    tree = ast.parse(FILES[name].read_text())
    nodes = list(statements(tree)) if deferred else [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: imports are absolute"
            assert node.module is not None
            found |= {f"{node.module}.{a.name}" for a in node.names} | {node.module}
    return found


def ours(name: str, **options: bool) -> set[str]:
    """The modules of subo that a module imports."""
    return {i.removeprefix("subo.") for i in imports(name, **options)} & set(FILES) - {name, ""}


@pytest.mark.parametrize("name", CORE)
def test_the_core_imports_only_what_is_below_it(name):
    assert ours(name) <= set(CORE[: CORE.index(name)])


@pytest.mark.parametrize("name", [n for n in BESIDE if n != "linear_gaussian"])
def test_what_hangs_beside_the_core_imports_only_what_is_before_it(name):
    assert ours(name) <= {*BESIDE[: BESIDE.index(name)], *CORE[: CORE.index("model")]}


def test_networks_know_nothing_of_probability():
    assert ours("networks") <= {"errors", "arguments"}
    assert not any("distributions" in name for name in imports("networks"))


@pytest.mark.parametrize("name", [name for name in FILES if name.split(".")[0] == "figures"])
def test_figures_draw_arrays_and_import_neither_torch_nor_a_model(name):
    assert not any(i.split(".")[0] == "torch" for i in imports(name))
    assert not ours(name) & {*CORE[CORE.index("context") :], *BESIDE}


def test_imports_have_no_circle():
    modules = {name: ours(name, deferred=False) for name in FILES if name}
    order = list(TopologicalSorter(modules).static_order())  # which raises at a circle
    assert set(order) >= set(modules)


def test_the_check_sees_imports():
    assert "subo.core.bounds" in imports("objective")
    assert "bounds" in ours("objective")
    assert "torch" in imports("model")
