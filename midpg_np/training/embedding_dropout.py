"""Masks for the dropout on the embeddings, the same for every model (derivations 2.8).

The mask of step t is drawn from the t-th child of the fourth stream of the seed.  So it depends on
the seed and the step alone: there is nothing to save for an interrupted run, and two models that
are compared under one seed see the same entries of the same rows dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from midpg_np.layers.dropout import EMBEDDING_KEEP, draw_keep
from midpg_np.models.protocol import Draws

STREAM = 3  # the first three are those of the parameters, the data order and the model


@dataclass(frozen=True)
class EmbeddingDropout:
    """Draws masks (B, width) for the steps of a run.

    Parameters
    ----------
    rate : float
        Share of the entries that are dropped; positive.
    seed : int
        The one seed of the run.
    width : int
        Width of X.
    """

    rate: float
    seed: int
    width: int

    def draw(self, step: int, n_rows: int) -> Draws:
        """Return the mask of a step, counted from 1, by its name among the model's draws."""
        stream = np.random.SeedSequence(self.seed, spawn_key=(STREAM, step))
        shape = n_rows, self.width
        return {EMBEDDING_KEEP: draw_keep(np.random.default_rng(stream), shape, self.rate)}


def embedding_dropout(model: Any, rate: float, seed: int) -> EmbeddingDropout | None:
    """Return what draws the masks for a model; None with rate 0.

    Raises
    ------
    ValueError
        If the model would not use them.
    """
    if rate == 0.0:
        return None
    if not getattr(model, "drops_embeddings", False):
        raise ValueError(
            f"embedding_dropout = {rate} has no effect on {type(model).__name__}, which does not "
            "say drops_embeddings = True; pass the mask on to its embedding, or set it to 0."
        )
    embedding = model.embedding
    return EmbeddingDropout(rate, seed, len(embedding.vocab_sizes) * embedding.dim)
