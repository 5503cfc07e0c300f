"""Cases of what prunes neurons per example and of its regulariser (derivations 8)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from midpg_np.backend import Array
from midpg_np.checks.case import Case
from midpg_np.checks.catalogue.builders import Builder, Sizes, pair_case
from midpg_np.checks.model import perturbed
from midpg_np.layers.pruned_layer import PrunedLayer, prune_last, prune_last_backward
from midpg_np.layers.pruner import Pruner, Stop
from midpg_np.layers.sparsity import RATIOS, Sparsity

ALPHA = 1.7
LAMBDA_HAT = 0.6
# Share of pruned neurons of each row in turn: away from the edges of (0.15, 0.25) on both sides.
SHARES = (0.5, 0.19, 0.02, -0.3, 0.22, 0.35)
# Form, gradient through its threshold, whether in training.
_PRUNERS: tuple[tuple[str, str, bool], ...] = (
    ("fusion", "exact", True),
    ("fusion", "ste", True),
    ("scaling", "", True),
    ("binarization", "ste", True),
    ("binarization", "soft", True),
    ("binarization", "soft", False),
    ("binarization", "zero", True),
)


class StoppedCache(NamedTuple):
    """Cache of a layer, and what it has put behind a stop-gradient."""

    inner: Any
    detached: dict[str, Array]


def _stop(frozen: Mapping[str, Array] | None, detached: dict[str, Array]) -> Stop:
    def sg(name: str, x: Array) -> Array:
        detached[name] = x
        return x if frozen is None else frozen[name]

    return sg


def _pruner_of(form: str, gradient: str, dim_in: int, dim_out: int) -> Pruner:
    options = {"binarization": "binarize_grad", "fusion": "fusion_grad"}
    chosen = {options[form]: gradient} if gradient else {}
    return Pruner(dim_in, dim_out, form, beta=1.3, epsilon=0.45, **chosen)


def _pruner(form: str, gradient: str, training: bool, sizes: Sizes, rng: Any) -> Case:
    layer = _pruner_of(form, gradient, sizes.d_e, sizes.d_n)

    def run(tree: Any, frozen: Any) -> tuple[tuple[Array], StoppedCache]:
        detached: dict[str, Array] = {}
        sg = _stop(frozen, detached)
        pi, cache = layer.forward(tree["params"], tree["U"], ALPHA, sg, training=training)
        return (pi,), StoppedCache(cache, detached)

    def adjoint(d_outputs: tuple[Array], cache: StoppedCache) -> Any:
        dU, grads = layer.backward(d_outputs[0], cache.inner)
        return {"U": dU, "params": grads}

    def kinks(cache: StoppedCache) -> dict[str, Array]:
        return {f"params.{path}": v for path, v in layer.kinks(cache.inner).items()}

    inputs = {
        "U": rng.normal(size=(sizes.B, sizes.d_e)),
        "params": perturbed(layer.init(rng), rng),
    }
    words = ["pruner", form, gradient, "" if training else "at inference"]
    return Case(" ".join(filter(None, words)), inputs, run, adjoint, kinks)


def _prune_last(n_plain: int, sizes: Sizes, rng: np.random.Generator) -> Case:
    inputs = {
        "H": rng.normal(size=(sizes.B, n_plain + sizes.d_m)),
        "pi": rng.random(size=(sizes.B, sizes.d_m)),
    }
    name = f"prune {'some' if n_plain else 'all'} inputs"
    return pair_case(name, inputs, prune_last, prune_last_backward)


def _pruned_layer(n_plain: int, sizes: Sizes, rng: np.random.Generator) -> Case:
    dim_in = n_plain + sizes.d_m
    pruner = _pruner_of("fusion", "ste", sizes.d_e + dim_in, sizes.d_m)
    layer = PrunedLayer(sizes.d_e, dim_in, sizes.d_n, pruner)

    def run(tree: Any, frozen: Any) -> tuple[tuple[Array, Array], StoppedCache]:
        detached: dict[str, Array] = {}
        sg = _stop(frozen, detached)
        A, cache = layer.forward(tree["params"], tree["H"], tree["E_aw"], ALPHA, sg, training=True)
        return (A, cache.pi), StoppedCache(cache, detached)

    def adjoint(d_outputs: tuple[Array, Array], cache: StoppedCache) -> Any:
        dH, dE_aw, grads = layer.backward(d_outputs[0], cache.inner, d_outputs[1])
        return {"H": dH, "E_aw": dE_aw, "params": grads}

    def kinks(cache: StoppedCache) -> dict[str, Array]:
        return {f"params.{path}": v for path, v in layer.kinks(cache.inner).items()}

    inputs = {
        "H": rng.normal(size=(sizes.B, dim_in)),
        "E_aw": rng.normal(size=(sizes.B, sizes.d_e)),
        "params": perturbed(layer.init(rng), rng),
    }
    name = f"pruned_layer {'some' if n_plain else 'all'} inputs"
    return Case(name, inputs, run, adjoint, kinks)


def _sparsity(ratio: str, detach: bool, place: str, sizes: Sizes, rng: Any) -> Case:
    layer = Sparsity(ratio=ratio, lambda_detach=detach)

    def run(tree: Any, frozen: Any) -> tuple[tuple[Array], StoppedCache]:
        detached: dict[str, Array] = {}
        sg = _stop(frozen, detached)
        loss, cache = layer.forward(tree["pi"], LAMBDA_HAT, sg)
        return (loss,), StoppedCache(cache, detached)

    def adjoint(d_outputs: tuple[Array], cache: StoppedCache) -> Any:
        return {"pi": layer.backward(d_outputs[0], cache.inner)}

    # Factors whose mean is 1 - share in every row, so that it is known which rows are inside.
    shares = {"across": SHARES, "above": (0.4,), "inside": (0.2,), "below": (-0.1,)}[place]
    target = 1.0 - np.array([shares[b % len(shares)] for b in range(sizes.B)])
    noise = 0.1 * rng.normal(size=(sizes.B, sizes.d_n))
    pi = target[:, None] + noise - noise.mean(axis=1, keepdims=True)
    name = f"sparsity {ratio} {place}" + (" detached" if detach else "")
    return Case(name, {"pi": pi}, run, adjoint)


BUILDERS: list[Builder] = [
    *(partial(_pruner, *which) for which in _PRUNERS),
    *(partial(build, n_plain) for build in (_prune_last, _pruned_layer) for n_plain in (0, 1)),
    *(
        partial(_sparsity, ratio, detach, place)
        for ratio in RATIOS
        for detach in (False, True)
        for place in ("above", "inside", "below", "across")
        if ratio == "per_sample" or place != "across"
    ),
]
