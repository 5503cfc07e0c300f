"""``midpg gradcheck``: right backwards pass, a wrong one is named and decides the exit code."""

import json
from importlib import import_module

import numpy as np
import pytest
from midpg_command import midpg, midpg_process, one_sentence, words

from midpg_np.checks import GradientReport, check_gradients
from midpg_np.checks.catalogue import CASES, Sizes
from midpg_np.experiments.small_models import MODEL_CASES
from midpg_np.layers import embedding

gradcheck = import_module("midpg_np.commands.gradcheck")


def test_a_selection_as_a_table():
    outcome = midpg("gradcheck", "softmax", "dnn")
    assert (outcome.code, outcome.err) == (0, "")
    text = words(outcome.out)
    for name in ("softmax", "dnn"):
        line = next(line for line in outcome.out.splitlines() if words(line).startswith(name))
        assert words(line).endswith(" ok")
    assert "dpg" not in text


def test_json_and_seed():
    first = json.loads(midpg("gradcheck", "softmax", "--json").out)
    again = json.loads(midpg("gradcheck", "softmax", "--json").out)
    other = json.loads(midpg("gradcheck", "softmax", "--json", "--seed", 1).out)
    assert first == again != other
    (report,) = first
    assert report["name"] == "softmax" and report["ok"] and report["failures"] == []
    assert 0 < report["complex_step_error"] < 1e-14 < report["difference_error"] < 1e-7
    assert report["entries"] > 0


def test_a_broken_backward_is_named_by_its_entry(monkeypatch):
    right = embedding.RowGradient
    monkeypatch.setattr(embedding, "RowGradient", lambda ids, rows, n: right(ids, rows / 2, n))
    outcome = midpg("gradcheck", "embedding rows", "softmax")
    assert outcome.code == 1
    assert outcome.err.startswith("embedding rows: d/d") and "Traceback" not in outcome.err
    assert "backward gives" in outcome.err and "complex step gives" in outcome.err
    assert "WRONG" in outcome.out and "softmax" in outcome.out
    failed = midpg("gradcheck", "embedding rows", "softmax", "--json")
    assert failed.code == 1
    verdicts = {report["name"]: report["ok"] for report in json.loads(failed.out)}
    assert verdicts == {"softmax": True, "embedding rows": False}


def test_an_unknown_name_lists_the_known_ones():
    message = one_sentence(midpg("gradcheck", "sofmax"))
    assert message.startswith("no check is called ['sofmax']; there are affine, softmax,")


def test_models_of_full_size(monkeypatch):
    (report,) = json.loads(midpg("gradcheck", "--full-size", "dnn", "--json").out)
    assert report["ok"] and report["entries"] > 150_000 and report["difference_error"] is None
    right = embedding.RowGradient
    monkeypatch.setattr(embedding, "RowGradient", lambda ids, rows, n: right(ids, rows / 2, n))
    outcome = midpg("gradcheck", "--full-size", "dnn")
    assert outcome.code == 1
    assert outcome.err.startswith("dnn: d/dembedding.table along a random direction: backward")
    assert outcome.err.count("\n") == 1
    assert "WRONG" in outcome.out


def test_without_names_everything_is_checked(monkeypatch):
    monkeypatch.setattr(gradcheck, "FEW", 1000)  # in this process, where the stand-in is
    monkeypatch.setattr(gradcheck, "check_small", lambda name, seed: GradientReport(name, ()))
    names = [report["name"] for report in json.loads(midpg("gradcheck", "--json").out)]
    assert names == [*CASES, *MODEL_CASES]
    assert {"dnn", "midpg r grouped", "midpg r textbook"} <= set(names)


@pytest.mark.slow
def test_many_checks_share_the_cores():
    """Reports come in the order of the list, whichever process is done first."""
    parts = ("entropy", "l2", "relu", "sparsity", "dnn")
    names = [name for name in CASES | MODEL_CASES if any(part in name for part in parts)]
    assert len(names) > gradcheck.FEW
    outcome = midpg_process("gradcheck", *parts, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    reports = json.loads(outcome.out)
    assert [report["name"] for report in reports] == names
    assert all(report["ok"] for report in reports)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODEL_CASES)
def test_every_model_passes(name):
    """Some entries of what the command checks; ``test_gradients.py`` has the ops and layers."""
    case = MODEL_CASES[name](Sizes(), np.random.default_rng(0))
    check_gradients(case, np.random.default_rng(0), max_entries=3).raise_if_wrong()
