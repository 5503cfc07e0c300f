"""How the fast framework versions of PLE, STAR, PEPNet, AdaSparse, APG and OptMSM store parameters.

What reads the same input stands side by side, so that one product serves it all; what belongs to
scenarios is stacked in front.  The versions cover the default options; sizes are free.
"""

from __future__ import annotations

from dataclasses import fields
from functools import cached_property
from typing import Any

import numpy as np

from frameworks import Network

Leaves = dict[str, np.ndarray]

# Sizes, and what is no part of the forward pass.
FREE = {
    "vocab_sizes", "n_aware", "n_scenarios", "dim_embedding", "hidden", "form",
    "eps", "momentum", "specific_init", "dim_domain",
    "prior_fields", "gate_hidden", "gamma",
    "beta", "epsilon", "alpha_start", "alpha_end", "sparsity_weight", "r_min", "r_max",
    "lambda_start", "lambda_end", "schedule_steps",
    "rank", "over_rank",
    "dim_specific", "dim_shared", "dim_code", "tower_hidden", "orth_weight",
}  # fmt: skip


class Rearranged(Network):
    """A network that stores the entries of its parameters in another order.

    A subclass says by ``arrange`` how; the inverse follows from where each entry went.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        for option in fields(model):
            value = getattr(model, option.name)
            if option.name not in FREE and value != option.default:
                raise NotImplementedError(f"only {option.name} = {option.default!r} is written.")
        for name, value in vars(type(model)).items():
            if isinstance(value, cached_property):  # made now: a tracer would stop at its making
                getattr(model, name)
        self.places: dict[str, np.ndarray] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}

    def arrange(self, leaves: Leaves) -> Leaves:
        """Return the stored arrays, all entries of ``leaves`` in some order."""
        raise NotImplementedError

    def pack(self, leaves: Leaves) -> Leaves:
        """Arrange, and remember where each entry went."""
        self.shapes = {name: leaf.shape for name, leaf in leaves.items()}
        ends = np.cumsum([leaf.size for leaf in leaves.values()])
        numbers = {
            name: np.arange(end - leaf.size, end).reshape(leaf.shape)
            for (name, leaf), end in zip(leaves.items(), ends, strict=True)
        }
        self.places = self.arrange(numbers)
        stored = self.arrange(dict(leaves))
        return {name: np.ascontiguousarray(x) for name, x in stored.items()}

    def unpack(self, stored: Leaves) -> Leaves:
        """Inverse of ``pack``; leaves that are not stored (buffers, in gradients) are left out."""
        total = sum(int(np.prod(shape)) for shape in self.shapes.values())
        flat, is_stored = np.zeros(total), np.zeros(total, dtype=bool)
        for name, x in stored.items():
            flat[self.places[name]] = x
            is_stored[self.places[name]] = True
        leaves, start = {}, 0
        for name, shape in self.shapes.items():
            end = start + int(np.prod(shape))
            if is_stored[start:end].all():
                leaves[name] = flat[start:end].reshape(shape)
            start = end
        return leaves


def side_by_side(W: np.ndarray) -> np.ndarray:
    """(N, I, O) -> (I, N O)."""
    return W.swapaxes(0, 1).reshape(W.shape[1], -1)


class PackedPLE(Rearranged):
    """Two levels with one expert per scenario and a shared one.

    ``experts.W`` (I, E q) and ``gates.W`` (I, D 2 + E) of level 1 multiply all rows: first the
    gates of the scenarios, then the shared gate.  Of level 2 ``own.W`` (D, I, q) are the specific
    experts and ``gates_2.W`` (I, D 2) the gates side by side.
    """

    @property
    def tower(self) -> list[str]:
        """Paths of the towers' layers."""
        return [f"tower.{name}" for name in self.model.tower.layer_names]

    def arrange(self, leaves: Leaves) -> Leaves:
        """Stack experts and gates."""
        level, gate = "level_1", "level_1.shared_gate"
        stored: Leaves = {}
        for key, join in (("W", side_by_side), ("b", np.ravel)):
            specific = leaves.pop(f"{level}.specific.layer_1.{key}")[:, 0]
            shared = leaves.pop(f"{level}.shared.layer_1.{key}")
            stored[f"experts.{key}"] = join(np.concatenate([specific, shared]))
            parts = [
                leaves.pop(f"{level}.specific_gate.{key}"),
                leaves.pop(f"{gate}.specific.{key}"),
            ]
            joined = [join(part) for part in parts] + [leaves.pop(f"{gate}.shared.{key}")]
            stored[f"gates.{key}"] = np.concatenate(joined, axis=-1)
            stored[f"own.{key}"] = leaves.pop(f"level_2.specific.layer_1.{key}")[:, 0]
            stored[f"gates_2.{key}"] = join(leaves.pop(f"level_2.specific_gate.{key}"))
            stored[f"level_2.{key}"] = leaves.pop(f"level_2.shared.layer_1.{key}")[0]
        return leaves | stored


class PackedPEPNet(Rearranged):
    """``gates.W`` (d_U, 3 u): first layers of all gates of PPNet side by side."""

    def arrange(self, leaves: Leaves) -> Leaves:
        """Stack the first layers of the gates."""
        gates = [f"ppnet.gate_{i}.layer_1" for i in range(1, len(self.model.hidden) + 1)]
        stored = {
            f"gates.{key}": np.concatenate([leaves.pop(f"{gate}.{key}") for gate in gates], axis=-1)
            for key in ("W", "b")
        }
        return leaves | stored


class PackedAdaSparse(Rearranged):
    """``aware.W`` (d_aw, N): rows of all pruners that meet E_aw; the rest is ``layer_1.from_h``."""

    def arrange(self, leaves: Leaves) -> Leaves:
        """Cut the pruners' kernels at row d_aw."""
        names = list(self.model.shapes)
        d_aw = self.model.dim_aware
        kernels = {name: leaves.pop(f"{name}.pruner.W") for name in names}
        stored = {f"{name}.from_h": W[d_aw:] for name, W in kernels.items()}
        stored["aware.W"] = np.concatenate([W[:d_aw] for W in kernels.values()], axis=1)
        stored["aware.b"] = np.concatenate([leaves.pop(f"{name}.pruner.b") for name in names])
        return leaves | stored


class PackedAPG(Rearranged):
    """``generators.W`` (d_aw, L K^2): the linear generators of all layers side by side."""

    def arrange(self, leaves: Leaves) -> Leaves:
        """Stack the generators."""
        stored = {
            f"generators.{key}": np.concatenate(
                [leaves.pop(f"{name}.generator.layer_1.{key}") for name in self.model.layers],
                axis=-1,
            )
            for key in ("W", "b")
        }
        return leaves | stored


class PackedOptMSM(Rearranged):
    """``set.W`` (d_ag, D q): the maps of all shared embeddings; ``omega_0`` as one vector.

    With ``theta_columns`` the entries of Omega and omega_0 stand such that theta is W_1 (I, D h)
    for all scenarios side by side: see ``forward``.
    """

    def arrange(self, leaves: Leaves) -> Leaves:
        """Lay the maps side by side, and join omega_0."""
        stored = {
            "set.W": side_by_side(leaves.pop("shared.A")),
            "set.b": leaves.pop("shared.a").ravel(),
        }
        parts = [f"hypernetwork.omega_0.layer_{i}.{key}" for i in (1, 2) for key in ("W", "b")]
        stored["omega_0"] = np.concatenate([leaves.pop(part).ravel() for part in parts])
        return leaves | stored


class PackedSTAR(Rearranged):
    """Nothing is moved."""

    def arrange(self, leaves: Leaves) -> Leaves:
        """Keep all leaves."""
        return leaves
