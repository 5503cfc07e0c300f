"""
A weight matrix for every example
=================================

**What you will know.** How one layer can treat every example of a batch differently: its weights
are multiplied, entry by entry, with a matrix that belongs to the example. And how to find its
backward pass on paper: four adjoints from one rule.

**Read first.** Tutorial 03 (affine map, ReLU and loss by hand) and 04 (gradient checks).

**Equations.** Equation (1) of the paper, derivations 3.2f; its adjoints, derivations 3.4a to 3.4e.
The code is ``midpg_np/layers/modulated.py``, functions ``textbook`` and ``textbook_backward``.

**Time.** About a second.
"""

# %%
# From one matrix to one per example
# ----------------------------------
# An affine map multiplies every row of a batch :math:`H` with the same matrix:
#
# .. math:: A_{bj} = \sum_i W_{ij} H_{bi} + b_j .
#
# As always, :math:`b` counts examples, :math:`i` inputs and :math:`j` outputs. Tutorial 01 has
# shown what that costs: where two scenarios read the same input in opposite ways, one :math:`W`
# must disappoint both.
#
# So give example :math:`b` a matrix :math:`S_b` of its own, with the shape of :math:`W`, and let
# it scale the weights one by one:
#
# .. math:: A_{bj} = \sum_i S_{b,ij}\, W_{ij}\, H_{bi} + b_j .
#
# This is equation (1) of the paper (derivations 3.2f). :math:`W` is still shared by all;
# :math:`S_b`, the **weighting matrix**, is not. With :math:`\odot` for the product entry by entry
# (the **Hadamard product**) the example's own matrix is :math:`V_b = S_b \odot W`. Where
# :math:`S_b` comes from is the matter of tutorials 06 and 07. Here it falls from the sky, and the
# question is what a layer does with it.
#
# Take three inputs, two outputs, and two examples with the **same** input. An entry 1 of
# :math:`S_b` leaves the connection from :math:`i` to :math:`j` as it is, an entry 0 cuts it.

import numpy as np

from midpg_np import expect_close, plots
from midpg_np.checks import Case, check_gradients
from midpg_np.layers.modulated import textbook, textbook_backward
from midpg_np.ops import relu, relu_backward
from midpg_np.plots.style import heat_map

W = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
H = np.ones((2, 3))
S = np.array(
    [
        [[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]],  # example 0: the plain layer
        [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]],  # example 1: another set of connections
    ]
)
A = np.zeros((2, 2))
for b, i, j in np.ndindex(S.shape):
    A[b, j] += S[b, i, j] * W[i, j] * H[b, i]
print(A.tolist())

# %%
# Example 0 is the plain layer, ``6.0`` and ``60.0``. Example 1 keeps one connection into output
# 0 and two into output 1, and gets ``1.0`` and ``50.0`` from the same weights and the same
# input.
#
# The loop is the equation, letter by letter: one line, three factors, and ``+=`` is the sum over
# :math:`i`. ``np.einsum`` takes the same letters as a string: what stands before the arrow are
# the indices of the factors, what stands behind it those of the result, and a letter that is
# missing there is summed over.
#
# The library's ``textbook`` takes the weighting matrix in a compressed form, the **core** that
# tutorial 06 is about. A core as large as :math:`W` is the weighting matrix itself, so we can hand
# in :math:`S` as it is. (``"block"`` says how a smaller core would be copied.) Random numbers from
# here on, for :math:`d_m` inputs and :math:`d_n` outputs, and no two sizes the same.

rng = np.random.default_rng(5)
B, d_m, d_n = 4, 5, 3
H = rng.normal(size=(B, d_m))
W = rng.normal(size=(d_m, d_n))
S = rng.uniform(0.0, 2.0, size=(B, d_m, d_n))

A_by_loops = np.zeros((B, d_n))
for b, i, j in np.ndindex(S.shape):
    A_by_loops[b, j] += S[b, i, j] * W[i, j] * H[b, i]

A, cache = textbook(H, W, S, "block")
expect_close(A_by_loops, A, name="A, by loops")
expect_close(np.einsum("bij,ij,bi->bj", S, W, H), A, name="A, by einsum")

# %%
# One rule for every factor
# -------------------------
# Let :math:`\bar A_{bj} = \partial\mathcal L/\partial A_{bj}` be the adjoint that comes from
# behind the layer. Look for the adjoint of one weight, :math:`W_{ij}`. The chain rule sums over
# everything that reads it, here over all entries :math:`A_{b'j'}`:
#
# .. math::
#
#    \bar W_{ij} = \sum_{b',\,j'} \bar A_{b'j'}\, \frac{\partial A_{b'j'}}{\partial W_{ij}},
#    \qquad
#    \frac{\partial A_{b'j'}}{\partial W_{ij}} = \mathbf 1[j' = j]\; S_{b',ij}\, H_{b'i} .
#
# The indicator :math:`\mathbf 1[\cdot]`, 1 where the condition holds and 0 elsewhere, says that
# :math:`W_{ij}` belongs to output :math:`j` and to no other. It removes the sum over :math:`j'`;
# nothing removes the sum over :math:`b'`, because every example uses :math:`W_{ij}`:
#
# .. math:: \bar W_{ij} = \sum_b \bar A_{bj}\, S_{b,ij}\, H_{bi} .
#
# The other three go the same way. Only their readers differ:
#
# ====================  ==============================  ========================
# entry                 read by                         so its adjoint sums over
# ====================  ==============================  ========================
# :math:`S_{b,ij}`      :math:`A_{bj}` alone            nothing
# :math:`W_{ij}`        :math:`A_{bj}` of all examples  :math:`b`
# :math:`H_{bi}`        :math:`A_{bj}` of all outputs   :math:`j`
# :math:`b_j`           :math:`A_{bj}` of all examples  :math:`b`
# ====================  ==============================  ========================
#
# .. math::
#
#    \bar S_{b,ij} = \bar A_{bj}\, W_{ij} H_{bi}, \qquad
#    \bar W_{ij} = \sum_b \bar A_{bj}\, S_{b,ij} H_{bi},
#
# .. math::
#
#    \bar H_{bi} = \sum_j \bar A_{bj}\, S_{b,ij} W_{ij}, \qquad
#    \bar b_j = \sum_b \bar A_{bj} .
#
# These are derivations 3.4b to 3.4e. In words, and worth knowing by heart: **the adjoint of a
# factor is the adjoint of the product times all other factors, summed over the indices that the
# factor does not have.** Nobody has to decide where a sum belongs. The indices decide.
#
# In the loop, each line of the backward pass is the line of the forward pass in which the result
# and one factor have changed places:

dA = rng.normal(size=A.shape)  # whatever comes from behind

dS_by_loops, dW_by_loops, dH_by_loops = np.zeros_like(S), np.zeros_like(W), np.zeros_like(H)
for b, i, j in np.ndindex(S.shape):
    # forward:  A[b, j] += S[b, i, j] * W[i, j] * H[b, i]
    dS_by_loops[b, i, j] += dA[b, j] * W[i, j] * H[b, i]
    dW_by_loops[i, j] += S[b, i, j] * dA[b, j] * H[b, i]
    dH_by_loops[b, i] += S[b, i, j] * W[i, j] * dA[b, j]

# %%
# ``dS`` never adds twice to the same place, so its ``+=`` could be ``=``. ``dW`` and ``dH`` do
# add, and an ``=`` there would keep the last reader only: the mistake of tutorial 02 in another
# dress.
#
# In an einsum string the exchange is visible, too. The forward is ``bij,ij,bi->bj``. Let ``bj``
# change places with ``bij``, with ``ij``, with ``bi``:

dS_by_einsum = np.einsum("bj,ij,bi->bij", dA, W, H)
dW_by_einsum = np.einsum("bij,bj,bi->ij", S, dA, H)
dH_by_einsum = np.einsum("bij,ij,bj->bi", S, W, dA)

dH, dW, dS = textbook_backward(dA, cache)
for name, loops, einsum, library in (
    ("dS", dS_by_loops, dS_by_einsum, dS),
    ("dW", dW_by_loops, dW_by_einsum, dW),
    ("dH", dH_by_loops, dH_by_einsum, dH),
):
    expect_close(loops, library, name=f"{name}, by loops")
    expect_close(einsum, library, name=f"{name}, by einsum")

# %%
# Why the library's lines read as they do
# ---------------------------------------
# ``textbook`` takes the three factors in two steps, and ``textbook_backward`` goes back through
# them in reverse order, one line for one line:
#
# .. code-block:: python
#
#    V = S * W                              # forward
#    A = einsum("bi,bij->bj", H, V)
#
#    dV = H[:, :, None] * dA[:, None, :]    # backward
#    dH = einsum("bij,bj->bi", V, dA)
#    dS = dV * W
#    dW = (dV * S).sum(axis=0)
#
# Each step is a product of **two** factors, and the rule gives the four lines at once.
# :math:`A_{bj} = \sum_i H_{bi} V_{b,ij}` has :math:`\bar V_{b,ij} = H_{bi} \bar A_{bj}`, which
# sums over nothing, and :math:`\bar H_{bi} = \sum_j V_{b,ij} \bar A_{bj}`. Then
# :math:`V_{b,ij} = S_{b,ij} W_{ij}` has :math:`\bar S = \bar V \odot W`, and :math:`\bar W`,
# which lacks the index :math:`b`, sums over it.
#
# Why two steps? :math:`\bar V` is needed twice, for :math:`\bar S` and for :math:`\bar W`, and
# :math:`V`, once built, serves forward and backward. That is why the cache holds ``S`` and
# ``V``: it saves work and costs memory. Tutorial 08 counts both.
#
# For a single example these are familiar things. :math:`\bar V_b` is the outer product of the
# example's input with its adjoint, and :math:`\bar H_b` multiplies with the example's own
# matrix:

V = S * W
dV = H[:, :, None] * dA[:, None, :]
expect_close(dV[0], np.outer(H[0], dA[0]), name="dV of example 0 is an outer product")
expect_close(V[0] @ dA[0], dH[0], name="dH of example 0 is V dA")
expect_close((dV * S).sum(axis=0), dW, name="dW, in two steps")

# %%
# So :math:`\bar W = \sum_b S_b \odot (H_b \bar A_b^\top)`: every example sends back its
# outer product, **weighted with its own** :math:`S_b`, and these are added. In the picture each
# line is an example of a batch of two. The first two panels, multiplied entry by entry, give the
# third; the thirds, added up, give the large one.

figure = plots.new_figure(9.0, 5.8)
panels = figure.subplot_mosaic([["S0", "V0", "W0", "sum"], ["S1", "V1", "W1", "sum"]])
for n in range(2):
    heat_map(panels[f"S{n}"], S[n], -2.0, 2.0)
    heat_map(panels[f"V{n}"], dV[n], -2.0, 2.0)
    heat_map(panels[f"W{n}"], S[n] * dV[n], -2.0, 2.0)
    panels[f"S{n}"].set(title=f"example {n}: weighting S", ylabel="input i")
    panels[f"V{n}"].set(title="outer product H dA")
    panels[f"W{n}"].set(title="their product")
image = heat_map(panels["sum"], (S[:2] * dV[:2]).sum(axis=0), -2.0, 2.0)
panels["sum"].set(title="added up: dW")
for axes in panels.values():
    axes.set(xlabel="output j")
figure.colorbar(image, ax=panels["sum"], label="value", shrink=0.6)
plots.show(figure, "05_sum_over_examples")

# %%
# Two shortcuts that are wrong
# ----------------------------
# For a plain affine map the sum over the examples hides in a matrix product,
# :math:`\sum_b H_b \bar A_b^\top = H^\top\bar A`. It is tempting to keep that and
# to weight its result with the average matrix:
#
# .. math:: \bar W \overset{?}{=} \Bigl(\frac1B\sum_b S_b\Bigr) \odot (H^\top \bar A) .
#
# But a sum of products is not the product of the sums. The shortcut is exact where :math:`S` is
# the same for all examples, and wrong exactly where it matters, where examples differ:

shortcut = S.mean(axis=0) * (H.T @ dA)
error = abs(shortcut - dW).max() / abs(dW).max()
print(f"dW by shortcut, S different for each: error {error:.2f} of the largest entry")

S_same = np.broadcast_to(S[:1], S.shape)
_, cache_same = textbook(H, W, S_same, "block")
_, dW_same, _ = textbook_backward(dA, cache_same)
expect_close(S_same.mean(axis=0) * (H.T @ dA), dW_same, name="dW by shortcut, S the same for all")
assert error > 0.1

# %%
# A test with one example, or with equal rows, sees nothing of this. That is why the checks of
# this project use batches whose rows all differ.
#
# The same temptation exists in the forward pass: compute :math:`HW` for all examples at once, then
# weight. It fails for the same reason. In :math:`(HW)_{bj} = \sum_i H_{bi}W_{ij}` the index
# :math:`i` is summed away, and :math:`S_{b,ij}` can no longer tell the inputs apart. Only an
# :math:`S` that does not depend on :math:`i`, or is constant on groups of inputs, leaves a door
# open. Tutorial 07 looks behind it, and tutorial 08 finds the fast form of the layer there.

# %%
# The whole layer
# ---------------
# A hidden layer adds its bias and applies an activation, :math:`H' = \phi(A)`. Both are old friends
# (tutorial 03): :math:`\bar A = \bar H' \odot \phi'(A)`, where :math:`\phi'` of the ReLU is a mask
# of zeros and ones, and :math:`\bar b` sums over the examples. Written as a forward and a backward,
# this can be put before the judge of tutorial 04: the complex step looks at every entry of every
# gradient, with a random adjoint behind the layer.


def layer_forward(inputs, frozen=None):
    """ReLU of the weighted product plus bias."""
    product_A, c_product = textbook(inputs["H"], inputs["W"], inputs["S"], "block")
    H_next, c_relu = relu(product_A + inputs["b"])
    return (H_next,), (c_product, c_relu)


def layer_backward(d_outputs, cache):
    """Read upwards: one line back for one line forth."""
    c_product, c_relu = cache
    dA = relu_backward(d_outputs[0], c_relu)
    dH, dW, dS = textbook_backward(dA, c_product)
    return {"H": dH, "W": dW, "S": dS, "b": dA.sum(axis=0)}


inputs = {"H": H, "W": W, "S": S, "b": rng.normal(size=d_n)}
report = check_gradients(Case("weighted layer", inputs, layer_forward, layer_backward), rng)
report.raise_if_wrong()
print(f"{report.n_entries} entries checked, largest error {report.complex_error:.0e}")

# %%
# ``98`` entries of four gradients, all right to rounding. What is still missing is where
# :math:`S_b` comes from. At the sizes of the paper it has thousands of entries for every single
# example, far too many to produce one by one. The next tutorial makes it from a handful.

# %%
# Exercises
# ---------
# **1.** Let the weighting be a single number per example, :math:`S_{b,ij} = s_b`. Find
# :math:`\bar s_b` with the rule, and show that it needs nothing but the outputs and their
# adjoints.
#
# .. dropdown:: Solution 1
#
#    The factor :math:`s_b` has only the index :math:`b`, so its adjoint sums over :math:`i`
#    **and** :math:`j`:
#    :math:`\bar s_b = \sum_{ij} \bar A_{bj} W_{ij} H_{bi} = \sum_j \bar A_{bj} (HW)_{bj}`. It is
#    also the sum of :math:`\bar S_b`, because :math:`s_b` is copied to every entry.
#
#    .. code-block:: python
#
#       s = rng.normal(size=B)
#       S_flat = np.broadcast_to(s[:, None, None], S.shape)
#       _, c_flat = textbook(H, W, S_flat, "block")
#       _, _, dS_flat = textbook_backward(dA, c_flat)
#       ds = (dA * (H @ W)).sum(axis=1)
#       expect_close(ds, dS_flat.sum(axis=(1, 2)), name="ds")
#
# **2.** In MI-DPG the weighting is made from the input of the very layer that it weights. Take
# the simplest such case, :math:`S_{b,ij} = H_{bi}`. What is :math:`\bar H` now?
#
# .. dropdown:: Solution 2
#
#    :math:`H_{bi}` has two kinds of readers: the product, as before, and the weighting, once for
#    every :math:`j`. Their shares add up:
#    :math:`\bar H_{bi} = \bar H^{main}_{bi} + \sum_j \bar S_{b,ij}`. With
#    :math:`A_{bj} = \sum_i W_{ij} H_{bi}^2` the answer can be had directly, and agrees.
#
#    .. code-block:: python
#
#       S_self = np.broadcast_to(H[:, :, None], S.shape)
#       _, c_self = textbook(H, W, S_self, "block")
#       dH_main, _, dS_self = textbook_backward(dA, c_self)
#       expect_close(dH_main + dS_self.sum(axis=2), 2 * H * (dA @ W.T), name="dH, two readers")
#
# **3.** Build a batch in which the weightings differ from row to row and the wrong shortcut for
# :math:`\bar W` is nevertheless exact. What does that say about tests?
#
# .. dropdown:: Solution 3
#
#    Give all rows the same outer product :math:`H_b\bar A_b^\top`. Then it can be taken
#    out of the sum, and the average of :math:`S` is right. A test needs rows that differ in
#    **everything** that the sum couples; random weightings alone are not enough.
#
#    .. code-block:: python
#
#       H_equal = np.broadcast_to(H[:1], H.shape)
#       dA_equal = np.broadcast_to(dA[:1], dA.shape)
#       _, c_equal = textbook(H_equal, W, S, "block")
#       _, dW_equal, _ = textbook_backward(dA_equal, c_equal)
#       expect_close(S.mean(axis=0) * (H_equal.T @ dA_equal), dW_equal, name="dW, equal rows")
