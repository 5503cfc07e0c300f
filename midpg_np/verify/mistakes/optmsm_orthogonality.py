"""Mistakes in OptMSM's orthogonality loss (derivations 10.5)."""

from __future__ import annotations

from typing import Any

import numpy as np

from midpg_np.verify.longhand import Rule, Step
from midpg_np.verify.longhand.optmsm_rules import PAIR_MEAN, n_pairs
from midpg_np.verify.longhand.rules import weighted_sum
from midpg_np.verify.mistakes.mistake import (
    GRADIENT,
    VALUE,
    Change,
    Mistake,
    adjoint,
    dropped,
    value,
)

ONLY = ("optmsm",)

NORM_OVER_THE_SET = Rule(
    lambda G: np.sqrt((G * G).sum(axis=1, keepdims=True)),
    lambda d_nu, nu, G: (d_nu * G / nu,),
)
DIVIDED_OVER_THE_SET = Rule(
    lambda G, nu: G / nu,
    lambda dy, y, G, nu: (dy / nu, -(dy * y).sum(axis=1, keepdims=True) / nu),
)


def _bounded_norm(step: Step, model: Any) -> Rule:
    """nu = max(|g|, eps), as functional.normalize has it."""

    def length(G: Any) -> Any:
        return np.sqrt((G * G).sum(axis=-1, keepdims=True))

    def forward(G: Any) -> Any:
        return np.where(length(G).real > model.eps, length(G), model.eps)

    def backward(d_nu: Any, nu: Any, G: Any) -> tuple[Any, ...]:
        return (d_nu * G / nu * (length(G).real > model.eps),)

    return Rule(forward, backward)


NOT_DIVIDED = Rule(lambda G, nu: G + 0.0, lambda dy, _, G, nu: (dy, None))


def _masked_products(mask: Any) -> Rule:
    """O = mask * (G G^T), ``mask(D)`` the entries that count."""

    def backward(dO: Any, _: Any, G: Any) -> tuple[Any, ...]:
        d_products = dO * mask(G.shape[1])
        return (np.einsum("bjk,bkq->bjq", d_products + d_products.swapaxes(1, 2), G),)

    return Rule(lambda G: np.einsum("bjq,bkq->bjk", G, G) * mask(G.shape[1]), backward)


def _pair_mean_times(factor: Any) -> Rule:
    """Return the loss times ``factor(B, D)``."""

    def backward(dy: Any, y: Any, products: Any) -> tuple[Any, ...]:
        return PAIR_MEAN.backward(dy * factor(*products.shape[:2]), y, products)

    return Rule(lambda O: PAIR_MEAN.forward(O) * factor(*O.shape[:2]), backward)  # noqa: E741


def _lengths(products: Any) -> Any:
    return np.sqrt((products * products).sum(axis=(1, 2), keepdims=True))


def _mean_length_backward(dy: Any, _: Any, products: Any) -> tuple[Any, ...]:
    lengths = _lengths(products)
    is_zero = lengths == 0.0  # a single embedding has no pair
    return (dy * products / (lengths + is_zero) / len(products),)


MEAN_LENGTH = Rule(lambda products: np.asarray(_lengths(products).mean()), _mean_length_backward)


def _weighted_again(step: Step, model: Any) -> Step:
    """Multiply with mu what comes from the joint objective, where mu is in already."""
    wrong = adjoint("*", lambda right, *_: right * model.orth_weight)
    return wrong.make(step, model)


ORTHOGONALITY = (
    Mistake(
        name="embeddings normalised over the axis of the set",
        models=ONLY,
        equation="10.1",
        wrong="g_hat_kj = g_kj / sqrt(sum_k g_kj^2)",
        right="g_hat_kj = g_kj / sqrt(sum_j g_kj^2 + eps)",
        shows=VALUE,
        fix="Normalise along the last axis: F.normalize(G, dim=-1); its default is dim=1.",
        changes=(value("nu", NORM_OVER_THE_SET), value("G_hat", DIVIDED_OVER_THE_SET)),
    ),
    Mistake(
        name="eps as a lower bound of the norm",
        models=ONLY,
        equation="10.1",
        wrong="nu = max(|g|, eps)",
        right="nu = sqrt(<g, g> + eps)",
        shows=VALUE,
        fix="Add eps under the root; F.normalize takes a maximum.",
        changes=(value("nu", _bounded_norm),),
        options={"eps": 0.3},
    ),
    Mistake(
        name="orthogonality of embeddings that are not normalised",
        models=ONLY,
        equation="10.1",
        wrong="O = offdiag(G G^T)",
        right="O = offdiag(G_hat G_hat^T)",
        shows=VALUE,
        fix='Divide each g_k by its norm first; without it, it is orth_on="gram".',
        changes=(value("G_hat", NOT_DIVIDED),),
    ),
    Mistake(
        name="norm of the embeddings detached",
        models=ONLY,
        equation="10.3",
        wrong="dg = dg_hat / nu",
        right="dg = (dg_hat - g_hat <g_hat, dg_hat>) / nu",
        shows=GRADIENT,
        fix="nu depends on g: without the projection the loss also changes the length of g.",
        changes=(dropped("G_hat", 1),),
    ),
    Mistake(
        name="projection made with g in place of g_hat",
        models=ONLY,
        equation="10.3",
        wrong="dg = (dg_hat - g <g, dg_hat>) / nu",
        right="dg = (dg_hat - g_hat <g_hat, dg_hat>) / nu",
        shows=GRADIENT,
        fix="Use the normalised embedding in both places of the projection.",
        changes=(adjoint("G_hat", lambda right, dy, y, G, nu: right * nu**2, 1),),
    ),
    Mistake(
        name="diagonal counted in the orthogonality",
        models=ONLY,
        equation="10.1",
        wrong="O = G_hat G_hat^T",
        right="O = offdiag(G_hat G_hat^T)",
        shows=VALUE,
        fix="Set the diagonal to zero, or subtract the identity under cosines.",
        changes=(value("O", _masked_products(lambda n: np.ones((n, n)))),),
    ),
    Mistake(
        name="each pair of embeddings counted once",
        models=ONLY,
        equation="10.1",
        wrong="L_orth = 1/(B D (D-1)) sum over b, j < k of O_bjk^2",
        right="L_orth = 1/(B D (D-1)) sum over b, j != k of O_bjk^2",
        shows=VALUE,
        fix="Sum over ordered pairs; with triu(diagonal=1) divide by D (D-1) / 2.",
        changes=(value("O", _masked_products(lambda n: np.triu(np.ones((n, n)), 1))),),
    ),
    Mistake(
        name="one side of the embeddings' products detached",
        models=ONLY,
        equation="10.3",
        wrong="dG_hat = 2 kappa O G_hat",
        right="dG_hat = 4 kappa O G_hat",
        shows=GRADIENT,
        fix="Two for the square times two for the symmetry: g_j stands in row j and in column j.",
        changes=(adjoint("O", lambda right, *_: 0.5 * right),),
    ),
    Mistake(
        name="orthogonality over all entries of the products",
        models=ONLY,
        equation="10.1",
        wrong="L_orth = 1/(B D^2) sum_b |O_b|^2",
        right="L_orth = 1/(B D (D-1)) sum_b |O_b|^2",
        shows=VALUE,
        fix="O.pow(2).mean() counts the zeros of the diagonal: divide by D (D-1).",
        changes=(value("orthogonality", _pair_mean_times(lambda B, D: n_pairs(D) / D**2)),),
    ),
    Mistake(
        name="orthogonality summed over the batch",
        models=ONLY,
        equation="10.1",
        wrong="L_orth = 1/(D (D-1)) sum_b |O_b|^2",
        right="L_orth = 1/(B D (D-1)) sum_b |O_b|^2",
        shows=VALUE,
        fix="Take the mean over rows, so that mu does not depend on the batch.",
        changes=(value("orthogonality", _pair_mean_times(lambda B, D: B)),),
    ),
    Mistake(
        name="orthogonality by the norm in place of its square",
        models=ONLY,
        equation="10.1",
        wrong="L_orth = 1/B sum_b |O_b|",
        right="L_orth = 1/(B D (D-1)) sum_b |O_b|^2",
        shows=VALUE,
        fix="Square it: torch.linalg.norm is the root, with a corner where embeddings are good.",
        changes=(value("orthogonality", MEAN_LENGTH),),
    ),
    Mistake(
        name="orthogonality detached from the embeddings",
        models=ONLY,
        equation="10.3",
        wrong="dO = 0",
        right="dO = 2 kappa O",
        shows=GRADIENT,
        fix="Add the tensor to the objective, not its .item() or a detached copy.",
        changes=(dropped("orthogonality"),),
    ),
    Mistake(
        name="weight of the orthogonality left out",
        models=ONLY,
        equation="10.1",
        wrong="L = L_ce + L_orth",
        right="L = L_ce + mu L_orth",
        shows=VALUE,
        fix="Multiply the loss by orth_weight.",
        changes=(value("loss", lambda step, _: weighted_sum([1.0] * len(step.inputs))),),
    ),
    Mistake(
        name="weight of the orthogonality counted twice in the gradient",
        models=ONLY,
        equation="10.3",
        wrong="kappa = mu dL_orth / (B D (D-1)) with dL_orth = mu",
        right="kappa = dL_orth / (B D (D-1)) with dL_orth = mu",
        shows=GRADIENT,
        fix="The weight comes in with the adjoint of the loss: do not multiply again.",
        changes=(Change("orthogonality", _weighted_again, (0,)),),
    ),
)
