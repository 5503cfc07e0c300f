"""A case: one training step of a model with every number in it, in one file.

docs/case-format.md specifies the file, so that it can be read without this package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from midpg_np.batch import Batch
from midpg_np.checks.case import shift_from_kinks, wake_units
from midpg_np.checks.model import model_case, perturbed_params
from midpg_np.models import make_model, model_config, model_name
from midpg_np.training.checkpoint import check_params
from midpg_np.tree import Tree, tree_flatten, tree_unflatten
from midpg_np.verify.case_batch import case_batch
from midpg_np.verify.files import read_case_file, write_case_file
from midpg_np.verify.longhand import Calculation, write_out
from midpg_np.verify.longhand.adam import EPSILON, LEARNING_RATE
from midpg_np.verify.outcome import INPUTS, outcome
from midpg_np.verify.tolerance import rounding_noise

N_ROWS = 16
PERTURBATION = 0.3  # beyond it sigmoids saturate, and what is behind them has lost its digits


@dataclass(frozen=True)
class StepCase:
    """One training step: what is given, and everything that follows from it.

    Parameters
    ----------
    model
        The configured model.
    arrays : dict
        Every quantity by name, in order of computation: what is given, values, adjoints in backward
        order ("d." before the name), parameters and state after the step ("next."), and the logit
        of a prediction ("serving.logit").
    seed : int, optional
        The seed that it was drawn from; None if it was put together otherwise.
    """

    model: Any
    arrays: dict[str, np.ndarray]
    seed: int | None = None

    @property
    def model_name(self) -> str:
        """Name of the model in ``MODELS``."""
        return model_name(self.model)

    @property
    def config(self) -> dict[str, Any]:
        """Options of the model: ``make_model(case.model_name, **case.config)`` builds it."""
        return model_config(self.model)

    @cached_property
    def calculation(self) -> Calculation:
        """The training step written out."""
        return write_out(self.model)

    @property
    def inputs(self) -> dict[str, np.ndarray]:
        """The batch: "codes" (B, F), "scenario" (B,), "label" (B,), and "partner" (B,) if read."""
        return {name: self.arrays[name] for name in INPUTS if name in self.arrays}

    @property
    def params(self) -> dict[str, np.ndarray]:
        """The parameters by path, without state."""
        state = set(self.state)
        return {path: self.arrays[path] for path in self._paths if path not in state}

    @property
    def state(self) -> dict[str, np.ndarray]:
        """What is kept with the parameters and has no gradient, by path."""
        return {name: self.arrays[name] for name in getattr(self.model, "buffers", ())}

    @property
    def given(self) -> dict[str, np.ndarray]:
        """All that the step starts from: inputs, parameters, state."""
        return self.inputs | {path: self.arrays[path] for path in self._paths}

    @cached_property
    def _paths(self) -> tuple[str, ...]:
        """Paths of the model's parameters and state, in its order."""
        return tuple(tree_flatten(self.model.init(np.random.default_rng(0))))

    @property
    def n_rows(self) -> int:
        """Rows B of the batch."""
        return len(self.arrays["label"])

    @cached_property
    def noise(self) -> dict[str, float]:
        """What rounding becomes on the way to each quantity, per unit of epsilon."""
        return rounding_noise(self.model, self.given)

    def save(self, path: str | Path) -> None:
        """Write the case; a path that ends in ".npz" gets that format, any other safetensors.

        Raises
        ------
        OSError
            If the file cannot be written; an older file is then intact.
        """
        steps = [
            {"output": s.output, "inputs": list(s.inputs), "equation": s.equation}
            for s in self.calculation.steps
        ]
        meta = {
            "model": self.model_name,
            "config": self.config,
            "seed": self.seed,
            "inputs": list(self.inputs),
            "parameters": list(self.params),
            "state": list(self.state),
            "order": list(self.arrays),
            "steps": steps,
            "adam": {
                "learning_rate": LEARNING_RATE,
                "epsilon": EPSILON,
                "beta_1": 0.9,
                "beta_2": 0.999,
            },
        }
        write_case_file(path, self.arrays, meta)


def make_case(model: Any, seed: int = 0, n_rows: int = N_ROWS) -> StepCase:
    """Draw a case: parameters away from their start, and a batch with every corner in it.

    The batch has unequal scenarios, one without a row and one with a single row, codes that repeat;
    the permutation has a 3-cycle and a fixed point; pre-activations keep clear of the corners of
    ReLU and of thresholds.  The same seed gives the same numbers.

    Parameters
    ----------
    model
        A model of ``MODELS``.
    seed : int
        Seed of all numbers.
    n_rows : int
        Rows B of the batch.

    Raises
    ------
    ValueError
        If ``n_rows`` is below 1.
    """
    if n_rows < 1:
        raise ValueError(f"n_rows must be at least 1; got {n_rows}.")
    rng = np.random.default_rng(seed)
    batch, draws = case_batch(model, rng, n_rows)
    params = _clear_params(model, perturbed_params(model, rng, PERTURBATION), batch, draws)
    given = _given(params, batch, draws)
    return StepCase(model, outcome(model, given), seed)


def _clear_params(model: Any, params: Tree, batch: Batch, draws: Mapping[str, Any]) -> Tree:
    """Shift biases until units are on and off, and none is near its corner."""
    case = shift_from_kinks(wake_units(model_case(model, params, batch, draws)), margin=1e-3)
    return tree_unflatten(tree_flatten(params) | tree_flatten(case.inputs))


def _given(params: Tree, batch: Batch, draws: Mapping[str, Any]) -> dict[str, np.ndarray]:
    inputs = {"codes": batch.codes, "scenario": batch.scenario, "label": batch.label}
    return inputs | dict(draws) | tree_flatten(params)


def load_case(path: str | Path) -> StepCase:
    """Read a case that ``StepCase.save`` wrote to ``path``; every bit is as it was.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is truncated, foreign, of a later version, or its arrays are not those of its
        model.
    """
    arrays, meta = read_case_file(path)
    model = make_model(meta["model"], **meta["config"])
    ordered = {name: arrays[name] for name in meta["order"]}
    paths = tree_flatten(model.init(np.random.default_rng(0)))
    check_params(model, {p: ordered[p] for p in paths if p in ordered}, str(path))
    return StepCase(model, ordered, meta["seed"])
