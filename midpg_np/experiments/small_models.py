"""Every model, small enough to check every entry of every gradient."""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from midpg_np.batch import Batch
from midpg_np.checks.case import Case
from midpg_np.checks.catalogue import Builder, Sizes
from midpg_np.checks.model import model_case, perturbed_params
from midpg_np.layers.dwm import VARIANTS
from midpg_np.layers.low_rank import LOW_RANK_FORMS
from midpg_np.layers.pruner import PRUNE_FORMS
from midpg_np.models import MODELS, make_model
from midpg_np.models.apg import CONDITIONS

VOCAB_SIZES = (3, 4, 3, 5)
N_SCENARIOS = 5


def small_batch(n_rows: int, rng: np.random.Generator) -> Batch:
    """Draw rows with unequal scenarios: most are 0, some 1, one 2, none of the others."""
    codes = rng.integers(0, VOCAB_SIZES, size=(n_rows, len(VOCAB_SIZES)))
    scenario = np.minimum(np.arange(n_rows) * 5 // (2 * n_rows), 2)
    scenario[-1] = 2
    label = (rng.random(n_rows) < 0.5).astype(float)
    return Batch(codes, scenario, label)


class Small(NamedTuple):
    """What makes a model small, and the choices of options that are checked."""

    sizes: dict[str, Any]
    choices: list[dict[str, Any]]


_GATED = [
    {"gate_at": gate_at, "towers": towers, "ep_input": ep_input}
    for gate_at in ("hidden_output", "layer_input")
    for towers in ("shared", "per_scenario")
    for ep_input in ("all", "agnostic")
]
_WEIGHTED = {"row_divisor": 2, "col_divisor": 2, "d_k": 2, "generator_hidden": (3,)}
_FORMS = [
    {"variant": variant, "form": form} for variant in VARIANTS for form in ("grouped", "textbook")
]
_GENERATED = {"dim_specific": 3, "dim_shared": 4, "dim_code": 6, "tower_hidden": 7, "hyper_rank": 2}
_GENERATED_CHOICES = [
    *({}, {"combine": "select"}, {"orth_on": "gram"}),
    *({"hyper": "low_rank"}, {"hyper_input": "aware"}),
    {"hyper": "low_rank", "hyper_input": "aware"},
]

# Thresholds that some rows pass and others do not; edges of the interval that no count sits on.
_PRUNED = {"beta": 1.3, "epsilon": 0.45, "alpha_start": 1.5, "r_min": 0.13, "r_max": 0.37}
_PRUNED_FORMS: list[dict[str, Any]] = [
    *({"prune": form} for form in PRUNE_FORMS),
    *({"prune": "binarization", "binarize_grad": grad} for grad in ("soft", "zero")),
    {"fusion_grad": "ste"},
    *({"prune_input": what} for what in ("agnostic_only", "none")),
    {"ratio": "per_sample"},
    {"lambda_detach": True},
]

# A network per scenario makes most of all entries: one scenario has no rows, not two, and layers
# are narrow.
_PER_SCENARIO = {"n_scenarios": 4}
_NARROW = _PER_SCENARIO | {"hidden": (5, 3)}

SMALL: dict[str, Small] = {
    "dnn": Small({}, [{}]),
    "ple": Small(
        _PER_SCENARIO | {"hidden": (3, 4, 2)},
        [  # two experts of a scenario, or a level in between: both at once would take long
            {"shared_gate_scope": scope} | experts | {"form": form}
            for scope in ("all", "own")
            for experts in (
                {"expert_layers": (1, 1), "n_specific": 2},
                {"expert_layers": (1, 1, 1), "n_specific": 1},
            )
            for form in ("grouped", "textbook")
        ],
    ),
    "star": Small(
        _NARROW | {"eps": 0.25, "dim_domain": 3, "aux_hidden": (3,)},
        [{}, {"aux_norm": True}, {"pn": "none"}, {"pn": "none", "aux": False}],
    ),
    "pepnet": Small(_NARROW | {"gate_hidden": 2}, _GATED),
    "adasparse": Small(_PRUNED, _PRUNED_FORMS),
    "apg": Small(
        {"rank": 2, "over_rank": 3, "generator_hidden": (3,)},
        [
            *(
                {"condition": condition, "form": form}
                for condition in CONDITIONS
                for form in LOW_RANK_FORMS
            ),
            {"generate_bias": True},
            {"over_rank": None},
        ],
    ),
    "optmsm": Small(_GENERATED, _GENERATED_CHOICES),
    "dpg": Small(_WEIGHTED, _FORMS),
    "midpg": Small(_WEIGHTED | {"disc_hidden": (3,)}, _FORMS),
}


def _case(name: str, options: dict[str, Any], sizes: Sizes, rng: np.random.Generator) -> Case:
    shape = {"dim_embedding": 2, "hidden": (6, 4)} | SMALL[name].sizes
    known = {field.name for field in fields(MODELS[name])}  # not every model has ``hidden``
    shape = {key: value for key, value in shape.items() if key in known}
    common = {"vocab_sizes": VOCAB_SIZES, "n_aware": 2, "n_scenarios": N_SCENARIOS}
    model = make_model(name, **(common | shape | options))
    batch = small_batch(sizes.B, rng)
    draws = model.draw(rng, batch)
    if draws:  # a cycle over all rows: no involution, so a gather in place of a scatter shows
        draws = {"partner": np.roll(np.arange(sizes.B), 1)}
    shown = (v if isinstance(v, str) else f"{option}={v}" for option, v in options.items())
    title = " ".join([name, *shown])
    return model_case(model, perturbed_params(model, rng), batch, draws, title)


MODEL_CASES: dict[str, Builder] = {
    builder(Sizes(), np.random.default_rng(0)).name: builder
    for builder in (
        partial(_case, name, options) for name, small in SMALL.items() for options in small.choices
    )
}
