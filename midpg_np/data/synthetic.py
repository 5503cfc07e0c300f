"""Generated data in which each context weights one shared network differently, in a known way.

A teacher network with shared weights W and, per context (scenario, channel), a matrix S that
multiplies them entry by entry, draws the labels.  S is made as the paper's variant "r" makes it: a
low-rank core, sigmoid, and block repeat.  So the same categories mean different things in different
contexts, and what a model learns can be compared with the truth.

By default the teacher is a linear score of which each context reads its own three tenths of the
fields.  A plain network has to learn the 40 readings one by one; the fewer there are
(``n_channels``, ``n_scenarios``), the less it falls behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from typing import Any, NamedTuple

import numpy as np

from midpg_np.data.batches import split_by_fraction
from midpg_np.data.schema import Schema
from midpg_np.data.splits import PARTS, Splits, encode_parts
from midpg_np.data.teacher import Teacher, make_teacher

_FRACTIONS = (0.7, 0.1, 0.2)


class SyntheticTruth(NamedTuple):
    """How the labels came about.

    Shapes
    ------
    teacher : Teacher
        Shared weights, and cores and weighting matrices per context.
    logit : dict of str to (N,)
        Log-odds of each row of "train", "valid" and "test", before noise.
    bayes_auc : dict of str to float
        AUC of that logit on each part: what a perfect model reaches there, up to chance.
    """

    teacher: Teacher
    logit: dict[str, np.ndarray]
    bayes_auc: dict[str, float]


def make_synthetic(
    n_rows: int = 40_000,
    *,
    n_scenarios: int = 10,
    n_channels: int = 4,
    n_agnostic: int = 14,
    n_categories: int = 30,
    dim: int = 2,
    hidden: Sequence[int] = (),
    rank: int = 1,
    difference: float = 6.0,
    density: float = 0.3,
    signal: float = 3.0,
    noise: float = 0.0,
    positive_rate: float = 0.3,
    size_ratio: float = 0.85,
    seed: int = 0,
) -> Splits:
    """Generate a multi-scenario data set with planted weighting matrices.

    Parameters
    ----------
    n_rows : int
        Rows in all; 70, 10 and 20 % are for training, validation and test.
    n_scenarios : int
        Number of scenarios D.
    n_channels : int
        Number of values of the second scenario-aware field.
    n_agnostic : int
        Number of scenario-agnostic fields, besides the two aware ones (scenario and channel).
    n_categories : int
        Categories per agnostic field; frequencies fall off like 1 / (rank + 5).
    dim : int
        Width of the teacher's embedding of a category.
    hidden : sequence of int
        Hidden widths of the teacher, even numbers; none makes it a weighted linear score.
    rank : int
        Rank d_k of the teacher's cores before the sigmoid.
    difference : float
        How sharply the cores, 2 sigmoid(difference x standard normal), are on or off.  0 makes all
        weighting matrices 1, and the contexts alike but for their base rates.
    density : float
        Share of the core entries that are on (above 1).
    signal : float
        Standard deviation of the logit within a scenario.
    noise : float
        Standard deviation of normal noise on the logit, which no model can predict.
    positive_rate : float
        Roughly, the share of positives; scenarios scatter about it.
    size_ratio : float
        Size of each scenario relative to the one before; 1 makes them equal.
    seed : int
        Everything random derives from it.

    Returns
    -------
    Splits
        With ``truth``, a ``SyntheticTruth``.

    Raises
    ------
    ValueError
        If an argument is out of range, or a scenario is left without training rows.
    """
    _check(positive_rate=positive_rate, size_ratio=size_ratio, n_scenarios=n_scenarios)
    # One stream for each purpose, so that more rows do not change the teacher.
    rng_rows, rng_teacher, rng_label, rng_split = np.random.default_rng(seed).spawn(4)
    sizes = (n_scenarios, n_channels, *[n_categories] * n_agnostic)
    values = draw_fields(n_rows, sizes, size_ratio, rng_rows)
    teacher = make_teacher(rng_teacher, sizes, dim, hidden, rank, difference, density)
    logit = _scaled(teacher.logit(values), values[:, 0], n_scenarios, signal)
    offsets = np.log(positive_rate / (1 - positive_rate)) + 0.3 * rng_label.normal(size=n_scenarios)
    logit += offsets[values[:, 0]]
    noisy = logit + noise * rng_label.normal(size=n_rows)
    label = (rng_label.random(n_rows) < 0.5 * (1 + np.tanh(noisy / 2))).astype(np.int64)

    rows = _divide(values[:, 0], n_scenarios, rng_split)
    fields = ("scenario", "channel", *(f"field_{i}" for i in range(1, n_agnostic + 1)))
    schema = Schema(label="label", scenario="scenario", aware=fields[:2], agnostic=fields[2:])
    columns = {name: values[:, f] for f, name in enumerate(fields)} | {"label": label}
    note = f"Generated with seed {seed}."
    splits = encode_parts(schema, columns, rows, name="synthetic", notes=(note,))
    return replace(splits, truth=_truth(teacher, logit, label, dict(zip(PARTS, rows, strict=True))))


def load(path: str | PathLike[str] | None = None, *, seed: int = 0, **options: Any) -> Splits:
    """Generate synthetic data from ``seed``, as ``load_dataset`` calls it.

    Raises
    ------
    ValueError
        If a path is given, or an option is out of its range.
    """
    if path is not None:
        raise ValueError(f"data set 'synthetic' is generated and reads no file; got path {path}.")
    return make_synthetic(seed=seed, **options)


def draw_fields(
    n_rows: int, sizes: Sequence[int], size_ratio: float, rng: np.random.Generator
) -> np.ndarray:
    """Draw the categories of all fields, (N, F); field 0 is the scenario, field 1 the channel."""
    n_scenarios = sizes[0]
    share = size_ratio ** np.arange(n_scenarios)
    values = np.empty((n_rows, len(sizes)), dtype=np.int64)
    values[:, 0] = rng.choice(n_scenarios, size=n_rows, p=share / share.sum())
    # Each scenario has its own mixture of channels, as a real second aware field would.
    mixture = np.cumsum(rng.dirichlet(np.full(sizes[1], 2.0), size=n_scenarios), axis=1)
    draw = rng.random((n_rows, 1))
    values[:, 1] = (draw > mixture[values[:, 0], :-1]).sum(axis=1)
    for f in range(2, len(sizes)):
        frequency = 1.0 / (np.arange(sizes[f]) + 5.0)
        values[:, f] = rng.choice(sizes[f], size=n_rows, p=frequency / frequency.sum())
    return values


def _divide(
    scenario: np.ndarray, n_scenarios: int, rng: np.random.Generator
) -> tuple[np.ndarray, ...]:
    rows = split_by_fraction(len(scenario), _FRACTIONS, rng, scenario)
    n_present = len(np.unique(scenario[rows[0]]))
    if n_present < n_scenarios:
        raise ValueError(
            f"{len(scenario)} rows leave training rows for only {n_present} of {n_scenarios} "
            "scenarios; take more rows, fewer scenarios or a size_ratio nearer 1."
        )
    return rows


def _check(positive_rate: float, size_ratio: float, n_scenarios: int) -> None:
    if not 0 < positive_rate < 1:
        raise ValueError(f"positive_rate must lie in (0, 1); got {positive_rate}.")
    if not 0 < size_ratio <= 1:
        raise ValueError(f"size_ratio must lie in (0, 1]; got {size_ratio}.")
    if n_scenarios < 1:
        raise ValueError(f"n_scenarios must be at least 1; got {n_scenarios}.")


def _scaled(logit: np.ndarray, scenario: np.ndarray, n_scenarios: int, signal: float) -> np.ndarray:
    """Give the logits of each scenario mean 0 and standard deviation ``signal``.

    Otherwise scenarios with small weights would be noise, and the average over scenarios theirs.
    """
    scaled = np.empty_like(logit)
    for d in range(n_scenarios):
        z = logit[scenario == d]
        scaled[scenario == d] = signal * (z - z.mean()) / (z.std() or 1.0) if len(z) else z
    return scaled


def _truth(
    teacher: Teacher, logit: np.ndarray, label: np.ndarray, rows: dict[str, np.ndarray]
) -> SyntheticTruth:
    from sklearn.metrics import roc_auc_score

    bayes_auc = {
        part: float(roc_auc_score(label[at], logit[at]))
        if 0 < label[at].mean() < 1
        else float("nan")
        for part, at in rows.items()
    }
    return SyntheticTruth(teacher, {part: logit[at] for part, at in rows.items()}, bayes_auc)
