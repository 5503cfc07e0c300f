"""A layer whose weights are generated per row: U S_b V with U, V shared and a small core S_b."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from midpg_np.backend import Array
from midpg_np.layers.initial import glorot_uniform
from midpg_np.layers.low_rank import (
    LOW_RANK_FORMS,
    FactorsCache,
    multiply_out,
    multiply_out_backward,
)
from midpg_np.layers.mlp import MLP, MLPCache, mlp_multiply_adds
from midpg_np.ops import Pair, add_to, sum_rows
from midpg_np.tree import Tree


def check_rank(rank: int, dim_in: int, dim_out: int, name: str = "the layer") -> None:
    """Check the rank of ``name``, a layer of dim_in inputs and dim_out outputs.

    Raises
    ------
    ValueError
        Unless 1 <= rank <= min(dim_in, dim_out); the message says what would do.
    """
    limit = min(dim_in, dim_out)
    if not 1 <= rank <= limit:
        raise ValueError(
            f"rank must lie in [1, {limit}], because {name} has {dim_in} inputs and {dim_out} "
            f"outputs; got {rank}."
        )


class LowRankLayerCache(NamedTuple):
    """Intermediates; ``factors`` is empty without over-parameterisation.

    Shapes
    ------
    S : (B, K, K)
    A : (B, O)
    """

    factors: dict[str, FactorsCache]
    generator: MLPCache
    S: Array
    product: Any
    bias: MLPCache | None
    A: Array


@dataclass(frozen=True)
class LowRankLayer:
    """A_b = U S_b V H_b + b with S_b generated from a condition z_b (derivations 9.1).

    Parameters
    ----------
    dim_in, dim_out : int
        Width of the layer's input and output.
    dim_condition : int
        Width of z.
    rank : int
        K: the core is (K, K).
    over_rank : int, optional
        P >= K: U and V are learned as products U_left U_right and V_left V_right through P
        dimensions.  None: as they are.
    generator_hidden : tuple of int
        Hidden widths of the generator, with ReLU between; () is a linear map.
    generate_bias : bool
        b_b is generated from z_b as well, by a network of its own, in place of a static b.
    form : str
        A name in ``LOW_RANK_FORMS``.

    Raises
    ------
    ValueError
        If ``rank`` is below 1 or above a width, ``over_rank`` is below ``rank``, or ``form`` is no
        known name.
    """

    dim_in: int
    dim_out: int
    dim_condition: int
    rank: int = 8
    over_rank: int | None = 64
    generator_hidden: tuple[int, ...] = ()
    generate_bias: bool = False
    form: str = "grouped"

    def __post_init__(self) -> None:
        check_rank(self.rank, self.dim_in, self.dim_out)
        if self.over_rank is not None and self.over_rank < self.rank:
            raise ValueError(
                f"over_rank must be None or at least rank = {self.rank}, or it would lower the "
                f"rank; got {self.over_rank}."
            )
        if self.form not in LOW_RANK_FORMS:
            raise ValueError(f"form must be one of {tuple(LOW_RANK_FORMS)}; got {self.form!r}.")
        _ = self.generator  # report widths below 1 now, not at the first batch

    @property
    def _form(self) -> Pair:
        return LOW_RANK_FORMS[self.form]

    @cached_property
    def generator(self) -> MLP:
        """z (dim_condition) to the entries of S, row by row (K*K)."""
        return MLP((self.dim_condition, *self.generator_hidden, self.rank**2))

    @cached_property
    def bias_generator(self) -> MLP:
        """z (dim_condition) to b (dim_out); not used unless ``generate_bias``."""
        return MLP((self.dim_condition, *self.generator_hidden, self.dim_out))

    @property
    def multiply_adds(self) -> int:
        """Multiplications per row: V, S, U and the generators; U and V are multiplied out."""
        K = self.rank
        bias = mlp_multiply_adds(self.bias_generator.dims) if self.generate_bias else 0
        product = K * (self.dim_in + K + self.dim_out)
        return product + mlp_multiply_adds(self.generator.dims) + bias

    def init(self, rng: np.random.Generator) -> Tree:
        """Draw Glorot kernels; the generator's last bias is vec(I), so S is about I at the start.

        Near zero it would silence the layer: S multiplies all that passes through.
        """
        params: Tree = {}
        for name, shape in (("U", (self.dim_out, self.rank)), ("V", (self.rank, self.dim_in))):
            if self.over_rank is None:
                params[name] = glorot_uniform(rng, *shape)
            else:
                params[f"{name}_left"] = glorot_uniform(rng, shape[0], self.over_rank)
                params[f"{name}_right"] = glorot_uniform(rng, self.over_rank, shape[1])
        params["generator"] = self.generator.init(rng)
        identity = np.eye(self.rank)
        params["generator"][self.generator.layer_names[-1]]["b"] = identity.reshape(-1)
        if self.generate_bias:
            params["bias_generator"] = self.bias_generator.init(rng)
        else:
            params["b"] = np.zeros(self.dim_out)
        return params

    def fold(self, params: Tree) -> Tree:
        """Return the parameters of the same layer with ``over_rank=None``."""
        matrices = {name: self._matrix(name, params)[0] for name in ("U", "V")}
        left_over = {"U_left", "U_right", "V_left", "V_right"}
        return matrices | {k: leaf for k, leaf in params.items() if k not in left_over}

    def _matrix(self, name: str, params: Tree) -> tuple[Array, FactorsCache | None]:
        if self.over_rank is None:
            return params[name], None
        return multiply_out(params[f"{name}_left"], params[f"{name}_right"])

    def forward(self, params: Tree, H: Array, z: Array) -> tuple[Array, LowRankLayerCache]:
        """Return the pre-activation A (derivations 9.1b, 9.1d).

        Shapes
        ------
        H : (B, I)
        z : (B, Z)
        A : (B, O)
        """
        U, c_U = self._matrix("U", params)
        V, c_V = self._matrix("V", params)
        factors = {} if c_U is None or c_V is None else {"U": c_U, "V": c_V}
        s, c_generator = self.generator.forward(params["generator"], z)
        S = s.reshape(-1, self.rank, self.rank)
        product, c_product = self._form.forward(H, U, V, S)
        if self.generate_bias:
            b, c_bias = self.bias_generator.forward(params["bias_generator"], z)
        else:
            b, c_bias = params["b"], None
        A = add_to(product, b)
        return A, LowRankLayerCache(factors, c_generator, S, c_product, c_bias, A)

    def backward(self, dA: Array, cache: LowRankLayerCache) -> tuple[Array, Array, Tree]:
        """Return ``dH``, ``dz`` and the gradients (derivations 9.3a, 9.3f)."""
        g_bias: Tree = {}
        if cache.bias is None:
            g_bias["b"] = sum_rows(dA)
        else:
            dz_bias, g_bias["bias_generator"] = self.bias_generator.backward(dA, cache.bias)
        dH, dU, dV, dS = self._form.backward(dA, cache.product)
        dz, g_generator = self.generator.backward(dS.reshape(-1, self.rank**2), cache.generator)
        grads: Tree = {}
        for name, gradient in (("U", dU), ("V", dV)):
            if self.over_rank is None:
                grads[name] = gradient
            else:
                d_left, d_right = multiply_out_backward(gradient, cache.factors[name])
                grads |= {f"{name}_left": d_left, f"{name}_right": d_right}
        if cache.bias is not None:
            dz = dz + dz_bias
        return dH, dz, grads | {"generator": g_generator} | g_bias

    def kinks(self, cache: LowRankLayerCache) -> dict[str, Array]:
        """Pre-activations inside the generators, by the path of the bias that shifts them."""
        kinks = {f"generator.{p}": A for p, A in self.generator.kinks(cache.generator).items()}
        if cache.bias is not None:
            inner = self.bias_generator.kinks(cache.bias)
            kinks |= {f"bias_generator.{path}": A for path, A in inner.items()}
        return kinks

    @property
    def bias_path(self) -> str:
        """Path of the bias that shifts A."""
        last = self.bias_generator.layer_names[-1]
        return f"bias_generator.{last}.b" if self.generate_bias else "b"
