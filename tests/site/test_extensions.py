"""The extensions of the site, without a build: names to lines, citations, docstrings, figures."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from citations import anchor, cited, citing, paper_rows, read_book, sections, spans
from repository import lines_of, slug

ROOT = Path(__file__).parents[2]

SOURCE = '''"""See derivations 2.1a."""
from somewhere import other

LIMIT: int = 3
first, (second,) = 1, (2,)


@decorated
def run():
    """Backward: derivations 3.2a, 3.2b and
    3.4c; the rest follows."""
    def inner():
        """Derivations are cited in lower case: 9.9z is nothing."""


class Layer:
    size = 4

    def forward(self):
        """Cites derivations 3.2 as a whole."""
'''


@pytest.fixture
def module(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(SOURCE, encoding="utf-8")
    return path


def test_lines_of_names(module):
    lines = lines_of(module)
    text = SOURCE.splitlines()
    assert text[lines["run"] - 1] == "def run():"
    assert text[lines["Layer"] - 1] == "class Layer:"
    assert text[lines["Layer.forward"] - 1] == "    def forward(self):"
    assert text[lines["Layer.size"] - 1] == "    size = 4"
    assert text[lines["LIMIT"] - 1] == "LIMIT: int = 3"
    assert "other" not in lines and "forward" not in lines


def test_lines_of_headings(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One\n\n## 3.2 Forward: `psi`, again\n", encoding="utf-8")
    assert lines_of(page) == {"one": 1, "32-forward-psi-again": 3}
    assert slug(" What's where ") == "whats-where"


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("See derivations 3.2d.", ["3.2d"]),
        ("(derivations 3.2a, 3.2b and 3.4c; more)", ["3.2a", "3.2b", "3.4c"]),
        ("derivations 2.1,\n    2.2b, and 4a", ["2.1", "2.2b", "4a"]),
        ("derivations sections 3.4a to 3.4e", ["3.4a", "3.4e"]),
        ("derivations 3.2a and derivations 3.2a", ["3.2a"]),
        ("derivations 3.8, 12 rows", ["3.8", "12"]),
        ("derivation 3.2d, equation (1), 3.2d", []),
    ],
)
def test_cited(text, numbers):
    assert cited(text) == numbers


def test_citing(module):
    found = {place.name: place.numbers for place in citing(module)}
    assert found == {
        "": ["2.1a"],
        "run": ["3.2a", "3.2b", "3.4c"],
        "Layer.forward": ["3.2"],
    }


def test_spans_are_the_words_that_become_links():
    text = "By derivations 3.2a and 4a, not 4b; 3.2a again, v1.3.2a and 3.2z never."
    known = {"3.2a", "4a"}
    assert [(text[start:end], number) for start, end, number in spans(text, known)] == [
        ("derivations 3.2a", "3.2a"),
        ("4a", "4a"),
        ("3.2a", "3.2a"),
    ]


def test_sections_of_a_page():
    text = (
        "# Title\n\n## 3.2 Forward\n$$a\\tag{3.2a}$$\n$$b\\tag{3.2b}$$\n"
        "```\n## 9 No\n```\n## 4. Next\n"
    )
    found = [(part.number, part.title, part.equations) for part in sections(text, "page")]
    assert found == [("3.2", "Forward", ["3.2a", "3.2b"]), ("4", "Next", [])]


def test_paper_rows():
    text = "| paper | what | here |\n|---|---|---|\n"
    text += "| (3), (4) | variants | [3.2b](a.md#32-x), [3.2c](a.md#32) |\n"
    assert paper_rows(text) == [(["(3)", "(4)"], "variants", ["3.2b", "3.2c"])]


def test_a_number_that_stands_twice_is_told(tmp_path):
    (tmp_path / "derivations").mkdir()
    for name in ("one", "two"):
        page = tmp_path / "derivations" / f"{name}.md"
        page.write_text("# 7 Gate\n$$a\\tag{7a}$$\n", encoding="utf-8")
    assert read_book(tmp_path).twice == {"7a": ["derivations/one", "derivations/two"]}


def test_the_book_of_this_repository():
    book = read_book(ROOT / "docs")
    assert book.twice == {}
    assert book.pages["3.2a"] == "derivations/weighting"
    assert {n for row in book.paper for n in row.numbers} >= {"(1)", "(3)", "(6)", "(7)", "(8)"}
    assert all(number in book.pages for row in book.paper for number in row.here)
    assert (anchor("3.2a"), anchor("3.2")) == ("equation-3-2a", "section-3-2")


def test_links_to_code():
    pytest.importorskip("sphinx")
    from source_links import definition, line_of

    lines = lines_of(ROOT / "midpg_np" / "layers" / "repeat.py")
    assert line_of("midpg_np/layers/repeat.py#repeat_backward") == lines["repeat_backward"]
    assert line_of("midpg_np/layers/repeat.py") is None
    with pytest.raises(ValueError, match=r"repeat.py defines no 'nothing'"):
        line_of("midpg_np/layers/repeat.py#nothing")
    with pytest.raises(ValueError, match=r"there is no midpg_np/nothing.py"):
        line_of("midpg_np/nothing.py#repeat")
    assert definition("midpg_np", "fit") == "midpg_np/training/loop.py#fit"
    assert definition("midpg_np", "MODELS") == "midpg_np/models/__init__.py#MODELS"
    assert definition("midpg_np", "MIDPG.forward") == "midpg_np/models/halves.py#InHalves.forward"


def reference(target):
    nodes = pytest.importorskip("docutils.nodes")
    return nodes.reference("", "text", refuri=f"source:{target}")


def test_dead_links_to_code_are_told(caplog):
    """Sphinx makes an error of such a message."""
    pytest.importorskip("sphinx")
    from docutils.utils import new_document
    from source_links import check_links

    document = new_document("page")
    document += reference("midpg_np/layers/repeat.py#repeat")
    document += reference("midpg_np/layers/repeat.py#nothing")
    document += reference("midpg_np/nowhere.py")
    app = SimpleNamespace(env=SimpleNamespace(docname="page", source_files={}))
    check_links(app, document)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert (
        "repeat.py defines no 'nothing'" in messages[0] and "no midpg_np/nowhere.py" in messages[1]
    )
    assert app.env.source_files == {"page": {"midpg_np/layers/repeat.py"}}


def test_links_that_leave_the_documentation_are_marked(tmp_path):
    pytest.importorskip("sphinx")
    from source_links import mark_links

    docs = tmp_path / "docs"
    (docs / "sub").mkdir(parents=True)
    page = docs / "sub" / "page.md"
    app = SimpleNamespace(srcdir=docs, env=SimpleNamespace(doc2path=lambda name: page))
    source = [
        "[a](../../midpg_np/ops.py#relu) [b](../other.md#x) [c](../../README.md) [d](https://e.org)\n"
        "[f](../../tutorials) [g](../../tutorials/05_x.py) `[h](../../i.py)`\n\n"
        "```\n[j](../../k.py)\n```\n"
    ]
    mark_links(app, "sub/page", source)
    assert source == [
        "[a](source:midpg_np/ops.py#relu) [b](../other.md#x) [c](source:README.md) [d](https://e.org)\n"
        "[f](/tutorials/index.rst) [g](/tutorials/05_x.rst) `[h](../../i.py)`\n\n"
        "```\n[j](../../k.py)\n```\n"
    ]


def test_unknown_numbers_are_told(caplog):
    pytest.importorskip("sphinx")
    from equation_index import warn_of_unknown

    word = "derivations"  # not side by side with a number that does not exist
    warn_of_unknown(read_book(ROOT / "docs"), f"By {word} 3.2a and 99.9z.", "page")
    assert [record.getMessage() for record in caplog.records] == ["derivations have no 99.9z"]


def test_docstrings_with_plain_text_mathematics():
    docutils = pytest.importorskip("docutils.core")
    pytest.importorskip("sphinx.ext.napoleon")
    from docstrings import as_rest

    text = (
        "S = psi(Q) * W, V = S * W and |t| of x_ and Q_r,c.\n\nSee ``a * b``:\n\n    x = y * z_\n\n"
        "Shapes\n------\nQ : (B, d_r, d_c)\n    The *core*.\nS : (B, d_m, d_n)\n\n"
        "Raises\n------\nValueError\n    If a * b.\n"
    )
    rest = as_rest(text)
    shapes = rest[rest.index(":Shapes:") : rest.index("Raises")]
    assert "- ``Q`` : ``(B, d_r, d_c)``\n      The \\*core\\*." in shapes
    settings = {"report_level": 1, "halt_level": 2, "warning_stream": None}
    shown = docutils.publish_string(rest, writer="pseudoxml", settings_overrides=settings).decode()
    for plain in ("S = psi(Q) * W, V = S * W and |t| of x_ and Q_r,c.", "x = y * z_", "a * b"):
        assert plain in shown
    assert "emphasis" not in shown and "problematic" not in shown


def test_flowcharts():
    pytest.importorskip("networkx")
    pytest.importorskip("sphinx")
    from flowcharts import draw, read

    text = 'flowchart LR\n  A["a <1>"] --> B["b"] & C(("c"))\n'
    text += '  B -. "training" .-> D["d"]\n  C -- "stop" --> D\n'
    graph = read(text)
    assert sorted(graph.edges.data("text")) == [
        *(("A", "B", ""), ("A", "C", "")),
        *(("B", "D", "training"), ("C", "D", "stop")),
    ]
    assert graph.edges["B", "D"]["is_dashed"] and not graph.edges["C", "D"]["is_dashed"]
    assert graph.nodes["C"]["is_round"] and graph.nodes["A"]["text"] == "a <1>"
    picture = draw(graph)
    assert picture.count("<rect") == 4 and picture.count("<polyline") == 4
    assert picture.count("stroke-dasharray") == 1 and "a &lt;1&gt;" in picture
    with pytest.raises(ValueError, match="only flowcharts"):
        read("sequenceDiagram\n  A->>B: x")
    with pytest.raises(ValueError, match="a box is written"):
        read("flowchart LR\n  A[a] --> B")


def test_figures_of_a_block(tmp_path, monkeypatch):
    pytest.importorskip("sphinx_gallery")
    from figures import leave_folder, own_folder, scrape

    monkeypatch.delenv("MIDPG_FIGURES", raising=False)
    conf = {"src_dir": str(tmp_path)}
    places = iter([str(tmp_path / f"images/page_{i:03}.png") for i in range(1, 9)])
    (tmp_path / "images").mkdir()
    own_folder(conf, "01_x.py")
    folder = Path(os.environ["MIDPG_FIGURES"])
    assert scrape((), {"image_path_iterator": places}, conf) == ""
    for age, name in enumerate(("01_second", "01_a_first")):
        (folder / f"{name}.png").write_bytes(name.encode())
        os.utime(folder / f"{name}.png", ns=(0, 10**9 * (5 - age)))
    rest = scrape((), {"image_path_iterator": places}, conf)
    assert [(tmp_path / f"images/page_{i:03}.png").read_bytes() for i in (1, 2)] == [
        b"01_a_first",
        b"01_second",
    ]
    assert rest.index(":alt: a first") < rest.index(":alt: second")
    assert scrape((), {"image_path_iterator": places}, conf) == ""
    own_folder(conf, "02_y.py")
    assert not folder.exists() and os.environ["MIDPG_FIGURES"] != str(folder)
    leave_folder(conf, None)
    assert "MIDPG_FIGURES" not in os.environ


def test_solutions_are_hidden_in_notebooks():
    pytest.importorskip("sphinx")
    from notebooks import hidden

    text = (
        "**1.** Why?\n\n.. dropdown:: Solution 1\n\n   Because\n   of this.\n\n```python\n"
        "if x:\n   y = 1\n\nz = 2\n```\n**2.** And?\n\n.. dropdown:: Solution 2\n\n   So."
    )
    assert hidden(text) == (
        "**1.** Why?\n\n<details><summary>Solution 1</summary>\n\nBecause\nof this.\n\n```python\n"
        "if x:\n   y = 1\n\nz = 2\n```\n</details>\n\n**2.** And?\n\n"
        "<details><summary>Solution 2</summary>\n\nSo.\n</details>"
    )
    assert hidden(hidden(text)) == hidden(text)
    assert hidden("No solution\n   here.") == "No solution\n   here."


def test_every_tutorial_is_numbered():
    pytest.importorskip("sphinx")
    from tutorial_pages import entry, pages

    found = pages()
    scripts = sorted((ROOT / "tutorials").glob("[0-9]*.py"))
    assert sorted(found.values()) == [f"tutorials/{script.stem}" for script in scripts]
    assert len(found) == len(scripts)  # no number stands twice
    for page in found.values():
        assert f":doc:`/{page}`" in entry(page)
