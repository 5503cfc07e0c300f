"""docs/notation.md has a row for every symbol of the tutorials, the pages and the docstrings."""

import ast
import re

import pytest
from book import PACKAGE, PAGES, ROOT, name_of, section, sections, table_rows
from symbols import Symbol, names, names_of, read

NOTATION = ROOT / "docs" / "notation.md"
TUTORIALS = sorted((ROOT / "tutorials").glob("*.py"))
SOURCES = [*TUTORIALS, *(page for page in PAGES if page != NOTATION)]
MATHEMATICS = [
    *(PACKAGE / name for name in ("ops.py", "losses.py", "batch.py", "backend.py")),
    *sorted(PACKAGE.glob("layers/*.py")),
    *sorted(PACKAGE.glob("models/*.py")),
]
PARTS = dict(re.findall(r"^## (.*)\n((?:(?!## ).*\n)*)", NOTATION.read_text(), re.M))
DOLLARS = re.compile(r"\$\$(.*?)\$\$|\$([^$]+)\$", re.S)
ROLE = re.compile(r":math:`([^`]*)`")
DIRECTIVE = re.compile(r"^( *)\.\. math::(.*\n(?:(?:\1 +.*)?\n)*)", re.M)
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.S | re.M)


def in_dollars(text):
    return [match[1] or match[2] for match in DOLLARS.finditer(text)]


def formulas(path):
    """Formulas of a tutorial or a page, each with its line."""
    text = path.read_text()
    if path.suffix == ".py":
        text = re.sub(r"^# ?", "", text, flags=re.M)
        found = [(match.start(), match[1]) for match in ROLE.finditer(text)]
        found += [(match.start(), match[2]) for match in DIRECTIVE.finditer(text)]
    else:
        text = CODE.sub(lambda code: re.sub(r"[^\n]", " ", code[0]), text)
        found = [(match.start(), match[1] or match[2]) for match in DOLLARS.finditer(text)]
    return [(text.count("\n", 0, start) + 1, formula) for start, formula in found]


def indices():
    """Letters that are indices, each with the names at which it is one; None: at all of them."""
    found = {}
    for letters, _, at in table_rows(PARTS["Indices"], 3):
        for letter in in_dollars(letters):
            if at == "every symbol":
                found[letter] = None
            else:
                symbols = [symbol for formula in in_dollars(at) for symbol in read(formula)]
                found.setdefault(letter, set()).update(symbol.name for symbol in symbols)
    return found


INDICES = indices()
IN_CODE = [row for part in PARTS.values() for row in table_rows(part, 5)]
IN_TEXT = table_rows(PARTS["Only in the text"], 4)


def symbols_of(cell):
    """Symbols that a row is about: of a definition, what stands to the left."""
    formulas = (formula.split("=")[0] for formula in in_dollars(cell))
    return set().union(*(names(formula, INDICES) for formula in formulas))


KNOWN = set(INDICES).union(*(symbols_of(row[0]) for row in [*IN_CODE, *IN_TEXT]))
CODE_NAMES = {name for row in IN_CODE for name in re.findall(r"\w+", row[1])}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_every_symbol_has_a_row(path):
    missing = [
        f"{name_of(path)}:{line}: {name} of {formula.strip()!r}"
        for line, formula in formulas(path)
        for name in sorted(names(formula, INDICES) - KNOWN)
    ]
    assert not missing, "\n".join(["no row in docs/notation.md for", *missing])


def explained_in(where):
    """Formulas of the section, the tutorial or the page that a row names."""
    if where in sections():
        return in_dollars(section(where))
    start = where.removeprefix("tutorial ")  # of the name of its file
    (path,) = (path for path in SOURCES if path.name.startswith(start))
    return [formula for _, formula in formulas(path)]


@pytest.mark.parametrize("row", IN_TEXT, ids=lambda row: row[0])
def test_a_symbol_without_code_stands_where_its_row_says(row):
    there = set().union(*(names(formula, INDICES) for formula in explained_in(row[3])))
    assert symbols_of(row[0])
    assert symbols_of(row[0]) <= there


def docstrings(path):
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, kinds) and ast.get_docstring(node):
            yield f"{name_of(path)}:{getattr(node, 'lineno', 1)}", ast.get_docstring(node)


SHAPE = re.compile(r"^(\w+(?:, \w+)*) : (\(.*)$", re.M)
SHORT = re.compile(r"(?<![\w.^'\"-])([A-Za-z]{1,2})_([A-Za-z0-9]{1,2})(?!\w)")


def short_symbols(docstring):
    """Names and axis letters of the Shapes section, and what is written like ``A_bj``."""
    found = {"_".join(letters) for letters in SHORT.findall(docstring)}
    _, _, shapes = docstring.partition("Shapes\n------\n")
    for things, shape in SHAPE.findall(shapes.split("\n\n")[0]):
        axes = " ".join(re.findall(r"\([^()]*\)", shape))
        found |= {*things.split(", "), *re.findall(r"[A-Za-z_]\w*", axes)}
    return found


def is_known(name):
    """Whether a short symbol, or what it is the adjoint of, has a row."""
    candidates = {name, name.removeprefix("d_"), name[1:] if name[0] == "d" else name}
    for candidate in candidates - CODE_NAMES - {""}:
        letter, _, script = candidate.partition("_")
        below = tuple(Symbol(part, (), ()) for part in script if part.isalpha())
        for name in (letter, f"mathcal {letter}"):  # L_mi is written so in the text
            if names_of(Symbol(name, below, ()), INDICES) <= KNOWN:
                return True
    return bool(candidates & CODE_NAMES)


@pytest.mark.parametrize("path", MATHEMATICS, ids=name_of)
def test_every_short_symbol_of_a_docstring_has_a_row(path):
    missing = [
        f"{where}: {name}"
        for where, docstring in docstrings(path)
        for name in sorted(short_symbols(docstring))
        if not is_known(name)
    ]
    assert not missing, "\n".join(["no row in docs/notation.md for", *missing])


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        (r"\bar H^{main}_{bi}=\sum_jS_{b,ij}W_{ij}", {"H^main", "S", "W", "j"}),
        (r"\bar Q_{b,rc}\mathrel{+}=d_r+f_r\,d_{in}", {"Q", "d_r", "f_r", "d_in"}),
        (r"E_r\,Q_b\,E_c^\top", {"E_r", "Q", "E_c"}),
        (r"\hat g/\nu,\ \mathcal L_{mi}^{\min}", {"hat g", "nu", "mathcal L_mi^min"}),
        (r"e_{\pi(b)}\text{ for }e^{-x}", {"e", "pi", "x"}),
        (r"W_{s_b}+n_{l-1}\bigl(T^\star(e)\bigr)", {"W", "s", "n", "T^star", "e"}),
        (r"\mathrm{vec}(Q)\in\mathbb R^{d_m\times q}", {"vec", "Q", "mathbb R", "d_m", "q"}),
        (r"\log\frac12\,\psi^*(x)+c\,h^p", {"psi^*", "x", "c", "h", "p"}),
    ],
)
def test_symbols_are_read(formula, expected):
    assert names(formula, INDICES) - {"l"} == expected - {"l"}


def test_a_symbol_without_a_row_is_found():
    assert names(r"\tilde W_b+d_x^\flat", INDICES) - KNOWN == {"tilde W", "d_x^flat"}
    assert not is_known("W_xy") and not is_known("dK_zz") and is_known("dA_bj")
    assert short_symbols("K_zz, A_bj.\n\nShapes\n------\nx, y : (B, O) or (B,)\n") == {
        *("K_zz", "A_bj", "x", "y", "B", "O")
    }
