"""Networks that read the same input: one after the other, or their first layers as one.

The kernels of the first layers side by side are one matrix, so N narrow products are one, forward
and twice backward.  Where the input is much wider than the networks that is most of their work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from midpg_np.backend import Array, get_xp
from midpg_np.layers.mlp import MLP, MLPCache
from midpg_np.ops import (
    ACTIVATIONS,
    AffineCache,
    add_to,
    biased,
    biased_backward,
    concat,
    product,
    product_backward,
)
from midpg_np.tree import Tree


@dataclass(frozen=True)
class OneByOne:
    """Networks by name, each for itself.

    Parameters
    ----------
    mlps : dict of MLP
    """

    mlps: dict[str, MLP]

    def forward(self, params: Tree, x: Array) -> tuple[dict[str, Array], dict[str, MLPCache]]:
        """Return the output of each network (derivations 2.2d).

        Shapes
        ------
        x : (B, d_0)
        """
        outputs, caches = {}, {}
        for name, mlp in self.mlps.items():
            outputs[name], caches[name] = mlp.forward(params[name], x)
        return outputs, caches

    def backward(
        self, d_outputs: Mapping[str, Array], cache: dict[str, MLPCache]
    ) -> tuple[Array, Tree]:
        """Return ``dx``, the sum of what the networks send back, and the gradients."""
        dx, grads = None, {}
        for name, mlp in self.mlps.items():
            dx_mlp, grads[name] = mlp.backward(d_outputs[name], cache[name])
            dx = add_to(dx, dx_mlp)
        return dx, grads

    def kinks(self, cache: dict[str, MLPCache]) -> dict[str, Array]:
        """Pre-activations by the path of the bias that shifts them."""
        return {
            f"{name}.{path}": A
            for name, mlp in self.mlps.items()
            for path, A in mlp.kinks(cache[name]).items()
        }


class SideBySideCache(NamedTuple):
    """The first layers as one, and the cache of what comes behind in each network.

    Shapes
    ------
    A : (B, v)
        Pre-activations of the first layers, whose widths add up to v.
    """

    first: AffineCache
    A: Array
    activation: Any
    tails: dict[str, MLPCache]


@dataclass(frozen=True)
class SideBySide:
    """As ``OneByOne``, the first layers by one product; networks of two layers or more.

    Parameters
    ----------
    mlps : dict of MLP
        With the same input and the same activation.
    """

    mlps: dict[str, MLP]

    @cached_property
    def _activation(self) -> Any:
        return ACTIVATIONS[next(iter(self.mlps.values())).activation]

    @cached_property
    def _columns(self) -> dict[str, slice]:
        """Where the first layer of each network stands."""
        ends = accumulate((mlp.dims[1] for mlp in self.mlps.values()), initial=0)
        return {name: slice(*ends) for name, ends in zip(self.mlps, pairwise(ends), strict=True)}

    def forward(self, params: Tree, x: Array) -> tuple[dict[str, Array], SideBySideCache]:
        """Return the output of each network (derivations 2.2d).

        Shapes
        ------
        x : (B, d_0)
        """
        firsts = [params[name]["layer_1"] for name in self.mlps]
        W = get_xp(x).concatenate([first["W"] for first in firsts], axis=1)
        b = get_xp(x).concatenate([first["b"] for first in firsts])
        A, H, c_activation = biased(product(x, W), b, self._activation)
        outputs, tails = {}, {}
        for name, mlp in self.mlps.items():
            tree = mlp.tail_tree(params[name])
            outputs[name], tails[name] = mlp.tail.forward(tree, H[:, self._columns[name]])
        return outputs, SideBySideCache(AffineCache(x, W), A, c_activation, tails)

    def backward(
        self, d_outputs: Mapping[str, Array], cache: SideBySideCache
    ) -> tuple[Array, Tree]:
        """Return ``dx``, the sum of what the networks send back, and the gradients.

        See derivations 2.2d, 4b, 4c.
        """
        parts, g_tails = [], {}
        for name, mlp in self.mlps.items():
            dH, g_tails[name] = mlp.tail.backward(d_outputs[name], cache.tails[name])
            parts.append(dH)
        dA, db = biased_backward(concat(parts)[0], cache.activation, self._activation)
        dx, dW = product_backward(dA, cache.first)
        grads: Tree = {}
        for name, mlp in self.mlps.items():
            columns = self._columns[name]
            first = {"W": dW[:, columns], "b": db[columns]}
            grads[name] = mlp.whole_tree(first, g_tails[name])
        return dx, grads

    def kinks(self, cache: SideBySideCache) -> dict[str, Array]:
        """Pre-activations by the path of the bias that shifts them."""
        kinks: dict[str, Array] = {}
        for name, mlp in self.mlps.items():
            behind = mlp.tail.kinks(cache.tails[name]).values()
            layers = cache.A[:, self._columns[name]], *behind
            names = mlp.layer_names[:-1]
            kinks |= {f"{name}.{k}.b": A for k, A in zip(names, layers, strict=True)}
        return kinks
