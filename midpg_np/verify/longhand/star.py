"""STAR in full: statistics and weights of all scenarios, absent ones too (derivations 6.1)."""

from __future__ import annotations

from midpg_np.models.star import STAR
from midpg_np.verify.longhand.calculation import Calculation, Sheet
from midpg_np.verify.longhand.common import finish, write_embedding, write_loss, write_mlp
from midpg_np.verify.longhand.rules import ADD, CONCAT, GATHER, MULTIPLY, activation
from midpg_np.verify.longhand.scenario_rules import SCENARIO_AFFINE
from midpg_np.verify.longhand.star_rules import (
    DEVIATION,
    MEAN,
    MOVING,
    PLUS_OWN,
    TIMES_OWN,
    VARIANCE,
    inverse_root,
    moved,
)


def star(model: STAR, *, training: bool = True) -> Calculation:
    """Write out a step: normalisation, star, auxiliary network, and the moved statistics."""
    do = Sheet()
    X = write_embedding(do, model)
    V = _write_norm(do, model, "norm", X, training=training) if model.has_norm else X
    z = _write_star(do, model, V)
    if model.aux:
        z_aux = _write_auxiliary(do, model, X, training=training)
        z = do("z", ADD, z, z_aux, eq="6.1f")
    write_loss(do, model, z)
    if training:
        _write_moved(do, model)
    return finish(do, model)


def _write_norm(do: Sheet, model: STAR, norm: str, X: str, *, training: bool) -> str:
    """Write the partitioned normalisation of X and return the name of V."""
    mean, variance = (MEAN, VARIANCE) if training else (MOVING, MOVING)
    mu = do(f"{norm}.mu", mean, X, f"{norm}.mean", "scenario", eq="6.1a")
    deviation = do(f"{norm}.deviation", DEVIATION, X, mu, "scenario", eq="6.1a")
    nu = do(f"{norm}.nu", variance, deviation, f"{norm}.variance", "scenario", eq="6.1a")
    r = do(f"{norm}.inverse_std", inverse_root(model.eps), nu, eq="6.1a")
    X_hat = do(f"{norm}.X_hat", TIMES_OWN, deviation, r, "scenario", eq="6.1a")
    scale = do(f"{norm}.scale", MULTIPLY, f"{norm}.gamma", f"{norm}.scenario_gamma", eq="6.1b")
    shift = do(f"{norm}.shift", ADD, f"{norm}.beta", f"{norm}.scenario_beta", eq="6.1b")
    scaled = do(f"{norm}.scaled_X_hat", TIMES_OWN, X_hat, scale, "scenario", eq="6.1b")
    return do(f"{norm}.V", PLUS_OWN, scaled, shift, "scenario", eq="6.1b")


def _write_star(do: Sheet, model: STAR, H: str) -> str:
    """Write the main network and return the name of its logit (B, 1)."""
    for i, name in enumerate(model.star.layer_names, start=1):
        layer, is_last = f"star.{name}", name == model.star.layer_names[-1]
        factors = (f"{layer}.shared.W", f"{layer}.scenario.W")
        W = do(f"{layer}.W_star", MULTIPLY, *factors, eq="6.1d")
        summands = (f"{layer}.shared.b", f"{layer}.scenario.b")
        b = do(f"{layer}.b_star", ADD, *summands, eq="6.1d")
        A = "z_main" if is_last else f"star.A_{i}"
        do(A, SCENARIO_AFFINE, H, W, b, "scenario", eq="6.1e")
        H = A if is_last else do(f"star.H_{i}", activation(model.activation), A, eq="6.1e")
    return H


def _write_auxiliary(do: Sheet, model: STAR, X: str, *, training: bool) -> str:
    """Write the small network on [e_dom, X] and return the name of its logit (B, 1)."""
    if model.aux_norm:
        X = _write_norm(do, model, "aux.norm", X, training=training)
    e_dom = do("aux.e_dom", GATHER, "aux.domain.table", "scenario", eq="6.1f")
    U = do("aux.U", CONCAT, e_dom, X, eq="6.1f")
    return write_mlp(do, "aux", "aux.mlp", model.auxiliary_network.mlp, U, eq="6.1f")


def _write_moved(do: Sheet, model: STAR) -> None:
    """Write what the moving statistics are after the step."""
    now = {"mean": "mu", "variance": "nu"}
    for buffer in model.buffers:
        norm, key = buffer.rsplit(".", 1)
        statistic = f"{norm}.{now[key]}"
        do(f"next.{buffer}", moved(model.momentum), buffer, statistic, "scenario", eq="6.1c")
