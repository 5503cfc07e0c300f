"""Every kernel with arguments to call it with; used on the CPU, on the shim and on a GPU."""

import numpy as np

from midpg_np import kernels
from midpg_np.training.adam_core import corrections

LR, BETA1, BETA2, EPS = 1e-3, 0.9, 0.999, 1e-8


class Sizes:
    """Widths and batch of one example."""

    def __init__(self, d_r=2, d_c=3, d_k=2, f_r=3, f_c=2, n_samples=37, mode="block"):
        self.d_r, self.d_c, self.d_k, self.n_samples = d_r, d_c, d_k, n_samples
        self.d_m, self.d_n, self.mode = d_r * f_r, d_c * f_c, mode


def _core_cases(draw, s):
    B, gain = s.n_samples, 1.5
    R = {"generated": draw(s.d_r, s.d_k, B), "shared": draw(s.d_r, s.d_k)}
    C = {"generated": draw(s.d_k, s.d_c, B), "shared": draw(s.d_k, s.d_c)}
    Q, dQ = gain * _sigmoid(draw(s.d_r, s.d_c, B)), draw(s.d_r, s.d_c, B)
    cases = {}
    variants = {"rc": ("generated", "generated"), "r": ("generated", "shared")}
    for variant, (row, column) in (variants | {"c": ("shared", "generated")}).items():
        cases[f"core {variant}"] = kernels.core, (R[row], C[column], gain)
        args = dQ, Q, R[row], C[column], gain
        cases[f"core_backward {variant}"] = kernels.core_backward, args
        two_readers = *args, draw(s.d_r, s.d_c, B)
        cases[f"core_backward {variant}, two readers"] = kernels.core_backward, two_readers
    cases["bounded"] = kernels.bounded, (draw(s.d_r, s.d_c, B), gain)
    cases["bounded_backward"] = kernels.bounded_backward, (dQ, Q, gain)
    return cases


def _product_cases(draw, s):
    B = s.n_samples
    args = draw(s.d_m, B), draw(s.d_m, s.d_n), draw(s.d_r, s.d_c, B), s.mode
    return {
        "modulated_product": (kernels.modulated_product, args),
        "modulated_product_backward": (
            kernels.modulated_product_backward,
            (draw(s.d_n, B), *args),
        ),
    }


def _elementwise_cases(draw, s):
    x = draw(s.d_m, s.n_samples)
    x[:, ::5] = 0.0  # corners
    tall = draw(s.n_samples, 9 * s.d_m)  # of several tiles of columns
    tall[::5] = 0.0
    return {
        "relu": (kernels.relu, (x,)),
        "relu_backward": (kernels.relu_backward, (draw(*x.shape), x > 0)),
        "bias_relu": (kernels.bias_relu, (x, draw(s.d_m))),
        "bias_relu_backward": (kernels.bias_relu_backward, (draw(*x.shape), x > 0)),
        "bias_relu_batch_first": (kernels.bias_relu_batch_first, (tall, draw(9 * s.d_m))),
        "bias_relu_batch_first_backward": (
            kernels.bias_relu_batch_first_backward,
            (draw(*tall.shape), tall > 0),
        ),
    }


def _gate_cases(draw, s):
    shape = s.n_samples, 9 * s.d_m  # of several tiles of columns
    delta = 2.0 * _sigmoid(draw(*shape))
    return {
        "gate": (kernels.gate, (draw(*shape), draw(shape[1]), draw(*shape), 2.0)),
        "gate_backward": (kernels.gate_backward, (draw(*shape), draw(*shape), delta, 2.0)),
    }


def _pair_cases(draw, s):
    v, B = s.d_m, s.n_samples
    e, A = draw(v, 2 * B), draw(v, 2 * B)
    return {
        "pair_scores": (kernels.pair_scores, (e, draw(v, B), draw(v), draw(v), draw(1))),
        "pair_scores_backward": (kernels.pair_scores_backward, (draw(2 * B), A, draw(v))),
    }


def _row_cases(draw, s, rng):
    B, F, k, V = s.n_samples, s.d_r, s.d_k, 7
    ids, partner = rng.integers(0, V, (B, F)), rng.integers(0, B, B)
    return {
        "lookup": (kernels.lookup, (draw(V, k), ids)),
        "lookup, rows apart": (kernels.lookup, (draw(V, k + 2)[:, :k], ids)),
        "lookup, columns apart": (kernels.lookup, (draw(V, 2 * k)[:, ::2], ids)),
        "lookup_rows_backward": (kernels.lookup_rows_backward, (draw(F * k, B), ids)),
        "sum_by_id": (kernels.sum_by_id, (ids.reshape(-1), draw(ids.size, k))),
        "take_samples": (kernels.take_samples, (draw(F, B), partner)),
        "give_samples": (kernels.give_samples, (draw(F, B), partner)),
    }


def _pruning_cases(draw, s):
    shape = s.n_samples, 9 * s.d_m  # of several tiles of columns
    P, H, d_pruned, y = draw(*shape), draw(*shape), draw(*shape), _sigmoid(draw(*shape))
    alpha, pi = abs(draw(1)), 2.0 * y * (y > 0.5)
    backward = d_pruned, H, y, pi, y > 0.5, draw(1), draw(1)
    return {
        "prune": (kernels.prune, (P, draw(shape[1]), H, alpha, 2.0, 0.25)),
        "prune_backward": (kernels.prune_backward, backward),
    }


def _mixture_cases(draw, s, rng):
    w, S, dg = draw(s.n_samples, s.d_r), draw(s.n_samples, s.d_r, s.d_m), draw(s.n_samples, s.d_m)
    by_candidate = np.ascontiguousarray(S.swapaxes(0, 1)).swapaxes(0, 1)
    places = np.argsort(rng.random((s.n_samples, s.d_r)), axis=1)[:, :2]
    dS_own = draw(*places.shape, s.d_m)
    take, give = kernels.take_candidates, kernels.give_candidates
    return {
        "take_candidates": (take, (S, places)),
        "take_candidates, stored by candidate": (take, (by_candidate, places)),
        "give_candidates": (give, (dS_own, places, S)),
        "give_candidates, stored by candidate": (give, (dS_own, places, by_candidate)),
        "mix": (kernels.mix, (w, S)),
        "mix, stored by candidate": (kernels.mix, (w, by_candidate)),
        "mix_backward": (kernels.mix_backward, (dg, w, S)),
        "mix_backward, stored by candidate": (kernels.mix_backward, (dg, w, by_candidate)),
    }


def _group_cases(draw, s):
    """Narrow products and wide ones; groups of no row, of one and of many."""
    n = s.n_samples
    bounds = np.array(sorted([0, 0, n // 3, n // 3, n - 1, n, n]))
    cases = {"sum_by_group": (kernels.sum_by_group, (draw(n, s.d_m), bounds))}
    for kind, width in {"narrow": s.d_c, "wide": s.d_c + 4}.items():
        dA, H = draw(s.n_samples, width), draw(s.n_samples, s.d_m)
        W = draw(len(bounds) - 1, s.d_m, width)
        backward = kernels.product_by_group_backward
        cases[f"product_by_group, {kind}"] = kernels.product_by_group, (H, W, bounds)
        cases[f"product_by_group_backward, {kind}"] = backward, (dA, H, W, bounds)
    return cases


def _loss_cases(draw, s):
    t_pos, t_neg, z = (3.0 * draw(s.n_samples) for _ in range(3))
    y, weight = (draw(s.n_samples) > 0).astype(z.dtype), abs(draw(s.n_samples)) / s.n_samples
    d_loss = np.full((), 0.7, z.dtype)
    backward = kernels.jensen_shannon_backward
    return {
        "jensen_shannon": (kernels.jensen_shannon, (t_pos, t_neg)),
        "jensen_shannon_backward": (backward, (0.7, t_pos, t_neg)),
        "jensen_shannon_backward of a device scalar": (backward, (d_loss, t_pos, t_neg)),
        "cross_entropy": (kernels.cross_entropy, (z, y)),
        "cross_entropy weighted": (kernels.cross_entropy, (z, y, weight)),
    }


def _missed_cases(draw, s):
    """Rows of several blocks; entries that have never moved."""
    n, k = s.n_samples, s.d_m
    weights, m, v = draw(n, k), draw(n, k), draw(n, k) ** 2
    m[::3] = v[::3] = 0.0
    m[:, 0] = 0.0
    coefficients, decays = abs(draw(n, 6)), [abs(draw(n)) for _ in range(2)]
    coefficients[:, 0] += 0.1  # c
    return {"sum_missed": (kernels.sum_missed, (weights, m, v, coefficients, *decays))}


def _adam_cases(draw, s, rng):
    n, k, n_rows = 50 * s.n_samples, s.d_k, 3 * s.n_samples + 5
    p, g, m, v = draw(n), draw(n), draw(n), draw(n) ** 2
    m[::7] *= 1e-36  # to be flushed, in float32
    a, e = (x.astype(p.dtype) for x in corrections(LR, BETA1, BETA2, EPS, "corrected", 600))
    still, flushing = ((BETA1, BETA2, (float(a[300]), float(e[300]), x)) for x in (False, True))
    on_device = BETA1, BETA2, np.array([a[300], e[300], 1.0], p.dtype)
    pieces = [g[:5].reshape(5, 1), g[5:7], g[7:]]
    tens = [g[i : i + 10] for i in range(0, n, 10)]
    table = [draw(n_rows, k), draw(n_rows, k), draw(n_rows, k) ** 2]
    ids = np.flatnonzero((rng.random(n_rows) < 0.4) | (np.arange(n_rows) == 1))
    rows = draw(ids.size, k)
    padded = np.concatenate([ids, [n_rows, n_rows]])
    return {
        "adam_step": (kernels.adam_step, (p, g, m, v, *still)),
        "adam_step flushing": (kernels.adam_step, (p, g, m, v, *flushing)),
        "adam_step by the clock": (kernels.adam_step, (p, g, m, v, *on_device)),
        "adam_leaves": (kernels.adam_leaves, (p, m, v, *still, *pieces)),
        "adam_leaves, many": (kernels.adam_leaves, (p, m, v, *on_device, *tens)),
        "adam_tick": (kernels.adam_tick, (np.array([127]), a, e, np.zeros(3, p.dtype), 64)),
        "adam_tick, late": (kernels.adam_tick, (np.array([9000]), a, e, np.zeros(3, p.dtype), 64)),
        "adam_rows": (kernels.adam_rows, (*table, ids, rows, *still)),
        "adam_rows padded": (
            kernels.adam_rows,
            (*table, padded, draw(ids.size + 2, k), *flushing),
        ),
        "adam_table": (kernels.adam_table, (*table, ids, rows, *still)),
        "adam_table padded": (
            kernels.adam_table,
            (*table, padded, draw(ids.size + 2, k), *flushing),
        ),
        "adam_table full": (
            kernels.adam_table,
            (*table, np.arange(n_rows), draw(n_rows, k), *flushing),
        ),
        "adam_table without gradients": (
            kernels.adam_table,
            (*table, ids[:0], rows[:0], *still),
        ),
    }


def _sigmoid(x):
    return 0.5 + 0.5 * np.tanh(0.5 * x)


FAMILIES = (
    *(_core_cases, _product_cases, _loss_cases, _elementwise_cases, _gate_cases, _pair_cases),
    *(_pruning_cases, _mixture_cases, _group_cases, _row_cases),
    *(_missed_cases, _adam_cases),
)


def _family(build, rng, sizes, dtype):
    """Return {name: (function, arguments)}; a function may change its arguments in place."""

    def draw(*shape):
        return rng.normal(size=shape).astype(dtype)

    own = (rng,) if build in (_mixture_cases, _row_cases, _adam_cases) else ()
    return build(draw, sizes, *own)


FAMILY_OF = {
    name: build
    for build in FAMILIES
    for name in _family(build, np.random.default_rng(0), Sizes(), np.float64)
}
NAMES = tuple(FAMILY_OF)


def make_case(name, rng, sizes, dtype):
    """Return (function, arguments) of a case."""
    return _family(FAMILY_OF[name], rng, sizes, dtype)[name]


# Adam does nothing but operations that IEEE 754 fixes, in one order: the same bits everywhere.
EXACT = tuple(name for name in NAMES if name.startswith("adam"))
# Compiled for a CPU only; a GPU has the array operations.
LOOPS_ONLY = (
    *("lookup, rows apart", "lookup, columns apart", "lookup_rows_backward", "sum_by_id"),
    *(name for name in NAMES if FAMILY_OF[name] is _missed_cases),
    *(name for name in NAMES if name.startswith(("take_candidates", "give_candidates"))),
)
ON_DEVICE = tuple(name for name in NAMES if name not in LOOPS_ONLY)
# Kernels of a GPU whose additions come in any order.
ATOMIC = ("give_samples",)


def outcome(case, move, back):
    """Call with arguments moved by ``move``; return the results and the changed arguments."""
    function, args = case
    moved = [move(x) if isinstance(x, np.ndarray) else x for x in args]
    result = function(*moved)
    parts = [] if result is None else list(result) if isinstance(result, tuple) else [result]
    changed = [x for x, arg in zip(moved, args, strict=True) if isinstance(arg, np.ndarray)]
    return [np.array(back(x)) for x in parts + changed]


def on_host(case):
    return outcome(case, np.copy, np.asarray)


def in_float64(case):
    """The case with the same numbers in float64: a reference without the rounding of sums."""
    function, args = case
    is_real = [isinstance(x, np.ndarray) and x.dtype.kind == "f" for x in args]
    return function, [x.astype(float) if r else x for x, r in zip(args, is_real, strict=True)]


def assert_agrees(got, case, name, dtype):
    """Equal to the NumPy form: to the bit where the operations are fixed, else to rounding."""
    want = on_host(case)
    assert [(g.shape, g.dtype) for g in got] == [(w.shape, w.dtype) for w in want]
    if name in EXACT:
        for g, w in zip(got, want, strict=True):
            np.testing.assert_array_equal(g, w)
        return
    want = on_host(in_float64(case))
    tol = 3e-6 if dtype == np.float32 else 1e-13
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g, w, rtol=0, atol=tol * max(1.0, abs(w).max(initial=0.0)))
