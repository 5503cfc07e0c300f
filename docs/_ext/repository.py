"""What the extensions know about the repository: its files, and the lines of names in them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def definitions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Yield the dotted name and the node of every class, function, method and assigned name."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name, node
            yield from definitions(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from ((prefix + t.id, node) for t in targets if isinstance(t, ast.Name))
        elif isinstance(node, ast.If | ast.Try):
            yield from definitions(node, prefix)


def slug(heading: str) -> str:
    """Anchor of a heading as GitHub makes it: lower case, no punctuation, hyphens for spaces."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@cache
def lines_of(path: Path) -> dict[str, int]:
    """Line of every name of a Python file, of every heading of a Markdown file."""
    text = path.read_text(encoding="utf-8")
    lines: dict[str, int] = {}
    if path.suffix == ".py":
        for name, node in definitions(ast.parse(text)):
            lines.setdefault(name, node.lineno)
    elif path.suffix == ".md":
        for number, line in enumerate(text.splitlines(), 1):
            if line.startswith("#"):
                lines.setdefault(slug(line.lstrip("#")), number)
    return lines


def files_in(folder: Path) -> list[Path]:
    """Text files of a folder that are part of the repository, for its listing."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [path for path in files if path.suffix in {".py", ".md", ".toml", ".json"}]
