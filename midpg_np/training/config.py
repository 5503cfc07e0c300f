"""Options of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any

from midpg_np.backend import DEVICES
from midpg_np.kernels import CPU_KERNELS
from midpg_np.losses import CROSS_ENTROPIES, LOSS_REDUCTIONS
from midpg_np.training.optim import EPS_MODES, TABLE_MODES, Adam

DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class TrainConfig:
    """How to train; the defaults are the paper's where it states them.

    Parameters
    ----------
    epochs : int
        Largest number of passes over the training rows.
    batch_size : int
        Rows per step.
    lr : float
        Learning rate of Adam.
    patience : int or None
        Stop after this many validations in a row without improvement; None: never.
    valid_every : int or None
        Validate every so many steps, and at the end of every epoch; None: at the end only.
    seed : int
        The one seed from which every random stream is derived.
    ce : str
        "full": cross-entropy.  "positive_only": as printed in the paper, for demonstration.
    loss_reduce : str
        "mean" over the rows of a batch.  "scenario_mean": mean over its scenarios of their means.
    eps_mode, table_mode : str
        See ``Adam``.
    dtype : str
        "float32" or "float64".
    device : str
        "cpu" or "cuda".
    tile_rows : int or None
        Rows that go through the network at a time, for models that can (``training.tiles``); None:
        512, or fewer where a row's core is large.
    threads : int
        On a CPU.  DPG and MI-DPG: tiles worked on at the same time, which changes no bit of the
        result.  The others: threads of BLAS, equal to rounding.
    kernels : str
        On a CPU.  "compiled": loops compiled by Numba.  "numpy": NumPy's operations, equal to
        rounding.  "auto": compiled where Numba is installed, from 8,192 training rows on.
    checkpoint_every : int or None
        Save a checkpoint every so many steps, and at every validation; None: at validations only.
    """

    epochs: int = 10
    batch_size: int = 512
    lr: float = 1e-3
    patience: int | None = 3
    valid_every: int | None = None
    seed: int = 0
    ce: str = "full"
    loss_reduce: str = "mean"
    eps_mode: str = "corrected"
    table_mode: str = "auto"
    dtype: str = "float32"
    device: str = "cpu"
    tile_rows: int | None = None
    threads: int = 1
    kernels: str = "auto"
    checkpoint_every: int | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "threads"):
            _check_count(name, getattr(self, name))
        for name in ("patience", "valid_every", "checkpoint_every", "tile_rows"):
            if getattr(self, name) is not None:
                _check_count(name, getattr(self, name))
        if not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"seed must be a whole number >= 0; got {self.seed!r}.")
        for name, choices in (
            ("ce", tuple(CROSS_ENTROPIES)),
            ("loss_reduce", tuple(LOSS_REDUCTIONS)),
            ("eps_mode", EPS_MODES),
            ("table_mode", TABLE_MODES),
            ("dtype", DTYPES),
            ("device", DEVICES),
            ("kernels", CPU_KERNELS),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {choices}; got {getattr(self, name)!r}.")
        _ = self.adam  # checks lr

    @property
    def adam(self) -> Adam:
        """The optimiser that these options describe."""
        return Adam(lr=self.lr, eps_mode=self.eps_mode, table_mode=self.table_mode)

    def as_dict(self) -> dict[str, Any]:
        """Return the options as a dictionary, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> TrainConfig:
        """Inverse of ``as_dict``; ValueError for an option that does not exist."""
        known = [field.name for field in fields(cls)]
        for option in options:
            if option not in known:
                match = get_close_matches(option, known, n=1)
                hint = f" Did you mean {match[0]!r}?" if match else ""
                raise ValueError(f"training has no option {option!r}; it has {known}.{hint}")
        return cls(**options)


def _check_count(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a whole number >= 1; got {value!r}.")
