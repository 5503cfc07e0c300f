"""How PEPNet's reference carries the mistakes of the catalogue."""

import torch
from torch_reference import pepnet as reference
from torch_reference.blocks import ACTIVATIONS, stop

from torch_mistakes.carrier import Carrier, changed, differentiated_as

MODULE = "torch_reference.pepnet"
hidden_vector, tower_map = reference.hidden_vector, reference.tower_map  # as they were
last_map, prior_fields = reference.last_map, reference.prior_fields


def carrier(**patches):
    """Exchange functions of the reference by name."""
    return Carrier({f"{MODULE}.{name}": function for name, function in patches.items()})


# --- gates ----------------------------------------------------------------------------------------


def adjoint_with_gamma_one(A, gamma):
    y = gamma * torch.sigmoid(A.detach())
    return gamma * torch.sigmoid(changed(A, lambda dA: dA * (1 - y) / (1 - y / gamma)))


def adjoint_without_gamma(A, gamma):
    return gamma * torch.sigmoid(changed(A, lambda dA: dA / gamma))


def adjoint_from_the_product(delta, R):
    return changed(delta, lambda d: d * delta.detach()) * R


def gate_inside_the_activation(A, delta, i, options, trace):
    act = ACTIVATIONS[options.activation]
    trace[f"R_{i}"] = act(A)
    return act(delta * A)


def last_not_gated(A, delta, i, options, trace):
    H = hidden_vector(A, delta, i, options, trace)
    return trace[f"R_{i}"] * 1.0 if i == len(options.hidden) else H


def activation_on_the_logit(layer, H, towers, options):
    return ACTIVATIONS[options.activation](last_map(layer, H, towers, options))


GATES = {
    "gamma inside the gate's sigmoid": carrier(squashed=lambda A, gamma: torch.sigmoid(gamma * A)),
    "gates without gamma": carrier(squashed=lambda A, gamma: torch.sigmoid(A)),
    "gate without its hidden ReLU": carrier(inside_gate=lambda A, options: A * 1.0),
    "gate with the tower's activation": carrier(
        inside_gate=lambda A, options: ACTIVATIONS[options.activation](A)
    ),
    "gate inside the activation": carrier(hidden_vector=gate_inside_the_activation),
    "gate added to the hidden vector": carrier(gated=lambda delta, R: delta + R),
    "gate on top of a residual connection": carrier(gated=lambda delta, R: R + delta * R),
    "last hidden layer not gated": carrier(hidden_vector=last_not_gated),
    "tower's activation on the logit": carrier(last_map=activation_on_the_logit),
    "gate's adjoint takes gamma for 1": carrier(squashed=adjoint_with_gamma_one),
    "gamma left out of the gate's adjoint": carrier(squashed=adjoint_without_gamma),
    "gates detached from the loss": carrier(
        scale=lambda delta, E: delta.detach() * E, gated=lambda delta, R: delta.detach() * R
    ),
    "gate's adjoint from what it has multiplied": carrier(gated=adjoint_from_the_product),
}

# --- what the gates read, and who learns from it --------------------------------------------------


def later_gates_detached(U, name, options):
    first = "gate_0" if options.gate_at == "layer_input" else "gate_1"
    return U if name in ("epnet", first) else U.detach()


def remembering(delta, R):
    """Keep what entered a gate beside what left it."""
    H = delta * R
    H.before_gate = R.detach()
    return H


def kernel_from_ungated(layer, H, towers):
    A = tower_map(layer, H, towers)
    if not hasattr(H, "before_gate"):
        return A
    held = {name: leaf.detach() for name, leaf in layer.items()}
    as_input, as_kernel = tower_map(held, H, towers), tower_map(layer, H.before_gate, towers)
    return differentiated_as(A, as_input + as_kernel)


INPUTS = {
    "EPNet's gate not applied": carrier(scale=lambda delta, E: E * 1.0),
    "domain behind the embeddings": carrier(
        domain_input=lambda E_dom, sg_E: torch.cat([sg_E, E_dom], dim=1)
    ),
    "prior behind the embeddings": carrier(
        prior_input=lambda E_prior, sg_O: torch.cat([sg_O, E_prior], dim=1)
    ),
    "PPNet reads the embeddings before EPNet": carrier(
        stop_in_front_of_gates=lambda X, O: stop(X)  # noqa: E741
    ),
    "prior's fields in sorted order": carrier(
        prior_fields=lambda options: sorted(prior_fields(options))
    ),
    "stop-gradient on E missing": carrier(stop_in_front_of_epnet=lambda E: E * 1.0),
    "stop-gradient on O missing": carrier(
        stop_in_front_of_gates=lambda X, O: O * 1.0  # noqa: E741
    ),
    "domain detached as well": carrier(
        domain_input=lambda E_dom, sg_E: torch.cat([E_dom.detach(), sg_E], dim=1)
    ),
    "prior detached as well": carrier(
        prior_input=lambda E_prior, sg_O: torch.cat([E_prior.detach(), sg_O], dim=1)
    ),
    "prior learns from the first gate only": carrier(read_by_gate=later_gates_detached),
    "tower reads the detached input of its gates": carrier(
        entry=lambda O: O.detach()  # noqa: E741
    ),
    "kernel's adjoint from the vector before its gate": carrier(
        gated=remembering, tower_map=kernel_from_ungated
    ),
}

# --- towers ---------------------------------------------------------------------------------------


def interleaved(wide, towers, n_towers):
    return wide.reshape(len(wide), -1, n_towers)[torch.arange(len(wide)), :, towers]


def first_block(wide, towers, n_towers):
    return wide[:, : wide.shape[1] // n_towers]


def repeated_tower(layer, H, towers):
    if towers is None:
        return tower_map(layer, H, towers)
    return H @ layer["W"][-1] + layer["b"][-1]


def block_before(wide, towers, n_towers):
    return wide.reshape(len(wide), n_towers, -1)[torch.arange(len(wide)), towers - 1]


def tower_before(layer, H, towers):
    return tower_map(layer, H, None if towers is None else towers - 1)


def joined_by_scenario(z, scenario):
    return torch.cat([z[scenario == d, 0] for d in range(int(scenario.max()) + 1)])


OF_TOWERS = {
    "gate's blocks interleaved": carrier(own_block=interleaved),
    "first block of the gate for all towers": carrier(own_block=first_block),
    "one tower object repeated": carrier(tower_map=repeated_tower),
    "towers counted from one": carrier(own_block=block_before, tower_map=tower_before),
    "logits left in the towers' order": carrier(logits=joined_by_scenario),
}

MISTAKES = GATES | INPUTS | OF_TOWERS
