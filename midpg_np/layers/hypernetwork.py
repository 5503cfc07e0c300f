"""Hypernetwork: a linear map from a code to all weights of a small tower.

``TowerShape`` says at which offsets the weights stand in the generated vector.  Both passes, and
the weights that all codes share, are cut and joined by it, so the offsets cannot disagree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from midpg_np.backend import Array, get_xp, matmul
from midpg_np.layers.initial import init_scenario_affine
from midpg_np.ops import concat, split
from midpg_np.tree import Tree, tree_map

HYPERS = ("full", "low_rank")


@dataclass(frozen=True)
class TowerShape:
    """MLP(dim_in -> dim_hidden -> 1) as one vector theta = (W_1, b_1, W_2, b_2).

    Parameters
    ----------
    dim_in : int
        Width of the tower's input.
    dim_hidden : int
        Width h of its hidden layer.
    """

    dim_in: int
    dim_hidden: int

    @property
    def widths(self) -> tuple[int, ...]:
        """Entries of W_1, b_1, W_2, b_2, in the order of theta."""
        return self.dim_in * self.dim_hidden, self.dim_hidden, self.dim_hidden, 1

    @property
    def n_theta(self) -> int:
        """Entries of theta."""
        return sum(self.widths)

    def init(self, rng: np.random.Generator, n_towers: int) -> Array:
        """Draw towers with Glorot kernels and zero biases, one per row (n_towers, n_theta)."""
        first = init_scenario_affine(rng, n_towers, self.dim_in, self.dim_hidden)
        second = init_scenario_affine(rng, n_towers, self.dim_hidden, 1)
        return self.pack({"layer_1": first, "layer_2": second})

    def unpack(self, theta: Array) -> Tree:
        """Cut theta (..., n_theta) into kernels (..., I, O) and biases (..., O).

        See derivations 10.1d.
        """
        lead = theta.shape[:-1]
        W_1, b_1, W_2, b_2 = split(theta, self.widths)[0]
        W_1 = W_1.reshape(*lead, self.dim_in, self.dim_hidden)
        W_2 = W_2.reshape(*lead, self.dim_hidden, 1)
        return {"layer_1": {"W": W_1, "b": b_1}, "layer_2": {"W": W_2, "b": b_2}}

    def pack(self, tree: Tree) -> Array:
        """Inverse of ``unpack``, and, since it only moves entries, its adjoint.

        See derivations 10.3c.
        """
        lead = tree["layer_1"]["b"].shape[:-1]
        kernels = [tree[name]["W"].reshape(*lead, -1) for name in ("layer_1", "layer_2")]
        return concat([kernels[0], tree["layer_1"]["b"], kernels[1], tree["layer_2"]["b"]])[0]


class HypernetworkCache(NamedTuple):
    """Code Z (N, d_z), coefficients u = Z Omega_in (N, R), or Z itself, and Omega (R, n_theta)."""

    Z: Array
    Omega_in: Array | None
    u: Array
    Omega: Array


@dataclass(frozen=True)
class Hypernetwork:
    """theta = Z Omega + omega_0, row by row.

    Seen otherwise: the rows of Omega are towers, and the code says how much of each is added to
    the tower omega_0.

    Parameters
    ----------
    dim_code : int
        Width d_z of a code.
    tower : TowerShape
        What theta holds.
    hyper : str
        "full": Omega (d_z, n_theta).  "low_rank": Omega = Omega_in Omega_out through ``rank``
        coefficients, with neither bias nor activation between; the product is never formed.
    rank : int
        Rank R of "low_rank".
    starts_shared : bool
        False: codes start with entries of variance 1, and Omega gives every kernel its Glorot
        variance; omega_0 starts at zero.  True, for codes that start near zero: omega_0 starts as
        a tower of its own.

    Raises
    ------
    ValueError
        If ``hyper`` is no known name.
    """

    dim_code: int
    tower: TowerShape
    hyper: str = "full"
    rank: int = 4
    starts_shared: bool = False

    def __post_init__(self) -> None:
        if self.hyper not in HYPERS:
            raise ValueError(f"hyper must be one of {HYPERS}; got {self.hyper!r}.")

    @property
    def is_low_rank(self) -> bool:
        """Whether codes are reduced first."""
        return self.hyper == "low_rank"

    @property
    def n_basis(self) -> int:
        """Number R of towers that are added to omega_0."""
        return self.rank if self.is_low_rank else self.dim_code

    def init(self, rng: np.random.Generator) -> Tree:
        """Draw Omega such that a code of N(0, 1) generates kernels of Glorot variance."""
        R = self.n_basis
        Omega = self.tower.init(rng, R) / R**0.5
        one = self.tower.unpack(self.tower.init(rng, 1)[0])
        omega_0 = tree_map(lambda leaf: leaf * self.starts_shared, one)
        if not self.is_low_rank:
            return {"Omega": Omega, "omega_0": omega_0}
        Omega_in = rng.normal(0.0, self.dim_code**-0.5, size=(self.dim_code, R))
        return {"Omega_in": Omega_in, "Omega_out": Omega, "omega_0": omega_0}

    def coefficients(self, params: Tree, Z: Array) -> HypernetworkCache:
        """Return what of each row of Omega (or Omega_out) a code of Z takes (derivations 10.1h).

        Shapes
        ------
        Z : (M, d_z)
        u : (M, R)
        """
        if not self.is_low_rank:
            return HypernetworkCache(Z, None, Z, params["Omega"])
        Omega_in = params["Omega_in"]
        return HypernetworkCache(Z, Omega_in, matmul(Z, Omega_in), params["Omega_out"])

    def coefficients_backward(
        self, du: Array, dOmega: Array, d_omega_0: Array, cache: HypernetworkCache
    ) -> tuple[Array, Tree]:
        """Return ``dZ`` and the gradients of all parameters (derivations 10.3d)."""
        omega_0 = self.tower.unpack(d_omega_0)
        if not self.is_low_rank:
            return du, {"Omega": dOmega, "omega_0": omega_0}
        assert cache.Omega_in is not None
        dOmega_in = matmul(cache.Z.T, du)
        grads = {"Omega_in": dOmega_in, "Omega_out": dOmega, "omega_0": omega_0}
        return matmul(du, cache.Omega_in.T), grads

    def forward(self, params: Tree, Z: Array) -> tuple[Array, HypernetworkCache]:
        """Generate the weights of one tower per code (derivations 10.1d).

        Backward (derivations 10.3c): dOmega = Z^T dTheta, dZ = dTheta Omega^T,
        d_omega_0 = colsum(dTheta).

        Shapes
        ------
        Z : (M, d_z)
        theta : (M, n_theta)
        """
        cache = self.coefficients(params, Z)
        theta = matmul(cache.u, cache.Omega)
        return theta + self.tower.pack(params["omega_0"]), cache

    def backward(self, d_theta: Array, cache: HypernetworkCache) -> tuple[Array, Tree]:
        """Return ``dZ`` and the gradients (derivations 10.3c)."""
        du, dOmega = matmul(d_theta, cache.Omega.T), matmul(cache.u.T, d_theta)
        return self.coefficients_backward(du, dOmega, d_theta.sum(axis=0), cache)

    def basis(self, params: Tree, Z: Array) -> tuple[Tree, Array, HypernetworkCache]:
        """Return the R + 1 towers that every theta is made of, and each code's coefficients.

        See derivations 10.1i.

        theta = u Omega + 1 omega_0: the last tower is omega_0, the last coefficient 1.

        Shapes
        ------
        Z : (B, d_z)
        """
        cache = self.coefficients(params, Z)
        omega_0 = self.tower.pack(params["omega_0"])[None]
        towers = get_xp(Z=Z).concatenate([cache.Omega, omega_0])
        u, _ = concat([cache.u, _ones_like(cache.u)])
        return self.tower.unpack(towers), u, cache

    def basis_backward(
        self, d_towers: Tree, du: Array, cache: HypernetworkCache
    ) -> tuple[Array, Tree]:
        """Return ``dZ`` and the gradients; the adjoint of the constant coefficient 1 is dropped.

        See derivations 10.3f.
        """
        d_theta = self.tower.pack(d_towers)
        return self.coefficients_backward(du[:, :-1], d_theta[:-1], d_theta[-1], cache)


def _ones_like(u: Array) -> Array:
    return get_xp(u=u).ones_like(u[:, :1])
