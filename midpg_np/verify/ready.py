"""Ready-made cases: small ones of every model and of its main options, checked against a hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from importlib.resources import files
from typing import Any

import numpy as np

from midpg_np.models import MODELS, make_model
from midpg_np.verify.case import N_ROWS, StepCase, make_case

# 4 fields of width 3; no two widths of a kernel are equal, divisors 2 and 3 fit.
SMALL_SIZES: dict[str, Any] = {
    "vocab_sizes": (6, 3, 5, 4),
    "n_aware": 2,
    "n_scenarios": 5,
    "dim_embedding": 3,
    "hidden": (8, 6),
}
FULL_SIZES: dict[str, Any] = {
    "vocab_sizes": (7, 5, *(20,) * 10),
    "n_aware": 2,
    "n_scenarios": 6,
}
# Options that make the parts of a model small too.
SMALL_PARTS: dict[str, dict[str, Any]] = {
    "dpg": {"row_divisor": 2, "col_divisor": 2, "d_k": 2, "generator_hidden": (5,)},
    "ple": {"hidden": (8, 6, 4)},
    "star": {"dim_domain": 3, "aux_hidden": (5,)},
    "pepnet": {"gate_hidden": 5, "prior_fields": (2, 3)},
    "apg": {"rank": 2, "over_rank": 4},
    "optmsm": {"dim_specific": 5, "dim_shared": 4, "dim_code": 3, "tower_hidden": 6},
}
SMALL_PARTS["midpg"] = SMALL_PARTS["dpg"] | {"disc_hidden": (5,)}

# Name of a ready-made case: model and the options in which it departs from its defaults.
READY: dict[str, tuple[str, dict[str, Any]]] = {
    "dnn": ("dnn", {}),
    **{f"dpg-{v}": ("dpg", {"variant": v}) for v in ("r", "c", "rc", "non")},
    **{f"midpg-{v}": ("midpg", {"variant": v}) for v in ("r", "c", "rc", "non")},
    "midpg-r-tile": ("midpg", {"repeat_mode": "tile"}),
    "midpg-r-gain2": ("midpg", {"gain": 2.0}),
    "ple": ("ple", {}),
    "ple-own": ("ple", {"shared_gate_scope": "own", "n_specific": 2}),
    "star": ("star", {}),
    "pepnet": ("pepnet", {}),
    "pepnet-layer-input": ("pepnet", {"gate_at": "layer_input"}),
    **{
        f"adasparse-{p}": ("adasparse", {"prune": p}) for p in ("fusion", "scaling", "binarization")
    },
    "apg": ("apg", {}),
    "optmsm": ("optmsm", {}),
}
DIGITS = 1e6  # of the largest entry: what is left of a number in its fingerprint


def sized_model(name: str, options: Mapping[str, Any], *, small: bool) -> Any:
    """Build a model without data: small, or of the package's default widths.

    Parameters
    ----------
    name : str
        A name in ``MODELS``.
    options : mapping
        Options that take precedence.
    small : bool
        Whether every width is small.
    """
    sizes = SMALL_SIZES | SMALL_PARTS.get(name, {}) if small else FULL_SIZES
    known = {field.name for field in fields(MODELS[name])} if name in MODELS else set(sizes)
    return make_model(name, **({k: v for k, v in sizes.items() if k in known} | dict(options)))


def ready_case(name: str) -> StepCase:
    """Build a ready-made case."""
    model_name, options = READY[name]
    return make_case(sized_model(model_name, options, small=True), seed=0, n_rows=N_ROWS)


def fingerprint(case: StepCase) -> str:
    """Return a hash of names, shapes and numbers, the same on every machine.

    Machines differ in the last digits of sums and of functions such as tanh.  So numbers enter with
    six digits of the largest entry of their array; integers enter whole.
    """
    digest = hashlib.sha256()
    for name, array in case.arrays.items():
        digest.update(f"{name} {array.shape} {array.dtype.kind}\n".encode())
        if array.dtype.kind == "f":
            largest = float(np.abs(array).max(initial=0.0))
            array = np.rint(array / (largest or 1.0) * DIGITS)
        digest.update(np.ascontiguousarray(array, dtype="<i8").tobytes())
    return digest.hexdigest()[:32]


def stored_fingerprints() -> dict[str, str]:
    """Return the fingerprints that the package was published with."""
    text = (files("midpg_np.verify") / "ready.json").read_text(encoding="utf-8")
    return dict(json.loads(text))
