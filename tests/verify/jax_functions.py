"""Functions as somebody else would write them in JAX, for the sizes of ``small.py``.

Their trees are lists of layers with "kernel" and "bias", as Flax names them; nothing here knows the
package or its name of anything.  Numbers are drawn by NumPy: JAX compiles a program for each shape.
"""

from contextlib import contextmanager
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np

VOCAB, AWARE, DIM = (3, 5, 4), 2, 2


@contextmanager
def on_the_cpu_and_quickly_compiled():
    option = "jax_disable_most_optimizations"
    before = jax.config.values[option]
    jax.config.update(option, True)
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        yield
    jax.config.update(option, before)


def keep(name, x):
    return x


def normal(rng, *shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


def init_dense(rng, d_in, d_out):
    return {"kernel": normal(rng, d_in, d_out), "bias": jnp.asarray(np.zeros(d_out), jnp.float32)}


def init_stack(rng, *widths):
    return [init_dense(rng, *pair) for pair in pairwise(widths)]


def init_tables(rng):
    return [normal(rng, n, DIM) for n in VOCAB]


def dense(layer, x):
    return x @ layer["kernel"] + layer["bias"]


def stack(layers, x):
    for layer in layers[:-1]:
        x = jax.nn.relu(dense(layer, x))
    return dense(layers[-1], x)


def embed(tables, codes):
    return jnp.concatenate([table[codes[:, f]] for f, table in enumerate(tables)], axis=1)


# --- a plain network, whose last layer is out x in ------------------------------------------------


def init_network():
    rng = np.random.default_rng(0)
    head = init_dense(rng, 1, 6) | {"bias": jnp.asarray(np.zeros(1), jnp.float32)}
    return {"tables": init_tables(rng), "layers": init_stack(rng, 6, 12, 6), "head": head}


def network(params, inputs, tap=keep, *, training):
    h = tap("fields", embed(params["tables"], inputs["codes"]))
    for i, layer in enumerate(params["layers"]):
        h = jax.nn.relu(tap(f"dense_{i}", dense(layer, h)))
    return h @ params["head"]["kernel"].T + params["head"]["bias"]


TABLES = {"embedding.table": {"concat": ["tables.0", "tables.1", "tables.2"]}}
NETWORK = TABLES | {
    "mlp.layer_1.W": "layers.0.kernel",
    "mlp.layer_1.b": "layers.0.bias",
    "mlp.layer_2.W": "layers.1.kernel",
    "mlp.layer_2.b": "layers.1.bias",
    "mlp.layer_3.W": {"name": "head.kernel", "transpose": True},
    "mlp.layer_3.b": "head.bias",
}
NETWORK_TAPS = {"X": "fields", "mlp.A_1": "dense_0", "mlp.A_2": "dense_1"}


def plain(params, inputs, *, training):
    """The same with nested dictionaries and one table, and without a tap."""
    rows = inputs["codes"] + jnp.array([0, 3, 8])
    h = params["embedding"]["table"][rows].reshape(len(rows), -1)
    for i in (1, 2, 3):
        h = jax.nn.relu(h) if i > 1 else h
        layer = params["mlp"][f"layer_{i}"]
        h = h @ layer["W"] + layer["b"]
    return h


# --- MI-DPG, variant r ----------------------------------------------------------------------------


def init_midpg():
    rng = np.random.default_rng(0)
    shapes = [(6, 12, 2, 6), (12, 6, 4, 3)]
    layers = [
        init_dense(rng, d_in, d_out)
        | {"gen": init_stack(rng, 4 + d_in, 4, 2 * d_r), "share": normal(rng, 2, d_c)}
        for d_in, d_out, d_r, d_c in shapes
    ]
    critics = [init_stack(rng, 16, 3, 1) for _ in shapes]
    head = init_dense(rng, 6, 1)
    return {"tables": init_tables(rng), "layers": layers, "critics": critics, "head": head}


def midpg(params, inputs, tap=keep, *, training, stop=keep):
    h = embed(params["tables"], inputs["codes"])
    e, terms = h[:, : AWARE * DIM], []
    for i, (layer, critic) in enumerate(zip(params["layers"], params["critics"], strict=True)):
        made = stack(layer["gen"], jnp.concatenate([e, stop("hidden", h)], axis=1))
        core = jax.nn.sigmoid(made.reshape(len(h), -1, 2) @ layer["share"])
        core = tap("core", core)
        h = jax.nn.relu(tap("layer", modulated(layer, core, h)))
        if training:
            q = core.reshape(len(h), -1)
            t = (
                tap(f"critic_{i}", stack(critic, jnp.concatenate([x, q], axis=1)))
                for x in (e, stop("negatives", e[inputs["partner"]]))
            )
            terms.append(jensen_shannon(*t))
    logit = dense(params["head"], h)
    return (logit, {"mi": tap("mi", sum(terms) / len(terms))}) if training else logit


def modulated(layer, core, h):
    """Weights are multiplied group by group, and never written out row by row."""
    (_, d_r, d_c), (d_in, d_out) = core.shape, layer["kernel"].shape
    W = layer["kernel"].reshape(d_r, d_in // d_r, d_c, d_out // d_c)
    out = jnp.einsum("brc,ricj,bri->bcj", core, W, h.reshape(len(h), d_r, -1))
    return out.reshape(len(h), d_out) + layer["bias"]


def jensen_shannon(matching, shuffled):
    return (jax.nn.softplus(-matching) + jax.nn.softplus(shuffled)).mean()


def affine(case, path):
    return {f"{case}.W": f"{path}.kernel", f"{case}.b": f"{path}.bias"}


MIDPG, MIDPG_TAPS = TABLES | affine("head", "head"), {}
for i in range(2):
    MIDPG |= affine(f"layer_{i + 1}", f"layers.{i}")
    MIDPG[f"layer_{i + 1}.weighting.C_share"] = f"layers.{i}.share"
    for j in range(2):
        generator = f"layer_{i + 1}.weighting.row_generator.layer_{j + 1}"
        MIDPG |= affine(generator, f"layers.{i}.gen.{j}")
        MIDPG |= affine(f"discriminators.layer_{i + 1}.layer_{j + 1}", f"critics.{i}.{j}")
    MIDPG_TAPS |= {
        f"layer_{i + 1}.Q": f"core[{i}]",
        f"layer_{i + 1}.A": f"layer[{i}]",
        f"mi.layer_{i + 1}.pos.output": f"critic_{i}[0]",
        f"mi.layer_{i + 1}.neg.output": f"critic_{i}[1]",
    }
