"""Whole models that are wrong on purpose: in what they add up, or in what they hold back."""

import numpy as np
from wrong_kinds import WrongClass, WrongOption

from midpg_np.models import DNN, MIDPG
from midpg_np.tree import tree_map


class HiddenStateForgotten(MIDPG):
    """H reaches the loss through every generator as well as through the product."""

    def _dwm_input_backward(self, name, dU, dH):
        dE_aw, _ = super()._dwm_input_backward(name, dU, dH.copy())
        return dE_aw, dH


class GeneratorContextForgotten(MIDPG):
    """E_aw is read by every generator."""

    def _dwm_input_backward(self, name, dU, dH):
        dE_aw, dH = super()._dwm_input_backward(name, dU, dH)
        return 0.0 * dE_aw, dH


class SecondCopyForgotten(MIDPG):
    """The first generator reads [E_aw, X] with X = [E_aw, E_ag]: E_aw counts twice."""

    def _dwm_input_backward(self, name, dU, dH):
        if name == "layer_1":
            dU = dU.copy()
            dU[:, self.dim_aware : 2 * self.dim_aware] = 0.0
        return super()._dwm_input_backward(name, dU, dH)


class BackboneContextForgotten(MIDPG):
    """E_aw is also an input of the backbone."""

    def _dwm_input_backward(self, name, dU, dH):
        dE_aw, dH = super()._dwm_input_backward(name, dU, dH)
        if name == "layer_1":
            dH = np.concatenate([0.0 * dH[:, : self.dim_aware], dH[:, self.dim_aware :]], axis=1)
        return dE_aw, dH


class ShuffledPairsForgotten(MIDPG):
    """The contexts of shuffled pairs are rows of E_aw."""

    def embed_backward(self, d_inputs, cache):
        dX, dE_neg = d_inputs
        return super().embed_backward((dX, 0.0 * dE_neg), cache)


class MatchingPairsForgotten(MIDPG):
    """Matching pairs read E_aw."""

    def _network_backward(self, dz, cache, d_cores, dE_aw, workspace):
        return super()._network_backward(dz, cache, d_cores, None, workspace)


class CoresDetached(MIDPG):
    """The value of the regulariser is right, but only its discriminators learn."""

    def _network_backward(self, dz, cache, d_cores, dE_aw, workspace):
        return super()._network_backward(dz, cache, {}, dE_aw, workspace)


class FirstLayerOnly(MIDPG):
    """Every layer has a regulariser of its own."""

    def _network_backward(self, dz, cache, d_cores, dE_aw, workspace):
        return super()._network_backward(
            dz, cache, {"layer_1": d_cores["layer_1"]}, dE_aw, workspace
        )


class SummedOverLayers(MIDPG):
    """The regulariser is a mean over layers."""

    def backward(self, d_output, cache):
        d_mi = d_output.auxiliary["mi"] * len(self.layers)
        return super().backward(d_output._replace(auxiliary={"mi": d_mi}), cache)


class HeadForgotten(MIDPG):
    """The output layer learns too."""

    def backward(self, d_output, cache):
        grads = super().backward(d_output, cache)
        return grads | {"head": tree_map(np.zeros_like, grads["head"])}


class HeadMissing(MIDPG):
    """Every parameter has an entry in the tree of gradients."""

    def backward(self, d_output, cache):
        grads = super().backward(d_output, cache)
        return {name: g for name, g in grads.items() if name != "head"}


class LastFieldForgotten(DNN):
    """Every field's table learns."""

    def backward(self, d_output, cache):
        grads = super().backward(d_output, cache)
        table = grads["embedding"]["table"].dense()
        table[self.embedding.field_rows(len(self.vocab_sizes) - 1)] = 0.0
        return grads | {"embedding": {"table": table}}


WRONG_MODELS = {
    kind.__name__: WrongClass(kind)
    for kind in (
        HiddenStateForgotten,
        GeneratorContextForgotten,
        SecondCopyForgotten,
        BackboneContextForgotten,
        ShuffledPairsForgotten,
        MatchingPairsForgotten,
        CoresDetached,
        FirstLayerOnly,
        SummedOverLayers,
        HeadForgotten,
        HeadMissing,
        LastFieldForgotten,
    )
} | {
    "stop-gradient on h leaks": WrongOption("midpg", "dwm_detach_h", True, False),
    "h detached though nobody asked": WrongOption("midpg", "dwm_detach_h", False, True),
    "stop-gradient on the context leaks": WrongOption("midpg", "mi_detach_context", True, False),
    "context detached though nobody asked": WrongOption("midpg", "mi_detach_context", False, True),
    "stop-gradient on the core leaks": WrongOption("midpg", "mi_grad_to", "disc", "all"),
    "core detached though nobody asked": WrongOption("midpg", "mi_grad_to", "all", "disc"),
    "generator's input detached though nobody asked": WrongOption(
        "midpg", "mi_grad_to", "all", "disc+gen"
    ),
    "sigmoid on the factors taken for their product": WrongOption(
        "midpg", "sigmoid_on", "factors", "product"
    ),
    "mean over discriminators taken for sum": WrongOption("midpg", "mi_reduce", "mean", "sum"),
    "tanh differentiated as sigmoid": WrongOption("midpg", "activation", "tanh", "sigmoid"),
}
