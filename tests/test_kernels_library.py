"""The NumPy forms beside the kernels compute what the library computes today."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import generator, seeds, sizes

from midpg_np import kernels, losses
from midpg_np.layers.dwm import DynamicWeighting
from midpg_np.layers.modulated import FORMS
from midpg_np.layers.repeat import repeat, repeat_backward
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


def modulated(sizes, rng):
    s = sizes
    H, W = rng.normal(size=(s.B, s.d_m)), rng.normal(size=(s.d_m, s.d_n))
    return H, W, rng.normal(size=(s.B, s.d_r, s.d_c)), rng.normal(size=(s.B, s.d_n))


def group(n, n_groups, mode):
    return np.arange(n) % n_groups if mode == "tile" else np.arange(n) // (n // n_groups)


@given(sizes=sizes(), seed=seeds, mode=MODES)
def test_row_grouped(sizes, seed, mode):
    H, W, Q, dA = modulated(sizes, generator(seed))
    d_m, d_r = W.shape[0], Q.shape[1]
    forward, backward = FORMS["row"]
    A, cache = forward(H, W, Q, mode)
    dH, dW, dQ = backward(dA, cache)
    mine = (group(d_m, d_r, mode) == np.arange(d_r)[:, None]).astype(float)  # (d_r, d_m)
    Z = np.einsum("ri,bi,ij->rjb", mine, H, W)
    got_dQ, dZ = kernels.weighted_sum_backward(dA.T, last(Q), Z, mode)
    close(
        (kernels.weighted_sum(last(Q), Z, mode), A.T),
        (got_dQ, last(dQ)),
        (np.einsum("ri,rjb,ij->bi", mine, dZ, W), dH),
        (np.einsum("ri,rjb,bi->ij", mine, dZ, H), dW),
    )


@given(sizes=sizes(), seed=seeds, mode=MODES)
def test_column_grouped(sizes, seed, mode):
    H, W, Q, dA = modulated(sizes, generator(seed))
    d_n, d_c = W.shape[1], Q.shape[2]
    forward, backward = FORMS["column"]
    A, cache = forward(H, W, Q, mode)
    dH, dW, dQ = backward(dA, cache)
    mine = (group(d_n, d_c, mode) == np.arange(d_c)[:, None]).astype(float)  # (d_c, d_n)
    G = kernels.weighted_inputs(last(Q), H.T, mode)
    dG = np.einsum("cj,bj,ij->cib", mine, dA, W)
    got_dQ, got_dH = kernels.weighted_inputs_backward(dG, last(Q), H.T, mode)
    close(
        (np.einsum("cj,cib,ij->jb", mine, G, W), A.T),
        (got_dQ, last(dQ)),
        (got_dH, dH.T),
        (np.einsum("cj,cib,bj->ij", mine, G, dA), dW),
    )


@pytest.mark.parametrize("form", ["row", "column"])
@given(sizes=sizes(), seed=seeds, mode=MODES)
def test_whole_products(form, sizes, seed, mode):
    """The products that stand in for the grouped forms on a GPU, there and back."""
    H, W, Q, dA = modulated(sizes, generator(seed))
    results = []
    for forward, backward in (
        FORMS[form],
        (getattr(kernels, f"{form}_product"), getattr(kernels, f"{form}_product_backward")),
    ):
        A, cache = forward(H, W, Q, mode)
        results.append((A, *backward(dA, cache)))
    close(*zip(results[1], results[0], strict=True))


@given(sizes=sizes(), seed=seeds, mode=MODES)
def test_scaled_weights(sizes, seed, mode):
    rng = generator(seed)
    _, W, Q, _ = modulated(sizes, rng)
    d_r, d_c = Q.shape[1:]
    dV = rng.normal(size=(len(Q), *W.shape))
    S = repeat(Q, *W.shape, mode)
    dQ, dW = kernels.scaled_weights_backward(last(dV), last(Q), W, mode)
    close(
        (kernels.scaled_weights(last(Q), W, mode), last(S * W)),
        (dQ, last(repeat_backward(dV * W, d_r, d_c, mode))),
        (dW, (dV * S).sum(axis=0)),
    )


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
    """Dense, whole-table and deferred steps end with the bits of the optimiser's whole-table form.

    The rows of a batch are replayed before they are read and stepped on after; in the end every
    row is replayed.  Some rows never have a gradient, some wait for more than a hundred steps.
    """
    rng, adam = generator(4), Adam(eps_mode=eps_mode)
    n_rows, k, n = 40, 3, 20_000
    table, flat = rng.normal(size=(n_rows, k)).astype(dtype), rng.normal(size=n).astype(dtype)
    params = {"dense": flat.copy(), "e": {"table": table.copy()}}
    state = adam.init(params)
    p, m, v = flat.copy(), np.zeros_like(flat), np.zeros_like(flat)
    T, mT, vT = table.copy(), np.zeros_like(table), np.zeros_like(table)
    D, mD, vD, seen = table.copy(), np.zeros_like(table), np.zeros_like(table), np.full(n_rows, -1)
    a, e = corrections(adam.lr, adam.beta1, adam.beta2, adam.eps, eps_mode, N_STEPS)
    betas, sizes = (adam.beta1, adam.beta2), (a.astype(dtype), e.astype(dtype))
    for step in range(1, N_STEPS + 1):
        first = 0 if step > 1 else 10  # the first rows have a gradient at step 1 and then rarely
        ids = np.unique(rng.integers(first * (step < 100), n_rows - 5, 6))
        ids = np.arange(10) if step == 1 else ids[ids >= (10 if step < 120 else 0)]
        g, rows = rng.normal(size=n).astype(dtype), rng.normal(size=(ids.size, k)).astype(dtype)
        grads = {"dense": g.copy(), "e": {"table": RowGradient(ids, rows.copy(), n_rows)}}
        adam.update(params, grads, state)
        now = *betas, float(a[step]), float(e[step])
        kernels.adam_step(p, g, m, v, *now, step % 64 == 0)
        kernels.adam_table(T, mT, vT, ids, rows, *now, step % 64 == 0)
        kernels.adam_replay(D, mD, vD, seen, np.repeat(ids, 2), *betas, *sizes, step - 1)
        kernels.adam_rows(D, mD, vD, ids, rows, *now, False)
        seen[ids] = step
    assert (seen == 1).sum() >= 3 and (seen == -1).sum() >= 5
    kernels.adam_replay(D, mD, vD, seen, np.arange(n_rows), *betas, *sizes, N_STEPS)
    np.testing.assert_array_equal(p, params["dense"])
    for got in (T, D):
        np.testing.assert_array_equal(got, params["e"]["table"])
    np.testing.assert_array_equal(m, state.m)
    np.testing.assert_array_equal(v, state.v)
    moments = state.tables["e.table"]
    np.testing.assert_array_equal(mT, moments.m)
    np.testing.assert_array_equal(vT, moments.v)
    np.testing.assert_allclose(mD, moments.m, rtol=1e-5, atol=1e-30)
    np.testing.assert_allclose(vD, moments.v, rtol=1e-5)


def test_a_row_at_rest_is_not_replayed_to_the_end():
    """After thousands of missed steps the weights are those of the whole-table form."""
    dtype, n_steps = np.float32, 1500
    rng, adam = generator(5), Adam()
    a, e = corrections(adam.lr, adam.beta1, adam.beta2, adam.eps, "corrected", n_steps)
    betas = adam.beta1, adam.beta2
    p, m, v = (rng.normal(size=(6, 2)).astype(dtype) for _ in range(3))
    v *= v
    T, mT, vT = p.copy(), m.copy(), v.copy()
    nothing = np.zeros(0, np.int64), np.zeros((0, 2), dtype)
    for step in range(4, n_steps + 1):
        kernels.adam_table(T, mT, vT, *nothing, *betas, float(a[step]), float(e[step]), False)
    kernels.adam_replay(
        p, m, v, np.full(6, 3), np.arange(6), *betas, a.astype(dtype), e.astype(dtype), n_steps
    )
    np.testing.assert_array_equal(p, T)
    np.testing.assert_allclose(v, vT, rtol=1e-5)
