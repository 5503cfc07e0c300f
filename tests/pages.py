"""Pages of the documentation whose examples the tests run.

Digits may differ between machines, so they are compared as digits; words and layout as they are.
"""

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def blocks(page):
    """Language and text of every code block of a page."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, flags=re.M | re.S)


def shape(text):
    """Lines with every number replaced by "0", since their length may differ too."""
    lines = re.sub(r"\d[\d,.]*(?:e[-+]\d+)?", "0", text).strip().splitlines()
    return [re.sub(r"[ ─━]+", " ", line).strip() for line in lines]


def assert_shown(shown, printed, command):
    """Assert that the page shows what was printed; "..." stands for any lines."""
    pieces = "\n".join(shape(shown)).split("...")
    pattern = ".*".join(map(re.escape, pieces))
    assert re.fullmatch(pattern, "\n".join(shape(printed)), flags=re.S), f"{command}\n{printed}"
