"""Options of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from typing import Any

from midpg_np.backend import DEVICES
from midpg_np.kernels import CPU_KERNELS
from midpg_np.losses import CROSS_ENTROPIES, LOSS_REDUCTIONS
from midpg_np.training.lr_schedule import LR_SCHEDULES, LRSchedule
from midpg_np.training.optim import EPS_MODES, TABLE_MODES, Adam
from midpg_np.training.penalties import Penalty

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
    lr_schedule : str
        "constant", or "linear" or "cosine": from ``lr`` down to ``final_lr`` at the last of
        ``epochs`` times the steps of an epoch (see ``lr_schedule``).
    warmup_steps : int
        Steps in which the rate grows from 0 to ``lr``, before the schedule.
    final_lr : float
        Rate at the last planned step.
    l2_embedding, l2_weights : float
        L2 on the rows that a batch reads, and on kernels (see ``penalties``).
    embedding_dropout : float
        Share of the entries of X, the embeddings side by side, that are zero in a training step.
    patience : int or None
        Stop after this many validations in a row without improvement; None: never.
    valid_every : int or None
        Validate every so many steps, and at the end of every epoch; None: as often as
        ``valid_per_epoch`` says.
    valid_per_epoch : int
        Validate so many times in every epoch, at even distances, the last time at its end.
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

    Raises
    ------
    ValueError
        For an option that is no known name or out of its range, and for options that exclude each
        other; the message says what would do.
    """

    epochs: int = 10
    batch_size: int = 512
    lr: float = 1e-3
    lr_schedule: str = "constant"
    warmup_steps: int = 0
    final_lr: float = 0.0
    l2_embedding: float = 0.0
    l2_weights: float = 0.0
    embedding_dropout: float = 0.0
    patience: int | None = 3
    valid_every: int | None = None
    valid_per_epoch: int = 1
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
        for name in ("epochs", "batch_size", "threads", "valid_per_epoch"):
            _check_count(name, getattr(self, name))
        for name in ("patience", "valid_every", "checkpoint_every", "tile_rows"):
            if getattr(self, name) is not None:
                _check_count(name, getattr(self, name))
        if not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"seed must be a whole number >= 0; got {self.seed!r}.")
        for name, choices in (
            ("lr_schedule", LR_SCHEDULES),
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
        self._check_schedule()
        self._check_regularisation()
        if self.valid_every is not None and self.valid_per_epoch > 1:
            raise ValueError(
                f"valid_every = {self.valid_every} and valid_per_epoch = {self.valid_per_epoch} "
                "exclude each other; set valid_every to None or valid_per_epoch to 1."
            )

    def _check_schedule(self) -> None:
        _check_count("warmup_steps", self.warmup_steps, least=0)
        if not 0.0 <= self.final_lr <= self.lr:
            raise ValueError(f"final_lr must lie in [0, lr = {self.lr}]; got {self.final_lr}.")
        if self.final_lr and self.lr_schedule == "constant":
            raise ValueError(
                f"final_lr = {self.final_lr} needs lr_schedule 'linear' or 'cosine'; with "
                "'constant' the rate stays at lr."
            )

    def _check_regularisation(self) -> None:
        for name in ("l2_embedding", "l2_weights"):
            if not 0.0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be a number >= 0; got {getattr(self, name)}.")
        if not 0.0 <= self.embedding_dropout < 1.0:
            raise ValueError(f"embedding_dropout must lie in [0, 1); got {self.embedding_dropout}.")

    @property
    def adam(self) -> Adam:
        """The optimiser that these options describe, at a constant learning rate."""
        return Adam(lr=self.lr, eps_mode=self.eps_mode, table_mode=self.table_mode)

    def adam_for(self, steps_per_epoch: int) -> Adam:
        """Return the optimiser with its schedule, for a run of so many ``steps_per_epoch``.

        Raises
        ------
        ValueError
            If the warm-up takes all of them.
        """
        if self.lr_schedule == "constant" and not self.warmup_steps:
            return self.adam
        # A constant rate does not depend on the end, and so epochs may still be added.
        n_steps = 0 if self.lr_schedule == "constant" else self.epochs * steps_per_epoch
        final = self.final_lr / self.lr
        schedule = LRSchedule(self.lr_schedule, self.warmup_steps, n_steps, final)
        return replace(self.adam, schedule=schedule)

    @property
    def penalty(self) -> Penalty | None:
        """The L2 terms, or None if both are off."""
        if not (self.l2_embedding or self.l2_weights):
            return None
        return Penalty(self.l2_embedding, self.l2_weights)

    def as_dict(self) -> dict[str, Any]:
        """Return the options as a dictionary, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> TrainConfig:
        """Inverse of ``as_dict``: the configuration with these ``options``.

        Raises
        ------
        ValueError
            For an option that does not exist, or a value that it cannot have.
        """
        known = [field.name for field in fields(cls)]
        for option in options:
            if option not in known:
                match = get_close_matches(option, known, n=1)
                hint = f" Did you mean {match[0]!r}?" if match else ""
                raise ValueError(f"training has no option {option!r}; it has {known}.{hint}")
        return cls(**options)


def _check_count(name: str, value: Any, least: int = 1) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number >= {least}; got {value!r}.")
