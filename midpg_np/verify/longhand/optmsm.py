"""OptMSM (the reconstruction) in full: all embeddings of the set, a theta per row (10.1)."""

from __future__ import annotations

from math import prod

from midpg_np.models.optmsm import OptMSM
from midpg_np.verify.longhand.calculation import Calculation, Sheet
from midpg_np.verify.longhand.common import finish, write_embedding, write_loss
from midpg_np.verify.longhand.optmsm_rules import (
    DIVIDE,
    JOIN,
    MIX,
    OFF_DIAGONAL_PRODUCTS,
    PAIR_MEAN,
    ROW_AFFINE,
    SET_OF_MAPS,
    SOFTMAX,
    cut,
    norm,
    one_hot,
)
from midpg_np.verify.longhand.rules import AFFINE, CONCAT, GATHER, MATMUL, activation, columns

TOWER = ("W_1", "b_1", "W_2", "b_2")


def optmsm(model: OptMSM, *, training: bool = True) -> Calculation:
    """Write out a step of OptMSM; without ``training`` there is no orthogonality loss."""
    do = Sheet()
    X = write_embedding(do, model)
    d_aw, d_ag = model.dims_input
    do("E_sp", columns(0, d_aw), X, eq="10.1a")
    do("E_sh", columns(d_aw, d_aw + d_ag), X, eq="10.1b")
    do("A_c", AFFINE, "E_sp", "encoder.W", "encoder.b", eq="10.1a")
    do("c", activation(model.activation), "A_c", eq="10.1a")
    _write_mixture(do, model)
    auxiliary = tuple(model.auxiliary_weights) if training else ()
    if auxiliary:
        _write_orthogonality(do, model)
    do("rho", CONCAT, "c", "m", eq="10.1c")
    _write_theta(do, model)
    _write_tower(do, model)
    write_loss(do, model, "tower.output", auxiliary)
    return finish(do, model)


def _write_mixture(do: Sheet, model: OptMSM) -> None:
    """Write G (B, D, q), the weights w (B, D) and m (B, q)."""
    do("G", SET_OF_MAPS, "E_sh", "shared.A", "shared.a", eq="10.1b")
    if model.combine == "attention":
        do("alpha", AFFINE, "c", "shared.attention.W", "shared.attention.b", eq="10.1c")
        do("w", SOFTMAX, "alpha", eq="10.1c")
    else:
        do("w", one_hot(model.n_scenarios), "scenario", eq="10.1c")
    do("m", MIX, "w", "G", eq="10.1c")


def _write_orthogonality(do: Sheet, model: OptMSM) -> None:
    """Write "orthogonality" from the embeddings, normalised or as they are."""
    G_hat = "G"
    if model.orth_on == "cosine":
        do("nu", norm(model.eps), "G", eq="10.1f")
        G_hat = do("G_hat", DIVIDE, "G", "nu", eq="10.1f")
    do("O", OFF_DIAGONAL_PRODUCTS, G_hat, eq="10.1f")
    do("orthogonality", PAIR_MEAN, "O", eq="10.1f")


def _write_theta(do: Sheet, model: OptMSM) -> None:
    """Write ``theta_of_rows`` (B, n_theta): the tower of each row's scenario, or the row's own."""
    params = "hypernetwork"
    parts = [f"{params}.omega_0.layer_{i}.{key}" for i in (1, 2) for key in ("W", "b")]
    do("omega_0", JOIN, *parts, eq="10.1d")
    code = "E_sp" if model.hyper_input == "aware" else "code.Z"
    if model.hyper == "low_rank":
        do("u", MATMUL, code, f"{params}.Omega_in", eq="10.1h")
        Omega = f"{params}.Omega_out"
    else:
        do("u", CONCAT, code, eq="10.1d")
        Omega = f"{params}.Omega"
    do("theta", AFFINE, "u", Omega, "omega_0", eq="10.1d")
    if model.hyper_input == "aware":
        do("theta_of_rows", CONCAT, "theta", eq="10.1i")
    else:
        do("theta_of_rows", GATHER, "theta", "scenario", eq="10.1e")


def _write_tower(do: Sheet, model: OptMSM) -> None:
    """Cut theta and write ``tower.output`` (B, 1)."""
    dim_in, h = model.dim_specific + model.dim_shared, model.tower_hidden
    shapes, start = ((dim_in, h), (h,), (h, 1), (1,)), 0
    for name, shape in zip(TOWER, shapes, strict=True):
        do(f"tower.{name}", cut(start, *shape), "theta_of_rows", eq="10.1d")
        start += prod(shape)
    do("tower.A", ROW_AFFINE, "rho", "tower.W_1", "tower.b_1", eq="10.1e")
    do("tower.H", activation(model.activation), "tower.A", eq="10.1e")
    do("tower.output", ROW_AFFINE, "tower.H", "tower.W_2", "tower.b_2", eq="10.1e")
