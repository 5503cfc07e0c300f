"""The auxiliary network (DWM): generates the core Q of the weighting matrix, per sample.

Four variants (derivations 3.2, options in 3.8); R is the row factor (d_r, d_k), C the column
factor (d_k, d_c):

======= ============================ ==============================
variant P                            learned globally
======= ============================ ==============================
non     generated as a whole         -
rc      R generated, C generated     -
r       R generated                  C_share
c       C generated                  R_share
======= ============================ ==============================

Q = gain * sigmoid(P), and P = R C for all but ``non``.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from midpg_np import kernels
from midpg_np.backend import Array
from midpg_np.layers.core import CORES, CoreCache, batch_to_back, batch_to_front
from midpg_np.layers.initial import glorot_uniform
from midpg_np.layers.mlp import MLP, mlp_multiply_adds
from midpg_np.layers.side_by_side import OneByOne, SideBySide
from midpg_np.ops import (
    concat,
    scaled_sigmoid,
    scaled_sigmoid_backward,
)
from midpg_np.ops import split as split_columns
from midpg_np.tree import Tree
from midpg_np.workspace import Workspace, empty_like_batch

VARIANTS = ("non", "rc", "r", "c")
GENERATORS = {
    "non": ("core_generator",),
    "rc": ("row_generator", "column_generator"),
    "r": ("row_generator",),
    "c": ("column_generator",),
}


class WeightingCache(NamedTuple):
    """Intermediates; ``core`` holds the factors, and is None for ``non``.

    ``generators`` is the cache of ``OneByOne`` or ``SideBySide``, ``factors`` are their outputs.

    Shapes
    ------
    Q : (B, d_r, d_c)
    """

    generators: Any
    core: CoreCache | None
    Q: Array
    factors: tuple[Array, ...]

    @property
    def generated(self) -> Array:
        """The generated factors side by side (B, dim_generated), for ``disc_input="factors"``."""
        return concat(self.factors)[0]


@dataclass(frozen=True)
class DynamicWeighting:
    """U (B, dim_in) -> core Q (B, d_r, d_c).

    Parameters
    ----------
    dim_in : int
        Width of U, the input of the generators.
    d_r, d_c : int
        Size of the core.
    d_k : int
        Rank of the product R C; ignored by ``non``.
    variant : str
        "non", "rc", "r" or "c".
    hidden : tuple of int
        Hidden widths of each generator, with ReLU between; () is a linear map.
    gain : float
        Q lies in (0, gain), with ``sigmoid_on="factors"`` in (0, gain d_k).
    sigmoid_on : str
        "product": Q = gain sigmoid(R C).  "factors": Q = gain sigmoid(R) sigmoid(C); for ``non``
        the two are the same.
    shared_init : str
        "normal": N(0, 1 / d_k); "glorot".  Not zero: that would block the other factor's gradient.

    Raises
    ------
    ValueError
        If ``variant``, ``sigmoid_on`` or ``shared_init`` is no known name, a size is below 1, or
        ``gain`` is not above 0.
    """

    dim_in: int
    d_r: int
    d_c: int
    d_k: int = 1
    variant: str = "r"
    hidden: tuple[int, ...] = (32,)
    gain: float = 1.0
    sigmoid_on: str = "product"
    shared_init: str = "normal"

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("variant", self.variant, VARIANTS),
            ("sigmoid_on", self.sigmoid_on, ("product", "factors")),
            ("shared_init", self.shared_init, ("normal", "glorot")),
        ):
            if value not in choices:
                raise ValueError(f"{name} must be one of {choices}; got {value!r}.")
        for name in ("d_r", "d_c", "d_k"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}.")
        if not self.gain > 0:
            raise ValueError(f"gain must be above 0; got {self.gain}.")
        if self.variant != "non" and self.d_k > min(self.d_r, self.d_c):
            warnings.warn(
                f"d_k = {self.d_k} exceeds min(d_r, d_c) = {min(self.d_r, self.d_c)}: a larger "
                "d_k cannot raise the rank of the core, it only costs parameters.",
                stacklevel=3,
            )

    @property
    def multiply_adds(self) -> int:
        """Multiplications per row: the generators and, unless "non", the product R C."""
        generators = sum(mlp_multiply_adds(g.dims) for g in self.generators.values())
        return generators + (0 if self.variant == "non" else self.d_r * self.d_k * self.d_c)

    @property
    def generated_widths(self) -> dict[str, int]:
        """Output width of each generator, by name."""
        widths = {
            "core_generator": self.d_r * self.d_c,
            "row_generator": self.d_r * self.d_k,
            "column_generator": self.d_k * self.d_c,
        }
        return {name: widths[name] for name in GENERATORS[self.variant]}

    @cached_property
    def generators(self) -> dict[str, MLP]:
        """The generator networks, by name."""
        return {
            name: MLP((self.dim_in, *self.hidden, width))
            for name, width in self.generated_widths.items()
        }

    @cached_property
    def _networks(self) -> OneByOne | SideBySide:
        """How the generators, which all read U, are evaluated."""
        is_deep = len(self.generators) > 1 and self.hidden
        return SideBySide(self.generators) if is_deep else OneByOne(self.generators)

    def init(self, rng: np.random.Generator) -> Tree:
        """Draw the generators and the shared factor, if there is one."""
        params: Tree = {name: mlp.init(rng) for name, mlp in self.generators.items()}
        if self.variant == "r":
            params["C_share"] = self._init_shared(rng, self.d_k, self.d_c)
        if self.variant == "c":
            params["R_share"] = self._init_shared(rng, self.d_r, self.d_k)
        return params

    def _init_shared(self, rng: np.random.Generator, dim_in: int, dim_out: int) -> np.ndarray:
        if self.shared_init == "glorot":
            return glorot_uniform(rng, dim_in, dim_out)
        return rng.normal(0.0, self.d_k**-0.5, size=(dim_in, dim_out))

    def forward(
        self, params: Tree, U: Array, workspace: Workspace | None = None
    ) -> tuple[Array, WeightingCache]:
        """Return the core (derivations 3.2b, 3.2c).

        Shapes
        ------
        U : (B, dim_in)
        Q : (B, d_r, d_c)
        """
        outputs, caches = self._networks.forward(params, U)
        factors = tuple(outputs.values())
        if self.variant == "non":
            P = outputs["core_generator"].reshape(-1, self.d_r, self.d_c)
            if kernels.fuses(P):
                Q = batch_to_front(kernels.bounded(batch_to_back(P), self.gain))
            else:
                Q, _ = scaled_sigmoid(P, self.gain, out=empty_like_batch(P, workspace))
            return Q, WeightingCache(caches, None, Q, factors)
        if "row_generator" in outputs:
            R = outputs["row_generator"].reshape(-1, self.d_r, self.d_k)
        else:
            R = params["R_share"]
        if "column_generator" in outputs:
            C = outputs["column_generator"].reshape(-1, self.d_k, self.d_c)
        else:
            C = params["C_share"]
        Q, c_core = CORES[self.sigmoid_on].forward(R, C, self.gain, workspace)
        return Q, WeightingCache(caches, c_core, Q, factors)

    def backward(
        self,
        dQ: Array,
        cache: WeightingCache,
        d_generated: Array | None = None,
        dQ_other: Array | None = None,
        workspace: Workspace | None = None,
    ) -> tuple[Array, Tree]:
        """Return ``dU`` and the gradients (derivations 3.4i, 3.4j, 3.4k, 3.4l, 3.4m, 3.4n, 3.4t).

        Parameters
        ----------
        dQ : (B, d_r, d_c)
        cache : WeightingCache
        d_generated : (B, dim_generated), optional
            Adjoint of ``cache.generated`` from a discriminator that reads the factors.
        dQ_other : (B, d_r, d_c), optional
            Adjoint of the core from a second reader, a discriminator.
        """
        d_outputs, g_shared = self._factor_adjoints(dQ, cache, dQ_other, workspace)
        if d_generated is not None:
            parts, _ = split_columns(d_generated, list(self.generated_widths.values()))
            for name, part in zip(self.generators, parts, strict=True):
                d_outputs[name] = d_outputs[name] + part
        dU, grads = self._networks.backward(d_outputs, cache.generators)
        return dU, grads | g_shared

    def kinks(self, cache: WeightingCache) -> dict[str, Array]:
        """Pre-activations by the path of the bias that shifts them."""
        return self._networks.kinks(cache.generators)

    def _factor_adjoints(
        self, dQ: Array, cache: WeightingCache, dQ_other: Array | None, workspace: Workspace | None
    ) -> tuple[dict[str, Array], Tree]:
        """Return the adjoint of each generator's output and the gradient of the shared factor."""
        n_rows = dQ.shape[0]
        if cache.core is None:
            dQ = dQ if dQ_other is None else dQ + dQ_other
            if kernels.fuses(dQ, cache.Q):
                dP = kernels.bounded_backward(batch_to_back(dQ), batch_to_back(cache.Q), self.gain)
                dP = batch_to_front(dP)
            else:
                dP = empty_like_batch(cache.Q, workspace)
                scaled_sigmoid_backward(dQ, (cache.Q, self.gain), out=dP)
            return {"core_generator": dP.reshape(n_rows, -1)}, {}
        dR, dC = CORES[self.sigmoid_on].backward(dQ, cache.core, dQ_other, workspace)
        d_outputs: dict[str, Array] = {}
        g_shared: Tree = {}
        if "row_generator" in self.generators:
            d_outputs["row_generator"] = dR.reshape(n_rows, -1)
        else:
            g_shared["R_share"] = dR
        if "column_generator" in self.generators:
            d_outputs["column_generator"] = dC.reshape(n_rows, -1)
        else:
            g_shared["C_share"] = dC
        return d_outputs, g_shared
