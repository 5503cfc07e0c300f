"""How the PyTorch version of APG carries the mistakes of the catalogue."""

from unittest import mock

import torch
from torch_reference import apg as right
from torch_reference.blocks import stop

from torch_mistakes.carrier import Carrier, changed, differentiated_as


def at(**replacements):
    """Exchange functions of the reference."""
    return Carrier({f"torch_reference.apg.{name}": f for name, f in replacements.items()})


def reshaped(x):
    return x.reshape(x.shape[::-1])


# --- core -----------------------------------------------------------------------------------------


def core_transposed(S, Q):
    return torch.matmul(Q[:, None], S)[:, 0]


def core_not_transposed_back(S, Q):
    core, q = S.detach(), Q.detach()
    return differentiated_as(right_core(S, Q), right_core(S, q) + right_core(core.mT, Q))


def outer_product_transposed(S, Q):
    core, q = S.detach(), Q.detach()
    return differentiated_as(right_core(S, Q), right_core(S.mT, q) + right_core(core, Q))


right_core = right.through_core
right_cut = right.core


def one_core(s, rank):
    S = right_cut(s, rank)
    return S.mean(dim=0).expand_as(S)


def first_core(s, rank):
    S = right_cut(s, rank)
    return S[0].expand_as(S)


right_forward = right.forward


def first_core_in_prediction(params, batch, options, trace, *, training):
    if training:
        return right_forward(params, batch, options, trace, training=True)
    with mock.patch.object(right, "core", first_core):
        return right_forward(params, batch, options, trace, training=False)


CORE = {
    "core transposed": at(through_core=core_transposed),
    "core not transposed on the way back": at(through_core=core_not_transposed_back),
    "outer product of the core's gradient transposed": at(through_core=outer_product_transposed),
    "core detached": at(through_core=lambda S, Q: right_core(S.detach(), Q)),
    "one core for the whole batch": at(core=one_core),
    "core reshaped with the batch axis last": at(
        core=lambda s, rank: s.reshape(rank, rank, len(s)).permute(2, 0, 1)
    ),
    "identity added to the core": at(
        core=lambda s, rank: right_cut(s, rank) + torch.eye(rank, dtype=s.dtype)
    ),
    "core squashed by a sigmoid": at(core=lambda s, rank: torch.sigmoid(right_cut(s, rank))),
    "prediction with the core of the batch's first row": at(forward=first_core_in_prediction),
}

# --- thin and wide factors ------------------------------------------------------------------------

right_before = right.before_core
right_behind = right.behind_core


def gradient_from_what_enters():
    """dU = dA^T Q; through_core has seen Q when behind_core is called."""
    seen = {}

    def through_core(S, Q):
        seen["Q"] = Q.detach()
        return right_core(S, Q)

    def behind_core(R, U):
        other = right_behind(R, U.detach()) + right_behind(seen["Q"], U)
        return differentiated_as(right_behind(R, U), other)

    return at(through_core=through_core, behind_core=behind_core)


def gradient_of_the_last_row(H, V):
    return torch.cat([H[:-1] @ V.detach().T, H[-1:] @ V.T])


def factors_reshaped_back(left, right):
    other = left @ reshaped(right.detach()).T + reshaped(left.detach()).T @ right
    return differentiated_as(left @ right, other)


def static_bias_averaged(product, b):
    return product + (changed(b, lambda db: db / len(product)) if b.ndim == 1 else b)


FACTORS = {
    "activation between V and the core": at(
        before_core=lambda H, V: torch.relu(right_before(H, V))
    ),
    "activation between the wide factors": at(
        multiplied_out=lambda left, right: torch.relu(left) @ right
    ),
    "gradient of U from what enters the core": gradient_from_what_enters(),
    "gradient of V from the last row only": at(before_core=gradient_of_the_last_row),
    "wide factors multiplied out without gradient": at(
        multiplied_out=lambda left, right: stop(left @ right)
    ),
    "wide factors reshaped in place of transposed": at(multiplied_out=factors_reshaped_back),
    "gradient of the static bias averaged": at(with_bias=static_bias_averaged),
}

# --- condition and generators ---------------------------------------------------------------------

right_condition = right.condition
right_generate = right.generate


def is_first(E_aw, H):
    """Whether a layer's input is X, which begins with E_aw."""
    return torch.equal(H[:, : E_aw.shape[1]], E_aw)


def cut_from_hidden_state(E_aw, H, options):
    return right_condition(E_aw if is_first(E_aw, H) else H[:, : E_aw.shape[1]], H, options)


def context_overwritten(E_aw, H, options):
    if not is_first(E_aw, H):
        E_aw = changed(E_aw, torch.zeros_like)
    return right_condition(E_aw, H, options)


def one_generator():
    """Layer 1 comes first; the others run its network in place of their own."""
    first = {}

    def generate(network, z, trace, name):
        if name == "layer_1.generator":
            first["network"] = network
        is_core = name.endswith(".generator")
        return right_generate(first["network"] if is_core else network, z, trace, name)

    return at(generate=generate)


CONDITION = {
    "condition cut out of the hidden state": at(condition=cut_from_hidden_state),
    "mixed condition joined the other way": at(
        condition=lambda E_aw, H, options: torch.cat([H, E_aw], dim=1)
    ),
    "one generator for all layers": one_generator(),
    "core's generator with the backbone's activation": at(between=torch.tanh),
    "condition detached": at(
        generate=lambda network, z, trace, name: right_generate(network, z.detach(), trace, name)
    ),
    "context's gradient overwritten layer by layer": at(condition=context_overwritten),
}

MISTAKES: dict[str, Carrier] = CORE | FACTORS | CONDITION
