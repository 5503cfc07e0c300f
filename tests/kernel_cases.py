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
    cases["bounded"] = kernels.bounded, (draw(s.d_r, s.d_c, B), gain)
    cases["bounded_backward"] = kernels.bounded_backward, (dQ, Q, gain)
    return cases


def _weighting_cases(draw, s):
    B = s.n_samples
    Q, W, H = draw(s.d_r, s.d_c, B), draw(s.d_m, s.d_n), draw(s.d_m, B)
    Z, A = draw(s.d_r, s.d_n, B), draw(s.d_n, B)
    return {
        "scaled_weights": (kernels.scaled_weights, (Q, W, s.mode)),
        "scaled_weights_backward": (
            kernels.scaled_weights_backward,
            (draw(s.d_m, s.d_n, B), Q, W, s.mode),
        ),
        "weighted_sum": (kernels.weighted_sum, (Q, Z, s.mode)),
        "weighted_sum_backward": (kernels.weighted_sum_backward, (A, Q, Z, s.mode)),
        "weighted_inputs": (kernels.weighted_inputs, (Q, H, s.mode)),
        "weighted_inputs_backward": (
            kernels.weighted_inputs_backward,
            (draw(s.d_c, s.d_m, B), Q, H, s.mode),
        ),
    }


def _product_cases(draw, s):
    """The whole modulated product, batch first, each way in one call."""

    def there_and_back(form):
        def call(H, W, Q, dA):
            A, cache = getattr(kernels, f"{form}_product")(H, W, Q, s.mode)
            return A, *getattr(kernels, f"{form}_product_backward")(dA, cache)

        return call

    B = s.n_samples
    args = draw(B, s.d_m), draw(s.d_m, s.d_n), draw(B, s.d_r, s.d_c), draw(B, s.d_n)
    return {f"{form}_product": (there_and_back(form), args) for form in ("row", "column")}


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


def _adam_cases(draw, s, rng):
    n, k, n_rows = 50 * s.n_samples, s.d_k, 3 * s.n_samples + 5
    p, g, m, v = draw(n), draw(n), draw(n), draw(n) ** 2
    m[::7] *= 1e-36  # to be flushed, in float32
    a, e = (x.astype(p.dtype) for x in corrections(LR, BETA1, BETA2, EPS, "corrected", 600))
    now = BETA1, BETA2, float(a[300]), float(e[300])
    table = [draw(n_rows, k), draw(n_rows, k), draw(n_rows, k) ** 2]
    ids = np.flatnonzero((rng.random(n_rows) < 0.4) | (np.arange(n_rows) == 1))
    rows = draw(ids.size, k)
    padded = np.concatenate([ids, [n_rows, n_rows]])
    last = rng.integers(-1, 420, n_rows)
    read = rng.integers(0, n_rows, (s.n_samples, 2))  # with repeats
    replay = *table, last, read, BETA1, BETA2, a, e, 420
    return {
        "adam_step": (kernels.adam_step, (p, g, m, v, *now, False)),
        "adam_step flushing": (kernels.adam_step, (p, g, m, v, *now, True)),
        "adam_rows": (kernels.adam_rows, (*table, ids, rows, *now, False)),
        "adam_rows padded": (
            kernels.adam_rows,
            (*table, padded, draw(ids.size + 2, k), *now, True),
        ),
        "adam_table": (kernels.adam_table, (*table, ids, rows, *now, False)),
        "adam_table padded": (
            kernels.adam_table,
            (*table, padded, draw(ids.size + 2, k), *now, True),
        ),
        "adam_table full": (
            kernels.adam_table,
            (*table, np.arange(n_rows), draw(n_rows, k), *now, True),
        ),
        "adam_table without gradients": (
            kernels.adam_table,
            (*table, ids[:0], rows[:0], *now, False),
        ),
        "adam_replay": (kernels.adam_replay, replay),
    }


def _sigmoid(x):
    return 0.5 + 0.5 * np.tanh(0.5 * x)


def make_cases(rng, sizes, dtype):
    """Return {name: (function, arguments)}; a function may change its arguments in place."""

    def draw(*shape):
        return rng.normal(size=shape).astype(dtype)

    cases = _core_cases(draw, sizes) | _weighting_cases(draw, sizes) | _loss_cases(draw, sizes)
    return cases | _product_cases(draw, sizes) | _adam_cases(draw, sizes, rng)


NAMES = tuple(make_cases(np.random.default_rng(0), Sizes(), np.float64))
# Adam does nothing but operations that IEEE 754 fixes, in one order: the same bits everywhere.
EXACT = tuple(name for name in NAMES if name.startswith(("adam_step", "adam_rows", "adam_table")))


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
    if not name.startswith("adam"):  # Adam's limits for small moments are those of the dtype
        want = on_host(in_float64(case))
    tol = 3e-6 if dtype == np.float32 else 1e-13
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g, w, rtol=0, atol=tol * max(1.0, abs(w).max(initial=0.0)))
