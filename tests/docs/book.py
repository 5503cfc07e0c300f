"""Reading the documentation: pages, headings, tables, and the numbers of the derivations."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "midpg_np"
BOOK = ROOT / "docs" / "derivations"
PAGES = [
    *sorted((ROOT / "docs").rglob("*.md")),
    *(page for page in (ROOT / "README.md", ROOT / "CHANGELOG.md") if page.exists()),
]

SECTION = r"\d+(?:\.\d+)?"
NUMBER = rf"{SECTION}[a-z]?"
CITATION = re.compile(rf"\bderivations ({NUMBER}(?:(?:,| and| to) {NUMBER})*)")
LINK = re.compile(r"!?\[([^\]]*)\]\(([^)\s]+)[^)]*\)")


def name_of(path):
    return str(path.relative_to(ROOT))


def without_fences(text):
    return re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)


def prose(page):
    """Text of a page without code, whose brackets are not links."""
    return re.sub(r"`[^`\n]*`", "`code`", without_fences(page.read_text()))


def headings(page):
    found = re.finditer(r"^#+ (.*)$", without_fences(page.read_text()), flags=re.M)
    return [match[1].strip() for match in found]


@cache
def anchors(page):
    """Anchors as GitHub makes them: lower case, punctuation dropped, spaces to hyphens."""
    slugs = [
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings(page)
    ]
    repeats = {f"{slug}-{i}" for slug in slugs for i in range(1, slugs.count(slug))}
    return {*slugs, *repeats}


@cache
def book_pages():
    """Pages of the book in the order of its contents, which name every one of them."""
    contents = (BOOK / "index.md").read_text().split("## Contents")[1].split("\n## ")[0]
    names = list(dict.fromkeys(re.findall(r"\]\((\w+\.md)", contents)))
    pages = [BOOK / "index.md", *(BOOK / name for name in names)]
    assert set(pages) == set(BOOK.glob("*.md"))
    return pages


@cache
def text_by_section(page):
    """Pairs of a section's number ("" above the first) and the text below its heading."""
    parts = re.split(rf"^#+ (?:({SECTION})\.? )?.*$", without_fences(page.read_text()), flags=re.M)
    pairs = list(zip(["", *parts[1::2]], parts[::2], strict=True))
    numbers = [number or "" for number, _ in pairs]
    for i in range(1, len(numbers)):  # a heading without a number goes on with the section above
        numbers[i] = numbers[i] or numbers[i - 1]
    return [(number, text) for number, (_, text) in zip(numbers, pairs, strict=True)]


@cache
def sections():
    """Numbers of the sections of the book."""
    return {number for page in book_pages() for number, _ in text_by_section(page)} - {""}


@cache
def section(number):
    """Text of one section of the book; 3.4 has a part on each of three pages."""
    parts = (pair for page in book_pages() for pair in text_by_section(page))
    return "\n".join(text for found, text in parts if found == number)


@cache
def equations():
    """Displayed equations in the order of the book: page, section it stands in, text, number."""
    found = []
    for page in book_pages():
        for number, text in text_by_section(page):
            for display in re.findall(r"\$\$(.*?)\$\$", text, flags=re.S):
                tags = re.findall(r"\\tag\{([^}]*)\}", display)
                found.append((page, number, display, tags))
    return found


@cache
def equation_numbers():
    return {tag for *_, tags in equations() for tag in tags}


def expand(text):
    """Numbers that a text lists: "3.4a, 3.4c to 3.4e" are four."""
    numbers = set()
    for first, last in re.findall(rf"({NUMBER})(?: to ({NUMBER}))?", text):
        numbers |= {first, last} - {""}
        if last and first[:-1] == last[:-1] and first[-1].isalpha():
            numbers |= {first[:-1] + chr(i) for i in range(ord(first[-1]), ord(last[-1]))}
    return numbers


def cited(text):
    """Numbers of the derivations that a text cites."""
    text = re.sub(r"\s+", " ", text)
    return set().union(*(expand(match[1]) for match in CITATION.finditer(text)))


@cache
def _tree(path):
    return ast.parse(path.read_text())


def definition(path, name):
    """Definition in a file by its name, "Class.method" for a method; None if there is none."""
    node = _tree(path)
    for part in name.split("."):
        named = [x for x in node.body if getattr(x, "name", None) == part] if node else []
        node = named[0] if named else None
    return node


def table_rows(text, n_columns):
    """Cells of every row of the tables with so many columns, their headers left out."""
    rows, previous = [], None
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        is_row = line.startswith("|") and len(cells) == n_columns
        is_rule = is_row and all(re.fullmatch(r":?-+:?", cell) for cell in cells)
        if is_rule and previous is not None:
            rows.remove(previous)
        elif is_row:
            rows.append(cells)
        previous = cells if is_row else None
    return rows


def literals(cell):
    """Python values that a cell names in code font."""
    return [ast.literal_eval(code) for code in re.findall(r"`([^`]+)`", cell)]
