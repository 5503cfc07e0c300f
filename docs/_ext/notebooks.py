"""Notebooks of the tutorials: solutions stay hidden there, too.

Sphinx-Gallery turns the text of a tutorial into Markdown but leaves ``.. dropdown::`` as it is; in
a notebook the same is an HTML ``details`` element.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

_DROPDOWN = ".. dropdown:: "
_INDENT = "   "


def hidden(text: str) -> str:
    """Text of a cell with its dropdowns as ``details``, which hold what is indented below them."""
    lines: list[str] = []
    is_open = is_code = False
    for line in text.splitlines():
        is_fence = line.startswith("```")
        if is_open and line and not (is_code or is_fence or line.startswith(_INDENT)):
            lines += ["</details>", ""]
            is_open = False
        if line.startswith(_DROPDOWN):
            lines.append(f"<details><summary>{line.removeprefix(_DROPDOWN)}</summary>")
            is_open = True
        else:
            lines.append(line.removeprefix(_INDENT) if is_open and not is_code else line)
        is_code ^= is_fence
    return "\n".join([*lines, "</details>"] if is_open else lines)


def hide_solutions(app: Sphinx) -> None:
    """Rewrite new notebooks, and the archives that hold them."""
    folder = Path(app.srcdir) / "tutorials"
    is_new = False
    for path in sorted(folder.glob("*.ipynb")):
        text = path.read_text(encoding="utf-8")
        notebook = json.loads(text)
        is_new |= _DROPDOWN in text
        for cell in notebook["cells"]:
            if cell["cell_type"] == "markdown":
                cell["source"] = hidden("".join(cell["source"])).splitlines(keepends=True)
        if _DROPDOWN in text:
            path.write_text(json.dumps(notebook, indent=1) + "\n", encoding="utf-8")
    for path in sorted(folder.glob("*.zip")) if is_new else ():
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in names:
                archive.write(folder / Path(name).name, name)


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the extension, behind Sphinx-Gallery."""
    app.connect("builder-inited", hide_solutions, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
