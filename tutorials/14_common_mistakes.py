"""
Common mistakes: make them, see them, name them
===============================================

Most mistakes in a model do not crash. The loss falls, a little slower perhaps, and the numbers look
like numbers. In this tutorial you make mistakes on purpose, one line at a time, and look at what
they do.

**What you will know.** Where a mistake shows first and why that place is the one to look at; why a
gradient check cannot see a wrong forward; how the library finds the name of a mistake from numbers
alone; how to describe one of your own.

**Read first.** Tutorials 02, 05, 06 and 10 (the slips that we make here), 04 (gradient checks).

**Equations.** Derivations 2.1b, 3.2d, 3.4f and 14.

**Time.** About three seconds.
"""

# %%
# A training step in which everything has a name
# ----------------------------------------------
# To say where a calculation goes wrong one needs names for its parts. The library has every model
# a second time, written out step by step: each step has a name, the names of what it reads, one
# operation, and the adjoint of that operation. Such a list is made for looking, not for speed.
#
# A **case** is one training step of a model with all its numbers: what is given (a small batch,
# parameters), every value, every adjoint under the name with ``d.`` in front, every parameter
# after one step of Adam under ``next.``, and the logit of a prediction. The batch is drawn so that
# mistakes show: codes repeat, one scenario has no row, one has a single row, and the permutation of
# the negative pairs is not its own inverse.

import numpy as np

from midpg_np import MISTAKES, compare, diagnose, expect_close, make_case, make_model, plots
from midpg_np.verify.mistakes import Mistake, mistakes_in
from midpg_np.verify.outcome import calculations, outcome

model = make_model(
    "midpg",
    vocab_sizes=(4, 8, 12),
    n_aware=1,
    n_scenarios=3,
    dim_embedding=4,
    hidden=(8, 4),
    row_divisor=2,
    col_divisor=2,
    d_k=2,
    gain=2.0,
    generator_hidden=(5,),
    disc_hidden=(4,),
)
case = make_case(model, seed=2, n_rows=12)
print(len(case.arrays), "quantities")
for step in case.calculation.steps[8:15]:
    shape = case.arrays[step.output].shape
    print(f"{step.output:<15} {shape!s:<12} from {', '.join(step.inputs)}")

# %%
# A slip in a backward pass
# -------------------------
# ``MISTAKES`` is a catalogue of some two hundred classic mistakes. Each can be run: ``outcome``
# takes the same given numbers through the step with that mistake in it. What comes out we call a
# **dump**: the numbers of somebody else's program. Here is a slip from tutorial 06, the repeat
# operator's adjoint as a mean where it should be a sum (derivations 3.4f).

mistake = MISTAKES["adjoint of repeat averaged"]
print("wrong:", mistake.wrong)
print("right:", mistake.right)

dump = outcome(model, case.given, [mistake])
expect_close(dump["loss"], case.arrays["loss"], name="the loss", tol=0.0)

# %%
# The loss is right to the last bit. ``compare`` goes through all quantities and says what differs.
# Adjoints are in backward order, from the loss to the tables, so the first one that differs is
# nearest to the cause.

comparison = compare(case, dump)
print("first wrong value:   ", comparison.first("value"))
print("first wrong gradient:", comparison.first("gradient"))
print(len(comparison.wrong), "of", comparison.n_compared, "quantities are wrong")

# %%
# Every value is right. One line of the backward pass was wrong, and dozens of quantities are: what
# comes behind the first one on the way back has inherited its error. So read from the first.
#
# How wrong is it? The core has two readers in training, the product and the discriminator, and the
# mean spoils what comes from the product only: a quarter of it is left, as every entry is copied
# :math:`f_rf_c=4` times.

from midpg_np.layers.repeat import repeat_backward

name = "layer_2.Q"
d_r, d_c = case.arrays[name].shape[1:]
from_product = repeat_backward(case.arrays["d.layer_2.S"], d_r, d_c, "block")
expect_close(
    dump[f"d.{name}"],
    case.arrays[f"d.{name}"] - (1 - 1 / 4) * from_product,
    name="wrong dQ = dQ less three quarters of the product's part",
)

# %%
# Look at the pattern
# -------------------
# ``grad[ids] += d`` with repeated ids keeps one summand (tutorial 02, derivations 2.1b). Which rows
# of the table are hurt tells the mistake before any catalogue does.

dump = outcome(model, case.given, [MISTAKES["repeated ids overwrite"]])
entry = compare(case, dump).first("gradient")
print(entry)

error = np.abs(dump[entry.name] - case.arrays[entry.name])
n_reads = np.bincount(case.arrays["rows"].ravel(), minlength=len(error))
is_wrong = (error > entry.allowed).any(axis=1)
for what, rows in {"once or never": n_reads < 2, "repeatedly": n_reads > 1}.items():
    print(f"read {what}: {rows.sum()} rows, {is_wrong[rows].sum()} of them wrong")

# %%
# An error map shows the error of each entry in powers of ten beyond what rounding explains: dark is
# right. Here are the rows of all three fields' tables, one below the other. Row 1 belongs to the
# scenario that has nearly all rows of the batch.

figure = plots.plot_error_map(error / entry.allowed, entry.name)
plots.show(figure, "14_repeated_ids")

# %%
# Whole rows, and exactly those that were read repeatedly. Columns would point to a field or a slice
# of the input, the rows of a single scenario to what belongs to that scenario, everything at once
# to a factor.
#
# A slip in a forward pass, and what a gradient check makes of it
# ---------------------------------------------------------------
# Now a value: the core is tiled (0 1 0 1) where it should be repeated (0 0 1 1), derivations 3.2e
# in place of 3.2d. It takes no more than ``np.tile`` for ``np.repeat``, and all shapes agree.

mistake = MISTAKES["core tiled in place of repeated"]
dump = outcome(model, case.given, [mistake])
comparison = compare(case, dump)
print("first wrong value:   ", comparison.first("value"))
print("first wrong gradient:", comparison.first("gradient"))

# %%
# Let us check that program's gradient against differences of its own loss, as in tutorial 04.

wrong_step, _ = calculations(model, [mistake])


def loss_with(shift):
    kernel = case.given["layer_1.W"].copy()
    kernel[2, 5] += shift
    return wrong_step.run(case.given | {"layer_1.W": kernel})["loss"]


difference = (loss_with(1e-5) - loss_with(-1e-5)) / 2e-5
expect_close(dump["d.layer_1.W"][2, 5], difference, name="its own gradient check", tol=1e-6)
print("the program's gradient", dump["d.layer_1.W"][2, 5])
print("the right gradient    ", case.arrays["d.layer_1.W"][2, 5])

# %%
# The check is content, and both numbers differ. A gradient check asks whether the backward fits the
# forward. **That the forward is the model you wanted it cannot know.** For that one needs numbers
# from elsewhere: computed by hand, or by an independent program. A case is such a set of numbers.
#
# How many mistakes would you have noticed?
# -----------------------------------------
# Let us make every mistake that this model can have, one after the other, and sort them by what
# differs first.

kinds = {"a value": 0, "gradients only": 0, "only after the step": 0, "nothing": 0}
for mistake in mistakes_in(model):
    comparison = compare(case, outcome(model, case.given, [mistake]))
    if comparison.first("value"):
        kinds["a value"] += 1
    elif comparison.first("gradient"):
        kinds["gradients only"] += 1
    else:
        kinds["nothing" if comparison.ok else "only after the step"] += 1
for kind, n in kinds.items():
    print(f"{n:>3} change {kind}")
assert kinds["gradients only"] > sum(kinds.values()) / 3

# %%
# More than a third leave every value right: any test of the forward passes, the first loss is the
# right one, and training goes on with a wrong gradient. The few that change nothing need an option
# or a batch that this case does not have, such as a batch of a single row.
#
# Naming a mistake
# ----------------
# ``diagnose`` goes the other way: given a dump, which mistake is it? It runs the step under each
# entry of the catalogue, and names those that reproduce **every** number of the dump. Nothing is
# guessed. The dump need not have everything; here it has the logits and the gradients of the
# parameters, which every framework can give you.

dump = outcome(model, case.given, [MISTAKES["negatives gathered in place of scattered"]])
few = {name: dump[name] for name in ["logit", *(f"d.{path}" for path in case.params)]}
diagnosis = diagnose(case, few)
for (mistake,) in diagnosis.matches:
    print("it is:", mistake.name)
    print("wrong:", mistake.wrong)
    print("right:", mistake.right)
    print("fix:  ", mistake.fix)

# %%
# It is the gather of tutorial 10. The logits are right, and so are all gradients but that of the
# table; of that one only the rows of the scenario-aware field are off.
#
# A mistake of your own
# ---------------------
# No catalogue is complete. This one is missing: a loop over rows writes
# ``dC_share = R[b].T @ dP[b]`` where it should add, so that the last row wins. A mistake is a
# **change of rules**: in the steps whose output matches a pattern (``"*.P"`` is the product
# :math:`R_bC_{share}` of every layer), the adjoint of one input (number 1, the second factor) is
# another function. That function gets the right adjoint, the adjoint of the output, the output and
# the inputs.

from midpg_np.verify.mistakes.mistake import adjoint


def last_row_wins(right, dP, P, R, C_share):
    return R[-1].T @ dP[-1]


mine = Mistake(
    name="gradient of C_share from the last row only",
    models=("dpg", "midpg"),
    equation="3.4",
    wrong="dC_share = R_b^T dP_b of the last row",
    right="dC_share = sum_b R_b^T dP_b",
    shows="gradient",
    fix="Add over the rows (+=): all of them read the shared factor.",
    changes=(adjoint("*.P", last_row_wins, of=1),),
)
dump = outcome(model, case.given, [mine])
diagnosis = diagnose(case, dump)
print("names:", diagnosis.names)
print("blamed:", *diagnosis.blamed)

# %%
# No name, but the place: ``blamed`` are the quantities that are wrong **though all that they are
# computed from is right**. Every rule is applied to the dump's own numbers, so an error is seen
# where it is made and not where it arrives. Two lines of the program are left to read, one per
# layer.
#
# The catalogue is a dictionary. With the new entry in it the same dump has a name.

MISTAKES[mine.name] = mine
print("names:", diagnose(case, dump).names)
del MISTAKES[mine.name]

# %%
# What is left is to make sure that your own tests would have seen it. The library uses the
# catalogue for that, too: its tests must reject every entry, in several draws of a case. And for
# programs in other languages all of this works through files: ``midpg verify export``, ``check``
# and ``diagnose``.
#
# Exercises
# ---------
# **1.** You compare only the logits with those of a colleague, and they agree to the last digit.
# How many of the mistakes of this model may still be in the program?
#
# .. dropdown:: Solution 1
#
#    All that show in the loss, in gradients or in the step. Count the dumps whose logits agree.
#
#    .. code-block:: python
#
#       n_hidden = 0
#       for mistake in mistakes_in(model):
#           logit = outcome(model, case.given, [mistake])["logit"]
#           n_hidden += bool(compare(case, {"logit": logit}).ok)
#       assert n_hidden > 0.5 * len(mistakes_in(model))
#
# **2.** Make two mistakes at once, "adjoint of repeat averaged" and "repeated ids overwrite". Does
# ``diagnose`` find both? Which quantities are blamed, and which are wrong by inheritance?
#
# .. dropdown:: Solution 2
#
#    After the single mistakes it tries pairs. The table is blamed for its own slip alone: even from
#    the dump's own adjoint of :math:`X` the sum over repeated ids comes out otherwise.
#
#    .. code-block:: python
#
#       both = [MISTAKES["adjoint of repeat averaged"], MISTAKES["repeated ids overwrite"]]
#       diagnosis = diagnose(case, outcome(model, case.given, both))
#       assert set(diagnosis.names[0]) == {mistake.name for mistake in both}
#       assert diagnosis.blamed == ("d.layer_2.Q", "d.layer_1.Q", "d.embedding.table")
#       inherited = {e.name for e in diagnosis.comparison.wrong} - set(diagnosis.blamed)
#       assert "d.layer_1.weighting.C_share" in inherited
#
# **3.** Somebody has replaced the core's sigmoid by the cheaper
# :math:`\rho\,\mathrm{clip}(\frac12+\frac P4,0,1)`, which cuts off below 0 and above 1, and its
# derivative with it. Describe the mistake by ``value("*.Q", Rule(forward, backward))``, with
# ``forward(P)`` and ``backward(dQ, Q, P)``, which returns a tuple. What differs first, and what is
# blamed?
#
# .. dropdown:: Solution 3
#
#    The slope :math:`\frac14` is that of the sigmoid at 0, so small entries are nearly right. The
#    first wrong value is the core of layer 1; the core of layer 2 is blamed as well, because it is
#    wrong even from its own right inputs.
#
#    .. code-block:: python
#
#       from midpg_np.verify.longhand import Rule
#       from midpg_np.verify.mistakes.mistake import value
#
#       def clipped(P):
#           return 2.0 * np.clip(0.5 + P / 4, 0.0, 1.0)
#
#       def clipped_backward(dQ, Q, P):
#           return (dQ * 2.0 / 4 * (np.abs(P) < 2.0),)
#
#       hard = Mistake(
#           name="sigmoid clipped",
#           models=("midpg",),
#           equation="3.2",
#           wrong="Q = gain clip(1/2 + P/4, 0, 1)",
#           right="Q = gain sigmoid(P)",
#           shows="value",
#           fix="Use the sigmoid.",
#           changes=(value("*.Q", Rule(clipped, clipped_backward)),),
#       )
#       diagnosis = diagnose(case, outcome(model, case.given, [hard]))
#       assert diagnosis.comparison.first("value").name == "layer_1.Q"
#       assert diagnosis.blamed[:2] == ("layer_1.Q", "layer_2.Q") and not diagnosis.matches
