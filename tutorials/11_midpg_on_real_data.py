r"""
MI-DPG on real data, end to end
===============================

From a table of product ratings to a saved model that predicts raw rows: load, encode, train,
choose an epoch, evaluate every scenario for itself, look at the calibration, save, load, predict.
You will know the calls, and how to read what comes out of them without fooling yourself.

Read first: tutorials 01 (losses per scenario) and 05 to 10 (the model). Equations: derivations 3.3c
(what is minimised); docs/data.md says how tables are encoded, docs/results.md what careful
experiments found. It takes about four seconds on a laptop.
"""

# %%
# The rows
# --------
# The paper's Amazon data is MarketBias electronics: one row is a rating of a product, the
# **scenario** is the category of the product, and the **label** says whether the rating is 4 or 5
# of 5. Nothing is downloaded here. If a folder ``marketbias-electronics`` with the publisher's file
# lies in ``data``, or where the environment variable ``MIDPG_DATA`` points, its rows are used.
# Otherwise a stand-in is generated: the same fields and categories, drawn by the published
# statistics of the real file, at a fraction of its size. What a model gains on the stand-in says
# nothing about the real rows. Everything else in this tutorial is the same for both.

import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from sklearn.metrics import log_loss, roc_auc_score

from midpg_np import (
    MIDPG,
    TrainConfig,
    evaluate,
    fit,
    load_dataset,
    load_model,
    plots,
    save_model,
)
from midpg_np.data import describe
from midpg_np.ops import sigmoid
from midpg_np.training.evaluate import predict_logits

places = [Path("data"), Path(os.environ.get("MIDPG_DATA", "data"))]
folders = [place / "marketbias-electronics" for place in places]
folders = [folder for folder in folders if folder.is_dir()]
if folders:
    splits = load_dataset("marketbias", folders[0])
else:
    splits = load_dataset("synthetic-marketbias", fraction=0.025)
train, valid, test = splits.train, splits.valid, splits.test
print(f"{splits.name}: {len(train):,} training, {len(valid):,} validation, {len(test):,} test rows")
print(*splits.notes, sep="\n")

# %%
# The first line says which rows you are looking at. There are three kinds: **training** rows, from
# which the model learns; **validation** rows, by which choices are made, such as when to stop; and
# **test** rows, which are looked at once, at the end.
#
# Every field is a column of whole numbers by now. The encoder learned the categories from the
# training rows alone, and code 0 of each field stands for whatever they did not have.
# ``describe`` counts:

facts = describe(splits)
for field in facts["fields"]:
    print(f"{field['name']:13} {field['role']:9} {field['vocab_size']:6,} codes")
print("\nscenario                     training rows   rate of label 1")
for part in facts["parts"]["train"]["scenarios"]:
    print(f"{part['name']:27} {part['rows']:14,} {part['positive_rate']:15.3f}")

# %%
# Two things to keep in mind. The scenarios differ in size by far more than in their rates, so a
# mean over all rows is mostly the mean over a few large ones. And there are nearly as many users as
# rows: most embeddings of users are read by a single training row. A model can learn these rows by
# heart and know nothing.

# %%
# A yardstick
# -----------
# Before any network, the simplest prediction: each row gets the rate of its scenario among the
# training rows. **AUC** is the probability that a random row with label 1 is ranked above a random
# row with label 0, 0.5 by chance; **LogLoss** is the cross-entropy, the smaller the better.

rate = np.bincount(train.scenario, train.label) / np.bincount(train.scenario)


def yardstick(dataset):
    """AUC and LogLoss of the scenario's rate."""
    p = rate[dataset.scenario]
    return roc_auc_score(dataset.label, p), log_loss(dataset.label, p)


print("rate of the scenario, validation rows: AUC {:.4f}, LogLoss {:.4f}".format(*yardstick(valid)))

# %%
# A training that can be looked into
# ----------------------------------
# The model is MI-DPG with the library's defaults: hidden widths 128, 64 and 32, variant ``r``.
# ``fit(model, train, valid, config)`` does everything in one call: it validates, stops when that
# gets no better, and returns the best parameters and a history. We want more, the parameters after
# **every** epoch. So we give it no validation rows, let it stop after each epoch, and **resume**
# from the **checkpoint** that it leaves in a folder: a file with all that is needed to go on. An
# interrupted and resumed training takes exactly the steps of an uninterrupted one, to the last bit.

model = MIDPG(train.vocab_sizes, train.n_aware, train.n_scenarios)
config = TrainConfig(seed=0, kernels="numpy")
states, by_epoch = [], []
print("epoch   training CE   training MI   validation AUC   mean of scenarios   LogLoss")
with tempfile.TemporaryDirectory() as checkpoints:
    for epoch in (1, 2, 3):
        until = replace(config, epochs=epoch)
        result = fit(model, train, None, until, run_dir=checkpoints, resume=True)
        states.append(result.params)
        by_epoch.append(evaluate(model, result.params, valid))
        last, now = result.history[-1], by_epoch[-1]
        print(
            f"{epoch:5} {last['train_ce']:13.4f} {last['train_mi']:13.4f} {now.auc:16.4f} "
            f"{now.macro_auc:19.4f} {now.logloss:9.4f}"
        )

# %%
# Read this table column by column.
#
# - The training cross-entropy falls all the way, in the last epoch steeply: the rows are learned by
#   heart.
# - The validation LogLoss gets worse at that point, far worse than the yardstick. The model is now
#   sure of itself, and often wrong.
# - The AUC falls less. It only asks for the **order** of the rows, and does not see by how much a
#   probability is too high.
# - The regulariser stays near :math:`2\log2` = ``1.386``, the value of a discriminator that knows
#   nothing (tutorial 09). It needs more steps than these rows allow. Up to the best epoch nothing
#   says that the cores depend on their contexts. Whatever this model gains until then, it is
#   hardly the regulariser's doing.

best = int(np.argmax([metrics.auc for metrics in by_epoch]))
params = states[best]
print(f"kept: epoch {best + 1}, the one with the best validation AUC")
losses = [record["train_ce"] for record in result.history]
assert losses[0] > losses[1] > losses[2]
assert by_epoch[2].logloss > 1.2 * min(metrics.logloss for metrics in by_epoch)
assert abs(result.history[best]["train_mi"] - 1.386) < 0.05

# %%
# The same epochs for the four largest scenarios:

largest = np.argsort(np.bincount(train.scenario))[:-5:-1]
lines = {
    train.scenario_names[d]: [metrics.scenarios[d].auc for metrics in by_epoch] for d in largest
}
plots.show(plots.plot_scenario_curves(lines), "11_scenarios")

# %%
# They do not peak together, and one might be tempted to tell a story about each. First count the
# rows behind a point, as we do now.

# %%
# The test rows, once
# -------------------
# All choices are made. Now, and not before, the test rows. A model that knows nothing has an AUC of
# 0.5 on average, but not on the rows at hand. With :math:`n_1` rows of label 1 and :math:`n_0` of
# label 0 its AUC strays about 0.5 with the standard deviation
# :math:`\sqrt{(n_1+n_0+1)/(12\,n_1n_0)}` (that of the rank-sum statistic), the column "chance".


def stray(n_rows, positive_rate):
    """Standard deviation of the AUC of a model that knows nothing."""
    n_1 = n_rows * positive_rate
    return np.sqrt((n_rows + 1) / (12.0 * n_1 * (n_rows - n_1)))


metrics = evaluate(model, params, test)
print("scenario                     rows  AUC - 0.5  chance  LogLoss  yardstick")
for d, part in enumerate(metrics.scenarios):
    own = test.label[test.scenario == d]
    if 0.0 < own.mean() < 1.0:  # with labels of one kind there is no AUC
        above, chance = part.auc - 0.5, stray(len(own), own.mean())
        constant = log_loss(own, np.full(len(own), rate[d]))
        numbers = f"{above:+11.3f}{chance:8.3f}{part.logloss:9.3f}{constant:11.3f}"
        print(f"{part.name:27}{part.n_rows:6,}{numbers}")
auc_by_rate, loss_by_rate = yardstick(test)
print(f"all rows: AUC {metrics.auc:.4f}, LogLoss {metrics.logloss:.4f}")
print(f"rate of the scenario: AUC {auc_by_rate:.4f}, LogLoss {loss_by_rate:.4f}")
print(f"mean of the scenarios' AUCs {metrics.macro_auc:.4f}")

# %%
# For the largest scenarios the model is several times the chance above 0.5. For the small ones the
# two columns are of one size, and the AUC says nothing, high or low. In the mean over the scenarios
# such a scenario counts as much as the largest. That mean is a fair question, but a noisy answer.
#
# Compare the two LogLosses as well. Where the model's is the larger one, its probabilities are
# worse than a constant, however well it ranks.

large = max(metrics.scenarios, key=lambda part: part.n_rows)
assert large.auc - 0.5 > 2.0 * stray(large.n_rows, large.positive_rate)

# %%
# Do the predicted rates come true?
# ---------------------------------
# A model is **calibrated** if, among rows with a predicted rate of 0.8, four in five have label 1.
# In the picture the rows of a scenario are sorted by their prediction and cut into ten bins of
# equal size. A point is a bin, and the dotted line is where it should be. Again the four largest
# scenarios, first with the parameters that were kept, then with those of the last epoch.

of_largest = np.where(np.isin(test.scenario, largest), test.scenario, -1)  # -1: left out


def probabilities(state):
    """Predicted rate of every test row."""
    return sigmoid(predict_logits(model, state, test))[0]


figure = plots.plot_calibration(probabilities(params), test.label, of_largest, test.scenario_names)
plots.show(figure, "11_calibration_kept")
p_last = probabilities(states[-1])
figure = plots.plot_calibration(p_last, test.label, of_largest, test.scenario_names)
plots.show(figure, "11_calibration_last")
for name, p in (("kept", probabilities(params)), ("last", p_last)):
    low = np.quantile(p, 0.1)
    print(f"{name} epoch: mean {p.mean():.3f}, a tenth of the predictions is below {low:.2f}")
print(f"observed:   mean {test.label.mean():.3f}")

# %%
# The kept model is near the dotted line on average, its bins scatter about it, and its predictions
# keep to a narrow range: it does not claim to know much. The model of the last epoch does. Its
# predictions spread from low to almost 1, and its line is flat. Where it is surest that a rating is
# bad, most ratings are good all the same. It has become sure of itself without having learned much,
# and this is what the LogLoss saw.

# %%
# What careful experiments say
# ----------------------------
# One training with one seed is an anecdote, and a generated stand-in is not even that. On the
# 52,547 real rows, docs/results.md compares ten seeds per model, nothing tuned. **These figures are
# from there**, not from this run:
#
# =======================  ===============  =======================
# model                    AUC              ahead of the DNN
# =======================  ===============  =======================
# DNN                      0.6311 ± 0.0033
# PLE                      0.6368 ± 0.0026  +0.0058 ± 0.0044
# DPG                      0.6378 ± 0.0022  +0.0068 ± 0.0035
# MI-DPG                   0.6386 ± 0.0018  +0.0076 ± 0.0030
# =======================  ===============  =======================
#
# MI-DPG is ahead of the plain network in these ten seeds, and not significantly ahead of PLE. DPG,
# without the regulariser, is level with it, which fits what the column "training MI" showed above.
# And docs/results.md reports a sobering experiment. With ``gain=2`` the weighting matrices start at
# 1 in place of 1/2, so that the layers start with full weights, and the whole win is gone (0.6287 ±
# 0.0018 in five seeds). On rows that are learned by heart within two epochs, a slow start is worth
# something by itself. Much of the win here is not about scenarios.

# %%
# Save, load, predict raw rows
# ----------------------------
# A model without its encoder is useless: nobody would know that "Headphones" is code 5. So both go
# into one file, and it holds nothing that could be executed.

with tempfile.TemporaryDirectory() as somewhere:
    path = Path(somewhere) / "midpg.safetensors"
    save_model(path, model, params, splits.encoder, meta={"epoch": best + 1})
    print(f"{path.stat().st_size:,} bytes")
    loaded = load_model(path)

again = predict_logits(loaded.model, loaded.params, test)
assert np.array_equal(again, predict_logits(model, params, test))
print(f"the same logits, bit by bit; saved at epoch {loaded.meta['epoch']}")

# %%
# New rows come as columns of raw values, in a mapping, a polars or a pandas frame. There is no
# label yet. All three users are new. Product 1575 of the real file is a pair of Sony headphones (in
# the stand-in the number means nothing), and -1 is a product that nobody has seen.

rows = {
    "category": ["Headphones", "Headphones", "Camera & Photo"],
    "model_attr": ["Male", "Male", "Female"],
    "item_id": [1575, -1, -1],
    "user_id": [-1, -1, -1],
    "brand": ["Sony", "Bose", None],
    "year": [2011, 2016, 2012],
    "user_attr": ["Female", "Male", "Male"],
    "review_year": ["2018", "2018", "2018"],
    "review_month": ["07", "07", "12"],
}
encoded = loaded.encoder.transform(rows, require_label=False, warn=False)
print("codes:", *encoded.codes.tolist(), sep="\n")
print("rows with a category that training did not have:", dict(encoded.unknown_counts))
p = sigmoid(predict_logits(loaded.model, loaded.params, encoded))[0]
print("probability of a rating of 4 or 5:", *(f"{p_b:.2f}" for p_b in p))

# %%
# What is unknown has code 0, and is counted, so that a caller can see how much of a prediction is
# guesswork. The missing brand has code 0, too, but is not counted: training rows without a brand
# have taught this code what it means. On the command line the same steps are ``midpg train`` and
# ``midpg predict``; docs/cli.md has their options.

# %%
# Exercises
# ---------
# **1.** The yardstick has an AUC above 0.5 over all rows. What is its AUC inside each scenario?
# What follows for the AUC over all rows of any model?
#
# .. dropdown:: Solution 1
#
#    Exactly 0.5: inside a scenario all its predictions are equal. Over all rows it is above, since
#    it ranks the scenarios. So an AUC over all rows contains a part that has nothing to do with
#    ranking the rows of a scenario. Always look at both.
#
#    .. code-block:: python
#
#       inside = [
#           roc_auc_score(test.label[own], rate[test.scenario[own]])
#           for own in (test.scenario == d for d in range(test.n_scenarios))
#           if 0 < test.label[own].mean() < 1
#       ]
#       assert np.array_equal(inside, np.full(len(inside), 0.5))
#       assert yardstick(test)[0] > 0.5
#
# **2.** How many rows does a scenario need until chance moves the AUC by no more than 0.01, with
# label 1 in 79 % of the rows? How does that compare with the differences in the table of results?
#
# .. dropdown:: Solution 2
#
#    About five thousand. The differences between models are smaller than that. They can be seen at
#    all because two models are compared on the **same** rows, where most of the chance cancels.
#
#    .. code-block:: python
#
#       sizes = np.arange(1000, 10_000)
#       enough = sizes[np.argmax(stray(sizes, 0.79) < 0.01)]
#       print(enough)
#       assert 4900 < enough < 5200
#
# **3.** A row comes with the category "Drones", which no training row had. What happens? What can
# you do, and why can MI-DPG do it while STAR (a network per scenario) cannot?
#
# .. dropdown:: Solution 3
#
#    The encoder refuses and names the row. With ``unknown_scenario="shared"`` the row gets scenario
#    id -1, and code 0 in its field. MI-DPG never uses the scenario id in a prediction, only the
#    embedding of the field, and code 0 has one. It was never trained, so do not expect much.
#
#    .. code-block:: python
#
#       drone = {column: values[:1] for column, values in rows.items()} | {"category": ["Drones"]}
#       try:
#           loaded.encoder.transform(drone, require_label=False, warn=False)
#           refused = False
#       except ValueError as error:
#           refused = "Drones" in str(error)
#       how = {"unknown_scenario": "shared", "require_label": False, "warn": False}
#       shared = loaded.encoder.transform(drone, **how)
#       assert refused and shared.scenario[0] == -1
#       assert np.isfinite(predict_logits(loaded.model, loaded.params, shared)).all()
