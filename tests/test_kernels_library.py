"""The NumPy forms beside the kernels compute what the library computes today."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import generator, seeds, sizes

from midpg_np import kernels, losses, ops
from midpg_np.checks import perturbed
from midpg_np.layers.discriminator import MLPDiscriminator
from midpg_np.layers.dwm import DynamicWeighting
from midpg_np.layers.embedding import Embedding
from midpg_np.layers.modulated import FORMS
from midpg_np.layers.negatives import shuffle, shuffle_backward
from midpg_np.layers.row_gradient import RowGradient
from midpg_np.training.adam_core import corrections
from midpg_np.training.optim import Adam

MODES = st.sampled_from(["block", "tile"])


def close(*pairs):
    for got, want in pairs:
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-12 * max(1.0, abs(want).max()))


def last(x):
    """Batch from the first axis to the last."""
    return np.moveaxis(x, 0, -1)


@given(sizes=sizes(min_rows=2), seed=seeds, variant=st.sampled_from(["rc", "r", "c", "non"]))
def test_core(sizes, seed, variant):
    """Generators that are selections of U hand the adjoints of the factors over as dU."""
    rng, s = generator(seed), sizes
    widths = {"row_generator": s.d_r * s.d_k, "column_generator": s.d_k * s.d_c}
    widths = {"non": {"core_generator": s.d_r * s.d_c}}.get(variant) or {
        name: width for name, width in widths.items() if variant == "rc" or name[0] == variant
    }
    dim_in = sum(widths.values())
    layer = DynamicWeighting(dim_in, s.d_r, s.d_c, s.d_k, variant, hidden=(), gain=1.5)
    params = layer.init(rng)
    rows = np.split(np.eye(dim_in), np.cumsum(list(widths.values()))[:-1], axis=1)
    for name, selection in zip(widths, rows, strict=True):
        params[name]["layer_1"] = {"W": selection, "b": np.zeros(selection.shape[1])}
    U, dQ = rng.normal(size=(s.B, dim_in)), rng.normal(size=(s.B, s.d_r, s.d_c))
    Q, cache = layer.forward(params, U)
    dU, grads = layer.backward(dQ, cache)
    if variant == "non":
        P = U.T
        dP = kernels.bounded_backward(last(dQ).reshape(P.shape), kernels.bounded(P, 1.5), 1.5)
        close((kernels.bounded(P, 1.5).reshape(last(Q).shape), last(Q)), (dP, dU.T))
        return
    parts = {name: U @ selection for name, selection in zip(widths, rows, strict=True)}
    R, C = params.get("R_share"), params.get("C_share")
    if R is None:
        R = last(parts["row_generator"].reshape(-1, s.d_r, s.d_k))
    if C is None:
        C = last(parts["column_generator"].reshape(-1, s.d_k, s.d_c))
    core = kernels.core(R, C, 1.5)
    dR, dC = kernels.core_backward(last(dQ), core, R, C, 1.5)
    dU_rows = [x.reshape(-1, s.B) for x in (dR, dC) if x.ndim == 3]
    close((core, last(Q)), (np.concatenate(dU_rows), dU.T))
    for name, gradient in (("R_share", dR), ("C_share", dC)):
        if name in grads:
            close((gradient, grads[name]))


@given(sizes=sizes(), seed=seeds, mode=MODES)
def test_modulated_product(sizes, seed, mode):
    rng, s = generator(seed), sizes
    H, W = rng.normal(size=(s.B, s.d_m)), rng.normal(size=(s.d_m, s.d_n))
    Q, dA = rng.normal(size=(s.B, s.d_r, s.d_c)), rng.normal(size=(s.B, s.d_n))
    A, cache = FORMS["textbook"].forward(H, W, Q, mode)
    dH, dW, dQ = FORMS["textbook"].backward(dA, cache)
    args = H.T, W, last(Q), mode
    got = kernels.modulated_product_backward(dA.T, *args)
    close((kernels.modulated_product(*args), A.T), *zip(got, (dH.T, dW, last(dQ)), strict=True))


@given(sizes=sizes(), seed=seeds)
def test_elementwise(sizes, seed):
    rng, s = generator(seed), sizes
    P, b, dH = rng.normal(size=(s.B, s.d_m)), rng.normal(size=s.d_m), rng.normal(size=(s.B, s.d_m))
    relu = ops.ACTIVATIONS["relu"]
    A, H, is_positive = ops.biased(P.copy(), b, relu)
    dA, db = ops.biased_backward(dH.copy(), is_positive, relu)
    got = kernels.bias_relu(P.T.copy(), b)
    close(
        (got[0], A.T),
        (got[1], H.T),
        *zip(kernels.bias_relu_backward(dH.T.copy(), got[2]), (dA.T, db), strict=True),
    )
    close((kernels.relu(A)[0], H), (kernels.relu_backward(dH.copy(), is_positive), dA))
    np.testing.assert_array_equal(got[2], is_positive.T)


@given(sizes=sizes(), seed=seeds)
def test_pairs(sizes, seed):
    """The discriminator, and its adjoints, from its projected contexts and signals on."""
    rng, B, d_e, d_q, v = generator(seed), sizes.B, 3, sizes.d_r * sizes.d_c, sizes.d_m
    layer = MLPDiscriminator(d_e, d_q, (v,))
    params = perturbed(layer.init(rng), rng)
    e, e_neg, q = (rng.normal(size=(B, d)) for d in (d_e, d_e, d_q))
    t_pos, t_neg, cache = layer.score_pairs(params, e, e_neg, q)
    dt = rng.normal(size=2 * B)
    d_e, d_e_neg, d_q, grads = layer.score_pairs_backward(dt[:B], dt[B:], cache)
    W, bias = params["layer_1"]["W"], params["layer_1"]["b"]
    w, c = params["layer_2"]["W"][:, 0], params["layer_2"]["b"]
    W_e, W_q = W[: e.shape[1]], W[e.shape[1] :]
    contexts = np.concatenate([e, e_neg])
    t, A = kernels.pair_scores((contexts @ W_e).T, (q @ W_q).T, bias, w, c)
    dA, ds, d_bias, dw = kernels.pair_scores_backward(dt, A, w)
    close((t, np.concatenate([t_pos, t_neg])), (A, cache.A.T), (d_bias, grads["layer_1"]["b"]))
    close((dw, grads["layer_2"]["W"][:, 0]), (W_q @ ds, d_q.T))
    close((W_e @ dA, np.concatenate([d_e, d_e_neg]).T))


@given(seed=seeds, B=st.integers(1, 9), F=st.integers(1, 3), k=st.integers(1, 4))
def test_rows(seed, B, F, k):
    rng, layer = generator(seed), Embedding((4,) * F, k)
    params, codes = layer.init(rng), rng.integers(0, 4, (B, F))
    E, cache = layer.forward(params, codes)
    dE, partner = rng.normal(size=E.shape), rng.integers(0, B, B)
    want = layer.backward(dE, cache)["table"]
    ids, sums = kernels.lookup_rows_backward(dE.T, cache.ids)
    np.testing.assert_array_equal(ids, want.ids)
    close((kernels.lookup(params["table"], cache.ids), E.T), (sums, want.rows))
    y, c_shuffle = shuffle(E, partner)
    close((kernels.take_samples(E.T, partner), y.T))
    close((kernels.give_samples(dE.T, partner), shuffle_backward(dE, c_shuffle).T))


@given(n=st.integers(1, 40), seed=seeds, d_loss=st.floats(-2.0, 2.0))
def test_losses(n, seed, d_loss):
    rng = generator(seed)
    t_pos, t_neg = rng.normal(size=(2, n), scale=20.0)
    loss, cache = losses.jensen_shannon(t_pos, t_neg)
    close((kernels.jensen_shannon(t_pos, t_neg), loss))
    got = kernels.jensen_shannon_backward(d_loss, t_pos, t_neg)
    close(*zip(got, losses.jensen_shannon_backward(d_loss, cache), strict=True))
    y, weight = (t_neg > 0).astype(float), rng.random(n)
    for args in ((t_pos, y), (t_pos, y, weight)):
        loss, cache = losses.cross_entropy(*args)
        want = loss, losses.cross_entropy_backward(1.0, cache)
        close(*zip(kernels.cross_entropy(*args), want, strict=True))


N_STEPS = 130


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("eps_mode", ["corrected", "tf1"])
def test_adam(dtype, eps_mode):
    """Dense and whole-table steps end with the bits of the optimiser's, and a step on rows too."""
    rng, adam = generator(4), Adam(eps_mode=eps_mode)
    n_rows, k, n = 40, 3, 20_000
    table, flat = rng.normal(size=(n_rows, k)).astype(dtype), rng.normal(size=n).astype(dtype)
    params = {"dense": flat.copy(), "e": {"table": table.copy()}}
    state = adam.init(params)
    p, m, v = flat.copy(), np.zeros_like(flat), np.zeros_like(flat)
    T, mT, vT = table.copy(), np.zeros_like(table), np.zeros_like(table)
    a, e = corrections(adam.lr, adam.beta1, adam.beta2, adam.eps, eps_mode, N_STEPS)
    betas = adam.beta1, adam.beta2
    for step in range(1, N_STEPS + 1):
        ids = np.unique(rng.integers(0, n_rows - 5, 6))
        g, rows = rng.normal(size=n).astype(dtype), rng.normal(size=(ids.size, k)).astype(dtype)
        grads = {"dense": g.copy(), "e": {"table": RowGradient(ids, rows.copy(), n_rows)}}
        adam.update(params, grads, state)
        now = *betas, (float(a[step]), float(e[step]), step % 64 == 0)
        kernels.adam_step(p, g, m, v, *now)
        before = T[ids], mT[ids], vT[ids]
        kernels.adam_table(T, mT, vT, ids, rows, *now)
        kernels.adam_rows(*before, np.arange(ids.size), rows, *now)
        for some, table in zip(before, (T, mT, vT), strict=True):
            np.testing.assert_array_equal(some, table[ids])
    np.testing.assert_array_equal(p, params["dense"])
    np.testing.assert_array_equal(T, params["e"]["table"])
    np.testing.assert_array_equal(m, state.m)
    np.testing.assert_array_equal(v, state.v)
    moments = state.tables["e.table"]
    np.testing.assert_array_equal(mT, moments.m)
    np.testing.assert_array_equal(vT, moments.v)
