"""Star topology: weights are a shared centre times what each scenario owns (derivations 6.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from midpg_np.backend import Array
from midpg_np.layers.groups import Groups, of_present
from midpg_np.layers.initial import init_affine, init_scenario_affine
from midpg_np.layers.scenario_mlp import AFFINE_FORMS, rows_of
from midpg_np.ops import ACTIVATIONS, activation_backward, check_activation, times_to
from midpg_np.tree import Tree
from midpg_np.workspace import sum_products

SPECIFIC_INITS = ("ones", "glorot")


class StarAffineCache(NamedTuple):
    """Factors W (I, O) and W_d (M, I, O), and the cache of the map with their product."""

    W: Array
    W_d: Array
    affine: Any
    form: str


def star_affine(
    H: Array, W: Array, b: Array, W_d: Array, b_d: Array, groups: Groups, form: str = "grouped"
) -> tuple[Array, StarAffineCache]:
    """A_(d) = H_(d) (W * W_d) + (b + b_d), rows sorted by scenario (derivations 6.1d).

    The product is formed for the M scenarios of the batch only.

    Shapes
    ------
    H : (B, I)
    W : (I, O)
    b : (O,)
    W_d : (M, I, O)
    b_d : (M, O)
    A : (B, O)
    """
    A, c_affine = AFFINE_FORMS[form].forward(H, W * W_d, b + b_d, groups)
    return A, StarAffineCache(W, W_d, c_affine, form)


def star_affine_backward(
    dA: Array, cache: StarAffineCache
) -> tuple[Array, Array, Array, Array, Array]:
    """Return ``dH, dW, db, dW_d, db_d`` (derivations 6.3a, 6.3b)."""
    dH, dW_star, db_star = AFFINE_FORMS[cache.form].backward(dA, cache.affine)
    dW = sum_products(dW_star, cache.W_d, axis=0)
    return dH, dW, db_star.sum(axis=0), times_to(dW_star, cache.W), db_star


class StarMLPCache(NamedTuple):
    """Per layer: the map's cache, the pre-activation A (B, width), the activation's cache."""

    affine: tuple[StarAffineCache, ...]
    A: tuple[Array, ...]
    activation: tuple[Any, ...]
    groups: Groups


@dataclass(frozen=True)
class StarMLP:
    """One MLP per scenario, all around a shared one; no activation after the last layer.

    Parameters
    ----------
    n_scenarios : int
        Number of scenarios D; a scenario's factors are W (D, I, O), its shares of the bias (D, O).
    dims : tuple of int
        Widths d_0 ... d_m, input and output included.
    activation : str
        A name in ``ops.ACTIVATIONS``.
    specific_init : str
        Factors of the scenarios at the start: "ones", so that all begin as the shared network, or
        "glorot", each its own.
    form : str
        "grouped" or "textbook"; see ``layers.scenario_mlp``.

    Raises
    ------
    ValueError
        If ``activation``, ``specific_init`` or ``form`` is no known name, or there are not two
        widths of at least 1.
    """

    n_scenarios: int
    dims: tuple[int, ...]
    activation: str = "relu"
    specific_init: str = "ones"
    form: str = "grouped"

    def __post_init__(self) -> None:
        check_activation(self.activation)
        if self.specific_init not in SPECIFIC_INITS:
            raise ValueError(
                f"specific_init must be one of {SPECIFIC_INITS}; got {self.specific_init!r}."
            )
        if self.form not in AFFINE_FORMS:
            raise ValueError(f"form must be one of {tuple(AFFINE_FORMS)}; got {self.form!r}.")
        if len(self.dims) < 2 or min(self.dims) < 1:
            raise ValueError(f"dims must be at least 2 widths of at least 1; got {self.dims}.")

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Keys of the parameter tree, in order."""
        return tuple(f"layer_{i}" for i in range(1, len(self.dims)))

    def init(self, rng: np.random.Generator) -> Tree:
        """Draw Glorot kernels for the centre; biases are zero."""
        params: Tree = {}
        for name, dim_in, dim_out in zip(
            self.layer_names, self.dims[:-1], self.dims[1:], strict=True
        ):
            shared = init_affine(rng, dim_in, dim_out)
            if self.specific_init == "ones":
                W_d = np.ones((self.n_scenarios, dim_in, dim_out))
                scenario = {"W": W_d, "b": np.zeros((self.n_scenarios, dim_out))}
            else:
                scenario = init_scenario_affine(rng, self.n_scenarios, dim_in, dim_out)
            params[name] = {"shared": shared, "scenario": scenario}
        return params

    def forward(self, params: Tree, H: Array, groups: Groups) -> tuple[Array, StarMLPCache]:
        """Return the output (B, d_m) of rows H (B, d_0) sorted by scenario (derivations 6.1e)."""
        act = ACTIVATIONS[self.activation]
        affine_caches, pre_activations, activation_caches = [], [], []
        for name in self.layer_names:
            W, b = (params[name]["shared"][key] for key in ("W", "b"))
            W_d, b_d = (of_present(params[name]["scenario"][key], groups) for key in ("W", "b"))
            H, c_affine = star_affine(H, W, b, W_d, b_d, groups, self.form)
            affine_caches.append(c_affine)
            pre_activations.append(H)
            if name != self.layer_names[-1]:
                H, c_act = act.forward(H)
                activation_caches.append(c_act)
        return H, StarMLPCache(
            tuple(affine_caches), tuple(pre_activations), tuple(activation_caches), groups
        )

    def backward(self, dy: Array, cache: StarMLPCache) -> tuple[Array, Tree]:
        """Return ``dH`` and the gradients; those of absent scenarios are exactly zero.

        See derivations 6.3a, 6.3b.
        """
        act, grads = ACTIVATIONS[self.activation], {}
        for i, name in reversed(list(enumerate(self.layer_names))):
            if name != self.layer_names[-1]:
                dy = activation_backward(act, dy, cache.activation[i])
            dy, dW, db, dW_d, db_d = star_affine_backward(dy, cache.affine[i])
            scenario = {"W": rows_of(dW_d, cache.groups), "b": rows_of(db_d, cache.groups)}
            grads[name] = {"shared": {"W": dW, "b": db}, "scenario": scenario}
        return dy, {name: grads[name] for name in self.layer_names}

    def kinks(self, cache: StarMLPCache) -> dict[str, Array]:
        """Pre-activations that pass an activation, by the path of the shared bias."""
        names = self.layer_names[:-1]
        return {f"{name}.shared.b": A for name, A in zip(names, cache.A[:-1], strict=True)}
