"""Orthogonality loss: the embeddings of one row's set shall point in different directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from midpg_np.backend import Array, get_xp, matmul
from midpg_np.workspace import sum_products

ORTH_ON = ("cosine", "gram")


class OrthogonalityCache(NamedTuple):
    """Intermediates.

    Shapes
    ------
    G_hat : (B, D, q)
        Normalised embeddings; with "gram" the embeddings themselves.
    norm : (B, D, 1)
        sqrt(<g, g> + eps); None with "gram".
    O : (B, D, D)
        Products of different embeddings; its diagonal is zero.
    """

    G_hat: Array
    norm: Array | None
    O: Array  # noqa: E741, the letter of the equations


@dataclass(frozen=True)
class Orthogonality:
    """L = 1 / (B D (D - 1)) sum over b of |O_b|^2, O_b = offdiag(G_hat_b G_hat_b^T).

    Backward (derivations 10.3j): dG_hat_b = 4 / (B D (D - 1)) O_b G_hat_b dL, and
    dg = (dg_hat - g_hat <g_hat, dg_hat>) / norm.

    Parameters
    ----------
    orth_on : str
        "cosine": G_hat has rows g / sqrt(<g, g> + eps).  "gram": G_hat = G.
    eps : float
        Keeps the norm of a zero embedding away from zero.

    Raises
    ------
    ValueError
        If ``orth_on`` is no known name, or ``eps`` is not above 0.
    """

    orth_on: str = "cosine"
    eps: float = 1e-12

    def __post_init__(self) -> None:
        if self.orth_on not in ORTH_ON:
            raise ValueError(f"orth_on must be one of {ORTH_ON}; got {self.orth_on!r}.")
        if not self.eps > 0:
            raise ValueError(f"eps must be greater than 0; got {self.eps}.")

    def forward(self, G: Array) -> tuple[Array, OrthogonalityCache]:
        """Return the loss, a scalar (derivations 10.1f).

        Shapes
        ------
        G : (B, D, q)
        """
        G_hat, norm = G, None
        if self.orth_on == "cosine":
            norm = get_xp(G=G).sqrt(_row_products(G, G) + self.eps)
            G_hat = G / norm
        # The copy keeps NumPy from a routine for X X^T that is slow on matrices this small.
        O = matmul(G_hat, G_hat.copy().swapaxes(-1, -2))  # noqa: E741
        O *= _is_pair(G)  # noqa: E741
        return (O * O).sum() / _n_pairs(G), OrthogonalityCache(G_hat, norm, O)

    def backward(self, d_loss: Array, cache: OrthogonalityCache) -> Array:
        """Return ``dG`` (derivations 10.3j)."""
        G_hat, norm, O = cache  # noqa: E741
        # Twice for the square and twice for the symmetry: (k, j) and (j, k) hold the same product.
        dG_hat = matmul(O, G_hat)
        dG_hat *= 4.0 * d_loss / _n_pairs(G_hat)
        if norm is None:
            return dG_hat
        dG_hat -= G_hat * _row_products(G_hat, dG_hat)
        dG_hat /= norm
        return dG_hat


def _row_products(x: Array, y: Array) -> Array:
    """Products <x, y> along the last axis, which stays with length 1."""
    return sum_products(x, y, axis=2)[..., None]


def _is_pair(G: Array) -> Array:
    """(D, D): True off the diagonal."""
    k = get_xp(G=G).arange(G.shape[1])
    return k[:, None] != k


def _n_pairs(G: Array) -> int:
    """B D (D - 1); a single embedding has no pair, its loss is 0 and not 0 / 0."""
    B, D, _ = G.shape
    return B * max(D * (D - 1), 1)
