r"""Numbers of equations: anchors, links to them from every text, and the page that lists them.

``\tag{3.2d}`` on a page of derivations gives the equation the anchor ``equation-3-2d``.
"derivations 3.2d" in a docstring or a tutorial, and "3.2d" anywhere, becomes a link to it; so
does a section's number after "derivations".  The directive ``equation-index`` writes the list:
where each equation is derived, which functions cite it, which tutorials explain it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from citations import TAG, Book, anchor, cited, read_book, spans
from docutils import nodes
from equation_tables import equation_tables
from repository import ROOT
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from text_links import link_text

LOGGER = logging.getLogger(__name__)
_NUMBERED = re.compile(r"(\d+(?:\.\d+)?)\.? ")


def start(app: Sphinx) -> None:
    """Read the numbers of all pages, before any page refers to one."""
    app.book = read_book(Path(app.srcdir))
    for number, pages in app.book.twice.items():
        LOGGER.warning("equation %s has its number twice: %s", number, ", ".join(pages))


def add_anchors(app: Sphinx, doctree: nodes.document) -> None:
    """Give numbered equations and sections an identifier that follows from the number."""
    if not app.env.docname.startswith("derivations/"):
        return
    for node in doctree.findall(nodes.math_block):
        numbers = TAG.findall(node.astext())
        node["ids"] += [anchor(number) for number in numbers]
        if numbers:
            typeset_alone(node)
    for section in doctree.findall(nodes.section):
        numbered = _NUMBERED.match(section[0].astext())
        if numbered:
            section["ids"].append(anchor(numbered[1]))


def typeset_alone(node: nodes.math_block) -> None:
    """Give MathJax the formula as it stands: Sphinx would put it into "split", which has no tag."""
    node[:] = [nodes.Text(rf"\[{node.astext()}\]")]
    node["no-wrap"] = True


def link_numbers(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Turn the citations of a page into links."""

    def find(text: str) -> Iterator[tuple[int, int, str]]:
        warn_of_unknown(app.book, text, docname)
        for start_at, end, number in spans(text, app.book.pages):
            page = app.builder.get_relative_uri(docname, app.book.pages[number])
            yield start_at, end, f"{page}#{anchor(number)}"

    link_text(doctree, find)


def warn_of_unknown(book: Book, text: str, docname: str) -> None:
    """Warn of citations of numbers that do not exist."""
    for number in cited(text):
        if number not in book.pages:
            LOGGER.warning("derivations have no %s", number, location=docname, type="equation")


class EquationIndex(SphinxDirective):
    """The list of all numbered equations, section by section."""

    def run(self) -> list[nodes.Node]:
        """Return a section of the page for every section of the derivations."""
        for folder in ("midpg_np", "tutorials", "docs/derivations"):
            for path in sorted((ROOT / folder).rglob("*")):
                if path.suffix in {".py", ".md"}:
                    self.env.note_dependency(str(path))
        builder, here = self.env.app.builder, self.env.docname
        return equation_tables(
            self.env.app.book, ROOT, lambda page: builder.get_relative_uri(here, page)
        )


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the extension."""
    app.add_directive("equation-index", EquationIndex)
    app.connect("builder-inited", start)
    app.connect("doctree-read", add_anchors)
    app.connect("doctree-resolved", link_numbers)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
