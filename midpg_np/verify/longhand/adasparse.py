"""AdaSparse in full: soft values, masks, factors, regulariser (derivations 8)."""

from __future__ import annotations

from dataclasses import replace

from midpg_np.models.adasparse import AdaSparse
from midpg_np.verify.longhand.adasparse_rules import (
    ADVANCE,
    HARD,
    MASKED,
    MEAN_PRODUCT,
    PENALTY_WEIGHT,
    SUBTRACT,
    TEMPERED,
    above,
    distance,
    is_outside,
    pruned_share,
    schedule,
)
from midpg_np.verify.longhand.calculation import Calculation, Sheet
from midpg_np.verify.longhand.common import finish, write_embedding, write_loss
from midpg_np.verify.longhand.rules import (
    ADD,
    AFFINE,
    CONCAT,
    MULTIPLY,
    STOP,
    activation,
    columns,
    scale,
    scaled_sigmoid,
    weighted_sum,
)

COUNTER = "schedule.step"


def adasparse(model: AdaSparse, *, training: bool = True) -> Calculation:
    """Write out a step; without ``training`` there is no regulariser, and the count stays."""
    do = Sheet()
    H = write_embedding(do, model)
    do("E_aw", columns(0, model.dim_aware), H, eq="8.1a")
    line = schedule(model.alpha_start, model.alpha_end, model.schedule_steps)
    do("alpha", line, COUNTER, eq="8.1c")
    for i, name in enumerate(model.shapes, start=1):
        kept = H
        if name in model.layers:
            do(f"{name}.U", CONCAT, "E_aw", H, eq="8.1a")
            _write_factors(do, model, name, training)
            kept = _write_pruned(do, model, name, H)
        H = do(f"{name}.A", AFFINE, kept, f"{name}.W", f"{name}.b", eq="8.1a")
        if name != "head":
            H = do(f"H_{i + 1}", activation(model.activation), H, eq="8.1a")
    terms: tuple[str, ...] = ()
    if training:
        terms = _write_regulariser(do, model)
        do(f"next.{COUNTER}", ADVANCE, COUNTER, eq="8.1c")
    write_loss(do, model, H, terms)
    calculation = finish(do, model)
    return replace(calculation, constants=calculation.constants | {"alpha", "lambda_hat"})


def _write_factors(do: Sheet, model: AdaSparse, name: str, training: bool) -> None:
    """Write ``name.pi`` (B, N) from U: v_in, the soft value v, and what the threshold leaves."""
    pruner = f"{name}.pruner"
    a = do(f"{name}.v_in", AFFINE, f"{name}.U", f"{pruner}.W", f"{pruner}.b", eq="8.1a")
    if model.prune != "scaling":
        a = do(f"{name}.alpha_v_in", TEMPERED, a, "alpha", eq="8.1b")
    gain = model.layers[name].pruner.gain
    v = do(f"{name}.v", scaled_sigmoid(gain), a, eq="8.1b")
    pi, is_binary = f"{name}.pi", model.prune == "binarization"
    if model.prune == "scaling" or (is_binary and model.binarize_grad == "soft" and training):
        do(pi, scale(1.0), v, eq="8.1b")
        return
    kept = do(f"{name}.kept", above(model.epsilon), v, eq="8.1b")
    hard = HARD if is_binary else MASKED
    if (model.binarize_grad if is_binary else model.fusion_grad) != "ste":
        do(pi, hard, v, kept, eq="8.1b")
        return
    do(f"{name}.hard", hard, v, kept, eq="8.1b")
    do(f"{name}.gap", SUBTRACT, f"{name}.hard", v, eq="8.3d")
    do(f"{name}.sg_gap", STOP, f"{name}.gap", eq="8.3d")
    do(pi, ADD, v, f"{name}.sg_gap", eq="8.3d")


def _write_pruned(do: Sheet, model: AdaSparse, name: str, H: str) -> str:
    """Write ``name.H_pruned`` = H pi; of the input perhaps its last columns only."""
    pruned, pi = f"{name}.H_pruned", f"{name}.pi"
    dim_in, n_pruned = model.shapes[name][0], model.layers[name].pruner.dim_out
    if n_pruned == dim_in:
        return do(pruned, MULTIPLY, H, pi, eq="8.1a")
    do(f"{name}.H_plain", columns(0, dim_in - n_pruned), H, eq="8.1a")
    do(f"{name}.H_last", columns(dim_in - n_pruned, dim_in), H, eq="8.1a")
    do(f"{name}.H_last_pruned", MULTIPLY, f"{name}.H_last", pi, eq="8.1a")
    return do(pruned, CONCAT, f"{name}.H_plain", f"{name}.H_last_pruned", eq="8.1a")


def _write_regulariser(do: Sheet, model: AdaSparse) -> tuple[str, ...]:
    """Write "sparsity", R_s: the mean of the pruned layers' penalties."""
    if not model.sparsity_weight:
        return ()
    line = schedule(model.lambda_start, model.lambda_end, model.schedule_steps)
    do("lambda_hat", line, COUNTER, eq="8.1c")
    penalties = []
    for name in model.layers:
        do(f"{name}.r", pruned_share(model.ratio), f"{name}.pi", eq="8.1d")
        do(f"{name}.distance", distance(model.sparsity.middle), f"{name}.r", eq="8.1d")
        do(f"{name}.outside", is_outside(model.r_min, model.r_max), f"{name}.r", eq="8.1d")
        weight, gap = f"{name}.lambda", f"{name}.distance"
        do(weight, PENALTY_WEIGHT, gap, f"{name}.outside", "lambda_hat", eq="8.1d")
        if model.lambda_detach:
            weight = do(f"{name}.sg_lambda", STOP, weight, eq="8.3b")
        penalties.append(do(f"{name}.penalty", MEAN_PRODUCT, weight, gap, eq="8.1d"))
    return (do("sparsity", weighted_sum([1.0 / len(penalties)] * len(penalties)), *penalties),)
