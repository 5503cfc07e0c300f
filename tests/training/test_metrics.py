"""Metrics against values worked out by hand."""

import json
import math

import numpy as np
import pytest

from midpg_np.training.metrics import evaluate_logits, format_metric


def logit(p):
    return math.log(p / (1 - p))


def test_hand_values_overall_by_scenario_and_macro():
    # Scenario a: of the four pairs (positive, negative), three are in order.  b: the only pair is.
    logits = np.array([logit(0.8), logit(0.4), logit(0.6), logit(0.2), logit(0.9), logit(0.5)])
    label = np.array([1.0, 1.0, 0.0, 0.0, 1.0, 0.0])
    scenario = np.array([0, 0, 0, 0, 1, 1])
    metrics = evaluate_logits(logits, label, scenario, ("a", "b"))
    a, b = metrics.scenarios
    assert (a.auc, b.auc) == (0.75, 1.0)
    assert metrics.macro_auc == 0.875
    assert metrics.auc == pytest.approx(7 / 9)  # 0.4 stands below the negatives 0.5 and 0.6
    assert a.logloss == pytest.approx(-np.log([0.8, 0.4, 0.4, 0.8]).mean())
    assert b.logloss == pytest.approx(-np.log([0.9, 0.5]).mean())
    assert (a.n_rows, b.n_rows, a.positive_rate) == (4, 2, 0.5)
    assert metrics.logloss == pytest.approx((4 * a.logloss + 2 * b.logloss) / 6)


def test_one_class_and_empty_scenarios_have_no_auc():
    logits, label = np.array([0.3, -0.2, 1.0, -1.0]), np.array([1.0, 1.0, 1.0, 0.0])
    metrics = evaluate_logits(logits, label, np.array([0, 0, 2, 2]), ("one", "empty", "both"))
    one, empty, both = metrics.scenarios
    assert one.auc is None and one.logloss is not None
    assert (empty.n_rows, empty.positive_rate, empty.auc, empty.logloss) == (0, None, None, None)
    assert both.auc == 1.0
    assert metrics.macro_auc == 1.0
    assert format_metric(one.auc) == "n/a"
    assert json.loads(json.dumps(metrics.as_dict()))["scenarios"][0]["auc"] is None


def test_no_rows_at_all():
    metrics = evaluate_logits(np.zeros(0), np.zeros(0), np.zeros(0, int), ("a",))
    assert (metrics.auc, metrics.macro_auc, metrics.logloss) == (None, None, None)


def test_confident_rows_do_not_tie():
    """At logits 50 and 60 both probabilities are 1.0 in float64; the ranks still count."""
    metrics = evaluate_logits(
        np.array([50.0, 60.0]), np.array([0.0, 1.0]), np.zeros(2, int), ("a",)
    )
    assert metrics.auc == 1.0
    assert math.isfinite(metrics.logloss)


def test_unknown_scenarios_count_overall_only():
    logits, label = np.array([1.0, -1.0, 2.0]), np.array([1.0, 0.0, 0.0])
    metrics = evaluate_logits(logits, label, np.array([0, 0, -1]), ("a",))
    assert metrics.n_rows == 3 and metrics.scenarios[0].n_rows == 2
    assert metrics.auc == 0.5 and metrics.scenarios[0].auc == 1.0


def test_logits_that_are_not_finite_are_named():
    with pytest.raises(ValueError, match="got nan at row 1"):
        evaluate_logits(np.array([0.0, np.nan]), np.zeros(2), np.zeros(2, int), ("a",))
    with pytest.raises(ValueError, match="one length"):
        evaluate_logits(np.zeros(2), np.zeros(3), np.zeros(2, int), ("a",))
