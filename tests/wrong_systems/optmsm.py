"""Mistakes in the backward of OptMSM and its layers (derivations 10.5)."""

from functools import cached_property

import numpy as np
from spoiling import inside, op, result
from wrong_kinds import WrongClass, same_fields

from midpg_np.layers.generated_tower import GeneratedTower
from midpg_np.layers.hypernetwork import TowerShape
from midpg_np.layers.shared_embeddings import SharedEmbeddings
from midpg_np.models import OptMSM
from midpg_np.ops import concat
from midpg_np.tree import tree_map

# --- wrong backwards of layers -------------------------------------------------------------------

EPS = 0.1  # of the catalogue's cases


def n_pairs(G):
    return len(G) * G.shape[1] * (G.shape[1] - 1)


def gram_adjoint(G, dy, products):
    return 4.0 * dy / n_pairs(G) * (products @ G)


def off_diagonal(G):
    return G @ G.swapaxes(1, 2) * (1.0 - np.eye(G.shape[1]))


def cosine_parts(G, dy):
    norm = np.sqrt((G * G).sum(axis=2, keepdims=True) + EPS)
    G_hat = G / norm
    return norm, G_hat, gram_adjoint(G_hat, dy, off_diagonal(G_hat))


def without_projection(g, dy, x):
    norm, _, dG_hat = cosine_parts(x["G"], dy)
    return dG_hat / norm


def without_norm(g, dy, x):
    norm, _, _ = cosine_parts(x["G"], dy)
    return g["G"] * norm


def projected_on_g(g, dy, x):
    norm, _, dG_hat = cosine_parts(x["G"], dy)
    G = x["G"]
    return (dG_hat - G * (G * dG_hat).sum(axis=2, keepdims=True)) / norm


def projected_with_unit_vectors(g, dy, x):
    norm, _, dG_hat = cosine_parts(x["G"], dy)
    unit = x["G"] / np.sqrt((x["G"] ** 2).sum(axis=2, keepdims=True))
    return (dG_hat - unit * (unit * dG_hat).sum(axis=2, keepdims=True)) / norm


def with_diagonal(g, dy, x):
    return gram_adjoint(x["G"], dy, x["G"] @ x["G"].swapaxes(1, 2))


def times_pairs_over_squares(g, dy, x):
    D = x["G"].shape[1]
    return g["G"] * (D - 1) / D


def biases_first(self, tree):
    """Same entries, b_1 in front of W_1."""
    lead = tree["layer_1"]["b"].shape[:-1]
    first, second = (
        [tree[name]["b"], tree[name]["W"].reshape(*lead, -1)] for name in ("layer_1", "layer_2")
    )
    return concat([*first, *second])[0]


def kernels_transposed(self, tree):
    """W_1 column by column: right with a square kernel's transpose only."""
    W = tree["layer_1"]["W"].swapaxes(-1, -2)
    other = tree | {"layer_1": tree["layer_1"] | {"W": W}}
    lead = tree["layer_1"]["b"].shape[:-1]
    kernels = [other[name]["W"].reshape(*lead, -1) for name in ("layer_1", "layer_2")]
    return concat([kernels[0], tree["layer_1"]["b"], kernels[1], tree["layer_2"]["b"]])[0]


def omega_0_of(reduce):
    def change(grads, d_theta, cache):
        shape = TowerShape(*grads["params"]["omega_0"]["layer_1"]["W"].shape)
        omega_0 = shape.unpack(reduce(d_theta))
        return grads | {"params": grads["params"] | {"omega_0": omega_0}}

    return result("hypernetwork full", change)


def hypernetwork_parameter(hyper, name, change):
    def spoilt(grads, d_theta, cache):
        params = grads["params"]
        return grads | {"params": params | {name: change(params[name])}}

    return result(f"hypernetwork {hyper}", spoilt)


def one_layer_s_coefficients(self, dz, cache, right=GeneratedTower.backward):
    """The second layer's share of the coefficients' adjoint is dropped."""
    maps, calls = self._map, []

    def backward(dA, c):
        *adjoints, du = maps.backward(dA, c)
        calls.append(dA)
        return *adjoints, du * (len(calls) > 1)

    wrong = type("Wrong", (GeneratedTower,), {"_map": maps._replace(backward=backward)})
    return right(
        wrong(**{name: getattr(self, name) for name in self.__dataclass_fields__}), dz, cache
    )


WRONG = {
    "optmsm: orthogonality with factor 2": op(
        "orthogonality cosine", G=lambda g, dy, x: g["G"] / 2.0
    ),
    "optmsm: diagonal kept in the adjoint": op("orthogonality gram", G=with_diagonal),
    "optmsm: orthogonality over D^2 pairs in the adjoint": op(
        "orthogonality gram", G=times_pairs_over_squares
    ),
    "optmsm: orthogonality summed over the batch in the adjoint": op(
        "orthogonality cosine", G=lambda g, dy, x: g["G"] * len(x["G"])
    ),
    "optmsm: normalisation without the projection": op(
        "orthogonality cosine", G=without_projection
    ),
    "optmsm: projection without the norm": op("orthogonality cosine", G=without_norm),
    "optmsm: projection on g in place of g hat": op("orthogonality cosine", G=projected_on_g),
    "optmsm: projection that forgets eps": op(
        "orthogonality cosine", G=projected_with_unit_vectors
    ),
    "optmsm: slices swapped on the way back": inside(
        "generated_tower by scenario full fast",
        "layers.hypernetwork.TowerShape.pack",
        biases_first,
    ),
    "optmsm: kernel packed column by column": inside(
        "generated_tower by scenario low_rank textbook",
        "layers.hypernetwork.TowerShape.pack",
        kernels_transposed,
    ),
    "optmsm: omega_0 from the first scenario": omega_0_of(lambda d_theta: d_theta[0]),
    "optmsm: omega_0 averaged over scenarios": omega_0_of(lambda d_theta: d_theta.mean(axis=0)),
    "optmsm: first factor of low rank forgotten": hypernetwork_parameter(
        "low_rank", "Omega_in", np.zeros_like
    ),
    "optmsm: second factor of low rank fed with the first's rows": hypernetwork_parameter(
        "low_rank", "Omega_out", lambda g: g[::-1]
    ),
    "optmsm: Omega averaged over scenarios": hypernetwork_parameter(
        "full", "Omega", lambda g: g / 5.0
    ),
    "optmsm: code does not learn from the second layer": inside(
        "generated_tower by row full fast",
        "layers.generated_tower.GeneratedTower.backward",
        one_layer_s_coefficients,
    ),
    "optmsm: code does not see the biases": op(
        "code_affine contracted", u=lambda g, dy, x: g["u"] - dy @ x["b"].T
    ),
    "optmsm: biases of the basis not weighted by the code": op(
        "code_affine textbook", b=lambda g, dy, x: 0.0 * g["b"] + dy.sum(axis=0)
    ),
    "optmsm: kernels weighted with the mean code": op(
        "code_affine contracted",
        W=lambda g, dy, x: x["u"].mean(axis=0)[:, None, None] * (x["H"].T @ dy),
    ),
    "optmsm: input learns from the first embedding only": op(
        "affine_set", H=lambda g, dy, x: dy[:, 0] @ x["W"][0].T
    ),
    "optmsm: stacked kernels cut in the wrong order": op(
        "affine_set", W=lambda g, dy, x: g["W"].swapaxes(0, 1).reshape(g["W"].shape)
    ),
    "optmsm: attention without the inner product": inside(
        "shared_embeddings attention", "layers.mixture.softmax_backward", lambda dy, y: y * dy
    ),
}

# --- whole models with a wrong backward ----------------------------------------------------------


class GateForgotten(OptMSM):
    """c is read by the tower and by the attention."""

    @cached_property
    def shared(self):
        class Wrong(SharedEmbeddings):
            def backward(self, dm, d_loss, cache):
                _, dE, grads = super().backward(dm, d_loss, cache)
                return None, dE, grads

        return same_fields(Wrong, super().shared)


class LossForgotten(OptMSM):
    """G is read by the mixture and by the loss."""

    def backward(self, d_output, cache):
        return super().backward(d_output._replace(auxiliary={"orthogonality": 0.0}), cache)


class LossWeightedTwice(OptMSM):
    """The weight comes in with the adjoint of the loss."""

    def backward(self, d_output, cache):
        d_loss = d_output.auxiliary["orthogonality"] * self.orth_weight
        return super().backward(d_output._replace(auxiliary={"orthogonality": d_loss}), cache)


class OwnRowsOverwritten(OptMSM):
    """With "select" the rows' own A learn from the mixture as well as from the loss."""

    def backward(self, d_output, cache):
        grads = super().backward(d_output, cache)
        silent = super().backward(d_output._replace(logit=0.0 * d_output.logit), cache)
        return grads | {"shared": silent["shared"]}


class AbsentCodesMove(OptMSM):
    """The code of a scenario without rows has gradient zero."""

    def backward(self, d_output, cache):
        grads = super().backward(d_output, cache)
        Z = grads["code"]["Z"].dense()
        is_absent = ~np.isin(np.arange(len(Z)), cache.network.groups.present)
        Z[is_absent] = Z.mean(axis=0)
        return grads | {"code": {"Z": Z}}


class CodeForgotten(OptMSM):
    """The codes learn too, not only Omega."""

    def backward(self, d_output, cache):
        grads = super().backward(d_output, cache)
        return grads | {"code": tree_map(lambda Z: 0.0 * Z.dense(), grads["code"])}


class CodeRowsByPosition(OptMSM):
    """The m-th scenario of the batch is not scenario m."""

    def backward(self, d_output, cache):
        grads = super().backward(d_output, cache)
        Z = grads["code"]["Z"]
        return grads | {"code": {"Z": Z._replace(ids=np.arange(len(Z.ids)))}}


class RowsInTheOrderOfTheBatch(OptMSM):
    """The adjoint of the logits is sorted like the rows."""

    def backward(self, d_output, cache):
        logit = d_output.logit[cache.network.groups.place]
        return super().backward(d_output._replace(logit=logit), cache)


class SecondReaderForgotten(OptMSM):
    """With "aware", E_sp is read by the encoder and by the hypernetwork."""

    @cached_property
    def tower(self):
        class Wrong(GeneratedTower):
            def backward(self, dz, cache):
                dH, dZ, grads = super().backward(dz, cache)
                return dH, 0.0 * dZ, grads

        return same_fields(Wrong, super().tower)


WRONG_MODELS = {
    f"optmsm: {kind.__name__}": WrongClass(kind, options)
    for kind, options in (
        (GateForgotten, {}),
        (LossForgotten, {}),
        (LossWeightedTwice, {}),
        (OwnRowsOverwritten, {"combine": "select"}),
        (AbsentCodesMove, {}),
        (CodeForgotten, {"hyper": "low_rank"}),
        (CodeRowsByPosition, {}),
        (RowsInTheOrderOfTheBatch, {}),
        (SecondReaderForgotten, {"hyper_input": "aware"}),
    )
}
