"""
Never build the weighting matrix
================================

**What you will know.** How a modulated layer is computed without its weighting matrices: the same
sums in another order. Two such orders, their backward passes, when which is cheaper, and what is
left to keep for the way back. Memory and time are measured while you read.

**Read first.** Tutorials 05 and 06; for the gates, 07.

**Equations.** Derivations 3.5a to 3.5d, in the exercises 3.5e and 3.5i. The code is
``midpg_np/layers/modulated.py``.

**Time.** Three seconds.
"""

# %%
# What the textbook form costs
# ----------------------------
# Take the layer of tutorial 06, 128 inputs and 64 outputs, and the paper's batch of 512
# examples. ``textbook`` builds the weighting matrices :math:`S` and the weighted weights
# :math:`V = S \odot W`, each with :math:`B\, d_m d_n` numbers, and keeps both for the backward
# pass.

import time
import tracemalloc

import numpy as np

from midpg_np import expect_close, plots
from midpg_np.layers.modulated import FORMS, cheaper_form
from midpg_np.layers.repeat import merge_axis, split_axis
from midpg_np.plots.style import heat_map

B, d_m, d_n = 512, 128, 64
numbers = B * d_m * d_n
print(f"S: {numbers} numbers, {8 * numbers} bytes in float64; V: as many again")
print(f"W: {d_m * d_n} numbers, {8 * d_m * d_n} bytes")

# %%
# ``33554432`` bytes, twice, for a layer whose weights need ``65536``. The backward pass makes
# two more of that size, :math:`\bar V` and :math:`\bar S`. And :math:`S` is made of copies: of
# its ``8192`` entries per example only :math:`d_r d_c` are different.
#
# Row groups: multiply first, weight after
# ----------------------------------------
# Write the layer with the core in it (without the bias, which is added later):
#
# .. math:: A_{bj} = \sum_i Q_{b,\,r(i)\,c(j)}\, W_{ij}\, H_{bi} .
#
# Tutorial 05 left a door open: a weighting that is constant on **groups** of inputs. So cut the
# sum over :math:`i` into row groups, the inputs with the same :math:`r(i)`. Within group
# :math:`r` the core entry is :math:`Q_{b,\,r\,c(j)}`, whatever :math:`i` is, and can be taken
# out:
#
# .. math::
#
#    A_{bj} = \sum_r \sum_{i:\ r(i) = r} Q_{b,\,r\,c(j)}\, W_{ij} H_{bi}
#    = \sum_r Q_{b,\,r\,c(j)} \underbrace{\sum_{i:\ r(i) = r} W_{ij} H_{bi}}_{Z_{b,r,j}} .
#
# These are derivations 3.5a. :math:`Z` has :math:`d_r d_n` numbers per example in place of
# :math:`d_m d_n`. It costs exactly the multiplications of a plain layer, and the weighting comes
# after it, on fewer numbers.
#
# The backward pass is the rule of tutorial 05, once for each of the two steps, last step first.
# In :math:`A_{bj} = \sum_r Q_{b,\,r\,c(j)} Z_{b,r,j}` an entry :math:`Q_{b,rc}` is read by all
# outputs of its column group, so it sums over them; then comes the plain product, group by
# group:
#
# .. math::
#
#    \bar Z_{b,r,j} = Q_{b,\,r\,c(j)}\, \bar A_{bj}, \qquad
#    \bar Q_{b,rc} = \sum_{j:\ c(j) = c} \bar A_{bj}\, Z_{b,r,j},
#
# .. math::
#
#    \bar W_{ij} = \sum_b H_{bi}\, \bar Z_{b,\,r(i),\,j}, \qquad
#    \bar H_{bi} = \sum_j W_{ij}\, \bar Z_{b,\,r(i),\,j} .
#
# These are derivations 3.5b. In code, ``split_axis`` (tutorial 06) cuts the axis of inputs into
# row group :math:`r` and member :math:`m`, and that of outputs into column group :math:`c` and
# member :math:`n`. After that block and tile look alike, and every line is an einsum in which, as
# before, result and factor change places. On a small layer:

rng = np.random.default_rng(8)
small_B, d_r, f_r, d_c, f_c = 4, 3, 4, 5, 2
small_H = rng.normal(size=(small_B, d_r * f_r))
small_W = rng.normal(size=(d_r * f_r, d_c * f_c))
small_Q = rng.uniform(0.0, 2.0, size=(small_B, d_r, d_c))
small_dA = rng.normal(size=(small_B, d_c * f_c))


def cut(mode):
    """H (b, r, m), W (r, m, c, n) and dA (b, c, n)."""
    W_rows = split_axis(small_W, 0, d_r, mode)
    H, dA = split_axis(small_H, 1, d_r, mode), split_axis(small_dA, 1, d_c, mode)
    return H, split_axis(W_rows, 2, d_c, mode), dA


def joined(A, dH, dW, dQ, mode):
    """Back to (b, j), (b, i), (i, j) and (b, r, c)."""
    dW = merge_axis(merge_axis(dW, 2, mode), 0, mode)
    return {"A": merge_axis(A, 1, mode), "dH": merge_axis(dH, 1, mode), "dW": dW, "dQ": dQ}


def by_row_groups(mode):
    """Multiply, then weight; and back."""
    (H, W, dA), Q = cut(mode), small_Q
    Z = np.einsum("brm,rmcn->brcn", H, W)
    A = np.einsum("brc,brcn->bcn", Q, Z)
    dZ = np.einsum("brc,bcn->brcn", Q, dA)
    dQ = np.einsum("bcn,brcn->brc", dA, Z)
    dW = np.einsum("brm,brcn->rmcn", H, dZ)
    dH = np.einsum("brcn,rmcn->brm", dZ, W)
    return joined(A, dH, dW, dQ, mode)


# %%
# The textbook form is the judge:


def by_library(form, mode):
    """Value and adjoints of one of the library's forms."""
    forward, backward = FORMS[form]
    A, cache = forward(small_H, small_W, small_Q, mode)
    dH, dW, dQ = backward(small_dA, cache)
    return {"A": A, "dH": dH, "dW": dW, "dQ": dQ}


for mode in ("block", "tile"):
    want = by_library("textbook", mode)
    for name, mine in by_row_groups(mode).items():
        expect_close(mine, want[name], name=f"{name}, row groups, {mode}")

# %%
# In the picture, for one example: the rows of :math:`Z` are the contributions of the row groups
# to all outputs. Each is multiplied with its row of the core, repeated along the outputs only,
# and the column sums are :math:`A`.

H, W, _ = cut("block")
Z = np.einsum("brm,rmcn->brcn", H, W)[0].reshape(d_r, -1)
Q_wide = np.repeat(small_Q[0], f_c, axis=1)
figure = plots.new_figure(7.2, 5.6)
panels = {"Z: product within each row group": Z, "Q, repeated along outputs": Q_wide}
panels |= {"Z * Q": Z * Q_wide, "A: column sums": (Z * Q_wide).sum(axis=0, keepdims=True)}
grid = figure.subplots(4, 1, height_ratios=(3, 3, 3, 1), sharex=True)
for axes, (title, values) in zip(grid, panels.items(), strict=True):
    image = heat_map(axes, np.round(values, 2), -10.0, 10.0)
    axes.set(title=title, ylabel="group r" if len(values) > 1 else "", aspect="auto")
axes.set(xlabel="output j", yticks=[])
figure.colorbar(image, ax=figure.axes, label="value", shrink=0.6)
plots.show(figure, "08_row_groups")

# %%
# Column groups: weight first, multiply after
# -------------------------------------------
# The mirror image. All outputs of a column group meet the same core column, so they can share
# weighted **inputs**:
#
# .. math::
#
#    A_{bj} = \sum_i W_{ij} \underbrace{Q_{b,\,r(i)\,c(j)}\, H_{bi}}_{G_{b,\,c(j),\,i}},
#    \qquad G_{b,c,i} = Q_{b,\,r(i)\,c}\, H_{bi} .
#
# These are derivations 3.5c. :math:`G` has :math:`d_c d_m` numbers per example: one weighted
# copy of the input for each column group. Back, again last step first:
#
# .. math::
#
#    \bar G_{b,c,i} = \sum_{j:\ c(j) = c} \bar A_{bj}\, W_{ij}, \qquad
#    \bar W_{ij} = \sum_b G_{b,\,c(j),\,i}\, \bar A_{bj},
#
# .. math::
#
#    \bar H_{bi} = \sum_c Q_{b,\,r(i)\,c}\, \bar G_{b,c,i}, \qquad
#    \bar Q_{b,rc} = \sum_{i:\ r(i) = r} H_{bi}\, \bar G_{b,c,i} .
#
# These are derivations 3.5d.


def by_column_groups(mode):
    """Weight, then multiply; and back."""
    (H, W, dA), Q = cut(mode), small_Q
    G = np.einsum("brc,brm->bcrm", Q, H)
    A = np.einsum("bcrm,rmcn->bcn", G, W)
    dG = np.einsum("bcn,rmcn->bcrm", dA, W)
    dW = np.einsum("bcrm,bcn->rmcn", G, dA)
    dH = np.einsum("brc,bcrm->brm", Q, dG)
    dQ = np.einsum("bcrm,brm->brc", dG, H)
    return joined(A, dH, dW, dQ, mode)


for mode in ("block", "tile"):
    want = by_library("textbook", mode)
    for name, mine in by_column_groups(mode).items():
        expect_close(mine, want[name], name=f"{name}, column groups, {mode}")
    for form in ("row", "column"):
        for name, value in by_library(form, mode).items():
            expect_close(value, want[name], name=f"{name}, library's {form}, {mode}")

# %%
# Which one?
# ----------
# Both need the :math:`d_m d_n` multiplications of a plain layer, and the weighting on top:
# :math:`d_r d_n` for row groups, :math:`d_c d_m` for column groups. Divide both by
# :math:`d_m d_n`:
#
# .. math::
#
#    d_r d_n \le d_c d_m
#    \iff \frac{d_r}{d_m} \le \frac{d_c}{d_n}
#    \iff \frac1{f_r} \le \frac1{f_c}
#    \iff f_r \ge f_c .
#
# So: **row groups if a row group has at least as many members as a column group**, else column
# groups. The widths themselves do not matter. The library's ``form="grouped"`` decides so by
# ``cheaper_form``.

print("  core      Z     G   cheaper   multiplications over those of a plain layer")
for d_r, d_c in ((16, 8), (64, 8), (16, 32), (1, 64), (128, 1), (128, 64)):
    form = cheaper_form(d_m, d_n, d_r, d_c)
    assert (form == "row") == (d_m // d_r >= d_n // d_c)
    extra = min(d_r * d_n, d_c * d_m) / (d_m * d_n)
    print(f"{d_r:4} x {d_c:2}  {d_r * d_n:5} {d_c * d_m:5}   {form:8}  {1 + extra:.3f}")

# %%
# The default size, 16 x 8, costs an eighth more than a plain layer: ``1.125``. The lines with 1
# x 64 and 128 x 1 are the gates of tutorial 07, and here each shows its nature. For a gate on
# outputs :math:`Z` is :math:`HW` itself, weighted at the end. For a gate on inputs :math:`G` is
# the gated input. With the wrong form a gate would cost as much as the full matrix of the last
# line, where nothing is shared and nothing can be saved.
#
# The picture has :math:`f_c = 8` fixed and lets the row groups grow.

members = [1, 2, 4, 8, 16, 32, 64, 128]
lines = {
    "S (textbook)": [d_m * d_n for _ in members],
    "Z (row groups)": [d_m * d_n // f for f in members],
    "G (column groups)": [d_m * d_n // 8 for _ in members],
}
figure = plots.new_figure(5.6, 3.6)
axes = figure.subplots()
for style, (label, values) in zip(plots.STYLES, lines.items(), strict=False):
    axes.loglog(members, values, label=label, **style)
axes.set(xlabel="members f_r of a row group (f_c = 8)", ylabel="numbers per example")
axes.set_xticks(members, [str(f) for f in members])
axes.minorticks_off()
axes.legend(frameon=False)
plots.show(figure, "08_which_form")

# %%
# What is kept for the way back
# -----------------------------
# The cache of the row form holds :math:`H`, :math:`W` and :math:`Q`, and **not** :math:`Z`. The
# backward pass needs :math:`Z` for :math:`\bar Q` and makes it again: a product of small matrices
# takes less time than fetching :math:`B\, d_r d_n` numbers that have left the processor's fast
# memory. Likewise the column form and :math:`G`. Let us look into the caches of the large layer,
# and behind them: an array may be a view into a larger one, so we follow it to the memory that it
# lives in.

H, W = rng.normal(size=(B, d_m)), rng.normal(size=(d_m, d_n))
d_r, d_c = d_m // 8, d_n // 8
Q = rng.uniform(0.0, 2.0, size=(B, d_r, d_c))
dA = rng.normal(size=(B, d_n))


def memory_of(array):
    """Bytes of the block of memory that an array lives in."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array.nbytes


for form in ("textbook", "row", "column"):
    _, cache = FORMS[form].forward(H, W, Q, "block")
    arrays = {k: x for k, x in cache._asdict().items() if isinstance(x, np.ndarray)}
    print(f"{form:9}", {name: x.size for name, x in arrays.items()})
    print(f"{'':9} {sum(x.nbytes for x in arrays.values())} bytes")
    is_large = max(memory_of(x) for x in arrays.values()) >= 8 * B * d_m * d_n
    assert is_large == (form == "textbook")

# %%
# ``67698688`` bytes for the textbook, ``1114112`` for either grouped form, and in the latter no
# array, nor the memory behind one, has room for :math:`B\, d_m d_n` numbers.
#
# Measured
# --------
# Counting is one thing. ``tracemalloc`` sees every byte that NumPy asks for; we let it watch a
# forward and a backward pass and report the peak. The clock runs separately, because being
# watched costs time.


def step(form):
    """One forward and backward pass of a form."""
    forward, backward = FORMS[form]
    A, cache = forward(H, W, Q, "block")
    return (A, *backward(dA, cache))


def peak_bytes(form):
    """Most memory that was in use at one time, beyond the inputs."""
    tracemalloc.start()
    step(form)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def seconds(form, n_times=3):
    """The fastest of a few runs: the others were disturbed."""
    durations = []
    for _ in range(n_times):
        start = time.perf_counter()
        step(form)
        durations.append(time.perf_counter() - start)
    return min(durations)


forms = ("textbook", "row", "column")
peaks = {form: peak_bytes(form) for form in forms}
times = {form: seconds(form) for form in forms}
for form in forms:
    print(f"{form:9} {peaks[form] / 2**20:7.1f} MiB  {1e3 * times[form]:7.1f} ms")
assert peaks["row"] < peaks["textbook"] / 10
assert peaks["column"] < peaks["textbook"] / 10

want = step("textbook")
for form in ("row", "column"):
    for name, mine, library in zip(("A", "dH", "dW", "dQ"), step(form), want, strict=True):
        expect_close(mine, library, name=f"{name}, {form}")

# %%
# On your machine, now:

figure = plots.new_figure(8.0, 2.4)
quantities = {
    "peak memory (MiB)": [peaks[form] / 2**20 for form in forms],
    "forward and backward (ms)": [1e3 * times[form] for form in forms],
}
for axes, (label, values) in zip(figure.subplots(1, 2), quantities.items(), strict=True):
    bars = axes.barh(forms, values, color=plots.STYLES[0]["color"])
    axes.bar_label(bars, fmt="%.1f", padding=3)
    axes.invert_yaxis()
    axes.set(xlabel=label, xlim=(0, 1.2 * max(values)))
    axes.spines[["top", "right"]].set_visible(False)
plots.show(figure, "08_measured")

# %%
# Why the library's lines look different
# --------------------------------------
# ``row_grouped`` has the two steps of ``by_row_groups``, in three disguises. None of them
# changes the mathematics; ``docs/decisions/0006-batch-last.md`` has the measurements.
#
# - **The batch lies last.** ``H.T`` has the examples side by side in memory, so that one
#   instruction treats many of them: ``Z_r = matmul(W_r[r].swapaxes(1, 2), H_r[r])`` is
#   :math:`Z`, one matrix :math:`d_n \times B` per row group. The rows of its result are outputs,
#   the columns examples.
# - **Members before groups.** ``_members_first`` reorders the outputs from (group, member) to
#   (member, group). Then one row of the core, :math:`d_c B` numbers, weighs :math:`f_c` long
#   stretches, instead of each number weighing a few neighbours. Tile has this order from birth.
# - **A few groups at a time.** ``groups_at_once`` tells how many row groups fit into the
#   processor's fast memory; the loop over ``slices(d_r, size)`` adds up their contributions to
#   ``A``. So not even :math:`Z` exists as a whole.
#
# A fourth form, ``fused``, serves training on large batches and on a GPU: compiled loops that
# keep :math:`Z` or :math:`G` in registers. All of them are tested against ``textbook``, which
# stays in the library for that purpose, and for you.

# %%
# Exercises
# ---------
# **1.** A core of 1 x 64 is a gate on the outputs. Write its forward and backward pass by hand,
# without any group, and compare with the row form.
#
# .. dropdown:: Solution 1
#
#    There is one row group, so :math:`Z = HW` and :math:`A = q \odot Z`. Then
#    :math:`\bar q = \bar A \odot Z` and :math:`\bar Z = q \odot \bar A`, and the rest is an
#    affine map.
#
#    .. code-block:: python
#
#       q = rng.uniform(0.0, 2.0, size=(B, 1, d_n))
#       A_gate, c_gate = FORMS["row"].forward(H, W, q, "block")
#       dH_gate, dW_gate, dq = FORMS["row"].backward(dA, c_gate)
#       dZ = q[:, 0] * dA
#       expect_close(q[:, 0] * (H @ W), A_gate, name="A")
#       expect_close(dA * (H @ W), dq[:, 0], name="dq")
#       expect_close(H.T @ dZ, dW_gate, name="dW")
#       expect_close(dZ @ W.T, dH_gate, name="dH")
#
# **2.** With the option ``dwm_inputs="aw_only"`` the generators read the context :math:`E^{aw}`
# alone. Suppose a file of a million rows has four contexts. What is the cheapest way to predict
# it? Show that it gives the same outputs.
#
# .. dropdown:: Solution 2
#
#    Rows of one context share their core, so they share :math:`V = S \odot W`. Build it **once
#    per context** (four matrices in all), and send the rows of each context through a plain
#    layer. Building the matrix is a waste for one row, and the best there is for many
#    (derivations 3.5e).
#
#    .. code-block:: python
#
#       from midpg_np.layers.repeat import repeat
#
#       context = rng.integers(4, size=B)
#       Q_of_context = rng.uniform(0.0, 2.0, size=(4, d_r, d_c))
#       V = repeat(Q_of_context, d_m, d_n, "block") * W
#       A_plain = np.empty((B, d_n))
#       for v in range(4):
#           A_plain[context == v] = H[context == v] @ V[v]
#       A_row, _ = FORMS["row"].forward(H, W, Q_of_context[context], "block")
#       expect_close(A_plain, A_row, name="A, one matrix per context")
#
# **3.** A discriminator (tutorial 09) may want to see the whole matrix :math:`S_b`, flattened to a
# vector :math:`\mathrm{vec}(S)`, times its own weights :math:`W_s` of :math:`d_m d_n` rows. Find
# that product without building :math:`S`, and the adjoint of :math:`W_s`.
#
# .. dropdown:: Solution 3
#
#    The weights that meet copies of one core entry can be added up beforehand: that sum is the
#    adjoint of the repeat operator, which the library calls ``fold``, and
#    :math:`\mathrm{vec}(S)\, W_s = \mathrm{vec}(Q)\, \mathrm{fold}(W_s)`. Folding adds, so its
#    adjoint copies: the gradient of the small matrix is repeated (derivations 3.5i and 3.5j).
#
#    .. code-block:: python
#
#       from midpg_np.layers.expansion import Expansion, RepeatShape
#       from midpg_np.layers.repeat import repeat
#
#       v = 3
#       W_s = rng.normal(size=(d_m * d_n, v))
#       psi = Expansion((RepeatShape(d_r, d_c, d_m, d_n),), "block")
#       few, q = 6, Q[:6].reshape(6, -1)
#       s = repeat(Q[:few], d_m, d_n, "block").reshape(few, -1)
#       W_q = psi.fold(W_s.T).T
#       expect_close(q @ W_q, s @ W_s, name="vec(S) W_s")
#       da = rng.normal(size=(few, v))
#       expect_close(psi.expand((q.T @ da).T).T, s.T @ da, name="dW_s")
