"""DPG whose core reads the context alone, served as one plain network per context.

With ``dwm_inputs="aw_only"`` all rows with the same scenario-aware codes v have the same core Q_v.
So V_v = psi(Q_v) * W is formed once for all of them, and they go through a plain network with the
weights V_v (derivations 3.5).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from midpg_np.backend import Array, get_xp
from midpg_np.layers.embedding import Embedding
from midpg_np.layers.modulated_layer import ModulatedLayer, modulated_bias
from midpg_np.layers.repeat import merge_axis, repeat, split_axis
from midpg_np.models.dnn import DNN
from midpg_np.tree import Tree

_MEMORY = 2**22  # bytes of weights that are formed at a time


def context_networks(
    network: DNN, layers: Mapping[str, ModulatedLayer], params: Tree, contexts: Array
) -> Iterator[tuple[DNN, Tree]]:
    """Yield, for each context, ``network`` and weights that give its rows the logits of DPG.

    The weights share the embedding tables with ``params``.

    Parameters
    ----------
    network : DNN
        A plain network of DPG's fields and widths.
    layers, params
        Modulated layers of DPG, and its parameters.

    Shapes
    ------
    contexts : (G, n_aware)
        Codes of the scenario-aware fields.
    """
    *_, head = network.mlp.layer_names
    shared = {} if "head" in layers else {head: params["head"]}
    aware = Embedding(network.vocab_sizes[: network.n_aware], network.dim_embedding)
    n_weights = sum(layer.dim_in * layer.dim_out for layer in layers.values())
    size = max(1, _MEMORY // (n_weights * params["embedding"]["table"].dtype.itemsize))
    for start in range(0, len(contexts), size):
        E_aw, _ = aware.forward(params["embedding"], contexts[start : start + size])
        weights = {
            head if name == "head" else name: context_weights(layer, params[name], E_aw)
            for name, layer in layers.items()
        }
        for g in range(len(E_aw)):
            mlp = {name: {"W": V[g], "b": beta[g]} for name, (V, beta) in weights.items()}
            yield network, {"embedding": params["embedding"], "mlp": mlp | shared}


def context_weights(layer: ModulatedLayer, params: Tree, E_aw: Array) -> tuple[Array, Array]:
    """Return V_v = psi(Q_v) * W, inputs before outputs, and the bias, for each context v.

    See derivations 3.5e.

    Shapes
    ------
    E_aw : (G, d_aw)
    V : (G, dim_in, dim_out)
    beta : (G, dim_out)
    """
    mode = layer.repeat_mode
    Q, _ = layer.weighting.forward(params["weighting"], E_aw)
    Q, W = layer.as_in_out(Q), layer.as_in_out(params["W"])
    n_contexts, d_r, _ = Q.shape
    # psi along the columns is a copy; along the rows every core row meets the rows of its group.
    Q_j = repeat(Q, d_r, layer.dim_out, mode)
    V = merge_axis(Q_j[:, :, None] * split_axis(W, 0, d_r, mode), 1, mode)
    if layer.modulate_bias:
        return V, modulated_bias(params["b"], Q, mode)[0]
    return V, get_xp(V).broadcast_to(params["b"], (n_contexts, layer.dim_out))
