"""AUC and LogLoss: over all rows, per scenario, and macro (the mean over scenarios)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from midpg_np.ops import sigmoid


@dataclass(frozen=True)
class ScenarioMetrics:
    """Metrics of the rows of one scenario; None where a metric is not defined, LogLoss in nats."""

    name: str
    n_rows: int
    positive_rate: float | None
    auc: float | None
    logloss: float | None


@dataclass(frozen=True)
class Metrics:
    """Metrics of a data set.

    Parameters
    ----------
    auc, logloss, positive_rate : float or None
        Over all rows; LogLoss in nats.
    macro_auc, macro_logloss : float or None
        Mean over the scenarios in which the metric is defined.
    n_rows : int
        Number of rows.
    scenarios : tuple of ScenarioMetrics
        One per scenario, by scenario id.
    """

    n_rows: int
    positive_rate: float | None
    auc: float | None
    logloss: float | None
    macro_auc: float | None
    macro_logloss: float | None
    scenarios: tuple[ScenarioMetrics, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain dictionaries and lists, ready for JSON; an undefined metric is null."""
        result = asdict(self)
        result["scenarios"] = list(result["scenarios"])
        return result


def evaluate_logits(
    logits: np.ndarray,
    label: np.ndarray,
    scenario: np.ndarray,
    scenario_names: Sequence[str],
) -> Metrics:
    """Compute all metrics from logits, with scikit-learn's functions.

    AUC ranks the logits themselves: probabilities of confident rows round to 1 and would tie.
    A scenario without rows has no metric, and one with a single class no AUC.  Rows of an unknown
    scenario (-1) count in the overall metrics only.

    Shapes
    ------
    logits : (N,)
    label : (N,)
    scenario : (N,)

    Raises
    ------
    ValueError
        If a logit is not finite or the lengths differ.
    """
    logits = np.asarray(logits, dtype=np.float64)
    if not logits.shape == np.shape(label) == np.shape(scenario):
        raise ValueError(
            f"logits, label and scenario must have one length; got {logits.shape}, "
            f"{np.shape(label)} and {np.shape(scenario)}."
        )
    is_bad = ~np.isfinite(logits)
    if is_bad.any():
        row = int(np.argmax(is_bad))
        raise ValueError(f"logits must be finite; got {logits[row]} at row {row}.")
    # Sorted by scenario, each scenario is a slice; one sort instead of D searches.
    order = np.argsort(scenario, kind="stable")
    cuts = np.searchsorted(np.asarray(scenario)[order], np.arange(len(scenario_names) + 1))
    parts = [
        _scenario_metrics(name, logits[order[start:stop]], label[order[start:stop]])
        for name, start, stop in zip(scenario_names, cuts[:-1], cuts[1:], strict=True)
    ]
    whole = _scenario_metrics("all", logits, label)
    return Metrics(
        n_rows=whole.n_rows,
        positive_rate=whole.positive_rate,
        auc=whole.auc,
        logloss=whole.logloss,
        macro_auc=_mean([part.auc for part in parts]),
        macro_logloss=_mean([part.logloss for part in parts]),
        scenarios=tuple(parts),
    )


def _scenario_metrics(name: str, logits: np.ndarray, label: np.ndarray) -> ScenarioMetrics:
    from sklearn.metrics import log_loss, roc_auc_score

    if label.size == 0:
        return ScenarioMetrics(str(name), 0, None, None, None)
    positive_rate = float(np.mean(label))
    auc = float(roc_auc_score(label, logits)) if 0.0 < positive_rate < 1.0 else None
    logloss = float(log_loss(label, sigmoid(logits)[0], labels=[0, 1]))
    return ScenarioMetrics(str(name), int(label.size), positive_rate, auc, logloss)


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def format_metric(value: float | None, digits: int = 4) -> str:
    """Return the value with ``digits`` decimals, or "n/a"."""
    return "n/a" if value is None else f"{value:.{digits}f}"
