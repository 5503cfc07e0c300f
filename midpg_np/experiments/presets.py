"""Training options that suit each built-in data set, the same for every model.

The paper's setting is batch 512 and learning rate 1e-3.  Id fields over-fit within two or three
epochs, in the small extracts and at the paper's sizes alike, so validation comes several times per
epoch; the best state of all validations counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "synthetic": {"epochs": 20, "lr": 3e-3, "patience": 3},
    "marketbias": {"epochs": 10, "valid_every": 20, "patience": 8},
    "iaac": {"epochs": 10, "valid_every": 10, "patience": 8},
    "kuairand": {"epochs": 6, "valid_every": 40, "patience": 8},
    "online-shoppers": {"epochs": 60, "patience": 8},
    "synthetic-marketbias": {"epochs": 4, "valid_per_epoch": 4, "patience": 4},
    "industrial": {"epochs": 2, "valid_per_epoch": 4, "patience": 4},
}

# Ids that a data set may have: the prior of PEPNet's towers (who, what, whose).
ID_FIELDS = ("user_id", "item_id", "video_id", "author_id")


def id_fields(field_names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the id fields of a data set."""
    return tuple(name for name in ID_FIELDS if name in field_names)


def training_options(data: str) -> dict[str, Any]:
    """Return the training options preset for a data set; none for a table of the user's own."""
    return dict(PRESETS.get(data, {}))
