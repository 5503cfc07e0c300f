"""What a model reads: integer codes, a scenario id and a label per row."""

from __future__ import annotations

from typing import NamedTuple

from midpg_np.backend import Array, to_device


class Batch(NamedTuple):
    """Rows of a data set, encoded; checked once, when the ``Dataset`` they come from is built.

    Shapes
    ------
    codes : (B, F)
        Integer code of each field, scenario-aware fields first; 0 means "unknown or missing".
    scenario : (B,)
        Scenario id in [0, D), used for routing, for drawing negatives and for reporting only.
    label : (B,)
        0.0 or 1.0; None where it is not known (prediction).
    """

    codes: Array
    scenario: Array
    label: Array | None = None

    @property
    def n_rows(self) -> int:
        """Number of rows B."""
        return int(self.codes.shape[0])

    def to(self, device: str) -> Batch:
        """Return the batch on ``device``."""
        return Batch(*(None if part is None else to_device(part, device) for part in self))
