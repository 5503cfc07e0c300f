r"""
The adjoint of a shuffle
========================

The regulariser of MI-DPG gives row :math:`b` the context of another row. You will know where the
gradient of that context belongs, why the obvious line of code puts it into the wrong row, and why
most small tests do not notice. Then you will collect everything that reaches the scenario
embeddings in one training step, from four kinds of readers, and find the model's gradient.

Read first: tutorials 02 (scatter-add), 04 (gradient checks), 06 and 07 (core and generators) and 09
(the loss). Equations: derivations 3.4p to 3.4r for the pairs, 3.4u and 3.4v for the whole. It takes
about two seconds on a laptop.
"""

# %%
# A shuffle is a matrix
# ---------------------
# Three rows have the contexts :math:`e_0,e_1,e_2`. In its shuffled pair, row :math:`b` has the
# context of its partner, :math:`y_b=e_{\pi(b)}`. Take the partners 1, 2, 0: each row looks at the
# next one, and the last at the first. Such a ring of three is called a **3-cycle**.
#
# A shuffle is linear, so it is a matrix: row :math:`b` of :math:`\Pi` has a 1 in column
# :math:`\pi(b)` and zeros elsewhere, and :math:`y=\Pi e`.

from itertools import permutations

import numpy as np

from midpg_np import MIDPG, Batch, expect_close, model_case, plots
from midpg_np.checks import check_gradients, perturbed_params
from midpg_np.layers.negatives import draw_partner, shuffle, shuffle_backward
from midpg_np.losses import CROSS_ENTROPIES
from midpg_np.ops import sigmoid
from midpg_np.plots.style import heat_map
from midpg_np.training.step import training_step

rng = np.random.default_rng(10)
ring = np.array([1, 2, 0])
Pi = np.eye(3)[ring]
contexts = rng.normal(size=(3, 4))
y, cache = shuffle(contexts, ring)
expect_close(Pi @ contexts, y, name="y = Pi e")
print(Pi)

# %%
# Tutorial 03 has found the adjoint of a product: from :math:`A=HW` follows
# :math:`\bar H=\bar AW^\top`. Here the matrix stands on the left, and so does its transpose:
# :math:`\bar e=\Pi^\top\bar y`. The column :math:`i` of :math:`\Pi` has its ones where
# :math:`\pi(b)=i`, so
#
# .. math:: \bar e_i=\sum_{b:\ \pi(b)=i}\bar y_b ,\qquad\text{or as a loop}\quad
#           \bar e_{\pi(b)}\mathrel{+}=\bar y_b .
#
# This is a **scatter**: what comes back from pair :math:`b` goes to the row whose context stood in
# it, and that is row :math:`\pi(b)`.

dy = rng.normal(size=y.shape)
de_by_loop = np.zeros_like(contexts)
for b in range(3):
    de_by_loop[ring[b]] += dy[b]
de = shuffle_backward(dy, cache)
expect_close(Pi.T @ dy, de, name="de = transpose of Pi times dy")
expect_close(de_by_loop, de, name="de by scatter")

# %%
# What a swap hides
# -----------------
# In NumPy the forward is one line, ``y = e[partner]``. It is tempting to write the backward in its
# image, ``de = dy[partner]``. All shapes fit, and it looks like what one does with permutations.
# But it is a **gather**, :math:`\Pi\bar y` in place of :math:`\Pi^\top\bar y`: row 0 gets what came
# back from pair 1, although the context in pair 1 was that of row 2.
#
# Compare the two on the ring, and on the partners 1, 0, 2, which swap the first two rows:

swap = np.array([1, 0, 2])
for name, pi in (("swap", swap), ("3-cycle", ring)):
    scattered = shuffle_backward(dy, shuffle(contexts, pi)[1])
    error = np.abs(dy[pi] - scattered).max() / np.abs(scattered).max()
    print(f"{name:8} gather differs from scatter by {error:.2f} of the largest entry")
    assert (error == 0.0) == (name == "swap")

# %%
# On the swap the wrong backward is right, to the last bit. The picture shows why. If two rows swap,
# each is the partner of its partner. The matrix of a swap is symmetric, and :math:`\Pi` and
# :math:`\Pi^\top` are the same. The matrix of the ring is not. To transpose it is to run around the
# ring the other way.

figure = plots.new_figure(9.0, 2.7)
panels = figure.subplots(1, 4)
for n, (name, matrix) in enumerate((("swap", np.eye(3)[swap]), ("3-cycle", Pi))):
    heat_map(panels[2 * n], matrix, 0.0, 1.0)
    panels[2 * n].set(title=rf"{name}: $\Pi$", xlabel="row $i$ of $e$", ylabel="pair $b$")
    heat_map(panels[2 * n + 1], matrix.T, 0.0, 1.0)
    panels[2 * n + 1].set(title=rf"{name}: $\Pi^\top$", xlabel="pair $b$", ylabel="row $i$ of $e$")
plots.show(figure, "10_swap_and_ring")

# %%
# How often would a test notice?
# ------------------------------
# Gather and scatter agree exactly where :math:`\pi` is its own inverse, that is, where all its
# rings have length 1 or 2. A batch of two rows has no other permutations. How about larger ones?

for n_rows in range(2, 8):
    all_of_them = np.array(list(permutations(range(n_rows))))
    there_and_back = np.take_along_axis(all_of_them, all_of_them, axis=1)
    blind = (there_and_back == np.arange(n_rows)).all(axis=1)
    print(f"{n_rows} rows: {blind.sum():3} of {len(blind):4} permutations cannot tell")

# %%
# With three rows ``4`` of ``6`` permutations are blind, and a check that draws one at random
# passes a wrong backward two times out of three. Gradient checks use small batches, because they
# try every entry. So they should not draw :math:`\pi`, but **set** it: with a ring of three, and
# with a fixed point, since that is a case, too. The checks of this project do.
#
# A ring does not help if the adjoint that comes from behind is blunt. Where all rows of
# :math:`\bar y` are the same, as after a plain sum, any order of them is the same as any other:

same = np.ones_like(dy)
expect_close(same[ring], shuffle_backward(same, cache), name="gather, all adjoints 1")
expect_close(dy[ring].sum(axis=0), de.sum(axis=0), name="column sums of gather and scatter")

# %%
# That is the blindness of tutorial 04: one needs a random adjoint. And a look at totals, such as
# the bias gradient of something further down, does not help either.

# %%
# When it is no permutation
# -------------------------
# There is a gather that is right for permutations, that with the inverse,
# ``dy[argsort(partner)]``. And without repeated partners one may assign, ``de[partner] = dy``.
# Both fail when a row is partner of several, as with ``negatives="other_scenario"``, where each
# row draws its partner on its own. Then :math:`\Pi` is no permutation matrix. Its transpose is as
# right as ever:

scenario = np.array([0, 0, 0, 0, 1, 1])
dy_six = rng.normal(size=(6, 4))
for kind in ("permutation", "other_scenario"):
    pi = draw_partner(rng, scenario, kind)
    right = np.eye(6)[pi].T @ dy_six
    expect_close(shuffle_backward(dy_six, shuffle(dy_six, pi)[1]), right, name=f"scatter, {kind}")
    assigned, added = np.zeros((2, 6, 4))
    assigned[pi] = dy_six
    added[pi] += dy_six  # a repeated index counts once: tutorial 02
    for way, wrong in (
        ("de[partner] = dy", assigned),
        ("de[partner] += dy", added),
        ("dy[argsort(partner)]", dy_six[np.argsort(pi)]),
    ):
        print(f"{kind:15} {pi}  {way:21} error {np.abs(wrong - right).max():.1f}")

# %%
# So the library's ``shuffle_backward`` is a scatter-add, the same as in an embedding table. It is
# the one form that is right for every :math:`\pi`.

# %%
# What a pair sends back
# ----------------------
# Now to the real thing: a small MI-DPG, with two scenario-aware and two other fields, embeddings of
# width 2 and two weighted layers. The parameters are away from their start, so that nothing is zero
# by accident, and the partners of the six rows make a ring, a fixed point and a swap.

model = MIDPG(
    vocab_sizes=(3, 4, 5, 6),
    n_aware=2,
    n_scenarios=3,
    dim_embedding=2,
    hidden=(6, 4),
    row_divisor=2,
    col_divisor=2,
)
params = perturbed_params(model, rng)
codes = rng.integers(0, model.vocab_sizes, size=(6, 4))
batch = Batch(codes, scenario=codes[:, 0], label=np.array([1.0, 0.0, 0.0, 1.0, 0.0, 1.0]))
partner = np.array([1, 2, 0, 3, 5, 4])
step = training_step(model, CROSS_ENTROPIES["full"], params, batch, {"partner": partner})
network = step.cache.network
B, d_aw = batch.n_rows, model.dim_aware
print({name: f"{float(value):.4f}" for name, value in step.losses.items()})

# %%
# Layer 1 has a discriminator with one hidden layer,
# :math:`t=\mathrm{ReLU}([e,q]W_1+b_1)W_2+b_2`, which scores both kinds of pairs with the same
# weights. Its loss is
# :math:`\frac1B\sum_b\,[\mathrm{sp}(-t^+_b)+\mathrm{sp}(t^-_b)]`, and two of them share the weight
# :math:`\lambda=1` of the regulariser. So with :math:`\kappa=\lambda/(2B)` (derivations 3.4p)
#
# .. math:: \bar t^+_b=\kappa\,(\sigma(t^+_b)-1),\qquad\bar t^-_b=\kappa\,\sigma(t^-_b) .
#
# From there it is an MLP, backwards, once for each kind of pair. The core of row :math:`b` stands
# in both pairs of row :math:`b`, so :math:`\bar q_b=\bar q^+_b+\bar q^-_b`. The context of row
# :math:`b` stands in its matching pair, and in the shuffled pair of **whoever has it as partner**.

disc = params["discriminators"]["layer_1"]
Q = network.dpg.layers["layer_1"].weighting.Q
E_aw, q = network.dpg.E_aw, Q.reshape(B, -1)
kappa = model.mi_weight / (2 * B)


def back_through(e, sign):
    """Adjoints of e and q from pairs of one kind: sign +1 matching, -1 shuffled."""
    A = np.hstack([e, q]) @ disc["layer_1"]["W"] + disc["layer_1"]["b"]
    t = np.maximum(A, 0.0) @ disc["layer_2"]["W"] + disc["layer_2"]["b"]
    dt = -sign * kappa * sigmoid(-sign * t)[0]
    dA = dt @ disc["layer_2"]["W"].T * (A > 0.0)
    d_eq = dA @ disc["layer_1"]["W"].T
    return d_eq[:, :d_aw], d_eq[:, d_aw:]


de_matching, dq_matching = back_through(E_aw, +1.0)
de_shuffled, dq_shuffled = back_through(E_aw[partner], -1.0)

mir = model.regularisers["layer_1"]
d_e, d_e_neg, d_q, _ = mir.backward(model.mi_weight / 2, network.mi["layer_1"])
expect_close(de_matching, d_e, name="de of matching pairs")
expect_close(de_shuffled, d_e_neg, name="de of shuffled pairs, by pair")
expect_close(dq_matching + dq_shuffled, d_q, name="dq, both pairs")

# %%
# The one line with ``dt`` serves both kinds, because :math:`\sigma(t)-1=-\sigma(-t)`. Note that
# ``d_e_neg`` is still sorted by pair. To sort it by the row that it belongs to is the scatter.

# %%
# Who else reads the scenario embeddings?
# ---------------------------------------
# The weighted layers, one behind the other, are the **backbone**. Layer :math:`l` reads
# :math:`H^l`, its generator :math:`U^l`. Layer 1 reads :math:`H^1=X=[E^{aw},E^{ag}]`, with
# :math:`E^{ag}` for the embeddings of the agnostic fields. Behind the last one stands the **head**,
# an affine map with one output, the logit. So :math:`E^{aw}` has four kinds of readers in a
# training step, and each sends something back:
#
# ================  =====================================  =====================================
# reader            reads                                  sends back
# ================  =====================================  =====================================
# backbone's input  the first :math:`d_{aw}` columns of    the first :math:`d_{aw}` columns of
#                   :math:`H^1=X=[E^{aw},E^{ag}]`          :math:`\bar H^1`
# every generator   the first :math:`d_{aw}` columns of    the first :math:`d_{aw}` columns of
#                   :math:`U^l=[E^{aw},H^l]`               :math:`\bar U^l`
# matching pairs    :math:`e_b`                            :math:`\bar e^+_b`, to row :math:`b`
# shuffled pairs    :math:`e_{\pi(b)}`                     :math:`\bar e^-_b`, to row
#                                                          :math:`\pi(b)`
# ================  =====================================  =====================================
#
# The generator of layer 1 is special. Since :math:`H^1` begins with :math:`E^{aw}`, it reads
# :math:`U^1=[E^{aw},E^{aw},E^{ag}]`, the embeddings twice. The first copy is the one in the list.
# The second is part of :math:`H^1`, and what it sends back is part of :math:`\bar H^1`.
#
# We walk from the loss to the input. Pieces that earlier tutorials have derived come from the
# library: ``layer.backward`` is the weighted product, ``weighting.backward`` the core and its
# generator. The additions are ours. First the regulariser, layer by layer:

sources = dict.fromkeys(("backbone", "generators", "matching pairs", "shuffled pairs"), 0.0)
d_cores, by_pair = {}, 0.0
for name, mir in model.regularisers.items():
    d_e, d_e_neg, d_q, _ = mir.backward(model.mi_weight / 2, network.mi[name])
    sources["matching pairs"] += d_e
    by_pair += d_e_neg
    d_cores[name] = d_q.reshape(network.dpg.layers[name].weighting.Q.shape)
sources["shuffled pairs"] = np.zeros((B, d_aw))
for b in range(B):
    sources["shuffled pairs"][partner[b]] += by_pair[b]

# %%
# Then the cross-entropy, :math:`\bar z_b=(\sigma(z_b)-y_b)/B`, through the head and the layers. Two
# sums are made on the way. A core has two readers, the product and the discriminator. A hidden
# vector has two as well, the product and the generator.

dz = (sigmoid(step.output.logit)[0] - batch.label) / B
dH = dz[:, None] @ params["head"]["W"].T
for name in ("layer_2", "layer_1"):
    layer, c = model.layers[name], network.dpg.layers[name]
    dH_main, dQ_main, _ = layer.backward(dH, c)
    dU, _ = layer.weighting.backward(dQ_main + d_cores[name], c.weighting)
    sources["generators"] += dU[:, :d_aw]
    dH = dH_main + dU[:, d_aw:]
sources["backbone"] = dH[:, :d_aw]

dE_aw = sum(sources.values())
dX = np.hstack([dE_aw, dH[:, d_aw:]])

# %%
# The sum of the four is derivations 3.4u. Behind :math:`\bar X=[\bar E^{aw},\bar E^{ag}]` there is
# only the lookup, whose adjoint is the scatter-add of tutorial 02. The result is to be the model's
# own gradient of the table:

table_by_hand = np.zeros_like(params["embedding"]["table"])
for b in range(B):
    for f, first_row in enumerate(model.embedding.offsets):
        table_by_hand[first_row + codes[b, f]] += dX[b, 2 * f : 2 * f + 2]
table = step.grads["embedding"]["table"].dense()
expect_close(table_by_hand, table, name="gradient of the table")

report = check_gradients(model_case(model, params, batch, {"partner": partner}), rng, max_entries=9)
report.raise_if_wrong()
print(f"numerical derivatives agree: {report.n_entries} entries, {report.complex_error:.0e}")

# %%
# What is missed when one is missing
# ----------------------------------
# Leave out one source at a time, or only the second copy in layer 1, or gather the shuffled pairs,
# and see how far off the gradient of the scenario embeddings is:

largest = np.abs(dE_aw).max()
for name, part in sources.items():
    print(f"without {name:15} error {np.abs(part).max() / largest:6.1%} of the largest entry")
second_copy = np.abs(dU[:, d_aw : 2 * d_aw]).max()
print(f"without the second copy error {second_copy / largest:6.1%}")
off = by_pair[partner] - sources["shuffled pairs"]
print(f"shuffled pairs gathered error {np.abs(off).max() / largest:6.1%}")
assert np.abs(off[3]).max() == 0.0 and np.abs(off[4:]).max() == 0.0

# %%
# None of these need stop a training. Most of the gradient is right, and the loss can fall all the
# same. That is why such mistakes live long. In the last one rows 3, 4 and 5 are right to the bit:
# row 3 is its own partner, and rows 4 and 5 swap. Only the ring of rows 0, 1 and 2 shows it.

figure = plots.new_figure(7.0, 3.4)
axes = figure.subplots()
for n, (style, (name, part)) in enumerate(zip(plots.STYLES, sources.items(), strict=True)):
    look = {"color": style["color"], "hatch": ("", "//", "..", "xx")[n], "edgecolor": "white"}
    axes.bar(np.arange(B) + 0.2 * (n - 1.5), np.linalg.norm(part, axis=1), 0.2, label=name, **look)
axes.set(xlabel="row $b$", ylabel=r"length of its share of $\bar E^{aw}_b$")
figure.legend(loc="outside upper center", ncols=4, frameon=False)
plots.show(figure, "10_sources")

# %%
# The four are of one order of magnitude here, and which one is largest changes from row to row. No
# curve of a loss will tell you that one is missing. It takes an exact check.
#
# Options of MI-DPG cut some of the sources off on purpose (``mi_grad_to``, ``mi_detach_context``).
# They do so by a **stop-gradient**, which passes a value on as it is and sends nothing back;
# derivations 3.4 says where.

# %%
# Exercises
# ---------
# **1.** The number :math:`I_n` of permutations of :math:`n` rows that are their own inverse follows
# from :math:`I_{n-1}` and :math:`I_{n-2}`. How? How likely is a blind permutation of 20 rows?
#
# .. dropdown:: Solution 1
#
#    The last row stays where it is, and the others may do as they like: :math:`I_{n-1}`. Or it
#    swaps with one of the :math:`n-1` others, which leaves :math:`n-2` rows: :math:`(n-1)I_{n-2}`.
#    With 20 rows it is one in a hundred million. Random permutations are fine for large batches.
#
#    .. code-block:: python
#
#       from math import factorial
#
#       own_inverse = [1, 1]
#       for n in range(2, 21):
#           own_inverse.append(own_inverse[-1] + (n - 1) * own_inverse[-2])
#       print(own_inverse[2:8], own_inverse[20] / factorial(20))
#       assert own_inverse[2:8] == [2, 4, 10, 26, 76, 232]
#       assert 0.9e-8 < own_inverse[20] / factorial(20) < 1.1e-8
#
# **2.** With ``mi_detach_context=True`` the discriminators read :math:`e` behind a stop-gradient.
# Which of the four sources vanish? Which change?
#
# .. dropdown:: Solution 2
#
#    Both kinds of pairs send nothing to :math:`E^{aw}` any more. The other two are as they were:
#    the regulariser still reaches the cores, and through them the generators and what they read.
#
#    .. code-block:: python
#
#       from dataclasses import replace
#
#       detached = replace(model, mi_detach_context=True)
#       loss, draws = CROSS_ENTROPIES["full"], {"partner": partner}
#       got = training_step(detached, loss, params, batch, draws).grads["embedding"]["table"]
#       dX_detached = np.hstack([sources["backbone"] + sources["generators"], dH[:, d_aw:]])
#       expected = np.zeros_like(table)
#       for b in range(B):
#           for f, first_row in enumerate(model.embedding.offsets):
#               expected[first_row + codes[b, f]] += dX_detached[b, 2 * f : 2 * f + 2]
#       expect_close(expected, got.dense(), name="table, context detached")
#
# **3.** A test takes two rows that are each other's partners and compares the whole gradient of
# MI-DPG with numerical derivatives. Which of the mistakes of the last section does it see?
#
# .. dropdown:: Solution 3
#
#    Every source that is left out, but not the gather: with two rows there is no ring. The test is
#    good for everything else, and blind for the one mistake that a shuffle adds.
#
#    .. code-block:: python
#
#       two = Batch(codes[:2], codes[:2, 0], batch.label[:2])
#       pi = np.array([1, 0])
#       result = training_step(model, CROSS_ENTROPIES["full"], params, two, {"partner": pi})
#       sent = 0.0
#       for name, mir in model.regularisers.items():
#           sent = sent + mir.backward(model.mi_weight / 2, result.cache.network.mi[name])[1]
#       scattered = shuffle_backward(sent, shuffle(sent, pi)[1])
#       assert np.array_equal(sent[pi], scattered) and np.abs(scattered).max() > 0.0
