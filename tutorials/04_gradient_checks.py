r"""
What a gradient check sees
==========================

**What you will know.** How to find out by evaluation alone whether a backward pass is right. Which
step size to take, and why there is a way without that question. Where a check raises a false alarm,
and which mistakes it cannot see at all.

**Read first.** Tutorial 03 (affine map, ReLU and loss by hand).

**Equations.** Derivations 13.2a (complex step) and 13.2b (differences). The code is
``midpg_np/checks/``; the command ``midpg gradcheck`` checks everything in the library.

**Time.** A few seconds.
"""

# %%
# One number, moved a little
# --------------------------
# A backward pass claims to know how the loss changes with every parameter. The claim can be tested:
# move one parameter by a small **step** :math:`h`, evaluate again, divide. The network of tutorial
# 03, with tanh in place of the ReLU for the moment, and one of its weights. All parameters together
# are a **tree**, a dictionary of arrays and of further dictionaries; ``tree_set`` changes a leaf of
# it, and ``perturbed`` moves every leaf away from the value at which it starts.

import numpy as np

from midpg_np import cross_entropy, cross_entropy_backward, expect_close, plots
from midpg_np.checks import Case, check_gradients, perturbed
from midpg_np.checks.numeric import central_differences, complex_steps
from midpg_np.layers.mlp import MLP
from midpg_np.ops import affine, affine_backward, relu, relu_backward
from midpg_np.tree import tree_set

rng = np.random.default_rng(4)
mlp = MLP((4, 6, 1), "tanh")
params = perturbed(mlp.init(rng), rng)
H, label = rng.normal(size=(5, 4)), np.array([1.0, 0.0, 0.0, 1.0, 0.0])


def loss_of(params):
    """Loss of the batch, as a function of all parameters."""
    z, _ = mlp.forward(params, H)
    return cross_entropy(z[:, 0], label)[0]


z, cache = mlp.forward(params, H)
_, loss_cache = cross_entropy(z[:, 0], label)
_, grads = mlp.backward(cross_entropy_backward(1.0, loss_cache)[:, None], cache)
claimed = grads["layer_1"]["W"][0, 0]


def moved(delta):
    """Loss after that one weight has moved."""
    W = params["layer_1"]["W"].astype(np.result_type(delta, float))
    W[0, 0] += delta
    return loss_of(tree_set(params, "layer_1.W", W))


h = 1e-6
print(f"claimed {claimed:+.12f}, difference {(moved(h) - moved(0.0)) / h:+.12f}")

# %%
# Six digits agree. Is the rest rounding, or a small mistake? That depends on :math:`h`,
# and in two ways. The quotient leaves out the curvature, an error that shrinks with :math:`h`. And
# it subtracts two numbers that are nearly equal: of the 16 digits that a computer keeps, rounding
# has spoilt the last one, and the quotient magnifies that by :math:`1/h`. With
# :math:`\varepsilon \approx 10^{-16}`, the relative error of a rounded number, the error is about
#
# .. math:: c\, h^p + \varepsilon / h
#
# with some constant :math:`c`: a valley, whose bottom lies near
# :math:`h = \varepsilon^{1/(p+1)}`. The **order** :math:`p` says how well the quotient knows the
# function :math:`f`: 1 for the one above, 2 if one steps to both sides of :math:`x`,
# :math:`[f(x+h) - f(x-h)] / 2h`, and 4 for two steps to each side (derivations 13.2b). The last
# two are called **central differences**.
#
# There is a way without subtraction. Step not to the side but *up*, into the complex numbers, with
# :math:`\mathrm i` the imaginary unit:
# :math:`f(x + \mathrm i h) = f(x) + \mathrm i h f'(x) - \dots`, so
#
# .. math:: f'(x) \approx \frac{\operatorname{Im} f(x + \mathrm i h)}{h} .
#
# The imaginary part holds nothing but the derivative; no digits are lost, however small :math:`h`
# is. This is the **complex step** (derivations 13.2a).

steps = 10.0 ** np.arange(-20, 1)
at = (loss_of, params, "layer_1.W", [(0, 0)])
derivatives = {
    "one-sided": [(moved(h) - moved(0.0)) / h for h in steps],
    "2nd order": [central_differences(*at, step=h, order=2)[0] for h in steps],
    "4th order": [central_differences(*at, step=h, order=4)[0] for h in steps],
    "complex step": [moved(1j * h).imag / h for h in steps],
}
errors = {name: np.abs(np.array(d) - claimed) for name, d in derivatives.items()}
plots.show(plots.plot_step_sizes(steps, errors), "04_step_sizes")
for name, error in errors.items():
    print(f"{name:>18}: best step {steps[error.argmin()]:.0e}, error {error.min():.0e}")

best = {name: steps[error.argmin()] for name, error in errors.items()}
assert 0.05 < best["one-sided"] / 1e-08 < 20.0
assert 0.05 < best["2nd order"] / 1e-05 < 20.0
assert 0.05 < best["4th order"] / 1e-04 < 200.0
assert errors["complex step"][steps <= 1e-10].max() < 1e-15

# %%
# Three valleys and a plateau. One-sided differences are best near ``1e-08``, where half of the
# digits are right; stepping to both sides near ``1e-05``; the fourth order near ``1e-04`` or a
# little above. On the left all of them drown in rounding, and in the end :math:`x + h` is
# :math:`x`. The complex step is right to the last digit from :math:`10^{-8}` down. The library
# takes :math:`10^{-20}` and demands agreement to :math:`10^{-12}` of the largest entry, so that a
# mistake in the tenth digit is one.
#
# Why differences at all, then? The complex step believes that the function is written with
# operations that mean the same for complex numbers (exercise 3). Differences see the function as
# it is. So they are asked, too, as a second, independent **witness**.
#
# Many numbers at once
# --------------------
# A layer has no loss, but many outputs :math:`Y`. One makes a single number of them with an adjoint
# :math:`\bar Y` that is drawn at random: :math:`f = \sum \bar Y \odot Y`, where :math:`\odot`
# multiplies entry by entry. Its gradient is what the backward pass returns for that
# :math:`\bar Y`. Then every entry of every input is moved. ``check_gradients`` does this for a
# ``Case``: named inputs, a forward and a backward pass. (Its ``frozen`` is for values that a
# gradient must not pass, and can wait.) The weights are square here, so that :math:`W` fits where
# its transpose belongs.


def affine_case(inputs, backward):
    """An affine map with a backward pass that is to be checked."""

    def forward(inputs, frozen):
        y, cache = affine(inputs["x"], inputs["W"], inputs["b"])
        return (y,), cache

    def named_backward(d_outputs, cache):
        return dict(zip(("x", "W", "b"), backward(*d_outputs, cache), strict=True))

    return Case("affine", inputs, forward, named_backward)


def tell(case):
    """Check a case and print the verdict."""
    report = check_gradients(case, np.random.default_rng(0))
    print(f"{report.n_entries} entries:", *(report.failures or ["all right"]))
    return report


x, W, b = rng.normal(size=(5, 3)), rng.normal(size=(3, 3)), rng.normal(size=3)
inputs = {"x": x, "W": W, "b": b}
assert tell(affine_case(inputs, affine_backward)).ok


def transpose_forgotten(dy, cache):
    """Backward pass of the affine map with W in place of its transpose."""
    return dy @ cache.W, cache.x.T @ dy, dy.sum(axis=0)


report = tell(affine_case(inputs, transpose_forgotten))
assert not report.ok
plots.show(plots.plot_gradient_report(report), "04_report")

# %%
# The message names the array, the worst entry, and what each side says about it. The picture shows
# the same for all arrays: ``W`` and ``b`` are right to rounding, and ``x`` is far on the wrong side
# of the line.
#
# A false alarm
# -------------
# The ReLU has a corner at 0. If it lies between :math:`x - h` and :math:`x + h`, a difference
# measures the slope of a line across the corner, and finds something between 0 and 1.


def relu_of(tree):
    """The ReLU of a number, as the function of a tree that the checks expect."""
    return relu(tree["x"])[0].sum()


print("       x  backward  difference  complex step")
for at in (-1e-3, -2e-6, 0.0, 2e-6, 1e-3):
    tree = {"x": np.array([at])}
    slope = relu_backward(1.0, relu(tree["x"])[1])[0]
    step_to_the_sides = central_differences(relu_of, tree, "x", [(0,)], step=1e-5, order=2)[0]
    step_up = complex_steps(relu_of, tree, "x", [(0,)])[0]
    print(f"{at:+.0e}  {slope:8.1f}  {step_to_the_sides:10.1f}  {step_up:12.1f}")
    assert slope == step_up

# %%
# Near the corner the *difference* is wrong, ``0.4`` or ``0.6``, and the backward pass is right. It
# is no remedy to loosen the tolerance until such cases pass; mistakes would pass with them. The
# library keeps clear of corners instead: a ``Case`` may name its **kinks**, pairs of a bias and the
# numbers that it shifts, and before anything is checked the biases are shifted until no such number
# is near 0. Here is a network whose biases are 0 and whose first example is 0, so that it sits on
# six corners at once.

network = MLP((4, 6, 1))
H_at_corner = np.vstack([np.zeros(4), H])


def network_case(params, backward=network.backward, kinks=None):
    """The network as a case; its input is held fixed."""

    def forward(params, frozen):
        y, cache = network.forward(params, H_at_corner)
        return (y,), cache

    def parameters_only(d_outputs, cache):
        return backward(*d_outputs, cache)[1]

    return Case("network", params, forward, parameters_only, kinks)


start = network.init(rng)
print("kinks not named:")
assert not tell(network_case(start)).ok
print("kinks named:")
assert tell(network_case(start, kinks=network.kinks)).ok

# %%
# What a check does not see
# -------------------------
# A check sees the point at which it is made, and nothing else. The wrong backward pass from above,
# with the transpose forgotten, is right if :math:`W` happens to be **symmetric**, and the identity
# matrix is what comes to mind first for a test:

symmetric = {"x": x, "W": np.eye(3), "b": b}
assert tell(affine_case(symmetric, transpose_forgotten)).ok

# %%
# "All right", it says. The next one hides behind a **zero**. Networks often start with a last layer
# of zeros, so that they begin by saying nothing. Then no adjoint reaches the layer before it, and
# twice nothing is nothing:


def twice_too_much(dy, cache):
    """Backward pass of the network in which the gradients of layer 1 are doubled."""
    dx, grads = network.backward(dy, cache)
    return dx, grads | {"layer_1": {name: 2.0 * g for name, g in grads["layer_1"].items()}}


zero_end = tree_set(start, "layer_2.W", np.zeros((6, 1)))
print("last layer zero:")
assert tell(network_case(zero_end, twice_too_much, network.kinks)).ok
print("random parameters:")
assert not tell(network_case(perturbed(start, rng), twice_too_much, network.kinks)).ok

# %%
# And the last one no gradient check will ever find, at any point. Here the loss divides by
# :math:`2B` instead of :math:`B`, and its backward pass does so as well. Forward and backward fit
# each other perfectly. They are the wrong function.

half = Case(
    "cross-entropy over 2B",
    {"z": rng.normal(size=5)},
    lambda inputs, frozen: ((cross_entropy(inputs["z"], label)[0] / 2.0,), inputs["z"]),
    lambda d, z: {"z": cross_entropy_backward(d[0] / 2.0, cross_entropy(z, label)[1])},
)
assert tell(half).ok
expect_close(half.forward({"z": np.zeros(5)}, None)[0][0], np.log(2.0) / 2.0, name="half of log 2")

# %%
# Against that only a **value** helps that comes from elsewhere: by hand, such as :math:`\log 2` at
# :math:`z = 0`, or from a second program (tutorial 15).
#
# So this is how the library checks itself, and how to check your own layer:
#
# - at random parameters, away from zeros, symmetric matrices and corners,
# - with sizes that all differ, so that a transpose cannot fit by accident,
# - with a random adjoint at the output, never with ones (exercise 1),
# - every entry of every array, and two witnesses,
# - and, besides the gradients, values.

# %%
# Exercises
# ---------
# **1.** A **softmax** turns numbers into weights that add up to 1 (it comes in tutorial 13).
# Somebody's backward pass of it returns zeros. Check it with an adjoint of ones at the output, that
# is, with :math:`f = \sum Y`, and then with a random one. Why does the first check pass?
#
# .. dropdown:: Solution 1
#
#    The outputs add up to 1 whatever the inputs are, so :math:`f` is constant, and zero is its
#    gradient. Ones are blind for all that leaves the sum as it is.
#
#    .. code-block:: python
#
#       from midpg_np.ops import softmax, softmax_backward
#
#       alpha = rng.normal(size=(2, 4))
#       ones, dy = np.ones((2, 4)), rng.normal(size=(2, 4))
#       places = list(np.ndindex(2, 4))
#
#       def slopes(adjoint):
#           f = lambda tree: (adjoint * softmax(tree["alpha"])[0]).sum()
#           return complex_steps(f, {"alpha": alpha}, "alpha", places).reshape(2, 4)
#
#       assert np.abs(slopes(ones)).max() < 1e-15
#       assert np.abs(slopes(dy)).max() > 0.01
#       expect_close(softmax_backward(dy, softmax(alpha)[1]), slopes(dy), name="softmax")
#
# **2.** In float32 there are seven digits, :math:`\varepsilon \approx 6 \cdot 10^{-8}`. Which step
# will be best for central differences of order 2, and how many digits will be right? Predict, then
# try it with :math:`e^x` at :math:`x = 1`.
#
# .. dropdown:: Solution 2
#
#    :math:`\varepsilon^{1/3}` is about 0.004, and the error there about
#    :math:`\varepsilon / h \approx 10^{-5}`: four or five digits at best. A single lucky step may
#    do better, so look at the typical error of several points. This is why float32 code is not
#    checked by differences: it is compared with the same code in float64.
#
#    .. code-block:: python
#
#       points = np.linspace(1.0, 1.1, 50, dtype=np.float32)
#       halves = 10.0 ** np.arange(-6, 0.1, 0.5)
#       typical = []
#       for h in halves.astype(np.float32):
#           d = (np.exp(points + h) - np.exp(points - h)) / (2 * h)
#           typical.append(np.median(np.abs(d / np.exp(points) - 1.0)))
#       print(f"best step {halves[np.argmin(typical)]:.0e}, error {min(typical):.0e}")
#       assert 1e-3 <= halves[np.argmin(typical)] <= 3e-2 and min(typical) > 1e-7
#
# **3.** Write softplus as ``np.maximum(x.real, 0) + np.log1p(np.exp(-np.abs(x)))`` and ask both
# witnesses for its slope at :math:`x = 2`. Who is wrong, and how must it be written?
#
# .. dropdown:: Solution 3
#
#    The complex step is wrong: it sees slope 0. The absolute value of a complex number is real, and
#    so is ``x.real``: both throw the imaginary part away. Decide by the real part, but compute with
#    the whole number.
#
#    .. code-block:: python
#
#       def careless(tree):
#           x = tree["x"]
#           return (np.maximum(x.real, 0.0) + np.log1p(np.exp(-np.abs(x)))).sum()
#
#       def careful(tree):
#           x = tree["x"]
#           size = np.where(x.real > 0.0, x, -x)
#           return (np.where(x.real > 0.0, x, 0.0) + np.log1p(np.exp(-size))).sum()
#
#       tree, slope = {"x": np.array([2.0])}, 1.0 / (1.0 + np.exp(-2.0))
#       assert complex_steps(careless, tree, "x", [(0,)])[0] == 0.0
#       to_the_sides = central_differences(careless, tree, "x", [(0,)])[0]
#       expect_close(to_the_sides, slope, name="differences", tol=1e-9)
#       expect_close(complex_steps(careful, tree, "x", [(0,)])[0], slope, name="complex step")
