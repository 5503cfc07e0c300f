"""Cases of partitioned normalisation, star topology and auxiliary network (derivations 6)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from midpg_np.backend import Array, get_xp
from midpg_np.checks.case import Case
from midpg_np.checks.catalogue.builders import Builder, Sizes, pair_case
from midpg_np.checks.catalogue.scenarios import N_SCENARIOS, groups_like
from midpg_np.checks.model import dense_gradients, perturbed
from midpg_np.layers.auxiliary_network import AuxiliaryNetwork
from midpg_np.layers.groups import group_sum, spread
from midpg_np.layers.partitioned_norm import STATISTICS, PartitionedNorm
from midpg_np.layers.scenario_mlp import AFFINE_FORMS
from midpg_np.layers.star_mlp import StarMLP, star_affine, star_affine_backward
from midpg_np.tree import Tree, tree_flatten, tree_unflatten

EPS = 0.25  # large enough for a mistake in its place to show


def _n_present(sizes: Sizes) -> int:
    return len(groups_like(np.zeros(1), sizes.B).present)


def _group_sum(sizes: Sizes, rng: np.random.Generator) -> Case:
    return pair_case(
        "star_group_sum",
        {"x": rng.normal(size=(sizes.B, sizes.d_m))},
        lambda x: (group_sum(x, groups_like(x, sizes.B)), groups_like(x, sizes.B)),
        spread,
    )


def _spread(sizes: Sizes, rng: np.random.Generator) -> Case:
    return pair_case(
        "star_spread",
        {"y": rng.normal(size=(_n_present(sizes), sizes.d_m))},
        lambda y: (spread(y, groups_like(y, sizes.B)), groups_like(y, sizes.B)),
        group_sum,
    )


def _affine(form: str, sizes: Sizes, rng: np.random.Generator) -> Case:
    n_present = _n_present(sizes)
    inputs = {
        "H": rng.normal(size=(sizes.B, sizes.d_m)),
        "W": rng.normal(size=(sizes.d_m, sizes.d_n)),
        "b": rng.normal(size=sizes.d_n),
        "W_d": rng.normal(size=(n_present, sizes.d_m, sizes.d_n)),
        "b_d": rng.normal(size=(n_present, sizes.d_n)),
    }

    def forward(H: Array, W: Array, b: Array, W_d: Array, b_d: Array) -> tuple[Array, Any]:
        return star_affine(H, W, b, W_d, b_d, groups_like(H, sizes.B), form)

    return pair_case(f"star_affine {form}", inputs, forward, star_affine_backward)


def _layer(name: str, layer: Any, sizes: Sizes, rng: np.random.Generator, **constants: Any) -> Case:
    """Case of a layer on rows by scenario; moving statistics, positive, are held fixed."""
    leaves = tree_flatten(perturbed(layer.init(rng), rng))
    held = {path: leaves.pop(path) for path in list(leaves) if path.endswith(STATISTICS)}

    def run(tree: Tree, frozen: object) -> tuple[tuple[Array], Any]:
        X = tree["X"]
        params = tree_flatten(tree["params"])
        for path, leaf in held.items():
            params[path] = get_xp(X).asarray(np.abs(leaf).astype(X.real.dtype))
        y, cache = layer.forward(tree_unflatten(params), X, groups_like(X, sizes.B), **constants)
        return (y,), cache

    def adjoint(d_outputs: tuple[Array], cache: Any) -> Tree:
        dX, grads = layer.backward(d_outputs[0], cache)
        return {"X": dX, "params": dense_gradients(grads)}

    def kinks(cache: Any) -> dict[str, Array]:
        return {f"params.{path}": A for path, A in layer.kinks(cache).items()}

    inputs = {"X": rng.normal(size=(sizes.B, sizes.d_m)), "params": tree_unflatten(leaves)}
    return Case(name, inputs, run, adjoint, kinks if hasattr(layer, "kinks") else None)


def _norm(is_training: bool, sizes: Sizes, rng: np.random.Generator) -> Case:
    layer = PartitionedNorm(N_SCENARIOS, sizes.d_m, EPS)
    name = "star_norm " + ("training" if is_training else "inference")
    return _layer(name, layer, sizes, rng, is_training=is_training)


def _mlp(form: str, sizes: Sizes, rng: np.random.Generator) -> Case:
    # First, middle and last layer, none square; narrow, since every scenario has its own.
    layer = StarMLP(N_SCENARIOS, (sizes.d_m, sizes.f_c, 3, 2), form=form)
    return _layer(f"star_mlp {form}", layer, sizes, rng)


def _auxiliary(has_norm: bool, sizes: Sizes, rng: np.random.Generator) -> Case:
    layer = AuxiliaryNetwork(N_SCENARIOS, sizes.d_m, sizes.d_e, (4,))
    if has_norm:
        layer = replace(layer, norm=PartitionedNorm(N_SCENARIOS, sizes.d_m, EPS))
    name = "star_auxiliary" + (" normalised" if has_norm else "")
    return _layer(name, layer, sizes, rng, is_training=True)


BUILDERS: list[Builder] = [
    _group_sum,
    _spread,
    *(partial(build, form) for build in (_affine, _mlp) for form in AFFINE_FORMS),
    *(partial(_norm, is_training) for is_training in (True, False)),
    *(partial(_auxiliary, has_norm) for has_norm in (False, True)),
]
