"""Products with one matrix for each group of rows, which lie side by side (derivations 2.7a)."""

from __future__ import annotations

from itertools import pairwise

from midpg_np.backend import Array, get_xp
from midpg_np.kernels.dispatch import empty, fused


@fused(None, compiled="grouped")
def product_by_group(H: Array, W: Array, bounds: tuple[int, ...]) -> Array:
    """A[b] = H[b] W[m] for the rows b of group m, bounds[m] up to bounds[m + 1].

    Shapes
    ------
    H : (B, I)
    W : (M, I, O)
    A : (B, O)
    """
    xp = get_xp(H=H, W=W)
    A = empty(xp, (H.shape[0], W.shape[2]), xp.result_type(H, W))
    for m, (start, stop) in enumerate(pairwise(bounds)):
        xp.matmul(H[start:stop], W[m], out=A[start:stop])
    return A


@fused(None, compiled="grouped")
def product_by_group_backward(
    dA: Array, H: Array, W: Array, bounds: tuple[int, ...]
) -> tuple[Array, Array]:
    """Return dH[b] = dA[b] W[m]^T and dW[m] = sum over the rows b of group m of H[b]^T dA[b].

    Shapes
    ------
    dA : (B, O)
    dH : (B, I)
    dW : (M, I, O)
    """
    xp = get_xp(dA=dA, H=H)
    dtype = xp.result_type(dA, H, W)
    dH, dW = empty(xp, H.shape, dtype), empty(xp, W.shape, dtype)
    for m, (start, stop) in enumerate(pairwise(bounds)):
        dA_m = dA[start:stop]
        xp.matmul(dA_m, W[m].T, out=dH[start:stop])
        xp.matmul(H[start:stop].T, dA_m, out=dW[m])
    return dH, dW
