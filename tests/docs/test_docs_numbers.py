"""Parameters, state and multiplications in the tables are those of the models."""

import ast
from pathlib import Path

import pytest
from book import ROOT, section, table_rows

from midpg_np.models import MODELS, make_model

MODELS_PAGE = ROOT / "docs" / "models.md"
COSTS_OF = {"pepnet": {"prior_fields": (2, 3, 4, 5)}}  # as in benchmarks/model_costs.py
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


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


def test_the_cost_of_a_step(monkeypatch):
    """Multiplications forward and backward exactly, bytes kept to one percent."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from step_costs import step_costs

    rows = table_rows(section("12"), 4)
    assert [cells[0].strip("`") for cells in rows] == list(MODELS)
    for name, *numbers in rows:
        forward, backward, kept = step_costs(name.strip("`"))
        assert (forward, backward) == tuple(map(int, numbers[:2])), name
        assert kept == pytest.approx(int(numbers[2]), rel=0.01), name
