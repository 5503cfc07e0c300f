"""The same training step in several frameworks, behind one interface.

A ``Network`` says how one model computes its logits in one framework; it is the only thing that is
written per model.  A framework wraps it as an ``Implementation``: loss, gradients, Adam, timing.
Networks stand in ``torch_networks``, ``torch_relatives``, ``jax_networks`` and ``jax_relatives``;
each of these modules has a table

    NETWORKS: dict[str, dict[str, type[Network]]]      # model -> form -> class, fastest form first

Importing this package imports no framework.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np


class Rows(NamedTuple):
    """A ``midpg_np.batch.Batch`` as tensors of the framework, on its device.

    Shapes
    ------
    codes : (B, F)
        int64 (PyTorch) or int32 (JAX), not yet offset: add ``model.embedding.offsets``.
    scenario : (B,)
        As ``codes``.
    label : (B,)
        0.0 or 1.0 in the dtype of the parameters.
    """

    codes: Any
    scenario: Any
    label: Any


class Outputs(NamedTuple):
    """Result of ``Network.forward``.

    Parameters
    ----------
    logit : (B,)
    auxiliary : dict of scalars
        Further loss terms by the name they have in ``model.auxiliary_weights``, before weighting;
        empty in prediction.
    buffers : dict of arrays
        New values of the leaves without gradient (``model.buffers``), by path, such as the moving
        averages of STAR: what ``model.advance`` would do.  Without gradient.  Mostly empty.
    """

    logit: Any
    auxiliary: dict[str, Any] = {}  # noqa: RUF012
    buffers: dict[str, Any] = {}  # noqa: RUF012


class Network:
    """One model in one framework.

    Parameters
    ----------
    model : frozen dataclass of ``midpg_np.models``
        The configuration: widths, options, ``auxiliary_weights``.
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    def pack(self, leaves: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Rearrange the parameters, ``{path: leaf}``, as this implementation stores them.

        Only rearrange (stack, transpose, permute): ``unpack`` is used on gradients as well.
        """
        return leaves

    def unpack(self, stored: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Inverse of ``pack``."""
        return stored

    def forward(
        self, params: Mapping[str, Any], rows: Rows, draws: Mapping[str, Any] | None
    ) -> Any:
        """Return ``Outputs`` from the stored parameters.

        Parameters
        ----------
        params : {name: tensor}
            As ``pack`` named them, including ``embedding.table`` (all rows, all fields).
            ``midpg_np.tree.tree_unflatten(params)`` gives the package's nested form.
        rows : Rows
        draws : {name: tensor} or None
            What ``model.draw`` drew ("partner", ...); None in prediction.
        """
        raise NotImplementedError


class Implementation(Protocol):
    """One model in one framework and form, with its own parameters and Adam (1e-3, eps 1e-8)."""

    def stage(self, batch: Any, draws: Mapping[str, np.ndarray]) -> Any:
        """Move a batch and its draws to the framework's tensors; not timed."""

    def loss_and_grads(self, staged: Any) -> tuple[float, dict[str, np.ndarray]]:
        """Return the loss and all gradients by the package's paths, tables as whole arrays."""

    def step(self, staged: Any) -> None:
        """Take one whole step: forward, loss, backward, Adam, moving averages."""

    def wait(self) -> None:
        """Return when everything that was started has been done (GPU, JAX)."""

    def predict(self, staged: Any) -> np.ndarray:
        """Return the logits (B,), on the host."""

    def parameters(self) -> dict[str, np.ndarray]:
        """Return all parameters (and buffers) by the package's paths."""
