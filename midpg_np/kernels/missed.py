"""Steps that rows of a table have missed, summed: arithmetic of ``training.missed_steps``."""

from __future__ import annotations

from midpg_np.backend import Array, get_xp
from midpg_np.kernels.dispatch import fused


@fused(None, compiled="missed")
def sum_missed(
    weights: Array, m: Array, v: Array, coefficients: Array, decay_m: Array, decay_v: Array
) -> Array:
    """Move rows of weights by D = m / (r + c) sum_i (-y)^i Q_i and decay their moments, in place.

    r = sqrt(v) and y = c / (r + c).  Returns the largest y of each row among entries that move,
    m != 0: how far the series may be off.

    Shapes
    ------
    weights, m, v : (n, k)
    coefficients : (n, N + 3)
        c; Q_0 to Q_N; and a bound, which is not read.
    decay_m, decay_v : (n,)
    largest : (n,)
    """
    xp, width = get_xp(weights=weights, m=m, v=v), m.shape[1]

    def spread(column: Array) -> Array:
        # (n,) to (n, k): NumPy is slow to broadcast along a short axis.
        return xp.repeat(column, width).reshape(-1, width)

    n_terms = coefficients.shape[1] - 2
    root, y = xp.sqrt(v), spread(coefficients[:, 0])
    root += y
    y /= root
    total = spread(coefficients[:, n_terms])
    for i in range(n_terms - 1, 0, -1):
        total *= y
        xp.subtract(spread(coefficients[:, i]), total, out=total)
    total *= m
    total /= root
    weights -= total
    y *= m != 0.0
    m *= spread(decay_m)
    v *= spread(decay_v)
    return y.max(axis=1)
