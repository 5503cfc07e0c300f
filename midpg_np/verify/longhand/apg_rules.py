"""Rules of a layer with a low-rank map per row (derivations 9.3)."""

from __future__ import annotations

import numpy as np

from midpg_np.verify.longhand.calculation import Rule

PRODUCT_WITH_TRANSPOSE = Rule(
    lambda H, V: H @ V.T,
    lambda dQ, _, H, V: (dQ @ V, dQ.T @ H),
)
"""Q_b = V H_b for column vectors: rows H (B, I), V (K, I), Q (B, K)."""

CORE_PRODUCT = Rule(
    lambda S, Q: np.einsum("bij,bj->bi", S, Q),
    lambda dR, _, S, Q: (
        np.einsum("bi,bj->bij", dR, Q),
        np.einsum("bij,bi->bj", S, dR),
    ),
)
"""R_b = S_b Q_b; dS_b = dR_b Q_b^T, without a sum over b, and dQ_b = S_b^T dR_b."""
