"""Cases of gates that multiply embeddings and hidden vectors (derivations 7)."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from midpg_np.backend import Array, get_xp
from midpg_np.checks.case import Case
from midpg_np.checks.catalogue.builders import Builder, Sizes, pair_case
from midpg_np.checks.catalogue.scenarios import N_SCENARIOS, groups_like
from midpg_np.checks.model import dense_gradients, perturbed
from midpg_np.layers.blocks import BLOCK_FORMS
from midpg_np.layers.fields import pick_fields, pick_fields_backward
from midpg_np.layers.gate import Gate
from midpg_np.layers.gated_tower import GATE_AT, GatedTower
from midpg_np.ops import scaled_sigmoid, scaled_sigmoid_backward

GAMMA = 1.5
FORMS = ("shared", *BLOCK_FORMS)


def _scaled_sigmoid(sizes: Sizes, rng: np.random.Generator) -> Case:
    return pair_case(
        "scaled_sigmoid",
        {"x": rng.normal(size=(sizes.B, sizes.d_n)) * 2.0},
        partial(scaled_sigmoid, scale=GAMMA),
        scaled_sigmoid_backward,
    )


def _pick_fields(sizes: Sizes, rng: np.random.Generator) -> Case:
    X = rng.normal(size=(sizes.B, 4 * sizes.d_k))
    forward = partial(pick_fields, fields=(2, 0, 3), n_fields=4)
    return pair_case("pick_fields", {"X": X}, forward, pick_fields_backward)


def _blocks(form: str, sizes: Sizes, rng: np.random.Generator) -> Case:
    inputs = {
        "H": rng.normal(size=(sizes.B, sizes.d_m)),
        "W": rng.normal(size=(N_SCENARIOS, sizes.d_m, sizes.d_n)),
        "b": rng.normal(size=(N_SCENARIOS, sizes.d_n)),
    }

    def forward(H: Array, W: Array, b: Array) -> tuple[Array, Any]:
        return BLOCK_FORMS[form].forward(H, W, b, groups_like(H, sizes.B))

    def backward(dA: Array, cache: Any) -> tuple[Array, ...]:
        dH, dW, db = BLOCK_FORMS[form].backward(dA, cache)
        grads = dense_gradients({"W": dW, "b": db})
        return dH, grads["W"], grads["b"]

    return pair_case(f"scenario_blocks {form}", inputs, forward, backward)


def _kinks(layer: Any, cache: Any) -> dict[str, Array]:
    return {f"params.{path}": A for path, A in layer.kinks(cache).items()}


def _form_options(form: str) -> dict[str, Any]:
    return {} if form == "shared" else {"n_towers": N_SCENARIOS, "form": form}


def _gate(form: str, is_live: bool, sizes: Sizes, rng: np.random.Generator) -> Case:
    """With ``is_live=False`` only the first columns of U are live, the others are constants."""
    dim_live = sizes.d_e if is_live else 1
    options = _form_options(form) | {"dim_live": None if is_live else dim_live}
    layer = Gate(sizes.d_e, sizes.d_n, sizes.d_m, GAMMA, **options)
    U = rng.normal(size=(sizes.B, sizes.d_e))
    fixed = U[:, dim_live:]

    def run(tree: Any, frozen: object) -> tuple[tuple[Array], Any]:
        live = tree["U"]
        xp = get_xp(live)
        U = xp.concatenate([live, xp.asarray(fixed).astype(live.dtype)], axis=1)
        groups = None if form == "shared" else groups_like(U, sizes.B)
        delta, cache = layer.forward(tree["params"], U, groups)
        return (delta,), cache

    def adjoint(d_outputs: tuple[Array], cache: Any) -> Any:
        dU, grads = layer.backward(d_outputs[0], cache)
        return {"U": dU, "params": dense_gradients(grads)}

    inputs = {"U": U[:, :dim_live], "params": perturbed(layer.init(rng), rng)}
    name = f"scenario_gate {form}" + ("" if is_live else " partly live")
    return Case(name, inputs, run, adjoint, partial(_kinks, layer))


def _gated_tower(gate_at: str, form: str, sizes: Sizes, rng: np.random.Generator) -> Case:
    # First, middle and last layer, none square; narrow, since every scenario has its own tower.
    dims = (sizes.d_m, sizes.f_c, 3, 2)
    options = _form_options(form) | {"gate_hidden": 2, "gamma": GAMMA}
    layer = GatedTower(dims, sizes.d_e, gate_at, **options)

    def run(tree: Any, frozen: object) -> tuple[tuple[Array], Any]:
        groups = None if form == "shared" else groups_like(tree["O"], sizes.B)
        y, cache = layer.forward(tree["params"], tree["O"], tree["U"], groups)
        return (y,), cache

    def adjoint(d_outputs: tuple[Array], cache: Any) -> Any:
        dO, dU, grads = layer.backward(d_outputs[0], cache)
        return {"O": dO, "U": dU, "params": dense_gradients(grads)}

    inputs = {
        "O": rng.normal(size=(sizes.B, sizes.d_m)),
        "U": rng.normal(size=(sizes.B, sizes.d_e)),
        "params": perturbed(layer.init(rng), rng),
    }
    name = f"scenario_tower {gate_at} {form}"
    return Case(name, inputs, run, adjoint, partial(_kinks, layer))


BUILDERS: list[Builder] = [
    *(_scaled_sigmoid, _pick_fields),
    *(partial(_blocks, form) for form in BLOCK_FORMS),
    *(partial(_gate, form, is_live) for form in FORMS for is_live in (True, False)),
    *(partial(_gated_tower, gate_at, form) for gate_at in GATE_AT for form in FORMS),
]
