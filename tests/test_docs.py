"""The documentation keeps up with the code: references, links, names, defaults and counts."""

import ast
import re
from dataclasses import fields
from pathlib import Path

import pytest

from midpg_np.models import DNN, MIDPG, MODELS, make_model
from midpg_np.training.config import TrainConfig

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "midpg_np"
EQUATIONS = ROOT / "docs" / "equations.md"
NOTATION = ROOT / "docs" / "notation.md"
MODELS_PAGE = ROOT / "docs" / "models.md"
COSTS_OF = {"pepnet": {"prior_fields": (2, 3, 4, 5)}}  # as in benchmarks/model_costs.py
PAGES = [
    *sorted((ROOT / "docs").rglob("*.md")),
    *(page for page in (ROOT / "README.md", ROOT / "CHANGELOG.md") if page.exists()),
]

NUMBER = r"\d+(?:\.\d+)?"
REFERENCE = re.compile(rf"equations(?:\.md)?(?: sections?)? ({NUMBER}(?:(?:,| and) {NUMBER})*)")
TABLE_ROW = re.compile(r"equations\.md 3\.8,? rows? (\d+)")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)[^)]*\)")


def name_of(path):
    return str(path.relative_to(ROOT))


def prose(page):
    """Text of a page without code, whose brackets are not links."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)
    return re.sub(r"`[^`\n]*`", "`code`", text)


def headings(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)
    return [match[1].strip() for match in re.finditer(r"^#+ (.*)$", text, flags=re.M)]


def anchors(page):
    """Anchors as GitHub makes them: lower case, punctuation dropped, spaces to hyphens."""
    slugs = [
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings(page)
    ]
    repeats = {f"{slug}-{i}" for slug in slugs for i in range(1, slugs.count(slug))}
    return {*slugs, *repeats}


def sections():
    """Numbers of the sections of equations.md."""
    found = (re.match(rf"({NUMBER})\.? ", heading) for heading in headings(EQUATIONS))
    return {match[1] for match in found if match}


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


def section(number):
    """Text of one section of equations.md."""
    text = EQUATIONS.read_text()
    start = re.search(rf"^#+ {re.escape(number)}\.? ", text, flags=re.M).end()
    return re.split(r"^#+ ", text[start:], flags=re.M)[0]


def literals(cell):
    """Python values that a cell names in code font."""
    return [ast.literal_eval(code) for code in re.findall(r"`([^`]+)`", cell)]


@pytest.mark.parametrize(
    "path", sorted([*PACKAGE.rglob("*.py"), *ROOT.glob("tests/**/*.py")]), ids=name_of
)
def test_references_to_the_equations_resolve(path):
    text = re.sub(r"\s+", " ", path.read_text())
    numbers = {n for match in REFERENCE.finditer(text) for n in re.findall(NUMBER, match[1])}
    assert numbers <= sections()
    rows = {cells[0] for cells in table_rows(section("3.8"), 6)}
    assert {match[1] for match in TABLE_ROW.finditer(text)} <= rows


def test_references_are_found_at_all():
    """The test above would also pass if its pattern fitted nothing."""
    text = " ".join(re.sub(r"\s+", " ", path.read_text()) for path in PACKAGE.rglob("*.py"))
    found = {n for match in REFERENCE.finditer(text) for n in re.findall(NUMBER, match[1])}
    assert {"2.1", "2.6", "3.3", "3.4", "3.5", "3.8", "4", "12"} <= found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_resolve(page):
    for target in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        linked = (page.parent / file).resolve() if file else page
        assert linked.exists(), f"{target}: no such file"
        if anchor and linked.suffix == ".md":
            assert anchor in anchors(linked), f"{target}: no such heading"


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


def option_rows():
    """Option, default and other values, from tables 3.6 and 3.8."""
    rows = [(cells[0], cells[1], "") for cells in table_rows(section("3.6"), 4)]
    rows += [tuple(cells[2:5]) for cells in table_rows(section("3.8"), 6)]
    return [row for row in rows if row[0] != "–"]


@pytest.mark.parametrize("row", option_rows(), ids=lambda row: row[0].replace("`", ""))
def test_defaults(row):
    option, default, others = row
    name = re.match(r"`(\w+)`", option)[1]
    kind = TrainConfig if "TrainConfig" in option else MIDPG
    (expected,) = literals(default)
    assert {field.name: field.default for field in fields(kind)}[name] == expected
    if "every name" in others:
        return
    sizes = {"vocab_sizes": (3, 2), "n_aware": 1, "n_scenarios": 2}
    for value in literals(others):
        assert value != expected
        kind(**(sizes if kind is MIDPG else {}), **{name: value})


def test_every_option_is_documented():
    documented = {re.match(r"`(\w+)`", option)[1] for option, *_ in option_rows()}
    options = {field.name for field in fields(MIDPG)}
    assert options - documented == {"vocab_sizes", "n_aware", "n_scenarios"}


TRAINING = (ROOT / "docs" / "training.md").read_text().split("\n## Options")[1].split("\n## ")[0]


def test_options_of_the_training():
    rows = {row[0].strip("`"): row[1].strip("`") for row in table_rows(TRAINING, 3)}
    assert rows.keys() == {field.name for field in fields(TrainConfig)}
    for option, default in rows.items():
        assert getattr(TrainConfig(), option) == ast.literal_eval(default), option


# Section with the table of a model's options, beyond those of DNN.
OPTION_TABLES = {
    "ple": "5.2",
    "star": "6.2",
    "pepnet": "7.2",
    "adasparse": "8.2",
    "apg": "9.2",
    "optmsm": "10.2",
}
SMALL_DATA = {"vocab_sizes": (30, 20, 10), "n_aware": 1, "n_scenarios": 2}


@pytest.mark.parametrize("kind", OPTION_TABLES)
def test_option_tables_of_the_comparison_systems(kind):
    """Every option has a row with its default, and every value named there is accepted."""
    rows = table_rows(section(OPTION_TABLES[kind]), 4)
    defaults = {field.name: field.default for field in fields(MODELS[kind])}
    own = defaults.keys() - {field.name for field in fields(DNN)}
    assert {cells[0].strip("`") for cells in rows} == own
    for option, default, others, _ in rows:
        name = option.strip("`")
        assert literals(default) == [defaults[name]], name
        for value in literals(others):
            assert value != defaults[name], name
            make_model(kind, **SMALL_DATA, **{name: value})


def test_the_table_of_costs_counts_right():
    """Parameters, parameters while training, state and multiplications in docs/models.md."""
    rows = [
        cells for cells in table_rows(MODELS_PAGE.read_text(), 9) if cells[0].strip("`") in MODELS
    ]
    assert [cells[0].strip("`") for cells in rows] == list(MODELS)
    for name, *numbers in rows:
        options = COSTS_OF.get(name.strip("`"), {})
        sizes = {"vocab_sizes": (1000,) * 16, "n_aware": 2, "n_scenarios": 10}
        count = make_model(name.strip("`"), **sizes, **options).count_params()
        counted = (count.serving, count.serving + count.training_only, count.state)
        want = (*counted, count.multiply_adds)
        assert tuple(int(number.replace(",", "")) for number in numbers[:4]) == want, name


@pytest.mark.parametrize("row", table_rows(section("12"), 6), ids=lambda row: f"{row[0]} {row[1]}")
def test_parameter_counts(row):
    name, options, *numbers = (cell.strip("`") for cell in row)
    call = ast.parse(f"dict({options})", mode="eval").body
    chosen = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    model = make_model(name, vocab_sizes=(5,) * 16, n_aware=2, n_scenarios=10, **chosen)
    count = model.count_params()
    found = (count.serving, count.training_only, count.state, count.multiply_adds)
    assert found == tuple(map(int, numbers))
