"""Pages of the tutorials: their numbers, the list of them, and what could not run.

Sphinx-Gallery makes a page of every script.  Here its title gets the script's number, since texts
say "tutorial 05"; such words become links; and the list of all says what each is about.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from repository import ROOT
from sphinx.application import Sphinx
from text_links import link_text

_PAGE = re.compile(r"tutorials/(\d\d)_\w+$")
_TITLE = re.compile(r"^(\S.*)\n(=+)$", re.M)
_MENTION = re.compile(r"\b[Tt]utorials?\s+(\d\d(?:(?:,\s+|\s+and\s+|,\s+and\s+|\s+to\s+)\d\d)*)\b")
_GALLERY = re.compile(r"\n\n\.\. raw:: html\n\n  <div id='sg-tag-list'.*", re.S)


def pages() -> dict[str, str]:
    """Page of every tutorial by its number."""
    return {p.stem[:2]: f"tutorials/{p.stem}" for p in ROOT.glob("tutorials/[0-9][0-9]_*.py")}


def number_title(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the number of a tutorial before its title, and say why it did not run."""
    page = _PAGE.match(docname)
    if page is None:
        return
    title = _TITLE.search(source[0])
    needs = app.config.tutorials_not_run.get(docname.removeprefix("tutorials/"))
    note = (
        f"\n\n.. note::\n\n   Not run here: it needs {needs}, which was missing." if needs else ""
    )
    head = f"{page[1]}. {title[1]}\n{title[2]}===={note}"
    source[0] = source[0][: title.start()] + head + source[0][title.end() :]


def list_tutorials(app: Sphinx, docname: str, source: list[str]) -> None:
    """Replace the gallery of small pictures by a list that can be read."""
    if docname == "tutorials/index":
        entries = "".join(entry(page) for _, page in sorted(pages().items()))
        tree = "".join(f"   /{page}\n" for _, page in sorted(pages().items()))
        source[0] = _GALLERY.sub("", source[0]) + (
            f"\n\n{entries}\nAll of them: :download:`scripts </tutorials/tutorials_python.zip>`, "
            ":download:`notebooks </tutorials/tutorials_jupyter.zip>`.\n\n"
            f".. toctree::\n   :hidden:\n\n{tree}"
        )


def entry(page: str) -> str:
    """Picture, link and first paragraph of a tutorial."""
    script = ROOT / f"{page}.py"
    paragraphs = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))).split("\n\n")
    about = re.sub(r"^\*\*What you will know\.\*\*\s*", "", paragraphs[1]).replace("\n", "\n   ")
    picture = f"/tutorials/images/thumb/sphx_glr_{script.stem}_thumb.png"
    return (
        f".. container:: lesson\n\n   .. image:: {picture}\n      :alt:\n\n"
        f"   .. rst-class:: lesson-title\n\n   :doc:`/{page}`\n\n   {about}\n\n"
    )


def link_mentions(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Turn "tutorial 05" into a link."""
    known = pages()

    def find(text: str) -> Iterator[tuple[int, int, str]]:
        for match in _MENTION.finditer(text):
            for place, number in enumerate(re.finditer(r"\d\d", match[1])):
                start = match.start() if place == 0 else match.start(1) + number.start()
                page = known.get(number[0])
                if page and page != docname:
                    uri = app.builder.get_relative_uri(docname, page)
                    yield start, match.start(1) + number.end(), uri

    link_text(doctree, find)


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the extension; the list is written before the tree of pages is added to it."""
    app.add_config_value("tutorials_not_run", {}, "env", dict)
    app.connect("source-read", number_title)
    app.connect("source-read", list_tutorials, priority=400)
    app.connect("doctree-resolved", link_mentions)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
