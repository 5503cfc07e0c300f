"""Numbers for what a scatter plot shows: how well rows of one kind keep together.

And for what a heat map shows: how alike the means of scenarios are.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np

# Squared distances this close, relative to the largest, count as equal: less is rounding.
_TIE = 1e-10

# A probe reads so many principal components at most, those with at least this share of the
# variance (what is smaller may be rounding), and mixes so much of the marginals into its guess.
_PROBE_WIDTH = 64
_PROBE_SHARE = 1e-8
_PROBE_DOUBT = 0.01

SIMILARITIES = ("cosine", "correlation", "deviation")


class Separation(NamedTuple):
    """How rows separate by scenario, and what rows without any structure would give.

    Parameters
    ----------
    silhouette, silhouette_chance : float or None
        Mean silhouette in [-1, 1], and that of shuffled scenarios.
    variance_ratio, variance_ratio_chance : float or None
        Sum of squares between the scenarios over that within them, and its expectation under
        chance; None if there is no spread within.
    purity, purity_chance : float or None
        Share of the rows whose nearest other row is of their scenario, and its expectation.
    """

    silhouette: float | None
    silhouette_chance: float | None
    variance_ratio: float | None
    variance_ratio_chance: float | None
    purity: float | None
    purity_chance: float | None


def separation(rows: np.ndarray, scenario: np.ndarray, rng: np.random.Generator) -> Separation:
    """Measure how far rows separate by scenario, by Euclidean distances.

    Takes memory for all pairs of rows: give it a sample of a few thousand at most.

    Parameters
    ----------
    rng : numpy Generator
        Shuffles the scenarios for the chance level of the silhouette.

    Shapes
    ------
    rows : (N, K)
    scenario : (N,)

    Returns
    -------
    Separation
        All None if the rows are of one scenario only, or each of its own.

    Raises
    ------
    ValueError
        If the lengths differ or a value is not finite.
    """
    rows = _centred(rows, scenario)
    n_scenarios, n_rows = len(np.unique(scenario)), len(rows)
    if not 2 <= n_scenarios < n_rows:
        return Separation(*[None] * 6)
    distances = squared_distances(rows)
    shuffled = rng.permutation(scenario)
    return Separation(
        silhouette=_silhouette(distances, scenario),
        silhouette_chance=_silhouette(distances, shuffled),
        variance_ratio=variance_ratio(rows, scenario),
        variance_ratio_chance=(n_scenarios - 1) / (n_rows - n_scenarios),
        purity=purity(distances, scenario),
        purity_chance=purity_chance(scenario),
    )


def _centred(rows: np.ndarray, scenario: np.ndarray) -> np.ndarray:
    """Return the rows in float64 about their mean, where products round least."""
    rows = np.asarray(rows, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[:1] != np.shape(scenario):
        raise ValueError(
            f"rows (N, K) and scenario (N,) must have one length; got {rows.shape} and "
            f"{np.shape(scenario)}."
        )
    if not np.isfinite(rows).all():
        row = int(np.argmin(np.isfinite(rows).all(axis=1)))
        raise ValueError(f"rows must be finite; got {rows[row].tolist()[:4]} ... at row {row}.")
    return rows - rows.mean(axis=0) if len(rows) else rows


def squared_distances(rows: np.ndarray) -> np.ndarray:
    """Return the squared distances (N, N) of all pairs, with rounding errors set to zero."""
    from sklearn.metrics import pairwise_distances

    squared = pairwise_distances(rows, metric="sqeuclidean")
    squared[squared <= _TIE * squared.max(initial=0.0)] = 0.0
    return squared


def _silhouette(squared: np.ndarray, scenario: np.ndarray) -> float:
    from sklearn.metrics import silhouette_score

    # Rows that coincide with all others give 0 / 0, which scikit-learn counts as 0.
    with np.errstate(invalid="ignore"):
        return float(silhouette_score(np.sqrt(squared), scenario, metric="precomputed"))


def variance_ratio(rows: np.ndarray, scenario: np.ndarray) -> float | None:
    """Return the sum of squares between scenarios over that within; None without any within.

    Rows that are all equal give 0.  Where the scenario does not matter the expectation is
    (D - 1) / (N - D).
    """
    rows = np.asarray(rows, dtype=np.float64)
    _, group = np.unique(scenario, return_inverse=True)
    one_hot = np.eye(group.max() + 1)[group]
    means = (one_hot.T @ rows) / one_hot.sum(axis=0)[:, None]
    total = float(np.sum((rows - rows.mean(axis=0)) ** 2))
    within = float(np.sum((rows - means[group]) ** 2))
    scale = max(float(np.sum(rows**2)), total)
    if total <= _TIE * scale:
        return 0.0
    if within <= _TIE * total:
        return None
    return (total - within) / within


def purity(squared: np.ndarray, scenario: np.ndarray) -> float:
    """Return the share of rows whose nearest other row is of their scenario.

    Where several are equally near, the share of those counts: rows that all coincide give chance,
    whatever their order.

    Shapes
    ------
    squared : (N, N)
        Squared distances.
    scenario : (N,)
    """
    others = squared.copy()
    np.fill_diagonal(others, np.inf)
    tie = _TIE * squared.max(initial=0.0)
    is_nearest = others <= others.min(axis=1, keepdims=True) + tie
    is_same = scenario[:, None] == scenario
    return float(np.mean((is_nearest & is_same).sum(axis=1) / is_nearest.sum(axis=1)))


def purity_chance(scenario: np.ndarray) -> float:
    """Return the purity expected by chance, sum p_d (n_d - 1) / (N - 1)."""
    _, counts = np.unique(scenario, return_counts=True)
    n = counts.sum()
    return float(np.sum(counts / n * (counts - 1) / (n - 1)))


def similarity(means: np.ndarray, kind: str = "correlation") -> np.ndarray:
    """Return how alike the means of scenarios are, (D, D) in [-1, 1]; NaN where it is undefined.

    Parameters
    ----------
    kind : str
        "cosine", of the means as they are: near 1 for all pairs, since no entry is negative.
        "correlation", over the entries: the level of each mean is left out.
        "deviation", the correlation of what each mean has beyond the mean over scenarios: what all
        scenarios have in common is left out, too.

    Shapes
    ------
    means : (D, K)
        Mean cores; NaN for a scenario without rows.

    Raises
    ------
    ValueError
        For an unknown kind.
    """
    if kind not in SIMILARITIES:
        raise ValueError(f"kind must be one of {SIMILARITIES}; got {kind!r}.")
    rows = np.asarray(means, dtype=np.float64)
    known = ~np.isnan(rows).any(axis=1)
    level = np.abs(rows[known]).max(initial=0.0)
    if kind == "deviation" and known.any():
        rows = rows - rows[known].mean(axis=0)
    if kind != "cosine":
        rows = rows - rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    # A mean without a direction, but for rounding, is like nothing.
    length[length <= _TIE * level * rows.shape[1] ** 0.5] = np.nan
    unit = rows / length
    return np.clip(unit @ unit.T, -1.0, 1.0)


def pair_agreement(similarity: np.ndarray, truth: np.ndarray) -> float | None:
    """Return Spearman's rank correlation over pairs of scenarios, None with fewer than 3 pairs.

    Shapes
    ------
    similarity, truth : (D, D)
        Symmetric; pairs with NaN in either are left out.
    """
    from scipy.stats import spearmanr

    above = np.triu_indices(len(truth), k=1)
    a, b = np.asarray(similarity)[above], np.asarray(truth)[above]
    known = np.isfinite(a) & np.isfinite(b)
    a, b = a[known], b[known]
    if len(a) < 3 or np.ptp(a) == 0.0 or np.ptp(b) == 0.0:
        return None
    return float(spearmanr(a, b).statistic)


def probe_bound(rows: np.ndarray, contexts: np.ndarray, rng: np.random.Generator) -> float:
    """Return a bound on the dependence of context and row by a classifier of our own, in nats.

    A logistic regression learns to name the context from the row, on one half of the rows, and
    T = log p(context | row) / p(context), which a perfect discriminator would say, is put to the
    test on the other half; both ways, and the mean.  Any T gives a lower bound 2 log 2 - L_mi on
    rows that it has not learned from (derivations 3.3d), so this one does not hang on how long the
    discriminators were trained.  The negative pairs are not drawn but averaged over.

    How large the differences between rows are plays no part: the principal components are brought
    to one scale.

    Parameters
    ----------
    rng : numpy Generator
        Halves the rows.

    Shapes
    ------
    rows : (N, K)
    contexts : (N, n_aware)
    """
    rows = np.asarray(rows, dtype=np.float64)
    _, ids = np.unique(contexts, axis=0, return_inverse=True)
    order = rng.permutation(len(rows))
    halves = order[: len(rows) // 2], order[len(rows) // 2 :]
    bounds = [_one_way(rows, ids.reshape(-1), *pair) for pair in (halves, halves[::-1])]
    return float(np.mean(bounds))


def _one_way(rows: np.ndarray, ids: np.ndarray, known: np.ndarray, new: np.ndarray) -> float:
    """Return the bound on the rows ``new`` by a probe of the rows ``known``."""
    spread = np.ptp(rows[known], axis=0).max(initial=0.0) if len(known) else 0.0
    if spread == 0.0 or len(np.unique(ids[known])) < 2:
        return 0.0  # nothing to learn
    T = _probe_scores(rows[known], ids[known], rows[new], ids.max() + 1)
    share = np.bincount(ids[new], minlength=T.shape[1]) / len(new)
    matching = np.logaddexp(0.0, -T[np.arange(len(new)), ids[new]]).mean()
    shuffled = (np.logaddexp(0.0, T) @ share).mean()
    return float(2.0 * np.log(2.0) - matching - shuffled)


def _probe_scores(
    rows: np.ndarray, ids: np.ndarray, new_rows: np.ndarray, n_contexts: int
) -> np.ndarray:
    """Return T (M, n_contexts) of new rows; 0 for a context that there was nothing to learn of."""
    from sklearn.decomposition import PCA
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    pca = PCA(min(_PROBE_WIDTH, *rows.shape), random_state=0).fit(rows)
    variance = pca.explained_variance_
    kept = variance > _PROBE_SHARE * variance.sum()
    scale = np.sqrt(variance[kept])
    probe = LogisticRegression(max_iter=300)
    with warnings.catch_warnings():  # a probe that has not quite arrived bounds, too
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe.fit(pca.transform(rows)[:, kept] / scale, ids)
    guess = probe.predict_proba(pca.transform(new_rows)[:, kept] / scale)
    seen = probe.classes_
    share = np.bincount(ids)[seen] / len(ids)
    T = np.zeros((len(new_rows), n_contexts))
    T[:, seen] = np.log((1.0 - _PROBE_DOUBT) * guess / share + _PROBE_DOUBT)
    return T
