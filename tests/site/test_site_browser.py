"""The site in a real browser: every page, its formulas, its pictures, at two widths; the search."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from browser import NEEDS_BROWSER
from matplotlib.image import imread
from site_server import command

pytestmark = NEEDS_BROWSER

WIDTHS = (400, 1400)
SMALLEST_FONT = 13
# Page, width and height of the pictures that are kept for a look.
PICTURES = {
    "front": ("index.html", 1400, 900),
    "derivation": ("derivations/weighting.html", 1400, 2000),
    "tutorial": ("tutorials/05_hadamard_weighting.html", 1400, 2000),
    "api": ("api/layers-midpg.html", 1400, 2000),
}


@pytest.fixture(scope="module")
def seen(site, server, once):
    """What the browser saw on every page, and what it and the server said."""

    def walk(folder):
        job = {"pages": [f"/{page}" for page in pages_to_walk(site)], "widths": WIDTHS}
        result, messages = server.walk(job, folder)
        assert result.keys() == set(job["pages"])
        found = {"pages": result, "messages": messages, "errors": server.http.errors}
        (folder / "seen.json").write_text(json.dumps(found), encoding="utf-8")

    return json.loads((once("walk", walk) / "seen.json").read_text(encoding="utf-8"))


def pages_to_walk(site):
    """Every page, but of those with source text, which are all alike, only three."""
    pages = [page.relative_to(site.pages).as_posix() for page in site.pages.rglob("*.html")]
    sources = sorted(page for page in pages if page.startswith("source/"))
    walked = sorted(page for page in pages if not page.startswith(("source/", "_static/")))
    return [*walked, sources[0], sources[len(sources) // 2], sources[-1]]


def test_pages_load_without_errors(seen):
    pages = seen["pages"]
    assert not [page for page, what in pages.items() if "failed" in what]
    assert not [page for page, what in pages.items() if not what["heading"]]
    said = [
        line for line in seen["messages"].splitlines() if "CONSOLE" in line and "[PST]" not in line
    ]
    assert not said, said[:5]
    assert [error for error in seen["errors"] if "favicon" not in error] == []


def test_formulas_are_typeset(seen):
    pages = seen["pages"]
    assert sum(what["formulas"] for what in pages.values()) > 1000
    for page, what in pages.items():
        assert what["typeset"] == what["formulas"], page
        assert (what["wrong"], what["raw"]) == ([], []), page


def test_pictures_load_and_nothing_comes_from_elsewhere(seen):
    for page, what in seen["pages"].items():
        assert (what["images"], what["elsewhere"]) == ([], []), page


@pytest.mark.parametrize("width", WIDTHS)
def test_pages_fit_and_can_be_read(seen, width):
    for page, what in seen["pages"].items():
        layout = what["layouts"][str(width)]
        assert layout["inner"] == width
        assert layout["scroll"] <= width and layout["outside"] == [], (page, layout)
        assert layout["font"] >= SMALLEST_FONT, page


def test_the_search_finds(server, tmp_path):
    page = "/search.html?q=repeat_backward"
    job = {"pages": [page], "widths": [1400], "until": "#search-results li"}
    result, _ = server.walk(job, tmp_path)
    found = " ".join(result[page]["found"])
    assert re.search(r"midpg_np\.layers\.repeat\.repeat_backward", found)


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_of_pages(server, tmp_path, name):
    page, width, height = PICTURES[name]
    folder = Path(os.environ.get("MIDPG_SITE_PICTURES", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)  # Chromium makes none, and says nothing
    picture = folder / f"{name}.png"
    switches = ("--virtual-time-budget=8000", f"--window-size={width},{height}")
    subprocess.run(
        [*command(tmp_path), *switches, f"--screenshot={picture}", f"{server.address}/{page}"],
        capture_output=True,
        check=True,
        timeout=120,
    )
    pixels = imread(picture)
    assert pixels.shape[:2] == (height, width)
    assert (pixels[..., :3].min(axis=2) < 0.5).mean() > 0.01  # there is text
