"""Pages in a real browser: measured by a script, at any width, with the browser's own messages.

A page is measured by a small script that is put into a copy of it and writes what it finds into
the page around it, which Chromium then prints.  The copy stands in a frame, because Chromium's own
windows are at least 500 pixels wide.
"""

import json
import re
import shutil
import subprocess
from html import escape, unescape

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
NEEDS_BROWSER = [
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


def measure(report, width, folder):
    """Return what the script measures in a page of a width, and the browser's messages."""
    text = report.read_text(encoding="utf-8").replace("</body>", f"{MEASURE}</body>")
    frame = f'<iframe width="{width}" height="900" srcdoc="{escape(text)}"></iframe>'
    page = folder / "frame.html"
    page.write_text(f"<!doctype html><html><body>{frame}</body></html>", encoding="utf-8")
    document, messages = browse(page, folder / "profile")
    measured = re.search(r'<pre id="measured">(.*?)</pre>', document, re.S)[1]
    return json.loads(unescape(measured)), messages


def assert_stands_alone(text):
    """Assert that a page refers to nothing outside, and runs nothing."""
    assert not re.search(r"https?:", text)
    sources = re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?([^\"')\s]{1,30})", text)
    assert sources and all(source.startswith("data:image/png;base64,") for source in sources)
    assert "<script" not in text


def assert_quiet(measured, messages):
    """Assert that a page loaded without errors and asked for nothing."""
    assert not re.search(r"CONSOLE", messages), messages
    assert all(name.startswith("data:") for name in measured["resources"])


def assert_fits(measured, width):
    """Assert that a page is readable at a width: nothing sticks out, no text is small."""
    assert measured["inner_width"] == width
    assert measured["scroll_width"] <= width
    assert measured["outside"] == []
    assert measured["boxes_by_keyboard"]
    assert measured["smallest_font"] >= 14
