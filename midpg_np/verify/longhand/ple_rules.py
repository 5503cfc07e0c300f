"""Rules of experts and gates (derivations 2.4 and 5)."""

from __future__ import annotations

from typing import Any

import numpy as np

from midpg_np.verify.longhand.calculation import Rule


def affine_at(*place: int) -> Rule:
    """Affine map H W + b with the W (I, O) and b (O,) at one place of a stack; b may be missing."""

    def forward(H: Any, W: Any, *b: Any) -> Any:
        A = H @ W[place]
        return A + b[0][place] if b else A

    def backward(dA: Any, _: Any, H: Any, W: Any, *b: Any) -> tuple[Any, ...]:
        parts = [np.zeros_like(leaf) for leaf in (W, *b)]
        parts[0][place] = H.T @ dA
        if b:
            parts[1][place] = dA.sum(axis=0)
        return dA @ W[place].T, *parts

    return Rule(forward, backward)


def _join(of_scenarios: Any, shared: Any) -> Any:
    """[W_0, W_1, ..., W_s] side by side: the column of expert e of scenario k is k m_k + e."""
    lead = of_scenarios.shape[1:-1]
    columns = np.moveaxis(of_scenarios, 0, -2).reshape(*lead, -1)
    return np.concatenate([columns, shared], axis=-1)


def _join_backward(dW: Any, _: Any, of_scenarios: Any, shared: Any) -> tuple[Any, ...]:
    n_scenarios, *lead, m_k = of_scenarios.shape
    n = n_scenarios * m_k
    return np.moveaxis(dW[..., :n].reshape(*lead, n_scenarios, m_k), -2, 0), dW[..., n:]


JOIN = Rule(_join, _join_backward)
"""Columns (D, I, m_k) of the scenarios' experts and (I, m_s) of the shared ones as one kernel
(I, D m_k + m_s); biases (D, m_k) and (m_s,) alike."""

STACK = Rule(
    lambda *experts: np.stack(experts, axis=1),
    lambda dS, _, *experts: tuple(np.moveaxis(dS, 1, 0)),
)
"""S: outputs (B, q) of experts as (B, n, q)."""


def softmax_of(alpha: Any, counts: Any) -> Any:
    """Softmax over those entries of each row that count; the weight of the others is zero."""
    top = np.where(counts, alpha.real, -np.inf).max(axis=1, keepdims=True)
    weights = np.exp(np.where(counts, alpha - top, 0.0)) * counts
    return weights / weights.sum(axis=1, keepdims=True)


def _softmax_backward(dw: Any, w: Any, alpha: Any, *scenario: Any) -> tuple[Any, ...]:
    d_alpha = w * (dw - (w * dw).sum(axis=1, keepdims=True))
    return d_alpha, *(None for _ in scenario)


SOFTMAX = Rule(lambda alpha: softmax_of(alpha, np.ones(alpha.shape, dtype=bool)), _softmax_backward)
"""w = softmax(alpha), row by row (derivations 2.4)."""


def is_own(scenario: Any, n_scenarios: int, n_specific: int, n_shared: int) -> Any:
    """Say of each row and expert of the list S, (B, n), whether they share their scenario.

    The shared experts at the end are everybody's.
    """
    owner = np.repeat(np.arange(n_scenarios), n_specific)
    everybody = np.ones((len(scenario), n_shared), dtype=bool)
    return np.concatenate([owner == scenario[:, None], everybody], axis=1)


def softmax_over_own(n_scenarios: int, n_specific: int, n_shared: int) -> Rule:
    """w = softmax over the places of the row's scenario and the shared ones (derivations 5.2)."""
    counts = (n_scenarios, n_specific, n_shared)
    return Rule(
        lambda alpha, scenario: softmax_of(alpha, is_own(scenario, *counts)), _softmax_backward
    )


MIX = Rule(
    lambda w, S: np.einsum("be,beq->bq", w, S),
    lambda dG, _, w, S: (np.einsum("bq,beq->be", dG, S), w[:, :, None] * dG[:, None, :]),
)
"""G_b = sum_e w_be S_be (derivations 2.4)."""
