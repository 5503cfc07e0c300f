"""Identities of derivations 3.8, and the known floor of the regulariser, reached by training."""

from itertools import pairwise

import numpy as np
import pytest
from small import small_batch, small_model

from midpg_np.checks import perturbed
from midpg_np.layers.mir import MutualInformation
from midpg_np.training.optim import Adam
from midpg_np.tree import tree_copy, tree_flatten, tree_unflatten


def mutual_information_floor(p):
    """Smallest loss if context and signal both tell the scenario exactly (derivations 3.3)."""
    return (p * np.log1p(p)).sum() - (p**2 * np.log(p / (1 + p))).sum()


def product_of_marginals(counts):
    """Scenarios and a permutation in which every pair of scenarios meets in its exact share."""
    n_rows = sum(counts)
    scenario = np.repeat(np.arange(len(counts)), counts)
    unused = [list(np.flatnonzero(scenario == d)) for d in range(len(counts))]
    partner = []
    for n_own in counts:
        for other, n_other in enumerate(counts):
            share, rest = divmod(n_own * n_other, n_rows)
            assert rest == 0
            partner += [unused[other].pop() for _ in range(share)]
    return scenario, np.array(partner)


def train_discriminator(scenario, partner, disc, seed=0, n_steps=1500):
    """Train a discriminator on one-hot contexts and one distinct random core per scenario."""
    rng = np.random.default_rng(seed)
    n_scenarios = scenario.max() + 1
    e = np.eye(n_scenarios)[scenario]
    q = rng.normal(size=(n_scenarios, n_scenarios + 2))[scenario]
    mi = MutualInformation(e.shape[1], q.shape[1], disc=disc)
    params = mi.init(rng)
    adam = Adam(lr=0.02)
    state = adam.init(params)
    for _ in range(n_steps):
        _, cache = mi.forward(params, e, e[partner], q)
        adam.update(params, mi.backward(1.0, cache)[3], state)
    return mi.forward(params, e, e[partner], q)[0]


@pytest.mark.parametrize(("n_scenarios", "floor"), [(2, 0.9548), (3, 0.7498), (10, 0.3351)])
def test_the_floor_of_uniform_scenarios(n_scenarios, floor):
    p = np.full(n_scenarios, 1 / n_scenarios)
    assert mutual_information_floor(p) == pytest.approx(floor, abs=5e-5)


@pytest.mark.parametrize("disc", ["mlp", "bilinear"])
@pytest.mark.parametrize("counts", [(4, 4), (6, 6, 6), (8, 4, 4), (10,) * 10])
def test_training_reaches_the_floor_within_one_percent(counts, disc):
    floor = mutual_information_floor(np.array(counts) / sum(counts))
    loss = train_discriminator(*product_of_marginals(counts), disc)
    assert floor <= loss < 1.01 * floor


def test_partners_that_avoid_the_own_scenario_fall_below_the_floor():
    scenario = np.repeat(np.arange(3), 6)
    partner = np.roll(np.arange(18), 6)
    floor = mutual_information_floor(np.full(3, 1 / 3))
    assert train_discriminator(scenario, partner, "mlp") < 0.1 * floor


def unit_order(width, n_groups):
    """Tile units in an order whose blocks are their groups, for every number in ``n_groups``.

    Each number divides the next, so sorting by the coarsest group first keeps all groups whole.
    """
    return np.array(sorted(range(width), key=lambda i: [i % d for d in sorted(n_groups)]))


def group_labels(order, n_groups):
    """Old tile group of each new block."""
    return order[:: len(order) // n_groups] % n_groups


def relabel_core(flat, name, weighting, rows, columns):
    """Permute what a DWM puts out, so that its new core is the old one [rows][:, columns]."""
    d_r, d_c, d_k = weighting.d_r, weighting.d_c, weighting.d_k
    shapes = {
        "core_generator": (d_r, d_c),
        "row_generator": (d_r, d_k),
        "column_generator": (d_k, d_c),
    }
    for generator in weighting.generators:
        index = np.arange(np.prod(shapes[generator])).reshape(shapes[generator])
        index = index[rows] if generator != "column_generator" else index
        index = index[:, columns] if generator != "row_generator" else index
        last = f"{name}.weighting.{generator}.layer_2"
        flat[f"{last}.W"] = flat[f"{last}.W"][:, index.reshape(-1)]
        flat[f"{last}.b"] = flat[f"{last}.b"][index.reshape(-1)]
    if weighting.variant == "r":
        flat[f"{name}.weighting.C_share"] = flat[f"{name}.weighting.C_share"][:, columns]
    if weighting.variant == "c":
        flat[f"{name}.weighting.R_share"] = flat[f"{name}.weighting.R_share"][rows]


def renumbered(model, params):
    """Return a tile network's parameters with units in block order, and that of its inputs."""
    flat = tree_flatten(tree_copy(params))
    layers = list(model.layers.items())
    cuts = [[layers[0][1].weighting.d_r]]  # per axis: the numbers of groups that it is cut into
    for (_, layer), (_, following) in pairwise(layers):
        cuts.append([layer.weighting.d_c, following.weighting.d_r])
    cuts.append([layers[-1][1].weighting.d_c])
    widths = [layers[0][1].dim_in, *(layer.dim_out for _, layer in layers)]
    orders = [unit_order(width, cut) for width, cut in zip(widths, cuts, strict=True)]
    for (name, layer), inputs, outputs in zip(layers, orders[:-1], orders[1:], strict=True):
        flat[f"{name}.W"] = flat[f"{name}.W"][inputs][:, outputs]
        flat[f"{name}.b"] = flat[f"{name}.b"][outputs]
        weighting, d_aw = layer.weighting, model.dim_aware
        for generator in weighting.generators:  # it reads [E_aw, H]; H is renumbered
            path = f"{name}.weighting.{generator}.layer_1.W"
            flat[path] = np.concatenate([flat[path][:d_aw], flat[path][d_aw:][inputs]])
        rows = group_labels(inputs, weighting.d_r)
        columns = group_labels(outputs, weighting.d_c)
        relabel_core(flat, name, weighting, rows, columns)
    flat["head.W"] = flat["head.W"][orders[-1]]
    return tree_unflatten(flat), orders[0]


def logits_from(model, params, E_aw, H):
    """Run the layers of a DPG on a given backbone input."""
    for name, layer in model.layers.items():
        A, _ = layer.forward(params[name], H, np.concatenate([E_aw, H], axis=1))
        H = np.maximum(A, 0.0)
    return (H @ params["head"]["W"] + params["head"]["b"])[:, 0]


@pytest.mark.parametrize("variant", ["non", "rc", "r", "c"])
@pytest.mark.parametrize(
    ("hidden", "row_divisor", "col_divisor"), [((12, 6), 2, 2), ((12, 6), 6, 3), ((12, 8), 2, 4)]
)
def test_a_tile_network_is_a_renumbered_block_network(variant, hidden, row_divisor, col_divisor):
    """On hidden axes the repeat mode is a matter of numbering units and generator outputs.

    On the input axis it is not: there tile and block tie different coordinates, so the block
    network gets its inputs renumbered, which no embedding could do.
    """
    options = {"variant": variant, "hidden": hidden, "d_k": 1}
    options |= {"row_divisor": row_divisor, "col_divisor": col_divisor}
    tile = small_model("dpg", repeat_mode="tile", **options)
    block = small_model("dpg", repeat_mode="block", **options)
    rng = np.random.default_rng(3)
    params = perturbed(tile.init(rng), rng)
    X, _ = tile.embedding.forward(params["embedding"], small_batch(rng).codes)
    E_aw = X[:, : tile.dim_aware]

    block_params, inputs = renumbered(tile, params)
    expected = logits_from(tile, params, E_aw, X)
    is_same = np.allclose(logits_from(block, params, E_aw, X), expected)
    assert is_same == (variant == "non")  # a core of full size is not repeated at all
    got = logits_from(block, block_params, E_aw, X[:, inputs])
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
