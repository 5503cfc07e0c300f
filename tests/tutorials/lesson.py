"""A tutorial taken apart without running it, and what its form lacks."""

import ast
import importlib
import re
import sys
import textwrap
from functools import cached_property
from importlib.util import find_spec
from types import ModuleType

NUMBER = r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[-+]?\d+)?"
PRINTED = re.compile(rf"(?<![\w.]){NUMBER}(?!\d)")
QUOTED = re.compile(rf"``({NUMBER})(?: ?[%A-Za-z]+)?``")  # a unit may follow
SMALL = 20  # whole numbers up to here count things in the text and need no witness
SOLUTION = re.compile(r"^\.\. dropdown:: Solution (\d+)\n((?: +.*\n|\n)*)", re.M)
CODE = re.compile(r"^( +)\.\. code-block:: python\n((?:\1 +.*\n|\n)*)", re.M)
LIBRARIES = {"midpg_np", "numpy", "sklearn"}


class Lesson:
    """Text, code and exercises of a tutorial in percent format."""

    def __init__(self, source):
        self.tree = ast.parse(source)
        cells = [ast.get_docstring(self.tree) or ""]
        for cell in re.split(r"^# %%.*\n", source, flags=re.M)[1:]:
            comment = re.match(r"(?:#.*\n)*", cell)[0]
            cells.append(re.sub(r"^# ?", "", comment, flags=re.M))
        self.text = "\n\n".join(cells) + "\n"

    @cached_property
    def solutions(self):
        """Code of each solution, by the number of its exercise."""
        return {
            int(number): "\n".join(textwrap.dedent(code) for _, code in CODE.findall(body))
            for number, body in SOLUTION.findall(self.text)
        }

    @cached_property
    def trees(self):
        return [self.tree, *map(ast.parse, self.solutions.values())]

    @property
    def nodes(self):
        return (node for tree in self.trees for node in ast.walk(tree))

    @property
    def figures(self):
        """Names under which figures are shown."""
        calls = (node for node in self.nodes if is_call(node, "show") and len(node.args) == 2)
        return {call.args[1].value for call in calls}

    def unproven_numbers(self, printed):
        """Numbers of the text that are neither printed nor part of an assertion."""
        witnesses = {number.lstrip("+") for number in PRINTED.findall(printed)}
        claims = [node for node in self.nodes if proves(node)]
        inside = (part for claim in claims for part in ast.walk(claim))
        values = {part.value for part in inside if is_number(part)}
        return sorted(
            number
            for number in set(QUOTED.findall(self.text))
            if needs_witness(number)
            and number.lstrip("+") not in witnesses
            and abs(value_of(number)) not in values
        )

    def complaints(self, extra=()):
        """What the form lacks, a sentence each; ``extra`` libraries may be imported."""
        found = [*self._title(), *self._exercises()]
        found += [f"imports {name}" for name in sorted(self._roots() - LIBRARIES - set(extra))]
        for module in self._package_modules():
            shared = self._defined() & exports(module)
            found += [f"defines {name}, an export of {module}" for name in sorted(shared)]
        return found

    def _title(self):
        title, rule, *_ = [*(ast.get_docstring(self.tree) or "").splitlines(), "", ""]
        if not title or set(rule) != {"="} or len(rule) < len(title):
            yield "the docstring has no title underlined with ="

    def _exercises(self):
        exercises = [int(number) for number in re.findall(r"^\*\*(\d+)\.\*\*", self.text, re.M)]
        for name, numbers in (("exercises", exercises), ("solutions", [*self.solutions])):
            if numbers != [1, 2, 3]:
                yield f"the {name} are {numbers}"
        for number, code in self.solutions.items():
            if not any(proves(node) for node in ast.walk(ast.parse(code))):
                yield f"solution {number} proves nothing"

    def _imports(self):
        """Module, name imported from it (or None) and name bound, of every import."""
        for node in self.nodes:
            if isinstance(node, ast.Import):
                yield from ((a.name, None, a.asname or a.name) for a in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield from ((node.module, a.name, a.asname or a.name) for a in node.names)

    def _roots(self):
        roots = {module.split(".")[0] for module, _, _ in self._imports()}
        return roots - sys.stdlib_module_names

    def _package_modules(self):
        """Modules of the package that are imported, or imported from."""
        modules = {"midpg_np"}
        for module, name, _ in self._imports():
            if module.split(".")[0] == "midpg_np":
                modules.add(module)
                modules |= {f"{module}.{name}"} if is_module(f"{module}.{name}") else set()
        return sorted(modules)

    def _defined(self):
        foreign = {b for module, _, b in self._imports() if not module.startswith("midpg_np")}
        return foreign | {name for node in self.nodes for name in defined_by(node)}


def is_call(node, name):
    return isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == name


def proves(node):
    return isinstance(node, ast.Assert) or is_call(node, "expect_close")


def is_number(node):
    return isinstance(node, ast.Constant) and type(node.value) in (int, float)


def value_of(number):
    return float(number.replace(",", ""))


def needs_witness(number):
    return "." in number or "e" in number or abs(value_of(number)) > SMALL


def defined_by(node):
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.arg):
        return [node.arg]
    return [node.id] if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else []


def is_module(name):
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # its parent is no package
        return False


def exports(name):
    """Public names of a module: its ``__all__``, or what is defined in it."""
    module = importlib.import_module(name)
    if hasattr(module, "__all__"):
        return set(module.__all__)
    return {
        key
        for key, value in vars(module).items()
        if not key.startswith("_")
        and not isinstance(value, ModuleType)
        and getattr(value, "__module__", name) == name
    }
