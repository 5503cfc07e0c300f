"""Mistakes in the generated low-rank layers of APG (derivations 9.5)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from midpg_np.ops import relu, sigmoid
from midpg_np.verify.longhand import Rule, Step
from midpg_np.verify.longhand.rules import MATMUL, activation, columns
from midpg_np.verify.mistakes.mistake import (
    GRADIENT,
    SERVING,
    VALUE,
    Change,
    Mistake,
    adjoint,
    dropped,
    reading,
    value,
)

ONLY = ("apg",)
FACTOR = "layer_*.[UV]"  # a step only where U and V are products


def _reshaped(x: Any) -> Any:
    """Shape of the transpose, entries in the old order."""
    return x.reshape(x.shape[::-1])


# --- core -----------------------------------------------------------------------------------------

CORE_TRANSPOSED = Rule(
    lambda S, Q: np.einsum("bij,bi->bj", S, Q),
    lambda dR, _, S, Q: (np.einsum("bi,bj->bij", Q, dR), np.einsum("bij,bj->bi", S, dR)),
)


def _core_of_all(step: Step, _: Any) -> Rule:
    """Every row gets the mean of the batch's cores."""

    def backward(dS: Any, S: Any, s: Any) -> tuple[Any, ...]:
        return (np.broadcast_to(dS.mean(axis=0), S.shape).reshape(s.shape),)

    return Rule(lambda s: _repeated(step.rule.forward(s).mean(axis=0), len(s)), backward)


def _first_core(step: Step, _: Any) -> Rule:
    """Every row gets the core of row 0."""

    def backward(dS: Any, _: Any, s: Any) -> tuple[Any, ...]:
        ds = np.zeros_like(s)
        ds[0] = dS.sum(axis=0).reshape(-1)
        return (ds,)

    return Rule(lambda s: _repeated(step.rule.forward(s)[0], len(s)), backward)


def _repeated(core: Any, n: int) -> Any:
    return np.broadcast_to(core, (n, *core.shape)) + 0.0


def _batch_axis_last(step: Step, model: Any) -> Rule:
    """Reshape the whole batch to (K, K, B)."""
    K = model.rank
    return Rule(
        lambda s: np.moveaxis(s.reshape(K, K, len(s)), 2, 0),
        lambda dS, _, s: (np.moveaxis(dS, 0, 2).reshape(s.shape),),
    )


def _identity_added(step: Step, model: Any) -> Rule:
    return Rule(lambda s: step.rule.forward(s) + np.eye(model.rank), step.rule.backward)


def _core_squashed(step: Step, _: Any) -> Rule:
    return Rule(
        lambda s: sigmoid(step.rule.forward(s))[0],
        lambda dS, S, s: ((dS * S * (1.0 - S)).reshape(s.shape),),
    )


CORE = (
    Mistake(
        name="core transposed",
        models=ONLY,
        equation="9.1",
        wrong="R_bi = sum_j S_bji Q_bj",
        right="R_bi = sum_j S_bij Q_bj",
        shows=VALUE,
        fix="Write S @ Q[:, :, None] or einsum('bij,bj->bi'); Q[:, None] @ S applies S^T.",
        changes=(value("layer_*.R", CORE_TRANSPOSED),),
    ),
    Mistake(
        name="core not transposed on the way back",
        models=ONLY,
        equation="9.3",
        wrong="dQ_b = S_b dR_b",
        right="dQ_b = S_b^T dR_b",
        shows=GRADIENT,
        fix="Transpose the last two axes of S in the adjoint; at S = I nothing shows.",
        changes=(adjoint("layer_*.R", lambda right, dR, _, S, Q: (S @ dR[:, :, None])[..., 0], 1),),
    ),
    Mistake(
        name="outer product of the core's gradient transposed",
        models=ONLY,
        equation="9.3",
        wrong="dS_b = Q_b dR_b^T",
        right="dS_b = dR_b Q_b^T",
        shows=GRADIENT,
        fix="The row index of S is that of R: einsum('bi,bj->bij', dR, Q).",
        changes=(adjoint("layer_*.R", lambda right, *_: right.swapaxes(1, 2), 0),),
    ),
    Mistake(
        name="core detached",
        models=ONLY,
        equation="9.3",
        wrong="dS_b = 0",
        right="dS_b = dR_b Q_b^T",
        shows=GRADIENT,
        fix="Generate the core inside the graph: no detach, no .data, no no_grad around it.",
        changes=(dropped("layer_*.R", 0),),
    ),
    Mistake(
        name="one core for the whole batch",
        models=ONLY,
        equation="9.1",
        wrong="R_b = mean_b(S_b) Q_b",
        right="R_b = S_b Q_b",
        shows=VALUE,
        fix="Every row has its own core: use a batched product.",
        changes=(value("layer_*.S", _core_of_all),),
    ),
    Mistake(
        name="core reshaped with the batch axis last",
        models=ONLY,
        equation="9.1",
        wrong="S = reshape(G(z), (K, K, B)) with its axes moved",
        right="S = reshape(G(z), (B, K, K))",
        shows=VALUE,
        fix="Keep the batch axis in front: s.view(-1, K, K); otherwise rows exchange entries.",
        changes=(value("layer_*.S", _batch_axis_last),),
    ),
    Mistake(
        name="identity added to the core",
        models=ONLY,
        equation="9.1",
        wrong="S_b = I + reshape(G(z_b))",
        right="S_b = reshape(G(z_b)), the last bias of G starting at vec(I)",
        shows=VALUE,
        fix="The identity is the initial value of the generator's last bias, not a term beside it.",
        changes=(value("layer_*.S", _identity_added),),
    ),
    Mistake(
        name="core squashed by a sigmoid",
        models=ONLY,
        equation="9.1",
        wrong="S_b = sigmoid(reshape(G(z_b)))",
        right="S_b = reshape(G(z_b))",
        shows=VALUE,
        fix="The core is a matrix of weights, not of gates: no activation behind its generator.",
        changes=(value("layer_*.S", _core_squashed),),
    ),
    Mistake(
        name="prediction with the core of the batch's first row",
        models=ONLY,
        equation="9.1",
        wrong="prediction: R_b = S_0 Q_b",
        right="prediction: R_b = S_b Q_b",
        shows=SERVING,
        fix="U and V may be cached for prediction, the core may not: it belongs to a row.",
        changes=(value("layer_*.S", _first_core, in_training=False),),
    ),
)

# --- thin and wide factors ------------------------------------------------------------------------


def _rectified_product(H: Any, V: Any) -> Any:
    return relu(H @ V.T)[0]


def _rectified_product_backward(dQ: Any, Q: Any, H: Any, V: Any) -> tuple[Any, ...]:
    dP = dQ * (Q.real > 0)
    return dP @ V, dP.T @ H


def _rectified_factors_backward(dU: Any, _: Any, left: Any, right: Any) -> tuple[Any, ...]:
    act, is_on = relu(left)
    d_act, d_right = MATMUL.backward(dU, None, act, right)
    return d_act * is_on, d_right


def _before_the_core(step: Step, _: Any) -> Step:
    """Product R U^T whose dU is made with Q; shapes fit, since S is square."""
    Q = step.output.replace(".product", ".Q")

    def backward(dA: Any, _: Any, R: Any, U: Any, Q: Any) -> tuple[Any, ...]:
        return dA @ U, dA.T @ Q, None

    rule = Rule(lambda R, U, Q: step.rule.forward(R, U), backward)
    return replace(step, inputs=(*step.inputs, Q), rule=rule)


def _averaged_if_static(right: Any, dA: Any, _: Any, product: Any, b: Any) -> Any:
    return right / len(dA) if b.ndim == 1 else right


FACTORS = (
    Mistake(
        name="activation between V and the core",
        models=ONLY,
        equation="9.1",
        wrong="Q_b = ReLU(V H_b)",
        right="Q_b = V H_b",
        shows=VALUE,
        fix="Three factors make one linear map: no activation (and no bias) between them.",
        changes=(value("layer_*.Q", Rule(_rectified_product, _rectified_product_backward)),),
    ),
    Mistake(
        name="activation between the wide factors",
        models=ONLY,
        equation="9.1",
        wrong="U = ReLU(U_l) U_r, V = ReLU(V_l) V_r",
        right="U = U_l U_r, V = V_l V_r",
        shows=VALUE,
        fix="Over-parameterisation is a plain product, so that it can be folded for prediction.",
        changes=(
            value(
                FACTOR,
                Rule(lambda left, right: relu(left)[0] @ right, _rectified_factors_backward),
            ),
        ),
    ),
    Mistake(
        name="gradient of U from what enters the core",
        models=ONLY,
        equation="9.3",
        wrong="dU = dA^T Q",
        right="dU = dA^T R",
        shows=GRADIENT,
        fix="U met R, behind the core: keep R for the backward.",
        changes=(Change("layer_*.product", _before_the_core, (1,)),),
    ),
    Mistake(
        name="gradient of V from the last row only",
        models=ONLY,
        equation="9.3",
        wrong="dV = dQ_b H_b^T of the last row",
        right="dV = sum_b dQ_b H_b^T",
        shows=GRADIENT,
        fix="A loop over rows must add to the gradient of a shared factor (+=), not assign it.",
        changes=(adjoint("layer_*.Q", lambda right, dQ, _, H, V: np.outer(dQ[-1], H[-1]), 1),),
    ),
    Mistake(
        name="wide factors multiplied out without gradient",
        models=ONLY,
        equation="9.3",
        wrong="dU_l = dU_r = dV_l = dV_r = 0",
        right="dU_l = dU U_r^T, dU_r = U_l^T dU, and the same for V",
        shows=GRADIENT,
        fix="Multiply them in every training step inside the graph; fold for prediction only.",
        changes=(dropped(FACTOR, 0), dropped(FACTOR, 1)),
    ),
    Mistake(
        name="wide factors reshaped in place of transposed",
        models=ONLY,
        equation="9.3",
        wrong="dU_l = dU reshape(U_r), dU_r = reshape(U_l) dU, and the same for V",
        right="dU_l = dU U_r^T, dU_r = U_l^T dU, and the same for V",
        shows=GRADIENT,
        fix="Transpose (.T, .mT); reshape and view keep the order of the entries.",
        changes=(
            adjoint(FACTOR, lambda _, dU, y, left, right: dU @ _reshaped(right), 0),
            adjoint(FACTOR, lambda _, dU, y, left, right: _reshaped(left) @ dU, 1),
        ),
    ),
    Mistake(
        name="gradient of the static bias averaged",
        models=ONLY,
        equation="9.3",
        wrong="db = 1/B sum_b dA_b",
        right="db = sum_b dA_b",
        shows=GRADIENT,
        fix="1/B is in the loss already: the adjoint of what all rows share is a sum.",
        changes=(adjoint("layer_*.A", _averaged_if_static, 1),),
    ),
)

# --- condition and generators ---------------------------------------------------------------------


def _number(step: Step) -> int:
    """Return the number of the step's layer."""
    return int(step.output.split(".")[0].removeprefix("layer_"))


def _cut_from_hidden_state(step: Step, model: Any) -> Step:
    """z = H[:, :d_aw]; it is right in layer 1, and impossible where H is too narrow."""
    i = _number(step)
    if model.condition != "group" or i == 1 or model.hidden[i - 2] < model.dim_aware:
        return step
    return replace(step, inputs=(f"H_{i}",), rule=columns(0, model.dim_aware))


def _first_layers_generator(step: Step, model: Any) -> Step:
    """Read the generator of layer 1; the layer's own stays in the model without a use."""
    i = _number(step)
    if model.condition != "group" or i == 1:  # elsewhere the widths differ
        return step
    x, *own = step.inputs
    first = [name.replace(f"layer_{i}.", "layer_1.", 1) for name in own]

    def backward(dy: Any, y: Any, x: Any, W: Any, b: Any, *own: Any) -> tuple[Any, ...]:
        return (*step.rule.backward(dy, y, x, W, b), *(None for _ in own))

    rule = Rule(lambda x, W, b, *own: step.rule.forward(x, W, b), backward)
    return replace(step, inputs=(x, *first, *own), rule=rule)


def _condition_dropped(step: Step, model: Any) -> Step:
    """Nothing goes back from a generator's first map to z."""
    return dropped("*").make(step, model) if step.inputs[0].endswith(".z") else step


def _context_dropped(step: Step, model: Any) -> Step:
    """Nothing goes back to E_aw but from layer 1, the last in the backward pass."""
    is_first = _number(step) == 1 or step.inputs[0] != "E_aw"
    return step if is_first else dropped("*").make(step, model)


CONDITION = (
    Mistake(
        name="condition cut out of the hidden state",
        models=ONLY,
        equation="9.1",
        wrong="z^l = first d_aw columns of H^l",
        right="z^l = E_aw, the first d_aw columns of X",
        shows=VALUE,
        fix="Cut E_aw out of X once, before the first layer, and hand it to every layer.",
        changes=(Change("layer_*.z", _cut_from_hidden_state),),
    ),
    Mistake(
        name="mixed condition joined the other way",
        models=ONLY,
        equation="9.1",
        wrong="z^l = [H^l, E_aw]",
        right="z^l = [E_aw, H^l]",
        shows=VALUE,
        fix="E_aw comes first; parameters are exchanged in that order.",
        changes=(reading("layer_*.z", lambda step, _: step.inputs[::-1]),),
        options={"condition": "mix"},
    ),
    Mistake(
        name="one generator for all layers",
        models=ONLY,
        equation="9.1",
        wrong="S^l = reshape(G^1(z^l))",
        right="S^l = reshape(G^l(z^l)), each layer with its own generator",
        shows=VALUE,
        fix="Build one module per layer in a comprehension; [G] * n repeats one object.",
        changes=(
            Change("layer_*.generator.A_*", _first_layers_generator),
            Change("layer_*.generator.output", _first_layers_generator),
        ),
    ),
    Mistake(
        name="core's generator with the backbone's activation",
        models=ONLY,
        equation="9.1",
        wrong="G(z) = phi(z W_1 + b_1) W_2 + b_2",
        right="G(z) = ReLU(z W_1 + b_1) W_2 + b_2",
        shows=VALUE,
        fix="Generators keep ReLU, whatever the activation of the backbone.",
        changes=(value("layer_*generator.H_*", lambda step, model: activation(model.activation)),),
        options={"generator_hidden": (7,), "activation": "tanh"},
    ),
    Mistake(
        name="condition detached",
        models=ONLY,
        equation="9.3",
        wrong="S_b = reshape(G(sg(z_b)))",
        right="S_b = reshape(G(z_b)): dz goes on to E_aw, or to H^l, or to both",
        shows=GRADIENT,
        fix="Do not detach z: embeddings and hidden states learn through the generators too.",
        changes=(
            Change("layer_*generator.A_1", _condition_dropped, (0,)),
            Change("layer_*generator.output", _condition_dropped, (0,)),
        ),
    ),
    Mistake(
        name="context's gradient overwritten layer by layer",
        models=ONLY,
        equation="9.3",
        wrong="dE_aw = dz^1",
        right="dE_aw = sum_l dz^l",
        shows=GRADIENT,
        fix="The generators of all layers read E_aw: add what they send (+=).",
        changes=(Change("layer_*.z", _context_dropped, (0,)),),
    ),
)

APG_MISTAKES = (*CORE, *FACTORS, *CONDITION)
