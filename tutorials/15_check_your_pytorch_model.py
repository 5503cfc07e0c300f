"""
Is your PyTorch model right?
============================

You have written MI-DPG in PyTorch, from the paper. It trains, and the loss falls. Is it MI-DPG?
Automatic differentiation does not answer that: it differentiates a wrong forward as faithfully as
a right one (tutorial 14). Here forty lines of PyTorch are checked against the library, number by
number.

**What you will know.** How to tell the library which of your tensors is which; how to read the
report; how a mistake is found, named and repaired; what else is looked at that no number shows.

**Read first.** Tutorials 07, 10 and 14. You should be able to read an ``nn.Module``.

**Equations.** Derivations 3.2a to 3.2g, 3.3a to 3.3c, 3.4r.

**Time.** About five seconds, most of them for the import of PyTorch.
"""

# %%
# The model
# ---------
# This tutorial needs PyTorch, the extra ``torch`` of the library.

try:
    import torch
except ImportError as error:
    raise ImportError("This tutorial needs PyTorch: pip install 'midpg_np[torch]'.") from error

from itertools import pairwise

from torch import nn
from torch.nn.functional import softplus

# %%
# ``Weighted`` is a linear layer with a weighting matrix, variant ``r``: a generator makes the thin
# factor :math:`R_b`, the other one is shared. Core entries are copied twice along both axes,
# :math:`f_r=f_c=2`, and the paper says by which operator: "repeat".


class Weighted(nn.Module):
    def __init__(self, d_aw, d_m, d_n, d_k=2, hidden=5):
        super().__init__()
        self.linear = nn.Linear(d_m, d_n)
        self.generator = nn.Sequential(
            nn.Linear(d_aw + d_m, hidden), nn.ReLU(), nn.Linear(hidden, d_m // 2 * d_k)
        )
        self.share = nn.Parameter(torch.randn(d_k, d_n // 2))

    def core(self, e, h):
        R = self.generator(torch.cat([e, h], dim=1)).unflatten(1, (-1, len(self.share)))
        return torch.sigmoid(R @ self.share)

    def expand(self, Q):
        return Q.repeat(1, 2, 2)

    def forward(self, h, Q):
        V = self.expand(Q) * self.linear.weight.T
        return torch.einsum("bij,bi->bj", V, h) + self.linear.bias


# %%
# The model has a table per field, two such layers, a head, and a discriminator per layer, which it
# calls critic. Field 0 is the scenario-aware one, so the context :math:`e` is the first four
# columns of the input. With ``partner`` given, the mutual-information term is returned beside the
# logit.


class Network(nn.Module):
    layer = Weighted

    def __init__(self, vocab_sizes=(4, 6, 5), k=4, widths=(12, 8, 6)):
        super().__init__()
        shapes = list(pairwise(widths))
        self.tables = nn.ModuleList(nn.Embedding(n, k) for n in vocab_sizes)
        self.layers = nn.ModuleList(self.layer(k, d_m, d_n) for d_m, d_n in shapes)
        self.head = nn.Linear(widths[-1], 1)
        self.critics = nn.ModuleList(
            nn.Sequential(nn.Linear(k + d_m * d_n // 4, 3), nn.ReLU(), nn.Linear(3, 1))
            for d_m, d_n in shapes
        )

    def shuffled(self, e, partner):
        return e[partner]

    def term(self, critic, e, e_neg, q):
        t_pos, t_neg = (critic(torch.cat([x, q], dim=1)) for x in (e, e_neg))
        return (softplus(-t_pos) + softplus(t_neg)).mean()

    def forward(self, codes, partner=None):
        h = torch.cat([table(codes[:, f]) for f, table in enumerate(self.tables)], dim=1)
        e, terms = h[:, :4], []
        for layer, critic in zip(self.layers, self.critics, strict=True):
            Q = layer.core(e, h)
            h = torch.relu(layer(h, Q))
            if partner is not None:
                terms.append(self.term(critic, e, self.shuffled(e, partner), Q.flatten(1)))
        logit = self.head(h)
        return logit if partner is None else (logit, {"mi": torch.stack(terms).mean()})


torch.manual_seed(15)
network = Network()
print(sum(parameter.numel() for parameter in network.parameters()), "parameters")

# %%
# A case with the same sizes
# --------------------------
# ``make_case`` (tutorial 14) draws a training step of the library's model: parameters, a batch, and
# every number that follows. No weight matrix is square, so that nothing transposed fits by chance.
# ``case.params`` are the parameters under the names that the library has for them; those of layer 2
# are called as those of layer 1.

from midpg_np import expect_close, make_case, make_model, plots

model = make_model(
    "midpg",
    vocab_sizes=(4, 6, 5),
    n_aware=1,
    n_scenarios=3,
    dim_embedding=4,
    hidden=(8, 6),
    variant="r",
    row_divisor=2,
    col_divisor=2,
    d_k=2,
    generator_hidden=(5,),
    disc_hidden=(3,),
)
case = make_case(model, seed=15)
print(*[name for name in case.params if not name.startswith("layer_2")], sep="\n")

# %%
# Who is who
# ----------
# A **name map** says for each of these names where the module has it. ``nn.Linear`` keeps its
# weight as outputs × inputs, the library as inputs × outputs, hence ``transpose``. The library has
# the tables of all fields one below the other, hence ``concat``.


def both(case_name, module_name):
    return {
        f"{case_name}.W": {"name": f"{module_name}.weight", "transpose": True},
        f"{case_name}.b": f"{module_name}.bias",
    }


NAMES = {"embedding.table": {"concat": [f"tables.{f}.weight" for f in range(3)]}}
NAMES |= both("head", "head")
for i in range(2):
    layer = f"layer_{i + 1}"
    NAMES |= both(layer, f"layers.{i}.linear")
    NAMES[f"{layer}.weighting.C_share"] = f"layers.{i}.share"
    for j in range(2):
        generator = f"{layer}.weighting.row_generator.layer_{j + 1}"
        NAMES |= both(generator, f"layers.{i}.generator.{2 * j}")
        NAMES |= both(f"discriminators.{layer}.layer_{j + 1}", f"critics.{i}.{2 * j}")

# %%
# The check
# ---------
# ``check`` copies the module, gives the copy the numbers of the case, takes a training step with
# Adam and a prediction, and compares everything that has a name. The module itself stays as it is.

from midpg_np.verify.torch import check

report = check(network, case, NAMES)
print(report)

# %%
# Something is wrong, but these first ones are late: of the inside of the layers nothing has been
# mapped, so the first value that can be compared stands behind all of them. The picture is the
# library's step, with a box for everything that belongs to one layer.

figure = plots.plot_graph(model)
plots.show(figure, "15_graph")

# %%
# The more of the inside has a name, the nearer the report comes to the wrong line. The name of a
# submodule in the map means its output, so this costs no change of the module.

INSIDE = {
    "layer_1.row_generator.output": "layers.0.generator",
    "layer_1.A": "layers.0",
    "layer_2.A": "layers.1",
}
report = check(network, case, NAMES | INSIDE)
for entry in report.comparison.entries:
    if entry.name in INSIDE:
        print(f"{entry.name:<29} {entry.status}")

# %%
# The generator of layer 1 is right, and what the layer makes of it is not. That leaves the core,
# its expansion and the product: a handful of lines. We could read them now. Or ask:

diagnosis = report.diagnose()
((mistake,),) = diagnosis.matches
print("it is:", mistake.name)
print("wrong:", mistake.wrong)
print("right:", mistake.right)
print("fix:  ", mistake.fix)

# %%
# The word has two meanings. What NumPy calls ``repeat``, PyTorch calls ``repeat_interleave``; what
# PyTorch calls ``repeat`` is NumPy's ``tile``. All shapes agree and the model trains. But other
# weights share a core entry than the paper says, and nobody else can use its parameters.

import numpy as np

print("np.repeat                ", np.repeat(np.arange(3), 2))
print("torch, repeat            ", torch.arange(3).repeat(2).numpy())
print("torch, repeat_interleave ", torch.arange(3).repeat_interleave(2).numpy())

# %%
# The repair
# ----------

from midpg_np.layers.repeat import repeat


class Repaired(Weighted):
    def expand(self, Q):
        return Q.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)


class RepairedNetwork(Network):
    layer = Repaired


Q = np.random.default_rng(0).normal(size=(4, 3, 2))
expanded = Repaired(4, 6, 4).expand(torch.tensor(Q)).numpy()
expect_close(expanded, repeat(Q, 6, 4, "block"), name="S", tol=0.0)

report = check(RepairedNetwork(), case, NAMES | INSIDE)
report.raise_if_wrong()
print(report)
assert report.ok

# %%
# Every value that was mapped, every gradient, the parameters after a step of Adam, and the
# prediction: right to rounding, which in float64 means some twelve digits. It is a test to keep:
# for pytest, ``midpg_np.verify.pytest.case_fixture`` makes such cases, of many seeds and options.
#
# A mistake that no value shows
# -----------------------------
# A colleague saves some memory: the shuffled contexts are "only negatives" and need no gradient.


class Detached(RepairedNetwork):
    def shuffled(self, e, partner):
        return e.detach()[partner]


report = check(Detached(), case, NAMES | INSIDE)
print(report)
for (mistake,) in report.diagnose().matches:
    print("it is:", mistake.name)
    print("fix:  ", mistake.fix)

# %%
# All values are right, the loss included, and one single gradient is wrong, that of the table. In
# the parameters it is hard to see: Adam's first step moves every entry by about the step size,
# whatever the size of its gradient, so the two tables differ where a sign does. The context of a
# negative pair **is** the embedding of another row, and its adjoint belongs there (tutorial 10,
# derivations 3.4r).
#
# What no number shows
# --------------------
# Some mistakes leave every number of a step right. ``check`` looks for those it knows, and
# ``report.problems`` has a sentence for each: layers kept in a Python list, which an optimiser
# never sees; one module used as two; parameters without gradient; state that is not saved; a
# prediction that depends on the other rows of the batch; random numbers in a prediction.
# ``report.ok``, asserted above, is true if all numbers agree and there is no such sentence.
#
# Exercises
# ---------
# **1.** Somebody adds ``nn.functional.dropout(h, 0.1)`` in front of the head and does not think of
# prediction: without ``training=self.training`` that function drops there as well. Is it found?
#
# .. dropdown:: Solution 1
#
#    In training the numbers differ, of course. What is wrong with the prediction is a sentence of
#    its own: two passes over the same rows disagree.
#
#    .. code-block:: python
#
#       class Noisy(RepairedNetwork):
#           def forward(self, codes, partner=None):
#               head, self.head = self.head, nn.Identity()
#               out = super().forward(codes, partner)
#               self.head = head
#               h, *rest = out if isinstance(out, tuple) else (out,)
#               logit = head(nn.functional.dropout(h, 0.1))
#               return (logit, *rest) if rest else logit
#
#       problems = check(Noisy(), case, NAMES).problems
#       assert any("prediction" in sentence for sentence in problems)
#
# **2.** You will train in float32. Check the repaired network with ``dtype="float32"``. By how much
# may a logit differ now, and by how much does it?
#
# .. dropdown:: Solution 2
#
#    Numbers have seven digits in place of sixteen, and the tolerance follows. A wrong network is
#    still caught: its errors are far above it.
#
#    .. code-block:: python
#
#       single = check(RepairedNetwork(), case, NAMES, dtype="float32")
#       (logit,) = (e for e in single.comparison.entries if e.name == "logit")
#       assert single.ok and logit.error < logit.allowed < 1e-4
#       assert not check(network, case, NAMES, dtype="float32").ok
#
# **3.** Write ``term`` as many would: both kinds of pairs below each other, labels 1 and 0, and
# ``nn.functional.binary_cross_entropy_with_logits``. What has become of :math:`\lambda`?
#
# .. dropdown:: Solution 3
#
#    The mean now runs over :math:`2B` pairs, where derivations 3.3b has :math:`\frac1B` in front of
#    both kinds together. So the term is halved, and :math:`\lambda` with it.
#
#    .. code-block:: python
#
#       class Stacked(RepairedNetwork):
#           def term(self, critic, e, e_neg, q):
#               t = [critic(torch.cat([x, q], dim=1)) for x in (e, e_neg)]
#               labels = [torch.ones_like(t[0]), torch.zeros_like(t[1])]
#               bce = nn.functional.binary_cross_entropy_with_logits
#               return bce(torch.cat(t), torch.cat(labels))
#
#       report = check(Stacked(), case, NAMES)
#       assert report.diagnose().names == [("regulariser averaged over 2B",)]
#       (mi,) = (e for e in report.comparison.entries if e.name == "mi")
#       expect_close(2 * mi.got, mi.want, name="twice the halved term")
