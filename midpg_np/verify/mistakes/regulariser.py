"""Mistakes in the mutual-information regulariser (derivations 3.9)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from midpg_np.ops import sigmoid, softplus
from midpg_np.verify.longhand import Rule, Step
from midpg_np.verify.longhand.rules import (
    FLATTEN,
    JENSEN_SHANNON,
    STOP,
    activation,
    weighted_sum,
)
from midpg_np.verify.mistakes.mistake import (
    GRADIENT,
    VALUE,
    Change,
    Mistake,
    adjoint,
    dropped,
    dropped_all,
    only_where,
    reading,
    reversed_all,
    value,
)

MIDPG = ("midpg",)


def _is_mlp(step: Step, model: Any) -> bool:
    return bool(model.disc == "mlp")


def _is_bilinear(step: Step, model: Any) -> bool:
    return bool(model.disc == "bilinear")


def _passing_stop(step: Step, _: Any) -> Step:
    """Let the gradient pass where it should stop."""
    return replace(step, rule=replace(STOP, backward=lambda dy, _, x: (dy,)))


# Where contexts of matching pairs, and parameters on shuffled pairs, would get their adjoints.
POSITIVES_SILENT = (
    dropped("mi.*.pos.pair", 0),
    only_where(_is_bilinear, dropped("mi.*.pos.output", 0)),
)
NEGATIVES_SILENT = (
    *(dropped("mi.*.neg.A_*", of) for of in (1, 2)),
    *(only_where(_is_mlp, dropped("mi.*.neg.output", of)) for of in (1, 2)),
    *(only_where(_is_bilinear, dropped("mi.*.neg.output", of)) for of in (2, 3)),
)

# --- pairs ----------------------------------------------------------------------------------------


def _own_row(right: Any, dy: Any, *_: Any) -> Any:
    return dy + 0.0


def _gathered(right: Any, dy: Any, _: Any, e: Any, partner: Any) -> Any:
    return dy[partner]


INVERSE = Rule(
    lambda e, partner: e[np.argsort(partner)],
    lambda dy, _, e, partner: (dy[partner], None),
)
FEATURES = Rule(
    lambda e, partner: np.roll(e, 1, axis=1),
    lambda dy, _, e, partner: (np.roll(dy, -1, axis=1), None),
)


def _both_sides_shuffled(step: Step, _: Any) -> Step:
    """[e_neg, q[partner]]: a matching pair again, of another row."""

    def forward(e: Any, q: Any, partner: Any) -> Any:
        return np.concatenate([e, q[partner]], axis=1)

    def backward(dy: Any, _: Any, e: Any, q: Any, partner: Any) -> tuple[Any, ...]:
        de, d_shuffled = np.split(dy, [e.shape[1]], axis=1)
        dq = np.zeros_like(q)
        np.add.at(dq, partner, d_shuffled)
        return de, dq, None

    return replace(step, inputs=(*step.inputs, "partner"), rule=Rule(forward, backward))


PAIRS = (
    Mistake(
        name="negatives gathered in place of scattered",
        models=MIDPG,
        equation="3.4",
        wrong="dE_aw[b] += de_neg[pi(b)]",
        right="dE_aw[pi(b)] += de_neg[b]",
        shows=GRADIENT,
        fix="Add row b to row pi(b) (index_add_); right by chance if pi is its own inverse.",
        changes=(adjoint("mi.E_neg", _gathered),),
    ),
    Mistake(
        name="negatives' gradient at their own row",
        models=MIDPG,
        equation="3.4",
        wrong="dE_aw[b] += de_neg[b]",
        right="dE_aw[pi(b)] += de_neg[b]",
        shows=GRADIENT,
        fix="The context of a negative pair came from row pi(b), so its adjoint goes there.",
        changes=(adjoint("mi.E_neg", _own_row),),
    ),
    Mistake(
        name="negatives detached",
        models=MIDPG,
        equation="3.4",
        wrong="dE_aw without de_neg",
        right="dE_aw[pi(b)] += de_neg[b]",
        shows=GRADIENT,
        fix="Index the live E_aw; do not shuffle a detached copy or shuffle in place.",
        changes=(dropped("mi.E_neg"),),
    ),
    Mistake(
        name="shuffled by the inverse permutation",
        models=MIDPG,
        equation="3.3",
        wrong="e_neg[pi(b)] = E_aw[b]",
        right="e_neg[b] = E_aw[pi(b)]",
        shows=VALUE,
        fix="Gather with pi; a scatter with pi is the inverse. Equal only for pi = pi^-1.",
        changes=(value("mi.E_neg", INVERSE),),
    ),
    Mistake(
        name="features shuffled in place of rows",
        models=MIDPG,
        equation="3.3",
        wrong="e_neg = E_aw with its columns permuted",
        right="e_neg = E_aw with its rows permuted",
        shows=VALUE,
        fix="Permute the batch axis: E_aw[pi], not E_aw[:, pi].",
        changes=(value("mi.E_neg", FEATURES),),
    ),
    Mistake(
        name="both sides of a negative pair shuffled",
        models=MIDPG,
        equation="3.3",
        wrong="t_neg = T(e_pi(b), q_pi(b))",
        right="t_neg = T(e_pi(b), q_b)",
        shows=VALUE,
        fix="Shuffle the context only; shuffling both makes matching pairs again.",
        changes=(Change("mi.*.neg.pair", _both_sides_shuffled),),
        applies=lambda model: model.disc == "mlp",
    ),
    Mistake(
        name="positive pairs' context detached",
        models=MIDPG,
        equation="3.4",
        wrong="dE_aw without de_pos",
        right="dE_aw[b] += de_pos[b]",
        shows=GRADIENT,
        fix="The regulariser trains the tables through both kinds of pairs.",
        changes=POSITIVES_SILENT,
    ),
    Mistake(
        name="context detached in the regulariser",
        models=MIDPG,
        equation="3.8",
        wrong="pairs of sg(E_aw)",
        right="pairs of E_aw",
        shows=GRADIENT,
        fix="Do not detach E_aw in front of the discriminator, unless mi_detach_context is meant.",
        changes=(*POSITIVES_SILENT, dropped("mi.E_neg")),
    ),
    Mistake(
        name="detach of the context missing in the regulariser",
        models=MIDPG,
        equation="3.8",
        wrong="pairs of E_aw",
        right="pairs of sg(E_aw)",
        shows=GRADIENT,
        fix="With mi_detach_context the discriminator reads E_aw.detach().",
        changes=(Change("mi.sg_E_aw", _passing_stop, (0,)),),
        options={"mi_detach_context": True},
    ),
)

# --- what the discriminator reads -----------------------------------------------------------------


def _before_sigmoid(step: Step, _: Any) -> tuple[str, ...]:
    return (step.inputs[0].removesuffix(".Q") + ".P",)


SIGNAL = (
    Mistake(
        name="core detached in the regulariser",
        models=MIDPG,
        equation="3.4",
        wrong="dQ = dQ^main",
        right="dQ = dQ^main + dq_pos + dq_neg",
        shows=GRADIENT,
        fix="Do not detach S: then only the discriminator learns and lambda does nothing.",
        changes=(dropped_all("mi.*.signal"),),
    ),
    Mistake(
        name="generator plays against the discriminator",
        models=MIDPG,
        equation="3.4",
        wrong="dQ = dQ^main - dq",
        right="dQ = dQ^main + dq",
        shows=GRADIENT,
        fix="Both minimise the same loss: no reversal of the gradient, no alternating steps.",
        changes=(reversed_all("mi.*.signal"),),
    ),
    Mistake(
        name="regulariser's share overwrites the core's gradient",
        models=MIDPG,
        equation="3.4",
        wrong="dQ = dq_pos + dq_neg",
        right="dQ = dQ^main + dq_pos + dq_neg",
        shows=GRADIENT,
        fix="Q has two readers: add their adjoints.",
        changes=(dropped("[!m]*.S"),),
    ),
    Mistake(
        name="discriminator reads the core before its sigmoid",
        models=MIDPG,
        equation="3.3",
        wrong="q = vec(P)",
        right="q = vec(Q), Q = gain sigmoid(P)",
        shows=VALUE,
        fix="Hand the weights that are used, after the sigmoid, to the discriminator.",
        changes=(reading("mi.*.signal", _before_sigmoid, FLATTEN),),
        applies=lambda model: model.disc_input == "core" and model.sigmoid_on == "product",
    ),
    Mistake(
        name="detach of the core missing in the regulariser",
        models=MIDPG,
        equation="3.8",
        wrong="q = vec(Q)",
        right="q = sg(vec(Q))",
        shows=GRADIENT,
        fix='With mi_grad_to="disc" the discriminator reads Q.detach().',
        changes=(Change("mi.*.sg_signal", _passing_stop, (0,)),),
        options={"mi_grad_to": "disc"},
    ),
)

# --- discriminator and loss -----------------------------------------------------------------------


def _js_scaled(factor: Any) -> Rule:
    """Return the loss of equation (7) times ``factor(B)``."""

    def backward(dy: Any, y: Any, t_pos: Any, t_neg: Any) -> tuple[Any, ...]:
        return JENSEN_SHANNON.backward(dy * factor(len(t_pos)), y, t_pos, t_neg)

    return Rule(lambda p, n: JENSEN_SHANNON.forward(p, n) * factor(len(p)), backward)


LABELS_EXCHANGED = Rule(
    lambda t_pos, t_neg: np.asarray((softplus(t_pos)[0] + softplus(-t_neg)[0]).mean()),
    lambda dy, _, t_pos, t_neg: (
        dy * sigmoid(t_pos)[0] / len(t_pos),
        -dy * sigmoid(-t_neg)[0] / len(t_neg),
    ),
)
MATCHING_ONLY = Rule(
    lambda t_pos, t_neg: np.asarray(softplus(-t_pos)[0].mean()),
    lambda dy, _, t_pos, t_neg: (-dy * sigmoid(-t_pos)[0] / len(t_pos), 0.0 * t_neg),
)


def _layer_weights(weights: Any) -> Any:
    """Return a rule maker: "mi" with weights of the discriminators from their number."""
    return lambda step, model: weighted_sum(weights(len(step.inputs)))


LOSS = (
    Mistake(
        name="regulariser averaged over 2B",
        models=MIDPG,
        equation="3.3",
        wrong="L_mi = 1/(2B) sum [sp(-t_pos) + sp(t_neg)]",
        right="L_mi = 1/B sum [sp(-t_pos) + sp(t_neg)]",
        shows=VALUE,
        fix="A mean over stacked pairs halves lambda; at t = 0 the value must be 2 ln 2.",
        changes=(value("mi.*.loss", _js_scaled(lambda n: 0.5)),),
    ),
    Mistake(
        name="regulariser summed over the batch",
        models=MIDPG,
        equation="3.3",
        wrong="L_mi = sum [sp(-t_pos) + sp(t_neg)]",
        right="L_mi = 1/B sum [sp(-t_pos) + sp(t_neg)]",
        shows=VALUE,
        fix="Use the mean over the B pairs of each kind.",
        changes=(value("mi.*.loss", _js_scaled(lambda n: n)),),
    ),
    Mistake(
        name="labels of the pairs exchanged",
        models=MIDPG,
        equation="3.3",
        wrong="L_mi = 1/B sum [sp(t_pos) + sp(-t_neg)]",
        right="L_mi = 1/B sum [sp(-t_pos) + sp(t_neg)]",
        shows=VALUE,
        fix="Matching pairs have label 1.",
        changes=(value("mi.*.loss", LABELS_EXCHANGED),),
    ),
    Mistake(
        name="negative pairs missing from the loss",
        models=MIDPG,
        equation="3.3",
        wrong="L_mi = 1/B sum sp(-t_pos)",
        right="L_mi = 1/B sum [sp(-t_pos) + sp(t_neg)]",
        shows=VALUE,
        fix="Add sp(t_neg): without it a constant large t minimises the loss.",
        changes=(value("mi.*.loss", MATCHING_ONLY),),
    ),
    Mistake(
        name="regulariser summed over the layers",
        models=MIDPG,
        equation="3.3",
        wrong="L_mi = sum_l L_mi^l",
        right="L_mi = 1/L sum_l L_mi^l",
        shows=VALUE,
        fix="Take the mean over the modulated layers, so that lambda keeps its meaning.",
        changes=(value("mi", _layer_weights(lambda n: [1.0] * n)),),
    ),
    Mistake(
        name="regulariser of the first layer only",
        models=MIDPG,
        equation="3.3",
        wrong="L_mi = L_mi^1",
        right="L_mi = 1/L sum_l L_mi^l",
        shows=VALUE,
        fix="Every modulated layer has a discriminator; do not overwrite the sum in the loop.",
        changes=(value("mi", _layer_weights(lambda n: [1.0] + [0.0] * (n - 1))),),
    ),
    Mistake(
        name="regulariser subtracted from the loss",
        models=MIDPG,
        equation="3.3",
        wrong="L = L_ce - lambda L_mi",
        right="L = L_ce + lambda L_mi",
        shows=VALUE,
        fix="-L_mi is the bound on mutual information: minimise L_mi.",
        changes=(value("loss", lambda step, model: weighted_sum([1.0, -model.mi_weight])),),
    ),
    Mistake(
        name="lambda forgotten",
        models=MIDPG,
        equation="3.3",
        wrong="L = L_ce + L_mi",
        right="L = L_ce + lambda L_mi",
        shows=VALUE,
        fix="Multiply the regulariser by its weight.",
        changes=(value("loss", weighted_sum([1.0, 1.0])),),
        options={"mi_weight": 0.5},
    ),
    Mistake(
        name="discriminator without its hidden ReLU",
        models=MIDPG,
        equation="3.3",
        wrong="T = (p W_1 + b_1) W_2 + b_2",
        right="T = ReLU(p W_1 + b_1) W_2 + b_2",
        shows=VALUE,
        fix="Put a ReLU between the discriminator's layers.",
        changes=tuple(value(f"mi.*.{kind}.H_*", activation("identity")) for kind in ("pos", "neg")),
    ),
    Mistake(
        name="discriminator learns from matching pairs only",
        models=MIDPG,
        equation="3.4",
        wrong="dT from t_pos",
        right="dT from t_pos and from t_neg, added",
        shows=GRADIENT,
        fix="One set of weights scores both kinds of pairs: add both gradients.",
        changes=NEGATIVES_SILENT,
    ),
)

REGULARISER = (*PAIRS, *SIGNAL, *LOSS)
