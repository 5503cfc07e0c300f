"""Links lead to files, headings and definitions that exist; names of the notation to the code."""

import re

import pytest
from book import (
    LINK,
    PACKAGE,
    PAGES,
    ROOT,
    anchors,
    definition,
    name_of,
    prose,
    sections,
    table_rows,
)

NOTATION = ROOT / "docs" / "notation.md"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_resolve(page):
    for _, target in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        linked = (page.parent / file).resolve() if file else page
        assert linked.exists(), f"{target}: no such file"
        if anchor and linked.suffix == ".md":
            assert anchor in anchors(linked), f"{target}: no such heading"
        if anchor and linked.suffix == ".py":
            assert definition(linked, anchor), f"{target}: no such function or class"


NOTATION_ROWS = table_rows(NOTATION.read_text(), 5)


@pytest.mark.parametrize("row", NOTATION_ROWS, ids=lambda row: row[1].replace("`", ""))
def test_notation(row):
    _, names, _, number, files = row
    assert number in sections()
    for file in re.findall(r"`([^`]+)`", files):
        words = set(re.findall(r"\w+", (PACKAGE / file).read_text()))
        missing = set(re.findall(r"`([^`]+)`", names)) - words
        assert not missing, f"{sorted(missing)} not in {file}"


def test_every_file_of_the_mathematics_is_in_the_notation():
    named = {file for row in NOTATION_ROWS for file in re.findall(r"`([^`]+)`", row[4])}
    mathematics = [*PACKAGE.glob("layers/*.py"), *PACKAGE.glob("models/*.py")]
    there = {str(path.relative_to(PACKAGE)) for path in mathematics} | {"ops.py", "losses.py"}
    assert there - named <= {"models/__init__.py", "layers/__init__.py"}
