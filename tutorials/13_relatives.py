"""
Relatives: one question asked of seven models
=============================================

MI-DPG is one of many models that let the scenario change a network. Their papers draw very
different pictures, but a layer of each can be asked the same question: **which matrix multiplies
the hidden vector of row** :math:`b`?

**What you will know.** The answer of each model, written by hand and compared with the library;
what such a matrix may look like, what it costs, and who can copy whom.

**Read first.** Tutorials 05 to 08 (weighting, core, shared factors, grouped forms).

**Equations.** Derivations 3.2 (DPG), 4 (DNN), 5 (PLE), 6 (STAR), 7 (PEPNet), 8 (AdaSparse), 9
(APG), 10 (OptMSM), 11 (identities), 12 (sizes).

**Time.** About two seconds.
"""

# %%
# The question
# ------------
# A layer turns hidden vectors :math:`H_b` with :math:`d_m` entries into pre-activations
# :math:`A_b` with :math:`d_n` entries. Write it as
#
# .. math:: A_{bj}=\sum_i V_{b,ij}H_{bi}+\beta_{bj}
#
# with a matrix :math:`V_b` and a bias :math:`\beta_b` of row :math:`b`. In a plain network they
# are the same :math:`W` and :math:`b` for all rows. A model for many scenarios is an answer to
# the question of what :math:`V_b` may be, and who decides it.
#
# Here are eight rows of three scenarios: hidden vectors ``H``, embeddings ``E_aw`` of the
# scenario-aware field, one row of a small table per scenario, and what a generator reads,
# :math:`U=[E^{aw},H]`. The rows are sorted by scenario, which spares us some bookkeeping.

import numpy as np

from midpg_np import expect_close
from midpg_np.layers.groups import group_rows
from midpg_np.ops import affine, sigmoid, softmax
from midpg_np.tree import tree_map

rng = np.random.default_rng(13)
D, d_aw, d_m, d_n = 3, 2, 6, 8
scenario = np.array([0, 0, 0, 1, 1, 2, 2, 2])
B = len(scenario)
groups = group_rows(scenario, D)

H = rng.normal(size=(B, d_m))
E_aw = rng.normal(size=(D, d_aw))[scenario]
U = np.concatenate([E_aw, H], axis=1)
W, b = rng.normal(size=(d_m, d_n)), rng.normal(size=d_n)
print("H", H.shape, " E_aw", E_aw.shape, " U", U.shape, " W", W.shape)

# %%
# Our side of every comparison is this loop, the definition above, one row at a time. Theirs is a
# layer of the library. Layers start with zero biases and other special values, which hide
# mistakes, so ``shaken`` moves every parameter away from its start.


def row_by_row(V, beta):
    return np.stack([h @ V_b for h, V_b in zip(H, V, strict=True)]) + beta


def shaken(params):
    return tree_map(lambda leaf: leaf + 0.7 * rng.normal(size=leaf.shape), params)


V_dnn = np.broadcast_to(W, (B, d_m, d_n))
expect_close(row_by_row(V_dnn, b), affine(H, W, b)[0], name="DNN: V_b = W")

# %%
# DPG and MI-DPG: a factor for every weight
# -----------------------------------------
# You know this one. The generator makes a thin factor :math:`R_b`, the core is
# :math:`Q_b=\rho\,\sigma(R_bC_{share})`, the repeat operator copies each entry of it over a block,
# and (derivations 3.2b to 3.2f)
#
# .. math:: V_b=S_b\odot W,\qquad S_{b,ij}=Q_{b,\lfloor i/f_r\rfloor,\lfloor j/f_c\rfloor}.
#
# The gain :math:`\rho=2` centres the factors at 1. MI-DPG has the same :math:`V_b`: its
# regulariser acts on the training and is gone in a prediction.

from midpg_np.layers.dwm import DynamicWeighting
from midpg_np.layers.modulated_layer import ModulatedLayer

gain, d_r, d_c = 2.0, 3, 2
weighting = DynamicWeighting(d_aw + d_m, d_r, d_c, d_k=1, variant="r", hidden=(5,), gain=gain)
dpg = ModulatedLayer(d_m, d_n, weighting)
p = shaken(dpg.init(rng)) | {"W": W, "b": b}

first, last = p["weighting"]["row_generator"].values()
R = np.maximum(U @ first["W"] + first["b"], 0.0) @ last["W"] + last["b"]  # (B, d_r), d_k = 1
Q = gain * sigmoid(R[:, :, None] * p["weighting"]["C_share"])[0]
rows, columns = np.arange(d_m) // (d_m // d_r), np.arange(d_n) // (d_n // d_c)  # of the core
V_dpg = Q[:, rows][:, :, columns] * W

expect_close(row_by_row(V_dpg, b), dpg.forward(p, H, U)[0], name="DPG: V_b = S_b * W")

# %%
# PEPNet: a factor for every output
# ---------------------------------
# PEPNet has **gates** (derivations 7.1a and 7.1e). A gate is a small network that ends in
# :math:`\delta=\gamma\,\sigma(\cdot)` with :math:`\gamma=2`. It reads embeddings of who and what is
# scored, and behind a stop-gradient what the tower reads; here we give it :math:`U`. It multiplies
# what a hidden layer puts out, :math:`\delta_b\odot\mathrm{ReLU}(A_b)`. As :math:`\delta>0`, it
# may as well be multiplied in front of the ReLU, and then it is a matrix and a bias:
#
# .. math:: V_b=W\,\mathrm{diag}(\delta_b),\qquad \beta_b=\delta_b\odot b.
#
# Here :math:`\mathrm{diag}(\delta)` is the matrix with :math:`\delta` on its diagonal and zeros
# elsewhere, so column :math:`j` of :math:`V_b` is column :math:`j` of :math:`W` times one number.
# (PEPNet has gates of a second kind, on its embeddings, derivations 7.1b. Those are gates on
# inputs, as in the next section.)

from midpg_np.layers.gated_tower import GatedTower

tower = GatedTower((d_m, d_n, 1), dim_context=d_aw + d_m, gate_hidden=5)
p = shaken(tower.init(rng)) | {"layer_1": {"W": W, "b": b}}

gate = p["gate_1"]
first, last = gate["layer_1"], gate["layer_2"]
delta = 2.0 * sigmoid(np.maximum(U @ first["W"] + first["b"], 0.0) @ last["W"] + last["b"])[0]
V_pepnet = W * delta[:, None, :]
gated = np.maximum(row_by_row(V_pepnet, delta * b), 0.0)

_, cache = tower.forward(p, H, U)
reaches_layer_2 = cache.affine[1].x
expect_close(gated, reaches_layer_2, name="PEPNet: V_b = W diag(delta_b)")

# %%
# AdaSparse: a factor for every input, or none
# --------------------------------------------
# AdaSparse has **pruners** (derivations 8.1a and 8.1b): an affine map of :math:`U`, and a sigmoid
# that gets steeper in training, as its temperature :math:`\alpha` rises. The factor, no permutation
# here, is :math:`\pi=v\,\mathbf 1[v>\epsilon]` with :math:`v=\beta\,\sigma(\alpha\,\cdot\,)`,
# :math:`\beta=2` and a threshold :math:`\epsilon`: small factors become 0, and what is left is a
# sparse network of this row's own. It multiplies the inputs:
#
# .. math:: V_b=\mathrm{diag}(\pi_b)\,W.
#
# The library hands stop-gradients to a layer from outside; ``pass_on`` stands for one that has
# nothing to stop.

from midpg_np.layers.pruned_layer import PrunedLayer
from midpg_np.layers.pruner import Pruner


def pass_on(name, x):
    return x


alpha, epsilon = 3.0, 0.25
pruned = PrunedLayer(d_aw, d_m, d_n, Pruner(d_aw + d_m, d_m, epsilon=epsilon))
p = shaken(pruned.init(rng)) | {"W": W, "b": b}
v = 2.0 * sigmoid(alpha * (U @ p["pruner"]["W"] + p["pruner"]["b"]))[0]
pi = v * (v > epsilon)
V_adasparse = pi[:, :, None] * W

A, _ = pruned.forward(p, H, E_aw, alpha, pass_on, training=True)
expect_close(row_by_row(V_adasparse, b), A, name="AdaSparse: V_b = diag(pi_b) W")
print("inputs pruned per row:", (pi == 0.0).sum(axis=1))

# %%
# STAR: a free factor for every weight, by scenario
# -------------------------------------------------
# STAR multiplies weight by weight as DPG does. But nothing is generated: each scenario
# :math:`d` owns a whole matrix :math:`W_d` of factors and a bias :math:`b_d`. With :math:`s_b` the
# scenario of row :math:`b` (derivations 6.1d),
#
# .. math:: V_b=W_{s_b}\odot W,\qquad \beta_b=b+b_{s_b}.
#
# All rows of a scenario have the same matrix, and a factor may have any value, negative ones
# included.

from midpg_np.layers.star_mlp import star_affine

W_d, b_d = 1.0 + 0.5 * rng.normal(size=(D, d_m, d_n)), rng.normal(size=(D, d_n))
V_star = W_d[scenario] * W

A, _ = star_affine(H, W, b, W_d, b_d, groups)
expect_close(row_by_row(V_star, b + b_d[scenario]), A, name="STAR: V_b = W_s * W")

# %%
# The four so far multiply one shared :math:`W` entry by entry, :math:`V_b=S_b\odot W`, and so their
# :math:`S_b` can be looked at side by side. The upper row shows the first row of the batch
# (scenario 0), the lower one the last (scenario 2).

from midpg_np import plots
from midpg_np.plots.style import heat_map

factors = {"PEPNet": V_pepnet, "AdaSparse": V_adasparse, "DPG": V_dpg, "STAR": V_star}
figure = plots.new_figure(11.0, 4.4)
grid = figure.subplots(2, len(factors), sharex=True, sharey=True)
for column, (name, V) in zip(grid.T, factors.items(), strict=True):
    for axes, row in zip(column, (0, B - 1), strict=True):
        image = heat_map(axes, (V[row] / W).round(2), 0.0, gain)
        axes.set_title(f"{name}, row {row}", fontsize=9)
    column[-1].set_xlabel("output j")
for axes in grid[:, 0]:
    axes.set_ylabel("input i")
bar = figure.colorbar(image, ax=list(grid.flat), shrink=0.8, extend="both")
bar.set_label("factor on weight (i, j)")
plots.show(figure, "13_relatives_factors")

# %%
# Columns, rows, blocks, anything: the pictures are the models' answers.
#
# APG: a small matrix between two thin ones
# -----------------------------------------
# APG has no :math:`W`. Two thin matrices, :math:`V` of shape :math:`(K,d_m)` and :math:`U` of shape
# :math:`(d_n,K)`, are shared by all rows (these are APG's letters: without a row index they have
# nothing to do with our :math:`V_b` and the generator's input). A generator that reads a
# condition, here :math:`E^{aw}`, makes a core :math:`S_b` of :math:`K\times K` between them
# (derivations 9.1b):
#
# .. math:: V_b=(U\,S_b\,V)^\top.

from midpg_np.layers.low_rank_layer import LowRankLayer

K = 2
apg = LowRankLayer(d_m, d_n, dim_condition=d_aw, rank=K, over_rank=None)
p = shaken(apg.init(rng))
generator = p["generator"]["layer_1"]
S = (E_aw @ generator["W"] + generator["b"]).reshape(B, K, K)
V_apg = np.stack([(p["U"] @ S_b @ p["V"]).T for S_b in S])

expect_close(row_by_row(V_apg, p["b"]), apg.forward(p, H, E_aw)[0], name="APG: V_b = (U S_b V)^T")

# %%
# OptMSM: the whole matrix from a code
# ------------------------------------
# OptMSM, which the library has as a reconstruction (derivations 10), learns a short vector
# :math:`Z_d` per scenario, its **scenario code**. A **hypernetwork**, an affine map
# :math:`\theta_d=Z_d\Omega+\omega_0`, turns it into all weights and biases of a tower with two
# layers (derivations 10.1d). The first :math:`d_md_n` entries of :math:`\theta_d` are the matrix of
# its first layer:
#
# .. math:: V_b=\mathrm{reshape}\bigl(\theta_{s_b,\,0\dots d_md_n-1}\bigr).

from midpg_np.layers.generated_tower import GeneratedTower
from midpg_np.layers.hypernetwork import Hypernetwork, TowerShape

d_z = 2
shape = TowerShape(d_m, d_n)
optmsm = GeneratedTower(Hypernetwork(d_z, shape))
p = shaken(optmsm.init(rng))
Z = rng.normal(size=(D, d_z))
theta = Z @ p["Omega"] + shape.pack(p["omega_0"])
V_optmsm = theta[scenario, : d_m * d_n].reshape(B, d_m, d_n)
beta = theta[scenario, d_m * d_n : d_m * d_n + d_n]

_, cache = optmsm.forward(p, H, Z, groups)
expect_close(row_by_row(V_optmsm, beta), cache.A, name="OptMSM: V_b = theta_s, reshaped")

# %%
# PLE: a mixture of experts
# -------------------------
# PLE gives each scenario **experts** of its own, and some to all. An expert is a layer with its
# ReLU. Its gates are not factors but shares: one affine map of the row and a **softmax**,
# :math:`w_e=e^{\alpha_e}/\sum_{e'}e^{\alpha_{e'}}`, which makes positive numbers of sum 1 out of
# any numbers :math:`\alpha_e`. A gate mixes the scenario's own experts and the shared ones
# (derivations 5.1a and 5.1b):
#
# .. math:: G_b=\sum_e w_{b,e}\,\mathrm{ReLU}(H_bW_e+b_e)
#
# Where a ReLU of expert :math:`e` is off, that column of :math:`W_e` counts nothing. So a matrix
# multiplies the row here too, and nothing comes behind it:
#
# .. math:: V_b=\sum_e w_{b,e}\,W_e\,\mathrm{diag}\bigl(\mathbf 1[H_bW_e+b_e>0]\bigr).
#
# The scenario acts twice: it says which experts there are, and its gate says how much of each.

from midpg_np.layers.candidates import Candidates
from midpg_np.layers.extraction import Extraction

level = Extraction(
    Candidates(D, n_specific=1, n_shared=1),
    (d_m, d_n),
    shared_gate="none",
    experts="own",
    gates="own",
)
p = shaken(level.init(rng))
own, shared, gate = p["specific"]["layer_1"], p["shared"]["layer_1"], p["specific_gate"]

V_ple, beta = np.empty((B, d_m, d_n)), np.empty((B, d_n))
for row, d in enumerate(scenario):
    w = softmax(H[row] @ gate["W"][d] + gate["b"][d])[0]
    W_e = np.stack([own["W"][d, 0], shared["W"][0]])  # (experts, d_m, d_n)
    b_e = np.stack([own["b"][d, 0], shared["b"][0]])
    weight = w[:, None] * (H[row] @ W_e + b_e > 0.0)  # (experts, d_n)
    V_ple[row] = (weight[:, None, :] * W_e).sum(axis=0)
    beta[row] = (weight * b_e).sum(axis=0)

(G, _), _ = level.forward(p, H, H, groups)
expect_close(row_by_row(V_ple, beta), G, name="PLE: V_b = sum_e w_e W_e (where on)")

# %%
# What the matrices can and cannot be
# -----------------------------------
# Two numbers tell the families apart. The **rank** of :math:`V_b`: APG's product passes through
# :math:`K` numbers, so it can never be more than :math:`K`, while a product entry by entry can keep
# full rank, however thin the core. And how many **different** matrices the eight rows have: three
# where the scenario alone decides, eight where the row's :math:`H` is read as well.

matrices = {
    "DNN": V_dnn,
    "PEPNet": V_pepnet,
    "AdaSparse": V_adasparse,
    "DPG": V_dpg,
    "STAR": V_star,
    "APG": V_apg,
    "OptMSM": V_optmsm,
    "PLE": V_ple,
}
for name, V in matrices.items():
    ranks = [int(np.linalg.matrix_rank(V_b)) for V_b in V]
    n_different = len(np.unique(V.reshape(B, -1).round(9), axis=0))
    print(f"{name:<10} ranks {ranks}   different matrices {n_different}")

# %%
# AdaSparse loses a rank with every input that it prunes; PLE's matrix has gaps where experts are
# off. In our setting APG's generator reads the scenario's embedding alone; with
# ``condition="mix"`` it would read :math:`H` too, and give eight matrices.
#
# Who can copy whom
# -----------------
# Some of the relatives are special cases of others, exactly. **A gate on the inputs is a
# weighting matrix of one column**: take :math:`d_c=d_k=1`, :math:`d_r=d_m` and
# :math:`C_{share}=(1)`. Then :math:`S_b` repeats one column of factors, and with AdaSparse's pruner
# as the generator DPG computes what AdaSparse computes when it scales without a threshold.

scaling = PrunedLayer(d_aw, d_m, d_n, Pruner(d_aw + d_m, d_m, prune="scaling", beta=gain))
p = shaken(scaling.init(rng))
A, _ = scaling.forward(p, H, E_aw, 1.0, pass_on, training=True)

one_column = DynamicWeighting(d_aw + d_m, d_m, 1, variant="r", hidden=(), gain=gain)
copy = ModulatedLayer(d_m, d_n, one_column)
generator = {"row_generator": {"layer_1": p["pruner"]}, "C_share": np.ones((1, 1))}
copied, _ = copy.forward({"W": p["W"], "b": p["b"], "weighting": generator}, H, U)
expect_close(copied, A, name="DPG with d_c = 1 is AdaSparse's scaling")

# %%
# **A gate on the outputs is a weighting matrix of one row**: :math:`d_r=d_k=1`,
# :math:`d_c=d_n`, variant ``c``, and the bias weighted along (``modulate_bias=True``), because
# PEPNet's gate multiplies the bias as well (derivations 3.2i and 11a).

p = shaken(tower.init(rng))
_, cache = tower.forward(p, H, U)

one_row = DynamicWeighting(d_aw + d_m, 1, d_n, variant="c", hidden=(5,), gain=2.0)
copy = ModulatedLayer(d_m, d_n, one_row, modulate_bias=True, activation="relu")
generator = {"column_generator": p["gate_1"], "R_share": np.ones((1, 1))}
copied, _ = copy.forward({**p["layer_1"], "weighting": generator}, H, U)
expect_close(copied, cache.affine[1].x, name="DPG with d_r = 1 is PEPNet's gate")

# %%
# **STAR's factors are a weighting matrix per scenario.** A generator without hidden layers that
# reads the scenario as a one-hot vector (1 at the scenario's place, 0 elsewhere) puts out the row
# of its weights that belongs to the scenario. Let that row be the logits of the factors,
# :math:`\log\frac{s}{\rho-s}`, and :math:`S_b` is :math:`W_{s_b}`. Variant ``non`` generates the
# core whole, so it can be any matrix of numbers between 0 and :math:`\rho`.

in_range = rng.uniform(0.1, 1.9, size=(D, d_m, d_n))
A, _ = star_affine(H, W, b, in_range, np.zeros((D, d_n)), groups)

logits = np.log(in_range / (gain - in_range))
whole = DynamicWeighting(D, d_m, d_n, variant="non", hidden=(), gain=gain)
kernel = {"W": logits.reshape(D, -1), "b": np.zeros(d_m * d_n)}
generator = {"core_generator": {"layer_1": kernel}}
copied, _ = ModulatedLayer(d_m, d_n, whole).forward(
    {"W": W, "b": b, "weighting": generator}, H, np.eye(D)[scenario]
)
expect_close(copied, A, name="DPG, variant non, is STAR")

# %%
# With a thin core it could not: the logits of a core have rank :math:`d_k`, those of STAR's factors
# any. This is what the decomposition gives up, and the next section says for what.

for name, S in {"DPG": Q[0], "STAR": in_range[0]}.items():
    print(f"{name}: rank of the logits {np.linalg.matrix_rank(np.log(S / (gain - S)))}")

# %%
# The DNN is a special case of all of these: silent gates, pruners and generators give
# :math:`S_b=1`, STAR's factors may be 1, and APG's core :math:`I` (exercise 2).
#
# What they cost
# --------------
# ``count_params`` counts what a prediction needs, what training needs on top, and the
# multiplications per row; embedding tables, the same for all, are left out. The sizes are those of
# derivations 12: 16 fields of width 8, hidden layers of 128, 64 and 32. The last column says how
# many parameters an eleventh scenario adds to the ten.

from midpg_np import MODELS, make_model

fields = {"vocab_sizes": (16,) * 16, "n_aware": 2}
print("model      parameters  training  multiply-adds  per scenario")
for name in MODELS:
    count = make_model(name, n_scenarios=10, **fields).count_params()
    one_more = make_model(name, n_scenarios=11, **fields).count_params()
    numbers = f"{count.serving:>10,} {count.training_only:>9,} {count.multiply_adds:>14,}"
    print(f"{name:<10} {numbers} {one_more.serving - count.serving:>13,}")

# %%
# Three prices are asked. STAR and PLE pay in parameters, PLE in multiplications as well: every
# scenario brings a network of its own, also one that has few rows to train it on. DPG pays in
# multiplications, ``43,456`` for the DNN's ``26,656``, because each row needs its core. APG is
# below the DNN in both, ``7,873`` parameters after training, and pays with rank. PEPNet and
# AdaSparse lie between: factors for whole columns or rows only, but from gates that read all of the
# input.
#
# For DPG, PEPNet, AdaSparse and APG a further scenario costs nothing but its rows in the embedding
# tables. They never read the scenario's number, and so can predict a scenario that training never
# saw.
#
# Which of them is better is a question for data and not for algebra: see tutorial 11 and the page
# of results.

# %%
# Exercises
# ---------
# **1.** ``GatedTower(..., gate_at="layer_input")`` has one more gate, on what the first layer
# reads. Which matrix multiplies ``H`` then? Write it and compare with the tower's ``cache.A[0]``.
#
# .. dropdown:: Solution 1
#
#    A gate on inputs multiplies rows of the matrix, and the bias stays as it is:
#    :math:`V_b=\mathrm{diag}(\delta^0_b)\,W`.
#
#    .. code-block:: python
#
#       tower = GatedTower((d_m, d_n, 1), dim_context=d_aw + d_m, gate_at="layer_input")
#       p = shaken(tower.init(rng))
#       _, cache = tower.forward(p, H, U)
#       V = cache.gates["gate_0"].delta[:, :, None] * p["layer_1"]["W"]
#       expect_close(row_by_row(V, p["layer_1"]["b"]), cache.A[0], name="gate on inputs")
#
# **2.** Make APG compute a plain layer: find :math:`U`, :math:`V` and a generator such that
# :math:`V_b=W` for every row. How small may :math:`K` be?
#
# .. dropdown:: Solution 2
#
#    The core is the identity :math:`I` if the generator's weights are 0 and its bias
#    :math:`\mathrm{vec}(I)`. Then :math:`UV=W^\top` is needed, which the singular value
#    decomposition gives with :math:`K` the rank of :math:`W`, and nothing smaller can.
#
#    .. code-block:: python
#
#       left, values, right = np.linalg.svd(W.T, full_matrices=False)
#       K = np.linalg.matrix_rank(W)
#       p = {
#           "U": left * values,
#           "V": right,
#           "generator": {"layer_1": {"W": np.zeros((d_aw, K * K)), "b": np.eye(K).ravel()}},
#           "b": b,
#       }
#       plain = LowRankLayer(d_m, d_n, d_aw, rank=int(K), over_rank=None)
#       expect_close(plain.forward(p, H, E_aw)[0], affine(H, W, b)[0], name="APG as a DNN")
#       assert K == 6
#
# **3.** PLE's multiplications per row grow with the number of scenarios, though a row belongs to
# one. With ``shared_gate_scope="own"`` they do not. Show it with ``count_params``, and say which
# terms of the sum over experts are responsible.
#
# .. dropdown:: Solution 3
#
#    By default there are two levels of experts. On the first one the gate of the shared stream
#    mixes the experts of **all** scenarios, so that a row must pass all of them; with "own" its sum
#    has the experts of the row's own scenario and the shared ones only.
#
#    .. code-block:: python
#
#       def multiply_adds(scope, n):
#           model = make_model("ple", n_scenarios=n, shared_gate_scope=scope, **fields)
#           return model.count_params().multiply_adds
#
#       assert multiply_adds("own", 10) == multiply_adds("own", 100)
#       assert multiply_adds("all", 100) > 8 * multiply_adds("all", 10)
