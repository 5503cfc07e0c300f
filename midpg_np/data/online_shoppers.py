"""Online Shoppers Purchasing Intention: sessions in a web shop.

One row is a session; the label is whether it ended in a purchase.  Small (12,330 rows), complete
and without missing values: good for trying things out.  ``PageValues`` is computed by the shop's
analytics from pages that led to purchases and predicts strongly; leave it out for a harder task.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from typing import Literal

import numpy as np

from midpg_np.data.batches import split_by_fraction
from midpg_np.data.reading import read_table
from midpg_np.data.schema import Schema
from midpg_np.data.sources import Source
from midpg_np.data.splits import Splits, encode_parts

SOURCE = Source(
    name="online-shoppers",
    files=("online_shoppers_intention.csv",),
    published="C. O. Sakar et al. in the UCI Machine Learning Repository, data set 468",
)

_SCENARIOS = ("VisitorType", "Month", "Region")
_NUMERIC = (
    *("Administrative", "Administrative_Duration", "Informational", "Informational_Duration"),
    *("ProductRelated", "ProductRelated_Duration", "BounceRates", "ExitRates", "PageValues"),
    "SpecialDay",
)


def make_schema(scenario: str = "VisitorType") -> Schema:
    """Return the schema for one of the scenario columns; the other two become plain fields."""
    if scenario not in _SCENARIOS:
        raise ValueError(f"scenario must be one of {', '.join(_SCENARIOS)}; got {scenario!r}.")
    others = tuple(name for name in _SCENARIOS if name != scenario)
    return Schema(
        label="Revenue",
        scenario=scenario,
        aware=(scenario, "TrafficType"),  # where the visitor came from
        agnostic=(*others, "OperatingSystems", "Browser", "Weekend", *_NUMERIC),
        numeric=_NUMERIC,
    )


def load(
    path: str | PathLike[str] | None = None,
    *,
    seed: int = 0,
    scenario: Literal["VisitorType", "Month", "Region"] = "VisitorType",
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    without: tuple[str, ...] = (),
    min_count: int | Mapping[str, int] = 1,
) -> Splits:
    """Load Online Shoppers Purchasing Intention.

    Parameters
    ----------
    path : path
        The file or its folder.
    seed : int
        Seed of the division, which is random and in proportion to scenario and label.
    scenario : {"VisitorType", "Month", "Region"}
        Column of the scenario.
    fractions : three floats
        Shares of training, validation and test rows.
    without : tuple of str
        Fields to leave out, such as ``("PageValues",)``.
    min_count : int, or mapping of field to int
        Training rows that a category needs, as in ``Schema``.

    Returns
    -------
    Splits

    Raises
    ------
    FileNotFoundError
        If the file is not there; the message says where it is published.
    ValueError
        If an option or the content of the file is wrong.
    """
    schema = replace(make_schema(scenario).without(*without), min_count=min_count)
    frame = read_table(SOURCE.locate(path), schema.columns)
    keys = frame[schema.scenario].cast(str) + " " + frame[schema.label].cast(str)
    _, strata = np.unique(keys.to_numpy().astype(str), return_inverse=True)
    rows = split_by_fraction(frame.height, fractions, np.random.default_rng(seed), strata)
    note = f"Random split {fractions} with seed {seed}, in proportion to scenario and label."
    return encode_parts(schema, frame, rows, name=SOURCE.name, notes=(note,))
