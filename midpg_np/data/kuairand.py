"""KuaiRand-Pure: exposures of short videos, in several tabs of one app.

One row is an exposure; the scenario is the tab it happened in.  Features of the user and of the
video are joined.  What happens after the exposure (play time, likes, ...) is never a field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from midpg_np.data.reading import import_polars, read_table
from midpg_np.data.schema import Schema
from midpg_np.data.sources import Source, find_file
from midpg_np.data.splits import Splits, encode_parts

if TYPE_CHECKING:
    import polars

SOURCE = Source(
    name="kuairand",
    files=("log_standard_4_22_to_5_08_pure.csv", "log_standard_2022-04-25_to_05-08.csv"),
    published="C. Gao et al. in the GitHub repository chongminggao/KuaiRand (KuaiRand-Pure)",
)

_LABELS = ("is_click", "long_view", "is_like")
_LARGEST_TABS = (0, 1, 2, 4, 6)
_USER_FIELDS = (
    *("user_active_degree", "is_live_streamer", "is_video_author", "follow_user_num_range"),
    *("fans_user_num_range", "friend_user_num_range", "register_days_range"),
)
_ONEHOT = tuple(f"onehot_feat{i}" for i in range(18))
_VIDEO_FIELDS = ("author_id", "video_type", "upload_type", "music_type", "tag")
_LOG_FIELDS = ("user_id", "video_id", "hour", "duration_ms")


def make_schema(label: str = "is_click", *, onehot: bool = False) -> Schema:
    """Return the schema; ``onehot`` adds the 18 anonymous user features."""
    if label not in _LABELS:
        raise ValueError(f"label must be one of {', '.join(_LABELS)}; got {label!r}.")
    users = _USER_FIELDS[1:] + (_ONEHOT if onehot else ())
    return Schema(
        label=label,
        scenario="tab",
        # How active a user is says, like the tab, in which situation the video is offered.
        aware=("tab", "user_active_degree"),
        agnostic=_LOG_FIELDS + users + _VIDEO_FIELDS,
        numeric=("duration_ms",),
    )


def load(
    path: str | PathLike[str] | None = None,
    *,
    seed: int = 0,
    label: Literal["is_click", "long_view", "is_like"] = "is_click",
    tabs: tuple[int, ...] | Literal["all"] = _LARGEST_TABS,
    onehot: bool = False,
    valid_from: int = 20220501,
    test_from: int = 20220503,
    without: tuple[str, ...] = (),
    min_count: int | Mapping[str, int] = 1,
) -> Splits:
    """Load KuaiRand-Pure.

    Parameters
    ----------
    path : path
        The standard log of the second period, or the folder that holds it; the two feature files,
        ``user_features_pure.csv`` and ``video_features_basic_pure.csv``, lie beside it.
    seed : int
        Unused: the split is by time.
    label : {"is_click", "long_view", "is_like"}
        "is_click" uses all exposures; the other two, conversion-like, only those that were clicked.
    tabs : tuple of int, or "all"
        Tabs to keep; the five largest, by default.
    onehot : bool
        Whether to add the 18 anonymous user features.
    valid_from, test_from : int
        First day (as 20220501) of the validation and of the test rows; days before the first are
        for training.
    without : tuple of str
        Fields to leave out.
    min_count : int, or mapping of field to int
        Training rows that a category needs, as in ``Schema``.

    Returns
    -------
    Splits

    Raises
    ------
    FileNotFoundError
        If a file is not there; the message says where it is published.
    ValueError
        If an option or the content of a file is wrong.
    """
    if not valid_from < test_from:
        raise ValueError(f"valid_from must lie before test_from; got {valid_from}, {test_from}.")
    log_path = SOURCE.locate(path)
    schema = replace(make_schema(label, onehot=onehot).without(*without), min_count=min_count)
    frame, notes = _choose_rows(_read_log(log_path, label), label, tabs)
    frame = _join_features(frame, log_path.parent, onehot)
    date = frame["date"].to_numpy()
    is_train, is_test = date < valid_from, date >= test_from
    rows = [np.flatnonzero(part) for part in (is_train, ~is_train & ~is_test, is_test)]
    notes += (f"Split by time: validation from {valid_from}, test from {test_from}.",)
    return encode_parts(schema, frame, rows, name=SOURCE.name, notes=notes)


def _read_log(path: Path, label: str) -> polars.DataFrame:
    pl = import_polars()
    names = dict.fromkeys(
        ("user_id", "video_id", "date", "hourmin", "duration_ms", "tab", "is_click", label)
    )
    # hourmin is 100 x hour + minute; the publisher rounded the minutes away.
    return read_table(path, tuple(names)).with_columns((pl.col("hourmin") // 100).alias("hour"))


def _choose_rows(
    frame: polars.DataFrame, label: str, tabs: tuple[int, ...] | str
) -> tuple[polars.DataFrame, tuple[str, ...]]:
    pl = import_polars()
    notes: tuple[str, ...] = ()
    if label != "is_click":
        frame = frame.filter(pl.col("is_click") == 1)
        notes += ("Only exposures that were clicked.",)
    if isinstance(tabs, str):
        if tabs != "all":
            raise ValueError(f"tabs must be 'all' or a tuple of numbers; got {tabs!r}.")
        return frame, notes
    kept = frame.filter(pl.col("tab").is_in(list(tabs)))
    dropped = frame.height - kept.height
    return kept, (*notes, f"{dropped} rows of other tabs than {tuple(tabs)} dropped.")


def _join_features(frame: polars.DataFrame, folder: Path, onehot: bool) -> polars.DataFrame:
    users = _USER_FIELDS + (_ONEHOT if onehot else ())
    # is_video_author and the like are features of the user, known before the exposure.
    for key, names, file in (
        ("user_id", users, "user_features_pure.csv"),
        ("video_id", _VIDEO_FIELDS, "video_features_basic_pure.csv"),
    ):
        path = find_file(folder, (file,))
        if path is None:
            raise FileNotFoundError(
                f"data set {SOURCE.name!r}: {file} (or {file}.gz) must lie beside the log, in "
                f"{folder}; it is published by {SOURCE.published}."
            )
        features = read_table(path, (key, *names))
        frame = frame.join(features, on=key, how="left", maintain_order="left", validate="m:1")
    return frame
