"""The tables of the page "Where is equation (n)?"."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from citations import Book, Section, anchor, cited, citing
from docutils import nodes

# Address of a page, seen from the page with the tables.
Address = Callable[[str], str]


class User(NamedTuple):
    """Something that cites equations: how it is called, its address, and the numbers."""

    text: str
    uri: str
    numbers: list[str]


class Users(NamedTuple):
    """Everything that cites equations."""

    code: list[User]
    tutorials: list[User]


def find_users(root: Path, address: Address) -> Users:
    """Docstrings of the package and tutorials that cite equations."""
    code = []
    for path in sorted((root / "midpg_np").rglob("*.py")):
        file = path.relative_to(root).as_posix()
        for place in citing(path):
            short = file.removeprefix("midpg_np/")
            text = f"{short}: {place.name}" if place.name else short
            uri = f"source:{file}#{place.name}" if place.name else f"source:{file}"
            code.append(User(text, uri, place.numbers))
    tutorials = []
    for path in sorted((root / "tutorials").glob("[0-9]*.py")):
        text = path.read_text(encoding="utf-8")
        title = (ast.get_docstring(ast.parse(text)) or path.stem).splitlines()[0]
        prose = re.sub(r"^# ?", "", text, flags=re.M)
        tutorials.append(User(title, address(f"tutorials/{path.stem}"), cited(prose)))
    return Users(code, tutorials)


def equation_tables(book: Book, root: Path, address: Address) -> list[nodes.Node]:
    """Sections of the page: the paper's equations, then every section of the derivations."""
    users = find_users(root, address)
    wanted = {n for user in (*users.code, *users.tutorials) for n in user.numbers}
    parts = [s for s in book.sections if s.equations or s.number in wanted]
    return [paper_section(book, users), *(own_section(s, users, address) for s in parts)]


def paper_section(book: Book, users: Users) -> nodes.section:
    """Table of the paper's numbers."""
    rows = [
        [
            [nodes.Text(", ".join(row.numbers))],
            [nodes.Text("derivations " + ", ".join(row.here))],
            links(u for u in users.code if {*u.numbers} & {*letters(row.here)}),
        ]
        for row in book.paper
    ]
    return section("paper", "The paper's numbers", table(("paper", "here", "code"), rows))


def letters(numbers: list[str]) -> list[str]:
    """Numbers of equations; where there are none, those of sections."""
    return [number for number in numbers if number[-1].isalpha()] or numbers


def own_section(part: Section, users: Users, address: Address) -> nodes.section:
    """Say what cites a section as a whole; table of its equations."""
    uri = f"{address(part.page)}#{anchor(part.number)}"
    derived = nodes.paragraph("", "", nodes.Text("Derived in "), reference(part.title, uri))
    body: list[nodes.Node] = [derived]
    for kind, cites in (("Code", users.code), ("Tutorials", users.tutorials)):
        found = links(user for user in cites if part.number in user.numbers)
        if found:
            body.append(nodes.paragraph("", "", nodes.Text(f"{kind}: "), *found))
    rows = [
        [
            [reference(number, f"{address(part.page)}#{anchor(number)}")],
            links(user for user in users.code if number in user.numbers),
            links(user for user in users.tutorials if number in user.numbers),
        ]
        for number in part.equations
    ]
    if rows:
        body.append(table(("equation", "code", "tutorial"), rows))
    title = f"{part.number} {re.sub(r'[$`]', '', part.title)}"
    return section(f"where-{part.page}-{part.number}", title, *body)


def links(users: Iterable[User]) -> list[nodes.Node]:
    """Links with commas between them."""
    found: list[nodes.Node] = []
    for user in users:
        found += [nodes.Text(", ")] if found else []
        found.append(reference(user.text, user.uri))
    return found


def reference(text: str, uri: str) -> nodes.reference:
    """Link within the site."""
    return nodes.reference("", text, refuri=uri, internal=True)


def section(name: str, title: str, *body: nodes.Node) -> nodes.section:
    """Section with an identifier."""
    return nodes.section("", nodes.title("", title), *body, ids=[nodes.make_id(name)])


def table(heads: tuple[str, ...], rows: list[list[list[nodes.Node]]]) -> nodes.table:
    """Table with a row of heads; a cell is a list of inline nodes."""
    group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in heads), cols=len(heads))
    group += nodes.thead("", table_row([[nodes.Text(head)] for head in heads]))
    group += nodes.tbody("", *(table_row(row) for row in rows))
    return nodes.table("", group, classes=["equation-index"])


def table_row(cells: list[list[nodes.Node]]) -> nodes.row:
    """Row of a table."""
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", *cell)) for cell in cells))
