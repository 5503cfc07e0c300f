"""What the benchmarks of the training step and of prediction run on."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from midpg_np.batch import Batch
from midpg_np.models import MODELS, make_model
from midpg_np.tree import Tree

# Processor time of all threads tells more about a single thread while others use the machine.
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
WEIGHTED = ("dpg", "midpg")  # models with a variant and a size of the core
VARIANTS = ("r", "c", "rc", "non")
OPTIONS: dict[str, dict[str, Any]] = {"pepnet": {"prior_fields": (2, 3, 4, 5)}}


# Of the batch of the proofs.  In float32 a pre-activation next to a corner of ReLU can fall on its
# other side, and then a whole row differs; such a batch proves nothing, another one does.  The more
# rows, the likelier, so large batches repeat a few.
PROOF_SEED = 4
PROOF_ROWS = 512


@dataclass(frozen=True)
class Sizes:
    """Widths: 8 fields x 16 wide, 10 scenarios, hidden 128-64-32 where a model has that option."""

    n_fields: int = 8
    vocabulary: int = 1000
    dim_embedding: int = 16
    n_scenarios: int = 10
    hidden: tuple[int, ...] = (128, 64, 32)


SIZES = Sizes()
TINY = Sizes(n_fields=6, vocabulary=20, dim_embedding=4, n_scenarios=3, hidden=(16, 8))


@dataclass(frozen=True)
class Case:
    """One model at one batch size on a number of threads.

    Parameters
    ----------
    model : str
        A name in ``midpg_np.models.MODELS``.
    variant : str
        Of DPG and MI-DPG; "" for others.
    divisor : int
        Of rows and columns of the core: 8 is "1/8".  0 for models without a core.
    batch, threads : int
    device : str
        "cpu" or "cuda".
    sizes : Sizes
    options : tuple of (name, value)
        Further options of the model, instead of those that follow from the above.
    """

    model: str
    variant: str
    divisor: int
    batch: int
    threads: int
    device: str = "cpu"
    sizes: Sizes = SIZES
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def label(self) -> str:
        """Model, variant and size, such as "midpg rc 1/8"."""
        core = "" if self.variant in ("", "non") else f" 1/{self.divisor}"
        return f"{self.model} {self.variant}{core}".strip()

    @cached_property
    def config(self) -> Any:
        """The model's configuration."""
        s = self.sizes
        options = dict(OPTIONS.get(self.model, {}))
        if "hidden" in {field.name for field in fields(MODELS[self.model])}:
            options["hidden"] = s.hidden
        if self.model in WEIGHTED:
            options |= {"variant": self.variant}
            if self.divisor:
                options |= {"row_divisor": self.divisor, "col_divisor": self.divisor}
        return make_model(
            self.model,
            vocab_sizes=(s.vocabulary,) * s.n_fields,
            n_aware=2,
            n_scenarios=s.n_scenarios,
            dim_embedding=s.dim_embedding,
            **(options | dict(self.options)),
        )

    def params(self) -> Tree:
        """Draw initial parameters, float64, the same at every call."""
        return self.config.init(np.random.default_rng(0))

    def draw(self, rng: np.random.Generator, n_rows: int | None = None) -> tuple[Batch, Any]:
        """Draw a batch with scenarios in unequal numbers, and the random numbers of its step."""
        s, n_rows = self.sizes, self.batch if n_rows is None else n_rows
        codes = rng.integers(0, s.vocabulary, size=(n_rows, s.n_fields))
        scenario = np.minimum(rng.geometric(0.3, size=n_rows) - 1, s.n_scenarios - 1)
        batch = Batch(codes, scenario, (rng.random(n_rows) < 0.2).astype(np.float64))
        return batch, self.config.draw(rng, batch)

    def proof(self) -> tuple[Batch, Any]:
        """Return the batch, with its random numbers, that every implementation is compared on."""
        rng = np.random.default_rng(PROOF_SEED)
        batch, draws = self.draw(rng, min(self.batch, PROOF_ROWS))
        if self.batch <= PROOF_ROWS:
            return batch, draws
        rows = np.arange(self.batch) % PROOF_ROWS
        batch = Batch(*(x[rows] for x in batch))
        return batch, self.config.draw(rng, batch)
