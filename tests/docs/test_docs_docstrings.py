"""Docstrings of what is public: a first line, the shapes of arrays, and what is raised.

Public is what docs/api shows and what a package exports.  The syntax tree is read, so that files
whose libraries are missing are read as well.
"""

import ast
import importlib
import re
from functools import cache

import pytest
from book import PACKAGE, ROOT

import midpg_np

API = "".join(path.read_text() for path in sorted((ROOT / "docs" / "api").glob("*.rst")))
MODULES = sorted(set(re.findall(r"automodule:: (\S+)", API)))
SINGLE = re.findall(r"auto(?:class|function|exception):: (\S+)", API)
PACKAGES = ["midpg_np", *(f"midpg_np.{name}" for name in ("checks", "data", "models", "plots"))]
ARRAY = re.compile(r"(?:np\.nd|A)rray(?: \| None)?")
AXES = r"\((?:\.{3}|\.|\w[\w*+ ]*)(?:, [^()]*|,)\)"
SHAPE = re.compile(rf"{AXES}|same shape|any shape|entry by entry", re.I)
# What all models take, and their halves: told once, in ``midpg_np.models.protocol.Model``.
OF_THE_PROTOCOL = set(
    "params rng batch draws frozen d_output cache workspace inputs d_inputs contexts".split()
)


@cache
def tree(module):
    path = PACKAGE.joinpath(*module.split(".")[1:])
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text())


def is_public(node):
    return isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_")


def home(path):
    """Module and name of what a path such as ``midpg_np.fit`` leads to; None for a constant."""
    module, _, name = path.rpartition(".")
    if module == "midpg_np":  # it imports names when they are first used
        module = midpg_np._MODULE_OF.get(name, module)
    for node in tree(module).body:
        if is_public(node) and node.name == name:
            return module, name
        if isinstance(node, ast.ImportFrom) and name in {alias.name for alias in node.names}:
            return home(f"{node.module}.{name}")
    return None


@cache
def exported():
    """Module and name of what the packages export."""
    names = ((package, importlib.import_module(package).__all__) for package in PACKAGES)
    return {home(f"{package}.{name}") for package, exports in names for name in exports} - {None}


@cache
def definitions():
    """Every public function, class and method: its path and its node."""
    public = exported() | {home(path) for path in SINGLE}
    public |= {(module, node.name) for module in MODULES for node in tree(module).body
               if is_public(node)}  # fmt: skip
    found = {}
    for module, name in sorted(public):
        (node,) = (node for node in tree(module).body if getattr(node, "name", "") == name)
        methods = node.body if isinstance(node, ast.ClassDef) else []
        found[f"{module}.{name}"] = node
        found |= {f"{module}.{name}.{m.name}": m for m in methods if is_public(m)}
    return found


def parameters(node):
    """Names and annotations of the arguments of a function; of a class, those of its fields."""
    if isinstance(node, ast.FunctionDef):
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        named = {x.arg: x.annotation for x in arguments if x.arg not in ("self", "cls")}
    else:
        fields = [x for x in node.body if isinstance(x, ast.AnnAssign)]
        named = {x.target.id: x.annotation for x in fields if x.target.id[0].islower()}
    return {name: ast.unparse(kind) if kind else "" for name, kind in named.items()}


def raised(node):
    """Exceptions that a function raises itself, or a class when it is made."""
    made = ("__init__", "__new__", "__post_init__")
    bodies = node.body if isinstance(node, ast.ClassDef) else [node]
    if isinstance(node, ast.ClassDef):
        bodies = [method for method in bodies if getattr(method, "name", "") in made]
    inside = (part for body in bodies for part in ast.walk(body))
    errors = (part.exc for part in inside if isinstance(part, ast.Raise) and part.exc)
    return {ast.unparse(getattr(error, "func", error)) for error in errors}


def complaints(node):
    """What the docstring of a definition lacks."""
    text = ast.get_docstring(node) or ""
    if not text:
        return ["has no docstring"]
    section = re.search(r"^Raises\n-{6}\n((?:.+\n?)*)", text, re.M)
    found = raised(node) - set(re.findall(r"^(\w+)$", section[1] if section else "", re.M))
    lacks = [f"Raises lacks {name}" for name in sorted(found)]
    if isinstance(node, ast.FunctionDef) and not node.name.endswith("backward"):
        arrays = [n for n, kind in parameters(node).items() if ARRAY.fullmatch(kind)]
        given = [name for name in arrays if not re.match(r"out$|scratch$|d_|d[A-Z]|d[a-z]$", name)]
        if given and "Shapes\n------" not in text and not SHAPE.search(text):
            lacks.append(f"no shapes of {', '.join(given)}")
    return lacks


def unnamed(node):
    """Parameters that a docstring does not name, but those that all layers and models take."""
    text = ast.get_docstring(node) or ""
    taken = parameters(node).keys() - OF_THE_PROTOCOL
    return {name for name in taken if not re.search(rf"\b{name}\b", text)}


def test_docstrings():
    lacking = {path: complaints(node) for path, node in definitions().items()}
    assert len(lacking) > 700
    assert {path: lacks for path, lacks in lacking.items() if lacks} == {}


def test_parameters_of_what_the_packages_export():
    of_packages = {".".join(pair) for pair in exported()}
    missing = {
        path: unnamed(node)
        for path, node in definitions().items()
        if of_packages & {path, path.rpartition(".")[0]}
    }
    assert {path: names for path, names in missing.items() if names} == {}


@pytest.mark.parametrize(
    ("text", "lacks"),
    [
        ("First line.", ["Raises lacks ValueError", "no shapes of x"]),
        ("From ValueError (B, d).", ["Raises lacks ValueError"]),
        ("x, any shape.\n\nRaises\n------\nTypeError\n    If.", ["Raises lacks ValueError"]),
        ("(groups) of x.\n\nRaises\n------\nValueError\n    If.", ["no shapes of x"]),
        ("x.\n\nShapes\n------\nx : (B,)\n\nRaises\n------\nValueError\n    If.", []),
    ],
)
def test_what_is_missing_is_found(text, lacks):
    source = f"def f(x: Array, dy: Array, name):\n    {text!r}\n    raise ValueError('no')"
    (node,) = ast.parse(source).body
    assert complaints(node) == lacks
    assert unnamed(node) == {"dy", "name"} | (set() if "x" in text.split("\n")[0] else {"x"})
