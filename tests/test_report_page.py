"""The report of a run in a real browser: nothing is fetched, nothing fails, nothing is cut off."""

from dataclasses import replace

import pytest
from browser import (
    NEEDS_BROWSER,
    assert_fits,
    assert_quiet,
    assert_stands_alone,
    browse,
    measure,
)

from midpg_np.data import load_dataset
from midpg_np.experiments.comparison import build_model, train_and_test
from midpg_np.training.config import TrainConfig
from midpg_np.training.run import write_run

pytestmark = NEEDS_BROWSER


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


@pytest.fixture(scope="module", params=[400, 1400])
def seen(request, report, tmp_path_factory):
    """Width of the page, what the script measured in it, and the browser's messages."""
    return request.param, *measure(report, request.param, tmp_path_factory.mktemp("browser"))


def test_the_file_refers_to_nothing_outside(report):
    assert_stands_alone(report.read_text(encoding="utf-8"))


def test_it_loads_without_errors_and_requests(seen):
    _, measured, messages = seen
    assert_quiet(measured, messages)
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


def test_the_page_fits_its_width(seen):
    width, measured, _ = seen
    assert_fits(measured, width)


def test_pictures_are_large_enough(seen):
    _, measured, _ = seen
    for is_loaded, natural_width, shown_width, text in measured["images"]:
        assert is_loaded and natural_width > 1000 and shown_width > 700
        assert text == "Training and validation curves of midpg and dnn"
    assert len(measured["images"]) == 1


def test_tables_have_headers(seen):
    _, measured, _ = seen
    (result, scenarios, *words) = measured["tables"]
    assert result == [9, 9, True] and scenarios == [7, 7, True]
    assert words == [[0, 2, True]] * 4  # midpg, dnn, data, versions: a header before each value
