"""Pages of source text, and links to lines of them by name.

A link of a Markdown page that leaves the documentation, such as
``[repeat](../midpg_np/layers/repeat.py#repeat)``, is a link to a file on GitHub.  On the site it
leads to a page with the highlighted file, at the line where the name is defined.  In
reStructuredText the same is written ```repeat <source:midpg_np/layers/repeat.py#repeat>`__``.
A file or a name that does not exist is a warning.  Everything in the reference of the API gets
such a link, too.  A link to a tutorial leads to the tutorial's page.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
from collections.abc import Iterator
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from pygments.lexers import get_lexer_for_filename
from pygments.util import ClassNotFound
from repository import ROOT, files_in, lines_of
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)
SCHEME = "source:"
_CODE = re.compile(r"(^```.*?^```|`[^`\n]*`)", re.S | re.M)
_LINK = re.compile(r"(\]\()((?:\.\./)+[^)\s#]*|\.\.|[\w/]+\.py)((?:#[^)\s]*)?\))")


def mark_links(app: Sphinx, docname: str, source: list[str]) -> None:
    """Give links of a Markdown page that leave the documentation the scheme ``source:``."""
    page = Path(app.env.doc2path(docname))
    if page.suffix != ".md":
        return
    docs = Path(app.srcdir)

    def marked(match: re.Match[str]) -> str:
        target = Path(os.path.normpath(page.parent / match[2]))
        if target.is_relative_to(docs) and target.suffix != ".py":
            return match[0]
        if target.is_relative_to(docs.parent / "tutorials"):
            name = "index" if target.name == "tutorials" else target.stem
            return f"{match[1]}/tutorials/{name}.rst{match[3]}"
        return f"{match[1]}{SCHEME}{target.relative_to(docs.parent).as_posix()}{match[3]}"

    pieces = _CODE.split(source[0])
    pieces[::2] = [_LINK.sub(marked, piece) for piece in pieces[::2]]
    source[0] = "".join(pieces)


def line_of(target: str) -> int | None:
    """Line that a target ``path#name`` names; ValueError if there is no such file or name."""
    file, _, name = target.partition("#")
    path = ROOT / file
    if not path.exists():
        raise ValueError(f"there is no {file} in the repository.")
    if not name:
        return None
    lines = lines_of(path) if path.is_file() else {}
    if name not in lines:
        raise ValueError(f"{file} defines no {name!r}.")
    return lines[name]


def check_links(app: Sphinx, doctree: nodes.document) -> None:
    """Warn of links to what does not exist, and note which files are needed."""
    add_api_links(doctree)
    files = app.env.source_files[app.env.docname] = set()
    for node in doctree.findall(nodes.reference):
        uri = node.get("refuri", "")
        if not uri.startswith(SCHEME):
            continue
        target = uri.removeprefix(SCHEME)
        try:
            line_of(target)
        except ValueError as error:
            LOGGER.warning("link to %s: %s", target, error, location=node, type="source")
            continue
        path = ROOT / target.partition("#")[0]
        listed = files_in(path) if path.is_dir() else []
        files.update(p.relative_to(ROOT).as_posix() for p in (path, *listed))


def resolve_links(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Turn ``source:path#name`` into the relative address of the page and line."""
    for node in doctree.findall(nodes.reference):
        uri = node.get("refuri", "")
        if uri.startswith(SCHEME):
            target = uri.removeprefix(SCHEME)
            try:
                line = line_of(target)
            except ValueError:
                continue
            page = "source/" + target.partition("#")[0]
            anchor = "" if line is None else f"#L-{line}"
            node["refuri"] = app.builder.get_relative_uri(docname, page) + anchor
            node["internal"] = True


def add_api_links(doctree: nodes.document) -> None:
    """Add "[source]" to every signature of the reference whose definition is found."""
    for signature in doctree.findall(addnodes.desc_signature):
        if signature.get("module") is None:
            continue
        target = definition(signature["module"], signature["fullname"])
        if target:
            text = nodes.inline("", "[source]", classes=["source-link"])
            link = nodes.reference("", "", text, refuri=SCHEME + target, internal=True)
            signature += addnodes.only("", link, expr="html")


def definition(module: str, name: str) -> str | None:
    """Where a documented name is defined, as ``path#name``; None if it has no line."""
    found: Any = importlib.import_module(module)
    home = getattr(found, "_MODULE_OF", {}).get(name, module)
    for part in name.split("."):
        found = inspect.getattr_static(found, part, None) or getattr(found, part, None)
    found = found.fget if isinstance(found, property) else found
    found = found.func if isinstance(found, cached_property) else found
    found = found.__func__ if isinstance(found, classmethod | staticmethod) else found
    found = inspect.unwrap(found) if callable(found) else found
    if inspect.isclass(found) or inspect.isfunction(found):
        home, name = found.__module__, found.__qualname__
    file = importlib.import_module(home).__file__ or ""
    path = Path(file)
    if not path.is_relative_to(ROOT / "midpg_np") or name not in lines_of(path):
        return None
    return f"{path.relative_to(ROOT).as_posix()}#{name}"


def source_pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield a page for every file and folder that a page links to."""
    for name in sorted(set().union(*app.env.source_files.values())):
        path = ROOT / name
        body = listing(app, name) if path.is_dir() else highlighted(app, path)
        title = escape(name)
        yield f"source/{name}", {"title": title, "body": f"<h1>{title}</h1>\n{body}"}, "page.html"


def highlighted(app: Sphinx, path: Path) -> str:
    """HTML of a file with numbered lines; line 12 has the anchor L-12."""
    try:
        language = get_lexer_for_filename(path.name).aliases[0]
    except ClassNotFound:
        language = "text"
    return app.builder.highlighter.highlight_block(
        path.read_text(encoding="utf-8"), language, linenos="inline", linespans="L"
    )


def listing(app: Sphinx, name: str) -> str:
    """HTML of a folder: links to its files."""
    files = (path.relative_to(ROOT).as_posix() for path in files_in(ROOT / name))
    rows = ((app.builder.get_relative_uri(f"source/{name}", f"source/{f}"), f) for f in files)
    items = "\n".join(f'<li><a href="{uri}">{escape(file)}</a></li>' for uri, file in rows)
    return f"<ul>{items}</ul>"


def start(app: Sphinx) -> None:
    """Begin with what an earlier build noted."""
    if not hasattr(app.env, "source_files"):
        app.env.source_files = {}


def purge(app: Sphinx, env: Any, docname: str) -> None:
    """Forget what a page needed, before it is read again."""
    env.source_files.pop(docname, None)


def merge(app: Sphinx, env: Any, docnames: Any, other: Any) -> None:
    """Take over what a parallel reader noted."""
    env.source_files.update({name: other.source_files.get(name, set()) for name in docnames})


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the extension."""
    app.connect("builder-inited", start)
    app.connect("source-read", mark_links)
    app.connect("doctree-read", check_links)
    app.connect("doctree-resolved", resolve_links)
    app.connect("html-collect-pages", source_pages)
    app.connect("env-purge-doc", purge)
    app.connect("env-merge-info", merge)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
