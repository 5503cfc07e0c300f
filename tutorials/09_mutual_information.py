r"""
What a core tells about its context
===================================

MI-DPG adds a term to the loss that rewards cores which depend on their scenario. You will know
where it comes from: how dependence becomes a distance, why a classifier can measure it, why its
best answer is a log ratio, how small the loss can become, and why it matters how one shuffles.

Read first: tutorials 03 (logistic loss), 06 (core) and 07 (what a generator reads). Equations: (6)
and (7) of the paper; derivations 3.3a to 3.3e. It takes about three seconds on a laptop.
"""

# %%
# Two ways to draw a pair
# -----------------------
# A generator reads the scenario-aware embeddings :math:`E^{aw}_b` and the hidden vector of row
# :math:`b`, and makes the core :math:`Q_b`. Nothing so far asks it to care about the scenario: it
# may give all rows the same core, and then the layer is a plain one. The mutual-information
# **regulariser** asks for it: a term that is added to the loss because we want something of the
# network beside small losses. It looks at two things of every row, the **context**
# :math:`e_b=E^{aw}_b` and the core as a vector :math:`q_b`, and rewards dependence: who sees the
# core should be able to tell the context.
#
# For a start let there be so few of both that they can be counted: three contexts, with 50, 30 and
# 20 rows, and cores of four kinds. ``counts`` has a line for each context and a column for each
# core, and an entry says how many of the :math:`B=100` rows have both.

import numpy as np
from sklearn.metrics import mutual_info_score

from midpg_np import MIDPG, Batch, expect_close, plots
from midpg_np.experiments.cores import dependence_ceiling
from midpg_np.layers.mir import MutualInformation
from midpg_np.layers.negatives import NEGATIVES, draw_partner
from midpg_np.losses import jensen_shannon
from midpg_np.ops import sigmoid
from midpg_np.training.lr_schedule import LRSchedule
from midpg_np.training.optim import Adam

counts = np.array([[36, 8, 4, 2], [3, 21, 3, 3], [2, 2, 3, 13]])
e = np.repeat(np.arange(3), counts.sum(axis=1))  # context of each row
q = np.repeat(np.tile(np.arange(4), 3), counts.ravel())  # core of each row
B = len(e)
joint = counts / B
apart = np.outer(joint.sum(axis=1), joint.sum(axis=0))
print("context and core of one row:\n", joint)
print("context of a row, core of another:\n", apart)

# %%
# The two printed tables are two ways to draw a pair:
#
# - A **matching pair** takes context and core of one row: :math:`(e,q)` with the probability
#   :math:`p(e,q)`, the first table.
# - A **shuffled pair** takes the context of one row and the core of a row that has nothing to do
#   with it: :math:`(e,q)` with the probability :math:`p(e)\,p(q)`, the second table.
#
# If contexts and cores had nothing to do with each other, the two tables would be the same. Here
# context 0 and the first core meet in ``0.36`` of all rows, where chance would have it ``0.205``.
# **Dependence is a distance between these two tables.**
#
# Shuffled pairs are drawn from the rows of a batch by a permutation :math:`\pi`: row :math:`b`
# keeps its core and gets the context of its **partner**, row :math:`\pi(b)`. If all permutations
# are equally likely, so is every partner, row :math:`b` itself included. Does that give
# :math:`p(e)\,p(q)`? Let every row have every partner once, and count:

every_row, every_partner = np.divmod(np.arange(B * B), B)
met = np.zeros_like(joint)
np.add.at(met, (e[every_partner], q[every_row]), 1.0 / B**2)
expect_close(met, apart, name="pairs met with every partner")

# %%
# A distance between the two
# --------------------------
# The usual measure of how far a distribution :math:`p` is from another one :math:`p'` is the
# Kullback–Leibler divergence, 0 if the two are the same and positive otherwise. With
# :math:`p(e,q)` and :math:`p(e)\,p(q)` it is Shannon's **mutual information** of context and core.
# The regulariser is named after it, but uses a relative. The **Jensen–Shannon divergence** compares
# both with the mean of the two, :math:`m=\frac12(p+p')`:
#
# .. math:: \mathrm{KL}(p\,\Vert\,p')=\sum_x p(x)\log\frac{p(x)}{p'(x)},\qquad
#           \mathrm{JSD}(p\,\Vert\,p')
#           =\tfrac12\mathrm{KL}(p\,\Vert\,m)+\tfrac12\mathrm{KL}(p'\,\Vert\,m) .
#
# It treats the two alike and lies between 0 and :math:`\log2`. (The sum runs over all pairs
# :math:`x`. Logarithms are natural here, as everywhere, and what they measure is said to be in
# **nats**.) There is a game in it. Somebody tosses a coin and shows you a matching pair for heads,
# a shuffled one for tails. JSD is the mutual information of **the coin** and the pair: what one
# look at the pair tells about the toss. It cannot be more than :math:`\log2`, for a coin holds no
# more.


def divergence(p, other):
    """KL(p || other) in nats; what p does not have does not count."""
    has = p > 0.0
    return np.sum(p[has] * np.log(p[has] / other[has]))


def jsd(p, other):
    """Jensen-Shannon divergence in nats."""
    middle = (p + other) / 2.0
    return divergence(p, middle) / 2.0 + divergence(other, middle) / 2.0


shannon, JSD = divergence(joint, apart), jsd(joint, apart)
print(f"Shannon's mutual information {shannon:.4f}, JSD {JSD:.4f}, log 2 {np.log(2.0):.4f}")

coin_and_pair = np.stack([B * counts, np.outer(counts.sum(axis=1), counts.sum(axis=0))])
expect_close(shannon, mutual_info_score(None, None, contingency=counts), name="Shannon")
in_the_game = mutual_info_score(None, None, contingency=coin_and_pair.reshape(2, -1))
expect_close(JSD, in_the_game, name="JSD, as information on the coin")

# %%
# Play the game
# -------------
# A real core is a vector of real numbers, and nobody knows :math:`p(e,q)`. But the game can be
# played with rows alone. Let a function :math:`T`, the **discriminator**, look at a pair and answer
# with a logit :math:`t=T(e,q)`, so that :math:`\sigma(t)` is how sure it is that the pair matches.
# Judge it by the logistic loss of tutorial 03, with :math:`\mathrm{sp}(t)=\log(1+e^t)`: a matching
# pair costs :math:`-\log\sigma(t)=\mathrm{sp}(-t)`, a shuffled one
# :math:`-\log(1-\sigma(t))=\mathrm{sp}(t)`. With the logits :math:`t^+_b=T(e_b,q_b)` and
# :math:`t^-_b=T(e_{\pi(b)},q_b)`
#
# .. math:: \mathcal L_{mi}=\frac1B\sum_b\bigl[\mathrm{sp}(-t^+_b)+\mathrm{sp}(t^-_b)\bigr] .
#
# This is equation (7) of the paper and ``jensen_shannon`` in the library. In our small world
# :math:`T` is a table of twelve logits. To be free of chance we let it judge all partners.


def game(T):
    """L_mi of a table of logits, over all rows and partners."""
    t_pos, t_neg = T[e, q], T[e[every_partner], q[every_row]]
    return jensen_shannon(t_pos[every_row], t_neg)[0]


print(f"T = 0 costs {game(np.zeros_like(joint)):.4f}, and 2 log 2 is {2.0 * np.log(2.0):.4f}")

# %%
# Who says "I do not know" to everything pays :math:`\log2` for each kind of pair, ``1.3863``
# together. Note that the loss is a mean over :math:`B` rows and not over :math:`2B` pairs.
#
# What would the best discriminator say? On average a pair :math:`(e,q)` comes with weight
# :math:`p=p(e,q)` as a matching one, and with weight :math:`p'=p(e)\,p(q)` as a shuffled one. So
# its logit :math:`t` stands in two terms of the loss and in no others,
#
# .. math:: p\ \mathrm{sp}(-t)+p'\ \mathrm{sp}(t),\qquad\text{with derivative}\quad
#           -p\,\sigma(-t)+p'\sigma(t) .
#
# The derivative is zero where :math:`\sigma(t)/\sigma(-t)=p/p'`, and the left side is just
# :math:`e^t`. There is one minimum, since the second derivative
# :math:`(p+p')\,\sigma(t)\,\sigma(-t)` is positive everywhere:
#
# .. math:: T^\star(e,q)=\log\frac{p(e,q)}{p(e)\,p(q)}=\log\frac{p(e\mid q)}{p(e)} .
#
# **The best logit is a log ratio**: how many times as often the pair occurs as chance would have
# it; or, in the second form, how much the core changes what one would bet on the context. Newton's
# method, the first derivative over the second, finds the same table without being told:

T_best = np.log(joint / apart)
T_found = np.zeros_like(joint)
for _ in range(20):
    first = apart * sigmoid(T_found)[0] - joint * sigmoid(-T_found)[0]
    second = (joint + apart) * sigmoid(T_found)[0] * sigmoid(-T_found)[0]
    T_found -= first / second
expect_close(T_found, T_best, name="T found by descent")

# %%
# What the loss is worth
# ----------------------
# Now insert the best logit. Since :math:`\sigma(T^\star)=p/(p+p')=\frac12\,p/m`, a matching pair
# costs :math:`-\log\sigma(T^\star)=\log2-\log(p/m)`. Averaged over matching pairs, that is
# :math:`\log2-\mathrm{KL}(p\,\Vert\,m)`. Shuffled pairs give the same with :math:`p'`. Together:
#
# .. math:: \mathcal L_{mi}(T^\star)
#           =2\log2-\mathrm{KL}(p\,\Vert\,m)-\mathrm{KL}(p'\,\Vert\,m)
#           =2\log2-2\,\mathrm{JSD} .
#
# This is derivations 3.3d. Every other :math:`T` has a larger loss, so for **every** :math:`T`
# :math:`2\log2-\mathcal L_{mi}(T)\le2\,\mathrm{JSD}`. Whatever a discriminator has learned, its
# loss proves that much dependence. Let five of them try:

expect_close(game(T_best), 2.0 * np.log(2.0) - 2.0 * JSD, name="the loss of the best")
rng = np.random.default_rng(9)
for name, T_tried in {
    "half as sure": 0.5 * T_best,
    "the best": T_best,
    "twice as sure": 2.0 * T_best,
    "the best, roughly": T_best + rng.normal(size=T_best.shape),
    "the opposite": -T_best,
}.items():
    bound = 2.0 * np.log(2.0) - game(T_tried)
    print(f"{name:18} proves {bound:+.4f} of {2.0 * JSD:.4f}")
    assert bound < 2.0 * JSD + 1e-12

# %%
# One that knows too little, or trusts itself too much, proves less. None proves too much.
#
# That is why **all** parameters of MI-DPG may minimise the same number. The discriminators lower
# :math:`\mathcal L_{mi}` by coming nearer to :math:`T^\star`: the bound gets tighter. Generators
# and embeddings lower it by moving the two tables apart: there is more to prove. In a GAN, which
# also has a generator and a discriminator, the generator wants the discriminator to fail. Who
# carries that sign over from there teaches the cores to hide their scenario.

# %%
# How small can it become?
# ------------------------
# A loss is easier to read when one knows its smallest value, its **floor**. Suppose the best that
# can happen: the context takes one value per scenario, scenario :math:`d` with probability
# :math:`p_d`, and each scenario has a core of its own. Then matching pairs lie on the diagonal of
# the table, with probability :math:`p_d`, and shuffled pairs everywhere, with :math:`p_dp_{d'}`.
#
# Off the diagonal there are only shuffled pairs; the best logit is :math:`-\infty` there, and costs
# nothing. On the diagonal there are both, in the ratio :math:`p_d/p_d^2`, so that
# :math:`\sigma(T^\star)=1/(1+p_d)`. Matching pairs cost :math:`-\log\sigma`, and the shuffled pairs
# that happen to fall there :math:`-\log(1-\sigma)`:
#
# .. math:: \mathcal L_{mi}^{\min}
#           =\sum_d p_d\log(1+p_d)+\sum_d p_d^2\log\frac{1+p_d}{p_d} .
#
# This is derivations 3.3e. It is not zero, although the cores tell everything: with probability
# :math:`p_d` a shuffle gives a row the context of another row **of its own scenario**. Such a pair
# is called shuffled, but nobody can tell it from a matching one.


def smallest(p):
    """L_mi that a perfect core and a perfect discriminator reach, scenarios with shares p."""
    return np.sum(p * np.log1p(p)) + np.sum(p * p * np.log((1.0 + p) / p))


for D in (2, 3, 10, 100):
    p = np.full(D, 1.0 / D)
    print(f"{D:3} scenarios: at least {smallest(p):.4f}")
    expect_close(2 * np.log(2) - 2 * jsd(np.diag(p), np.outer(p, p)), smallest(p), name="by JSD")
    expect_close(2 * np.log(2) - dependence_ceiling(np.eye(D)), smallest(p), name="by library")

# %%
# Three ways to shuffle
# ---------------------
# With ten equal scenarios the loss starts near ``1.3863`` and cannot get below ``0.3351``. What
# decides is how likely a partner is of the own scenario. Call it :math:`\zeta_d` for a row of
# scenario :math:`d`, and put :math:`p_d\zeta_d` in place of :math:`p_d^2`:
#
# .. math:: \mathcal L_{mi}^{\min}
#           =\sum_d p_d\Bigl[\log(1+\zeta_d)+\zeta_d\log\bigl(1+\tfrac1{\zeta_d}\bigr)\Bigr] .
#
# With :math:`n_d` rows of scenario :math:`d` in the batch the option ``negatives`` offers
#
# - ``"permutation"``, any one: :math:`\zeta_d=n_d/B`, which is the share :math:`p_d`;
# - ``"derangement"``, a permutation without a fixed point: :math:`\zeta_d=(n_d-1)/(B-1)`;
# - ``"other_scenario"``, any row of another scenario: :math:`\zeta_d=0`, and the floor is 0.


def smallest_for(share):
    """The same for equal scenarios and a partner of the own one with that probability."""
    return np.log1p(share) + share * np.log1p(1.0 / share) if share else 0.0


print("rows of 10 scenarios   permutation   derangement   other_scenario")
for n_rows in (20, 100, 512):
    n_d = n_rows / 10
    floors = [smallest_for(share) for share in (n_d / n_rows, (n_d - 1) / (n_rows - 1), 0)]
    print("{:12}{:19.4f}{:14.4f}{:14.4f}".format(n_rows, *floors))

# %%
# In a batch of ``512`` rows it hardly matters that no row is its own partner. In one of 20, two of
# each scenario, it takes more than a third off the floor. Is it true? Give every scenario a random
# context and a random core, and let the library's discriminator learn, an MLP on :math:`[e,q]`,
# with new partners for the same 20 rows in each step. It learns by **Adam**, the usual way to make
# steps out of gradients (derivations 2.6).

D, n_steps = 10, 800
scenario = np.repeat(np.arange(D), 2)
e_vectors, q_vectors = rng.normal(size=(D, 4))[scenario], rng.uniform(size=(D, 6))[scenario]
mir = MutualInformation(dim_context=4, dim_signal=6)
adam = Adam(lr=0.02, schedule=LRSchedule("cosine", n_steps=n_steps))

losses = {}
for kind in NEGATIVES:
    params, losses[kind] = mir.init(np.random.default_rng(0)), np.empty(n_steps)
    state = adam.init(params)
    for i in range(n_steps):
        partner = draw_partner(rng, scenario, kind)
        losses[kind][i], cache = mir.forward(params, e_vectors, e_vectors[partner], q_vectors)
        *_, grads = mir.backward(1.0, cache)
        adam.update(params, grads, state)

shares = dict(zip(NEGATIVES, (2 / 20, 1 / 19, 0), strict=True))
for kind, values in losses.items():
    reached, floor = values[-200:].mean(), smallest_for(shares[kind])
    print(f"{kind:15} last 200 steps {reached:.2f}, smallest possible {floor:.4f}")
    assert floor - 0.03 < reached < floor + 0.06

# %%
# All three come down to their own floor, the thin line. A point is the mean of 40 steps, and since
# 40 shuffles are a sample, it may dip below.

figure = plots.new_figure(6.4, 3.6)
axes = figure.subplots()
for style, (kind, values) in zip(plots.STYLES, losses.items(), strict=False):
    axes.plot(np.arange(20, n_steps, 40), values.reshape(-1, 40).mean(axis=1), label=kind, **style)
    axes.axhline(smallest_for(shares[kind]), color=style["color"], linewidth=0.9)
axes.axhline(2.0 * np.log(2.0), color="#555555", linestyle=":", linewidth=0.9)
axes.text(n_steps, 1.39, "2 log 2", ha="right", va="bottom")
axes.set(xlabel="step", ylabel=r"loss $\mathcal{L}_{mi}$ in nats", ylim=(0.0, 1.55))
axes.legend(frameon=False, loc="upper right", bbox_to_anchor=(1.0, 0.9))
plots.show(figure, "09_floors")

# %%
# Why not take the lowest?
# ------------------------
# ``"other_scenario"`` looks tempting, since the loss can go to zero. But then
# :math:`2\log2-\mathcal L_{mi}` no longer measures dependence. A permutation only puts the contexts
# into another order, so each is exactly as frequent among shuffled pairs as among matching ones,
# and only the **combination** with the core can give a pair away. A partner from another scenario
# breaks this. Take 90 rows of one scenario and 10 of another, all with the same core, so that there
# is no dependence whatever:

lopsided = np.repeat([0, 1], [90, 10])
for kind in NEGATIVES:
    contexts = lopsided[draw_partner(rng, lopsided, kind)]
    print(f"{kind:15} contexts among shuffled pairs {np.bincount(contexts).tolist()}")

proven = 2.0 * jsd(np.array([0.9, 0.1]), np.array([0.1, 0.9]))
print(f"a discriminator without a look at the core proves {proven:.4f}")

# %%
# The discriminator need not look at the core. It says "matching" to the frequent context and
# "shuffled" to the rare one, and "proves" ``0.7361`` where the truth is 0. A loss well below the
# floor of the permutation is no success. It says that shuffled pairs are drawn differently.
#
# ``"permutation"`` is the default: the paper speaks of "random shuffling", and the bound holds for
# the rows of the batch. ``"derangement"`` has a case, too: if the rows are draws from a
# large population, different rows are independent, while a fixed point of :math:`\pi`, one per
# batch on average, puts a matching pair among the shuffled ones.

# %%
# In the model
# ------------
# MI-DPG has a discriminator for every weighted layer, and one :math:`\pi` per step serves them all.
# In training ``forward`` gets :math:`\pi` among its ``draws`` and returns the mean over the layers
# as the **auxiliary term** ``"mi"``. It is added to the cross-entropy with weight
# :math:`\lambda=1`, equation (8). In a prediction there are no draws, and no discriminator is
# asked. What the term sends back is the matter of tutorial 10, what it makes of the cores that of
# tutorial 12.

model = MIDPG(vocab_sizes=(4, 6, 9), n_aware=1, n_scenarios=3, hidden=(16, 8))
params = model.init(np.random.default_rng(0))
codes = rng.integers((1, 0, 0), model.vocab_sizes, size=(12, 3))
batch = Batch(codes, scenario=codes[:, 0] - 1)
output, cache = model.forward(params, batch, draws=model.draw(rng, batch))
by_hand = [jensen_shannon(pairs.t_pos, pairs.t_neg)[0] for pairs in cache.network.mi.values()]
expect_close(np.mean(by_hand), output.auxiliary["mi"], name="mi, mean over the layers")
assert model.auxiliary_weights == {"mi": 1.0} and not model.forward(params, batch)[0].auxiliary

# %%
# Exercises
# ---------
# **1.** You use a logistic loss that takes the mean over all :math:`2B` pairs. What is its value at
# :math:`T=0`, and what have you done to :math:`\lambda`?
#
# .. dropdown:: Solution 1
#
#    :math:`\log2` in place of :math:`2\log2`, which gives the mistake away. The mean over all pairs
#    is half the sum of two means over :math:`B`, so :math:`\lambda` is halved.
#
#    .. code-block:: python
#
#       from midpg_np import cross_entropy
#
#       t_pos, t_neg = rng.normal(size=(2, 7))
#       labels = np.repeat([1.0, 0.0], 7)
#       stacked, _ = cross_entropy(np.concatenate([t_pos, t_neg]), labels)
#       expect_close(2.0 * stacked, jensen_shannon(t_pos, t_neg)[0], name="twice the mean")
#
# **2.** Ten scenarios, each 0.85 times as large as the one before. Is the floor higher or lower
# than that of ten equal ones? Why?
#
# .. dropdown:: Solution 2
#
#    Higher. What counts is :math:`\sum_dp_d^2`, the probability that a row gets a partner of its
#    own scenario, and it is smallest for equal shares.
#
#    .. code-block:: python
#
#       p = 0.85 ** np.arange(10)
#       p /= p.sum()
#       print(f"unequal {smallest(p):.4f}, equal {smallest(np.full(10, 0.1)):.4f}")
#       assert smallest(p) > smallest(np.full(10, 0.1))
#
# **3.** Somebody trains with ten equal scenarios and ``"permutation"``, and gets a loss of 0.2.
# "Below 0.3351, so you shuffle wrongly", you say. Is that so? There is a second scenario-aware
# field, with four values.
#
# .. dropdown:: Solution 3
#
#    Not necessarily. The context is the combination of **all** scenario-aware fields. If cores tell
#    40 equally frequent contexts apart, the floor is near 0.12. Count contexts, not scenarios;
#    ``dependence_ceiling`` does.
#
#    .. code-block:: python
#
#       contexts = np.array([(d, c) for d in range(10) for c in range(4)])
#       floor = 2 * np.log(2) - dependence_ceiling(contexts)
#       expect_close(floor, smallest(np.full(40, 1 / 40)), name="floor of 40 contexts")
#       assert floor < 0.2
