"""Pages of HTML that need nothing else, neither files nor a network; every text is escaped."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template


def page(title: str, verdict: str, body: str) -> str:
    """Return a whole page: a heading, one sentence that says it all, and HTML."""
    template = Template((files("midpg_np") / "page.html").read_text(encoding="utf-8"))
    return template.substitute(title=escape(title), verdict=escape(verdict), body=body)


def image(png: bytes, text: str) -> str:
    """Return a wide picture that the page holds itself; ``text`` says what it shows."""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(text)}">\n'
        f"{_image(png, text, 'wide')}\n</div>"
    )


def panels(pictures: Mapping[str, bytes]) -> str:
    """Return small pictures side by side, as many as fit; their keys say what they show."""
    images = "\n".join(_image(png, text, "panel") for text, png in pictures.items())
    return f'<div class="panels">\n{images}\n</div>'


def _image(png: bytes, text: str, css: str) -> str:
    data = base64.b64encode(png).decode("ascii")
    return f'<img class="{css}" src="data:image/png;base64,{data}" alt="{escape(text)}">'


def table(label: str, caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table with its caption above it; the first cell of a row is its heading."""
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "\n".join(
        f'<tr><th scope="row">{escape(first)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in rows
    )
    # A wide table scrolls by itself on a narrow screen, by keyboard too.
    return (
        f'<p class="caption">{escape(caption)}</p>\n'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}">\n'
        f"<table>\n<thead><tr>{columns}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )
