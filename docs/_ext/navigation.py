"""The tree of the site, in one place.

``site_tree`` maps a page to the pages below it.  A hidden toctree is appended to the page when it
is read, so that the Markdown files hold nothing that GitHub would show as code.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx


def append_toctree(app: Sphinx, docname: str, source: list[str]) -> None:
    """Append the pages below a page."""
    below = app.config.site_tree.get(docname)
    if below is None:
        return
    lines = [":hidden:", *([":glob:"] if any("*" in page for page in below) else []), "", *below]
    if app.env.doc2path(docname).suffix == ".md":
        source[0] += "\n\n```{toctree}\n" + "\n".join(lines) + "\n```\n"
    else:
        source[0] += "\n\n.. toctree::\n" + "".join(f"   {line}\n" for line in lines)


def copy_pages(app: Sphinx, error: Exception | None) -> None:
    """Copy folders that are pages of their own."""
    if error is None and app.builder.format == "html":
        for folder in app.config.site_folders:
            copied = Path(app.outdir) / folder
            shutil.copytree(Path(app.srcdir) / folder, copied, dirs_exist_ok=True)


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the extension."""
    app.add_config_value("site_tree", {}, "env", dict)
    app.add_config_value("site_folders", [], "html", list)
    app.connect("source-read", append_toctree)
    app.connect("build-finished", copy_pages)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
