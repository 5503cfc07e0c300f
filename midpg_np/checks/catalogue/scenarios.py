"""Cases of what routes rows by scenario or mixes experts (derivations 2.4 and 2.7)."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from midpg_np.backend import Array, get_xp
from midpg_np.checks.case import Case
from midpg_np.checks.catalogue.builders import Builder, Sizes, pair_case
from midpg_np.checks.model import dense_gradients, perturbed
from midpg_np.layers.groups import Groups, group_rows
from midpg_np.layers.mixture import mixture, mixture_backward
from midpg_np.layers.scenario_mlp import AFFINE_FORMS, ScenarioMLP

N_SCENARIOS = 5


def scenario_ids(n_rows: int) -> np.ndarray:
    """Scenario of each row, not sorted: 0 most often, 1 less, 3 once, 2 and 4 never."""
    ids = np.where(np.arange(n_rows) % 3 == 1, 1, 0)
    ids[n_rows // 2] = 3
    return ids


def groups_like(array: Array, n_rows: int) -> Groups:
    """Return the groups of ``scenario_ids``, those with rows, on the device of an array."""
    groups = group_rows(scenario_ids(n_rows), N_SCENARIOS)
    return Groups._make((*map(get_xp(array).asarray, groups.arrays), N_SCENARIOS))


def _affine(form: str, sizes: Sizes, rng: np.random.Generator) -> Case:
    n_present = len(groups_like(np.zeros(1), sizes.B).present)
    inputs = {
        "H": rng.normal(size=(sizes.B, sizes.d_m)),
        "W": rng.normal(size=(n_present, sizes.d_m, sizes.d_n)),
        "b": rng.normal(size=(n_present, sizes.d_n)),
    }

    def forward(H: Array, W: Array, b: Array) -> tuple[Array, Any]:
        return AFFINE_FORMS[form].forward(H, W, b, groups_like(H, sizes.B))

    return pair_case(f"scenario_affine {form}", inputs, forward, AFFINE_FORMS[form].backward)


def _mlp(form: str, sizes: Sizes, rng: np.random.Generator) -> Case:
    # First, middle and last layer, none square; narrow, since every scenario has its own.
    layer = ScenarioMLP(N_SCENARIOS, (sizes.d_m, sizes.f_c, 3, 2), form=form)

    def run(tree: Any, frozen: object) -> tuple[tuple[Array], Any]:
        y, cache = layer.forward(tree["params"], tree["H"], groups_like(tree["H"], sizes.B))
        return (y,), cache

    def adjoint(d_outputs: tuple[Array], cache: Any) -> Any:
        dH, grads = layer.backward(d_outputs[0], cache)
        return {"H": dH, "params": dense_gradients(grads)}

    def kinks(cache: Any) -> dict[str, Array]:
        return {f"params.{path}": A for path, A in layer.kinks(cache).items()}

    inputs = {
        "H": rng.normal(size=(sizes.B, sizes.d_m)),
        "params": perturbed(layer.init(rng), rng),
    }
    return Case(f"scenario_mlp {form}", inputs, run, adjoint, kinks)


def _mixture(sizes: Sizes, rng: np.random.Generator) -> Case:
    inputs = {
        "alpha": rng.normal(size=(sizes.B, sizes.d_e)),
        "S": rng.normal(size=(sizes.B, sizes.d_e, sizes.d_n)),
    }
    return pair_case("mixture", inputs, mixture, mixture_backward)


BUILDERS: list[Builder] = [
    _mixture,
    *(partial(build, form) for build in (_affine, _mlp) for form in AFFINE_FORMS),
]
