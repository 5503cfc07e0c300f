"""Links put into the text of a page that was read already."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from docutils import nodes

# (start, end, address) of everything in a text that becomes a link.
Finder = Callable[[str], Iterable[tuple[int, int, str]]]

_NO_LINKS_IN = (
    *(nodes.title, nodes.reference, nodes.literal, nodes.math),
    *(nodes.FixedTextElement, nodes.raw),
)


def link_text(doctree: nodes.document, find: Finder) -> None:
    """Turn what ``find`` finds in the running text of a page into links."""
    for text in list(doctree.findall(nodes.Text)):
        if not is_fixed(text):
            pieces = linked(text.astext(), find)
            if pieces:
                text.parent.replace(text, pieces)


def is_fixed(node: nodes.Node) -> bool:
    """Whether a node stands in code (Sphinx-Gallery has its own), a formula, heading or link."""
    while node.parent is not None:
        node = node.parent
        if isinstance(node, _NO_LINKS_IN) or node.tagname == "code_links_block":
            return True
    return False


def linked(text: str, find: Finder) -> list[nodes.Node]:
    """Pieces of a text with its links; nothing if it has none."""
    pieces: list[nodes.Node] = []
    end = 0
    for start, stop, uri in find(text):
        link = nodes.reference("", text[start:stop], refuri=uri, internal=True)
        pieces += [nodes.Text(text[end:start]), link]
        end = stop
    return [*pieces, nodes.Text(text[end:])] if pieces else []
