"""The report of a run in a real browser: nothing is fetched, nothing fails, nothing is cut off.

The page is measured by a small script that is put into a copy of it and writes what it finds into
the page around it, which Chromium then prints.  The copy stands in a frame, because Chromium's own
windows are at least 500 pixels wide.
"""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import escape, unescape

import pytest

from midpg_np.data import load_dataset
from midpg_np.experiments.comparison import build_model, train_and_test
from midpg_np.training.config import TrainConfig
from midpg_np.training.run import write_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine"),
]

MEASURE = """
<script>
window.addEventListener("load", () => {
  const root = document.documentElement;
  const all = selector => [...document.querySelectorAll(selector)];
  const outside = all("main *").filter(e => !e.closest(".scroll")
    && e.getBoundingClientRect().right > window.innerWidth + 0.5);
  const measured = {
    inner_width: window.innerWidth,
    scroll_width: root.scrollWidth,
    outside: outside.map(e => e.tagName),
    images: all("img").map(i => [i.complete, i.naturalWidth, i.clientWidth, i.alt]),
    resources: performance.getEntriesByType("resource").map(r => r.name.slice(0, 40)),
    tables: all("table").map(t => [
      t.querySelectorAll("th[scope=col]").length,
      Math.max(...[...t.rows].map(r => r.cells.length)),
      [...t.tBodies].every(b => [...b.rows].every(r => r.cells[0].matches("th[scope=row]"))),
    ]),
    smallest_font: Math.min(...all("main *").map(e => parseFloat(getComputedStyle(e).fontSize))),
    boxes_by_keyboard: all(".scroll").every(e => e.tabIndex === 0),
    headings: all("h1, h2").map(e => e.textContent),
  };
  const place = document.createElement("pre");
  place.id = "measured";
  place.textContent = JSON.stringify(measured);
  parent.document.body.append(place);
});
</script>
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Write the report of two short trainings, with names as long as real ones are."""
    pytest.importorskip("matplotlib", reason="the report holds a picture")
    splits = load_dataset("synthetic", n_rows=3000)
    config = TrainConfig(epochs=2, batch_size=256)
    results = {}
    for name in ("midpg", "dnn"):
        model = build_model(name, splits.train, {"hidden": (16, 8)})
        result = train_and_test(model, splits, config)
        scenarios = (
            replace(result.metrics.scenarios[0], name="Computers & Accessories " * 3),
            replace(result.metrics.scenarios[1], name="x" * 80, auc=None),
            *result.metrics.scenarios[2:],
        )
        results[name] = replace(result, metrics=replace(result.metrics, scenarios=scenarios))
    folder = tmp_path_factory.mktemp("report")
    about = {"name": "synthetic", "notes": ["One long note. " * 12, "y" * 120]}
    line = "MIDPG: 36 parameter arrays agree with the complex step along a random direction."
    return write_run(folder / "run", results, data=about, gradient_check=line)


def browse(page, folder):
    """Open a page; return its document and the browser's messages."""
    switches = (
        *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update"),
        *("--enable-logging=stderr", f"--user-data-dir={folder}"),
    )
    command = [CHROMIUM, *switches, "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.fixture(scope="module", params=[400, 1400])
def seen(request, report, tmp_path_factory):
    """Width of the page, what the script measured in it, and the browser's messages."""
    folder = tmp_path_factory.mktemp("browser")
    text = report.read_text(encoding="utf-8").replace("</body>", f"{MEASURE}</body>")
    frame = f'<iframe width="{request.param}" height="900" srcdoc="{escape(text)}"></iframe>'
    page = folder / "frame.html"
    page.write_text(f"<!doctype html><html><body>{frame}</body></html>", encoding="utf-8")
    document, messages = browse(page, folder / "profile")
    measured = re.search(r'<pre id="measured">(.*?)</pre>', document, re.S)[1]
    return request.param, json.loads(unescape(measured)), messages


def test_the_file_refers_to_nothing_outside(report):
    text = report.read_text(encoding="utf-8")
    assert not re.search(r"https?:", text)
    sources = re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?([^\"')\s]{1,30})", text)
    assert sources and all(source.startswith("data:image/png;base64,") for source in sources)
    assert "<script" not in text


def test_it_loads_without_errors_and_requests(seen):
    _, measured, messages = seen
    assert not re.search(r"CONSOLE", messages), messages
    assert all(name.startswith("data:") for name in measured["resources"])
    assert measured["headings"] == [
        "Training of midpg",
        "Result",
        "Curves",
        "Scenarios",
        "Gradients",
        "Configuration",
    ]


def test_a_message_of_the_console_would_be_seen(tmp_path):
    page = tmp_path / "page.html"
    page.write_text("<script>nothing.there()</script>", encoding="utf-8")
    assert "CONSOLE" in browse(page, tmp_path / "profile")[1]


def test_the_page_does_not_scroll_sideways(seen):
    width, measured, _ = seen
    assert measured["inner_width"] == width
    assert measured["scroll_width"] <= width
    assert measured["outside"] == []
    assert measured["boxes_by_keyboard"]


def test_pictures_and_text_are_large_enough(seen):
    _, measured, _ = seen
    assert measured["smallest_font"] >= 14
    for is_loaded, natural_width, shown_width, text in measured["images"]:
        assert is_loaded and natural_width > 1000 and shown_width > 700
        assert text == "Training and validation curves of midpg and dnn"
    assert len(measured["images"]) == 1


def test_tables_have_headers(seen):
    _, measured, _ = seen
    (result, scenarios, *words) = measured["tables"]
    assert result == [9, 9, True] and scenarios == [7, 7, True]
    assert words == [[0, 2, True]] * 4  # midpg, dnn, data, versions: a header before each value
