"""docs/results.md: its tables and commands are those of the outcomes below docs/results/."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "results.md").read_text(encoding="utf-8")
COPY = re.compile(r"<!-- copied from: (\S+) -->\n((?:\|.*\n)+)")
OUTCOMES = sorted((DOCS / "results").glob("*/*.md"))


@pytest.mark.parametrize(("file", "copied"), COPY.findall(PAGE), ids=lambda part: part[:30])
def test_a_table_is_a_copy(file, copied):
    there = (DOCS / "results" / file).read_text(encoding="utf-8")
    assert copied.rstrip("\n") in there


def test_every_outcome_is_shown():
    shown = {file for file, _ in COPY.findall(PAGE)}
    assert shown == {str(path.relative_to(DOCS / "results")) for path in OUTCOMES}


@pytest.mark.parametrize("path", OUTCOMES, ids=lambda path: path.parent.name)
def test_an_outcome_names_its_command(path):
    """The line at its head writes into a folder of that name; the page shows the same command."""
    command = re.search(r"^```sh\n(midpg reproduce .*)\n```$", path.read_text(), re.M)[1]
    assert command.endswith(f"--out {path.parent.name}")
    assert command.removesuffix(f" --out {path.parent.name}") in PAGE


def test_the_table_of_the_readme_is_that_of_the_outcomes():
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8").split("## Results")[1]
    head, _, *rows = [line for line in readme.splitlines() if line.startswith("|")]
    for column, data in enumerate(head.strip("| ").split(" | ")[1:], start=1):
        outcome = (DOCS / "results" / f"table1-{data}" / "table1.md").read_text(encoding="utf-8")
        for row in rows:
            cells = row.strip("| ").split(" | ")
            assert f"\n| {cells[0].removesuffix(' †')} | {cells[column]} |" in outcome
