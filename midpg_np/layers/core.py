"""The core Q of a weighting matrix from its factors (derivations 3.2): Q = g sigmoid(R C).

R and C are generated per sample, (B, ...), or shared by all samples, without a batch axis.  The
work is element-wise and the arrays are large, so a few rows of the core are done at a time: product
and sigmoid, and in the backward pass the adjoints of all readers, meet in the processor's cache.
"""

from __future__ import annotations

from typing import NamedTuple

from midpg_np import kernels
from midpg_np.backend import Array, get_xp, is_batch_last
from midpg_np.ops import (
    Pair,
    scaled_sigmoid,
    scaled_sigmoid_backward,
    sigmoid,
    sigmoid_backward,
)
from midpg_np.workspace import (
    Workspace,
    common_dtype,
    einsum_into,
    empty_batch,
    empty_like_batch,
    groups_at_once,
    slices,
)


class CoreCache(NamedTuple):
    """Factors and core."""

    R: Array
    C: Array
    Q: Array
    gain: float


def sigmoid_of_product(
    R: Array, C: Array, gain: float, workspace: Workspace | None = None
) -> tuple[Array, CoreCache]:
    """Core Q_b = gain sigmoid(R_b C_b) (derivations 3.2b).

    Backward, with dP = dQ Q (1 - Q / gain): dR = dP C^T, dC = R^T dP; the adjoint of a shared
    factor is the sum over the samples.

    Shapes
    ------
    R : (B, d_r, d_k) or (d_r, d_k)
    C : (B, d_k, d_c) or (d_k, d_c)
    Q : (B, d_r, d_c)
    """
    xp = get_xp(R=R, C=C)
    if kernels.fuses(R, C):
        Q = batch_to_front(kernels.core(batch_to_back(R), batch_to_back(C), gain))
        return Q, CoreCache(R, C, Q, gain)
    factor_r, factor_c = _subscripts(R, C)
    Q = _empty_core(R, C, workspace)
    for r in _pieces(Q):
        einsum_into(xp, f"{factor_r},{factor_c}->brc", R[..., r, :], C, out=Q[:, r])
        scaled_sigmoid(Q[:, r], gain, out=Q[:, r])
    return Q, CoreCache(R, C, Q, gain)


def sigmoid_of_product_backward(
    dQ: Array, cache: CoreCache, dQ_other: Array | None = None, workspace: Workspace | None = None
) -> tuple[Array, Array]:
    """Return ``dR, dC``; ``dQ_other`` is the adjoint from a second reader of the core.

    See derivations 3.4i, 3.4j, 3.4k, 3.4l, 3.4m.
    """
    R, C, Q, gain = cache
    xp = get_xp(dQ=dQ, Q=Q)
    if kernels.fuses(dQ, Q, R, C):
        dQ, Q, R, C = map(batch_to_back, (dQ, Q, R, C))
        other = () if dQ_other is None else (batch_to_back(dQ_other),)
        dR, dC = kernels.core_backward(dQ, Q, R, C, gain, *other)
        return batch_to_front(dR), batch_to_front(dC)
    factor_r, factor_c = _subscripts(R, C)
    dR, dC = empty_like_batch(R, workspace), None
    for r in _pieces(Q):
        dQ_r = dQ[:, r] if dQ_other is None else dQ[:, r] + dQ_other[:, r]
        dP = empty_like_batch(Q[:, r], workspace)
        scaled_sigmoid_backward(dQ_r, (Q[:, r], gain), out=dP)
        dR[..., r, :] = xp.einsum(f"brc,{factor_c}->{factor_r}", dP, C)
        dC_r = xp.einsum(f"{factor_r},brc->{factor_c}", R[..., r, :], dP)
        dC = dC_r if dC is None else dC + dC_r
    return dR, dC


def product_of_sigmoids(
    R: Array, C: Array, gain: float, workspace: Workspace | None = None
) -> tuple[Array, CoreCache]:
    """Core Q_b = gain sigmoid(R_b) sigmoid(C_b), the other place for the sigmoid.

    See derivations 3.2h.

    Shapes
    ------
    R : (B, d_r, d_k) or (d_r, d_k)
    C : (B, d_k, d_c) or (d_k, d_c)
    Q : (B, d_r, d_c)
    """
    xp = get_xp(R=R, C=C)
    factor_r, factor_c = _subscripts(R, C)
    R, C = sigmoid(R)[0], sigmoid(C)[0]
    Q = _empty_core(R, C, workspace)
    einsum_into(xp, f"{factor_r},{factor_c}->brc", R, C, out=Q)
    Q *= gain
    return Q, CoreCache(R, C, Q, gain)


def product_of_sigmoids_backward(
    dQ: Array, cache: CoreCache, dQ_other: Array | None = None, workspace: Workspace | None = None
) -> tuple[Array, Array]:
    """Return ``dR, dC`` (derivations 3.4n)."""
    R, C, _, gain = cache  # both behind their sigmoid
    xp = get_xp(dQ=dQ, R=R, C=C)
    factor_r, factor_c = _subscripts(R, C)
    dP = (dQ if dQ_other is None else dQ + dQ_other) * gain
    dR = xp.einsum(f"brc,{factor_c}->{factor_r}", dP, C)
    dC = xp.einsum(f"{factor_r},brc->{factor_c}", R, dP)
    return sigmoid_backward(dR, R), sigmoid_backward(dC, C)


CORES: dict[str, Pair] = {
    "product": Pair(sigmoid_of_product, sigmoid_of_product_backward),
    "factors": Pair(product_of_sigmoids, product_of_sigmoids_backward),
}


def batch_to_back(x: Array) -> Array:
    """Return (B, ., .) as a view (., ., B), as kernels take it; a shared factor as it is."""
    return x.transpose(1, 2, 0) if x.ndim == 3 else x


def batch_to_front(x: Array) -> Array:
    """Inverse of ``batch_to_back``: a view (B, ., .) of (., ., B)."""
    return x.transpose(2, 0, 1) if x.ndim == 3 else x


def _subscripts(R: Array, C: Array) -> tuple[str, str]:
    return ("brk" if R.ndim == 3 else "rk"), ("bkc" if C.ndim == 3 else "kc")


def _empty_core(R: Array, C: Array, workspace: Workspace | None) -> Array:
    generated = R if R.ndim == 3 else C
    shape = (generated.shape[0], R.shape[-2], C.shape[-1])
    is_last = is_batch_last(generated)
    return empty_batch(get_xp(R, C), shape, common_dtype(R, C), is_last, workspace)


def _pieces(Q: Array) -> list[slice]:
    n_rows, d_r, d_c = Q.shape
    size = groups_at_once(get_xp(Q), d_r, n_rows * d_c * Q.dtype.itemsize)
    return slices(d_r, size)
