"""Tower whose weights come out of a hypernetwork: one per scenario, or one per row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from midpg_np.backend import Array
from midpg_np.layers.code_affine import CODE_FORMS
from midpg_np.layers.groups import Groups
from midpg_np.layers.hypernetwork import Hypernetwork, HypernetworkCache
from midpg_np.layers.scenario_mlp import AFFINE_FORMS
from midpg_np.ops import ACTIVATIONS, check_activation
from midpg_np.tree import Tree

TOWER_FORMS = ("fast", "textbook")


class TowerCache(NamedTuple):
    """The pre-activation A (B, h), and the caches of both maps and what made their weights."""

    hypernetwork: HypernetworkCache
    layer_1: Any
    A: Array
    activation: Any
    layer_2: Any


@dataclass(frozen=True)
class GeneratedTower:
    """z_b = act(H_b W_1 + b_1) W_2 + b_2, where (W_1, b_1, W_2, b_2) = theta of the row's code.

    Parameters
    ----------
    hypernetwork : Hypernetwork
        Generates theta.
    per_row : bool
        False: a code per scenario present, and the rows of each scenario go through its tower.
        True: a code per row, and no scenario is read.
    activation : str
        A name in ``ops.ACTIVATIONS``.
    form : str
        "fast" or "textbook": which of the forms in ``scenario_mlp`` or ``code_affine``.

    Raises
    ------
    ValueError
        If ``activation`` or ``form`` is no known name.
    """

    hypernetwork: Hypernetwork
    per_row: bool = False
    activation: str = "relu"
    form: str = "fast"

    def __post_init__(self) -> None:
        check_activation(self.activation)
        if self.form not in TOWER_FORMS:
            raise ValueError(f"form must be one of {TOWER_FORMS}; got {self.form!r}.")

    @property
    def _map(self) -> Any:
        """Forward and backward of a map with weights by row, or by scenario."""
        if self.per_row:
            return CODE_FORMS["contracted" if self.form == "fast" else "textbook"]
        return AFFINE_FORMS["grouped" if self.form == "fast" else "textbook"]

    @property
    def multiply_adds(self) -> int:
        """Multiplications per row predicted; weights by scenario are made once per batch."""
        tower, hypernetwork = self.hypernetwork.tower, self.hypernetwork
        one = (tower.dim_in + 1) * tower.dim_hidden
        if not self.per_row:
            return one
        n_towers, outputs = hypernetwork.n_basis + 1, tower.dim_hidden + 1
        reduction = hypernetwork.dim_code * hypernetwork.rank if hypernetwork.is_low_rank else 0
        return reduction + n_towers * (one + outputs)

    def init(self, rng: np.random.Generator) -> Tree:
        """Draw the hypernetwork."""
        return self.hypernetwork.init(rng)

    def forward(
        self, params: Tree, H: Array, Z: Array, groups: Groups | None = None
    ) -> tuple[Array, TowerCache]:
        """Return z (B, 1) (derivations 10.1e, 10.1i).

        Shapes
        ------
        H : (B, I)
            Sorted by scenario unless ``per_row``.
        Z : (M, d_z) or (B, d_z)
            Codes of the M scenarios present, or of the rows.
        z : (B, 1)
        """
        if self.per_row:
            weights, route, c_hyper = self.hypernetwork.basis(params, Z)
        else:
            theta, c_hyper = self.hypernetwork.forward(params, Z)
            weights, route = self.hypernetwork.tower.unpack(theta), groups
        A, c_1 = self._map.forward(H, weights["layer_1"]["W"], weights["layer_1"]["b"], route)
        H_1, c_act = ACTIVATIONS[self.activation].forward(A)
        z, c_2 = self._map.forward(H_1, weights["layer_2"]["W"], weights["layer_2"]["b"], route)
        return z, TowerCache(c_hyper, c_1, A, c_act, c_2)

    def backward(self, dz: Array, cache: TowerCache) -> tuple[Array, Array, Tree]:
        """Return ``dH, dZ`` and the gradients of the hypernetwork (derivations 10.3a, 10.3b)."""
        dH_1, dW_2, db_2, *du_2 = self._map.backward(dz, cache.layer_2)
        dA = ACTIVATIONS[self.activation].backward(dH_1, cache.activation)
        dH, dW_1, db_1, *du_1 = self._map.backward(dA, cache.layer_1)
        d_weights = {"layer_1": {"W": dW_1, "b": db_1}, "layer_2": {"W": dW_2, "b": db_2}}
        if self.per_row:  # both layers read the coefficients
            du = du_1[0] + du_2[0]
            dZ, grads = self.hypernetwork.basis_backward(d_weights, du, cache.hypernetwork)
        else:
            d_theta = self.hypernetwork.tower.pack(d_weights)
            dZ, grads = self.hypernetwork.backward(d_theta, cache.hypernetwork)
        return dH, dZ, grads

    def kinks(self, cache: TowerCache) -> dict[str, Array]:
        """Return the hidden pre-activation; the part of its bias that is shared shifts it."""
        return {"omega_0.layer_1.b": cache.A}
