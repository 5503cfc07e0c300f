"""Options of models and training: defaults as documented, every value named is accepted."""

import ast
import re
from dataclasses import fields

import pytest
from book import ROOT, literals, section, table_rows

from midpg_np.models import DNN, MIDPG, MODELS, make_model
from midpg_np.training.config import TrainConfig


def option_rows():
    """Option, default and other values, from tables 3.6 and 3.8."""
    rows = [(cells[0], cells[1], "") for cells in table_rows(section("3.6"), 4)]
    rows += [tuple(cells[2:5]) for cells in table_rows(section("3.8"), 6)]
    return [row for row in rows if row[0] != "–"]


@pytest.mark.parametrize("row", option_rows(), ids=lambda row: row[0].replace("`", ""))
def test_defaults(row):
    option, default, others = row
    name = re.match(r"`(\w+)`", option)[1]
    kind = TrainConfig if "TrainConfig" in option else MIDPG
    (expected,) = literals(default)
    assert {field.name: field.default for field in fields(kind)}[name] == expected
    if "every name" in others:
        return
    sizes = {"vocab_sizes": (3, 2), "n_aware": 1, "n_scenarios": 2}
    for value in literals(others):
        assert value != expected
        kind(**(sizes if kind is MIDPG else {}), **{name: value})


def test_every_option_is_documented():
    documented = {re.match(r"`(\w+)`", option)[1] for option, *_ in option_rows()}
    options = {field.name for field in fields(MIDPG)}
    assert options - documented == {"vocab_sizes", "n_aware", "n_scenarios"}


TRAINING = (ROOT / "docs" / "training.md").read_text().split("\n## Options")[1].split("\n## ")[0]


def test_options_of_the_training():
    rows = {row[0].strip("`"): row[1].strip("`") for row in table_rows(TRAINING, 3)}
    assert rows.keys() == {field.name for field in fields(TrainConfig)}
    for option, default in rows.items():
        assert getattr(TrainConfig(), option) == ast.literal_eval(default), option


# Section with the table of a model's options, beyond those of DNN.
OPTION_TABLES = {
    "ple": "5.2",
    "star": "6.2",
    "pepnet": "7.2",
    "adasparse": "8.2",
    "apg": "9.2",
    "optmsm": "10.2",
}
SMALL_DATA = {"vocab_sizes": (30, 20, 10), "n_aware": 1, "n_scenarios": 2}


@pytest.mark.parametrize("kind", OPTION_TABLES)
def test_option_tables_of_the_comparison_systems(kind):
    """Every option has a row with its default, and every value named there is accepted."""
    rows = table_rows(section(OPTION_TABLES[kind]), 4)
    defaults = {field.name: field.default for field in fields(MODELS[kind])}
    own = defaults.keys() - {field.name for field in fields(DNN)}
    assert {cells[0].strip("`") for cells in rows} == own
    for option, default, others, _ in rows:
        name = option.strip("`")
        assert literals(default) == [defaults[name]], name
        for value in literals(others):
            assert value != defaults[name], name
            make_model(kind, **SMALL_DATA, **{name: value})
