"""How the fast framework versions of DPG and MI-DPG store their parameters.

All generators and all discriminators read E_aw: the rows of their first kernels that meet E_aw
stand side by side in one matrix, so that one product serves them all.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from frameworks import Network
from midpg_np.layers.modulated import cheaper_form

# What these versions assume; everything else of a configuration is free.
ASSUMED = {
    "activation": "relu",
    "sigmoid_on": "product",
    "repeat_mode": "block",
    "w_layout": "in_out",
    "dwm_inputs": "both",
    "dedup_first": False,
    "dwm_detach_h": False,
    "modulate_output": False,
    "modulate_bias": False,
    "disc": "mlp",
    "disc_scope": "per_layer",
    "disc_input": "core",
    "mi_reduce": "mean",
    "mi_grad_to": "all",
    "mi_detach_context": False,
}


class PackedDPG(Network):
    """Sizes of a DPG or MI-DPG, and the rearrangement of its parameters.

    Stored beside what keeps its name (``embedding.table``, ``layer_1.W``, ``head.W``, second layers
    of the generators): ``aware.W``, ``aware.b`` with the columns of all first layers in turn;
    ``layer_1.from_h`` and ``layer_1.from_q``, the rest of the first kernels of its generators and
    of its discriminator; ``disc.w``, ``disc.b``, the last layers of all discriminators.
    """

    form = "cheaper"

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        for option, value in ASSUMED.items():
            if getattr(model, option, value) != value:
                raise NotImplementedError(f"only {option} = {value!r} is written here.")
        hidden = (model.generator_hidden, getattr(model, "disc_hidden", (1,)))
        if any(len(widths) != 1 for widths in hidden):
            raise NotImplementedError("only generators and discriminators of one hidden layer.")
        self.layers = model.layers
        self.has_mi = hasattr(model, "mi_weight")
        self.d_aw = model.dim_aware
        self.generators = {name: tuple(x.weighting.generators) for name, x in self.layers.items()}
        # Columns of "aware.W": the generators of each layer, then all discriminators together.
        width = model.generator_hidden[0]
        self.aware_widths = [width * len(names) for names in self.generators.values()]
        if self.has_mi:
            self.aware_widths.append(model.disc_hidden[0] * len(self.layers))

    def weighs_first(self, name: str) -> bool:
        """Whether a layer weighs its inputs and multiplies then ("column"), or the reverse."""
        layer = self.layers[name]
        core = (layer.weighting.d_r, layer.weighting.d_c)
        form = self.form
        if form == "cheaper":
            form = cheaper_form(layer.dim_in, layer.dim_out, *core)
        return form == "column"

    def _first_layers(self) -> list[tuple[str, str]]:
        """Paths of all first layers in the order of the columns of ``aware.W``, and their rest."""
        paths = [
            (f"{name}.weighting.{generator}.layer_1", f"{name}.from_h")
            for name, generators in self.generators.items()
            for generator in generators
        ]
        if self.has_mi:
            paths += [(f"discriminators.{name}.layer_1", f"{name}.from_q") for name in self.layers]
        return paths

    def pack(self, leaves: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Cut first kernels at row d_aw and stack the parts; stack the discriminators' ends."""
        rest = dict(leaves)
        stored: dict[str, np.ndarray] = {}
        first = self._first_layers()
        kernels = {path: rest.pop(f"{path}.W") for path, _ in first}
        stored["aware.W"] = np.concatenate([W[: self.d_aw] for W in kernels.values()], axis=1)
        stored["aware.b"] = np.concatenate([rest.pop(f"{path}.b") for path, _ in first])
        for target in dict.fromkeys(target for _, target in first):
            parts = [kernels[path][self.d_aw :] for path, t in first if t == target]
            stored[target] = np.concatenate(parts, axis=1)
        if self.has_mi:
            ends = [f"discriminators.{name}.layer_2" for name in self.layers]
            stored["disc.w"] = np.concatenate([rest.pop(f"{end}.W") for end in ends])[:, 0]
            stored["disc.b"] = np.concatenate([rest.pop(f"{end}.b") for end in ends])
        return {name: np.ascontiguousarray(x) for name, x in (rest | stored).items()}

    def unpack(self, stored: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Inverse of ``pack``."""
        leaves = dict(stored)
        first = self._first_layers()
        aware = np.split(leaves.pop("aware.W"), len(first), axis=1)
        biases = np.split(leaves.pop("aware.b"), len(first))
        targets = dict.fromkeys(target for _, target in first)
        for target in targets:
            paths = [path for path, t in first if t == target]
            for path, part in zip(
                paths, np.split(leaves.pop(target), len(paths), axis=1), strict=True
            ):
                leaves[f"{path}.W"] = part
        for (path, _), W, b in zip(first, aware, biases, strict=True):
            leaves[f"{path}.W"] = np.concatenate([W, leaves[f"{path}.W"]])
            leaves[f"{path}.b"] = b
        if self.has_mi:
            ends = [f"discriminators.{name}.layer_2" for name in self.layers]
            w, b = leaves.pop("disc.w"), leaves.pop("disc.b")
            for end, w_end, b_end in zip(ends, np.split(w, len(ends)), b, strict=True):
                leaves[f"{end}.W"], leaves[f"{end}.b"] = w_end[:, None], b_end[None]
        return leaves
