"""Mistakes in OptMSM: the shared set, its mixture, and all others (derivations 10.5)."""

from __future__ import annotations

from typing import Any

import numpy as np

from midpg_np.ops import relu, sigmoid, softmax, softmax_backward
from midpg_np.verify.longhand import Rule
from midpg_np.verify.longhand.optmsm_rules import SET_OF_MAPS
from midpg_np.verify.mistakes.mistake import (
    GRADIENT,
    VALUE,
    Mistake,
    adjoint,
    dropped,
    reading,
    value,
)
from midpg_np.verify.mistakes.optmsm_orthogonality import ORTHOGONALITY
from midpg_np.verify.mistakes.optmsm_tower import HYPERNETWORK, TOWER

ONLY = ("optmsm",)


def _rectified_set_backward(dG: Any, G: Any, *inputs: Any) -> tuple[Any, ...]:
    return SET_OF_MAPS.backward(dG * (G.real > 0), None, *inputs)


RECTIFIED_SET = Rule(
    lambda E, A, a: relu(SET_OF_MAPS.forward(E, A, a))[0],
    _rectified_set_backward,
)


def _one_map_backward(dG: Any, _: Any, E: Any, A: Any, a: Any) -> tuple[Any, ...]:
    total = dG.sum(axis=1)
    dA, da = np.zeros_like(A), np.zeros_like(a)
    dA[0], da[0] = E.T @ total, total.sum(axis=0)
    return total @ A[0].T, dA, da


ONE_MAP = Rule(
    lambda E, A, a: np.stack([E @ A[0] + a[0]] * len(A), axis=1),
    _one_map_backward,
)


def _reshaped_kernels_backward(dG: Any, _: Any, E: Any, A: Any, a: Any) -> tuple[Any, ...]:
    d_joined = dG.reshape(len(E), -1)
    dA = (E.T @ d_joined).reshape(A.shape)
    return d_joined @ A.reshape(E.shape[1], -1).T, dA, dG.sum(axis=0)


RESHAPED_KERNELS = Rule(
    lambda E, A, a: (E @ A.reshape(E.shape[1], -1)).reshape(len(E), *a.shape) + a,
    _reshaped_kernels_backward,
)


def _if_attention(rule: Rule) -> Any:
    """Exchange the rule of w unless it is one-hot."""
    return lambda step, model: rule if model.combine == "attention" else step.rule


OVER_THE_BATCH = Rule(
    lambda alpha: softmax(alpha.T)[0].T,
    lambda dw, w, _: (softmax_backward(dw.T, w.T).T,),
)
SIGMOIDS = Rule(
    lambda alpha: sigmoid(alpha)[0],
    lambda dw, w, _: (dw * w * (1.0 - w),),
)
TWICE = Rule(
    lambda alpha: softmax(softmax(alpha)[0])[0],
    lambda dw, w, alpha: (softmax_backward(softmax_backward(dw, w), softmax(alpha)[0]),),
)


def _without_inner_product(right: Any, dw: Any, w: Any, *_: Any) -> Any:
    return None if right is None else w * dw


SET = (
    Mistake(
        name="ReLU behind the shared embeddings",
        models=ONLY,
        equation="10.1",
        wrong="g_k = ReLU(E_sh A_k + a_k)",
        right="g_k = E_sh A_k + a_k",
        shows=VALUE,
        fix="Leave g_k linear: products of rectified embeddings cannot be negative.",
        changes=(value("G", RECTIFIED_SET),),
    ),
    Mistake(
        name="one map repeated for all shared embeddings",
        models=ONLY,
        equation="10.1",
        wrong="g_k = E_sh A_0 + a_0 for every k",
        right="g_k = E_sh A_k + a_k",
        shows=VALUE,
        fix="Make D modules in a comprehension; [nn.Linear(...)] * D holds one object D times.",
        changes=(value("G", ONE_MAP),),
    ),
    Mistake(
        name="kernels of the set laid side by side by a reshape",
        models=ONLY,
        equation="10.1",
        wrong="[A_1 ... A_D] = reshape(A, (d_ag, D q))",
        right="[A_1 ... A_D] = reshape(A with its first two axes exchanged, (d_ag, D q))",
        shows=VALUE,
        fix="Permute A (D, d_ag, q) to (d_ag, D, q) before the reshape, or use einsum.",
        changes=(value("G", RESHAPED_KERNELS),),
    ),
    Mistake(
        name="attention's softmax over the batch",
        models=ONLY,
        equation="10.1",
        wrong="w_bk = exp(alpha_bk) / sum_b' exp(alpha_b'k)",
        right="w_bk = exp(alpha_bk) / sum_j exp(alpha_bj)",
        shows=VALUE,
        fix="softmax(dim=1): the weights of one row add up to 1.",
        changes=(value("w", _if_attention(OVER_THE_BATCH)),),
    ),
    Mistake(
        name="attention through sigmoids",
        models=ONLY,
        equation="10.1",
        wrong="w = sigmoid(alpha)",
        right="w = softmax(alpha)",
        shows=VALUE,
        fix="Use a softmax over the D embeddings of a row.",
        changes=(value("w", _if_attention(SIGMOIDS)),),
    ),
    Mistake(
        name="attention's softmax applied twice",
        models=ONLY,
        equation="10.1",
        wrong="w = softmax(softmax(alpha))",
        right="w = softmax(alpha)",
        shows=VALUE,
        fix="Apply it once; a second one makes the weights nearly equal.",
        changes=(value("w", _if_attention(TWICE)),),
    ),
    Mistake(
        name="attention's softmax without the inner product in its adjoint",
        models=ONLY,
        equation="2.4",
        wrong="d_alpha = w * dw",
        right="d_alpha = w * (dw - <w, dw>)",
        shows=GRADIENT,
        fix="Subtract the inner product of each row; d_alpha then adds up to 0.",
        changes=(adjoint("w", _without_inner_product),),
    ),
    Mistake(
        name="attention's input detached",
        models=ONLY,
        equation="10.3",
        wrong="alpha = sg(c) W_alpha + b_alpha",
        right="dc += d_alpha W_alpha^T",
        shows=GRADIENT,
        fix="c has two readers, the tower and the attention: add what both send.",
        changes=(dropped("alpha", 0),),
    ),
    Mistake(
        name="attention's weights detached in the mixture",
        models=ONLY,
        equation="10.3",
        wrong="m_b = sum_k sg(w_bk) g_bk",
        right="dw_bk = <dm_b, g_bk>",
        shows=GRADIENT,
        fix="Weights learn through the mixture: no detach, no argmax in place of them.",
        changes=(dropped("m", 0),),
    ),
    Mistake(
        name="input of the tower joined the other way",
        models=ONLY,
        equation="10.1",
        wrong="rho = [m, c]",
        right="rho = [c, m]",
        shows=VALUE,
        fix="The specific part c comes first; theta is laid out for that order.",
        changes=(reading("rho", lambda step, _: step.inputs[::-1]),),
    ),
)

OPTMSM_MISTAKES = (*SET, *ORTHOGONALITY, *HYPERNETWORK, *TOWER)
