"""Run a model of the package and its PyTorch version side by side and compare everything named."""

from __future__ import annotations

from dataclasses import asdict
from importlib import import_module
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch_reference.blocks import cross_entropy

from midpg_np.batch import Batch
from midpg_np.checks.model import dense_gradients, perturbed_params
from midpg_np.losses import CROSS_ENTROPIES
from midpg_np.models import ModelOutput, model_name
from midpg_np.models.dnn import DNNCache
from midpg_np.models.dpg import DPGCache
from midpg_np.models.midpg import MIDPGCache
from midpg_np.models.protocol import ModelCache
from midpg_np.training.step import walk_cache
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
    cache: Any = None


def moved(model: Any, rng: np.random.Generator) -> Tree:
    """Draw parameters away from their start, but with the sigmoids off saturation.

    Where y rounds to 1, y (1 - y) has lost its digits in every implementation, and gradients that
    consist of nothing else differ by more than rounding.
    """
    return perturbed_params(model, rng, scale=0.3)


def random_batch(rng: np.random.Generator, model: Any, scenario: np.ndarray) -> Batch:
    """Draw codes, some repeated and some absent; the first field tells the scenario."""
    n_rows = len(scenario)
    codes = rng.integers(0, model.vocab_sizes, size=(n_rows, len(model.vocab_sizes)))
    codes[:, 0] = scenario % model.vocab_sizes[0]
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
    return Step(values, cached_intermediates(cache), model.backward(d_output, cache), cache)


def cached_intermediates(cache: Any) -> dict[str, np.ndarray]:
    """Return the intermediates in the cache of DNN, DPG or MI-DPG under the reference's names.

    Other models' caches are compared value by value, see ``strangers``.
    """
    if isinstance(cache, ModelCache):
        cache = cache.network
    if isinstance(cache, DNNCache):
        return {"X": cache.X} | {f"mlp.A_{i}": A for i, A in enumerate(cache.mlp.A, start=1)}
    found = {}
    if isinstance(cache, MIDPGCache):
        for group, c in cache.mi.items():
            found |= {f"mi.{group}.t_pos": c.t_pos, f"mi.{group}.t_neg": c.t_neg}
        cache = cache.dpg
    if not isinstance(cache, DPGCache):
        return {}
    found |= {"X": cache.X, "E_aw": cache.E_aw}
    H = "X"
    for i, (name, c) in enumerate(cache.layers.items(), start=2):
        found |= {f"{name}.U": c.U, f"{name}.A": c.A}
        found |= {f"{name}.Q": c.weighting.Q, f"{name}.generated": c.weighting.generated}
        if hasattr(c.product, "S"):  # textbook; it keeps S with inputs before outputs
            found |= {H: c.product.H, f"{name}.S_in_out": c.product.S}
        H = f"{name}.A" if name == "head" else f"H_{i}"
    return found | {H: cache.H}


def combined(trace: dict[str, Any], options: Any) -> dict[str, Any]:
    """Return what the caches of DPG keep in another form than the reference."""
    found = {}
    for key in [key for key in trace if key.endswith(".S") and not key.startswith("mi.")]:
        name = key.removesuffix(".S")
        outputs = (f"{name}.{kind}_generator.output" for kind in ("core", "row", "column"))
        found[f"{name}.generated"] = torch.cat([trace[x] for x in outputs if x in trace], dim=1)
        found[f"{key}_in_out"] = trace[key] if options.w_layout == "in_out" else trace[key].mT
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
    reference = import_module(f"torch_reference.{name}")
    training = draws is not None
    rows = SimpleNamespace(
        codes=torch.as_tensor(batch.codes),
        scenario=torch.as_tensor(batch.scenario),
        partner=torch.as_tensor(draws["partner"]) if draws else None,
    )
    trace: dict[str, Any] = {}
    z, auxiliary = reference.forward(tensors, rows, options, trace, training=training)
    values = {"logit": z, **auxiliary}
    target = (torch.as_tensor(dz) * z).sum() if dz is not None else None
    if training:
        values["ce"] = cross_entropy(z, torch.as_tensor(batch.label), ce)
        weights = reference.weights(options) if auxiliary else {}
        values["total"] = values["ce"] + sum(weights[key] * x for key, x in auxiliary.items())
        target = values["total"]
    target.backward()
    if hasattr(options, "w_layout"):
        trace |= combined(trace, options)
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
    kind: str | None = None,
) -> dict[str, float]:
    """Compare one step of the model with the reference, at parameters away from their start.

    Parameters
    ----------
    partner : array or None
        Partners of the negative pairs; None compares inference.
    reference : dict, optional
        Options in which the reference shall differ from the model.
    kind : str, optional
        Name of the reference, for a model that is not in ``MODELS``.
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
        kind or model_name(model),
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
    missing = expected.keys() - grads.keys()
    for path in missing:  # state without gradient; at inference, what only training uses
        assert path in getattr(model, "buffers", ()) or draws is None, path
    for path in getattr(model, "buffers", ()):
        assert path in missing
        expected.pop(path)
    pairs = {
        "value": (ours.values, theirs.values),
        "cache": (ours.intermediates, theirs.intermediates),
        "d": (dict.fromkeys(expected, 0.0) | grads, expected),
    }
    return {
        f"{kind} {key}": deviation(a[key], b[key]) for kind, (a, b) in pairs.items() for key in a
    }


def strangers(model: Any, training: bool, scenario: np.ndarray = SCENARIO, seed: int = 0) -> set:
    """Return the cached values that are neither a parameter nor a value of the reference.

    Rows may be in the order of the batch or sorted by scenario, parameters may be those of the
    scenarios present, and any axes may be swapped.
    """
    rng = np.random.default_rng(seed)
    params, batch = moved(model, rng), random_batch(rng, model, scenario)
    draws = {"partner": np.roll(np.arange(len(scenario)), 1)} if training else None
    _, cache = model.forward(params, batch, draws=draws)
    options = SimpleNamespace(**asdict(model))
    theirs = reference_step(
        model_name(model), options, as_tensors(params), batch, draws, dz=np.ones(len(scenario))
    )
    order, present = np.argsort(scenario, kind="stable"), np.unique(scenario)
    known = [x.detach().numpy() for x in (*theirs.intermediates.values(), *theirs.values.values())]
    leaves = list(tree_flatten(params).values())
    leaves += [leaf[present] for leaf in leaves if len(leaf) == model.n_scenarios]
    known += [x[order] for x in known if x.shape[:1] == scenario.shape] + leaves
    prints = [np.sort(x, axis=None) for x in known]

    def is_known(array: np.ndarray) -> bool:
        values = np.sort(array, axis=None)
        return any(
            values.shape == x.shape and deviation(values, torch.as_tensor(x)) <= 1e-11
            for x in prints
        )

    return {
        path
        for path, array in walk_cache(cache, "cache")
        if array.dtype.kind == "f" and array.size > 1 and not is_known(array)
    }
