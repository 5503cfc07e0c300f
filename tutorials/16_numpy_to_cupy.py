"""
From NumPy to CuPy: the same code on a GPU
==========================================

CuPy has NumPy's functions for arrays that live on a GPU. So the library has one source for both,
and no branch for the device. This tutorial runs on either: if there is a GPU it uses it, if not it
says so and computes everything on the CPU. What it teaches holds for both.

**What you will know.** How code finds out where its arrays are; what differs between the two
devices (adding rows with repeated ids, the order of sums, random numbers, waiting); what a training
step on a GPU costs.

**Read first.** Tutorials 02 (scatter-add) and 11 (a training from end to end).

**Equations.** None that is new; derivations 2.1b for the scatter-add.

**Time.** About two seconds.
"""

# %%
# Is there a GPU?
# ---------------
# The device has a name, "cpu" or "cuda". Asking for one that is not there is an error and not a
# silent change of plan, so a training that should have run on a GPU never runs on a CPU unnoticed.
# The **host** is the computer that the GPU is built into, with its CPU and its memory.

import numpy as np

from midpg_np import DeviceError, expect_close, get_xp, to_device, to_numpy
from midpg_np.backend import check_device

try:
    check_device("cuda")
    device = "cuda"
except DeviceError as error:
    print("No GPU here:", error)
    device = "cpu"
print("The rest of this tutorial runs on device", device)

# %%
# Ask the array
# -------------
# ``cupy.sqrt`` of a NumPy array is an error, and NumPy's functions do not know an array on a GPU
# either. A function that is to serve both asks its argument for the **namespace**, the module with
# the functions for such arrays: ``xp = get_xp(x)`` is ``numpy`` or ``cupy``. Everything after that
# line is written once.


def standardised(x):
    xp = get_xp(x=x)
    return (x - x.mean(axis=0)) / xp.sqrt(x.var(axis=0))


rng = np.random.default_rng(16)
x = rng.normal(2.0, 3.0, size=(1000, 4))
x_there = to_device(x, device)
print("namespace:", get_xp(x_there).__name__)
expect_close(standardised(x_there), standardised(x), name="standardised on the device")

# %%
# ``to_device`` and ``to_numpy`` are the doors between the devices; an array that is on the right
# side already passes without a copy. There is no third door: an array of the one kind never turns
# into the other by itself. A mixture, or something that is no array, is named.

assert to_device(x, "cpu") is x and to_numpy(x) is x
try:
    get_xp(x=x_there, scale=[1.0, 2.0])
except TypeError as error:
    print("TypeError:", error)

# %%
# A training step on the device
# -----------------------------
# A model is a configuration and holds no arrays, so it has no device. Parameters, batch and the
# random numbers of the step have one, and what comes out is where they were. Here is a training
# step of MI-DPG twice, on the CPU and on the device.

from midpg_np import Batch, make_model
from midpg_np.checks import dense_gradients
from midpg_np.losses import CROSS_ENTROPIES
from midpg_np.training.step import host_numbers, training_step
from midpg_np.tree import tree_astype, tree_flatten, tree_map, tree_to_device

model = make_model("midpg", vocab_sizes=(3, 40), n_aware=1, n_scenarios=2, hidden=(16, 8))
rng_params, rng_data, rng_draws = np.random.default_rng(16).spawn(3)
params = model.init(rng_params)
scenario = rng_data.integers(0, 2, size=64)
codes = np.stack([1 + scenario, rng_data.integers(0, 40, size=64)], axis=1)
batch = Batch(codes, scenario, rng_data.integers(0, 2, size=64).astype(float))
draws = model.draw(rng_draws, batch)


def step_on(where, params, batch):
    there = {name: to_device(array, where) for name, array in draws.items()}
    loss = CROSS_ENTROPIES["full"]
    return training_step(model, loss, tree_to_device(params, where), batch.to(where), there)


on_cpu, on_device = step_on("cpu", params, batch), step_on(device, params, batch)
grads_cpu = tree_flatten(dense_gradients(on_cpu.grads))
grads_device = tree_flatten(dense_gradients(on_device.grads))
for path in ("embedding.table", "layer_1.W", "layer_1.weighting.C_share", "head.b"):
    expect_close(grads_device[path], grads_cpu[path], name=path, tol=1e-10)

# %%
# On a GPU the errors printed here need not be zero, though both sides compute in float64. The next
# two sections say why.
#
# Adding rows with repeated ids
# -----------------------------
# Of all operations that the library needs, one has no common form: add ``rows[n]`` to
# ``target[ids[n]]`` where ids repeat, the gradient of a lookup (tutorial 02). On a GPU thousands of
# threads add at once. ``target[ids] += rows`` loses summands there as it does in NumPy;
# ``scatter_add_rows`` loses none, on either device. (Nor does a GPU complain about an id beyond the
# table, as NumPy would. Ids are checked on the host, once, when a data set is built.)

from midpg_np import scatter_add_rows

ids, rows = rng.integers(0, 5, size=200), rng.normal(size=(200, 3))
by_loop = np.zeros((5, 3))
for i, row in zip(ids, rows, strict=True):
    by_loop[i] += row

target = to_device(np.zeros((5, 3)), device)
scatter_add_rows(target, to_device(ids, device), to_device(rows, device))
expect_close(target, by_loop, name="scatter_add_rows")

# %%
# But those threads finish in any order, and so the additions happen in any order. For real numbers
# that does not matter, for floating-point numbers it does. Let us add the same thousand float32
# numbers in twenty orders.

numbers = rng.uniform(size=1000).astype(np.float32)
sums = [np.cumsum(numbers[rng.permutation(1000)])[-1] for _ in range(20)]
print(len(set(sums)), "different sums, spread", (max(sums) - min(sums)) / np.mean(sums))

# %%
# A sum that is added in any order has other last bits in every run. So **compare to rounding**, as
# ``expect_close`` does, and not bit by bit: that is all that ``scatter_add_rows`` promises on a
# GPU. Where it can, the library does better: on the CPU it sorts the ids first, and its
# **kernels**, small programs that run on the GPU, sum over the batch in a fixed order, all but one.
#
# float32
# -------
# A GPU is at its best in float32: half the memory of float64 and, on most cards, many times the
# speed. It has about seven digits. For single numbers that is plenty; the danger is sums. Adding
# :math:`n` numbers one after the other makes an error that grows with :math:`n`: in the end a small
# number meets a large sum, and its last digits are lost. NumPy's ``sum`` adds **pairwise**: sums of
# neighbours, then sums of those. There both sides are always about equally large.

values = rng.uniform(size=(8, 2**18)).astype(np.float32)  # eight arrays, for a mean
exact = np.cumsum(values, axis=1, dtype=np.float64)
one_by_one = np.cumsum(values, axis=1)  # in float32, in the order of the array
lengths = 2 ** np.arange(4, 19, 2)
sums = {
    "one after the other": [one_by_one[:, n - 1] for n in lengths],
    "pairwise": [values[:, :n].sum(axis=1) for n in lengths],
}
error = {
    name: [np.abs(s / exact[:, n - 1] - 1).mean() for n, s in zip(lengths, found, strict=True)]
    for name, found in sums.items()
}
for name, errors in error.items():
    print(f"{name:<20} relative error of {lengths[-1]:,} numbers: {errors[-1]:.0e}")
assert error["one after the other"][-1] > 10 * error["pairwise"][-1]

# %%
# As a picture, for arrays of several lengths:

from midpg_np import plots

figure = plots.new_figure(5.6, 3.6)
axes = figure.subplots()
for style, (name, errors) in zip(plots.STYLES, error.items(), strict=False):
    axes.loglog(lengths, errors, label=name, **style)
spacing = np.finfo(np.float32).eps
axes.axhline(spacing, color="#000000", linewidth=0.8, label="float32's spacing at 1")
axes.set_xlabel("numbers added")
axes.set_ylabel("relative error of the sum")
axes.legend(frameon=False)
plots.show(figure, "16_float32_sums")

# %%
# A kernel on a GPU sums in blocks and then the sums of the blocks, which is the same idea. A loop
# ``total += loss`` over a million rows is the other curve.
#
# The second danger is to lose float32 without noticing. A number of Python's takes the type of the
# array it meets. A *NumPy* number is an array without axes, and brings its own type along:

weights = np.ones(3, dtype=np.float32)
rate = np.float64(0.1)
print("times a Python float:", (weights * 0.1).dtype)
print("times np.float64:    ", (weights * rate).dtype)

# %%
# From there on everything is float64: right, twice as large, and slow. (The library's kernels serve
# arrays of one type; a mixture goes to the slower general form.) So options of a model are kept as
# numbers of Python, and a whole step keeps its type:

single = tree_astype(params, np.float32)
step = step_on(device, single, batch._replace(label=batch.label.astype(np.float32)))
dtypes = {leaf.dtype.name for leaf in tree_flatten(dense_gradients(step.grads)).values()}
print("gradients in", *dtypes)
expect_close(step.output.logit, on_cpu.output.logit, name="logits in float32", tol=1e-4)
assert dtypes == {"float32"}

# %%
# Random numbers
# --------------
# CuPy has generators too, but the same seed gives other numbers there. If each device drew for
# itself, the same script would train two different models, and nothing could be compared. So all
# random numbers are drawn **on the host**, with NumPy's generator, and moved: the mask of a
# dropout, the permutation of the negative pairs. They are few, compared with the work of a step.
#
# And every purpose has a stream of its own. Above, ``spawn(3)`` made one for parameters, one for
# data and one for draws. A model with one more layer takes more numbers from the first stream and
# leaves the others as they were:

first, second = np.random.default_rng(16).spawn(3), np.random.default_rng(16).spawn(3)
make_model("dpg", vocab_sizes=(3, 40), n_aware=1, n_scenarios=2, hidden=(16, 8, 8)).init(first[0])
assert (first[2].permutation(64) == second[2].permutation(64)).all()
print("The permutations are the same, whatever the model.")

# %%
# Waiting
# -------
# A GPU works through a queue. Python puts work in and runs ahead; ``a @ b`` returns long before the
# product is there. That is good: while the GPU computes, Python prepares what comes next. But when
# Python wants to **see** a number, it must wait until the queue is empty, and after that the GPU
# waits for Python. One such look per step can take more time than the step.
#
# ==========================================  ==============================================
# waits                                       does not wait
# ==========================================  ==============================================
# ``float(loss)``, ``loss.item()``, printing  arithmetic, products, ``where``, ``argsort``
# ``if loss > 1``, ``bool(...)``              ``x[ids]``, ``x[ids] = y`` with integers
# ``x[x > 0]``, ``nonzero``, ``unique``       ``x * (x > 0)``
# ``to_numpy(x)``                             ``scatter_add_rows``
# ==========================================  ==============================================
#
# The third line surprises. The *length* of ``x[x > 0]`` depends on the values, and Python cannot
# make an array without knowing its length. The rest is a matter of habit. Say we want the mean of
# ``x`` over the rows with label 1:

x, y = to_device(rng.normal(size=1000), device), to_device(rng.integers(0, 2, size=1000), device)
waits = x[y == 1].mean()
runs_on = (x * y).sum() / y.sum()
expect_close(runs_on, waits, name="mean of chosen rows")

# %%
# A training that shows its loss need not look at it in every step either. It keeps the losses where
# they are and fetches many at once; ``fit`` does so every 32 steps. ``host_numbers`` fetches all of
# them in one transfer.

there, losses = tree_to_device(params, device), []
for _ in range(8):
    step = step_on(device, there, batch)
    there = tree_map(lambda p, g: p - 0.5 * g, there, dense_gradients(step.grads))
    losses.append({"loss": step.losses["loss"]})  # still there
seen = [of_step["loss"] for of_step in host_numbers(losses)]
print("losses:", *(f"{loss:.4f}" for loss in seen))
assert seen[-1] < seen[0]

# %%
# What a step costs
# -----------------
# The table is from the page *On a GPU* of the documentation, where the command stands: a training
# step of MI-DPG (variant r, divisors 8, float32) on one NVIDIA H200. It is not measured here.
#
# ==============  =======================  =================
# rows per batch  milliseconds per step    µs per row
# ==============  =======================  =================
# 512             0.53                     1.04
# 4,096           0.99                     0.24
# 65,536          4.19                     0.06
# ==============  =======================  =================
#
# 128 times as many rows take 8 times as long. At 512 rows a step is some hundred small kernels, and
# to start them one by one would take longer than their work. Therefore ``fit`` records a step once,
# as a **CUDA graph**, and launches the recording; that is what the table measures. A recording
# repeats the same work on the same addresses, so nothing in it may depend on a value that Python
# has looked at. What was a good habit in the section on waiting is a condition here.
#
# What follows for you: on a GPU take large batches, and develop on the CPU, in float64, where every
# number can be looked at for free.
#
# From the command line or from Python the device is one word:
#
# .. code-block:: shell
#
#    midpg train --model midpg --device cuda
#
# .. code-block:: python
#
#    MultiScenarioClassifier("midpg", scenario="shop", aware=["shop"], device="cuda")
#
# Exercises
# ---------
# **1.** Count how often each id occurs, on the device, without a loop and without waiting. Compare
# with NumPy's ``bincount``.
#
# .. dropdown:: Solution 1
#
#    Add rows of a single 1.
#
#    .. code-block:: python
#
#       counts = to_device(np.zeros((5, 1)), device)
#       ones = to_device(np.ones((len(ids), 1)), device)
#       scatter_add_rows(counts, to_device(ids, device), ones)
#       expect_close(counts[:, 0], np.bincount(ids, minlength=5), name="counts")
#
# **2.** Write the scatter-add as a matrix product, so that the order of its sums is fixed. What
# does that cost with a table of a million rows?
#
# .. dropdown:: Solution 2
#
#    A matrix with a 1 where id and table row meet has as many columns as the table has rows. With
#    a million of them it is far larger than anything else in the step; for a few scenarios it is
#    fine.
#
#    .. code-block:: python
#
#       def by_product(ids, rows, n_rows):
#           xp = get_xp(ids=ids, rows=rows)
#           is_mine = (ids[:, None] == xp.arange(n_rows)).astype(rows.dtype)
#           return is_mine.T @ rows
#
#       found = by_product(to_device(ids, device), to_device(rows, device), 5)
#       expect_close(found, by_loop, name="by a product")
#
# **3.** A learning rate comes out of ``np.linspace(0.1, 0.5, 3)[0]``. What does a step
# ``p - rate * g`` make of float32 parameters, and what is the smallest repair?
#
# .. dropdown:: Solution 3
#
#    The rate is an ``np.float64`` and takes all parameters along, for the rest of the training.
#    ``float(rate)`` is enough. (It waits for nothing: the rate is on the host.)
#
#    .. code-block:: python
#
#       rate = np.linspace(0.1, 0.5, 3)[0]
#       p, g = np.ones(2, np.float32), np.ones(2, np.float32)
#       assert (p - rate * g).dtype == np.float64
#       assert (p - float(rate) * g).dtype == np.float32
