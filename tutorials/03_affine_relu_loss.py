r"""
Affine map, ReLU and loss by hand
=================================

**What you will know.** The backward passes of the three pieces that every network here is made of,
derived with indices: the affine map, the ReLU and the loss. How they chain to the gradient of a
whole network. And why the loss is computed from logits, never from probabilities.

**Read first.** Tutorial 02 (adjoint, the sum over all readers).

**Equations.** Derivations 2.2a to 2.2d (affine map, activation, network), 2.5a and 2.5b (loss). The
code is ``midpg_np/ops.py``, ``midpg_np/losses.py`` and ``midpg_np/layers/mlp.py``.

**Time.** About a second.
"""

# %%
# The affine map
# --------------
# A layer mixes its inputs: :math:`A = H W + \mathbf 1 b^\top`. An example is a row of :math:`H`.
# The weights :math:`W` have a row per input and a column per output, and the **bias** :math:`b` is
# added to every row: :math:`\mathbf 1` is a column of ones, so :math:`\mathbf 1 b^\top` has
# :math:`b` in each of its rows. In all tutorials the index :math:`b` counts examples, :math:`i`
# inputs and :math:`j` outputs; so the bias, which has an entry for each output, is :math:`b_j`.
#
# .. math:: A_{bj} = \sum_i H_{bi} W_{ij} + b_j
#
# From above comes :math:`\bar A`, a number for each entry of :math:`A`. Ask each quantity who reads
# it, and with what factor:
#
# - :math:`H_{bi}` is read by all outputs of its own example, output :math:`j` with the factor
#   :math:`W_{ij}`. So :math:`\bar H_{bi} = \sum_j \bar A_{bj} W_{ij}`.
# - :math:`W_{ij}` is read by all examples, example :math:`b` with the factor :math:`H_{bi}`. So
#   :math:`\bar W_{ij} = \sum_b H_{bi} \bar A_{bj}`.
# - :math:`b_j` is read by all examples, with the factor 1. So
#   :math:`\bar b_j = \sum_b \bar A_{bj}`.
#
# That is the whole derivation. As loops, in which the bias is called ``bias``:

import numpy as np

from midpg_np import cross_entropy, cross_entropy_backward, expect_close, plots
from midpg_np.layers.mlp import MLP
from midpg_np.ops import affine, affine_backward, relu, relu_backward, sigmoid, softplus

rng = np.random.default_rng(3)
n_in, n_out, B = 4, 3, 5
H, W, bias = (rng.normal(size=shape) for shape in ((B, n_in), (n_in, n_out), n_out))
A, cache = affine(H, W, bias)
dA = rng.normal(size=A.shape)  # as if it came from above

dH_by_hand, dW_by_hand, db_by_hand = (np.zeros_like(x) for x in (H, W, bias))
for b, i, j in np.ndindex(B, n_in, n_out):
    dH_by_hand[b, i] += dA[b, j] * W[i, j]
    dW_by_hand[i, j] += H[b, i] * dA[b, j]
for b, j in np.ndindex(B, n_out):
    db_by_hand[j] += dA[b, j]

dH, dW, db = affine_backward(dA, cache)
expect_close(dH_by_hand, dH, name="dH")
expect_close(dW_by_hand, dW, name="dW")
expect_close(db_by_hand, db, name="db")

# %%
# Sums over one index are matrix products, and what the loops do is
#
# .. math:: \bar H = \bar A\, W^\top, \qquad \bar W = H^\top \bar A, \qquad
#           \bar b = \text{column sums of } \bar A .
#
# A transpose is no inverse; it turns the question round. Forward, a column of :math:`W` says what
# an output reads; backward, a row of it says by whom an input was read. The backward pass needs
# :math:`H` and :math:`W`, so the forward pass keeps them in its cache.

expect_close(dA @ W.T, dH, name="dH by a product")
expect_close(H.T @ dA, dW, name="dW by a product")
print("kept:", cache._fields)

# %%
# The ReLU
# --------
# Between two affine maps stands a function that bends each entry for itself, the **activation**;
# without it two layers would be no more than one (exercise 1). Ours is the **ReLU**, :math:`y =
# \max(x, 0)`. An entry has a single reader, so its adjoint is the one from above times the slope:
#
# .. math:: \bar x = \bar y \cdot \mathbf 1[x > 0] ,
#
# where :math:`\mathbf 1[\cdot]` is 1 if the condition holds and 0 if not. At the corner,
# :math:`x = 0`, there is no derivative. The library takes 0, and any number from 0 to 1 would do
# as well. What matters is that it is written down, and that a check stays clear of the corner
# (tutorial 04).

x = np.array([-2.0, 0.0, 3.0])
y, is_positive = relu(x)
print("y ", y.tolist(), " dx", relu_backward(np.ones(3), is_positive).tolist())

# %%
# The loss
# --------
# The last layer leaves one logit :math:`z_b` per example. The model's probability of label 1 is
# :math:`\sigma(z) = 1 / (1 + e^{-z})`, the sigmoid, and the loss of an example is minus the
# logarithm of the probability that it gave to its label:
#
# .. math:: -y \log \sigma(z) - (1 - y) \log(1 - \sigma(z)) .
#
# Now simplify, before anything is computed. With **softplus**, :math:`\mathrm{sp}(z) =
# \log(1 + e^z)`, we have :math:`-\log(1 - \sigma(z)) = \mathrm{sp}(z)` and
# :math:`-\log \sigma(z) = \mathrm{sp}(-z) = \mathrm{sp}(z) - z`. Put in, and average:
#
# .. math:: \mathcal L = \frac1B \sum_b \bigl[ \mathrm{sp}(z_b) - y_b z_b \bigr] .
#
# The slope of softplus is :math:`e^z / (1 + e^z) = \sigma(z)`. So the backward pass of sigmoid,
# logarithms and mean together is
#
# .. math:: \bar z_b = \frac{\sigma(z_b) - y_b}{B} :
#
# the probability that was said, minus what happened, over :math:`B`.

z, label = rng.normal(size=B), np.array([1.0, 0.0, 0.0, 1.0, 0.0])
p = 1.0 / (1.0 + np.exp(-z))
loss_by_hand = -(label * np.log(p) + (1.0 - label) * np.log(1.0 - p)).mean()

loss, loss_cache = cross_entropy(z, label)
expect_close(loss_by_hand, loss, name="loss")
expect_close((p - label) / B, cross_entropy_backward(1.0, loss_cache), name="dz")

# %%
# A model that knows nothing says logit 0 and has the loss :math:`\mathrm{sp}(0) = \log 2`,
# ``0.6931``, the coin of tutorial 01. A training that starts far above it, or stays there, is worth
# a second look.

ignorance, _ = cross_entropy(np.zeros(B), label)
print(f"loss at z = 0: {ignorance:.4f}")

# %%
# The chain
# ---------
# Now put them together: affine map, ReLU, affine map, loss. Forward:

sizes = (4, 6, 1)
W1, b1 = rng.normal(size=sizes[:2]), rng.normal(size=6)
W2, b2 = rng.normal(size=sizes[1:]), rng.normal(size=1)

A1 = H @ W1 + b1
H1 = np.maximum(A1, 0.0)
z = (H1 @ W2 + b2)[:, 0]

# %%
# Backward: the same lines, read upwards. Each line below is one rule from above, and takes what the
# line before it has found.

dz = (sigmoid(z)[0] - label) / B
dA2 = dz[:, None]
dW2, db2 = H1.T @ dA2, dA2.sum(axis=0)
dH1 = dA2 @ W2.T
dA1 = dH1 * (A1 > 0.0)
dW1, db1 = H.T @ dA1, dA1.sum(axis=0)
dH = dA1 @ W1.T

# %%
# :math:`\bar H` is the adjoint of the network's input. There the lookup of tutorial 02 takes over,
# and the way from the loss to the tables is complete: this is the backward pass of the DNN. The
# library's ``MLP`` (multi-layer perceptron) does the same for any number of layers.

mlp = MLP(sizes)
params = {"layer_1": {"W": W1, "b": b1}, "layer_2": {"W": W2, "b": b2}}
out, mlp_cache = mlp.forward(params, H)
loss, loss_cache = cross_entropy(out[:, 0], label)
dout = cross_entropy_backward(1.0, loss_cache)[:, None]
dH_mlp, grads = mlp.backward(dout, mlp_cache)

mine = {"layer_1": {"W": dW1, "b": db1}, "layer_2": {"W": dW2, "b": db2}}
for layer, name in (("layer_1", "W"), ("layer_1", "b"), ("layer_2", "W"), ("layer_2", "b")):
    expect_close(mine[layer][name], grads[layer][name], name=f"{layer}.{name}")
expect_close(dH, dH_mlp, name="H")

# %%
# Why logits
# ----------
# On paper it is the same whether one computes the loss from :math:`z` or first the probability and
# then its logarithm. On a computer it is not. Take a row with label 0 for which the model is very
# sure of 1: the most important row of the batch, since its loss is large. The loss is
# :math:`\mathrm{sp}(z)`, nearly :math:`z` itself.

sure, no = np.array([40.0]), np.array([0.0])
p = sigmoid(sure)[0]
with np.errstate(divide="ignore"):
    by_probability = -np.log(1.0 - p)
print("1 - p =", 1.0 - p[0], "  loss by probability", by_probability[0])
print("loss by logit", cross_entropy(sure, no)[0])

# %%
# A number next to 1 has no room for :math:`e^{-40}`: the probability is rounded to 1, and the
# logarithm of 0 is infinite. The usual patch is to cut probabilities off at, say, :math:`10^{-7}`
# from 0 and 1. Then the loss is finite, but from there on it is constant, ``16.12``, and its
# gradient is **zero**. That is worse: the model gets no signal from the very rows about which it is
# most wrong.

z = np.linspace(0.0, 40.0, 401)
p = sigmoid(z)[0]
clipped_loss = -np.log(1.0 - np.clip(p, 1e-7, 1.0 - 1e-7))
clipped_slope = np.where(p < 1.0 - 1e-7, p, 0.0)

figure = plots.new_figure(8.0, 3.2)
left, right = figure.subplots(1, 2)
plain, dashed = (style | {"marker": ""} for style in plots.STYLES[:2])
for axes, true, clipped in ((left, softplus(z)[0], clipped_loss), (right, p, clipped_slope)):
    axes.plot(z, true, label="from the logit", **plain)
    axes.plot(z, clipped, label="from the clipped probability", **dashed)
    axes.set_xlabel("logit of a row with label 0")
left.set_ylabel("loss")
right.set_ylabel("derivative by the logit")
figure.legend(*left.get_legend_handles_labels(), loc="outside upper left", ncols=2, frameon=False)
plots.show(figure, "03_why_logits")
print(f"clipped at 1e-7: loss {clipped_loss[-1]:.2f}, derivative {clipped_slope[-1]}")

# %%
# Softplus itself must be written with care, too: :math:`e^{800}` is too large for a computer. With
# :math:`\mathrm{sp}(z) = \max(z, 0) + \log(1 + e^{-|z|})` the exponential only ever sees numbers
# that are not positive, and nothing overflows. So every model here ends in a logit, and
# probabilities are formed when a report is printed.

far = np.array([-800.0, 800.0])
print("softplus at -800 and 800:", softplus(far)[0].tolist())

# %%
# Exercises
# ---------
# **1.** Show that two affine maps without an activation between them are one affine map, and say
# which one.
#
# .. dropdown:: Solution 1
#
#    :math:`(H W_1 + \mathbf 1 b_1^\top) W_2 + \mathbf 1 b_2^\top = H (W_1 W_2) + \mathbf 1
#    (b_1^\top W_2 + b_2^\top)`: the weights multiply, and the first bias goes through the second
#    map.
#
#    .. code-block:: python
#
#       both, _ = MLP(sizes, activation="identity").forward(params, H)
#       one, _ = affine(H, W1 @ W2, b1 @ W2 + b2)
#       expect_close(one, both, name="one map for two")
#
# **2.** Replace the ReLU by :math:`\tanh`, whose slope is :math:`1 - \tanh^2`. Which lines of the
# backward pass change? Compare with ``MLP(sizes, activation="tanh")``.
#
# .. dropdown:: Solution 2
#
#    The line of the activation alone. The slope follows from the output, so that is what the cache
#    keeps.
#
#    .. code-block:: python
#
#       H1 = np.tanh(H @ W1 + b1)
#       dz = (sigmoid((H1 @ W2 + b2)[:, 0])[0] - label) / B
#       dA1 = (dz[:, None] @ W2.T) * (1.0 - H1**2)
#
#       bent = MLP(sizes, activation="tanh")
#       out, cache = bent.forward(params, H)
#       _, loss_cache = cross_entropy(out[:, 0], label)
#       dout = cross_entropy_backward(1.0, loss_cache)[:, None]
#       expect_close(H.T @ dA1, bent.backward(dout, cache)[1]["layer_1"]["W"], name="dW of layer 1")
#
# **3.** Exercise 3 of tutorial 01 gave every scenario the same weight: the loss is the mean, over
# the scenarios in the batch, of the mean over their rows. Write it as one sum over rows with
# weights, find :math:`\bar z`, and compare with ``cross_entropy(z, y, weight)``.
#
# .. dropdown:: Solution 3
#
#    With :math:`M` scenarios in the batch and :math:`n_d` rows of scenario :math:`d`, a row of
#    scenario :math:`d` has the weight :math:`1 / (M n_d)` in place of :math:`1 / B`. The weight is
#    a factor of the row's loss, so it is a factor of its adjoint (derivations 2.5e).
#
#    .. code-block:: python
#
#       scenario, z = np.array([0, 0, 0, 2, 2]), rng.normal(size=5)
#       weight = 1.0 / (2 * np.array([3.0, 3.0, 3.0, 2.0, 2.0]))
#       loss, cache = cross_entropy(z, label, weight)
#       means = [cross_entropy(z[scenario == d], label[scenario == d])[0] for d in (0, 2)]
#       expect_close(np.mean(means), loss, name="mean of means")
#       dz = weight * (sigmoid(z)[0] - label)
#       expect_close(dz, cross_entropy_backward(1.0, cache), name="dz")
