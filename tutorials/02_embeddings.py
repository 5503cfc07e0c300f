r"""
Embeddings and their gradient
=============================

**What you will know.** How a code becomes a few learned numbers, what an adjoint is, and why the
gradient of a lookup is a sum. And the one line that looks right and loses most of that sum.

**Read first.** Tutorial 01 (batch, field, code).

**Equations.** Derivations 2.1a (lookup) and 2.1b (its adjoint). The code is
``midpg_np/layers/embedding.py``.

**Time.** About a second.
"""

# %%
# Looking up
# ----------
# A network computes with numbers, and a code is only a name. So each field :math:`f` gets a
# **table** :math:`T_f` with a row for each of its :math:`V_f` codes. A row holds :math:`k` numbers,
# the **embedding** of that code; they start at random and are learned. Example :math:`b` has the
# code :math:`x_{b,f}` in field :math:`f`, and what the network sees of it is that row of the table:
#
# .. math:: E_{b,f} = T_f[x_{b,f}], \qquad E_b = [E_{b,1}, \dots, E_{b,F}] .
#
# The bracket on the right puts the embeddings of all fields side by side, so :math:`E` has
# :math:`B` rows and :math:`F k` columns. Take two fields, with 3 and 4 codes, and :math:`k = 2`.

import numpy as np

from midpg_np import expect_close, plots, scatter_add_rows
from midpg_np.layers.embedding import Embedding

layer = Embedding(vocab_sizes=(3, 4), dim=2)
T = [np.array([[0, 1], [2, 3], [4, 5.0]]), 10 * np.array([[0, 1], [2, 3], [4, 5], [6, 7.0]])]
codes = np.array([[1, 3], [1, 0], [2, 3]])

E_by_hand = np.array([np.concatenate([T[f][codes[b, f]] for f in range(2)]) for b in range(3)])
print(E_by_hand)

# %%
# The library keeps all tables below each other in one array. ``offsets`` says where each field
# begins: row ``offsets[f] + code``. One array means one lookup for all fields, and later one sum.
#
# To compute the output of a layer is its **forward pass**. ``forward`` returns two things, the
# output and a **cache**: what the way back will need, here the numbers of the rows that were read,
# ``cache.ids``. And ``expect_close`` compares two results: it prints their largest difference,
# relative to the largest entry, and raises an error if that is more than rounding.

params = {"table": np.concatenate(T)}
E, cache = layer.forward(params, codes)
print("offsets", layer.offsets)
print("rows that are read\n", cache.ids)
expect_close(E_by_hand, E, name="E")

# %%
# What comes back
# ---------------
# Training needs the derivative of the loss :math:`\mathcal L` with respect to every number in the
# tables. We get there backwards. Write
#
# .. math:: \bar X = \frac{\partial \mathcal L}{\partial X}
#
# for the derivative with respect to all entries of an array :math:`X`, an array of the same shape.
# It is called the **adjoint** of :math:`X`, in code ``dX`` or ``d_name``. A **backward pass**
# starts at the loss, whose adjoint is 1, and walks towards the parameters: each step knows the
# adjoint of its output and works out those of its inputs by the chain rule. The adjoint of a
# parameter is its **gradient**.
#
# The step at hand knows :math:`\bar E`, which the layers above have sent down, and wants
# :math:`\bar T_f`. The chain rule sums over everything that a number goes into, over all its
# **readers**:
#
# .. math:: \bar T_f[v] = \sum_{b:\ x_{b,f} = v} \bar E_{b,f} .
#
# Row :math:`v` of the table is read once for each example that carries code :math:`v`, each reader
# receives an unchanged copy, and so each sends back its adjoint as it is. A row that nobody read
# has gradient 0. As a loop, for an invented :math:`\bar E`:

dE = np.array([[1, 1, 10, 10], [2, 2, 20, 20], [4, 4, 40, 40.0]])
dT_by_hand = np.zeros((7, 2))
for b in range(3):
    for f in range(2):
        dT_by_hand[cache.ids[b, f]] += dE[b, 2 * f : 2 * f + 2]
print(dT_by_hand[:, 0].tolist())

expect_close(dT_by_hand, layer.backward_dense(dE, cache)["table"], name="dT")

# %%
# Read the column: row 1, read by examples 0 and 1, gets 1 + 2. Row 2 gets 4. Of the second field
# row 3, code 0, gets 20, and row 6, code 3, gets 10 + 40. The others were not read.
#
# The same as a matrix product
# ----------------------------
# A lookup is a linear map. Three examples with two fields each are six places that read the table
# of seven rows. Write a matrix with a row for each place, which is 1 at the row that the place
# reads and 0 elsewhere: ``one_hot``. Then the embeddings are ``one_hot @ T``, and the adjoint
# multiplies with the transpose, ``one_hot.T @ dE``: it gathers what the map has handed out. (Why
# the transpose? That is the first thing that tutorial 03 derives.) Nobody would compute it like
# this, since the matrix is nearly all zeros, but it is a second way, and it agrees.

one_hot = np.zeros((6, 7))
one_hot[np.arange(6), cache.ids.reshape(-1)] = 1.0
expect_close(one_hot @ params["table"], E.reshape(6, 2), name="E by a product")
expect_close(one_hot.T @ dE.reshape(6, 2), dT_by_hand, name="dT by a product")

# %%
# The line that loses
# -------------------
# In NumPy the sum seems to fit into one line, ``dT[ids] += dE``. It runs, it has the right shape,
# and it is wrong. NumPy reads ``dT[ids]``, adds, and writes back; where an id occurs twice, both
# sums start from the same old value, and the second one overwrites the first.

ids = cache.ids.reshape(-1)
lossy = np.zeros((7, 2))
lossy[ids] += dE.reshape(6, 2)
print("right", dT_by_hand[:, 0].tolist())
print("lossy", lossy[:, 0].tolist())

# %%
# Row 1 has lost a summand and says ``2.0`` in place of ``3.0``; row 6 says ``40.0`` in place of
# ``50.0``. With three examples one can see it. With a batch of real size one sees only a model that
# learns slowly: the gradients of rare codes, which occur once, are right, and those of frequent
# codes keep one summand of many. Let the codes of a field be as uneven as ids are in practice.

rng = np.random.default_rng(2)
V, k, B = 50, 4, 512
frequency = 1.0 / (np.arange(V) + 5.0)
column = rng.choice(V, size=(B, 1), p=frequency / frequency.sum())
field = Embedding((V,), k)
E, cache = field.forward(field.init(rng), column)
dE = rng.normal(size=E.shape)

right, lossy = np.zeros((V, k)), np.zeros((V, k))
scatter_add_rows(right, column[:, 0], dE)
lossy[column[:, 0]] += dE
counts = np.bincount(column[:, 0], minlength=V)
n_kept = (counts > 0).sum()
print(f"{B} summands, {n_kept} kept, {B - n_kept} lost")
expect_close(right, field.backward_dense(dE, cache)["table"], name="scatter-add")

# %%
# ``scatter_add_rows`` is the sum as it should be, on a CPU and on a GPU. (``np.add.at`` does it,
# too.) A **scatter-add** sends each row to the place that its id names, and adds it there. The
# lossy line keeps one summand per code that occurs, ``50`` of ``512``.
#
# The picture has a dot for each code: how long its gradient should be, and how long the lossy line
# makes it. The more often a code occurs, the more it misses.

figure = plots.new_figure(6.0, 3.6)
axes = figure.subplots()
for gradient, name, style in ((right, "sum", 0), (lossy, "lossy line", 1)):
    look = plots.STYLES[style] | {"linestyle": "none"}
    axes.plot(counts, np.linalg.norm(gradient, axis=1), label=name, **look)
axes.set(xlabel="occurrences of the code in the batch", ylabel="length of its row's gradient")
figure.legend(loc="outside upper left", ncols=2, frameon=False)
plots.show(figure, "02_lost_summands")

# %%
# Only the rows that were read
# ----------------------------
# A table may have a million rows, of which a batch reads a few hundred. A gradient of the whole
# table would be nearly all zeros, and each step of training would walk through them. There the
# library therefore returns a ``RowGradient``: the rows that occur, sorted, and the sum
# for each of them. To get there it sorts the ids of the batch, so that equal ones stand side by
# side, and adds up each run.

users = Embedding((1_000_000,), 8)
column = rng.integers(0, 1_000_000, size=(B, 1))
_, cache = users.forward({"table": np.zeros((users.n_rows, 8))}, column)
dE = rng.normal(size=(B, 8))
gradient = users.backward(dE, cache)["table"]
print(f"ids {gradient.ids[:4]} ...")
print(f"whole table {8 * users.n_params:,} bytes, rows read {gradient.rows.nbytes:,} bytes")
expect_close(gradient.dense(), users.backward_dense(dE, cache)["table"], name="RowGradient")

# %%
# The whole gradient would take ``64,000,000 bytes``, a row gradient of 512 rows at most ``32,768``.
#
# Three things to keep: a lookup hands out copies, so its adjoint **adds up**; adding up by an
# assignment with repeated indices loses summands; and the sum over all readers will come back
# wherever something is used more than once: a weight, for instance, is used by every example. That
# is next, in tutorial 03.

# %%
# Exercises
# ---------
# **1.** Somebody forgets the offsets and reads row ``code`` instead of ``offsets[f] + code``. With
# the small table from above, which rows are then never read, and what do both fields share? Does
# anything raise an error?
#
# .. dropdown:: Solution 1
#
#    Nothing raises an error, and all shapes are right. Codes of the second field read the rows of
#    the first, or row 3 just behind them; rows 4 to 6 are never read. Code 1 of one field and code
#    1 of the other have one embedding between them, and add to the same gradient.
#
#    .. code-block:: python
#
#       E_wrong = params["table"][codes].reshape(3, 4)
#       assert E_wrong.shape == E_by_hand.shape
#       assert set(range(7)) - set(codes.reshape(-1).tolist()) == {4, 5, 6}
#       assert np.array_equal(E_wrong[1, :2], params["table"][1])
#
# **2.** Find a test for a lookup's gradient that needs no second implementation: something that the
# column sums of :math:`\bar T` and those of :math:`\bar E` must have to do with each other. Does it
# find the lossy line? Which mistake does it miss?
#
# .. dropdown:: Solution 2
#
#    Each summand arrives once, so the column sums are equal. The lossy line fails. A summand that
#    arrives in the wrong row passes: a shift of all rows by one leaves the sums as they are.
#
#    .. code-block:: python
#
#       summands = rng.normal(size=(B, k))
#       ids = rng.choice(V, size=B)
#       good, lossy = np.zeros((V, k)), np.zeros((V, k))
#       scatter_add_rows(good, ids, summands)
#       lossy[ids] += summands
#       expect_close(good.sum(axis=0), summands.sum(axis=0), name="column sums")
#       assert np.abs(lossy.sum(axis=0) - summands.sum(axis=0)).max() > 1.0
#       expect_close(np.roll(good, 1, axis=0).sum(axis=0), summands.sum(axis=0), name="shifted")
#
# **3.** The last three purchases of a user are three codes of one field, and their embedding is the
# mean of the three rows. Derive the adjoint of the table, write it with ``scatter_add_rows``, and
# compare it with a loop.
#
# .. dropdown:: Solution 3
#
#    With :math:`x_{b,m}` the code of purchase :math:`m`, :math:`E_b = \frac13 \sum_m T[x_{b,m}]`.
#    Each of the three rows is read with the factor 1/3, so each receives :math:`\frac13 \bar E_b`;
#    a code that occurs twice in one example receives it twice.
#
#    .. code-block:: python
#
#       purchases = rng.integers(0, 6, size=(5, 3))
#       dE = rng.normal(size=(5, k))
#       dT = np.zeros((6, k))
#       scatter_add_rows(dT, purchases.reshape(-1), np.repeat(dE / 3.0, 3, axis=0))
#       by_loop = np.zeros((6, k))
#       for b, m in np.ndindex(5, 3):
#           by_loop[purchases[b, m]] += dE[b] / 3.0
#       expect_close(dT, by_loop, name="dT of a mean of three")
