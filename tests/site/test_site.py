"""The site is built without a warning, and every link in it leads somewhere."""

import re
from collections import Counter
from functools import cache
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from citations import anchor, citing

import midpg_np

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TAG = re.compile(r"\\tag\{([^}]+)\}")
IDENTIFIER = re.compile(r'\s(?:id|name)="([^"]*)"')
ADDRESS = re.compile(r'<(\w+)\b[^>]*?\s(href|src)="([^"]*)"')


@cache
def text_of(page):
    return page.read_text(encoding="utf-8")


@cache
def identifiers(page):
    return {unescape(name) for name in IDENTIFIER.findall(text_of(page))}


def pages_of(site):
    """Pages of the site, without the templates that the theme copies."""
    found = [page for page in site.pages.rglob("*.html") if "_static" not in page.parts]
    assert len(found) > 100
    return sorted(found)


def test_the_build_has_no_warning(site):
    assert site.status == 0, site.messages[-3000:]
    assert "WARNING" not in site.messages


def is_dead(page, address):
    """Whether a relative address leads nowhere: no such file, or no such anchor in it."""
    parts = urlsplit(unescape(address))
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if target.is_dir():
        target /= "index.html"
    if not target.is_file():
        return True
    is_page = target.suffix == ".html" and parts.fragment
    return bool(is_page) and unquote(parts.fragment) not in identifiers(target)


def test_no_link_is_dead(site):
    dead, seen = [], 0
    for page in pages_of(site):
        for _, _, address in set(ADDRESS.findall(text_of(page))):
            if not re.match(r"[a-z]+:|//", address) and address != "#":
                seen += 1
                dead += [f"{page.relative_to(site.pages)}: {address}"] * is_dead(page, address)
    assert seen > 5000
    assert not dead, dead[:20]


def test_a_dead_link_would_be_found(site):
    page = site.pages / "index.html"
    assert is_dead(page, "nowhere.html") and is_dead(page, "api/checks.html#nothing")
    assert not is_dead(page, "api/checks.html#midpg_np.check_gradients")


def test_no_page_needs_the_network(site):
    """Readers may follow a link out, but nothing is loaded from there."""
    for page in pages_of(site):
        outside = [
            (tag, address)
            for tag, kind, address in ADDRESS.findall(text_of(page))
            if re.match(r"(https?:)?//", address) and (kind == "src" or tag == "link")
        ]
        assert not outside, page
    for sheet in site.pages.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", text_of(sheet)), sheet


def test_every_public_name_is_documented_once(site):
    reference = [text_of(page) for page in sorted((site.pages / "api").glob("*.html"))]
    found = Counter(
        name for text in reference for name in re.findall(r'<dt[^>]* id="([^"]+)"', text)
    )
    assert {name: found[f"midpg_np.{name}"] for name in midpg_np.__all__} == dict.fromkeys(
        midpg_np.__all__, 1
    )
    assert max(found.values()) == 1


def test_every_equation_has_an_anchor_and_a_row(site):
    where = text_of(site.pages / "where.html")
    sources = sorted((ROOT / "docs" / "derivations").glob("*.md"))
    n_equations = 0
    for source in sources:
        page = site.pages / "derivations" / f"{source.stem}.html"
        for number in TAG.findall(source.read_text(encoding="utf-8")):
            n_equations += 1
            anchor = "equation-" + number.replace(".", "-")
            assert anchor in identifiers(page), number
            assert f'href="derivations/{source.stem}.html#{anchor}"' in where, number
    assert n_equations > 100


def test_citations_of_docstrings_lead_to_equations(site):
    """Every number that a public docstring cites is a link in the reference."""
    page = text_of(site.pages / "api" / "layers-midpg.html")
    places = citing(ROOT / "midpg_np" / "layers" / "modulated.py")
    numbers = {n for place in places if "_" not in place.name[:1] for n in place.numbers}
    assert len(numbers) > 3
    for number in numbers:
        assert re.search(rf'href="\.\./derivations/\w+\.html#{anchor(number)}"', page), number


def test_links_to_code_lead_to_the_line(site):
    """The line that the page of the derivation links to is the line of the definition."""
    page = text_of(site.pages / "derivations" / "weighting.html")
    found = re.findall(
        r'href="\.\./source/(midpg_np/[\w/]+\.py)\.html#L-(\d+)"[^>]*>(.*?)</a>', page
    )
    assert found
    for file, line, text in found:
        name = re.sub(r"<[^>]+>", "", text).split(".")[-1]
        source = (ROOT / file).read_text(encoding="utf-8").splitlines()[int(line) - 1]
        assert re.search(rf"(def|class) {re.escape(name)}\b|^{re.escape(name)}\b", source.strip())


def test_nothing_is_linked_within_code_by_its_number(site):
    """A format like {x:8.3f} is no equation, though there is one of this number."""
    for page in sorted((site.pages / "tutorials").glob("*.html")):
        code = "".join(re.findall(r"<pre.*?</pre>", text_of(page), flags=re.S))
        assert "#equation-" not in code, page.name


def test_every_tutorial_ran_and_can_be_downloaded(site):
    for script in sorted((ROOT / "tutorials").glob("[0-9]*.py")):
        page = text_of(site.pages / "tutorials" / f"{script.stem}.html")
        assert "sphx-glr-script-out" in page or "Not run here" in page, script.name
        for kind in ("py", "ipynb"):
            assert re.search(rf'href="\.\./_downloads/\w+/{script.stem}\.{kind}"', page), (
                script.name
            )
