"""PEPNet in full: every gate with its two layers, in the order of the batch (derivations 7)."""

from __future__ import annotations

from midpg_np.models.pepnet import PEPNet
from midpg_np.verify.longhand.calculation import Calculation, Sheet
from midpg_np.verify.longhand.common import finish, write_embedding, write_loss
from midpg_np.verify.longhand.pepnet_rules import TOWER_AFFINE, fields
from midpg_np.verify.longhand.rules import (
    AFFINE,
    CONCAT,
    MULTIPLY,
    STOP,
    activation,
    columns,
    scaled_sigmoid,
)


def pepnet(model: PEPNet, *, training: bool = True) -> Calculation:
    """Write out a step: EPNet's O, the prior, the gates and the tower, the logit, the loss."""
    do = Sheet()
    X = write_embedding(do, model)
    O = _write_epnet(do, model, X)  # noqa: E741
    do("E_prior", fields(model.priors, model.dim_embedding), X, eq="7.1d")
    do("sg_O", STOP, O, eq="7.1d")
    do("U", CONCAT, "E_prior", "sg_O", eq="7.1d")
    z = _write_tower(do, model, O)
    write_loss(do, model, z)
    return finish(do, model)


def _write_epnet(do: Sheet, model: PEPNet, X: str) -> str:
    """Write O (B, d_0): the embeddings, scaled by a gate that reads the domain and sg(E)."""
    do("E_dom", columns(0, model.dim_aware), X, eq="7.1b")
    do("E", columns(model.start, model.dim_input), X, eq="7.1b")
    do("sg_E", STOP, "E", eq="7.1b")
    do("U_dom", CONCAT, "E_dom", "sg_E", eq="7.1b")
    delta = _write_gate(do, model, "epnet", "epnet", "U_dom")
    if not model.start:
        return do("O", MULTIPLY, delta, "E", eq="7.1b")
    do("E_gated", MULTIPLY, delta, "E", eq="7.1c")
    do("E_plain", columns(0, model.start), X, eq="7.1c")
    return do("O", CONCAT, "E_plain", "E_gated", eq="7.1c")


def _write_gate(
    do: Sheet, model: PEPNet, name: str, params: str, U: str, scenario: tuple[str, ...] = ()
) -> str:
    """Write ``name.delta`` = gamma sigmoid(ReLU(U W_1 + b_1) W_2 + b_2), the last map by tower."""
    W, b = f"{params}.layer_1.W", f"{params}.layer_1.b"
    W_2, b_2 = f"{params}.layer_2.W", f"{params}.layer_2.b"
    do(f"{name}.A_1", AFFINE, U, W, b, eq="7.1a")
    do(f"{name}.R", activation("relu"), f"{name}.A_1", eq="7.1a")
    rule = TOWER_AFFINE if scenario else AFFINE
    do(f"{name}.A_2", rule, f"{name}.R", W_2, b_2, *scenario, eq="7.1a")
    return do(f"{name}.delta", scaled_sigmoid(model.gamma), f"{name}.A_2", eq="7.1a")


def _write_tower(do: Sheet, model: PEPNet, O: str) -> str:  # noqa: E741
    """Write A_l, R_l and H_{l+1} layer by layer, and return the name of the output (B, 1)."""
    scenario = ("scenario",) if model.routes_by_scenario else ()
    rule = TOWER_AFFINE if scenario else AFFINE
    H = O
    for i, name in enumerate(model.ppnet.layer_names):
        if (gate := f"gate_{i}") in model.ppnet.gates:
            delta = _write_gate(do, model, gate, f"ppnet.{gate}", "U", scenario)
            H = do(f"H_{i + 1}", MULTIPLY, delta, H, eq="7.1e")
        is_last = name == model.ppnet.layer_names[-1]
        A = "z" if is_last else f"A_{i + 1}"
        do(A, rule, H, f"ppnet.{name}.W", f"ppnet.{name}.b", *scenario, eq="7.1e")
        H = A if is_last else do(f"R_{i + 1}", activation(model.activation), A, eq="7.1e")
    return H
