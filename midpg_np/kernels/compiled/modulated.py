"""The modulated product as loops that meet every weight once and build no array between.

A_jb = sum_i Q_r(i),c(j),b W_ij H_ib (derivations 3.2, 3.4).  The inputs of a row group and the
outputs of a column group share the entry q = Q_rc, so a block of F inputs and J outputs costs
F J + J multiplications per sample: z_j = sum_i W_ij H_i first, then A_j += q z_j.  The compiler
knows F and J, and keeps a block's weights in registers while it runs over the samples.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import uintp

from midpg_np.backend import Array
from midpg_np.kernels.compiled.loops import BLOCK, add_products, fast_loops, read_row
from midpg_np.kernels.dispatch import empty
from midpg_np.kernels.launch import largest_divisor
from midpg_np.recording import contiguous, run

MOST_AT_ONCE = 4  # inputs, and outputs, of a block: 16 weights fill the registers


def modulated_product(H: Array, W: Array, Q: Array, mode: str) -> Array:
    """As ``kernels.modulated_product``."""
    H, W, Q = map(contiguous, (H, W, Q))
    A = empty(np, (W.shape[1], H.shape[1]), H.dtype)
    run(_forward, H, W, Q, A, *_plan(W, Q, mode))
    return A


def modulated_product_backward(
    dA: Array, H: Array, W: Array, Q: Array, mode: str
) -> tuple[Array, Array, Array]:
    """As ``kernels.modulated_product_backward``."""
    dA, H, W, Q = map(contiguous, (dA, H, W, Q))
    dH, dW, dQ = (empty(np, x.shape, x.dtype) for x in (H, W, Q))
    run(_backward, dA, H, W, Q, dH, dW, dQ, *_plan(W, Q, mode))
    return dH, dW, dQ


def _plan(W: Array, Q: Array, mode: str) -> tuple[Any, ...]:
    """Return the inputs and outputs of a block, and the steps from group to group and in one.

    The members of a block are tuples because the compiler knows how long a tuple is.
    """
    steps, blocks = [], []
    for width, n_groups in zip(W.shape, Q.shape[:2], strict=True):
        n_members = width // n_groups
        steps += [n_members, 1] if mode == "block" else [1, n_groups]
        blocks.append(tuple(range(largest_divisor(n_members, MOST_AT_ONCE))))
    return *blocks, *steps


@fast_loops
def _forward(H, W, Q, A, inputs, outputs, r_step, l_step, c_step, t_step):
    F, J = len(inputs), len(outputs)
    d_r, d_c, B = Q.shape
    f_r, f_c = W.shape[0] // d_r, W.shape[1] // d_c
    w, a = np.empty((F, J), H.dtype), np.empty((J, BLOCK), H.dtype)
    for start in range(uintp(0), uintp(B), uintp(BLOCK)):
        n = min(uintp(BLOCK), uintp(B) - start)
        for c in range(d_c):
            for t0 in range(0, f_c, J):
                j = c * c_step + t0 * t_step
                a[:] = 0.0
                for r in range(d_r):
                    for l0 in range(0, f_r, F):
                        i = r * r_step + l0 * l_step
                        for l in range(F):
                            for t in range(J):
                                w[l, t] = W[i + l * l_step, j + t * t_step]
                        for b in range(n):
                            q = Q[r, c, start + b]
                            for t in range(J):
                                z = w[0, t] * H[i, start + b]
                                for l in range(1, F):
                                    z += w[l, t] * H[i + l * l_step, start + b]
                                a[t, b] += q * z
                for t in range(J):
                    for b in range(n):
                        A[j + t * t_step, start + b] = a[t, b]


@fast_loops
def _backward(dA, H, W, Q, dH, dW, dQ, inputs, outputs, r_step, l_step, c_step, t_step):
    """Block by block, add to dH_l, dQ and dW_lt their sums over the block.

    With dz_t = q dA_t and dg_l = sum_t W_lt dA_t these are q dg_l, dg_l H_l summed over l, and
    H_l dz_t: the last for two inputs at once, L = 2, since then six reads serve eight sums.
    """
    F, J = len(inputs), len(outputs)
    L = 1 if F % 2 else 2
    d_r, d_c, B = Q.shape
    f_r, f_c = W.shape[0] // d_r, W.shape[1] // d_c
    w, dz = np.empty((F, J), H.dtype), np.empty((J, BLOCK), H.dtype)
    dh, dq = np.empty((F, BLOCK), H.dtype), np.empty(BLOCK, H.dtype)
    dW[:] = 0.0
    for start in range(uintp(0), uintp(B), uintp(BLOCK)):
        n = min(uintp(BLOCK), uintp(B) - start)
        for r in range(d_r):
            for l0 in range(0, f_r, F):
                i = r * r_step + l0 * l_step
                dh[:] = 0.0
                for c in range(d_c):
                    dq[:] = 0.0
                    for t0 in range(0, f_c, J):
                        j = c * c_step + t0 * t_step
                        for l in range(F):
                            for t in range(J):
                                w[l, t] = W[i + l * l_step, j + t * t_step]
                        for b in range(n):
                            s, q = dq[b], Q[r, c, start + b]
                            for t in range(J):
                                dz[t, b] = q * dA[j + t * t_step, start + b]
                            for l in range(F):
                                dg = w[l, 0] * dA[j, start + b]
                                for t in range(1, J):
                                    dg += w[l, t] * dA[j + t * t_step, start + b]
                                s += dg * H[i + l * l_step, start + b]
                                dh[l, b] += q * dg
                            dq[b] = s
                        for l in range(0, F, L):
                            i0, i1 = i + l * l_step, i + (l + L - 1) * l_step
                            s0 = read_row(dW, i0, j, t_step, outputs)
                            s1 = read_row(dW, i1, j, t_step, outputs)
                            for b in range(n):
                                s0 = add_products(s0, H[i0, start + b], dz, b)
                                s1 = add_products(s1, H[i1, start + b], dz, b)
                            for t in range(J):
                                dW[i0, j + t * t_step] = s0[t]
                                dW[i1, j + t * t_step] = s1[t]
                    if l0 == 0:
                        for b in range(n):
                            dQ[r, c, start + b] = dq[b]
                    else:
                        for b in range(n):
                            dQ[r, c, start + b] += dq[b]
                for l in range(F):
                    for b in range(n):
                        dH[i + l * l_step, start + b] = dh[l, b]
