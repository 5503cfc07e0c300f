"""Paired comparisons over seeds: t-test, Wilcoxon's signed-rank test, Holm's correction.

Every system is trained with the same seeds on the same rows, so two systems are compared seed by
seed.  The tests say how sure a difference is over seeds on *these* rows; they do not say that it
would be found on other rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from midpg_np.experiments.comparison import mean_and_std

# A metric and whether larger is better.
METRICS: dict[str, bool] = {"auc": True, "logloss": False, "macro_auc": True}
SIGNIFICANT = 0.05
# Differences are rounded before they are ranked: equal ones may differ in their last bits.
_DIGITS = 12
# Up to so many pairs the signs of tied differences are tried out one by one (2^13 cases).
_MOST_TRIED = 13

# By seed; seeds that failed, or for which a metric is not defined, are absent.
BySeed = Mapping[int, float]


@dataclass(frozen=True)
class Paired:
    """What ``system - reference`` is over the seeds that both have.

    Parameters
    ----------
    mean, std : float or None
        Mean and sample standard deviation of the differences; None without pairs (for the standard
        deviation: with fewer than two).
    low, high : float or None
        95 % confidence interval of the mean by Student's t; None with fewer than two pairs.
    n_pairs : int
        Seeds that both have.
    n_better : int
        Seeds in which the system is better; a tie counts for neither.
    n_tied : int
        Seeds in which both are equal.
    t : float or None
        Student's t of the differences; None where it is not defined.
    p_t, p_wilcoxon : float or None
        Two-sided p-values; None where a test is not defined.
    holm_t, holm_wilcoxon : float or None
        The same after Holm's correction over all systems compared with this reference.
    """

    mean: float | None
    std: float | None
    low: float | None
    high: float | None
    n_pairs: int
    n_better: int
    n_tied: int
    t: float | None
    p_t: float | None
    p_wilcoxon: float | None
    holm_t: float | None = None
    holm_wilcoxon: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return a dictionary, ready for JSON."""
        return asdict(self)


def summarise(values: BySeed) -> dict[str, Any]:
    """Return {seeds, values, mean, std}; mean is None without values, std with fewer than two."""
    mean, std = mean_and_std(list(values.values())) if values else (None, None)
    return {"seeds": list(values), "values": list(values.values()), "mean": mean, "std": std}


def compare(
    systems: Mapping[str, BySeed], reference: str, *, larger_is_better: bool = True
) -> dict[str, Paired]:
    """Compare every system with one of them, with Holm's correction over the systems.

    Parameters
    ----------
    systems : mapping of name to values by seed
        The reference among them.
    reference : str
        Name of the system that all others are compared with.
    larger_is_better : bool
        What ``n_better`` counts.

    Returns
    -------
    dict
        By name, without the reference.

    Raises
    ------
    ValueError
        If the reference is not among the systems.
    """
    if reference not in systems:
        raise ValueError(f"reference must be one of {list(systems)}; got {reference!r}.")
    found = {
        name: paired(values, systems[reference], larger_is_better=larger_is_better)
        for name, values in systems.items()
        if name != reference
    }
    of_t = holm([pair.p_t for pair in found.values()])
    of_wilcoxon = holm([pair.p_wilcoxon for pair in found.values()])
    return {
        name: replace(pair, holm_t=p_t, holm_wilcoxon=p_w)
        for (name, pair), p_t, p_w in zip(found.items(), of_t, of_wilcoxon, strict=True)
    }


def paired(values: BySeed, reference: BySeed, *, larger_is_better: bool = True) -> Paired:
    """Compare two systems on the seeds that both have.

    With fewer than two pairs no test is defined.  Where all pairs are equal, both p-values are 1:
    nothing speaks for a difference.  Where all pairs differ by the same amount, t is not defined
    (it would be infinite), Wilcoxon's test is.
    """
    seeds = sorted(set(values) & set(reference))
    d = np.round([values[seed] - reference[seed] for seed in seeds], _DIGITS)
    better = d > 0 if larger_is_better else d < 0
    counts = (len(d), int(better.sum()), int((d == 0).sum()))
    if len(d) == 0:
        return Paired(None, None, None, None, *counts, None, None, None)
    mean, std = mean_and_std(d.tolist())
    if std is None:
        return Paired(mean, None, None, None, *counts, None, None, None)
    if not d.any():
        return Paired(0.0, 0.0, 0.0, 0.0, *counts, None, 1.0, 1.0)
    if np.ptp(d) == 0:
        return Paired(mean, 0.0, mean, mean, *counts, None, None, wilcoxon(d))
    from scipy import stats

    test = stats.ttest_1samp(d, 0.0)
    low, high = test.confidence_interval(0.95)
    numbers = (float(test.statistic), float(test.pvalue), wilcoxon(d))
    return Paired(mean, std, float(low), float(high), *counts, *numbers)


def wilcoxon(differences: np.ndarray) -> float | None:
    """Return the two-sided p-value of Wilcoxon's signed-rank test.

    Zeros are left out (Wilcoxon's own rule).  Exact up to 50 differences without ties and up to 13
    with ties; by the normal approximation beyond.

    Shapes
    ------
    differences : (n,)
    """
    from scipy import stats

    d = np.asarray(differences, dtype=np.float64)
    if len(d) < 2:
        return None
    d = d[d != 0]
    if len(d) == 0:
        return 1.0
    if len(np.unique(np.abs(d))) == len(d):
        method: Any = "exact" if len(d) <= 50 else "auto"
    elif len(d) <= _MOST_TRIED:
        method = stats.PermutationMethod(n_resamples=2**_MOST_TRIED)
    else:
        method = "auto"
    return float(stats.wilcoxon(d, method=method).pvalue)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust p-values for being several, by Holm's step-down rule.

    The smallest of m is multiplied by m, the next by m - 1, and so on; none may become smaller
    than one before it, or larger than 1.  Tests that are not defined (None) stay so and are not
    counted.
    """
    adjusted: list[float | None] = [None] * len(p_values)
    defined = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    largest = 0.0
    for rank, (p, i) in enumerate(defined):
        largest = max(largest, min(1.0, (len(defined) - rank) * p))
        adjusted[i] = largest
    return adjusted


def smallest_wilcoxon(n_pairs: int) -> float:
    """Return the smallest p-value that Wilcoxon's test can give: all pairs on one side."""
    return min(1.0, 2.0 ** (1 - n_pairs))


def best(systems: Mapping[str, BySeed], *, larger_is_better: bool = True) -> str | None:
    """Return the system with the best mean, the first of equals; None if none has a value."""
    means = {name: float(np.mean(list(v.values()))) for name, v in systems.items() if v}
    if not means:
        return None
    return max(means, key=lambda name: means[name] if larger_is_better else -means[name])
