"""Imports point one way, ``import midpg_np`` is light, and the mathematics does not know NumPy."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import midpg_np

PACKAGE = Path(midpg_np.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# What a part may import from other parts of the package; parts not listed here are free, as long
# as the table holds for those that are.
ALLOWED = {
    "cublas": set(),
    "backend": {"cublas"},
    "kernels": {"backend", "workspace", "recording"},
    "tree": {"backend"},
    "batch": {"backend"},
    "workspace": {"backend"},
    "recording": {"backend", "workspace"},
    "ops": {"backend", "kernels"},
    "losses": {"backend", "kernels", "ops"},
    "layers": {"backend", "kernels", "tree", "workspace", "ops", "losses"},
    "models": {"backend", "tree", "batch", "workspace", "ops", "losses", "layers"},
    "checks": {"backend", "tree", "batch", "ops", "losses", "layers"},
    "data": {"backend", "batch", "ops"},
    "plots": {"tree", "layers", "checks"},
    "pages": set(),
    "verify": {
        *("tree", "batch", "ops", "losses", "layers", "models", "checks", "training"),
        *("pages", "plots"),
    },
    "training": {
        *("backend", "kernels", "tree", "batch", "workspace", "recording"),
        *("ops", "losses", "layers"),
        "models",
        *("data", "checks", "plots", "pages"),
    },
}
# Imports that wait for a call and may point the other way: the picture of a model's graph asks for
# the model's written-out steps.
WHEN_CALLED = {"plots/graph.py": {"verify"}}
HEAVY = (
    "numba",
    "sklearn",
    "polars",
    "matplotlib",
    "cupy",
    "pandas",
    "torch",
    "jax",
    "typer",
    "rich",
    "scipy",
)
# Files of the mathematics that draw, initialise or sort integers, on the host.
ON_THE_HOST = {"layers/initial.py", "layers/negatives.py", "layers/groups.py"}
HOST_NAMES = {"random.Generator", "random.default_rng", "ndarray"}
INITIAL_VALUES = {"zeros", "ones", "eye"}  # allowed inside ``init``


def name_of(file):
    return file.relative_to(PACKAGE).as_posix()


def part_of(file):
    """First part of a module's path: ``layers`` for layers/mlp.py."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            # ``from midpg_np import ops`` imports midpg_np.ops
            names = [f"midpg_np.{a.name}" for a in node.names] if node.module == "midpg_np" else []
            yield from names or [node.module]


def imported_parts(file):
    modules = imported_modules(ast.parse(file.read_text(encoding="utf-8")))
    return parts_of(modules) - {part_of(file)} - WHEN_CALLED.get(name_of(file), set())


def parts_of(modules):
    parts = {m.split(".")[1] for m in modules if m.startswith("midpg_np.")}
    return {part for part in parts if not part.startswith("__")}


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_point_one_way(file):
    part = part_of(file)
    if part in ALLOWED:
        assert imported_parts(file) <= ALLOWED[part]


def test_parts_do_not_import_each_other_in_circles():
    graph = {}
    for file in FILES:
        graph.setdefault(part_of(file), set()).update(imported_parts(file))
    remaining = {part: needs & graph.keys() for part, needs in graph.items() if part != "__init__"}
    while remaining:
        free = {part for part, needs in remaining.items() if not needs & remaining.keys()}
        assert free, f"a circle among {sorted(remaining)}"
        remaining = {part: needs for part, needs in remaining.items() if part not in free}


@pytest.mark.parametrize("name", WHEN_CALLED)
def test_what_waits_for_a_call_stands_inside_a_function(name):
    tree = ast.parse((PACKAGE / name).read_text(encoding="utf-8"))
    at_top = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    first = parts_of(m for node in at_top for m in imported_modules(node))
    assert WHEN_CALLED[name] <= parts_of(imported_modules(tree)) - first


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_only_the_backend_imports_cupy(file):
    modules = imported_modules(ast.parse(file.read_text(encoding="utf-8")))
    if name_of(file) != "backend.py":
        assert not any(module.split(".")[0] in ("cupy", "cupyx") for module in modules)


def numpy_names(tree):
    """Names used of NumPy, without "np.", and whether inside a function ``init``."""
    inside_init = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef) and function.name == "init"
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            name = ast.unparse(node)
            if name.startswith("np.") and name != "np.random":
                yield name.removeprefix("np."), id(node) in inside_init


MATHEMATICS = [f for f in FILES if part_of(f) in ("ops", "losses", "layers", "models")]


@pytest.mark.parametrize("file", MATHEMATICS, ids=name_of)
def test_the_mathematics_asks_the_array_for_its_namespace(file):
    """NumPy appears in type annotations and initial values only; all else goes through get_xp."""
    if name_of(file) in ON_THE_HOST:
        return
    for name, inside_init in numpy_names(ast.parse(file.read_text(encoding="utf-8"))):
        assert name in HOST_NAMES or (inside_init and name in INITIAL_VALUES), f"np.{name}"


def loaded_by(statement):
    """Top-level modules that a fresh interpreter has loaded after a statement."""
    code = f"import json, sys; {statement}; print(json.dumps(sorted(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    return {name.split(".")[0] for name in json.loads(result.stdout.splitlines()[-1])}


@pytest.mark.parametrize(
    "statement",
    [
        "import midpg_np",
        "import midpg_np.models",
        "import midpg_np.checks.catalogue",
        "import midpg_np.verify.report, midpg_np.verify.torch, midpg_np.verify.jax",
    ],
)
def test_importing_the_mathematics_loads_numpy_and_nothing_heavier(statement):
    assert not loaded_by(statement).intersection(HEAVY)
