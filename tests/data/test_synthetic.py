from statistics import NormalDist

import numpy as np
import pytest

from midpg_np.data import describe, load_dataset
from midpg_np.data.synthetic import make_synthetic
from midpg_np.data.teacher import block_repeat, draw_cores, make_teacher


def test_shape_and_sizes():
    data = make_synthetic(20_000, seed=1)
    assert [len(part) for part in data.parts.values()] == [14_000, 2_000, 4_000]
    assert data.train.vocab_sizes == (11, 5, *[31] * 14)
    assert data.train.n_aware == 2 and data.train.n_scenarios == 10
    shares = [row["rows"] / 14_000 for row in describe(data)["parts"]["train"]["scenarios"]]
    assert shares[0] > 0.15 and 0.02 < shares[-1] < 0.05
    for part in data.parts.values():
        assert 0.2 < part.label.mean() < 0.55


def test_truth_explains_the_labels():
    data = make_synthetic(10_000, n_scenarios=3, seed=2)
    teacher = data.truth.teacher
    # Recompute the log-odds from the encoded rows: code k + 1 is category k, all being present.
    values = data.test.codes - 1
    raw = teacher.logit(values)
    for d in range(3):
        mine, theirs = raw[values[:, 0] == d], data.truth.logit["test"][values[:, 0] == d]
        assert np.corrcoef(mine, theirs)[0, 1] > 1 - 1e-12
    for part, dataset in data.parts.items():
        probability = 1 / (1 + np.exp(-data.truth.logit[part]))
        error = np.sqrt(len(dataset)) * abs(probability.mean() - dataset.label.mean())
        assert error < 2.0  # four standard deviations of a mean of coins
        assert 0.85 < data.truth.bayes_auc[part] < 0.97


def test_teacher_multiplies_entry_by_entry():
    rng = np.random.default_rng(0)
    teacher = make_teacher(rng, (2, 3), dim=2, hidden=(4,), rank=1, difference=3, density=0.4)
    values = np.array([[0, 1], [1, 1], [1, 2]])
    for n, context in enumerate(map(tuple, values)):
        h = np.concatenate([teacher.tables[f][v] for f, v in enumerate(context)])
        for layer, d_n in enumerate((4, 1)):
            a = np.zeros(d_n)
            for j in range(d_n):
                a[j] = teacher.biases[layer][j]
                for i in range(4):
                    core = teacher.cores[layer][context][i // 2, j // 2]
                    assert teacher.matrices[layer][context][i, j] == core
                    a[j] += core * teacher.weights[layer][i, j] * h[i]
            h = np.maximum(a, 0.0)
        np.testing.assert_allclose(teacher.logit(values)[n], a[0], rtol=1e-12)


def test_block_repeat_by_hand():
    core = np.array([[[1.0, 2.0]]])
    assert block_repeat(core, 2, 4).tolist() == [[[1, 1, 2, 2], [1, 1, 2, 2]]]


def test_cores_have_low_rank_before_the_sigmoid():
    rng = np.random.default_rng(0)
    cores = draw_cores(rng, (5, 40), (6, 4), rank=2, difference=1.0, density=0.3)
    assert ((cores > 0) & (cores < 2)).all()
    assert abs((cores > 1).mean() - 0.3) < 0.03
    P = -np.log(2 / cores - 1) + NormalDist().inv_cdf(0.7)
    # All contexts share the columns, so even their rows together span two dimensions only.
    assert np.linalg.matrix_rank(P.reshape(-1, 4), tol=1e-8) == 2


def test_no_difference_makes_all_scenarios_alike():
    teacher = make_synthetic(2_000, n_scenarios=3, difference=0.0).truth.teacher
    assert all((S == 1).all() for S in teacher.matrices)


def test_one_seed_one_data_set():
    first, again, other = (load_dataset("synthetic", seed=s, n_rows=2_000) for s in (5, 5, 6))
    np.testing.assert_array_equal(first.train.codes, again.train.codes)
    np.testing.assert_array_equal(first.train.label, again.train.label)
    assert not np.array_equal(first.train.label, other.train.label)


def test_more_rows_keep_the_teacher():
    few, many = make_synthetic(2_000), make_synthetic(3_000)
    np.testing.assert_array_equal(few.truth.teacher.cores[0], many.truth.teacher.cores[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_rows": 20}, "20 rows leave training rows for only . of 10 scenarios"),
        ({"positive_rate": 1.0}, r"positive_rate must lie in \(0, 1\); got 1.0"),
        ({"size_ratio": 0.0}, r"size_ratio must lie in \(0, 1\]; got 0.0"),
        ({"n_scenarios": 0}, "n_scenarios must be at least 1; got 0"),
        ({"hidden": (3,)}, "hidden must be even"),
        ({"density": 1.0}, r"density must lie in \(0, 1\); got 1.0"),
        ({"rank": 0}, "rank must be positive"),
        ({"path": "x.csv"}, "is generated and reads no file"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        load_dataset("synthetic", **options)
