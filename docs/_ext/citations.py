r"""Citations of equations: the pattern, and who cites what.

An equation has the number of its section and a letter: 3.2d.  It is defined by ``\tag{3.2d}`` on
a page of derivations, and cited as "derivations 3.2d", several as "derivations 3.2a, 3.2b and
3.4c".  A number without a letter is a section.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Container, Iterator
from pathlib import Path
from typing import NamedTuple

from repository import definitions

NUMBER = r"\d+(?:\.\d+)?[a-z]{0,2}\b"
_JOIN = r"(?:,?\s+and\s+|,\s+|\s+to\s+|\s+or\s+)"
CITATION = re.compile(rf"\bderivations\s+(?:sections?\s+)?({NUMBER}(?:{_JOIN}{NUMBER})*)")
TAG = re.compile(r"\\tag\{([^}]+)\}")
_BARE = re.compile(r"(?<![\w.])\d+\.\d+[a-z]{1,2}\b")
_HEADING = re.compile(r"^#+ +(\d+(?:\.\d+)?)\.? +(.+)$")
_PAPER_ROW = re.compile(r"^\|\s*(\(\d\)(?:,\s*\(\d\))*)\s*\|(.*)\|(.*)\|\s*$", re.M)


class Section(NamedTuple):
    """A numbered section of a page, with the numbers of its equations in order."""

    page: str
    number: str
    title: str
    equations: list[str]

    @property
    def place(self) -> tuple[list[int], list[str]]:
        """Where the section stands in the order of the numbers."""
        return [int(part) for part in self.number.split(".")], self.equations[:1]


class PaperRow(NamedTuple):
    """Row of the paper's table: its numbers, what they say, and where that is here."""

    numbers: list[str]
    content: str
    here: list[str]


class Book(NamedTuple):
    """All pages of derivations: sections in order, the page of every number, doubled numbers."""

    sections: list[Section]
    pages: dict[str, str]
    twice: dict[str, list[str]]
    paper: list[PaperRow]


class Citing(NamedTuple):
    """A place that cites equations: a file, and a name in it ("" for the file itself)."""

    path: Path
    name: str
    numbers: list[str]


def anchor(number: str) -> str:
    """Return the identifier of an equation or a section within its page."""
    kind = "equation" if number[-1].isalpha() else "section"
    return f"{kind}-{number.replace('.', '-')}"


def read_book(docs: Path) -> Book:
    """Read the numbers of every page in docs/derivations."""
    found: list[Section] = []
    paper: list[PaperRow] = []
    for path in sorted((docs / "derivations").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        found += sections(text, f"derivations/{path.stem}")
        paper += paper_rows(text)
    found.sort(key=lambda section: section.place)
    pages: dict[str, str] = {}
    twice: dict[str, list[str]] = {}
    for section in found:
        pages.setdefault(section.number, section.page)
        for number in section.equations:
            if number in pages:
                twice[number] = [pages[number], section.page]
            pages[number] = section.page
    return Book(found, pages, twice, paper)


def sections(text: str, page: str) -> list[Section]:
    """Numbered sections of a Markdown page; an equation belongs to the section it stands in."""
    found: list[Section] = []
    for line in re.sub(r"^```.*?^```", "", text, flags=re.S | re.M).splitlines():
        heading = _HEADING.match(line)
        if heading:
            found.append(Section(page, heading[1], heading[2], []))
        elif found:
            found[-1].equations.extend(TAG.findall(line))
    return found


def paper_rows(text: str) -> list[PaperRow]:
    """Rows of the table that maps the paper's numbers to the numbers here."""
    return [
        PaperRow(re.findall(r"\(\d\)", match[1]), match[2].strip(), re.findall(NUMBER, match[3]))
        for match in _PAPER_ROW.finditer(re.sub(r"\]\([^)]*\)", "]", text))
    ]


def spans(text: str, known: Container[str]) -> Iterator[tuple[int, int, str]]:
    """Yield start, end and number of everything in a text that leads to a known number."""
    found = {}
    for match in CITATION.finditer(text):
        for place, number in enumerate(re.finditer(NUMBER, match[1])):
            start = match.start() if place == 0 else match.start(1) + number.start()
            found[match.start(1) + number.end()] = (start, number[0])
    for match in _BARE.finditer(text):
        found.setdefault(match.end(), (match.start(), match[0]))
    for end, (start, number) in sorted(found.items()):
        if number in known:
            yield start, end, number


def cited(text: str) -> list[str]:
    """Numbers that a text cites, each once, in the order of their first mention."""
    numbers = (re.findall(NUMBER, match[1]) for match in CITATION.finditer(text))
    return list(dict.fromkeys(number for some in numbers for number in some))


def citing(path: Path) -> list[Citing]:
    """Docstrings of a Python file that cite equations."""
    places = [Citing(path, name, cited(text)) for name, text in docstrings(path)]
    return [place for place in places if place.numbers]


def docstrings(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the dotted name and the docstring of a module and of everything defined in it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    yield "", ast.get_docstring(tree) or ""
    for name, node in definitions(tree):
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            yield name, ast.get_docstring(node) or ""
