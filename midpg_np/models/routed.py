"""Models in halves whose network sees the rows of a batch sorted by scenario (derivations 2.7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from midpg_np.backend import Array
from midpg_np.batch import Batch
from midpg_np.layers.groups import Groups, group_rows
from midpg_np.models.halves import InHalves
from midpg_np.models.protocol import Draws, keep_of
from midpg_np.tree import Tree


class Routed(InHalves):
    """``embed`` looks up X sorted by scenario, and the ``Groups`` go with it to the network.

    Where the options of a model leave nothing to route (``routes_by_scenario`` False), X is in the
    order of the batch, and the groups are None.
    """

    looks_up_last = False
    takes_whole_batches = True  # the rows of a scenario lie side by side
    n_scenarios: int

    @property
    def routes_by_scenario(self) -> bool:
        """Whether the scenario's id, and not only features, tells the scenarios apart."""
        return True

    def embed(
        self, params: Tree, batch: Batch, draws: Draws | None
    ) -> tuple[tuple[Array, ...], Any]:
        """Look up X (B, d_0), sorting the codes sorts all that follows (derivations 2.1a)."""
        if not self.routes_by_scenario:
            return super().embed(params, batch, draws)
        groups = group_rows(batch.scenario, self.n_scenarios)
        codes, keep = batch.codes[groups.order], keep_of(draws, groups.order)
        X, cache = self.embedding.forward(params["embedding"], codes, keep=keep)
        return (X, *groups.arrays), cache

    def sorted_rows(self, inputs: Sequence[Array]) -> tuple[Array, Any]:
        """Return X and the groups, or None, of what ``embed`` has returned."""
        X, *arrays = inputs
        return X, Groups._make((*arrays, self.n_scenarios)) if arrays else None


def in_order_of_batch(z: Array, groups: Groups | None) -> Array:
    """Return the logits z (B, 1) of sorted rows as (B,), in the order of the batch."""
    return z[:, 0] if groups is None else z[:, 0][groups.place]


def in_order_of_groups(d_logit: Array, groups: Groups | None) -> Array:
    """Backward of ``in_order_of_batch``."""
    return (d_logit if groups is None else d_logit[groups.order])[:, None]
