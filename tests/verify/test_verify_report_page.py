"""The page of a comparison in a real browser: nothing is fetched, all is there and readable."""

import pytest
from browser import NEEDS_BROWSER, assert_fits, assert_quiet, assert_stands_alone, measure
from sizes import small_case

from midpg_np.verify.compare import compare
from midpg_np.verify.mistakes import MISTAKES
from midpg_np.verify.outcome import outcome
from midpg_np.verify.report import render_comparison

pytestmark = NEEDS_BROWSER


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Write the page of a dump with many wrong arrays, of one axis, two and three."""
    pytest.importorskip("matplotlib", reason="the page holds heat maps")
    case = small_case("midpg")
    found = outcome(case.model, case.given, [MISTAKES["sigmoid missing on the core"]])
    comparison = compare(case, {k: v for k, v in found.items() if k in case.arrays})
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render_comparison(comparison), encoding="utf-8")
    return path


@pytest.fixture(scope="module", params=[400, 1400])
def seen(request, report, tmp_path_factory):
    """Width of the page, what the script measured in it, and the browser's messages."""
    return request.param, *measure(report, request.param, tmp_path_factory.mktemp("browser"))


def test_it_stands_alone(report):
    assert_stands_alone(report.read_text(encoding="utf-8"))


def test_it_loads_without_errors_and_requests(seen):
    _, measured, messages = seen
    assert_quiet(measured, messages)
    assert measured["headings"] == [
        "midpg: dump against case",
        "What differs",
        "Where the errors sit",
        "All that was compared",
        "Case",
    ]


def test_it_fits_its_width(seen):
    width, measured, _ = seen
    assert_fits(measured, width)


def test_heat_maps_are_shown_and_named(seen):
    width, measured, _ = seen
    assert len(measured["images"]) == 12
    for is_loaded, natural_width, shown_width, text in measured["images"]:
        assert is_loaded and natural_width > 200
        assert shown_width == min(natural_width, shown_width) <= width
        assert text.startswith("Error of ")
    assert measured["images"][0][3] == "Error of layer_1.Q by entry"


def test_tables_have_headers(seen):
    _, measured, _ = seen
    assert measured["tables"] == [[6, 6, True], [6, 6, True], [2, 2, True]]
