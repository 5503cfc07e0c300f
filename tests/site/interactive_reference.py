"""Settings of the page "Weighting matrices by hand", and what it must show, by the package.

The page draws its numbers by a small generator; the same one stands here a second time.
"""

import warnings

import numpy as np
from numpy.testing import assert_allclose

from midpg_np.layers.dwm import GENERATORS, DynamicWeighting
from midpg_np.layers.modulated import textbook, textbook_backward
from midpg_np.layers.modulated_layer import ModulatedLayer, divisors
from midpg_np.layers.repeat import repeat, repeat_backward
from midpg_np.ops import scaled_sigmoid_backward

EXAMPLES = 3
START = {
    **{"variant": "r", "mode": "block", "d_m": 6, "d_n": 4, "d_r": 2, "d_c": 2, "d_k": 1},
    **{"gain": 1.0, "sample": 0, "seed": 1, "d_aw": 8, "u": 16, "output": 0, "every": False},
}

# Name of an array: its number in the generator, and its largest value in tenths.
ARRAYS = {"R": (1, 20), "C": (2, 20), "P": (3, 20), "W": (4, 10), "H": (5, 10), "b": (6, 10)}


def draw_settings(rng, variant, mode):
    """Draw settings of a variant and a mode, from all that the page offers."""
    d_m, d_n = (int(n) for n in rng.integers(1, 17, size=2))
    whole = variant == "non"
    return {
        **{"variant": variant, "mode": mode, "d_m": d_m, "d_n": d_n},
        "d_r": d_m if whole else int(rng.choice(divisors(d_m))),
        "d_c": d_n if whole else int(rng.choice(divisors(d_n))),
        "d_k": int(rng.integers(1, 5)),
        "gain": int(rng.integers(1, 41)) / 10,
        "sample": int(rng.integers(EXAMPLES)),
        "seed": int(rng.integers(1, 51)),
        "d_aw": int(rng.integers(1, 33)),
        "u": int(rng.choice([0, int(rng.integers(1, 65))])),
        "output": int(rng.integers(d_n)),
        "every": bool(rng.integers(2)),
    }


def actions(s):
    """List the moves of sliders and clicks that lead to settings."""
    index = {name: s[name] - 1 for name in ("d_m", "d_n", "d_k", "seed", "d_aw")}
    index |= {"gain": round(10 * s["gain"]) - 1, "sample": s["sample"], "u": s["u"]}
    if s["variant"] != "non":
        index["d_r"] = divisors(s["d_m"]).index(s["d_r"])
        index["d_c"] = divisors(s["d_n"]).index(s["d_c"])
    return [
        *(["click", f"#{name}-{s[name]}"] for name in ("variant", "mode")),
        *(["slide", name, place] for name, place in index.items()),
        ["every", s["every"]],
        ["cell", "A", s["sample"], s["output"]],
        ["cell", "S", s["d_m"] // 2, s["d_n"] // 2],
    ]


def mix(x):
    """Return the last step of MurmurHash3."""
    x = (x ^ (x >> 16)) * 0x85EBCA6B % 2**32
    x = (x ^ (x >> 13)) * 0xC2B2AE35 % 2**32
    return x ^ (x >> 16)


def number(seed, name, *place):
    """Draw one entry; place is example, row and column."""
    key, limit = ARRAYS[name]
    bits = 0
    for part in (seed, key, *place):
        bits = mix((bits + 0x9E3779B9 + part) % 2**32)
    return (bits % (2 * limit + 1) - limit) / 10


def draw(s, name, shape):
    """Draw an array whose axes are example, row and column."""
    entries = [number(s["seed"], name, *place) for place in np.ndindex(shape)]
    return np.array(entries).reshape(shape)


def draw_inputs(s):
    """Draw what the page draws, as a shared factor without its first axis."""
    arrays = {
        "W": draw(s, "W", (1, s["d_m"], s["d_n"]))[0],
        "b": draw(s, "b", (1, 1, s["d_n"]))[0, 0],
    }
    arrays["H"] = draw(s, "H", (EXAMPLES, 1, s["d_m"]))[:, 0]
    if s["variant"] == "non":
        return {**arrays, "P": draw(s, "P", (EXAMPLES, s["d_r"], s["d_c"]))}
    R = draw(s, "R", (1 if s["variant"] == "c" else EXAMPLES, s["d_r"], s["d_k"]))
    C = draw(s, "C", (1 if s["variant"] == "r" else EXAMPLES, s["d_k"], s["d_c"]))
    return {**arrays, "R": R, "C": C, "P": R @ C}


def make_layer(s, dim_in, hidden):
    """Make the layer of the package that has these settings."""
    with warnings.catch_warnings():  # a d_k above min(d_r, d_c) is a mistake that the page shows
        warnings.filterwarnings("ignore", message="d_k = ")
        sizes = {name: s[name] for name in ("d_r", "d_c", "d_k", "variant", "gain")}
        weighting = DynamicWeighting(dim_in, hidden=hidden, **sizes)
    return ModulatedLayer(s["d_m"], s["d_n"], weighting, repeat_mode=s["mode"])


def layer_params(s, arrays):
    """Parameters of a layer whose generators, on the rows of a unit matrix, give the factors."""
    generated = {"core_generator": "P", "row_generator": "R", "column_generator": "C"}
    weighting = {}
    for name in GENERATORS[s["variant"]]:
        W = arrays[generated[name]].reshape(EXAMPLES, -1)
        weighting[name] = {"layer_1": {"W": W, "b": np.zeros(W.shape[1])}}
    if s["variant"] == "r":
        weighting["C_share"] = arrays["C"][0]
    if s["variant"] == "c":
        weighting["R_share"] = arrays["R"][0]
    return {"W": arrays["W"], "b": arrays["b"], "weighting": weighting}


def expected_maps(s):
    """All matrices of the page at some settings, by the package."""
    arrays, b = draw_inputs(s), s["sample"]
    layer, params = make_layer(s, EXAMPLES, ()), layer_params(s, arrays)
    A, cache = layer.forward(params, arrays["H"], np.eye(EXAMPLES))
    dA = np.zeros_like(A)
    dA[slice(None) if s["every"] else b, s["output"]] = 1.0
    _, dQ, _ = layer.backward(dA.copy(), cache)
    _, grads = layer.weighting.backward(dQ, cache.weighting)

    Q = cache.weighting.Q
    S = repeat(Q, s["d_m"], s["d_n"], s["mode"])
    # With a core of the size of W nothing is copied, so the adjoint of the core is that of S.
    _, c_whole = textbook(arrays["H"], arrays["W"], S, "block")
    dS = textbook_backward(dA, c_whole)[2]
    assert_allclose(repeat_backward(dS, s["d_r"], s["d_c"], s["mode"]), dQ, atol=1e-12)
    maps = {"P": arrays["P"][b], "Q": Q[b], "S": S[b], "V": c_whole.V[b], "A": A}
    maps |= {"W": arrays["W"], "H": arrays["H"], "bias": arrays["b"][None]}
    maps |= {"dS": dS[b], "dQ": dQ[b], "dP": scaled_sigmoid_backward(dQ, (Q, s["gain"]))[b]}
    for name, generator in (("R", "row_generator"), ("C", "column_generator")):
        if generator in grads:
            maps[name] = arrays[name][b]
            maps[f"d{name}"] = grads[generator]["layer_1"]["W"][b].reshape(maps[name].shape)
        elif s["variant"] != "non":
            maps[name], maps[f"d{name}"] = arrays[name][0], grads[f"{name}_share"]
    return maps
