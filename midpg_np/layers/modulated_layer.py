"""A layer whose weights are modulated per sample: generate the core, weight W with it, add b."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from midpg_np import kernels
from midpg_np.backend import Array
from midpg_np.layers.dwm import DynamicWeighting, WeightingCache
from midpg_np.layers.initial import glorot_uniform
from midpg_np.layers.modulated import FORMS, FusedCache, cheaper_form
from midpg_np.layers.repeat import REPEAT_MODES, merge_axis, split_axis
from midpg_np.ops import ACTIVATIONS, Pair, biased, biased_backward
from midpg_np.tree import Tree
from midpg_np.workspace import Workspace

W_LAYOUTS = ("in_out", "out_in")
LAYER_FORMS = ("grouped", "row", "column", "textbook")


def divisors(width: int) -> list[int]:
    """Return the divisors of a width, ascending."""
    return [d for d in range(1, width + 1) if width % d == 0]


def check_divides(name: str, value: int, width_name: str, width: int) -> None:
    """Check that ``value`` divides ``width``; ``name`` and ``width_name`` are what they are called.

    Raises
    ------
    ValueError
        Unless it does; the message lists what would do.
    """
    if value < 1 or width % value:
        raise ValueError(
            f"{name} = {value} must divide {width_name} = {width}; "
            f"choose one of {', '.join(map(str, divisors(width)))}."
        )


class BiasCache(NamedTuple):
    """Column mean of the core (B, d_c) and the bias in column groups (d_c, f_c)."""

    mean: Array
    b: Array
    d_r: int
    mode: str


def modulated_bias(b: Array, Q: Array, mode: str) -> tuple[Array, BiasCache]:
    """Bias weighted with the mean of its column of S: (1/d_m sum_i S_b,ij) b_j (derivations 3.2i).

    All core rows are copied equally often, so the mean over rows of S is the mean over core rows.

    Shapes
    ------
    b : (d_n,)
    Q : (B, d_r, d_c)
    beta : (B, d_n)
    """
    _, d_r, d_c = Q.shape
    b_c = split_axis(b, 0, d_c, mode)
    mean = Q.mean(axis=1)
    return merge_axis(mean[:, :, None] * b_c, 1, mode), BiasCache(mean, b_c, d_r, mode)


def modulated_bias_backward(d_beta: Array, cache: BiasCache) -> tuple[Array, Array]:
    """Return ``db`` (d_n,) and ``dQ`` as (B, 1, d_c), the same for every core row.

    See derivations 3.4g, 3.4h.
    """
    mean, b_c, d_r, mode = cache
    d_beta_c = split_axis(d_beta, 1, b_c.shape[0], mode)
    db = merge_axis((mean[:, :, None] * d_beta_c).sum(axis=0), 0, mode)
    d_mean = (d_beta_c * b_c).sum(axis=2)
    return db, d_mean[:, None, :] / d_r


class ModulatedLayerCache(NamedTuple):
    """U (B, dim_u), the core Q (B, d_r, d_c) inside ``weighting``, A (B, dim_out)."""

    U: Array
    weighting: WeightingCache
    product: Any
    bias: BiasCache | None
    A: Array
    activation: Any


@dataclass(frozen=True)
class ModulatedLayer:
    """act(A), A_b = (psi(Q_b) * W)^T H_b + b with Q_b generated from U_b (derivations 3.2).

    See derivations 11a.

    Parameters
    ----------
    dim_in, dim_out : int
        Width of the layer's input and output.
    weighting : DynamicWeighting
        Generator of the core; its d_r and d_c must divide the rows and columns of W.
    repeat_mode : str
        "block" or "tile".
    w_layout : str
        "in_out": W is (dim_in, dim_out), so d_m = dim_in, d_n = dim_out.  "out_in": W is
        (dim_out, dim_in), which swaps the meaning of row- and column-wise.
    modulate_bias : bool
        Weight b_j with the mean of column j of S.
    activation : str
        A name in ``ops.ACTIVATIONS``.
    form : str
        "grouped" ("fused" where a kernel serves, else the cheaper of "row" and "column"), or one of
        "row", "column" and "textbook".

    Raises
    ------
    ValueError
        If ``repeat_mode``, ``w_layout`` or ``form`` is no known name, or the size of the core does
        not divide that of W.
    """

    dim_in: int
    dim_out: int
    weighting: DynamicWeighting
    repeat_mode: str = "block"
    w_layout: str = "in_out"
    modulate_bias: bool = False
    activation: str = "identity"
    form: str = "grouped"

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("repeat_mode", self.repeat_mode, REPEAT_MODES),
            ("w_layout", self.w_layout, W_LAYOUTS),
            ("form", self.form, LAYER_FORMS),
        ):
            if value not in choices:
                raise ValueError(f"{name} must be one of {choices}; got {value!r}.")
        d_m, d_n = self.w_shape
        check_divides("d_r", self.weighting.d_r, "d_m", d_m)
        check_divides("d_c", self.weighting.d_c, "d_n", d_n)

    @property
    def w_shape(self) -> tuple[int, int]:
        """Shape (d_m, d_n) of W and of S."""
        in_out = self.w_layout == "in_out"
        return (self.dim_in, self.dim_out) if in_out else (self.dim_out, self.dim_in)

    @cached_property
    def _array_form(self) -> Pair:
        """The form for arrays that no kernel serves."""
        if self.form != "grouped":
            return FORMS[self.form]
        d_r, d_c = self.weighting.d_r, self.weighting.d_c
        if self.w_layout == "out_in":
            d_r, d_c = d_c, d_r
        return FORMS[cheaper_form(self.dim_in, self.dim_out, d_r, d_c)]

    @property
    def multiply_adds(self) -> int:
        """Multiplications per row: backbone, weighting, core and generators (derivations 3.7)."""
        d_m, d_n = self.w_shape
        weighting = min(self.weighting.d_r * d_n, self.weighting.d_c * d_m)
        return d_m * d_n + weighting + self.weighting.multiply_adds

    def as_in_out(self, matrix: Array) -> Array:
        """W (d_m, d_n) or Q (B, d_r, d_c) with inputs before outputs; its own inverse."""
        return matrix if self.w_layout == "in_out" else matrix.swapaxes(-1, -2)

    def init(self, rng: np.random.Generator) -> Tree:
        """Draw W, b and the generator."""
        W = glorot_uniform(rng, *self.w_shape)
        return {"W": W, "b": np.zeros(self.dim_out), "weighting": self.weighting.init(rng)}

    def forward(
        self, params: Tree, H: Array, U: Array, workspace: Workspace | None = None
    ) -> tuple[Array, ModulatedLayerCache]:
        """Return the output, H of the next layer (derivations 3.2f, 3.2g).

        Shapes
        ------
        H : (B, dim_in)
        U : (B, dim_u)
        y : (B, dim_out)
        """
        Q, c_weighting = self.weighting.forward(params["weighting"], U, workspace)
        Q = self.as_in_out(Q)
        W = self.as_in_out(params["W"])
        is_fused = self.form == "grouped" and kernels.fuses(H, W, Q)
        form = FORMS["fused"] if is_fused else self._array_form
        product, c_product = form.forward(H, W, Q, self.repeat_mode, workspace)
        bias, c_bias = params["b"], None
        if self.modulate_bias:
            bias, c_bias = modulated_bias(bias, Q, self.repeat_mode)
        A, y, c_act = biased(product, bias, ACTIVATIONS[self.activation])
        return y, ModulatedLayerCache(U, c_weighting, c_product, c_bias, A, c_act)

    def backward(
        self, dy: Array, cache: ModulatedLayerCache, workspace: Workspace | None = None
    ) -> tuple[Array, Array, Tree]:
        """Return ``dH``, ``dQ`` (the core's adjoint from this product) and the gradients of W, b.

        See derivations 3.4a, 3.4b.

        dy is a fresh array that nobody else reads.

        The core has a second reader in training, the discriminator, so its adjoints are added up
        before ``weighting.backward`` runs; that is the caller's line.
        """
        dA, db = biased_backward(dy, cache.activation, ACTIVATIONS[self.activation])
        is_fused = isinstance(cache.product, FusedCache)
        form = FORMS["fused"] if is_fused else self._array_form
        dH, dW, dQ = form.backward(dA, cache.product, workspace)
        if cache.bias is not None:
            db, dQ_bias = modulated_bias_backward(dA, cache.bias)
            dQ = dQ + dQ_bias
        return dH, self.as_in_out(dQ), {"W": self.as_in_out(dW), "b": db}
