"""
Shared factors, and gates as special cases
==========================================

**What you will know.** Who makes the factors of tutorial 06, why MI-DPG generates one of them per
example and learns the other once for all, and how that changes a single letter of the backward
pass. Where the adjoints go from there: the layer's input has two readers. And that gates on the
inputs or on the outputs of a layer, as other papers have them, are two sizes of the same core.

**Read first.** Tutorials 05 and 06.

**Equations.** Equations (3) to (5) of the paper, derivations 3.2a to 3.2c and 3.2i; their adjoints,
derivations 3.4g to 3.4o; gates, derivations 3.8a and 11a. The code is ``midpg_np/layers/dwm.py``
and ``midpg_np/layers/modulated_layer.py``.

**Time.** Two seconds.
"""

# %%
# Who makes the factors
# ---------------------
# Tutorial 06 ended at two thin matrices :math:`R_b` and :math:`C_b`. They come from small
# networks, the **generators**. A generator is an MLP (tutorial 03) that reads
#
# .. math:: U_b = [E^{aw}_b,\ H_b] ,
#
# the embeddings of the scenario-aware fields, :math:`d_{aw}` numbers, and the layer's input, side
# by side. Its output is cut into rows: of :math:`d_r d_k` numbers, the first :math:`d_k` are row 0
# of :math:`R_b`, and so on. Nothing is computed in that step, so its adjoint is the reshape in the
# other direction.
#
# Must both factors be generated? The paper compares:
#
# ========  =============================  =====================  =============================
# variant   :math:`P_b`                    generated per example  learned once, shared
# ========  =============================  =====================  =============================
# ``rc``    :math:`R_b C_b`                both                   nothing
# ``r``     :math:`R_b C_{share}`          :math:`R_b`            :math:`C_{share}`
# ``c``     :math:`R_{share} C_b`          :math:`C_b`            :math:`R_{share}`
# ``non``   the generator's output         all of :math:`P_b`     nothing
# ========  =============================  =====================  =============================
#
# The paper reports the best results with ``r``, and ``r`` is the default here. A shared factor
# is a parameter like :math:`W`: all examples use the same one, and it needs no generator. Here
# is a weighting of variant ``r`` with a linear generator (``hidden=()``), so that every step
# fits on a line:

import numpy as np

from midpg_np import expect_close, perturbed, plots
from midpg_np.checks import Case, check_gradients
from midpg_np.layers.core import sigmoid_of_product, sigmoid_of_product_backward
from midpg_np.layers.dwm import DynamicWeighting
from midpg_np.layers.gated_tower import GatedTower
from midpg_np.layers.modulated_layer import (
    ModulatedLayer,
    modulated_bias,
    modulated_bias_backward,
)
from midpg_np.layers.pruned_layer import PrunedLayer
from midpg_np.layers.pruner import Pruner
from midpg_np.layers.repeat import repeat
from midpg_np.ops import affine, affine_backward, concat, sigmoid
from midpg_np.plots.style import heat_map
from midpg_np.tree import tree_flatten, tree_size

rng = np.random.default_rng(7)
B, d_aw, d_m, d_n = 5, 7, 12, 8
d_r, d_c, d_k, gain = 3, 4, 2, 2.0
E_aw, H = rng.normal(size=(B, d_aw)), rng.normal(size=(B, d_m))
U, _ = concat([E_aw, H])

weighting = DynamicWeighting(d_aw + d_m, d_r, d_c, d_k, variant="r", hidden=(), gain=gain)
params = perturbed(weighting.init(rng), rng)  # also biases that are not zero
for path, leaf in tree_flatten(params).items():
    print(f"{path:24} {leaf.shape}")

generator = params["row_generator"]["layer_1"]
R = (U @ generator["W"] + generator["b"]).reshape(B, d_r, d_k)
P = R @ params["C_share"]  # NumPy uses the one matrix for every example
Q, cache = weighting.forward(params, U)
expect_close(gain * sigmoid(P)[0], Q, name="Q")

# %%
# The adjoint of a shared factor
# ------------------------------
# With a shared factor the product reads
#
# .. math:: P_{b,rc} = \sum_k R_{b,rk}\, C_{kc} .
#
# Compare with tutorial 06. One letter has gone: :math:`C` has no :math:`b`. The rule says to sum
# over the indices that a factor does not have, and now it lacks :math:`r` **and** :math:`b`:
#
# .. math:: \bar C_{kc} = \sum_b \sum_r R_{b,rk}\, \bar P_{b,rc} , \qquad
#    \text{that is}\qquad \bar C_{share} = \sum_b R_b^\top\, \bar P_b .
#
# In code it is the same change of one letter, ``bkc`` to ``kc``, and einsum sums by itself. That
# is why ``core.py`` builds its einsum strings from the shapes of the factors.

dQ = rng.normal(size=Q.shape)
dP = dQ * Q * (1.0 - Q / gain)
dC_by_loops = np.zeros((d_k, d_c))
for b, r, c, k in np.ndindex(B, d_r, d_c, d_k):
    dC_by_loops[k, c] += R[b, r, k] * dP[b, r, c]

_, c_core = sigmoid_of_product(R, params["C_share"], gain)
dR, dC = sigmoid_of_product_backward(dQ, c_core)
expect_close(dC_by_loops, dC, name="dC of the shared factor, by loops")
expect_close(np.einsum("brk,brc->kc", R, dP), dC, name="dC, by einsum")

# %%
# There is a second way to see it. Hand every example its own copy of :math:`C_{share}`, let
# tutorial 06 find the adjoint of each copy, and remember what the adjoint of copying is:

copies = np.repeat(params["C_share"][None], B, axis=0)
_, c_copies = sigmoid_of_product(R, copies, gain)
_, dC_copies = sigmoid_of_product_backward(dQ, c_copies)
print("one adjoint per copy:", dC_copies.shape)
expect_close(dC_copies.sum(axis=0), dC, name="dC, summed over the copies")

# %%
# So one law has now appeared five times: rows of an embedding table (tutorial 02), :math:`W` and
# :math:`b` (03 and 05), entries of the core (06), and a shared factor. **Whoever is read more
# than once receives the sum of what the readers send back.** It is a sum and never a mean. If
# the loss is a mean over the batch, its :math:`1/B` is already inside :math:`\bar P`, since it
# entered at the logits (tutorial 03).
#
# All variants, from the adjoint of the core to the generators and their input. Behind the
# factors there is nothing new: a reshape, and the affine map of tutorial 03. Where both factors
# are generated (``rc``), both generators read the same :math:`U`, so their shares of
# :math:`\bar U` add up.

for variant, row, column in (("rc", "brk", "bkc"), ("r", "brk", "kc"), ("c", "rk", "bkc")):
    layer = DynamicWeighting(d_aw + d_m, d_r, d_c, d_k, variant=variant, hidden=(), gain=gain)
    params = perturbed(layer.init(rng), rng)
    Q, cache = layer.forward(params, U)
    dU, grads = layer.backward(dQ, cache)

    dP = dQ * Q * (1.0 - Q / gain)
    d_factors = {
        "row_generator": np.einsum(f"brc,{column}->{row}", dP, cache.core.C),
        "column_generator": np.einsum(f"{row},brc->{column}", cache.core.R, dP),
    }
    dU_by_hand = np.zeros_like(U)
    for name, shared in (("row_generator", "R_share"), ("column_generator", "C_share")):
        if name in params:
            d_output = d_factors[name].reshape(B, -1)
            expect_close(U.T @ d_output, grads[name]["layer_1"]["W"], name=f"{variant}: {name}.W")
            dU_by_hand += d_output @ params[name]["layer_1"]["W"].T
        else:
            expect_close(d_factors[name], grads[shared], name=f"{variant}: {shared}")
    expect_close(dU_by_hand, dU, name=f"{variant}: dU")

# %%
# That is ``dwm.py``, forward and backward. The variant ``non`` has no factors, so :math:`\bar P`
# itself is reshaped and goes to the generator.
#
# The layer's input has two readers
# ---------------------------------
# A modulated layer puts things together: the weighting makes the core from :math:`U`, the
# product uses it on :math:`H`, then come bias and activation. Now count the readers of
# :math:`H_{bi}`:
#
# - the product, as in tutorial 05, which sends back
#   :math:`\bar H^{main}_{bi} = \sum_j S_{b,ij} W_{ij} \bar A_{bj}`;
# - the generators, because :math:`H` is a part of :math:`U = [E^{aw}, H]`. Cut :math:`\bar U`
#   where :math:`U` was joined: :math:`\bar U = [\bar U^e, \bar U^h]`.
#
# .. math:: \bar H = \bar H^{main} + \bar U^h , \qquad \bar E^{aw} \mathrel{+}= \bar U^e .
#
# :math:`\bar E^{aw}` has a ``+=`` because every layer's generators read it, and others, too
# (tutorial 10). ``ModulatedLayer.backward`` stops at the core and returns :math:`\bar Q`, and
# its caller takes the last steps. The reason is the same once more: in training the core has a
# second reader, the discriminator of tutorial 09, and the sum of both must be known before the
# generators run backwards.

layer = ModulatedLayer(d_m, d_n, weighting, activation="relu")
inputs = {"E_aw": E_aw, "H": H, "params": perturbed(layer.init(rng), rng)}


def layer_forward(inputs, frozen=None):
    """One modulated layer, with the generators' input put together in front."""
    U, _ = concat([inputs["E_aw"], inputs["H"]])
    y, cache = layer.forward(inputs["params"], inputs["H"], U)
    return (y,), cache


def layer_backward(d_outputs, cache, forget_generators=False):
    """All adjoints; ``forget_generators`` leaves out what they send to H."""
    dH_main, dQ, grads = layer.backward(d_outputs[0].copy(), cache)
    dU, grads["weighting"] = weighting.backward(dQ, cache.weighting)
    dH = dH_main if forget_generators else dH_main + dU[:, d_aw:]
    return {"E_aw": dU[:, :d_aw], "H": dH, "params": grads}


def forgetful_backward(d_outputs, cache):
    """Read H as if only the product used it."""
    return layer_backward(d_outputs, cache, forget_generators=True)


right_case = Case("both readers", inputs, layer_forward, layer_backward)
wrong_case = Case("product only", inputs, layer_forward, forgetful_backward)
good = check_gradients(right_case, rng, differences=False)  # the complex step alone
good.raise_if_wrong()
bad = check_gradients(wrong_case, rng, differences=False)
print(f"both readers: {good.n_entries} entries, largest error {good.complex_error:.0e}")
print("product only:", bad.failures[0])
assert not bad.ok

# %%
# The forgotten share heads the list of mistakes in derivations 3.9. It is hard to notice, because
# all gradients of the layer's **own** parameters are right. Only what it hands to the layer below
# is not.
#
# A gate on the outputs
# ---------------------
# Choose the core as small as it can be along the inputs: :math:`d_r = d_k = 1` and
# :math:`d_c = d_n`. Then :math:`S_b` has one row, repeated for all inputs:
# :math:`S_{b,ij} = q_{bj}`, with :math:`q_b` for the only row of the core. It comes out of the
# sum:
#
# .. math::
#
#    A_{bj} = \sum_i q_{bj} W_{ij} H_{bi} + b_j = q_{bj} \sum_i W_{ij} H_{bi} + b_j .
#
# Each output is multiplied with a number of its own: a **gate**. PEPNet, the model of another paper
# (tutorial 13), gates its hidden units so, but behind the activation, with the factors
# :math:`\delta`: :math:`\delta \odot \mathrm{ReLU}(HW + b)`. As long as the gate is positive the
# two orders are the same, since ReLU does not mind a positive factor:
#
# .. math::
#
#    \delta \odot \mathrm{ReLU}(A) = \mathrm{ReLU}(\delta \odot A)
#    \qquad\text{for } \delta > 0 .
#
# What remains is the bias, which PEPNet gates and equation (1) does not. The library's option
# ``modulate_bias`` weights :math:`b_j` with the mean of column :math:`j` of :math:`S_b`. All core
# rows are copied equally often, so this is the mean over the core rows. In place of :math:`b_j` the
# layer then adds
#
# .. math:: \beta_{bj} = b_j\, \frac1{d_r} \sum_r Q_{b,\,r\,c(j)} .
#
# Two factors, two adjoints. :math:`b_j` is read by every example. :math:`Q_{b,rc}` is read by
# all outputs :math:`j` of its column group, each time with the slope :math:`b_j / d_r`:
#
# .. math::
#
#    \bar b_j = \sum_b \bar\beta_{bj}\, \frac1{d_r} \sum_r Q_{b,\,r\,c(j)} , \qquad
#    \bar Q_{b,rc} = \frac1{d_r} \sum_{j:\ c(j) = c} \bar\beta_{bj}\, b_j .
#
# The second is the same for every :math:`r`, so the library returns one row of it and lets NumPy
# spread it when it is added to the product's share of :math:`\bar Q`.

Q = rng.uniform(0.0, 2.0, size=(B, d_r, d_c))
bias = rng.normal(size=d_n)
d_beta = rng.normal(size=(B, d_n))
beta_by_loops, db_by_loops, dQ_by_loops = np.zeros((B, d_n)), np.zeros(d_n), np.zeros_like(Q)
for b, j, r in np.ndindex(B, d_n, d_r):
    c = j // (d_n // d_c)
    beta_by_loops[b, j] += bias[j] * Q[b, r, c] / d_r
    db_by_loops[j] += d_beta[b, j] * Q[b, r, c] / d_r
    dQ_by_loops[b, r, c] += bias[j] * d_beta[b, j] / d_r

beta, c_bias = modulated_bias(bias, Q, "block")
db, dQ_bias = modulated_bias_backward(d_beta, c_bias)
expect_close(beta_by_loops, beta, name="modulated bias")
expect_close(db_by_loops, db, name="db")
expect_close(dQ_by_loops, np.broadcast_to(dQ_bias, Q.shape), name="dQ from the bias")

# %%
# Now the claim: with these sizes, a modulated bias and ReLU, **a modulated layer is a gated layer
# of PEPNet**. The library has both. ``GatedTower`` is PEPNet's **tower**: a hidden layer, the gate
# behind it, and an output. Its gate lies between 0 and :math:`\gamma`, so the gain :math:`\rho`
# must be :math:`\gamma`. We give both the same weights; the shared factor, here a single number, is
# set to 1.

tower = GatedTower((d_m, d_n, 1), dim_context=d_aw + d_m, gate_hidden=8, gamma=gain)
p_tower = perturbed(tower.init(rng), rng)
z_tower, c_tower = tower.forward(p_tower, H, U)

gate = DynamicWeighting(d_aw + d_m, 1, d_n, 1, variant="c", hidden=(8,), gain=gain)
layer = ModulatedLayer(d_m, d_n, gate, modulate_bias=True, activation="relu")
p_gate = {"column_generator": p_tower["gate_1"], "R_share": np.ones((1, 1))}
y, c_layer = layer.forward(p_tower["layer_1"] | {"weighting": p_gate}, H, U)
z, c_head = affine(y, **p_tower["layer_2"])
expect_close(z, z_tower, name="z")

# %%
# The values agree. Now the adjoints of both inputs and of every parameter: hidden layer, output,
# and both maps of the gate.

dz = rng.normal(size=z.shape)
dH_tower, dU_tower, g_tower = tower.backward(dz, c_tower)
dy, dW_head, db_head = affine_backward(dz, c_head)
dH, dQ, g_layer = layer.backward(dy, c_layer)
dU, g_gate = gate.backward(dQ, c_layer.weighting)
expect_close(dH, dH_tower, name="dH")
expect_close(dU, dU_tower, name="dU")
for path, leaf in tree_flatten(g_tower["layer_1"]).items():
    expect_close(g_layer[path], leaf, name=f"layer_1.{path}")
expect_close(dW_head, g_tower["layer_2"]["W"], name="layer_2.W")
expect_close(db_head, g_tower["layer_2"]["b"], name="layer_2.b")
for path, leaf in tree_flatten(g_tower["gate_1"]).items():
    expect_close(tree_flatten(g_gate["column_generator"])[path], leaf, name=f"gate_1.{path}")

# %%
# Without the modulated bias, what goes into the ReLU would differ by
# :math:`(\delta - 1) \odot b`.
#
# A gate on the inputs
# --------------------
# The other extreme: :math:`d_c = d_k = 1` and :math:`d_r = d_m`. Now :math:`S_b` has one
# **column**, :math:`S_{b,ij} = q_{bi}`, with :math:`q_b` for the only column of the core, and the
# factor belongs to the input:
#
# .. math:: A_{bj} = \sum_i W_{ij}\, \bigl(q_{bi} H_{bi}\bigr) + b_j .
#
# This is what AdaSparse, another model of tutorial 13, does in its form ``scaling``, with linear
# generators: it multiplies every input of a layer with a number between 0 and a gain, which is
# ``beta`` there. The library's ``PrunedLayer`` makes that number from :math:`[E^{aw}, H]` by
# itself, so its :math:`\bar H` must contain both readers.

pruner = Pruner(d_aw + d_m, d_m, prune="scaling", beta=gain)
pruned = PrunedLayer(d_aw, d_m, d_n, pruner)
p_pruned = perturbed(pruned.init(rng), rng)
A_pruned, c_pruned = pruned.forward(p_pruned, H, E_aw, 1.0, None, training=True)

gate = DynamicWeighting(d_aw + d_m, d_m, 1, 1, variant="r", hidden=(), gain=gain)
layer = ModulatedLayer(d_m, d_n, gate)
p_gate = {"row_generator": {"layer_1": p_pruned["pruner"]}, "C_share": np.ones((1, 1))}
A, c_layer = layer.forward({"W": p_pruned["W"], "b": p_pruned["b"], "weighting": p_gate}, H, U)
expect_close(A, A_pruned, name="A")

# %%
# And back:

dA = rng.normal(size=A.shape)
dH_pruned, dE_pruned, g_pruned = pruned.backward(dA.copy(), c_pruned)
dH_main, dQ, g_layer = layer.backward(dA.copy(), c_layer)
dU, g_gate = gate.backward(dQ, c_layer.weighting)
expect_close(dH_main + dU[:, d_aw:], dH_pruned, name="dH")
expect_close(dU[:, :d_aw], dE_pruned, name="dE_aw")
expect_close(g_layer["W"], g_pruned["W"], name="W")
for path, leaf in g_pruned["pruner"].items():
    expect_close(g_gate["row_generator"]["layer_1"][path], leaf, name=f"pruner.{path}")

# %%
# Between the gates
# -----------------
# A gate on outputs cannot prefer one input to another, and a gate on inputs cannot prefer one
# output to another. The core of tutorial 06 stands between: it knows groups of inputs and groups
# of outputs.

figure = plots.new_figure(10.0, 3.4)
sizes = {"gate on inputs": (d_m, 1), "groups of both": (d_r, d_c), "gate on outputs": (1, d_n)}
for axes, (title, (rows, columns)) in zip(figure.subplots(1, 3), sizes.items(), strict=True):
    left = 1.5 * rng.normal(size=(1, rows, 1)) if rows > 1 else np.ones((1, 1, 1))
    right = 1.5 * rng.normal(size=(1, 1, columns)) if columns > 1 else np.ones((1, 1, 1))
    Q, _ = sigmoid_of_product(left, right, gain)
    image = heat_map(axes, repeat(Q, d_m, d_n, "block")[0], 0.0, gain)
    axes.set(title=f"{title}, core {rows} x {columns}", xlabel="output j", ylabel="input i")
figure.colorbar(image, ax=figure.axes, label="weighting S of one example", shrink=0.8)
plots.show(figure, "07_between_the_gates")

# %%
# What does each cost? For a layer of 128 inputs and 64 outputs, 16 numbers of context and
# generators with 32 hidden units: the numbers generated per example, and the parameters of the
# weighting.

choices = {
    "gate on inputs": ("r", 128, 1),
    "gate on outputs": ("c", 1, 64),
    "core, r": ("r", 16, 8),
    "core, c": ("c", 16, 8),
    "core, rc": ("rc", 16, 8),
    "full matrix, non": ("non", 128, 64),
}
for title, (variant, rows, columns) in choices.items():
    layer = DynamicWeighting(16 + 128, rows, columns, 1, variant=variant)
    generated = sum(layer.generated_widths.values())
    print(f"{title:18} {generated:5} generated  {tree_size(layer.init(rng)):7} parameters")

# %%
# The core of variant ``r`` generates the fewest numbers but one, and its parameters are nearly
# all in the generator's first map. The full matrix needs ``274976``, against ``8192`` weights in
# :math:`W` itself; that is the reason for everything since tutorial 06.
assert 128 * 64 == 8192

# %%
# Exercises
# ---------
# **1.** A friend initialises :math:`C_{share}` with zeros, "so that the weighting starts
# neutral". What do the generator and :math:`C_{share}` receive in the first step? And if the
# generator's last map starts at zero, too?
#
# .. dropdown:: Solution 1
#
#    :math:`\bar R_b = \bar P_b C_{share}^\top = 0`: the generator waits.
#    :math:`\bar C_{share}` is :math:`\sum_b R_b^\top\bar P_b`, not zero, so the next step
#    can move both. But with :math:`R_b = 0` as well both adjoints are zero, and they stay so
#    forever: a product of two zeros has no slope. That is why the library's shared factor never
#    starts at zero.
#
#    .. code-block:: python
#
#       C_zero, R_zero = np.zeros((d_k, d_c)), np.zeros_like(R)
#       dQ_any = rng.normal(size=(B, d_r, d_c))
#       _, c_one = sigmoid_of_product(R, C_zero, gain)
#       dR_one, dC_one = sigmoid_of_product_backward(dQ_any, c_one)
#       assert (dR_one == 0).all() and (dC_one != 0).all()
#       _, c_both = sigmoid_of_product(R_zero, C_zero, gain)
#       dR_both, dC_both = sigmoid_of_product_backward(dQ_any, c_both)
#       assert (dR_both == 0).all() and (dC_both == 0).all()
#
# **2.** With ``w_layout="out_in"`` the library stores :math:`W` as (outputs, inputs), and
# :math:`S` has the layout of :math:`W`. What does a core of one row do now? Test it.
#
# .. dropdown:: Solution 2
#
#    Rows are outputs now, columns are inputs. One row, repeated for all outputs, is a gate on
#    the **inputs**: :math:`A = (q \odot H) W^\top`. So the paper's remark that
#    :math:`d_r = d_k = 1` gives methods that gate outputs tells us how the paper lays out
#    :math:`W`: inputs first.
#
#    .. code-block:: python
#
#       turned = DynamicWeighting(d_aw + d_m, 1, d_m, 1, variant="c", hidden=(), gain=gain)
#       layer_out_in = ModulatedLayer(d_m, d_n, turned, w_layout="out_in")
#       p = perturbed(layer_out_in.init(rng), rng)
#       A_out_in, c = layer_out_in.forward(p, H, U)
#       q = c.weighting.Q[:, 0, :]
#       assert p["W"].shape == (d_n, d_m)
#       expect_close((q * H) @ p["W"].T + p["b"], A_out_in, name="A")
#
# **3.** A check without any derivative: if the loss is a mean over the batch, then a batch in
# which every row occurs twice must give the same gradient of :math:`C_{share}`. Show that the
# sum passes and that a mean over the examples fails.
#
# .. dropdown:: Solution 3
#
#    With twice the rows the mean gives each row half the weight, so :math:`\bar P` is halved,
#    and there are two of each. The sum is unchanged. A mean over the examples divides by twice
#    as much once more.
#
#    .. code-block:: python
#
#       C = rng.normal(size=(d_k, d_c))
#       dQ_any = rng.normal(size=(B, d_r, d_c))
#       _, c_once = sigmoid_of_product(R, C, gain)
#       _, dC_once = sigmoid_of_product_backward(dQ_any, c_once)
#       R_twice, dQ_twice = np.concatenate([R, R]), np.concatenate([dQ_any, dQ_any]) / 2
#       _, c_twice = sigmoid_of_product(R_twice, C, gain)
#       _, dC_twice = sigmoid_of_product_backward(dQ_twice, c_twice)
#       expect_close(dC_twice, dC_once, name="sum")
#       expect_close(dC_twice / (2 * B), dC_once / B / 2, name="mean: half of what it should be")
