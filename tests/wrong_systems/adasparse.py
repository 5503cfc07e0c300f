"""Mistakes that people make in the layers of AdaSparse (derivations 8.5 and 14)."""

from dataclasses import replace

import numpy as np
from spoiling import Wrong, parameter, result

from midpg_np.layers.pruned_layer import prune_last_backward

ALPHA, BETA, LAMBDA_HAT = 1.7, 1.3, 0.6  # of the catalogue


def cache_changed(case, **changes):
    """Spoil the pruner's cache between forward and backward: ``name=change(cache)``."""

    def spoil(right):
        def backward(d_outputs, cache):
            inner = cache.inner
            changed = {name: change(inner) for name, change in changes.items()}
            return right.backward(d_outputs, cache._replace(inner=inner._replace(**changed)))

        return replace(right, backward=backward)

    return Wrong(case, spoil)


def scaled(case, factor):
    """Every gradient of the case times ``factor(cache)``."""

    def change(grads, dy, cache):
        k = factor(cache)
        return {
            name: {part: k * x for part, x in g.items()} if isinstance(g, dict) else k * g
            for name, g in grads.items()
        }

    return result(case, change)


def negated(grads, dy, cache):
    return {"pi": -grads["pi"]}


def only_kept(grads, dy, cache):
    """What someone does who multiplies with sign(pi) a factor that is already out of the sum."""
    return {"pi": grads["pi"] * (np.arange(grads["pi"].size) % 3 > 0).reshape(grads["pi"].shape)}


def without_first_aware(grads, dy, cache):
    return grads | {"E_aw": 0.0 * grads["E_aw"]}


def pruner_path_forgotten(grads, dy, cache):
    """dH through the product only."""
    c = cache.inner
    return grads | {"H": prune_last_backward(dy @ c.affine.W.T, c.pruned)[0]}


def product_path_forgotten(grads, dy, cache):
    return grads | {"H": grads["H"] - pruner_path_forgotten(grads, dy, cache)["H"]}


def weights_with_unpruned_inputs(grads, dy, cache):
    dW = cache.inner.pruned.H_last.T @ dy
    return grads | {"params": grads["params"] | {"W": dW}}


def factors_of_all_inputs(grads, dy, cache):
    """The plain inputs come first; here they are taken to be the last ones."""
    c = cache[0]
    n_plain = dy.shape[1] - c.pi.shape[1]
    dH = np.concatenate([dy[:, : c.pi.shape[1]] * c.pi, dy[:, -n_plain:]], axis=1)
    return grads | {"H": dH}


def constant_mean(grads, dy, cache):
    """Divide by the rows as well, although each row has a mean of its own."""
    return {"pi": grads["pi"] / len(grads["pi"])}


def penalty_everywhere(grads, dy, cache):
    """The gradient of the penalty, with nothing done about the interval."""
    c = cache.inner
    n_rows, n_neurons = c.shape
    dr = 2.0 * LAMBDA_HAT * np.where(c.is_above, c.distance, -c.distance) / n_rows
    return {"pi": np.repeat(-dy * dr[:, None] / n_neurons, n_neurons, axis=1)}


WRONG = {
    "adasparse: alpha left out of the adjoint": cache_changed(
        "pruner fusion exact", alpha=lambda c: 1.0
    ),
    "adasparse: alpha left out of the straight-through adjoint": cache_changed(
        "pruner binarization ste", alpha=lambda c: 1.0
    ),
    "adasparse: scaling taken to have a temperature": cache_changed(
        "pruner scaling", alpha=lambda c: ALPHA
    ),
    "adasparse: beta left out of the adjoint": scaled("pruner scaling", lambda c: 1.0 / BETA),
    "adasparse: binarization with the gain of fusion": scaled(
        "pruner binarization ste", lambda c: BETA
    ),
    "adasparse: v (1 - v) in place of v (1 - v / beta)": cache_changed(
        "pruner scaling", y=lambda c: BETA * c.y
    ),
    "adasparse: true zero derivative where straight-through is claimed": cache_changed(
        "pruner binarization ste", slope=lambda c: 0.0
    ),
    "adasparse: straight-through taken to stop at the threshold": cache_changed(
        "pruner binarization ste", slope=lambda c: c.is_kept
    ),
    "adasparse: straight-through in the exact gradient of fusion": cache_changed(
        "pruner fusion exact", slope=lambda c: 1.0
    ),
    "adasparse: mask in the straight-through gradient of fusion": cache_changed(
        "pruner fusion ste", slope=lambda c: c.is_kept
    ),
    "adasparse: gradient of v by v_in without the sigmoid": cache_changed(
        "pruner scaling", y=lambda c: 0.5 + 0.0 * c.y
    ),
    "adasparse: pruner's bias forgotten": parameter("pruner scaling", "b", lambda db, dy: 0.0 * db),
    "adasparse: pruner's path into H forgotten": result(
        "pruned_layer all inputs", pruner_path_forgotten
    ),
    "adasparse: product's path into H forgotten": result(
        "pruned_layer all inputs", product_path_forgotten
    ),
    "adasparse: pruner's path into E_aw forgotten": result(
        "pruned_layer some inputs", without_first_aware
    ),
    "adasparse: dW with the inputs before pruning": result(
        "pruned_layer all inputs", weights_with_unpruned_inputs
    ),
    "adasparse: plain inputs taken from the other end": result(
        "prune some inputs", factors_of_all_inputs
    ),
    "adasparse: sign of the regulariser": result("sparsity batch above", negated),
    "adasparse: sparsity grows with pi": result("sparsity per_sample across", negated),
    "adasparse: 2 left out of the regulariser": result(
        "sparsity batch below", lambda g, dy, c: {"pi": 0.5 * g["pi"]}
    ),
    "adasparse: 2 in the regulariser with a constant weight": result(
        "sparsity per_sample across detached", lambda g, dy, c: {"pi": 2.0 * g["pi"]}
    ),
    "adasparse: penalty inside the interval": result(
        "sparsity per_sample across", penalty_everywhere
    ),
    "adasparse: regulariser divided by the batch twice": result(
        "sparsity batch above", constant_mean
    ),
    "adasparse: regulariser not divided by the neurons": result(
        "sparsity batch above", lambda g, dy, c: {"pi": g["pi"] * g["pi"].shape[1]}
    ),
    "adasparse: regulariser reaches some factors only": result("sparsity batch above", only_kept),
}
