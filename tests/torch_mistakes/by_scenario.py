"""Mistakes of models with weights by scenario; the names are those of the catalogue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torch_mistakes.carrier import Carrier, Tensors, step


def all_but(is_forgotten: Callable[[str], bool]) -> Carrier:
    """An optimiser that does not hold some of the parameters."""

    def wrong(leaves: Tensors) -> None:
        step({name: leaf for name, leaf in leaves.items() if not is_forgotten(name)})

    return Carrier({"torch_mistakes.carrier.step": wrong})


def sorted_logits(z: Tensor, scenario: Tensor) -> Tensor:
    return torch.cat([z[scenario == d, 0] for d in sorted(set(scenario.tolist()))])


def places_among_present(scenario: Tensor, **_: Any) -> Tensor:
    return torch.unique(scenario, return_inverse=True)[1]


def none_in_prediction(scenario: Tensor, *, training: bool) -> Tensor:
    return scenario if training else torch.zeros_like(scenario)


SCENARIOS = "torch_reference.by_scenario"

MISTAKES: dict[str, Carrier] = {
    "logits left in the order of the scenarios": Carrier({f"{SCENARIOS}.logits": sorted_logits}),
    "weights by place among the scenarios present": Carrier(
        {f"{SCENARIOS}.route": places_among_present}
    ),
    "prediction with the weights of scenario 0": Carrier(
        {f"{SCENARIOS}.route": none_in_prediction}
    ),
}
