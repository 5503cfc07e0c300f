"""What the README promises: MI-DPG is ahead on synthetic data, and every real data set trains."""

import json

import pytest
from midpg_command import midpg

REAL = {
    "marketbias": ("marketbias-electronics", "Headphones"),
    "iaac": ("iaac", "8277336076276184272"),
    "kuairand": ("kuairand-pure", "1"),
    "online-shoppers": ("online-shoppers", "Returning_Visitor"),
}


@pytest.mark.slow
def test_midpg_beats_the_plain_network_on_synthetic_data(tmp_path):
    """One seed; docs/results.md has five."""
    outcome = midpg("train", "--json", "--out", tmp_path / "run")
    assert json.loads(outcome.out)["difference"]["auc"]["mean"] > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_real_rows_train_end_to_end(name, shared, tmp_path):
    folder, scenario = REAL[name]
    options = ("--data", name, "--path", shared(folder), "--epochs", 1, "--out", tmp_path / "run")
    outcome = midpg("train", *options)
    assert outcome.code == 0, outcome.err
    table = {line.split("│")[1].strip(): line for line in outcome.out.splitlines() if "│" in line}
    for row in ("all rows", scenario):
        auc_midpg, _, auc_dnn, _ = map(float, table[row].split("│")[4:8])
        assert 0.4 < auc_midpg < 1 and 0.4 < auc_dnn < 1
    assert (tmp_path / "run" / "report.html").exists()
    assert (tmp_path / "run" / "baseline" / "model.safetensors").exists()
