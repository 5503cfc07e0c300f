"""Cases of the layers of OptMSM (derivations 10)."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from midpg_np.backend import Array
from midpg_np.checks.case import Case
from midpg_np.checks.catalogue.builders import Builder, Sizes, pair_case
from midpg_np.checks.catalogue.scenarios import N_SCENARIOS, groups_like
from midpg_np.checks.model import dense_gradients, perturbed
from midpg_np.layers.affine_set import affine_set, affine_set_backward
from midpg_np.layers.code_affine import CODE_FORMS
from midpg_np.layers.generated_tower import TOWER_FORMS, GeneratedTower
from midpg_np.layers.hypernetwork import HYPERS, Hypernetwork, TowerShape
from midpg_np.layers.orthogonality import ORTH_ON, Orthogonality
from midpg_np.layers.shared_embeddings import COMBINES, SharedEmbeddings


def _affine_set(sizes: Sizes, rng: np.random.Generator) -> Case:
    inputs = {
        "H": rng.normal(size=(sizes.B, sizes.d_m)),
        "W": rng.normal(size=(sizes.d_e, sizes.d_m, sizes.d_n)),
        "b": rng.normal(size=(sizes.d_e, sizes.d_n)),
    }
    return pair_case("affine_set", inputs, affine_set, affine_set_backward)


def _code_affine(form: str, sizes: Sizes, rng: np.random.Generator) -> Case:
    inputs = {
        "H": rng.normal(size=(sizes.B, sizes.d_m)),
        "W": rng.normal(size=(sizes.d_e, sizes.d_m, sizes.d_n)),
        "b": rng.normal(size=(sizes.d_e, sizes.d_n)),
        "u": rng.normal(size=(sizes.B, sizes.d_e)),
    }
    return pair_case(f"code_affine {form}", inputs, *CODE_FORMS[form])


def _orthogonality(orth_on: str, sizes: Sizes, rng: np.random.Generator) -> Case:
    layer = Orthogonality(orth_on, eps=0.1)  # of the size of <g, g>, so that it shows
    G = 0.5 * rng.normal(size=(sizes.B, sizes.d_e, sizes.d_n))
    return pair_case(f"orthogonality {orth_on}", {"G": G}, layer.forward, layer.backward)


def _hypernetwork(hyper: str, sizes: Sizes, rng: np.random.Generator) -> Case:
    layer = Hypernetwork(sizes.d_e, TowerShape(sizes.d_m, sizes.d_c), hyper, rank=sizes.d_k)
    # Codes of scenarios, not rows of a batch: their number has nothing to do with B.
    Z = rng.normal(size=(N_SCENARIOS, sizes.d_e))
    inputs = {"Z": Z, "params": perturbed(layer.init(rng), rng)}

    def run(tree: Any, frozen: object) -> tuple[tuple[Array], Any]:
        theta, cache = layer.forward(tree["params"], tree["Z"])
        return (theta,), cache

    def adjoint(d_outputs: tuple[Array], cache: Any) -> Any:
        dZ, grads = layer.backward(d_outputs[0], cache)
        return {"Z": dZ, "params": grads}

    return Case(f"hypernetwork {hyper}", inputs, run, adjoint)


def _tower(per_row: bool, hyper: str, form: str, sizes: Sizes, rng: np.random.Generator) -> Case:
    hypernetwork = Hypernetwork(sizes.d_e, TowerShape(sizes.d_m, 3), hyper, rank=sizes.d_k)
    layer = GeneratedTower(hypernetwork, per_row, form=form)
    n_codes = sizes.B if per_row else len(groups_like(np.zeros(1), sizes.B).present)
    inputs = {
        "H": rng.normal(size=(sizes.B, sizes.d_m)),
        "Z": rng.normal(size=(n_codes, sizes.d_e)),
        "params": perturbed(layer.init(rng), rng),
    }

    def run(tree: Any, frozen: object) -> tuple[tuple[Array], Any]:
        groups = groups_like(tree["H"], sizes.B)
        z, cache = layer.forward(tree["params"], tree["H"], tree["Z"], groups)
        return (z,), cache

    def adjoint(d_outputs: tuple[Array], cache: Any) -> Any:
        dH, dZ, grads = layer.backward(d_outputs[0], cache)
        return {"H": dH, "Z": dZ, "params": grads}

    def kinks(cache: Any) -> dict[str, Array]:
        return {f"params.{path}": A for path, A in layer.kinks(cache).items()}

    name = f"generated_tower by {'row' if per_row else 'scenario'} {hyper} {form}"
    return Case(name, inputs, run, adjoint, kinks)


def _shared(combine: str, with_loss: bool, sizes: Sizes, rng: np.random.Generator) -> Case:
    layer = SharedEmbeddings(N_SCENARIOS, sizes.d_m, sizes.d_n, sizes.d_e, combine)
    inputs: dict[str, Any] = {"E": rng.normal(size=(sizes.B, sizes.d_m))}
    if combine == "attention":
        inputs |= {"c": rng.normal(size=(sizes.B, sizes.d_e))}
    inputs |= {"params": perturbed(layer.init(rng), rng)}

    def run(tree: Any, frozen: object) -> tuple[tuple[Array, ...], Any]:
        E, c = tree["E"], tree.get("c")
        groups = groups_like(E, sizes.B)
        m, loss, cache = layer.forward(tree["params"], c, E, groups, with_loss)
        return (m, loss) if with_loss else (m,), cache

    def adjoint(d_outputs: tuple[Array, ...], cache: Any) -> Any:
        dm, d_loss = d_outputs if with_loss else (*d_outputs, None)
        dc, dE, grads = layer.backward(dm, d_loss, cache)
        d_inputs = {"E": dE, "params": dense_gradients(grads)}
        return d_inputs if dc is None else d_inputs | {"c": dc}

    name = f"shared_embeddings {combine}" + (" with loss" if with_loss else "")
    return Case(name, inputs, run, adjoint)


BUILDERS: list[Builder] = [
    _affine_set,
    *(partial(_code_affine, form) for form in CODE_FORMS),
    *(partial(_orthogonality, orth_on) for orth_on in ORTH_ON),
    *(partial(_hypernetwork, hyper) for hyper in HYPERS),
    *(
        partial(_tower, per_row, hyper, form)
        for per_row in (False, True)
        for hyper in HYPERS
        for form in TOWER_FORMS
    ),
    *(partial(_shared, combine, with_loss) for combine in COMBINES for with_loss in (False, True)),
]
