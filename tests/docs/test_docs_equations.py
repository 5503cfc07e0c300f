"""Every equation of the derivations has a number, stands in the code, and is proved by a test."""

import ast
import re
from itertools import groupby

import pytest
from book import (
    LINK,
    NUMBER,
    PACKAGE,
    ROOT,
    book_pages,
    cited,
    definition,
    equation_numbers,
    equations,
    expand,
    name_of,
    prose,
    section,
    sections,
    table_rows,
)
from small import small_model

from midpg_np.models import MODELS
from midpg_np.verify.longhand import write_out
from midpg_np.verify.mistakes import MISTAKES

TABLE_ROW = re.compile(r"derivations 3\.8,? rows? (\d+)")
SOURCES = sorted(path for top in ("midpg_np", "tests", "benchmarks", "tutorials")
                 for path in (ROOT / top).rglob("*.py"))  # fmt: skip


def sort_key(number):
    """Order of the numbers: 3.9 before 3.10, 3.4b after 3.4a."""
    digits, letter = re.fullmatch(r"([\d.]+)([a-z]?)", number).groups()
    return [int(part) for part in digits.split(".")], letter


def test_every_display_has_the_number_of_its_section_and_a_letter():
    assert len(equations()) > 150
    for page, number, display, tags in equations():
        assert len(tags) == 1, f"{page.name}: {display}"
        assert re.fullmatch(rf"{re.escape(number)}[a-z]", tags[0]), f"{page.name}: {tags[0]}"
        # Sphinx puts what has line breaks into an environment that cannot carry a number.
        assert r"\\" not in display, f"{page.name}: {tags[0]}"


def test_numbers_are_unique_and_in_order():
    by_section = {}
    for page, of_page in groupby(equations(), key=lambda equation: equation[0]):
        numbers = [tags[0] for *_, tags in of_page]
        assert numbers == sorted(numbers, key=sort_key), page.name
        for number in numbers:
            by_section.setdefault(number[:-1], []).append(number[-1])
    for number, letters in by_section.items():  # 3.4 goes on from page to page
        assert "".join(letters) == "abcdefghijklmnopqrstuvwxyz"[: len(letters)], number


def closing_table(page):
    """Rows of *Where it stands*: numbers, links to code, links to tests."""
    text = page.read_text().partition("## Where it stands")[2]
    return [(expand(row[0]), LINK.findall(row[1]), LINK.findall(row[2]))
            for row in table_rows(text, 3)]  # fmt: skip


@pytest.mark.parametrize("page", book_pages(), ids=lambda page: page.stem)
def test_where_the_equations_of_a_page_stand(page):
    """Each is in the closing table, and each function linked there cites it in its docstring."""
    rows = closing_table(page)
    displayed = {tags[0] for of_page, _, _, tags in equations() if of_page == page}
    assert set().union(*(numbers for numbers, *_ in rows)) == displayed
    for numbers, code, tests in rows:
        assert code and tests
        for links, top in ((code, PACKAGE), (tests, ROOT / "tests")):
            for label, target in links:
                file, _, name = target.partition("#")
                path = (page.parent / file).resolve()
                assert path.is_relative_to(top) and label == name
                if top == PACKAGE:
                    docstring = ast.get_docstring(definition(path, name)) or ""
                    assert numbers <= cited(docstring), target


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_citations_in_the_code_resolve(path):
    text = re.sub(r"\s+", " ", path.read_text())
    assert cited(text) <= sections() | equation_numbers()
    rows = {cells[0] for cells in table_rows(section("3.8"), 6)}
    assert {match[1] for match in TABLE_ROW.finditer(text)} <= rows


def test_citations_are_found_at_all():
    """The test above would also pass if its pattern fitted nothing."""
    found = set().union(*(cited(path.read_text()) for path in PACKAGE.rglob("*.py")))
    assert {"2.1b", "2.6", "3.3", "3.4d", "3.5b", "3.8", "4", "4c", "12"} <= found
    assert cited("derivations 3.4a, 3.4c to\n3.4e and 4b") == {"3.4a", "3.4c", "3.4d", "3.4e", "4b"}


@pytest.mark.parametrize("page", book_pages(), ids=lambda page: page.stem)
def test_equations_named_in_the_text_exist(page):
    text = re.sub(r"\$[^$]*\$", "", re.sub(r"\$\$.*?\$\$", "", prose(page), flags=re.S))
    named = set(re.findall(rf"(?<![\w.]){NUMBER}(?![\w.]\w)", text))
    lettered = {number for number in named if number[-1].isalpha()}
    assert lettered <= equation_numbers()


@pytest.mark.parametrize("kind", MODELS)
def test_what_verify_prints_is_numbered_as_here(kind):
    """Steps of the written-out models, and mistakes, name equations and sections that exist."""
    steps = write_out(small_model(kind)).steps
    named = {step.equation.split(" (")[0] for step in steps if step.equation}
    named |= {mistake.equation for mistake in MISTAKES.values() if kind in mistake.models}
    assert len(named) > 3
    assert named <= sections() | equation_numbers()
