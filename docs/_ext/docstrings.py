"""Docstrings with plain-text mathematics as reStructuredText.

Docstrings write "S = psi(Q) * W" and "dQ_r,c": asterisks, bars and underscores mean themselves
and must not start emphasis or a reference.  Code in double backticks stays code, an indented
block becomes a block of code, and "Shapes" becomes a list; the other sections are napoleon's.
"""

from __future__ import annotations

import inspect
import re
import sys
from typing import Any, ForwardRef

from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config, NumpyDocstring

from midpg_np import backend, tree

NAPOLEON = Config(napoleon_use_param=False, napoleon_use_rtype=False, napoleon_use_ivar=True)
_SECTION = re.compile(r"^(\S.*)\n(-{3,})$", re.M)
_LITERAL = re.compile(r"(``.+?``)", re.S)
_MARKUP = re.compile(r"([\\*|`])|(?<=\w)(_)(?!\w)")
_EMPTY_CELL = re.compile(r"(?<=  )-$", re.M)
_BLOCK = re.compile(r"(?<=\n\n)((?: {4}.*\n|\n)*(?: {4}.*\n))(?=\n|\Z)")


def escape(text: str) -> str:
    """Let everything but code in double backticks mean itself."""
    pieces = _LITERAL.split(text)
    pieces[::2] = [_MARKUP.sub(r"\\\g<0>", piece) for piece in pieces[::2]]
    return _EMPTY_CELL.sub(r"\\-", "".join(pieces))


def prose(text: str) -> str:
    """Escape paragraphs and lists; indented blocks are shown as they are."""
    pieces = _BLOCK.split(text)
    pieces[::2] = [escape(piece) for piece in pieces[::2]]
    pieces[1::2] = [f"::\n\n{piece}" for piece in pieces[1::2]]
    return "".join(pieces)


def shapes(text: str) -> str:
    """Body of a section "Shapes" as a field with a list: name, shape, what it is."""
    items: list[str] = []
    for line in text.strip("\n").splitlines():
        head = re.match(r"(\S.*?) : (.*)$", line)
        if head:
            items.append(f"- ``{head[1]}`` : ``{head[2]}``")
        elif line.strip():
            items.append("  " + escape(line.strip()))
        else:
            items.append("")
    return ":Shapes:\n" + "".join(f"    {line}\n" if line else "\n" for line in items)


def as_rest(text: str) -> str:
    """Docstring as reStructuredText with numpydoc sections."""
    first, *rest = _SECTION.split(text)
    parts = [prose(first)]
    for name, rule, body in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
        parts.append(shapes(body) if name == "Shapes" else f"{name}\n{rule}{escape(body)}")
    return "\n".join(parts)


def process(app: Sphinx, what: str, name: str, item: Any, options: Any, lines: list[str]) -> None:
    """Rewrite the lines of a docstring; a dictionary has none but Python's own.

    Napoleon would read "Rows: those of a batch" of a property as its type and its text; as the
    docstring of a method it is left alone.
    """
    if what == "data" and "\n".join(lines).strip() == inspect.getdoc(type(item)):
        lines.clear()
    kind = "method" if what in {"attribute", "data", "property"} else what
    text = as_rest("\n".join(lines) + "\n")
    lines[:] = NumpyDocstring(text, NAPOLEON, app, kind, name, item, options).lines()


def skip(app: Sphinx, what: str, name: str, item: Any, skipped: bool, options: Any) -> bool | None:
    """Leave out fields of named tuples: they have no docstring but Python's own."""
    if inspect.isclass(item) and hasattr(item, "_fields"):
        evaluate(item)
    return True if type(item).__name__ == "_tuplegetter" else None


def evaluate(kind: type) -> None:
    """Let the annotations of a named tuple be those of its own module, where names are unique."""
    names = vars(sys.modules[kind.__module__])
    hints = kind.__new__.__annotations__
    for field, hint in hints.items():
        if isinstance(hint, ForwardRef):
            hints[field] = eval(hint.__forward_arg__, dict(names))


def name_aliases() -> None:
    """Let signatures say "Array" and "Tree"; to be called before other modules import these."""
    for module, name in ((backend, "Array"), (tree, "Tree")):
        setattr(module, name, type(name, (), {"__module__": "builtins"}))


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the hooks."""
    name_aliases()
    app.connect("autodoc-process-docstring", process)
    app.connect("autodoc-skip-member", skip)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
