"""Discriminators T(e, q): a logit for "this context and this signal belong together".

Each offers ``score`` for one kind of pair (the textbook) and ``score_pairs`` for matching and
shuffled pairs at once, where one product with q, the wide side, serves both kinds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from midpg_np import kernels
from midpg_np.backend import Array, get_xp, is_batch_last, matmul
from midpg_np.layers.initial import glorot_uniform
from midpg_np.layers.mlp import MLP, MLPCache
from midpg_np.ops import ACTIVATIONS, add_to, concat, concat_backward, product, sum_rows
from midpg_np.tree import Tree
from midpg_np.workspace import Workspace, empty_like_batch

# (d_e, d_q, gradients of the parameters)
Adjoints = tuple[Array, Array, Tree]
# (d_e, d_e_neg, d_q, gradients of the parameters)
PairAdjoints = tuple[Array, Array, Array, Tree]


class MLPPairCache(NamedTuple):
    """What ``score_pairs`` keeps; matching pairs on top of shuffled ones.

    Shapes
    ------
    e : (2*B, d_e)
    q : (B, d_q)
    A : (2*B, v)
        The first pre-activation.
    w : (v,) or None
        Weights of the second layer where a kernel took both.
    """

    e: Array
    q: Array
    W_e: Array
    W_q: Array
    A: Array
    activation: object
    tail: MLPCache | None
    w: Array | None = None


def _stacked(top: Array, bottom: Array) -> Array:
    """Rows of two batches one below the other, stored as they are."""
    if is_batch_last(top):
        return get_xp(top=top, bottom=bottom).concatenate([top.T, bottom.T], axis=1).T
    return get_xp(top=top, bottom=bottom).concatenate([top, bottom])


@dataclass(frozen=True)
class MLPDiscriminator:
    """T = MLP([e, q]) with ReLU between the layers.

    Parameters
    ----------
    dim_context, dim_signal : int
        Widths of e and q.
    hidden : tuple of int
        Hidden widths; () is linear.
    """

    dim_context: int
    dim_signal: int
    hidden: tuple[int, ...] = (32,)

    @cached_property
    def mlp(self) -> MLP:
        """The network on the concatenation."""
        return MLP((self.dim_context + self.dim_signal, *self.hidden, 1))

    def init(self, rng: np.random.Generator) -> Tree:
        """Draw Glorot kernels and zero biases."""
        return self.mlp.init(rng)

    def score(self, params: Tree, e: Array, q: Array) -> tuple[Array, MLPCache]:
        """Return the logits t (B,) of pairs (e_b, q_b) (derivations 3.3a)."""
        t, cache = self.mlp.forward(params, concat([e, q])[0])
        return t[:, 0], cache

    def score_backward(self, dt: Array, cache: MLPCache) -> Adjoints:
        """Return ``d_e, d_q`` and the gradients (derivations 2.2d, 2.2e)."""
        d_eq, grads = self.mlp.backward(dt[:, None], cache)
        d_e, d_q = concat_backward(d_eq, (self.dim_context, self.dim_signal))
        return d_e, d_q, grads

    def score_pairs(
        self, params: Tree, e: Array, e_neg: Array, q: Array
    ) -> tuple[Array, Array, MLPPairCache]:
        """Return t_pos of (e_b, q_b) and t_neg of (e_neg_b, q_b), each (B,) (derivations 3.5f).

        With W = [W_e; W_q] the first pre-activations are e_b W_e + (q_b W_q + b) and
        e_neg_b W_e + (q_b W_q + b): the large product q W_q is done once.
        """
        W, b = params["layer_1"]["W"], params["layer_1"]["b"]
        W_e, W_q = W[: self.dim_context], W[self.dim_context :]
        n_rows, e = e.shape[0], _stacked(e, e_neg)
        P_e, P_q = product(e, W_e, like=q), product(q, W_q)
        if len(self.hidden) == 1 and is_batch_last(q) and kernels.fuses(P_e, P_q, b):
            w, c = params["layer_2"]["W"][:, 0], params["layer_2"]["b"]
            t, A = kernels.pair_scores(P_e.T, P_q.T, b, w, c)
            cache = MLPPairCache(e, q, W_e, W_q, A.T, None, None, w)
            return t[:n_rows], t[n_rows:], cache
        a_q = add_to(P_q, b)
        A = P_e + _stacked(a_q, a_q)
        if self.hidden:
            H, c_activation = ACTIVATIONS[self.mlp.activation].forward(A)
            t, c_tail = self.mlp.tail.forward(self.mlp.tail_tree(params), H)
        else:
            t, c_activation, c_tail = A, None, None
        cache = MLPPairCache(e, q, W_e, W_q, A, c_activation, c_tail)
        return t[:n_rows, 0], t[n_rows:, 0], cache

    def score_pairs_backward(
        self,
        dt_pos: Array,
        dt_neg: Array,
        c: MLPPairCache,
        workspace: Workspace | None = None,
    ) -> PairAdjoints:
        """Return ``d_e, d_e_neg, d_q`` and the gradients (derivations 3.5g, 3.5h)."""
        xp, n_rows = get_xp(dt_pos=dt_pos, dt_neg=dt_neg), len(dt_pos)
        dt = xp.concatenate([dt_pos, dt_neg])
        g_tail: Tree = {}
        if c.w is not None:
            dA, da_q, db, dw = kernels.pair_scores_backward(dt, c.A.T, c.w)
            dA, da_q = dA.T, da_q.T
            g_tail = {"layer_1": {"W": dw[:, None], "b": kernels.sum_samples(dt[None])}}
        else:
            dA = dt[:, None]
            if c.tail is not None:
                dH, g_tail = self.mlp.tail.backward(dA, c.tail)
                dA = ACTIVATIONS[self.mlp.activation].backward(dH, c.activation)
            da_q = dA[:n_rows] + dA[n_rows:]
            db = sum_rows(da_q)
        dW = xp.concatenate([matmul(c.e.T, dA), matmul(c.q.T, da_q)])
        first = {"W": dW, "b": db}
        grads = self.mlp.whole_tree(first, g_tail) if self.hidden else {"layer_1": first}
        d_e = product(dA, c.W_e.T)
        d_q = product(da_q, c.W_q.T, like=c.q, out=empty_like_batch(c.q, workspace))
        return d_e[:n_rows], d_e[n_rows:], d_q, grads

    def kinks(self, c: MLPPairCache) -> dict[str, Array]:
        """Pre-activations by the path of the bias that shifts them."""
        if not self.hidden:
            return {}
        inner = () if c.tail is None else self.mlp.tail.kinks(c.tail).values()
        names = self.mlp.layer_names[:-1]
        return {f"{name}.b": A for name, A in zip(names, (c.A, *inner), strict=True)}


class BilinearPairCache(NamedTuple):
    """Inputs, M (d_e, d_q) and the projected contexts y = e M, y_neg = e_neg M, (B, d_q)."""

    e: Array
    e_neg: Array
    q: Array
    M: Array
    y: Array
    y_neg: Array


@dataclass(frozen=True)
class BilinearDiscriminator:
    """T = e M q^T + b.

    Parameters
    ----------
    dim_context, dim_signal : int
        Widths of e and q.
    """

    dim_context: int
    dim_signal: int

    def init(self, rng: np.random.Generator) -> Tree:
        """Draw a Glorot M (d_e, d_q) and a zero bias."""
        return {"M": glorot_uniform(rng, self.dim_context, self.dim_signal), "b": np.zeros(1)}

    def score(self, params: Tree, e: Array, q: Array) -> tuple[Array, tuple[Array, ...]]:
        """Return the logits t (B,) of pairs (e_b, q_b) (derivations 3.3f)."""
        M = params["M"]
        t = get_xp(e=e, q=q, M=M).einsum("bi,ij,bj->b", e, M, q) + params["b"]
        return t, (e, q, M)

    def score_backward(self, dt: Array, cache: tuple[Array, ...]) -> Adjoints:
        """Return ``d_e, d_q`` and the gradients (derivations 3.4s)."""
        e, q, M = cache
        dt = dt[:, None]
        dM = e.T @ (dt * q)
        return dt * (q @ M.T), dt * (e @ M), {"M": dM, "b": dt.sum(axis=0)}

    def score_pairs(
        self, params: Tree, e: Array, e_neg: Array, q: Array
    ) -> tuple[Array, Array, BilinearPairCache]:
        """Return t_pos of (e_b, q_b) and t_neg of (e_neg_b, q_b), each (B,) (derivations 3.3f)."""
        M = params["M"]
        y, y_neg = product(e, M, like=q), product(e_neg, M, like=q)
        t_pos = (y * q).sum(axis=1) + params["b"]
        t_neg = (y_neg * q).sum(axis=1) + params["b"]
        return t_pos, t_neg, BilinearPairCache(e, e_neg, q, M, y, y_neg)

    def score_pairs_backward(
        self,
        dt_pos: Array,
        dt_neg: Array,
        c: BilinearPairCache,
        workspace: Workspace | None = None,
    ) -> PairAdjoints:
        """Return ``d_e, d_q`` and the gradients (derivations 3.4s)."""
        dt_pos, dt_neg = dt_pos[:, None], dt_neg[:, None]
        dy, dy_neg = dt_pos * c.q, dt_neg * c.q
        dq = dt_pos * c.y + dt_neg * c.y_neg
        grads = {"M": c.e.T @ dy + c.e_neg.T @ dy_neg, "b": (dt_pos + dt_neg).sum(axis=0)}
        return product(dy, c.M.T), product(dy_neg, c.M.T), dq, grads

    def kinks(self, c: BilinearPairCache) -> dict[str, Array]:
        """Return no kinks: this score is smooth."""
        return {}


DISCRIMINATORS: dict[str, type] = {"mlp": MLPDiscriminator, "bilinear": BilinearDiscriminator}
