"""
From a handful of numbers to a weighting matrix
===============================================

**What you will know.** How MI-DPG makes a large weighting matrix from two thin factors: a matrix
product, a sigmoid with a gain, and a copy. And the way back through each of them, with the law that
this layer rests on: the adjoint of copying is a sum.

**Read first.** Tutorial 02 (lookup and scatter-add) and 05 (the weighting and its four adjoints).

**Equations.** Equations (3) to (5) of the paper, derivations 3.2b to 3.2e; their adjoints,
derivations 3.4f, 3.4j and 3.4k. The code is ``midpg_np/layers/core.py`` and
``midpg_np/layers/repeat.py``.

**Time.** Two seconds.
"""

# %%
# Too many numbers
# ----------------
# Tutorial 05 gave every example a weighting matrix :math:`S_b` as large as :math:`W`. A network
# that generates it needs an output for each entry. Take the second hidden layer of the paper's
# network: :math:`d_m = 128` inputs and :math:`d_n = 64` outputs. If the generating network has
# 32 hidden units, its last map alone has 32 weights per entry, 32 times as many as :math:`W`.
#
# The paper's way out has three steps. Read them from right to left:
#
# .. math::
#
#    S_b = \psi(Q_b), \qquad Q_b = \rho\,\sigma(P_b), \qquad P_b = R_b C_b .
#
# - :math:`R_b` is a tall thin matrix, :math:`d_r \times d_k`, and :math:`C_b` a flat one,
#   :math:`d_k \times d_c`. Their product :math:`P_b` is :math:`d_r \times d_c`.
# - The sigmoid :math:`\sigma`, entry by entry, with a **gain** :math:`\rho`, keeps all entries
#   between 0 and :math:`\rho`. The result :math:`Q_b` is the **core**.
# - The **repeat operator** :math:`\psi` copies every entry of the core :math:`f_r f_c` times,
#   until it has the size of :math:`W`: :math:`d_m = d_r f_r` and :math:`d_n = d_c f_c`.
#
# The smallest core that the paper tries, which is the default here, divides each side by 8 and has
# :math:`d_k = 1`. What is left to generate:

import numpy as np

from midpg_np import expect_close, plots
from midpg_np.checks import Case, check_gradients
from midpg_np.layers.core import sigmoid_of_product, sigmoid_of_product_backward
from midpg_np.layers.modulated import textbook, textbook_backward
from midpg_np.layers.repeat import merge_axis, repeat, repeat_backward, split_axis
from midpg_np.ops import sigmoid

d_m, d_n = 128, 64
d_r, d_c, d_k = d_m // 8, d_n // 8, 1
print(f"weighting matrix  {d_m} x {d_n}: {d_m * d_n} numbers per example")
print(f"core              {d_r} x {d_c}:   {d_r * d_c} numbers")
print(f"factors           {d_r} + {d_c}:    {d_r * d_k + d_k * d_c} numbers")

# %%
# From ``8192`` to ``24``. Let us go through the steps one by one, each with its way back, at
# sizes where no two are equal: equal sizes hide transposed matrices.
#
# Step 1: a product of two thin matrices
# --------------------------------------
# .. math:: P_{b,rc} = \sum_k R_{b,rk}\, C_{b,kc} .
#
# :math:`r` and :math:`c` count rows and columns of the core, :math:`k` what is between. With
# :math:`d_k = 1` nothing is left to sum, and :math:`P_b` is the outer product of a column and a
# row; that is what the paper calls this step. The rule of tutorial 05 needs no derivation: the
# adjoint of a factor is the adjoint of the product times the other factor, summed over the
# indices that it does not have. :math:`R_{b,rk}` lacks :math:`c`, and :math:`C_{b,kc}` lacks
# :math:`r`:
#
# .. math::
#
#    \bar R_{b,rk} = \sum_c \bar P_{b,rc}\, C_{b,kc}, \qquad
#    \bar C_{b,kc} = \sum_r R_{b,rk}\, \bar P_{b,rc} .
#
# For one example these are matrix products, :math:`\bar R = \bar P C^\top` and
# :math:`\bar C = R^\top \bar P`, the same two as for an affine map.

rng = np.random.default_rng(6)
B, d_r, d_c, d_k = 5, 3, 4, 2
R = rng.normal(size=(B, d_r, d_k))
C = rng.normal(size=(B, d_k, d_c))
P = np.einsum("brk,bkc->brc", R, C)
dP = rng.normal(size=P.shape)

dR_by_loops, dC_by_loops = np.zeros_like(R), np.zeros_like(C)
for b, r, c, k in np.ndindex(B, d_r, d_c, d_k):
    # forward:  P[b, r, c] += R[b, r, k] * C[b, k, c]
    dR_by_loops[b, r, k] += dP[b, r, c] * C[b, k, c]
    dC_by_loops[b, k, c] += R[b, r, k] * dP[b, r, c]
expect_close(dR_by_loops[0], dP[0] @ C[0].T, name="dR of example 0")
expect_close(dC_by_loops[0], R[0].T @ dP[0], name="dC of example 0")

# %%
# Step 2: a sigmoid with a gain
# -----------------------------
# :math:`Q = \rho\,\sigma(P)`, entry by entry, so every entry has one reader and its adjoint is a
# product with the slope. From :math:`\sigma(x) = 1/(1+e^{-x})` follows :math:`\sigma' =
# \sigma(1-\sigma)`. The backward pass would rather use what the forward pass has kept, which is
# :math:`Q` and not :math:`\sigma(P)`. Put :math:`\sigma = Q/\rho`:
#
# .. math::
#
#    \rho\,\sigma'(P) = \rho \cdot \frac Q\rho \cdot \Bigl(1 - \frac Q\rho\Bigr)
#    \qquad\Longrightarrow\qquad
#    \bar P = \bar Q \odot Q \odot \Bigl(1 - \frac Q\rho\Bigr) .
#
# One :math:`\rho` cancels and the other stays. The habit of writing :math:`Q(1-Q)` is right for
# :math:`\rho = 1` only.
#
# Why a gain at all? A freshly drawn network has :math:`P` near zero, so :math:`Q` near
# :math:`\rho/2`. The paper has :math:`\rho = 1`, and every layer starts with halved weights.
# With :math:`\rho = 2` the weighting starts at 1, where it changes nothing.

gain = 1.5
Q = gain * sigmoid(P)[0]
dQ = rng.normal(size=Q.shape)
dP = dQ * Q * (1.0 - Q / gain)

Q_library, cache = sigmoid_of_product(R, C, gain)
dR, dC = sigmoid_of_product_backward(dQ, cache)
expect_close(Q, Q_library, name="Q")
expect_close(np.einsum("brc,bkc->brk", dP, C), dR, name="dR")
expect_close(np.einsum("brk,brc->bkc", R, dP), dC, name="dC")

# %%
# That is all of ``core.py``. Its loop over a few rows of the core at a time changes no number: it
# lets product, sigmoid and their adjoints meet in the processor's fast memory. And its einsum
# strings are put together at run time, because a factor may come without the letter ``b``; tutorial
# 07 shows why.
#
# A remark on ranks. :math:`P_b` has rank :math:`d_k` at most. The sigmoid works on single
# entries and not on the matrix as a whole, so the core has no such limit. "Low rank" tells how
# many numbers a core is made from; it does not confine what comes out.

tall, flat = 3.0 * rng.normal(size=(1, 6, 1)), rng.normal(size=(1, 1, 4))
thin_Q, _ = sigmoid_of_product(tall, flat, 1.0)
print("rank of P:", np.linalg.matrix_rank(tall[0] @ flat[0]))
print("rank of Q:", np.linalg.matrix_rank(thin_Q[0]))
singular = np.linalg.svd(thin_Q[0], compute_uv=False)
print("singular values of Q over the largest:", np.round(singular / singular[0], 3))

# %%
# Rank ``1`` goes in, rank ``4`` comes out, as much as four columns allow. The singular values
# say that the gain is real, but not large: they fall quickly.
#
# Step 3: copies
# --------------
# The repeat operator gives entry :math:`(i, j)` of :math:`S` the core entry of row :math:`r(i)`
# and column :math:`c(j)`:
#
# .. math:: S_{b,ij} = Q_{b,\,r(i)\,c(j)} .
#
# "Repeat :math:`f_r` times on the row axis" can be read in two ways, and the library offers
# both:
#
# - ``block``: neighbours share an entry, :math:`r(i) = \lfloor i / f_r \rfloor` and
#   :math:`c(j) = \lfloor j / f_c \rfloor`;
# - ``tile``: the whole core is laid side by side, :math:`r(i) = i \bmod d_r` and
#   :math:`c(j) = j \bmod d_c`.
#
# Rows with the same :math:`r(i)` are a **row group**, columns with the same :math:`c(j)` a
# **column group**. For a core that counts 0 to 5, with :math:`f_r = 2` and :math:`f_c = 3`:

counting = np.arange(6.0).reshape(1, 2, 3)
for mode in ("block", "tile"):
    print(mode)
    print(repeat(counting, 4, 9, mode)[0].astype(int))

# %%
# Both pictures below have the same core at the left. White lines run around the copies of **one
# entry** where the mode is block, and around each copy of the **whole core** where it is tile.

plots.show(plots.plot_weighting(counting[0], 4, 9, "block"), "06_block")
plots.show(plots.plot_weighting(counting[0], 4, 9, "tile"), "06_tile")

# %%
# As a loop, with the two formulas for :math:`r(i)` and :math:`c(j)` in a table of row and column
# numbers:

f_r, f_c = 2, 3
d_m, d_n = d_r * f_r, d_c * f_c
row_of = {"block": np.arange(d_m) // f_r, "tile": np.arange(d_m) % d_r}
column_of = {"block": np.arange(d_n) // f_c, "tile": np.arange(d_n) % d_c}

for mode in ("block", "tile"):
    S_by_loops = np.zeros((B, d_m, d_n))
    for b, i, j in np.ndindex(S_by_loops.shape):
        S_by_loops[b, i, j] = Q[b, row_of[mode][i], column_of[mode][j]]
    expect_close(S_by_loops, repeat(Q, d_m, d_n, mode), name=f"S, {mode}")

# %%
# The way back: a sum over the copies
# -----------------------------------
# Look at the loop again. It is an embedding lookup (tutorial 02): the core is the table, the
# pair :math:`(r(i), c(j))` is the code, and :math:`S` holds what was looked up. So we know the
# adjoint before we derive it. It is a scatter-add.
#
# The derivation. With the indicator :math:`\mathbf 1[\cdot]` the copy is a sum, which is what
# the chain rule likes:
#
# .. math::
#
#    S_{b,ij} = \sum_{r,c} \mathbf 1[r(i) = r]\; \mathbf 1[c(j) = c]\; Q_{b,rc} ,
#
# .. math::
#
#    \frac{\partial S_{b,ij}}{\partial Q_{b,rc}} = \mathbf 1[r(i) = r]\; \mathbf 1[c(j) = c] .
#
# Sum over everything that reads :math:`Q_{b,rc}`. The indicators leave the copies of this entry
# and nothing else:
#
# .. math::
#
#    \bar Q_{b,rc} = \sum_{i,j} \bar S_{b,ij}\, \mathbf 1[r(i) = r]\; \mathbf 1[c(j) = c]
#    = \sum_{i:\ r(i) = r}\ \ \sum_{j:\ c(j) = c} \bar S_{b,ij} .
#
# A sum, not a mean: turn one knob that moves :math:`f_r f_c` weights, and the loss moves by all
# of them. In the loop, left and right of the ``=`` change places and the ``=`` becomes ``+=``.

dS = rng.normal(size=(B, d_m, d_n))
for mode in ("block", "tile"):
    dQ_by_loops = np.zeros_like(Q)
    for b, i, j in np.ndindex(dS.shape):
        dQ_by_loops[b, row_of[mode][i], column_of[mode][j]] += dS[b, i, j]
    expect_close(dQ_by_loops, repeat_backward(dS, d_r, d_c, mode), name=f"dQ, {mode}")

# %%
# Where does the gradient of **one** core entry come from? From the copies of that entry, which
# lie together in block mode and far apart in tile mode. In the picture they have their numbers;
# what goes to other core entries is pale.

figure = plots.new_figure(9.0, 3.2)
for axes, mode in zip(figure.subplots(1, 2), ("block", "tile"), strict=True):
    is_copy = (row_of[mode][:, None] == 1) & (column_of[mode] == 2)
    pale = np.where(is_copy, 1.0, 0.2)
    image = axes.imshow(dS[0], cmap="cividis", vmin=-2.5, vmax=2.5, alpha=pale)
    for i, j in np.argwhere(is_copy):
        color = "black" if dS[0, i, j] > 0.0 else "white"
        axes.text(j, i, f"{dS[0, i, j]:.1f}", ha="center", va="center", color=color, fontsize=8)
    total = dS[0][is_copy].sum()
    axes.set(title=f"{mode}: dQ[1, 2] = {total:.2f}", xlabel="column j", ylabel="row i")
    expect_close(total, repeat_backward(dS, d_r, d_c, mode)[0, 1, 2], name=f"dQ[1, 2], {mode}")
figure.colorbar(image, ax=figure.axes, label="dS of one example", shrink=0.8)
plots.show(figure, "06_one_core_entry")

# %%
# Three other ideas have the right shape and are wrong: the **mean** over the copies, **one**
# copy picked out, and the sum over the copies of the **other** layout. A test that any adjoint
# must pass, and that asks for no derivative: for a linear map :math:`\psi` and its adjoint
# :math:`\psi^*`,
#
# .. math:: \langle \psi(Q),\, X \rangle = \langle Q,\, \psi^*(X) \rangle
#    \qquad\text{for all } Q \text{ and } X,
#
# with :math:`\langle\cdot,\cdot\rangle` the sum of all products of entries.

candidates = {
    "sum over the copies": repeat_backward(dS, d_r, d_c, "block"),
    "mean over the copies": repeat_backward(dS, d_r, d_c, "block") / (f_r * f_c),
    "first copy only": dS[:, ::f_r, ::f_c],
    "sum, other layout": repeat_backward(dS, d_r, d_c, "tile"),
}
left = (repeat(Q, d_m, d_n, "block") * dS).sum()
for idea, candidate in candidates.items():
    right = (Q * candidate).sum()
    is_adjoint = np.isclose(left, right, rtol=1e-12)
    print(f"{idea:22} {right:+8.3f} against {left:+8.3f}: {'adjoint' if is_adjoint else 'WRONG'}")
    assert is_adjoint == (idea == "sum over the copies")

# %%
# Copying as a matrix product
# ---------------------------
# There is a second derivation, for those who like matrices better than indices. Let :math:`E_r`
# be the matrix of zeros and ones, :math:`d_m \times d_r`, with a one in row :math:`i` at column
# :math:`r(i)`, and :math:`E_c` likewise. Then :math:`E_r Q_b` copies rows, and
#
# .. math::
#
#    S_b = E_r\, Q_b\, E_c^\top
#    \qquad\Longrightarrow\qquad
#    \bar Q_b = E_r^\top\, \bar S_b\, E_c ,
#
# by the product rule of step 1, applied from the left and from the right.
# :math:`E_r^\top` has in each row ones at the members of a row group, so it adds them.

for mode in ("block", "tile"):
    E_r = (row_of[mode][:, None] == np.arange(d_r)).astype(float)
    E_c = (column_of[mode][:, None] == np.arange(d_c)).astype(float)
    expect_close(E_r @ Q @ E_c.T, repeat(Q, d_m, d_n, mode), name=f"S as a product, {mode}")
    expect_close(E_r.T @ dS @ E_c, repeat_backward(dS, d_r, d_c, mode), name=f"dQ, {mode}")

# %%
# How the library says it
# -----------------------
# ``repeat_backward`` needs neither loop nor matrix of ones. It cuts each axis in two, **group**
# and **member**, and sums over the members:
#
# .. code-block:: python
#
#    dS = split_axis(split_axis(dS, 2, d_c, mode), 1, d_r, mode)   # (B, d_r, f_r, d_c, f_c)
#    return dS.sum(axis=(2, 4))
#
# ``split_axis`` is the only place of the library that knows the difference between block and
# tile. Its inverse is ``merge_axis``. Six row numbers in three groups of two:

for mode in ("block", "tile"):
    groups = split_axis(np.arange(6), 0, 3, mode)
    print(f"{mode}: groups {groups.tolist()}")
    assert (merge_axis(groups, 0, mode) == np.arange(6)).all()

# %%
# One more line of the paper becomes clear here. It prints :math:`\psi(\sigma(\cdot))`, the
# sigmoid **before** the copy. The other order gives the same matrix, since a copy of
# :math:`\sigma(p)` is :math:`\sigma` of a copy of :math:`p`, but takes :math:`f_r f_c` times as
# many sigmoids.

expect_close(sigmoid(repeat(P, d_m, d_n, "tile"))[0], repeat(sigmoid(P)[0], d_m, d_n, "tile"))

# %%
# All steps in a row
# ------------------
# From factors to the product of tutorial 05, and back. The backward pass has one line for each
# line of the forward pass, in reverse order, and the complex step (tutorial 04) looks at every
# entry.


def chain_forward(inputs, frozen=None):
    """Factors to core to weighting matrix to product."""
    Q, c_core = sigmoid_of_product(inputs["R"], inputs["C"], gain)
    S = repeat(Q, d_m, d_n, "tile")
    A, c_product = textbook(inputs["H"], inputs["W"], S, "block")
    return (A,), (c_core, c_product)


def chain_backward(d_outputs, cache):
    """Read upwards."""
    c_core, c_product = cache
    dH, dW, dS = textbook_backward(d_outputs[0], c_product)
    dQ = repeat_backward(dS, d_r, d_c, "tile")
    dR, dC = sigmoid_of_product_backward(dQ, c_core)
    return {"R": dR, "C": dC, "H": dH, "W": dW}


inputs = {"R": R, "C": C, "H": rng.normal(size=(B, d_m)), "W": rng.normal(size=(d_m, d_n))}
report = check_gradients(Case("factors to product", inputs, chain_forward, chain_backward), rng)
report.raise_if_wrong()
print(f"{report.n_entries} entries checked, largest error {report.complex_error:.0e}")

# %%
# ``textbook`` can do the copying by itself: given the core and the mode, it calls ``repeat`` in
# front and ``repeat_backward`` at the end, and returns :math:`\bar Q` in place of
# :math:`\bar S`.

_, c_chain = textbook(inputs["H"], inputs["W"], Q, "tile")
dA = rng.normal(size=(B, d_n))
_, _, dQ_at_once = textbook_backward(dA, c_chain)
dS = np.einsum("bj,ij,bi->bij", dA, inputs["W"], inputs["H"])  # tutorial 05
expect_close(repeat_backward(dS, d_r, d_c, "tile"), dQ_at_once, name="dQ, in one call")

# %%
# Exercises
# ---------
# **1.** Somebody uses the gain :math:`\rho = 2`, so that a fresh layer starts with weights
# unchanged, and writes :math:`\bar P = \bar Q \odot Q \odot (1 - Q)`. What is :math:`\bar P` in
# the very first step, where :math:`P = 0`? What should it be?
#
# .. dropdown:: Solution 1
#
#    There :math:`Q = 1`, so the wrong formula gives exactly zero: nothing in front of it learns,
#    and no message says so. The right slope is :math:`Q(1 - Q/2) = 1/2`.
#
#    .. code-block:: python
#
#       Q_start, c_start = sigmoid_of_product(0 * R, C, 2.0)
#       dQ_start = np.ones_like(Q_start)
#       wrong = dQ_start * Q_start * (1 - Q_start)
#       assert (wrong == 0).all()
#       right = dQ_start * Q_start * (1 - Q_start / 2)
#       expect_close(right, np.full_like(right, 0.5), name="dP at the start")
#       dR_start, _ = sigmoid_of_product_backward(dQ_start, c_start)
#       expect_close(dR_start, right @ C.swapaxes(1, 2), name="dR at the start")
#
# **2.** The option ``sigmoid_on="factors"`` moves the sigmoid:
# :math:`Q_b = \rho\,\sigma(R_b)\,\sigma(C_b)`, a matrix product of two sigmoids. Derive
# :math:`\bar R` and :math:`\bar C`.
#
# .. dropdown:: Solution 2
#
#    Write :math:`\hat R = \sigma(R)` and :math:`\hat C = \sigma(C)`. Step 1 gives
#    :math:`\bar{\hat R} = \rho\bar Q\hat C^\top` and
#    :math:`\bar{\hat C} = \hat R^\top\rho\bar Q`. Then each goes through its own sigmoid,
#    without a gain.
#
#    .. code-block:: python
#
#       from midpg_np.layers.core import product_of_sigmoids, product_of_sigmoids_backward
#
#       R_hat, C_hat = sigmoid(R)[0], sigmoid(C)[0]
#       dR_mine = (gain * dQ @ C_hat.swapaxes(1, 2)) * R_hat * (1 - R_hat)
#       dC_mine = (R_hat.swapaxes(1, 2) @ (gain * dQ)) * C_hat * (1 - C_hat)
#       _, c_factors = product_of_sigmoids(R, C, gain)
#       dR_library, dC_library = product_of_sigmoids_backward(dQ, c_factors)
#       expect_close(dR_mine, dR_library, name="dR")
#       expect_close(dC_mine, dC_library, name="dC")
#
# **3.** Tile is block with the rows and columns of :math:`S` in another order. Find that order,
# and from it the adjoint of tile by way of the adjoint of block.
#
# .. dropdown:: Solution 3
#
#    Row :math:`i` of the tile layout belongs to group :math:`i \bmod d_r` and is its member
#    number :math:`\lfloor i / d_r \rfloor`; in the block layout that member stands at row
#    :math:`(i \bmod d_r) f_r + \lfloor i / d_r \rfloor`. A renumbering is undone by the inverse
#    renumbering, and that is its adjoint, too: what was read from row ``rows[i]`` goes back to
#    it.
#
#    .. code-block:: python
#
#       rows = np.arange(d_m) % d_r * f_r + np.arange(d_m) // d_r
#       columns = np.arange(d_n) % d_c * f_c + np.arange(d_n) // d_c
#       S_block = repeat(Q, d_m, d_n, "block")
#       S_tile = repeat(Q, d_m, d_n, "tile")
#       expect_close(S_block[:, rows][:, :, columns], S_tile, name="S")
#       dS_block = np.empty_like(dS)
#       dS_block[:, rows[:, None], columns] = dS
#       want = repeat_backward(dS, d_r, d_c, "tile")
#       expect_close(repeat_backward(dS_block, d_r, d_c, "block"), want, name="dQ")
