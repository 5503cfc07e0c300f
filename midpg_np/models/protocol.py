"""What every model offers, so that one training loop, one checker and one report serve them all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from midpg_np.backend import Array
from midpg_np.batch import Batch
from midpg_np.layers.dropout import EMBEDDING_KEEP
from midpg_np.tree import Tree

# Random numbers of one training step, by name, drawn on the host: for example {"partner": (B,)}.
Draws = Mapping[str, Array]


def keep_of(draws: Draws | None, order: Array | None = None) -> Array | None:
    """Return the mask (B, F*k) of the dropout on X among the draws, its rows sorted as X's are.

    None if there is none, as at inference.
    """
    keep = None if draws is None else draws.get(EMBEDDING_KEEP)
    return keep if keep is None or order is None else keep[order]


class ModelOutput(NamedTuple):
    """Result of ``forward``; as ``d_output``, the adjoint of each of its parts.

    Shapes
    ------
    logit : (B,)
        Log-odds of a conversion.
    auxiliary : dict of scalars
        Further loss terms by name ("mi"), before weighting; empty at inference.
    """

    logit: Array
    auxiliary: dict[str, Array]


class ModelCache(NamedTuple):
    """Intermediates of a model that is written as ``embed`` followed by ``network``."""

    embed: Any
    network: Any

    @property
    def detached(self) -> dict[str, Array]:
        """Values behind a stop-gradient, by name."""
        return self.network.detached


class ParamCount(NamedTuple):
    """Sizes of a model as derivations 12 counts them, embedding tables apart.

    Parameters
    ----------
    serving : int
        Parameters that a prediction needs.
    training_only : int
        Further parameters while training.
    embedding : int
        Parameters of the embedding tables.
    multiply_adds : int
        Multiplications with addition, per row predicted, in matrix products and mixtures.  What is
        formed once per batch (products of weights, generated weights of a scenario) is not counted.
    state : int
        Numbers saved with the model that have no gradient.
    """

    serving: int
    training_only: int
    embedding: int
    multiply_adds: int
    state: int = 0


class Model(Protocol):
    """A frozen configuration with a hand-written forward and backward pass.

    ``vocab_sizes`` has the number of codes of each field, the ``n_aware`` scenario-aware ones
    first, and there are ``n_scenarios`` scenarios.

    ``forward`` with ``draws=None`` is inference; with a mapping (possibly empty) it is training.
    ``frozen`` holds values that stand behind a stop-gradient at their base point, so that a
    numerical check of ``forward`` differentiates what ``backward`` claims to be its derivative;
    ``cache.detached`` lists them by name.

    A model may also have: ``routes_by_scenario`` (True: it cannot predict rows of an unknown
    scenario); ``buffers``, paths of leaves that have no gradient, and ``advance(params, cache) ->
    params``, which moves them after each step (moving averages, schedules); ``rows_read(batch)``,
    the rows of every table that ``forward`` will read, for row-wise optimisers, if there are others
    than ``embedding.table``; ``serving_form(params) -> (model, params)``, a smaller model that
    predicts the same, and may share arrays with ``params``; ``plain_by_context`` (True: the
    codes of the first ``n_aware`` fields, the context, decide alone on the weights of a row) and
    ``context_networks(params, contexts) -> iterator of (model, params)``, which gives for each
    context a model that predicts the same for its rows.

    ``drops_embeddings`` (True: ``forward`` multiplies X by ``draws["embedding_keep"]``, (B, F*k),
    where that is given, which ``Embedding.forward(..., keep=keep_of(draws))`` does; a training with
    ``embedding_dropout`` refuses other models); ``l2_centres``, ``{path: value}`` of kernels that
    ``l2_weights`` pulls to another value than 0.

    ``has_fixed_work`` (True: forward and backward give a GPU the same work for all batches of one
    size and read none of its values on the host, so that a step can be captured);
    ``has_fixed_work_on_host`` (True: the same of a CPU only, whose passes can then be recorded).

    A model may offer its passes in two halves (``models.halves``), so that ``training.tiles`` can
    send a batch through the second half tile by tile; or as a whole, threads going to the products
    (``takes_whole_batches`` True: rows meet behind the embeddings, or products are nearly all of
    the work).  No cache is left then, so ``advance`` must do without (``advance_reads_cache``
    False), or ``read_by_advance(cache)`` return the cache of ``network`` with what it needs alone:
    ``embed(params, batch, draws) -> (inputs, cache)``, a tuple of arrays with a row per sample
    (others too, if batches go as a whole);
    ``network(params, inputs, frozen, workspace) -> (output, cache)``, whose auxiliary terms are
    means over the rows; ``network_backward(d_output, cache, workspace) -> (d_inputs, grads)``; and
    ``embed_backward(d_inputs, cache) -> grads``.
    """

    vocab_sizes: tuple[int, ...]
    n_aware: int
    n_scenarios: int

    @property
    def auxiliary_weights(self) -> dict[str, float]:
        """Weight of each auxiliary term in the training loss."""

    def init(self, rng: np.random.Generator) -> Tree:
        """Draw initial parameters by ``rng``, float64, on the host."""

    def draw(self, rng: np.random.Generator, batch: Batch) -> Draws:
        """Draw the random numbers of one training step on ``batch`` by ``rng``, on the host."""

    def forward(
        self,
        params: Tree,
        batch: Batch,
        *,
        draws: Draws | None = None,
        frozen: Mapping[str, Array] | None = None,
    ) -> tuple[ModelOutput, Any]:
        """Return the logits (and, in training, the auxiliary terms) and the cache.

        Parameters
        ----------
        params : tree
            As ``init`` returns it.
        batch : Batch
            On the device of ``params``; labels are not read.
        draws : mapping, optional
            As ``draw`` returns it, on the same device: this is training.  None: inference.
        frozen : mapping of name to array, optional
            Values behind a stop-gradient, by the names of ``cache.detached``; only checks give it.
        """

    def backward(self, d_output: ModelOutput, cache: Any) -> Tree:
        """Return the gradient of every parameter; ``embedding.table`` gets a ``RowGradient``.

        Parameters
        ----------
        d_output : ModelOutput
            Derivative of the loss by what ``forward`` returned.
        cache
            What ``forward`` returned beside it.
        """

    def kinks(self, cache: Any) -> dict[str, Array]:
        """Return pre-activations by the path of the bias that shifts them, for the checks."""

    def count_params(self) -> ParamCount:
        """Count the parameters."""
