"""PLE in full: all rows pass all experts and gates of all scenarios (derivations 5.1)."""

from __future__ import annotations

from midpg_np.models.ple import PLE
from midpg_np.verify.longhand.calculation import Calculation, Sheet
from midpg_np.verify.longhand.common import finish, write_embedding, write_loss
from midpg_np.verify.longhand.ple_rules import (
    JOIN,
    MIX,
    SOFTMAX,
    STACK,
    affine_at,
    softmax_over_own,
)
from midpg_np.verify.longhand.rules import AFFINE, MATMUL, activation
from midpg_np.verify.longhand.scenario_rules import PICK, SCENARIO_AFFINE


def ple(model: PLE, *, training: bool = True) -> Calculation:
    """Write out a step: level by level D + 1 streams, then each row's own tower."""
    do = Sheet()
    X = write_embedding(do, model)
    scenarios = [str(k) for k in range(model.n_scenarios)]
    streams = dict.fromkeys([*scenarios, "s"], X)
    for name in model.levels:
        streams = _write_level(do, model, name, streams)
    H = do("G_own", PICK, *(streams[k] for k in scenarios), "scenario", eq="5.1d")
    write_loss(do, model, _write_tower(do, model, H))
    return finish(do, model)


def _write_level(do: Sheet, model: PLE, level: str, G: dict[str, str]) -> dict[str, str]:
    """Write a level and return the names of its streams: "0", "1", ... and "s" if one leaves."""
    experts = {
        str(k): [
            _write_expert(do, model, level, (k, e), G[str(k)]) for e in range(model.n_specific)
        ]
        for k in range(model.n_scenarios)
    }
    shared = [_write_expert(do, model, level, (e,), G["s"]) for e in range(model.n_shared)]
    streams = {}
    for k, own in experts.items():
        S = do(f"{level}.S_{k}", STACK, *own, *shared, eq="5.1b")
        gate, params = f"{level}.gate_{k}", f"{level}.specific_gate"
        leaves = [f"{params}.{leaf}" for leaf in _gate_leaves(model)]
        alpha = do(f"{gate}.alpha", affine_at(int(k)), G[k], *leaves, eq="5.1b")
        w = do(f"{gate}.w", SOFTMAX, alpha, eq="5.1b")
        streams[k] = do(f"{level}.G_{k}", MIX, w, S, eq="5.1b")
    if model.n_shared and level != list(model.levels)[-1]:
        everyone = [e for own in experts.values() for e in own]
        S = do(f"{level}.S", STACK, *everyone, *shared, eq="5.1c")
        w = _write_shared_gate(do, model, level, G["s"])
        streams["s"] = do(f"{level}.G_s", MIX, w, S, eq="5.1c")
    return streams


def _write_expert(do: Sheet, model: PLE, level: str, place: tuple[int, ...], H: str) -> str:
    """Write E, an MLP with an activation after its last layer too, at a place of its stack."""
    path = "_".join(str(i) for i in (place if len(place) == 2 else ("s", *place)))
    expert, params = f"{level}.expert_{path}", "specific" if len(place) == 2 else "shared"
    n_layers = len(model.levels[level].dims) - 1
    for i in range(1, n_layers + 1):
        leaves = [f"{level}.{params}.layer_{i}.{leaf}" for leaf in ("W", "b")]
        A = do(f"{expert}.A_{i}", affine_at(*place), H, *leaves, eq="5.1a")
        output = "E" if i == n_layers else f"H_{i}"
        H = do(f"{expert}.{output}", activation(model.activation), A, eq="5.1a")
    return H


def _write_shared_gate(do: Sheet, model: PLE, level: str, G_s: str) -> str:
    """Write the shared gate, one kernel for all experts, and return its weights."""
    gate, params = f"{level}.gate_s", f"{level}.shared_gate"
    parts = (f"{params}.specific", f"{params}.shared")
    leaves = [
        do(f"{gate}.{leaf}", JOIN, *(f"{part}.{leaf}" for part in parts), eq="5.1c")
        for leaf in _gate_leaves(model)
    ]
    rule = AFFINE if model.gate_bias else MATMUL
    alpha = do(f"{gate}.alpha", rule, G_s, *leaves, eq="5.1c")
    if model.shared_gate_scope == "all":
        return do(f"{gate}.w", SOFTMAX, alpha, eq="5.1c")
    own = softmax_over_own(model.n_scenarios, model.n_specific, model.n_shared)
    return do(f"{gate}.w", own, alpha, "scenario", eq="5.2a")


def _gate_leaves(model: PLE) -> tuple[str, ...]:
    return ("W", "b") if model.gate_bias else ("W",)


def _write_tower(do: Sheet, model: PLE, H: str) -> str:
    """Write the tower of each row's scenario and return the name of its logit (B, 1)."""
    for i, name in enumerate(model.tower.layer_names, start=1):
        is_last = name == model.tower.layer_names[-1]
        A = "tower.output" if is_last else f"tower.A_{i}"
        leaves = (f"tower.{name}.W", f"tower.{name}.b")
        do(A, SCENARIO_AFFINE, H, *leaves, "scenario", eq="5.1d")
        H = A if is_last else do(f"tower.H_{i}", activation(model.activation), A, eq="5.1d")
    return H
