"""How PLE in PyTorch carries the mistakes in experts, gates and towers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_reference.ple import (
    ACTIVATIONS,
    candidates,
    everyone,
    gate_logits,
    mixture,
    own_affine,
    own_rows,
    softmax,
)

from torch_mistakes import by_scenario
from torch_mistakes.carrier import Carrier, differentiated_as


def ple(**patches: Any) -> Carrier:
    """Carry a mistake in functions of the model's own."""
    return Carrier({f"torch_reference.ple.{name}": wrong for name, wrong in patches.items()})


# --- gates ----------------------------------------------------------------------------------------


def twice(alpha: Tensor, counts: Tensor | None = None) -> Tensor:
    return torch.softmax(softmax(alpha, counts), dim=1)


def without_inner_product(alpha: Tensor, counts: Tensor | None = None) -> Tensor:
    w = softmax(alpha, counts)
    return differentiated_as(w, w.detach() * alpha)


def shared_experts_only(s: Tensor, options: Any) -> Tensor:
    n = options.n_scenarios * options.n_specific
    return torch.tensor([[False] * n + [True] * options.n_shared] * len(s))


GATES = {
    "gate without softmax": ple(softmax=lambda alpha, counts=None: alpha.clone()),
    "gate with sigmoids in place of softmax": ple(
        softmax=lambda alpha, counts=None: torch.sigmoid(alpha)
    ),
    "gate's softmax over the batch": ple(
        softmax=lambda alpha, counts=None: torch.softmax(alpha, dim=0)
    ),
    "gate's softmax applied twice": ple(softmax=twice),
    "shared gate mixes the shared experts only": ple(who_counts=shared_experts_only),
    "shared gate leaves other scenarios' experts out": Carrier(
        options={"shared_gate_scope": "own"}
    ),
    "shared gate mixes other scenarios' experts too": Carrier(options={"shared_gate_scope": "all"}),
    "softmax's derivative without the inner product": ple(softmax=without_inner_product),
    "gates' weights detached in the mixture": ple(mixture=lambda w, S: mixture(w.detach(), S)),
    "input detached in front of the gates": ple(
        gate_logits=lambda G, *kernel: gate_logits(G.detach(), *kernel)
    ),
}

# --- experts --------------------------------------------------------------------------------------


def stride_one(E: list, E_s: list, k: int) -> Tensor:
    flat = [expert for own in E for expert in own]
    return torch.stack([*flat[k : k + len(E[k])], *E_s], dim=1)


def by_expert(of_scenarios: Tensor, shared: Tensor) -> Tensor:
    columns = [W[..., e] for e in range(of_scenarios.shape[-1]) for W in of_scenarios]
    return torch.cat([torch.stack(columns, dim=-1), shared], dim=-1)


def undivided(w: Tensor, S: Tensor) -> Tensor:
    return differentiated_as(mixture(w, S), mixture(w, S.detach()) + S.sum(dim=1))


def detached(experts: list) -> list:
    return [expert.detach() for expert in experts]


def last_of_the_loop(E: list, E_s: list, k: int) -> Tensor:
    return candidates(E, E_s if k == len(E) - 1 else detached(E_s), k)


def output_without_derivative(A: Tensor, activation: str) -> Tensor:
    return differentiated_as(ACTIVATIONS[activation](A), A)


def shared_stream_for_all(G_k: Tensor, G_s: Tensor, options: Any) -> Tensor:
    return G_s if options.n_shared else G_k


EXPERTS = {
    "no activation behind an expert": ple(output=lambda A, activation: A.clone()),
    "derivative of an expert's last activation forgotten": ple(output=output_without_derivative),
    "experts of a scenario with stride one": ple(candidates=stride_one),
    "columns of the shared gate ordered by expert": ple(joined=by_expert),
    "one expert object repeated": ple(place=lambda k, e: (k, 0)),
    "specific experts read the shared stream": ple(expert_input=shared_stream_for_all),
    "specific gates read the shared stream": ple(gate_input=shared_stream_for_all),
    "experts hear the adjoint without their weight": ple(mixture=undivided),
    "shared experts hear from the last gate only": ple(
        candidates=last_of_the_loop, everyone=lambda E, E_s: everyone(E, detached(E_s))
    ),
    "specific experts detached in the shared stream": ple(
        everyone=lambda E, E_s: everyone([detached(own) for own in E], E_s)
    ),
    "shared stream detached between levels": ple(
        shared_input=lambda G_s, j: G_s.detach() if j > 1 else G_s
    ),
    "input hears from the specific streams only": ple(
        shared_input=lambda G_s, j: G_s.detach() if j == 1 else G_s
    ),
}

# --- towers ---------------------------------------------------------------------------------------


def heard_by_all(G: list, s: Tensor) -> Tensor:
    return differentiated_as(own_rows(G, s), sum(G))


TOWERS = {
    "one tower for all scenarios": ple(
        own_affine=lambda H, W, b, s: own_affine(H, W, b, torch.zeros_like(s))
    ),
    "activation behind the tower": ple(
        tower_output=lambda A, options: ACTIVATIONS[options.activation](A)
    ),
    "streams hear from rows of other scenarios": ple(own_rows=heard_by_all),
    "towers not registered with the optimiser": by_scenario.all_but(
        lambda name: name.startswith("tower.")
    ),
}

MISTAKES: dict[str, Carrier] = by_scenario.MISTAKES | GATES | EXPERTS | TOWERS
