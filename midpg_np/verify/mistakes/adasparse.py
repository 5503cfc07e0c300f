"""Mistakes in AdaSparse: temperature, threshold, factors (derivations 8.5).

Those in its regulariser are in the file beside this one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from midpg_np.ops import sigmoid
from midpg_np.verify.longhand import Rule, Step
from midpg_np.verify.longhand.adasparse_rules import above, schedule
from midpg_np.verify.longhand.rules import columns
from midpg_np.verify.mistakes.adasparse_sparsity import ADASPARSE, SPARSITY
from midpg_np.verify.mistakes.mistake import (
    GRADIENT,
    SERVING,
    STATE,
    VALUE,
    Change,
    Mistake,
    adjoint,
    dropped,
    only_where,
    reading,
    value,
)

BINARIZED = {"prune": "binarization", "epsilon": 0.5}
FUSED = {"epsilon": 1.0}  # a threshold that some soft values pass and others do not

# --- temperature ----------------------------------------------------------------------------------

NO_TEMPERATURE = Rule(lambda v_in, alpha: v_in + 0.0, lambda dy, _, v_in, alpha: (dy, None))
DIVIDED = Rule(lambda v_in, alpha: v_in / alpha, lambda dy, _, v_in, alpha: (dy / alpha, None))
STANDS_STILL = Rule(lambda step: step + 0.0, lambda dy, _, step: (None,))


def _one_step_ahead(step: Step, _: Any) -> Rule:
    right = step.rule
    return Rule(lambda t: right.forward(t + 1.0), lambda dy, _, t: (None,))


def _at_start(_: Step, model: Any) -> Rule:
    return schedule(model.alpha_start, model.alpha_start, 1)


def _once_per_pruner(_: Step, model: Any) -> Rule:
    n_pruners = len(model.layers)
    return Rule(lambda step: step + n_pruners, lambda dy, _, step: (None,))


def _without_gain(right: Any, dv: Any, v: Any, x: Any) -> Any:
    y = sigmoid(x)[0]
    return dv * y * (1.0 - y)


TEMPERATURE = (
    Mistake(
        name="pruner without its temperature",
        models=ADASPARSE,
        equation="8.1",
        wrong="v = beta sigmoid(v_in)",
        right="v = beta sigmoid(alpha v_in)",
        shows=VALUE,
        fix='Multiply v_in by alpha; only "scaling" has none.',
        changes=(value("*.alpha_v_in", NO_TEMPERATURE),),
    ),
    Mistake(
        name="divided by the temperature",
        models=ADASPARSE,
        equation="8.1",
        wrong="v = beta sigmoid(v_in / alpha)",
        right="v = beta sigmoid(alpha v_in)",
        shows=VALUE,
        fix="Multiply: alpha rises and sharpens, unlike the temperature of a softmax.",
        changes=(value("*.alpha_v_in", DIVIDED),),
    ),
    Mistake(
        name="schedule one step ahead",
        models=ADASPARSE,
        equation="8.1",
        wrong="alpha at t + 1: the count is raised before the step",
        right="alpha at t, the number of steps that are done",
        shows=VALUE,
        fix="Raise the count after the optimiser's step, at the end.",
        changes=tuple(
            value(at, _one_step_ahead, in_serving=False) for at in ("alpha", "lambda_hat")
        ),
    ),
    Mistake(
        name="prediction starts the schedule again",
        models=ADASPARSE,
        equation="8.1",
        wrong="alpha = alpha_start in prediction: the count was not saved",
        right="alpha at the saved count t",
        shows=SERVING,
        fix="Keep the count with the weights (register_buffer, a non-trainable tf.Variable).",
        changes=(value("alpha", _at_start, in_training=False),),
    ),
    Mistake(
        name="schedule never advances",
        models=ADASPARSE,
        equation="8.1",
        wrong="t' = t",
        right="t' = t + 1",
        shows=STATE,
        fix="Raise the count after each step of training, in place (step += 1 on the buffer).",
        changes=(value("next.schedule.step", STANDS_STILL),),
    ),
    Mistake(
        name="schedule advances once per pruner",
        models=ADASPARSE,
        equation="8.1",
        wrong="t' = t + L_pi",
        right="t' = t + 1",
        shows=STATE,
        fix="Count in one place, after the step; not in the forward pass that each pruner has.",
        changes=(value("next.schedule.step", _once_per_pruner),),
    ),
    Mistake(
        name="temperature left out of the adjoint",
        models=ADASPARSE,
        equation="8.3",
        wrong="dv_in = dv v (1 - v / rho)",
        right="dv_in = dv alpha v (1 - v / rho)",
        shows=GRADIENT,
        fix="The factor inside the sigmoid comes out by the chain rule; at alpha = 1 it is unseen.",
        changes=(adjoint("*.alpha_v_in", lambda right, dy, *_: dy),),
    ),
    Mistake(
        name="gain left out of the soft value's adjoint",
        models=ADASPARSE,
        equation="8.3",
        wrong="dv_in = dv alpha sigmoid (1 - sigmoid)",
        right="dv_in = dv alpha beta sigmoid (1 - sigmoid)",
        shows=GRADIENT,
        fix="The factor outside the sigmoid multiplies its derivative too.",
        changes=(adjoint("*.v", _without_gain),),
    ),
    Mistake(
        name="soft value's adjoint takes the gain for 1",
        models=ADASPARSE,
        equation="8.3",
        wrong="dv_in = dv alpha v (1 - v)",
        right="dv_in = dv alpha v (1 - v / beta)",
        shows=GRADIENT,
        fix="The sigmoid is v / beta.",
        changes=(adjoint("*.v", lambda right, dv, v, x: dv * v * (1.0 - v)),),
    ),
)

# --- threshold ------------------------------------------------------------------------------------


def _before_gain(step: Step, model: Any) -> Rule:
    name = step.output.removesuffix(".kept")
    return above(model.epsilon * model.layers[name].pruner.gain)


def _reads_mask(step: Step, _: Any) -> bool:
    return step.inputs[-1].endswith(".kept")


def _signed(step: Step, _: Any) -> Rule:
    """Minus what is removed, in place of 0."""
    right = step.rule

    def backward(dy: Any, y: Any, v: Any, kept: Any) -> tuple[Any, ...]:
        plus = right.backward(dy, y, v, kept)[0]
        minus = right.backward(dy, y, v, 1 - kept)[0]
        return plus if plus is None else plus - minus, None

    return Rule(lambda v, kept: right.forward(v, kept) - right.forward(v, 1 - kept), backward)


SOFT = Rule(lambda v, kept: v + 0.0, lambda dy, _, v, kept: (dy, None))


def _is_straight_through(step: Step, _: Any) -> bool:
    return step.inputs[-1].endswith(".sg_gap")


def _true_derivative(step: Step, model: Any) -> Step:
    """Send back the derivative of v 1[v > epsilon], or that of 1[v > epsilon]."""
    is_binary = model.prune == "binarization"

    def wrong(right: Any, d_pi: Any, pi: Any, *_: Any) -> Any:
        return 0.0 * d_pi if is_binary else d_pi * (pi != 0.0)

    return adjoint(step.output, wrong).make(step, model)


def _is_soft_in_training(_: Step, model: Any) -> bool:
    return model.prune == "binarization" and model.binarize_grad == "soft"


THRESHOLD = (
    Mistake(
        name="epsilon compared before the gain",
        models=ADASPARSE,
        equation="8.1",
        wrong="1[v / beta > epsilon]",
        right="1[v > epsilon]",
        shows=VALUE,
        fix="Compare epsilon with v, the gain in it.",
        changes=(value("*.kept", _before_gain),),
        options=FUSED,
    ),
    Mistake(
        name="threshold gives a negative factor",
        models=ADASPARSE,
        equation="8.1",
        wrong="pi = v sign(v - epsilon), or sign(v - epsilon)",
        right="pi = v 1[v > epsilon], or 1[v > epsilon]",
        shows=VALUE,
        fix="The printed sign is a unit step: (v > epsilon).float(), not torch.sign(v - epsilon).",
        changes=(
            only_where(_reads_mask, value("*.pi", _signed)),
            value("*.hard", _signed),
        ),
        options=FUSED,
    ),
    Mistake(
        name="soft factors in prediction",
        models=ADASPARSE,
        equation="8.3",
        wrong="pi = v in prediction",
        right="pi = 1[v > epsilon] in prediction",
        shows=SERVING,
        fix="Ask for self.training: the soft values belong to training only.",
        changes=(only_where(_is_soft_in_training, value("*.pi", SOFT, in_training=False)),),
        options=BINARIZED | {"binarize_grad": "soft"},
    ),
    Mistake(
        name="true derivative of the threshold where straight-through is meant",
        models=ADASPARSE,
        equation="8.3",
        wrong="dv = 0, or d_pi 1[v > epsilon]",
        right="dv = d_pi",
        shows=GRADIENT,
        fix="Write pi = v + (hard - v).detach(); a comparison alone has no gradient.",
        changes=(only_where(_is_straight_through, Change("*.pi", _true_derivative, (0,))),),
        options=BINARIZED,
    ),
    Mistake(
        name="straight-through where the true derivative is meant",
        models=ADASPARSE,
        equation="8.3",
        wrong="dv = d_pi",
        right="dv = d_pi 1[v > epsilon]",
        shows=GRADIENT,
        fix='Multiply with the mask, pi = v * mask; fusion_grad="ste" asks for the other.',
        changes=(only_where(_reads_mask, adjoint("*.pi", lambda right, d_pi, *_: d_pi)),),
        options=FUSED,
    ),
)

# --- factors --------------------------------------------------------------------------------------


def _is_product(step: Step, _: Any) -> bool:
    return step.inputs[-1].endswith(".pi")


def _kernel_from_unpruned(step: Step, model: Any) -> Step:
    """dW = H^T dA, with what the layer was given before the factors."""
    name = step.output.removesuffix(".A")
    if name not in model.layers:
        return step
    place = list(model.shapes).index(name)
    H = f"H_{place + 1}" if place else "X"
    right = step.rule

    def backward(dA: Any, A: Any, kept: Any, W: Any, b: Any, H: Any) -> tuple[Any, ...]:
        d_kept, _, db = right.backward(dA, A, kept, W, b)
        return d_kept, H.T @ dA, db, None

    rule = Rule(lambda kept, W, b, H: right.forward(kept, W, b), backward)
    return replace(step, inputs=(*step.inputs, H), rule=rule)


def _first_columns(_: Step, model: Any) -> Rule:
    return columns(0, model.layers["layer_1"].pruner.dim_out)


def _later_columns(_: Step, model: Any) -> Rule:
    pruner, dim_in = model.layers["layer_1"].pruner, model.shapes["layer_1"][0]
    return columns(pruner.dim_out, dim_in)


def _other_order(step: Step, _: Any) -> tuple[str, ...]:
    return step.inputs[::-1]


FACTORS = (
    Mistake(
        name="input not pruned",
        models=ADASPARSE,
        equation="8.1",
        wrong="~H^1 = X",
        right="~H^1 = X pi^1",
        shows=VALUE,
        fix="h^l is the input of layer l, so the embeddings have factors as hidden vectors do.",
        changes=(
            only_where(
                _is_product,
                value(
                    "layer_1.H_pruned",
                    Rule(lambda H, pi: H + 0.0, lambda dy, _, H, pi: (dy, None)),
                ),
            ),
        ),
    ),
    Mistake(
        name="aware fields pruned in place of the agnostic ones",
        models=ADASPARSE,
        equation="8.1",
        wrong="~H^1 = [first d_ag columns of X times pi^1, the others]",
        right="~H^1 = [E_aw, E_ag pi^1]",
        shows=VALUE,
        fix="The scenario-aware fields come first: leave X[:, :d_aw] alone.",
        changes=(
            value("layer_1.H_plain", _later_columns),
            value("layer_1.H_last", _first_columns),
            only_where(
                lambda step, model: not _is_product(step, model),
                reading("layer_1.H_pruned", _other_order),
            ),
        ),
        options={"prune_input": "agnostic_only"},
    ),
    Mistake(
        name="hidden vector in front of the context",
        models=ADASPARSE,
        equation="8.1",
        wrong="U^l = [H^l, E_aw]",
        right="U^l = [E_aw, H^l]",
        shows=VALUE,
        fix="Concatenate E_aw first, or permute the rows of Q when weights are copied.",
        changes=(reading("*.U", _other_order),),
    ),
    Mistake(
        name="hidden vector detached in the pruner's input",
        models=ADASPARSE,
        equation="8.3",
        wrong="dH = d~H pi",
        right="dH = d~H pi + dU^h",
        shows=GRADIENT,
        fix="Do not detach H in front of the pruner: it has two readers.",
        changes=(dropped("*.U", 1),),
    ),
    Mistake(
        name="context detached in the pruner's input",
        models=ADASPARSE,
        equation="8.3",
        wrong="dE_aw without dU^e",
        right="dE_aw = sum_l dU^e",
        shows=GRADIENT,
        fix="Do not detach E_aw in front of the pruners: its tables learn through them.",
        changes=(dropped("*.U", 0),),
    ),
    Mistake(
        name="product's share of the hidden vector forgotten",
        models=ADASPARSE,
        equation="8.3",
        wrong="dH = dU^h",
        right="dH = d~H pi + dU^h",
        shows=GRADIENT,
        fix="H has two readers, the product and the pruner: add, do not overwrite.",
        changes=(only_where(_is_product, dropped("*_pruned", 0)),),
    ),
    Mistake(
        name="factors detached in the product",
        models=ADASPARSE,
        equation="8.3",
        wrong="d_pi = d_pi^reg",
        right="d_pi = d~H H + d_pi^reg",
        shows=GRADIENT,
        fix="Keep the factors attached: behind detach only the regulariser teaches the pruners.",
        changes=(only_where(_is_product, dropped("*_pruned", 1)),),
    ),
    Mistake(
        name="kernel's adjoint from the input before pruning",
        models=ADASPARSE,
        equation="8.3",
        wrong="dW = H^T dA",
        right="dW = ~H^T dA",
        shows=GRADIENT,
        fix="A kernel's adjoint is formed with what the layer has read, after the factors.",
        changes=(Change("*.A", _kernel_from_unpruned, (1,)),),
    ),
)

ADASPARSE_MISTAKES = (*TEMPERATURE, *THRESHOLD, *FACTORS, *SPARSITY)
