"""Weights of one's own for each scenario: an affine map, and an MLP made of them.

Two forms of the affine map.  *textbook* gives every row its own copy of its scenario's weights, as
the definition reads.  *grouped* multiplies the rows of each scenario, which lie side by side, with
one matrix: no copy, and no pass of all rows through all scenarios.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from midpg_np import kernels
from midpg_np.backend import Array, get_xp
from midpg_np.layers.groups import Groups, group_sum, of_present, spread
from midpg_np.layers.initial import init_scenario_affine
from midpg_np.layers.row_gradient import RowGradient
from midpg_np.ops import ACTIVATIONS, Pair, activation_backward, add_to, check_activation
from midpg_np.tree import Tree


class GroupedAffineCache(NamedTuple):
    """Inputs of the map."""

    H: Array
    W: Array
    groups: Groups


def grouped_affine(
    H: Array, W: Array, b: Array, groups: Groups
) -> tuple[Array, GroupedAffineCache]:
    """Affine map with weights by scenario: A_(d) = H_(d) W_d + b_d, rows sorted by scenario.

    See derivations 2.7a.

    Backward (derivations 2.7b): dW_d = H_(d)^T dA_(d), db_d = colsum(dA_(d)),
    dH_(d) = dA_(d) W_d^T.

    Shapes
    ------
    H : (B, I)
    W : (M, I, O)
        One matrix for each of the M scenarios of the batch.
    b : (M, O)
    A : (B, O)
    """
    get_xp(H=H, W=W, b=b)
    A = add_to(kernels.product_by_group(H, W, groups.bounds), spread(b, groups))
    return A, GroupedAffineCache(H, W, groups)


def grouped_affine_backward(dA: Array, cache: GroupedAffineCache) -> tuple[Array, Array, Array]:
    """Return ``dH, dW, db`` (derivations 2.7b)."""
    H, W, groups = cache
    dH, dW = kernels.product_by_group_backward(dA, H, W, groups.bounds)
    return dH, dW, group_sum(dA, groups)


class RowAffineCache(NamedTuple):
    """H (B, I), one matrix per row (B, I, O), and the group m of each row (B,)."""

    H: Array
    W: Array
    group: Array
    n_groups: int


def row_affine(H: Array, W: Array, b: Array, groups: Groups) -> tuple[Array, RowAffineCache]:
    """Textbook form of ``grouped_affine``: A_i = H_i W_(s_i) + b_(s_i), row by row.

    See derivations 2.7a.

    Shapes
    ------
    H : (B, I)
    W : (M, I, O)
    b : (M, O)
    A : (B, O)
    """
    xp = get_xp(H=H, W=W, b=b)
    W_b = W[groups.member]
    A = xp.einsum("bi,bio->bo", H, W_b) + b[groups.member]
    return A, RowAffineCache(H, W_b, groups.member, len(groups.ids))


def row_affine_backward(dA: Array, cache: RowAffineCache) -> tuple[Array, Array, Array]:
    """Return ``dH, dW, db`` (derivations 2.7b)."""
    xp = get_xp(dA=dA, H=cache.H)
    is_mine = (cache.group == xp.arange(cache.n_groups)[:, None]).astype(dA.dtype)  # (M, B)
    dH = xp.einsum("bo,bio->bi", dA, cache.W)
    dW = xp.einsum("mb,bi,bo->mio", is_mine, cache.H, dA)
    return dH, dW, is_mine @ dA


AFFINE_FORMS: dict[str, Pair] = {
    "grouped": Pair(grouped_affine, grouped_affine_backward),
    "textbook": Pair(row_affine, row_affine_backward),
}


class ScenarioMLPCache(NamedTuple):
    """Per layer: the map's cache, the pre-activation A (B, width), the activation's cache."""

    affine: tuple[Any, ...]
    A: tuple[Array, ...]
    activation: tuple[Any, ...]
    groups: Groups


@dataclass(frozen=True)
class ScenarioMLP:
    """One MLP per scenario; a row passes through that of its own scenario only.

    Parameters
    ----------
    n_scenarios : int
        Number of scenarios D; ``W`` is (D, I, O) and ``b`` (D, O) in every layer.
    dims : tuple of int
        Widths d_0 ... d_m, input and output included.
    activation : str
        A name in ``ops.ACTIVATIONS``; none after the last layer.
    form : str
        "grouped" or "textbook".

    Raises
    ------
    ValueError
        If ``activation`` or ``form`` is no known name, or there are not two widths of at least 1.
    """

    n_scenarios: int
    dims: tuple[int, ...]
    activation: str = "relu"
    form: str = "grouped"

    def __post_init__(self) -> None:
        check_activation(self.activation)
        if self.form not in AFFINE_FORMS:
            raise ValueError(f"form must be one of {tuple(AFFINE_FORMS)}; got {self.form!r}.")
        if len(self.dims) < 2 or min(self.dims) < 1:
            raise ValueError(f"dims must be at least 2 widths of at least 1; got {self.dims}.")

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Keys of the parameter tree, in order."""
        return tuple(f"layer_{i}" for i in range(1, len(self.dims)))

    def init(self, rng: np.random.Generator) -> Tree:
        """Draw Glorot kernels, each scenario its own, and zero biases."""
        shapes = zip(self.dims[:-1], self.dims[1:], strict=True)
        return {
            name: init_scenario_affine(rng, self.n_scenarios, dim_in, dim_out)
            for name, (dim_in, dim_out) in zip(self.layer_names, shapes, strict=True)
        }

    def forward(self, params: Tree, H: Array, groups: Groups) -> tuple[Array, ScenarioMLPCache]:
        """Return the output (B, d_m) of rows H (B, d_0) sorted by scenario (derivations 2.7a)."""
        act = ACTIVATIONS[self.activation]
        affine_caches, pre_activations, activation_caches = [], [], []
        for name in self.layer_names:
            W, b = (of_present(params[name][key], groups) for key in ("W", "b"))
            H, c_affine = AFFINE_FORMS[self.form].forward(H, W, b, groups)
            affine_caches.append(c_affine)
            pre_activations.append(H)
            if name != self.layer_names[-1]:
                H, c_act = act.forward(H)
                activation_caches.append(c_act)
        return H, ScenarioMLPCache(
            tuple(affine_caches), tuple(pre_activations), tuple(activation_caches), groups
        )

    def backward(self, dy: Array, cache: ScenarioMLPCache) -> tuple[Array, Tree]:
        """Return ``dH`` and the gradients; those of absent scenarios are exactly zero.

        See derivations 2.7b.
        """
        act, grads = ACTIVATIONS[self.activation], {}
        for i, name in reversed(list(enumerate(self.layer_names))):
            if name != self.layer_names[-1]:
                dy = activation_backward(act, dy, cache.activation[i])
            dy, dW, db = AFFINE_FORMS[self.form].backward(dy, cache.affine[i])
            grads[name] = {"W": rows_of(dW, cache.groups), "b": rows_of(db, cache.groups)}
        return dy, {name: grads[name] for name in self.layer_names}

    def kinks(self, cache: ScenarioMLPCache) -> dict[str, Array]:
        """Pre-activations that pass an activation, by the path of the bias, one row per scenario.

        A bias (D, O) is shifted as a whole, so its kinks are those of all rows.
        """
        names = self.layer_names[:-1]
        return {f"{name}.b": A for name, A in zip(names, cache.A[:-1], strict=True)}


def rows_of(gradient: Array, groups: Groups) -> RowGradient:
    """Gradient of an array (D, ...) from that of the scenarios present, ``gradient`` (M, ...)."""
    is_whole = len(groups.ids) == groups.n_scenarios
    return RowGradient(groups.ids, gradient, groups.n_scenarios, is_whole=is_whole)
