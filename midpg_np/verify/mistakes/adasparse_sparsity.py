"""Mistakes in AdaSparse's regulariser (derivations 8.5)."""

from __future__ import annotations

from typing import Any

import numpy as np

from midpg_np.verify.longhand import Rule, Step
from midpg_np.verify.longhand.rules import weighted_sum
from midpg_np.verify.mistakes.mistake import GRADIENT, VALUE, Mistake, adjoint, dropped, value

ADASPARSE = ("adasparse",)
OUTSIDE = {"r_min": 1.1, "r_max": 1.3}  # no share of pruned neurons is in this interval
INSIDE = {"r_min": -1.0, "r_max": 1.0}  # none is out of this one

LINEAR = Rule(
    lambda gap, outside, lambda_hat: lambda_hat * outside + 0.0 * gap,
    lambda dy, _, gap, outside, lambda_hat: (None, None, None),
)
EVERYWHERE = Rule(
    lambda gap, outside, lambda_hat: lambda_hat * gap,
    lambda dy, _, gap, outside, lambda_hat: (dy * lambda_hat, None, None),
)


def _kept_share(step: Step, _: Any) -> Rule:
    """r = mean(pi)."""
    right = step.rule
    return Rule(
        lambda pi: 1.0 - right.forward(pi),
        lambda dr, r, pi: right.backward(-dr, r, pi),
    )


def _summed_norm(step: Step, _: Any) -> Rule:
    """r = 1 - norm / B: the factors of a row are summed."""
    right = step.rule
    return Rule(
        lambda pi: 1.0 - pi.shape[1] * (1.0 - right.forward(pi)),
        lambda dr, r, pi: right.backward(pi.shape[1] * dr, r, pi),
    )


def _other_ratio(step: Step, model: Any) -> Rule:
    """Per row for the batch, and over the batch for each row."""

    def forward(pi: Any) -> Any:
        mean = pi.mean(axis=1)
        return 1.0 - (mean if model.ratio == "batch" else np.full_like(mean, mean.mean()))

    def backward(dr: Any, _: Any, pi: Any) -> tuple[Any, ...]:
        dr = dr if model.ratio == "batch" else np.full_like(dr, dr.mean())
        return (np.broadcast_to(-dr[:, None] / pi.shape[1], pi.shape),)

    return Rule(forward, backward)


def _sum_of_layers(step: Step, _: Any) -> Rule:
    return weighted_sum([1.0] * len(step.inputs))


def _without_regulariser(step: Step, _: Any) -> Rule:
    return weighted_sum([1.0] + [0.0] * (len(step.inputs) - 1))


def _subtracted(step: Step, model: Any) -> Rule:
    return weighted_sum([1.0, *(-w for w in model.auxiliary_weights.values())])


SPARSITY = (
    Mistake(
        name="r is the share that is kept",
        models=ADASPARSE,
        equation="8.1",
        wrong="r^l = 1/(B n) sum |pi^l|",
        right="r^l = 1 - 1/(B n) sum |pi^l|",
        shows=VALUE,
        fix="The interval is for the share that is pruned: one minus the mean factor.",
        changes=(value("*.r", _kept_share),),
    ),
    Mistake(
        name="norm of the factors not divided by the neurons",
        models=ADASPARSE,
        equation="8.1",
        wrong="r^l = 1 - 1/B sum |pi^l|",
        right="r^l = 1 - 1/(B n) sum |pi^l|",
        shows=VALUE,
        fix="Take the mean over rows and neurons; pi.norm(p=1, dim=1) is a sum over neurons.",
        changes=(value("*.r", _summed_norm),),
    ),
    Mistake(
        name="share pruned per row in place of per batch",
        models=ADASPARSE,
        equation="8.1",
        wrong='r^l_b = 1 - 1/n sum |pi^l_b|, or one r^l with ratio="per_sample"',
        right="r^l = 1 - 1/(B n) sum |pi^l|",
        shows=VALUE,
        fix="Take the mean over the batch before the distance, not after the penalty.",
        changes=(value("*.r", _other_ratio),),
    ),
    Mistake(
        name="penalty linear in the distance",
        models=ADASPARSE,
        equation="8.1",
        wrong="lambda^l = lambda_hat 1[r^l outside]",
        right="lambda^l = lambda_hat |r^l - r| 1[r^l outside]",
        shows=VALUE,
        fix="The weight grows with the distance as well; the penalty is quadratic.",
        changes=(value("*.lambda", LINEAR),),
        options=OUTSIDE,
    ),
    Mistake(
        name="penalty inside the interval too",
        models=ADASPARSE,
        equation="8.1",
        wrong="lambda^l = lambda_hat |r^l - r|",
        right="lambda^l = lambda_hat |r^l - r| 1[r^l outside]",
        shows=VALUE,
        fix="Set the weight to 0 for r_min <= r^l <= r_max.",
        changes=(value("*.lambda", EVERYWHERE),),
        options=INSIDE,
    ),
    Mistake(
        name="sparsity summed over the layers",
        models=ADASPARSE,
        equation="8.1",
        wrong="R_s = sum_l lambda^l |r^l - r|",
        right="R_s = 1/L_pi sum_l lambda^l |r^l - r|",
        shows=VALUE,
        fix="Take the mean over the layers that have a pruner.",
        changes=(value("sparsity", _sum_of_layers),),
        options=OUTSIDE,
    ),
    Mistake(
        name="sparsity left out of the loss",
        models=ADASPARSE,
        equation="8.1",
        wrong="L = L_ce",
        right="L = L_ce + R_s",
        shows=VALUE,
        fix="Add it to the loss; to collect it is not enough (Keras: sum(model.losses)).",
        changes=(value("loss", _without_regulariser),),
        options=OUTSIDE,
    ),
    Mistake(
        name="sparsity subtracted from the loss",
        models=ADASPARSE,
        equation="8.1",
        wrong="L = L_ce - R_s",
        right="L = L_ce + R_s",
        shows=VALUE,
        fix="R_s is a penalty: add it.",
        changes=(value("loss", _subtracted),),
        options=OUTSIDE,
    ),
    Mistake(
        name="weight of the penalty held constant",
        models=ADASPARSE,
        equation="8.3",
        wrong="d_pi^reg with sg(lambda^l): half the gradient",
        right="d_pi^reg = -2 kappa lambda_hat (r^l - r) / (B n)",
        shows=GRADIENT,
        fix="No no_grad or .item() around the weight, unless lambda_detach is meant.",
        changes=(dropped("*.penalty", 0),),
        options=OUTSIDE,
    ),
    Mistake(
        name="detach of the penalty's weight missing",
        models=ADASPARSE,
        equation="8.3",
        wrong="d_pi^reg = -2 kappa lambda_hat (r^l - r) / (B n)",
        right="d_pi^reg with sg(lambda^l): half of that",
        shows=GRADIENT,
        fix="With lambda_detach the weight is (lambda_hat |r - middle|).detach().",
        changes=(adjoint("*.sg_lambda", lambda right, dy, *_: dy),),
        options=OUTSIDE | {"lambda_detach": True},
    ),
    Mistake(
        name="regulariser does not reach pruned factors",
        models=ADASPARSE,
        equation="8.3",
        wrong="d_pi^reg sign(pi): 0 where pi = 0",
        right="d_pi^reg, the same for every factor",
        shows=GRADIENT,
        fix="Sum the factors, which are not negative; abs has derivative 0 at 0.",
        changes=(adjoint("*.r", lambda right, dr, r, pi: right * (pi != 0.0)),),
        options=OUTSIDE | {"prune": "binarization", "epsilon": 0.5},
    ),
)
