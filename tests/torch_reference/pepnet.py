"""PEPNet in PyTorch, from derivations 7: every row meets the gates of all towers.

With towers per scenario a gate puts out T blocks side by side and the row's own is cut out.
``trace`` receives every quantity of the definition under its name.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_reference.blocks import ACTIVATIONS, Params, lookup, stop


def forward(
    params: Params, batch: Any, options: Any, trace: Params, *, training: bool
) -> tuple[Tensor, Params]:
    """Return the logits (B,) and no auxiliary terms."""
    X = lookup(params["embedding"]["table"], batch.codes, options.vocab_sizes, trace)
    towers = batch.scenario if options.towers == "per_scenario" else None
    O = trace["O"] = scaled_embeddings(params["epnet"], X, options, trace)  # noqa: E741
    trace["E_prior"] = prior(X, options)
    trace["sg_O"] = stop_in_front_of_gates(X, O)
    trace["U"] = prior_input(trace["E_prior"], trace["sg_O"])
    trace["z"] = personalised(params["ppnet"], O, trace["U"], towers, options, trace)
    return logits(trace["z"], batch.scenario), {}


def logits(z: Tensor, scenario: Tensor) -> Tensor:
    """Rows were never moved: their order is that of the batch."""
    return z[:, 0]


# --- EPNet ----------------------------------------------------------------------------------------


def scaled_embeddings(params: Params, X: Tensor, options: Any, trace: Params) -> Tensor:
    """O: delta_dom times what is gated, the rest as it is."""
    d_aw = options.n_aware * options.dim_embedding
    start = 0 if options.ep_input == "all" else d_aw
    E_dom, E = X[:, :d_aw], X[:, start:]
    trace |= {"E_dom": E_dom, "E": E, "sg_E": stop_in_front_of_epnet(E)}
    trace["U_dom"] = domain_input(E_dom, trace["sg_E"])
    delta = gate_nu(params, trace["U_dom"], None, options, trace, "epnet")
    scaled = scale(delta, E)
    if not start:
        return scaled
    trace |= {"E_gated": scaled, "E_plain": X[:, :start]}
    return torch.cat([trace["E_plain"], scaled], dim=1)


def stop_in_front_of_epnet(E: Tensor) -> Tensor:
    """sg(E)."""
    return stop(E)


def domain_input(E_dom: Tensor, sg_E: Tensor) -> Tensor:
    """[E_dom, sg(E)]."""
    return torch.cat([E_dom, sg_E], dim=1)


def scale(delta: Tensor, E: Tensor) -> Tensor:
    """Gate the embeddings."""
    return delta * E


# --- gates ----------------------------------------------------------------------------------------


def gate_nu(
    params: Params, U: Tensor, towers: Tensor | None, options: Any, trace: Params, name: str
) -> Tensor:
    """Gamma times the sigmoid of a network with one hidden layer; the block of the row's tower."""
    W_1, b_1 = params["layer_1"]["W"], params["layer_1"]["b"]
    W_2, b_2 = params["layer_2"]["W"], params["layer_2"]["b"]
    A = trace[f"{name}.A_1"] = read_by_gate(U, name, options) @ W_1 + b_1
    R = trace[f"{name}.R"] = inside_gate(A, options)
    if towers is None:
        A_2 = R @ W_2 + b_2
    else:
        blocks_side_by_side = R @ torch.cat(list(W_2), dim=1) + torch.cat(list(b_2))
        A_2 = own_block(blocks_side_by_side, towers, len(W_2))
    trace[f"{name}.A_2"] = A_2
    delta = trace[f"{name}.delta"] = squashed(A_2, options.gamma)
    return delta


def read_by_gate(U: Tensor, name: str, options: Any) -> Tensor:
    """All gates of the tower read the same U."""
    return U


def inside_gate(A: Tensor, options: Any) -> Tensor:
    """Between the two layers of a gate stands ReLU, whatever the tower has."""
    return torch.relu(A)


def own_block(wide: Tensor, towers: Tensor, n_towers: int) -> Tensor:
    """Cut the row's block out of [block 0, block 1, ...]."""
    n = wide.shape[1] // n_towers
    return torch.stack([row[t * n : (t + 1) * n] for row, t in zip(wide, towers, strict=True)])


def squashed(A: Tensor, gamma: float) -> Tensor:
    """Outputs of a gate, in (0, gamma)."""
    return gamma * torch.sigmoid(A)


# --- PPNet ----------------------------------------------------------------------------------------


def prior(X: Tensor, options: Any) -> Tensor:
    """E_prior: the embeddings of the prior's fields."""
    k = options.dim_embedding
    return torch.cat([X[:, f * k : (f + 1) * k] for f in prior_fields(options)], dim=1)


def prior_fields(options: Any) -> list[int]:
    """The fields named, else all agnostic ones; the aware ones behind them on request."""
    fields = list(options.prior_fields)
    if not fields:
        fields = list(range(options.n_aware, len(options.vocab_sizes)))
    if options.prior_scenario:
        fields += [f for f in range(options.n_aware) if f not in fields]
    return fields


def stop_in_front_of_gates(X: Tensor, O: Tensor) -> Tensor:  # noqa: E741
    """sg(O)."""
    return stop(O)


def prior_input(E_prior: Tensor, sg_O: Tensor) -> Tensor:
    """[E_prior, sg(O)]."""
    return torch.cat([E_prior, sg_O], dim=1)


def personalised(
    params: Params,
    O: Tensor,  # noqa: E741
    U: Tensor,
    towers: Tensor | None,
    options: Any,
    trace: Params,
) -> Tensor:
    """The tower: every hidden vector (and maybe O) times its gate."""
    H = entry(O)
    if options.gate_at == "layer_input":
        H = gated(gate_nu(params["gate_0"], U, towers, options, trace, "gate_0"), H)
        trace["H_1"] = H
    n_hidden = len(options.hidden)
    for i in range(1, n_hidden + 1):
        A = trace[f"A_{i}"] = tower_map(params[f"layer_{i}"], H, towers)
        delta = gate_nu(params[f"gate_{i}"], U, towers, options, trace, f"gate_{i}")
        H = trace[f"H_{i + 1}"] = hidden_vector(A, delta, i, options, trace)
    return last_map(params[f"layer_{n_hidden + 1}"], H, towers, options)


def entry(O: Tensor) -> Tensor:  # noqa: E741
    """What the tower reads: O itself."""
    return O


def hidden_vector(A: Tensor, delta: Tensor, i: int, options: Any, trace: Params) -> Tensor:
    """H^{i+1} = delta^i act(A^i)."""
    R = trace[f"R_{i}"] = ACTIVATIONS[options.activation](A)
    return gated(delta, R)


def gated(delta: Tensor, R: Tensor) -> Tensor:
    """Gate a vector of the tower, unit by unit."""
    return delta * R


def tower_map(layer: Params, H: Tensor, towers: Tensor | None) -> Tensor:
    """H W + b, row by row with the kernel of its tower if there are several."""
    W, b = layer["W"], layer["b"]
    if towers is None:
        return H @ W + b
    return torch.stack([h @ W[t] + b[t] for h, t in zip(H, towers, strict=True)])


def last_map(layer: Params, H: Tensor, towers: Tensor | None, options: Any) -> Tensor:
    """Output of the tower (B, 1): neither activation nor gate behind it."""
    return tower_map(layer, H, towers)
