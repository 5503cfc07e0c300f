"""Run a model of the package and its PyTorch version side by side and compare everything named."""

from __future__ import annotations

from dataclasses import asdict
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch_reference.blocks import cross_entropy
from torch_reference.models import dnn, dpg, mutual_information

from midpg_np.batch import Batch
from midpg_np.checks.model import dense_gradients, perturbed
from midpg_np.losses import CROSS_ENTROPIES
from midpg_np.models import ModelOutput, model_name
from midpg_np.tree import Tree, tree_flatten, tree_map

torch.set_num_threads(1)

# Counts 5, 3, 0, 1, 0 in scenarios 0 to 4.
SCENARIO = np.array([0, 1, 0, 0, 1, 3, 0, 1, 0])
PARTNERS = {
    "3-cycle, fixed point, 5-cycle": np.array([1, 2, 0, 3, 5, 6, 7, 8, 4]),
    "rows of other scenarios": np.array([5, 5, 5, 1, 0, 0, 7, 6, 4]),
}
PERMUTATION = PARTNERS["3-cycle, fixed point, 5-cycle"]


class Step(NamedTuple):
    """Values by name (logit, ce, mi, total), intermediates by name, gradients as a tree."""

    values: dict[str, Any]
    intermediates: dict[str, Any]
    grads: Tree


def moved(model: Any, rng: np.random.Generator) -> Tree:
    """Draw parameters away from their start, but with the sigmoids off saturation.

    Where y rounds to 1, y (1 - y) has lost its digits in every implementation, and gradients that
    consist of nothing else differ by more than rounding.
    """
    return perturbed(model.init(rng), rng, scale=0.3)


def random_batch(rng: np.random.Generator, model: Any, scenario: np.ndarray) -> Batch:
    """Draw codes, some repeated and some absent; the first field tells the scenario."""
    n_rows = len(scenario)
    codes = rng.integers(0, model.vocab_sizes, size=(n_rows, len(model.vocab_sizes)))
    codes[:, 0] = scenario
    label = (rng.random(n_rows) < 0.5).astype(float)
    label[0] = 1.0  # "positive_only" is constant without a positive
    return Batch(codes, scenario, label)


def package_step(
    model: Any, params: Tree, batch: Batch, draws: Any, ce: str = "full", dz: Any = None
) -> Step:
    """Differentiate the training loss; at inference (``draws=None``) differentiate <dz, z>."""
    output, cache = model.forward(params, batch, draws=draws)
    values = {"logit": output.logit, **output.auxiliary}
    d_output = ModelOutput(dz, {})
    if draws is not None:
        loss, weights = CROSS_ENTROPIES[ce], model.auxiliary_weights
        values["ce"], c_loss = loss.forward(output.logit, batch.label)
        values["total"] = values["ce"] + sum(weights[k] * v for k, v in output.auxiliary.items())
        d_output = ModelOutput(loss.backward(1.0, c_loss), weights)
    return Step(values, cached_intermediates(cache), model.backward(d_output, cache))


def cached_intermediates(cache: Any) -> dict[str, np.ndarray]:
    """Return the intermediates in a model's cache under the names of the reference."""
    if hasattr(cache, "mlp"):  # DNN
        return {"X": cache.X} | {f"layer_{i}.A": A for i, A in enumerate(cache.mlp.A, start=1)}
    found = {}
    if hasattr(cache, "dpg"):  # MI-DPG
        for group, c in cache.mi.items():
            found |= {f"{group}.t_pos": c.t_pos, f"{group}.t_neg": c.t_neg}
        cache = cache.dpg
    found |= {"X": cache.X, "E_aw": cache.E_aw, "H": cache.H}
    for name, c in cache.layers.items():
        found |= {f"{name}.U": c.U, f"{name}.A": c.A}
        for key in ("R", "C", "P", "Q", "generated"):
            if getattr(c.weighting, key) is not None:
                found[f"{name}.{key}"] = getattr(c.weighting, key)
        if hasattr(c.product, "S"):  # textbook; it keeps S with inputs before outputs
            found |= {f"{name}.H": c.product.H, f"{name}.S_in_out": c.product.S}
    return found


def as_tensors(params: Tree) -> Tree:
    """Copy a parameter tree to leaves that autograd follows."""
    return tree_map(lambda leaf: torch.tensor(leaf, requires_grad=True), params)


def reference_step(
    name: str,
    options: Any,
    tensors: Tree,
    batch: Batch,
    draws: Any,
    ce: str = "full",
    dz: Any = None,
) -> Step:
    """Do as ``package_step`` does, with autograd; a gradient is None where no path leads."""
    trace: dict[str, Any] = {}
    z = (dnn if name == "dnn" else dpg)(tensors, torch.as_tensor(batch.codes), options, trace)
    values = {"logit": z}
    if draws is None:
        target = (torch.as_tensor(dz) * z).sum()
    else:
        values["ce"] = target = cross_entropy(z, torch.as_tensor(batch.label), ce)
        if name == "midpg":
            partner = torch.as_tensor(draws["partner"])
            values["mi"] = mutual_information(tensors, partner, options, trace)
            target = target + options.mi_weight * values["mi"]
        values["total"] = target
    target.backward()
    for key in [key for key in trace if key.endswith(".S")]:
        trace[f"{key}_in_out"] = trace[key] if options.w_layout == "in_out" else trace[key].mT
    return Step(values, trace, tree_map(lambda x: x.grad, tensors))


def deviation(ours: Any, theirs: Any) -> float:
    """Largest difference relative to the largest entry; without a path, zero must be exact."""
    if theirs is None:
        return float("inf") if np.any(ours) else 0.0
    theirs = theirs.detach().numpy()
    if np.shape(ours) != theirs.shape:
        return float("inf")
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-3))


def deviations(
    model: Any,
    partner: np.ndarray | None = PERMUTATION,
    *,
    scenario: np.ndarray = SCENARIO,
    ce: str = "full",
    seed: int = 0,
    reference: dict[str, Any] | None = None,
) -> dict[str, float]:
    """Compare one step of the model with the reference, at parameters away from their start.

    Parameters
    ----------
    partner : array or None
        Partners of the negative pairs; None compares inference.
    reference : dict, optional
        Options in which the reference shall differ from the model.
    """
    rng = np.random.default_rng(seed)
    params = moved(model, rng)
    batch = random_batch(rng, model, scenario)
    draws = None if partner is None else {"partner": partner}
    dz = rng.normal(size=len(scenario))
    options = {"ce": ce} | asdict(model) | (reference or {})
    other_ce = options.pop("ce")
    ours = package_step(model, params, batch, draws, ce, dz)
    theirs = reference_step(
        model_name(model),
        SimpleNamespace(**options),
        as_tensors(params),
        batch,
        draws,
        other_ce,
        dz,
    )
    grads = tree_flatten(dense_gradients(ours.grads))
    expected = tree_flatten(theirs.grads)
    assert ours.values.keys() == theirs.values.keys()
    assert grads.keys() == expected.keys() or draws is None  # inference knows no discriminators
    pairs = {
        "value": (ours.values, theirs.values),
        "cache": (ours.intermediates, theirs.intermediates),
        "d": (dict.fromkeys(expected, 0.0) | grads, expected),
    }
    return {
        f"{kind} {key}": deviation(a[key], b[key]) for kind, (a, b) in pairs.items() for key in a
    }
