"""Tower whose hidden vectors are multiplied by gates, unit by unit (derivations 7.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from midpg_np.backend import Array
from midpg_np.layers.blocks import block_form
from midpg_np.layers.gate import Gate, GateCache
from midpg_np.layers.groups import Groups
from midpg_np.layers.initial import init_affine, init_scenario_affine
from midpg_np.layers.mlp import mlp_multiply_adds
from midpg_np.ops import (
    ACTIVATIONS,
    AffineCache,
    Pair,
    activation_backward,
    add_to,
    biased,
    biased_backward,
    check_activation,
    product,
    product_backward,
)
from midpg_np.tree import Tree

GATE_AT = ("hidden_output", "layer_input")


class GatedTowerCache(NamedTuple):
    """Per layer: what enters the gate in front of it, the gate, the map, its A, the activation.

    ``gates`` holds the gates by name: "gate_0" may be missing, see ``GatedTower``.
    """

    R: tuple[Array, ...]
    gates: dict[str, GateCache]
    affine: tuple[Any, ...]
    A: tuple[Array, ...]
    activation: tuple[Any, ...]


@dataclass(frozen=True)
class GatedTower:
    """R^l = act(H^l W^l + b^l), H^{l+1} = delta^l R^l with delta^l = Gate_l(U), l = 1 ... L.

    See derivations 11a.

    The last map (l = L + 1) has neither activation nor gate behind it.  One gate per layer, all
    reading the same U.

    Parameters
    ----------
    dims : tuple of int
        Widths d_0, n_1 ... n_L and that of the output.
    dim_context : int
        Width of U.
    gate_at : str
        "hidden_output": H^1 = O, the input.  "layer_input": H^1 = delta^0 O, one gate more, so
        that every layer's input is gated.
    n_towers : int or None
        Number T of towers; a row passes through that of its scenario, in ``W`` (T, I, O) and ``b``
        (T, O).  None: one tower for all rows, without that axis.
    activation : str
        A name in ``ops.ACTIVATIONS``; gates keep ReLU.
    gate_hidden, gamma, dim_live, form
        See ``Gate``.

    Raises
    ------
    ValueError
        If ``gate_at`` is no known name, a width is below 1, or no layer is left to gate.
    """

    dims: tuple[int, ...]
    dim_context: int
    gate_at: str = "hidden_output"
    n_towers: int | None = None
    activation: str = "relu"
    gate_hidden: int | None = 32
    gamma: float = 2.0
    dim_live: int | None = None
    form: str = "grouped"

    def __post_init__(self) -> None:
        check_activation(self.activation)
        if self.gate_at not in GATE_AT:
            raise ValueError(f"gate_at must be one of {GATE_AT}; got {self.gate_at!r}.")
        n_widths = 2 if self.gate_at == "layer_input" else 3
        if len(self.dims) < n_widths or min(self.dims) < 1:
            raise ValueError(
                f"hidden must hold at least one width of at least 1; got {self.dims[1:-1]}. "
                "Without a hidden layer there is nothing to gate, unless gate_at='layer_input'."
            )
        _ = self.gates  # report wrong options of the gates now, not at the first batch

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Keys of the maps in the parameter tree, in order."""
        return tuple(f"layer_{i}" for i in range(1, len(self.dims)))

    @cached_property
    def gates(self) -> dict[str, Gate]:
        """Gates by name; "gate_l" multiplies what layer l puts out, "gate_0" the input."""
        first = 0 if self.gate_at == "layer_input" else 1
        return {
            f"gate_{i}": Gate(
                self.dim_context,
                self.dims[i],
                self.gate_hidden,
                self.gamma,
                self.n_towers,
                self.dim_live,
                self.form,
            )
            for i in range(first, len(self.dims) - 1)
        }

    @property
    def multiply_adds(self) -> int:
        """Multiplications of one row in its tower and in its gates."""
        gates = sum(gate.multiply_adds for gate in self.gates.values())
        return mlp_multiply_adds(self.dims) + gates

    def init(self, rng: np.random.Generator) -> Tree:
        """Draw Glorot kernels, each tower its own, and zero biases."""
        params: Tree = {}
        for name, shape in zip(self.layer_names, pairwise(self.dims), strict=True):
            if self.n_towers is None:
                params[name] = init_affine(rng, *shape)
            else:
                params[name] = init_scenario_affine(rng, self.n_towers, *shape)
        return params | {name: gate.init(rng) for name, gate in self.gates.items()}

    def forward(
        self,
        params: Tree,
        O: Array,  # noqa: E741
        U: Array,
        groups: Groups | None = None,
    ) -> tuple[Array, GatedTowerCache]:
        """Return the output; with several towers, the rows are sorted as ``groups`` says.

        See derivations 7.1e, 7.1f.

        Shapes
        ------
        O : (B, d_0)
        U : (B, d_U)
        y : (B, d_y)
        """
        inputs, gates, maps, pre_activations, activations = [], {}, [], [], []
        R = O
        for i, name in enumerate(self.layer_names):
            inputs.append(R)
            H = R
            if (gate := f"gate_{i}") in self.gates:
                H, gates[gate] = self.gates[gate].times(params[gate], U, R, groups)
            if name == self.layer_names[-1]:
                A, c_map = self._maps.forward(H, **params[name], groups=groups)
            else:
                A, R, c_map, c_act = self._activated(params[name], H, groups)
                activations.append(c_act)
            maps.append(c_map)
            pre_activations.append(A)
        return A, GatedTowerCache(
            tuple(inputs), gates, tuple(maps), tuple(pre_activations), tuple(activations)
        )

    def backward(self, dy: Array, cache: GatedTowerCache) -> tuple[Array, Array, Tree]:
        """Return ``dO``, ``dU`` (its live columns only) and the gradients.

        See derivations 7.3a, 7.3b, 7.3e.

        Every gate reads U, so dU is the sum over the gates.
        """
        grads, dU, dR = {}, None, dy
        for i, name in reversed(list(enumerate(self.layer_names))):
            if name == self.layer_names[-1]:
                dR, dW, db = self._maps.backward(dR, cache.affine[i])
            else:
                caches = cache.affine[i], cache.activation[i]
                dR, dW, db = self._activated_backward(dR, *caches)
            grads[name] = {"W": dW, "b": db}
            if (gate := f"gate_{i}") in self.gates:
                c_gate = cache.gates[gate]
                dR, dU_gate, grads[gate] = self.gates[gate].times_backward(dR, cache.R[i], c_gate)
                dU = add_to(dU, dU_gate)
        return dR, dU, {name: grads[name] for name in (*self.layer_names, *self.gates)}

    @property
    def _maps(self) -> Pair:
        return block_form(self.n_towers, self.form)

    def _activated(
        self, params: Tree, H: Array, groups: Groups | None
    ) -> tuple[Array, Array, Any, Any]:
        """Return A, act(A) and the caches of both steps; one tower joins bias and activation."""
        act = ACTIVATIONS[self.activation]
        if self.n_towers is None:
            W, b = params["W"], params["b"]
            A, R, c_act = biased(product(H, W), b, act)
            return A, R, AffineCache(H, W), c_act
        A, c_map = self._maps.forward(H, **params, groups=groups)
        R, c_act = act.forward(A)
        return A, R, c_map, c_act

    def _activated_backward(self, dR: Array, c_map: Any, c_act: Any) -> tuple[Array, Any, Any]:
        """Return ``dH, dW, db``; dR is given up."""
        act = ACTIVATIONS[self.activation]
        if self.n_towers is None:
            dA, db = biased_backward(dR, c_act, act)
            return *product_backward(dA, c_map), db
        dH, dW, db = self._maps.backward(activation_backward(act, dR, c_act), c_map)
        return dH, dW, db

    def kinks(self, cache: GatedTowerCache) -> dict[str, Array]:
        """Pre-activations by the path of the bias that shifts them, in order of computation."""
        kinks: dict[str, Array] = {}
        for i, name in enumerate(self.layer_names):
            if (gate := f"gate_{i}") in self.gates:
                inner: Mapping[str, Array] = self.gates[gate].kinks(cache.gates[gate])
                kinks |= {f"{gate}.{path}": A for path, A in inner.items()}
            if name != self.layer_names[-1]:
                kinks[f"{name}.b"] = cache.A[i]
        return kinks
